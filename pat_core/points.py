"""What reviews say about a topic, as a few checkable phrases: mentioned, liked, disliked, and what they call it. The topic agent's measured
cues, as ``cues`` are the style agent's. A phrase is one or two words used like a noun, a quality one word used like an adjective; liking is
counted sentence by sentence from polar words and the rating. Leaves out irony, and "not" before a quality."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pat_core.stylometry import sentences_of, words_of
from pat_core.types import Review

_DETERMINERS = frozenset("the a an my our your his her their its this that these those no every each any some".split())
_BEFORE_A_QUALITY = frozenset(
    "is are was were be been isn wasn aren weren am feel feels felt look looks looked seem seems seemed very so too really super extremely".split()
)
_NOT_A_QUALITY = frozenset(  # used like one, but of a person, of degree, or of nothing in particular
    "able about afraid almost already another anywhere apart appreciate available aware beat beyond blown born brand brought built cant "
    "careful certain confident dead done due eager elsewhere enough exactly far forward full given glad going gone gonna grateful hands "
    "happy hesitant inches kept kinda known laid less like likes located lost lucky made meant mid non none often oil ok okay open paid "
    "paper perhaps pet picky plenty present pretty proud put ready right same seen self sent set shown sick skeptical sold somewhat soo "
    "sooooo sorry spot stood stuck super suppose supposed sure taken theres told too tops true unable unsure upset user wary well within "
    "woken written wrong".split()
)
_ENDS_A_PHRASE = frozenset(
    "is are was were be been has had have does did do will would can could should may might must isn wasn aren weren doesn didn won "
    "and or but nor so yet of for in on at to with from by as than into about over under after before through during without within "
    "that which who whom where when while because if since until though although i it he she we you they not too also just".split()
)
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
_NO_POINT = frozenset(  # nouns by use, yet no aspect
    "another contain couple fits fourth friday happened happens holds idea like longer may means moment monday must needs opinion others "
    "own past plus purchase review right same saturday self sunday tends third thursday tuesday wednesday while".split()
)
_NAMED = re.compile(r"\bthe ((?:(?!and\b|or\b|the\b|against\b|is\b|are\b)[\w'-]+ ?){1,3})")
_CALLED = re.compile(r"\b[Cc]all it ([\w', -]+)")
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
    """Phrases by how many reviews use them; ``praised_as`` and ``blamed_as`` are the qualities they name, in praise and otherwise; ``rating``
    is the mean of the known ratings, ``disputed`` True where they differ by 2 or more."""

    mentioned: tuple[str, ...]
    liked: tuple[str, ...]
    disliked: tuple[str, ...]
    rating: float | None
    disputed: bool
    n_reviews: int
    praised_as: tuple[str, ...] = ()
    blamed_as: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How the words of a corpus are used: ``rarity`` is idf (ln(N / n reviews with the word)), ``nouns`` the words used like nouns,
    ``qualities`` those used like adjectives; no word is both."""

    rarity: dict[str, float]
    nouns: frozenset[str]
    qualities: frozenset[str]
    unseen_rarity: float

    def weight(self, word: str) -> float:
        return self.rarity.get(word, self.unseen_rarity)


def vocabulary(texts: Sequence[str]) -> Vocabulary:
    """Word use in ``texts``, each kind at least twice and a fifth of all uses.

    A noun follows a determiner and then ends its phrase a quarter of the time ("the pour is", "my pour."), which an adjective seldom does
    ("the next stop"). A quality follows a form of "be" or a word of degree ("is soft", "so soft"), and that more often than it is a noun.
    """
    n_texts, seen, named, ending, called = Counter(), Counter(), Counter(), Counter(), Counter()
    for text in texts:
        n_texts.update(set(words_of(text)))
        for sentence in sentences_of(text):
            words = words_of(sentence)
            seen.update(words)
            for before, word, then in zip(words, words[1:], [*words[2:], ""], strict=False):
                named[word] += before in _DETERMINERS
                ending[word] += before in _DETERMINERS and (not then or then in _ENDS_A_PHRASE)
                called[word] += before in _BEFORE_A_QUALITY
    total = max(len(texts), 1)
    qualities = frozenset(w for w, n in called.items() if _is_common(n, seen[w]) and n > ending[w] and _may_be_a_quality(w))
    nouns = frozenset(w for w, n in named.items() if _is_common(n, seen[w]) and ending[w] >= 0.25 * n) - qualities
    return Vocabulary({w: math.log(total / n) for w, n in n_texts.items()}, nouns, qualities, math.log(total + 1))


def _is_common(uses: int, of: int) -> bool:
    return uses >= 2 and uses >= 0.2 * of


def _may_be_a_quality(word: str) -> bool:
    return len(word) > 2 and "'" not in word and not word.endswith(("ly", "ed", "ing")) and word not in _STOP | _NOT_A_QUALITY


