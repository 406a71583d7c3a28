"""Rollouts of a learning round: many held-out questions at once, and for each several summaries or texts of one role, scored.

A question is a held-out review: its title and rating are asked, its text is the reference. The engine gets large batches of requests from
many questions, which a run for one visitor (``pipeline``) cannot give it; the requests are those of a run with one round of the agents.
Leaves out training and what is published (``rounds``), and the second round, in which an agent reads the other's notes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pat_core import pipeline
from pat_core.agents import SUMMARY_SAMPLING, AgentFacts, agent_request, round_requests, summary_text
from pat_core.config import Config
from pat_core.corpus import Corpus, Part, hold_out, part_of, read_corpus
from pat_core.credit import Dropped, Grid, Selected, grid_of, leave_one_out, raw_rewards, select, select_raw, sibling_credit
from pat_core.cues import rounded
from pat_core.embed import open_embedder
from pat_core.graph import open_style_graph
from pat_core.llm.types import LLM, Request
from pat_core.metrics import copy_rate, n_words
from pat_core.pipeline import TEXT_SAMPLING, Evidence, Workbench
from pat_core.preferences import Comparison
from pat_core.progress import Progress
from pat_core.prompts import Messages, generator_messages
from pat_core.rewards import reference_free_reward, reward
from pat_core.topics import TopicSearch
from pat_core.types import AGENTS, Agent, Completion, Draft, Prompt, Query, Review, Reward, Role, Round, RunOptions, Trace
from pat_core.warm_start import LONGEST, SHORTEST

AT_ONCE = 96  # requests of one batch: at 96 OpenVINO takes four fifths of the time it takes at 32; more gains nothing
SUMMARY_TEMPERATURE = 0.5
FACTS_KEPT = 0.6  # share of the facts that a candidate after the first is written from
OPTIONS = RunOptions(rounds=1, n_drafts=1, alternatives=())
Score = Callable[["Question", str], Reward]
Likelihood = Callable[[Messages, str], float]  # mean log-probability of an answer's tokens, in nats


@dataclass(frozen=True)
class Question:
    """A held-out review as a question: what is asked, the text that was really written, and what retrieval found."""

    query: Query
    reference: str
    evidence: Evidence


Notes = Mapping[Agent, Completion]  # both agents' summaries for one question


@dataclass(frozen=True)
class Rollout:
    """Candidates of one role for one question. ``texts[i]`` are the outputs written from candidate i (its own text for the generator);
    ``left_out`` those written without any summary of that agent, in the same seeds."""

    question: Question
    notes: Notes
    role: Role
    candidates: tuple[Completion, ...]
    texts: tuple[tuple[Completion, ...], ...]
    left_out: tuple[Completion, ...] = ()


def open_bench(config: Config, data: Path, llm: LLM, progress: Progress | None = None) -> Workbench:
    """A workbench on ``data`` that shares a model which is loaded already."""
    corpus, _ = read_corpus(data, progress=progress)
    cache = config.home / "cache"
    search = TopicSearch(corpus, open_embedder(config.embedder, config.device), cache, progress)
    return Workbench(corpus, open_style_graph(corpus, cache, progress), search, llm)


def questions(bench: Workbench, n: int, seed: int, *parts: Part) -> list[Question]:
    """At most ``n`` questions about reviews by the users of ``parts``; one a user as far as users suffice.

    The same for a seed; another seed takes other users first.
    """
    rng = random.Random(f"questions-{seed}-{'-'.join(parts)}")
    by_user: dict[str, list[Review]] = {}
    for user_id in sorted(bench.corpus.by_user):
        mine = [r for r in bench.corpus.by_user[user_id] if _can_be_asked(bench.corpus, r)]
        if mine and part_of(user_id) in parts:
            by_user[user_id] = rng.sample(mine, len(mine))
    order = rng.sample(sorted(by_user), len(by_user))
    turns = max(map(len, by_user.values()), default=0)
    targets = [by_user[user_id][turn] for turn in range(turns) for user_id in order if turn < len(by_user[user_id])]
    asked = ((hold_out(bench.corpus, target, seed=rng.randrange(1_000_000)), target.text) for target in targets[:n])
    return [Question(query, text, bench.gather(query, OPTIONS)) for query, text in asked]


def _can_be_asked(corpus: Corpus, review: Review) -> bool:
    return SHORTEST <= n_words(review.text) <= LONGEST and any(r.user_id != review.user_id for r in corpus.by_topic[review.topic_id])


# Writing in batches


class Writer:
    """Writes requests of any number with ``llm``; ``tell`` hears of them. ``seconds`` and ``tokens`` so far say how fast it is."""

    def __init__(self, llm: LLM, progress: Progress | None = None, cancel: threading.Event | None = None) -> None:
        self.llm, self.progress, self.cancel = llm, progress, cancel or threading.Event()
        self.tokens = 0

    def write(self, requests: Sequence[Request], label: str) -> dict[str, Completion]:
        """Every request's completion by its key, whole sentences only where a text was cut at its length. Raises LLMError, Stopped."""
        ordered = sorted(requests, key=lambda r: (r.role, r.max_new_tokens))  # a batch ends with its longest answer
        done: dict[str, Completion] = {}
        for start in range(0, len(ordered), AT_ONCE):
            batch = {r.key: replace(r, streamed=False) for r in ordered[start : start + AT_ONCE]}
            for event in self.llm.generate(list(batch.values()), self.cancel):
                if event.finish:
                    done[event.key] = self._completion(batch[event.key], event.text, event.n_tokens, event.finish)
                    self.tokens += event.n_tokens
            if self.cancel.is_set():
                raise Stopped("stopped while texts were being written; what was finished before is kept")
            if self.progress:
                self.progress(label, len(done), len(ordered))
        return done

    def _completion(self, request: Request, text: str, n_tokens: int, finish: str) -> Completion:
        text = text.strip()
        if request.role in AGENTS:
            text = summary_text(text) if text else ""
        elif finish == "length":
            text = whole_sentences(text)
        return Completion(request.role, request.prompt, text, self.llm.adapters.get(request.role, ""), n_tokens, 0.0, finish)


