// What C gives, as Rust values. Each function checks what can be checked; that pointers which are not NULL point to what
// the header says is the caller's part, which no library can check.

use crate::status::{Failure, Result};
use crate::version::LLAVA_NUL_TERMINATED;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

/// Where a result goes, written when all else has succeeded.
pub struct Out<'a, T>(&'a mut MaybeUninit<T>);

impl<T> Out<'_, T> {
    pub fn set(self, value: T) {
        self.0.write(value);
    }
}

/// # Safety
/// `out` is NULL or may be written to until the call ends.
pub unsafe fn out<'a, T>(name: &'static str, out: *mut T) -> Result<Out<'a, T>> {
    check_aligned(name, out)?;
    // SAFETY: the caller's promise; and it is aligned.
    let out = unsafe { out.cast::<MaybeUninit<T>>().as_mut() };
    out.map(Out).ok_or_else(|| Failure::argument(name, "is NULL"))
}

/// `n` values at `data`.
///
/// # Safety
/// `data` is NULL or points to `n` values that stay as they are until the call ends.
pub unsafe fn slice<'a, T>(name: &'static str, data: *const T, n: usize) -> Result<&'a [T]> {
    if n == 0 {
        return Ok(&[]);
    }
    check_size(name, data, n)?;
    // SAFETY: the caller's promise; and it is aligned, not NULL and no larger than memory can be.
    Ok(unsafe { std::slice::from_raw_parts(data, n) })
}

/// Room for `n` values at `data`; empty if `data` is NULL.
///
/// # Safety
/// `data` is NULL or may be written to, `n` values, until the call ends.
pub unsafe fn room<'a, T>(name: &'static str, data: *mut T, n: usize) -> Result<&'a mut [MaybeUninit<T>]> {
    if n == 0 || data.is_null() {
        return Ok(&mut []);
    }
    check_size(name, data, n)?;
    // SAFETY: the caller's promise; and it is aligned, not NULL and no larger than memory can be.
    Ok(unsafe { std::slice::from_raw_parts_mut(data.cast(), n) })
}

/// A text of `size` bytes, or up to its NUL.
///
/// # Safety
/// `data` is NULL or points to `size` bytes, or to bytes that end in NUL, that stay as they are until the call ends.
pub unsafe fn text<'a>(name: &'static str, data: *const c_char, size: usize) -> Result<&'a str> {
    let bytes = match size {
        // SAFETY: the caller's promise.
        LLAVA_NUL_TERMINATED => unsafe { c_str(name, data) }?.to_bytes(),
        // SAFETY: the caller's promise.
        _ => unsafe { slice(name, data.cast::<u8>(), size) }?,
    };
    utf8(name, bytes)
}

/// A path or a name, which ends at its NUL; none if it is NULL.
///
/// # Safety
/// `data` is NULL or points to bytes that end in NUL and stay as they are until the call ends.
pub unsafe fn name<'a>(name: &'static str, data: *const c_char) -> Result<Option<&'a str>> {
    if data.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    utf8(name, unsafe { c_str(name, data) }?.to_bytes()).map(Some)
}

/// [`name`] that must not be NULL.
///
/// # Safety
/// As [`name`].
pub unsafe fn required<'a>(what: &'static str, data: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    unsafe { name(what, data) }?.ok_or_else(|| Failure::argument(what, "is NULL"))
}

/// A struct of options that begins with its size.
///
/// # Safety
/// Every pattern of bits is a value, and the first field is a `usize`.
pub unsafe trait Options: Copy {
    const NAME: &'static str;
}

/// A copy of the options, whose fields are zero as far as the caller's struct is older and shorter.
///
/// # Safety
/// `options` is NULL or points to as many bytes as its first field says.
pub unsafe fn options<T: Options>(options: *const T) -> Result<T> {
    /// More than any version of any struct will have.
    const LARGEST: usize = 4096;
    let mut value = MaybeUninit::<T>::zeroed();
    if !options.is_null() {
        // SAFETY: the caller's promise, and the trait's: a size comes first.
        let size = unsafe { options.cast::<usize>().read_unaligned() };
        if size < size_of::<usize>() || size > LARGEST {
            let reason = format!("is {size}; initialise the struct with its init function");
            return Err(Failure::argument(T::NAME, format!("struct_size {reason}")));
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(options.cast::<u8>(), size) };
        let known = size.min(size_of::<T>());
        if bytes[known..].iter().any(|&b| b != 0) {
            let reason = "has fields set that this version of the library does not know";
            return Err(Failure::argument(T::NAME, reason));
        }
        // SAFETY: `value` is at least `known` bytes.
        unsafe { value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), known) };
    }
    // SAFETY: the trait's promise.
    Ok(unsafe { value.assume_init() })
}

/// Writes as much of `value` as the caller's struct of `size` bytes holds, its `struct_size` included.
///
/// # Safety
/// `to` is NULL or may be written to, `size` bytes; `value` begins with its size.
pub unsafe fn write_struct<T: Options>(to: *mut T, size: usize, value: &T) -> Result<()> {
    if to.is_null() {
        return Err(Failure::argument(T::NAME, "is NULL"));
    }
    if size < size_of::<usize>() {
        return Err(Failure::argument(T::NAME, format!("a struct of {size} bytes; pass its sizeof")));
    }
    let known = size.min(size_of::<T>());
    // SAFETY: the caller's promise; a `T` has no padding that matters, for it is read as bytes only by C.
    unsafe {
        std::ptr::from_ref(value).cast::<MaybeUninit<u8>>().copy_to_nonoverlapping(to.cast(), known);
        to.cast::<usize>().write_unaligned(known);
    }
    Ok(())
}

/// What the number of an enum of C's stands for; `kind` is the enum's name.
pub fn choice<T: Copy>(name: &'static str, value: i32, all: &[(i32, T)], kind: &str) -> Result<T> {
    let found = all.iter().find(|(number, _)| *number == value);
    found.map(|&(_, t)| t).ok_or_else(|| Failure::argument(name, format!("is {value}, expected a {kind}")))
}

/// A flag in a struct.
pub fn flag(name: &'static str, value: i32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::argument(name, format!("is {value}, expected 0 or 1"))),
    }
}

fn utf8<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|e| Failure::argument(name, format!("is no UTF-8 from byte {} on", e.valid_up_to())))
}

/// # Safety
/// `data` is NULL or points to bytes that end in NUL and stay as they are until the call ends.
unsafe fn c_str<'a>(name: &'static str, data: *const c_char) -> Result<&'a CStr> {
    if data.is_null() {
        return Err(Failure::argument(name, "is NULL"));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(data) })
}

fn check_size<T>(name: &'static str, data: *const T, n: usize) -> Result<()> {
    if data.is_null() {
        return Err(Failure::argument(name, format!("is NULL, expected {n} values")));
    }
    if n > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::argument(name, format!("{n} values are more than memory can hold")));
    }
    check_aligned(name, data)
}

fn check_aligned<T>(name: &'static str, data: *const T) -> Result<()> {
    match data.is_aligned() {
        true => Ok(()),
        false => Err(Failure::argument(name, format!("is {data:p}, expected a multiple of {}", align_of::<T>()))),
    }
}
