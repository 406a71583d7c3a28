"""Votes under load, through the real app: ``python -m annotate.bench [--people 100] [--seconds 60] [--rate 20] [--kills 2] [--json OUT]``.

Starts ``app.py`` on a database of its own in a temporary folder, lets people join and judge over HTTP as their pages do, and measures how
long an acknowledgement takes: all people at once, then a steady rate while texts are being generated. At the end the database itself is
asked: every acknowledged vote has to be there, once. ``--kills`` ends the app with SIGKILL in the middle of a burst and starts it again.
Leaves out browsers: their cost is on the judge's machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from annotate import archive
from annotate.store import open_store
from annotate.types import Candidate, Item, JudgmentQuery, new_id, pair_of

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
BURST_P99_SECONDS, STEADY_P99_SECONDS = 2.0, 0.3
START_SECONDS = 300.0
OUTCOMES = ("A", "B", "tie", "A", "B", "both_bad")


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from a vote's first request to its acknowledgement; ``refused`` counts refusals on the way."""

    n: int
    p50: float
    p99: float
    longest: float
    refused: int


@dataclass(frozen=True, slots=True)
class BenchReport:
    """``lost`` acknowledged votes are not in the database, ``twice`` are there more than once, ``locked`` replies spoke of a locked
    database. ``generations`` texts were finished during the steady votes."""

    people: int
    burst: Latencies
    steady: Latencies
    rate: float
    generations: int
    kills: int
    acknowledged: int
    lost: int
    twice: int
    locked: int
    problems: tuple[str, ...]

    @property
    def met(self) -> bool:
        whole = not (self.lost or self.twice or self.locked or self.problems)
        return whole and self.burst.p99 <= BURST_P99_SECONDS and self.steady.p99 <= STEADY_P99_SECONDS and self.generations > 0


@dataclass
class Tally:
    """What the voters saw, over all phases."""

    acknowledged: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    locked: int = 0


class App:
    """The app as a process of its own, on a free port; restarted on the same database after a kill."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "votes.db"
        self._log = folder / "app.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.config: dict[str, Any] = {}

    def start(self) -> None:
        env = os.environ | {"PAT_DB": str(self.db), "PAT_OWNER_TOKEN": new_id(), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "app.py", "--no-browser", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.config = httpx.get(f"{self.url}/config", timeout=10).json()
                return
            except httpx.TransportError:
                time.sleep(0.2)
        raise RuntimeError(f"the app did not answer:\n{self._log.read_text(encoding='utf-8', errors='replace')[-2000:]}")

    async def ready(self) -> None:
        """Until the models are open and a text can be written."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            if "ready: " in log:
                return
            if "could not be opened" in log:
                raise RuntimeError(f"the models could not be opened:\n{log[-2000:]}")
            await asyncio.sleep(0.5)
        raise RuntimeError("the models were not open in time")

    def end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)


def server_component(config: dict[str, Any], function: str) -> int:
    """The id of the component that answers ``function``, from the app's ``/config``."""
    found = [c["id"] for c in config["components"] if function in (c.get("props", {}).get("server_fns") or ())]
    if not found:
        raise RuntimeError(f"no component of the app answers {function!r}")
    return found[0]


