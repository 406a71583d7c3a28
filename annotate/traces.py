"""A run of the method as things to judge: what was asked becomes an ``Item``, each of its texts a ``Candidate`` with the trace behind it.

A judge sees the item's reference and the texts; the trace is for training and for whoever asks later why a text is as it is. Leaves out
which texts are compared (``making``, Compose).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from annotate.fields import MAX_NAME
from annotate.types import Candidate, Item
from pat_core.metrics import copy_rate
from pat_core.pipeline import COPY_WORDS, text_sampling
from pat_core.types import AGENTS, Alternative, Completion, Neighbor, Query, Reward, Role, Trace

SAMPLES_SHOWN, WORDS_SHOWN = 4, 150


def reference_of(query: Query, style_neighbors: Sequence[Neighbor]) -> dict[str, Any]:
    """What a judge sees above the two texts: topic, title, stars, how the person writes or, where nothing is known, who writes alike."""
    samples = [_shortened(t) for t in query.samples[:SAMPLES_SHOWN]]
    alike = [] if samples or query.statements else [_shortened(n.review.text) for n in style_neighbors[:SAMPLES_SHOWN]]
    return {
        "topic": query.topic,
        "title": query.title,
        "rating": query.rating,
        "statements": list(query.statements),
        "samples": samples,
        "neighbors": alike,
    }


def item_of(
    query: Query,
    style_neighbors: Sequence[Neighbor],
    *,
    source: str = "",
    lang: str = "en",
    split: str = "",
    contributor_id: str | None = None,
) -> Item:
    """The item of a query: its prompt and its reference."""
    prompt = f"Review of {query.topic}" + (f": {query.title}" if query.title else "")
    return Item(prompt, reference_of(query, style_neighbors), source[:MAX_NAME], lang, split, contributor_id)


def candidate_of(item: Item, trace: Trace, *, role: Role | None = None) -> Candidate:
    """PaT's text in ``trace`` with all that made it; ``role`` names the completion in which a one-factor pair differs."""
    draft, last = trace.drafts[trace.chosen], trace.rounds[-1]
    how = _how(trace, draft.completion, draft.reward, trace.copy_rate)
    how["sampler"]["n_drafts"] = len(trace.drafts)
    how |= {
        "seed": trace.query.seed + trace.chosen,
        "summaries": {agent: getattr(last, agent).text for agent in AGENTS},
        "adapters": {c.role: c.adapter for c in (last.style, last.topic, draft.completion) if c.adapter},
    }
    if role is not None:
        how["completion"] = _as_trained(draft.completion if role == "generator" else getattr(last, role))
    return Candidate(item.item_id, draft.completion.text, "pat", how)


def alternative_of(item: Item, trace: Trace, alternative: Alternative) -> Candidate:
    """Another system's text in ``trace`` with all that made it; a copy has no prompt and no sampler."""
    how = _how(trace, alternative.completion, alternative.reward, alternative.copy_rate)
    if alternative.completion is None:
        how["finish"] = "length" if len(alternative.text.split()) >= COPY_WORDS else "stop"
    return Candidate(item.item_id, alternative.text, alternative.name, how)


def candidates_of(trace: Trace, item: Item) -> dict[str, Candidate]:
    """Every text of a run by what it is: ``draft-0`` and so on (as one-factor candidates of the generator), and the alternatives' names.

    Empty texts are left out.
    """
    retrieved = tuple({n.review.text for n in (*trace.style_neighbors, *trace.topic_neighbors)})
    found = {}
    for i, draft in enumerate(trace.drafts):
        if text := draft.completion.text.strip():
            alone = replace(trace, chosen=i, copy_rate=copy_rate(text, retrieved))
            found[f"draft-{i}"] = candidate_of(item, alone, role="generator")
    return found | {a.name: alternative_of(item, trace, a) for a in trace.alternatives if a.text.strip()}


def _how(trace: Trace, written: Completion | None, reward: Reward, copied: float) -> dict[str, Any]:
    """What every text keeps: engine, seed, rewards, and where a model wrote it the prompt, the sampler, the adapter and how it ended."""
    how: dict[str, Any] = {
        "engine": trace.engine,
        "seed": trace.query.seed,
        "rewards": {"total": round(reward.total, 6), "terms": {name: round(float(value), 6) for name, value in reward.terms.items()}},
        "copy_rate": round(copied, 6),
    }
    if written is not None:
        how |= {
            "messages": [list(message) for message in written.prompt.messages],
            "sampler": asdict(text_sampling(written.adapter, trace.options.temperature)),
            "adapters": {written.role: written.adapter} if written.adapter else {},
            "finish": written.finish,
        }
    return how


def _as_trained(completion: Completion) -> dict[str, Any]:
    """A completion as training needs it: ``prefix`` and ``text`` together are the whole answer, in the form that was passed on."""
    prefix = completion.prompt.prefix
    return {
        "role": completion.role,
        "messages": [list(message) for message in completion.prompt.messages],
        "prefix": prefix,
        "text": completion.text.removeprefix(prefix),
        "finish": completion.finish,
    }


def _shortened(text: str) -> str:
    """A text as the judge sees it: whole, or its first words with an ellipsis."""
    words = text.split()
    return text if len(words) <= WORDS_SHOWN else " ".join(words[:WORDS_SHOWN]) + " …"
