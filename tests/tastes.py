"""Hidden tastes for the closed loop: functions from a text to a number. Each likes what the other does not."""

from __future__ import annotations


def short_and_calm(text: str) -> float:
    """Shorter, no exclamation marks, names the breakfast."""
    return 2.0 * ("breakfast" in text.lower()) - len(text.split()) / 20 - 1.5 * min(text.count("!"), 2)


def long_and_loud(text: str) -> float:
    """Longer, exclamation marks, nothing about breakfast."""
    return -short_and_calm(text)
