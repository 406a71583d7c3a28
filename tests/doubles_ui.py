"""A small workbench for tests of the views: the real nouns, a real networkx graph, growing texts, no model. It honors cancel."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import networkx as nx

import app
from annotate.campaign import open_campaign
from annotate.jobs import Jobs
from pat_core.graph import visitor_subgraph
from pat_core.progress import Progress
from pat_core.types import (
    Alternative,
    Completion,
    Contribution,
    Draft,
    LiveRound,
    Neighbor,
    Prompt,
    Query,
    Review,
    Reward,
    Round,
    RunOptions,
    Snapshot,
    Trace,
)
from pat_core.ui.opening import EngineRoom, Opening
from pat_core.ui.runs import Runs

OWNER_TOKEN = "the owner of the tests"
HOSTILE = (
    "<img src=x onerror='window.pwned=1'> ${window.pwned=2} {{constructor}} </textarea><script>window.pwned=3</script> `${window.pwned=4}`"
)
KETTLE = ("kettle", "Norra gooseneck kettle", "products")
HOTEL = ("marlowe", "Hotel Marlowe", "hotels")
VET = ("pawprint", "Pawprint vet clinic", "services")
ROWS = (
    ("torx", *KETTLE, "4 min to 96 C", "Dial reads 96, probe reads 94. Beep: 71 dB at arm's length. Handle 48 C near the lid.", 4),
    ("zuzka", *KETTLE, "The pour!!!", "I stand there and pour like a film star!!! The beep scares the cat though! " * 4, 5),
    ("ida", *KETTLE, "hmm", "it pours nicely i guess, maybe a bit slow, the handle got warm", 3),
    ("ida", *HOTEL, "ok for a night", "small room, fast wifi, you hear the trains but sort of far away", 3),
    ("torx", *HOTEL, "2 min, timed", "Station to desk: 1 min 52. Window does not open. 24 C at 02:00.", 2),
    ("aldous", *HOTEL, "Convenient, in the narrow sense", "It is two minutes from the station; I was obliged to withdraw the sneer.", 3),
    ("zuzka", *VET, "Dr. Okafor!!!", "She let my Biscuit smell the stethoscope first!!! I cried!!", 5),
    ("aldous", *VET, "Dear, but candid", "The bill is itemised; one sees what one pays for, and one pays.", 4),
    ("mallory", *KETTLE, HOSTILE, HOSTILE, 1),
)
REVIEWS = tuple(Review(f"r{i}", *row[:6], rating=float(row[6])) for i, row in enumerate(ROWS))
STYLE_TEXT = (
    "Evidence: short sentences, 9 words each; 2.1 exclamation marks per sentence.\n"
    "Inference: an excited writer who addresses the reader.\n"
    "Guidance: write in the first person and end on an exclamation."
)
TOPIC_TEXT = (
    "Evidence: 3 of 4 praise the slow pour, 2 mind the beep.\n"
    "Inference: the pour is agreed, the beep disputed.\n"
    "Guidance: praise the pour, then weigh the beep."
)
FUSED = (
    "I did not expect to have feelings about a kettle! The pour is slow and steady, and I watch it every morning. "
    "The beep is loud and nothing turns it off, so the cat and I now get up together. "
    "Four minutes to a boil, and the handle does get warm near the lid. I would still buy it again!"
)
OTHERS = {
    "none": "This kettle is a great product with many features that make it a good choice for anyone who wants a kettle.",
    "lamp": "I love this! It is so good! I use it all the time and it is so good!",
    "pgraphrag": "Dial reads 96, probe reads 94. The pour is slow. It pours nicely i guess.",
    "copy": "Dial reads 96, probe reads 94. Beep: 71 dB at arm's length. it pours nicely i guess, maybe a bit slow",
}


@dataclasses.dataclass(frozen=True)
class DoubleCorpus:
    reviews: tuple[Review, ...] = REVIEWS
    name: str = "Test corpus"

    @property
    def topics(self) -> dict[str, str]:
        return {r.topic_id: r.topic for r in self.reviews}

    @property
    def category_of(self) -> dict[str, str]:
        return {r.topic_id: r.category for r in self.reviews}

    @property
    def by_user(self) -> dict[str, tuple[Review, ...]]:
        return {u: tuple(r for r in self.reviews if r.user_id == u) for u in {r.user_id: 0 for r in self.reviews}}

    @property
    def by_topic(self) -> dict[str, tuple[Review, ...]]:
        return {t: tuple(r for r in self.reviews if r.topic_id == t) for t in self.topics}


class DoubleWorkbench:
    """``word_seconds`` between words; ``running`` is True while a run holds the "model", ``cancelled`` counts runs ended early."""

    engine = "a scripted double, no model"

    def __init__(self, corpus: DoubleCorpus | None = None, word_seconds: float = 0.002, fail: Exception | None = None) -> None:
        self.corpus = corpus or DoubleCorpus()
        self.word_seconds = word_seconds
        self.fail = fail
        self.running = False
        self.cancelled = 0
        self.queries: list[Query] = []

    def stream(self, query: Query, options: RunOptions = RunOptions(), *, cancel: threading.Event) -> Iterator[Snapshot]:  # noqa: B008 - frozen
        assert not self.running, "two runs on one model"
        self.queries.append(query)
        self.running = True
        try:
            for snapshot in self._stream(query, options):
                if cancel.is_set():
                    self.cancelled += 1
                    yield dataclasses.replace(snapshot, stage="stopped", trace=None)
                    return
                yield snapshot
        finally:
            self.running = False

    def fuse(self, trace: Trace, style_summary: str, topic_summary: str, *, cancel: threading.Event) -> Iterator[Snapshot]:
        base = Snapshot("writing", 0.1, trace.style_neighbors, trace.topic_neighbors)
        text = f"{style_summary[:60]} {topic_summary[:60]}"
        for words in self._grow(text):
            yield dataclasses.replace(base, drafts=(words,))
        draft = Draft(_completion("generator", text), _reward(0.5))
        edited = Round(len(trace.rounds), _completion("style", style_summary), _completion("topic", topic_summary))
        new = dataclasses.replace(trace, drafts=(draft,), chosen=0, rounds=(*trace.rounds, edited), contribution=None)
        yield dataclasses.replace(base, stage="done", seconds=0.4, drafts=(text,), trace=new)

    def visitor_graph(self, run: Trace | Snapshot, query: Query) -> nx.Graph:
        return visitor_subgraph(self.corpus, query, run.style_neighbors, run.topic_neighbors)  # type: ignore[arg-type]

    def _grow(self, text: str, step: int = 2) -> Iterator[str]:
        words = text.split(" ")
        for end in range(1, len(words) + step, step):
            time.sleep(self.word_seconds * step)
            yield " ".join(words[:end])

    def _stream(self, query: Query, options: RunOptions) -> Iterator[Snapshot]:
        began = time.monotonic()
        if self.fail:
            raise self.fail
        state = Snapshot("retrieving", 0.0)

        def now(**changes) -> Snapshot:
            nonlocal state
            state = dataclasses.replace(state, seconds=time.monotonic() - began, **changes)
            return state

        yield now()
        firsts = list({r.user_id: r for r in reversed(self.corpus.reviews)}.values())
        style = tuple(
            Neighbor("style", r, 0.81 - 0.07 * i, ("short sentences, about 9 words", "many exclamation marks"))
            for i, r in enumerate(firsts[: options.k_style])
        )
        same = [r for r in self.corpus.reviews if r.topic_id == query.topic_id]
        other = [r for r in self.corpus.reviews if r.topic_id != query.topic_id]
        topic = tuple(
            Neighbor(
                "topic",
                r,
                0.66 - 0.05 * i,
                ("same topic" if r in same else "a topic near in meaning", "shares: pour, beep"),
                0 if r in same else 2,
            )
            for i, r in enumerate((same + other)[: options.k_topic])
        )
        yield now(style_neighbors=style, topic_neighbors=topic, stage="reasoning")
        live: list[LiveRound] = []
        done: list[Round] = []
        for index in range(options.rounds):
            for words in self._grow(STYLE_TEXT):
                share = len(words) / len(STYLE_TEXT)
                yield now(rounds=(*live, LiveRound(index, words, TOPIC_TEXT[: int(len(TOPIC_TEXT) * share)])))
            draft = ""
            if index + 1 < options.rounds:
                for draft in self._grow(FUSED[:180]):
                    yield now(rounds=(*live, LiveRound(index, STYLE_TEXT, TOPIC_TEXT, draft)))
            live.append(LiveRound(index, STYLE_TEXT, TOPIC_TEXT, draft))
            done.append(
                Round(
                    index,
                    _completion("style", STYLE_TEXT),
                    _completion("topic", TOPIC_TEXT),
                    _completion("generator", draft) if draft else None,
                )
            )
        full = [f"{FUSED} And that makes draft {i + 1}." for i in range(options.n_drafts)]
        yield now(stage="writing", rounds=tuple(live), drafts=("",) * options.n_drafts)
        for words in self._grow(full[0]):
            share = len(words) / len(full[0])
            others = {name: OTHERS[name][: int(len(OTHERS[name]) * share)] for name in options.alternatives}
            yield now(drafts=tuple(text[: int(len(text) * share)] for text in full), alternatives=others)
        trace = Trace(
            query=query,
            style_neighbors=style,
            topic_neighbors=topic,
            rounds=tuple(done),
            drafts=tuple(Draft(_completion("generator", text), _reward(0.31 + 0.05 * (i % 3))) for i, text in enumerate(full)),
            chosen=min(2, options.n_drafts - 1),
            alternatives=tuple(
                Alternative(
                    n, OTHERS[n], _reward(0.2), 0.94 if n == "copy" else 0.08, None if n == "copy" else _completion("base", OTHERS[n])
                )
                for n in options.alternatives
            ),
            copy_rate=0.04,
            contribution=Contribution(style=0.09, topic=-0.02, full=0.41, neither=0.34, style_only=0.42, topic_only=0.31),
            engine=self.engine,
            timings={"retrieve": 0.1, "reason": 1.0, "write": 1.2},
        )
        yield now(stage="done", drafts=tuple(full), alternatives={n: OTHERS[n] for n in options.alternatives}, trace=trace)


def app_desk(load: Callable[[Progress], EngineRoom], folder: Path) -> app.Desk:
    """What the app is built from, with a campaign of its own in ``folder``; close the campaign at the end."""
    runs = Runs()
    return app.Desk(Opening(load), runs, open_campaign(folder / "votes.db", OWNER_TOKEN), Jobs(runs.turn))


def engine_room(workbench: DoubleWorkbench | None = None) -> EngineRoom:
    return EngineRoom(
        workbench or DoubleWorkbench(), lambda trace: {"title": trace.query.title, "seed": trace.query.seed, "output": trace.output}
    )  # type: ignore[arg-type]


def _completion(role: str, text: str) -> Completion:
    return Completion(role, Prompt((("user", "…"),)), text, n_tokens=len(text.split()), seconds=1.3, finish="stop")  # type: ignore[arg-type]


def _reward(total: float) -> Reward:
    return Reward(
        total,
        {"style_match": total + 0.1, "topic_cover": total - 0.1, "copy": -0.04},
        {"style_match": 0.5, "topic_cover": 0.5, "copy": 1.0},
    )
