"""The Annotate page's requests and replies as JSON: one dictionary in, one dictionary out, never an exception.

A browser learns only what a judge may know: the reference, two texts, and a ticket. No name of a system, no id of a text, no score and no
kind of pair goes out. What comes in is taken for hostile: every value is checked by the nouns it becomes. A refusal is
``{"refused": {"code", "sentence"}}``. Leaves out the page itself (``ui.page``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any

from annotate.campaign import Campaign
from annotate.database import NotSaved, StoreError
from annotate.gate import Refusal, Standing
from annotate.marks import marked, shared
from annotate.types import Judgment
from annotate.visit import Answer, Shown

log = logging.getLogger(__name__)

Payload = dict[str, Any]
SHAPE = "This request was not understood: reload the page and try again."


def answers_always(method: Callable[[PageProtocol, Payload], Payload]) -> Callable[[PageProtocol, Any], Payload]:
    """``method`` for any argument, with every failure as a refusal in words."""

    @wraps(method)
    def call(self: PageProtocol, payload: Any = None) -> Payload:
        try:
            if not isinstance(payload, dict):
                raise Refusal("shape", SHAPE)
            return method(self, payload)
        except Standing as refusal:
            return _refused(refusal.code, str(refusal)) | {"standing": answer_json(refusal.judgment)}
        except Refusal as refusal:
            return _refused(refusal.code, str(refusal))
        except NotSaved as error:
            return _refused("retry", str(error))
        except StoreError as error:
            return _refused("store", str(error))
        except (ValueError, TypeError) as error:
            log.warning("%s: %s", method.__name__, type(error).__name__)
            return _refused("shape", f"{error}." if isinstance(error, ValueError) else SHAPE)
        except Exception:  # the top of a request: whatever it is, the page has to say so, and the log where
            log.exception("%s failed", method.__name__)
            return _refused("failed", "Something went wrong here, and nothing was saved. Your answer is still on the page: try again.")

    return call


def _refused(code: str, sentence: str) -> Payload:
    return {"refused": {"code": code, "sentence": sentence[:1].upper() + sentence[1:]}}


class PageProtocol:
    """The requests of the page on one campaign."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign

    @answers_always
    def begin(self, payload: Payload) -> Payload:
        """What the page needs first: the campaign, and who holds ``token`` if anybody does."""
        campaign = self._campaign
        settings = campaign.settings
        reply: Payload = {
            "campaign": {
                "title": settings.title,
                "access": settings.access,
                "guideline_version": settings.guideline_version,
                "n_open": campaign.n_open(),
                "break_seconds": settings.plan.break_seconds,
                "break_pairs": settings.plan.break_pairs,
            },
            "me": None,
            "loss_seconds": campaign.loss_seconds,
            "read_only": campaign.read_only or None,
        }
        if payload.get("token"):
            try:
                reply["me"] = self._me(payload["token"])
            except Refusal as refusal:
                reply |= _refused(refusal.code, str(refusal))
        return reply

    @answers_always
    def join(self, payload: Payload) -> Payload:
        """``account`` is set by the server for whoever is signed in, never by a browser (``ui.page.server_function``)."""
        who = (payload.get("nickname"), payload.get("code") or "")
        about = {"lang": payload.get("lang") or "en", "perspective": payload.get("perspective") or ""}
        about["consent"] = payload.get("consent") is True
        if payload.get("account"):
            session = self._campaign.sign_in(payload["account"], *who, **about)
        else:
            session = self._campaign.join(*who, **about)
        return {"token": session.token, "me": self._me(session.token)}

    @answers_always
    def trained(self, payload: Payload) -> Payload:
        self._campaign.trained(payload.get("token"))
        return {"me": self._me(payload.get("token"))}

    @answers_always
    def next(self, payload: Payload) -> Payload:
        shown = self._campaign.next_pair(payload.get("token"))
        return {"pair": pair_json(shown)} if shown else {"done": True, "me": self._me(payload.get("token"))}

    @answers_always
    def submit(self, payload: Payload) -> Payload:
        kept = self._campaign.submit(payload.get("token"), answer_of(payload))
        me = self._me(payload.get("token"))
        return {"saved": {"id": kept.judgment.judgment_id, "at": kept.judgment.created_at}, "me": me, "advice": list(kept.advice)}

    @answers_always
    def history(self, payload: Payload) -> Payload:
        return {"past": [pair_json(shown) for shown in self._campaign.history(payload.get("token"))]}

    @answers_always
    def leave(self, payload: Payload) -> Payload:
        if payload.get("sure") is not True:
            raise Refusal("shape", "Nothing was erased: confirm it first.")
        gone = self._campaign.erase_me(payload.get("token")).erasure
        return {"erased": {"answers": gone.n_judgments, "texts": gone.n_items}}

    def _me(self, token: object) -> Payload:
        me = self._campaign.annotator(token)
        return {"nickname": me.nickname, **asdict(self._campaign.progress(token))}


def answer_of(payload: Payload) -> Answer:
    """The answer in a request. Values of a wrong type stay as they are, for ``Judgment`` to refuse; JSON has no tuple for the tags."""
    tags = payload.get("tags", [])
    return Answer(
        answer_id=payload.get("id"),  # type: ignore[arg-type]
        pair_id=payload.get("pair"),  # type: ignore[arg-type]
        ticket=payload.get("ticket"),  # type: ignore[arg-type]
        outcome=payload.get("outcome"),  # type: ignore[arg-type]
        strength=payload.get("strength"),
        dims=payload.get("dims", {}),
        tags=tuple(tags) if isinstance(tags, list) else tags,
        rationale=payload.get("rationale", ""),
        ms_visible=payload.get("ms_visible"),
        ms_total=payload.get("ms_total"),
        input_kind=payload.get("input", "mouse"),
        ui_version=payload.get("ui_version", ""),
        revision_of=payload.get("revision_of"),
    )


def answer_json(judgment: Judgment) -> Payload:
    return {
        "id": judgment.judgment_id,
        "outcome": judgment.outcome,
        "strength": judgment.strength,
        "dims": dict(judgment.dims),
        "tags": list(judgment.tags),
        "rationale": judgment.rationale,
        "at": judgment.created_at,
    }


def pair_json(shown: Shown) -> Payload:
    """A pair as the browser gets it, the words that a text shares with the reference marked in both."""
    reference = shown.item.reference
    about = {name: _text(reference.get(name)) for name in ("topic", "title")}
    if not any(about.values()):  # a pair made elsewhere: its prompt is all that is known of it
        about["topic"] = shown.item.prompt
    lists = {name: [_text(t) for t in reference.get(name) or []] for name in ("statements", "samples", "neighbors")}
    evidence = [*about.values(), *(t for texts in lists.values() for t in texts)]
    left, right = shared(shown.left.text, evidence), shared(shown.right.text, evidence)
    rating = reference.get("rating")
    return {
        "pair": shown.assignment.pair_id,
        "ticket": shown.ticket,
        "number": shown.number,
        "lang": shown.item.lang,
        "reference": {
            **{name: marked(text, left | right) for name, text in about.items()},
            "rating": rating if isinstance(rating, int | float) else None,
            **{name: [marked(t, left | right) for t in texts] for name, texts in lists.items()},
        },
        "left": marked(shown.left.text, left),
        "right": marked(shown.right.text, right),
        "shared": {"left": len(left), "right": len(right)},
        "answer": answer_json(shown.answer) if shown.answer else None,
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
