"""One whole run: query -> neighbors -> both agents' rounds -> drafts and alternatives -> ``Trace``, streamed as it happens.

``Workbench`` holds what a run needs, built once. Everything that is written after the rounds is one batch: the drafts, the alternatives a
visitor compares with, and the three texts that leave a summary out, which the Shapley values need. The same query and seed on the same
engine give the same trace. ``vary`` writes one completion of a trace anew several times, for comparisons in which nothing else differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import networkx as nx

from pat_core.agents import SUMMARY_SAMPLING, AgentFacts, agent_request, is_settled, round_requests, summary_text
from pat_core.config import DEMO_CORPUS, Config, load_config
from pat_core.corpus import Corpus, read_corpus
from pat_core.credit import shapley
from pat_core.cues import claims_asked, cue_phrases, rounded, tone, with_asked, words_asked
from pat_core.embed import open_embedder
from pat_core.graph import StyleGraph, open_style_graph, visitor_subgraph
from pat_core.llm import open_llm
from pat_core.llm.types import LLM, Event, LLMError, Request, Sampling
from pat_core.metrics import copy_rate, n_words
from pat_core.points import Vocabulary, points, vocabulary
from pat_core.progress import Progress, terminal_progress
from pat_core.prompts import Messages, StyleFacts, TopicFacts, generator_messages, lamp_messages, pgraphrag_messages
from pat_core.query import build_query, parse_preference
from pat_core.rewards import RewardContext, choose, reference_free_reward
from pat_core.topics import TopicSearch
from pat_core.types import (
    ADAPTER_ROLES,
    AGENTS,
    Agent,
    Alternative,
    Completion,
    Draft,
    LiveRound,
    Neighbor,
    Prompt,
    Query,
    Role,
    Round,
    RunOptions,
    Snapshot,
    Stage,
    Trace,
)

logger = logging.getLogger(__name__)

SNAPSHOT_SECONDS = 0.07  # a screen cannot use more than about 14 pictures a second
COPY_WORDS = 60
QUOTE_TOKENS = {"style": 22, "topic": 32, "lamp": 90, "pgraphrag": 60}
MAX_VARIANTS = 16
MIN_WORDS, MAX_WORDS = 12, 90  # of a text asked for
COLD_LENGTH = 1.3
MIN_TOKENS = 0.5  # for each word asked for: about two fifths of the length, so that votes for shorter texts can be learned
# With the temperature of the run. On 64 people of Amazon's choosing part, mean of ROUGE-1, ROUGE-L and METEOR of one text: .124 at
# temperature .8 and penalty .4; .148 at .5 and .15; .150 at .3 and .15, where texts begin to repeat themselves.
TEXT_SAMPLING = Sampling(top_p=0.95, frequency_penalty=0.2)
# Of a model without an adapter, which runs in circles below it. Without retrieval 31% of its texts repeat more than three of ten pairs of
# words at penalty .2, 2% at .6 (100 other people of that part, best of four); mean of the three .118, .122 and .116 at .2, .6 and 1, with
# neighbors in the prompt .114, .118 and .108, of the trained generator .148, .138 and .134.
UNTRAINED_PENALTY = 0.6
TEXT_STOPS = ("\nReview of:", "\nTitle:", "\n\n\n")
ONE_LEFT_OUT: tuple[tuple[str, bool, bool], ...] = (("style-only", True, False), ("topic-only", False, True), ("neither", False, False))


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What retrieval gave for one query: neighbors of both kinds, the agents' facts, and what rewards hold a text against."""

    style_neighbors: tuple[Neighbor, ...]
    topic_neighbors: tuple[Neighbor, ...]
    facts: AgentFacts
    context: RewardContext


