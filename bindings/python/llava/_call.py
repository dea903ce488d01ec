"""Calls that take long. Each runs on a thread of its own, so that the caller can be interrupted, or be an event loop, while
the library computes."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import weakref
from typing import Any, Callable, Generic, Optional, TypeVar

from . import _ffi
from .errors import Cancelled
from .progress import Progress, ProgressFunction, Stage

T = TypeVar("T")


class Call(Generic[T]):
    """`work()` on a thread of its own. `cancel()` makes it end soon. When it has ended, `release()` is called before anybody is
    told, and `on_end()` after."""

    def __init__(
        self,
        work: Callable[[], T],
        cancel: Callable[[], None],
        release: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ):
        self._work: Optional[Callable[[], T]] = work
        self._cancel, self._release, self._on_end = cancel, release, on_end
        self._result: Optional[T] = None
        self._error: Optional[BaseException] = None
        # Taken once: by the thread that works, or by whoever ends the call before it has begun.
        self._begun = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llava", daemon=True)

    def start(self) -> None:
        _running.add(self)
        try:
            self._thread.start()
        except RuntimeError as error:  # No more threads.
            if self._begun.acquire(blocking=False):
                self._end(error)
            raise

    def _run(self) -> None:
        if not self._begun.acquire(blocking=False) or self._work is None:
            return
        try:
            self._result = self._work()
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: Optional[BaseException]) -> None:
        # What the work refers to may refer to this.
        self._work, self._error = None, error
        _running.discard(self)
        self._release()
        self._ended.set()
        self._on_end()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        """Has it end soon. The library forgets this if it has not begun yet, so whoever waits for the end does it again."""
        if self._begun.acquire(blocking=False):
            self._end(Cancelled("cancelled"))
        elif not self.ended:
            self._cancel()

    def stop(self) -> None:
        """Cancels, and waits for the end."""
        self.cancel()
        if threading.current_thread() is self._thread:
            return
        # At the end of the interpreter all threads stand still, and in a fork there are none.
        while not self.ended and self._thread.is_alive() and not sys.is_finalizing():
            self._ended.wait(0.01)
            self.cancel()

    def run(self) -> T:
        """Starts it, waits, and gives its result. Ctrl-C cancels it first."""
        try:
            self.start()
            self._ended.wait()
        except BaseException:
            self.stop()
            raise
        return self.result()

    def result(self) -> T:
        """What it returned, or raises what it raised."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # It refers to this frame.
        return self._result  # type: ignore[return-value]


_running: weakref.WeakSet[Call[Any]] = weakref.WeakSet()
# Threads do not come along.
os.register_at_fork(after_in_child=_running.clear)


@atexit.register
def _stop_all() -> None:
    # A thread in the library that calls back while the interpreter ends would be unwound through it.
    for call in list(_running):
        call.stop()


class Hook:
    """Python functions that the library calls: what they raise ends the library's call, and is kept for its caller."""

    def __init__(self) -> None:
        self.error: Optional[BaseException] = None
        self.cancelled = False

    def reset(self) -> None:
        self.error, self.cancelled = None, False

    def cancel(self) -> None:
        self.cancelled = True

    def goes_on(self, function: Optional[Callable[[Any], object]], value: Any) -> bool:
        if self.cancelled:
            return False
        if function is None:
            return True
        try:
            return function(value) is not False
        except BaseException as error:
            self.error, self.cancelled = error, True
            return False

    def watch(self, work: Callable[[], T]) -> T:
        """`work()`, or what a function raised during it."""
        try:
            return work()
        finally:
            error, self.error = self.error, None
            if error is not None:
                try:
                    raise error from None
                finally:
                    del error

    def progress(self, function: Optional[ProgressFunction]) -> Any:
        """A progress callback for C."""

        def called(stage: int, done: int, total: int, _: object) -> bool:
            return self.goes_on(function, Progress(Stage(stage), done, total))

        return _ffi.PROGRESS(called)

    def text(self, function: Optional[Callable[[str], object]]) -> Any:
        """A text callback for C."""

        def called(text: Optional[int], size: int, _: object) -> bool:
            piece = ctypes.string_at(text, size).decode("utf-8", "replace") if text else ""
            return self.goes_on(function, piece)

        return _ffi.TEXT(called)


def watched(work: Callable[[Any], T], on_progress: Optional[ProgressFunction]) -> T:
    """`work(callback)`, which can be cancelled by the progress callback that it is given."""
    hook = Hook()
    callback = hook.progress(on_progress)
    return Call(lambda: hook.watch(lambda: work(callback)), hook.cancel).run()
