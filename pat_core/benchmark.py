"""The protocol of the evaluation: who is asked what, which reviews are taken out of the corpus first, and the check that nothing leaked.

As in PGraphRAG (arXiv 2501.02157): a user's first review is the target, and what others wrote on its topic may be read. Beyond it, the
targets of everybody who is asked are taken out before a style graph is trained or an index is built, and every prompt is compared with the
target that it is for. Leaves out who answers (``systems``).
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import numpy as np

from pat_core.cleaning import REPEAT_WORDS, same_words
from pat_core.corpus import Corpus, benchmark_target, hold_out, part_of
from pat_core.stylometry import words_of
from pat_core.types import Preference, Prompt, Query, Review

T = TypeVar("T")
Task = Literal["long", "short", "rating"]
TASKS: tuple[Task, ...] = get_args(Task)
GROUPS = ("0", "1", "2+")  # reviews besides the target
VISITORS = "visitors"
VISITOR_SAMPLES = 3
FOLD_SHARE = 0.2  # of a corpus that is taken out at once: what is left still looks like it
RUN = 8  # words in a row that two people do not write by chance
SHORTEST_TARGET = 3  # words: one or two stand in many prompts by chance


@dataclass(frozen=True, slots=True)
class Case:
    """A review held out and the question to which it is the answer: its text, its title or its rating, by ``task``."""

    target: Review
    query: Query
    group: str
    task: Task = "long"

    @property
    def case_id(self) -> str:
        return f"{self.target.review_id}@visitor" if self.group == VISITORS else self.target.review_id

    @property
    def reference(self) -> str:
        """What the person really wrote or gave."""
        if self.task == "rating":
            return f"{self.target.rating:g}"
        return self.target.text if self.task == "long" else self.target.title

    @property
    def shown(self) -> str:
        """The person's own text where the task shows it, '' where it is what has to be written."""
        return "" if self.task == "long" else self.target.text


class LeakError(ValueError):
    """What is to be written was found in what is shown."""


def held_out_cases(corpus: Corpus, limit: int | None = None, seed: int = 0) -> list[Case]:
    """A case for each user whose topic somebody else reviewed too, in random order; at most ``limit``."""
    cases = []
    for user_id in corpus.by_user:
        target = benchmark_target(corpus, user_id)
        if target is not None and has_company(corpus, target):
            cases.append(Case(target, hold_out(corpus, target, seed=seed), history_group(corpus, user_id)))
    return shuffled(cases, limit, seed)


def benchmark_cases(
    corpus: Corpus, task: Task = "long", part: str = "all", history: str = "all", limit: int | None = None, seed: int = 0
) -> list[Case]:
    """At most ``limit`` cases for ``task``, users in random order, of a part of the people and a history size ('all' for any).

    ``part`` may name two with a plus between them; ``history`` "1+" is "1" and "2+". Users whose answers would leave each other alone
    on a topic come last. ValueError where there is none.
    """
    groups = {"all": GROUPS, "1+": GROUPS[1:]}.get(history, (history,))
    targets = []
    for user_id in corpus.by_user:
        wanted = (part == "all" or part_of(user_id) in part.split("+")) and history_group(corpus, user_id) in groups
        target = benchmark_target(corpus, user_id) if wanted else None
        if target is not None and _can_be_asked(target, task) and has_company(corpus, target):
            targets.append(target)
    if not targets:
        raise ValueError(_nobody(corpus, task, part, history))
    chosen = _company_first(corpus, shuffled(targets, None, seed))[:limit]
    copies = _copies(corpus)
    return [_case(corpus, target, task, seed, copies) for target in chosen]


