"""The Annotate page: one component that shows people pairs and sends their answers. ``assets/annotate.js`` says what happens on it.

The page is a small program in the browser, because keys, drafts and the time a pair was seen live there; Python only lays it out, hands
it its words in every language, and passes each of its requests to ``service`` (``annotate.protocol.PageProtocol``). Leaves out what is
asked and answered: that is the protocol.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PARTS = ("annotate/dom", "annotate/keep", "annotate/talk", "annotate/judge", "annotate/practice", "annotate/screens", "annotate")
LANGUAGES = ("en", "de")
REQUESTS = ("begin", "join", "trained", "next", "submit", "history", "leave")

Payload = dict[str, Any]


def build_annotate(demo: gr.Blocks, service: object, *, sign_in: bool = False) -> gr.HTML:
    """Lay the page out inside the current page of ``demo``; ``assets/annotate.css`` hides the way to the other pages.

    ``service`` has a method for each of ``REQUESTS`` that takes a dictionary and returns one, and never raises. With ``sign_in`` (on a
    Space with OAuth) people may come with their Hugging Face account: ``join`` then gets its stable id as ``account``.
    """
    script, catalogs = page_script(), page_catalogs()
    if sign_in:
        gr.LoginButton(visible="hidden")  # Gradio serves the sign-in only to apps that hold one
    return gr.HTML(
        html_template='<div class="ann"></div>',
        js_on_load=script,
        apply_default_css=False,
        elem_id="pat-annotate",
        server_functions=[server_function(service, name) for name in REQUESTS],
        catalogs=catalogs,
        ui_version=ui_version(script, (ASSETS / "annotate.css").read_text(encoding="utf-8"), json.dumps(catalogs, sort_keys=True)),
        sign_in=sign_in,
    )


def server_function(service: object, name: str) -> Callable[..., Payload]:
    """``service.name`` as Gradio calls it. Who somebody is comes from the signed session, never from what the browser says it is."""
    method = getattr(service, name)

    def call(payload: Any, profile: gr.OAuthProfile | None = None) -> Payload:
        if isinstance(payload, dict):
            payload = {key: value for key, value in payload.items() if key != "account"}
            if profile is not None:
                payload["account"] = profile["sub"]
        reply = method(payload)
        return reply | {"account": profile.username} if profile is not None and name == "begin" else reply

    call.__name__ = name
    return call


def page_script() -> str:
    """The program of the page: its parts joined, so that they share one scope and no request fetches them."""
    return "\n".join((ASSETS / f"{part}.js").read_text(encoding="utf-8") for part in PARTS)


def page_catalogs() -> dict[str, dict[str, Any]]:
    """Every sentence of the page by language and key."""
    return {code: json.loads((ASSETS / "annotate" / f"{code}.json").read_text(encoding="utf-8")) for code in LANGUAGES}


def ui_version(*contents: str) -> str:
    """Kept with every judgment: names what people saw, down to the wording."""
    return "annotate-" + hashlib.sha256("\0".join(contents).encode()).hexdigest()[:12]
