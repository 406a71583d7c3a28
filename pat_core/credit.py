"""What each summary contributed to the reward of the generator's text, and which two candidates of a prompt make a training pair.

R(s, t) is the reward of the text written from style summary s and topic summary t; 0 stands for a summary left out (method: differential
rewards). One prompt's rewards are a ``Grid``; which texts have to be written for it is data, so a batch can write them all at once. A fixed
left-out term does not reorder the candidates of one prompt: it decides whether a pair is worth learning from, and how much. Leaves out who
writes the texts and how they are rewarded (``rewards``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pat_core.types import AGENTS, Agent, Contribution

Cell = tuple[int | None, int | None]  # indices of the style and the topic candidate; None where that summary is left out
Reason = Literal["too few candidates", "empty", "not a number", "all equal", "gap under threshold", "no better than left out"]

MIN_GAP = 0.03  # about half the standard deviation of the rewards of texts about one topic
FULL_CREDIT = 0.1  # a chosen summary that adds this much to the reward has the full weight
REASONS: Mapping[Reason, str] = {
    "too few candidates": "a pair needs two candidates",
    "empty": "fewer than two candidates have any text",
    "not a number": "a credit is not a number, so the prompt cannot be trusted",
    "all equal": "all candidates are the same text or have the same credit",
    "gap under threshold": "the best candidate is not clearly better than the worst",
    "no better than left out": "the best candidate's text is no better than the one without a summary",
}


def star(n_style: int, n_topic: int, *, style: int = 0, topic: int = 0) -> tuple[Cell, ...]:
    """The texts to write around one partner of each kind, ``style`` and ``topic``: n_style + n_topic + 1 of them, 2N + 1 for N of each.

    Every style candidate with topic candidate ``topic``, every topic candidate with style candidate ``style``, and both left-out texts.
    """
    _check_sizes(n_style, n_topic, style, topic)
    along_style = [(i, topic) for i in range(n_style)]
    along_topic = [(style, j) for j in range(n_topic) if j != topic]
    return (*along_style, *along_topic, (None, topic), (style, None))


def full_grid(n_style: int, n_topic: int) -> tuple[Cell, ...]:
    """All texts to write for n_style and n_topic candidates, those with one or both left out too: N * N + 2N + 1 for N of each."""
    _check_sizes(n_style, n_topic, 0, 0)
    return tuple((i, j) for i in (*range(n_style), None) for j in (*range(n_topic), None))


def _check_sizes(n_style: int, n_topic: int, style: int, topic: int) -> None:
    if not (0 <= style < n_style and 0 <= topic < n_topic):
        raise ValueError(f"style candidate {style} of {n_style} and topic candidate {topic} of {n_topic}: one of them does not exist")


@dataclass(frozen=True, slots=True)
class Grid:
    """Rewards of one prompt's texts: ``rewards[cell]`` is R, averaged over the texts of a cell; cells not written are not there."""

    n_style: int
    n_topic: int
    rewards: Mapping[Cell, float]

    def n(self, agent: Agent) -> int:
        return self.n_style if agent == "style" else self.n_topic


def grid_of(cells: Sequence[Cell], rewards: Sequence[float]) -> Grid:
    """The grid of texts written for ``cells`` (``star`` or ``full_grid``, repeated where several texts were sampled) with their rewards."""
    if not cells or len(cells) != len(rewards):
        raise ValueError(f"{len(cells)} texts and {len(rewards)} rewards; a grid needs one reward for each text, and at least one")
    by_cell: dict[Cell, list[float]] = {}
    for cell, value in zip(cells, rewards, strict=True):
        by_cell.setdefault(cell, []).append(value)
    sizes = [1 + max((cell[axis] for cell in by_cell if cell[axis] is not None), default=-1) for axis in (0, 1)]
    return Grid(sizes[0], sizes[1], {cell: float(np.mean(values)) for cell, values in by_cell.items()})


def raw_rewards(grid: Grid, agent: Agent) -> np.ndarray:
    """R of each candidate of ``agent`` (n,), the mean over the partners that every candidate was written with."""
    return _against_partners(grid, agent)[0].mean(axis=1)


