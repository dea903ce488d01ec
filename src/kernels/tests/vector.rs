//! Row operations against f64, and quantization against the definition.

use super::{Activations, Random, assert_same_bits, each_table};
use crate::kernels::scalar;
use half::f16;

#[test]
fn add_rounds_once() {
    each_table(|kernels| {
        for n in 0..=40 {
            let mut random = Random(n);
            let (x, y) = (random.f32s(n as usize), random.f32s(n as usize));
            let mut added = y.clone();
            (kernels.add)(&mut added, &x);
            let sums: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            assert_same_bits(&added, &sums, kernels.name);
        }
    });
}

#[test]
fn to_f16_rounds_to_nearest_even() {
    each_table(|kernels| {
        let x: Vec<f32> = (0..=u32::MAX).step_by(4099).map(f32::from_bits).collect();
        // Halfway between two f16, for all of them: the even one is right.
        let ties: Vec<f32> =
            (0..0x7c00u32).map(|h| f32::from_bits((f16::from_bits(h as u16).to_f32()).to_bits() | 0x1000)).collect();
        for x in [&x[..], &ties, &x[..13], &x[..0]] {
            let mut got = vec![f16::ONE; x.len()];
            (kernels.to_f16)(x, &mut got);
            for (x, got) in x.iter().zip(got) {
                let want = f16::from_f32(*x);
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{} {x:e}", kernels.name);
            }
        }
    });
}

#[test]
fn quantize_q8_rounds_to_the_nearest_multiple_of_the_scale() {
    each_table(|kernels| {
        let mut random = Random(7);
        let x: Vec<f32> = (0..64 * 32).map(|i| random.f32() * 10f32.powi(i / 64 - 20)).collect();
        let a = Activations::quantize(&x, 1, kernels);
        for (b, x) in x.chunks_exact(32).enumerate() {
            let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert_eq!(a.scales[b], largest / 127.0, "{} block {b}", kernels.name);
            for i in 0..32 {
                let steps = f64::from(x[i]) / f64::from(a.scales[b]);
                let q = a.qs[32 * b + i];
                assert!((f64::from(q) - steps).abs() <= 0.5 + 1e-4, "{} block {b} value {i}", kernels.name);
            }
            for half in 0..2 {
                let want: i32 = a.qs[32 * b + 16 * half..][..16].iter().map(|&q| i32::from(q)).sum();
                assert_eq!(i32::from(a.sums[2 * b + half]), want, "{} block {b}", kernels.name);
            }
        }
    });
}

#[test]
fn quantize_q8_is_bit_equal_in_every_table_whatever_it_is_given() {
    each_table(|kernels| {
        let mut random = Random(8);
        for _ in 0..200 {
            let mut x: Vec<f32> = (0..96).map(|_| f32::from_bits(random.next())).collect();
            // Ties, and values that need the whole range.
            for (i, x) in x[32..64].iter_mut().enumerate() {
                *x = if i == 0 { 127.0 } else { i as f32 - 15.5 };
            }
            x[64..].iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits() & 0x80ff_ffff));
            let (got, want) = (Activations::quantize(&x, 1, kernels), Activations::quantize(&x, 1, &scalar::KERNELS));
            assert_eq!(got.qs, want.qs, "{}", kernels.name);
            assert_eq!(got.sums, want.sums, "{}", kernels.name);
            for (got, want) in got.scales.iter().zip(&want.scales) {
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{}", kernels.name);
            }
        }
    });
}

#[test]
fn quantize_q8_marks_blocks_that_are_not_finite() {
    each_table(|kernels| {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..64 {
                let mut x = [1.0; 64];
                x[at] = bad;
                let a = Activations::quantize(&x, 1, kernels);
                assert!(a.scales[at / 32].is_nan(), "{} {bad} {at}", kernels.name);
                assert_eq!(a.scales[1 - at / 32], 1.0 / 127.0, "{}: the other block is sound", kernels.name);
            }
        }
    });
}

#[test]
fn quantize_q8_makes_blocks_of_tiny_values_zero() {
    each_table(|kernels| {
        for tiny in [0.0, -0.0, 1e-45, -1e-40, 3e-37] {
            let a = Activations::quantize(&[tiny; 32], 1, kernels);
            assert_eq!((a.scales[0], a.qs[0], a.sums[1]), (0.0, 0, 0), "{} {tiny}", kernels.name);
        }
    });
}
