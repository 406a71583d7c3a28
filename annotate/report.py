"""The report on a campaign in words: one sentence for each question an owner asks, as text or JSON in the terminal.

A sentence never holds a number without its n, and says so where there is too little to say anything. Intervals are 95%. Leaves out the
figures themselves (``figures``) and the page (``ui.owner``).

    python -m annotate.report --db DB [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from annotate.database import StoreError
from annotate.figures import COMPARED, Person, Report, Tally, report
from annotate.stats.agreement import OVERALL, Agreement, RewardAgreement
from annotate.stats.power import PowerMeter
from annotate.stats.ratings import Rating, Ratings
from annotate.stats.votes import Estimate
from annotate.store import open_store
from annotate.words import listed, of, system_name

__all__ = ["Report", "report", "sentences"]

TARGET = 0.6  # the win rate that the sentences on missing votes speak of


def percent(e: Estimate) -> str:
    """A share with its interval, as "71% [62, 79]"."""
    return f"{e.value:.0%} [{100 * e.low:.0f}, {100 * e.high:.0f}]"


def points(rating: Rating) -> str:
    return f"{rating.rating:,.0f} [{rating.low:,.0f}, {rating.high:,.0f}]"


def sentences(r: Report) -> dict[str, str]:
    """Each question by name, answered in plain words, in the order of the page."""
    return {
        "queue": queue_sentence(r),
        "people": people_sentence(r),
        "agreement": agreement_sentence(r),
        "ties": ties_sentence(r),
        "sides": sides_sentence(r),
        "checks": checks_sentence(r),
        "systems": systems_sentence(r),
        "flip": flip_sentence(r),
        "length": length_sentence(r),
        "power": power_sentence(r),
        "reward": reward_sentence(r),
        "excluded": excluded_sentence(r),
    }


def queue_sentence(r: Report) -> str:
    rows = [row for row in r.queue if row.kind in COMPARED]
    n, n_open = sum(row.n for row in rows), sum(row.n_open for row in rows)
    if not n:
        return "There are no pairs to judge yet: import some, or make them from the corpus."
    twice = sum(row.n_two + row.n_more for row in rows)
    split, leased = sum(row.n_split for row in rows), sum(row.n_leased for row in rows)
    return (
        f"{n - n_open:,} of {of(n, 'pair')} have an answer, {twice:,} of them from two people or more; {n_open:,} wait for their first. "
        f"Opposite answers on {of(split, 'pair')}; {of(leased, 'pair')} on somebody's screen now."
    )


def people_sentence(r: Report) -> str:
    people = [p for p in r.people if p.annotator.kind == "human"]
    judged = [p for p in people if p.n]
    if not judged:
        return f"Nobody has judged anything yet; {of(len(people), 'person has', 'people have')} joined."
    said = [f"{of(len(judged), 'person has', 'people have')} given {of(r.n_current, 'answer')}"]
    if len(judged) > 1:
        said[0] += f", the busiest of them {max(p.n for p in judged) / r.n_current:.0%}"
    if times := [p.seconds for p in judged if p.seconds is not None]:
        said.append(f"An answer takes a typical person {median(times):.0f} seconds (median of {of(len(times), 'person', 'people')})")
    if concerned := sum(bool(p.concerns) for p in people):
        said.append(f"{of(concerned, 'person has', 'people have')} something to look into")
    return ". ".join(said) + "."


def agreement_sentence(r: Report) -> str:
    overall = next(a for a in r.agreement if a.dimension == OVERALL)
    return f"{_agreed(overall)} {ceiling_sentence(r)}"


def _agreed(a: Agreement) -> str:
    if a.raw is None:
        return "No pair has been judged by two people yet, so nothing can be said about agreement."
    return f"People agree on {percent(a.raw)} of {of(a.n_pairs, 'pair')} judged twice or more ({a.n_annotators} people)."


def ceiling_sentence(r: Report) -> str:
    if r.repeats.same is None:
        return "The ceiling is unknown: nobody has answered a swapped repeat yet."
    return (
        f"The ceiling from swapped repeats is {percent(r.repeats.same)}: so often people gave the same answer when "
        f"{of(r.repeats.n, 'pair')} came back with the sides exchanged."
    )


def ties_sentence(r: Report) -> str:
    o = r.outcomes
    if r.tie_rate is None:
        return "There are no votes yet to count ties in."
    return (
        f"{percent(r.tie_rate)} of {of(o.n - o.cannot_judge, 'vote')} are ties: {o.tie:,} about equal and {o.both_bad:,} both bad. "
        f"Another {o.cannot_judge:,} could not be judged."
    )


def sides_sentence(r: Report) -> str:
    b = r.bias
    if b.share is None or b.at_parity is None:
        return "There is no decisive vote yet, so it is unknown whether a side pulls."
    pulls = not b.at_parity.low <= 0.5 <= b.at_parity.high
    side = "left" if b.at_parity.value > 0.5 else "right"
    verdict = f"the {side} side pulls" if pulls else "no pull of a side can be seen"
    return (
        f"The left text won {percent(b.share)} of {of(b.n_decisive, 'decisive vote')}; between equal texts it would win "
        f"{percent(b.at_parity)}: {verdict}."
    )


def checks_sentence(r: Report) -> str:
    gold, same = r.checks["gold"], r.checks["identical"]
    built = Tally(gold.ok + same.ok, gold.fail + same.fail, gold.unknown + same.unknown)
    if not built.n:
        return "No constructed check has been answered yet."
    broken = " Most could not be graded: see whether the checks themselves are broken." if built.unknown * 2 > built.n else ""
    return (
        f"Of {of(built.n, 'answer')} to constructed checks {built.ok:,} were right, {built.fail:,} wrong and {built.unknown:,} "
        f"could not be graded.{broken}"
    )


def systems_sentence(r: Report) -> str:
    if r.ratings is None:
        return "There is no vote between two systems yet, so there are no ratings."
    first, *rest = r.ratings.ratings
    rivals = [system_name(x.system) for x in rest if x.group == first.group and not _told_apart(r.ratings, first.system, x.system)]
    told = f"cannot be told apart from {listed(rivals)}" if rivals else "is ahead of every other beyond chance"
    apart = f" The systems fall into {r.ratings.n_groups} groups that never met." if r.ratings.n_groups > 1 else ""
    return (
        f"{system_name(first.system)} comes first with {points(first)} Elo points and {told} ({first.tier}; "
        f"{of(r.ratings.n_votes, 'vote')} by {of(r.ratings.n_annotators, 'person', 'people')} on {of(r.ratings.n_prompts, 'item')}).{apart}"
    )


def _told_apart(ratings: Ratings, a: str, b: str) -> bool:
    p = next(p.p for p in ratings.preferences if {p.a, p.b} == {a, b})
    return not p.low <= 0.5 <= p.high


def flip_sentence(r: Report) -> str:
    f = r.flip
    if f is None:
        return "There is no winner yet that votes could flip."
    most = "" if f.exact else "at most "
    if f.n_drop is None or f.share is None:
        if r.ratings is not None and not any(_told_apart(r.ratings, f.leader, x.system) for x in r.ratings.ratings if x.system != f.leader):
            return f"There is no lead to speak of: {system_name(f.leader)} cannot be told apart from any other system yet."
        return f"Leaving out votes, however many, does not put {system_name(f.challenger)} above {system_name(f.leader)}."
    switch = "" if f.n_switch is None else f"; {most}{f.n_switch:,} answered the other way would do the same"
    return (
        f"The lead of {system_name(f.leader)} hangs on {most}{of(f.n_drop, 'vote')} of {f.n_votes:,} ({f.share:.1%}): without them "
        f"{system_name(f.challenger)} would be first{switch}."
    )


def length_sentence(r: Report) -> str:
    if r.length is None:
        return "The lengths of the texts voted on are unknown, so ratings are not adjusted for them."
    order = [[x.system for x in ratings.ratings] for ratings in (r.length.raw, r.length.adjusted)]
    moved = "the order of the systems stays" if order[0] == order[1] else f"{system_name(order[1][0])} would come first"
    if order[0] != order[1] and order[0][0] == order[1][0]:
        moved = "the first stays first, others change places"
    if r.length.longer_share is None:
        return f"No decisive vote was between texts of different length; {moved}."
    return (
        f"The longer text won {percent(r.length.longer_share)} of the decisive votes among {of(r.length.raw.n_votes, 'vote')} with known "
        f"lengths; between texts of equal length {moved}."
    )


def meter_sentence(m: PowerMeter) -> str:
    """What the votes between two systems can show."""
    a, b = system_name(m.a), system_name(m.b)
    if not m.n_decisive:
        return f"{a} and {b} have not met in a decisive vote yet."
    missing = next(row.missing for row in m.rows if row.win_rate == TARGET)
    more = f"{of(missing, 'more decisive vote')} would show a true {TARGET:.0%}" if missing else f"a true {TARGET:.0%} would show by now"
    told = "settled, whenever one looks" if m.settled else f"open; {more}"
    return f"{a} wins {percent(m.win_rate)} of {of(m.n_decisive, 'decisive vote')} against {b}: {told}."


def power_sentence(r: Report) -> str:
    met = [m for m in r.power if m.n_decisive]
    if not met:
        return "There are no decisive votes between systems yet to plan more by."
    closest = min((m for m in met if not m.settled), key=lambda m: abs(m.win_rate.value - 0.5), default=None)
    settled = sum(m.settled for m in met)
    said = f"{settled} of {of(len(r.power), 'comparison')} of {system_name(met[0].a)} {'is' if settled == 1 else 'are'} settled."
    return said if closest is None else f"{said} The closest: {meter_sentence(closest)}"


def reward_sentence(r: Report) -> str:
    return _rewarded(r.rewards[0].agreement)


def _rewarded(x: RewardAgreement) -> str:
    if x.accuracy is None or x.auc is None:
        missing = f" ({x.n_missing:,} lack one)" if x.n_missing else ""
        return f"No decisive vote is on two texts that both have an automatic reward{missing}, so the two cannot be compared."
    chance = (
        " The interval covers one half: by these votes it may be no better than chance."
        if x.auc.low <= 0.5 <= x.auc.high
        else ""
        if x.auc.value > 0.5
        else " That is worse than chance: it prefers what people do not."
    )
    return (
        f"The automatic reward prefers the text that people chose in {percent(x.accuracy)} of {of(x.n, 'decisive vote')} "
        f"(AUC {x.auc.value:.2f} [{x.auc.low:.2f}, {x.auc.high:.2f}]).{chance}"
    )


def excluded_sentence(r: Report) -> str:
    active = sum(row.exclusion.active for row in r.ledger)
    if not r.n_current:
        return "There are no answers yet to exclude."
    are = "is" if r.n_excluded == 1 else "are"
    said = f"{of(r.n_excluded, 'answer')} of {r.n_current:,} ({r.n_excluded / r.n_current:.1%}) {are} excluded"
    said += f" by {of(active, 'active entry', 'active entries')} of {len(r.ledger):,}."
    if r.n_unblinded:
        said += f" {of(r.n_unblinded, 'answer')} by people who saw more than the two texts count in no figure here."
    if r.n_other_judges:
        said += f" {of(r.n_other_judges, 'answer')} by judges that are no people (a model or a metric) count in none either."
    return said


def as_text(r: Report) -> str:
    """The sentences and two tables, for the terminal."""
    lines = [f"At {r.at}"]
    for name, sentence in sentences(r).items():
        lines += textwrap.wrap(sentence, 110, initial_indent=f"{name:<11}", subsequent_indent=" " * 11)
    if r.ratings:
        lines += ["", f"{'system':<24} {'Elo points':>22}  {'tier':<12} {'rank':<7} votes"]
        for x in r.ratings.ratings:
            lines.append(f"{system_name(x.system):<24} {points(x):>22}  {x.tier:<12} {x.rank_best}-{x.rank_worst:<5} {x.n:,}")
    if r.people:
        lines += ["", f"{'person':<24} {'status':<8} {'answers':>7} {'seconds':>8} {'left':>5}  {'checks':<8} {'repeats':<8} to look into"]
        lines += [_person_line(p) for p in r.people]
    return "\n".join(lines)


def _person_line(p: Person) -> str:
    seconds = "-" if p.seconds is None else f"{p.seconds:.0f}"
    left = "-" if p.votes.left_share is None else f"{p.votes.left_share:.0%}"
    checks, repeats = f"{p.checks.ok}/{p.checks.n}", f"{p.repeats[0]}/{p.repeats[1]}"
    name = p.annotator.nickname[:24]
    return f"{name:<24} {p.annotator.status:<8} {p.n:>7} {seconds:>8} {left:>5}  {checks:<8} {repeats:<8} {'; '.join(p.concerns)}".rstrip()


def as_json(r: Report) -> str:
    """Every figure and sentence; a field that a figure has no value for is null."""
    return json.dumps(asdict(r) | {"sentences": sentences(r)}, ensure_ascii=False, allow_nan=False, indent=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m annotate.report", description="What an annotation campaign knows so far.")
    parser.add_argument("--db", type=Path, required=True, help="the database file; it may be in use")
    parser.add_argument("--json", action="store_true", help="every figure as JSON instead of sentences")
    options = parser.parse_args(arguments)
    try:
        with open_store(options.db, read_only=True) as store:
            found = report(store)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_json(found) if options.json else as_text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