def leave_one_out(grid: Grid, agent: Agent) -> np.ndarray:
    """Leave-one-out credit of each candidate (n,): the mean over partners j of R(s_i, t_j) - R(0, t_j) for style, likewise for topic."""
    written, left_out = _against_partners(grid, agent)
    return (written - left_out).mean(axis=1)


def _against_partners(grid: Grid, agent: Agent) -> tuple[np.ndarray, np.ndarray]:
    """R of candidates by partners (n, p), and R with the candidate left out (p,); only partners that all of them were written with.

    The other agent left out is no partner. ValueError where there is none.
    """
    axis = AGENTS.index(agent)
    n = grid.n(agent)

    def cell(own: int | None, partner: int) -> Cell:
        return (own, partner) if axis == 0 else (partner, own)

    partners = [j for j in range(grid.n_topic if axis == 0 else grid.n_style) if all(cell(i, j) in grid.rewards for i in (*range(n), None))]
    if not (partners and n):
        raise ValueError(f"no partner was written with every {agent} candidate and without any, so their credits cannot be compared")
    written = np.array([[grid.rewards[cell(i, j)] for j in partners] for i in range(n)])
    return written, np.array([grid.rewards[cell(None, j)] for j in partners])


def sibling_credit(rewards: Sequence[float]) -> np.ndarray:
    """Each candidate's reward (n,) minus the mean of its siblings'; the credits sum to 0. ValueError for fewer than two candidates."""
    r = np.asarray(rewards, dtype=float)
    if len(r) < 2:
        raise ValueError(f"{len(r)} candidates have no siblings; sibling credit needs at least two")
    return (r - r.mean()) * (len(r) / (len(r) - 1))


def mismatched_credit(own: Sequence[float], others: Sequence[float]) -> np.ndarray:
    """Mismatched-user credit of each candidate (n,): its reward minus the mean reward of texts written with other users' summaries (m,).

    The only credit that measures *personal* value: what the summary adds beyond being some summary. ValueError where either is empty.
    """
    if not (len(own) and len(others)):
        raise ValueError("mismatched-user credit needs rewards of the user's own candidates and of at least one other user's summary")
    return np.asarray(own, dtype=float) - float(np.mean(others))


def shapley(full: Sequence[float], style_only: Sequence[float], topic_only: Sequence[float], neither: Sequence[float]) -> Contribution:
    """Two-agent Shapley values from rewards of texts written with both summaries, one, or none; each is averaged over its texts.

    style = 1/2 [R(s,t) - R(0,t) + R(s,0) - R(0,0)], and style + topic = R(s,t) - R(0,0). Raises ValueError where one has no text.
    """
    if not (full and style_only and topic_only and neither):
        raise ValueError("Shapley values need at least one text for each of: both summaries, style only, topic only, neither")
    st, s, t, n = (float(np.mean(r)) for r in (full, style_only, topic_only, neither))
    return Contribution(style=(st - t + s - n) / 2, topic=(st - s + t - n) / 2, full=st, neither=n, style_only=s, topic_only=t)


def grid_shapley(grid: Grid) -> Contribution:
    """``shapley`` averaged over the candidates of a full grid; ValueError for a star, which has no text without both."""
    kinds: dict[tuple[bool, bool], list[float]] = {}
    for (i, j), value in grid.rewards.items():
        kinds.setdefault((i is not None, j is not None), []).append(value)
    return shapley(*(kinds.get(kind, []) for kind in ((True, True), (True, False), (False, True), (False, False))))


def intraclass_correlation(cells: Iterable[Sequence[Sequence[float]]]) -> float | None:
    """Share of a text's reward variance that lies between the candidates of a prompt: what a choice among them can be about.

    ``cells`` holds for each prompt the rewards (candidates, n) of every candidate's texts in the same n seeds, whose own effect is left
    out, as it is where candidates are compared. ICC(3,1) of Shrout and Fleiss 1979, pooled over prompts: 1 where only the candidate
    decides, about 0 where only chance does. None where no candidate has two texts, or candidates and chance make no difference.
    """
    tables = [t for rows in cells if (t := np.asarray(rows, dtype=float)).ndim == 2 and len(t) > 1 and t.shape[1] > 1]
    if not tables:
        return None
    n = tables[0].shape[1]
    rests = [t - t.mean(axis=1, keepdims=True) - t.mean(axis=0) + t.mean() for t in tables]
    between = n * sum(float(((t.mean(axis=1) - t.mean()) ** 2).sum()) for t in tables) / sum(len(t) - 1 for t in tables)
    within = sum(float((rest**2).sum()) for rest in rests) / sum((len(t) - 1) * (n - 1) for t in tables)
    whole = between + (n - 1) * within
    return (between - within) / whole if whole else None


