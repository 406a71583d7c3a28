"""Every system of the evaluation: data and a function that answers many cases at once.

All language systems share one model, one temperature, one number of drafts and one length for each question; they differ in what the
prompt shows, in what they may know when they choose among their drafts, and without an adapter in the penalty on repetition that each
kind writes best with. Leaves out what answers are worth (``scoring``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pat_core import pipeline
from pat_core.asked import Asked
from pat_core.benchmark import VISITORS, Case, Task
from pat_core.desk import Answer, Desk, Pick, Untrained, full_length, take_notes, write_drafts
from pat_core.llm.types import LLM, Request
from pat_core.pipeline import QUOTE_TOKENS, TEXT_SAMPLING, copied_text
from pat_core.prompts import (
    both_messages,
    example_section,
    generator_messages,
    lamp_messages,
    note_sections,
    pgraphrag_messages,
    rating_messages,
    title_messages,
)
from pat_core.rewards import choose, most_typical
from pat_core.rounds_rollouts import OPTIONS, Question, text_request
from pat_core.types import Review

Kind = Literal["ours", "ablation", "control", "rival", "baseline", "reference"]
ALL_TASKS: tuple[Task, ...] = ("long", "short", "rating")
SHOWN_TOKENS = 160  # of the person's own text, in the tasks that show it
ANSWER_TOKENS = {"short": 24, "rating": 3}
NO_RATING = 3.0  # for an answer without a number: the middle of the scale


def rating_of(text: str) -> float:
    """The rating that an answer names, from 1 to 5; ``NO_RATING`` where it names none."""
    return next((float(c) for c in text if c in "12345"), NO_RATING)


def most_frequent(texts: Sequence[str]) -> int:
    """The draft whose rating most drafts give, the first of equal ones."""
    votes = Counter(rating_of(t) for t in texts)
    return max(range(len(texts)), key=lambda i: votes[rating_of(texts[i])])


def _short_request(llm: LLM, asked: Asked, sections: Sequence[str]) -> Request:
    """The request of a title or a rating; ``sections`` are what a system shows beside the text, all else is the same for every system."""
    case = asked.case
    messages = title_messages if case.task == "short" else rating_messages
    return Request(
        key="",
        prompt=llm.prompt(messages(case.query, llm.truncate(case.shown, SHOWN_TOKENS), sections)),
        sampling=replace(TEXT_SAMPLING, temperature=OPTIONS.temperature),
        seed=case.query.seed,
        max_new_tokens=ANSWER_TOKENS[case.task],
        min_new_tokens=1,
        stop=("\n",),
    )


# The systems, in reading order


def write_random(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return [Answer(Case(a.by_chance, a.case.query, "", a.case.task).reference) for a in asked]


def write_title(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return [Answer(a.case.query.title) for a in asked]


def write_copy_60(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return [Answer(copied_text(a.case.query, a.question.evidence.topic_neighbors, 60)) for a in asked]


def write_copy_100(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return [Answer(copied_text(a.case.query, a.question.evidence.topic_neighbors, 100)) for a in asked]


def write_topic_mean(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return [Answer(f"{_mean_rating(a.others):g}") for a in asked]


def _mean_rating(reviews: Sequence[Review]) -> float:
    rated = [r.rating for r in reviews if r.rating is not None]
    return round(float(np.mean(rated)), 3) if rated else NO_RATING


def write_none(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _rival(desk, "none", asked, lambda a: (), lambda a: ())


def write_lamp(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _rival(desk, "lamp", asked, lambda a: a.own, lambda a: ())


def write_pgraphrag(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _rival(desk, "pgraphrag", asked, lambda a: (), lambda a: a.others)


def write_pgraphrag_both(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _rival(desk, "pgraphrag-both", asked, lambda a: a.own, lambda a: a.others)


Shows = Callable[[Asked], Sequence[Review]]


def _rival(desk: Desk, system: str, asked: Sequence[Asked], own: Shows, others: Shows) -> list[Answer]:
    """A text from raw reviews in the prompt, by the base model; the drafts decide among themselves."""
    firsts = [_rival_request(desk.llm, a, own(a), others(a)) for a in asked]
    pick = most_frequent if asked[0].case.task == "rating" else most_typical
    return write_drafts(desk, system, asked, firsts, [pick] * len(asked))


def _rival_request(llm: LLM, asked: Asked, own: Sequence[Review], others: Sequence[Review]) -> Request:
    case = asked.case
    if case.task != "long":
        shown = [("The same person", r, "lamp") for r in own] + [("Another person", r, "pgraphrag") for r in others]
        answered = [(who, llm.truncate(r.text, QUOTE_TOKENS[kind]), _answer(case, r)) for who, r, kind in shown]
        return _short_request(llm, asked, [example_section(*parts) for parts in answered if parts[-1]])
    mine = [llm.truncate(r.text, QUOTE_TOKENS["lamp"]) for r in own]
    theirs = [(r.rating, llm.truncate(r.text, QUOTE_TOKENS["pgraphrag"])) for r in others]
    if mine and theirs:
        messages = both_messages(case.query, mine, theirs)
    elif theirs:
        messages = pgraphrag_messages(case.query, theirs)
    else:
        messages = lamp_messages(case.query, mine) if mine else generator_messages(case.query)
    words = asked.question.evidence.context.target_words
    return full_length(pipeline.text_request(llm, "", messages, "base", words, OPTIONS.temperature, case.query.seed), asked.question)


def _answer(case: Case, review: Review) -> str:
    return "" if case.task == "rating" and review.rating is None else Case(review, case.query, "", case.task).reference


def write_pat(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _pat(desk, "pat", asked, [a.question for a in asked])


def write_pat_zero(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _pat(desk, "pat-zero", asked, [a.question for a in asked], llm=Untrained(desk.llm))


def write_pat_style_only(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _pat(desk, "pat-style-only", asked, [_without_topic(a.question) for a in asked], topic=False)


def write_pat_topic_only(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _pat(desk, "pat-topic-only", asked, [_without_style(a.question) for a in asked], style=False)


def write_pat_neither(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    """The trained generator without notes; its drafts decide among themselves."""
    firsts = [_pat_request(desk.llm, a, a.question, "", "") for a in asked]
    pick = most_frequent if asked[0].case.task == "rating" else most_typical
    return write_drafts(desk, "pat-neither", asked, firsts, [pick] * len(asked))


def write_pat_wrong_user(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return _pat(desk, "pat-wrong-user", asked, [a.stranger for a in asked if a.stranger])


def write_reference(desk: Desk, asked: Sequence[Asked]) -> list[Answer]:
    return [Answer(a.case.reference) for a in asked]


def _pat(
    desk: Desk,
    system: str,
    asked: Sequence[Asked],
    questions: Sequence[Question],
    *,
    style: bool = True,
    topic: bool = True,
    llm: LLM | None = None,
) -> list[Answer]:
    """Notes, then drafts from them, then the draft with the highest reward without a reference."""
    llm = llm or desk.llm
    notes = take_notes(desk, system, asked, questions, llm)
    notes = [n.only(style, topic) for n in notes]
    firsts = [_pat_request(llm, a, q, n.style, n.topic) for a, q, n in zip(asked, questions, notes, strict=True)]
    return write_drafts(desk, system, asked, firsts, [_pick(a, q) for a, q in zip(asked, questions, strict=True)], notes, llm)


def _pat_request(llm: LLM, asked: Asked, question: Question, style: str, topic: str) -> Request:
    """The request of the text; a title or a rating is asked of the base model, since the generator's adapter writes reviews."""
    if asked.case.task == "long":
        return full_length(text_request(llm, question, style, topic, "", 0), question)
    return _short_request(llm, asked, note_sections(style, topic))


