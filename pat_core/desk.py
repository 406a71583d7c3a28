"""Where answers are written: large batches by one model, every prompt checked, equal requests written once, time and tokens kept.

Leaves out which prompts there are and who they belong to (``systems``).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pat_core.agents import is_settled, round_requests
from pat_core.asked import Asked
from pat_core.benchmark import LeakGuard
from pat_core.llm.types import LLM, Event, Request
from pat_core.rounds_rollouts import Question, Writer, text_request
from pat_core.types import AGENTS, Completion, Prompt, Role, Round

MIN_TOKENS = 0.9  # for each word asked for: about seven tenths of the length


@dataclass(frozen=True, slots=True)
class Written:
    """A completion and its share of the seconds that its batch took."""

    completion: Completion
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """A request for a case; ``written`` are the texts by a model that its prompt holds."""

    asked: Asked
    request: Request
    written: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notes:
    """Both agents' summaries for one case with all that they cost, drafts between the rounds included."""

    style: str
    topic: str
    cost: tuple[Written, ...]

    def only(self, style: bool, topic: bool) -> Notes:
        """The notes of the agents that are wanted, and what those cost."""
        gone = [agent for agent, wanted in (("style", style), ("topic", topic)) if not wanted]
        cost = tuple(w for w in self.cost if w.completion.role not in gone)
        return Notes(self.style if style else "", self.topic if topic else "", cost)


@dataclass(frozen=True)
class Answer:
    """What a system says to one case. ``prompt`` is that of the text, None without a model; ``drafts`` are all that were written,
    ``seconds`` and ``tokens`` what they and the notes cost."""

    text: str
    prompt: Prompt | None = None
    adapter: str = ""
    seconds: float = 0.0
    tokens: int = 0
    drafts: tuple[str, ...] = ()
    style_summary: str = ""
    topic_summary: str = ""

    @property
    def prompt_sha256(self) -> str:
        """Of the prompt's messages and prefix as JSON, hex; '' without a prompt."""
        if self.prompt is None:
            return ""
        return hashlib.sha256(json.dumps([self.prompt.messages, self.prompt.prefix], ensure_ascii=False).encode()).hexdigest()


class Untrained:
    """The same model without its adapters: every role is the base model's, and prompts show worked examples."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.name, self.adapters = llm.name, {}
        self.prompt, self.n_tokens, self.truncate = llm.prompt, llm.n_tokens, llm.truncate

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        return self.llm.generate([replace(r, role="base") for r in requests], cancel)


@dataclass
class Desk:
    """Where the cases of one unit are answered: every prompt is checked for leaks, equal requests are written once, time is kept."""

    llm: LLM
    guard: LeakGuard
    drafts: int = 8
    rounds: int = 1
    seconds: float = 0.0
    tokens: int = 0
    _known: dict[tuple[Role, Request], Written] = field(default_factory=dict)

    def write(self, system: str, jobs: Sequence[Job], llm: LLM | None = None) -> list[Written]:
        """The completions in the order of ``jobs``. Raises LeakError before anything is asked, and LLMError."""
        llm = llm or self.llm
        for job, before in zip(jobs, [None, *jobs], strict=False):
            if before is None or job.request.prompt is not before.request.prompt:  # the drafts of one text share theirs
                self.guard.check(job.asked.case, system, job.request.prompt, job.written)
        keys = [_key(llm, job.request) for job in jobs]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            writer = Writer(llm)
            started = time.perf_counter()
            done = writer.write([replace(request, key=str(i)) for i, (_, request) in enumerate(new)], f"Writing {system}")
            seconds = time.perf_counter() - started
            self._known |= {key: Written(done[str(i)], seconds / len(new)) for i, key in enumerate(new)}
            self.seconds += seconds
            self.tokens += writer.tokens
        return [self._known[key] for key in keys]


def _key(llm: LLM, request: Request) -> tuple[Role, Request]:
    """What makes two requests the same: all but their key, and the model that answers."""
    return (request.role if llm.adapters.get(request.role) else "base", replace(request, key=""))


def take_notes(desk: Desk, system: str, asked: Sequence[Asked], questions: Sequence[Question], llm: LLM) -> list[Notes]:
    """Both agents' summaries after the rounds, for all cases at once."""
    rounds: list[list[Round]] = [[] for _ in asked]
    cost: list[list[Written]] = [[] for _ in asked]
    open_ = list(range(len(asked)))
    for index in range(desk.rounds):
        jobs = []
        for i in open_:
            previous = rounds[i][-1] if rounds[i] else None
            known = _texts_of(previous)
            jobs += [Job(asked[i], r, known) for r in round_requests(llm, questions[i].query, questions[i].evidence.facts, previous)]
        done = iter(desk.write(system, jobs, llm))
        for i in open_:
            pair = [next(done) for _ in AGENTS]
            style, topic = (w.completion for w in pair)
            cost[i] += pair
            rounds[i].append(Round(index, style, topic, None, is_settled(rounds[i][-1] if rounds[i] else None, style, topic)))
        open_ = [i for i in open_ if not rounds[i][-1].settled]
        if index + 1 < desk.rounds and questions and asked[0].case.task == "long":
            jobs = [Job(asked[i], _text(llm, questions[i], rounds[i][-1]), _texts_of(rounds[i][-1])) for i in open_]
            for i, draft in zip(open_, desk.write(system, jobs, llm), strict=True):
                rounds[i][-1] = replace(rounds[i][-1], draft=draft.completion)
                cost[i].append(draft)
    return [Notes(r[-1].style.text, r[-1].topic.text, tuple(c)) for r, c in zip(rounds, cost, strict=True)]


def full_length(request: Request, question: Question) -> Request:
    """The request of a text that may not end much before the length asked for, whoever writes it: recall is half of what is measured."""
    return replace(request, min_new_tokens=int(question.evidence.context.target_words * MIN_TOKENS))


def _text(llm: LLM, question: Question, notes: Round) -> Request:
    return full_length(text_request(llm, question, notes.style.text, notes.topic.text, "draft", 0), question)


def _texts_of(previous: Round | None) -> tuple[str, ...]:
    parts = (previous.style, previous.topic, previous.draft) if previous else ()
    return tuple(part.text for part in parts if part)


Pick = Callable[[Sequence[str]], int]


def write_drafts(
    desk: Desk,
    system: str,
    asked: Sequence[Asked],
    firsts: Sequence[Request],
    picks: Sequence[Pick],
    notes: Sequence[Notes] | None = None,
    llm: LLM | None = None,
) -> list[Answer]:
    """``desk.drafts`` texts for each case from its first request in one seed after another, and the one picked."""
    notes = notes or [Notes("", "", ())] * len(asked)
    jobs = [
        Job(a, replace(first, seed=first.seed + j), (note.style, note.topic))
        for a, first, note in zip(asked, firsts, notes, strict=True)
        for j in range(desk.drafts)
    ]
    done = desk.write(system, jobs, llm)
    answers = []
    for i, (first, pick, note) in enumerate(zip(firsts, picks, notes, strict=True)):
        mine = done[i * desk.drafts : (i + 1) * desk.drafts]
        texts = [w.completion.text for w in mine]
        chosen = pick(texts)
        cost = (*mine, *note.cost)
        answers.append(
            Answer(
                text=texts[chosen],
                prompt=first.prompt,
                adapter=mine[chosen].completion.adapter,
                seconds=sum(w.seconds for w in cost),
                tokens=sum(w.completion.n_tokens for w in cost),
                drafts=tuple(texts),
                style_summary=note.style,
                topic_summary=note.topic,
            )
        )
    return answers
