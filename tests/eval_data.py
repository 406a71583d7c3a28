"""A small corpus for the evaluation: thirty people, six topics, every text of words that nobody else puts in that order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from doubles import HashEmbedder, ScriptedLLM

from pat_core import style_net
from pat_core.asked import Asked, gather
from pat_core.benchmark import Case, LeakGuard, without_targets
from pat_core.corpus import Corpus
from pat_core.desk import Desk
from pat_core.estimates import Difference, Estimate
from pat_core.graph import open_style_graph
from pat_core.llm.types import Request
from pat_core.pipeline import Workbench
from pat_core.predictions import RunFacts
from pat_core.scoring import Example, Results, SystemResult
from pat_core.stylometry import words_of
from pat_core.topics import TopicSearch
from pat_core.types import Review

TOPICS = ("kettle", "hostel", "novel", "lamp", "bakery", "saddle")
WORDS = words_of(
    "we I it the a this was is had would found warm cold small loud calm bright cheap old new stairs price morning window owner page crust "
    "handle light seat river garden street rain never always again quite very rather and but because while"
)
ADAPTERS = {"style": "style-1", "topic": "topic-1", "generator": "generator-1"}


@contextmanager
def small_nets() -> Iterator[None]:
    """Style nets of two steps, on one thread: two wait for each other ten times as long where the machine has other work."""
    steps, threads = style_net.STEPS, torch.get_num_threads()
    style_net.STEPS = 2
    torch.set_num_threads(1)
    try:
        yield
    finally:
        style_net.STEPS = steps
        torch.set_num_threads(threads)


def made_text(seed: str) -> str:
    """About twenty words in three sentences, the same for a seed."""
    rng = random.Random(seed)
    return " ".join(" ".join(rng.choices(WORDS, k=rng.randint(5, 9))).capitalize() + rng.choice(".!") for _ in range(3))


def review(user: int, n: int, topic: str) -> Review:
    name = f"user{user}"
    rating = float(1 + (user + n) % 5)
    return Review(f"{name}#{n}", name, topic, f"the {topic}", "things", f"My {topic}, visit {n}", made_text(f"{user}-{n}"), rating)


def corpus() -> Corpus:
    """Users 0 to 5 wrote twice, 6 to 8 three times, the rest once; five people on each topic of a target."""
    reviews = []
    for user in range(30):
        n_reviews = 2 if user < 6 else 3 if user < 9 else 1
        reviews += [review(user, n, TOPICS[(user + n) % len(TOPICS)]) for n in range(n_reviews)]
    return Corpus("small", tuple(reviews))


def answer(request: Request) -> str:
    """A text that tells the role, the seed and whether notes were shown."""
    asked = request.prompt.messages[-1][1]
    if request.role == "style" or asked.endswith("How would this person write?"):
        return " Similar writers are calm.\nInference: Calm.\nGuidance: Write calmly."
    if request.role == "topic" or "What is there to say" in asked:
        return " Reviewers mention the price.\nInference: Fine.\nGuidance: Mention the price."
    if "How many stars" in asked:
        return str(3 + request.seed % 3)
    noted = "noted" if "How to write:" in asked or "What to say:" in asked else "alone"
    return f"The {request.role} writes {noted} of the price, draft {request.seed % 7}. It was warm and we would come again."


def scripted() -> ScriptedLLM:
    return ScriptedLLM(answer, ADAPTERS)


def opened(cases: list[Case], cache: Path, llm: ScriptedLLM, k: int = 4) -> tuple[Workbench, list[Asked], Desk]:
    """The corpus without the targets, what was retrieved for the cases, and a desk to answer them."""
    rest = without_targets(corpus(), cases)
    bench = Workbench(rest, open_style_graph(rest, cache), TopicSearch(rest, HashEmbedder(), cache), llm)
    return bench, gather(bench, cases, k, 0, cases), Desk(llm, LeakGuard(cases, rest), drafts=3)


def results_from_json(value: dict[str, Any]) -> Results:
    """``results_to_json`` undone: what an evaluation wrote, as it was before."""

    def each(noun: type, metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {name: noun(**fields_of) for name, fields_of in metrics.items()}

    systems = {
        name: SystemResult(**{**s, "groups": {g: each(Estimate, metrics) for g, metrics in s["groups"].items()}})
        for name, s in value["systems"].items()
    }
    differences = {part: {name: each(Difference, metrics) for name, metrics in value[part].items()} for part in ("paired", "gain")}
    facts = RunFacts(**{f.name: value[f.name] for f in fields(RunFacts)} | {"notes": tuple(value["notes"])})
    plain = {name: value[name] for name in ("meteor", "n_users", "tokens_per_second", "judge")}
    return Results(facts, systems=systems, examples=tuple(Example(**e) for e in value["examples"]), **differences, **plain)


def read_results(path: Path) -> Results:
    """What the evaluation wrote to ``path``."""
    return results_from_json(json.loads(path.read_text(encoding="utf-8")))
