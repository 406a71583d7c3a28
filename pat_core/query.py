"""From what somebody typed to a ``Query``: every check on a visitor's input stands here, for the page and the command line alike.

Text is kept as the person wrote it, less control characters; too much of it is refused with a sentence, never cut in silence.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from pat_core.cues import claims_asked
from pat_core.types import Preference, Query

MAX_PREFERENCES = 5
MAX_PREFERENCE_CHARACTERS = 2000
MAX_TOPIC_CHARACTERS = 120
MAX_TITLE_CHARACTERS = 200
MAX_SEED = 2**31 - 1
KEPT_INVISIBLE = "\n\t\u200c\u200d"  # joiners are needed inside emoji and in Persian
_TASTE = re.compile(
    r"^\W*(?:always|never|no|not|only|likes?|loves?|hates?|prefers?|keep|use|avoid|write|mentions?|dislikes?|cares?|notices?|talks?|short|long|dry|plain"
    r"|formal|casual|warm|funny|sarcastic|picky|polite|brief|chatty|exuberant|lots|many|few|without|with)\b",
    re.IGNORECASE,
)


def clean_text(value: object, name: str, limit: int) -> str:
    """``value`` as text without control characters and outer white space; line breaks stay. ValueError if it is no text or too long."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}.")
    if len(value) > limit:
        raise ValueError(f"{name} has {len(value):,} characters; at most {limit:,} are read. Please shorten it.")
    kept = (c for c in value.replace("\r\n", "\n") if c in KEPT_INVISIBLE or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return "".join(kept).strip()


def clean_rating(value: object, name: str = "The rating") -> float | None:
    """A rating from 1 to 5, or None for an empty one; halves are allowed. ValueError for anything else, NaN and booleans included."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{name} must be a number from 1 to 5, not {value!r}.")
    try:
        rating = float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number from 1 to 5, not {value[:40]!r}.") from None
    if not math.isfinite(rating) or not 1 <= rating <= 5:
        raise ValueError(f"{name} must be a number from 1 to 5, not {rating}.")
    return rating


def clean_whole(value: object, name: str, low: int, high: int) -> int:
    """A whole number in [low, high]; ValueError naming the range otherwise."""
    wrong = f"{name} must be a whole number from {low:,} to {high:,}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value != int(value):
        raise ValueError(f"{wrong}, not {value!r}." if isinstance(value, (int, float)) else f"{wrong}.")
    if not low <= value <= high:
        raise ValueError(f"{wrong}, not {int(value):,}.")
    return int(value)


def parse_preference(text: object, rating: object = None, kind: str = "") -> Preference | None:
    """A preference from a text, None for an empty one. ``kind`` '' guesses: a rated, long or narrating text is a sample of the person's
    writing; a short one that names a habit or a measurable trait is a statement of taste."""
    cleaned = clean_text(text, "A preference", MAX_PREFERENCE_CHARACTERS)
    stars = clean_rating(rating, "The rating of a preference")
    if not cleaned:
        return None
    if kind not in ("", "sample", "statement"):
        raise ValueError(f"A preference is a 'sample' or a 'statement', not {kind!r}.")
    return Preference(kind or _guess_kind(cleaned, stars), cleaned, stars)


def _guess_kind(text: str, rating: float | None) -> str:
    n = len(text.split())
    if rating is not None or n > 14 or "\n" in text:
        return "sample"
    if _TASTE.match(text) and not re.search(r"\b(?:i|we|my|was|were)\b", text, re.IGNORECASE):
        return "statement"
    if re.search(r"[.!?]\s*$", text) and n > 3:
        return "sample"
    return "statement" if n <= 4 or claims_asked(text) else "sample"


def build_query(
    topic: object,
    title: object = "",
    *,
    topics: dict[str, str],
    topic_id: str = "",
    category: str = "",
    preferences: Sequence[Preference] = (),
    rating: object = None,
    seed: object = 0,
) -> Query:
    """The query of a visitor. ``topics`` maps topic ids to their labels; ``topic_id`` '' means free text. ValueError says what to mend."""
    name = " ".join(clean_text(topic, "The topic", MAX_TOPIC_CHARACTERS).split())
    if topic_id and topic_id not in topics:
        raise ValueError(f"There is no topic with the id {topic_id[:60]!r} in this corpus. Choose one from the list or type a subject.")
    name = topics[topic_id] if topic_id else name
    if not any(c.isalnum() for c in name):
        raise ValueError("Choose a topic from the list, or type what the text should be about.")
    if len(preferences) > MAX_PREFERENCES:
        raise ValueError(f"At most {MAX_PREFERENCES} preferences are read; there are {len(preferences)}.")
    return Query(
        topic=name,
        title=" ".join(clean_text(title, "The title", MAX_TITLE_CHARACTERS).split()),
        topic_id=topic_id,
        category=category,
        rating=clean_rating(rating),
        preferences=tuple(preferences),
        seed=clean_whole(seed, "The seed", 0, MAX_SEED),
    )
