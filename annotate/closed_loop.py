"""Does the loop learn what a judge likes? A simulated annotator with a hidden taste votes, one DPO round follows, the taste judges again.

The taste is a function from a text to a number. Texts are written for held-out reviews of the training half of the users; the annotator is
offered pairs by the real schedule, side by side and blind, and each answer is kept in the real store. One round is trained from these votes
alone; then both models write for users that nobody voted on, and the share of pairs that the taste prefers is the result. Nothing is
published. Leaves out people, who are noisier: here a vote is always the taste's own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import math
import random
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from annotate.guard import guard
from annotate.lessons import lessons
from annotate.making import difference
from annotate.schedule import Plan, Pool, next_offer
from annotate.store import Store, open_store
from annotate.traces import alternative_of, candidate_of, item_of
from annotate.types import Annotator, Assignment, Candidate, Item, Judgment, Pair, pair_of
from pat_core.config import Config
from pat_core.dpo import DPOSettings, train_preferences
from pat_core.metrics import copy_rate, n_words
from pat_core.pipeline import Workbench, copied_text
from pat_core.preferences import Mix, mixed_pairs
from pat_core.progress import Progress
from pat_core.rewards import reference_free_reward
from pat_core.rounds import Base, Work, engine, standing_progress
from pat_core.rounds_rollouts import Question, Rollout, Writer, questions, roll_out, take_notes, trace_of, write_texts
from pat_core.types import ADAPTER_ROLES, Agent, Alternative, Completion, Prompt, Role

Taste = Callable[[str], float]
SHARES: Mapping[str, float] = {"generator": 0.8, "style": 0.08, "topic": 0.05}  # of the votes; the rest compares systems
MIN_PAIRS = 16  # an agent with fewer pairs is not trained: a round of two updates teaches it nothing that lasts
SPARE = 1.1  # questions asked over those needed, since some texts may not be shown
K_TEXTS = 6  # texts of one question, compared two by two, each once
BLIND = Plan(overlap=0, gold=0, swap=0, identical=0)
N_BOOTSTRAP = 4000


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done: ``votes`` by the annotator, held-out ``cases`` judged at the end, and how one round trains."""

    votes: int = 150
    cases: int = 80
    dpo: DPOSettings = DPOSettings(learning_rate=4e-4, epochs=1, precision="bfloat16")  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if self.votes < 20 or self.cases < 10:
            raise ValueError(f"{self.votes} votes and {self.cases} cases are too few to learn from and judge by; take at least 20 and 10")


