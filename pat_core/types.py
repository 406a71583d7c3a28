"""The nouns of the project, frozen. Values flow between modules as these; nothing here reads a file or knows a library.

A *review* is one text by one user on one topic. A *query* is what a visitor (or a held-out user) asks for: it never holds the text that
is to be written. A run of the method turns a query into a *trace*. Leaves out: storage (``annotate.store``) and training pairs' origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Agent = Literal["style", "topic"]
Stage = Literal["retrieving", "reasoning", "writing", "done", "stopped"]
Role = Literal["base", "style", "topic", "generator"]  # "base" is the model without an adapter
Source = Literal["metric", "human", "both"]

AGENTS: tuple[Agent, ...] = ("style", "topic")
ADAPTER_ROLES: tuple[Role, ...] = ("style", "topic", "generator")
SOURCES: tuple[Source, ...] = ("metric", "human", "both")


@dataclass(frozen=True, slots=True)
class Review:
    """One text by one user on one topic. ``rating`` is 1-5 or None; ``time`` an ISO date or ''."""

    review_id: str
    user_id: str
    topic_id: str
    topic: str
    category: str
    title: str
    text: str
    rating: float | None = None
    time: str = ""


@dataclass(frozen=True, slots=True)
class Preference:
    """What a visitor says about themselves: a *sample* (a text they wrote) or a *statement* of taste ("short and dry")."""

    kind: Literal["sample", "statement"]
    text: str
    rating: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What to write and for whom; the target text is never in it.

    ``topic_id`` is '' for a free-text topic. ``user_id`` is '' for a visitor; for a user of the corpus ``history`` holds their *other*
    reviews, and ``held_out`` the ids of reviews that retrieval has to treat as unseen (the target among them).
    """

    topic: str
    title: str
    topic_id: str = ""
    category: str = ""
    rating: float | None = None
    preferences: tuple[Preference, ...] = ()
    user_id: str = ""
    history: tuple[Review, ...] = ()
    held_out: frozenset[str] = frozenset()
    seed: int = 0

    @property
    def samples(self) -> tuple[str, ...]:
        """Texts by this person: their history, then the samples they entered."""
        return tuple(r.text for r in self.history) + tuple(p.text for p in self.preferences if p.kind == "sample")

    @property
    def statements(self) -> tuple[str, ...]:
        return tuple(p.text for p in self.preferences if p.kind == "statement")


ALTERNATIVES = ("none", "lamp", "pgraphrag", "copy")
RUN_RANGES: dict[str, tuple[float, float]] = {"rounds": (1, 4), "k_style": (1, 16), "k_topic": (1, 8), "n_drafts": (1, 8), "temperature": (0, 1.5)}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes: rounds at most, neighbors of each kind, drafts, the sampling temperature of the texts (agents decode greedily), and
    which alternatives are written beside them. A length that nobody stated is guessed at ``max_words`` at most, since a visitor waits.
    ValueError for a value out of ``RUN_RANGES``."""

    rounds: int = 2
    k_style: int = 8
    k_topic: int = 4
    n_drafts: int = 4
    temperature: float = 0.4
    alternatives: tuple[str, ...] = ALTERNATIVES
    max_words: int = 50

    def __post_init__(self) -> None:
        for name, (low, high) in RUN_RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}, not {getattr(self, name)}")
        unknown = set(self.alternatives) - set(ALTERNATIVES)
        if unknown:
            raise ValueError(f"unknown alternatives {sorted(unknown)}; choose from {', '.join(ALTERNATIVES)}")


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A review retrieved for one agent: ``score`` in [-1, 1], higher is nearer; ``why`` says in words what matched.

    ``level`` is the backoff level (0 same topic, 1 co-reviewed topic, 2 topic near in meaning, 3 any review near the query); style
    neighbors have level 0.
    """

    agent: Agent
    review: Review
    score: float
    why: tuple[str, ...]
    level: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat prompt: ``messages`` as (speaker, text), ``prefix`` the words the answer must begin with, ``token_ids`` both tokenized.

    ``token_ids`` is empty where the model's tokenizer is on a server.
    """

    messages: tuple[tuple[str, str], ...]
    prefix: str = ""
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One text by the model. ``prompt`` is what it was asked, ``adapter`` the version that answered ('' = the base model).

    ``seconds`` is wall time from the request to its last token, shared with the batch it ran in.
    """

    role: Role
    prompt: Prompt
    text: str
    adapter: str = ""
    n_tokens: int = 0
    seconds: float = 0.0
    finish: str = ""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward with every term visible: ``total`` = sum of ``weights[k] * terms[k]``; terms are in [-1, 1] unless their name says more."""

    total: float
    terms: dict[str, float]
    weights: dict[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of both agents; ``draft`` is the generator's text that the *next* round sees, None after the last round."""

    index: int
    style: Completion
    topic: Completion
    draft: Completion | None = None
    settled: bool = False  # nothing changed against the round before


