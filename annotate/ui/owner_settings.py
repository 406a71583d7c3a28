"""What the owner decides about the campaign: its question, who may join, and how pairs are handed out.

Leaves out rare knobs of the plan (breaks, warnings), which keep their defaults or what was set in the store.
"""

from __future__ import annotations

import math
from dataclasses import replace

import gradio as gr

from annotate.campaign import CampaignSettings
from annotate.gate import Refusal
from annotate.ui.owner_desk import Done, OwnerDesk

ACCESS = [("Anybody with a nickname", "open"), ("Only with an invite code", "invite")]
SHARES = {  # knobs of the plan that are shares, shown in percent
    "overlap": ("Pairs judged twice, %", "Their agreement is measured, and opposite answers bring one more judge."),
    "gold": ("Constructed checks, %", "Pairs with a right answer, such as a text cut off in the middle."),
    "swap": ("Swapped repeats, %", "The ceiling of agreement, and whether somebody clicks one side."),
    "identical": ("Identical texts, %", "Twice the same text: only a tie is right."),
}
WHOLE = {
    "cap": ("Judges for one pair at most", "However split they are."),
    "swap_after": ("Pairs before a repeat", "So that nobody remembers."),
}


def build_settings(desk: OwnerDesk) -> None:
    """The settings as a form that shows what holds now."""
    with gr.Column(elem_classes="pat-form-narrow"):
        gr.HTML('<h3 class="pat-title">The campaign</h3>')
        title = gr.Textbox(label="Question people are asked", max_length=80)
        access = gr.Radio(ACCESS, value="open", label="Who may join", elem_classes="pat-segments")
        guide = gr.Textbox(label="Version of the guide", info="Kept with every answer: change it when the guide changes.", max_length=80)
        gr.HTML('<h3 class="pat-title">The queue</h3><p class="pat-hint">Holds from the next pair that anybody gets.</p>')
        with gr.Row():
            knobs = {
                name: gr.Number(label=label, info=info, minimum=0, precision=None if name in SHARES else 0, min_width=240)
                for name, (label, info) in (SHARES | WHOLE).items()
            }
        save = gr.Button("Save settings", size="md")
        said = gr.HTML("")
    texts = {"title": title, "access": access, "guideline_version": guide}
    for name, component in texts.items():
        desk.shows(component, lambda _, name=name: getattr(desk.campaign.settings, name))
    for name, component in knobs.items():
        desk.shows(component, lambda _, name=name: _shown(desk.campaign.settings, name))

    def on_save(*values: object) -> Done:
        given = dict(zip((*texts, *knobs), values, strict=True))
        now = desk.campaign.settings
        plan = replace(now.plan, **{name: _knob(name, given[name]) for name in knobs})
        desk.campaign.save_settings(replace(now, plan=plan, **{name: given[name] for name in texts}))
        return Done("Saved.")

    desk.on(save.click, on_save, [*texts.values(), *knobs.values()], said)


def _shown(settings: CampaignSettings, name: str) -> float:
    value = getattr(settings.plan, name)
    return round(100 * value, 6) if name in SHARES else value


def _knob(name: str, value: object) -> float | int:
    """The number for the plan, which checks its range; ValueError for what is no number."""
    label = (SHARES | WHOLE)[name][0]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refusal("shape", f"{label} needs a number.")
    if name in SHARES:
        return value / 100
    if value != int(value):
        raise Refusal("shape", f"{label} needs a whole number.")
    return int(value)
