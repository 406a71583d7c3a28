"""Every prompt of the method, as messages: pure text in, text out.

Both agents get measured facts (cues, points) beside short quotes and answer in a fixed shape of three lines, Evidence, Inference,
Guidance. A model without adapters is shown two worked answers first; an adapter has learned the shape and needs none. Review text is
data: ``quoted`` flattens it and takes away what looks like a control token, so it cannot open a turn of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pat_core.points import Points
from pat_core.types import Query, Round

Messages = list[tuple[str, str]]

LABELS = ("Evidence", "Inference", "Guidance")
SUMMARY_PREFIX = "Evidence:"
NOTHING_YET = "nothing yet"  # what a person says who has stated no preference
TITLE_QUESTION = "What is the title of this text?"
RATING_QUESTION = "How many stars, 1 to 5, does this person give?"
_CONTROL_TOKEN = re.compile(r"<\s*\|.*?\|\s*>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>", re.IGNORECASE)
_LENGTH = re.compile(r"about \d+ words")
_INVISIBLE = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")


@dataclass(frozen=True, slots=True)
class StyleFacts:
    """What the style agent sees: measured ``cues`` and ``tone`` words of the neighbors, ``quotes``, the person's own ``statements``."""

    cues: tuple[str, ...]
    tone: tuple[str, ...]
    quotes: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the topic agent sees: the ``points`` of the topic neighbors and short ``quotes`` with their ratings."""

    points: Points
    quotes: tuple[tuple[float | None, str], ...] = ()


def quoted(text: str) -> str:
    """``text`` on one line, without control tokens, invisible characters and double quotes: safe to stand inside quotation marks."""
    text = _INVISIBLE.sub("", _CONTROL_TOKEN.sub(" ", text))
    return " ".join(text.replace('"', "'").split())


def style_messages(facts: StyleFacts, previous: Round | None = None, *, shots: bool = True) -> Messages:
    """Messages for the style agent; with ``previous`` it refines its notes after reading the other agent's and the draft."""
    asked = _style_question(facts) + _refinement("style", previous) + "\nHow would this person write?"
    return [*(_STYLE_SHOTS if shots else ()), ("user", asked)]


def topic_messages(query: Query, facts: TopicFacts, previous: Round | None = None, *, shots: bool = True) -> Messages:
    """Messages for the topic agent; with ``previous`` it refines its notes after reading the other agent's and the draft."""
    asked = _topic_question(quoted(query.topic), facts) + _refinement("topic", previous) + "\n" + _topic_task(query)
    return [*(_TOPIC_SHOTS if shots else ()), ("user", asked)]


def generator_messages(query: Query, style_summary: str = "", topic_summary: str = "", *, n_words: int = 0, shots: bool = True) -> Messages:
    """Messages for the text itself from the two summaries; '' leaves a summary out. Neighbors' texts never get here.

    ``n_words`` is the length asked for; it stands where the style notes name one, which is that of similar people. 0 leaves theirs.
    """
    if n_words:
        style_summary = _LENGTH.sub(f"about {n_words} words", style_summary)
    sections = note_sections(style_summary, topic_summary)
    return _writing(query, sections, shots, with_notes=bool(sections))


def lamp_messages(query: Query, own_texts: Sequence[str], *, shots: bool = True) -> Messages:
    """The LaMP-style alternative (arXiv 2304.11406): the person's own texts pasted into the prompt."""
    return _writing(query, [f'The same person wrote: "{quoted(t)}"' for t in own_texts], shots)


def pgraphrag_messages(query: Query, neighbor_texts: Sequence[tuple[float | None, str]], *, shots: bool = True) -> Messages:
    """The PGraphRAG-style alternative (arXiv 2501.02157): raw neighbor reviews pasted into the prompt."""
    return _writing(query, [f'Another person{_stars(r)} wrote: "{quoted(t)}"' for r, t in neighbor_texts], shots)


def both_messages(
    query: Query, own_texts: Sequence[str], neighbor_texts: Sequence[tuple[float | None, str]], *, shots: bool = True
) -> Messages:
    """``lamp_messages`` and ``pgraphrag_messages`` in one: own texts, then others'."""
    own = [f'The same person wrote: "{quoted(t)}"' for t in own_texts]
    return _writing(query, own + [f'Another person{_stars(r)} wrote: "{quoted(t)}"' for r, t in neighbor_texts], shots)


def title_messages(query: Query, text: str, sections: Sequence[str] = ()) -> Messages:
    """Messages for the title of a person's ``text``, with worked examples; ``sections`` are what a system shows beside it."""
    examples = [(_reading_task(q, t, TITLE_QUESTION, notes), q.title) for q, t, notes in _read_examples(sections)]
    return _answering(examples, _reading_task(query, text, TITLE_QUESTION, sections))