class Person:
    """One judge, talking to the app as the page does."""

    def __init__(self, app: App, client: httpx.AsyncClient, name: str, tally: Tally) -> None:
        self._app, self._client, self._name, self._tally = app, client, name, tally
        self._session = new_id()
        self._token = ""
        self._pair: dict[str, Any] | None = None
        self._count = 0

    async def call(self, function: str, **payload: Any) -> dict[str, Any]:
        """The reply, asked for again where the connection fails, as the page does: it was open too long, or the app was killed."""
        body = {
            "session_hash": self._session,
            "component_id": server_component(self._app.config, "submit"),
            "fn_name": function,
            "data": {"token": self._token, **payload},
        }
        for tries in itertools.count():
            try:
                reply = await self._client.post(f"{self._app.url}/gradio_api/component_server", json=body)
            except httpx.TransportError:
                self._tally.resent += 1
                await asyncio.sleep(min(30.0, 2.0**tries) if tries else 0.0)  # a browser tries a stale connection again at once
                continue
            reply.raise_for_status()
            return reply.json()

    async def join(self) -> None:
        joined = await self.call("join", nickname=self._name, consent=True, lang="en")
        self._token = joined["token"]
        await self.call("trained")
        await self.look()

    async def look(self) -> None:
        reply = await self.call("next")
        if "pair" not in reply:
            raise RuntimeError(f"no pair for {self._name}: {reply}")
        self._pair = reply["pair"]

    async def vote(self) -> tuple[float, int]:
        """Judge the pair in hand; (seconds from the first request to the acknowledgement, how often it was refused before)."""
        assert self._pair is not None
        answer = {
            "id": new_id(),
            "pair": self._pair["pair"],
            "ticket": self._pair["ticket"],
            "outcome": OUTCOMES[self._count % len(OUTCOMES)],
            "ms_visible": 4000,
            "ms_total": 5000,
            "input": "keyboard",
            "ui_version": "bench",
        }
        self._count += 1
        refused, began = 0, time.perf_counter()
        while "saved" not in (reply := await self.call("submit", **answer)):
            refusal = reply["refused"]
            self._tally.refusals[refusal["code"]] += 1
            self._tally.locked += "locked" in refusal["sentence"]
            refused += 1
            await asyncio.sleep(0.1)
        self._tally.acknowledged.append(answer["id"])
        return time.perf_counter() - began, refused


def fill(db: Path, n: int) -> None:
    """``n`` pairs of made texts to vote on; what they say does not matter here."""
    items = [Item(f"Review of thing {i}: fine", {"topic": f"thing {i}", "samples": [f"I like thing {i} well enough."]}) for i in range(n)]
    candidates = [
        Candidate(item.item_id, f"A text about {item.reference['topic']} by the {system} system. " * 4, system)
        for item in items
        for system in ("pat", "none")
    ]
    pairs = [pair_of(candidates[2 * i], candidates[2 * i + 1], "system", origin="bench") for i in range(n)]
    with open_store(db) as store:
        store.add_pairs(pairs, candidates, items)


async def generate_until(app: App, stop: asyncio.Event) -> int:
    """Run Compose's Write again and again, as a visitor would; how many runs ended."""
    write = next(d for d in app.config["dependencies"] if d.get("api_name") == "on_write")
    props = {c["id"]: c.get("props", {}) for c in app.config["components"]}
    data = [_typed(props[i]) for i in write["inputs"]]
    finished = 0
    async with httpx.AsyncClient(timeout=None) as client:
        while not stop.is_set():
            session = new_id()
            body = {"data": data, "fn_index": write["id"], "session_hash": session, "trigger_id": None, "event_data": None}
            (await client.post(f"{app.url}/gradio_api/queue/join", json=body)).raise_for_status()
            async with client.stream("GET", f"{app.url}/gradio_api/queue/data", params={"session_hash": session}) as events:
                async for line in events.aiter_lines():
                    if stop.is_set():
                        return finished
                    if '"process_completed"' in line:
                        finished += 1
                        break
            await asyncio.sleep(0.1)
    return finished


def _typed(props: dict[str, Any]) -> Any:
    """What a visitor enters into a field: its default, and words where a text is asked for."""
    label = str(props.get("label", ""))
    if label in ("Topic", "Title"):
        return {"Topic": "a kettle", "Title": "Good but loud"}[label]
    return props.get("value")


def latencies(votes: Sequence[tuple[float, int]]) -> Latencies:
    seconds = np.array([s for s, _ in votes])
    p50, p99 = (float(np.percentile(seconds, q)) for q in (50, 99))
    return Latencies(len(votes), round(p50, 4), round(p99, 4), round(float(seconds.max()), 4), sum(r for _, r in votes))


async def burst(people: Sequence[Person]) -> list[tuple[float, int]]:
    """Everybody votes at the same moment, then looks at the next pair."""
    votes = await asyncio.gather(*(p.vote() for p in people))
    await asyncio.gather(*(p.look() for p in people))
    return list(votes)


async def steady(people: Sequence[Person], rate: float, seconds: float) -> tuple[list[tuple[float, int]], float]:
    """One vote every 1 / rate seconds, in turn; the votes and the rate that was reached."""
    began, tasks = time.monotonic(), []

    async def one(person: Person) -> tuple[float, int]:
        vote = await person.vote()
        await person.look()
        return vote

    for i in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + i / rate - time.monotonic()))
        tasks.append(asyncio.create_task(one(people[i % len(people)])))
        if i >= len(people):
            await tasks[i - len(people)]  # this person's vote before
    votes = await asyncio.gather(*tasks)
    return votes, len(votes) / (time.monotonic() - began)


