"""What people's votes teach: kept judgments as the comparisons and choices that ``pat_core.preferences`` mixes into training pairs.

A one-factor pair becomes a comparison of the two answers of its agent, a system pair one that trains nobody and only calibrates; a swapped
repeat counts as another answer about the pair it repeats, and constructed checks teach nothing. Leaves out how votes and rewards are mixed
(``preferences``) and training (``learning``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from annotate.store import Store
from annotate.types import Candidate, Judgment, Pair, winner
from annotate.votes import OPINIONS, Judged, read_judged, reward_of
from pat_core.llm.prompting import SPEAKERS
from pat_core.metrics import n_words
from pat_core.preferences import Choice, Comparison, Winner
from pat_core.types import Role

Messages = tuple[tuple[str, str], ...]


def lessons(store: Store, until: str = "") -> tuple[tuple[Comparison, ...], tuple[Choice, ...]]:
    """All pairs that people judged, as comparisons of lo (a) and hi (b), and their current answers, without excluded ones.

    ``until`` is a time of the store: answers given later are left out, so that a run that was stopped finds the same ones again.
    """
    judged = _given_until(until, read_judged(store, OPINIONS))
    originals = {p.repeat_of for p in judged.pairs.values() if p.repeat_of} - judged.pairs.keys()
    pairs = judged.pairs | {id_: pair for id_ in originals if (pair := store.find(Pair, pair_id=id_)) is not None}
    taught = {id_: p for id_, p in pairs.items() if p.kind in ("one-factor", "system")}
    choices = [choice for j in judged.judgments if (choice := _choice(j, judged)).pair_id in taught]
    return tuple(_comparison(id_, p, judged.candidates) for id_, p in taught.items()), tuple(choices)


def _given_until(until: str, judged: Judged) -> Judged:
    if not until:
        return judged
    judgments = tuple(j for j in judged.judgments if j.created_at <= until)
    wanted = {j.pair_id for j in judgments}
    return replace(judged, judgments=judgments, pairs={id_: p for id_, p in judged.pairs.items() if id_ in wanted})


def _choice(judgment: Judgment, judged: Judged) -> Choice:
    pair = judged.pairs[judgment.pair_id]
    preferred = winner(pair, judgment)
    answer: Winner = judgment.outcome if preferred is None else "a" if preferred == pair.lo_id else "b"  # type: ignore[assignment]
    return Choice(
        pair.repeat_of or judgment.pair_id, judgment.annotator_id, answer, judgment.shown_left_id == pair.lo_id, judgment.judgment_id
    )


def _comparison(pair_id: str, pair: Pair, candidates: Mapping[str, Candidate]) -> Comparison:
    a, b = candidates[pair.lo_id], candidates[pair.hi_id]
    (prompt, answer_a), (prompt_b, answer_b) = (_completion(c, pair.agent) for c in (a, b))
    words = (n_words(a.text), n_words(b.text))
    same = prompt if prompt == prompt_b else ()
    return Comparison(pair_id, pair.agent, same, answer_a, answer_b, reward_of(a), reward_of(b), *words)


def _completion(candidate: Candidate, agent: Role | None) -> tuple[Messages, str]:
    """The prompt and the whole answer of ``agent`` behind a text; empty where an imported trace does not hold them."""
    done = candidate.trace.get("completion")
    if agent is None or not isinstance(done, dict) or done.get("role") != agent:
        return (), ""
    prefix, text, messages = done.get("prefix", ""), done.get("text", ""), done.get("messages", [])
    if not (isinstance(prefix, str) and isinstance(text, str) and isinstance(messages, list) and all(map(_is_message, messages))):
        return (), ""
    return tuple((str(speaker), str(said)) for speaker, said in messages), text if text.startswith(prefix) else prefix + text


def _is_message(value: Any) -> bool:
    """Whether ``value`` is a message that every chat template takes: an imported trace may hold anything."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value) and value[0] in SPEAKERS
