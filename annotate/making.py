"""Pairs for people to compare, made with the pipeline from held-out reviews: two texts that differ in one factor, or two systems.

A one-factor pair holds two texts for which one agent wrote different summaries (or the generator different texts) and nothing else
differs; a system pair holds PaT's text and an alternative's. Checks come with them: constructed gold, equal texts, swapped repeats. Every
text keeps how it came about, the held-out review's own text never enters anything, and ``annotate.guard`` sees every text before a person
does. Pairs come in small batches, so that a stop loses nothing. Leaves out who judges what (``annotate.schedule``).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from functools import partial
from itertools import combinations
from typing import Any, Literal, get_args

from annotate.constructed import Spoiler
from annotate.guard import guard
from annotate.schedule import Plan, swap_of
from annotate.store import Store
from annotate.traces import alternative_of, candidate_of, item_of
from annotate.types import Candidate, Item, Pair, PairKind, pair_of
from pat_core.corpus import Corpus, hold_out, part_of
from pat_core.pipeline import Workbench
from pat_core.progress import Progress
from pat_core.types import ADAPTER_ROLES, AGENTS, ALTERNATIVES, Query, Role, RunOptions, Trace

Kind = Literal["one-factor", "systems"]
HISTORY_SIZES = (0, 1, 2, 4)  # reviews that a person is known by, in turn, as far as they have so many
N_CANDIDATES = 5  # summaries or texts of one agent to choose two from
N_DRAFTS = 2  # drafts of PaT in a system pair; the better one by the reward is its text
RANDOM_SHARE = 0.25  # of the one-factor pairs are two candidates at random, so that each two could have been shown
CHECKS_FROM = 25  # pairs from which on there is at least one check of each kind
MAX_PAIRS = 100_000


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make: ``n`` pairs to judge of ``kind``, for these ``agents`` in turn (one-factor only), in this learning ``round``."""

    n: int
    kind: str
    agents: tuple[Role, ...] = AGENTS
    round: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or not 1 <= self.n <= MAX_PAIRS:
            raise ValueError(f"n {self.n!r:.60} must be a whole number from 1 to {MAX_PAIRS:,}: how many pairs to make")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind {self.kind!r:.60} is not known; use one-factor or systems")
        if not self.agents or not set(self.agents) <= set(ADAPTER_ROLES):
            raise ValueError(f"agents {self.agents!r:.80} must be some of {', '.join(ADAPTER_ROLES)}")
        if self.round < 0:
            raise ValueError(f"round {self.round} must not be below 0")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a wish so far: pairs ``made`` by what they compare, what was ``dropped`` and why, texts ``mended`` by the guard.

    ``stopped`` says why fewer pairs than asked were made; ``stored`` and ``known`` are the store's own count (``keep``).
    """

    asked: int
    seed: int
    made: dict[str, int]
    dropped: dict[str, int]
    mended: dict[str, int]
    n_runs: int
    seconds: float
    stopped: str = ""
    stored: int = 0
    known: int = 0

    @property
    def n_to_judge(self) -> int:
        return sum(n for name, n in self.made.items() if name.split()[0] in ("one-factor", "system"))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "n_to_judge": self.n_to_judge}

    def __str__(self) -> str:
        def listed(counts: dict[str, int]) -> str:
            return ", ".join(f"{n} x {name}" for name, n in sorted(counts.items())) or "nothing"

        each = f", {self.seconds / self.n_to_judge:.1f} s for each" if self.n_to_judge else ""
        lines = [f"{self.n_to_judge} of {self.asked} pairs to judge made with seed {self.seed} in {self.seconds:.0f} s{each}"]
        lines += [f"  made: {listed(self.made)}", f"  dropped: {listed(self.dropped)}", f"  mended by the guard: {listed(self.mended)}"]
        lines.append(f"  new in the database: {self.stored} pairs" + (f"; {self.known} were there already" if self.known else ""))
        return "\n".join(lines + ([f"  stopped: {self.stopped}"] if self.stopped else []))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one run of the pipeline gave, to be stored at once; nothing where its texts were dropped. The last has the final report."""

    items: tuple[Item, ...]
    candidates: tuple[Candidate, ...]
    pairs: tuple[Pair, ...]
    report: Report


