"""The left side of Compose as Gradio components: examples, topic, title, preferences, Advanced, the link and the two buttons.

Leaves out what the values mean (``form``) and what Write and Stop do (``compose``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from pat_core.query import MAX_SEED, MAX_TOPIC_CHARACTERS, parse_preference
from pat_core.types import RUN_RANGES, RunOptions
from pat_core.ui import cards, form
from pat_core.ui.form import ALTERNATIVE_NAMES, MAX_PREFERENCES, Form
from pat_core.ui.opening import EngineRoom, Opening

MAX_CHOICES = 1_000  # topics in the list; in a larger corpus the rest are found by typing, as buttons under the field
MAX_SIMILAR = 6
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
RATINGS = [("Open", ""), *((str(n), str(n)) for n in range(1, 6))]
PICK = """
element.addEventListener('click', e => {
  const button = e.target.closest('button[data-pick]');
  if (button) trigger('pick', {id: button.dataset.pick});
});
"""
SHOW_LINK = """(token) => {
  if (!token) return '';
  const link = location.origin + location.pathname + '?run=' + token;
  navigator.clipboard?.writeText(link).catch(() => {});
  return link;
}"""


@dataclass(frozen=True)
class FormColumn:
    """The column's components. ``fields`` are named as ``form.read_form`` wants them; lists go by preference."""

    examples: gr.HTML
    topic_note: gr.HTML
    add: gr.Button
    n_rows: gr.State
    link: gr.Button
    token: gr.Textbox
    url: gr.Textbox
    write: gr.Button
    stop: gr.Button
    notice: gr.HTML
    fields: dict[str, Any] = field(default_factory=dict)
    rows: list[gr.Column] = field(default_factory=list)
    touched: list[gr.State] = field(default_factory=list)  # True once the person has said what a preference is

    def values(self, data: dict) -> dict[str, object]:
        """What a handler with ``{*fields.values()}`` as inputs was given, by name."""
        return {name: data.get(component) for name, component in self.fields.items()}


def build_form(examples: dict[str, tuple[str, str, Form]]) -> FormColumn:
    """Lay the column out inside the current context."""
    fields: dict[str, Any] = {}
    gr.HTML('<h2 class="pat-title">Start from an example</h2>')
    example_buttons = gr.HTML(cards.examples(examples), js_on_load=PICK)
    gr.HTML('<h2 class="pat-title">What to write</h2>')
    fields["topic"] = gr.Dropdown(
        [], value=None, label="Topic", info="Search the corpus, or type a topic of your own.", allow_custom_value=True
    )
    topic_note = gr.HTML("", elem_id="pat-topic-note", js_on_load=PICK)
    fields["title"] = gr.Textbox(label="Title", info="A few words that the review lives up to.", lines=1, max_lines=2)
    with gr.Row():
        fields["rating"] = gr.Radio(RATINGS, value="", label="Rating", elem_classes="pat-segments", min_width=230, scale=5)
        fields["seed"] = gr.Number(0, label="Seed", minimum=0, maximum=MAX_SEED, step=1, min_width=70, scale=1)
    gr.HTML(
        '<h2 class="pat-title">Who is writing <span class="pat-muted">optional</span></h2>'
        '<p class="pat-hint">Up to five texts this person wrote, '
        "or statements of their taste. None at all is fine: that is the case PaT is made for.</p>"
    )
    rows = [_preference(fields, i) for i in range(1, MAX_PREFERENCES + 1)]
    add = gr.Button("Add another preference", size="md")
    with gr.Accordion("Advanced", open=False, elem_id="pat-advanced"):
        _advanced(fields)
    link = gr.Button("Link to these inputs", size="md")
    url = gr.Textbox(
        label="Link", info="Copied, where the browser allows it.", visible=False, interactive=False, buttons=["copy"], elem_id="pat-url"
    )
    with gr.Column(elem_id="pat-go"):
        notice = gr.HTML("")
        with gr.Row():
            write = gr.Button("Write (starting up)", variant="primary", size="lg", interactive=False, scale=3, min_width=160)
            stop = gr.Button("Stop", variant="secondary", size="lg", interactive=False, scale=1, min_width=90)
    return FormColumn(
        examples=example_buttons,
        topic_note=topic_note,
        add=add,
        n_rows=gr.State(1),
        link=link,
        token=gr.Textbox(label="Token", elem_classes="pat-hidden"),
        url=url,
        write=write,
        stop=stop,
        notice=notice,
        fields=fields,
        rows=rows,
        touched=[gr.State(False) for _ in rows],
    )


