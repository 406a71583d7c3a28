"""What one field of a noun may hold. Each check raises ValueError with the field, the value and what is accepted instead."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

MAX_NAME = 80  # characters: nicknames, tags, versions, kinds, systems
MAX_REASON = 500
MAX_RATIONALE = 4_000
MAX_PROMPT = 20_000
MAX_TEXT = 50_000
MAX_JSON = 400_000
MAX_TAGS = 20
MAX_MILLISECONDS = 7 * 24 * 3600 * 1000

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SHA = re.compile(r"[0-9a-f]{64}")
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON text; an even number of backslashes before it are backslashes themselves


def canonical(value: Any) -> str:
    """``value`` as JSON in the one spelling that ids, hashes and the database use: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def check_text(name: str, value: object, limit: int, *, empty: bool = True) -> None:
    """Text of at most ``limit`` characters, without NUL and lone surrogates."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{name} has {len(value):,} characters; at most {limit:,} are kept, so please shorten it")
    if "\0" in value:
        raise ValueError(f"{name} holds a NUL character at position {value.index(chr(0))}; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half a character (a lone surrogate) at position {error.start}; type it again") from None
    if not empty and not value.strip():
        raise ValueError(f"{name} is empty; it needs at least one character")


def check_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    """One of ``accepted``."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} {value!r:.60} is not known; use one of {', '.join(accepted)}")


def check_optional_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    """None or one of ``accepted``."""
    if value is not None:
        check_choice(name, value, accepted)


def check_uuid(name: str, value: object) -> None:
    """A UUID in its usual spelling."""
    try:
        good = isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{name} {value!r:.60} is not a UUID in lower case such as {uuid.UUID(int=0)}")


def check_sha(name: str, value: object) -> None:
    """A sha256 in hex."""
    if not isinstance(value, str) or not _SHA.fullmatch(value):
        raise ValueError(f"{name} {value!r:.80} is not a sha256 in hex (64 characters)")


def check_time(name: str, value: object) -> None:
    """A UTC time with milliseconds, or '' for not known yet."""
    if value != "" and not (isinstance(value, str) and _TIME.fullmatch(value)):
        raise ValueError(f"{name} {value!r:.60} is not a UTC time such as 2026-11-23T08:30:00.000Z")


def check_flag(name: str, value: object) -> None:
    """True or false, not 1 or 0."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r:.60}")


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """A whole number, bounds included."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} {value!r:.60} must be a whole number from {low:,} to {high:,}")


def check_probability(name: str, value: object) -> None:
    """A number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} {value!r:.60} must be a probability above 0 and at most 1")


def check_json(name: str, value: object) -> None:
    """A dictionary that JSON can hold, at most MAX_JSON characters long, without NUL."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a dictionary, not {type(value).__name__}")
    try:
        text = canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} cannot be written as JSON ({error}); use text, finite numbers, lists and dictionaries") from None
    check_text(name, text, MAX_JSON)
    if "\\u0000" in text and _ESCAPED_NUL.search(text):  # the plain search is far faster on a long text
        raise ValueError(f"{name} holds a NUL character; remove it")
