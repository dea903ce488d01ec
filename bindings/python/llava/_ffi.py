"""The C ABI of include/llava.h, declared anew and checked against the library when it is loaded."""

from __future__ import annotations

import ctypes
import operator
import os
from ctypes import POINTER, c_bool, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Optional, Union

from . import errors
from ._library import open_library

ABI_VERSION = 1

PROGRESS = ctypes.CFUNCTYPE(c_bool, c_int32, c_size_t, c_size_t, c_void_p)
TEXT = ctypes.CFUNCTYPE(c_bool, c_void_p, c_size_t, c_void_p)
LOG = ctypes.CFUNCTYPE(None, c_int32, c_void_p, c_size_t, c_void_p)


class ModelOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("mmproj", c_char_p),
        ("threads", c_size_t),
        ("context", c_size_t),
        ("kv_type", c_int32),
        ("exact", c_int32),
        ("template_name", c_char_p),
        ("kernels", c_char_p),
        ("on_progress", PROGRESS),
        ("progress_data", c_void_p),
    ]


class ModelInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("mmproj", c_char_p),
        ("template_name", c_char_p),
        ("template_reason", c_char_p),
        ("kernels", c_char_p),
        ("threads", c_size_t),
        ("context", c_size_t),
        ("trained_context", c_size_t),
        ("vocab_size", c_size_t),
        ("d_model", c_size_t),
        ("n_layer", c_size_t),
        ("kv_bytes", c_uint64),
        ("image_size", c_size_t),
        ("patch_size", c_size_t),
    ]


class TokenLogprob(ctypes.Structure):
    _fields_ = [("id", c_uint32), ("logprob", c_float)]


class Answer(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("status", c_int32),
        ("finish_reason", c_int32),
        ("error", c_char_p),
        # The text may hold a NUL, so it is no c_char_p.
        ("text", c_void_p),
        ("text_size", c_size_t),
        ("token_ids", POINTER(c_uint32)),
        ("n_tokens", c_size_t),
        ("logprobs", POINTER(TokenLogprob)),
        ("top_logprobs", POINTER(TokenLogprob)),
        ("n_top", c_size_t),
        ("prompt_tokens", c_size_t),
        ("image_tokens", c_size_t),
        ("preprocess_ms", c_double),
        ("encode_ms", c_double),
        ("prefill_ms", c_double),
        ("first_token_ms", c_double),
        ("total_ms", c_double),
    ]


class Input(ctypes.Structure):
    _fields_ = [("image", c_void_p), ("token", c_uint32)]


class LogitBias(ctypes.Structure):
    _fields_ = [("token", c_uint32), ("bias", c_float)]


class Text(ctypes.Structure):
    _fields_ = [("data", c_char_p), ("size", c_size_t)]


class GenerationOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("max_tokens", c_size_t),
        ("repeat_penalty", c_float),
        ("temperature", c_float),
        ("top_k", c_size_t),
        ("top_p", c_float),
        ("min_p", c_float),
        ("seed", c_uint64),
        ("has_seed", c_int32),
        ("logprobs", c_int32),
        ("top_logprobs", c_size_t),
        ("logit_bias", POINTER(LogitBias)),
        ("n_logit_bias", c_size_t),
        ("stop", POINTER(Text)),
        ("n_stop", c_size_t),
        ("stop_tokens", POINTER(c_uint32)),
        ("n_stop_tokens", c_size_t),
    ]


class Score(ctypes.Structure):
    _fields_ = [("logprob", c_float), ("tokens", c_uint32)]


class Field(ctypes.Structure):
    _fields_ = [("structure", c_char_p), ("field", c_char_p), ("offset", c_size_t), ("size", c_size_t)]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "llava_answer": Answer,
    "llava_generation_options": GenerationOptions,
    "llava_input": Input,
    "llava_logit_bias": LogitBias,
    "llava_model_info": ModelInfo,
    "llava_model_options": ModelOptions,
    "llava_score": Score,
    "llava_text": Text,
    "llava_token_logprob": TokenLogprob,
}