def connect_form(demo: gr.Blocks, opening: Opening, column: FormColumn, examples: dict[str, tuple[str, str, Form]]) -> None:
    """Everything the column does by itself: examples, links, the list of preferences, and what the app takes each input for."""
    fields = column.fields
    filled = [*fields.values(), *column.rows, *column.touched, column.n_rows, column.add, column.topic_note, column.notice]

    def on_pick(event: gr.EventData) -> dict:
        key = _said(event, "id")
        if key not in examples:
            raise gr.Error(f"There is no such example; choose one of {', '.join(examples)}.")
        return _fill(column, examples[key][2], opening.room)

    def on_load(request: gr.Request) -> dict:
        token = request.query_params.get("run")
        try:
            return _fill(column, form.form_of_link(token), opening.room) if token else {column.notice: ""}
        except ValueError as error:
            return {column.notice: cards.notice((str(error),), alert=True)}

    def on_add(n_rows: object) -> dict:
        n = min(MAX_PREFERENCES, n_rows + 1) if isinstance(n_rows, int) else 2
        return _show_rows(column, n)

    def on_preference(text: object, rating: object, kind: object, touched: object) -> tuple[object, bool]:
        if not isinstance(text, str) or not text.strip():
            return None, False
        try:
            found = None if touched else parse_preference(text, rating)
        except ValueError:  # too long or no rating: Write says so
            found = None
        return (found.kind, False) if found else (kind, bool(touched))

    def on_link(data: dict) -> dict:
        try:
            token = form.link_token(form.read_form(column.values(data)))
        except ValueError as error:
            return {column.token: "", column.url: gr.Textbox(visible=False), column.notice: cards.notice((str(error),), alert=True)}
        return {column.token: token, column.url: gr.Textbox(visible=True), column.notice: ""}

    def on_topic(topic: object) -> str:
        return topic_line(opening.room, topic)

    def on_key(event: gr.EventData) -> Any:
        if opening.room is None or len(opening.room.workbench.corpus.topics) <= MAX_CHOICES:
            return gr.skip()  # the list itself narrows down as one types
        return cards.similar_topics(similar_topics(opening.room, _said(event, "input_value")))

    def on_similar(event: gr.EventData) -> str:
        return _said(event, "id")[:MAX_TOPIC_CHARACTERS]

    column.examples.pick(on_pick, None, filled, **QUIET)  # type: ignore[attr-defined]  # an event of our own, declared by PICK
    demo.load(on_load, None, filled, **QUIET)
    column.add.click(on_add, column.n_rows, [column.n_rows, column.add, *column.rows], **QUIET)
    for i, touched in enumerate(column.touched, 1):
        text, kind, rating = fields[f"text_{i}"], fields[f"kind_{i}"], fields[f"rating_{i}"]
        for event in (text.blur, rating.input):
            event(on_preference, [text, rating, kind, touched], [kind, touched], **QUIET)
        kind.input(lambda: True, None, touched, **QUIET)
        kind.change(lambda kind: gr.Dropdown(visible=kind != "statement"), kind, rating, **QUIET)
    fields["topic"].change(on_topic, fields["topic"], column.topic_note, **QUIET)
    fields["topic"].key_up(on_key, None, column.topic_note, **QUIET)
    column.topic_note.pick(on_similar, None, fields["topic"], **QUIET)  # type: ignore[attr-defined]
    linked = column.link.click(on_link, {*fields.values()}, [column.token, column.url, column.notice], **QUIET)
    linked.success(None, column.token, column.url, js=SHOW_LINK, **QUIET)


def topic_choices(room: EngineRoom) -> list[str]:
    """The names of the most reviewed topics, at most ``MAX_CHOICES``, in alphabetical order."""
    return sorted(_by_reviews(room, lambda name: True)[:MAX_CHOICES], key=str.casefold)


