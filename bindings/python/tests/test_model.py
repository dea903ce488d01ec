from __future__ import annotations

import ctypes
import hashlib
import http.server
import json
import logging
import math
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Union

import pytest
from conftest import GOLDEN, PAIR, TALL, WIDE

import llava
from llava import FinishReason, Progress, Stage, _ffi


def test_describe_is_the_librarys_describe(model: llava.Model) -> None:
    answer = model.describe(WIDE)
    pointer = ctypes.POINTER(_ffi.Answer)()
    image = llava.Image.open(WIDE)
    _ffi.lib.llava_model_describe(model._handle.value, image._handle.value, ctypes.byref(pointer))
    whole = llava.answer.take(pointer, None)
    assert answer.token_ids == whole.token_ids and answer.text == whole.text == str(answer)
    assert answer.image_tokens == model.image_tokens(image.width, image.height) == 16
    assert answer.prompt_tokens > 16
    assert answer.timings.total_ms >= answer.timings.first_token_ms > 0
    assert answer.logprobs is None and answer.top_logprobs is None
    assert model.describe(WIDE, "What?", max_tokens=3).finish_reason is FinishReason.LENGTH


def test_every_way_of_loading_gives_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, mmproj = (PAIR / "lm.gguf").read_bytes(), (PAIR / "mmproj.gguf").read_bytes()
    monkeypatch.setenv("LLAVA_MODEL", str(PAIR))
    models = [
        llava.load(),
        llava.load(str(PAIR), threads=1),
        llava.load(PAIR / "lm.gguf", mmproj=PAIR / "mmproj.gguf", context=600),
        llava.load_bytes(lm, memoryview(bytearray(mmproj)), threads=2),
    ]
    answers = {m.describe(WIDE, max_tokens=12).token_ids for m in models}
    assert len(answers) == 1
    assert models[1].info.threads == 1 and models[2].info.context == 600
    assert models[3].info.name == "<memory>" and models[0].info.mmproj == str(PAIR / "mmproj.gguf")
    assert models[0].info.vocab_size == 280 and models[0].info.d_model == 64
    text_only = llava.load_bytes(lm)
    assert text_only.info.mmproj is None and text_only.info.image_size == 0
    with pytest.raises(llava.ModelNotFound):
        text_only.describe(WIDE)


def test_options_of_loading_arrive() -> None:
    exact = llava.load(PAIR, exact=True, kernels="scalar", kv_type="f32", template="plain")
    assert (exact.info.kernels, exact.info.template_name) == ("scalar", "plain")
    half = llava.load(PAIR, kv_type="f16")
    assert exact.info.kv_bytes == 2 * half.info.kv_bytes
    with pytest.raises(llava.InvalidArgument, match="q8_0 needs heads"):
        llava.load(PAIR, kv_type="q8_0")


def test_loading_says_how_far_it_is_and_can_be_cancelled() -> None:
    heard: list[Progress] = []
    llava.load(PAIR, on_progress=heard.append)
    assert heard[0] == (Stage.LOAD, 0, 4) and heard[-1] == (Stage.LOAD, 4, 4)
    with pytest.raises(llava.Cancelled):
        llava.load(PAIR, on_progress=lambda p: p.done < 2)

    def raising(p: Progress) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        llava.load(PAIR, on_progress=raising)
    with pytest.raises(KeyError, match="mine"):
        llava.load(PAIR).encode(WIDE, on_progress=raising)
    with pytest.raises(llava.Cancelled):
        llava.load(PAIR).encode(WIDE, on_progress=lambda p: p.done < 1)


def test_tokens_there_and_back(model: llava.Model) -> None:
    text = "a cat\0 on the mat 🐈"
    ids = model.tokenize(text)
    assert model.detokenize(ids) == text
    assert model.detokenize([]) == "" and model.tokenize("") == []
    special = model.tokenize("hello</s>", special=True)
    assert special[0] == 1 and special[-1] == 2 and model.tokenize("hello</s>")[-1] != 2
    with pytest.raises(ValueError):
        model.detokenize([-1])


