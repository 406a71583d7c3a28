"""What reviews say about a topic, as a few checkable phrases: mentioned, liked, disliked. The topic agent's measured cues, as ``cues`` are the
style agent's. A phrase is one or two words used like a noun; liking is counted sentence by sentence from polar words and the rating.
Leaves out: aspects without a noun, and irony."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pat_core.stylometry import sentences_of, words_of
from pat_core.types import Review

_DETERMINERS = frozenset("the a an my our your his her their its this that these those no every each any some".split())
_STOP = frozenset(
    "the a an and or but if so as at by for from in into of on to up with without about over under after before than then that this these those "
    "is are was were be been being am do does did done have has had having will would can could should may might must not no nor too very just "
    "only also even still again ever never always really quite rather i me my mine we us our you your he him his she her they them their it its "
    "who whom which what when where why how all any both each few more most other some such own same there here out off down one two three "
    "thing things way lot bit day days time times year years week weeks month months people everything something anything nothing anyone someone "
    "first last little much many get got go went come came make made take took give gave say said see saw know knew think thought want wanted use "
    "used using buy bought try tried don didn doesn isn wasn couldn wouldn won ll ve re good great nice bad best better worst product item review "
    "stars star part end side fact kind sort reason back hour hours minute minutes morning night evening half".split()
)
_PRAISE = frozenset(
    "good great nice excellent amazing awesome wonderful perfect perfectly beautiful love loved loves lovely best better happy pleased fantastic "
    "favorite favourite enjoy enjoyed recommend friendly helpful comfortable easy clean cute pretty fun works worked well kind quiet sturdy "
    "smooth warm fast fresh delicious worth superb gentle honest".split()
)
_BLAME = frozenset(
    "bad terrible awful horrible worst worse poor poorly disappointed disappointing hate hated waste useless broken broke cheap dirty rude annoying "
    "ugly uncomfortable sad unfortunately not never no nothing stopped slow loud noisy cold stuck fails failed late wrong problem problems hard "
    "tiny thin stiff misfire squeal expensive dear overpriced queue queues".split()
)


@dataclass(frozen=True, slots=True)
class Points:
    """Phrases by how many reviews use them; ``rating`` is the mean of the known ratings, ``disputed`` True where they differ by 2 or more."""

    mentioned: tuple[str, ...]
    liked: tuple[str, ...]
    disliked: tuple[str, ...]
    rating: float | None
    disputed: bool
    n_reviews: int


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How the words of a corpus are used: ``rarity`` is idf (ln(N / n reviews with the word)), ``nouns`` the words used like nouns."""

    rarity: dict[str, float]
    nouns: frozenset[str]
    unseen_rarity: float

    def weight(self, word: str) -> float:
        return self.rarity.get(word, self.unseen_rarity)


def vocabulary(texts: Sequence[str]) -> Vocabulary:
    """Word use in ``texts``: a word counts as a noun where it follows a determiner at least a fifth of the time (twice at least)."""
    n_texts, seen, after = Counter(), Counter(), Counter()
    for text in texts:
        words = words_of(text)
        n_texts.update(set(words))
        seen.update(words)
        after.update(b for a, b in zip(words, words[1:], strict=False) if a in _DETERMINERS)
    total = max(len(texts), 1)
    nouns = frozenset(w for w, n in after.items() if n >= 2 and n >= 0.2 * seen[w])
    return Vocabulary({w: math.log(total / n) for w, n in n_texts.items()}, nouns, math.log(total + 1))


def content_words(text: str) -> frozenset[str]:
    """Words that carry what a text is about: three letters or more, no function or stock words."""
    return frozenset(w for w in words_of(text) if len(w) > 2 and w not in _STOP and "'" not in w)


