"""An evaluation as questions that a reader has, each with its answer in a sentence and what a picture of it has to show.

One question, one picture. Where a run holds nothing to answer a question with, ``missing`` says why and there is no picture. Leaves out how
a picture is drawn (``result_pictures``) and how a page is laid out (``results_html``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pat_core.estimates import Difference, Estimate
from pat_core.results_file import OURS, Report, System

MEASURES = {
    "mean": "Score",
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "mae": "Mean error",
    "rmse": "Root mean square error",
    "copy_rate": "Copied in one piece",
    "style": "Style like the person’s",
    "consensus_distance": "Distance from the consensus",
    "words": "Words",
    "seconds": "Seconds",
    "tokens": "Tokens",
}
GROUPS = {
    "all": "Everybody",
    "0": "No other review",
    "1": "One other review",
    "2+": "Two or more",
    "visitors": "Visitors, one to three texts",
}
TASKS = {
    "long": "reviews written from their titles",
    "short": "titles written from their reviews",
    "rating": "ratings guessed from the reviews",
}
PARTS = {
    "untouched": "none of whom was used to train or to choose anything",
    "choosing": "who were used to choose settings: not a final figure",
    "training": "who were used in training: not a final figure",
    "choosing+untouched": "some of whom were used to choose settings, none in training",
    "all": "some of whom were used in training: not a final figure",
}
ADDED = {
    "pat-style-only": "The topic notes add",
    "pat-topic-only": "The style notes add",
    "pat-neither": "Both notes together add",
    "pat-zero": "Training adds",
}
WRONG_USER = "pat-wrong-user"


Mark = Literal["ours", "other", "sure", "unsure", "against"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a picture: a name, an interval with its middle, the figures beside it, and what it stands for.

    A system is "ours" or "other". A difference is "sure" where it speaks for PaT, "against" where it surely does not, else "unsure".
    """

    name: str
    value: float
    low: float
    high: float
    said: str
    n: int
    mark: Mark


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows on one scale. ``line`` is the value to read them against; ``unit`` how the scale is printed: score, share or seconds."""

    caption: str
    rows: tuple[Row, ...]
    line: float | None = None
    unit: str = "score"


@dataclass(frozen=True, slots=True)
class Dot:
    """A system by two of its figures."""

    name: str
    x: float
    y: float
    said: str
    strong: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """A question, its answer, how to read the picture, and the picture's content: panels or dots; ``missing`` where there is neither."""

    key: str
    question: str
    answer: str = ""
    how: str = ""
    panels: tuple[Panel, ...] = ()
    dots: tuple[Dot, ...] = ()
    missing: str = ""


def findings(r: Report) -> tuple[Finding, ...]:
    """Every question, in the order in which a reader asks them."""
    return (closer(r), margin(r), copying(r), personal(r), parts(r), whom(r), judged(r), cost(r))


def headline(r: Report) -> tuple[str, ...]:
    """What was measured on whom, and what came out, in a few sentences."""
    people = f"{of(r.n_users, 'person', 'people')} of {r.file or r.corpus or 'a corpus'}"
    part = f", {PARTS[r.part]}" if r.part in PARTS else f", part {r.part}" if r.part else ""
    first = f"Measured on {people}{part}: {TASKS[r.task]}."
    return (first, *(f.answer for f in (closer(r), margin(r)) if not f.missing))


def closer(r: Report) -> Finding:
    act = "write closer to what the person wrote" if r.up else "guess the rating better"
    question = f"Does PaT {act} than the others?"
    ranked = _ranked(r, ("ours", "rival", "baseline"))
    ours = r.systems.get(OURS)
    mine = ours.of(r.measure) if ours else None
    if ours is None or mine is None or len(ranked) < 2:
        return Finding("closer", question, missing="PaT and at least one other system have to run together.")
    place = [s.name for s, _ in ranked].index(OURS)
    best, its = next((s, e) for s, e in ranked if s.name != OURS)
    if place == 0:
        answer = f"PaT is first of {len(ranked)}, with {score(mine)}; next is {best.label} with {score(its)}."
    else:
        answer = f"PaT is {_ordinal(place + 1)} of {len(ranked)}, with {score(mine)}; {best.label} is first with {score(its)}."
    how = (
        "The score is the mean of ROUGE-1, ROUGE-L and METEOR against the person’s own text: 0 shares nothing with it, 1 is the same text."
        if r.up
        else "How far the guess is from the stars that the person gave, on average: less is better."
    )
    rows = tuple(_row(s, e) for s, e in ranked)
    caption = "Score, more is closer" if r.up else "Error in stars, less is better"
    return Finding("closer", question, answer, f"{how} Bars are 95% intervals.", (Panel(caption, rows),))


