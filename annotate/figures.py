"""What a campaign knows so far, as one frozen value: the queue, the people, agreement, ratings, the automatic reward, the ledger.

Pure reading of the store. Figures are of people's current answers that count and were given blind, on pairs that are no check, unless a
field says otherwise. Leaves out the words (``report``), who may see it, and what to do about it: nobody is excluded by a number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeVar

import numpy as np

from annotate.stats import (
    Estimate,
    Vote,
    agreements,
    annotator_table,
    dimensions,
    length_adjusted,
    outcome_counts,
    position_bias,
    power_meter,
    ratings,
    reward_agreement,
    self_consistency,
    votes_to_flip,
    win_rates,
)
from annotate.stats.agreement import OVERALL, Agreement, RewardAgreement, SelfConsistency
from annotate.stats.annotators import AnnotatorRow
from annotate.stats.pairs import WinRate, score
from annotate.stats.power import Flip, PowerMeter
from annotate.stats.ratings import LengthAdjusted, PositionBias, Ratings
from annotate.stats.votes import DECISIVE, OutcomeCounts, codes, share_estimate
from annotate.store import Store, utc_now
from annotate.types import (
    PAIR_KINDS,
    Annotator,
    Candidate,
    Check,
    Exclusion,
    Judgment,
    JudgmentQuery,
    Load,
    Pair,
    PairKind,
    timestamp,
    winner,
)
from annotate.votes import reward_gaps, votes_of

Row = TypeVar("Row", Judgment, Check)
FOCUS = "pat"  # the system that the others are held against
TOTAL = "total"  # the whole automatic reward
COMPARED = ("one-factor", "system")  # kinds of pairs that ask for an opinion
CHECKS: tuple[PairKind, ...] = ("gold", "identical", "swap")
ALL = JudgmentQuery(judge_kind=None, excluded=True)
N_RESAMPLES = 120
PEOPLE_VARY_FROM = 10  # people from whose number on they are drawn again too; with fewer such an interval is rough
FASTER = -0.7  # log of the last quarter's pace over the first's: twice as fast
FEW_FAST, FAST_SHARE = 3, 0.05  # fast answers that anybody may give
TO_REVIEW = 4  # failed constructed checks


@dataclass(frozen=True, slots=True)
class KindRow:
    """Pairs of one kind by how many people's answers count (none, one, two, more), and how many people are answering one right now.

    ``n_split`` have opposite decisive answers: each asks for one more person.
    """

    kind: PairKind
    n: int
    n_open: int
    n_one: int
    n_two: int
    n_more: int
    n_split: int
    n_leased: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Results of checks. *unknown* could not be graded, which is no failure."""

    ok: int = 0
    fail: int = 0
    unknown: int = 0

    @property
    def n(self) -> int:
        return self.ok + self.fail + self.unknown


@dataclass(frozen=True, slots=True)
class Person:
    """One judge. ``n`` current answers of every kind, excluded ones too; ``votes`` is over those that compare two different texts.

    ``seconds`` is the median visible time an answer took, ``checks`` the constructed ones, ``repeats`` (same answer, all) swapped repeats.
    ``concerns`` are sentences to look into, never a verdict.
    """

    annotator: Annotator
    n: int
    n_excluded: int
    last_at: str
    seconds: float | None
    votes: AnnotatorRow
    checks: Tally
    repeats: tuple[int, int]
    concerns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """People of one perspective: how often they chose the focus system over another, in decisive votes."""

    perspective: str
    n_people: int
    n_votes: int
    focus: Estimate | None