def content_words(text: str) -> frozenset[str]:
    """Words that carry what a text is about: three letters or more, no function or stock words."""
    return frozenset(w for w in words_of(text) if len(w) > 2 and w not in _STOP and "'" not in w)


def points(reviews: Sequence[Review], words: Vocabulary, k: int = 6, *, about: str = "", others: Sequence[Review] = ()) -> Points:
    """At most ``k`` phrases mentioned in ``reviews``, the most shared first, two thirds as many liked and disliked, a third as many
    qualities of each kind; words of ``about`` (the topic's name) are left out.

    ``others`` are further reviews of the topic: they name nothing themselves, they tell which phrases of ``reviews`` are more than one
    person's matter. A phrase is liked or disliked only where two reviews use it, or where there is a single review.
    """
    own_name = content_words(about)
    uses, liking = _uses([*reviews, *others], lambda sentence: _phrases(sentence, words, own_name))
    named = _how_shared(uses, len(reviews))
    ranked = _without_parts(sorted(named, key=lambda p: (-named[p] * math.sqrt(_rarity(p, words)), p)), uses)
    shared = [p for p in ranked[:k] if len(uses[p]) >= min(2, len(reviews) + len(others))]
    qualities, moods = _uses([*reviews, *others], lambda sentence: words.qualities.intersection(words_of(sentence)) - own_name)
    called = _how_shared(qualities, len(reviews))
    ordered = sorted(called, key=lambda q: (-called[q], q))
    ratings = [r.rating for r in reviews if r.rating is not None]
    some, few = -(-2 * k // 3), -(-k // 3)
    return Points(
        mentioned=tuple(ranked[:k]),
        liked=tuple(sorted((p for p in shared if liking[p] > 0.2), key=lambda p: -liking[p])[:some]),
        disliked=tuple(sorted((p for p in shared if liking[p] < -0.1), key=lambda p: liking[p])[:some]),
        rating=sum(ratings) / len(ratings) if ratings else None,
        disputed=bool(ratings) and max(ratings) - min(ratings) >= 2,
        n_reviews=len(reviews),
        praised_as=tuple(q for q in ordered if _is_praise(q, moods[q]))[:few],
        blamed_as=tuple(q for q in ordered if not _is_praise(q, moods[q]))[:few],
    )


def phrases_in(summary: str) -> tuple[str, ...]:
    """The things ("the desk staff") and qualities ("call it clean and quiet") that a topic summary names, in its order."""
    found = [m[1] for m in _NAMED.finditer(summary)]
    found += [quality for m in _CALLED.finditer(summary) for quality in re.split(r", | and ", m[1])]
    return tuple(dict.fromkeys(phrase.strip() for phrase in found))


def is_used(phrase: str, texts: Sequence[str]) -> bool:
    """Whether one of ``texts`` has every word of ``phrase``, in the singular or in the plural."""
    return any(all({w, f"{w}s"} & said for w in words_of(phrase)) for said in (set(words_of(t)) for t in texts))


def _uses(reviews: Sequence[Review], found_in: Callable[[str], Iterable[str]]) -> tuple[dict[str, set[int]], dict[str, float]]:
    """Which reviews (by position) use what is ``found_in`` a sentence, and the mean liking of the sentences that hold it."""
    uses: dict[str, set[int]] = defaultdict(set)
    liking: dict[str, list[float]] = defaultdict(list)
    for i, review in enumerate(reviews):
        for sentence in sentences_of(review.text):
            mood = _mood(sentence, review.rating)
            for phrase in found_in(sentence):
                uses[phrase].add(i)
                liking[phrase].append(mood)
    return uses, {phrase: sum(moods) / len(moods) for phrase, moods in liking.items()}


def _how_shared(uses: Mapping[str, set[int]], n: int) -> dict[str, float]:
    """For each phrase that the first ``n`` reviews use: by how many of them, further reviews as a tie-break."""
    mentioned = {phrase: sum(i < n for i in by) for phrase, by in uses.items()}
    return {phrase: m + math.log1p(len(uses[phrase])) for phrase, m in mentioned.items() if m}


def _is_praise(quality: str, liking: float) -> bool:
    return quality in _PRAISE or (quality not in _BLAME and liking >= 0)


def _phrases(sentence: str, words: Vocabulary, own_name: frozenset[str]) -> Iterable[str]:
    """Nouns of ``sentence`` and pairs of content words that end in one."""
    tokens = words_of(sentence)
    content = content_words(sentence) - own_name
    for a, b in zip([""] + tokens, tokens, strict=False):
        one = b[:-1] if b.endswith("s") and b[:-1] in words.nouns else b
        if b not in content or b not in words.nouns or one in _PRAISE | _BLAME | _STOP | _NO_POINT:
            continue
        yield one
        if a in content - _PRAISE - _BLAME - _NO_POINT:
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
