from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from conftest import PAIR, TALL, WIDE

import llava
from llava import FinishReason, Generation, Progress, Stage

# Without the token that ends answers, up to the end of the context.
LONG = Generation(max_tokens=100_000, temperature=1.0, seed=1, logit_bias={2: -float("inf")})


@pytest.fixture
def session(model: llava.Model) -> Iterator[llava.Session]:
    with model.session(max_tokens=12) as session:
        yield session


def test_whole_streamed_async_and_batched_answers_are_the_same(model: llava.Model) -> None:
    questions: list[tuple[str, list[llava.ImageLike]]] = [
        ("What is this?", [WIDE]),
        ("And these two?", [TALL, WIDE]),
        ("No image.", []),
    ]

    async def collect(question: str, images: list[llava.ImageLike]) -> tuple[str, llava.Answer]:
        async with model.session(max_tokens=12).astream(question, images) as stream:
            text = "".join([piece async for piece in stream])
            return text, await stream.finish()

    batch = model.batch()
    for question, images in questions:
        batch.push(model.session(max_tokens=12), question, images)
    assert len(batch) == 3
    for (question, images), batched in zip(questions, batch.run()):
        whole = model.session(max_tokens=12).ask(question, images)
        assert len(whole.token_ids) == 12 and whole.finish_reason is FinishReason.LENGTH
        stream = model.session(max_tokens=12).stream(question, images)
        assert stream.answer is None
        assert "".join(stream) == whole.text and next(stream, None) is None
        assert stream.answer is not None and stream.answer.token_ids == whole.token_ids
        pieces: list[str] = []
        model.session(max_tokens=12).ask(question, images, on_text=pieces.append)
        assert "".join(pieces) == whole.text
        text, answer = asyncio.run(collect(question, images))
        assert (text, answer.token_ids) == (whole.text, whole.token_ids)
        assert isinstance(batched, llava.Answer) and batched.token_ids == whole.token_ids


def test_a_conversation_goes_on_forks_and_is_forgotten(session: llava.Session) -> None:
    first = session.ask("What is this?", WIDE)
    second = session.ask("And now?")
    assert second.image_tokens == 16 and second.prompt_tokens > first.prompt_tokens
    position = session.position
    assert position > 0
    fork = session.fork()
    assert fork.position == position and fork.generation == session.generation
    fork.ask("Else?")
    assert session.position == position
    session.reset()
    assert session.position == 0
    assert session.ask("What is this?", WIDE).token_ids == first.token_ids


def test_prefilled_images_scores_and_embeddings(model: llava.Model, session: llava.Session) -> None:
    expected = session.ask("What is this?", WIDE).token_ids
    base = model.session(max_tokens=12)
    base.prefill(WIDE)
    assert base.position >= 16
    assert base.fork().ask("What is this?").token_ids == expected
    fresh = model.session(max_tokens=12)
    embedding = model.encode(WIDE)
    fresh.attach(embedding)
    fresh.detach()
    fresh.attach(embedding)
    embedding.close()
    scores = fresh.score("Is it?", ["yes", "a rather long answer"])
    assert all(s.logprob < 0 and s.tokens > 0 for s in scores) and scores[1].tokens > scores[0].tokens
    assert scores == model.session().score("Is it?", ("yes", "a rather long answer"), [WIDE])
    assert fresh.ask("What is this?").token_ids == expected


