"""What every HTTP request passes before Gradio sees it: a cap on the body, no uploads, no foreign pages, and headers that bind the browser.

Gradio 6 has no limit on JSON bodies, takes anonymous uploads although the app has no file field, and on a public host reflects any Origin.
Leaves out rate limits per person: the queue bounds the work, and a proxy knows addresses better.
"""

from __future__ import annotations

import json
import logging
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 1024 * 1024  # a pasted text of 1 MB still reaches the form, which answers with a sentence
BLOCKED = ("/upload", "/upload_progress", "/deep_link", "/proxy=", "/monitoring", "/runs", "/stream/")


def content_policy(frame_ancestors: tuple[str, ...] = ("'self'",)) -> str:
    """The Content-Security-Policy. Gradio compiles templates and starts from inline scripts, so both are allowed; inline *handlers* such as
    ``onerror=`` are not, and nothing is loaded from or sent to another host."""
    return "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "script-src-attr 'none'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "media-src 'self' data: blob:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            f"frame-ancestors {' '.join(frame_ancestors)}",
        )
    )


class BodyTooLarge(Exception):
    """Raised into the application's ``receive`` once a body has passed the cap."""


class Guard:
    """ASGI middleware. Refusals are JSON ``{"detail": sentence}`` with status 403 or 413."""

    def __init__(self, app: ASGIApp, frame_ancestors: tuple[str, ...] = ("'self'",)) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", content_policy(frame_ancestors).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *self.headers]}
            await send(message)

        refusal = refused(scope["method"], scope["path"], request)
        if refusal:
            await _answer(send_guarded, *refusal)
            return
        try:
            await self.app(scope, _capped(receive), send_guarded)
        except BodyTooLarge:
            if not started:
                await _answer(send_guarded, 413, _too_large())
        except Exception:  # the top of a request: Gradio answers a forged component id, for one, with a stack of its own
            if started:
                raise
            log.exception("%s %s could not be answered", scope["method"], scope["path"])
            await _answer(send_guarded, 400, "This request was not understood: reload the page and try again.")


def refused(method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
    """(status, sentence) for a request that goes no further, else None. Browsers set Sec-Fetch-Site and Origin; no page can forge them."""
    api_path = path.partition("/gradio_api")[2]
    if api_path.startswith(BLOCKED) or path.startswith("/monitoring"):
        return 403, "This app takes no uploads and offers no such page."
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site == "cross-site" and api_path:
        return 403, "This app answers its own pages only: open it directly."
    asks_for_change = method not in ("GET", "HEAD", "OPTIONS") and site not in ("same-origin", "none")
    if asks_for_change and origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return 403, "This app answers its own pages only: open it directly."
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return 413, _too_large()
    return None


def _too_large() -> str:
    return f"The request is larger than {MAX_BODY_BYTES // 1024**2} MB: shorten the texts in the form."


def _capped(receive: Receive) -> Receive:
    """``receive`` that raises ``BodyTooLarge`` once more than the cap has come, whatever the headers promised."""
    seen = 0

    async def receive_capped() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                raise BodyTooLarge
        return message

    return receive_capped


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
