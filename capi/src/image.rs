use crate::arg;
use crate::handle::{free, get, handle, put};
use crate::status::{Result, guard, llava_status};
use engine::{Image, PixelFormat};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// A decoded picture. Never changes: any number of threads and sessions may use it at once.
pub struct llava_image {
    _private: [u8; 0],
}
handle!(llava_image => Image);

/// The order of the bytes of one pixel. Alpha is straight, not premultiplied.
#[repr(i32)]
pub enum llava_pixel_format {
    /// Red, green, blue.
    Rgb = 1,
    /// Blue, green, red, as OpenCV stores it.
    Bgr = 2,
    /// Red, green, blue, alpha.
    Rgba = 3,
    /// Blue, green, red, alpha.
    Bgra = 4,
    /// Luminance alone.
    Gray = 5,
}

/// Reads and decodes a JPEG, PNG, WebP, BMP or GIF, told apart by content. EXIF orientation is applied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_image_open(path: *const c_char, image: *mut *mut llava_image) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (path, out) = unsafe { (arg::required("path", path)?, arg::out("image", image)?) };
        out.set(put(Image::open(path)?));
        Ok(())
    })
}

/// Decodes `size` bytes of an encoded image, as llava_image_open() does a file's. The bytes are not needed afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_image_decode(
    data: *const c_void,
    size: usize,
    image: *mut *mut llava_image,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (data, out) = unsafe { (arg::slice("data", data.cast::<u8>(), size)?, arg::out("image", image)?) };
        out.set(put(Image::from_bytes(data)?));
        Ok(())
    })
}

/// Copies raw pixels: `height` rows of `width` pixels of a llava_pixel_format, each row beginning `stride` bytes after the
/// one before. `size` is the number of bytes at `pixels`; the last row may end at its last pixel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_image_from_pixels(
    pixels: *const c_void,
    size: usize,
    width: u32,
    height: u32,
    stride: usize,
    format: i32,
    image: *mut *mut llava_image,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (pixels, out) = unsafe { (arg::slice("pixels", pixels.cast::<u8>(), size)?, arg::out("image", image)?) };
        let formats = [
            (llava_pixel_format::Rgb as i32, PixelFormat::Rgb),
            (llava_pixel_format::Bgr as i32, PixelFormat::Bgr),
            (llava_pixel_format::Rgba as i32, PixelFormat::Rgba),
            (llava_pixel_format::Bgra as i32, PixelFormat::Bgra),
            (llava_pixel_format::Gray as i32, PixelFormat::Gray),
        ];
        let format = arg::choice("format", format, &formats, "llava_pixel_format")?;
        out.set(put(Image::from_pixels(pixels, width, height, stride, format)?));
        Ok(())
    })
}

/// The picture's size in pixels, after EXIF orientation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_image_size(
    image: *const llava_image,
    width: *mut u32,
    height: *mut u32,
) -> llava_status {
    guard(|| {
        let image = get(image)?;
        // SAFETY: the caller's pointers are as the header demands.
        let (width, height) = unsafe { (arg::out("width", width)?, arg::out("height", height)?) };
        width.set(image.width());
        height.set(image.height());
        Ok(())
    })
}

/// Ends the handle. NULL and handles that were freed already are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn llava_image_free(image: *mut llava_image) {
    free(image);
}

/// The images that `n` handles at `handles` stand for.
///
/// # Safety
/// As [`arg::slice`].
pub unsafe fn images(handles: *const *const llava_image, n: usize) -> Result<Vec<Arc<Image>>> {
    // SAFETY: the caller's promise.
    unsafe { arg::slice("images", handles, n) }?.iter().map(|&handle| get(handle)).collect()
}
