"""The form of Compose as values: what its fields hold -> ``Form`` -> ``Query``, the link that carries a form, and the worked examples.

Everything a browser sends is untrusted: the limits of Gradio's components live in the page, and every handler answers plain HTTP. So a form
takes values of any type and is either read or refused with a sentence. The single checks are ``pat_core.query``'s; leaves out Gradio.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from pat_core import query as check
from pat_core.types import ALTERNATIVES, RUN_RANGES, Preference, Query, RunOptions

MAX_PREFERENCES = check.MAX_PREFERENCES
MAX_SUMMARY_CHARACTERS = 2_000
MAX_LINK_CHARACTERS = 7_000  # proxies in front of hosted apps refuse request lines from 8 kB on
MAX_LINK_CONTENT = 40_000  # bytes a link may unpack to: five full preferences in any script
ALTERNATIVE_NAMES = {
    "none": "No personalization",
    "lamp": "LaMP style: own preferences",
    "pgraphrag": "PGraphRAG style: raw neighbor reviews",
    "copy": "Copy of the neighbors (no model)",
}
KINDS = {"sample": "a text they wrote", "statement": "a statement of taste"}
_COMMON_ENGLISH = frozenset(
    "the a an and or but of to in on at for with it is was were be i we you they my this that not no so as from had have has".split()  # noqa: SIM905
)

Kind = Literal["sample", "statement"]
KNOBS = tuple(f.name for f in fields(RunOptions) if f.name != "max_words")  # what a visitor may set of a run


@dataclass(frozen=True, slots=True)
class Entry:
    """One preference as typed; ``kind`` is '' until the app or the person has said what it is."""

    text: str
    kind: Kind | Literal[""] = ""
    rating: int | None = None

    @property
    def preference(self) -> Preference:
        found = check.parse_preference(self.text, self.rating, self.kind)
        assert found is not None, "an entry has text"
        return found


@dataclass(frozen=True, slots=True)
class Form:
    """A form that can be run. ``topic`` is a topic id of the corpus, its name, or free text; ``notes`` are sentences worth telling."""

    topic: str
    title: str = ""
    rating: int | None = None
    seed: int = 0
    entries: tuple[Entry, ...] = ()
    knobs: RunOptions = RunOptions()
    notes: tuple[str, ...] = field(default=(), compare=False)


def read_form(values: Mapping[str, object]) -> Form:
    """The form in ``values`` (see ``form_values`` for the keys); missing keys take their default.

    Raises ValueError with a sentence naming the field, the bad value and what to do.
    """
    notes: list[str] = []
    topic, title = (
        " ".join(_text(values.get(name), f"The {name}", limit, notes).split())
        for name, limit in (("topic", check.MAX_TOPIC_CHARACTERS), ("title", check.MAX_TITLE_CHARACTERS))
    )
    entries = tuple(entry for i in range(1, MAX_PREFERENCES + 1) if (entry := _entry(values, i, notes)) is not None)
    if not topic:
        raise ValueError("Choose a topic from the list or type one of your own; or start from one of the worked examples.")
    if not _has_words(topic):
        raise ValueError(f"The topic {topic[:20]!r} has no letters or digits: say in a word or two what the review is about.")
    form = Form(
        topic=topic,
        title=title,
        rating=_stars(values.get("rating"), "The rating"),
        seed=check.clean_whole(values.get("seed", 0), "The seed", 0, check.MAX_SEED),
        entries=entries,
        knobs=_knobs(values),
    )
    return replace(form, notes=(*notes, *_remarks(form)))


def form_values(form: Form) -> dict[str, object]:
    """The values that the form's components show for ``form``; ``read_form`` of the result gives the form back."""
    values: dict[str, object] = {"topic": form.topic, "title": form.title, "rating": _shown(form.rating), "seed": form.seed}
    for i in range(1, MAX_PREFERENCES + 1):
        entry = form.entries[i - 1] if i <= len(form.entries) else Entry("")
        values |= {f"text_{i}": entry.text, f"kind_{i}": entry.kind or None, f"rating_{i}": _shown(entry.rating)}
    for knob in KNOBS:
        value = getattr(form.knobs, knob)
        values[knob] = list(value) if isinstance(value, tuple) else value
    return values