class Stopped(RuntimeError):
    """The learning was asked to stop."""


def whole_sentences(text: str) -> str:
    """``text`` up to its last full stop, where that keeps half of its words; else as it is."""
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if n_words(text[: end + 1]) * 2 >= n_words(text) else text


def text_messages(llm: LLM, question: Question, style: str, topic: str) -> Messages:
    """What the generator reads of a question and two summaries, '' for one left out."""
    words = rounded(question.evidence.context.target_words)
    return generator_messages(question.query, style, topic, n_words=words, shots=not llm.adapters.get("generator"))


def text_request(llm: LLM, question: Question, style: str, topic: str, key: str, seed: int) -> Request:
    """What a run asks of the generator: the text from two summaries, '' for one left out."""
    words = question.evidence.context.target_words
    messages = text_messages(llm, question, style, topic)
    return pipeline.text_request(llm, key, messages, "generator", words, OPTIONS.temperature, question.query.seed + seed)


def take_notes(writer: Writer, asked: Sequence[Question], agents: Sequence[Agent] = AGENTS) -> list[Notes]:
    """The agents' greedy summaries for each question."""
    requests = [
        replace(request, key=f"{i}-{request.key}")
        for i, q in enumerate(asked)
        for request in round_requests(writer.llm, q.query, q.evidence.facts, None)
        if request.role in agents
    ]
    done = writer.write(requests, "Notes of the agents")
    return [{agent: done[f"{i}-{agent}"] for agent in agents} for i in range(len(asked))]


def write_texts(writer: Writer, asked: Sequence[Question], notes: Sequence[Notes], n: int, label: str = "Texts") -> list[list[Completion]]:
    """``n`` texts for each question, in the seeds 0 to n - 1."""
    requests = [
        text_request(writer.llm, q, note["style"].text, note["topic"].text, f"{i}-{j}", j)
        for i, (q, note) in enumerate(zip(asked, notes, strict=True))
        for j in range(n)
    ]
    done = writer.write(requests, label)
    return [[done[f"{i}-{j}"] for j in range(n)] for i in range(len(asked))]


