//! From logits to the next token.

use crate::error::{Error, Result};
use std::cmp::Ordering;

/// How an answer is generated.
///
/// The default is greedy: always the most likely token, so the same question has the same answer. Probabilities are
/// shaped in the order of Hugging Face's `generate`: repetition penalty, temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Tokens in the answer at most. 512.
    pub max_tokens: usize,
    /// Divides the logits; 0 is greedy. 0.
    pub temperature: f32,
    /// Draw from this many of the most likely tokens; 0 is all of them. 0.
    pub top_k: usize,
    /// Draw from the fewest most likely tokens whose probabilities sum to this; 1 is all of them. 1.
    pub top_p: f32,
    /// Draw only from tokens at least this likely relative to the most likely one; 0 is all of them. 0.
    pub min_p: f32,
    /// Makes tokens of the answer so far less likely (arXiv:1909.05858, section 4.1): above 1 discourages. 1.
    pub repeat_penalty: f32,
    /// Seed of the random draws; `None` takes a different one every time. `None`.
    pub seed: Option<u64>,
    /// Added to the logits of tokens before anything else; negative infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Texts that end the answer; they are not part of it. The template's own are always in force.
    pub stop: Vec<String>,
    /// Tokens that end the answer. The model's own are always in force.
    pub stop_tokens: Vec<u32>,
    /// Report each token's log-probability and those of this many most likely tokens at its place. `None`.
    pub logprobs: Option<usize>,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            max_tokens: 512,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            seed: None,
            logit_bias: Vec::new(),
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            logprobs: None,
        }
    }
}

impl Generation {
    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the field and its range.
    pub fn validate(&self) -> Result<()> {
        let check = |name: &'static str, ok: bool, value: f32, range: &str| match ok {
            true => Ok(()),
            false => Err(Error::argument(name, format!("is {value}, expected {range}"))),
        };
        let t = self.temperature;
        check("temperature", t.is_finite() && t >= 0.0, t, "0 (greedy) or more")?;
        check("top_p", self.top_p > 0.0 && self.top_p <= 1.0, self.top_p, "more than 0, up to 1")?;
        check("min_p", (0.0..1.0).contains(&self.min_p), self.min_p, "0 to less than 1")?;
        let p = self.repeat_penalty;
        check("repeat_penalty", p.is_finite() && p > 0.0, p, "more than 0")?;
        match self.logit_bias.iter().find(|(_, b)| b.is_nan() || *b == f32::INFINITY) {
            Some((id, b)) => Err(Error::argument("logit_bias", format!("is {b} for token {id}"))),
            None => Ok(()),
        }
    }
}

/// A token and its natural log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Its log-probability under the model, before any of [`Generation`]'s shaping.
    pub logprob: f32,
}

/// Draws tokens as a [`Generation`] says.
pub(crate) struct Sampler {
    options: Generation,
    rng: Rng,
    /// The answer so far.
    seen: Vec<u32>,
    /// Ids that are candidates, most likely first as far as sorted.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    pub(crate) fn new(options: Generation) -> Self {
        let seed = options.seed.unwrap_or_else(random_seed);
        Self { options, rng: Rng::new(seed), seen: Vec::new(), candidates: Vec::new() }
    }

    /// The next token, from the logits of all tokens. `None` if no token has a finite logit.
    pub(crate) fn next(&mut self, logits: &mut [f32]) -> Option<u32> {
        let o = &self.options;
        for &(id, bias) in &o.logit_bias {
            if let Some(l) = logits.get_mut(id as usize) {
                *l += bias;
            }
        }
        if o.repeat_penalty != 1.0 {
            let mut seen = self.seen.clone();
            seen.sort_unstable();
            seen.dedup();
            for id in seen {
                if let Some(l) = logits.get_mut(id as usize) {
                    *l = if *l < 0.0 { *l * o.repeat_penalty } else { *l / o.repeat_penalty };
                }
            }
        }
        let id = if o.temperature == 0.0 { argmax(logits) } else { self.draw(logits) }?;
        self.seen.push(id);
        Some(id)
    }

    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        let o = &self.options;
        let best = logits[argmax(logits)? as usize];
        let c = &mut self.candidates;
        c.clear();
        // Weights relative to the best token, whose own is 1.
        let weight = |l: f32| ((l - best) / o.temperature).exp();
        c.extend((0..).zip(logits).filter(|(_, l)| l.is_finite()).map(|(i, &l)| (i, weight(l))));
        let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if o.top_k > 0 && o.top_k < c.len() {
            c.select_nth_unstable_by(o.top_k - 1, descending);
            c.truncate(o.top_k);
        }
        if o.top_p < 1.0 {
            c.sort_unstable_by(descending);
            let limit = o.top_p * c.iter().map(|(_, w)| w).sum::<f32>();
            let mut sum = 0.0;
            let kept = c.iter().take_while(|(_, w)| {
                let more = sum < limit;
                sum += w;
                more
            });
            let kept = kept.count().max(1);
            c.truncate(kept);
        }
        c.retain(|(_, w)| *w >= o.min_p);
        let mut rest = self.rng.unit() * c.iter().map(|(_, w)| f64::from(*w)).sum::<f64>();
        let drawn = c.iter().find(|(_, w)| {
            rest -= f64::from(*w);
            rest < 0.0
        });
        drawn.or(c.last()).map(|(id, _)| *id)
    }
}

