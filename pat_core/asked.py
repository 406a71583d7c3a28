"""What a case is answered from: everything that some system may read, retrieved once for all of them.

PaT reads what its own retrieval finds (``pipeline``); the rivals read the person's other reviews and other people's reviews of the topic,
ranked by BM25 as in their own code. The control reads the style side of another user. Leaves out prompts (``systems``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pat_core.benchmark import Case, Task
from pat_core.bm25 import BM25
from pat_core.cues import cue_phrases, tone
from pat_core.pipeline import MAX_WORDS, Evidence, Workbench
from pat_core.progress import Progress
from pat_core.prompts import StyleFacts
from pat_core.rounds_rollouts import OPTIONS, Question
from pat_core.stylometry import words_of
from pat_core.types import Preference, Query, Review

SHOWN_CHARACTERS = 300  # of the person's own text as a question to the topic search
K1 = 1.5  # of BM25, as in the rivals' own code


@dataclass(frozen=True)
class Asked:
    """A case and everything that was retrieved for it.

    ``own`` are the person's other reviews, ``others`` other people's reviews of the topic, both best first by BM25; ``stranger`` is the
    question with the style side of another user, None where nobody asks for it.
    """

    case: Case
    question: Question
    own: tuple[Review, ...]
    others: tuple[Review, ...]
    by_chance: Review
    stranger: Question | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Every text that some system may have read for this case."""
        texts = [*self.question.evidence.context.retrieved_texts, *self.question.query.samples, *(r.text for r in self.others)]
        return tuple(dict.fromkeys(texts))


def gather(
    bench: Workbench, cases: Sequence[Case], k: int, seed: int, strangers: Sequence[Case] = (), progress: Progress | None = None
) -> list[Asked]:
    """What retrieval gives for each case: ``k`` topic neighbors, and as many texts for the rivals that paste them in.

    The wrong user of a case is one of ``strangers``; without any there is none.
    """
    found = []
    for n, case in enumerate(cases, 1):
        query = case.query
        others = [r for r in bench.corpus.by_topic.get(query.topic_id, ()) if r.user_id != case.target.user_id]
        found.append(
            Asked(
                case=case,
                question=Question(query, case.reference, _evidence(bench, case, k)),
                own=tuple(_by_bm25(_search_words(case), query.history)[:k]),
                others=tuple(_by_bm25(_search_words(case), others)[:k]),
                by_chance=_by_chance(bench, case, seed),
            )
        )
        if progress:
            progress("Retrieving", n, len(cases))
    known = {a.case.case_id: a.question for a in found}
    return [replace(a, stranger=_stranger(bench, a, strangers, known, k, seed)) for a in found] if strangers else found


def _evidence(bench: Workbench, case: Case, k: int) -> Evidence:
    query = case.query
    if case.task == "long":
        return bench.gather(query, replace(OPTIONS, k_topic=k, max_words=MAX_WORDS))
    writes_so = replace(query, preferences=(Preference("sample", case.shown),)) if case.task == "short" else query
    style = bench.style_graph.neighbors(writes_so, OPTIONS.k_style)
    topic = bench.topic_search.neighbors(replace(query, title=f"{query.title} {case.shown[:SHOWN_CHARACTERS]}".strip()), k)
    return _for_task(bench, case.task, query, bench.evidence(query, style, topic, MAX_WORDS))


def _for_task(bench: Workbench, task: Task, query: Query, evidence: Evidence) -> Evidence:
    """Where a title is asked for, style is that of titles: the person's own, or those of the style neighbors."""
    titles = [r.title for r in query.history] or [n.review.title for n in evidence.style_neighbors]
    titles = [t for t in titles if words_of(t)]
    if task != "short" or not titles:
        return evidence
    style = StyleFacts(cue_phrases(titles), tone(titles), tuple(titles[:2]), query.statements)
    return replace(evidence, facts=replace(evidence.facts, style=style))


def _stranger(bench: Workbench, asked: Asked, others: Sequence[Case], known: dict[str, Question], k: int, seed: int) -> Question:
    """The question with style neighbors, own texts and preferences of another user, one with as much history where there is one.

    ``known`` are the questions retrieved for so far, which are taken first; it grows. ValueError where nobody will do.
    """
    case, mine = asked.case, asked.question
    able = [o for o in others if _is_stranger(o, case)]
    if not able:
        user = case.target.user_id
        raise ValueError(f"nobody else is asked about another topic, so user {user!r} has no wrong user; leave pat-wrong-user out")
    alike = [o for o in able if o.group == case.group] or able
    near = [o for o in alike if o.case_id in known] or alike
    other = random.Random(f"stranger-{seed}-{case.case_id}").choice(near)
    if other.case_id not in known:
        known[other.case_id] = Question(other.query, other.reference, _evidence(bench, other, k))
    theirs = known[other.case_id]
    query = replace(mine.query, history=theirs.query.history, preferences=theirs.query.preferences)
    style = tuple(n for n in theirs.evidence.style_neighbors if n.review.user_id != case.target.user_id)
    evidence = bench.evidence(query, style, mine.evidence.topic_neighbors, MAX_WORDS)
    evidence = replace(evidence, context=replace(evidence.context, target_phi=theirs.evidence.context.target_phi))
    return Question(query, mine.reference, _for_task(bench, case.task, query, evidence))


def _is_stranger(other: Case, case: Case) -> bool:
    """Whether it is another user, asked about another topic than this one and with nothing of theirs about it."""
    topic = case.query.topic_id
    about = {other.query.topic_id, *(r.topic_id for r in other.query.history)}
    return other.target.user_id != case.target.user_id and topic not in about


def _by_chance(bench: Workbench, case: Case, seed: int) -> Review:
    """Somebody else's review, of any topic, that has what the task asks for."""
    needed = {"long": lambda r: r.text, "short": lambda r: r.title, "rating": lambda r: r.rating is not None}[case.task]
    able = [r for r in bench.corpus.reviews if r.user_id != case.target.user_id and needed(r)]
    if not able:
        raise ValueError(f"{bench.corpus.name} has one user only once {case.target.user_id!r} is held out; nothing can be compared")
    return random.Random(f"chance-{seed}-{case.case_id}").choice(able)


def _search_words(case: Case) -> list[str]:
    return words_of(f"{case.query.title} {case.shown}")


def _by_bm25(asked: Sequence[str], reviews: Sequence[Review]) -> list[Review]:
    """``reviews`` by BM25 of their title and text, best first, in their order where equal."""
    if not reviews:
        return []
    scores = BM25([words_of(f"{r.title} {r.text}") for r in reviews], K1).scores(asked)
    return [reviews[i] for i in np.argsort(-scores, kind="stable")]