def roll_out(writer: Writer, role: Role, asked: Sequence[Question], notes: Sequence[Notes], k: int, n_texts: int = 2) -> list[Rollout]:
    """``k`` candidates of ``role`` for each question with what comes of them.

    Summaries are sampled from one prompt, each is written out in ``n_texts`` seeds, the same for all of a question; texts are themselves.
    """
    if role == "generator":
        written = write_texts(writer, asked, notes, k, "Texts to compare")
        return [
            Rollout(q, note, role, tuple(texts), tuple((t,) for t in texts)) for q, note, texts in zip(asked, notes, written, strict=True)
        ]
    summaries = _summaries(writer, role, asked, k)
    requests = []
    for i, (q, note) in enumerate(zip(asked, notes, strict=True)):
        for c, summary in enumerate([*(s.text for s in summaries[i]), ""]):
            style, topic = (summary, note["topic"].text) if role == "style" else (note["style"].text, summary)
            requests += [text_request(writer.llm, q, style, topic, f"{i}-{c}-{j}", j) for j in range(n_texts)]
    done = writer.write(requests, f"Texts from summaries of the {role} agent")
    rollouts = []
    for i, (q, note) in enumerate(zip(asked, notes, strict=True)):
        *texts, left_out = [tuple(done[f"{i}-{c}-{j}"] for j in range(n_texts)) for c in range(len(summaries[i]) + 1)]
        rollouts.append(Rollout(q, note, role, tuple(summaries[i]), tuple(texts), left_out))
    return rollouts


def _summaries(writer: Writer, agent: Agent, asked: Sequence[Question], k: int) -> list[list[Completion]]:
    """Up to ``k`` different whole summaries of ``agent`` for each question, as answers to its whole prompt.

    The first is written from all facts, each other one from a part of them, so that they differ in what they name: from the same facts a
    trained agent names the same, whatever the temperature, and what is left to differ is chance or untrue.
    """
    sampling = replace(SUMMARY_SAMPLING, temperature=SUMMARY_TEMPERATURE, top_p=TEXT_SAMPLING.top_p)
    prompts, requests = [], []
    for i, q in enumerate(asked):
        rng = random.Random(f"facts-{agent}-{q.query.seed}")
        for j in range(k):
            facts = part_of_facts(q.evidence.facts, agent, rng) if j else q.evidence.facts
            request = agent_request(writer.llm, agent, q.query, facts, None, sampling, q.query.seed + j)
            if not j:
                prompts.append(request.prompt)
            requests.append(replace(request, key=f"{i}-{j}"))
    done = writer.write(requests, f"Summaries of the {agent} agent")
    found = []
    for i, prompt in enumerate(prompts):
        whole = [c for j in range(k) if (c := done[f"{i}-{j}"]).text and c.finish != "length"]
        found.append([replace(c, prompt=prompt) for c in {c.text: c for c in whole}.values()])
    return found


def part_of_facts(facts: AgentFacts, agent: Agent, rng: random.Random) -> AgentFacts:
    """``facts`` with about ``FACTS_KEPT`` of what ``agent`` can name; the length, a word of tone and a thing mentioned stay at least."""

    def some(phrases: Sequence[str]) -> tuple[str, ...]:
        return tuple(phrase for phrase in phrases if rng.random() < FACTS_KEPT)

    if agent == "style":
        length, *others = facts.style.cues
        return replace(facts, style=replace(facts.style, cues=(length, *some(others)), tone=some(facts.style.tone) or facts.style.tone[:1]))
    p = facts.topic.points
    mentioned = some(p.mentioned) or p.mentioned[:1]
    liked, disliked = (tuple(phrase for phrase in phrases if phrase in mentioned) for phrases in (p.liked, p.disliked))
    kept = replace(p, mentioned=mentioned, liked=liked, disliked=disliked, praised_as=some(p.praised_as), blamed_as=some(p.blamed_as))
    return replace(facts, topic=replace(facts.topic, points=kept))


def trace_of(rollout: Rollout, candidate: int, engine: str) -> Trace:
    """The run that ends with the first text of a candidate."""
    q, written = rollout.question, rollout.texts[candidate][0]
    notes = rollout.notes if rollout.role == "generator" else {**rollout.notes, rollout.role: rollout.candidates[candidate]}
    context = q.evidence.context
    return Trace(
        query=replace(q.query, seed=q.query.seed + candidate) if rollout.role == "generator" else q.query,
        style_neighbors=q.evidence.style_neighbors,
        topic_neighbors=q.evidence.topic_neighbors,
        rounds=(Round(0, notes["style"], notes["topic"]),),
        drafts=(Draft(written, reference_free_reward(written.text, context)),),
        chosen=0,
        alternatives=(),
        copy_rate=copy_rate(written.text, context.retrieved_texts),
        contribution=None,
        engine=engine,
        options=OPTIONS,
    )