def query_of(form: Form, topics: dict[str, str], category_of: Mapping[str, str]) -> Query:
    """The query of a form; the topic is one of the corpus where its id or name is meant, else free text."""
    topic_id, name = find_topic(form.topic, topics)
    return check.build_query(
        name,
        form.title,
        topics=topics,
        topic_id=topic_id,
        category=category_of.get(topic_id, ""),
        preferences=[entry.preference for entry in form.entries],
        rating=form.rating,
        seed=form.seed,
    )


def find_topic(text: str, topics: Mapping[str, str]) -> tuple[str, str]:
    """(topic id, label) of the topic called ``text``, by id or by label in any case; ('', text) when the corpus has no such topic."""
    if text in topics:
        return text, topics[text]
    wanted = text.casefold()
    return next(((topic_id, label) for topic_id, label in topics.items() if label.casefold() == wanted), ("", text))


def link_token(form: Form) -> str:
    """``form`` as one URL-safe word; raises ValueError where it would be too long for a link."""
    default = RunOptions()
    content: dict[str, object] = {"t": form.topic, "w": form.title}
    if form.rating:
        content["r"] = form.rating
    if form.seed:
        content["s"] = form.seed
    if form.entries:
        content["p"] = [[e.kind, e.text, e.rating or 0] for e in form.entries]
    knobs = {name: getattr(form.knobs, name) for name in KNOBS if getattr(form.knobs, name) != getattr(default, name)}
    if knobs:
        content["k"] = knobs
    packed = zlib.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), 9)
    token = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    if len(token) > MAX_LINK_CHARACTERS:
        raise ValueError(
            f"These inputs make a link of {len(token):,} characters and at most {MAX_LINK_CHARACTERS:,} travel safely: "
            "shorten the preferences."
        )
    return token


def form_of_link(token: object) -> Form:
    """The form in a link; raises ValueError with a sentence for anything that ``link_token`` did not make."""
    damaged = "This link is damaged or was cut off, so the form was left empty: ask for it again, or fill in the form."
    if not isinstance(token, str) or len(token) > 2 * MAX_LINK_CHARACTERS or not re.fullmatch(r"[A-Za-z0-9_-]+", token):
        raise ValueError(damaged)
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), MAX_LINK_CONTENT)
        content = json.loads(raw) if not unpacker.unconsumed_tail else None
        values = _values_of_link(content)
    except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError) as error:
        raise ValueError(damaged) from error
    return read_form(values)


def load_examples(path: Path) -> dict[str, tuple[str, str, Form]]:
    """The worked examples of a file: id -> (name, one line about it, form). Raises ValueError where one is not a valid form."""
    examples = {}
    for item in json.loads(path.read_text(encoding="utf-8")):
        values: dict[str, object] = {key: item[key] for key in ("topic", "title", "rating", "seed") if key in item}
        for i, preference in enumerate(item.get("preferences", []), 1):
            values |= {f"text_{i}": preference["text"], f"kind_{i}": preference["kind"], f"rating_{i}": preference.get("rating")}
        examples[item["id"]] = (item["name"], item["about"], read_form(values))
    return examples


def summary_text(value: object, agent: str) -> str:
    """An edited summary, cleaned; raises ValueError with a sentence when it is empty or too long."""
    text = check.clean_text(value, f"The {agent} summary", MAX_SUMMARY_CHARACTERS)
    if not text:
        raise ValueError(f"The {agent} summary is empty: write what that agent should tell the generator, or run again to get a new one.")
    return text


def _entry(values: Mapping[str, object], i: int, notes: list[str]) -> Entry | None:
    text = _text(values.get(f"text_{i}"), f"Preference {i}", check.MAX_PREFERENCE_CHARACTERS, notes)
    kind = values.get(f"kind_{i}") or ""
    if not isinstance(kind, str) or (kind and kind not in KINDS):
        raise ValueError(f"Preference {i} is their own text or their taste: choose one of the two under it.")
    rating = _stars(values.get(f"rating_{i}"), f"The rating of preference {i}")
    return Entry(text, kind, rating if kind != "statement" else None) if text else None  # type: ignore[arg-type]


