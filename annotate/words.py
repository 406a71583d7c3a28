"""Numbers, times and names in plain words: what the report, the Owner page and the terminal say alike. Leaves out what is said."""

from __future__ import annotations

from collections.abc import Sequence

SYSTEMS = {
    "pat": "PaT",
    "none": "No personalization",
    "lamp": "LaMP style",
    "pgraphrag": "PGraphRAG style",
    "copy": "Copy of the neighbors",
}
KINDS = {
    "system": "Two systems",
    "one-factor": "One agent differs",
    "gold": "Constructed check",
    "identical": "Identical texts",
    "swap": "Swapped repeat",
}


def system_name(system: str) -> str:
    return SYSTEMS.get(system, system)


def of(n: int, one: str, many: str = "") -> str:
    """``n`` and its noun: "1 vote", "1,234 votes"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def as_sentence(said: str) -> str:
    """``said`` with a capital at its beginning and one full stop at its end."""
    said = said.strip().rstrip(".")
    return f"{said[:1].upper()}{said[1:]}."


def when(at: str) -> str:
    """A time of the store (UTC) without seconds."""
    return f"{at[:10]} {at[11:16]}"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
