"""Questions that are answered together."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from . import _ffi
from ._call import Call, Hook
from ._ffi import lib
from ._handle import Handle, Unpicklable, array
from .answer import Answer, take
from .errors import Busy, Error
from .image import handles
from .progress import ProgressFunction

if TYPE_CHECKING:
    from .session import Images, Session

T = TypeVar("T")


class Batch(Unpicklable):
    """Questions that are answered together: the weights are read once for all of them, and each gets exactly the answer that
    it would get alone. `Model.batch` makes them.

    One call at a time may use it; `cancel` and `close` may be called at any time.
    """

    def __init__(self, handle: ctypes.c_void_p, on_progress: Optional[ProgressFunction]):
        self._handle = Handle("Batch", handle, lib.llava_batch_free)
        self._lock = threading.Lock()
        self._hook = Hook()
        self._progress = self._hook.progress(on_progress)
        self._call: Optional[Call[Any]] = None
        # With what each asks for; the library may call the sessions' functions as long as it has them.
        self._sessions: list[tuple[Session, Optional[int]]] = []
        lib.llava_batch_set_progress(self._handle.value, self._progress, None)

    def push(self, session: Session, text: str, images: Images = ()) -> None:
        """Adds a question, as in Session.ask. Its images are encoded and its prompt is run now; what goes wrong with those is
        what `run` gives in place of the answer. The session belongs to the batch until that has run."""
        data, pictures = _ffi.text_bytes("text", text), handles(images)

        def work() -> None:
            with session._alone():
                lib.llava_batch_push(
                    self._handle.value, session._handle.value, data, len(data), array(pictures), len(pictures)
                )
                self._sessions.append((session, session.generation.logprobs))

        self._begin(work).run()

    def run(self) -> list[Union[Answer, Error]]:
        """Generates all answers, in the order in which the questions were added; an Error stands in the place of one that
        failed. The sessions can be used again; the batch cannot."""

        def work() -> list[Union[Answer, Error]]:
            answers = (ctypes.POINTER(_ffi.Answer) * len(self._sessions))()
            lib.llava_batch_run(self._handle.value, answers, len(answers))
            results: list[Union[Answer, Error]] = []
            for pointer, (_, logprobs) in zip(answers, self._sessions):
                try:
                    results.append(take(pointer, logprobs))
                except Error as error:
                    results.append(error.with_traceback(None))
            self._sessions.clear()
            return results

        return self._begin(work).run()

    def cancel(self) -> None:
        """Cancels the whole batch, from any thread or callback: answers end with what there is."""
        call = self._call
        if call is not None:
            call.cancel()

    def _begin(self, work: Callable[[], T]) -> Call[T]:
        """A call that has the batch to itself from now until its end."""
        self._handle.value  # Raises if it is closed.
        if not self._lock.acquire(blocking=False):
            raise Busy("Batch: in use by a call on another thread, or by the call whose callback this is")
        hook, handle = self._hook, self._handle
        hook.reset()

        def cancel() -> None:
            hook.cancel()
            if handle.usable:
                lib.llava_batch_cancel(handle.value)

        call = Call(lambda: hook.watch(work), cancel, self._lock.release)
        self._call = call
        return call

    def close(self) -> None:
        """Frees it. If it has not run, its sessions can be used again, the questions forgotten unless they were answered."""
        call = self._call
        if call is not None:
            call.stop()
        self._handle.free()
        self._sessions.clear()

    def __len__(self) -> int:
        return len(self._sessions)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<llava.Batch of {len(self)}{' closed' if self._handle.closed else ''}>"