def similar_topics(room: EngineRoom, typed: str) -> tuple[str, ...]:
    """Names of topics that hold every word of ``typed``, the most reviewed first, at most ``MAX_SIMILAR``."""
    words = typed[:MAX_TOPIC_CHARACTERS].casefold().split()
    return tuple(_by_reviews(room, lambda name: all(word in name.casefold() for word in words))[:MAX_SIMILAR]) if words else ()


def topic_line(room: EngineRoom | None, topic: object) -> str:
    """What the corpus has on ``topic``, as HTML; '' before the corpus is there."""
    if room is None or not isinstance(topic, str) or len(topic) > MAX_TOPIC_CHARACTERS:
        return ""
    corpus = room.workbench.corpus
    topic_id, name = form.find_topic(" ".join(topic.split()), corpus.topics)
    if not topic_id:
        return cards.free_topic(name, similar_topics(room, name))
    return cards.known_topic(len(corpus.by_topic[topic_id]), corpus.category_of.get(topic_id, ""))


def _by_reviews(room: EngineRoom, wanted: Callable[[str], bool]) -> list[str]:
    corpus = room.workbench.corpus
    found = [(name, len(corpus.by_topic[topic_id])) for topic_id, name in corpus.topics.items() if wanted(name)]
    return [name for name, _ in sorted(found, key=lambda item: (-item[1], item[0]))]


def _preference(fields: dict[str, Any], i: int) -> gr.Column:
    kinds = [("Their own text", "sample"), ("Their taste", "statement")]
    with gr.Column(visible=i == 1, elem_classes="pat-preference") as row:
        fields[f"text_{i}"] = gr.Textbox(
            label=f"Preference {i}", lines=3, max_lines=8, placeholder="A review they wrote, or: short and dry"
        )
        with gr.Row(elem_classes="pat-kind"):
            fields[f"kind_{i}"] = gr.Radio(kinds, value=None, label="Taken for", min_width=190, scale=3, elem_classes="pat-segments")
            fields[f"rating_{i}"] = gr.Dropdown(RATINGS, value="", label="Its rating", min_width=90, scale=1, filterable=False)
    return row


def _advanced(fields: dict[str, Any]) -> None:
    default = RunOptions()
    labels = {"rounds": "Rounds", "n_drafts": "Drafts", "k_style": "Style neighbors", "k_topic": "Topic neighbors"}
    with gr.Row():
        for name, label in labels.items():
            low, high = RUN_RANGES[name]
            fields[name] = gr.Number(getattr(default, name), label=label, minimum=low, maximum=high, step=1, min_width=130)
    low, high = RUN_RANGES["temperature"]
    info = "How freely words are drawn; 0 takes the likeliest."
    fields["temperature"] = gr.Number(default.temperature, label="Temperature", info=info, minimum=low, maximum=high, step=0.1)
    choices = [(label, name) for name, label in ALTERNATIVE_NAMES.items()]
    fields["alternatives"] = gr.CheckboxGroup(choices, value=list(default.alternatives), label="Written beside it")


def _fill(column: FormColumn, typed: Form, room: EngineRoom | None) -> dict:
    """The updates that make the column show ``typed``."""
    if room is not None:  # a topic of the corpus is shown by its name, whatever way it was written
        typed = replace(typed, topic=form.find_topic(typed.topic, room.workbench.corpus.topics)[1])
    updates: dict = {column.fields[name]: value for name, value in form.form_values(typed).items()}
    for i, state in enumerate(column.touched):
        updates[state] = i < len(typed.entries) and typed.entries[i].kind != ""
    updates |= {column.notice: "", column.topic_note: topic_line(room, typed.topic)}
    return updates | _show_rows(column, max(1, len(typed.entries)))


def _show_rows(column: FormColumn, n: int) -> dict:
    rows: dict = {row: gr.Column(visible=i < n) for i, row in enumerate(column.rows)}
    return rows | {column.n_rows: n, column.add: gr.Button(visible=n < MAX_PREFERENCES)}


def _said(event: gr.EventData, name: str) -> str:
    """A string the browser sent with an event; '' where a direct request sent nothing of the kind."""
    try:
        value = getattr(event, name)
    except (AttributeError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""