def test_options_are_for_one_question_or_all(session: llava.Session) -> None:
    full = session.ask("What is this?").text
    session.reset()
    short = session.ask("What is this?", max_tokens=2, logprobs=0, stop=["\0never"])
    assert len(short.token_ids) == 2 and short.logprobs is not None and len(short.logprobs) == 2
    assert short.top_logprobs is None
    session.reset()
    assert session.ask("What is this?").text == full
    session.generation = Generation(max_tokens=3, stop=[full[1]])
    session.reset()
    answer = session.ask("What is this?")
    assert (answer.text, answer.finish_reason) == (full[: full.index(full[1])], FinishReason.STOP)
    first = answer.token_ids[0] if answer.token_ids else 0
    session.reset()
    assert first not in session.ask("What is this?", logit_bias={first: -float("inf")}, stop=()).token_ids
    session.reset()
    session.generation = Generation(max_tokens=8, temperature=1.5, seed=7)
    drawn = session.ask("What is this?").token_ids
    session.reset()
    assert session.ask("What is this?").token_ids == drawn
    with pytest.raises(llava.InvalidArgument):
        session.generation = Generation(temperature=-1)
    assert session.generation.seed == 7


def test_system_and_template(model: llava.Model) -> None:
    plain = model.session(max_tokens=1).ask("Hi").prompt_tokens
    long = model.session(system="x " * 100, max_tokens=1)
    assert long.ask("Hi").prompt_tokens > plain
    with pytest.raises(llava.InvalidArgument, match="begun"):
        long.set_system("too late")
    assert model.session(template="plain", max_tokens=1).ask("Hi").prompt_tokens < plain
    with pytest.raises(llava.Error):
        model.session(template="no such style")


def test_progress_is_heard(model: llava.Model) -> None:
    heard: list[Progress] = []
    session = model.session(max_tokens=1, on_progress=heard.append)
    session.ask("What?", WIDE)
    assert {p.stage for p in heard} == {Stage.ENCODE, Stage.PREFILL}
    assert [p.done for p in heard if p.stage is Stage.PREFILL] == list(range(heard[-1].total + 1))
    session.set_progress(None)
    n = len(heard)
    session.ask("And?", TALL)
    assert len(heard) == n
    batch = model.batch(on_progress=heard.append)
    batch.push(model.session(max_tokens=1), "What?", WIDE)
    assert len(heard) > n


