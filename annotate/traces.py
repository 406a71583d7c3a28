"""A run of the method as things to judge: what was asked becomes an ``Item``, each of its texts a ``Candidate`` with the trace behind it.

A judge sees the item's reference and the texts; the trace is for training and for whoever asks later why a text is as it is. Leaves out
which texts are compared (``making``, Compose).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotate.fields import MAX_PROMPT
from annotate.types import Candidate, Item
from pat_core.types import ADAPTER_ROLES, AGENTS, Completion, Neighbor, Query, Reward, Role, Trace

MAX_EVIDENCE = 4  # texts shown as a reference
TITLE_CHARS = 2_000


def item_of(query: Query, style_neighbors: tuple[Neighbor, ...] = (), *, source: str = "", split: str = "") -> Item:
    """What was asked, with what the judge holds the texts against: statements and own texts, else texts by people who write alike."""
    own = query.samples[:MAX_EVIDENCE]
    reference = {
        "topic": query.topic,
        "title": query.title,
        "rating": query.rating,
        "statements": list(query.statements),
        "samples": list(own),
        "neighbors": [] if own or query.statements else [n.review.text for n in style_neighbors[:MAX_EVIDENCE]],
    }
    prompt = f"Review of {query.topic}: {query.title}"[: min(TITLE_CHARS, MAX_PROMPT)]
    return Item(prompt, reference, source, split=split)


def candidates_of(trace: Trace, item: Item) -> dict[str, Candidate]:
    """The texts of one run by what they are: ``draft-0`` .. and the names of the alternatives; texts that are empty are left out."""
    found = {
        f"draft-{i}": candidate_of(
            trace,
            item,
            "pat",
            d.completion.text,
            d.completion,
            d.reward,
            trace.copy_rate if i == trace.chosen else None,
            differs="generator",
        )
        for i, d in enumerate(trace.drafts)
    }
    found |= {a.name: candidate_of(trace, item, a.name, a.text, a.completion, a.reward, a.copy_rate) for a in trace.alternatives}
    return {name: c for name, c in found.items() if c is not None}


def candidate_of(
    trace: Trace,
    item: Item,
    system: str,
    text: str,
    completion: Completion | None,
    reward: Reward,
    copy_rate: float | None,
    *,
    differs: Role | None = None,
) -> Candidate | None:
    """One text with its trace, None where it is empty. ``differs`` names the role whose completion a one-factor pair compares."""
    if not text.strip():
        return None
    value: dict[str, Any] = {
        "engine": trace.engine,
        "seed": trace.query.seed,
        "rewards": {"total": round(reward.total, 6), "terms": _rounded(reward.terms), "weights": dict(reward.weights)},
        "copy_rate": copy_rate,
    }
    if completion is not None:
        value |= {"messages": _messages(completion), "finish": completion.finish}
    if system == "pat" and trace.rounds:
        last = trace.rounds[-1]
        made_by = {"style": last.style, "topic": last.topic, "generator": completion}
        value["summaries"] = {agent: made_by[agent].text for agent in AGENTS}
        value["adapters"] = {role: made_by[role].adapter for role in ADAPTER_ROLES if made_by[role] is not None}
        if differs is not None and made_by[differs] is not None:
            taught = made_by[differs]
            value["completion"] = {"role": differs, "messages": _messages(taught), "prefix": taught.prompt.prefix, "text": taught.text}
    return Candidate(item.item_id, text, system, value)


def _messages(completion: Completion) -> list[list[str]]:
    return [[speaker, text] for speaker, text in completion.prompt.messages]


def _rounded(terms: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in terms.items()}
