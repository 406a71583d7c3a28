"""The Results page: the latest evaluations, one question after the other. It reads files, needs no model, and anybody may open it.

Leaves out how a report is read (``results_file``), said (``result_words``), drawn (``result_pictures``) and set (``results_html``).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import gradio as gr

from pat_core import results_html as html
from pat_core.result_pictures import draw
from pat_core.result_words import Finding, findings
from pat_core.results_file import Found, Report, find_reports
from pat_core.ui.form_column import QUIET

QUESTIONS = ("closer", "margin", "copying", "personal", "parts", "whom", "judged", "cost")
EXAMPLES_SHOWN = 5
COMMAND = "python -m pat_core.evaluate FILE"


def build_results(demo: gr.Blocks, folders: Sequence[Path]) -> None:
    """Lay the page out inside the current page of ``demo``; ``folders`` are read again at each visit."""
    gr.HTML(header(), elem_id="pat-results-head")
    with gr.Column(elem_id="pat-results"):
        choice = gr.Dropdown(label="Report", choices=[], visible=False, elem_id="pat-report", filterable=False)
        said = _html("", "pat-results-said")
        places = {}
        with gr.Column(visible=False) as asked:
            _html('<div class="res"><section class="res-section"><h2>Questions and answers</h2></section></div>')
            for key in QUESTIONS:
                with gr.Row(visible=False, elem_classes="pat-asked") as row:
                    with gr.Column(scale=5, min_width=320):
                        words = _html("")
                    with gr.Column(scale=9, min_width=320):
                        plot = gr.Plot(show_label=False, container=False, elem_classes="pat-drawn-plot")
                places[key] = (row, words, plot)
        rest = _html("", "pat-results-rest")

    def show(found: Found, chosen: str) -> dict:
        report = found.reports[chosen]
        updates: dict = {asked: gr.Column(visible=True), said: _in(beginning(report, found)), rest: _in(ending(report))}
        for f in findings(report):
            row, words, plot = places[f.key]
            updates |= _question(f, row, words, plot)
        return updates

    def on_choice(chosen: object) -> dict:
        found = find_reports(folders)
        if not found.reports:
            return {said: _in(empty(found)), asked: gr.Column(visible=False), rest: ""}
        return show(found, chosen if isinstance(chosen, str) and chosen in found.reports else next(iter(found.reports)))

    def on_load() -> dict:
        found = find_reports(folders)
        options = [(html.option(report), name) for name, report in found.reports.items()]
        first = options[0][1] if options else None
        return on_choice(first) | {choice: gr.Dropdown(choices=options, value=first, visible=len(options) > 1)}

    outputs = [asked, said, rest, *(part for place in places.values() for part in place)]
    demo.load(on_load, None, [choice, *outputs], **QUIET)
    choice.input(on_choice, choice, outputs, **QUIET)


def header() -> str:
    return (
        '<header class="pat-head"><h1>Results</h1><p>How close PaT comes to what people wrote themselves, against other methods '
        'on the same model. <a href="./">Write with PaT</a></p></header>'
    )


def beginning(report: Report, found: Found) -> str:
    """Which report this is and what came out, before the questions."""
    return left_out(found) + html.section(html.title(report), html.facts(report) + html.in_short(report))


def ending(report: Report) -> str:
    """What follows the questions: those without an answer, the figures, some examples, and the command."""
    n = min(EXAMPLES_SHOWN, len(report.examples))
    more = f" The HTML report of the command shows all {len(report.examples)}." if n < len(report.examples) else ""
    lead = f'<p class="res-muted">{html.of(n, "person", "people")}, the same request to every system.{more}</p>' if n else ""
    return "".join(
        (
            html.unanswered(report),
            html.section("Figures", html.tables(report)),
            html.section("Side by side", lead + html.examples(report, EXAMPLES_SHOWN)),
            html.section("How it was made", html.how_made(report)),
        )
    )


def empty(found: Found) -> str:
    return (
        f'{left_out(found)}<section class="res-section"><h2>No evaluation has been run yet</h2>'
        "<p>Run this, and its report appears here:</p>"
        f'<pre tabindex="0"><code>{COMMAND}</code></pre><p class="res-muted">FILE is any file of reviews that the app reads; '
        "<code>--limit 20</code> makes a first run short.</p></section>"
    )


def left_out(found: Found) -> str:
    """A sentence for each file that is no report."""
    return "".join(f'<p class="res-notice" role="note">{escape(sentence)}</p>' for sentence in found.skipped)


def _question(f: Finding, row: gr.Row, words: gr.HTML, plot: gr.Plot) -> dict:
    if f.missing:
        return {row: gr.Row(visible=False), words: "", plot: None}
    return {row: gr.Row(visible=True), words: _in(html.question(f)), plot: draw(f)}


def _html(value: str, elem_id: str | None = None) -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False)


def _in(body: str) -> str:
    return f'<div class="res">{body}</div>'