def rating_messages(query: Query, text: str, sections: Sequence[str] = ()) -> Messages:
    """Messages for the stars, 1 to 5, that go with a person's title and ``text``, with worked examples; ``sections`` as before."""
    examples = [(_reading_task(q, t, RATING_QUESTION, notes), f"{q.rating:g}") for q, t, notes in _read_examples(sections)]
    return _answering(examples, _reading_task(query, text, RATING_QUESTION, sections))


def note_sections(style_summary: str, topic_summary: str) -> list[str]:
    """Both agents' summaries as the lines that a writer reads; '' leaves one out."""
    notes = (("How to write: ", style_summary), ("What to say: ", topic_summary))
    return [label + one_line(summary) for label, summary in notes if summary]


def example_section(who: str, text: str, answer: str) -> str:
    """A text that ``who`` ("The same person", "Another person") wrote, with the title or the stars that went with it."""
    return f'{who} wrote: "{quoted(text)}" Answer: {quoted(answer)}'


def one_line(summary: str) -> str:
    """A summary without its labels, on one line: the generator reads what the agents concluded, not their format."""
    lines = [line.split(":", 1)[1] if line.split(":", 1)[0] in LABELS and ":" in line else line for line in summary.splitlines()]
    return quoted(" ".join(line.strip() for line in lines if line.strip()))


def _writing(query: Query, sections: list[str], shots: bool, *, with_notes: bool = False) -> Messages:
    asked = "\n".join([_task(quoted(query.topic), quoted(query.title), query.rating), *sections])
    examples = [] if not shots else _NOTED_SHOTS if with_notes else _PLAIN_SHOTS
    return [*examples, ("user", asked)]


def _task(topic: str, title: str, rating: float | None) -> str:
    return "\n".join([f"Review of: {topic}", f"Title: {title}"] + ([f"Stars: {rating:g} of 5"] if rating is not None else []))


def _reading_task(query: Query, text: str, question: str, sections: Sequence[str] = ()) -> str:
    """The task of answering ``question`` about a text: its title is shown unless asked for, its stars likewise."""
    rating = query.rating if question == TITLE_QUESTION else None
    title = f"Title: {quoted(query.title)}" if question == RATING_QUESTION else ""
    stars = f"Stars: {rating:g} of 5" if rating is not None else ""
    lines = [f"Review of: {quoted(query.topic)}", title, stars, f'Text: "{quoted(text)}"', *sections, question]
    return "\n".join(line for line in lines if line)


def _read_examples(sections: Sequence[str]) -> list[tuple[Query, str, list[str]]]:
    """The worked texts with the notes of those kinds that ``sections`` have; the commoner rating last, which a small model repeats."""
    shown = {section.partition(":")[0] for section in sections}
    examples = []
    for i, query in ((1, _CHARGER), (0, _CABIN)):
        notes = note_sections(_TITLE_NOTES[i], _TOPIC_SHOTS[2 * i + 1][1])
        examples.append((query, _TEXTS[i], [note for note in notes if note.partition(":")[0] in shown]))
    return examples


def _answering(examples: Sequence[tuple[str, str]], asked: str) -> Messages:
    turns = [(speaker, text) for question, answer in examples for speaker, text in (("user", question), ("assistant", answer))]
    return [*turns, ("user", asked)]


def _style_question(facts: StyleFacts) -> str:
    lines = [f"Measured in texts by similar writers: {'; '.join(facts.cues)}.", f"Reads as: {', '.join(facts.tone)}."]
    if facts.quotes:
        lines.append("They wrote: " + " ".join(f'"{quoted(q)}"' for q in facts.quotes))
    lines.append(f"This person says: {'; '.join(quoted(s) for s in facts.statements) or NOTHING_YET}.")  # else a quote is taken for it
    return "\n".join(lines)


def _topic_question(topic: str, facts: TopicFacts) -> str:
    p = facts.points
    named = (("Liked", p.liked), ("Disliked", p.disliked), ("Called in praise", p.praised_as), ("Called otherwise", p.blamed_as))
    lines = [f"Reviews of {topic} often mention: {_listed(p.mentioned)}."]
    lines += [f"{how}: {_listed(phrases)}." for how, phrases in named if phrases]  # "nothing in particular" would be named as a thing
    lines += [f'Someone{_stars(rating)} wrote: "{quoted(q)}"' for rating, q in facts.quotes]
    return "\n".join(lines)


def _topic_task(query: Query) -> str:
    title = f' titled "{quoted(query.title)}"' if query.title else ""
    stars = f" ({query.rating:g} of 5 stars)" if query.rating is not None else ""
    return f"What is there to say in a review{title}{stars}?"


