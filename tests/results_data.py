"""A results file made by hand, for tests: round synthetic values that no model ever reached, every part present unless taken out."""

from __future__ import annotations

from typing import Any

SYSTEMS = {  # name: (label, kind, description, score, copy rate, seconds)
    "none": ("No notes", "rival", "The model writes from the title alone.", 0.150, 0.02, 1.1),
    "lamp": ("LaMP, own history", "rival", "The person’s own reviews stand in the prompt.", 0.148, 0.03, 1.6),
    "pgraphrag": ("PGraphRAG, neighbors", "rival", "Reviews of the same topic stand in the prompt.", 0.132, 0.22, 1.9),
    "pgraphrag-both": ("PGraphRAG, history and neighbors", "rival", "Both stand in the prompt.", 0.134, 0.21, 2.2),
    "random": ("Somebody else’s review", "baseline", "A review taken at random.", 0.090, 0.0, 0.0),
    "title": ("The title alone", "baseline", "The title, nothing else.", 0.088, 0.0, 0.0),
    "copy-60": ("Neighbors, first 60 words", "baseline", "Title and neighbors, cut.", 0.185, 0.92, 0.0),
    "copy-100": ("Neighbors, first 100 words", "baseline", "Title and neighbors, cut.", 0.178, 0.95, 0.0),
    "pat-zero": ("PaT, untrained", "ablation", "Both agents without adapters.", 0.140, 0.05, 4.2),
    "pat": ("PaT", "ours", "Both agents, trained.", 0.200, 0.06, 4.4),
    "pat-style-only": ("PaT, style notes only", "ablation", "No topic notes.", 0.176, 0.03, 3.1),
    "pat-topic-only": ("PaT, topic notes only", "ablation", "No style notes.", 0.196, 0.06, 3.2),
    "pat-neither": ("PaT, no notes", "ablation", "The trained generator alone.", 0.168, 0.02, 1.2),
    "pat-wrong-user": ("PaT, another person’s notes", "control", "Style notes of somebody else.", 0.193, 0.06, 4.4),
    "reference": ("The person’s own text", "reference", "What there is to reach.", 1.0, 0.01, 0.0),
}
GROUPS = {"all": 200, "0": 150, "1": 34, "2+": 16}


def results(**changes: Any) -> dict[str, Any]:
    """The parsed file; ``changes`` replace top-level values."""
    whole = {
        "version": 1,
        "corpus": "synthetic_dev",
        "file": "synthetic_dev.json",
        "task": "long",
        "part": "untouched",
        "made_at": "2026-11-24T17:00:00Z",
        "command": "python -m pat_core.evaluate synthetic_dev.json --limit 200 --seed 0",
        "settings": {"limit": 200, "seed": 0, "drafts": 8, "k": 4, "temperature": 0.8, "rounds": 2, "systems": list(SYSTEMS)},
        "engine": "a model that does not exist, 2 threads",
        "adapters": {"style": "style-000", "topic": "topic-000", "generator": "generator-000"},
        "meteor": "equal words and stems (no WordNet data)",
        "n_users": 200,
        "seconds": 812.0,
        "tokens": 251_720,
        "tokens_per_second": 310.0,
        "systems": {name: system(name) for name in SYSTEMS},
        "paired": {
            name: {m: difference(0.2 - SYSTEMS[name][3], SYSTEMS[name][3]) for m in ("mean", "rouge_1", "rouge_l", "meteor", "style")}
            for name in SYSTEMS
            if name not in ("pat", "reference")
        },
        "gain": {g: {"mean": difference(0.007, 0.193, n), "rouge_1": difference(0.007, 0.193, n), "style": difference(0.03, 0.2, n)}
                 for g, n in {**GROUPS, "visitors": 60}.items()},
        "examples": [example(i) for i in range(20)],
        "judge": {"model": "a judge that does not exist", "notes": ["The judge favors no place."],
                  "rivals": {name: {"win_rate": 0.7 - 0.2 * i, "low": 0.6 - 0.2 * i, "high": 0.8 - 0.2 * i, "n": 120, "coverage": 0.6,
                                    "length_adjusted": 0.66, "pairs": 200} for i, name in enumerate(("none", "pgraphrag"))}},
        "notes": ["Synthetic figures for a test.", "PaT is not better than copying for people with two or more reviews."],
    }  # fmt: skip
    return whole | changes


def system(name: str) -> dict[str, Any]:
    label, kind, description, score, copied, seconds = SYSTEMS[name]

    def measures(n: int, lift: float) -> dict[str, Any]:
        mean = score + lift
        values = {"mean": mean, "rouge_1": mean + 0.04, "rouge_l": mean - 0.03, "meteor": mean - 0.01, "words": 48.0, "copy_rate": copied,
                  "style": 0.2 + score / 10, "consensus_distance": 0.4, "seconds": seconds, "tokens": 70.0}  # fmt: skip
        return {m: estimate(v, n, 0.14 * max(v, 0.05)) for m, v in values.items()}

    lifts = {"all": 0.0, "0": -0.004, "1": 0.01, "2+": 0.02}
    return {"label": label, "kind": kind, "description": description, "groups": {g: measures(n, lifts[g]) for g, n in GROUPS.items()}}


def estimate(mean: float, n: int, sd: float) -> dict[str, float]:
    half = 5 * sd / n**0.5
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def difference(mean: float, base: float, n: int = 200) -> dict[str, float | int | None]:
    half = 0.08 / n**0.5
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n, "relative": mean / base, "needed": 40}


def example(i: int) -> dict[str, Any]:
    texts = {name: f"{label} writes about item {i}. It is made of words that stand for a text, and of a few more to fill a line or two."
             for name, (label, *_) in SYSTEMS.items() if name != "reference"}  # fmt: skip
    return {
        "user_id": f"u{i}", "topic": f"Item {i}", "title": f"What I think of item {i}", "rating": 1 + i % 5, "history": "0",
        "reference": f"This is what the person wrote about item {i}! Short and glad.",
        "style_summary": "Evidence: about 45 words.\nInference: a glad writer.\nGuidance: end on an exclamation mark.",
        "topic_summary": "Evidence: 3 of 4 like the handle.\nInference: the lid is disputed.\nGuidance: praise the handle.", "texts": texts,
    }  # fmt: skip
