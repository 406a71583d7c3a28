"""Who judges and whose answers count: the people with a switch and invite codes, and the ledger of what is left out, with reasons.

Leaves out any automatic decision: the table says what to look into, a person decides, and every decision can be taken back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from annotate.gate import Refusal
from annotate.types import Annotator, Exclusion, JudgmentQuery, Pair
from annotate.ui.owner_desk import Done, OwnerDesk
from annotate.words import of, when

if TYPE_CHECKING:
    from annotate.figures import Person, Report

STATUSES = [("Active", "active"), ("Paused", "paused"), ("Blocked", "blocked")]
COLUMNS: dict[str, tuple[str, int]] = {  # type, width in pixels
    "Name": ("str", 130),
    "Status": ("str", 80),
    "Answers": ("number", 86),
    "To look into": ("str", 330),
    "Seconds each": ("number", 116),
    "Seconds a word": ("number", 130),
    "Left side, %": ("number", 108),
    "of decisive": ("number", 108),
    "Checks right": ("str", 116),
    "Repeats the same": ("str", 140),
    "Cannot judge": ("number", 116),
    "Left out": ("number", 86),
    "Group": ("str", 100),
    "Judge": ("str", 80),
    "Joined": ("str", 146),
    "Last answer": ("str", 146),
    "Id": ("str", 320),
}
TARGETS = [("One answer", "answer"), ("All answers of a person", "person"), ("All answers on a pair", "pair")]
DECIDED_BY = "owner"
ANSWERS_LISTED = 200
MIN_PREFIX = 8  # characters of an id that the tables show
SWITCH = """
element.addEventListener('click', e => {
  const button = e.target.closest('button[data-switch]');
  if (button) trigger('toggle', {id: button.dataset.switch});
});
"""


def build_people(desk: OwnerDesk) -> None:
    """The table of people, the switch of somebody's status, and invitations."""
    gr.HTML(
        '<p class="pat-hint">What is in “To look into” is a reason to look, never a verdict. “Left side” is the share of decisive answers '
        "for the left text. Constructed checks have a right answer; a repeat shows a pair again with the sides exchanged.</p>"
    )
    table = gr.Dataframe(
        headers=list(COLUMNS), datatype=[kind for kind, _ in COLUMNS.values()], column_widths=[width for _, width in COLUMNS.values()],
        interactive=False, show_search="filter", pinned_columns=1, wrap=True, max_height=460, buttons=[], show_label=False,
        elem_id="pat-people",
    )  # fmt: skip
    desk.shows(table, lambda r: [_person_row(p) for p in r.people])
    with gr.Row(elem_classes="pat-forms"):
        with gr.Column(min_width=300):
            gr.HTML(
                '<h3 class="pat-title">Let somebody judge, or not</h3><p class="pat-hint">Paused or blocked, they get no more pairs; their '
                "answers stay.</p>"
            )
            who = gr.Dropdown(label="Person", choices=[], allow_custom_value=True, elem_id="pat-status-who")
            status = gr.Radio(STATUSES, value="paused", label="Status", elem_classes="pat-segments")
            change = gr.Button("Change status", size="md")
            changed = gr.HTML("")
        with gr.Column(min_width=300):
            gr.HTML(
                '<h3 class="pat-title">Invite people</h3><p class="pat-hint">One code for one person. Only hashes are kept: copy the codes '
                "now.</p>"
            )
            n = gr.Number(label="How many", value=5, precision=0, minimum=1, maximum=500)
            invite = gr.Button("Make invite codes", size="md")
            invited = gr.HTML("")
            codes = gr.Textbox(
                label="New codes", lines=5, max_lines=10, interactive=False, buttons=["copy"], visible=False, elem_id="pat-codes"
            )
    desk.shows(who, lambda r: gr.Dropdown(choices=person_choices(r)))

    def on_status(annotator_id: object, wanted: object) -> Done:
        there = somebody(desk, annotator_id)
        desk.campaign.store.update_annotator(replace(there, status=wanted))  # type: ignore[arg-type]  # checked by Annotator
        return Done(f"{there.nickname} is {wanted} now.")

    def on_invite(wanted: object) -> Done:
        made = desk.campaign.invite(int(wanted) if isinstance(wanted, float) and wanted.is_integer() else wanted)  # type: ignore[arg-type]
        return Done(f"{of(len(made), 'code')} made; they are shown this once.", updates={codes: gr.Textbox("\n".join(made), visible=True)})

    desk.on(change.click, on_status, [who, status], changed)
    desk.on(invite.click, on_invite, [n], invited, [codes], repaint=False)


def _person_row(p: Person) -> list[Any]:
    """Somebody as COLUMNS has it; None where there is no number, which sorts apart."""
    votes = p.votes
    return [
        p.annotator.nickname,
        p.annotator.status,
        p.n,
        "; ".join(p.concerns) or "–",
        None if p.seconds is None else round(p.seconds, 1),
        None if votes.seconds_per_word is None else round(votes.seconds_per_word, 2),
        None if votes.left_share is None else round(100 * votes.left_share),
        votes.n_decisive,
        f"{p.checks.ok} of {p.checks.n}" + (f" ({p.checks.unknown} not gradable)" if p.checks.unknown else ""),
        f"{p.repeats[0]} of {p.repeats[1]}",
        votes.n_cannot_judge,
        p.n_excluded,
        p.annotator.perspective or "–",
        "person" if p.annotator.kind == "human" else p.annotator.kind,
        when(p.annotator.joined_at),
        when(p.last_at) if p.last_at else "–",
        p.annotator.annotator_id,
    ]


