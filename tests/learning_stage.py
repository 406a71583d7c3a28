"""A place to run the learning command in: a tiny GGUF, a corpus file, a campaign of votes, and a PAT_HOME in which all caches are made.

Every test copies the home, so that a run takes seconds.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from forked_command import Commands, Ended
from store_data import answer, offer, person
from test_closed_loop import CACHE, corpus
from tiny_gguf import KIND, PLAIN, save_tiny_gguf

from annotate import archive
from annotate.store import Store, open_store
from annotate.types import Annotator, Candidate, Item, Pair, pair_of
from pat_core.types import Role

# So gentle a learning rate moves the weights and changes no word: what is learned cannot fall on the dev slice, on no machine's arithmetic
FEW = ("--prompts", "4", "--candidates", "3", "--dev", "4", "--learning-rate", "1e-6", "--epochs", "2", "--roles", "generator")


@dataclass(frozen=True)
class Stage:
    """``template`` is a home with every cache and nothing learned. In ``lived_in`` a version serves, and ``report.json`` tells how it came
    of ``votes``, which one person gave."""

    commands: Commands
    template: Path
    gguf: Path
    data: Path
    votes: Path

    @property
    def lived_in(self) -> Home:
        return Home(self, self.template.with_name("lived-in"), self.gguf)

    def home(self, folder: Path) -> Home:
        """A copy of the template at ``folder``."""
        shutil.copytree(self.template, folder)
        return Home(self, folder, self.gguf)


@dataclass(frozen=True)
class Home:
    """One test's PAT_HOME and the model it runs with."""

    stage: Stage
    folder: Path
    gguf: Path
    engine: str = "transformers"

    @property
    def env(self) -> dict[str, str]:
        device = "cpu" if self.engine == "transformers" else ""
        named = {"PAT_HOME": str(self.folder), "PAT_MODEL": str(self.gguf), "PAT_ENGINE": self.engine}
        return named | {"PAT_THREADS": "1", "PAT_DEVICE": device}

    @property
    def streams(self) -> Path:
        """Where what a run says is kept."""
        return self.folder / f"streams-{self.gguf.stem}"

    @property
    def registry(self) -> Path:
        return self.folder / "adapters"

    def command(self, *more: str | Path) -> list[str]:
        return ["rounds", "--data", str(self.stage.data), *FEW, *map(str, more)]

    def run(self, *more: str | Path, **asked: Any) -> Ended:
        """``rounds`` on the corpus with ``more``, which overrides what few settings say."""
        return self.stage.commands.run(self.command(*more), self.streams, env=self.env, **asked)

    def start(self, *more: str | Path) -> int:
        return self.stage.commands.start(self.command(*more), self.streams, env=self.env)

    def wait(self, pid: int) -> Ended:
        return self.stage.commands.wait(pid, self.streams)

    @property
    def versions(self) -> list[str]:
        """Folders in the registry that are listed as versions."""
        return sorted(p.name for p in self.registry.glob("*-*") if not p.name.startswith("."))


@cache
def stage(base: Path) -> Stage:
    """The stage below ``base``, which pytest deletes; made once in a session."""
    folder = base / "learning-stage"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("".join(json.dumps(asdict(r)) + "\n" for r in corpus().reviews), encoding="utf-8")
    commands = Commands()
    atexit.register(commands.close)
    made = Stage(commands, folder / "home", save_tiny_gguf(folder / "tiny.gguf"), folder / "corpus.jsonl", folder / "votes.db")
    shared, own = base / CACHE / "style_graph", made.lived_in.folder / "cache" / "style_graph"
    if shared.is_dir():  # learning styles takes seconds, and other tests use the same corpus
        shutil.copytree(shared, own)
    ended = made.lived_in.run("--db", campaign(made.votes, 8, ("Ada",)), "--use", "human", "--json", made.lived_in.folder / "report.json")
    assert (ended.code, len(made.lived_in.versions)) == (0, 1), ended.err
    shutil.copytree(made.lived_in.folder, made.template, ignore=shutil.ignore_patterns("training", "adapters", "streams-*", "report.json"))
    if not shared.is_dir():
        shutil.copytree(own, shared)
    return made


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below ``folder`` by its path, without locks and what SQLite keeps beside a database that is read."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith((".lock", "-shm", "-wal")))
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# Votes


@dataclass(frozen=True)
class Factor:
    """A one-factor pair of ``good`` and ``bad``, and the pair as the store has it."""

    item: Item
    good: Candidate
    bad: Candidate
    pair: Pair


def factor(i: int, role: Role = "generator", rewards: Sequence[Any] = (0.4, 0.1), n_words: int = 12) -> Factor:
    """Pair ``i``: kind words against plain ones. The rewards of both are what the traces say."""
    item = Item(f"Review of place {i}")
    texts = (" ".join(words[(i + k) % len(words)] for k in range(n_words)) + f" {i}." for words in (KIND, PLAIN))
    good, bad = (candidate(item, text, role, reward) for text, reward in zip(texts, rewards, strict=True))
    return Factor(item, good, bad, pair_of(good, bad, "one-factor", agent=role))


def candidate(item: Item, text: str, role: Role | None = "generator", reward: Any = 0.1, system: str = "pat") -> Candidate:
    """A text by ``role``, whose answer it is; None for one that trains nobody."""
    asked = f"{item.prompt}\nTitle: Saltmarsh Inn"
    done = {"completion": {"role": role, "messages": [["user", asked]], "prefix": "", "text": text}} if role else {}
    return Candidate(item.item_id, text, system, {"rewards": {"total": reward}, **done})


def add(store: Store, factors: Sequence[Factor]) -> None:
    store.add_pairs([f.pair for f in factors], [c for f in factors for c in (f.good, f.bad)], [f.item for f in factors])


def choose(store: Store, made: Factor, who: Annotator, said: str = "good") -> None:
    """``who`` prefers the good or the bad text, or gives another outcome; a swapped repeat shows the other text on the left."""
    left = made.pair.hi_id if made.pair.kind == "swap" else made.pair.lo_id
    wanted = {"good": made.good.candidate_id, "bad": made.bad.candidate_id}.get(said)
    outcome = said if wanted is None else "A" if wanted == left else "B"
    store.record_judgment(answer(offer(store, made.pair, who, left), outcome))


def campaign(path: Path, n: int = 16, people: Sequence[str] = ("Ada", "Bo", "Cy")) -> Path:
    """A store in which each of ``people`` prefers the good text of ``n`` pairs of the generator."""
    with open_store(path) as store:
        factors = [factor(i, rewards=(0.3 + i / 100, 0.1)) for i in range(n)]
        add(store, factors)
        judges = [person(store, name) for name in people]
        for i, made in enumerate(factors):
            choose(store, made, judges[i % len(judges)])
    return path


def require_whole(path: Path, rows: dict[str, int]) -> None:
    """The store has these rows, and its journal rebuilds it."""
    report = archive.check(path)
    assert report.problems == () and {name: report.rows[name] for name in rows} == rows
