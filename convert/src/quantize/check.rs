//! What quantising did to what a model says.

use super::text;
use llava::{Control, Error, Model};

/// Two models on the same text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Positions that were compared.
    pub positions: usize,
    /// Perplexity of the one, as `llama-perplexity` counts it: over the second half of each chunk.
    pub before: f64,
    /// Perplexity of the other.
    pub after: f64,
    /// How often both think the same token the most likely, 0 to 1.
    pub agreement: f64,
}

/// Reads `text` with two models of one vocabulary: at most `chunks` times 512 tokens. `on_chunk` is called before each chunk
/// with how many are done and how many there are.
///
/// # Errors
/// [`Error::InvalidArgument`] for a text that is too short or models with different vocabularies; [`Error::Cancelled`].
pub fn compare(
    before: &Model,
    after: &Model,
    text: &str,
    chunks: usize,
    control: &Control,
    mut on_chunk: impl FnMut(usize, usize),
) -> Result<Comparison, Error> {
    let all = text::chunks(before, text, text::CHUNK)?;
    if text::chunks(after, text, text::CHUNK)? != all {
        let reason = format!("{} and {} cut it into different tokens", before.files().0, after.files().0);
        return Err(Error::InvalidArgument { name: "text", reason });
    }
    let total = all.len().min(chunks);
    let (mut positions, mut same) = (0, 0);
    let mut losses = [0.0; 2];
    for (i, chunk) in all.iter().take(total).enumerate() {
        on_chunk(i, total);
        if control.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (input, first) = (text::input(chunk), chunk.len() / 2);
        let n = chunk.len() - first;
        let (a, b) = (before.logits_with(&input, n, control)?, after.logits_with(&input, n, control)?);
        let rows = a.chunks_exact(a.len() / n).zip(b.chunks_exact(b.len() / n));
        // What comes after the last position is not known.
        for ((a, b), &next) in rows.zip(&chunk[first + 1..]) {
            losses[0] += loss(a, next);
            losses[1] += loss(b, next);
            same += usize::from(best(a) == best(b));
            positions += 1;
        }
    }
    let [before, after] = losses.map(|sum| (sum / positions as f64).exp());
    Ok(Comparison { positions, before, after, agreement: same as f64 / positions as f64 })
}

/// Minus the natural logarithm of the probability of `token`; infinite for one that has no logit.
fn loss(logits: &[f32], token: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
    logits.get(token as usize).map_or(f64::INFINITY, |l| sum.ln() - f64::from(l - most))
}

/// The most likely token; of equals the first.
fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).reduce(|best, i| if logits[i] > logits[best] { i } else { best })
}
