"""The nouns of annotation, frozen: what people compare, who they are, what they answered, what was left out of the count and why.

A *pair* holds two candidate texts of one item in a fixed order (``lo`` before ``hi``); an *assignment* says which of them one annotator
sees on the left; a *judgment* answers in terms of what was shown ("A" is the left text) and never changes: an edit is a new judgment that
names the one it revises. Each noun checks itself, so that a forged form, an import and a test meet the same rules and the same sentences.
Leaves out everything computed from judgments (``annotate.stats``) and where they are kept (``annotate.store``).
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from annotate.fields import (
    MAX_MILLISECONDS,
    MAX_NAME,
    MAX_PROMPT,
    MAX_RATIONALE,
    MAX_REASON,
    MAX_TAGS,
    MAX_TEXT,
    canonical,
    check_choice,
    check_flag,
    check_json,
    check_optional_choice,
    check_probability,
    check_sha,
    check_text,
    check_time,
    check_uuid,
    check_whole,
)
from pat_core.types import ADAPTER_ROLES, Role

Outcome = Literal["A", "B", "tie", "both_bad", "cannot_judge"]
Strength = Literal["slightly", "clearly"]
PairKind = Literal["one-factor", "system", "gold", "identical", "swap"]
InputKind = Literal["keyboard", "mouse", "touch", "api"]
JudgeKind = Literal["human", "llm", "metric"]
Status = Literal["active", "paused", "blocked"]
Result = Literal["ok", "fail", "unknown"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
PAIR_KINDS: tuple[PairKind, ...] = get_args(PairKind)
DIMENSIONS = ("style", "topic", "fluency")
DIMENSION_ANSWERS = ("A", "B", "same")


def new_id() -> str:
    """A random id (UUID 4): says nothing about the person or the machine."""
    return str(uuid.uuid4())


def timestamp(moment: datetime) -> str:
    """``moment`` as UTC text with milliseconds; such texts sort by time. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"the time {moment.isoformat()} has no time zone; use datetime.now(UTC)")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def content_id(*parts: Any) -> str:
    """The sha256 of ``parts`` in hex: the same content has the same id on every machine."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Item:
    """What was to be written and what the judge sees at the top. ``reference`` holds the preferences or style samples and the topic.

    ``contributor_id`` names the annotator whose own words the item holds (a visitor's query): erasing that person erases the item.
    """

    prompt: str
    reference: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    lang: str = "en"
    split: str = ""
    contributor_id: str | None = None

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt, MAX_PROMPT, empty=False)
        check_json("reference", self.reference)
        for name in ("source", "lang", "split"):
            check_text(name, getattr(self, name), MAX_NAME)
        if self.contributor_id is not None:
            check_uuid("contributor_id", self.contributor_id)

    @property
    def item_id(self) -> str:
        return content_id("item", self.prompt, self.reference, self.lang, self.contributor_id)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One text for one item. ``system`` made it; ``trace`` how: prompt, summaries, adapter versions, seed, sampler, automatic rewards."""

    item_id: str
    text: str
    system: str
    trace: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_sha("item_id", self.item_id)
        check_text("text", self.text, MAX_TEXT, empty=False)
        check_text("system", self.system, MAX_NAME, empty=False)
        check_json("trace", self.trace)

    @property
    def text_sha(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def candidate_id(self) -> str:
        return content_id("candidate", self.item_id, self.text, self.system, self.trace)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates of one item, ``lo_id <= hi_id``; build it with ``pair_of``. Its order says nothing about which is shown left.

    ``kind``: *one-factor* (only one completion of ``agent`` differs, a summary or the generator's text, so it trains that agent), *system*
    (two systems), and the checks: *gold* (``expected`` is the id of the text that has to win), *identical* (``expected`` is "tie"), *swap*
    (``repeat_of`` with sides exchanged).
    ``propensity`` is the probability with which this pair was drawn from all that could have been made; ``round`` the learning round.
    """

    item_id: str
    lo_id: str
    hi_id: str
    lo_sha: str
    hi_sha: str
    kind: PairKind
    agent: Role | None = None
    expected: str | None = None
    repeat_of: str | None = None
    propensity: float = 1.0
    round: int = 0
    origin: str = ""

    def __post_init__(self) -> None:
        for name in ("item_id", "lo_id", "hi_id", "lo_sha", "hi_sha"):
            check_sha(name, getattr(self, name))
        check_choice("kind", self.kind, PAIR_KINDS)
        check_optional_choice("agent", self.agent, ADAPTER_ROLES)
        check_probability("propensity", self.propensity)
        check_whole("round", self.round, 0, 1_000_000)
        check_text("origin", self.origin, MAX_NAME)
        if self.lo_id > self.hi_id:
            raise ValueError("lo_id must not sort after hi_id; build pairs with pair_of, which orders them")
        if (self.kind == "one-factor") != (self.agent is not None):
            raise ValueError(f"a {self.kind} pair with agent {self.agent!r}: a one-factor pair names its agent and no other kind does")
        if self.kind == "identical" and self.lo_sha != self.hi_sha:
            raise ValueError("an identical pair needs two equal texts")
        wanted = {"gold": (self.lo_id, self.hi_id), "identical": ("tie",)}.get(self.kind, (None,))
        if self.expected not in wanted:
            raise ValueError(f"expected {self.expected!r:.80} does not fit a {self.kind} pair; use {' or '.join(map(str, wanted))}")
        if (self.kind == "swap") != (self.repeat_of is not None):
            raise ValueError("a swap pair names the pair it repeats (repeat_of) and no other kind does")
        if self.repeat_of is not None:
            check_sha("repeat_of", self.repeat_of)

    @property
    def pair_id(self) -> str:
        return content_id("swap" if self.kind == "swap" else "pair", self.item_id, self.lo_id, self.hi_id)


def pair_of(a: Candidate, b: Candidate, kind: PairKind, **details: Any) -> Pair:
    """The pair of ``a`` and ``b`` in either order; ``details`` are Pair's other fields. Raises ValueError where the items differ."""
    if a.item_id != b.item_id:
        raise ValueError("two candidates of different items cannot be compared")
    lo, hi = sorted((a, b), key=lambda c: c.candidate_id)
    return Pair(a.item_id, lo.candidate_id, hi.candidate_id, lo.text_sha, hi.text_sha, kind, **details)


@dataclass(frozen=True, slots=True)
class Annotator:
    """Someone who judges. ``identity_sha`` is a salted hash of an invite code or a sign-in name, by which the same person is found again.

    ``perspective`` is a group whose answers are reported apart (native, learner, domain reader); ``consent`` the privacy notice agreed to.
    """

    annotator_id: str
    nickname: str
    kind: JudgeKind = "human"
    perspective: str = ""
    lang: str = "en"
    status: Status = "active"
    consent: str = ""
    identity_sha: str | None = None
    joined_at: str = ""

    def __post_init__(self) -> None:
        check_uuid("annotator_id", self.annotator_id)
        check_text("nickname", self.nickname, MAX_NAME, empty=False)
        check_choice("kind", self.kind, get_args(JudgeKind))
        check_choice("status", self.status, get_args(Status))
        for name in ("perspective", "lang", "consent"):
            check_text(name, getattr(self, name), MAX_NAME)
        if self.identity_sha is not None:
            check_sha("identity_sha", self.identity_sha)
        check_time("joined_at", self.joined_at)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One pair offered to one annotator. The side and its key never change; the lease can be renewed.

    ``order_key`` is what the side was computed from; ``propensity`` the probability with which this pair was the next one. The pair is
    reserved from ``leased_at`` to ``lease_until`` (the store sets both); after that others may get it and a late answer still counts.
    """

    pair_id: str
    annotator_id: str
    shown_left_id: str
    order_key: str
    propensity: float = 1.0
    leased_at: str = ""
    lease_until: str = ""

    def __post_init__(self) -> None:
        check_sha("pair_id", self.pair_id)
        check_uuid("annotator_id", self.annotator_id)
        check_sha("shown_left_id", self.shown_left_id)
        check_text("order_key", self.order_key, MAX_NAME, empty=False)
        check_probability("propensity", self.propensity)
        check_time("leased_at", self.leased_at)
        check_time("lease_until", self.lease_until)


@dataclass(frozen=True, slots=True)
class Judgment:
    """One answer, in terms of what was shown: "A" is the text ``shown_left_id``. ``judgment_id`` comes from the client, once per answer.

    ``dims`` maps a dimension to A, B or same. ``ms_visible`` counts only the time the page was visible, ``ms_total`` all of it; None
    where unknown. ``unblinded`` marks an answer by someone who saw more than the two texts. The store sets ``seq`` (the order) and
    ``created_at``.
    """

    judgment_id: str
    pair_id: str
    annotator_id: str
    shown_left_id: str
    order_key: str
    outcome: Outcome
    strength: Strength | None = None
    dims: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    rationale: str = ""
    ms_visible: int | None = None
    ms_total: int | None = None
    input_kind: InputKind = "mouse"
    ui_version: str = ""
    guideline_version: str = ""
    unblinded: bool = False
    revision_of: str | None = None
    created_at: str = ""
    seq: int | None = None

    def __post_init__(self) -> None:
        check_uuid("judgment_id", self.judgment_id)
        check_sha("pair_id", self.pair_id)
        check_uuid("annotator_id", self.annotator_id)
        check_sha("shown_left_id", self.shown_left_id)
        check_text("order_key", self.order_key, MAX_NAME, empty=False)
        check_choice("outcome", self.outcome, OUTCOMES)
        check_optional_choice("strength", self.strength, STRENGTHS)
        if self.strength is not None and self.outcome not in ("A", "B"):
            raise ValueError(f"strength {self.strength!r} goes with outcome A or B only, not with {self.outcome!r}")
        _check_dims(self.dims)
        _check_tags(self.tags)
        check_text("rationale", self.rationale, MAX_RATIONALE)
        _check_durations(self.ms_visible, self.ms_total)
        check_choice("input_kind", self.input_kind, get_args(InputKind))
        for name in ("ui_version", "guideline_version"):
            check_text(name, getattr(self, name), MAX_NAME)
        check_flag("unblinded", self.unblinded)
        if self.revision_of is not None:
            check_uuid("revision_of", self.revision_of)
            if self.revision_of == self.judgment_id:
                raise ValueError("a revision needs an id of its own, not the id of what it revises")
        check_time("created_at", self.created_at)


def _check_dims(dims: object) -> None:
    if not isinstance(dims, dict):
        raise ValueError(f"dims must be a dictionary, not {type(dims).__name__}")
    for name, answer in dims.items():
        check_choice("dimension", name, DIMENSIONS)
        check_choice(f"answer for {name}", answer, DIMENSION_ANSWERS)


def _check_tags(tags: object) -> None:
    if not isinstance(tags, tuple) or len(tags) > MAX_TAGS:
        raise ValueError(f"tags must be a tuple of at most {MAX_TAGS} texts")
    for tag in tags:
        check_text("tag", tag, MAX_NAME, empty=False)
    if len(set(tags)) < len(tags):
        raise ValueError("a tag is given twice; give each once")


def _check_durations(ms_visible: object, ms_total: object) -> None:
    for name, value in (("ms_visible", ms_visible), ("ms_total", ms_total)):
        if value is not None:
            check_whole(name, value, 0, MAX_MILLISECONDS)
    if ms_visible is not None and (ms_total is None or ms_visible > ms_total):
        raise ValueError(f"ms_visible {ms_visible} needs an ms_total that is not smaller, not {ms_total}")


def winner(pair: Pair, judgment: Judgment) -> str | None:
    """The candidate id that ``judgment`` prefers, None for a tie, both bad or cannot judge."""
    if judgment.outcome not in ("A", "B"):
        return None
    right = pair.hi_id if judgment.shown_left_id == pair.lo_id else pair.lo_id
    return judgment.shown_left_id if judgment.outcome == "A" else right


@dataclass(frozen=True, slots=True)
class JudgmentQuery:
    """Which judgments to read. Empty means all, but for two things that are never mixed in silently: exclusions and judges of another kind.

    ``judge_kind`` None takes every kind. ``revisions`` adds answers that were revised later. ``after_seq`` reads on from an earlier answer.
    """

    annotator_id: str | None = None
    pair_id: str | None = None
    kinds: tuple[PairKind, ...] = ()
    agent: Role | None = None
    round: int | None = None
    judge_kind: JudgeKind | None = "human"
    unblinded: bool | None = None
    excluded: bool = False
    revisions: bool = False
    after_seq: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """How a current judgment on a check pair came out; *unknown* where it could not be graded (cannot judge, original not answered)."""

    judgment_id: str
    pair_id: str
    annotator_id: str
    kind: PairKind
    expected: str | None
    result: Result


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One entry of the ledger: a vote, all votes of an annotator, or all votes on a pair do not count while ``active``.

    Exactly one of the three ids is set. Excluding a judgment excludes its later revisions too.
    """

    reason: str
    decided_by: str
    judgment_id: str | None = None
    annotator_id: str | None = None
    pair_id: str | None = None
    active: bool = True
    decided_at: str = ""

    def __post_init__(self) -> None:
        check_text("reason", self.reason, MAX_REASON, empty=False)
        check_text("decided_by", self.decided_by, MAX_NAME, empty=False)
        check_flag("active", self.active)
        check_time("decided_at", self.decided_at)
        if sum(x is not None for x in (self.judgment_id, self.annotator_id, self.pair_id)) != 1:
            raise ValueError("an exclusion names exactly one of judgment_id, annotator_id, pair_id")
        if self.judgment_id is not None:
            check_uuid("judgment_id", self.judgment_id)
        if self.annotator_id is not None:
            check_uuid("annotator_id", self.annotator_id)
        if self.pair_id is not None:
            check_sha("pair_id", self.pair_id)

    @property
    def exclusion_id(self) -> str:
        return content_id("exclusion", self.judgment_id, self.annotator_id, self.pair_id, self.reason)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for the audit trail; ``annotator_id`` is whom it concerns. The store sets ``at`` and ``seq``."""

    kind: str
    annotator_id: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    at: str = ""
    seq: int | None = None

    def __post_init__(self) -> None:
        check_text("kind", self.kind, MAX_NAME, empty=False)
        if self.annotator_id is not None:
            check_uuid("annotator_id", self.annotator_id)
        check_json("detail", self.detail)
        check_time("at", self.at)


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported: ``export_id`` is the sha256 of the files, ``n`` their judgments, ``method`` the methodology version."""

    export_id: str
    n: int
    query: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, Any] = field(default_factory=dict)
    method: str = ""
    at: str = ""

    def __post_init__(self) -> None:
        check_sha("export_id", self.export_id)
        check_whole("n", self.n, 0, 2**53)
        check_json("query", self.query)
        check_json("thresholds", self.thresholds)
        check_text("method", self.method, MAX_NAME)
        check_time("at", self.at)


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is left of an erased person: a random id, so that a restore or an import cannot bring them back, and counts.

    ``n_others`` counts other people's judgments that went with items this person had contributed. ``cleaned`` turns true when no file
    of the store holds their text any more.
    """

    annotator_id: str
    erased_at: str
    n_judgments: int
    n_assignments: int
    n_events: int
    n_items: int
    n_others: int
    cleaned: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the campaign that has to survive a restart, such as the overlap target or the secret behind the order keys."""

    name: str
    value: Any

    def __post_init__(self) -> None:
        check_text("name", self.name, MAX_NAME, empty=False)
        check_json(f"setting {self.name}", {"value": self.value})


@dataclass(frozen=True, slots=True)
class Load:
    """How far one pair is: people whose current answer counts, and people who hold a running lease and have not answered.

    ``split``: its decisive answers are evenly divided between the two texts.
    """

    pair_id: str
    n_judged: int
    n_leased: int
    split: bool = False


@dataclass(frozen=True, slots=True)
class Added:
    """What an import did: new rows by kind, pairs ``known`` already (in either order), and pairs dropped for ``identical`` texts."""

    items: int = 0
    candidates: int = 0
    pairs: int = 0
    known: int = 0
    identical: int = 0
