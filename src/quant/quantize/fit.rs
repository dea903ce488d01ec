//! The searches for scales and codes that ggml's quantizers are made of (`ggml-quants.c`), sum for sum in the same order,
//! so that the blocks have the same bits.

/// Values below this are all zero (`GROUP_MAX_EPS`).
pub(super) const TINY: f32 = 1e-15;

/// The nearest integer, halves to even, for up to 2²² in magnitude (`nearest_int`). Others give some number.
pub(super) fn nearest(x: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³: integers have a spacing of one there
    ((x + SHIFT).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// The value of largest magnitude, the first of them.
pub(super) fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |largest, &v| if v.abs() > largest.abs() { v } else { largest })
}

/// Codes `−n..n` and the scale for which `scale · code` is near `x`, each error weighted (`make_qx_quants`).
/// Codes are written with `n` added.
pub(super) fn scale(n: i32, x: &[f32], weights: &[f32], codes: &mut [u8]) -> f32 {
    let largest = largest(x);
    if largest.abs() < TINY {
        codes.fill(0);
        return 0.0;
    }
    let code = |inverse: f32, v: f32| nearest(inverse * v).clamp(-n, n - 1);
    let sums = |inverse: f32| {
        x.iter().zip(weights).fold((0f32, 0f32), |(lx, l2), (&v, &w)| {
            let l = code(inverse, v) as f32;
            (lx + w * v * l, l2 + w * l * l)
        })
    };
    let mut chosen = -n as f32 / largest;
    let (lx, l2) = sums(chosen);
    let mut scale = if l2 != 0.0 { lx / l2 } else { 0.0 };
    let mut best = scale * lx;
    for step in (-9..=9).filter(|&s| s != 0) {
        let inverse = -(n as f32 + 0.1 * step as f32) / largest;
        let (lx, l2) = sums(inverse);
        if l2 > 0.0 && lx * lx > best * l2 {
            (chosen, scale) = (inverse, lx / l2);
            best = scale * lx;
        }
    }
    for (to, &v) in codes.iter_mut().zip(x) {
        *to = (code(chosen, v) + n) as u8;
    }
    scale
}