class Workbench:
    """A corpus, its retrieval and a language model, ready to run queries. Not changed by runs; one run at a time uses the model.

    ``llm`` may be replaced between two runs (``serving``): a run keeps the one it began with.
    """

    def __init__(self, corpus: Corpus, style_graph: StyleGraph, topic_search: TopicSearch, llm: LLM) -> None:
        self.corpus = corpus
        self.style_graph = style_graph
        self.topic_search = topic_search
        self.llm = llm
        self.words: Vocabulary = vocabulary([r.text for r in corpus.reviews])
        self.mean_words = statistics.fmean(n_words(r.text) for r in corpus.reviews)

    @property
    def engine(self) -> str:
        return self.llm.name

    def run(self, query: Query, options: RunOptions = RunOptions()) -> Trace:  # noqa: B008 - frozen
        """The whole run at once."""
        *_, last = self.stream(query, options)
        assert last.trace is not None, "a run that nobody cancels ends with a trace"
        return last.trace

    def stream(self, query: Query, options: RunOptions = RunOptions(), *, cancel: threading.Event | None = None) -> Iterator[Snapshot]:  # noqa: B008
        """The run as it happens; the last snapshot is 'done' with the trace, or 'stopped' after ``cancel``. Raises LLMError."""
        return _Run(self, query, options, cancel or threading.Event()).stream()

    def fuse(self, trace: Trace, style_summary: str, topic_summary: str, *, cancel: threading.Event | None = None) -> Iterator[Snapshot]:
        """The drafts written again from summaries that a person edited; neighbors, alternatives and earlier rounds stay as they were."""
        options = RunOptions(n_drafts=len(trace.drafts), alternatives=())
        return _Run(self, trace.query, options, cancel or threading.Event()).fuse(trace, style_summary, topic_summary)

    def vary(
        self,
        trace: Trace,
        role: Role,
        k: int,
        options: RunOptions = RunOptions(),  # noqa: B008 - frozen
        *,
        cancel: threading.Event | None = None,
    ) -> tuple[Trace, ...]:
        """At most ``k`` traces with one draft each that differ from each other in one completion of ``role``, and in what follows from it.

        For "style" and "topic" that is the summary of the last round, sampled from that round's prompt and fused with the same seed; empty
        and repeated summaries are left out. For "generator" it is the text: the seed of each trace's query is the one it was written with.
        ``options.temperature`` goes for both. Empty after ``cancel``. Raises LLMError, and ValueError for another role or ``k``.
        """
        if role not in ADAPTER_ROLES:
            raise ValueError(f"the role {role!r} cannot be varied; choose from {', '.join(ADAPTER_ROLES)}")
        if not 1 <= k <= MAX_VARIANTS:
            raise ValueError(f"k must be from 1 to {MAX_VARIANTS}, not {k}")
        return _Run(self, trace.query, options, cancel or threading.Event()).vary(trace, role, k)

    def visitor_graph(self, run: Trace | Snapshot, query: Query) -> nx.Graph:
        """The visitor's part of the user-topic graph, for a picture."""
        return visitor_subgraph(self.corpus, query, run.style_neighbors, run.topic_neighbors)

    def gather(self, query: Query, options: RunOptions) -> Evidence:
        """Both retrievals and everything measured from them; no model runs."""
        style = self.style_graph.neighbors(query, options.k_style)
        return self.evidence(query, style, self.topic_search.neighbors(query, options.k_topic), options.max_words)

    def evidence(self, query: Query, style: tuple[Neighbor, ...], topic: tuple[Neighbor, ...], max_words: int) -> Evidence:
        """What given neighbors tell: the agents' facts and the reward context."""
        same_topic = [
            r for r in self.corpus.by_topic.get(query.topic_id, ()) if r.review_id not in query.held_out and r.user_id != query.user_id
        ]
        found = [n.review for n in topic]
        models = query.samples or tuple(n.review.text for n in style)  # the person's own texts where there are any
        wanted = with_asked(cue_phrases(models), query.statements)
        facts = AgentFacts(
            style=StyleFacts(
                cues=wanted,
                tone=tone(models),
                quotes=tuple(self.llm.truncate(t, QUOTE_TOKENS["style"]) for t in models[:2]),
                statements=query.statements,
            ),
            topic=TopicFacts(
                points=points(found, self.words, about=query.topic, others=[r for r in same_topic if r not in found]),
                quotes=tuple((r.rating, self.llm.truncate(r.text, QUOTE_TOKENS["topic"])) for r in found[:2]),
            ),
        )
        context = RewardContext(
            phi=self.style_graph.phi,
            target_phi=self.style_graph.predict_phi(query),
            target_words=self._length(query, wanted, [n.review.text for n in style], max_words),
            topic_texts=tuple(n.review.text for n in topic),
            retrieved_texts=tuple({n.review.review_id: n.review.text for n in (*style, *topic)}.values()),
            title=query.title,
        )
        return Evidence(style, topic, facts, context)

    def _length(self, query: Query, wanted: Sequence[str], similar: Sequence[str], max_words: int) -> float:
        """Words to ask for: what a statement or the person's own texts say. Where neither does, between the similar people's mean and
        everybody's, and ``COLD_LENGTH`` times as long, at most ``max_words``.

        A length guessed too short costs more of the words of a text than one too long: neighbors' reviews cut to this length share more
        words with what people wrote (mean of ROUGE-1, ROUGE-L and METEOR .159 on Amazon, .190 on Hotel, 300 people of the training part
        each) than cut to the similar people's median (.144, .171).
        """
        if query.samples or any(phrase in wanted for s in query.statements for phrase in claims_asked(s) if phrase.startswith("about ")):
            words = words_asked(wanted[0])
        else:
            words = min(COLD_LENGTH * (statistics.fmean(map(n_words, similar)) + self.mean_words) / 2, max_words)
        return min(max(words, MIN_WORDS), MAX_WORDS)