@dataclass(frozen=True, slots=True)
class RewardRow:
    """People's choices against one term of the automatic reward; ``term`` is "total" for all of it."""

    term: str
    agreement: RewardAgreement


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """An exclusion and how many current answers it names, whether they count for another reason or not."""

    exclusion: Exclusion
    target: str
    n_votes: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything at one moment. ``basis`` is what the slow half was computed from: where it has not changed, neither has that half.

    ``bias`` reads a pair of one system's texts as "one text" against "another"; ``tie_rate`` counts both kinds of tie; ``length`` is None
    without word counts, ``ratings`` without votes between systems. ``power`` holds FOCUS (else the leader) against each other system.
    """

    at: str
    basis: tuple[int | str, ...]
    queue: tuple[KindRow, ...]
    people: tuple[Person, ...]
    days: tuple[tuple[str, int], ...]
    checks: dict[str, Tally]
    ledger: tuple[LedgerRow, ...]
    n_current: int
    n_excluded: int
    n_unblinded: int
    n_other_judges: int
    outcomes: OutcomeCounts
    tie_rate: Estimate | None
    agreement: tuple[Agreement, ...]
    repeats: SelfConsistency
    bias: PositionBias
    ratings: Ratings | None
    length: LengthAdjusted | None
    win_rates: tuple[WinRate, ...]
    flip: Flip | None
    power: tuple[PowerMeter, ...]
    rewards: tuple[RewardRow, ...]
    groups: tuple[Group, ...]


def report(store: Store, previous: Report | None = None, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Report:
    """The report on ``store`` now. ``previous`` of the same open store spares the slow half where nothing it is made of has changed."""
    counts, exclusions = store.counts(), store.all(Exclusion)
    basis = (*(counts[name] for name in ("judgments", "annotators", "erasures")), *(e.exclusion_id for e in exclusions if e.active))
    pairs = {p.pair_id: p for p in store.all(Pair)}
    annotators = {a.annotator_id: a for a in store.all(Annotator)}

    def known(found: Iterable[Row]) -> list[Row]:  # others write while this reads: what came later, or went, is for the next report
        return [x for x in found if x.pair_id in pairs and x.annotator_id in annotators]

    judgments, counted = known(store.judgments(ALL)), {j.judgment_id for j in store.judgments(JudgmentQuery(judge_kind=None))}
    checks, revisions = known(store.checks()), known(store.judgments(replace(ALL, revisions=True)))
    loads = [load for load in store.loads() if load.pair_id in pairs]
    human = [j for j in judgments if annotators[j.annotator_id].kind == "human"]
    blind = [j for j in human if j.judgment_id in counted and not j.unblinded]
    opinions = [j for j in blind if pairs[j.pair_id].kind in (*COMPARED, "swap")]
    fresh = {
        "at": timestamp(utc_now()),
        "basis": basis,
        "queue": _queue(pairs, loads, opinions),
        "days": tuple(sorted(Counter(j.created_at[:10] for j in human).items())),
        "checks": {kind: _tally(c for c in checks if c.kind == kind and annotators[c.annotator_id].kind == "human") for kind in CHECKS},
        "ledger": _ledger(exclusions, revisions, annotators, judgments),
        "n_current": len(human),
        "n_excluded": sum(j.judgment_id not in counted for j in human),
        "n_unblinded": sum(j.unblinded and j.judgment_id in counted for j in human),
        "n_other_judges": len(judgments) - len(human),
    }
    if previous is not None and previous.basis == basis:
        people = tuple(replace(p, annotator=annotators[p.annotator.annotator_id]) for p in previous.people)
        return replace(previous, people=people, **fresh)
    candidates = {c.candidate_id: c for c in store.all(Candidate)}
    pairs = {name: p for name, p in pairs.items() if p.lo_id in candidates and p.hi_id in candidates}
    judgments, opinions = known(judgments), known(opinions)
    people = _people(annotators.values(), judgments, counted, votes_of(judgments, pairs, candidates), checks)
    perspectives = {who: a.perspective for who, a in annotators.items()}
    return Report(people=people, **fresh, **_figures(opinions, pairs, candidates, perspectives, n_resamples, seed))


def _queue(pairs: Mapping[str, Pair], loads: Sequence[Load], opinions: Sequence[Judgment]) -> tuple[KindRow, ...]:
    chosen: dict[str, set[str]] = defaultdict(set)
    for judgment in opinions:
        if (won := winner(pairs[judgment.pair_id], judgment)) is not None:
            chosen[judgment.pair_id].add(won)
    rows = []
    for kind in PAIR_KINDS:
        of_kind = [load for load in loads if pairs[load.pair_id].kind == kind]
        judged = Counter(min(load.n_judged, 3) for load in of_kind)
        n_split = sum(len(chosen[load.pair_id]) > 1 for load in of_kind)
        rows.append(KindRow(kind, len(of_kind), *(judged[n] for n in range(4)), n_split, sum(load.n_leased for load in of_kind)))
    return tuple(rows)


def _tally(checks: Iterable[Check]) -> Tally:
    return Tally(**Counter(check.result for check in checks))


def _ledger(
    exclusions: Iterable[Exclusion], revisions: Iterable[Judgment], annotators: Mapping[str, Annotator], current: Sequence[Judgment]
) -> tuple[LedgerRow, ...]:
    of_id = {j.judgment_id: j for j in revisions}
    by_person, by_pair = (Counter(getattr(j, name) for j in current) for name in ("annotator_id", "pair_id"))
    rows = []
    for e in exclusions:
        if e.annotator_id in annotators:
            rows.append(LedgerRow(e, f"all answers of {annotators[e.annotator_id].nickname}", by_person[e.annotator_id]))
        elif e.pair_id is not None:
            rows.append(LedgerRow(e, f"pair {e.pair_id[:8]}", by_pair[e.pair_id]))
        elif e.judgment_id in of_id:
            vote = of_id[e.judgment_id]
            rows.append(LedgerRow(e, f"answer of {annotators[vote.annotator_id].nickname} on pair {vote.pair_id[:8]}", 1))
    return tuple(sorted(rows, key=lambda row: row.exclusion.decided_at, reverse=True))


def _people(
    annotators: Iterable[Annotator],
    judgments: Iterable[Judgment],
    counted: Container[str],
    votes: Sequence[Vote],
    checks: Iterable[Check],
) -> tuple[Person, ...]:
    theirs: dict[str, list[Judgment]] = defaultdict(list)
    graded: dict[str, list[Check]] = defaultdict(list)
    for judgment in judgments:
        theirs[judgment.annotator_id].append(judgment)
    for check in checks:
        if check.kind != "swap":
            graded[check.annotator_id].append(check)
    rows = {row.annotator: row for row in annotator_table(votes, {a.annotator_id: () for a in annotators})}
    repeats = self_consistency(votes).by_annotator
    people = []
    for who in annotators:
        own, row, tally = theirs[who.annotator_id], rows[who.annotator_id], _tally(graded[who.annotator_id])
        seconds = [j.ms_visible / 1000 for j in own if j.ms_visible is not None]
        people.append(
            Person(
                annotator=who,
                n=len(own),
                n_excluded=sum(j.judgment_id not in counted for j in own),
                last_at=max((j.created_at for j in own), default=""),
                seconds=median(seconds) if seconds else None,
                votes=row,
                checks=tally,
                repeats=repeats.get(who.annotator_id, (0, 0)),
                concerns=_concerns(row, tally),
            )
        )
    return tuple(sorted(people, key=lambda p: (-p.n, p.annotator.nickname, p.annotator.annotator_id)))


def _concerns(row: AnnotatorRow, checks: Tally) -> tuple[str, ...]:
    said = []
    if checks.fail >= TO_REVIEW:
        said.append(f"failed {checks.fail} of {checks.n} constructed checks")
    if row.left_flag and row.left_band is not None:
        low, high = row.left_band
        said.append(f"chose the left text in {row.left_share:.0%} of {row.n_decisive} (99% of fair coins: {low:.0%} to {high:.0%})")
    if row.run_flag:
        said.append(f"chose one side {row.longest_run} times in a row")
    if row.n_fast >= max(FEW_FAST, FAST_SHARE * row.n_timed):
        said.append(f"was far faster than usual in {row.n_fast} of {row.n_timed}")
    if row.drift is not None and row.drift <= FASTER:
        said.append("got more than twice as fast from the first to the last quarter")
    return tuple(said)


def _figures(
    opinions: Sequence[Judgment],
    pairs: Mapping[str, Pair],
    candidates: Mapping[str, Candidate],
    perspectives: Mapping[str, str],
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The slow half: everything estimated from the answers that count."""
    first = [j for j in opinions if pairs[j.pair_id].kind in COMPARED]
    votes = votes_of(first, pairs, candidates)
    systems = {name: (candidates[pair.lo_id].system, candidates[pair.hi_id].system) for name, pair in pairs.items()}
    between = [v for v in votes if pairs[v.pair].kind == "system" and len(set(systems[v.pair])) == 2]
    within = [_unnamed(v) for v in votes if pairs[v.pair].kind != "system" or len(set(systems[v.pair])) < 2]
    judged = [v for v in votes if v.outcome != "cannot_judge"]
    options = {"n_resamples": n_resamples, "seed": seed}
    rated = None
    if any(v.outcome != "cannot_judge" for v in between):
        many = len({v.annotator for v in between}) >= PEOPLE_VARY_FROM
        rated = ratings(between, resample="both" if many else "prompts", **options)
    known = any(v.words_left and v.words_right for v in between if v.outcome != "cannot_judge")
    return {
        "outcomes": outcome_counts(votes),
        "tie_rate": _share(judged, [v.outcome not in DECISIVE for v in judged]),
        "agreement": agreements(votes, **options),
        "repeats": self_consistency(votes_of(opinions, pairs, candidates)),
        "bias": position_bias(between + within, **options),
        "ratings": rated,
        "length": length_adjusted(between, **options) if known else None,
        "win_rates": win_rates(between),
        "flip": votes_to_flip(between),
        "power": _power(between, rated),
        "rewards": _rewards(votes, lambda term: reward_gaps(first, pairs, candidates, term), candidates, options),
        "groups": _groups(between, perspectives),
    }