def _text(value: object, name: str, limit: int, notes: list[str]) -> str:
    text = check.clean_text(value, name, limit)
    removed = len(value.replace("\r\n", "\n").strip()) - len(text) if isinstance(value, str) else 0
    if removed > 0:
        notes.append(f"{removed} control character{'s were' if removed > 1 else ' was'} left out of {name[0].lower() + name[1:]}.")
    return text


def _stars(value: object, name: str) -> int | None:
    rating = check.clean_rating(value, name)
    if rating is not None and rating != int(rating):
        raise ValueError(f"{name} must be 1, 2, 3, 4 or 5 here, not {rating:g}.")
    return None if rating is None else int(rating)


def _knobs(values: Mapping[str, object]) -> RunOptions:
    default = RunOptions()
    read: dict[str, int] = {}
    for name, label in (("rounds", "Rounds"), ("k_style", "Style neighbors"), ("k_topic", "Topic neighbors"), ("n_drafts", "Drafts")):
        low, high = RUN_RANGES[name]
        read[name] = check.clean_whole(values.get(name, getattr(default, name)), label, int(low), int(high))
    temperature, (low, high) = values.get("temperature", default.temperature), RUN_RANGES["temperature"]
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not low <= temperature <= high:
        raise ValueError(f"Temperature must be a number from {low:g} to {high:g}.")
    chosen = values.get("alternatives", default.alternatives)
    if not isinstance(chosen, (list, tuple)) or any(not isinstance(name, str) or name not in ALTERNATIVES for name in chosen):
        raise ValueError(f"What is written beside it must be among {', '.join(ALTERNATIVES)}.")
    return RunOptions(**read, temperature=float(temperature), alternatives=tuple(name for name in ALTERNATIVES if name in chosen))


def _remarks(form: Form) -> list[str]:
    """What is worth saying about inputs that are accepted as they are."""
    notes = []
    texts = [(f"Preference {i}", e.text) for i, e in enumerate(form.entries, 1)] + [("The title", form.title), ("The topic", form.topic)]
    for label, text in texts:
        if text and not _has_words(text):
            notes.append(f"{label} has no words, so it says little: a sentence would help.")
        elif not _looks_english(text):
            notes.append(
                f"{label} does not look English. It is used as it is, but the neighbors and the built-in model write English: "
                "expect an English text."
            )
        if re.search(r"</?[a-z][^>]*>", text, re.IGNORECASE):
            notes.append(f"{label} contains HTML tags. They are read as plain characters.")
    return notes


def _has_words(text: str) -> bool:
    return any(c.isalnum() for c in text)


def _looks_english(text: str) -> bool:
    """Mostly Latin letters and, from twelve words on, at least one very common English word."""
    letters = [c for c in text if c.isalpha()]
    if sum("LATIN" in unicodedata.name(c, "") for c in letters) < len(letters) / 2:
        return False
    words = re.findall(r"[a-z']+", text.lower())
    return len(words) < 12 or any(word in _COMMON_ENGLISH for word in words)


def _values_of_link(content: object) -> dict[str, object]:
    if not isinstance(content, dict) or not isinstance(content.get("k", {}), dict):
        raise ValueError("not a form")
    values: dict[str, object] = {
        "topic": content.get("t"),
        "title": content.get("w"),
        "rating": content.get("r"),
        "seed": content.get("s", 0),
    }
    for i, (kind, text, rating) in enumerate(content.get("p", [])[:MAX_PREFERENCES], 1):
        values |= {f"text_{i}": text, f"kind_{i}": kind, f"rating_{i}": rating or None}
    return values | {name: content["k"][name] for name in KNOBS if name in content.get("k", {})}


def _shown(rating: int | None) -> str:
    return "" if rating is None else str(rating)
