"""Encoded images."""

from __future__ import annotations

import array
import ctypes
import os
from typing import TYPE_CHECKING, Any, Union

from . import _ffi
from ._buffer import pinned
from ._ffi import lib
from ._handle import Handle, Unpicklable
from .errors import InvalidArgument

if TYPE_CHECKING:
    import numpy
    import numpy.typing


class Embedding(Unpicklable):
    """An image as the language model sees it: `[tokens, width]` floats. It never changes: any number of threads and sessions
    may use it at once, and forked processes too.

    `numpy()` and `memoryview()` show the values where they are, and keep them as long as they live, even beyond `close()`.
    """

    def __init__(self, handle: ctypes.c_void_p):
        self._handle = Handle("Embedding", handle, lib.llava_embedding_free, threaded=False)
        values, tokens, width = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
        lib.llava_embedding_values(
            self._handle.value, ctypes.byref(values), ctypes.byref(tokens), ctypes.byref(width)
        )
        self._address = values.value or 0
        self.tokens = tokens.value
        """Number of image tokens."""
        self.width = width.value
        """Width of a token, the language model's `d_model`."""

    @classmethod
    def from_array(cls, values: Any) -> Embedding:
        """An embedding from `[tokens, width]` numbers: an array, anything with a buffer, or rows of numbers. float32 is read
        where it is; the library copies it once."""
        try:
            with pinned(values) as buffer:
                if len(buffer.shape) != 2:
                    raise InvalidArgument(f"values: are {list(buffer.shape)}, expected [tokens, width]")
                if buffer.format in ("f", "<f", "=f", "@f") and buffer.contiguous:
                    return cls._new(buffer.address, *buffer.shape)
        except (TypeError, BufferError):
            pass
        try:
            rows = values.tolist() if hasattr(values, "tolist") else values
            rows = [array.array("f", row) for row in rows]
        except (TypeError, OverflowError) as error:
            raise InvalidArgument(f"values: {error}; expected [tokens, width] numbers") from error
        width = len(rows[0]) if rows else 0
        if any(len(row) != width for row in rows):
            raise InvalidArgument("values: rows differ in length, expected [tokens, width]")
        flat = array.array("f")
        for row in rows:
            flat.extend(row)
        return cls._new(flat.buffer_info()[0] if flat else 0, len(rows), width)

    @classmethod
    def _new(cls, address: int, tokens: int, width: int) -> Embedding:
        handle = ctypes.c_void_p()
        lib.llava_embedding_new(address, tokens, width, ctypes.byref(handle))
        return cls(handle)

    @classmethod
    def load(cls, path: Union[str, os.PathLike[str]]) -> Embedding:
        """Reads what `save` wrote: a NumPy file of float32 `[tokens, width]`."""
        handle = ctypes.c_void_p()
        lib.llava_embedding_load(_ffi.path_bytes("path", path), ctypes.byref(handle))
        return cls(handle)

    def save(self, path: Union[str, os.PathLike[str]]) -> None:
        """Writes a NumPy file of float32 `[tokens, width]`. A file of that name is replaced when all is written."""
        lib.llava_embedding_save(self._handle.value, _ffi.path_bytes("path", path))

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and width."""
        return self.tokens, self.width

    def memoryview(self) -> memoryview[float]:
        """The values, read-only and without a copy."""
        handle = self._handle
        handle.value  # Raises if it is closed.
        floats = (ctypes.c_float * (self.tokens * self.width)).from_address(self._address)
        # The view keeps the array, and the array the handle.
        floats._keeps = handle  # type: ignore[attr-defined]
        return memoryview(floats).cast("B").cast("f", self.shape).toreadonly()

    def numpy(self) -> numpy.typing.NDArray[numpy.float32]:
        """The values as a NumPy array, read-only and without a copy."""
        import numpy

        return numpy.asarray(self.memoryview())

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        import numpy

        values = self.numpy()
        if copy is False and dtype not in (None, values.dtype):
            raise ValueError(f"embeddings are {values.dtype}; as {dtype} they are a copy")
        return numpy.array(values, dtype=dtype) if copy else values.astype(dtype or values.dtype, copy=False)

    def tolist(self) -> list[list[float]]:
        """The values as rows of numbers."""
        rows: Any = self.memoryview().tolist()
        return list(rows)

    def close(self) -> None:
        """Frees it, or if there are views, lets it go with the last of them."""
        self._handle = _CLOSED

    def __enter__(self) -> Embedding:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<llava.Embedding [{self.tokens}, {self.width}]{' closed' if self._handle.closed else ''}>"


_CLOSED = Handle("Embedding", ctypes.c_void_p(), lib.llava_embedding_free, threaded=False)
_CLOSED.free()
