"""The nouns of annotation, frozen: what people compare, who they are, what they answered, what was left out of the count and why.

A *pair* holds two candidate texts of one item in a fixed order (``lo`` before ``hi``); an *assignment* says which of them one annotator
sees on the left; a *judgment* answers in terms of what was shown ("A" is the left text) and never changes: an edit is a new judgment that
names the one it revises. Each noun checks itself, so that a forged form, an import and a test meet the same rules and the same sentences.
Leaves out everything computed from judgments (``annotate.stats``) and where they are kept (``annotate.store``).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pat_core.types import AGENTS, Agent

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

MAX_NAME = 80  # characters: nicknames, tags, versions, kinds, systems
MAX_REASON = 500
MAX_RATIONALE = 4_000
MAX_PROMPT = 20_000
MAX_TEXT = 50_000
MAX_JSON = 400_000
MAX_TAGS = 20
MAX_MILLISECONDS = 7 * 24 * 3600 * 1000

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SHA = re.compile(r"[0-9a-f]{64}")
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON text; an even number of backslashes before it are backslashes themselves


def new_id() -> str:
    """A random id (UUID 4): says nothing about the person or the machine."""
    return str(uuid.uuid4())


def timestamp(moment: datetime) -> str:
    """``moment`` as UTC text with milliseconds; such texts sort by time. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"the time {moment.isoformat()} has no time zone; use datetime.now(UTC)")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def canonical(value: Any) -> str:
    """``value`` as JSON in the one spelling that ids, hashes and the database use: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def content_id(*parts: Any) -> str:
    """The sha256 of ``parts`` in hex: the same content has the same id on every machine."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


# Checks shared by the nouns; each raises ValueError with the field, the value and what is accepted.


def _check_text(name: str, value: object, limit: int, *, empty: bool = True) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{name} has {len(value):,} characters; at most {limit:,} are kept, so please shorten it")
    if "\0" in value:
        raise ValueError(f"{name} holds a NUL character at position {value.index(chr(0))}; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half a character (a lone surrogate) at position {error.start}; type it again") from None
    if not empty and not value.strip():
        raise ValueError(f"{name} is empty; it needs at least one character")


def _check_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} {value!r:.60} is not known; use one of {', '.join(accepted)}")


def _check_optional_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value is not None:
        _check_choice(name, value, accepted)


def _check_uuid(name: str, value: object) -> None:
    try:
        good = isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{name} {value!r:.60} is not a UUID in lower case such as {uuid.UUID(int=0)}")


def _check_sha(name: str, value: object) -> None:
    if not isinstance(value, str) or not _SHA.fullmatch(value):
        raise ValueError(f"{name} {value!r:.80} is not a sha256 in hex (64 characters)")


def _check_time(name: str, value: object) -> None:
    if value != "" and not (isinstance(value, str) and _TIME.fullmatch(value)):
        raise ValueError(f"{name} {value!r:.60} is not a UTC time such as 2026-11-23T08:30:00.000Z")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r:.60}")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} {value!r:.60} must be a whole number from {low:,} to {high:,}")


def _check_probability(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} {value!r:.60} must be a probability above 0 and at most 1")