class _Run:
    """One run's state while it is written. Lives as long as its stream."""

    def __init__(self, bench: Workbench, query: Query, options: RunOptions, cancel: threading.Event) -> None:
        self.bench, self.llm, self.query, self.options, self.cancel = bench, bench.llm, query, options, cancel
        self.started = time.perf_counter()
        self.timings: dict[str, float] = {}
        self.evidence: Evidence | None = None
        self.live: list[LiveRound] = []
        self.rounds: list[Round] = []
        self.texts: dict[str, str] = {}

    def stream(self) -> Iterator[Snapshot]:
        yield self._snapshot("retrieving")
        with _timed(self.timings, "retrieval"):
            self.evidence = self.bench.gather(self.query, self.options)
        yield self._snapshot("reasoning")
        for index in range(self.options.rounds):
            yield from self._round(index)
            if self.cancel.is_set() or self.rounds[-1].settled:
                break
        yield from self._write_and_finish()

    def fuse(self, trace: Trace, style_summary: str, topic_summary: str) -> Iterator[Snapshot]:
        self.evidence = self.bench.evidence(self.query, trace.style_neighbors, trace.topic_neighbors, self.options.max_words)
        last = trace.rounds[-1]
        edited = Round(len(trace.rounds), _edited(last.style, style_summary), _edited(last.topic, topic_summary))
        self.rounds = [*trace.rounds, edited]
        self.live = [_live(r) for r in self.rounds]
        yield self._snapshot("writing")
        yield from self._write_and_finish(trace.alternatives)

    def vary(self, trace: Trace, role: Role, k: int) -> tuple[Trace, ...]:
        self.evidence = self.bench.evidence(self.query, trace.style_neighbors, trace.topic_neighbors, self.options.max_words)
        self.rounds = list(trace.rounds)
        lasts = [self.rounds[-1]] * k if role == "generator" else self._sampled_rounds(role, k)
        requests = []
        for i, last in enumerate(lasts):
            self.rounds[-1] = last
            requests.append(self._text_request(f"text-{i}", True, True, seed=i if role == "generator" else 0))
        written = self._written(requests)
        seeds = [dataclasses.replace(self.query, seed=request.seed) for request in requests]
        return tuple(self._variant(trace, *parts) for parts in zip(seeds, lasts, written, strict=True)) if written else ()

    def _sampled_rounds(self, agent: Agent, k: int) -> list[Round]:
        """The last round with up to ``k`` different summaries of ``agent``, all else as it was."""
        *before, last = self.rounds
        sampling = dataclasses.replace(SUMMARY_SAMPLING, temperature=self.options.temperature, top_p=TEXT_SAMPLING.top_p)
        first = agent_request(self.llm, agent, self.query, self.evidence.facts, before[-1] if before else None, sampling, self.query.seed)
        asked = getattr(last, agent).prompt  # that of the trace: an adapter may serve since then, and with it another form of the prompt
        requests = [dataclasses.replace(first, key=f"{agent}-{i}", prompt=asked, seed=self.query.seed + i) for i in range(k)]
        summaries: dict[str, Completion] = {}
        for completion in self._written(requests):
            if completion.text:
                summaries.setdefault(summary_text(completion.text), completion)
        return [dataclasses.replace(last, **{agent: dataclasses.replace(c, text=text)}) for text, c in summaries.items()]

    def _written(self, requests: Sequence[Request]) -> list[Completion]:
        """The completions of one batch in order, without showing them grow; none for an empty batch or after a cancel."""
        if not requests or self.cancel.is_set():
            return []
        unseen = [dataclasses.replace(request, streamed=False) for request in requests]
        writing = self._write(unseen, "writing", lambda texts: None)
        try:
            while True:
                next(writing)
        except StopIteration as ended:
            return [] if self.cancel.is_set() else [ended.value[r.key] for r in requests]

    def _variant(self, trace: Trace, query: Query, last: Round, written: Completion) -> Trace:
        context = self.evidence.context
        return dataclasses.replace(
            trace,
            query=query,
            rounds=(*trace.rounds[:-1], last),
            drafts=(Draft(written, reference_free_reward(written.text, context)),),
            chosen=0,
            copy_rate=copy_rate(written.text, context.retrieved_texts),
            contribution=None,
            engine=self.llm.name,
            timings={"total": round(time.perf_counter() - self.started, 3)},
            options=self.options,
        )

    def _write_and_finish(self, kept: tuple[Alternative, ...] = ()) -> Iterator[Snapshot]:
        if self.cancel.is_set():
            yield self._snapshot("stopped")
            return
        with _timed(self.timings, "writing"):
            done = yield from self._write(self._final_requests(), "writing", self.texts.update)
        if self.cancel.is_set():
            yield self._snapshot("stopped")
            return
        yield self._snapshot("done", self._trace(done, kept))

    def _round(self, index: int) -> Iterator[Snapshot]:
        previous = self.rounds[-1] if self.rounds else None
        self.live.append(LiveRound(index))
        with _timed(self.timings, f"round_{index + 1}"):
            requests = round_requests(self.llm, self.query, self.evidence.facts, previous)
            done = yield from self._write(requests, "reasoning", self._show_summaries)
            style, topic = (dataclasses.replace(done[a], text=summary_text(done[a].text)) for a in AGENTS)
            settled = is_settled(previous, style, topic)
            self.rounds.append(Round(index, style, topic, None, settled))
            if index + 1 < self.options.rounds and not settled and not self.cancel.is_set():
                drafted = yield from self._write((self._text_request("draft", True, True),), "reasoning", self._show_draft)
                self.rounds[-1] = dataclasses.replace(self.rounds[-1], draft=drafted["draft"])

    def _show_summaries(self, texts: Mapping[str, str]) -> None:
        self.live[-1] = dataclasses.replace(self.live[-1], **{a: summary_text(texts[a]) for a in AGENTS if texts.get(a)})

    def _show_draft(self, texts: Mapping[str, str]) -> None:
        self.live[-1] = dataclasses.replace(self.live[-1], draft=texts.get("draft", ""))

    def _write(
        self, requests: Sequence[Request], stage: Stage, show: Callable[[Mapping[str, str]], None]
    ) -> Generator[Snapshot, None, dict[str, Completion]]:
        """Runs one batch, yielding snapshots at screen speed; returns the completions by key."""
        started, shown = time.perf_counter(), 0.0
        texts: dict[str, str] = {}
        done: dict[str, Completion] = {}
        by_key = {r.key: r for r in requests}
        for event in self.llm.generate(requests, self.cancel):
            texts[event.key] = event.text
            if event.finish:
                done[event.key] = self._completion(by_key[event.key], event, time.perf_counter() - started)
            now = time.perf_counter()
            if now - shown >= SNAPSHOT_SECONDS:
                shown = now
                show(texts)
                self.timings.setdefault("first_text", now - self.started)
                yield self._snapshot(stage)
        show(texts)
        yield self._snapshot(stage)
        return done

    def _completion(self, request: Request, event: Event, seconds: float) -> Completion:
        adapter = self.llm.adapters.get(request.role, "")
        return Completion(request.role, request.prompt, event.text.strip(), adapter, event.n_tokens, seconds, event.finish)

    def _final_requests(self) -> tuple[Request, ...]:
        drafts = [self._text_request(f"draft-{i}", True, True, seed=i) for i in range(self.options.n_drafts)]
        parts = [self._text_request(key, style, topic) for key, style, topic in ONE_LEFT_OUT]
        written = [self._alternative_request(name) for name in self.options.alternatives if name != "copy"]
        return (*drafts, *parts, *written)

    def _text_request(self, key: str, with_style: bool, with_topic: bool, seed: int = 0) -> Request:
        last = self.rounds[-1]
        shots = not self.llm.adapters.get("generator")
        summaries = (last.style.text if with_style else "", last.topic.text if with_topic else "")
        length = rounded(self.evidence.context.target_words)
        return self._request(key, generator_messages(self.query, *summaries, n_words=length, shots=shots), "generator", seed)

    def _alternative_request(self, name: str) -> Request:
        if name == "lamp":
            own = [self.llm.truncate(t, QUOTE_TOKENS["lamp"]) for t in (*self.query.samples, *self.query.statements)[:4]]
            messages = lamp_messages(self.query, own)
        elif name == "pgraphrag":
            found = [n.review for n in self.evidence.topic_neighbors[:4]]
            messages = pgraphrag_messages(self.query, [(r.rating, self.llm.truncate(r.text, QUOTE_TOKENS["pgraphrag"])) for r in found])
        else:
            messages = generator_messages(self.query)
        return self._request(name, messages, "base", 0)

    def _request(self, key: str, messages: Messages, role: Role, seed: int) -> Request:
        words, temperature = self.evidence.context.target_words, self.options.temperature
        return text_request(self.llm, key, messages, role, words, temperature, self.query.seed + seed)

    def _trace(self, done: dict[str, Completion], kept: tuple[Alternative, ...]) -> Trace:
        context = self.evidence.context
        written = [done[f"draft-{i}"] for i in range(self.options.n_drafts)]
        chosen, rewards = choose([completion.text for completion in written], context)
        drafts = tuple(Draft(completion, reward) for completion, reward in zip(written, rewards, strict=True))
        left_out = {key: [reference_free_reward(done[key].text, context).total] for key, *_ in ONE_LEFT_OUT}
        self.timings["total"] = time.perf_counter() - self.started
        return Trace(
            query=self.query,
            style_neighbors=self.evidence.style_neighbors,
            topic_neighbors=self.evidence.topic_neighbors,
            rounds=tuple(self.rounds),
            drafts=drafts,
            chosen=chosen,
            alternatives=kept or tuple(self._alternative(name, done) for name in self.options.alternatives),
            copy_rate=copy_rate(drafts[chosen].completion.text, context.retrieved_texts),
            contribution=shapley([r.total for r in rewards], left_out["style-only"], left_out["topic-only"], left_out["neither"]),
            engine=self.llm.name,
            timings={k: round(v, 3) for k, v in self.timings.items()},
            options=self.options,
        )

    def _alternative(self, name: str, done: dict[str, Completion]) -> Alternative:
        completion = done.get(name)
        text = completion.text if completion else copied_text(self.query, self.evidence.topic_neighbors)
        context = self.evidence.context
        own = (*context.retrieved_texts, *self.query.samples)
        return Alternative(name, text, reference_free_reward(text, context), copy_rate(text, own), completion)

    def _snapshot(self, stage: Stage, trace: Trace | None = None) -> Snapshot:
        found = self.evidence
        return Snapshot(
            stage=stage,
            seconds=time.perf_counter() - self.started,
            style_neighbors=found.style_neighbors if found else (),
            topic_neighbors=found.topic_neighbors if found else (),
            rounds=tuple(self.live),
            drafts=tuple(self.texts.get(f"draft-{i}", "") for i in range(self.options.n_drafts)) if self.texts else (),
            alternatives={a: self.texts[a] for a in self.options.alternatives if a in self.texts},
            trace=trace,
        )