def _refinement(agent: str, previous: Round | None) -> str:
    if previous is None:
        return ""
    own, other = (previous.style, previous.topic) if agent == "style" else (previous.topic, previous.style)
    lines = [f"Your notes so far: {one_line(own.text)}", f"The other agent notes: {one_line(other.text)}"]
    if previous.draft:
        lines.append(f'The draft has {len(previous.draft.text.split())} words: "{quoted(previous.draft.text)}"')
    return "\n" + "\n".join(lines)


def _listed(phrases: Sequence[str]) -> str:
    return ", ".join(phrases) or "nothing in particular"


def _stars(rating: float | None) -> str:
    return f" who gave {rating:g} stars" if rating is not None else ""


def _summary(evidence: str, inference: str, guidance: str) -> str:
    return "\n".join(f"{label}: {text}" for label, text in zip(LABELS, (evidence, inference, guidance), strict=True))


_STYLE_SHOTS: tuple[tuple[str, str], ...] = (
    (
        "user",
        _style_question(StyleFacts(("about 45 words", "many exclamation marks", "first person (we)", "brackets"), ("warm", "chatty")))
        + "\nHow would this person write?",
    ),
    (
        "assistant",
        _summary(
            "Similar writers use about 45 words, many exclamation marks, we and brackets.",
            "This person sounds warm and chatty, and says: nothing yet.",
            "Write about 45 words, say we, use exclamation marks and brackets.",
        ),
    ),
    (
        "user",
        _style_question(
            StyleFacts(("about 12 words", "no exclamation marks", "hardly any I", "numbers"), ("dry", "factual"), (), ("hates small talk",))
        )
        + "\nHow would this person write?",
    ),
    (
        "assistant",
        _summary(
            "Similar writers use about 12 words, no exclamation marks, never I, and numbers.",
            "This person sounds dry and factual, and says: hates small talk.",
            "Write about 12 words, never say I, no exclamation marks, give numbers.",
        ),
    ),
)
_CABIN = Query(topic="Pine Lake cabin", title="Back to the woods", rating=4)
_CHARGER = Query(topic="Bolt phone charger", title="Broke again", rating=1)
_TOPIC_SHOTS: tuple[tuple[str, str], ...] = (
    (
        "user",
        _topic_question(
            _CABIN.topic,
            TopicFacts(Points(("porch", "rough road", "shower"), ("porch", "lake"), ("rough road", "cold shower"), 4, True, 3)),
        )
        + "\n"
        + _topic_task(_CABIN),
    ),
    (
        "assistant",
        _summary(
            "Reviewers mention the porch, the rough road and the shower.",
            "They like the porch and the lake, and dislike the rough road and the cold shower.",
            "Praise the porch and the lake, and warn about the rough road.",
        ),
    ),
    (
        "user",
        _topic_question(_CHARGER.topic, TopicFacts(Points(("cable", "price", "heat"), ("price",), ("cable", "heat"), 2, True, 4)))
        + "\n"
        + _topic_task(_CHARGER),
    ),
    (
        "assistant",
        _summary(
            "Reviewers mention the cable, the price and the heat.",
            "They like the price, and dislike the cable and the heat.",
            "Complain about the cable and the heat; the price is the only good thing.",
        ),
    ),
)
_TITLE_NOTES = (
    _summary("Similar writers use about 5 words and no exclamation marks.", "This person sounds warm.", "Write about 5 words."),
    _summary("Similar writers use about 5 words and hardly any I.", "This person sounds dry.", "Write about 5 words, plainly."),
)
_TEXTS = (
    "We loved the porch and the lake! We sat outside every evening with the kids (and a very bold squirrel) and did not hear a single car! "
    "The road is rough, so go slow, and the shower was cold. We will be back!",
    "Cable broke after 3 weeks, the second one after 5. Gets hot. Cheap, nothing else.",
)


def _worked_texts(with_notes: bool) -> tuple[tuple[str, str], ...]:
    messages: list[tuple[str, str]] = []
    for i, (query, text) in enumerate(zip((_CABIN, _CHARGER), _TEXTS, strict=True)):
        notes = (_STYLE_SHOTS[2 * i + 1][1], _TOPIC_SHOTS[2 * i + 1][1]) if with_notes else ("", "")
        sections = [f"{name}: {one_line(note)}" for name, note in zip(("How to write", "What to say"), notes, strict=True) if note]
        messages += [("user", "\n".join([_task(query.topic, query.title, query.rating), *sections])), ("assistant", text)]
    return tuple(messages)


_NOTED_SHOTS = _worked_texts(True)
_PLAIN_SHOTS = _worked_texts(False)
