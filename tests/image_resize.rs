//! The resize against Pillow's (tests/golden/resize/make.py).

mod pattern;

use llava::image::resize;
use pattern::{fnv1a, golden, pattern};

fn resized(case: &[String]) -> Vec<u8> {
    let size = |i: usize| case[i].parse::<u32>().unwrap();
    let (from, to) = ((size(1), size(2)), (size(3), size(4)));
    resize(&pattern(&case[0], from.0 as usize, from.1 as usize), from, to).unwrap()
}

#[test]
fn small_results_equal_pillows_byte_for_byte() {
    let cases = golden("resize/pillow_full.txt");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let hex: String = resized(&case).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, case[5], "{:?}", &case[..5]);
    }
}

#[test]
fn results_hash_like_pillows_over_the_whole_grid() {
    let cases = golden("resize/pillow.txt");
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let wrong: Vec<_> = cases.iter().filter(|case| format!("{:016x}", fnv1a(resized(case))) != case[5]).collect();
    assert!(wrong.is_empty(), "{} of {} differ: {wrong:?}", wrong.len(), cases.len());
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(resize(&[], (0, 1), (1, 1)).is_err());
    assert!(resize(&[0; 3], (1, 1), (0, 1)).is_err());
    assert!(resize(&[0; 4], (1, 1), (1, 1)).is_err());
    assert!(resize(&[0; 3], (u32::MAX, u32::MAX), (1, 1)).is_err());
    assert!(resize(&[0; 3], (1, 1), (u32::MAX, 1)).is_err());
    let huge = resize(&[0; 3], (1, 1), (65535, 65535)).unwrap_err();
    assert!(huge.to_string().contains("memory"), "{huge}");
}