def person_choices(r: Report) -> list[tuple[str, str]]:
    return [(f"{p.annotator.nickname} · {of(p.n, 'answer')} · {p.annotator.annotator_id[:8]}", p.annotator.annotator_id) for p in r.people]


def somebody(desk: OwnerDesk, annotator_id: object) -> Annotator:
    there = desk.campaign.store.find(Annotator, annotator_id=annotator_id) if isinstance(annotator_id, str) else None
    if there is None:
        raise Refusal("shape", "Choose a person first.")
    return there


def build_ledger(desk: OwnerDesk) -> None:
    """The exclusions, each with its reason and a switch, and a form for a new one."""
    entries = gr.HTML("", js_on_load=SWITCH, elem_id="pat-ledger")
    desk.shows(entries, lambda r: desk.cards.ledger(r))
    switched = gr.HTML("")
    gr.HTML(
        '<h3 class="pat-title">Leave something out</h3><p class="pat-hint">What is left out stays in the database and in exports; it '
        "counts in no figure and in no training file until it is switched on again.</p>"
    )
    with gr.Column(elem_classes="pat-form-narrow"):
        what = gr.Radio(TARGETS, value="answer", label="What", elem_classes="pat-segments")
        who = gr.Dropdown(label="Person", choices=[], allow_custom_value=True, elem_id="pat-ledger-who")
        answer = gr.Dropdown(
            label="Answer", info="The person’s newest answers.", choices=[], allow_custom_value=True, elem_id="pat-ledger-answer"
        )
        pair = gr.Textbox(label="Pair", info=f"At least the first {MIN_PREFIX} characters of its id.", max_length=64, visible=False)
        reason = gr.Textbox(label="Reason", max_length=500, elem_id="pat-reason")
        leave_out = gr.Button("Leave out", size="md")
        said = gr.HTML("", elem_id="pat-ledger-said")
    desk.shows(who, lambda r: gr.Dropdown(choices=person_choices(r)))

    def on_what(chosen: object) -> Done:
        shown = {who: chosen in ("answer", "person"), answer: chosen == "answer", pair: chosen == "pair"}
        return Done(updates={component: type(component)(visible=visible) for component, visible in shown.items()})

    def on_who(annotator_id: object) -> Done:
        choices = answer_choices(desk, somebody(desk, annotator_id))
        return Done(updates={answer: gr.Dropdown(choices=choices, value=choices[0][1] if choices else None)})

    def on_leave_out(chosen: object, annotator_id: object, judgment_id: object, pair_id: object, why: object) -> Done:
        target: dict[str, Any]
        if chosen == "answer":
            if not isinstance(judgment_id, str):
                raise Refusal("shape", "Choose a person and one of their answers first.")
            target = {"judgment_id": judgment_id}
        elif chosen == "person":
            target = {"annotator_id": somebody(desk, annotator_id).annotator_id}
        else:
            target = {"pair_id": _pair_id(desk, pair_id)}
        if not isinstance(why, str) or not why.strip():
            raise Refusal("shape", "Give a reason: whoever reads the figures later has to know it.")
        desk.campaign.store.exclude(Exclusion(why.strip(), DECIDED_BY, **target))
        return Done("Left out, with the reason in the ledger above.", updates={reason: ""})

    def on_toggle(exclusion_id: object) -> Done:
        store = desk.campaign.store
        there = store.find(Exclusion, exclusion_id=exclusion_id) if isinstance(exclusion_id, str) else None
        if there is None:
            raise Refusal("shape", "There is no such entry in the ledger.")
        store.exclude(replace(there, active=not there.active, decided_by=DECIDED_BY))
        return Done("It counts again." if there.active else "It is left out again.")

    desk.on(what.change, on_what, [what], said, [who, answer, pair], repaint=False)
    desk.on(who.change, on_who, [who], said, [answer], repaint=False)
    desk.on(leave_out.click, on_leave_out, [what, who, answer, pair, reason], said, [reason])
    desk.on(entries.toggle, on_toggle, [], switched, takes="id")  # an event of our own, declared by SWITCH


def answer_choices(desk: OwnerDesk, who: Annotator) -> list[tuple[str, str]]:
    """Somebody's newest answers in words, by id."""
    store = desk.campaign.store
    newest = store.judgments(JudgmentQuery(annotator_id=who.annotator_id, judge_kind=None, excluded=True))[::-1][:ANSWERS_LISTED]
    choices = []
    for j in newest:
        seconds = "" if j.ms_visible is None else f" · {j.ms_visible / 1000:.0f} s"
        strength = f", {j.strength}" if j.strength else ""
        said = f"{j.outcome.replace('_', ' ')}{strength}{seconds}"
        choices.append((f"{when(j.created_at)} · pair {j.pair_id[:8]} · {said}", j.judgment_id))
    return choices


def _pair_id(desk: OwnerDesk, prefix: object) -> str:
    wanted = prefix.strip().lower() if isinstance(prefix, str) else ""
    if len(wanted) < MIN_PREFIX:
        raise Refusal("shape", f"Type at least the first {MIN_PREFIX} characters of the pair’s id.")
    found = [name for p in desk.campaign.store.all(Pair) if (name := p.pair_id).startswith(wanted)]
    if len(found) != 1:
        raise Refusal("shape", f"{len(found)} pairs begin with {wanted[:20]}: type more of the id.")
    return found[0]
