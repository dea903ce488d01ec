"""What can go wrong: one class for each status of the C ABI."""

from __future__ import annotations


class Error(Exception):
    """Something that the library refuses or cannot do; the text is for the person at the keyboard.

    Those that a program catches anyway by a builtin name have that name too: a bad argument and a closed object are a
    ValueError, a file that cannot be read an OSError, no memory a MemoryError. The others have no builtin relative that
    would be true of all their causes (`ModelNotFound` is also a model without a vision tower, so no FileNotFoundError).
    """

    status: int = 0
    """The `llava_status` of include/llava.h."""


class InvalidArgument(Error, ValueError):
    """An argument is out of its range."""

    status = -1


class InvalidHandle(Error, ValueError):
    """The object is closed, or belongs to the process that this one was forked from."""

    status = -2


class IoError(Error, OSError):
    """A file could not be opened, read or written."""

    status = -10


class InvalidModel(Error):
    """A GGUF file breaks the format, or its contents contradict each other."""

    status = -11


class Unsupported(Error):
    """A GGUF file is sound, but uses something that is not implemented."""

    status = -12


class PairMismatch(Error):
    """The language model and the mmproj do not belong together."""

    status = -13


class ModelNotFound(Error):
    """No model was named, none is where one was named, or the model has no vision tower."""

    status = -14


class InvalidImage(Error):
    """An image cannot be decoded or is over a limit."""

    status = -15


class TemplateError(Error):
    """A chat template does not compile, fails, or loses an image."""

    status = -16


class DownloadError(Error):
    """A model could not be had from the Hugging Face Hub."""

    status = -17


class ContextFull(Error):
    """The prompt does not fit into the context."""

    status = -20


class OutOfMemory(Error, MemoryError):
    """More memory would be needed than there is or than is allowed."""

    status = -21


class Cancelled(Error):
    """It was cancelled before there was anything to return."""

    status = -22


class Busy(Error):
    """The session or batch is in use: by a call on another thread, by a stream, by a batch, or by the call whose
    callback this is."""

    status = -30


class Poisoned(Error):
    """An earlier call on this object ended in `Panic`. It can only be closed."""

    status = -31


class Panic(Error):
    """A defect of the library. Please report it with its text."""

    status = -32


_BY_STATUS: dict[int, type[Error]] = {c.status: c for c in Error.__subclasses__()}


def failure(status: int, message: str) -> Error:
    """The exception for a status; newer libraries may have some that are not known here."""
    error = _BY_STATUS.get(status, Error)(message)
    error.status = status
    return error
