"""The report on a campaign as HTML: questions with their answers, tables, and intervals drawn as marks on a scale. Pure: nouns -> str.

Everything from the store passes ``html.escape`` here. A drawn interval always stands beside its numbers, so a picture is never the only way
to read a figure; a table wider than the window scrolls inside its own frame. Leaves out Gradio and every computation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from html import escape

from annotate.figures import COMPARED, FOCUS, KindRow, LedgerRow, Report, Tally
from annotate.jobs import JobStatus
from annotate.report import ceiling_sentence, percent, points, sentences, sides_sentence
from annotate.stats.agreement import OVERALL, Agreement
from annotate.stats.pairs import WinRate
from annotate.stats.ratings import Preference, Rating, Ratings
from annotate.stats.votes import Estimate
from annotate.types import Pair
from annotate.words import KINDS, duration, of, system_name, when

QUESTIONS = {
    "queue": "How far is it?",
    "people": "Who judges?",
    "agreement": "Do people agree?",
    "systems": "Which system is ahead?",
    "flip": "How firm is the lead?",
    "power": "Are there enough votes?",
    "length": "Is it only length?",
    "sides": "Does a side pull?",
    "ties": "How many ties?",
    "checks": "Are the answers careful?",
    "reward": "Does the automatic reward agree?",
    "excluded": "What is left out?",
}
DIMENSION_NAMES = {OVERALL: "Overall", "style": "Style", "topic": "Topic", "fluency": "Fluency"}
DAYS_SHOWN = 60
BEGINNING = 60  # characters of a text in a list
PERCENT = ("0", "50%", "100%")
NONE = '<span class="pat-muted">–</span>'


def overview(r: Report) -> str:
    """Every question of an owner with its answer, then the queue."""
    said = sentences(r)
    rows = "".join(f"<div><dt>{escape(question)}</dt><dd>{escape(said[name])}</dd></div>" for name, question in QUESTIONS.items())
    return f'<dl class="pat-answers">{rows}</dl>'


def queue(r: Report) -> str:
    return section("The queue", "Pairs by how many people’s answers count on each.", _queue_table(r.queue))


def _queue_table(rows: Sequence[KindRow]) -> str:
    head = ("Pairs", "All", "No answer yet", "One person", "Two", "Three or more", "Opposite answers", "On a screen now")
    body = [
        (
            KINDS[row.kind],
            *(f"{n:,}" for n in (row.n, row.n_open, row.n_one, row.n_two, row.n_more)),
            f"{row.n_split:,}" if row.kind in COMPARED else NONE,
            f"{row.n_leased:,}",
        )
        for row in rows
    ]
    return table("Pairs by kind", head, body)


def days(r: Report) -> str:
    """Answers by day as bars from zero, the days without any too; '' before the first."""
    if not r.days:
        return ""
    counts = dict(r.days)
    first, last = (date.fromisoformat(r.days[i][0]) for i in (0, -1))
    shown = [last - timedelta(days=n) for n in range(min((last - first).days, DAYS_SHOWN - 1), -1, -1)]
    most = max(counts.values())
    bars = "".join(_day(day, counts.get(day.isoformat(), 0), most) for day in shown)
    scale = f'<span class="pat-muted" aria-hidden="true">{most:,}</span><span class="pat-muted" aria-hidden="true">0</span>'
    ends = "".join(f"<span>{day.isoformat()}</span>" for day in dict.fromkeys((shown[0], shown[-1])))
    plot = f'<div>{scale}</div><ol>{bars}</ol><p class="pat-muted" aria-hidden="true">{ends}</p>'
    body = f'<div class="pat-days" style="--n:{len(shown)}">{plot}</div>'
    return section("Answers a day", f"Days in UTC; {of(sum(counts.values()), 'answer')} on {of(len(counts), 'day')} in all.", body)


def _day(day: date, n: int, most: int) -> str:
    said = f"{day.isoformat()}: {of(n, 'answer')}"
    return f'<li style="--share:{n / most:.3f}" title="{said}"><i></i><span class="pat-spoken">{said}</span></li>'


def systems(r: Report) -> str:
    """Ratings with their intervals, what each two systems won, how firm the first place is, and what more votes would show."""
    said = sentences(r)
    if r.ratings is None:
        return section("Ratings", said["systems"], "")
    how = (
        "Davidson’s model of choices with ties, each person’s skill and pull to a side taken into account; 95% intervals by drawing whole "
        f"items{' and people' if r.ratings.resample == 'both' else ''} again. 60% wins are 70 points. An interval of at most 30 points "
        "either way is called established, of at most 60 usable."
    )
    parts = [section("Ratings", said["systems"], _ratings_table(r.ratings) + fold("How this is computed", how))]
    parts.append(section("How firm is it?", said["flip"], f"<p>{escape(said['length'])}</p>"))
    lead = "Shares of votes, with 95% intervals that allow for several votes on one item; on the right what the model makes of them."
    parts.append(section("Each against each", lead, _wins(r)))
    parts.append(section("Are there enough votes?", said["power"], _power(r)))
    if len(r.groups) > 1:
        parts.append(section("By perspective", "How often each group of people chose PaT over another system.", _groups(r)))
    return "".join(parts)


def _ratings_table(ratings: Ratings) -> str:
    low = min(0.0, *(x.low - 1000 for x in ratings.ratings))
    high = max(0.0, *(x.high - 1000 for x in ratings.ratings))
    step = 100 if high - low > 250 else 50
    low, high = 1000 + low // step * step, 1000 - -high // step * step
    head = ("System", axis(low, high, 1000, (f"{low:,.0f}", f"{1000:,}", f"{high:,.0f}")), "Elo points", "Place", "Standing", "Votes")
    body = [
        (
            escape(system_name(x.system)),
            mark(Estimate(x.rating, x.low, x.high), low, high, 1000),
            points(x),
            _place(x),
            x.tier,
            f"{x.n:,}",
        )
        for x in ratings.ratings
    ]
    return table("Ratings of the systems", head, body, drawn=1)


def _place(x: Rating) -> str:
    return str(x.rank_best) if x.rank_best == x.rank_worst else f"{x.rank_best} to {x.rank_worst}"


def _wins(r: Report) -> str:
    """Each two systems once, the one that stands higher first, FOCUS always first."""
    raw, adjusted = ({} if found is None else {frozenset((p.a, p.b)): p for p in found.preferences} for found in _models(r))
    order = [x.system for x in r.ratings.ratings] if r.ratings else []
    order = sorted(order, key=lambda system: system != FOCUS)  # stable

    def by_model(found: Mapping[frozenset[str], Preference], first: str, second: str) -> str:
        p = found.get(frozenset((first, second)))
        return NONE if p is None else percent(p.p if p.a == first else _other(p.p))

    head = (
        "System", "against", axis(0, 1, 0.5, PERCENT), "Decisive votes won", "Won – lost, equal, both bad", "Ties as halves",
        "Sides balanced", "By the model", "At equal length",
    )  # fmt: skip
    body = []
    for w in sorted((_facing(w, order) for w in r.win_rates), key=lambda w: (order.index(w.a), order.index(w.b))):
        counts = f"{w.n_a:,} – {w.n_b:,}, {w.n_tie:,}, {w.n_both_bad:,}"
        balanced = NONE if w.side_balanced is None else f"{w.side_balanced:.0%}"
        names = escape(system_name(w.a)), escape(system_name(w.b))
        models = by_model(raw, w.a, w.b), by_model(adjusted, w.a, w.b)
        body.append((*names, mark(w.decisive, 0, 1, 0.5), share(w.decisive), counts, share(w.half_ties), balanced, *models))
    return table("Win rates", head, body, drawn=2)


def _models(r: Report) -> tuple[Ratings | None, Ratings | None]:
    """The ratings as they are and with the length of texts taken out; of the same votes where lengths are known."""
    return (r.length.raw, r.length.adjusted) if r.length else (r.ratings, None)


def _facing(w: WinRate, order: Sequence[str]) -> WinRate:
    """``w`` seen from whichever of its systems comes first in ``order``."""
    if order.index(w.a) < order.index(w.b):
        return w
    flipped = {"decisive": w.decisive and _other(w.decisive), "half_ties": w.half_ties and _other(w.half_ties)}
    side = None if w.side_balanced is None else 1 - w.side_balanced
    return replace(w, a=w.b, b=w.a, n_a=w.n_b, n_b=w.n_a, side_balanced=side, **flipped)


def _other(e: Estimate) -> Estimate:
    return Estimate(1 - e.value, 1 - e.high, 1 - e.low)


def _power(r: Report) -> str:
    rates = (0.55, 0.6, 0.65)
    head = ("Against", "Decisive votes", "Worth", "Ties", "Wins, at every look", "", "Would show", *(f"For {rate:.0%}" for rate in rates))
    body = []
    for m in r.power:
        missing = {row.win_rate: f"{row.missing:,} more" if row.missing else "enough" for row in m.rows}
        won = share(m.win_rate) if m.n_decisive else NONE
        shown = NONE if m.detectable is None else f"{m.detectable:.0%}"
        counts = f"{m.n_decisive:,}", f"{m.n_effective:,.0f}", f"{m.tie_rate:.0%}"
        settled = "settled" if m.settled else "open"
        body.append((escape(system_name(m.b)), *counts, won, settled, shown, *(missing[rate] for rate in rates)))
    how = (
        "“Worth” is how many independent votes they are worth: several on one item count less. The interval holds at every look, so voting "
        "may stop as soon as it leaves out one half. “Would show” is the smallest true share of wins that so many votes show with 80% "
        "power at the 5% level; the last columns say how many decisive votes a smaller one still needs."
    )
    return table("What the votes can show", head, body) + fold("How to read this", how)


def _groups(r: Report) -> str:
    head = ("Perspective", "People", "Votes", axis(0, 1, 0.5, PERCENT), "Chose PaT")
    body = [
        (escape(g.perspective or "not said"), f"{g.n_people:,}", f"{g.n_votes:,}", mark(g.focus, 0, 1, 0.5), share(g.focus))
        for g in r.groups
    ]
    return table("By perspective", head, body, drawn=3)


def agreement(r: Report) -> str:
    """Agreement per dimension beside its ceiling, the pull of the sides, and the checks."""
    said = sentences(r)
    ceiling = r.repeats.same.value if r.repeats.same else None
    head = (
        "Question", axis(0, 1, ceiling, ("0", "", "100%")), "Same answer", "Pairs", "Answers", "People", "α, three answers", "α, ordered",
        "α, distances",
    )  # fmt: skip
    body = [_agreement_row(a, ceiling) for a in r.agreement]
    how = (
        "The upright line is the ceiling, how often people repeat their own answer. Krippendorff’s α is 0 for agreement by chance and 1 "
        "for full agreement; in matters of taste 0.3 to 0.4 is usual. “Three answers” are first, tie, second; “ordered” and “distances” "
        "tell slight from clear choices."
    )
    shown = table("Agreement", head, body, drawn=1) + fold("How to read this", how)
    parts = [section("Agreement between people", said["agreement"], shown)]
    parts.append(section("Agreement with oneself", ceiling_sentence(r), _repeats(r)))
    parts.append(section("Left and right", sides_sentence(r), _sides(r)))
    parts.append(section("Ties", said["ties"], ""))
    parts.append(section("Checks", said["checks"], _checks(r.checks)))
    return "".join(parts)


def _agreement_row(a: Agreement, ceiling: float | None) -> tuple[str, ...]:
    alphas = (a.alpha_nominal, a.alpha_ordinal, a.alpha_interval)
    return (
        escape(DIMENSION_NAMES.get(a.dimension, a.dimension)),
        mark(a.raw, 0, 1, ceiling),
        share(a.raw),
        f"{a.n_pairs:,}",
        f"{a.n_judgments:,}",
        f"{a.n_annotators:,}",
        *(NONE if e is None else f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in alphas),
    )


def _repeats(r: Report) -> str:
    c = r.repeats
    if not c.n:
        return ""
    return f"<p>Of {of(c.n_decisive, 'pair')} decided both times, {c.n_opposite:,} went to the other text the second time.</p>"


def _sides(r: Report) -> str:
    b = r.bias
    if b.share is None or b.at_parity is None:
        return ""
    head = ("Left won", axis(0, 1, 0.5, PERCENT), "Share", "Decisive votes", "p")
    body = [
        ("as voted", mark(b.share, 0, 1, 0.5), share(b.share), f"{b.n_decisive:,}", _p(b.p_binomial)),
        ("between equal texts", mark(b.at_parity, 0, 1, 0.5), share(b.at_parity), f"{b.n_decisive:,}", _p(b.p_model)),
    ]
    return table("The pull of the left side", head, body, drawn=1)


def _p(value: float | None) -> str:
    return NONE if value is None else "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _checks(checks: dict[str, Tally]) -> str:
    body = [(KINDS[kind], f"{t.ok:,}", f"{t.fail:,}", f"{t.unknown:,}", f"{t.n:,}") for kind, t in checks.items()]
    return table("Checks by kind", ("Check", "Right", "Wrong", "Not gradable", "All"), body)


def rewards(r: Report) -> str:
    """People against the automatic reward: all of it and its terms."""
    head = (
        "People were asked", "Part of the reward", axis(0, 1, 0.5, ("0", "½", "1")), "AUC", "Prefers the text chosen", "Votes",
        "Equal rewards", "Without a reward",
    )  # fmt: skip
    body = []
    for row in r.rewards:
        a = row.agreement
        body.append(
            (
                escape(DIMENSION_NAMES.get(a.dimension, a.dimension)),
                "all of it" if row.term == "total" else escape(row.term),
                mark(a.auc, 0, 1, 0.5),
                NONE if a.auc is None else f"{a.auc.value:.2f} [{a.auc.low:.2f}, {a.auc.high:.2f}]",
                share(a.accuracy),
                f"{a.n:,}",
                f"{a.n_equal:,}",
                f"{a.n_missing:,}",
            )
        )
    how = (
        "AUC is the chance that a larger gap in reward goes with the text that people chose; one half is no better than a coin. Training "
        "raises the reward, so a term that stops agreeing with people is where it is being gamed."
    )
    body_html = table("People against the reward", head, body, drawn=2) + fold("How to read this", how)
    return section("People and the automatic reward", sentences(r)["reward"], body_html)


def newest_pairs(found: Sequence[tuple[Pair, str, str, str]]) -> str:
    """The pairs added last, with the number by which the ledger leaves one out."""
    rows = ((p.pair_id[:8], KINDS[p.kind], *(_beginning(text) for text in texts)) for p, *texts in found)
    head = ("Pair", "Kind", "What was asked", "One text", "The other")
    body = table("Newest pairs", head, rows) if found else "<p>There is no pair yet.</p>"
    lead = "The newest ones. A wrong import is taken back under Ledger: all answers on a pair, by the number here; nobody gets it then."
    return section("Pairs", lead, body)


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return escape(words if len(words) <= BEGINNING else words[:BEGINNING].rsplit(maxsplit=1)[0] + " …")


def ledger(r: Report) -> str:
    """The exclusions with a button each; ``data-switch`` carries the entry's id."""
    head = ("Now", "What", "Answers", "Reason", "By", "When")
    body = [_ledger_row(row) for row in r.ledger]
    empty = "" if body else '<p class="pat-muted">The ledger is empty.</p>'
    return section("The ledger", sentences(r)["excluded"], (table("Exclusions", head, body) if body else "") + empty)


