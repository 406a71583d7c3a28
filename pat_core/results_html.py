"""An evaluation as one HTML file that needs nothing else, and as the pieces of the Results page, which are the same.

Sentences, tables and examples are there without scripts; only the pictures need one, which the file holds. Every text of a report passes
``html.escape`` here, and the file's policy allows no script but its own two and no request at all. Leaves out Gradio, what is said
(``result_words``) and what is drawn (``result_pictures``).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pat_core.estimates import Estimate
from pat_core.palette import DARK, LIGHT, painted, variables
from pat_core.result_pictures import draw
from pat_core.result_words import GROUPS, MEASURES, Finding, by_group, findings, gap_interval, headline, of, score, share
from pat_core.results_file import OURS, Report, System, read_results

STYLESHEET = Path(__file__).resolve().parent.parent / "assets" / "results.css"
TASK_NAMES = {"long": "long text", "short": "short text", "rating": "ratings"}
IN_EXAMPLES = ("ours", "rival", "baseline", "ablation", "control")  # in this order
NONE = '<span class="res-muted">–</span>'
DRAW = """
for (const place of document.querySelectorAll('[data-picture]')) {
  const figure = JSON.parse(document.getElementById(place.dataset.picture).textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}"""


def write_html(results: Mapping[str, Any], path: Path) -> None:
    """Writes the report on a parsed results file to ``path``; ValueError for what is none."""
    path.write_text(page(read_results(results)), encoding="utf-8")


def page(r: Report) -> str:
    """The whole file: about 5 MB, nearly all of it the program that draws."""
    from plotly.offline import get_plotlyjs

    asked = "".join(
        f'<article class="res-question"><div>{question(f)}</div>{_figure(f)}</article>' for f in findings(r) if not f.missing
    )
    unseen = "<noscript><p>Pictures need scripts; the tables below hold the same figures.</p></noscript>"
    scripts = [get_plotlyjs(), DRAW]
    body = "".join((
        f'<header class="res-head"><h1>{escape(title(r))}</h1>{facts(r)}</header>',
        section("In short", in_short(r)),
        section("Questions and answers", unseen + asked + unanswered(r)),
        section("Figures", tables(r)),
        section("Side by side", examples(r, len(r.examples))),
        section("How it was made", how_made(r)),
    ))  # fmt: skip
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title(r))}</title>'
        f"<style>{_styles()}</style></head>"
        f'<body><main class="res res-alone">{body}</main>{"".join(f"<script>{s}</script>" for s in scripts)}</body></html>\n'
    )


def _styles() -> str:
    """Both palettes, the drawings' colors and the sheet that the app uses too."""
    return (
        f":root{{{variables(LIGHT)}color-scheme:light dark}}@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
        f"{painted('.js-plotly-plot')}{STYLESHEET.read_text(encoding='utf-8')}"
    )


def _figure(f: Finding) -> str:
    """A place of the picture's height, and the picture's content beside it as data."""
    figure = draw(f)
    if figure is None:
        return ""
    content = figure.to_json().replace("<", "\\u003c")
    return (
        f'<div class="res-picture" role="img" aria-label="{escape(f.question)} {escape(f.answer)}" data-picture="picture-{f.key}" '
        f'style="height:{figure.layout.height}px"></div><script type="application/json" id="picture-{f.key}">{content}</script>'
    )


# --- the pieces


def title(r: Report) -> str:
    return f"PaT against the others: {r.corpus or r.file or 'a corpus'}, {TASK_NAMES[r.task]}"


def option(r: Report) -> str:
    """One line by which a reader chooses the report."""
    said = (r.made_at[:10], r.corpus or r.file or "a corpus", TASK_NAMES[r.task], of(r.n_users, "person", "people"))
    return ", ".join(filter(None, said))


def facts(r: Report) -> str:
    """When, with what and how fast, in one line."""
    said = [
        of(r.n_users, "person", "people"),
        r.engine,
        "" if r.tokens_per_second is None else f"{r.tokens_per_second:,.0f} tokens per second",
        "" if r.seconds is None else f"{r.seconds / 60:,.1f} minutes in all",
        f"made {r.made_at[:16].replace('T', ' ')} UTC" if r.made_at else "",
    ]
    return f'<p class="res-facts">{"".join(f"<span>{escape(s)}</span>" for s in said if s)}</p>'


def in_short(r: Report) -> str:
    """What was measured and what came out; then what a reader has to know before believing it."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in r.notes)
    lead = f'<p class="res-lead">{escape(" ".join(headline(r)))}</p>'
    return lead + (f'<h3>What to know beside it</h3><ul class="res-notes">{notes}</ul>' if notes else "")


def question(f: Finding) -> str:
    return f'<h3>{escape(f.question)}</h3><p class="res-answer">{escape(f.answer)}</p><p class="res-muted">{escape(f.how)}</p>'


def unanswered(r: Report) -> str:
    """The questions that this run holds nothing about, with the reason; '' for none."""
    missing = [f for f in findings(r) if f.missing]
    rows = "".join(f"<li><b>{escape(f.question)}</b> {escape(f.missing)}</li>" for f in missing)
    return f'<h3>Not answered by this run</h3><ul class="res-notes">{rows}</ul>' if rows else ""


def tables(r: Report) -> str:
    """All figures: every system, PaT's differences from each, what is personal, by history, and the judge."""
    made = (_systems_table(r), _paired_table(r), _gain_table(r), _groups_table(r), _judge_table(r))
    return "".join(filter(None, made)) + f'<p class="res-muted">METEOR: {escape(r.meteor)}.</p>' * bool(r.meteor and r.up)


def _ordered(r: Report) -> list[System]:
    """PaT first, then every kind in its order, best first."""
    kinds = [*IN_EXAMPLES, "reference"]

    def place(s: System) -> tuple[bool, int, float]:
        e = s.of(r.measure)
        return s.name != OURS, kinds.index(s.kind), 0.0 if e is None else -e.mean if r.up else e.mean

    return sorted(r.systems.values(), key=place)


def _systems_table(r: Report) -> str:
    measures = [m for m in MEASURES if any(s.of(m) for s in r.systems.values())]
    head = ("System", *(MEASURES[m] for m in measures), "People")
    rows = []
    for s in _ordered(r):
        sizes = [e.n for e in s.groups.get("all", {}).values()]
        about = f'<span class="res-about">{escape(s.description)}</span>' if s.description else ""
        rows.append((_name(s) + about, *(_cell(m, s.of(m)) for m in measures), f"{max(sizes):,}" if sizes else NONE))
    return table("Every system", "Means over people with 95% intervals.", head, rows)


def _cell(measure: str, e: Estimate | None) -> str:
    if e is None:
        return NONE
    if measure == "copy_rate":
        return f"{share(e.mean)} [{share(e.low)}, {share(e.high)}]"
    if measure in ("words", "seconds", "tokens"):
        return f"{e.mean:,.1f} [{e.low:,.1f}, {e.high:,.1f}]"
    return score(e)


def _paired_table(r: Report) -> str:
    measures = [m for m in MEASURES if any(m in of_one for of_one in r.paired.values())]
    main = r.measure if r.measure in measures else next(iter(measures), "")
    head = ("PaT minus", *(MEASURES[m] for m in measures), "Relative", "People needed", "People")
    rows = []
    for s in (s for s in _ordered(r) if r.paired.get(s.name)):
        d = r.paired[s.name].get(main)
        cells = [gap_interval(x) if (x := r.paired[s.name].get(m)) else NONE for m in measures]
        relative = NONE if d is None or d.relative is None else f"{d.relative:+.0%}"
        needed = NONE if d is None or d.needed is None else f"{d.needed:,}"
        rows.append((_name(s), *cells, relative, needed, f"{d.n:,}" if d else NONE))
    if not rows:
        return ""
    lead = (
        f"The same people, paired. “Relative” and “people needed” are those of {MEASURES.get(main, main)}: how many people a run needs to "
        "see such a difference with 80% power at the 5% level."
    )
    return table("Paired differences", lead, head, rows)


def _gain_table(r: Report) -> str:
    measures = [m for m in MEASURES if any(m in d for d in r.gain.values())]
    rows = [
        (
            f"<b>{escape(GROUPS.get(g, g))}</b>",
            *(gap_interval(d) if (d := gains.get(m)) else NONE for m in measures),
            f"{max((d.n for d in gains.values()), default=0):,}",
        )
        for g, gains in by_group(r.gain)
    ]
    lead = "PaT with a person’s own notes minus PaT with those of somebody else."
    return table("Personal gain", lead, ("Known of the person", *(MEASURES[m] for m in measures), "People"), rows) if rows else ""


def _groups_table(r: Report) -> str:
    groups = [g for g in r.groups if any(s.of(r.measure, g) for s in r.systems.values())]
    if len(groups) < 2:
        return ""
    people = {g: max(e.n for s in r.systems.values() if (e := s.of(r.measure, g))) for g in groups}
    head = ("System", *(f"{escape(GROUPS.get(g, g))} ({people[g]:,})" for g in groups))
    rows = [(_name(s), *(_cell(r.measure, s.of(r.measure, g)) for g in groups)) for s in _ordered(r)]
    lead = f"{MEASURES[r.measure]} by other reviews of the same person; people in brackets."
    return table("By what is known of the person", lead, head, rows)


def _judge_table(r: Report) -> str:
    rows = [
        (
            f"<b>{escape(r.systems[name].label if name in r.systems else name)}</b>",
            NONE if d.won is None else f"{share(d.won.mean)} [{share(d.won.low)}, {share(d.won.high)}]",
            NONE if d.won is None else f"{d.won.n:,}",
            NONE if d.n_pairs is None else f"{d.n_pairs:,}",
            NONE if d.coverage is None else share(d.coverage),
            NONE if d.at_equal_length is None else share(d.at_equal_length),
        )
        for name, d in r.duels.items()
    ]
    head = ("PaT against", "Verdicts won", "Clear verdicts", "Pairs", "Decided", "Won at equal length")
    lead = f"Asked of {r.judge or 'a model without a name'}: both orders, consistent verdicts only."
    return table("A judge model", lead, head, rows) if rows else ""


def _name(s: System) -> str:
    label = escape(s.label)
    return f'<b class="res-ours">{label}</b>' if s.name == OURS else f"<b>{label}</b>"


def table(caption: str, lead: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its heading, in a frame of its own that scrolls sideways; cells are HTML, the first of a row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows)
    return (
        f'<h3>{escape(caption)}</h3><p class="res-muted">{escape(lead)}</p><div class="res-table" role="region" tabindex="0" '
        f'aria-label="{escape(caption)}"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def examples(r: Report, n: int) -> str:
    """The first ``n`` examples, folded but for the first: what the person wrote, what the agents noted, what each system made of it."""
    if not r.examples:
        return '<p class="res-muted">This run kept no examples.</p>'
    ranked = [s for s in _ordered(r) if s.kind in IN_EXAMPLES]
    return "".join(_example(r, i, ranked) for i in range(min(n, len(r.examples))))


def _example(r: Report, i: int, ranked: Sequence[System]) -> str:
    e = r.examples[i]
    known = {"0": "no other review", "1": "one other review"}.get(e.history, f"{e.history} other reviews" if e.history else "")
    about = [e.topic, f"{e.rating} of 5 stars" if e.rating and r.up else "", known]
    said = "".join(f"<span>{escape(a)}</span>" for a in about if a)
    own = _text("What the person wrote", e.reference, "res-own")
    summaries = (("Style notes", e.style_summary), ("Topic notes", e.topic_summary))
    notes = "".join(_text(name, text, "res-note") for name, text in summaries if text)
    texts = "".join(_text(s.label, e.texts[s.name], "res-ours" if s.name == OURS else "") for s in ranked if s.name in e.texts)
    return (
        f'<details class="res-example"{" open" if i == 0 else ""}><summary><h3>{escape(e.title or f"Example {i + 1}")}</h3> '
        f'<span class="res-facts">{said}</span></summary><div class="res-two"><div>{own}{notes}</div><div>{texts}</div></div></details>'
    )


def _text(name: str, text: str, kind: str) -> str:
    return f'<section class="res-text {kind}"><h4>{escape(name)}</h4><p>{escape(text) or "<i>empty</i>"}</p></section>'


def how_made(r: Report) -> str:
    """The command under everything, the settings and the adapters."""
    facts_of = {**{f"adapter: {role}": name for role, name in r.adapters.items()}, **r.settings}
    rows = [(f"<b>{escape(name)}</b>", f'<span class="res-wrap">{escape(value)}</span>') for name, value in facts_of.items()]
    shown = table("Settings", "Everything that decides the figures.", ("Setting", "Value"), rows) if rows else ""
    command = f'<h3>The command</h3><pre tabindex="0"><code>{escape(r.command)}</code></pre>' if r.command else ""
    return command + shown


def section(heading: str, body: str) -> str:
    return f'<section class="res-section"><h2>{escape(heading)}</h2>{body}</section>'
