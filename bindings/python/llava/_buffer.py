"""The memory behind Python objects, where it is: no copy."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import NamedTuple

# The flags of PyObject_GetBuffer (PEP 3118): format, shape and strides.
_STRIDES_AND_FORMAT = 0x10 | 0x08 | 0x04


class _PyBuffer(ctypes.Structure):
    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)),
        ("internal", ctypes.c_void_p),
    ]


class Buffer(NamedTuple):
    """Where an object's elements lie."""

    address: int
    nbytes: int
    format: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie row by row without gaps."""
        expected = self.nbytes
        for n, stride in zip(self.shape, self.strides):
            expected //= max(n, 1)
            if n > 1 and stride != expected:
                return False
        return True


_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.POINTER(_PyBuffer),)
_release.restype = None


@contextlib.contextmanager
def pinned(obj: object) -> Iterator[Buffer]:
    """The memory of bytes, a memoryview, a NumPy array or the like, which stays where it is until the end of the block.
    TypeError or BufferError if it has none."""
    view = _PyBuffer()
    _get(obj, ctypes.byref(view), _STRIDES_AND_FORMAT)
    try:
        yield Buffer(
            view.buf or 0,
            view.len,
            (view.format or b"B").decode(),
            tuple(view.shape[: view.ndim]),
            tuple(view.strides[: view.ndim]),
        )
    finally:
        _release(ctypes.byref(view))