def points(reviews: Sequence[Review], words: Vocabulary, k: int = 4, *, about: str = "", others: Sequence[Review] = ()) -> Points:
    """At most ``k`` phrases of each kind from ``reviews``, the most shared first; words of ``about`` (the topic's name) are left out.

    ``others`` are further reviews of the topic: they name nothing themselves, they tell which phrases of ``reviews`` are more than one
    person's matter. A phrase is liked or disliked only where two reviews use it, or where there is a single review.
    """
    own_name = content_words(about)
    uses, liking = _use_of_phrases([*reviews, *others], words, own_name)
    first = range(len(reviews))
    mentioned = {p: sum(i in by for i in first) for p, by in uses.items() if any(i in by for i in first)}
    ranked = sorted(mentioned, key=lambda p: (-(mentioned[p] + math.log1p(len(uses[p]))) * math.sqrt(_rarity(p, words)), p))
    ranked = _without_parts(ranked, uses)
    shared = [p for p in ranked[: 2 * k] if len(uses[p]) >= min(2, len(reviews) + len(others))]
    mean = {p: sum(liking[p]) / len(liking[p]) for p in ranked}
    ratings = [r.rating for r in reviews if r.rating is not None]
    return Points(
        mentioned=tuple(ranked[:k]),
        liked=tuple(sorted((p for p in shared if mean[p] > 0.2), key=lambda p: -mean[p])[:k]),
        disliked=tuple(sorted((p for p in shared if mean[p] < -0.1), key=lambda p: mean[p])[:k]),
        rating=sum(ratings) / len(ratings) if ratings else None,
        disputed=bool(ratings) and max(ratings) - min(ratings) >= 2,
        n_reviews=len(reviews),
    )


def _use_of_phrases(
    reviews: Sequence[Review], words: Vocabulary, own_name: frozenset[str]
) -> tuple[dict[str, set[int]], dict[str, list[float]]]:
    """Which reviews (by position) use each phrase, and the liking of every sentence that holds it."""
    uses: dict[str, set[int]] = defaultdict(set)
    liking: dict[str, list[float]] = defaultdict(list)
    for i, review in enumerate(reviews):
        for sentence in sentences_of(review.text):
            mood = _mood(sentence, review.rating)
            for phrase in _phrases(sentence, words, own_name):
                uses[phrase].add(i)
                liking[phrase].append(mood)
    return uses, liking


def _phrases(sentence: str, words: Vocabulary, own_name: frozenset[str]) -> Iterable[str]:
    """Nouns of ``sentence`` and pairs of content words that end in one."""
    tokens = words_of(sentence)
    content = content_words(sentence) - own_name
    for a, b in zip([""] + tokens, tokens, strict=False):
        if b not in content or b not in words.nouns or b in _PRAISE or b in _BLAME:
            continue
        one = b[:-1] if b.endswith("s") and b[:-1] in words.nouns else b
        yield one
        if a in content and a not in _PRAISE and a not in _BLAME:
            yield f"{a} {one}"


def _rarity(phrase: str, words: Vocabulary) -> float:
    """Rare words first, yet a word that the corpus has never repeated says little: idf capped at its middle range."""
    values = [min(words.weight(w), 4.5) for w in phrase.split()]
    return sum(values) / len(values) + 0.5 * (len(values) - 1)


def _without_parts(ranked: list[str], uses: dict[str, set[int]]) -> list[str]:
    """Drops a word where a pair that holds it is used by as many reviews, and a pair that fewer reviews use than its noun."""
    pairs = [p for p in ranked if " " in p]
    kept = [p for p in ranked if " " not in p or len(uses[p]) == max(len(uses[w]) for w in p.split() if w in uses)]
    covered = {w for p in pairs if p in kept for w in p.split()}
    return [p for p in kept if " " in p or p not in covered]


def _mood(sentence: str, rating: float | None) -> float:
    """Liking in [-1, 1]: polar words of the sentence, with the review's rating as half a voice."""
    tokens = words_of(sentence)
    score = sum(w in _PRAISE for w in tokens) - sum(w in _BLAME for w in tokens)
    said = max(-1.0, min(1.0, score / 2))
    return said if rating is None else (2 * said + (rating - 3) / 2) / 3 if score else (rating - 3) / 4
