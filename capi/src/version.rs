use std::ffi::{CStr, c_char};

/// Version of the binary interface. A program built with one works with every library that has the same.
pub const LLAVA_ABI_VERSION: u32 = 1;

// In the header as SIZE_MAX.
/// As a size of a text: the text ends at its first NUL.
/// cbindgen:ignore
pub const LLAVA_NUL_TERMINATED: usize = usize::MAX;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("the version has a NUL"),
};

/// The library's LLAVA_ABI_VERSION. Compare it with the header's if the library was loaded by hand.
#[unsafe(no_mangle)]
pub extern "C" fn llava_abi_version() -> u32 {
    LLAVA_ABI_VERSION
}

/// The library's version, like "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn llava_version() -> *const c_char {
    VERSION.as_ptr()
}
