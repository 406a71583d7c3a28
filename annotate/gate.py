"""Who may pass: refusals in words, the seal behind tokens and tickets, and how often somebody may come.

A token says who somebody is, a ticket that a pair was shown to them with these sides; both are signed with the campaign's secret, so that
they outlive a restart and nobody can make one. Leaves out what lies behind the gate (``campaign``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time

from annotate.types import Assignment, Judgment

_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that is taken for another


class Refusal(ValueError):
    """Something a page asked for is not done; ``code`` says to the page which kind, the message says to the person what to do."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Standing(Refusal):
    """This pair has an answer already, perhaps from another tab; ``judgment`` is what stands."""

    def __init__(self, judgment: Judgment) -> None:
        super().__init__("judged", "You have answered this pair already. Your earlier answer stands; it can be changed under Last answers.")
        self.judgment = judgment


class Seal:
    """Signs with the campaign's ``secret``."""

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ValueError("a seal needs a secret; keep a random one with the campaign")
        self.secret = secret

    def token(self, annotator_id: str) -> str:
        """What the person's browser keeps; ``holder`` reads it."""
        return f"{annotator_id}.{self._sign('person', annotator_id)}"

    def holder(self, token: object) -> str:
        """Whose token this is, '' for anything that ``token`` did not make."""
        who = token.partition(".")[0] if isinstance(token, str) else ""
        return who if who and equal(token, self.token(who)) else ""

    def ticket(self, shown: Assignment) -> str:
        """Proves that this pair was shown to this person with these sides."""
        return self._sign("ticket", shown.pair_id, shown.annotator_id, shown.shown_left_id, shown.order_key)

    def account(self, name: str) -> str:
        """The hash by which somebody signed in elsewhere is found again; it does not give the name away."""
        return self._sign("account", name)

    def code(self, code: object) -> str:
        """The hash of an invite code, however it is spelled: lower case, blanks and dashes do not matter."""
        return self._sign("code", "".join(c for c in code.upper() if c.isalnum()) if isinstance(code, str) else "")

    def _sign(self, *parts: str) -> str:
        return hmac.new(self.secret.encode(), "|".join(parts).encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def new_code() -> str:
    """An invite code of twelve letters and digits: 60 bits."""
    return "-".join("".join(secrets.choice(_CODE_LETTERS) for _ in range(4)) for _ in range(3))


def equal(given: object, secret: str) -> bool:
    """Whether ``given`` is the text ``secret``, in a time that does not tell how much of it is right."""
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode("utf-8", "replace"))


class RateLimit:
    """Lets each name through ``at_once`` times, refilled at ``a_second``; more is refused."""

    def __init__(self, at_once: int, a_second: float) -> None:
        self._at_once, self._a_second = at_once, a_second
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, name: str, sentence: str) -> None:
        """Raises Refusal with ``sentence`` where ``name`` has used up its share for now."""
        now = time.monotonic()
        with self._lock:
            if len(self._left) > 10_000:  # names that are full again say nothing
                self._left = {k: v for k, v in self._left.items() if v[0] + (now - v[1]) * self._a_second < self._at_once}
            left, at = self._left.get(name, (float(self._at_once), now))
            left = min(float(self._at_once), left + (now - at) * self._a_second)
            if left < 1:
                raise Refusal("busy", sentence)
            self._left[name] = (left - 1, now)
