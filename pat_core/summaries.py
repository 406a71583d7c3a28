"""The summary that given facts imply: what the warm start teaches the agents to write, and an oracle for faithfulness.

A small model cannot find a style in texts by itself, but the right summary can be computed from the cues and points that stand in its
prompt; from the second round on also from what the draft misses. Nothing here is ever shown in place of a model's own words.
"""

from __future__ import annotations

from collections.abc import Sequence

from pat_core.cues import holds
from pat_core.metrics import n_words
from pat_core.points import Points
from pat_core.prompts import LABELS, NOTHING_YET, StyleFacts, TopicFacts
from pat_core.stylometry import words_of
from pat_core.types import Query

NOTHING = "nothing in particular"


def style_summary(facts: StyleFacts, draft: str = "") -> str:
    """Three lines on how the person would write; with a ``draft``, the guidance says what it gets wrong."""
    return _lines(
        f"Similar writers use {listed(facts.cues)}.",
        f"This person sounds {listed(facts.tone)}, and says: {'; '.join(facts.statements) or NOTHING_YET}.",
        f"Write {facts.cues[0]} with {listed(facts.cues[1:])}." + _style_correction(facts, draft),
    )


def topic_summary(query: Query, facts: TopicFacts, draft: str = "") -> str:
    """Three lines on what there is to say; with a ``draft``, the guidance says what it leaves out."""
    p = facts.points
    evidence = f"Reviewers mention {_things(p.mentioned)}." if p.mentioned else "No reviewer names anything in particular."
    return _lines(evidence, _consensus(p), _topic_guidance(p, query.rating) + _call_it(p, query.rating) + _topic_correction(p, draft))


def listed(phrases: Sequence[str]) -> str:
    """'a, b and c'; ``NOTHING`` for none."""
    if len(phrases) < 2:
        return phrases[0] if phrases else NOTHING
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _things(phrases: Sequence[str]) -> str:
    return listed([f"the {p}" for p in phrases])


def _lines(*texts: str) -> str:
    return "\n".join(f"{label}: {text}" for label, text in zip(LABELS, texts, strict=True))


def _style_correction(facts: StyleFacts, draft: str) -> str:
    if not draft:
        return ""
    length, *others = facts.cues
    wrong = [c for c in others if holds(c, [draft]) is False][:2]
    parts = []
    if holds(length, [draft]) is False:
        parts.append(f"The draft is too {'long' if n_words(draft) > int(length.split()[1]) else 'short'}.")
    if wrong:
        parts.append(f"The draft lacks {listed(wrong)}.")
    return " " + (" ".join(parts) or "The draft fits.")


def _consensus(p: Points) -> str:
    """One sentence: a small model that may begin the next one with "They" as well goes on doing so."""
    few = 2 if p.liked and p.disliked else 3
    said = [("like", _things(p.liked[:few])), ("dislike", _things(p.disliked[:few])), ("call it", listed((*p.praised_as, *p.blamed_as)))]
    parts = [f"{verb} {what}" for verb, what in said if what != NOTHING]
    if parts:
        return f"They {', and '.join([', '.join(parts[:-1]), parts[-1]] if parts[1:] else parts)}."
    if p.disputed:
        return "They disagree with each other."
    return "They agree with each other." if p.n_reviews > 1 else "One voice is all there is."


def _topic_guidance(p: Points, rating: float | None) -> str:
    praise, blame = p.liked[:2], p.disliked[:2]
    rest = tuple(m for m in p.mentioned if m not in (*praise, *blame))
    if not (praise or blame or rest):
        return "Say what it is like."
    if rating is None or 2 < rating < 4:
        if praise and blame:
            return f"Weigh {_things(praise)} against {_things(blame)}." + (
                f" Mention {_things(rest[:1])}." if rest and rating is not None else ""
            )
        return f"Mention {_things((*praise, *blame, *rest)[:3])}."
    fitting, other = (praise, blame) if rating >= 4 else (blame, praise)
    main, left = (fitting, other) if fitting else (rest[:2], rest[2:] or other)
    parts = [f"{'Praise' if rating >= 4 else 'Complain about'} {_things(main)}."] if main else []
    return " ".join([*parts, *([f"Mention {_things(left[:2])}."] if left else [])])


def _call_it(p: Points, rating: float | None) -> str:
    """The qualities that go with the rating; both kinds where it is in the middle or not known."""
    fitting = (p.praised_as if rating is None or rating > 2 else ()) + (p.blamed_as if rating is None or rating < 4 else ())
    return f" Call it {listed(fitting)}." if fitting else ""


def _topic_correction(p: Points, draft: str) -> str:
    if not draft:
        return ""
    said = set(words_of(draft))
    missing = [m for m in p.mentioned[:4] if said.isdisjoint({*m.split(), *(w + "s" for w in m.split())})]
    return f" The draft leaves out {_things(missing[:2])}." if missing else " The draft covers it."
