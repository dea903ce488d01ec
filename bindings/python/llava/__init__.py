"""Answers questions about images with LLaVA models, straight from GGUF files, on the CPU.

    import llava

    model = llava.load("models/llava-v1.5-7b")
    print(model.describe("cat.jpg"))

    with model.session(max_tokens=100) as session:
        for piece in session.stream("What is on the mat?", "cat.jpg"):
            print(piece, end="", flush=True)
        print(session.ask("What colour is it?").text)

Calls that take long release the GIL, and Ctrl-C cancels them within one layer of the network. docs/python.md in the repository
says more. The logger "llava" hears what the library has to say.
"""

from . import _log
from ._ffi import LIBRARY_PATH, lib
from .answer import Answer, FinishReason, Score, Timings, TokenLogprob
from .batch import Batch
from .embedding import Embedding
from .errors import (
    Busy,
    Cancelled,
    ContextFull,
    DownloadError,
    Error,
    InvalidArgument,
    InvalidHandle,
    InvalidImage,
    InvalidModel,
    IoError,
    ModelNotFound,
    OutOfMemory,
    PairMismatch,
    Panic,
    Poisoned,
    TemplateError,
    Unsupported,
)
from .generation import Generation
from .image import Image, ImageLike
from .model import DESCRIBE, Model, ModelInfo, load, load_bytes
from .progress import Progress, Stage
from .session import Session
from .stream import AsyncStream, Stream

__version__: str = lib.llava_version().decode()

__all__ = [
    "DESCRIBE",
    "LIBRARY_PATH",
    "Answer",
    "AsyncStream",
    "Batch",
    "Busy",
    "Cancelled",
    "ContextFull",
    "DownloadError",
    "Embedding",
    "Error",
    "FinishReason",
    "Generation",
    "Image",
    "ImageLike",
    "InvalidArgument",
    "InvalidHandle",
    "InvalidImage",
    "InvalidModel",
    "IoError",
    "Model",
    "ModelInfo",
    "ModelNotFound",
    "OutOfMemory",
    "PairMismatch",
    "Panic",
    "Poisoned",
    "Progress",
    "Score",
    "Session",
    "Stage",
    "Stream",
    "TemplateError",
    "Timings",
    "TokenLogprob",
    "Unsupported",
    "load",
    "load_bytes",
]
