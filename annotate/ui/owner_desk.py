"""What all parts of the Owner page share: the token that every handler asks for first, the report, and the panels that show it.

A part lays out its components, says which of them show the report (``shows``) and what a button does (``on``); ``connect`` ties the knots
once all parts are there, because an action repaints every panel. Every handler is reachable by plain HTTP: nothing is read, computed or
said before ``Campaign.require_owner`` has let the token pass. Nor by Gradio, which checks a list's values before any handler runs and names
all of them in its refusal: so lists of people, answers and backups take any value, and the handlers check it. Leaves out the parts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from annotate.campaign import Campaign
from annotate.database import StoreError
from annotate.jobs import Jobs
from annotate.store import Store
from pat_core.ui.cards import notice
from pat_core.ui.form_column import QUIET
from pat_core.ui.opening import Opening

if TYPE_CHECKING:
    from annotate.figures import Report

log = logging.getLogger(__name__)


class Done(NamedTuple):
    """What an action did: a sentence for the place below its button ('' for none), HTML after it, further updates, and whether the report
    has to be shown anew."""

    sentence: str = ""
    html: str = ""
    updates: dict | None = None
    repaint: bool = True


class OwnerDesk:
    """The page while it is built, and its memory of the last report afterwards."""

    def __init__(self, campaign: Campaign, opening: Opening, jobs: Jobs, token: gr.Textbox, timer: gr.Timer) -> None:
        self.campaign, self.opening, self.jobs, self.token, self.timer = campaign, opening, jobs, token, timer
        self._panels: dict[Any, Callable[[Report], Any]] = {}
        self._knots: list[Callable[[], None]] = []
        self._last: tuple[Store, Report] | None = None

    def shows(self, component: Any, paint: Callable[[Report], Any]) -> Any:
        """Let ``component`` show ``paint(report)`` whenever the page is painted."""
        self._panels[component] = paint
        return component

    def on(
        self,
        event: Callable[..., Any],
        act: Callable[..., Done],
        inputs: Sequence[Any],
        said: gr.HTML,
        outputs: Sequence[Any] = (),
        *,
        repaint: bool = True,
        takes: str = "",
        then: str = "",
        **options: Any,
    ) -> None:
        """Let ``event`` do ``act(*inputs)`` for the owner and say in ``said`` how it went.

        ``repaint`` shows the report anew; ``takes`` names what of the event itself is the only argument of ``act``; ``then`` is JavaScript
        that gets the first of ``outputs`` once it is there.
        """

        def tie() -> None:
            painted = list(self._panels) if repaint else []
            handler = self.owned(act, said, repaint)
            if takes:
                handler = _with_event(handler, takes)
            done = event(handler, [self.token, *inputs], [said, *outputs, *painted], **(QUIET | options))
            if then:
                done.success(None, outputs[0], None, js=then, **QUIET)

        self._knots.append(tie)

    def connect(self) -> None:
        """Tie every event; call it once, when the whole page is laid out."""
        for tie in self._knots:
            tie()

    def owned(self, act: Callable[..., Done], said: gr.HTML, repaint: bool) -> Callable[..., dict]:
        """``act`` as a handler whose first argument is the token; what goes wrong is said in ``said``."""

        def handler(token: object = None, *values: object) -> dict:
            try:
                self.campaign.require_owner(token)
                done = act(*values)
                updates = {said: (notice((done.sentence,)) if done.sentence else "") + done.html} | (done.updates or {})
                return (self.paint() if repaint and done.repaint else {}) | updates
            except (ValueError, StoreError, OSError) as error:  # a Refusal is a ValueError; all of these say what to do
                sentence = str(error).strip()
            except Exception as error:  # the top of a request: whatever it is, the page has to say so, and the log where
                log.exception("%s failed", act.__name__)
                sentence = f"This failed ({type(error).__name__}). The terminal shows where."
            return {said: notice((sentence[:1].upper() + sentence[1:],), alert=True)}

        handler.__name__ = act.__name__
        return handler

    @property
    def cards(self) -> ModuleType:
        """``owner_cards``; loaded when first needed, since the statistics below it would keep the whole app from starting for seconds."""
        from annotate.ui import owner_cards

        return owner_cards

    def report(self) -> Report:
        """The report now; its slow half is kept as long as the same store holds the same answers."""
        from annotate.figures import report

        store = self.campaign.store
        previous = self._last[1] if self._last and self._last[0] is store else None
        found = report(store, previous)
        self._last = (store, found)
        return found

    def paint(self) -> dict:
        """An update of every panel. Only for a handler that has asked for the token."""
        found = self.report()
        return {component: paint(found) for component, paint in self._panels.items()}


def _with_event(handler: Callable[..., dict], name: str) -> Callable[..., dict]:
    """``handler`` that gets the event's ``name`` after the token; None where a request by hand came without an event."""

    def on_event(token: object, event: gr.EventData) -> dict:
        data = event._data if isinstance(event._data, dict) else {}
        return handler(token, data.get(name))

    on_event.__name__ = handler.__name__
    return on_event