def test_what_callbacks_raise_comes_out_and_the_session_goes_on(model: llava.Model, session: llava.Session) -> None:
    expected = session.ask("What?", WIDE).token_ids
    session.reset()

    def raising(_: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        session.ask("What?", WIDE, on_text=raising)
    session.reset()
    session.set_progress(raising)
    for call in (lambda: session.ask("What?", WIDE), lambda: session.prefill(WIDE), lambda: session.stream("a").finish()):
        with pytest.raises(KeyError, match="mine"):
            call()
    session.set_progress(lambda p: p.stage is Stage.ENCODE)
    with pytest.raises(llava.Cancelled):
        session.ask("What?", WIDE)
    session.set_progress(None)
    assert session.position == 0 or session.position < 20
    assert session.ask("What?", WIDE).token_ids == expected
    assert session.ask("And?", on_text=lambda _: False).finish_reason is FinishReason.CANCELLED
    batch = model.batch(on_progress=raising)
    with pytest.raises(KeyError, match="mine"):
        batch.push(model.session(), "What?", WIDE)


def test_one_call_at_a_time(model: llava.Model, session: llava.Session) -> None:
    seen: list[BaseException] = []

    def use(_: object) -> None:
        for call in (session.reset, lambda: session.position, lambda: session.ask("Inside?"), session.fork):
            try:
                call()
            except llava.Error as error:
                seen.append(error)

    session.ask("What?", on_text=use, max_tokens=1)
    assert len(seen) == 4 and all(type(e) is llava.Busy for e in seen)
    stream = session.stream("What?", max_tokens=900)
    with pytest.raises(llava.Busy):
        session.ask("Now?")
    stream.close()
    batch = model.batch()
    batch.push(session, "What?")
    with pytest.raises(llava.Busy, match="batch"):
        session.ask("Now?")
    with pytest.raises(llava.Busy):
        batch.push(session, "Twice?")
    batch.close()
    assert session.ask("Now?").token_ids


def test_streams_end_early_by_close_drop_break_and_cancel(model: llava.Model, session: llava.Session) -> None:
    stream = session.stream("What?", WIDE, **vars(LONG))
    next(stream)
    stream.close()
    assert stream.answer is not None and stream.answer.finish_reason is FinishReason.CANCELLED
    assert next(stream, "over") == "over"
    position = session.position
    for _ in session.stream("And?", **vars(LONG)):
        break
    gc.collect()
    assert session.position > position, "what there is of the answer stays"
    with session.stream("And?", **vars(LONG)) as stream:
        next(stream)
    session.reset()
    stream = session.stream("What?", **vars(LONG))
    stream.cancel()
    with pytest.raises((llava.Cancelled, ValueError)):
        if stream.finish().finish_reason is FinishReason.CANCELLED:
            raise llava.Cancelled
    session.reset()
    session.generation = LONG
    threading.Timer(0.02, session.cancel).start()
    assert session.ask("What?").finish_reason in (FinishReason.CANCELLED, FinishReason.CONTEXT)
    session.reset()
    stream = session.stream("After?")
    session.close()
    with contextlib.suppress(llava.Cancelled):
        list(stream)


def test_errors_of_streams_come_at_their_place(session: llava.Session) -> None:
    stream = session.stream("x " * 2000)
    with pytest.raises(llava.ContextFull):
        next(stream)
    assert next(stream, None) is None
    assert session.ask("Short?").token_ids


def test_async_streams(model: llava.Model) -> None:
    async def body() -> None:
        session = model.session()
        # Two sessions at once, while the loop runs on.
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticker = asyncio.create_task(tick())
        a, b = model.session(LONG).astream("What?", WIDE), model.session(LONG).astream("What?", WIDE)
        one, two = await asyncio.gather(a.finish(), b.finish())
        assert one.token_ids == two.token_ids and ticks > 2
        ticker.cancel()

        async with session.astream("What?", **vars(LONG)) as stream:
            async for _ in stream:
                break
        assert stream.answer is not None and session.position > 0

        async def read() -> None:
            async for _ in session.astream("And?", **vars(LONG)):
                await asyncio.sleep(0)

        slow = model.session(on_progress=lambda _: time.sleep(0.05))
        task = asyncio.create_task(slow.astream("What?").finish())
        await asyncio.sleep(0.08)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        slow.set_progress(None)
        assert slow.ask("Usable?", max_tokens=2).token_ids
        with pytest.raises(llava.ContextFull):
            await session.astream("x " * 2000).finish()

    asyncio.run(body())
    with pytest.raises(RuntimeError):
        model.session().astream("no loop")


def test_sessions_on_many_threads(model: llava.Model) -> None:
    expected = model.session(max_tokens=8).ask("What?", WIDE).token_ids
    answers: list[object] = []

    def ask() -> None:
        answers.append(model.session(max_tokens=8).ask("What?", WIDE).token_ids)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 8


def test_batches_report_each_failure_and_are_used_once(model: llava.Model) -> None:
    batch = model.batch()
    good, bad = model.session(max_tokens=4), model.session()
    batch.push(good, "What?", WIDE)
    batch.push(bad, "x " * 2000)
    first, second = batch.run()
    assert isinstance(first, llava.Answer) and len(first.token_ids) == 4
    assert isinstance(second, llava.ContextFull) and "context" in str(second)
    assert good.ask("Again?", max_tokens=1).token_ids and bad.ask("Again?", max_tokens=1).token_ids
    with pytest.raises(llava.InvalidArgument, match="has run"):
        batch.run()
    other = llava.load(PAIR)
    with pytest.raises(llava.InvalidArgument, match="another model"):
        other.batch().push(model.session(), "What?")
    cancelled = model.batch(on_progress=lambda p: p.stage is Stage.ENCODE)
    cancelled.push(model.session(), "What?", WIDE)
    assert [type(a) for a in cancelled.run()] == [llava.Cancelled]


# Ctrl-C in the middle of each call that takes long: a slow progress function sends it.
INTERRUPT = """
import os, signal, sys, time
import llava

pair, image = sys.argv[1:]
steps = 0
def slow(progress):
    global steps
    steps += 1
    if steps == 2:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

model = llava.load(pair, threads=2)
expected = model.session(max_tokens=4).ask("What?", image).token_ids
session = model.session(max_tokens=4, on_progress=slow)
batch = model.batch(on_progress=slow)
calls = {
    "ask": lambda: session.ask("What?", image),
    "prefill": lambda: session.prefill(image),
    "score": lambda: session.score("What?", ["yes"], image),
    "stream": lambda: next(session.stream("What?", image)),
    "push": lambda: batch.push(model.session(), "What?", image),
    "describe": lambda: model.describe(image, on_progress=slow),
    "encode": lambda: model.encode(image, on_progress=slow),
    "load": lambda: llava.load(pair, on_progress=slow),
    "logits": lambda: model.logits([1, 100], on_progress=slow),
    "generate": lambda: model.generate([1, 100], on_progress=slow),
    "generated text": lambda: model.generate([1, 100], max_tokens=100, on_text=slow),
}
for name, call in calls.items():
    steps = 0
    begun = time.perf_counter()
    try:
        call()
        sys.exit(f"{name} was not interrupted")
    except KeyboardInterrupt:
        pass
    took = time.perf_counter() - begun
    # Within one layer, though each takes a tenth of a second.
    if steps > 4 or took > 10:
        sys.exit(f"{name} went on for {steps} steps and {took:.2f} s")
    print(name, steps, f"{took:.2f} s")
session.set_progress(None)
assert session.ask("What?", image).token_ids == expected
"""


def test_ctrl_c_cancels_every_long_call_within_a_layer() -> None:
    out = subprocess.run(
        [sys.executable, "-c", INTERRUPT, str(PAIR), str(WIDE)], capture_output=True, text=True, timeout=60
    )
    print(out.stdout)
    assert out.returncode == 0, out.stderr


# No callback at all, and the signal from outside: only the model is slow.
OUTSIDE = """
import sys, time
import llava

model = llava.load(sys.argv[1], threads=1, kernels="scalar", exact=True)
session = model.session(llava.Generation(max_tokens=1))
text = "a question that goes on and on " * 28
print("ready", flush=True)
interrupted = False
begun = time.perf_counter()
try:
    while time.perf_counter() - begun < 20:
        session.score("Is it?", [text] * 50, sys.argv[2])
except KeyboardInterrupt:
    interrupted = True
assert interrupted
assert session.ask("What?", sys.argv[2]).token_ids
print("done", flush=True)
"""


def test_ctrl_c_from_outside_leaves_a_usable_session() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OUTSIDE, str(PAIR), str(WIDE)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        begun = time.perf_counter()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "done\n"
        print(f"{time.perf_counter() - begun:.3f} s")
        assert child.wait(timeout=30) == 0


# The interpreter ends while a stream is open, and while a call runs on another thread.
ENDING = """
import sys, threading, time
import llava
model = llava.load(sys.argv[1], threads=2)
stream = model.session(llava.Generation(max_tokens=100_000, temperature=1.0, seed=1)).stream("What?")
next(stream)
slow = model.session(on_progress=lambda _: time.sleep(0.2))
threading.Thread(target=slow.ask, args=("What?",), daemon=True).start()
time.sleep(0.1)
"""


def test_the_process_ends_cleanly_with_calls_running() -> None:
    out = subprocess.run([sys.executable, "-c", ENDING, str(PAIR)], capture_output=True, text=True, timeout=20)
    assert out.returncode == 0, (out.returncode, out.stderr)


def test_signals_do_not_disturb_a_call(session: llava.Session) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        session.ask("What?", on_text=lambda _: os.kill(os.getpid(), signal.SIGUSR1))
        assert heard
    finally:
        signal.signal(signal.SIGUSR1, before)
