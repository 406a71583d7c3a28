"""The Compose view: the form on the left, one run of the method on the right, in the method's order. Leaves out how any of it is computed.

Every handler is reachable by plain HTTP, so each one checks what it is given (``form``) and none writes anything that outlives the session.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gradio as gr

from pat_core.llm.types import LLMError
from pat_core.types import Query, Snapshot, Trace
from pat_core.ui import cards, form
from pat_core.ui.form import Form
from pat_core.ui.form_column import QUIET, FormColumn, build_form, connect_form, topic_choices, topic_line
from pat_core.ui.graph_picture import picture
from pat_core.ui.opening import EngineRoom, Opening
from pat_core.ui.runs import Runs
from pat_core.ui.versions import versions_html

log = logging.getLogger(__name__)

# A patched panel loses the `open` of a fold that the reader opened, so each panel remembers them by name.
REMEMBER_FOLDS = """
const folds = new Map();
element.addEventListener('click', e => {
  const fold = e.target.closest('summary')?.closest('details[data-fold]');
  if (fold) requestAnimationFrame(() => folds.set(fold.dataset.fold, fold.open));
});
watch('value', () => element.querySelectorAll('details[data-fold]').forEach(fold => {
  const wanted = folds.has(fold.dataset.fold) ? folds.get(fold.dataset.fold) : fold.hasAttribute('data-open');
  if (fold.open !== wanted) fold.open = wanted;
}));
"""
GO_TO_SECTION = """
element.addEventListener('click', e => {
  const button = e.target.closest('button[data-go]');
  if (button) document.getElementById(button.dataset.go)?.scrollIntoView({behavior: 'smooth'});
});
"""
SHOW_RUN = "() => { if (innerWidth < 900) document.getElementById('pat-run')?.scrollIntoView({behavior: 'smooth'}); }"
SAVE_FILE = """(text) => {
  if (!text) return;
  const {name, content} = JSON.parse(text);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], {type: 'application/json'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


@dataclass(frozen=True, eq=False)  # compared by identity: Gradio hashes session state after every event, and a run is large
class Shown:
    """What a session's right side shows: the newest snapshot, of which query, and the run it was fused again from."""

    snapshot: Snapshot
    query: Query
    kept: Trace | None = None


class Painter:
    """Turns snapshots into updates of the panels. One for each run.

    Every update carries every panel of the run: where two updates reach a browser within one frame, Gradio may apply only the second, and
    its server sends unchanged values as empty differences anyway.
    """

    def __init__(self, panels: dict[str, gr.HTML], room: EngineRoom, query: Query, kept: Trace | None = None) -> None:
        """``kept`` is the finished run that is being fused again: its neighbors and rounds stay, and so do its alternatives."""
        self._panels, self._room, self._query, self._kept = panels, room, query, kept
        self._found: tuple[object, str] = ((), "")  # neighbors as retrieved, and their panel: the same from retrieval to the end

    def paint(self, snapshot: Snapshot | None) -> dict:
        """Updates for ``snapshot``; None is a run that waits for the model."""
        texts = {"progress": cards.progress(snapshot, fused_again=self._kept is not None)}
        texts["results"] = cards.results(snapshot, self._kept) if snapshot else ""
        if self._kept is None:
            texts |= (
                {"neighbors": self._neighbors(snapshot), "rounds": cards.rounds(snapshot)} if snapshot else {"neighbors": "", "rounds": ""}
            )
        return {self._panels[name]: text for name, text in texts.items()}

    def _neighbors(self, snapshot: Snapshot) -> str:
        found = (snapshot.style_neighbors, snapshot.topic_neighbors)
        if any(found) and self._found[0] != found:
            users = (frozenset(n.review.user_id for n in neighbors) for neighbors in found)
            self._found = (found, cards.neighbors(snapshot, picture(self._room.workbench.visitor_graph(snapshot, self._query), *users)))
        return self._found[1]


class AfterRun(NamedTuple):
    """A part of the page below the texts: ``update`` gives the changes of ``outputs`` for what the session shows now."""

    outputs: list
    update: Callable[[Shown | None], dict]


@dataclass(frozen=True)
class Screen:
    """The components a run writes to."""

    panels: dict[str, gr.HTML]
    after: gr.Column
    summaries: dict[str, gr.Textbox]
    again: gr.Button
    save: gr.Button
    saved: gr.Textbox
    shown: gr.State
    column: FormColumn
    below: AfterRun

    @property
    def outputs(self) -> list:
        column = self.column
        return [
            *self.panels.values(),
            self.after,
            *self.summaries.values(),
            self.shown,
            self.again,
            column.notice,
            column.write,
            column.stop,
        ]


def build_compose(
    demo: gr.Blocks,
    opening: Opening,
    runs: Runs,
    examples: dict[str, tuple[str, str, Form]],
    after_run: Callable[[gr.State], AfterRun] = lambda shown: AfterRun([], lambda _: {}),
) -> None:
    """Lay the view out inside the current page of ``demo`` and connect it; ``after_run`` lays out what follows the texts of a run."""
    header = gr.HTML(header_html(opening), elem_id="pat-header")
    with gr.Row(elem_id="pat-desk"):
        with gr.Column(scale=5, min_width=320, elem_id="pat-form"):
            column = build_form(examples)
        with gr.Column(scale=9, min_width=320, elem_id="pat-run"):
            screen = _build_run(column, after_run)
    serving = gr.HTML("", elem_id="pat-versions", js_on_load=REMEMBER_FOLDS)
    connect_form(demo, opening, column, examples)
    _connect_opening(demo, opening, header, column, serving)
    _connect_run(opening, runs, screen, serving)


def header_html(opening: Opening) -> str:
    engine = opening.room.workbench.engine if opening.room else ""
    return (
        '<header class="pat-head"><h1>PaT Workbench</h1><p>Writes a review in a person’s own voice from very little: two agents, '
        "one for style and one for the topic, reason over their neighbors in a graph. "
        f'<a href="annotate">Judge pairs of texts</a> · <a href="results">Results</a></p>{cards.opening(opening.status, engine)}</header>'
    )


def _build_run(column: FormColumn, after_run: Callable[[gr.State], AfterRun]) -> Screen:
    panels = {"progress": gr.HTML(cards.empty(), elem_id="pat-progress", js_on_load=GO_TO_SECTION)}
    panels |= {name: gr.HTML("", elem_id=f"pat-{name}", js_on_load=REMEMBER_FOLDS) for name in ("neighbors", "rounds", "results")}
    shown = gr.State(None)
    below = after_run(shown)
    with gr.Column(visible=False, elem_id="pat-after") as after:
        gr.HTML('<h3 class="pat-title">Change what an agent said</h3><p class="pat-hint">Edit either summary and fuse the two again.</p>')
        with gr.Row():
            summaries = {
                agent: gr.Textbox(label=f"{agent.capitalize()} summary", lines=5, max_lines=12, min_width=280)
                for agent in ("style", "topic")
            }
        with gr.Row(elem_classes="pat-actions"):
            again = gr.Button("Fuse again", size="md")
            save = gr.Button("Download the trace (JSON)", size="md")
        saved = gr.Textbox(label="Trace", elem_classes="pat-hidden")
    return Screen(panels, after, summaries, again, save, saved, shown, column, below)


def _connect_opening(demo: gr.Blocks, opening: Opening, header: gr.HTML, column: FormColumn, serving: gr.HTML) -> None:
    """Ask how the opening goes until it is over; then fill the topics in, let the visitor write and say what is serving."""
    timer, topic = gr.Timer(0.7), column.fields["topic"]

    def on_tick(chosen: object) -> dict:
        status, room = opening.status, opening.room
        updates: dict = {
            header: header_html(opening),
            column.write: write_button(opening),
            timer: gr.Timer(active=status.state == "loading"),
        }
        if room is not None:
            value = form.find_topic(chosen, room.workbench.corpus.topics)[1] if isinstance(chosen, str) else None
            updates |= {topic: gr.Dropdown(choices=topic_choices(room), value=value), column.topic_note: topic_line(room, value)}
            updates[serving] = versions_html(room)
        return updates

    outputs = [header, column.write, timer, topic, column.topic_note, serving]
    timer.tick(on_tick, topic, outputs, **QUIET)
    demo.load(lambda: header_html(opening), None, header, **QUIET)


def write_button(opening: Opening) -> gr.Button:
    """The Write button between runs: says why it cannot be pressed yet."""
    if opening.room is not None:
        return gr.Button("Write", interactive=True)
    share = opening.status.share
    label = (
        "Write (the models could not be opened)"
        if opening.status.state == "failed"
        else f"Write (starting up{'' if share is None else f', {share:.0%}'})"
    )
    return gr.Button(label, interactive=False)


def _connect_run(opening: Opening, runs: Runs, screen: Screen, serving: gr.HTML) -> None:
    column, panels = screen.column, screen.panels

    def on_asked() -> dict:
        """What a click changes at once, even where other visitors are first."""
        return _busy(screen, "Waiting …") | {panels["progress"]: cards.progress(None), column.notice: ""}

    def refused(data: dict, place: gr.HTML, sentence: str) -> dict:
        """Back to what was there before the click, and why."""
        return _idle(screen, opening) | _standing(screen, data.get(screen.shown)) | {place: cards.notice((sentence,), alert=True)}

    def on_write(data: dict) -> Iterator[dict]:
        room = opening.room
        if room is None:
            sentence = (
                "The models are still being opened: try again in a moment."
                if opening.status.state == "loading"
                else opening.status.sentence
            )
            yield refused(data, column.notice, sentence)
            return
        try:
            typed = form.read_form(column.values(data))
            query = form.query_of(typed, room.workbench.corpus.topics, room.workbench.corpus.category_of)
            options = typed.knobs
        except ValueError as error:
            yield refused(data, column.notice, str(error))
            return
        settled = {column.notice: cards.notice(_remarks(typed, query)), screen.after: gr.Column(visible=False)}
        yield from _follow(runs, screen, opening, lambda cancel: room.workbench.stream(query, options, cancel=cancel), query, settled)

    def on_again(data: dict) -> Iterator[dict]:
        room, trace = opening.room, _trace(data.get(screen.shown))
        if room is None or trace is None:
            yield refused(data, panels["progress"], "There is no finished run to fuse again: press Write first.")
            return
        try:
            texts = [form.summary_text(data.get(box), agent) for agent, box in screen.summaries.items()]
        except ValueError as error:
            yield refused(data, panels["progress"], str(error))
            return
        yield from _follow(
            runs, screen, opening, lambda cancel: room.workbench.fuse(trace, *texts, cancel=cancel), trace.query, {}, data[screen.shown]
        )

    def on_stop(shown: object) -> dict:
        """The run itself is cancelled by the event; this leaves what it had shown, without a cursor that blinks for ever."""
        if opening.room is None or not isinstance(shown, Shown):
            return _standing(screen, shown) | _idle(screen, opening)
        snapshot = shown.snapshot if shown.snapshot.trace else replace(shown.snapshot, stage="stopped")
        return Painter(panels, opening.room, shown.query, shown.kept).paint(snapshot) | _idle(screen, opening)

    def on_save(shown: object) -> str:
        trace = _trace(shown)
        if opening.room is None or trace is None:
            raise gr.Error("There is no finished run to download: press Write first.")
        slug = re.sub(r"[^a-z0-9]+", "-", trace.query.topic.lower()).strip("-")[:40] or "run"
        content = json.dumps(opening.room.trace_to_json(trace), ensure_ascii=False, indent=1)
        return json.dumps({"name": f"pat-{slug}-{trace.query.seed}.json", "content": content})

    model: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private", "show_progress": "minimal"}
    model["show_progress_on"] = panels["progress"]
    asked = [column.write, column.stop, screen.again, panels["progress"], column.notice]
    for button in (column.write, screen.again):  # listeners of one button run in the order of their making
        button.click(on_asked, None, asked, js=SHOW_RUN, **QUIET)
    writing = column.write.click(on_write, {*column.fields.values(), screen.shown}, screen.outputs, **model)
    fusing = screen.again.click(on_again, {*screen.summaries.values(), screen.shown}, screen.outputs, **model)
    for run in (writing, fusing):  # also where the queue was full and the handler never ran
        run.failure(lambda: _idle(screen, opening), None, asked, **QUIET)
        run.then(lambda: versions_html(opening.room), None, serving, **QUIET)  # another version may have come with this run
        if screen.below.outputs:
            run.then(screen.below.update, screen.shown, screen.below.outputs, **QUIET)
    column.stop.click(on_stop, screen.shown, screen.outputs, cancels=[writing, fusing], **QUIET)
    screen.save.click(on_save, screen.shown, screen.saved, **QUIET).success(None, screen.saved, None, js=SAVE_FILE, **QUIET)


def _follow(
    runs: Runs,
    screen: Screen,
    opening: Opening,
    start: Callable[[threading.Event], Iterator[Snapshot]],
    query: Query,
    settled: dict,
    kept: Shown | None = None,
) -> Iterator[dict]:
    """The screen of one run from its first moment to its end, whatever the end is.

    ``settled`` goes with every update. ``kept`` is the finished run that is being fused again: it stays the session's run until the new
    one is finished too.
    """
    room, progress = opening.room, screen.panels["progress"]
    assert room is not None
    painter = Painter(screen.panels, room, query, _trace(kept))
    busy = _busy(screen, "Writing …")
    state, shown = settled | busy | painter.paint(None), kept
    yield state | {screen.shown: shown}
    try:
        for snapshot in runs.follow(start):
            if snapshot is not None:
                state = settled | busy | painter.paint(snapshot)
                shown = Shown(snapshot, query, _trace(kept)) if snapshot.trace or kept is None else kept
            yield state | {screen.shown: shown}
    except (ValueError, LLMError) as error:
        yield state | _idle(screen, opening) | {progress: cards.failure(str(error))}
        return
    except Exception as error:  # the top of a run: what nobody foresaw belongs on the page and in the log, not behind a dead spinner
        log.exception("a run failed")
        sentence = f"The run failed ({type(error).__name__}). The form is untouched: try again. The terminal shows where it failed."
        yield state | _idle(screen, opening) | {progress: cards.failure(sentence)}
        return
    trace = _trace(shown) if shown is not kept else None
    yield state | _idle(screen, opening) | {screen.shown: shown} | (_summaries(screen, trace) if trace else {})


def _busy(screen: Screen, label: str) -> dict:
    """The buttons while a run waits or works."""
    return {
        screen.column.write: gr.Button(label, interactive=False),
        screen.column.stop: gr.Button(interactive=True),
        screen.again: gr.Button(interactive=False),
    }


def _idle(screen: Screen, opening: Opening) -> dict:
    """The buttons as they are between runs."""
    return {
        screen.column.write: write_button(opening),
        screen.column.stop: gr.Button(interactive=False),
        screen.again: gr.Button(interactive=True),
    }


def _standing(screen: Screen, shown: object) -> dict:
    """The progress line of what is on the screen: of the run shown, else what will appear there."""
    text = cards.progress(shown.snapshot, fused_again=shown.kept is not None) if isinstance(shown, Shown) else cards.empty()
    return {screen.panels["progress"]: text}


def _summaries(screen: Screen, trace: Trace) -> dict:
    last = trace.rounds[-1]
    return {screen.after: gr.Column(visible=True), screen.summaries["style"]: last.style.text, screen.summaries["topic"]: last.topic.text}


def _remarks(typed: Form, query: Query) -> tuple[str, ...]:
    """What the visitor should know about how the input was read."""
    guessed = [
        f"Preference {i} was taken for {form.KINDS[preference.kind]}."
        for i, (entry, preference) in enumerate(zip(typed.entries, query.preferences, strict=True), 1)
        if not entry.kind
    ]
    return (*guessed, *typed.notes)


def _trace(shown: object) -> Trace | None:
    return shown.snapshot.trace if isinstance(shown, Shown) else None
