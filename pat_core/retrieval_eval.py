"""How well retrieval works, on reviews it has not seen (``python -m pat_core.evaluate --retrieval FILE``).

Style: people are held out in folds; scale and models are made from the rest, and the text held out is compared with the texts that each
system would hand to the style agent. Topic: how many of its words each backoff level finds. Leaves out generated texts.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pat_core.benchmark import Case, has_company, held_out_cases, shuffled
from pat_core.corpus import Corpus, hold_out
from pat_core.estimates import Estimate, estimate
from pat_core.graph import Measured, StyleGraph
from pat_core.labels import content_words
from pat_core.metrics import cosine
from pat_core.progress import Progress
from pat_core.topics import N_LEVELS, TopicSearch
from pat_core.types import Query

N_FOLDS = 5
K_STYLE, K_TOPIC = 8, 4
MIN_COLD = 100  # with fewer people without history, the others are also asked about with their history hidden
N_RECALL = 400  # held-out people whose topic recall is measured
RIDGES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
STYLE_SYSTEMS = ("random users", "same topic", "raw phi", "ridge", "ridge, as a set", "graph, one by one", "graph")
HIDDEN = "0, history hidden"


@dataclass(frozen=True, slots=True)
class LevelRecall:
    """Topic recall of one backoff level: ``recall`` where the level has any review, which is so for ``share`` of the people."""

    name: str
    share: float
    recall: Estimate | None


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """``style``: history size -> system -> style similarity; ``gain``: history size -> graph minus another system, paired."""

    corpus: str
    style: dict[str, dict[str, Estimate]]
    gain: dict[str, dict[str, Estimate]]
    recall: tuple[LevelRecall, ...]
    seconds: dict[str, float]


def hidden_cases(corpus: Corpus, limit: int | None = None, seed: int = 0) -> list[Case]:
    """A case for each review, asked as if its user had written nothing else."""
    cases = []
    for reviews in corpus.by_user.values():
        everything = frozenset(r.review_id for r in reviews)
        for target in filter(lambda r: has_company(corpus, r), reviews):
            query = hold_out(corpus, target, seed=seed)
            cases.append(Case(target, replace(query, history=(), held_out=query.held_out | everything), HIDDEN))
    return shuffled(cases, limit, seed)


def style_scores(corpus: Corpus, cases: Sequence[Case], seed: int = 0, progress: Progress | None = None) -> list[dict[str, float]]:
    """For each case, system -> cosine of phi of the held-out text and the mean phi of the texts retrieved.

    Cross-validated over users: neither the scale nor a model sees what is held out of its fold.
    """
    users = sorted({case.target.user_id for case in cases})
    fold_of = dict(zip(users, np.random.default_rng(seed).permutation(len(users)) % N_FOLDS, strict=True))
    folds: dict[int, list[int]] = defaultdict(list)
    for i, case in enumerate(cases):
        folds[fold_of[case.target.user_id]].append(i)
    measured = Measured.of(corpus, progress)
    scores: list[dict[str, float]] = [{} for _ in cases]
    for n, members in enumerate(folds.values(), 1):
        part = [cases[i] for i in members]
        for i, score in zip(
            members, _fold_scores(corpus, measured, part, seed, _labeled(progress, f"fold {n} of {len(folds)}")), strict=True
        ):
            scores[i] = score
    return scores


def _fold_scores(corpus: Corpus, measured: Measured, cases: Sequence[Case], seed: int, progress: Progress | None) -> list[dict[str, float]]:
    held_out = frozenset().union(*(case.query.held_out for case in cases))
    kept = np.array([r.review_id not in held_out for r in corpus.reviews])
    rest = corpus.without(held_out)
    graph = StyleGraph(rest, Measured(measured.texts[kept], measured.titles[kept]), seed=seed, progress=progress)
    queries = [replace(case.query, history=tuple(r for r in case.query.history if r.review_id not in held_out)) for case in cases]
    phi = graph.scale.standardize(measured.texts[kept])
    targets = graph.scale.standardize(measured.texts[[i for i, keep in enumerate(kept) if not keep]])
    target_of = dict(zip((r.review_id for r in corpus.reviews if r.review_id in held_out), targets, strict=True))
    predicted, linear = graph.predict(queries), ridge_predictions(graph, queries)
    rng = np.random.default_rng(seed)
    scores = []
    for i, (case, query) in enumerate(zip(cases, queries, strict=True)):
        rows = {
            "random users": _random_rows(graph, query, rng),
            "same topic": _topic_rows(graph, query, rng),
            "raw phi": graph.nearest(query, _raw_phi(graph, query), K_STYLE),
            "ridge": graph.nearest(query, linear[i], K_STYLE),
            "ridge, as a set": graph.choose(query, linear[i], K_STYLE),
            "graph, one by one": graph.nearest(query, predicted[i], K_STYLE),
            "graph": graph.choose(query, predicted[i], K_STYLE),
        }
        target = target_of[case.target.review_id]
        scores.append({system: cosine(target, phi[found].mean(axis=0)) for system, found in rows.items() if found})
        if progress:
            progress("Comparing styles", i + 1, len(cases))
    return scores


def ridge_predictions(graph: StyleGraph, queries: Sequence[Query]) -> np.ndarray:
    """The linear rival (q, d): phi regressed on the mean phi of the topic's other reviews, phi of the title, and the rating.

    Fitted on the reviews of ``graph``, each without itself; its strength chosen by generalized cross-validation.
    """
    from sklearn.linear_model import RidgeCV

    reviews = graph.corpus.reviews
    phi = graph.scale.standardize(graph.measured.texts)
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(phi.shape[1]))
    counts: dict[str, int] = defaultdict(int)
    for review, row in zip(reviews, phi, strict=True):
        sums[review.topic_id] += row
        counts[review.topic_id] += 1

    def inputs(topic_id: str, own: np.ndarray | float, n_own: int, title: np.ndarray, rating: float | None) -> np.ndarray:
        mean = (sums[topic_id] - own) / max(1, counts[topic_id] - n_own)
        return np.concatenate([mean, title, [0.0 if rating is None else rating - 3]])

    titles = graph.scale.standardize(graph.measured.titles)
    x = np.stack([inputs(r.topic_id, row, 1, title, r.rating) for r, row, title in zip(reviews, phi, titles, strict=True)])
    # a held-out person's other reviews stay in their topic's mean here; for people without history there are none
    asked = np.stack([inputs(q.topic_id, 0.0, 0, graph.phi(q.title), q.rating) for q in queries])
    return RidgeCV(alphas=RIDGES).fit(x, phi).predict(asked)


def topic_recall(search: TopicSearch, cases: Sequence[Case], progress: Progress | None = None) -> tuple[LevelRecall, ...]:
    """Share of the held-out text's content words, those of its title aside, that the best ``K_TOPIC`` reviews of each level use.

    Then the same for the neighbors that the method uses, and for reviews taken at random.
    """
    names = [f"level {level}" for level in range(N_LEVELS)] + ["as retrieved", "at random"]
    found: dict[str, list[float]] = {name: [] for name in names}
    rng = np.random.default_rng(0)
    asked = 0
    for n, case in enumerate(cases, 1):
        wanted = set(content_words(case.target.text)) - set(content_words(case.query.title))
        if wanted:
            asked += 1
            others = [r for r in search.corpus.reviews if r.review_id not in case.query.held_out and r.user_id != case.query.user_id]
            lists = [[x.review for x in level[:K_TOPIC]] for level in search.levels(case.query, K_TOPIC)]
            lists.append([x.review for x in search.neighbors(case.query, K_TOPIC)])
            lists.append([others[i] for i in rng.choice(len(others), min(K_TOPIC, len(others)), replace=False)])
            for name, reviews in zip(names, lists, strict=True):
                if reviews:
                    used = {word for r in reviews for word in content_words(f"{r.title} {r.text}")}
                    found[name].append(len(wanted & used) / len(wanted))
        if progress:
            progress("Measuring topic recall", n, len(cases))
    return tuple(LevelRecall(name, len(v) / max(1, asked), estimate(v) if v else None) for name, v in found.items())


def evaluate_retrieval(
    corpus: Corpus, search: TopicSearch | None, limit: int | None = None, seed: int = 0, progress: Progress | None = None
) -> RetrievalReport:
    """Both retrievals on held-out people; ``search`` None leaves topic recall out. ValueError where nobody can be held out."""
    started = time.perf_counter()
    cases = held_out_cases(corpus, limit, seed)
    if not cases:
        raise ValueError(f"{corpus.name} has no user whose topic somebody else reviewed too; nothing can be held out")
    by_group: dict[str, list[dict[str, float]]] = defaultdict(list)
    _collect(by_group, cases, style_scores(corpus, cases, seed, progress))
    if len(by_group["0"]) < MIN_COLD:
        hidden = hidden_cases(corpus, limit, seed)
        _collect(by_group, hidden, style_scores(corpus, hidden, seed, progress))
    seconds = {"style": time.perf_counter() - started}
    started = time.perf_counter()
    recall = topic_recall(search, cases[:N_RECALL], progress) if search else ()
    seconds["topic recall"] = time.perf_counter() - started
    style, gain = {}, {}
    for group in sorted(group for group, scores in by_group.items() if scores):
        columns = {s: [score[s] for score in by_group[group] if s in score] for s in STYLE_SYSTEMS}
        style[group] = {s: estimate(values, seed) for s, values in columns.items() if values}
        pairs = {s: [score["graph"] - score[s] for score in by_group[group] if s in score and "graph" in score] for s in STYLE_SYSTEMS[:-1]}
        gain[group] = {s: estimate(values, seed) for s, values in pairs.items() if values}
    return RetrievalReport(corpus.name, style, gain, recall, seconds)


def render(report: RetrievalReport) -> str:
    """The report as the tables of the command line, in Markdown."""
    lines = [
        f"### {report.corpus}: style",
        "",
        f"Cosine of phi of the held-out text and the mean phi of {K_STYLE} retrieved texts, with 95% bootstrap intervals over people.",
        "",
        "| history | system | people | similarity | graph minus it |",
        "|---|---|---|---|---|",
    ]
    for group, systems in report.style.items():
        for system, value in systems.items():
            gain = report.gain[group].get(system)
            told = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" if gain else ""
            lines.append(f"| {group} | {system} | {value.n:,} | {value} | {told} |")
    if report.recall:
        lines += [
            "",
            f"### {report.corpus}: topic",
            "",
            f"Share of the held-out text's content words, those of its title aside, that the best {K_TOPIC} reviews of a level use.",
            "",
            "| neighbors | people for whom there are any | recall |",
            "|---|---|---|",
        ]
        lines += [f"| {x.name} | {x.share:.0%} | {x.recall or ''} |" for x in report.recall]
    lines += ["", "Seconds: " + ", ".join(f"{name} {s:.0f}" for name, s in report.seconds.items())]
    return "\n".join(lines)


def _collect(by_group: dict[str, list[dict[str, float]]], cases: Iterable[Case], scores: Iterable[dict[str, float]]) -> None:
    for case, score in zip(cases, scores, strict=True):
        by_group[case.group].append(score)


def _random_rows(graph: StyleGraph, query: Query, rng: np.random.Generator) -> list[int]:
    """One review each of people taken at random."""
    others = np.flatnonzero(graph.allowed_users(query))
    chosen = rng.choice(others, min(K_STYLE, len(others)), replace=False)
    return [int(rng.choice(graph.rows_of_user[graph.users[i]])) for i in chosen]


def _topic_rows(graph: StyleGraph, query: Query, rng: np.random.Generator) -> list[int]:
    """Reviews of the same topic by others, taken at random."""
    rows = [row for row in graph.rows_of_topic.get(query.topic_id, ()) if graph.corpus.reviews[row].user_id != query.user_id]
    return [rows[i] for i in rng.permutation(len(rows))[:K_STYLE]]


def _raw_phi(graph: StyleGraph, query: Query) -> np.ndarray:
    """Mean phi of what is known of the person's texts: their history, or the title alone."""
    return np.mean([graph.phi(text) for text in query.samples or (query.title,)], axis=0)


def _labeled(progress: Progress | None, label: str) -> Progress | None:
    return (lambda what, done, total: progress(f"{what}, {label}", done, total)) if progress else None