# Handles are names, not addresses: ctypes has them as integers.
_HANDLE = c_void_p
_NEW = POINTER(c_void_p)
_ANSWER = POINTER(POINTER(Answer))
_GENERATION = POINTER(GenerationOptions)
_OPTIONS = POINTER(ModelOptions)
_SIZE = POINTER(c_size_t)
_IDS = POINTER(c_uint32)
_TEXT = (c_char_p, c_size_t)
_IMAGES = (_NEW, c_size_t)
_INPUTS = (POINTER(Input), c_size_t)

# The parameters of functions that return a llava_status, which becomes an exception.
FALLIBLE: dict[str, tuple[Any, ...]] = {
    "llava_set_log": (c_int32, LOG, c_void_p),
    "llava_model_options_init": (_OPTIONS, c_size_t),
    "llava_model_open": (c_char_p, _OPTIONS, _NEW),
    "llava_model_open_memory": (c_void_p, c_size_t, c_void_p, c_size_t, _OPTIONS, _NEW),
    "llava_model_get_info": (_HANDLE, POINTER(ModelInfo), c_size_t),
    "llava_model_image_tokens": (_HANDLE, c_uint32, c_uint32, _SIZE),
    "llava_model_describe": (_HANDLE, _HANDLE, _ANSWER),
    "llava_model_encode": (_HANDLE, _HANDLE, PROGRESS, c_void_p, _NEW),
    "llava_model_tokenize": (_HANDLE, *_TEXT, c_int32, _IDS, c_size_t, _SIZE),
    "llava_model_detokenize": (_HANDLE, _IDS, c_size_t, c_char_p, c_size_t, _SIZE),
    "llava_model_logits": (_HANDLE, *_INPUTS, c_size_t, PROGRESS, c_void_p, POINTER(c_float), c_size_t),
    "llava_model_generate": (_HANDLE, *_INPUTS, _GENERATION, TEXT, PROGRESS, c_void_p, _ANSWER),
    "llava_image_open": (c_char_p, _NEW),
    "llava_image_decode": (c_void_p, c_size_t, _NEW),
    "llava_image_from_pixels": (c_void_p, c_size_t, c_uint32, c_uint32, c_size_t, c_int32, _NEW),
    "llava_image_size": (_HANDLE, POINTER(c_uint32), POINTER(c_uint32)),
    "llava_embedding_new": (c_void_p, c_size_t, c_size_t, _NEW),
    "llava_embedding_load": (c_char_p, _NEW),
    "llava_embedding_save": (_HANDLE, c_char_p),
    "llava_embedding_values": (_HANDLE, POINTER(c_void_p), _SIZE, _SIZE),
    "llava_generation_options_init": (_GENERATION, c_size_t),
    "llava_session_new": (_HANDLE, _GENERATION, _NEW),
    "llava_session_set_generation": (_HANDLE, _GENERATION),
    "llava_session_set_system": (_HANDLE, *_TEXT),
    "llava_session_set_template": (_HANDLE, c_char_p),
    "llava_session_set_progress": (_HANDLE, PROGRESS, c_void_p),
    "llava_session_reset": (_HANDLE,),
    "llava_session_fork": (_HANDLE, _NEW),
    "llava_session_attach": (_HANDLE, _HANDLE),
    "llava_session_detach": (_HANDLE,),
    "llava_session_prefill": (_HANDLE, *_IMAGES),
    "llava_session_ask": (_HANDLE, *_TEXT, *_IMAGES, TEXT, c_void_p, _ANSWER),
    "llava_session_score": (_HANDLE, *_TEXT, *_IMAGES, POINTER(Text), c_size_t, POINTER(Score)),
    "llava_session_position": (_HANDLE, _SIZE),
    "llava_batch_new": (_HANDLE, _NEW),
    "llava_batch_set_progress": (_HANDLE, PROGRESS, c_void_p),
    "llava_batch_push": (_HANDLE, _HANDLE, *_TEXT, *_IMAGES),
    "llava_batch_run": (_HANDLE, POINTER(POINTER(Answer)), c_size_t),
    "llava_struct_layout": (POINTER(POINTER(Field)), _SIZE),
}

