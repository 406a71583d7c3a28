"""The bridge from kept judgments to statistics: `stats.Vote`s in terms of systems or of texts, and what an automatic reward said.

A judgment answers in terms of what was shown ("A" is the left text); a vote names what stood left and right. Identical pairs compare
nothing and are left out everywhere. Leaves out which judgments to read (the query's decision) and every computation (``annotate.stats``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from annotate.stats import Vote
from annotate.store import Store
from annotate.types import Candidate, Judgment, JudgmentQuery, Pair
from pat_core.metrics import n_words

OPINIONS = JudgmentQuery(kinds=("one-factor", "system", "swap"))  # people's current answers that count, without constructed checks
_SIDE = {"A": "left", "B": "right"}
_SIZE = {"slightly": 1, "clearly": 2}


@dataclass(frozen=True, slots=True)
class Judged:
    """Judgments in the order they were kept, with their pairs and candidates by id: the first three arguments of every function here."""

    judgments: tuple[Judgment, ...]
    pairs: dict[str, Pair]
    candidates: dict[str, Candidate]


@dataclass(frozen=True, slots=True)
class _Shown:
    """One judgment with its pair and the two texts as they stood; ids beside candidates because a candidate computes its id anew."""

    judgment: Judgment
    pair: Pair
    left_id: str
    right_id: str
    left: Candidate
    right: Candidate


def read_judged(store: Store, query: JudgmentQuery = OPINIONS) -> Judged:
    """The judgments that ``query`` names, with their pairs and candidates; what is erased while this reads is left out."""
    judgments = store.judgments(query)
    if not judgments:
        return Judged((), {}, {})
    wanted = {j.pair_id for j in judgments}
    candidates = {c.candidate_id: c for c in store.all(Candidate)}
    pairs = {pair_id: p for p in store.all(Pair) if (pair_id := p.pair_id) in wanted and {p.lo_id, p.hi_id} <= candidates.keys()}
    used = {candidate_id for p in pairs.values() for candidate_id in (p.lo_id, p.hi_id)}
    return Judged(tuple(j for j in judgments if j.pair_id in pairs), pairs, {name: candidates[name] for name in used})


def read_votes(store: Store, query: JudgmentQuery = OPINIONS) -> tuple[Vote, ...]:
    """``votes_of`` the judgments that ``query`` names."""
    judged = read_judged(store, query)
    return votes_of(judged.judgments, judged.pairs, judged.candidates)


def votes_of(judgments: Iterable[Judgment], pairs: Mapping[str, Pair], candidates: Mapping[str, Candidate]) -> tuple[Vote, ...]:
    """One vote per judgment, in their order; ``left`` and ``right`` are systems where these differ, candidate ids where they do not."""
    return _votes(_shown(judgments, pairs, candidates), by_text=False)


def votes_by_candidate(judgments: Iterable[Judgment], pairs: Mapping[str, Pair], candidates: Mapping[str, Candidate]) -> tuple[Vote, ...]:
    """``votes_of`` with candidate ids as ``left`` and ``right`` always, as ``stats.pair_preferences`` needs them."""
    return _votes(_shown(judgments, pairs, candidates), by_text=True)


def reward_gaps(
    judgments: Iterable[Judgment], pairs: Mapping[str, Pair], candidates: Mapping[str, Candidate], term: str = "total"
) -> tuple[float | None, ...]:
    """reward(left) - reward(right) for each vote of ``votes_of``, in the same order; None where a text has no finite reward.

    ``term`` is "total" or one of the reward's terms in ``Candidate.trace``.
    """
    gaps: list[float | None] = []
    for shown in _shown(judgments, pairs, candidates):
        left, right = reward_of(shown.left, term), reward_of(shown.right, term)
        gaps.append(None if left is None or right is None else left - right)
    return tuple(gaps)


def _shown(judgments: Iterable[Judgment], pairs: Mapping[str, Pair], candidates: Mapping[str, Candidate]) -> Iterator[_Shown]:
    for judgment in judgments:
        pair = pairs[judgment.pair_id]
        if pair.kind != "identical":
            left_id = judgment.shown_left_id
            right_id = pair.hi_id if left_id == pair.lo_id else pair.lo_id
            yield _Shown(judgment, pair, left_id, right_id, candidates[left_id], candidates[right_id])


def _votes(shown: Iterable[_Shown], *, by_text: bool) -> tuple[Vote, ...]:
    words: dict[str, int] = {}
    votes = []
    for s in shown:
        for candidate_id, candidate in ((s.left_id, s.left), (s.right_id, s.right)):
            if candidate_id not in words:
                words[candidate_id] = n_words(candidate.text)
        by_id = by_text or s.left.system == s.right.system
        left, right = (s.left_id, s.right_id) if by_id else (s.left.system, s.right.system)
        judgment = s.judgment
        votes.append(
            Vote(
                annotator=judgment.annotator_id,
                prompt=s.pair.item_id,
                left=left,
                right=right,
                outcome=_SIDE.get(judgment.outcome, judgment.outcome),
                strength=_SIZE.get(judgment.strength),
                dims={name: _SIDE.get(answer, answer) for name, answer in judgment.dims.items()},
                seconds=None if judgment.ms_visible is None else judgment.ms_visible / 1000,
                words_left=words[s.left_id],
                words_right=words[s.right_id],
                pair=judgment.pair_id,
                is_swap_of=s.pair.repeat_of or "",
            )
        )
    return tuple(votes)


def reward_of(candidate: Candidate, term: str = "total") -> float | None:
    """What an automatic reward gave a text; a trace may come from a file, so anything but a finite number is unknown."""
    rewards = candidate.trace.get("rewards")
    if term != "total" and isinstance(rewards, dict):
        rewards = rewards.get("terms")
    value = rewards.get(term) if isinstance(rewards, dict) else None
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return float(value) if known else None