def test_logits_and_generation_agree(model: llava.Model) -> None:
    embedding = model.encode(WIDE)
    inputs: list[Union[int, llava.Embedding]] = [1, 100, embedding, 101]
    logits = model.logits(inputs, 3)
    assert logits.shape == (3, model.info.vocab_size)
    rows: Any = logits.tolist()  # Typed as if it had one dimension.
    last: list[float] = rows[-1]
    only: Any = model.logits(inputs).tolist()
    assert [last] == only
    pieces: list[str] = []
    answer = model.generate(inputs, max_tokens=4, logprobs=2, on_text=pieces.append)
    assert "".join(pieces) == answer.text
    with pytest.raises(llava.Cancelled):
        model.logits(inputs, on_progress=lambda _: False)
    assert answer.token_ids[0] == max(range(len(last)), key=last.__getitem__)
    assert answer.logprobs is not None and answer.top_logprobs is not None
    assert [t.id for t in answer.logprobs] == list(answer.token_ids) and len(answer.top_logprobs[0]) == 2
    total = math.log(sum(math.exp(value) for value in last))
    assert answer.logprobs[0].logprob == pytest.approx(max(last) - total, abs=1e-4)
    for n in (0, -1, 19 + 1, 1 << 70):
        with pytest.raises(llava.InvalidArgument):
            model.logits(inputs, n)


def test_the_log_is_pythons(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "llava"):
        llava.load(PAIR, threads=1)
    assert any(r.name == "llava" and "kernels" in r.message for r in caplog.records)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "llava"):
        llava.load(PAIR)
    assert not caplog.records


def test_errors_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAVA_MODEL", raising=False)
    with pytest.raises(llava.ModelNotFound, match="LLAVA_MODEL"):
        llava.load()
    with pytest.raises(OSError, match="nowhere") as caught:
        llava.load(tmp_path / "nowhere.gguf")
    assert isinstance(caught.value, llava.IoError) and caught.value.status == -10
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises((llava.InvalidModel, llava.Unsupported)):
        llava.load(tmp_path / "bad.gguf")
    with pytest.raises(llava.InvalidModel):
        llava.load_bytes(b"no model")
    with pytest.raises(llava.ContextFull) as full:
        llava.load(PAIR, context=16).describe(WIDE)
    assert type(pickle.loads(pickle.dumps(full.value))) is llava.ContextFull
    with pytest.raises(llava.PairMismatch):
        llava.load(PAIR / "lm.gguf", mmproj=GOLDEN / "ldp" / "mmproj.gguf")


GARBAGE: list[Any] = [None, 1.5, -1, 1 << 80, "x", b"x", object(), [], [None], {"a": 1}, float("nan")]


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
def test_garbage_is_an_exception(model: llava.Model, garbage: Any) -> None:
    refused = (llava.Error, TypeError)
    session = model.session(max_tokens=1)
    bad: Any = b"no"
    calls: list[Callable[[], object]] = [
        lambda: llava.load(garbage if garbage is not None else ""),
        lambda: llava.load("a\0b"),
        lambda: llava.load(PAIR, threads=garbage or bad),
        lambda: llava.load(PAIR, kv_type=garbage or bad),
        lambda: llava.load(PAIR, template=garbage or "no such"),
        lambda: llava.load_bytes(garbage),
        lambda: model.describe(garbage),
        lambda: model.encode(garbage),
        lambda: model.image_tokens(garbage, 1 << 33),
        lambda: model.tokenize(garbage if not isinstance(garbage, str) else "\ud800"),
        lambda: model.detokenize(garbage if garbage != [] else 5),  # type: ignore[arg-type]
        lambda: model.logits(garbage),
        lambda: model.generate(garbage),
        lambda: session.ask(garbage if not isinstance(garbage, str) else ""),
        lambda: session.ask("a", on_text=garbage if garbage is not None else bad, max_tokens=1),
        lambda: session.ask("a", [garbage]),
        lambda: session.ask("a", max_tokens=garbage if garbage is not None else 0),
        lambda: session.ask("a", temperature=-1 if isinstance(garbage, (int, float)) else garbage),
        lambda: session.ask("a", stop=garbage if garbage and not isinstance(garbage, dict) else 1),  # type: ignore[arg-type]
        lambda: session.ask("a", logit_bias=garbage or 1),  # type: ignore[arg-type]
        lambda: session.ask("a", nonsense=garbage),  # type: ignore[call-arg]
        lambda: session.score("a", garbage if garbage and not isinstance(garbage, dict) else 1),  # type: ignore[arg-type]
        lambda: session.set_template(garbage if garbage is not None else 1),  # type: ignore[arg-type]
        lambda: session.attach(garbage),
        lambda: session.prefill([garbage]),
        lambda: model.batch().push(session, garbage if not isinstance(garbage, str) else "\ud800"),
        lambda: llava.Image.decode(garbage),
        lambda: llava.Image.from_pixels(garbage, 4, 4),
        lambda: llava.Image.from_pixels(b"abc", garbage or 0, 1),
        lambda: llava.Image.from_array(garbage),
        lambda: llava.Embedding.from_array(garbage),
        lambda: llava.Embedding.load(garbage),
    ]
    for i, call in enumerate(calls):
        try:
            call()
        except refused:
            continue
        pytest.fail(f"call {i} accepts {garbage!r}")
    assert session.ask("a").token_ids