# Of the others: the result, then the parameters.
INFALLIBLE: dict[str, tuple[Any, ...]] = {
    "llava_abi_version": (c_uint32,),
    "llava_version": (c_char_p,),
    "llava_error_message": (c_char_p,),
    "llava_status_name": (c_char_p, c_int32),
    "llava_model_free": (None, _HANDLE),
    "llava_image_free": (None, _HANDLE),
    "llava_embedding_free": (None, _HANDLE),
    "llava_session_free": (None, _HANDLE),
    "llava_session_cancel": (None, _HANDLE),
    "llava_answer_free": (None, POINTER(Answer)),
    "llava_batch_free": (None, _HANDLE),
    "llava_batch_cancel": (None, _HANDLE),
}


def _check(status: int, function: object, arguments: tuple[Any, ...]) -> int:
    if status != 0:
        raise errors.failure(status, lib.llava_error_message().decode("utf-8", "replace"))
    return status


def _declare(library: Any, path: str) -> None:
    try:
        found = library.llava_abi_version
        if found() != ABI_VERSION:
            raise ImportError(f"{path} has binary interface {found()}, and this package needs {ABI_VERSION}")
        for name, parameters in FALLIBLE.items():
            function = getattr(library, name)
            function.restype, function.argtypes, function.errcheck = c_int32, parameters, _check
        for name, (result, *others) in INFALLIBLE.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, others
    except AttributeError as error:
        raise ImportError(f"{path} is not the shared library of llava: {error}") from error


def check_layout(path: str, layout: dict[tuple[str, str], tuple[int, int]]) -> None:
    """Holds the structs above against the library's table: (struct, field) to (offset, size); the field "" is the whole."""
    for name, struct in STRUCTS.items():
        ours = {field: (getattr(struct, field).offset, getattr(struct, field).size) for field, *_ in struct._fields_}
        # Structs that say their size may have grown at their end.
        _, size = layout.get((name, ""), (0, 0))
        if size == ctypes.sizeof(struct) or ("struct_size" in ours and size > ctypes.sizeof(struct)):
            if all(layout.get((name, field)) == place for field, place in ours.items()):
                continue
        raise ImportError(f"{path} lays {name} out in another way than this package expects; their versions do not fit")


def _layout(library: Any) -> dict[tuple[str, str], tuple[int, int]]:
    fields, n = POINTER(Field)(), c_size_t()
    library.llava_struct_layout(ctypes.byref(fields), ctypes.byref(n))
    return {(f.structure.decode(), f.field.decode()): (f.offset, f.size) for f in fields[: n.value]}


_library, LIBRARY_PATH = open_library()
lib: Any = _library
_declare(lib, LIBRARY_PATH)
check_layout(LIBRARY_PATH, _layout(lib))


def integer(name: str, value: object, bits: int = 64, least: int = 0) -> int:
    """An argument that C has as an unsigned number: ctypes would cut off what is too large, or negative."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise errors.InvalidArgument(f"{name}: is {value!r}, expected an integer") from None
    if not least <= number < 1 << bits:
        raise errors.InvalidArgument(f"{name}: is {number}, expected {least} to {(1 << bits) - 1}")
    return number


def path_bytes(name: str, path: Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]) -> bytes:
    """A path or name for C, which ends at its first NUL."""
    try:
        encoded = os.fsencode(path)
    except TypeError:
        raise errors.InvalidArgument(f"{name}: is {path!r}, expected a path") from None
    if b"\0" in encoded:
        raise errors.InvalidArgument(f"{name}: {path!r} has a NUL in it")
    return encoded


def text_bytes(name: str, text: object) -> bytes:
    """A text for C, where its size is given too."""
    if not isinstance(text, str):
        raise errors.InvalidArgument(f"{name}: is {text!r}, expected a str")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise errors.InvalidArgument(f"{name}: is no Unicode text: {error}") from None


def texts(name: str, values: object) -> Any:
    """An array of llava_text."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise errors.InvalidArgument(f"{name}: is {values!r}, expected several texts")
    encoded = [text_bytes(name, value) for value in values]
    return (Text * len(encoded))(*[Text(data, len(data)) for data in encoded])


def decode(text: Optional[bytes]) -> str:
    return (text or b"").decode("utf-8", "replace")