@dataclass(frozen=True, slots=True)
class Draft:
    """One candidate for the output with its reference-free reward."""

    completion: Completion
    reward: Reward


@dataclass(frozen=True, slots=True)
class Alternative:
    """What another system writes for the same query. ``name`` is none, lamp, pgraphrag or copy; ``completion`` is None without a model."""

    name: str
    text: str
    reward: Reward
    copy_rate: float
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class Contribution:
    """Two-agent Shapley values of the reference-free reward: ``style + topic == full - neither`` (method: differential reward)."""

    style: float
    topic: float
    full: float
    neither: float
    style_only: float
    topic_only: float


@dataclass(frozen=True, slots=True)
class Trace:
    """One whole run of the method for one query."""

    query: Query
    style_neighbors: tuple[Neighbor, ...]
    topic_neighbors: tuple[Neighbor, ...]
    rounds: tuple[Round, ...]
    drafts: tuple[Draft, ...]
    chosen: int
    alternatives: tuple[Alternative, ...]
    copy_rate: float
    contribution: Contribution | None
    engine: str
    timings: dict[str, float] = field(default_factory=dict)
    options: RunOptions = RunOptions()  # noqa: RUF009 - frozen

    @property
    def output(self) -> str:
        """The fused text: the draft with the highest reference-free reward."""
        return self.drafts[self.chosen].completion.text


@dataclass(frozen=True, slots=True)
class LiveRound:
    """A round while it is written: texts so far, '' where nothing has come yet."""

    index: int
    style: str = ""
    topic: str = ""
    draft: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as it stands now, for a screen. ``trace`` is None until ``stage`` is "done"; ``seconds`` since the run began."""

    stage: Stage
    seconds: float
    style_neighbors: tuple[Neighbor, ...] = ()
    topic_neighbors: tuple[Neighbor, ...] = ()
    rounds: tuple[LiveRound, ...] = ()
    drafts: tuple[str, ...] = ()
    alternatives: dict[str, str] = field(default_factory=dict)
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """What one agent learns from: of two answers to ``prompt``, as (speaker, text) messages, the one that was preferred and the other.

    ``chosen`` and ``rejected`` are whole answers, their prefix included. ``q`` in [0, 1] is the probability that ``chosen`` is really
    preferred, 1 in plain DPO; ``weight`` >= 0 multiplies the pair's loss, 0 is as if it were absent. ``source`` says who preferred: an
    automatic *metric*, *human* judges, or both; ``judgment_ids`` are the votes behind it. Raises ValueError for anything else.
    """

    agent: Role
    prompt: tuple[tuple[str, str], ...]
    chosen: str
    rejected: str
    weight: float = 1.0
    q: float = 1.0
    source: Source = "metric"
    pair_id: str = ""
    judgment_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.agent not in ADAPTER_ROLES:
            raise ValueError(f"agent {self.agent!r} is not trained; use one of {', '.join(ADAPTER_ROLES)}")
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is not known; use one of {', '.join(SOURCES)}")
        if not self.prompt:
            raise ValueError("a preference pair needs the prompt that both texts answer")
        if not (self.chosen.strip() and self.rejected.strip()):
            raise ValueError("a preference pair needs two texts; one of them is empty")
        if self.chosen == self.rejected:
            raise ValueError(f"chosen and rejected are the same text {self.chosen!r:.80}; nothing can be learned from them")
        if not 0 <= self.q <= 1:
            raise ValueError(f"q is {self.q!r}; it must be a probability in [0, 1]")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight is {self.weight!r}; it must be a finite number of at least 0")
