"""The reward of an output, every term visible: against a reference where there is one, without one in live use.

With a reference a text is held against what the person really wrote: words (ROUGE, METEOR), style, length, and it must not copy. Live use
has no reference: the reward then asks whether the text sounds as predicted (style), speaks of what the neighbors speak of (topic, title),
varies, keeps the length the style asks for, and does not copy. The two are on different scales and are never compared with each other.
Leaves out what each agent contributed (``credit``) and what people prefer (``preferences``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pat_core.credit import shapley
from pat_core.metrics import cosine, longest_shared_run, meteor, n_words, rouge_1, rouge_l, style_cosine, variety
from pat_core.points import content_words
from pat_core.types import Reward

__all__ = [
    "REFERENCE_WEIGHTS",
    "WEIGHTS",
    "RewardContext",
    "choose",
    "cosine",
    "most_typical",
    "reference_free_reward",
    "reward",
    "shapley",
]

WEIGHTS: Mapping[str, float] = {"style": 0.35, "topic": 0.35, "title": 0.1, "variety": 0.2, "length": 0.2, "copy": 0.3}
# Between reviews of one product by different people (Amazon dev, 250 targets, 4 reviews each) the mean of the three measures of words has a
# standard deviation of .044, style one of .15 and length one of .22: words lead, style comes next, length and copying correct.
REFERENCE_WEIGHTS: Mapping[str, float] = {"rouge_1": 1 / 3, "rouge_l": 1 / 3, "meteor": 1 / 3, "style": 0.25, "length": 0.1, "copy": 0.3}
FREE_RUN = 5  # words: shorter shared runs are ordinary phrases, not copying
TOPIC_FULL = 4.0  # summed shares of neighbors at which the topic term is full


@dataclass(frozen=True)
class RewardContext:
    """What a text is held against: ``target_phi`` (d,) the predicted style, ``target_words`` its length, the neighbors' texts, the title.

    ``phi`` maps a text to its standardized style features (d,).
    """

    phi: Callable[[str], np.ndarray]
    target_phi: np.ndarray
    target_words: float
    topic_texts: tuple[str, ...]
    retrieved_texts: tuple[str, ...]
    title: str

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the topic neighbors that use each content word."""
        sets = [content_words(t) for t in self.topic_texts]
        return {w: sum(w in s for s in sets) / len(sets) for w in frozenset().union(*sets)} if sets else {}


def reward(text: str, context: RewardContext, reference: str | None = None, weights: Mapping[str, float] | None = None) -> Reward:
    """The reward of ``text`` against ``reference``, or ``reference_free_reward`` where that is None; an empty text gets -1.

    Terms: rouge_1, rouge_l and meteor in [0, 1]; style, cosine of phi of both texts in [-1, 1]; length, minus the log ratio to the
    reference's length, in [-1, 0]; copy as without a reference. ``weights`` None means ``REFERENCE_WEIGHTS`` or ``WEIGHTS``. Raises
    ValueError for an empty reference, for weights that do not name exactly the terms, and where a term is not a number.
    """
    if reference is None:
        return reference_free_reward(text, context, WEIGHTS if weights is None else weights)
    if not n_words(reference):
        raise ValueError("the reference is empty, so no text can be held against it; give None for the reward without a reference")
    if not n_words(text):
        return _empty()
    terms = {
        "rouge_1": rouge_1(text, reference),
        "rouge_l": rouge_l(text, reference),
        "meteor": meteor(text, reference),
        "style": style_cosine(text, reference, context.phi),
        "length": length_term(text, n_words(reference)),
        "copy": copy_term(text, context.retrieved_texts),
    }
    return _weighted(text, terms, REFERENCE_WEIGHTS if weights is None else weights)


def reference_free_reward(text: str, context: RewardContext, weights: Mapping[str, float] = WEIGHTS) -> Reward:
    """The reward of ``text`` without a reference; an empty text gets -1.

    Terms: style, cosine of phi in [-1, 1]; topic, summed neighbor shares of its content words, full at ``TOPIC_FULL``; title, share of the
    title's content words used; variety, distinct bigrams; length, minus the log ratio to the target length, in [-1, 0]; copy, minus the
    longest run of words shared with a retrieved text beyond ``FREE_RUN``, over the text, in [-1, 0]. Raises ValueError as ``reward`` does.
    """
    if not n_words(text):
        return _empty()
    words, title = content_words(text), content_words(context.title)
    terms = {
        "style": cosine(context.phi(text), context.target_phi),
        "topic": min(1.0, sum(context.shares.get(w, 0.0) for w in words) / TOPIC_FULL),
        "title": len(words & title) / len(title) if title else 0.0,
        "variety": variety(text),
        "length": length_term(text, context.target_words),
        "copy": copy_term(text, context.retrieved_texts),
    }
    return _weighted(text, terms, weights)


def choose(texts: Sequence[str], context: RewardContext) -> tuple[int, list[Reward]]:
    """The draft to show of several for one question, and every draft's reward without a reference; the first of equal ones."""
    rewards = [reference_free_reward(text, context) for text in texts]
    return max(range(len(texts)), key=lambda i: rewards[i].total), rewards


def most_typical(texts: Sequence[str]) -> int:
    """The draft with the most words in common with the others by ROUGE-1: a choice that knows nothing but the drafts themselves.

    Minimum Bayes risk decoding (Kumar and Byrne 2004) with ROUGE-1 as the gain; the first of equal ones.
    """
    return max(range(len(texts)), key=lambda i: sum(rouge_1(texts[i], other) for j, other in enumerate(texts) if j != i))


def length_term(text: str, target_words: float) -> float:
    """Minus the log ratio of the words of ``text`` (not empty) to ``target_words``, in [-1, 0]; NaN for a target that is not finite."""
    if not math.isfinite(target_words):
        return math.nan
    return -min(1.0, abs(math.log(n_words(text) / max(target_words, 1.0))))


def copy_term(text: str, sources: Sequence[str]) -> float:
    """Minus the words beyond ``FREE_RUN`` of the longest run that ``text`` (not empty) shares with a source, over its words, in [-1, 0]."""
    return -min(1.0, max(0, longest_shared_run(text, sources) - FREE_RUN) / n_words(text))


def _empty() -> Reward:
    return Reward(-1.0, {"empty": -1.0}, {"empty": 1.0})


def _weighted(text: str, terms: dict[str, float], weights: Mapping[str, float]) -> Reward:
    if weights.keys() != terms.keys():
        raise ValueError(f"weights name {sorted(weights)}, but the terms are {sorted(terms)}; give each a weight, 0 to leave it out")
    total = sum(weights[k] * v for k, v in terms.items())
    if not math.isfinite(total):
        wrong = ", ".join(f"{k} = {v} x {weights[k]}" for k, v in terms.items() if not math.isfinite(v * weights[k]))
        raise ValueError(f"the reward of {text!r:.80} is not a number ({wrong}); nothing can be learned from it")
    return Reward(total, terms, {k: weights[k] for k in terms})
