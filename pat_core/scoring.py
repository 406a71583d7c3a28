"""Predictions -> ``Results``: means with intervals by system and history, paired differences, the personal gain, examples side by side.

A ``Prediction`` is one line of the predictions file and holds all that scoring needs, so that a file can be scored again without a model or
the corpus. The form of ``Results`` as JSON is what the report and the page read. Leaves out judges (``llm_judge``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pat_core.asked import Asked
from pat_core.benchmark import GROUPS, VISITORS, Task
from pat_core.desk import Answer
from pat_core.embed import Embedder
from pat_core.estimates import Difference, Estimate, estimate, paired, root_estimate
from pat_core.metrics import cosine, longest_shared_run, meteor, meteor_matching, n_words, rouge_1, rouge_l, style_cosine
from pat_core.pipeline import Workbench
from pat_core.predictions import Prediction, RunFacts
from pat_core.stylometry import words_of
from pat_core.systems import SYSTEMS, System, rating_of

VERSION = 1
N_EXAMPLES = 20
N_OWN = 3  # other texts by the person that a line keeps
N_CONSENSUS = 30  # reviews of a topic that its consensus is made of, at most
TEXT_METRICS = ("rouge_1", "rouge_l", "meteor", "mean", "words", "copy_rate", "style", "consensus_distance", "seconds", "tokens")
RATING_METRICS = ("mae", "rmse", "seconds", "tokens")
PAIRED = {
    "long": ("rouge_1", "rouge_l", "meteor", "mean", "copy_rate", "style", "consensus_distance", "words"),
    "short": ("rouge_1", "rouge_l", "meteor", "mean", "copy_rate", "style", "consensus_distance", "words"),
    "rating": ("mae",),
}


@dataclass(frozen=True)
class SystemResult:
    """``groups``: "all" and each history size -> metric -> estimate."""

    label: str
    kind: str
    description: str
    groups: dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class Example:
    """One case with what some systems wrote for it."""

    user_id: str
    topic: str
    title: str
    rating: float | None
    history: str
    reference: str
    style_summary: str
    topic_summary: str
    texts: dict[str, str]


@dataclass(frozen=True)
class Results:
    """Everything that a report shows. ``paired``: system -> metric -> PaT minus it; ``gain``: history size -> metric -> PaT minus PaT with
    the wrong user."""

    facts: RunFacts
    meteor: str
    n_users: int
    tokens_per_second: float
    systems: dict[str, SystemResult]
    paired: dict[str, dict[str, Difference]]
    gain: dict[str, dict[str, Difference]]
    examples: tuple[Example, ...]
    judge: dict[str, Any] | None = None


# One answer -> one line


def predictions(
    bench: Workbench, run: str, system: System, asked: Sequence[Asked], answers: Sequence[Answer], embedder: Embedder
) -> list[Prediction]:
    """The lines of a system's answers, measured."""
    far = _consensus_distances(bench, asked, answers, embedder) if asked and asked[0].case.task != "rating" else [None] * len(asked)
    return [_prediction(bench, run, system.name, a, answer, d) for a, answer, d in zip(asked, answers, far, strict=True)]


def _prediction(bench: Workbench, run: str, system: str, asked: Asked, answer: Answer, distance: float | None) -> Prediction:
    case, phi = asked.case, bench.style_graph.phi
    is_text = case.task != "rating"
    sources = asked.sources if case.task == "long" else (*asked.sources, case.shown)
    return Prediction(
        run=run,
        user_id=case.target.user_id,
        review_id=case.target.review_id,
        system=system,
        history=case.group,
        task=case.task,
        topic=case.query.topic,
        title=case.query.title,
        rating=case.query.rating,
        text=answer.text,
        reference=case.reference,
        prompt_sha256=answer.prompt_sha256,
        adapter=answer.adapter,
        seconds=round(answer.seconds, 4),
        tokens=answer.tokens,
        copied=longest_shared_run(answer.text, sources) if is_text else None,
        style=round(style_cosine(answer.text, case.reference, phi), 6) if is_text else None,
        consensus_distance=distance,
        style_summary=answer.style_summary,
        topic_summary=answer.topic_summary,
        drafts=answer.drafts,
        own_texts=case.query.samples[:N_OWN],
    )


def _consensus_distances(bench: Workbench, asked: Sequence[Asked], answers: Sequence[Answer], embedder: Embedder) -> list[float | None]:
    """1 - cosine of each text and the mean of what others wrote on the topic, by meaning; None where nobody did."""
    titles = asked[0].case.task == "short"
    told = [[(r.title if titles else r.text) or r.topic for r in _others(bench, a)] for a in asked]
    distances: list[float | None] = []
    vectors = embedder.encode([a.text or " " for a in answers] + [t for texts in told for t in texts])
    at = len(answers)
    for vector, texts in zip(vectors, told, strict=False):
        consensus = vectors[at : at + len(texts)]
        at += len(texts)
        distances.append(round(1 - cosine(vector, consensus.mean(axis=0)), 6) if texts else None)
    return distances


