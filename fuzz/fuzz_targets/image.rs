//! An encoded image: decoded under limits that keep a run short.
#![no_main]

const LIMITS: llava::image::Limits = llava::image::Limits { max_pixels: 1 << 16, max_bytes: 1 << 20 };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = llava::Image::decode(bytes, "fuzz", &LIMITS);
});