def margin(r: Report) -> Finding:
    question = "By how much, and is it sure?"
    compared = _compared(r, ("rival", "baseline"))
    if not compared:
        return Finding("margin", question, missing="No other method was compared with PaT person by person.")
    groups: dict[str, list[tuple[System, Difference]]] = {"ahead": [], "level": [], "behind": []}
    for s, d in compared:
        groups[standing(d, r.up)].append((s, d))
    words = {"ahead": "Ahead of", "level": "Level with", "behind": "Behind"}
    said = [_against(words[name], found, len(compared)) for name, found in groups.items()]
    side = "right" if r.up else "left"
    how = (
        f"PaT minus the other, for the same people, with 95% intervals. A bar wholly to the {side} of the dashed line is a lead that more "
        "people like these would confirm; a bar across the line could be chance."
    )
    rows = tuple(_gap(s.label, d, r.up) for s, d in compared)
    return Finding("margin", question, " ".join(filter(None, said)), how, (Panel(f"PaT minus the other, {_named(r)}", rows, line=0.0),))


def _against(words: str, compared: Sequence[tuple[System, Difference]], n_all: int) -> str:
    """Ahead of whom, level with whom or behind whom: each by name, or how many and the two ends."""
    if not compared:
        return ""
    named = [f"{s.label}{_relative(d)}" for s, d in compared]
    if len(named) <= 3:
        return f"{words} {_listed(named)}."
    return f"{words} {'all ' if len(named) == n_all else ''}{len(named)} others, from {named[-1]} to {named[0]}."


def copying(r: Report) -> Finding:
    question = "Does it copy?"
    dots = []
    for s, e in _ranked(r, ("ours", "rival", "baseline")):
        copied = s.of("copy_rate")
        if copied is not None and r.up:
            dots.append(Dot(s.label, copied.mean, e.mean, f"{share(copied.mean)} copied, score {plain(e.mean)}", s.name == OURS))
    mine = next((d for d in dots if d.strong), None)
    if mine is None or len(dots) < 2:
        return Finding("copying", question, missing="It was not measured how much the texts copy.")
    most = max((d for d in dots if not d.strong), key=lambda d: d.x)
    longest = "The longest piece that PaT takes over word for word is"
    answer = f"{longest} {share(mine.x)} of its text; with {most.name} it is {share(most.x)}."
    how = "Across: the longest piece taken over, as a share of the text. Upward: the score. The best place is the top left."
    return Finding("copying", question, answer, how, dots=tuple(dots))


def personal(r: Report) -> Finding:
    question = "Is it personal?"
    if not r.gain:
        return Finding("personal", question, missing=f"PaT was not also asked to write with another person’s notes ({WRONG_USER}).")
    measure = r.measure if any(r.measure in d for d in r.gain.values()) else "rouge_1"
    shown = ((measure, f"Right minus wrong person, {MEASURES[measure].lower()}"), ("style", "Right minus wrong person, likeness of style"))
    panels = []
    for name, caption in shown:
        up = r.up or name == "style"
        rows = tuple(_gap(f"{GROUPS.get(g, g)} ({d[name].n:,})", d[name], up) for g, d in by_group(r.gain) if name in d)
        panels += [Panel(caption, rows, line=0.0)] * bool(rows)
    if not panels:
        return Finding("personal", question, missing="The run with another person’s notes has no figures.")
    said = [_worth(GROUPS.get(g, g), d[measure], r.up) for g, d in by_group(r.gain) if g in ("all", "visitors") and measure in d]
    style = r.gain.get("all", {}).get("style")
    if style:
        said.append(f"Likeness to the person’s style: {gap_interval(style)}{'' if sure(style) else ', which could be chance'}.")
    how = "PaT with a person’s own notes minus PaT with those of somebody else. Without a gain, the text would fit anybody."
    return Finding("personal", question, " ".join(said), how, tuple(panels))