/// The most likely token, the first of equals; NaN never wins.
pub(crate) fn argmax(logits: &[f32]) -> Option<u32> {
    let finite = (0..).zip(logits).filter(|(_, l)| l.is_finite());
    finite.max_by(|(i, a), (j, b)| a.partial_cmp(b).unwrap_or(Ordering::Equal).then(j.cmp(i))).map(|(i, _)| i)
}

/// `log Σ exp(logits)`: what a logit lacks to be a log-probability.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f32 {
    let finite = || logits.iter().copied().filter(|l| l.is_finite());
    let max = finite().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return max;
    }
    max + (finite().map(|l| f64::from(l - max).exp()).sum::<f64>().ln() as f32)
}

/// The `n` most likely tokens, most likely first.
pub(crate) fn top_logprobs(logits: &[f32], n: usize) -> Vec<TokenLogprob> {
    let total = log_sum_exp(logits);
    let mut all: Vec<_> = (0..).zip(logits).filter(|(_, l)| l.is_finite()).map(|(i, &l)| (i, l)).collect();
    let n = n.min(all.len());
    let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if n < all.len() {
        all.select_nth_unstable_by(n, descending);
        all.truncate(n);
    }
    all.sort_unstable_by(descending);
    all.into_iter().map(|(id, l)| TokenLogprob { id, logprob: l - total }).collect()
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, and the same on every machine.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, f32::NAN, 2.5, f32::NEG_INFINITY, -1.0];

    /// How often each token is drawn in 4,000.
    fn counts(options: Generation) -> [usize; 6] {
        let mut sampler = Sampler::new(Generation { seed: Some(7), ..options });
        let mut counts = [0; 6];
        for _ in 0..4000 {
            sampler.seen.clear();
            counts[sampler.next(&mut LOGITS.clone()).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_best_and_never_nan() {
        assert_eq!(argmax(&LOGITS), Some(1));
        assert_eq!(argmax(&[f32::NAN, 2.0, 2.0, f32::NAN]), Some(1));
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn temperature_draws_with_the_softmax_probabilities() {
        let counts = counts(Generation { temperature: 1.0, ..Default::default() });
        let total: f64 = [1.0, 3.0, 2.5, -1.0].iter().map(|l: &f64| l.exp()).sum();
        for (i, l) in [(0, 1.0f64), (1, 3.0), (3, 2.5), (5, -1.0)] {
            let (expected, got) = (l.exp() / total, counts[i] as f64 / 4000.0);
            // Four standard deviations of a binomial.
            assert!((got - expected).abs() < 4.0 * (expected * (1.0 - expected) / 4000.0).sqrt(), "{i}: {got}");
        }
        assert_eq!((counts[2], counts[4]), (0, 0));
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_unlikely() {
        let kept = |o: Generation| counts(o).map(|n| n > 0);
        let t = Generation { temperature: 1.0, ..Default::default() };
        assert_eq!(kept(Generation { top_k: 2, ..t.clone() }), [false, true, false, true, false, false]);
        assert_eq!(kept(Generation { top_k: 1, ..t.clone() }), [false, true, false, false, false, false]);
        // Probabilities .57 .34 .08 .01: the second reaches .6, the third is needed for .95.
        assert_eq!(kept(Generation { top_p: 0.5, ..t.clone() }), [false, true, false, false, false, false]);
        assert_eq!(kept(Generation { top_p: 0.6, ..t.clone() }), [false, true, false, true, false, false]);
        assert_eq!(kept(Generation { top_p: 0.95, ..t.clone() }), [true, true, false, true, false, false]);
        // Relative to the best: .61, .14, .02.
        assert_eq!(kept(Generation { min_p: 0.1, ..t.clone() }), [true, true, false, true, false, false]);
        assert_eq!(kept(Generation { min_p: 0.5, ..t }), [false, true, false, true, false, false]);
    }

    #[test]
    fn penalty_and_bias_change_the_choice() {
        let mut s = Sampler::new(Generation { repeat_penalty: 1.5, ..Default::default() });
        assert_eq!(s.next(&mut LOGITS.clone()), Some(1));
        // 3 / 1.5 is less than 2.5.
        assert_eq!(s.next(&mut LOGITS.clone()), Some(3));
        let bias = vec![(5, 10.0), (1, f32::NEG_INFINITY), (1000, 1.0)];
        let mut s = Sampler::new(Generation { logit_bias: bias, ..Default::default() });
        assert_eq!(s.next(&mut LOGITS.clone()), Some(5));
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let run = |seed| {
            let mut s = Sampler::new(Generation { temperature: 1.5, seed: Some(seed), ..Default::default() });
            (0..50).map(|_| s.next(&mut LOGITS.clone()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let top = top_logprobs(&LOGITS, 10);
        assert_eq!(top.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 3, 0, 5]);
        let sum: f64 = top.iter().map(|t| f64::from(t.logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(top_logprobs(&LOGITS, 2), top[..2]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let d = Generation::default;
        for (o, name) in [
            (Generation { temperature: -1.0, ..d() }, "temperature"),
            (Generation { temperature: f32::NAN, ..d() }, "temperature"),
            (Generation { top_p: 0.0, ..d() }, "top_p"),
            (Generation { min_p: 1.0, ..d() }, "min_p"),
            (Generation { repeat_penalty: 0.0, ..d() }, "repeat_penalty"),
            (Generation { logit_bias: vec![(1, f32::NAN)], ..d() }, "logit_bias"),
        ] {
            assert!(o.validate().unwrap_err().to_string().starts_with(name), "{name}");
        }
        assert!(d().validate().is_ok());
    }
}