def visitor_cases(corpus: Corpus, cases: Iterable[Case], seed: int = 0) -> list[Case]:
    """Those of ``cases`` that have a history, asked as visitors who enter up to three of their other texts and are not known otherwise."""
    found = []
    for case in cases:
        if case.query.history:
            own = random.Random(f"{seed}-{case.case_id}").sample(case.query.history, min(VISITOR_SAMPLES, len(case.query.history)))
            everything = frozenset(r.review_id for r in corpus.by_user[case.target.user_id])
            samples = tuple(Preference("sample", r.text, r.rating) for r in own)
            query = replace(case.query, user_id="", history=(), preferences=samples, held_out=case.query.held_out | everything)
            found.append(replace(case, query=query, group=VISITORS))
    return found


def folds(corpus: Corpus, cases: Sequence[Case]) -> list[list[Case]]:
    """The cases in as few sets as take out at most about ``FOLD_SHARE`` of the corpus each and leave every topic asked about a reader."""
    room = max(1, int(len(corpus.reviews) * FOLD_SHARE))
    room = -(-len(cases) // -(-len(cases) // room))
    made: list[list[Case]] = []
    gone: list[set[str]] = []
    for case in cases:
        for fold, taken in zip(made, gone, strict=True):
            if len(fold) < room and _leaves_company(corpus, case.target, [c.target for c in fold], taken | case.query.held_out):
                break
        else:
            fold, taken = [], set()
            made.append(fold)
            gone.append(taken)
        fold.append(case)
        taken |= case.query.held_out
    return made


def without_targets(corpus: Corpus, cases: Iterable[Case]) -> Corpus:
    """The corpus without the targets of ``cases`` and every text with the same words. LeakError where one is left."""
    cases = list(cases)
    rest = corpus.without(frozenset().union(*(_taken_out(case) for case in cases)))
    wanted = {words: case for case in cases if (words := same_words(case.target.text)) and len(words.split()) >= REPEAT_WORDS}
    for review in rest.reviews:
        if (case := wanted.get(same_words(review.text))) is not None:
            raise LeakError(
                f"the text of user {case.target.user_id!r} that is held out stands in the corpus as review {review.review_id!r}"
            )
    return rest


def history_group(corpus: Corpus, user_id: str) -> str:
    """How many reviews a user wrote besides the target: "0", "1" or "2+"."""
    n = len(corpus.by_user[user_id]) - 1
    return str(n) if n < 2 else "2+"


def has_company(corpus: Corpus, target: Review) -> bool:
    """Whether somebody else reviewed the topic too."""
    return any(r.user_id != target.user_id for r in corpus.by_topic[target.topic_id])


def shuffled(cases: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """At most ``limit`` of them in the random order of ``seed``."""
    order = np.random.default_rng(seed).permutation(len(cases))[:limit]
    return [cases[i] for i in order]


class LeakGuard:
    """Knows for each case which runs of words of its target nobody else wrote, and looks for them in prompts.

    A run is ``RUN`` words, or the whole target where that has fewer; targets below ``SHORTEST_TARGET`` words are not looked for.
    """

    def __init__(self, cases: Iterable[Case], visible: Corpus) -> None:
        """``visible`` is what may be shown: a run that also stands in it is no leak."""
        cases = list(cases)
        own = {case.case_id: set(_target_runs(_hidden_text(case))) - _runs_of(_own_words(case)) for case in cases}
        wanted = set().union(*own.values()) if own else set()
        seen: set[tuple[str, ...]] = set()
        for review in visible.reviews:
            for text in (review.text, review.title):
                seen.update(run for run in _runs(words_of(text)) if run in wanted)
        self._hidden = {case_id: frozenset(runs - seen) for case_id, runs in own.items()}

    def check(self, case: Case, system: str, prompt: Prompt, written: Iterable[str] = ()) -> None:
        """LeakError naming user and system where the prompt holds a run of the target; ``written`` are texts in it that a model wrote."""
        hidden = self._hidden[case.case_id]
        if not hidden:
            return
        shown = {run for _, text in prompt.messages for run in _runs(words_of(text))} | set(_runs(words_of(prompt.prefix)))
        leaked = (shown & hidden) - _runs_of(written)
        if leaked:
            words = " ".join(max(leaked, key=len))
            raise LeakError(
                f"a prompt of {system} for user {case.target.user_id!r} holds {words!r}, which only the held-out answer has"
            )


def _can_be_asked(target: Review, task: Task) -> bool:
    return bool({"long": words_of(target.text), "short": words_of(target.title), "rating": target.rating is not None}[task])


def _nobody(corpus: Corpus, task: Task, part: str, history: str) -> str:
    needed = {"long": "words in it", "short": "a title", "rating": "a rating"}[task]
    narrowed = "".join(f" with --{name} {value}" for name, value in (("part", part), ("history", history)) if value != "all")
    users = len(corpus.by_user)
    return (
        f"{corpus.name} ({users:,} user{'' if users == 1 else 's'}) has nobody who can be held out{narrowed} for the task {task}: it "
        f"takes a user's first review with {needed} and somebody else's review of the same topic"
    )


def _case(corpus: Corpus, target: Review, task: Task, seed: int, copies: dict[str, list[str]]) -> Case:
    number = int.from_bytes(hashlib.sha256(f"{seed}-{target.review_id}".encode()).digest()[:4]) % 1_000_000
    query = hold_out(corpus, target, seed=number)
    held_out = query.held_out.union(copies.get(same_words(target.text), ()))
    history = tuple(r for r in query.history if r.review_id not in held_out)
    query = replace(query, held_out=held_out, history=history)
    if task == "short":
        query = replace(query, title="")
    elif task == "rating":
        query = replace(query, rating=None)
    return Case(target, query, history_group(corpus, target.user_id), task)


def _copies(corpus: Corpus) -> dict[str, list[str]]:
    """Words of a text -> the reviews that consist of them, for texts long enough not to agree by chance."""
    found: dict[str, list[str]] = defaultdict(list)
    for review in corpus.reviews:
        words = same_words(review.text)
        if len(words.split()) >= REPEAT_WORDS:
            found[words].append(review.review_id)
    return found


def _taken_out(case: Case) -> frozenset[str]:
    """The target and its copies; a visitor's other reviews stay for other people to read."""
    return case.query.held_out if case.group != VISITORS else frozenset({case.target.review_id})


def _company_first(corpus: Corpus, targets: Sequence[Review]) -> list[Review]:
    """The targets in their order, those last that together with earlier ones would leave somebody alone on a topic."""
    asked: dict[str, list[Review]] = defaultdict(list)
    late = []
    for target in targets:
        before = asked[target.topic_id]
        if _leaves_company(corpus, target, before, {r.review_id for r in before} | {target.review_id}):
            before.append(target)
        else:
            late.append(target)
    postponed = {r.review_id for r in late}
    return [t for t in targets if t.review_id not in postponed] + late


def _leaves_company(corpus: Corpus, target: Review, others: Iterable[Review], gone: Collection[str]) -> bool:
    """Whether without ``gone`` the topic of ``target`` keeps a review by somebody else for the target's user and for the others asked."""
    left = {r.user_id for r in corpus.by_topic[target.topic_id] if r.review_id not in gone}
    return all(left - {r.user_id} for r in (target, *others) if r.topic_id == target.topic_id)


def _hidden_text(case: Case) -> str:
    return "" if case.task == "rating" else case.reference


def _own_words(case: Case) -> tuple[str, ...]:
    """What the question itself says."""
    query = case.query
    return (query.title, query.topic, case.shown, *query.samples, *query.statements, *(r.title for r in query.history))


def _target_runs(text: str) -> Iterator[tuple[str, ...]]:
    words = words_of(text)
    if len(words) >= SHORTEST_TARGET:
        yield from _windows(words, min(RUN, len(words)))


def _runs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every run that a target can consist of."""
    for size in range(SHORTEST_TARGET, RUN + 1):
        yield from _windows(words, size)


def _runs_of(texts: Iterable[str]) -> set[tuple[str, ...]]:
    return {run for text in texts for run in _runs(words_of(text))}


def _windows(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + size]) for i in range(len(words) - size + 1))
