"""What serves, and how something else takes its place: adapter versions are changed under the app while it runs.

The engine with the new set of adapters is opened behind the one that serves, has to write a few words with each, and is put in place
between two runs; a run keeps the engine it began with, so no text is of two sets. Then the old engine is closed. Whatever fails on the way,
the old one serves on and the registry is as it was. Versions that another process activates, such as a round trained beside the app, are
noticed by the time of the registry's file and put in place the same way. Leaves out publishing and verifying (``adapters``), whose turn it
is (the app's ``Runs``), and models without a registry: on a server, from the hub, in a folder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from pat_core import adapters
from pat_core.adapters import AdapterError, Change, active_adapters
from pat_core.lineage import RoleVersions, role_versions
from pat_core.llm.types import LLM, Request
from pat_core.lora import CANARIES, gibberish
from pat_core.types import ADAPTER_ROLES, Role

log = logging.getLogger(__name__)

Open = Callable[[Mapping[Role, Path]], LLM]
Between = Callable[[], AbstractContextManager[object]]

WATCH_SECONDS = 2.0  # between two looks at the time of the registry's file
TRIED_TOKENS = 16  # that a new engine has to write with each adapter before it is put in place
NAMES: Mapping[str, str] = {"style": "the style agent", "topic": "the topic agent", "generator": "the generator"}


class Bench(Protocol):
    """What holds the engine that serves: a ``pipeline.Workbench``."""

    llm: LLM


class Serving:
    """The adapters that serve ``bench`` and the ways to change them; every method may be called from any thread.

    ``home`` holds the registry and ``base_sha256`` names the model ('' for one without a registry). ``open_engine`` opens the model with
    given adapters; ``between()`` is entered to put it in place, while no run is at work. ``trouble`` says what was activated elsewhere and
    could not be put in place.
    """

    def __init__(self, bench: Bench, home: Path, base_sha256: str, open_engine: Open, between: Between) -> None:
        self._bench, self._home, self._base, self._open, self._between = bench, home, base_sha256, open_engine, between
        self._registry = home / "adapters"
        self._swapping = threading.Lock()  # one change at a time
        self._ended = threading.Event()
        self._seen: object = ()  # the registry's state when the engine was last brought in line with it
        self._known: tuple[object, tuple[RoleVersions, ...]] | None = None
        self.trouble = ""

    def versions(self) -> tuple[RoleVersions, ...]:
        """What serves each role, what else there is and what served before. Half a second after a change, at once otherwise."""
        serving = dict(self._bench.llm.adapters)
        if not self._base:
            return tuple(RoleVersions(role, serving.get(role, "")) for role in ADAPTER_ROLES)
        key = (serving, self._state())
        if self._known is None or self._known[0] != key:
            self._known = (key, role_versions(self._home, self._base, serving))
        return self._known[1]

    def history(self) -> tuple[Change, ...]:
        """What began to serve here when and through whom, the newest change first; nothing where the shipped versions always served."""
        return adapters.history(self._registry)

    def activate(self, role: Role, version: str, by: str = "") -> str:
        """Lets ``version`` serve ``role`` from the next run on; a sentence that says so. Takes seconds, minutes if a large model loads,
        and waits for the run at work: never to be called inside a turn on the model.

        Raises AdapterError where it is refused or cannot be loaded: the message says why and what serves on, and nothing has changed.
        """
        with self._change(role):
            adopted = adapters.with_version(self._home, self._base, role, version)
            self._put_in_place(adopted, lambda: adapters.activate(self._registry, role, version, self._base, by))
        return self._sentence(role)

    def roll_back(self, role: Role, by: str = "") -> str:
        """Lets what served ``role`` before serve again, as ``activate`` does."""
        with self._change(role):
            earlier = adapters.earlier(self._registry, role, self._base)
            if earlier is None:
                raise AdapterError(f"There is no earlier version for {role} to go back to")
            adopted = adapters.with_version(self._home, self._base, role, earlier)
            self._put_in_place(adopted, lambda: adapters.roll_back(self._registry, role, self._base, by))
        return self._sentence(role)

    def refresh(self) -> None:
        """Puts in place what the registry names, whoever changed it; AdapterError where that cannot be loaded, and then not again until
        the registry changes."""
        if not self._base:
            return
        with self._swapping:
            state = self._state()
            try:
                self._put_in_place(active_adapters(self._home, self._base))
                self.trouble = ""
            except AdapterError as error:
                self.trouble = f"{error}. What served before serves on."
                raise AdapterError(self.trouble) from error
            finally:
                self._seen = state

    def watch(self) -> None:
        """Look after the registry in a thread until ``stop``: what another process activates is put in place within seconds."""
        if self._base:
            threading.Thread(target=self._watch, name="serving", daemon=True).start()

    def stop(self, seconds: float = 0.0) -> bool:
        """Begin no change any more; whether none is at work after ``seconds``."""
        self._ended.set()
        return self._swapping.acquire(timeout=seconds)  # kept: the program ends

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_SECONDS):
            if self._state() == self._seen:
                continue
            try:
                self.refresh()
            except (AdapterError, OSError) as error:
                log.warning("%s", error)
            except Exception:  # the top of this thread: the app serves on with what it has
                log.exception("the registry could not be followed")

    def _state(self) -> tuple[int, ...]:
        """Changes whenever the registry does, which replaces its file as a whole; () without one."""
        try:
            stat = (self._registry / "active.json").stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    @contextmanager
    def _change(self, role: Role) -> Iterator[None]:
        """One change at a time; what is refused is told together with what serves on."""
        if not self._base:
            raise AdapterError("This model has no adapters here: they belong to models in a GGUF file, such as the embedded one")
        if role not in ADAPTER_ROLES:
            raise AdapterError(f"unknown role {role!r}; known: {', '.join(ADAPTER_ROLES)}")
        with self._swapping:
            try:
                yield
            except (AdapterError, OSError) as error:
                log.warning("%s was not changed: %s", NAMES[role], error)
                raise AdapterError(f"{str(error).rstrip('.')}. {self._sentence(role, 'still serves')}") from error
        self.trouble = ""

    def _put_in_place(self, adopted: Mapping[Role, Path], record: Callable[[], object] = lambda: None) -> None:
        """Opens the engine with ``adopted``, records the change, exchanges the engines between two runs and closes the old one."""
        if {role: folder.name for role, folder in adopted.items()} == self._bench.llm.adapters:
            record()
            return
        new = self._opened(adopted)
        try:
            record()
        except BaseException:
            _close(new)
            raise
        asked = time.monotonic()
        with self._between():
            old, self._bench.llm = self._bench.llm, new
        waited = time.monotonic() - asked
        _close(old)
        log.info("now serving: %s (%.1f s waited for the run at work)", ", ".join(new.adapters.values()) or "the base model", waited)

    def _opened(self, adopted: Mapping[Role, Path]) -> LLM:
        names = ", ".join(folder.name for folder in adopted.values()) or "the base model alone"
        try:
            new = self._open(adopted)
            try:
                _try_out(new)
            except BaseException:
                _close(new)
                raise
        except (RuntimeError, ValueError, OSError, MemoryError) as error:  # an engine's own errors, CUDA's out of memory among them
            said = str(error).strip().rstrip(".") or "out of memory"
            raise AdapterError(f"The language model could not be loaded with {names}: {said}") from error
        return new

    def _sentence(self, role: Role, how: str = "now serves") -> str:
        return f"{self._bench.llm.adapters.get(role) or 'The base model'} {how} {NAMES[role]}."


def _try_out(llm: LLM) -> None:
    """Raises AdapterError unless ``llm`` writes words with each of its adapters; the first answer of an engine also takes longest."""
    roles = [role for role in ADAPTER_ROLES if role in llm.adapters]
    asked = [Request(role, llm.prompt(CANARIES[role][0]), role, max_new_tokens=TRIED_TOKENS) for role in roles]
    for event in llm.generate(asked) if asked else ():
        wrong = gibberish(event.text) if event.finish else ""
        if wrong:
            raise AdapterError(f"the first answer of {llm.adapters[event.key]} {wrong}: {event.text!r:.80}")


def _close(llm: LLM) -> None:
    close = getattr(llm, "close", None)  # an engine that lives in this process goes with its last reference
    try:
        if close:
            close()
    except OSError as error:  # its process had ended by itself
        log.warning("the engine that served before could not be closed: %s", error)