async def killed(app: App, people: Sequence[Person]) -> list[tuple[float, int]]:
    """A burst in the middle of which the app dies and comes back; everybody's vote is sent until it is acknowledged."""
    votes = asyncio.gather(*(p.vote() for p in people))
    await asyncio.sleep(0.25)
    app.end(signal.SIGKILL)
    await asyncio.to_thread(app.start)
    done = await votes
    await asyncio.gather(*(p.look() for p in people))
    return list(done)


async def run(n_people: int, seconds: float, rate: float, kills: int, folder: Path) -> BenchReport:
    """The whole benchmark in ``folder``; see ``BenchReport``."""
    app, tally = App(folder), Tally()
    log.info("the app starts")
    fill(app.db, int(2 * (n_people * (3 + kills) + rate * seconds)))
    app.start()
    try:
        await app.ready()
        limits = httpx.Limits(max_connections=n_people + 10, max_keepalive_connections=n_people + 10)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            log.info("%d people join", n_people)
            people = [Person(app, client, f"person {i}", tally) for i in range(n_people)]
            for person in people:
                await person.join()
            log.info("all of them vote at once, twice")
            bursts = [vote for _ in range(2) for vote in await burst(people)]
            log.info("%g votes a second for %g s while texts are written", rate, seconds)
            stop = asyncio.Event()
            generating = asyncio.create_task(generate_until(app, stop))
            votes, reached = await steady(people, rate, seconds)
            stop.set()
            generations = await generating
            for _ in range(kills):
                log.info("the app is killed in a burst and starts again")
                await killed(app, people)
    finally:
        app.end(signal.SIGTERM)
    with open_store(app.db) as store:
        kept = Counter(j.judgment_id for j in store.judgments(JudgmentQuery(revisions=True, excluded=True)))
    return BenchReport(
        people=n_people,
        burst=latencies(bursts),
        steady=latencies(votes),
        rate=round(reached, 2),
        generations=generations,
        kills=kills,
        acknowledged=len(tally.acknowledged),
        lost=sum(kept[i] == 0 for i in tally.acknowledged),
        twice=sum(n > 1 for n in kept.values()) + len(tally.acknowledged) - len(set(tally.acknowledged)),
        locked=tally.locked,
        problems=archive.check(app.db).problems,
    )


def in_words(report: BenchReport) -> str:
    b, s = report.burst, report.steady
    return "\n".join(
        (
            f"{report.people} people at once, {b.n} votes: p50 {b.p50:.3f} s, p99 {b.p99:.3f} s, longest {b.longest:.3f} s",
            f"{report.rate:g} votes a second while {report.generations} texts were written, {s.n} votes: "
            f"p50 {s.p50:.3f} s, p99 {s.p99:.3f} s, longest {s.longest:.3f} s",
            f"{report.kills} times kill -9 in a burst; {report.acknowledged} votes acknowledged: {report.lost} lost, {report.twice} twice, "
            f"{report.locked} times 'locked'; the database has {len(report.problems)} problems",
            "all targets met" if report.met else "TARGETS MISSED",
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every target is met, 1 where not, 2 where the benchmark could not run."""
    parser = argparse.ArgumentParser(prog="python -m annotate.bench", description="Vote under load through the real app.")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the steady phase")
    parser.add_argument("--rate", type=float, default=20.0, help="votes a second in the steady phase")
    parser.add_argument("--kills", type=int, default=2, help="how often the app is killed in the middle of a burst")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if min(args.people, args.seconds, args.rate) <= 0 or args.kills < 0:
        print("error: --people, --seconds and --rate must be above 0, and --kills not below it", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="annotate-bench-") as folder:
            report = asyncio.run(run(args.people, args.seconds, args.rate, args.kills, Path(folder)))
    except (RuntimeError, httpx.HTTPError, OSError) as error:
        print(f"error: {str(error) or repr(error)}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps(asdict(report) | {"met": report.met}, indent=2) + "\n", encoding="utf-8")
    print(in_words(report))
    return 0 if report.met else 1


if __name__ == "__main__":
    sys.exit(main())
