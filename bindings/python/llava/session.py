"""Conversations."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from . import _ffi
from ._call import Call, Hook
from ._ffi import lib
from ._handle import Handle, Unpicklable, array
from .answer import Answer, Score, take
from .embedding import Embedding
from .errors import Busy, InvalidArgument
from .generation import Generation, Options
from .image import ImageLike, handles
from .progress import ProgressFunction
from .stream import AsyncStream, Start, Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")
Images = Union[ImageLike, Sequence[ImageLike]]
TextFunction = Callable[[str], object]
"""Receives a piece of an answer; False ends the answer there, everything else goes on, and what it raises comes out of the
method that was called. It is called from a thread of the package's."""


class Session(Unpicklable):
    """A conversation: its history, what was computed of it, and how answers are made. `Model.session` makes them.

    One call at a time may use it, from any thread; a second one raises Busy. `cancel` and `close` may be called at any time.
    A call that fails leaves the conversation as it was.
    """

    def __init__(self, handle: ctypes.c_void_p, generation: Generation):
        self._handle = Handle("Session", handle, lib.llava_session_free)
        self._generation = generation
        self._lock = threading.Lock()
        self._hook = Hook()
        self._progress = _ffi.PROGRESS()
        self._call: Optional[Call[Any]] = None

    @property
    def generation(self) -> Generation:
        """How answers are made; assign another."""
        return self._generation

    @generation.setter
    def generation(self, generation: Generation) -> None:
        with self._alone():
            self._set_generation(generation)
            self._generation = generation

    def _set_generation(self, generation: Generation) -> None:
        lib.llava_session_set_generation(self._handle.value, ctypes.byref(generation.to_c()))

    def set_system(self, text: str) -> None:
        """The instruction in front of the conversation, instead of the template's own. Only before the first question."""
        data = _ffi.text_bytes("text", text)
        with self._alone():
            lib.llava_session_set_system(self._handle.value, data, len(data))

    def set_template(self, name: str) -> None:
        """A conversation style by name ("vicuna_v1"), instead of the model's."""
        with self._alone():
            lib.llava_session_set_template(self._handle.value, _ffi.path_bytes("name", name))

    def set_progress(self, function: Optional[ProgressFunction]) -> None:
        """Has `function` hear how far the encoding of images and the running of prompts are; None for nobody."""
        callback = _ffi.PROGRESS() if function is None else self._hook.progress(function)
        with self._alone():
            lib.llava_session_set_progress(self._handle.value, callback, None)
            self._progress = callback  # The library calls it as long as the session lives.

    @property
    def position(self) -> int:
        """Positions of the context that are computed and kept."""
        position = ctypes.c_size_t()
        with self._alone():
            lib.llava_session_position(self._handle.value, ctypes.byref(position))
        return position.value

    def reset(self) -> None:
        """Forgets the conversation."""
        with self._alone():
            lib.llava_session_reset(self._handle.value)

    def fork(self) -> Session:
        """A second session with the same past, whose memory is shared; what follows is each one's own. The progress function
        is not taken over."""
        handle = ctypes.c_void_p()
        with self._alone():
            lib.llava_session_fork(self._handle.value, ctypes.byref(handle))
            return Session(handle, self._generation)

    def attach(self, embedding: Embedding) -> None:
        """Adds an encoded image to the next question."""
        if not isinstance(embedding, Embedding):
            raise InvalidArgument(f"embedding: is a {type(embedding).__name__}, expected an Embedding")
        with self._alone():
            lib.llava_session_attach(self._handle.value, embedding._handle.value)

    def detach(self) -> None:
        """Takes back the images that were attached to the next question."""
        with self._alone():
            lib.llava_session_detach(self._handle.value)

    def prefill(self, images: Images = ()) -> None:
        """Encodes images, adds them to the next question, and runs the prompt up to their last token, so that forks start
        from there."""
        pictures = handles(images)
        self._begin(lambda: lib.llava_session_prefill(self._handle.value, array(pictures), len(pictures))).run()

    def ask(
        self,
        text: str,
        images: Images = (),
        *,
        on_text: Optional[TextFunction] = None,
        **options: Unpack[Options],
    ) -> Answer:
        """Asks a question about images and those attached; both become part of the conversation.

        `options` are those of Generation, for this question. `on_text` receives the answer as it is made.
        """
        return self._ask(text, images, options, on_text).run()

    def stream(self, text: str, images: Images = (), **options: Unpack[Options]) -> Stream:
        """`ask` whose answer comes piece by piece: `for piece in session.stream("Why?")`."""

        return Stream(self._starter(text, images, options))

    def astream(self, text: str, images: Images = (), **options: Unpack[Options]) -> AsyncStream:
        """`stream` for event loops: `async for piece in session.astream("Why?")`."""

        return AsyncStream(self._starter(text, images, options))

    def _starter(self, text: str, images: Images, options: Options) -> Start:
        def start(on_text: TextFunction, on_end: Callable[[], None]) -> Call[Answer]:
            call = self._ask(text, images, options, on_text, on_end)
            call.start()
            return call

        return start

    def _ask(
        self,
        text: str,
        images: Images,
        options: Options,
        on_text: Optional[TextFunction],
        on_end: Callable[[], None] = lambda: None,
    ) -> Call[Answer]:
        data, pictures = _ffi.text_bytes("text", text), handles(images)
        generation = self._generation.with_options(options)
        callback = _ffi.TEXT() if on_text is None else self._hook.text(on_text)
        pointer = ctypes.POINTER(_ffi.Answer)()

        def work() -> Answer:
            if options:
                self._set_generation(generation)
            try:
                lib.llava_session_ask(
                    self._handle.value,
                    data,
                    len(data),
                    array(pictures),
                    len(pictures),
                    callback,
                    None,
                    ctypes.byref(pointer),
                )
            finally:
                if options and not self._handle.closed:
                    self._set_generation(self._generation)
            return take(pointer, generation.logprobs)

        return self._begin(work, on_end)

    def score(self, text: str, choices: Sequence[str], images: Images = ()) -> list[Score]:
        """The log-likelihood of each of some texts as the answer to a question. The conversation is left as it was."""
        data, pictures, texts = _ffi.text_bytes("text", text), handles(images), _ffi.texts("choices", choices)
        scores = (_ffi.Score * len(texts))()

        def work() -> list[Score]:
            lib.llava_session_score(
                self._handle.value, data, len(data), array(pictures), len(pictures), texts, len(texts), scores
            )
            return [Score(s.logprob, s.tokens) for s in scores]

        return self._begin(work).run()

    def cancel(self) -> None:
        """Cancels what the session is doing, from any thread or callback, within one layer of the network; without anything
        to cancel it does nothing. Before the first word of an answer the call that was cancelled raises Cancelled; later it
        returns what there is, with FinishReason.CANCELLED."""
        call = self._call
        if call is not None:
            call.cancel()

    def _begin(self, work: Callable[[], T], on_end: Callable[[], None] = lambda: None) -> Call[T]:
        """A call that has the session to itself from now until its end."""
        self._handle.value  # Raises if it is closed.
        self._acquire()
        hook, handle = self._hook, self._handle
        hook.reset()

        def cancel() -> None:
            hook.cancel()
            if handle.usable:
                lib.llava_session_cancel(handle.value)

        call = Call(lambda: hook.watch(work), cancel, self._lock.release, on_end)
        self._call = call
        return call

    def _acquire(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise Busy("Session: in use by a call on another thread, by a stream, or by the call whose callback this is")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._handle.value  # Raises if it is closed.
        self._acquire()
        try:
            yield
        finally:
            self._lock.release()

    def close(self) -> None:
        """Cancels what it is doing, waits for that, and frees it. Otherwise it goes when nothing refers to it any more."""
        call = self._call
        if call is not None:
            call.stop()
        self._handle.free()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<llava.Session{' closed' if self._handle.closed else ''}>"
