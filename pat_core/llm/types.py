"""The one protocol of every language model here: a batch of requests in, events out as they come, cancel at any time.

An engine loads a model and its adapters once; ``generate`` runs one batch. Requests of one batch may name different roles (adapters): the
engine decides how to step them. Sampling with the same seed, batch and engine gives the same text. In another batch it may be another:
the last bits of a sum depend on what is computed beside it, and texts that are not streamed may be drawn together, see ``Request``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pat_core.types import Prompt, Role


@dataclass(frozen=True, slots=True)
class Sampling:
    """``temperature`` 0 is greedy. ``repetition_penalty`` > 1 discourages tokens already seen (CTRL, arXiv 1909.05858)."""

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Request:
    """One text to write. ``key`` is unique in its batch; generation ends at the end-of-turn token, a ``stop`` string (not returned) or
    ``max_new_tokens``, and not before ``min_new_tokens``.

    Where nobody watches the text grow (``streamed`` False) its one event may be the last, and the engine may read a prompt once for all
    such requests of a batch that differ only in key and seed. Their texts are then drawn from one random sequence, which the lowest of
    their seeds starts: each depends on which seeds stand beside it. A set of seeds has the same texts every time, equal seeds equal texts.
    """

    key: str
    prompt: Prompt
    role: Role = "base"
    sampling: Sampling = GREEDY
    seed: int = 0
    max_new_tokens: int = 96
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    streamed: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """What is known of one request now: ``text`` is all text so far (without the prompt's prefix), ``finish`` is '' while it runs, then
    'stop', 'length' or 'cancelled'."""

    key: str
    text: str
    n_tokens: int
    finish: str = ""


class LLM(Protocol):
    """A loaded model. ``name`` says engine and model in words for the screen; ``adapters`` the version serving each role ('' = base)."""

    name: str
    adapters: dict[str, str]

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        """``messages`` (speaker, text) tokenized with the model's chat template, control tokens in the texts neutralised."""
        ...

    def n_tokens(self, text: str) -> int:
        """Length of ``text`` in the model's tokens (an estimate where the tokenizer is on a server)."""
        ...

    def truncate(self, text: str, max_tokens: int) -> str:
        """The longest beginning of ``text`` that has at most ``max_tokens`` tokens, cut at a word."""
        ...

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        """Run the batch; yields events of any request as they come and exactly one with ``finish`` set for each request.

        When ``cancel`` is set every unfinished request ends with finish 'cancelled'. Raises ``LLMError`` when the engine fails.
        """
        ...


class LLMError(RuntimeError):
    """The engine or server could not do its work; the message says what to do."""