def _others(bench: Workbench, asked: Asked) -> list[Any]:
    reviews = bench.corpus.by_topic.get(asked.case.query.topic_id, ())
    return [r for r in reviews if r.user_id != asked.case.target.user_id][:N_CONSENSUS]


# Lines -> results


def score(lines: Iterable[Prediction], facts: RunFacts, seed: int = 0) -> Results:
    """The results of all lines of one run. ValueError where there are none."""
    by_system: dict[str, dict[tuple[str, bool], Prediction]] = defaultdict(dict)
    for line in lines:
        by_system[line.system][line.case_id] = line
    if not by_system:
        raise ValueError("there are no predictions to score")
    names = [name for name in SYSTEMS if name in by_system]
    rows = {name: {case: measures(line) for case, line in by_system[name].items()} for name in names}
    known = {case: line for name in names for case, line in by_system[name].items() if not case[1]}
    groups = {"all": list(known)} | {g: [c for c, line in known.items() if line.history == g] for g in GROUPS}
    groups = {name: cases for name, cases in groups.items() if cases}
    visitors = [case for case in by_system.get("pat", {}) if case[1]]
    return Results(
        facts=facts,
        meteor=meteor_matching(),
        n_users=len(known),
        tokens_per_second=round(facts.tokens / facts.seconds, 1) if facts.seconds else 0.0,
        systems={name: _system_result(name, rows[name], groups, facts.task, seed) for name in names},
        paired=_paired(rows, groups["all"], facts.task, seed),
        gain=_gain(rows, groups | ({VISITORS: visitors} if visitors else {}), facts.task, seed),
        examples=_examples(by_system, names, list(known)),
    )


Case = tuple[str, bool]
Measures = Mapping[str, float]


def measures(line: Prediction) -> Measures:
    """Every measure of one answer; for ratings the error and its square."""
    cost = {"seconds": line.seconds, "tokens": float(line.tokens)}
    if line.task == "rating":
        error = abs(_number(line.text) - float(line.reference))
        return {"mae": error, "rmse": error**2} | cost
    n = len(words_of(line.text))
    words = _overlap(line.text, line.reference)
    found = {"words": float(n_words(line.text)), "copy_rate": (line.copied or 0) / n if n else 0.0} | cost
    optional = {"style": line.style, "consensus_distance": line.consensus_distance}
    return dict(words) | found | {name: value for name, value in optional.items() if value is not None}


def _number(text: str) -> float:
    try:
        return min(5.0, max(1.0, float(text)))
    except ValueError:
        return rating_of(text)


@lru_cache(maxsize=100_000)
def _overlap(text: str, reference: str) -> tuple[tuple[str, float], ...]:
    found = {"rouge_1": rouge_1(text, reference), "rouge_l": rouge_l(text, reference), "meteor": meteor(text, reference)}
    return tuple((found | {"mean": float(np.mean(list(found.values())))}).items())


def _system_result(name: str, rows: Mapping[Case, Measures], groups: Mapping[str, list[Case]], task: Task, seed: int) -> SystemResult:
    system = SYSTEMS[name]
    metrics = RATING_METRICS if task == "rating" else TEXT_METRICS
    found = {}
    for group, cases in groups.items():
        columns = {m: [rows[c][m] for c in cases if c in rows and m in rows[c]] for m in metrics}
        found[group] = {m: (root_estimate if m == "rmse" else estimate)(values, seed) for m, values in columns.items() if values}
    return SystemResult(system.label, system.kind, system.description, {g: m for g, m in found.items() if m})


def _paired(rows: Mapping[str, Mapping[Case, Measures]], cases: Sequence[Case], task: Task, seed: int) -> dict[str, dict[str, Difference]]:
    if "pat" not in rows:
        return {}
    return {name: _differences(rows["pat"], other, cases, task, seed) for name, other in rows.items() if name != "pat"}


def _gain(
    rows: Mapping[str, Mapping[Case, Measures]], groups: Mapping[str, Sequence[Case]], task: Task, seed: int
) -> dict[str, dict[str, Difference]]:
    if "pat" not in rows or "pat-wrong-user" not in rows:
        return {}
    found = {g: _differences(rows["pat"], rows["pat-wrong-user"], cases, task, seed) for g, cases in groups.items()}
    return {g: differences for g, differences in found.items() if differences}


