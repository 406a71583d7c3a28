"""Small real implementations of the project's protocols, for tests that need no model."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from pat_core.llm.types import Event, Request
from pat_core.types import Prompt


class ScriptedLLM:
    """Writes ``answer(request)`` word by word, all requests of a batch in step. Keeps every request it was given in ``requests``."""

    name = "a scripted double"

    def __init__(self, answer: Callable[[Request], str], adapters: Mapping[str, str] | None = None) -> None:
        self.answer = answer
        self.adapters = dict(adapters or {})
        self.requests: list[Request] = []

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        return Prompt(tuple(messages), prefix, tuple(range(sum(len(t.split()) for _, t in messages))))

    def n_tokens(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, max_tokens: int) -> str:
        return " ".join(text.split()[:max_tokens])

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        self.requests += requests
        words = {r.key: self.answer(r).split(" ") for r in requests}
        limits = {r.key: min(len(words[r.key]), r.max_new_tokens) for r in requests}
        for n in range(1, max(limits.values()) + 1):
            if cancel and cancel.is_set():
                break
            for r in requests:
                if n <= limits[r.key]:
                    ended = n == limits[r.key]
                    finish = ("length" if limits[r.key] < len(words[r.key]) else "stop") if ended else ""
                    yield Event(r.key, " ".join(words[r.key][:n]), n, finish)
        else:
            return
        for r in requests:
            if n <= limits[r.key]:
                yield Event(r.key, " ".join(words[r.key][: n - 1]), n - 1, "cancelled")


class HashEmbedder:
    """Bag-of-words vectors from a hash: texts that share words are near. Deterministic, no model."""

    fingerprint = "hash-embedder-64"

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        rows = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
            row /= np.linalg.norm(row) or 1
        return rows


@contextmanager
def openai_url(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a real HTTP server on this machine that ``handler`` answers for, as an OpenAI client is given it."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        http.server_close()