# Scores


def by_reference(question: Question, text: str) -> Reward:
    """The reward of a text against what the person really wrote."""
    return reward(text, question.evidence.context, question.reference)


def without_reference(question: Question, text: str) -> Reward:
    """The reward as in live use, which is the one that people's choices calibrate."""
    return reference_free_reward(text, question.evidence.context)


@dataclass(frozen=True)
class Scored:
    """A rollout with the reward of each candidate's texts and their mean, and the pair it gives by differential and by raw credit."""

    rollout: Rollout
    by_text: tuple[tuple[float, ...], ...]
    rewards: tuple[float, ...]
    differential: Selected | Dropped
    raw: Selected | Dropped


def score_rollout(rollout: Rollout, score: Score) -> Scored:
    """Credits: leave-one-out for a summary, against its siblings for a text (method: differential rewards)."""
    written = [[score(rollout.question, c.text).total for c in cell] for cell in rollout.texts]
    return _credited(rollout, written, [score(rollout.question, c.text).total for c in rollout.left_out])


def _credited(rollout: Rollout, by_text: Sequence[Sequence[float]], left_out: Sequence[float]) -> Scored:
    texts, written = [c.text for c in rollout.candidates], tuple(map(tuple, by_text))
    if len(texts) < 2:
        few = Dropped("too few candidates")
        return Scored(rollout, written, tuple(float(np.mean(r)) for r in written), few, few)
    if rollout.role == "generator":
        rewards = np.array([r[0] for r in written])
        credits = sibling_credit(rewards)
    else:
        grid = _grid(rollout, written, left_out)
        rewards, credits = raw_rewards(grid, rollout.role), leave_one_out(grid, rollout.role)
    return Scored(rollout, written, tuple(rewards.tolist()), select(texts, credits.tolist()), select_raw(texts, rewards.tolist()))


def read_out(
    writer: Writer, role: Agent, asked: Sequence[Question], notes: Sequence[Notes], k: int, likelihood: Likelihood
) -> list[Scored]:
    """``roll_out`` and ``score_rollout`` without a text: a summary's reward is the ``likelihood`` of what the person really wrote.

    That is the same each time, where the rewards of texts sampled from one summary differ more than those of two summaries do.
    """
    scored = []
    for i, (q, note, summaries) in enumerate(zip(asked, notes, _summaries(writer, role, asked, k), strict=True)):
        if writer.cancel.is_set():
            raise Stopped("stopped while texts were being read; what was finished before is kept")
        pairs = [(s, note["topic"].text) if role == "style" else (note["style"].text, s) for s in (*(c.text for c in summaries), "")]
        *each, without = [likelihood(text_messages(writer.llm, q, style, topic), q.reference) for style, topic in pairs]
        own = (Completion("base", Prompt(()), q.reference),)
        scored.append(_credited(Rollout(q, note, role, tuple(summaries), (own,) * len(summaries), own), [[v] for v in each], [without]))
        if writer.progress:
            writer.progress(f"What people wrote, read with summaries of the {role} agent", i + 1, len(asked))
    return scored


def _grid(rollout: Rollout, written: Sequence[Sequence[float]], left_out: Sequence[float]) -> Grid:
    rows = [*enumerate(written), (None, left_out)]
    cells = [(i, 0) if rollout.role == "style" else (0, i) for i, row in rows for _ in row]
    return grid_of(cells, [value for _, row in rows for value in row])


def comparison(scored: Scored, selected: Selected, pair_id: str) -> Comparison:
    """The selected two candidates, the chosen one first, as ``mixed_pairs`` takes them."""
    r = scored.rollout
    a, b = r.candidates[selected.chosen], r.candidates[selected.rejected]
    words = [round(float(np.mean([n_words(c.text) for c in r.texts[i]]))) for i in (selected.chosen, selected.rejected)]
    return Comparison(
        pair_id,
        r.role,
        a.prompt.messages,
        a.text,
        b.text,
        scored.rewards[selected.chosen],
        scored.rewards[selected.rejected],
        *words,
        weight=selected.weight,
    )


def means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every term over rows that all have it."""
    rows = list(rows)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}