def _differences(
    a: Mapping[Case, Measures], b: Mapping[Case, Measures], cases: Sequence[Case], task: Task, seed: int
) -> dict[str, Difference]:
    found = {}
    for metric in PAIRED[task]:
        pairs = [(a[c][metric], b[c][metric]) for c in cases if c in a and c in b and metric in a[c] and metric in b[c]]
        if pairs:
            found[metric] = paired([x for x, _ in pairs], [y for _, y in pairs], seed)
    return found


def _examples(by_system: Mapping[str, Mapping[Case, Prediction]], names: Sequence[str], cases: Sequence[Case]) -> tuple[Example, ...]:
    found = []
    for case in cases[:N_EXAMPLES]:
        lines = {name: by_system[name][case] for name in names if case in by_system[name]}
        first = lines.get("pat") or next(iter(lines.values()))
        texts = {name: line.text for name, line in lines.items() if name != "reference"}
        found.append(
            Example(
                first.user_id,
                first.topic,
                first.title,
                first.rating,
                first.history,
                first.reference,
                first.style_summary,
                first.topic_summary,
                texts,
            )
        )
    return tuple(found)


# Results <-> JSON


def results_to_json(results: Results) -> dict[str, Any]:
    """The results as plain JSON values, the facts of the run beside the figures."""
    value = asdict(results)
    facts = value.pop("facts")
    facts["seconds"] = round(facts["seconds"], 1)
    return json.loads(json.dumps({"version": VERSION, **facts, **value}, allow_nan=False))


# Results -> the terminal

_HEADS = {
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "mean": "mean",
    "words": "words",
    "copy_rate": "copied",
    "style": "style",
    "consensus_distance": "from consensus",
    "mae": "MAE",
    "rmse": "RMSE",
    "seconds": "seconds",
    "tokens": "tokens",
}
_DIGITS = {"words": 0, "tokens": 0, "seconds": 2}


def render(results: Results) -> str:
    """The results as the tables of the command line, in Markdown."""
    r, facts = results, results.facts
    head = f"### {facts.corpus}: {facts.task}, {r.n_users:,} people ({facts.part})"
    lines = [head, "", f"{facts.engine}. METEOR: {r.meteor}.", *facts.notes, ""]
    groups = list(dict.fromkeys(g for s in r.systems.values() for g in s.groups))
    for group in groups if len(groups) > 2 else groups[:1]:  # one history size only is everybody
        lines += [*_systems_table(r, group), ""]
    if r.paired:
        lines += _difference_table("PaT minus", r.paired, first="system")
    if r.gain:
        lines += ["", *_difference_table("Personal gain: PaT minus PaT with the wrong user", r.gain, first="history")]
    lines += ["", f"Writing took {facts.seconds:,.0f} s, {r.tokens_per_second:,.0f} tokens a second."]
    return "\n".join(lines)


def _systems_table(results: Results, group: str) -> list[str]:
    metrics = RATING_METRICS if results.facts.task == "rating" else TEXT_METRICS
    title = "everybody" if group == "all" else f"history {group}"
    lines = [f"| {title} | n | " + " | ".join(_HEADS[m] for m in metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for name, system in results.systems.items():
        found = system.groups.get(group)
        if found:
            n = max(e.n for e in found.values())
            lines.append(f"| {name} | {n} | " + " | ".join(_cell(m, found.get(m)) for m in metrics) + " |")
    return lines


def _cell(metric: str, value: Estimate | None) -> str:
    if value is None:
        return ""
    if metric in _DIGITS:
        return f"{value.mean:,.{_DIGITS[metric]}f}"
    return str(value) if metric in ("rouge_1", "rouge_l", "meteor", "mean", "mae", "rmse") else f"{value.mean:.3f}"


def _difference_table(title: str, table: Mapping[str, Mapping[str, Difference]], first: str) -> list[str]:
    metrics = [m for m in ("rouge_1", "rouge_l", "meteor", "mean", "style", "mae") if any(m in d for d in table.values())]
    lead = "mean" if "mean" in metrics else "mae"
    lines = [f"**{title}**", "", f"| {first} | n | " + " | ".join(_HEADS[m] for m in metrics) + " | relative | people needed |"]
    lines.append("|---" * (len(metrics) + 4) + "|")
    for name, differences in table.items():
        main = differences.get(lead)
        if main:
            relative = "" if main.relative is None else f"{main.relative:+.1%}"
            needed = "" if main.needed is None else f"{main.needed:,}"
            cells = " | ".join(str(differences.get(m, "")) for m in metrics)
            lines.append(f"| {name} | {main.n} | {cells} | {relative} | {needed} |")
    return lines
