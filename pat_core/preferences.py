"""From people's choices and automatic rewards to weighted training pairs: the calibrated mix (method: human judgments as extra rewards).

Votes calibrate the reward, P(human prefers a) = sig(c0 + c1 (r_a - r_b) + c2 log(len_a / len_b) + c3 [a shown left]), and a training pair
gets the label logit q = c1 (r_a - r_b) + kappa (wins_a - wins_b): what is due to length, side or the order of a and b is left behind. Where
c1 could as well be 0, the reward does not predict people and stays out of the labels. Ties and "both bad" never become a winner. Leaves out
where votes come from (``annotate``), how well judges agree (``annotate.stats``) and the loss (``train``).
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit, stdtrit

from pat_core.types import PreferencePair, Role, Source

Winner = Literal["a", "b", "tie", "both_bad", "cannot_judge"]
Mode = Literal["human", "automatic", "both"]
DropReason = Literal[
    "trains no agent", "no prompt", "a text is empty", "the texts are the same", "no reward", "equal rewards", "nobody judged it",
    "only ties", "people are split", "votes and reward cancel",
]  # fmt: skip
WINNERS: tuple[Winner, ...] = get_args(Winner)
MODES: tuple[Mode, ...] = get_args(Mode)

CAP = 100.0  # votes: the most that one annotator counts for
KAPPA = 1.0  # logits that one net win is worth: a single vote is taken to be right in 73 of 100 cases
RIDGE = 1.0  # strength of the normal prior around 0 on the coefficients, the reward's in standard units
_ROUNDING = 1e-9  # rewards, votes or logits: smaller differences come from the order of addition


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers of one agent to one prompt, and what is known of the texts that came of them.

    ``prompt``, ``a`` and ``b`` are what ``agent`` would be trained on; ``agent`` is None where two whole systems were compared: that only
    calibrates. ``reward_*`` and ``words_*`` belong to the texts that a judge sees; rewards of one call are all of one kind (with or
    without a reference). A reward that is None or not finite, and 0 words, mean unknown. ``weight`` >= 0 is what the reward's opinion is
    worth, from ``credit.select``.
    """

    pair_id: str
    agent: Role | None
    prompt: tuple[tuple[str, str], ...]
    a: str
    b: str
    reward_a: float | None = None
    reward_b: float | None = None
    words_a: int = 0
    words_b: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"comparison {self.pair_id!r} has weight {self.weight!r}; it must be a finite number of at least 0")

    @property
    def gap(self) -> float | None:
        """reward_a - reward_b, None where either is unknown; 0 where they differ by rounding only."""
        if self.reward_a is None or self.reward_b is None:
            return None
        gap = self.reward_a - self.reward_b
        return (gap if abs(gap) > _ROUNDING else 0.0) if math.isfinite(gap) else None

    @property
    def log_length(self) -> float:
        """log(words_a / words_b); 0 where either is unknown."""
        return math.log(self.words_a / self.words_b) if self.words_a > 0 and self.words_b > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """One person's current answer about the comparison ``pair_id``; ``a_left`` says whether ``a`` stood left."""

    pair_id: str
    annotator: str
    winner: Winner
    a_left: bool
    judgment_id: str = ""

    def __post_init__(self) -> None:
        if self.winner not in WINNERS:
            raise ValueError(f"winner {self.winner!r} is not known; use one of {', '.join(WINNERS)}")

    @property
    def sign(self) -> int:
        """1 for a, -1 for b, 0 for no winner."""
        return {"a": 1, "b": -1}.get(self.winner, 0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the automatic reward predicts people: the coefficients of the module's formula, in logits; ``low <= c1 <= high`` is 95%.

    ``n`` decisive votes on ``n_pairs`` pairs with known rewards. ``predicts`` is False where the interval covers 0.
    """

    c0: float
    c1: float
    c2: float
    c3: float
    low: float
    high: float
    n: int
    n_pairs: int

    @property
    def predicts(self) -> bool:
        return not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class Judge:
    """How much one annotator counts: ``n`` answers of weight ``each`` = min(1, cap / n)."""

    annotator: str
    n: int
    each: float

    @property
    def total(self) -> float:
        return self.n * self.each


@dataclass(frozen=True, slots=True)
class Mix:
    """Training pairs and what they came of. ``winners`` counts the choices by answer, ``dropped`` the comparisons that gave no pair.

    ``judges``, who counts most first, each for at most ``cap`` votes; ``personal`` where only one person judged. ``notes`` are sentences
    that belong beside the pairs.
    """

    mode: Mode
    pairs: tuple[PreferencePair, ...]
    calibration: Calibration | None
    judges: tuple[Judge, ...]
    winners: dict[str, int]
    dropped: dict[str, int]
    personal: bool
    notes: tuple[str, ...]
    cap: float = CAP


def mixed_pairs(
    comparisons: Sequence[Comparison],
    choices: Sequence[Choice] = (),
    *,
    mode: Mode = "both",
    cap: float = CAP,
    kappa: float = KAPPA,
    ridge: float = RIDGE,
) -> Mix:
    """Training pairs from rewards and choices, in the order of ``comparisons``.

    *human*: logit q = kappa (wins_a - wins_b), judged comparisons only. *automatic*: the higher reward is chosen, q = 1; choices only
    tell whether people agree. *both*: logit q = c1 (r_a - r_b) + kappa (wins_a - wins_b), where c1 is 0 unless its interval excludes 0;
    comparisons nobody judged take part by their reward. Where the judges of a comparison find no winner, or more often none than one, it
    gives no pair (but in *automatic*).

    A vote weighs min(1, cap / n) for an annotator of n answers, shared between repeats on one pair. A pair's weight is that of its votes,
    at most 1, or that of its reward where this is more; wins are in units of the pair's weight. So over all pairs, weight times logit that
    comes from one annotator is at most kappa * cap. ValueError, in a sentence, for choices about unknown pairs and where no pair comes out.
    """
    _check(comparisons, choices, mode, cap, kappa, ridge)
    judges = _judges(choices, cap)
    votes = _weighed(choices, {j.annotator: j.each for j in judges})
    fit = calibrate(comparisons, choices, cap=cap, ridge=ridge)
    c1 = fit.c1 if mode == "both" and fit and fit.predicts else 0.0
    outcomes = [_pair(c, votes.get(c.pair_id, ()), mode, c1, kappa) for c in comparisons]
    pairs = tuple(o for o in outcomes if isinstance(o, PreferencePair))
    winners = {w: n for w in WINNERS if (n := sum(choice.winner == w for choice in choices))}
    dropped = dict(Counter(o for o in outcomes if isinstance(o, str)).most_common())
    if not pairs:
        raise ValueError(_nothing(mode, winners, dropped))
    return Mix(mode, pairs, fit, judges, winners, dropped, len(judges) == 1, _notes(mode, comparisons, choices, judges, fit, cap), cap)


Taught = tuple[tuple[Comparison, ...], tuple[Choice, ...]]


def about(role: Role, comparisons: Sequence[Comparison], choices: Sequence[Choice]) -> Taught:
    """What ``role`` is taught by: the comparisons of its own answers and those of whole systems, which calibrate, with their choices."""
    own = tuple(c for c in comparisons if c.agent in (role, None))
    known = {c.pair_id for c in own}
    return own, tuple(choice for choice in choices if choice.pair_id in known)


def shares(pairs: Sequence[PreferencePair], choices: Sequence[Choice], *, cap: float = CAP) -> dict[str, float]:
    """Each annotator's share, most first, of the weight of the votes behind ``pairs``, weighed as in ``mixed_pairs``; {} without any."""
    votes = _weighed(choices, {j.annotator: j.each for j in _judges(choices, cap)})
    found: dict[str, float] = defaultdict(float)
    for pair in pairs:
        for choice, weight in votes.get(pair.pair_id, ()):
            found[choice.annotator] += weight
    total = math.fsum(found.values())
    return {who: weight / total for who, weight in sorted(found.items(), key=lambda item: (-item[1], item[0]))}


def calibrate(
    comparisons: Sequence[Comparison], choices: Sequence[Choice], *, cap: float = CAP, ridge: float = RIDGE
) -> Calibration | None:
    """The ridge logistic regression of decisive choices on rewards, length and side; None where no such choice has two different rewards.

    The prior, normal with precision ``ridge``, is on the reward difference over its root mean square, on log length and on the side as
    -1/2 or 1/2, so that exchanging a and b everywhere changes no sign but c0's. The interval takes the wider of Laplace's variance and
    the one robust to several votes on a pair, and Student's t for the number of pairs.
    """
    by_id = {c.pair_id: c for c in comparisons}
    weights = _weighed(choices, {j.annotator: j.each for j in _judges(choices, cap)})
    rows = [(by_id[id_], v, w) for id_, pair in weights.items() for v, w in pair if v.sign and by_id[id_].gap is not None]
    gaps = np.array([c.gap for c, _, _ in rows])
    if not gaps.any():
        return None
    w = np.array([weight for _, _, weight in rows])
    unit = math.sqrt(np.average(gaps**2, weights=w))
    lengths, sides = [c.log_length for c, _, _ in rows], [0.5 if v.a_left else -0.5 for _, v, _ in rows]
    x = np.column_stack([np.ones(len(rows)), gaps / unit, lengths, sides])
    y = np.array([v.sign > 0 for _, v, _ in rows], dtype=float)
    _, cluster = np.unique([c.pair_id for c, _, _ in rows], return_inverse=True)
    beta, variance = ridge_logistic(x, y, w, ridge, cluster)
    n_pairs = int(cluster.max()) + 1
    half = float(stdtrit(max(n_pairs - 1, 1), 0.975)) * math.sqrt(variance[1])  # Student's t; scipy.stats takes a second to load
    c0, c1, c2, c3 = (float(b) for b in beta)
    return Calibration(c0 - c3 / 2, c1 / unit, c2, c3, (c1 - half) / unit, (c1 + half) / unit, len(rows), n_pairs)


def ridge_logistic(x: np.ndarray, y: np.ndarray, w: np.ndarray, ridge: float, cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (d,) that minimize the weighted log loss of ``y`` (n,) in {0, 1} on ``x`` (n, d) plus ridge / 2 |beta|^2, and variances.

    The variances (d,) are the larger of Laplace's and the sandwich over ``cluster`` (n,), integers from 0; ``ridge`` is above 0.
    """

    def loss(b: np.ndarray) -> float:
        z = x @ b
        return float(w @ (np.logaddexp(0, z) - y * z) + ridge / 2 * b @ b)

    beta = np.zeros(x.shape[1])
    for _ in range(100):
        p = expit(x @ beta)
        gradient = x.T @ (w * (p - y)) + ridge * beta
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < 1e-18 * (1 + loss(beta)):
            break
        size = 1.0
        while loss(beta - size * step) > loss(beta) and size > 1e-8:  # a full step can overshoot where votes are nearly separable
            size /= 2
        beta = beta - size * step
    inverse = np.linalg.inv(hessian)
    n = int(cluster.max()) + 1
    scores = np.zeros((n, len(beta)))
    np.add.at(scores, cluster, x * (w * (p - y))[:, None])
    sandwich = inverse @ (scores.T @ scores) @ inverse * (n / max(n - 1, 1))
    return beta, np.maximum(np.diag(inverse), np.diag(sandwich))


def _check(comparisons: Sequence[Comparison], choices: Sequence[Choice], mode: Mode, cap: float, kappa: float, ridge: float) -> None:
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not known; use one of {', '.join(MODES)}")
    for name, value in (("cap", cap), ("kappa", kappa), ("ridge", ridge)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} {value!r} must be a finite number above 0")
    if not comparisons:
        raise ValueError("there are no comparisons, so there is nothing to learn from")
    known = Counter(c.pair_id for c in comparisons)
    twice = [id_ for id_, n in known.items() if n > 1]
    if twice:
        raise ValueError(f"comparison {twice[0]!r} is given {known[twice[0]]} times; each pair id must name one comparison")
    strangers = [choice.pair_id for choice in choices if choice.pair_id not in known]
    if strangers:
        raise ValueError(f"{len(strangers)} choices are about pairs that are not given, such as {strangers[0]!r}")
    if mode != "automatic" and not any(choice.winner != "cannot_judge" for choice in choices):
        raise ValueError("there are no judgments yet; let people judge some pairs first, or train on the automatic reward alone")


def _judges(choices: Sequence[Choice], cap: float) -> tuple[Judge, ...]:
    """Annotators by what they count for, most first; "cannot judge" takes nothing of anybody's total."""
    n = Counter(choice.annotator for choice in choices if choice.winner != "cannot_judge")
    return tuple(sorted((Judge(a, k, min(1.0, cap / k)) for a, k in n.items()), key=lambda j: (-j.total, -j.n, j.annotator)))


Votes = Sequence[tuple[Choice, float]]


def _weighed(choices: Sequence[Choice], each: Mapping[str, float]) -> dict[str, Votes]:
    """The choices about each pair with their weights; somebody's repeats on one pair share the weight of one vote."""
    repeats = Counter((c.annotator, c.pair_id) for c in choices if c.winner != "cannot_judge")
    votes: dict[str, list[tuple[Choice, float]]] = defaultdict(list)
    for c in choices:
        if c.winner != "cannot_judge":
            votes[c.pair_id].append((c, each[c.annotator] / repeats[c.annotator, c.pair_id]))
    return votes


def _pair(c: Comparison, votes: Votes, mode: Mode, c1: float, kappa: float) -> PreferencePair | DropReason:
    """The training pair of one comparison, or why it gives none."""
    if c.agent is None:
        return "trains no agent"
    if not c.prompt:
        return "no prompt"
    if not (c.a.strip() and c.b.strip()):
        return "a text is empty"
    if c.a == c.b:
        return "the texts are the same"
    if mode == "automatic":
        return _by_reward(c)
    wins = math.fsum(w * v.sign for v, w in votes)
    if votes and abs(wins) < _ROUNDING:
        return "people are split" if any(v.sign for v, _ in votes) else "only ties"
    if math.fsum(w for v, w in votes if not v.sign) > math.fsum(w for v, w in votes if v.sign):
        return "only ties" if not any(v.sign for v, _ in votes) else "people are split"
    reward = c1 * c.gap if c.gap is not None else 0.0
    if not votes and not reward:
        return "nobody judged it"
    weight = max(min(1.0, math.fsum(w for _, w in votes)), c.weight if reward else 0.0)
    logit = reward + (kappa * wins / weight if weight else 0.0)
    if abs(logit) < _ROUNDING:
        return "votes and reward cancel"
    source: Source = "both" if votes and reward else "human" if votes else "metric"
    decisive = tuple(v.judgment_id for v, _ in votes if v.sign and v.judgment_id)
    return _preferred(c, logit > 0, weight, float(expit(abs(logit))), source, decisive)


def _by_reward(c: Comparison) -> PreferencePair | DropReason:
    if c.gap is None:
        return "no reward"
    return _preferred(c, c.gap > 0, c.weight, 1.0, "metric", ()) if c.gap else "equal rewards"


def _preferred(c: Comparison, a_wins: bool, weight: float, q: float, source: Source, judgment_ids: tuple[str, ...]) -> PreferencePair:
    chosen, rejected = (c.a, c.b) if a_wins else (c.b, c.a)
    return PreferencePair(c.agent, c.prompt, chosen, rejected, weight, q, source, c.pair_id, judgment_ids)


def _nothing(mode: Mode, winners: Mapping[str, int], dropped: Mapping[str, int]) -> str:
    """Why no pair came out, in a sentence."""
    if mode != "automatic":
        n = sum(winners.values()) - winners.get("cannot_judge", 0)
        if not (winners.get("a") or winners.get("b")):
            return f"all {n} judgments are ties or both bad: nobody preferred a text, so there is nothing to learn from them"
        if set(dropped) <= {"people are split", "only ties", "nobody judged it"}:
            return f"the {n} judgments contradict each other: no pair has a winner, so there is nothing to learn from them"
    return "no comparison gives a training pair (" + ", ".join(f"{reason}: {k}" for reason, k in dropped.items()) + ")"


def _notes(
    mode: Mode, comparisons: Sequence[Comparison], choices: Sequence[Choice], judges: Sequence[Judge], fit: Calibration | None, cap: float
) -> tuple[str, ...]:
    unknown = sum(c.gap is None for c in comparisons)
    notes = [f"{unknown} of {len(comparisons)} comparisons have a reward that is missing or not a number."] if unknown else []
    if mode == "automatic" and choices:
        notes.append(f"{len(choices)} judgments are not used: the automatic reward alone decides.")
    if len(judges) == 1 and mode != "automatic":
        notes.append("Personal: all judgments are one person's, so what is learned is this person's taste.")
    capped = [j for j in judges if j.each < 1]
    if capped and len(judges) > 1:
        notes.append(f"{len(capped)} of {len(judges)} judges gave more than {cap:g} judgments and count for {cap:g} each.")
    if choices:
        notes.append(told(fit))
    if mode == "both" and not (fit and fit.predicts):
        notes.append("So the reward stays out of the labels: people's choices alone decide, and what nobody judged is left out.")
    return tuple(notes)


def told(fit: Calibration | None) -> str:
    """What the votes say about the automatic reward, in a sentence."""
    if fit is None:
        return "No decisive judgment is about two different rewards, so nothing is known about how the automatic reward predicts people."
    figures = f"c1 = {fit.c1:.2f} [{fit.low:.2f}, {fit.high:.2f}] from {fit.n} decisive judgments"
    if not fit.predicts:
        return f"The automatic reward does not predict people here: {figures}, and the interval covers 0."
    return f"People prefer the text with the {'higher' if fit.c1 > 0 else 'lower'} automatic reward: {figures}."


def pair_to_row(pair: PreferencePair) -> dict[str, Any]:
    """The pair as one row of a TRL preference dataset (conversational; prompt, chosen, rejected) with our columns beside them."""
    return {
        "prompt": [{"role": speaker, "content": text} for speaker, text in pair.prompt],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "agent": pair.agent,
        "weight": pair.weight,
        "q": pair.q,
        "source": pair.source,
        "pair_id": pair.pair_id,
        "judgment_ids": list(pair.judgment_ids),
    }


def pair_from_row(row: Mapping[str, Any]) -> PreferencePair:
    """The inverse of ``pair_to_row``; ``agent`` and TRL's columns must be there, the others have PreferencePair's defaults. ValueError."""
    try:
        given = {name: row[name] for name in ("weight", "q") if name in row}
        given |= {name: _text(row[name]) for name in ("source", "pair_id") if name in row}
        prompt = tuple((_text(m["role"]), _text(m["content"])) for m in row["prompt"])
        ids = tuple(_text(id_) for id_ in row.get("judgment_ids", ()))
        return PreferencePair(row["agent"], prompt, _answer(row["chosen"]), _answer(row["rejected"]), judgment_ids=ids, **given)
    except KeyError as error:
        raise ValueError(f"a preference pair needs {error.args[0]!r}") from error
    except TypeError as error:
        raise ValueError(f"this is not a preference pair in TRL's conversational form: {error}") from error


def _answer(messages: object) -> str:
    if not (isinstance(messages, list) and len(messages) == 1):
        raise TypeError(f"{messages!r:.60} is not a list of one message")
    return _text(messages[0]["content"])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def write_pairs(path: Path, pairs: Iterable[PreferencePair]) -> int:
    """Writes one JSON line per pair and returns their number. ``path`` is replaced at the end, so a full disk leaves the old file whole."""
    unfinished = path.with_name(path.name + ".part")
    n = 0
    with unfinished.open("w", encoding="utf-8", newline="\n") as file:
        for n, pair in enumerate(pairs, 1):  # noqa: B007 - n is the result
            file.write(json.dumps(pair_to_row(pair), ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return n


def read_pairs(path: Path) -> tuple[PreferencePair, ...]:
    """The pairs of a file by ``write_pairs``; ValueError names the line that is not one."""
    pairs = []
    with path.open(encoding="utf-8") as file:
        for n, line in enumerate(file, 1):
            if line.strip():
                try:
                    pairs.append(pair_from_row(json.loads(line)))
                except ValueError as error:
                    raise ValueError(f"line {n} of {path.name}: {error}") from error
    return tuple(pairs)