@dataclass(frozen=True)
class Made:
    """Everything that can be voted on."""

    items: tuple[Item, ...]
    candidates: tuple[Candidate, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Case:
    """One held-out question as the taste judges it: what the starting model and the taught one wrote, in the same seed."""

    user_id: str
    before: str
    after: str


def load_taste(name: str) -> Taste:
    """The function that ``FILE.py:function`` names. ValueError, in a sentence, where there is none."""
    file, _, function = name.rpartition(":")
    if not (file.endswith(".py") and Path(file).is_file()):
        raise ValueError(f"{name!r} names no taste: give FILE.py:function, where the function takes a text and returns a number")
    spec = importlib.util.spec_from_file_location("taste", file)
    assert spec is not None and spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{file} has no function {function!r}; it has {', '.join(n for n in vars(module) if not n.startswith('_'))}")
    return found


def closed_loop(
    config: Config,
    base: Base,
    bench: Workbench,
    taste: Taste,
    name: str,
    seed: int = 0,
    size: Size = Size(),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Votes, one round, and the result as JSON values. What a killed run had written goes on being used by the next one.

    ``bench`` holds the engine with the starting adapters; it is closed before training, since both would not fit into a small memory.
    """
    started = time.monotonic()
    work = Work.of(config.home, "closed-loop", [bench.corpus.fingerprint, seed, size.votes, size.cases, base.adapter_names])
    asked = questions(bench, size.cases, seed, "choosing", "untouched")
    writer = Writer(bench.llm, progress)
    made = Made(*_made(work.once("pairs", lambda: _pairs(bench, writer, size, seed))))
    before = work.once("before", lambda: _outputs(writer, asked))
    close(bench.llm)
    seconds = {"texts": time.monotonic() - started}

    mine = work.folder / hashlib.sha256(f"{name} {[taste(c.text) for c in made.candidates]}".encode()).hexdigest()[:12]
    mine.mkdir(exist_ok=True)
    with _fresh_store(mine / "votes.db") as store:
        answers = vote(store, made, taste, seed)
        mix = mixed_pairs(*lessons(store), mode="human")
    trained, skipped = _train(config, base, mix, mine, size, seed, progress)
    seconds["training"] = time.monotonic() - started - sum(seconds.values())

    with engine(config, {**base.adapters, **{role: report["folder"] for role, report in trained.items()}}, progress) as taught:
        same = [b["summaries"] for b in before] if trained.keys() <= {"generator"} else None
        after = _outputs(Writer(taught, progress), asked, same)
    seconds["judging"] = time.monotonic() - started - sum(seconds.values())
    cases = [Case(q.query.user_id, b["text"], a["text"]) for q, b, a in zip(asked, before, after, strict=True)]
    return {
        "taste": name,
        "corpus": bench.corpus.name,
        "seed": seed,
        **judged(cases, taste, seed),
        "votes": dict(answers),
        "pairs": dict(Counter(p.agent for p in mix.pairs)),
        "dropped": mix.dropped,
        "not_trained": skipped,
        "trained": {role: {k: v for k, v in report.items() if k != "folder"} for role, report in trained.items()},
        "starting": dict(base.adapter_names),
        "settings": asdict(size),
        "seconds": {k: round(v) for k, v in seconds.items()},
        "examples": [asdict(c) for c in cases[:3]],
    }


def close(llm: object) -> None:
    """Ends the engine's process where it has one."""
    if hasattr(llm, "close"):
        llm.close()


def judged(cases: Sequence[Case], taste: Taste, seed: int = 0) -> dict[str, Any]:
    """The share of decisive cases in which the taste prefers the taught model, with its 95% bootstrap interval over users.

    ``low`` and ``high`` are 0 and 1 where no case is decisive.
    """
    gaps = [_number(taste, c.after) - _number(taste, c.before) for c in cases]
    decisive = [(c.user_id, float(gap > 0)) for c, gap in zip(cases, gaps, strict=True) if gap]
    by_user = {user: [w for u, w in decisive if u == user] for user in dict.fromkeys(u for u, _ in decisive)}
    wins = float(np.mean([w for _, w in decisive])) if decisive else 0.5
    low, high = _interval(list(by_user.values()), seed) if decisive else (0.0, 1.0)
    return {
        "win_rate": round(wins, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "n_decisive": len(decisive),
        "n_cases": len(cases),
        "n_users": len(by_user),
        "taste_before": _mean(taste(c.before) for c in cases),
        "taste_after": _mean(taste(c.after) for c in cases),
        "words_before": _mean(n_words(c.before) for c in cases),
        "words_after": _mean(n_words(c.after) for c in cases),
    }


def _interval(groups: Sequence[Sequence[float]], seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean over all values when groups are drawn again; a group's size comes with it."""
    sums, sizes = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
    draws = np.random.default_rng(seed).integers(len(groups), size=(N_BOOTSTRAP, len(groups)))
    low, high = np.percentile(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 4)


def _number(taste: Taste, text: str) -> float:
    value = taste(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the taste returned {value!r} for {text!r:.60}; it must return a finite number for every text")
    return float(value)


def _outputs(writer: Writer, asked: Sequence[Question], summaries: Sequence[Mapping[Agent, str]] | None = None) -> list[dict[str, Any]]:
    """One text for each question, written as for a visitor, with both summaries; these are given where their adapters are as before."""
    if summaries is None:
        notes = take_notes(writer, asked)
    else:
        notes = [{agent: Completion(agent, Prompt(()), text) for agent, text in s.items()} for s in summaries]
    written = write_texts(writer, asked, notes, 1, "Texts for people not voted on")
    return [
        {"text": texts[0].text, "summaries": {agent: c.text for agent, c in note.items()}}
        for texts, note in zip(written, notes, strict=True)
    ]


# What is voted on


def _pairs(bench: Workbench, writer: Writer, size: Size, seed: int) -> list[list[dict[str, Any]]]:
    """Items, candidates and pairs as JSON values: mostly the generator's, a few of each agent, the rest of two systems."""
    wanted = {role: round(share * size.votes) for role, share in SHARES.items()}
    asked = questions(bench, max(10, math.ceil(wanted["generator"] / (K_TEXTS // 2) * SPARE)), seed, "training")
    notes = take_notes(writer, asked)
    making = _Making(bench, random.Random(f"closed-loop-{seed}"))
    rolled = roll_out(writer, "generator", asked, notes, K_TEXTS)
    making.add("generator", rolled, wanted["generator"])
    for role in ("style", "topic"):
        n = math.ceil(1.4 * wanted[role])
        making.add(role, roll_out(writer, role, asked[:n], notes[:n], 2, n_texts=1) if n else [], wanted[role])
    making.add_systems(rolled, size.votes - len(making.pairs))
    making.add("generator", rolled, size.votes - len(making.pairs) + wanted["generator"])  # where others gave fewer than wanted
    if len(making.pairs) < size.votes:
        raise ValueError(f"{bench.corpus.name} gives {len(making.pairs)} pairs to vote on, not {size.votes}; ask for fewer votes")
    return [[asdict(noun) for noun in nouns.values()] for nouns in (making.items, making.candidates, making.pairs)]


def _made(rows: Sequence[Sequence[dict[str, Any]]]) -> tuple[tuple[Item, ...], tuple[Candidate, ...], tuple[Pair, ...]]:
    items, candidates, pairs = rows
    return tuple(Item(**v) for v in items), tuple(Candidate(**v) for v in candidates), tuple(Pair(**v) for v in pairs)


class _Making:
    """Pairs made so far, by id."""

    def __init__(self, bench: Workbench, rng: random.Random) -> None:
        self.bench, self.rng = bench, rng
        self.items: dict[str, Item] = {}
        self.candidates: dict[str, Candidate] = {}
        self.pairs: dict[str, Pair] = {}
        self.texts: set[frozenset[str]] = set()
        self.count: Counter[str] = Counter()

    def add(self, role: Role, rolled: Sequence[Rollout], wanted: int) -> None:
        """One-factor pairs until there are ``wanted`` of ``role``: of each rollout its most different texts, each text once."""
        for rollout in rolled:
            item = self._item(rollout.question)
            built = (guard(candidate_of(item, trace_of(rollout, i, self.bench.engine), role=role)) for i in self._written(rollout))
            shown = list({c.text: c for c in built if isinstance(c, Candidate)}.values())
            for a, b in sorted(itertools.combinations(shown, 2), key=lambda two: -difference(two[0].text, two[1].text)):
                if self.count[role] < wanted and a in shown and b in shown and self._keep(item, a, b, "one-factor", agent=role):
                    self.count[role] += 1
                    shown = [c for c in shown if c is not a and c is not b]

    def add_systems(self, rolled: Sequence[Rollout], wanted: int) -> None:
        """PaT's text against the copy of the neighbors, which needs no model."""
        for rollout in rolled:
            q, item = rollout.question, self._item(rollout.question)
            text, context = copied_text(q.query, q.evidence.topic_neighbors), q.evidence.context
            copied = Alternative("copy", text, reference_free_reward(text, context), copy_rate(text, context.retrieved_texts))
            trace = trace_of(rollout, 0, self.bench.engine)
            two = [guard(candidate_of(item, trace)), guard(alternative_of(item, trace, copied))] if trace.output else []
            if self.count["system"] < wanted and len(two) == 2 and all(isinstance(c, Candidate) for c in two):
                self.count["system"] += self._keep(item, two[0], two[1], "system")

    def _written(self, rollout: Rollout) -> list[int]:
        return [i for i, cell in enumerate(rollout.texts) if cell[0].text]

    def _item(self, question: Question) -> Item:
        return item_of(question.query, question.evidence.style_neighbors, source=self.bench.corpus.name, split="train")

    def _keep(self, item: Item, a: Candidate, b: Candidate, kind: str, **details: Any) -> bool:
        pair = pair_of(a, b, kind, origin="closed loop", **details)
        two = frozenset((pair.lo_sha, pair.hi_sha))
        if len(two) < 2 or two in self.texts:  # a store holds the same two texts once
            return False
        self.texts.add(two)
        self.items[item.item_id] = item
        self.candidates |= {c.candidate_id: c for c in (a, b)}
        self.pairs[pair.pair_id] = pair
        return True


# Voting


def _fresh_store(path: Path) -> Store:
    """An empty store: the votes of a run that was killed are cast again, which takes seconds."""
    for leftover in path.parent.glob(f"{path.name}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return open_store(path)


def vote(store: Store, made: Made, taste: Taste, seed: int) -> Counter[str]:
    """The annotator judges every pair in the schedule's order: the text with more taste, a tie where both have as much."""
    store.add_pairs(made.pairs, made.candidates, made.items)
    rng = random.Random(f"annotator-{seed}")  # ids decide on order and sides, so the same seed has to give the same ones
    me = store.add_annotator(Annotator(_id(rng), "simulated taste")).annotator_id
    texts = {c.candidate_id: c for c in made.candidates}
    pool = Pool.of(made.pairs, {id_: c.system for id_, c in texts.items()}, f"closed-loop-{seed}")
    assigned: list[Assignment] = []
    answered: dict[str, Judgment] = {}
    loads = {load.pair_id: load for load in store.loads()}
    while (offer := next_offer(me, pool=pool, loads=loads, assigned=assigned, judged=answered, plan=BLIND)) is not None:
        pair = offer.pair
        shown = store.lease(Assignment(pair.pair_id, me, offer.shown_left_id, offer.order_key, offer.propensity))
        assert shown is not None, "nobody else takes part"
        right_id = pair.hi_id if shown.shown_left_id == pair.lo_id else pair.lo_id
        gap = _number(taste, texts[shown.shown_left_id].text) - _number(taste, texts[right_id].text)
        outcome = "A" if gap > 0 else "B" if gap < 0 else "tie"
        judgment = Judgment(_id(rng), pair.pair_id, me, shown.shown_left_id, shown.order_key, outcome, input_kind="api")
        answered[pair.pair_id] = store.record_judgment(judgment)
        assigned.append(shown)
    return Counter(j.outcome for j in answered.values())


def _id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


# Learning


def _train(
    config: Config, base: Base, mix: Mix, folder: Path, size: Size, seed: int, progress: Progress | None
) -> tuple[dict[Role, dict[str, Any]], dict[str, str]]:
    """One round for every role with pairs enough: what came of it by role, and why others were left as they are."""
    trained: dict[Role, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    enough = max(2, min(MIN_PAIRS, size.votes // 5))
    for role in ADAPTER_ROLES:
        pairs = [p for p in mix.pairs if p.agent == role]
        if len(pairs) < enough:
            skipped[role] = f"{len(pairs)} pairs with a winner, fewer than {enough}"
            continue
        report = train_preferences(
            base.folder,
            base.adapters.get(role),
            pairs,
            folder / role,
            replace(size.dpo, seed=seed),
            device=config.device,
            threads=config.threads,
            progress=standing_progress(f"Training the {role}", progress),
        )
        weights = (report.adapter / "adapter_model.safetensors").read_bytes()
        last = report.metrics()
        curve = [{k: round(v, 4) for k, v in point.items()} for point in last.pop("curve")]
        trained[role] = {"folder": report.adapter, "sha256": hashlib.sha256(weights).hexdigest(), **last, "curve": curve}
    return trained, skipped


def as_text(result: Mapping[str, Any]) -> str:
    """The result for a terminal."""
    pairs = ", ".join(f"{n} {agent}" for agent, n in result["pairs"].items())
    lines = [
        f"Taste {result['taste']} on {result['corpus']}, seed {result['seed']}: {sum(result['votes'].values())} votes, {pairs} pairs.",
        f"Preferred in {result['win_rate']:.0%} [{result['low']:.0%}, {result['high']:.0%}] of {result['n_decisive']} decisive cases "
        f"by {result['n_users']} people nobody voted on ({result['n_cases']} cases).",
        f"Taste {result['taste_before']:+.2f} -> {result['taste_after']:+.2f}, "
        f"words {result['words_before']:.0f} -> {result['words_after']:.0f}.",
    ]
    lines += [f"{role} was not trained: {why}." for role, why in result["not_trained"].items()]
    lines.append("Seconds: " + ", ".join(f"{name} {n}" for name, n in result["seconds"].items()))
    return "\n".join(lines)
