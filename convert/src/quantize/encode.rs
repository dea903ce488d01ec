//! Rows of numbers as blocks, on several threads.

use llava::quant::{self, BlockType};
use std::thread;

/// Values that a thread takes at once: 4 MiB as f32.
const VALUES: usize = 1 << 20;

/// Makes blocks of the rows of one tensor.
pub(crate) struct Encoder<'a> {
    /// The type of the blocks.
    pub to: BlockType,
    /// Values of a row.
    pub columns: usize,
    /// How much the error of each column counts.
    pub importance: Option<&'a [f32]>,
    /// Threads to compute with.
    pub threads: usize,
}

/// What rows lost: sums of squares.
#[derive(Clone, Copy, Default)]
pub(crate) struct Loss {
    lost: f64,
    all: f64,
    /// A value was no finite number.
    pub broken: bool,
    /// A value is too large for the type.
    pub overflown: bool,
}

impl Encoder<'_> {
    /// Rows that make all threads busy.
    pub fn rows_at_once(&self) -> usize {
        self.rows_of_a_thread() * self.threads.max(1)
    }

    fn rows_of_a_thread(&self) -> usize {
        (VALUES / self.columns.max(1)).max(1)
    }

    /// Makes blocks of `n` rows, whose values `read` gives by their number, and adds what they lost.
    pub fn encode(&self, n: usize, read: impl Fn(usize, &mut [f32]) + Sync, out: &mut Vec<u8>, loss: &mut Loss) {
        let Some(row_bytes) = self.to.row_bytes(self.columns).filter(|&b| b > 0) else { return };
        out.resize(n * row_bytes, 0);
        let at_once = self.rows_of_a_thread();
        let convert = |first: usize, out: &mut [u8]| {
            let mut loss = Loss::default();
            let (mut x, mut back) = (vec![0f32; self.columns], vec![0f32; self.columns]);
            for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                read(row, &mut x);
                if x.iter().any(|v| !v.is_finite()) {
                    loss.broken = true;
                    break;
                }
                quant::quantize(self.to, &x, self.importance, out);
                quant::dequantize(self.to, out, &mut back);
                for (x, back) in x.iter().zip(&back) {
                    loss.overflown |= !back.is_finite();
                    loss.lost += f64::from(x - back).powi(2);
                    loss.all += f64::from(*x).powi(2);
                }
            }
            loss
        };
        let losses: Vec<Loss> = thread::scope(|scope| {
            let parts = out.chunks_mut(at_once * row_bytes).enumerate();
            let threads: Vec<_> = parts.map(|(i, out)| scope.spawn(move || convert(i * at_once, out))).collect();
            // A panic in a thread is one here.
            threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        for l in losses {
            loss.lost += l.lost;
            loss.all += l.all;
            loss.broken |= l.broken;
            loss.overflown |= l.overflown;
        }
    }
}

impl Loss {
    /// The norm of what was lost over the norm of all.
    pub fn error(&self) -> f64 {
        if self.all > 0.0 { (self.lost / self.all).sqrt() } else { 0.0 }
    }

    /// What is wrong with the values, if anything.
    pub fn complaint(&self, to: BlockType) -> Option<String> {
        match (self.broken, self.overflown) {
            (true, _) => Some("has weights that are no finite numbers: the checkpoint is damaged".to_owned()),
            (_, true) => Some(format!("has weights too large for {to}: choose BF16 or F32 for it")),
            _ => None,
        }
    }
}
