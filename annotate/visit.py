"""What passes between a page and the campaign, frozen: settings, who judges, a pair as somebody sees it, an answer as it came and as kept.

``Answer`` holds what a browser sent, of whatever type; the ``Judgment`` that is made of it checks it. Leaves out what is done with them
(``campaign``) and how they look as JSON (``protocol``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from annotate.fields import MAX_NAME, check_choice, check_text
from annotate.schedule import Plan
from annotate.types import Annotator, Assignment, Candidate, Item, Judgment

Access = Literal["open", "invite"]


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """What the owner decides. ``access`` *open* lets anybody in with a nickname, *invite* asks for a code."""

    title: str = "Which text sounds more like this person?"
    access: Access = "open"
    guideline_version: str = "1"
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        check_text("title", self.title, MAX_NAME, empty=False)
        check_choice("access", self.access, get_args(Access))
        check_text("guideline_version", self.guideline_version, MAX_NAME, empty=False)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who judges, with the token that proves it."""

    annotator: Annotator
    token: str


@dataclass(frozen=True, slots=True)
class Progress:
    """``judged`` answers so far, ``left`` pairs that still wait for this person, ``trained`` whether the practice round is over."""

    judged: int
    left: int
    trained: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair as one person sees it: ``left`` is A. ``answer`` is theirs where they gave one; ``number`` counts their pairs from 1."""

    assignment: Assignment
    item: Item
    left: Candidate
    right: Candidate
    ticket: str
    number: int
    answer: Judgment | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody decided about a pair they were shown; the names are those of ``Judgment``, which checks them."""

    answer_id: str
    pair_id: str
    ticket: str
    outcome: str
    strength: str | None = None
    dims: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    rationale: str = ""
    ms_visible: int | None = None
    ms_total: int | None = None
    input_kind: str = "mouse"
    ui_version: str = ""
    revision_of: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as committed, and ``advice`` for the person: "guide" to read the guide once more."""

    judgment: Judgment
    advice: tuple[str, ...] = ()