def _worth(group: str, d: Difference, up: bool) -> str:
    verdict = {"ahead": "closer", "behind": "further off"}.get(standing(d, up))
    if verdict is None:
        return f"{group}: not shown, the right person’s notes change the score by {gap_interval(d)}, which could be chance."
    return f"{group}: with the right person’s notes the texts are {verdict} than with another’s, {gap_interval(d)}."


def parts(r: Report) -> Finding:
    question = "What do the parts add?"
    compared = _compared(r, ("ablation", "ours"))
    if not compared:
        return Finding("parts", question, missing="PaT was not also run without its parts.")
    named = [(ADDED.get(s.name, f"More than {s.label}"), d) for s, d in compared]
    answer = " ".join(f"{name} {gap(d.mean)}{'' if sure(d) else ', which could be chance'}." for name, d in named)
    how = "PaT minus PaT without that part, for the same people."
    rows = tuple(_gap(name, d, r.up) for name, d in named)
    return Finding("parts", question, answer, how, (Panel(f"Whole minus without, {_named(r)}", rows, line=0.0),))


def whom(r: Report) -> Finding:
    question = "Which people does it help?"
    ours = r.systems.get(OURS)
    groups = [g for g in r.groups if g != "all" and ours and ours.of(r.measure, g)]
    if ours is None or not groups:
        return Finding("whom", question, missing="There are no figures by how much is known of a person.")
    panels, said = [], []
    for g in groups:
        ranked = _ranked(r, ("ours", "rival", "baseline"), g)
        others = [(s, e) for s, e in ranked if s.name != OURS]
        mine = next(e for s, e in ranked if s.name == OURS)
        shown = [(s, e) for s, e in ranked if s.name == OURS or s.name == "none" or (others and s is others[0][0])]
        name = GROUPS.get(g, g)
        panels.append(Panel(f"{name} ({of(mine.n, 'person', 'people')})", tuple(_row(s, e) for s, e in shown)))
        if others:
            s, e = others[0]
            said.append(f"{name}: PaT {plain(mine.mean)} against {plain(e.mean)} ({s.label}).")
    how = "PaT, the best of the others in each group, and writing without any notes. Few people make wide bars."
    return Finding("whom", question, " ".join(said) or "Only PaT has figures here.", how, tuple(panels))


def judged(r: Report) -> Finding:
    question = "Whom does a judge prefer?"
    rows, said = [], []
    for name, duel in r.duels.items():
        if duel.won is None:
            continue
        label = r.systems[name].label if name in r.systems else name
        rows.append(_verdicts(f"against {label}", duel.won))
        verdict = "more often" if duel.won.low > 0.5 else "less often" if duel.won.high < 0.5 else "about as often"
        said.append(f"against {label} {share(duel.won.mean)} ({verdict})")
    if not rows:
        return Finding("judged", question, missing="No judge model was asked.")
    answer = f"Share of clear verdicts for PaT by {r.judge or 'the judge'}: {_listed(said)}."
    how = "Each pair is asked in both orders; only verdicts that agree count. The dashed line is one half, no better than a coin."
    return Finding("judged", question, answer, how, (Panel("Share of clear verdicts won by PaT", tuple(rows), line=0.5, unit="share"),))


def cost(r: Report) -> Finding:
    question = "What does it cost?"
    timed = [(s, e) for s in r.systems.values() if (e := s.of("seconds")) and e.mean > 0.005 and s.kind != "reference"]
    timed.sort(key=lambda pair: pair[1].mean)
    mine = next((e for s, e in timed if s.name == OURS), None)
    if mine is None:
        return Finding("cost", question, missing="It was not measured how long a text takes.")
    plainest = next((e for s, e in timed if s.name == "none"), None)
    times = f", {mine.mean / plainest.mean:.1f} times as long as without any notes" if plainest else ""
    rows = tuple(Row(s.label, e.mean, e.low, e.high, f"{e.mean:.1f} s", e.n, _whose(s)) for s, e in timed)
    answer = f"A text by PaT takes {mine.mean:.1f} seconds{times}, on {r.engine or 'the engine of this run'}."
    how = "Mean seconds of model time for one text, its notes and drafts included; the texts of many people are written together."
    return Finding("cost", question, answer, how, (Panel("Seconds for a text, less is better", rows, line=0.0, unit="seconds"),))