def _check_json(name: str, value: object) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a dictionary, not {type(value).__name__}")
    try:
        text = canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} cannot be written as JSON ({error}); use text, finite numbers, lists and dictionaries") from None
    _check_text(name, text, MAX_JSON)
    if _ESCAPED_NUL.search(text):
        raise ValueError(f"{name} holds a NUL character; remove it")


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
        _check_text("prompt", self.prompt, MAX_PROMPT, empty=False)
        _check_json("reference", self.reference)
        for name in ("source", "lang", "split"):
            _check_text(name, getattr(self, name), MAX_NAME)
        if self.contributor_id is not None:
            _check_uuid("contributor_id", self.contributor_id)

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
        _check_sha("item_id", self.item_id)
        _check_text("text", self.text, MAX_TEXT, empty=False)
        _check_text("system", self.system, MAX_NAME, empty=False)
        _check_json("trace", self.trace)

    @property
    def text_sha(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def candidate_id(self) -> str:
        return content_id("candidate", self.item_id, self.text, self.system, self.trace)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates of one item, ``lo_id <= hi_id``; build it with ``pair_of``. Its order says nothing about which is shown left.

    ``kind``: *one-factor* (only one summary of ``agent`` differs, so it trains that agent), *system* (two systems), and the checks: *gold*
    (``expected`` is the id of the text that has to win), *identical* (``expected`` is "tie"), *swap* (``repeat_of`` with sides exchanged).
    ``propensity`` is the probability with which this pair was drawn from all that could have been made; ``round`` the learning round.
    """

    item_id: str
    lo_id: str
    hi_id: str
    lo_sha: str
    hi_sha: str
    kind: PairKind
    agent: Agent | None = None
    expected: str | None = None
    repeat_of: str | None = None
    propensity: float = 1.0
    round: int = 0
    origin: str = ""

    def __post_init__(self) -> None:
        for name in ("item_id", "lo_id", "hi_id", "lo_sha", "hi_sha"):
            _check_sha(name, getattr(self, name))
        _check_choice("kind", self.kind, PAIR_KINDS)
        _check_optional_choice("agent", self.agent, AGENTS)
        _check_probability("propensity", self.propensity)
        _check_whole("round", self.round, 0, 1_000_000)
        _check_text("origin", self.origin, MAX_NAME)
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
            _check_sha("repeat_of", self.repeat_of)

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
        _check_uuid("annotator_id", self.annotator_id)
        _check_text("nickname", self.nickname, MAX_NAME, empty=False)
        _check_choice("kind", self.kind, get_args(JudgeKind))
        _check_choice("status", self.status, get_args(Status))
        for name in ("perspective", "lang", "consent"):
            _check_text(name, getattr(self, name), MAX_NAME)
        if self.identity_sha is not None:
            _check_sha("identity_sha", self.identity_sha)
        _check_time("joined_at", self.joined_at)


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
        _check_sha("pair_id", self.pair_id)
        _check_uuid("annotator_id", self.annotator_id)
        _check_sha("shown_left_id", self.shown_left_id)
        _check_text("order_key", self.order_key, MAX_NAME, empty=False)
        _check_probability("propensity", self.propensity)
        _check_time("leased_at", self.leased_at)
        _check_time("lease_until", self.lease_until)


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
        _check_uuid("judgment_id", self.judgment_id)
        _check_sha("pair_id", self.pair_id)
        _check_uuid("annotator_id", self.annotator_id)
        _check_sha("shown_left_id", self.shown_left_id)
        _check_text("order_key", self.order_key, MAX_NAME, empty=False)
        _check_choice("outcome", self.outcome, OUTCOMES)
        _check_optional_choice("strength", self.strength, STRENGTHS)
        if self.strength is not None and self.outcome not in ("A", "B"):
            raise ValueError(f"strength {self.strength!r} goes with outcome A or B only, not with {self.outcome!r}")
        _check_dims(self.dims)
        _check_tags(self.tags)
        _check_text("rationale", self.rationale, MAX_RATIONALE)
        _check_durations(self.ms_visible, self.ms_total)
        _check_choice("input_kind", self.input_kind, get_args(InputKind))
        for name in ("ui_version", "guideline_version"):
            _check_text(name, getattr(self, name), MAX_NAME)
        _check_flag("unblinded", self.unblinded)
        if self.revision_of is not None:
            _check_uuid("revision_of", self.revision_of)
            if self.revision_of == self.judgment_id:
                raise ValueError("a revision needs an id of its own, not the id of what it revises")
        _check_time("created_at", self.created_at)


def _check_dims(dims: object) -> None:
    if not isinstance(dims, dict):
        raise ValueError(f"dims must be a dictionary, not {type(dims).__name__}")
    for name, answer in dims.items():
        _check_choice("dimension", name, DIMENSIONS)
        _check_choice(f"answer for {name}", answer, DIMENSION_ANSWERS)


def _check_tags(tags: object) -> None:
    if not isinstance(tags, tuple) or len(tags) > MAX_TAGS:
        raise ValueError(f"tags must be a tuple of at most {MAX_TAGS} texts")
    for tag in tags:
        _check_text("tag", tag, MAX_NAME, empty=False)
    if len(set(tags)) < len(tags):
        raise ValueError("a tag is given twice; give each once")


def _check_durations(ms_visible: object, ms_total: object) -> None:
    for name, value in (("ms_visible", ms_visible), ("ms_total", ms_total)):
        if value is not None:
            _check_whole(name, value, 0, MAX_MILLISECONDS)
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
    agent: Agent | None = None
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
        _check_text("reason", self.reason, MAX_REASON, empty=False)
        _check_text("decided_by", self.decided_by, MAX_NAME, empty=False)
        _check_flag("active", self.active)
        _check_time("decided_at", self.decided_at)
        if sum(x is not None for x in (self.judgment_id, self.annotator_id, self.pair_id)) != 1:
            raise ValueError("an exclusion names exactly one of judgment_id, annotator_id, pair_id")
        if self.judgment_id is not None:
            _check_uuid("judgment_id", self.judgment_id)
        if self.annotator_id is not None:
            _check_uuid("annotator_id", self.annotator_id)
        if self.pair_id is not None:
            _check_sha("pair_id", self.pair_id)

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
        _check_text("kind", self.kind, MAX_NAME, empty=False)
        if self.annotator_id is not None:
            _check_uuid("annotator_id", self.annotator_id)
        _check_json("detail", self.detail)
        _check_time("at", self.at)


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
        _check_sha("export_id", self.export_id)
        _check_whole("n", self.n, 0, 2**53)
        _check_json("query", self.query)
        _check_json("thresholds", self.thresholds)
        _check_text("method", self.method, MAX_NAME)
        _check_time("at", self.at)


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
        _check_text("name", self.name, MAX_NAME, empty=False)
        _check_json(f"setting {self.name}", {"value": self.value})


@dataclass(frozen=True, slots=True)
class Load:
    """How far one pair is: people whose current answer counts, and people who hold a running lease and have not answered."""

    pair_id: str
    n_judged: int
    n_leased: int


@dataclass(frozen=True, slots=True)
class Added:
    """What an import did: new rows by kind, pairs ``known`` already (in either order), and pairs dropped for ``identical`` texts."""

    items: int = 0
    candidates: int = 0
    pairs: int = 0
    known: int = 0
    identical: int = 0