def _ledger_row(row: LedgerRow) -> tuple[str, ...]:
    e = row.exclusion
    now, change = ("<b>left out</b>", "Count again") if e.active else ("<span>counts</span>", "Leave out again")
    button = f'<button type="button" data-switch="{e.exclusion_id}" aria-label="{change}: {escape(row.target)}">{change}</button>'
    return (now + button, escape(row.target), f"{row.n_votes:,}", escape(e.reason), escape(e.decided_by), when(e.decided_at))


def job(status: JobStatus) -> str:
    """How the job at work goes, or how the last one ended."""
    if status.state == "idle":
        return ""
    if not status.running:
        kind = " pat-alert" if status.state == "failed" else ""
        return f'<div class="pat-notice{kind}" role="status">{escape(status.sentence)}</div>'
    value = f' value="{status.done / status.total:.3f}"' if status.total else ""
    left = "" if status.seconds_left is None else f"about {duration(status.seconds_left)} left"
    return (
        f'<div class="pat-opening"><span role="status">{escape(status.sentence)}</span>'
        f'<progress aria-label="Progress"{value}></progress><span class="pat-muted">{left}</span></div>'
    )


def share(e: Estimate | None) -> str:
    return NONE if e is None else percent(e)


def mark(e: Estimate | None, low: float, high: float, line: float | None) -> str:
    """An interval as a bar with a dot on a scale from ``low`` to ``high``, with an upright line at ``line``.

    Hidden from screen readers, since the numbers stand beside it.
    """
    if e is None:
        return NONE

    def at(x: float) -> float:
        return max(0.0, min(100.0, 100 * (x - low) / (high - low)))

    upright = "" if line is None else f"--line:{at(line):.1f}%;"
    style = f"{upright}--low:{at(e.low):.1f}%;--wide:{at(e.high) - at(e.low):.1f}%;--at:{at(e.value):.1f}%"
    cut = "".join(f" pat-cut-{name}" for name, beyond in (("low", e.low < low), ("high", e.high > high)) if beyond)
    ruled = "" if line is None else " pat-ruled"
    return f'<span class="pat-interval{ruled}{cut}" style="{style}" aria-hidden="true"><i></i><b></b></span>'