@dataclass(frozen=True, slots=True)
class Selected:
    """Indices of the chosen and the rejected candidate; ``gap`` between their credits; ``weight`` in (0, 1] of the pair."""

    chosen: int
    rejected: int
    gap: float
    weight: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a prompt gives no pair; ``REASONS[reason]`` says it in words."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of ``n`` prompts: ``kept`` pairs, ``dropped`` by reason, and the mean ``gap`` and ``weight`` of the pairs."""

    n: int
    kept: int
    dropped: dict[str, int]
    gap: float
    weight: float


def select(
    texts: Sequence[str], credits: Sequence[float], *, min_gap: float = MIN_GAP, full_credit: float = FULL_CREDIT
) -> Selected | Dropped:
    """Best against worst candidate by differential credit (0 is "left out"), or why the prompt gives no pair.

    The chosen one must beat "left out", and the worst by at least ``min_gap``; weight = min(1, its credit / ``full_credit``). Candidates
    without text take no part; equal texts are one candidate with the mean of their credits.
    """
    if not 0 < full_credit < math.inf:
        raise ValueError(f"full_credit {full_credit!r} must be above 0: it is the credit at which a pair has the full weight")
    found = _extremes(texts, credits, min_gap)
    if isinstance(found, Dropped):
        return found
    best, worst, credit, gap = found
    if credit <= 0:
        return Dropped("no better than left out")
    return Selected(best, worst, gap, min(1.0, credit / full_credit))


def select_raw(texts: Sequence[str], rewards: Sequence[float], *, min_gap: float = MIN_GAP) -> Selected | Dropped:
    """The ablation of ``select``: best against worst by reward alone, whatever the text without a summary got; every pair weighs 1."""
    found = _extremes(texts, rewards, min_gap)
    return found if isinstance(found, Dropped) else Selected(found[0], found[1], found[3], 1.0)


def _extremes(texts: Sequence[str], credits: Sequence[float], min_gap: float) -> tuple[int, int, float, float] | Dropped:
    """(best, worst, credit of the best, gap); of equal credits the first candidate counts."""
    if len(texts) != len(credits):
        raise ValueError(f"{len(texts)} candidates and {len(credits)} credits; each candidate needs one")
    if not 0 <= min_gap < math.inf:
        raise ValueError(f"min_gap {min_gap!r} must be at least 0: it is the least difference of credits worth learning from")
    if len(texts) < 2:
        return Dropped("too few candidates")
    if not all(math.isfinite(c) for c in credits):
        return Dropped("not a number")
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        if text.strip():
            groups.setdefault(text.strip(), []).append(i)
    if sum(len(members) for members in groups.values()) < 2:
        return Dropped("empty")
    mean = {members[0]: float(np.mean([credits[i] for i in members])) for members in groups.values()}
    best, worst = max(mean, key=lambda i: mean[i]), min(mean, key=lambda i: mean[i])
    gap = mean[best] - mean[worst]
    if gap <= 1e-12:  # the same rewards in another order of addition differ by less
        return Dropped("all equal")
    return Dropped("gap under threshold") if gap < min_gap else (best, worst, mean[best], gap)


def tally(outcomes: Iterable[Selected | Dropped]) -> Tally:
    """Pairs kept and prompts dropped, counted; means are 0 without a pair."""
    outcomes = tuple(outcomes)
    kept = [o for o in outcomes if isinstance(o, Selected)]
    return Tally(
        n=len(outcomes),
        kept=len(kept),
        dropped=dict(Counter(o.reason for o in outcomes if isinstance(o, Dropped)).most_common()),
        gap=float(np.mean([o.gap for o in kept])) if kept else 0.0,
        weight=float(np.mean([o.weight for o in kept])) if kept else 0.0,
    )
