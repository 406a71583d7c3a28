"""Readable names for topics that have only an id: the key phrases of their reviews ("thumb sucking, nail polish").

Phrases of one or two content words are weighed by how many of the topic's reviews use them (a title counts as TITLE_WEIGHT texts) and by
how few other topics do (TF-IDF over topics). Leaves out any language model: a name has to be the same at every start, and cheap to make
again without a held-out review.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

TITLE_WEIGHT = 2
RARE = 1  # topics added to those that use a phrase: one used nowhere else is as likely a slip as a name
MIN_SHARE = 0.05  # of the reviews of a topic must use a phrase in its name
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+[^\W\d_]+", re.UNICODE)
_STOP = frozenset(  # function words, opinions, and what every review of anything talks about
    """
    a able about above absolute absolutely accidentally actually after again against ago all almost already also although always am
    amazing amazon an and another any anyone anything are aren't around arrived as at away awesome awful back bad bc be beautiful because
    been before being below best better between big bit both bought boyfriend breaks broke brother but buy buying by came can can't cannot
    cant cheap cheaper cheaply clean come comes comfortable company could couldn't couple cute dad daughter day days deal definitely
    delivered delivery description did didn didn't didnt different disappointed disappointing disappointment dissapointed do does doesn
    doesn't doesnt doing don don't done dont down during each easily easy either else end enjoy enjoyed enough especially etc even ever
    every everyone everything excellent expected expensive extremely fabulous family fantastic far favorite feel feels felt few film fine
    first five for four friend friendly friends from full fun funny further gave get gets getting girlfriend give given glad go goes going
    gone gonna good got great guess guy guys had hadn't half happy hard has hasn't hate have haven't having he he'll he's helpful her here
    hers herself high highly hilarious him himself his honestly hope horrible hotel hotels hour hours how however huge husband i i'd i'll
    i'm i've idea if im impressed in incredible inexpensive into is isn isn't isnt it it'll it's item items its itself ive job junk just
    keep kept kid kids kind know large last later least left less let like liked literally little lol long look looked looking looks lot
    lots love loved lovely loves low made main make makes making man many may maybe me might min mine minute minutes mom money month
    months more most mother movie movies much must my myself need needed needs never new next nice nicely night nights no none nor not
    nothing now number of off often oh ok okay old omg on once one ones only onto or order ordered ordering other others our ours
    ourselves out over overall own package packaging part people per perfect perfectly person picture pictures place pleasant pleased plus
    point poor poorly positive pretty price priced probably problem problems product products purchase purchased purchasing put quality
    quick quickly quite rather re read real really reason received recommend recommended regular return returned returning review reviews
    right room rooms said same satisfied saw say says second see seem seemed seems seen seller send sent several she she's shipping short
    should shouldn't side simple simply since sister slightly small so some someone something son soon star stars start started stay
    stayed staying still stuff such super sure take taken takes tastefully terrible than thank thanks that that'll that's the their theirs
    them themselves then there there's these they they're they've thing things think this those though thought three threw through thru
    till time times to today together told too took total totally toward tried try trying two type under until up upon us use used useless
    uses using usually value ve very via want wanted wants was wasn wasn't waste wasted way we we'd we'll we're we've week weeks weird
    well went were weren't what what's when where whether which while who whole whom whose why wife will with within without woman won't
    wonderful wonderfully wont work worked working works worse worst worth worthy would wouldn't wow wrong x year years yes yet you you'd
    you'll you're you've your yours yourself yuck yumm yummy
    """.split()
)
_ONLY_IN_PAIRS = frozenset({"film", "hotel", "hotels", "movie", "movies", "product", "room", "rooms"})  # "room service" says something


@dataclass(frozen=True, slots=True)
class PhraseStats:
    """How many topics use each phrase, over ``n_topics``: what makes a phrase rare."""

    n_topics: int
    n_using: Counter[str]


def phrases(text: str) -> set[str]:
    """Content words of the text and pairs of neighboring ones, lower case."""
    found = set()
    for clause in re.split(r"[.,;:!?()\n\"/]+", text.lower().replace("’", "'")):
        words = _WORD.findall(clause)
        found.update(word for word in words if _content(word))
        for first, second in pairwise(words):
            if first != second and all(_content(word) or word in _ONLY_IN_PAIRS for word in (first, second)):
                found.add(f"{first} {second}")
    return found


def content_words(text: str) -> list[str]:
    """The words of the text that say what it is about, in order, lower case."""
    return [word for word in _WORD.findall(text.lower().replace("’", "'")) if _content(word)]


def _content(word: str) -> bool:
    return len(word) > 2 and word not in _STOP


def phrase_counts(texts: Iterable[tuple[str, str]]) -> Counter[str]:
    """How many of these (title, text) pairs use each phrase; a use in the title counts TITLE_WEIGHT more."""
    counts: Counter[str] = Counter()
    for title, text in texts:
        counts.update(phrases(text))
        for phrase in phrases(title):
            counts[phrase] += TITLE_WEIGHT
    return counts


def phrase_stats(counts: Sequence[Counter[str]]) -> PhraseStats:
    """The statistics that labels need, from the phrase counts of every topic."""
    n_using: Counter[str] = Counter()
    for topic in counts:
        n_using.update(topic.keys())
    return PhraseStats(len(counts), n_using)


def ranked_phrases(counts: Counter[str], n_reviews: int, stats: PhraseStats) -> list[str]:
    """The topic's phrases, the most telling first; ties in alphabetical order. From three reviews on a phrase needs more than one use."""

    def weight(phrase: str) -> float:
        rarity = math.log((stats.n_topics + 1) / (stats.n_using[phrase] + RARE))
        return counts[phrase] ** 0.6 * rarity * (1.4 if " " in phrase else 1.0)

    least = max(TITLE_WEIGHT + 1 if n_reviews > 5 else 2, MIN_SHARE * n_reviews) if n_reviews > 2 else 1
    often = [phrase for phrase, n in counts.items() if n >= least]
    return sorted(often if len(often) > 1 else counts, key=lambda phrase: (-weight(phrase), phrase))[:40]


def label(ranked: Sequence[str], taken: Collection[str] = ()) -> str:
    """The best two phrases that share no word and are not a name in ``taken``, else the best one, else ''."""
    for first, second in combinations(ranked, 2):
        words = [*first.split(), *second.split()]
        if len({stem(word) for word in words}) == len(words) and f"{first}, {second}" not in taken:
            return f"{first}, {second}"
    return next((phrase for phrase in ranked if phrase not in taken), "")


def stem(word: str) -> str:
    """The word without its commonest endings, so that "nail" and "nails" are one word in a name."""
    return re.sub(r"(?:'s|ies|es|s|ing|ed|y)$", "", word) if len(word) > 4 else word.removesuffix("s")
