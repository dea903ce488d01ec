"""What the library gives out: names, each freed once."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Callable, NoReturn

from .errors import InvalidHandle


def _free(free: Callable[[int], None], handle: int, process: int) -> None:
    # In a forked child the library's threads and locks are as the fork found them; its copy of the memory goes with it.
    if os.getpid() == process:
        free(handle)


class Handle:
    """A handle that is freed by `free`, or when nothing refers to it any more.

    `threaded`: what it stands for has threads, which do not outlive a fork.
    """

    def __init__(self, kind: str, handle: ctypes.c_void_p, free: Callable[[int], None], threaded: bool = True):
        self._kind, self._threaded, self._process = kind, threaded, os.getpid()
        self._value = handle.value or 0
        self._finalizer = weakref.finalize(self, _free, free, self._value, self._process)
        # The process's end takes it along.
        self._finalizer.atexit = False

    @property
    def value(self) -> int:
        """The handle, for the library."""
        if self._threaded and os.getpid() != self._process:
            raise InvalidHandle(
                f"{self._kind}: belongs to process {self._process} and does not work in its fork {os.getpid()}, "
                "to which threads do not come along: load the model after forking, or start processes by 'spawn'"
            )
        if not self._finalizer.alive:
            raise InvalidHandle(f"{self._kind}: is closed")
        return self._value

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    @property
    def usable(self) -> bool:
        """Whether `value` would give it."""
        return self._finalizer.alive and not (self._threaded and os.getpid() != self._process)

    def free(self) -> None:
        self._finalizer()


class Unpicklable:
    """What lives in one process only."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} lives in the process that made it and cannot be pickled")


def array(handles: list[Handle]) -> Any:
    """Handles as the library takes several."""
    return (ctypes.c_void_p * len(handles))(*[handle.value for handle in handles])
