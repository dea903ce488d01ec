"""Pictures."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Optional, Protocol, Union

from . import _ffi
from ._buffer import Buffer, pinned
from ._ffi import integer, lib
from ._handle import Handle, Unpicklable
from .errors import InvalidArgument

_FORMATS = {"RGB": 1, "BGR": 2, "RGBA": 3, "BGRA": 4, "L": 5}
_CHANNELS = {"RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4, "L": 1}
_OF_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_EXIF_ORIENTATION = 0x0112


class PilImage(Protocol):
    """What is used of PIL.Image.Image."""

    @property
    def mode(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def getexif(self) -> Any: ...


class Array(Protocol):
    """What is used of numpy.ndarray."""

    @property
    def __array_interface__(self) -> Any: ...


ImageLike = Union["Image", str, "os.PathLike[str]", bytes, bytearray, memoryview, PilImage, Array]
"""What methods take as an image: an Image, the path of a file, the bytes of one, a PIL image, or an array of pixels."""


class Image(Unpicklable):
    """A decoded picture. It never changes: any number of threads and sessions may use it at once, and forked processes too.

    Methods take paths, bytes, PIL images and arrays as they are; an Image of one's own saves decoding again.
    """

    def __init__(self, handle: ctypes.c_void_p):
        self._handle = Handle("Image", handle, lib.llava_image_free, threaded=False)
        width, height = ctypes.c_uint32(), ctypes.c_uint32()
        lib.llava_image_size(self._handle.value, ctypes.byref(width), ctypes.byref(height))
        self.width = width.value
        """Pixels in a row, after EXIF orientation."""
        self.height = height.value
        """Rows, after EXIF orientation."""

    @classmethod
    def open(cls, path: Union[str, os.PathLike[str]]) -> Image:
        """Reads and decodes a JPEG, PNG, WebP, BMP or GIF, told apart by content. EXIF orientation is applied."""
        handle = ctypes.c_void_p()
        lib.llava_image_open(_ffi.path_bytes("path", path), ctypes.byref(handle))
        return cls(handle)

    @classmethod
    def decode(cls, data: Union[bytes, bytearray, memoryview, Array]) -> Image:
        """Decodes the bytes of a file, as `open` does."""
        try:
            with pinned(data) as buffer:
                if buffer.contiguous:
                    return cls._decode(buffer)
            with pinned(memoryview(data).tobytes()) as buffer:  # type: ignore[arg-type]
                return cls._decode(buffer)
        except (TypeError, BufferError) as error:
            raise InvalidArgument(f"data: {error}") from error

    @classmethod
    def _decode(cls, buffer: Buffer) -> Image:
        handle = ctypes.c_void_p()
        lib.llava_image_decode(buffer.address, buffer.nbytes, ctypes.byref(handle))
        return cls(handle)

    @classmethod
    def from_pixels(
        cls, pixels: object, width: int, height: int, format: str = "RGB", stride: Optional[int] = None
    ) -> Image:
        """An image from raw pixels, bytes or anything else with a contiguous buffer: `height` rows of `width` pixels of
        `format` ("RGB", "BGR", "RGBA", "BGRA" or "L"), each row beginning `stride` bytes after the one before. The library
        copies them once."""
        _format(format)
        width, height = integer("width", width, 32), integer("height", height, 32)
        stride = integer("stride", width * _CHANNELS[format] if stride is None else stride)
        try:
            with pinned(pixels) as buffer:
                if not buffer.contiguous:
                    raise InvalidArgument("pixels: have gaps; from_array takes arrays of any layout")
                return cls._from_pixels(buffer.address, buffer.nbytes, width, height, stride, format)
        except (TypeError, BufferError) as error:
            raise InvalidArgument(f"pixels: {error}") from error

    @classmethod
    def _from_pixels(cls, address: int, size: int, width: int, height: int, stride: int, format: str) -> Image:
        handle = ctypes.c_void_p()
        lib.llava_image_from_pixels(address, size, width, height, stride, _FORMATS[format], ctypes.byref(handle))
        return cls(handle)

    @classmethod
    def from_array(cls, array: Array, format: Optional[str] = None) -> Image:
        """An image from an array of uint8, `[height, width]` or `[height, width, channels]`: grey, RGB or RGBA, or what
        `format` says ("BGR" for OpenCV's). The library reads it where it is, if the pixels of each row lie side by side;
        other layouts are copied first."""
        try:
            return cls._from_array(array, format)
        except (TypeError, BufferError) as error:
            # No buffer of its own: a tensor, for example.
            if not hasattr(array, "__array__") or type(array).__module__ == "numpy":
                raise InvalidArgument(f"array: {error}") from error
        import numpy

        return cls._from_array(numpy.asarray(array), format)

    @classmethod
    def _from_array(cls, array: object, format: Optional[str]) -> Image:
        with pinned(array) as buffer:
            shape = buffer.shape
            channels = 1 if len(shape) == 2 else shape[-1] if len(shape) == 3 else 0
            if buffer.format not in ("B", "<B", "|B", "=B", "@B") or channels not in _OF_CHANNELS:
                raise InvalidArgument(
                    f"array: is {list(shape)} of type {buffer.format!r}, expected uint8 ('B') as [height, width] or "
                    "[height, width, 1, 3 or 4]"
                )
            format = _format(_OF_CHANNELS[channels] if format is None else format)
            if _CHANNELS[format] != channels:
                raise InvalidArgument(f"format: {format} has {_CHANNELS[format]} channels, the array {channels}")
            height, width = shape[:2]
            integer("height", height, 32), integer("width", width, 32)
            row = width * channels
            stride = buffer.strides[0] if height > 1 else row
            pixel = (*buffer.strides[1:], 1)[:2]
            beside = (width <= 1 or pixel[0] == channels) and (channels == 1 or pixel[1] == 1)
            if stride >= row and beside:
                size = (height - 1) * stride + row if height else 0
                return cls._from_pixels(buffer.address, size, width, height, stride, format)
        with pinned(memoryview(array).tobytes()) as copy:  # type: ignore[arg-type]
            return cls._from_pixels(copy.address, copy.nbytes, width, height, row, format)

    @classmethod
    def from_pil(cls, image: Any) -> Image:
        """An image from a PIL image. Its EXIF orientation is applied, as in `open`."""
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            from PIL import ImageOps

            image = ImageOps.exif_transpose(image)
        if image.mode not in _FORMATS:
            transparent = "A" in image.mode or "a" in image.mode or "transparency" in image.info
            image = image.convert("RGBA" if transparent else "RGB")
        width, height = image.size
        return cls.from_pixels(image.tobytes(), width, height, image.mode)

    @classmethod
    def of(cls, source: ImageLike) -> Image:
        """What methods make of their images."""
        if isinstance(source, Image):
            return source
        if isinstance(source, (str, os.PathLike)):
            return cls.open(source)
        if isinstance(source, (bytes, bytearray)) or (isinstance(source, memoryview) and source.ndim == 1):
            return cls.decode(source)
        if hasattr(source, "getexif") and hasattr(source, "tobytes"):
            return cls.from_pil(source)
        if isinstance(source, memoryview) or hasattr(source, "__array_interface__") or hasattr(source, "__array__"):
            return cls.from_array(source)  # type: ignore[arg-type]
        raise InvalidArgument(
            f"image: is a {type(source).__name__}, expected an Image, a path, the bytes of a file, a PIL image or an array"
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    def close(self) -> None:
        """Frees it. Otherwise it goes when nothing refers to it any more."""
        self._handle.free()

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<llava.Image {self.width}×{self.height}{' closed' if self._handle.closed else ''}>"


def _format(format: str) -> str:
    if format not in _FORMATS:
        raise InvalidArgument(f"format: is {format!r}, expected one of {', '.join(_FORMATS)}")
    return format


def handles(images: object) -> list[Handle]:
    """Of the images that a method was given: one, or several."""
    if isinstance(images, (list, tuple)):
        return [Image.of(image)._handle for image in images]
    return [Image.of(images)._handle]  # type: ignore[arg-type]