def text_sampling(adapter: str, temperature: float) -> Sampling:
    """How a text is sampled from the model with ``adapter``, '' for none."""
    penalty = TEXT_SAMPLING.frequency_penalty if adapter else UNTRAINED_PENALTY
    return dataclasses.replace(TEXT_SAMPLING, temperature=temperature, frequency_penalty=penalty)


def text_request(llm: LLM, key: str, messages: Messages, role: Role, words: float, temperature: float, seed: int) -> Request:
    """The request for a text of about ``words`` words: every system's, so that all have the same budget and stops."""
    return Request(
        key=key,
        prompt=llm.prompt(messages),
        role=role,
        sampling=text_sampling(llm.adapters.get(role, ""), temperature),
        seed=seed,
        max_new_tokens=int(words * 1.35) + 8,
        min_new_tokens=int(words * MIN_TOKENS),
        stop=TEXT_STOPS,
    )


def copied_text(query: Query, neighbors: Sequence[Neighbor], n_words: int = COPY_WORDS) -> str:
    """The baseline without a model: the title and the best neighbors' reviews one after the other, cut to ``n_words`` words."""
    words = " ".join([query.title, *(n.review.text for n in neighbors[:4])]).split()
    return " ".join(words[:n_words])


def open_workbench(config: Config, data: Path, progress: Progress) -> Workbench:
    """Reads ``data``, opens retrieval (from the cache where the same data was seen before) and the model, both at once. Slow at first."""
    with ThreadPoolExecutor(1) as beside:
        llm = beside.submit(open_llm, config, progress)
        corpus, _ = read_corpus(data, progress=progress)
        cache = config.home / "cache"
        embedder = open_embedder(config.embedder, config.device)
        style_graph = open_style_graph(corpus, cache, progress)
        topic_search = TopicSearch(corpus, embedder, cache, progress)
        embedder.load()  # else the first visitor would wait for it
        return Workbench(corpus, style_graph, topic_search, llm.result())