# --- figures in words


def plain(x: float) -> str:
    """.201 and −.012: three places, no zero before the point."""
    said = f"{abs(x):.3f}"
    return ("−" if x < 0 and float(said) else "") + (said[1:] if said.startswith("0") else said)


def gap(x: float) -> str:
    return ("+" if x >= 0 else "") + plain(x)


def score(e: Estimate) -> str:
    return f"{plain(e.mean)} [{plain(e.low)}, {plain(e.high)}]"


def gap_interval(d: Estimate | Difference) -> str:
    return f"{gap(d.mean)} [{gap(d.low)}, {gap(d.high)}]"


def share(x: float) -> str:
    return f"{max(x, 0.0):.0%}"


def of(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def sure(d: Estimate | Difference) -> bool:
    """Does the interval leave zero out?"""
    return d.low > 0 or d.high < 0


def standing(d: Difference, up: bool) -> str:
    """'ahead', 'behind' or 'level' for PaT minus another system, where ``up`` says that more is better."""
    if not sure(d):
        return "level"
    return "ahead" if (d.mean > 0) == up else "behind"


def _ranked(r: Report, kinds: Sequence[str], group: str = "all") -> list[tuple[System, Estimate]]:
    """Systems of these kinds with their figure, best first; of our own only PaT as it is."""
    found = [
        (s, e)
        for s in r.systems.values()
        if s.kind in kinds and (s.kind != "ours" or s.name == OURS) and (e := s.of(r.measure, group)) is not None
    ]
    return sorted(found, key=lambda pair: -pair[1].mean if r.up else pair[1].mean)


def _compared(r: Report, kinds: Sequence[str]) -> list[tuple[System, Difference]]:
    """Other systems of these kinds with PaT's difference from them, the largest lead first."""
    found = []
    for name, measures in r.paired.items():
        s, d = r.systems.get(name), measures.get(r.measure) or measures.get("rouge_1")
        if s is not None and d is not None and s.kind in kinds and name not in (OURS, WRONG_USER):
            found.append((s, d))
    return sorted(found, key=lambda pair: -pair[1].mean if r.up else pair[1].mean)


def by_group(gain: dict[str, dict[str, Difference]]) -> list[tuple[str, dict[str, Difference]]]:
    """What is personal, everybody first."""
    order = list(GROUPS)
    return sorted(gain.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _row(s: System, e: Estimate) -> Row:
    return Row(s.label, e.mean, e.low, e.high, score(e), e.n, _whose(s))


def _whose(s: System) -> Mark:
    return "ours" if s.name == OURS else "other"


def _gap(name: str, d: Difference, up: bool) -> Row:
    marks: dict[str, Mark] = {"ahead": "sure", "level": "unsure", "behind": "against"}
    return Row(name, d.mean, d.low, d.high, gap(d.mean) + _relative(d), d.n, marks[standing(d, up)])


def _verdicts(name: str, e: Estimate) -> Row:
    mark: Mark = "sure" if e.low > 0.5 else "against" if e.high < 0.5 else "unsure"
    return Row(name, e.mean, e.low, e.high, f"{share(e.mean)} [{share(e.low)}, {share(e.high)}]", e.n, mark)


def _relative(d: Difference) -> str:
    return "" if d.relative is None else f" ({d.relative:+.0%})"


def _named(r: Report) -> str:
    return "score" if r.up else "error in stars"


def _listed(items: Sequence[str]) -> str:
    return "; ".join(items)  # names hold commas


def _ordinal(n: int) -> str:
    names = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    return names[n - 1] if n <= len(names) else f"number {n}"
