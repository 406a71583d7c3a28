"""The Owner page: how the annotation goes, and what only its owner may do. Opened with the owner token, which every handler asks for again.

Before the token is right no figure reaches the browser: the page is laid out empty. The token stays in its field and is gone with the page.
Leaves out what each part does (``owner_people``, ``owner_pairs``, ``owner_train``, ``owner_data``) and how figures become HTML
(``owner_cards``).
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from annotate.campaign import Campaign
from annotate.jobs import Jobs
from annotate.training import Training
from annotate.ui.owner_data import build_data
from annotate.ui.owner_desk import Done, OwnerDesk
from annotate.ui.owner_pairs import build_pairs
from annotate.ui.owner_people import build_ledger, build_people
from annotate.ui.owner_settings import build_settings
from annotate.ui.owner_train import build_train
from annotate.words import of, when
from pat_core.ui.compose import REMEMBER_FOLDS
from pat_core.ui.opening import Opening

if TYPE_CHECKING:
    from annotate.figures import Report


def build_owner(demo: gr.Blocks, campaign: Campaign, opening: Opening, jobs: Jobs, training: Training | None = None) -> None:
    """Lay the page out inside the current page of ``demo`` and connect it; without ``training`` nothing can be trained from it."""
    gr.HTML(
        '<header class="pat-head"><h1>Owner</h1><p>How the annotation goes, and what only its owner may do.</p></header>',
        elem_id="pat-owner-head",
    )
    with gr.Column(elem_id="pat-gate") as gate:
        token = gr.Textbox(
            label="Owner token",
            info="The app prints it when it starts, unless PAT_OWNER_TOKEN sets it. It is kept on this page only.",
            type="password",
            max_length=200,
            html_attributes=gr.InputHTMLAttributes(autocomplete="current-password"),
        )
        enter = gr.Button("Open", variant="primary")
        refused = gr.HTML("", elem_id="pat-gate-said")
    desk = OwnerDesk(campaign, opening, jobs, token, gr.Timer(1.0, active=False))
    with gr.Column(visible=False, elem_id="pat-owner") as page:
        with gr.Row(elem_classes="pat-now"):
            desk.shows(gr.HTML("", elem_id="pat-owner-now"), lambda r: now(campaign, r))
            again = gr.Button("Refresh", size="md", min_width=100)
        said = gr.HTML("", elem_id="pat-owner-said")
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Overview"):
                desk.shows(gr.HTML(""), lambda r: desk.cards.overview(r))
                desk.shows(gr.HTML(""), lambda r: desk.cards.queue(r))
                desk.shows(gr.HTML(""), lambda r: desk.cards.days(r))
            with gr.Tab("People"):
                build_people(desk)
            with gr.Tab("Systems"):
                desk.shows(gr.HTML("", js_on_load=REMEMBER_FOLDS), lambda r: desk.cards.systems(r))
            with gr.Tab("Agreement and bias"):
                desk.shows(gr.HTML("", js_on_load=REMEMBER_FOLDS), lambda r: desk.cards.agreement(r))
            with gr.Tab("Rewards"):
                desk.shows(gr.HTML("", js_on_load=REMEMBER_FOLDS), lambda r: desk.cards.rewards(r))
            with gr.Tab("Pairs"):
                build_pairs(desk)
            if training is not None:
                with gr.Tab("Train") as tab:
                    build_train(desk, training, tab)
            with gr.Tab("Settings"):
                build_settings(desk)
            with gr.Tab("Ledger"):
                build_ledger(desk)
            with gr.Tab("Data"):
                build_data(desk)

    def on_open() -> Done:
        return Done(updates={gate: gr.Column(visible=False), page: gr.Column(visible=True)})

    def on_refresh() -> Done:
        return Done()

    for event in (enter.click, token.submit):
        desk.on(event, on_open, [], refused, [gate, page])
    desk.on(again.click, on_refresh, [], said)
    desk.connect()


def now(campaign: Campaign, r: Report) -> str:
    """Which campaign this is, how much is left, and whether anything can be saved."""
    settings = campaign.settings
    access = "anybody may join" if settings.access == "open" else "an invite code is needed"
    alert = f'<div class="pat-notice pat-alert" role="alert">{escape(campaign.read_only)}</div>' if campaign.read_only else ""
    return (
        f'<h2 class="pat-campaign">{escape(settings.title)}</h2><p class="pat-facts"><span>{of(campaign.n_open(), "pair")} still to be '
        f"judged</span><span>{access}</span><span>guide {escape(settings.guideline_version)}</span>"
        f"<span>as of {when(r.at)} UTC</span></p>{alert}"
    )
