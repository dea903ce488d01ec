//! Test pictures that are cheap to make alike in Rust and in Python (tests/golden/pattern.py), and their hash.
#![allow(dead_code, reason = "each test uses its part")]

/// A picture `[height, width, 3]`.
pub fn pattern(kind: &str, width: usize, height: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut out = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                out.push(match kind {
                    "noise" => {
                        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                        (state >> 24) as u8
                    }
                    "ramp" => ((x * 5 + y * 3 + c * 85) % 256) as u8,
                    "blocks" => ((x / 3 + y / 5 + c) % 2 * 255) as u8,
                    other => panic!("no pattern {other}"),
                });
            }
        }
    }
    out
}

/// 64-bit FNV-1a.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf29ce484222325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3))
}

/// The lines of a file beside its generator in tests/golden, split into words.
pub fn golden(path: &str) -> Vec<Vec<String>> {
    let path = format!("{}/tests/golden/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}