def agents_named(name: str | None, kind: str = "one-factor") -> tuple[Role, ...]:
    """The agents that a choice such as "style" or "all" means; style and topic for None. ValueError for anything else."""
    if name is not None and kind == "systems":
        raise ValueError("an agent goes with one-factor pairs only: in system pairs everything differs")
    if name is None:
        return AGENTS
    if name != "all" and name not in ADAPTER_ROLES:
        raise ValueError(f"agent {name!r:.60} is not known; use {', '.join(ADAPTER_ROLES)} or all")
    return ADAPTER_ROLES if name == "all" else (name,)


def keep(store: Store, batches: Iterable[Batch]) -> Report:
    """Store every batch as it comes; the final report, with what was new."""
    stored = known = 0
    for batch in batches:
        report = batch.report
        if batch.pairs:
            added = store.add_pairs(batch.pairs, batch.candidates, batch.items)
            stored, known = stored + added.pairs, known + added.known
    return replace(report, stored=stored, known=known)


def make(
    bench: Workbench,
    wish: Wish,
    seed: int = 0,
    *,
    plan: Plan = Plan(),  # noqa: B008 - frozen
    lang: str = "en",
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[Batch]:
    """Batches of pairs until ``wish.n`` are made, ``cancel`` is set or too much is dropped; the last one is empty with the final report.

    The checks come on top at the rates of ``plan``. The same seed, corpus and engine make the same pairs. Raises ValueError for a corpus
    without a review to hold out, LLMError where the engine fails: what came before it is whole.
    """
    require_targets(bench.corpus)
    return _Making(bench, wish, seed, plan, lang, progress, cancel or threading.Event()).batches()


def require_targets(corpus: Corpus) -> None:
    """Raises ValueError unless some review can be held out: one of a topic that somebody else reviewed too."""
    if len(corpus.by_user) < 2:
        raise ValueError(f"{corpus.name} holds reviews by one person only; pairs need the reviews of at least two people")
    if not any(_has_company(corpus, topic_id) for topic_id in corpus.by_topic):
        raise ValueError(f"{corpus.name} has no review to hold out: no topic is reviewed by two people")


def held_out_queries(corpus: Corpus, seed: int) -> Iterator[Query]:
    """Questions whose answers are reviews of the corpus, without an end and the same for a seed: the least asked people and topics first.

    The person is known by none, one, two or four of their other reviews in turn; the rest is held out with the answer.
    """
    rng = random.Random(f"held-out-{seed}")
    targets = sorted((r for r in corpus.reviews if _has_company(corpus, r.topic_id)), key=lambda r: r.review_id)
    rng.shuffle(targets)
    asked: Counter[tuple[str, str]] = Counter()
    n = 0
    while True:
        left = list(targets)
        while left:
            target = min(left, key=lambda r: (asked["user", r.user_id], asked["topic", r.topic_id]))
            left.remove(target)
            asked.update([("user", target.user_id), ("topic", target.topic_id)])
            query = hold_out(corpus, target, seed=rng.randrange(1_000_000))
            size = min(HISTORY_SIZES[n % len(HISTORY_SIZES)], len(query.history))
            history = tuple(rng.sample(query.history, size))
            unseen = frozenset(r.review_id for r in query.history) - {r.review_id for r in history}
            yield replace(query, history=history, held_out=query.held_out | unseen)
            n += 1


@dataclass(frozen=True, slots=True)
class _Found:
    """A pair to judge with its item and texts, and PaT's own ``good`` text for checks, None where it may not be shown."""

    query: Query
    trace: Trace
    item: Item
    two: tuple[Candidate, Candidate]
    pair: Pair
    good: Candidate | None


class _Making:
    """One wish being fulfilled: what is made and dropped so far. Lives as long as its batches."""

    def __init__(
        self, bench: Workbench, wish: Wish, seed: int, plan: Plan, lang: str, progress: Progress | None, cancel: threading.Event
    ) -> None:
        self.bench, self.wish, self.seed, self.lang, self.progress, self.cancel = bench, wish, seed, lang, progress, cancel
        self.rng = random.Random(f"making-{seed}")
        self.started = time.perf_counter()
        self.n_runs = self.n_done = 0
        self.made: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.wanted = {
            kind: _n_checks(wish.n, share) for kind, share in (("gold", plan.gold), ("identical", plan.identical), ("swap", plan.swap))
        }
        self.spoiler = Spoiler(self.rng)
        self.turn: list[str] = []

    def batches(self) -> Iterator[Batch]:
        queries = held_out_queries(self.bench.corpus, self.seed)
        self._tell()
        while self.n_done < self.wish.n and not self._stopped():
            self.n_runs += 1
            query = next(queries)
            found = self._one_factor(query) if self.wish.kind == "one-factor" else self._systems(query)
            if found is not None:
                self.n_done += 1
                self.made[f"one-factor {found.pair.agent}" if found.pair.agent else f"system {found.two[1].system}"] += 1
                yield self._batch(found)
                self._tell()
            else:
                yield Batch((), (), (), self._report())  # whoever shares the model with visitors gives it back between two runs
        yield Batch((), (), (), self._report())

    def _stopped(self) -> str:
        if self.cancel.is_set():
            return "by hand"
        return "too many texts had to be dropped" if self.n_runs - self.n_done >= 20 + self.n_done else ""

    def _tell(self) -> None:
        if self.progress:
            self.progress("Making pairs", self.n_done, self.wish.n)

    def _report(self) -> Report:
        return Report(
            asked=self.wish.n,
            seed=self.seed,
            made=dict(self.made),
            dropped=dict(self.dropped),
            mended=dict(self.mended),
            n_runs=self.n_runs,
            seconds=round(time.perf_counter() - self.started, 1),
            stopped=self._stopped() if self.n_done < self.wish.n else "",
        )

    def _one_factor(self, query: Query) -> _Found | None:
        """Two texts that differ in one completion of the agent whose turn it is; None where there are no two to show."""
        options = RunOptions(n_drafts=1, alternatives=())
        role = self.wish.agents[self.n_done % len(self.wish.agents)]
        trace = self._run(query, options)
        variants = self.bench.vary(trace, role, N_CANDIDATES, options, cancel=self.cancel) if trace else ()
        if trace is None or self.cancel.is_set():
            return None
        item = self._item(query, trace)
        texts: dict[str, Candidate] = {}
        for variant in variants:
            if role in AGENTS and getattr(variant.rounds[-1], role).finish == "length":
                self.dropped[f"{role} summary breaks off"] += 1  # preferring it would teach to break off
            elif (shown := self._shown(partial(candidate_of, item, variant, role=role), variant.output, item.prompt)) is not None:
                texts.setdefault(" ".join(shown.text.split()), shown)
        if len(texts) < 2:
            self.dropped["pair: no two different texts"] += 1
            return None
        a, b, propensity = self._two_of(tuple(texts.values()))
        pair = self._pair(a, b, "one-factor", agent=role, propensity=propensity)
        good = self._shown(partial(candidate_of, item, trace), trace.output, item.prompt, count=False)
        return _Found(query, trace, item, (a, b), pair, good)

    def _systems(self, query: Query) -> _Found | None:
        """PaT's text and that of the alternative whose turn it is; None where one of them cannot be shown."""
        name, propensity = self._alternative(query)
        options = RunOptions(n_drafts=N_DRAFTS, alternatives=(name,))
        trace = self._run(query, options)
        if trace is None:
            return None
        item, other = self._item(query, trace), trace.alternatives[0]
        a = self._shown(partial(candidate_of, item, trace), trace.output, item.prompt)
        b = self._shown(partial(alternative_of, item, trace, other), other.text, item.prompt)
        if a is None or b is None or a.text.split() == b.text.split():
            self.dropped["pair: no two different texts"] += 1
            return None
        a, b = (_with_propensity(c, propensity) for c in (a, b))
        return _Found(query, trace, item, (a, b), self._pair(a, b, "system", propensity=propensity), a)

    def _run(self, query: Query, options: RunOptions) -> Trace | None:
        *_, last = self.bench.stream(query, options, cancel=self.cancel)
        return last.trace

    def _item(self, query: Query, trace: Trace) -> Item:
        split = "train" if part_of(query.user_id) == "training" else "held-out"
        return item_of(query, trace.style_neighbors, source=self.bench.corpus.name, lang=self.lang, split=split)

    def _pair(self, a: Candidate, b: Candidate, kind: PairKind, **details: Any) -> Pair:
        return pair_of(a, b, kind, round=self.wish.round, origin="made", **details)

    def _shown(self, build: Callable[[], Candidate], text: str, about: str, *, count: bool = True) -> Candidate | None:
        """The candidate as the guard lets it pass, None where it does not."""
        result = guard(build(), about=about) if text.strip() else "is empty"
        if count and isinstance(result, str):
            self.dropped[f"text: {result}"] += 1
        elif count:
            self.mended.update(result.trace.get("guard", ()))
        return None if isinstance(result, str) else result

    def _two_of(self, texts: Sequence[Candidate]) -> tuple[Candidate, Candidate, float]:
        """Two of the texts and the probability of this choice: mostly the most different ones, some at random. Never by the reward."""
        twos = list(combinations(texts, 2))
        best = max(twos, key=lambda two: difference(two[0].text, two[1].text))
        chosen = self.rng.choice(twos) if self.rng.random() < RANDOM_SHARE else best
        propensity = RANDOM_SHARE / len(twos) + (1 - RANDOM_SHARE if chosen is best else 0)
        a, b = (_with_propensity(c, propensity) for c in chosen)
        return a, b, propensity

    def _alternative(self, query: Query) -> tuple[str, float]:
        """The alternative whose turn it is, and the probability of getting it: all in turn, in an order drawn anew for every turn."""
        known = bool(query.samples or query.statements)
        possible = [name for name in ALTERNATIVES if known or name != "lamp"]  # without a person's texts LaMP has nothing to paste
        self.turn = self.turn or self.rng.sample(ALTERNATIVES, len(ALTERNATIVES))
        name = self.turn.pop()
        return name if name in possible else self.rng.choice(possible), 1 / len(possible)

    def _batch(self, found: _Found) -> Batch:
        """The pair with the checks that are due by now; a check that this text does not allow waits for the next one."""
        candidates, pairs = {c.candidate_id: c for c in found.two}, [found.pair]
        if found.good is not None and self._is_due("gold") and (spoiled := self.spoiler.spoiled(found.good, found.item, found.trace)):
            kind, bad = spoiled
            candidates |= {c.candidate_id: c for c in (found.good, bad)}
            pairs.append(self._pair(found.good, bad, "gold", expected=found.good.candidate_id))
            self.made[f"gold {kind}"] += 1
        if self._is_due("identical"):
            pairs.append(self._pair(found.two[0], found.two[0], "identical", expected="tie"))
            self.made["identical"] += 1
        if self._is_due("swap"):
            pairs.append(swap_of(found.pair))
            self.made["swap"] += 1
        if found.good is not None:
            self.spoiler.remember(found.query, found.good.text)
        return Batch((found.item,), tuple(candidates.values()), tuple(pairs), self._report())

    def _is_due(self, kind: str) -> bool:
        """Whether the share of this check among the pairs so far is behind, so that a stop leaves the shares right."""
        there = sum(n for name, n in self.made.items() if name.split()[0] == kind)
        return there < int(self.wanted[kind] * self.n_done / self.wish.n + 0.5)


def difference(a: str, b: str) -> float:
    """How different two texts are in [0, 1]: one minus the share of words in common runs (difflib's ratio over words)."""
    return 1 - SequenceMatcher(None, a.lower().split(), b.lower().split(), autojunk=False).ratio()


def _n_checks(n: int, share: float) -> int:
    return max(round(share * n), int(n >= CHECKS_FROM and share > 0))


def _with_propensity(candidate: Candidate, propensity: float) -> Candidate:
    return replace(candidate, trace={**candidate.trace, "propensity": propensity})


def _has_company(corpus: Corpus, topic_id: str) -> bool:
    return len({r.user_id for r in corpus.by_topic[topic_id]}) > 1
