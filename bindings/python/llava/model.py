"""Loaded models."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _ffi
from ._buffer import pinned
from ._call import Call, Hook, watched
from ._ffi import integer, lib
from ._handle import Handle, Unpicklable
from .answer import Answer, take
from .batch import Batch
from .embedding import Embedding
from .errors import InvalidArgument
from .generation import Generation, Options
from .image import Image, ImageLike
from .progress import ProgressFunction
from .session import Session, TextFunction

if TYPE_CHECKING:
    from typing_extensions import Unpack

DESCRIBE = "Describe the image."
"""The question of `Model.describe`."""

_KV_TYPES = {None: 0, "f16": 1, "f32": 2, "q8_0": 3}


@dataclass(frozen=True)
class ModelInfo:
    """What a model is."""

    name: str
    """The language model's file, "<memory>" for a model from memory."""
    mmproj: Optional[str]
    """The mmproj's file; None if there is none: the model takes no images."""
    template_name: str
    """The conversation style in use."""
    template_reason: str
    """Why it was chosen."""
    kernels: str
    """The kernels in use, like "avx512"."""
    threads: int
    """Threads that compute."""
    context: int
    """Positions that a conversation may take."""
    trained_context: int
    """Positions that the model was trained with."""
    vocab_size: int
    """Number of tokens in the vocabulary."""
    d_model: int
    """Width of the language model, and of image tokens."""
    n_layer: int
    """Layers of the language model."""
    kv_bytes: int
    """Bytes that the KV cache takes for `context` positions."""
    image_size: int
    """Side of the vision tower's input in pixels; 0 without one."""
    patch_size: int
    """Side of a patch in pixels; 0 without a vision tower."""


def load(
    path: Union[str, os.PathLike[str], None] = None,
    *,
    mmproj: Union[str, os.PathLike[str], None] = None,
    threads: int = 0,
    context: int = 0,
    kv_type: Optional[str] = None,
    exact: bool = False,
    template: Optional[str] = None,
    kernels: Optional[str] = None,
    on_progress: Optional[ProgressFunction] = None,
) -> Model:
    """Opens a model.

    `path` is the language model's GGUF file (of a split model the first part) with the mmproj beside it, or a folder that
    holds one pair; None takes what the environment variable LLAVA_MODEL names. "hf:OWNER/REPO", with ":FILE" or ":TYPE" (as
    ":Q4_K_M") after it or not, is a model of the Hugging Face Hub: it is downloaded into the cache of Hugging Face's own tools,
    unless it is there. The files are mapped: they must not be changed or cut short while the model is in use, or the system
    ends the process.

    Args:
        mmproj: The mmproj's file, if it lies elsewhere.
        threads: Threads to compute with; 0 is as many as the process may use, and more are never taken.
        context: Positions that a conversation may take; 0 is what the model was trained with.
        kv_type: How keys and values of past positions are kept: "f16", "f32" or "q8_0".
        exact: Compute in single precision throughout: slow, for comparison.
        template: A conversation style by name ("vicuna_v1"), instead of the model's own.
        kernels: Kernels by name ("scalar", "avx2", "avx512"), instead of the best of this machine.
        on_progress: Hears how far the loading is.
    """
    options = _options(threads, context, kv_type, exact, template, kernels)
    file = None if path is None else _ffi.path_bytes("path", path)
    options.mmproj = None if mmproj is None else _ffi.path_bytes("mmproj", mmproj)
    handle = ctypes.c_void_p()

    def work(callback: Any) -> Model:
        options.on_progress = callback
        lib.llava_model_open(file, ctypes.byref(options), ctypes.byref(handle))
        return Model(handle)

    return watched(work, on_progress)


def load_bytes(
    lm: object,
    mmproj: Optional[object] = None,
    *,
    threads: int = 0,
    context: int = 0,
    kv_type: Optional[str] = None,
    exact: bool = False,
    template: Optional[str] = None,
    kernels: Optional[str] = None,
    on_progress: Optional[ProgressFunction] = None,
) -> Model:
    """`load` from the contents of the files: bytes or anything else with a contiguous buffer, which the library copies.
    Without `mmproj` the model takes no images."""
    options = _options(threads, context, kv_type, exact, template, kernels)
    handle = ctypes.c_void_p()

    def work(callback: Any) -> Model:
        options.on_progress = callback
        with pinned(lm) as l, pinned(b"" if mmproj is None else mmproj) as m:
            if not (l.contiguous and m.contiguous):
                raise InvalidArgument("lm, mmproj: have gaps, expected bytes")
            lib.llava_model_open_memory(
                l.address, l.nbytes, m.address, m.nbytes, ctypes.byref(options), ctypes.byref(handle)
            )
        return Model(handle)

    try:
        return watched(work, on_progress)
    except (TypeError, BufferError) as error:
        raise InvalidArgument(f"lm, mmproj: {error}") from error