def trace_to_json(trace: Trace) -> dict:
    """The trace as plain JSON values; keys of the nouns, and ``output``."""
    value = _plain(trace)
    return {"output": trace.output, **value}


def _plain(value: object) -> object:
    if isinstance(value, Prompt):
        return {"messages": [list(m) for m in value.messages], "prefix": value.prefix, "n_tokens": len(value.token_ids)}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _edited(completion: Completion, text: str) -> Completion:
    return dataclasses.replace(completion, text=text.strip(), adapter="edited by hand", n_tokens=0, seconds=0.0, finish="edited")


def _live(done: Round) -> LiveRound:
    return LiveRound(done.index, done.style.text, done.topic.text, done.draft.text if done.draft else "")


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m pat_core.pipeline``: one run without a browser."""
    parser = argparse.ArgumentParser(prog="python -m pat_core.pipeline", description="Write one text with PaT and show how.")
    parser.add_argument("--topic", required=True, help="a topic's id or name from the corpus, or any subject")
    parser.add_argument("--title", default="", help="what to write: the title of the text")
    parser.add_argument(
        "--preference", action="append", default=[], help="a text the person wrote, or a statement of taste; up to five times"
    )
    parser.add_argument("--rating", type=float, help="1 to 5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DEMO_CORPUS, help="a corpus file (default: the demo corpus)")
    parser.add_argument("--json", action="store_true", help="print the whole trace as JSON")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        bench = open_workbench(load_config(), args.data, terminal_progress())
        trace = bench.run(query_from_names(bench, args))
    except (ValueError, OSError, LLMError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(trace_to_json(trace), ensure_ascii=False, indent=2) if args.json else as_text(trace))
    return 0


def query_from_names(bench: Workbench, args: argparse.Namespace) -> Query:
    topics = bench.corpus.topics
    topic_id = args.topic if args.topic in topics else bench.topic_search.match_topic(args.topic)
    preferences = [p for text in args.preference if (p := parse_preference(text))]
    category = bench.corpus.category_of.get(topic_id, "")
    return build_query(
        args.topic,
        args.title,
        topics=topics,
        topic_id=topic_id,
        category=category,
        preferences=preferences,
        rating=args.rating,
        seed=args.seed,
    )


def as_text(trace: Trace) -> str:
    """The trace for a terminal, in the order of the method."""
    parts = [f"# {trace.query.topic}: {trace.query.title}", f"({trace.engine})"]
    for name, found in (("Style", trace.style_neighbors), ("Topic", trace.topic_neighbors)):
        parts.append(f"\n## {name} neighbors")
        parts += [f"- {n.score:+.2f} {n.review.user_id} on {n.review.topic} [{'; '.join(n.why)}]: {n.review.text[:90]}" for n in found]
    for r in trace.rounds:
        parts.append(
            f"\n## Round {r.index + 1}\n[style]\n{r.style.text}\n[topic]\n{r.topic.text}"
            + (f"\n[draft]\n{r.draft.text}" if r.draft else "")
        )
    for i, d in enumerate(trace.drafts):
        mark = "*" if i == trace.chosen else " "
        parts.append(f"\n## Draft {i + 1}{mark} reward {d.reward.total:.2f}\n{d.completion.text}")
    parts += [f"\n## {a.name}: reward {a.reward.total:.2f}, copy rate {a.copy_rate:.2f}\n{a.text}" for a in trace.alternatives]
    if trace.contribution:
        parts.append(f"\nstyle contributed {trace.contribution.style:+.3f}, topic {trace.contribution.topic:+.3f}")
    parts.append("seconds: " + ", ".join(f"{k} {v:.2f}" for k, v in trace.timings.items()))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
