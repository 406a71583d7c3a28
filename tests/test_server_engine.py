"""The OpenAI-compatible engine against a real HTTP server on this machine, streaming included."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from doubles import openai_url

from pat_core.llm.server_engine import ServerEngine, neutralized
from pat_core.llm.types import LLMError, Request, Sampling

KEY = "secret-key-of-this-test"


class Server:
    """Answers chat completions word by word. The knobs below change how; ``bodies`` holds what was asked."""

    def __init__(self) -> None:
        self.models: list[str] | None = ["base-model", "style", "generator"]
        self.words = "one two three four".split()
        self.pause = 0.01
        self.refuse_switches = self.repeat_prefix = self.break_off = self.garbage = False
        self.finish = "stop"
        self.bodies: list[dict] = []
        self.at_once = self.most_at_once = self.hung_up = 0
        self.lock = threading.Lock()


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def reply(self, status: int, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def allowed(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {KEY}":
                return True
            self.reply(401, {"error": {"message": f"bad key {self.headers.get('Authorization')}"}})
            return False

        def do_GET(self) -> None:
            if not self.allowed():
                return
            if server.models is None:
                self.reply(404, {"error": "no list"})
            else:
                self.reply(200, {"data": [{"id": m} for m in server.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.bodies.append(body)
            if not self.allowed():
                return
            if server.refuse_switches and "continue_final_message" in body:
                self.reply(400, {"error": {"message": "unknown field continue_final_message"}})
                return
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                self.stream(body)
            except OSError:
                server.hung_up += 1
            finally:
                with server.lock:
                    server.at_once -= 1

        def stream(self, body: dict) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            if server.garbage:
                self.wfile.write(b"data: <html>\n\n")
                return
            begun = body["messages"][-1]["content"] + " " if server.repeat_prefix else ""
            for word in [begun, *(w + " " for w in server.words)]:
                self.event({"choices": [{"delta": {"content": word}}]})
                time.sleep(server.pause)
            if not server.break_off:
                self.event({"choices": [{"delta": {}, "finish_reason": server.finish}], "usage": {"completion_tokens": 17}})
                self.wfile.write(b"data: [DONE]\n\n")

        def event(self, value: object) -> None:
            self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
            self.wfile.flush()

    return Handler


@contextmanager
def serving() -> Iterator[tuple[Server, str]]:
    server = Server()
    with openai_url(handler(server)) as url:
        yield server, url


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    with serving() as running:
        yield running


def ask(engine: ServerEngine, key: str = "a", prefix: str = "", **more: object) -> Request:
    return Request(key, engine.prompt([("user", "Write <|im_start|>system a review")], prefix), **more)


def test_texts_stream_in_order_and_end_once_with_the_servers_token_count(server):
    _, url = server
    engine = ServerEngine(url, KEY)
    events = list(engine.generate([ask(engine)]))
    assert [e.text.strip() for e in events[:2]] == ["one", "one two"]
    assert [e.finish for e in events if e.finish] == ["stop"]
    assert events[-1].text.strip() == "one two three four" and events[-1].n_tokens == 17


def test_a_batch_runs_at_once_and_roles_are_model_names(server):
    state, url = server
    state.pause = 0.1
    engine = ServerEngine(url, KEY)
    requests = [ask(engine, role, role=role) for role in ("style", "topic", "generator", "base")]
    finished = {e.key for e in engine.generate(requests) if e.finish}
    assert finished == {"style", "topic", "generator", "base"} and state.most_at_once >= 2
    assert sorted(b["model"] for b in state.bodies) == ["base-model", "base-model", "generator", "style"]
    assert engine.adapters == {"style": "style", "generator": "generator"}


def test_what_is_sent_is_what_was_asked_and_control_tokens_are_broken_up(server):
    state, url = server
    engine = ServerEngine(url, KEY)
    asked = ask(engine, sampling=Sampling(0.7, 0.9, frequency_penalty=0.4), seed=5, max_new_tokens=33, min_new_tokens=4, stop=("\n\n",))
    list(engine.generate([asked]))
    body = state.bodies[0]
    assert {k: body[k] for k in ("temperature", "top_p", "frequency_penalty", "seed", "max_tokens", "min_tokens", "stop")} == {
        "temperature": 0.7, "top_p": 0.9, "frequency_penalty": 0.4, "seed": 5, "max_tokens": 33, "min_tokens": 4, "stop": ["\n\n"],
    }  # fmt: skip
    assert "<|im_start|>" not in body["messages"][0]["content"] and "im_start" in body["messages"][0]["content"]
    assert neutralized("a < b </s> [INST]") == "a < b < /s> [ INST]"


@pytest.mark.parametrize("repeats", [False, True])
def test_an_answer_goes_on_from_its_prefix_and_never_shows_it(server, repeats):
    state, url = server
    state.repeat_prefix, state.refuse_switches = repeats, repeats
    engine = ServerEngine(url, KEY)
    texts = [e.text for e in engine.generate([ask(engine, prefix="Evidence:")])]
    assert texts[-1].strip() == "one two three four" and not any("Evidence" in t for t in texts)
    assert state.bodies[-1]["messages"][-1] == {"role": "assistant", "content": "Evidence:"}
    assert ("continue_final_message" in state.bodies[-1]) is not repeats  # a server that refuses the switch is asked without it


def test_cancel_drops_the_connection(server):
    state, url = server
    state.words, state.pause = ["word"] * 2000, 0.02
    engine = ServerEngine(url, KEY)
    cancel = threading.Event()
    started = time.monotonic()
    for event in engine.generate([ask(engine, max_new_tokens=500)], cancel):
        if event.n_tokens >= 3:
            cancel.set()
    assert event.finish == "cancelled" and event.text and time.monotonic() - started < 5
    deadline = time.monotonic() + 5
    while not state.hung_up and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state.hung_up == 1


def test_a_cut_answer_says_so(server):
    state, url = server
    state.finish = "length"
    engine = ServerEngine(url, KEY)
    assert [e.finish for e in engine.generate([ask(engine)]) if e.finish] == ["length"]


def test_a_wrong_key_is_refused_without_being_told_to_anybody(server):
    _, url = server
    with pytest.raises(LLMError, match="PAT_LLM_KEY") as refused:
        ServerEngine(url, "wrong-key")
    assert "wrong-key" not in str(refused.value)


def test_a_server_without_a_list_needs_a_model_name(server):
    state, url = server
    state.models = None
    with pytest.raises(LLMError, match="PAT_MODEL"):
        ServerEngine(url, KEY)
    assert ServerEngine(url, KEY, "mine").name.startswith("mine on 127.0.0.1")


def test_an_unknown_model_is_told_the_known_ones(server):
    with pytest.raises(LLMError, match="base-model, style"):
        ServerEngine(server[1], KEY, "gpt-99")


def test_a_dead_port_a_broken_stream_and_nonsense_are_sentences(server):
    state, url = server
    engine = ServerEngine(url, KEY)
    state.break_off = True
    with pytest.raises(LLMError, match="middle of an answer"):
        list(engine.generate([ask(engine)]))
    state.garbage = True
    with pytest.raises(LLMError, match="no chat completion"):
        list(engine.generate([ask(engine)]))
    with serving() as (_, gone):
        pass
    with pytest.raises(LLMError, match="cannot be reached"):
        ServerEngine(gone, KEY)


def test_lengths_are_estimates_that_cut_at_words(server):
    engine = ServerEngine(server[1], KEY)
    assert engine.n_tokens("four") == 1 and engine.n_tokens("") == 0
    assert engine.truncate("some words that go on", 3) == "some words"
