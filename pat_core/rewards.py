"""The reward of an output, every term visible, and what each agent contributed to it.

Live use has no reference text: the reward then asks whether the text sounds as predicted (style), speaks of what the neighbors speak of
(topic, title), varies, keeps the length the style asks for, and does not copy. Shapley values split it between the two agents (method.md:
differential rewards). Leaves out, for now: terms against a reference, leave-one-out and mismatched-user credit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pat_core.metrics import longest_shared_run, n_words, variety
from pat_core.points import content_words
from pat_core.types import Contribution, Reward

WEIGHTS: Mapping[str, float] = {"style": 0.35, "topic": 0.35, "title": 0.1, "variety": 0.2, "length": 0.2, "copy": 0.3}
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


def reference_free_reward(text: str, context: RewardContext, weights: Mapping[str, float] = WEIGHTS) -> Reward:
    """The reward of ``text`` without a reference; an empty text gets -1.

    Terms: style, cosine of phi in [-1, 1]; topic, summed neighbor shares of its content words, full at ``TOPIC_FULL``; title, share of the
    title's content words used; variety, distinct bigrams; length, minus the log ratio to the target length, in [-1, 0]; copy, minus the
    longest run of words shared with a retrieved text beyond ``FREE_RUN``, over the text, in [-1, 0].
    """
    if not n_words(text):
        return Reward(-1.0, {"empty": -1.0}, {"empty": 1.0})
    words, title = content_words(text), content_words(context.title)
    run = longest_shared_run(text, context.retrieved_texts)
    terms = {
        "style": cosine(context.phi(text), context.target_phi),
        "topic": min(1.0, sum(context.shares.get(w, 0.0) for w in words) / TOPIC_FULL),
        "title": len(words & title) / len(title) if title else 0.0,
        "variety": variety(text),
        "length": -min(1.0, abs(math.log(n_words(text) / max(context.target_words, 1.0)))),
        "copy": -min(1.0, max(0, run - FREE_RUN) / n_words(text)),
    }
    return Reward(sum(weights[k] * v for k, v in terms.items()), terms, {k: weights[k] for k in terms})


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors in [-1, 1]; 0 where either has no length."""
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else 0.0


def shapley(full: Sequence[float], style_only: Sequence[float], topic_only: Sequence[float], neither: Sequence[float]) -> Contribution:
    """Two-agent Shapley values from rewards of texts written with both summaries, one, or none; each is averaged over its texts.

    style = 1/2 [R(s,t) - R(0,t) + R(s,0) - R(0,0)], and style + topic = R(s,t) - R(0,0). Raises ValueError where one has no text.
    """
    if not (full and style_only and topic_only and neither):
        raise ValueError("Shapley values need at least one text for each of: both summaries, style only, topic only, neither")
    st, s, t, n = (float(np.mean(r)) for r in (full, style_only, topic_only, neither))
    return Contribution(style=(st - t + s - n) / 2, topic=(st - s + t - n) / 2, full=st, neither=n, style_only=s, topic_only=t)