/// As [`scale`] with the weights `x²`, but each code is then moved to where it is best among the others
/// (`make_q3_quants`).
pub(super) fn scale_by_turns(n: i32, x: &[f32; 16], out: &mut [u8]) -> f32 {
    let largest = largest(x);
    if largest.abs() < TINY {
        out.fill(0);
        return 0.0;
    }
    let inverse = -n as f32 / largest;
    let mut codes = x.map(|v| nearest(inverse * v).clamp(-n, n - 1));
    let (mut lx, mut l2) = (0f32, 0f32);
    for (&v, &l) in x.iter().zip(&codes) {
        let (w, l) = (v * v, l as f32);
        lx += w * v * l;
        l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (&v, code) in x.iter().zip(&mut codes) {
            let (w, l) = (v * v, *code as f32);
            let mut other_lx = lx - w * v * l;
            if other_lx > 0.0 {
                let mut other_l2 = l2 - w * l * l;
                let new = nearest(v * other_l2 / other_lx).clamp(-n, n - 1);
                if new != *code {
                    let l = new as f32;
                    other_lx += w * v * l;
                    other_l2 += w * l * l;
                    if other_l2 > 0.0 && other_lx * other_lx * l2 > lx * lx * other_l2 {
                        (*code, lx, l2) = (new, other_lx, other_l2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    out.iter_mut().zip(codes).for_each(|(to, l)| *to = (l + n) as u8);
    if l2 > 0.0 { lx / l2 } else { 0.0 }
}

/// How [`scale_and_minimum`] searches.
#[derive(Clone, Copy)]
pub(super) struct Search {
    /// The first scale tried, in codes more than the plain one has.
    pub(super) first: f32,
    /// From one to the next.
    pub(super) step: f32,
    /// Steps after the first.
    pub(super) steps: u32,
    /// Errors count by their magnitude and not by its square.
    pub(super) absolute: bool,
}

/// Codes `0..=n`, scale and minimum for which `scale · code − minimum` is near `x`, each error weighted; the minimum is not
/// negative (`make_qkx2_quants`, `make_qkx3_quants`).
pub(super) fn scale_and_minimum(n: i32, x: &[f32], weights: &[f32], search: Search, codes: &mut [u8]) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for (&v, &w) in x.iter().zip(weights).skip(1) {
        min = if v < min { v } else { min };
        max = if v > max { v } else { max };
        sum_w += w;
        sum_x += w * v;
    }
    min = if min > 0.0 { 0.0 } else { min };
    if max <= min {
        codes.fill(0);
        return (0.0, -min);
    }
    let code = |inverse: f32, v: f32, min: f32| nearest(inverse * (v - min)).clamp(0, n) as u8;
    let error = |codes: &[u8], scale: f32, min: f32| {
        codes.iter().zip(x).zip(weights).fold(0f32, |sum, ((&c, &v), &w)| {
            let d = scale * f32::from(c) + min - v;
            sum + w * if search.absolute { d.abs() } else { d * d }
        })
    };
    let inverse = n as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    codes.iter_mut().zip(x).for_each(|(to, &v)| *to = code(inverse, v, min));
    let mut best = error(codes, scale, min);
    let mut tried = [0; 32];
    let tried = &mut tried[..x.len()];
    for step in 0..=search.steps {
        // From the best minimum so far.
        let inverse = (search.first + search.step * step as f32 + n as f32) / (max - min);
        let (mut l, mut l2, mut xl) = (0f32, 0f32, 0f32);
        for ((to, &v), &w) in tried.iter_mut().zip(x).zip(weights) {
            *to = code(inverse, v, min);
            let c = f32::from(*to);
            l += w * c;
            l2 += w * c * c;
            xl += w * c * v;
        }
        let determinant = sum_w * l2 - l * l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * xl - sum_x * l) / determinant;
            let mut this_min = (l2 * sum_x - l * xl) / determinant;
            if this_min > 0.0 {
                (this_min, this_scale) = (0.0, xl / l2);
            }
            let this = error(tried, this_scale, this_min);
            if this < best {
                (best, scale, min) = (this, this_scale, this_min);
                codes.copy_from_slice(tried);
            }
        }
    }
    (scale, -min)
}

/// Codes `0..=n` and the scale for which `scale · code` is near `x`, none of which is negative (`make_qp_quants`).
pub(super) fn positive(n: i32, x: &[f32], weights: &[f32], codes: &mut [u8]) -> f32 {
    let max = x.iter().fold(0f32, |max, &v| if v > max { v } else { max });
    if max < TINY {
        codes.fill(0);
        return 0.0;
    }
    let error = |inverse: f32| {
        let scale = 1.0 / inverse;
        x.iter().zip(weights).fold(0f32, |sum, (&v, &w)| {
            let d = v - scale * nearest(inverse * v).min(n) as f32;
            sum + w * d * d
        })
    };
    let mut chosen = n as f32 / max;
    let mut best = error(chosen);
    for step in (-4..=4).filter(|&s| s != 0) {
        let inverse = (0.1 * step as f32 + n as f32) / max;
        let this = error(inverse);
        if this < best {
            (best, chosen) = (this, inverse);
        }
    }
    let (mut lx, mut l2) = (0f32, 0f32);
    for ((to, &v), &w) in codes.iter_mut().zip(x).zip(weights) {
        let l = nearest(chosen * v).min(n);
        *to = l as u8;
        let l = l as f32;
        lx += w * v * l;
        l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((code, &v), &w) in codes.iter_mut().zip(x).zip(weights) {
            let l = f32::from(*code);
            let (mut other_lx, mut other_l2) = (lx - w * v * l, l2 - w * l * l);
            if other_lx > 0.0 && other_l2 > 0.0 {
                let new = nearest(v * other_l2 / other_lx).min(n);
                if new != i32::from(*code) {
                    let l = new as f32;
                    other_lx += w * v * l;
                    other_l2 += w * l * l;
                    if other_lx * other_lx * l2 > lx * lx * other_l2 {
                        (*code, lx, l2) = (new as u8, other_lx, other_l2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if l2 > 0.0 { lx / l2 } else { 0.0 }
}

/// The index of the value nearest to `x` in ascending `values` (`best_index_int8`).
pub(super) fn nearest_of(values: &[i8; 16], x: f32) -> u8 {
    let value = |i: usize| f32::from(values[i]);
    if x <= value(0) {
        return 0;
    }
    if x >= value(15) {
        return 15;
    }
    let (mut below, mut above) = (0, 15);
    while above - below > 1 {
        let middle = (below + above) / 2;
        if x < value(middle) { above = middle } else { below = middle }
    }
    if x - value(above - 1) < value(above) - x { above as u8 - 1 } else { above as u8 }
}
