"""Examples for the warm start: what each role should write, computed from real reviews (method.md section 5).

A model of 135M parameters cannot summarize style by itself, but the right summary can be computed from the facts in its prompt; and the
generator can learn to obey summaries from people's own texts, when the summaries are made from the text that it then has to write. Users
are split by a hash (``part_of``): only the training half is ever used here, so the other half stays for measuring.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pat_core.corpus import Corpus, hold_out, part_of
from pat_core.cues import cue_phrases, tone
from pat_core.points import Points, Vocabulary, points, vocabulary
from pat_core.prompts import Messages, StyleFacts, TopicFacts, generator_messages, quoted, style_messages, topic_messages
from pat_core.summaries import style_summary, topic_summary
from pat_core.types import Completion, Prompt, Review, Role, Round

SHORTEST, LONGEST = 10, 110  # words of a text worth learning to write
QUOTE_CHARACTERS = {"style": 110, "topic": 150}
_STATEMENTS = (
    "short and dry", "long and detailed", "always mentions the staff", "loves breakfast", "hates small talk", "likes exclamation marks",
    "never says I", "cares about the price", "writes in lower case", "notices the noise", "formal", "plain and friendly", "hard to please",
    "uses emoji", "always mentions the weather", "wants numbers", "no exclamation marks", "gets to the point",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised example: chat ``messages`` and the ``completion`` to learn."""

    messages: Messages
    completion: str


def examples(corpus: Corpus, role: Role, n: int, seed: int = 0) -> list[Example]:
    """At most ``n`` examples for ``role`` from the training half of the users of ``corpus``; the same for a seed."""
    rng = random.Random(f"{role}-{seed}")
    words = vocabulary([r.text for r in corpus.reviews])
    targets = [r for r in corpus.reviews if part_of(r.user_id) == "training" and SHORTEST <= len(r.text.split()) <= LONGEST]
    rng.shuffle(targets)
    make = {"style": _style_example, "topic": _topic_example, "generator": _generator_example}[role]
    return [make(corpus, target, words, rng) for target in targets[:n]]


def _style_example(corpus: Corpus, target: Review, words: Vocabulary, rng: random.Random) -> Example:
    group = _others(corpus, target, rng, 8) or [target]
    own = corpus.by_user[target.user_id]
    texts = [r.text for r in (own if len(own) > 2 and rng.random() < 0.5 else group)]
    statements = tuple(rng.sample(_STATEMENTS, rng.choice((0, 0, 1, 1, 2))))
    quotes = tuple(t[: QUOTE_CHARACTERS["style"]].rsplit(" ", 1)[0] for t in texts[:2])
    facts = StyleFacts(cue_phrases(texts, 6), tone(texts), quotes, statements)
    draft = rng.choice(corpus.reviews).text if rng.random() < 0.4 else ""
    previous = _previous(style_summary(facts), "", draft, "style") if draft else None
    return Example(style_messages(facts, previous, shots=False), style_summary(facts, draft))


def _topic_example(corpus: Corpus, target: Review, words: Vocabulary, rng: random.Random) -> Example:
    query = hold_out(corpus, target)
    if rng.random() < 0.2:
        query = replace(query, rating=None)
    group = _others(corpus, target, rng, 12)
    found, rest = group[:4] or [rng.choice(corpus.reviews)], group[4:]
    quotes = tuple((r.rating, r.text[: QUOTE_CHARACTERS["topic"]].rsplit(" ", 1)[0]) for r in found[:2])
    facts = TopicFacts(points(found, words, about=query.topic, others=rest), quotes)
    draft = (rng.choice(group) if group and rng.random() < 0.5 else rng.choice(corpus.reviews)).text if rng.random() < 0.4 else ""
    previous = _previous(topic_summary(query, facts), "", draft, "topic") if draft else None
    return Example(topic_messages(query, facts, previous, shots=False), topic_summary(query, facts, draft))


def _generator_example(corpus: Corpus, target: Review, words: Vocabulary, rng: random.Random) -> Example:
    """Summaries that are true of the target, so that obeying them is what lowers the loss."""
    query = hold_out(corpus, target)
    style = style_summary(StyleFacts(cue_phrases([target.text], 6), tone([target.text])))
    topic = topic_summary(query, TopicFacts(_true_points(corpus, target, words, rng)))
    left_out = rng.random()  # the texts without a summary, for the Shapley values, have to be in the range of the model too
    messages = generator_messages(query, "" if left_out < 0.08 else style, "" if left_out > 0.92 else topic, shots=False)
    return Example(messages, target.text.strip())


def _true_points(corpus: Corpus, target: Review, words: Vocabulary, rng: random.Random) -> Points:
    """Points of the target's topic that the target itself makes, filled up with its own."""
    own = points([target], words, 8, about=target.topic)
    said = set(quoted(target.text).lower().split())
    others = points(_others(corpus, target, rng, 8), words, 8, about=target.topic)
    shared = [p for p in others.mentioned if not said.isdisjoint({*p.split(), *(w + "s" for w in p.split())})]
    return replace(own, mentioned=tuple(dict.fromkeys([*shared, *own.mentioned]))[:4], liked=own.liked[:2], disliked=own.disliked[:2])


def _others(corpus: Corpus, target: Review, rng: random.Random, n: int) -> list[Review]:
    group: Sequence[Review] = [r for r in corpus.by_topic[target.topic_id] if r.user_id != target.user_id]
    return rng.sample(group, min(n, len(group)))


def _previous(own: str, other: str, draft: str, agent: str) -> Round:
    nothing = Prompt(())
    mine, theirs, text = (Completion("base", nothing, t) for t in (own, other, draft))
    return Round(0, *((mine, theirs) if agent == "style" else (theirs, mine)), draft=text)