def _pick(asked: Asked, question: Question) -> Pick:
    if asked.case.task == "long":
        return lambda texts: choose(texts, question.evidence.context)[0]
    return most_frequent if asked.case.task == "rating" else most_typical


def _without_topic(question: Question) -> Question:
    """The reward that chooses knows no topic neighbors; what is asked of the agents stays."""
    context = replace(question.evidence.context, topic_texts=())
    return replace(question, evidence=replace(question.evidence, context=context))


def _without_style(question: Question) -> Question:
    """The reward that chooses knows no style; what is asked of the agents, and the length, stay."""
    context = question.evidence.context
    return replace(question, evidence=replace(question.evidence, context=replace(context, target_phi=np.zeros_like(context.target_phi))))


@dataclass(frozen=True)
class System:
    """A system as data: ``answer`` takes cases of one task, one of ``tasks``."""

    name: str
    label: str
    kind: Kind
    answer: Callable[[Desk, Sequence[Asked]], list[Answer]]
    description: str
    tasks: tuple[Task, ...] = ALL_TASKS


SYSTEMS: dict[str, System] = {
    s.name: s
    for s in (
        System("none", "No retrieval", "rival", write_none, "The base model sees the title and the stars, nothing else."),
        System("random", "Random review", "baseline", write_random, "Another person's review of anything, taken at random."),
        System("title", "Title alone", "baseline", write_title, "The title and nothing more.", ("long",)),
        System(
            "copy-60",
            "Copy, 60 words",
            "baseline",
            write_copy_60,
            "The title and the topic neighbors' reviews, cut to 60 words.",
            ("long",),
        ),
        System(
            "copy-100",
            "Copy, 100 words",
            "baseline",
            write_copy_100,
            "The title and the topic neighbors' reviews, cut to 100 words.",
            ("long",),
        ),
        System(
            "topic-mean",
            "Mean of the topic",
            "baseline",
            write_topic_mean,
            "The mean of the ratings that the topic neighbors gave.",
            ("rating",),
        ),
        System(
            "lamp",
            "LaMP",
            "rival",
            write_lamp,
            "The base model sees the person's own other texts; without any it is the same as no retrieval.",
        ),
        System("pgraphrag", "PGraphRAG", "rival", write_pgraphrag, "The base model sees what others wrote on the same topic."),
        System(
            "pgraphrag-both",
            "PGraphRAG, both",
            "rival",
            write_pgraphrag_both,
            "The base model sees the person's own texts and what others wrote.",
        ),
        System("pat-zero", "PaT, untrained", "ablation", write_pat_zero, "PaT with the base model in every role."),
        System(
            "pat", "PaT", "ours", write_pat, "Two trained agents write notes on style and topic, the trained generator writes from them."
        ),
        System("pat-style-only", "PaT, style only", "ablation", write_pat_style_only, "PaT without what the topic neighbors say."),
        System(
            "pat-topic-only",
            "PaT, topic only",
            "ablation",
            write_pat_topic_only,
            "PaT without what is known of the person's style, but for the length.",
        ),
        System(
            "pat-neither",
            "PaT, no notes",
            "ablation",
            write_pat_neither,
            "The trained generator without any notes: what training alone gives.",
        ),
        System(
            "pat-wrong-user", "PaT, wrong user", "control", write_pat_wrong_user, "PaT with another user's style neighbors and own texts."
        ),
        System("reference", "The person's own", "reference", write_reference, "What the person really wrote: the end of every scale."),
    )
}


def systems_for(task: Task, names: Sequence[str] | None = None) -> tuple[System, ...]:
    """The systems named, or all that can do ``task``, in reading order. ValueError for an unknown name and for one that cannot."""
    if names is None:
        return tuple(s for s in SYSTEMS.values() if task in s.tasks)
    for name in names:
        if name not in SYSTEMS:
            raise ValueError(f"no system is called {name!r}; choose from {', '.join(SYSTEMS)}")
        if task not in SYSTEMS[name].tasks:
            able = ", ".join(s.name for s in SYSTEMS.values() if task in s.tasks)
            raise ValueError(f"the system {name} does not apply to the task {task}; choose from {able}")
    if not names:
        raise ValueError(f"no system is named; choose from {', '.join(SYSTEMS)}")
    return tuple(s for s in SYSTEMS.values() if s.name in names)


def asked_of(system: System, case: Case) -> bool:
    """Whether a case is for this system: visitors are asked only to compare PaT with the wrong user's."""
    return case.group != VISITORS or system.name in ("pat", "pat-wrong-user")
