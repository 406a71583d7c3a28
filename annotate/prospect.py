"""What a learning run would learn from people's votes as they are now: for each role its pairs, what is left out and why, and who counts.

The same comparisons, choices and mixing as in a run (``annotate.lessons``, ``pat_core.preferences``), so what stands here is what is
trained. Leaves out the pairs that a run's own rollouts add, which nobody can know before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotate.lessons import lessons
from annotate.stats import agreement
from annotate.stats.agreement import Agreement
from annotate.store import Store
from annotate.types import Annotator
from annotate.votes import OPINIONS, Judged, read_judged, votes_of
from pat_core.preferences import Choice, Comparison, Mode, about, calibrate, mixed_pairs, shares, told
from pat_core.types import ADAPTER_ROLES, Role

N_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Yield:
    """What one way of learning makes of a role's votes: ``n_pairs``, or ``why`` none comes out. ``dropped`` counts comparisons by reason.

    ``notes`` are ``preferences.Mix``'s sentences, what the votes say about the reward left out.
    """

    n_pairs: int = 0
    dropped: Mapping[str, int] | None = None
    why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleProspect:
    """One role. ``n_judged`` comparisons of its own answers with ``n_answers`` by people, of which ``winners`` counts the kinds.

    ``human`` learns from votes alone, ``both`` lets the automatic reward in where votes say that it predicts people; ``reward`` is what
    they say. ``shares`` is each annotator's share of the weight by votes alone, by id.
    """

    role: Role
    n_judged: int
    n_answers: int
    winners: Mapping[str, int]
    human: Yield
    both: Yield
    reward: str
    agreement: Agreement
    shares: Mapping[str, float]

    def by(self, use: Mode) -> Yield:
        """What ``use`` learns from votes; nothing where the automatic reward alone decides."""
        return {"human": self.human, "both": self.both}.get(use, Yield())


@dataclass(frozen=True, slots=True)
class Person:
    """How much somebody counts: ``n`` answers, and their share of each role's weight."""

    annotator_id: str
    nickname: str
    n: int
    shares: Mapping[Role, float]


@dataclass(frozen=True, slots=True)
class Prospect:
    """All roles; ``reward`` says what all votes together tell about the automatic reward."""

    n_answers: int
    roles: tuple[RoleProspect, ...]
    people: tuple[Person, ...]
    reward: str

    @property
    def personal(self) -> bool:
        return len(self.people) == 1

    def role(self, role: Role) -> RoleProspect:
        return next(r for r in self.roles if r.role == role)


def prospect(store: Store) -> Prospect:
    """What ``store``'s votes would teach now. Reads every judged pair: a second for some thousand of them."""
    comparisons, choices = lessons(store)
    judged = read_judged(store, OPINIONS)
    roles = tuple(_role(role, comparisons, choices, judged) for role in ADAPTER_ROLES)
    answers = Counter(c.annotator for c in choices if c.winner != "cannot_judge")
    names = {a.annotator_id: a.nickname for a in store.all(Annotator)}
    people = [
        Person(who, names.get(who, "somebody erased"), n, {r.role: r.shares[who] for r in roles if who in r.shares})
        for who, n in answers.most_common()
    ]
    return Prospect(sum(answers.values()), roles, tuple(people), told(calibrate(comparisons, choices)) if choices else "")


def _role(role: Role, comparisons: Sequence[Comparison], choices: Sequence[Choice], judged: Judged) -> RoleProspect:
    compared, answers = about(role, comparisons, choices)
    own = {c.pair_id for c in compared if c.agent == role}
    mine = [c for c in answers if c.pair_id in own]
    human, weights = _yield("human", compared, answers, bool(own))
    both, _ = _yield("both", compared, answers, bool(own))
    shown = [j for j in judged.judgments if judged.pairs[j.pair_id].agent == role and judged.pairs[j.pair_id].kind == "one-factor"]
    votes = votes_of(shown, judged.pairs, judged.candidates)
    return RoleProspect(
        role,
        len(own),
        len(mine),
        dict(Counter(c.winner for c in mine)),
        human,
        both,
        told(calibrate(compared, answers)) if answers else "",
        agreement(votes, n_resamples=N_RESAMPLES),
        weights,
    )


def _yield(mode: Mode, compared: Sequence[Comparison], answers: Sequence[Choice], any_own: bool) -> tuple[Yield, Mapping[str, float]]:
    """What ``mode`` makes of them, and who has which share of the weight. Comparisons of systems train nobody and are not counted."""
    if not any_own:
        return Yield(why="nobody has judged a pair in which only this one differs"), {}
    try:
        mix = mixed_pairs(compared, answers, mode=mode)
    except ValueError as error:
        return Yield(why=str(error)), {}
    dropped = {reason: n for reason, n in mix.dropped.items() if reason != "trains no agent"}
    notes = tuple(note for note in mix.notes if note != told(mix.calibration))
    return Yield(len(mix.pairs), dropped, "", notes), shares(mix.pairs, answers)
