"""Learning from the owner's page: what would be trained, a run beside the app with its curves, what came of it, and what serves.

A run is a process of its own (``annotate.training``) that publishes and activates nothing; what it made serves once the owner, who has seen
texts before and after, says so (``pat_core.serving``). Leaves out how it becomes HTML (``owner_run_cards``, ``owner_train_cards``).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gradio as gr

from annotate.gate import Refusal
from annotate.store import Store
from annotate.training import MAX_PROMPTS, MAX_ROUNDS, NAMES, Order, Status, Training
from annotate.ui.owner_desk import Done, OwnerDesk
from annotate.words import as_sentence
from pat_core.types import ADAPTER_ROLES
from pat_core.ui.compose import REMEMBER_FOLDS

if TYPE_CHECKING:
    from annotate.prospect import Prospect
    from pat_core.serving import Serving

USES = [("Votes and rewards", "both"), ("Votes alone", "human"), ("Rewards alone", "automatic")]
ROLES = [(name.capitalize(), role) for role, name in NAMES.items()]
TICK_SECONDS = 1.5
BY = "owner"
SERVE = """
element.addEventListener('click', e => {
  const button = e.target.closest('button[data-serve]');
  if (!button || element.classList.contains('pat-busy')) return;
  element.classList.add('pat-busy');
  button.dataset.label = button.textContent;
  button.textContent = 'Loading it …';
  trigger('serve', {what: button.dataset.serve});
});
"""
SERVED = """() => document.querySelectorAll('#pat-train-versions .pat-busy, #pat-train-versions.pat-busy').forEach(box => {
  box.classList.remove('pat-busy');
  box.querySelectorAll('button[data-label]').forEach(b => { b.textContent = b.dataset.label; });
})"""
WHAT_HAPPENS = (
    '<p class="pat-hint">The run is a process of its own at low priority: pages and votes go on. It asks about held-out reviews of the '
    "open corpus, trains one role after the other, and publishes each new version unless texts for people it never learned from get worse "
    "beyond noise. <b>Nothing it publishes serves until you activate it below.</b></p>"
)
GONE_ON_A_SPACE = '<p class="pat-hint">The disk of this Space does not last: what is trained is gone at its next restart.</p>'


def build_train(desk: OwnerDesk, training: Training, tab: gr.Tab) -> None:
    """The whole part, top to bottom, inside ``tab``."""
    prospects = _Prospects()
    timer = gr.Timer(TICK_SECONDS, active=False)
    would = gr.HTML("", elem_id="pat-would", js_on_load=REMEMBER_FOLDS)
    desk.shows(would, lambda _: _cards().would(prospects.of(desk.campaign.store)))
    with gr.Row(elem_classes="pat-forms"):
        with gr.Column(min_width=300, scale=2):
            *fields, plan, start, said = _build_form(desk)
        with gr.Column(min_width=300, scale=3):
            gr.HTML('<h3 class="pat-title">The run</h3>')
            progress = gr.HTML("", elem_id="pat-run-progress")
            with gr.Row(elem_classes="pat-actions"):
                stop = gr.Button("Stop", size="md", min_width=100, visible=False)
                go_on = gr.Button("Go on", size="md", min_width=100, visible=False)
            curves = gr.HTML("", elem_id="pat-run-curves")
    steps = gr.HTML("", elem_id="pat-run-steps", js_on_load=REMEMBER_FOLDS)
    _build_versions(desk)
    shown: dict[Any, Callable[[Status], Any]] = {
        progress: lambda s: _run_cards().progress(s),
        curves: lambda s: _run_cards().curves(s.run.curve) if s.running and s.run else "",
        steps: lambda s: _run_cards().steps(s),
        stop: lambda s: gr.Button(visible=s.running, interactive=s.phase != "stopping"),
        go_on: lambda s: gr.Button(visible=s.can_go_on),
        timer: lambda s: gr.Timer(active=s.running),
    }
    for component, paint in shown.items():
        desk.shows(component, lambda _, paint=paint: paint(training.status))

    def painted(status: Status, sentence: str = "") -> Done:
        return Done(sentence, updates={component: paint(status) for component, paint in shown.items()}, repaint=False)

    def on_plan(*values: object) -> Done:
        wanted = _order(training, *values)
        return Done(updates={plan: _cards().plan(prospects.of(desk.campaign.store), wanted)}, repaint=False)

    def on_train(*values: object) -> Done:
        wanted = _order(training, *values)
        _require_lessons(prospects.of(desk.campaign.store), wanted)
        return painted(training.start(wanted), "Started.")

    def on_end_training() -> Done:
        return painted(training.stop())

    def on_go_on() -> Done:
        return painted(training.go_on(), "It goes on where it stood, with the answers it began with.")

    def on_watch_training() -> Done:
        status = training.status
        updates = {component: paint(status) for component, paint in shown.items() if component is not progress}
        return Done(html=shown[progress](status), updates=updates, repaint=not status.running)

    for event in (tab.select, *(field.change for field in fields)):
        desk.on(event, on_plan, fields, said, [plan], repaint=False)
    desk.on(start.click, on_train, fields, said, [*shown], repaint=False)
    desk.on(stop.click, on_end_training, [], said, [*shown], repaint=False)
    desk.on(go_on.click, on_go_on, [], said, [*shown], repaint=False)
    desk.on(timer.tick, on_watch_training, [], progress)


def _build_form(desk: OwnerDesk) -> tuple[Any, ...]:
    gr.HTML(f'<h3 class="pat-title">Start a run</h3>{WHAT_HAPPENS}{GONE_ON_A_SPACE if desk.campaign.loss_seconds is not None else ""}')
    use = gr.Radio(USES, value="both", label="Learn from", elem_classes="pat-segments", elem_id="pat-train-use")
    roles = gr.CheckboxGroup(ROLES, value=list(ADAPTER_ROLES), label="Train", elem_id="pat-train-roles")
    with gr.Row():
        prompts = gr.Number(
            label="Prompts for each role", value=16, precision=0, minimum=2, maximum=MAX_PROMPTS, min_width=120, elem_id="pat-train-prompts"
        )
        rounds = gr.Number(label="Rounds", value=1, precision=0, minimum=1, maximum=MAX_ROUNDS, min_width=120, elem_id="pat-train-rounds")
    plan = gr.HTML("", elem_id="pat-train-plan")
    start = gr.Button("Start", variant="primary", size="md", min_width=100)
    said = gr.HTML("", elem_id="pat-train-said")
    return use, roles, prompts, rounds, plan, start, said


def _build_versions(desk: OwnerDesk) -> None:
    said = gr.HTML("", elem_id="pat-train-versions-said")
    versions = gr.HTML("", elem_id="pat-train-versions", js_on_load=SERVE)
    history = gr.HTML("", elem_id="pat-train-versions-history")

    def panels() -> dict[Any, Any]:
        room = desk.opening.room
        if room is None or room.serving is None:
            return {versions: '<p class="pat-hint">The versions stand here once the models are open.</p>', history: ""}
        found = room.serving.versions()
        return {versions: _cards().versions(found, room.serving.trouble), history: _cards().history(found)}

    def on_serve(what: object) -> Done:
        return Done(_serve(_serving(desk), what), updates=panels(), repaint=False)

    for component in (versions, history):
        desk.shows(component, lambda _, component=component: panels()[component])
    # an event of our own, declared by SERVE; versions come first, so that they are no longer busy once they are there
    desk.on(versions.serve, on_serve, [], said, [versions, history], takes="what", then=SERVED, repaint=False)


def _serving(desk: OwnerDesk) -> Serving:
    room = desk.opening.room
    if room is None or room.serving is None:
        raise Refusal("opening", "The models are still being opened: try again in a moment.")
    return room.serving


def _serve(serving: Serving, what: object) -> str:
    """Do what a button of the versions says: "activate ROLE VERSION" or "back ROLE"."""
    match what.split(" ") if isinstance(what, str) else []:
        case ["activate", role, version] if role in ADAPTER_ROLES:
            return serving.activate(role, version, BY)
        case ["back", role] if role in ADAPTER_ROLES:
            return serving.roll_back(role, BY)
    raise Refusal("shape", "Choose a version first.")


def _order(training: Training, use: object, roles: object, prompts: object, rounds: object) -> Order:
    """The form as an order, which checks its values; the seed is that of the newest run until that has ended."""
    chosen = [role for role in ADAPTER_ROLES if role in roles] if isinstance(roles, list) else []
    if not chosen:
        raise Refusal("shape", "Choose at least one role to train.")
    counts = {"prompts": prompts, "rounds": rounds}
    whole = {name: int(n) if isinstance(n, float) and n.is_integer() else n for name, n in counts.items()}
    return Order(use, tuple(chosen), **whole, seed=training.seed())  # type: ignore[arg-type]


def _require_lessons(p: Prospect, order: Order) -> None:
    """Raises Refusal where votes are asked for and none of them teaches anything: the run would only say so after a minute."""
    if order.use == "automatic":
        return
    if not p.n_answers:
        raise Refusal("shape", "There are no judgments yet: let people judge some pairs first, or learn from the rewards alone.")
    reasons = {role: p.role(role).human.why for role in order.roles}
    if order.use == "human" and all(reasons.values()):
        said = " ".join(f"{NAMES[role].capitalize()}: {as_sentence(why)}" for role, why in reasons.items())
        raise Refusal("shape", f"There is nothing to learn from votes alone. {said}")


class _Prospects:
    """What would be trained, kept as long as nothing is written to the same store."""

    def __init__(self) -> None:
        self._last: tuple[Store, dict[str, int], Prospect] | None = None

    def of(self, store: Store) -> Prospect:
        from annotate.prospect import prospect

        counts = store.counts()  # a switch in the ledger adds to the events
        if self._last is None or self._last[0] is not store or self._last[1] != counts:
            self._last = (store, counts, prospect(store))
        return self._last[2]


def _cards() -> ModuleType:
    """Loaded when first needed, as the statistics below it take seconds."""
    from annotate.ui import owner_train_cards

    return owner_train_cards


def _run_cards() -> ModuleType:
    from annotate.ui import owner_run_cards

    return owner_run_cards
