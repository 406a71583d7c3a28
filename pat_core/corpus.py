"""Files -> ``Corpus``: reviews read, checked, cleaned, and held out. ``python -m pat_core.corpus FILE`` says what is in a file.

Reading is atomic: a bad row is refused with a reason and never loses the rest, a bad file raises and leaves nothing half done. Which review
of a user is the benchmark's target stays recoverable (``benchmark_target``). Leaves out embeddings, and topics beyond the ids the file has.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from pat_core import cleaning, labels
from pat_core.progress import Progress, terminal_progress
from pat_core.readers import Refusal, Row, read_rows
from pat_core.types import Query, Review

MAX_TEXT = 20_000  # characters of a review
MAX_TITLE = 300
MAX_ID = 200
Part = Literal["training", "choosing", "untouched"]
PARTS: tuple[Part, ...] = get_args(Part)
N_EXAMPLES = 3  # refused rows shown for each reason


@dataclass(frozen=True)
class Corpus:
    """Reviews in file order. ``labeled`` holds the topics whose readable name was made from their reviews, not found in the file.

    The dict views are made once, on first use, and are not to be changed.
    """

    name: str
    reviews: tuple[Review, ...]
    labeled: frozenset[str] = frozenset()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of all reviews, whatever their order."""
        digest = hashlib.sha256()
        for line in sorted(json.dumps(astuple(review)) for review in self.reviews):
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def by_id(self) -> dict[str, Review]:
        return {review.review_id: review for review in self.reviews}

    @cached_property
    def by_user(self) -> dict[str, tuple[Review, ...]]:
        """User -> their reviews in file order."""
        return _grouped(self.reviews, lambda review: review.user_id)

    @cached_property
    def by_topic(self) -> dict[str, tuple[Review, ...]]:
        """Topic id -> its reviews in file order."""
        return _grouped(self.reviews, lambda review: review.topic_id)

    @cached_property
    def topics(self) -> dict[str, str]:
        """Topic id -> readable name."""
        return {topic_id: reviews[0].topic for topic_id, reviews in self.by_topic.items()}

    @cached_property
    def category_of(self) -> dict[str, str]:
        """Topic id -> category, '' where the file has none."""
        return {topic_id: reviews[0].category for topic_id, reviews in self.by_topic.items()}

    @cached_property
    def phrase_stats(self) -> labels.PhraseStats:
        """How many topics use each phrase."""
        return labels.phrase_stats([labels.phrase_counts((r.title, r.text) for r in reviews) for reviews in self.by_topic.values()])

    def without(self, review_ids: Collection[str]) -> Corpus:
        """The corpus without these reviews; topic names are kept as they are."""
        gone = set(review_ids)
        return Corpus(self.name, tuple(r for r in self.reviews if r.review_id not in gone), self.labeled)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file: ``n_read == n_kept + sum(refused.values())``; ``cleaned`` counts reviews by kind of change."""

    format: str
    n_read: int
    n_kept: int
    cleaned: dict[str, int]
    refused: dict[str, int]
    examples: tuple[Refusal, ...]  # the first N_EXAMPLES of each reason
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.format}: {self.n_read:,} reviews read, {self.n_kept:,} kept"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {n:,} x {kind}" for kind, n in sorted(self.cleaned.items())]
        for reason, n in sorted(self.refused.items()):
            lines.append(f"  {n:,} refused: {reason}")
            lines += [f"    {e.where}{': ' + e.detail if e.detail else ''}" for e in self.examples if e.reason == reason]
        return "\n".join(lines)


def read_corpus(
    path: str | Path, *, raw: bool = False, columns: Mapping[str, str] | None = None, progress: Progress | None = None
) -> tuple[Corpus, ImportReport]:
    """The corpus in a file and the report on its rows; ``raw`` keeps texts, repeated reviews and shared names as the file has them.

    ``columns`` maps our field names to the file's (the rest is guessed). Raises ValueError when the file cannot be read or no row is
    usable.
    """
    path = Path(path)
    parsed = read_rows(path, columns)
    refusals: list[Refusal] = []
    reviews: dict[str, tuple[Review, str, set[str]]] = {}  # id -> review, where it is, what was changed
    for n, row in enumerate(parsed.rows, 1):
        if progress and (n % 1000 == 0 or n == len(parsed.rows)):
            progress(f"Reading {path.name}", n, len(parsed.rows))
        changes: set[str] = set()
        review = row if isinstance(row, Refusal) else _checked(row, raw, changes)
        if isinstance(review, Refusal):
            refusals.append(review)
        elif review.review_id in reviews:
            refusals.append(Refusal(row.where, "review id already taken", f"{review.review_id}, taken at {reviews[review.review_id][1]}"))
        else:
            reviews[review.review_id] = (review, row.where, changes)
    kept = [review for review, _, _ in reviews.values()]
    n_names = 0
    if not raw:
        repeated = cleaning.repeats(kept)
        dropped = [reviews[review.review_id] for review in kept if review.review_id in repeated]
        refusals += [Refusal(where, "repeats another review of its topic", review.text[:60]) for review, where, _ in dropped]
        kept, n_names = cleaning.split_shared_names([r for r in kept if r.review_id not in repeated])
    refused = Counter(refusal.reason for refusal in refusals)
    examples = tuple(e for reason in refused for e in [r for r in refusals if r.reason == reason][:N_EXAMPLES])
    if not kept:
        first = {e.reason: e.where for e in reversed(examples)}
        reasons = "; ".join(f"{n} x {reason}, first at {first[reason]}" for reason, n in refused.most_common(5))
        raise ValueError(f"{path.name} holds no usable review: {reasons or 'it has no rows'}")
    cleaned = Counter(kind for review in kept for kind in reviews[review.review_id][2])
    if n_names:
        cleaned["display names shared by many people, split"] = n_names
    named, labeled = _with_names(kept)
    report = ImportReport(parsed.format, len(parsed.rows), len(named), dict(cleaned), dict(refused), examples, parsed.notes)
    return Corpus(path.stem, tuple(named), labeled), report


def benchmark_target(corpus: Corpus, user_id: str) -> Review | None:
    """The review to hold out for this user: the first of their PGraphRAG profile (id ending in #0), None if cleaning took it out.

    For other files: their newest, and the first in the file where times are missing or equal.
    """
    reviews = corpus.by_user.get(user_id, ())
    if not reviews:
        raise ValueError(f"no user is called {user_id!r} in {corpus.name}")
    if any(_profile_position(review) is not None for review in reviews):
        return next((review for review in reviews if _profile_position(review) == 0), None)
    return max(reviews, key=lambda review: review.time)


def part_of(user_id: str) -> Part:
    """The part of the people that a user belongs to, by a hash of the id, stable over runs and machines: one half is for training, a
    quarter for choosing between settings, and a quarter stays untouched until a figure is reported."""
    digest = hashlib.sha256(user_id.encode()).digest()
    return "training" if digest[0] % 2 == 0 else "choosing" if digest[1] % 2 == 0 else "untouched"


def hold_out(corpus: Corpus, target: Review, *, seed: int = 0) -> Query:
    """The question to which ``target`` is the answer: its title and rating, its user's other reviews, nothing of its text.

    Held out are the target and every review of its topic with the same words. A topic name made from reviews is made again without them.
    """
    words = cleaning.same_words(target.text)
    copies = [r for r in corpus.by_topic[target.topic_id] if r.text == target.text or (words and cleaning.same_words(r.text) == words)]
    same = frozenset(review.review_id for review in copies)
    topic = target.topic
    if target.topic_id in corpus.labeled:
        others = [r for r in corpus.by_topic[target.topic_id] if r.review_id not in same]
        counts = labels.phrase_counts((r.title, r.text) for r in others)
        topic = labels.label(labels.ranked_phrases(counts, len(others), corpus.phrase_stats)) or target.title or target.topic_id
    return Query(
        topic=topic,
        title=target.title,
        topic_id=target.topic_id,
        category=target.category,
        rating=target.rating,
        user_id=target.user_id,
        history=tuple(r for r in corpus.by_user[target.user_id] if r.review_id not in same),
        held_out=same,
        seed=seed,
    )


def _profile_position(review: Review) -> int | None:
    """The place in a PGraphRAG profile, from an id such as "Mark#3"; None for ids that were not made from one."""
    user_id, mark, position = review.review_id.rpartition("#")
    from_profile = mark and review.user_id in (user_id, review.review_id) and position.isascii() and position.isdigit()
    return int(position) if from_profile else None


def _grouped(reviews: Iterable[Review], key) -> dict[str, tuple[Review, ...]]:
    groups: dict[str, list[Review]] = defaultdict(list)
    for review in reviews:
        groups[key(review)].append(review)
    return {name: tuple(group) for name, group in groups.items()}


class _Refused(Exception):
    """A row that cannot be taken; never leaves this module."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def _checked(row: Row, raw: bool, changes: set[str]) -> Review | Refusal:
    """The row as a review, its text cleaned unless ``raw``, with what was changed added to ``changes``; or why not."""
    try:
        return _review(row.values, raw, changes)
    except _Refused as refused:
        return Refusal(row.where, refused.reason, cleaning.plain_text(refused.detail)[:80])


def _review(values: Mapping[str, object], raw: bool, changes: set[str]) -> Review:
    text = _capped(_string(values, "text", changes), MAX_TEXT, "text", changes)
    title = _capped(_string(values, "title", changes).replace("\n", " "), MAX_TITLE, "title", changes)
    if not text:
        raise _Refused("no text")
    if not raw:
        text, kinds = cleaning.clean_text(text)
        title, _ = cleaning.clean_text(title)
        changes.update(kinds)
        if not text:
            raise _Refused("nothing left after cleaning", f"{'; '.join(kinds)}: {_string(values, 'text', set())}")
    user_id = _id(values, "user_id", changes)
    topic = _capped(_string(values, "topic", changes).replace("\n", " "), MAX_TITLE, "topic", changes)
    topic_id = _id(values, "topic_id", changes, default=topic[:MAX_ID])
    time = _time(values.get("time"), changes)
    review_id = _id(values, "review_id", changes, default=_digest_id(user_id, topic_id, title, text, time))
    rating = _rating(values.get("rating"))
    category = _capped(_string(values, "category", changes).replace("\n", " "), MAX_TITLE, "category", changes)
    return Review(review_id, user_id, topic_id, topic, category, title, text, rating, time)


def _string(values: Mapping[str, object], name: str, changes: set[str]) -> str:
    value = values.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Refused(f"{name} is not text", repr(value)[:60])
    plain = cleaning.plain_text(str(value))
    if plain != cleaning.unix_lines(str(value)).strip():
        changes.add("control or invisible characters removed")
    return plain


def _capped(text: str, limit: int, name: str, changes: set[str]) -> str:
    if len(text) > limit:
        changes.add(f"{name} cut to {limit:,} characters")
    return text[:limit].rstrip()


def _id(values: Mapping[str, object], name: str, changes: set[str], default: str = "") -> str:
    value = " ".join(_string(values, name, changes).split()) or default
    if not value:
        raise _Refused(f"no {name}")
    if len(value) > MAX_ID:
        raise _Refused(f"{name} longer than {MAX_ID} characters", value)
    return value


def _digest_id(user_id: str, *content: str) -> str:
    digest = hashlib.sha256("\x1f".join((user_id, *content)).encode()).hexdigest()
    return f"{user_id[: MAX_ID - 13]}:{digest[:12]}"


def _rating(value: object) -> float | None:
    """The rating 1-5, None where the row has none; anything else refuses the row."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        rating = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        rating = math.nan
    if not 1 <= rating <= 5:
        raise _Refused("rating is not a number from 1 to 5", repr(value)[:40])
    return rating


def _time(value: object, changes: set[str]) -> str:
    """ISO date of a date, an ISO text or seconds or milliseconds since 1970; '' where there is none or it cannot be understood."""
    if isinstance(value, date):
        return value.isoformat()[:10]
    text = "" if value is None or isinstance(value, bool) else str(value).strip()
    if not text:
        return ""
    try:
        if text.removeprefix("-").replace(".", "", 1).isdigit() and len(text) > 8:
            seconds = float(text) / (1000 if abs(float(text)) >= 1e11 else 1)
            return datetime.fromtimestamp(seconds, UTC).date().isoformat()
        return datetime.fromisoformat(text).date().isoformat()
    except (ValueError, OverflowError, OSError):
        changes.add("time not understood and left out")
        return ""


def _with_names(reviews: list[Review]) -> tuple[list[Review], frozenset[str]]:
    """The reviews with one name and category for each topic, and the topics whose name was made from their reviews.

    A topic takes its commonest name in the file. Names made are unique among all names.
    """
    by_topic = _grouped(reviews, lambda review: review.topic_id)
    names = {topic_id: _commonest(r.topic for r in group) for topic_id, group in by_topic.items()}
    categories = {topic_id: _commonest(r.category for r in group) for topic_id, group in by_topic.items()}
    labeled = frozenset(topic_id for topic_id, name in names.items() if not name)
    if labeled:
        counts = {topic_id: labels.phrase_counts((r.title, r.text) for r in group) for topic_id, group in by_topic.items()}
        stats = labels.phrase_stats(list(counts.values()))
        taken = {name for name in names.values() if name}
        for topic_id in sorted(labeled, key=lambda t: (-len(by_topic[t]), t)):
            name = labels.label(labels.ranked_phrases(counts[topic_id], len(by_topic[topic_id]), stats), taken) or topic_id
            names[topic_id] = name
            taken.add(name)
    return [replace(r, topic=names[r.topic_id], category=categories[r.topic_id]) for r in reviews], labeled


def _commonest(values: Iterable[str]) -> str:
    counts = Counter(value for value in values if value)
    return min(counts, key=lambda value: (-counts[value], value), default="")


def describe(corpus: Corpus) -> str:
    """The numbers of a corpus for people: users, topics, reviews, history sizes, categories."""
    history = Counter(min(len(reviews) - 1, 2) for reviews in corpus.by_user.values())
    sizes = ", ".join(f"{name}: {history[n]:,}" for n, name in ((0, "0"), (1, "1"), (2, "2+")))
    lines = [
        f"{corpus.name}: {len(corpus.by_user):,} users, {len(corpus.by_topic):,} topics, {len(corpus.reviews):,} reviews",
        f"  users by history (reviews besides the target) {sizes}",
        f"  fingerprint {corpus.fingerprint[:16]}",
    ]
    categories = Counter(review.category or "(none)" for review in corpus.reviews)
    lines.append("  reviews by category " + ", ".join(f"{name}: {n:,}" for name, n in categories.most_common(12)))
    busiest = sorted(corpus.by_topic, key=lambda t: (-len(corpus.by_topic[t]), t))[:8]
    lines.append("  topics with most reviews " + "; ".join(f"{corpus.topics[t]} ({len(corpus.by_topic[t])})" for t in busiest))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the import report and the numbers of a file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pat_core.corpus", description="Read a file of reviews and say what is in it.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--raw", action="store_true", help="keep texts, repeated reviews and shared names as they are")
    parser.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="repeatable")
    arguments = parser.parse_args(argv)
    pairs = [column.partition("=") for column in arguments.column]
    if any(not (ours and theirs) for ours, _, theirs in pairs):
        parser.error("--column takes OURS=THEIRS, for example --column text=body")
    try:
        corpus, report = read_corpus(
            arguments.file, raw=arguments.raw, columns={ours: theirs for ours, _, theirs in pairs}, progress=terminal_progress()
        )
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    print(report)
    print(describe(corpus))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