def _unnamed(vote: Vote) -> Vote:
    """A vote on two texts of one system, as a choice between two names that stand for no system: the same names in every such vote."""
    left, right = ("one text", "another") if vote.left < vote.right else ("another", "one text")
    return replace(vote, left=left, right=right)


def _share(votes: Sequence[Vote], y: Sequence[bool]) -> Estimate | None:
    prompts, _ = codes([v.prompt for v in votes])
    return share_estimate(np.array(y, dtype=float), np.array([v.weight for v in votes]), prompts)


def _rewards(
    votes: Sequence[Vote],
    gaps: Callable[[str], Sequence[float | None]],
    candidates: Mapping[str, Candidate],
    options: Mapping[str, int],
) -> tuple[RewardRow, ...]:
    """The whole reward against every answer, each of its terms against the overall one, and a dimension against the term of its name."""
    rewards = [c.trace.get("rewards") for c in candidates.values()]
    terms = {name for r in rewards if isinstance(r, dict) and isinstance(r.get("terms"), dict) for name in r["terms"]}
    asked = dimensions(votes)
    rows = [(TOTAL, name) for name in asked]
    rows += [(term, name) for term in sorted(terms) for name in asked if name in (OVERALL, term)]
    by_term = {term: gaps(term) for term, _ in rows}
    return tuple(RewardRow(term, reward_agreement(votes, by_term[term], name, **options)) for term, name in rows)


def _power(votes: Sequence[Vote], rated: Ratings | None) -> tuple[PowerMeter, ...]:
    if rated is None:
        return ()
    systems = [r.system for r in rated.ratings]
    focus = FOCUS if FOCUS in systems else systems[0]
    return tuple(power_meter(votes, focus, other) for other in systems if other != focus)


def _groups(votes: Sequence[Vote], perspectives: Mapping[str, str]) -> tuple[Group, ...]:
    rows = []
    for name in sorted({perspectives[v.annotator] for v in votes}):
        own = [v for v in votes if perspectives[v.annotator] == name]
        met = [v for v in own if v.outcome in DECISIVE and FOCUS in (v.left, v.right)]
        rows.append(Group(name, len({v.annotator for v in own}), len(own), _share(met, [score(v, FOCUS) == 1 for v in met])))
    return tuple(rows)