def test_what_is_closed_says_so(model: llava.Model) -> None:
    closing = llava.load(PAIR)
    session, batch, image, embedding = closing.session(), closing.batch(), llava.Image.open(WIDE), closing.encode(WIDE)
    with closing:
        pass
    assert session.ask("It lives on?", max_tokens=1).token_ids
    for thing in (session, batch, image, embedding, closing):
        thing.close()
        thing.close()
        assert "closed" in repr(thing)
    uses: list[Callable[[], object]] = [
        lambda: closing.describe(WIDE),
        lambda: closing.encode(WIDE),
        lambda: session.ask("a"),
        lambda: session.stream("a"),
        lambda: session.position,
        lambda: session.fork(),
        lambda: batch.push(model.session(), "a"),
        lambda: batch.run(),
        lambda: model.describe(image),
        lambda: model.session().attach(embedding),
        lambda: embedding.memoryview(),
        lambda: embedding.tolist(),
    ]
    for use in uses:
        with pytest.raises(llava.InvalidHandle, match="is closed"):
            use()
    session.cancel()
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(model)


FORK = """
import os, sys, time, llava
model, image = llava.load(sys.argv[1], threads=2), llava.Image.open(sys.argv[2])
session, batch = model.session(max_tokens=2), model.batch()
expected = session.ask("a", image).text
# A call that runs during the fork ends in the parent alone.
running = model.session(on_progress=lambda _: time.sleep(0.02)).stream("a", image)
child = os.fork()
if child == 0:
    for use in (lambda: session.ask("b"), lambda: model.describe(image), lambda: batch.run(), lambda: session.reset()):
        try:
            use()
            os._exit(1)
        except llava.InvalidHandle as error:
            assert "fork" in str(error), error
    session.close()
    running.close()
    del model, session, batch, running
    # A model of its own works, with the image of before.
    assert llava.load(sys.argv[1]).session(max_tokens=2).ask("a", image).text == expected
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert model.session(max_tokens=2).ask("a", image).text == expected
assert running.finish().text.startswith(expected)
"""


def test_a_forked_child_is_told_to_load_its_own(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORK, str(PAIR), str(WIDE)], check=True, timeout=60)


LEAKS = """
import gc, os, sys, llava
def resident():
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def cycle():
    with llava.load(sys.argv[1], threads=2) as model, llava.Image.open(sys.argv[2]) as image:
        model.describe(image, max_tokens=4)
        stream = model.session(max_tokens=4).stream("What?", image)
        next(stream)
        del stream
        model.encode(image).memoryview()
for _ in range(40):
    cycle()
before = resident()
for _ in range(200):
    cycle()
print(before, resident())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_two_hundred_cycles_leave_memory_as_it_was() -> None:
    out = subprocess.run(
        [sys.executable, "-c", LEAKS, str(PAIR), str(TALL)], check=True, capture_output=True, text=True, timeout=120
    )
    before, after = map(int, out.stdout.split())
    print(f"resident: {before / 2**20:.1f} MiB, after 200 cycles {after / 2**20:.1f} MiB")
    # A model of this size is 0.4 MB: ten forgotten ones would show.
    assert after - before < 4 << 20


def test_a_model_of_the_hub_comes_once_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"m-q4_0.gguf": (PAIR / "lm.gguf").read_bytes(), "mmproj.gguf": (PAIR / "mmproj.gguf").read_bytes()}
    siblings = [
        {"rfilename": name, "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}
        for name, data in files.items()
    ]
    listing = json.dumps({"sha": "abc123", "siblings": siblings}).encode()

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = listing if self.path.startswith("/api/models/a/b/") else files.get(self.path.rsplit("/", 1)[-1])
            self.send_response(404 if body is None else 200)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    for name in ("HF_HUB_CACHE", "HF_TOKEN", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(llava.DownloadError, match="HF_HUB_OFFLINE"):
        llava.load("hf:a/b")
    stages = set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE")
        pulled = llava.load("hf:a/b:Q4_0", on_progress=lambda p: stages.add(p.stage))
        with pytest.raises(llava.DownloadError, match="404"):
            llava.load("hf:a/c")
        server.shutdown()
    assert Stage.DOWNLOAD in stages
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = llava.load("hf:a/b")
    first, second = (m.describe(WIDE, max_tokens=3).token_ids for m in (pulled, again))
    assert first == second
