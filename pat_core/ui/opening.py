"""Opening the engine room behind a page that already answers: a thread that loads, and what it can say about itself meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from pat_core.llm.types import LLMError
from pat_core.progress import Progress
from pat_core.types import Trace

if TYPE_CHECKING:
    from pat_core.pipeline import Workbench
    from pat_core.serving import Serving

log = logging.getLogger(__name__)


class EngineRoom(NamedTuple):
    """What the views need from below, loaded together because importing it takes seconds. ``serving`` is None where nothing can change."""

    workbench: Workbench
    trace_to_json: Callable[[Trace], dict]
    serving: Serving | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What the page can say now. ``share`` of the current step is 0-1, None where unknown; ``seconds_left`` belongs to that step."""

    state: Literal["loading", "ready", "failed"]
    sentence: str
    share: float | None = None
    seconds_left: float | None = None


class Opening:
    """Loads an ``EngineRoom`` in a thread. ``room`` is None until it is ready; ``status`` may be read from any thread at any time."""

    def __init__(self, load: Callable[[Progress], EngineRoom]) -> None:
        self._load = load
        self._step = ("", 0.0)  # label of the current step, when it began
        self.room: EngineRoom | None = None
        self.status = Status("loading", "Starting: loading the libraries")
        self.finished = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="opening", daemon=True).start()

    def _run(self) -> None:
        try:
            room = self._load(self._report)
            n_users, n_topics, n_reviews = (
                len(room.workbench.corpus.by_user),
                len(room.workbench.corpus.topics),
                len(room.workbench.corpus.reviews),
            )
            name = room.workbench.corpus.name.replace("_", " ").capitalize()
            self.room = room
            self.status = Status(
                "ready", f"{name}: {n_reviews:,} reviews by {n_users:,} people on {n_topics:,} topics"
            )
            log.info("ready: %s", self.status.sentence)
        except (ValueError, OSError, LLMError) as error:  # these say what to do
            log.error("the models could not be opened: %s", error)
            self.status = Status("failed", str(error))
        except Exception as error:  # the top of this thread: whatever it is, the page has to say so
            log.exception("the models could not be opened")
            self.status = Status(
                "failed", f"{type(error).__name__}: {error}. The terminal shows where; restart the app once it is put right."
            )
        finally:
            self.finished.set()

    def _report(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if label != self._step[0]:
            self._step = (label, now)
        elapsed = now - self._step[1]
        left = elapsed * (total - done) / done if done > 0 and elapsed > 0.5 else None
        self.status = Status("loading", label, min(1.0, done / total) if total else None, left)