def axis(low: float, high: float, line: float | None, labels: tuple[str, str, str]) -> str:
    """The head of a drawn column: its ends and its line in numbers."""
    place = 50.0 if line is None else max(0.0, min(100.0, 100 * (line - low) / (high - low)))
    middle = f'<span style="--at:{place:.1f}%">{labels[1]}</span>' if 12 < place < 88 else ""
    return f'<span class="pat-axis" aria-hidden="true"><span>{labels[0]}</span>{middle}<span>{labels[2]}</span></span>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], drawn: int | None = None) -> str:
    """A table in a frame of its own that scrolls sideways; cells are HTML, the first of a row is its heading, ``drawn`` has the marks."""

    def kind(i: int) -> str:
        return ' class="pat-drawn"' if i == drawn else ""

    top = "".join(f'<th scope="col"{kind(i)}>{cell}</th>' for i, cell in enumerate(head))
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td{kind(i)}>{cell}</td>" for i, cell in enumerate(rest, 1))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (
        f'<div class="pat-table" role="region" tabindex="0" aria-label="{escape(caption)}"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def section(title: str, lead: str, body: str) -> str:
    return f'<section class="pat-section"><header><h3>{escape(title)}</h3><p>{escape(lead)}</p></header>{body}</section>'


def fold(summary: str, text: str) -> str:
    return f'<details data-fold="{escape(summary)}"><summary>{escape(summary)}</summary><p class="pat-muted">{escape(text)}</p></details>'
