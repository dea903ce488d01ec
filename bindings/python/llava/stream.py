"""Answers as they are made."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Callable, Optional

from ._call import Call
from .answer import Answer

Start = Callable[[Callable[[str], object], Callable[[], None]], "Call[Answer]"]
"""Asks: given what to do with each piece of text and what to do at the end."""


class Stream(Iterator[str]):
    """The pieces of an answer's text, never half a character.

    The model does not wait for the reader. A stream that is closed, dropped, or interrupted before its end cancels what is
    still to come; what there is of the answer stays in the conversation.
    """

    _call: Optional[Call[Answer]] = None

    def __init__(self, start: Start):
        self._pieces: queue.SimpleQueue[Optional[str]] = queue.SimpleQueue()
        self._answer: Optional[Answer] = None
        self._over = False
        pieces = self._pieces  # The call must not keep the stream.
        self._call = start(pieces.put, lambda: pieces.put(None))

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        if self._over or self._call is None:
            raise StopIteration
        try:
            piece = self._pieces.get()
        except BaseException:
            self.close()
            raise
        if piece is not None:
            return piece
        self._over = True
        self._answer = self._call.result()
        raise StopIteration

    @property
    def answer(self) -> Optional[Answer]:
        """The whole answer, once the pieces have come to their end or the stream was closed; None before."""
        return self._answer

    def finish(self) -> Answer:
        """Reads the rest and returns the whole answer."""
        for _ in self:
            pass
        if self._answer is None:
            raise ValueError("the stream was closed before its answer began, or has failed")
        return self._answer

    def cancel(self) -> None:
        """Ends the answer soon: the pieces come to their end. May be called from any thread."""
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Ends the answer and waits until the session can be used again."""
        if self._call is None or self._over:
            return
        self._over = True
        self._call.stop()
        if self._call.ended:
            try:
                self._answer = self._call.result()
            except Exception:
                pass  # Nobody asks for it any more.

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncStream(AsyncIterator[str]):
    """`Stream` for `async for`. Leave it by `async with` or `aclose()`, or read it to its end: only these wait until the
    session can be used again."""

    _call: Optional[Call[Answer]] = None

    def __init__(self, start: Start):
        loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Optional[str]] = asyncio.Queue()
        self._answer: Optional[Answer] = None
        self._over = False
        pieces = self._pieces

        def end() -> None:
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, None)
            except RuntimeError:
                pass  # The loop is closed: nobody waits.

        self._call = start(lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece), end)

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> str:
        if self._over or self._call is None:
            raise StopAsyncIteration
        try:
            piece = await self._pieces.get()
        except BaseException:
            await self.aclose()
            raise
        if piece is not None:
            return piece
        self._over = True
        self._answer = self._call.result()
        raise StopAsyncIteration

    @property
    def answer(self) -> Optional[Answer]:
        """The whole answer, once the pieces have come to their end or the stream was closed; None before."""
        return self._answer

    async def finish(self) -> Answer:
        """Reads the rest and returns the whole answer."""
        async for _ in self:
            pass
        if self._answer is None:
            raise ValueError("the stream was closed before its answer began, or has failed")
        return self._answer

    def cancel(self) -> None:
        """Ends the answer soon: the pieces come to their end. May be called from any thread."""
        if self._call is not None:
            self._call.cancel()

    async def aclose(self) -> None:
        """Ends the answer and waits until the session can be used again."""
        if self._call is None or self._over:
            return
        self._over = True
        while not self._call.ended:
            self._call.cancel()
            await asyncio.sleep(0.01)
        try:
            self._answer = self._call.result()
        except Exception:
            pass  # Nobody asks for it any more.

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self.cancel()
