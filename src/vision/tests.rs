use super::*;
use crate::golden;

#[test]
fn towers_and_projectors_match_transformers() {
    for case in golden::cases("vision") {
        let name = case["name"].as_str().unwrap();
        let file = |key: &str| case[key].as_str().unwrap();
        let vision = Vision::from_gguf(&golden::gguf(file("mmproj"))).unwrap();
        let pixels = tiled(&golden::array(file("pixels")), case["pixels_tiled"].as_u64().unwrap() as usize);
        let side = vision.config.image_size;
        let tiles = Tiles { pixels, tiles: 1, side, grid: None, original: (side as u32, side as u32) };
        for cpu in golden::devices() {
            let features = vision.features(&cpu, &golden::never(), &tiles).unwrap();
            let error = golden::relative_error(&features, &golden::array(file("features")));
            println!("{name}, {:?}: features {error:.1e}", cpu.describe());
            assert!(error < 1e-5, "{name}: features differ by {error:e} with {:?}", cpu.describe());
            let tokens = vision.project(&cpu, &golden::never(), features, &tiles).unwrap();
            let error = golden::relative_error(tokens.values(), &golden::array(file("tokens")));
            println!("{name}, {:?}: tokens {error:.1e}", cpu.describe());
            assert!(error < 1e-5, "{name}: tokens differ by {error:e} with {:?}", cpu.describe());
        }
    }
}

/// `n × n` copies of a `[3, s, s]` picture as one.
fn tiled(pixels: &[f32], n: usize) -> Vec<f32> {
    let s = (pixels.len() / 3).isqrt();
    let mut out = Vec::new();
    for line in (0..3).flat_map(|c| (0..n * s).map(move |y| c * s + y % s)) {
        (0..n).for_each(|_| out.extend_from_slice(&pixels[line * s..][..s]));
    }
    out
}

#[test]
fn a_batch_of_tiles_gives_the_bits_of_each_alone() {
    let vision = Vision::from_gguf(&golden::gguf("clip-legacy/mmproj.gguf")).unwrap();
    let pixels = golden::array("inputs/pixels-56.npy");
    let darker: Vec<f32> = pixels.iter().map(|p| p - 0.5).collect();
    let tiles = |pixels: Vec<f32>, n| Tiles { pixels, tiles: n, side: 56, grid: None, original: (56, 56) };
    // More rows than go through a layer together, and a rest.
    let pairs = ROWS / 17 + 3;
    for cpu in golden::devices() {
        let run = |t: &Tiles| {
            let features = vision.features(&cpu, &golden::never(), t).unwrap();
            vision.project(&cpu, &golden::never(), features, t).unwrap().values().to_vec()
        };
        let all = run(&tiles([pixels.clone(), darker.clone()].concat().repeat(pairs), 2 * pairs));
        let alone = [run(&tiles(pixels.clone(), 1)), run(&tiles(darker.clone(), 1))].concat();
        for both in all.chunks(alone.len()) {
            assert!(both.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()), "{:?}", cpu.describe());
        }
    }
}

#[test]
fn a_cancelled_encoding_says_so() {
    let vision = Vision::from_gguf(&golden::gguf("clip-legacy/mmproj.gguf")).unwrap();
    let tiles = Tiles { pixels: vec![0.0; 3 * 56 * 56], tiles: 1, side: 56, grid: None, original: (56, 56) };
    let control = golden::never();
    control.cancel();
    assert!(matches!(vision.features(&golden::devices()[0], &control, &tiles), Err(Error::Cancelled)));
}
