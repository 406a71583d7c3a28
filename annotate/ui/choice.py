"""Below a run in Compose: any two of its texts side by side, and "which sounds more like this person?", kept like any other judgment.

The names stand on the screen, so every choice made here is marked as unblinded and stays out of training unless somebody asks for it.
"""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from annotate.campaign import Campaign
from annotate.database import StoreError
from annotate.gate import Refusal
from annotate.traces import candidates_of, item_of
from annotate.types import Candidate, Item, new_id
from annotate.visit import Answer
from pat_core.types import Trace
from pat_core.ui.cards import notice
from pat_core.ui.compose import AfterRun, Shown
from pat_core.ui.form import ALTERNATIVE_NAMES
from pat_core.ui.form_column import QUIET

QUESTION = "Which sounds more like this person?"
UI_VERSION = "compose-1"
OUTCOMES: tuple[tuple[str, str, str | None], ...] = (
    ("A, clearly", "A", "clearly"),
    ("A, slightly", "A", "slightly"),
    ("Equally good", "tie", None),
    ("B, slightly", "B", "slightly"),
    ("B, clearly", "B", "clearly"),
    ("Both bad", "both_bad", None),
    ("Cannot judge", "cannot_judge", None),
)
TOKEN_KEY = "pat-annotate-token"  # where assets/annotate.js keeps who somebody is: whoever judges here and there is one person
WITH_TOKEN = f"""(...values) => {{
  let token = '';
  try {{ token = localStorage.getItem('{TOKEN_KEY}') || ''; }} catch {{ token = values.at(-1) || ''; }}
  return [...values.slice(0, -1), token];
}}"""
KEEP_TOKEN = f"""(token) => {{
  try {{ if (token) localStorage.setItem('{TOKEN_KEY}', token); }} catch {{ /* storage is blocked: known until the page is reloaded */ }}
}}"""


def build_choice(shown: gr.State, campaign: Campaign) -> AfterRun:
    """Lay the question out; returns how it follows the runs of the session whose state is ``shown``."""
    with gr.Column(visible=False, elem_id="pat-choice") as column:
        gr.HTML(
            f'<h3 class="pat-title" id="pat-choice-title">{QUESTION}</h3><p class="pat-hint">Take any two of the texts above. Saving keeps '
            "your request, both texts and your answer in this app’s database, under a random number and not your name.</p>"
        )
        with gr.Row():
            first = gr.Dropdown(label="Text A", choices=[], min_width=240, elem_id="pat-choice-a")
            second = gr.Dropdown(label="Text B", choices=[], min_width=240, elem_id="pat-choice-b")
        texts = gr.HTML("", elem_id="pat-choice-texts")
        with gr.Row(elem_classes="pat-outcomes"):
            buttons = [(gr.Button(label, size="md", min_width=110), outcome, strength) for label, outcome, strength in OUTCOMES]
        told = gr.HTML("", elem_id="pat-choice-told")
        token = gr.Textbox(label="Token", elem_classes="pat-hidden")

    def update(now: Shown | None) -> dict:
        candidates = _texts(now)
        names = list(candidates)
        changes: dict[Any, Any] = {column: gr.Column(visible=len(names) > 1), told: ""}
        if len(names) > 1:
            changes |= {first: gr.Dropdown(choices=names, value=names[0]), second: gr.Dropdown(choices=names, value=names[1])}
            changes[texts] = _side_by_side(candidates, names[0], names[1])
        return changes

    def on_pick(now: Shown | None, a: object, b: object) -> dict:
        return {texts: _side_by_side(_texts(now), a, b), told: ""}

    def on_choose(now: Shown | None, a: object, b: object, held: object, outcome: str, strength: str | None) -> dict:
        try:
            sentence, kept = _keep(campaign, now, a, b, held, outcome, strength)
        except (Refusal, StoreError) as refusal:
            return {told: notice((str(refusal),), alert=True)}
        return {told: f'<div role="status">{notice((sentence,))}</div>', token: kept}

    for box in (first, second):
        box.input(on_pick, [shown, first, second], [texts, told], **QUIET)
    for button, outcome, strength in buttons:

        def handler(now: Shown | None, a: object, b: object, held: object, outcome: str = outcome, strength: str | None = strength) -> dict:
            return on_choose(now, a, b, held, outcome, strength)

        saved = button.click(handler, [shown, first, second, token], [told, token], js=WITH_TOKEN, **QUIET)
        saved.success(None, token, None, js=KEEP_TOKEN, **QUIET)
    return AfterRun([column, first, second, texts, told], update)


def _keep(
    campaign: Campaign, now: Shown | None, a: object, b: object, token: object, outcome: str, strength: str | None
) -> tuple[str, str]:
    """Saves one choice; returns what to say, after the commit, and the token of whoever chose."""
    trace, candidates = _trace(now), _texts(now)
    if trace is None or not isinstance(a, str) or not isinstance(b, str) or a not in candidates or b not in candidates:
        raise Refusal("shape", "There are no two texts to choose between: press Write first, then take two of its texts.")
    if a == b:
        raise Refusal("shape", "A and B are the same text: take two different ones.")
    left, right = candidates[a], candidates[b]
    agent = "generator" if left.system == right.system == "pat" else None  # two drafts of one prompt differ in the generator's text alone
    answer = Answer(new_id(), "", "", outcome, strength, ui_version=UI_VERSION)
    session, _ = campaign.judge_here(token, _item(trace), (left, right), answer, agent=agent)
    label = next(name for name, o, s in OUTCOMES if (o, s) == (outcome, strength))
    return f"Saved: {label}. Another press changes this answer; two other texts make a new one.", session.token


def _trace(now: object) -> Trace | None:
    return now.snapshot.trace if isinstance(now, Shown) else None


def _item(trace: Trace) -> Item:
    return item_of(trace.query, trace.style_neighbors, source="compose")


def _texts(now: object) -> dict[str, Candidate]:
    """The texts of the run by the names they have on the screen, the fused one first, then the alternatives, then the other drafts."""
    trace = _trace(now)
    if trace is None:
        return {}
    named: dict[str, Candidate] = {}
    for key, candidate in candidates_of(trace, _item(trace)).items():
        if key.startswith("draft-"):
            i = int(key.removeprefix("draft-"))
            name = "PaT" if i == trace.chosen else f"PaT, draft {i + 1}"
        else:
            name = ALTERNATIVE_NAMES.get(key, key)
        named[name] = candidate
    order = sorted(named, key=lambda name: (name != "PaT", name.startswith("PaT,")))
    return {name: named[name] for name in order}


def _side_by_side(candidates: dict[str, Candidate], a: object, b: object) -> str:
    cards = "".join(
        f'<article class="pat-card" aria-label="Text {side}"><h4>{side}</h4>'
        f'<p class="pat-text">{escape(candidates[name].text)}</p></article>'
        for side, name in (("A", a), ("B", b))
        if isinstance(name, str) and name in candidates
    )
    return f'<div class="pat-two">{cards}</div>'
