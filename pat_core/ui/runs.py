"""Runs on the one model: one at a time, at a pace a page can follow, stopped when nobody looks any more. Leaves out what a run does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pat_core.llm.prompting import wait_for_turn
from pat_core.types import Snapshot

PER_SECOND = 12  # a page redraws no faster without lagging behind
TICK_SECONDS = 0.4  # how soon a closed tab or a Stop is noticed while the model has nothing to say


class Runs:
    """Runs the model in a thread of its own, so that a slow page never slows the model and a silent model never blocks Stop."""

    def __init__(self) -> None:
        self._model = threading.Lock()
        self._live: set[threading.Event] = set()

    def follow(self, start: Callable[[threading.Event], Iterator[Snapshot]]) -> Iterator[Snapshot | None]:
        """The newest snapshot of ``start(cancel)``, at most ``PER_SECOND`` a second and always the last one; None when nothing is new.

        Closing the iterator sets ``cancel`` and returns at once: Gradio closes iterators on its event loop, which must never wait for a
        model. The next run begins when this one has let go of it. What the run raises is raised here.
        """
        cancel, news = threading.Event(), threading.Condition()
        newest: list[Snapshot] = []
        failure: list[BaseException] = []
        ended = False

        def run() -> None:
            nonlocal ended
            try:
                with self._model:
                    for snapshot in start(cancel):
                        with news:
                            newest[:] = [snapshot]
                            news.notify()
            except BaseException as error:  # carried to the thread that follows, which raises it
                failure.append(error)
            finally:
                self._live.discard(cancel)
                with news:
                    ended = True
                    news.notify()

        self._live.add(cancel)
        threading.Thread(target=run, name="run", daemon=True).start()
        try:
            while True:
                with news:
                    if not newest and not ended:
                        news.wait(TICK_SECONDS)
                    snapshot, over = (newest.pop() if newest else None), ended
                if snapshot is None and over:
                    break
                yield snapshot
                if not over:
                    time.sleep(1 / PER_SECOND)
        finally:
            cancel.set()
        if failure:
            raise failure[0]

    @contextmanager
    def turn(self, cancel: threading.Event | None = None) -> Iterator[None]:
        """The model for a piece of work that no visitor waits for, once no visitor wants it; they wait while the block lasts.

        Once ``cancel`` is set the block is entered without the model: the work has to look at ``cancel`` first.
        """
        cancel = cancel or threading.Event()
        while self._live and not cancel.wait(TICK_SECONDS / 4):
            pass
        held = wait_for_turn(self._model, cancel)
        try:
            yield
        finally:
            if held:
                self._model.release()

    @contextmanager
    def between(self) -> Iterator[None]:
        """The moment between two runs, for what takes no time; waits for the run at work and for no other."""
        with self._model:
            yield

    def stop_all(self) -> None:
        """Cancel every run; their iterators end by themselves."""
        for cancel in tuple(self._live):
            cancel.set()
