"""Pairs to judge: from a pasted text or a file that the browser reads, and made from the open corpus in the background.

A file never goes through an upload: the page reads it and puts its text into the field, which is sent like any other. Leaves out larger
files and Parquet (``python -m annotate.transfer``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from annotate.gate import Refusal
from annotate.jobs import Step, Work
from annotate.transfer import Imported, import_text
from annotate.types import Added
from annotate.ui.owner_desk import Done, OwnerDesk
from annotate.words import of
from pat_core.types import AGENTS

if TYPE_CHECKING:  # both bring libraries that the page must not wait for
    from annotate.making import Report, Wish
    from pat_core.pipeline import Workbench

MADE = [("Two systems", "systems"), ("One agent", "one-factor")]
AGENT_CHOICES = [
    ("Style and topic agent in turn", ""),
    ("Style agent", "style"),
    ("Topic agent", "topic"),
    ("Generator", "generator"),
    ("All three in turn", "all"),
]
MAX_MADE = 5_000
MAX_MEGABYTES = 3  # the app takes no request larger than 4 MB
REFUSALS_SHOWN = 8
PAIRS_SHOWN = 40
PICKER = (
    '<label class="pat-pick"><span>Choose a JSONL, JSON or CSV file</span><input type="file" accept=".jsonl,.json,.csv,.txt"></label>'
    '<span class="pat-muted" data-told role="status"></span>'
)
READ_FILE = f"""
element.addEventListener('change', async e => {{
  const file = e.target.files?.[0], told = element.querySelector('[data-told]');
  if (!file) return;
  if (file.size > {MAX_MEGABYTES} * 1024 * 1024) {{
    told.textContent = file.name + ' is larger than {MAX_MEGABYTES} MB: use python -m annotate.transfer.';
    return;
  }}
  const put = (field, text) => {{
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, text);
    field.dispatchEvent(new Event('input', {{bubbles: true}}));
  }};
  put(document.querySelector('#pat-rows textarea'), await file.text());
  put(document.querySelector('#pat-rows-name input, #pat-rows-name textarea'), file.name);
  told.textContent = file.name + ' is read: look at it below, then press Import.';
  e.target.value = '';  // else choosing the same file again would be no change
}});
"""


def build_pairs(desk: OwnerDesk) -> None:
    """Importing pairs, and making them from the corpus."""
    with gr.Row(elem_classes="pat-forms"):
        with gr.Column(min_width=300):
            _build_making(desk)
        with gr.Column(min_width=300):
            _build_import(desk)
    desk.shows(gr.HTML("", elem_id="pat-newest"), lambda r: desk.cards.newest_pairs(desk.campaign.store.newest_pairs(PAIRS_SHOWN)))


def _build_making(desk: OwnerDesk) -> None:
    gr.HTML(
        '<h3 class="pat-title">Make pairs</h3><p class="pat-hint">From reviews held out of the open corpus, one at a time; visitors’ runs '
        "go first. Checks come on top, as set under Settings. What is made is kept at once, so a stop loses nothing.</p>"
    )
    kind = gr.Radio(MADE, value="systems", label="What differs", elem_classes="pat-segments", elem_id="pat-make-kind")
    agent = gr.Dropdown(AGENT_CHOICES, value="", label="Whose summary or text", visible=False)
    with gr.Row():
        n = gr.Number(label="Pairs to judge", value=20, precision=0, minimum=1, maximum=MAX_MADE, min_width=120, elem_id="pat-make-n")
        seed = gr.Textbox(label="Seed", placeholder="empty: a new one", max_length=10, min_width=120)
    with gr.Row(elem_classes="pat-actions"):
        make_them = gr.Button("Make pairs", size="md", min_width=100)
        stop = gr.Button("Stop", size="md", min_width=100)
    said = gr.HTML("", elem_id="pat-make-said")
    progress = gr.HTML("", elem_id="pat-job")
    desk.shows(progress, lambda r: desk.cards.job(desk.jobs.status))
    desk.shows(desk.timer, lambda r: gr.Timer(active=desk.jobs.status.running))

    def on_kind(chosen: object) -> Done:
        return Done(updates={agent: gr.Dropdown(visible=chosen == "one-factor")})

    def on_make(chosen: object, whose: object, how_many: object, with_seed: object) -> Done:
        from annotate.making import Wish, agents_named, require_targets

        if desk.campaign.read_only:
            raise Refusal("store", desk.campaign.read_only)
        room = desk.opening.room
        if room is None:
            raise Refusal("opening", "The models are still being opened: try again in a moment.")
        names = agents_named(whose or None, chosen) if isinstance(whose, str) else AGENTS  # type: ignore[arg-type]  # Wish checks it
        wish = Wish(_whole("Pairs to judge", how_many, 1, MAX_MADE), chosen, names)  # type: ignore[arg-type]
        drawn = _seed(with_seed, desk.campaign.store.counts()["pairs"])
        require_targets(room.workbench.corpus)
        desk.jobs.start(f"Making {of(wish.n, 'pair')} with seed {drawn}", _making(desk, room.workbench, wish, drawn))
        return Done(updates=watched(), repaint=False)

    def on_stop() -> Done:
        desk.jobs.stop()
        return Done(updates=watched(), repaint=False)

    def on_tick() -> Done:
        status = desk.jobs.status
        return Done(html=desk.cards.job(status), updates={desk.timer: gr.Timer(active=status.running)}, repaint=not status.running)

    def watched() -> dict:
        status = desk.jobs.status
        return {progress: desk.cards.job(status), desk.timer: gr.Timer(active=status.running)}

    desk.on(kind.change, on_kind, [kind], said, [agent], repaint=False)
    desk.on(make_them.click, on_make, [kind, agent, n, seed], said)
    desk.on(stop.click, on_stop, [], said)
    desk.on(desk.timer.tick, on_tick, [], progress)


def _making(desk: OwnerDesk, bench: Workbench, wish: Wish, seed: int) -> Work:
    """The job that makes what ``wish`` says: each batch is in the store before its step is told."""

    def work(cancel: threading.Event) -> Iterator[Step]:
        from annotate.making import make

        added = Added()
        for batch in make(bench, wish, seed, plan=desk.campaign.settings.plan, cancel=cancel):
            if batch.pairs:
                more = desk.campaign.add_made(batch.items, batch.candidates, batch.pairs)
                added = replace(added, pairs=added.pairs + more.pairs, known=added.known + more.known)
            report = batch.report
            yield Step(report.n_to_judge, wish.n, _kept(report, added))
        if report.stopped and not cancel.is_set():
            raise ValueError(f"It ended early because {report.stopped}")

    return work


def _kept(report: Report, added: Added) -> str:
    """What has come in so far, checks among it, and what was dropped on the way."""
    n_checks = sum(report.made.values()) - report.n_to_judge
    parts = [f"{of(added.pairs, 'pair')} added" + (f", {n_checks:,} of them checks" if n_checks else "")]
    if added.known:
        parts.append(f"{added.known:,} known already")
    if report.dropped:
        parts.append("dropped: " + ", ".join(f"{n:,} × {reason}" for reason, n in sorted(report.dropped.items())))
    return "; ".join(parts)


def _seed(typed: object, new: int) -> int:
    """The seed that was typed, ``new`` where the field is empty."""
    text = typed.strip() if isinstance(typed, str) else ""
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refusal("shape", "Seed must be a whole number of at most nine digits, or empty.")
    return int(text) if text else new


def _whole(label: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value != int(value):
        raise Refusal("shape", f"{label} must be a whole number from {low:,} to {high:,}.")
    return int(value)


def _build_import(desk: OwnerDesk) -> None:
    gr.HTML(
        '<h3 class="pat-title">Import pairs</h3><p class="pat-hint">One row for each pair: a prompt (or a topic and a title), two texts '
        "(<code>text_a</code>, <code>text_b</code>), and whatever else is known, such as <code>system_a</code>, <code>statements</code> or "
        "<code>samples</code>. Known pairs are not added twice.</p>"
    )
    gr.HTML(PICKER, js_on_load=READ_FILE)
    name = gr.Textbox(label="Where they come from", value="pasted", max_length=60, elem_id="pat-rows-name")
    rows = gr.Textbox(
        label="Rows", lines=6, max_lines=10, elem_id="pat-rows",
        placeholder='{"topic": "Lodge", "title": "Two nights", "text_a": "…", "text_b": "…", "system_a": "pat", "system_b": "none"}',
    )  # fmt: skip
    button = gr.Button("Import", size="md")
    said = gr.HTML("", elem_id="pat-import-said")

    def on_import(called: object, text: object) -> Done:
        if desk.campaign.read_only:
            raise Refusal("store", desk.campaign.read_only)
        if not isinstance(text, str) or not text.strip():
            raise Refusal("shape", "Paste rows, or choose a file, first.")
        done = import_text(desk.campaign.store, called if isinstance(called, str) and called.strip() else "pasted", text)
        return Done(_imported(done), _refusals(done), {rows: ""} if not done.refused else None)

    desk.on(button.click, on_import, [name, rows], said, [rows])


def _imported(done: Imported) -> str:
    a = done.added
    parts = [f"{of(a.pairs, 'pair')} added from {of(done.n_rows, 'row')} of {done.format}"]
    if a.known:
        parts.append(f"{a.known:,} known already")
    if a.identical:
        parts.append(f"{a.identical:,} with two equal texts left out")
    if done.refused:
        parts.append(f"{of(len(done.refused), 'row')} refused")
    return "; ".join(parts) + "."


def _refusals(done: Imported) -> str:
    """The rows that were refused, each with its place and the reason."""
    shown = "".join(f"<li><b>{escape(r.where)}</b> {escape(r.reason)}</li>" for r in done.refused[:REFUSALS_SHOWN])
    rest = len(done.refused) - REFUSALS_SHOWN
    more = f"<li>and {rest:,} more</li>" if rest > 0 else ""
    notes = "".join(f'<p class="pat-hint">{escape(note)}</p>' for note in done.notes)
    return (f'<ul class="pat-list">{shown}{more}</ul>' if shown else "") + notes
