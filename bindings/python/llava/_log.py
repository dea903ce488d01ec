"""The library's log, as that of the logger "llava"."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
from typing import Optional

from . import _ffi
from ._ffi import lib

logger = logging.getLogger("llava")

_DEBUG = 4
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


def _log(level: int, text: Optional[int], size: int, _: object) -> None:
    severity = _LEVELS.get(level, logging.DEBUG)
    # A level that is set later counts too, so the library tells all.
    if text and logger.isEnabledFor(severity):
        logger.log(severity, "%s", ctypes.string_at(text, size).decode("utf-8", "replace"))


_callback = _ffi.LOG(_log)
lib.llava_set_log(_DEBUG, _callback, None)


@atexit.register
def _stop(process: int = os.getpid()) -> None:
    # A fork has the library's locks as they were.
    if os.getpid() == process:
        lib.llava_set_log(0, _ffi.LOG(), None)