def _options(
    threads: int,
    context: int,
    kv_type: Optional[str],
    exact: bool,
    template: Optional[str],
    kernels: Optional[str],
) -> _ffi.ModelOptions:
    if kv_type not in _KV_TYPES:
        known = ", ".join(name for name in _KV_TYPES if name)
        raise InvalidArgument(f"kv_type: is {kv_type!r}, expected one of {known}")
    return _ffi.ModelOptions(
        struct_size=ctypes.sizeof(_ffi.ModelOptions),
        threads=integer("threads", threads),
        context=integer("context", context),
        kv_type=_KV_TYPES[kv_type],
        exact=bool(exact),
        template_name=None if template is None else _ffi.path_bytes("template", template),
        kernels=None if kernels is None else _ffi.path_bytes("kernels", kernels),
    )


class Model(Unpicklable):
    """A loaded LLaVA. `load` and `load_bytes` make them.

    It never changes: any number of threads may use it at once, and take turns at its threads. Sessions and batches keep what
    they need of it, so it may be closed before them. It does not work in a forked process.
    """

    def __init__(self, handle: ctypes.c_void_p):
        self._handle = Handle("Model", handle, lib.llava_model_free)
        info = _ffi.ModelInfo()
        lib.llava_model_get_info(self._handle.value, ctypes.byref(info), ctypes.sizeof(info))
        fields = {name: getattr(info, name) for name, *_ in info._fields_ if name != "struct_size"}
        texts = {name: _ffi.decode(value) for name, value in fields.items() if isinstance(value, bytes)}
        self.info = ModelInfo(**{**fields, **texts})
        """What it is."""

    def describe(
        self,
        image: ImageLike,
        prompt: str = DESCRIBE,
        *,
        on_text: Optional[TextFunction] = None,
        on_progress: Optional[ProgressFunction] = None,
        **options: Unpack[Options],
    ) -> Answer:
        """Describes an image, or answers another question about it. `options` are those of Generation."""
        picture = Image.of(image)
        with self.session(on_progress=on_progress, **options) as session:
            return session.ask(prompt, picture, on_text=on_text)

    def session(
        self,
        generation: Optional[Generation] = None,
        *,
        system: Optional[str] = None,
        template: Optional[str] = None,
        on_progress: Optional[ProgressFunction] = None,
        **options: Unpack[Options],
    ) -> Session:
        """A new conversation. `options` change single fields of `generation`; for `system`, `template` and `on_progress` see
        the session's methods."""
        generation = (Generation() if generation is None else generation).with_options(options)
        handle = ctypes.c_void_p()
        lib.llava_session_new(self._handle.value, ctypes.byref(generation.to_c()), ctypes.byref(handle))
        session = Session(handle, generation)
        if template is not None:
            session.set_template(template)
        if system is not None:
            session.set_system(system)
        if on_progress is not None:
            session.set_progress(on_progress)
        return session

    def batch(self, *, on_progress: Optional[ProgressFunction] = None) -> Batch:
        """An empty batch, for sessions of this model. `on_progress` hears how far the images and prompts of `push` are."""
        handle = ctypes.c_void_p()
        lib.llava_batch_new(self._handle.value, ctypes.byref(handle))
        return Batch(handle, on_progress)

    def encode(self, image: ImageLike, *, on_progress: Optional[ProgressFunction] = None) -> Embedding:
        """Encodes an image once, for use in any number of sessions: the vision tower and the projector."""
        picture, handle = Image.of(image)._handle, ctypes.c_void_p()

        def work(callback: Any) -> Embedding:
            lib.llava_model_encode(self._handle.value, picture.value, callback, None, ctypes.byref(handle))
            return Embedding(handle)

        return watched(work, on_progress)

    def image_tokens(self, width: int, height: int) -> int:
        """Image tokens that a picture of `width` times `height` pixels takes."""
        tokens = ctypes.c_size_t()
        width, height = integer("width", width, 32), integer("height", height, 32)
        lib.llava_model_image_tokens(self._handle.value, width, height, ctypes.byref(tokens))
        return tokens.value

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of a text. `special` lets the texts of control tokens ("</s>") stand for those tokens, and begins with
        the token that begins prompts."""
        data, n = _ffi.text_bytes("text", text), ctypes.c_size_t()
        # Hardly ever more tokens than bytes, and the one in front.
        capacity = len(data) + 8
        while True:
            ids = (ctypes.c_uint32 * capacity)()
            lib.llava_model_tokenize(
                self._handle.value, data, len(data), bool(special), ids, capacity, ctypes.byref(n)
            )
            if n.value <= capacity:
                return list(ids[: n.value])
            capacity = n.value

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of tokens; control tokens give nothing."""
        tokens, size = _tokens(ids), ctypes.c_size_t()
        lib.llava_model_detokenize(self._handle.value, tokens, len(tokens), None, 0, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        lib.llava_model_detokenize(self._handle.value, tokens, len(tokens), text, size.value, ctypes.byref(size))
        return text.raw.decode("utf-8", "replace")

    def logits(
        self,
        inputs: Sequence[Union[int, Embedding]],
        n: int = 1,
        *,
        on_progress: Optional[ProgressFunction] = None,
    ) -> memoryview[float]:
        """The logits after each of the last `n` positions of a prompt given as tokens and encoded images: `[n, vocab_size]`
        floats, which `numpy.asarray` takes as they are."""
        pieces, handles = _inputs(inputs)
        positions = sum(1 if handle is None else handle.tokens for handle in handles)
        if integer("n", n, least=1) > positions:
            raise InvalidArgument(f"n: is {n}, expected 1 to the {positions} positions of the inputs")
        logits = (ctypes.c_float * (n * self.info.vocab_size))()

        def work(callback: Any) -> memoryview[float]:
            lib.llava_model_logits(
                self._handle.value, pieces, len(pieces), n, callback, None, logits, len(logits)
            )
            del handles[:]  # They were needed until here.
            return memoryview(logits).cast("B").cast("f", (n, self.info.vocab_size))

        return watched(work, on_progress)

    def generate(
        self,
        inputs: Sequence[Union[int, Embedding]],
        generation: Optional[Generation] = None,
        *,
        on_text: Optional[TextFunction] = None,
        on_progress: Optional[ProgressFunction] = None,
        **options: Unpack[Options],
    ) -> Answer:
        """Continues a prompt given as tokens and encoded images, without a template. `on_text` receives the answer as it is
        made, `on_progress` hears how far the prompt is."""
        generation = (Generation() if generation is None else generation).with_options(options)
        pieces, handles = _inputs(inputs)
        c_options, pointer = generation.to_c(), ctypes.POINTER(_ffi.Answer)()

        hook = Hook()
        text, progress = hook.text(on_text), hook.progress(on_progress)

        def work() -> Answer:
            lib.llava_model_generate(
                self._handle.value,
                pieces,
                len(pieces),
                ctypes.byref(c_options),
                text,
                progress,
                None,
                ctypes.byref(pointer),
            )
            del handles[:]  # They were needed until here.
            return take(pointer, generation.logprobs)

        return Call(lambda: hook.watch(work), hook.cancel).run()

    def close(self) -> None:
        """Frees it; its memory goes when the last session and batch have gone too. Otherwise it goes when nothing refers to
        it any more."""
        self._handle.free()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<llava.Model {self.info.name}{' closed' if self._handle.closed else ''}>"


def _tokens(ids: Sequence[int]) -> Any:
    if isinstance(ids, (str, bytes)) or not hasattr(ids, "__iter__"):
        raise InvalidArgument(f"ids: are {ids!r}, expected several tokens")
    tokens = [integer("ids", token, 32) for token in ids]
    return (ctypes.c_uint32 * len(tokens))(*tokens)


def _inputs(inputs: Sequence[Union[int, Embedding]]) -> tuple[Any, list[Optional[Embedding]]]:
    if isinstance(inputs, (str, bytes)) or not hasattr(inputs, "__iter__"):
        raise InvalidArgument(f"inputs: are {inputs!r}, expected several tokens and embeddings")
    pieces, images = [], []
    for piece in inputs:
        image = piece if isinstance(piece, Embedding) else None
        images.append(image)
        if image is not None:
            pieces.append(_ffi.Input(image=image._handle.value))
        else:
            pieces.append(_ffi.Input(token=integer("inputs", piece, 32)))
    return (_ffi.Input * len(pieces))(*pieces), images
