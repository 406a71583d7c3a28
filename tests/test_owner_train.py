"""The Train part of the Owner page: what would be trained, a run that is followed, before and after, and versions that are activated."""

from __future__ import annotations

import json
import math
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from doubles_ui import HOSTILE, DoubleWorkbench
from store_data import person, vote
from test_serving import House
from training_house import add_pair

import app
from annotate.campaign import Campaign, open_campaign
from annotate.jobs import Jobs
from annotate.prospect import prospect
from annotate.training import Order, Status, Training
from annotate.ui import owner_run_cards as run_cards
from annotate.ui import owner_train_cards as cards
from annotate.ui.owner import build_owner
from pat_core import adapters
from pat_core.config import DEMO_CORPUS
from pat_core.dpo import Point
from pat_core.lineage import RoleVersions, VersionFacts
from pat_core.run_state import RunState
from pat_core.ui.opening import EngineRoom, Opening
from pat_core.ui.runs import Runs

TOKEN = "the owner's long token"
ORDER = Order("both", ("style", "generator"), rounds=1, until="2026-11-24T17:00:00.000Z")


def curve(n: int = 6) -> tuple[Point, ...]:
    return tuple(
        Point(i, 0.693 - 0.04 * i, 0.2 * i, min(1.0, 0.5 + 0.1 * i), 0.002 * i, 40.0, 38.0, 900 * i, 4.0 * i) for i in range(1, n + 1)
    )


def step(role: str = "style", mean: float = 0.02, half: float = 0.03, **changes: Any) -> dict[str, Any]:
    """A step as ``rounds`` reports it."""

    def of(mean: float, half: float = 0.02) -> dict[str, float]:
        return {"mean": mean, "low": mean - half, "high": mean + half, "n": 30}

    tally = {"n": 16, "kept": 9, "dropped": {"gap under threshold": 7}, "gap": 0.081, "weight": 0.62}
    texts = {"style": "Guidance: short.", "topic": "Guidance: the staff.", "text": f"We came back twice. {HOSTILE}"}
    terms = {"total": (mean, half), "rouge_1": (0.01, 0.02), "style": (0.05, 0.04), "words": (-4.0, 2.5)}
    return {
        "round": 1,
        "role": role,
        "parent": "style-0",
        "rollouts": {
            "credit": "differential",
            "n_prompts": 16,
            "n_candidates": 64,
            "reward_mean": 0.21,
            "reward_best": 0.26,
            "differential": tally,
            "raw": tally | {"kept": 15, "dropped": {}},
            "icc": 0.04,
            "same_pair": 7,
            "both_keep": 9,
        },
        "mix": {"pairs": 21, "dropped": {"people are split": 3}, "winners": {"a": 9}, "notes": ["2 of 5 judges gave more than 100."]},
        "training": {
            "n_pairs": 21,
            "steps": 6,
            "tokens": 5400,
            "loss": [0.693, 0.45], "accuracy": 0.875,
            "curve": [asdict(p) for p in curve()],
        },
        "dev": {
            "n_questions": 30,
            "before": {name: of(0.2) for name in terms},
            "after": {name: of(0.22) for name in terms},
            "gain": {name: of(*value) for name, value in terms.items()},
        },
        "minutes": {"rollouts": 1.2, "training": 2.5, "evaluation": 0.4},
        "examples": [
            {
                "title": f"Two nights {HOSTILE}",
                "topic": "Saltmarsh Inn",
                "rating": 4.0,
                "before": texts,
                "after": texts | {"style": "Guidance: shorter.", "text": "We came back. Twice."},
            }
        ],
        "adapter": "/somewhere/style-1",
        "version": f"{role}-1",
        "why": "published, not activated: the dev slice's reward changes by +0.0200",
    } | changes


def clean(html: str) -> str:
    """The words of ``html``, which brings nothing of ``HOSTILE`` as markup."""
    assert "<img" not in html and "<script" not in html and "onerror='" not in html
    return words(html)


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


# Cards


def test_what_would_be_trained_stands_there_with_the_reasons_and_the_weights(tmp_path):
    campaign = open_campaign(tmp_path / "votes.db", TOKEN)
    assert "Nobody has judged a pair yet" in cards.would(prospect(campaign.store))
    fill(campaign)
    html = cards.would(prospect(campaign.store))
    text = clean(html)
    assert "From 14 answers by 3 people" in text and "Style agent 8" in text and "of 6 pairs" in text
    assert "1 × people are split" in text and "1 × only ties" in text and "1 both bad" in text
    assert "Nobody has judged a pair in which only this one differs." in text and "c1 = " in text
    assert "Share: style agent" in text and re.search(r"Ada 8 \d\d%", text)
    html = cards.plan(prospect(campaign.store), replace(ORDER, prompts=12))
    assert "6 pairs of votes and up to 12 pairs of its own rollouts" in clean(html)
    alone = clean(cards.plan(prospect(campaign.store), replace(ORDER, use="human")))
    assert "Style agent: 6 pairs of votes" in alone and "Generator: nothing (nobody has judged" in alone
    assert "votes" not in clean(cards.plan(prospect(campaign.store), replace(ORDER, use="automatic")))
    campaign.close()


def fill(campaign: Campaign) -> None:
    """Eight pairs of the style agent: Ada on all (the last both bad), Bo on four of them (once against her), somebody hostile on two."""
    ada, bo, other = (person(campaign.store, name) for name in ("Ada", "Bo", HOSTILE[:80]))
    pairs = [add_pair(campaign.store, i) for i in range(8)]
    for i, (pair, liked) in enumerate(pairs):
        a_is_liked = pair.lo_id == liked
        outcome = "A" if a_is_liked else "B"
        vote(campaign.store, pair, ada, "both_bad" if i == 7 else outcome)
        if i < 4:
            vote(campaign.store, pair, bo, ("B" if a_is_liked else "A") if i == 0 else outcome)
        if 4 <= i < 6:
            vote(campaign.store, pair, other, outcome)


def running(**state: Any) -> Status:
    return Status("working", ORDER, ORDER.until, RunState(**state))


def test_how_a_run_goes_is_said_in_words_tokens_and_time():
    assert "No run has been started" in run_cards.progress(Status())
    assert "the libraries are loading" in clean(run_cards.progress(Status("starting", ORDER, ORDER.until)))
    text = clean(
        run_cards.progress(
            running(part="training", round=1, role="generator", label="tokens", done=1200, total=8000, minutes_left=2.4, steps=(step(),))
        )
    )
    assert "Training the generator" in text and "1,200 of 8,000 tokens" in text and "about 2 min left" in text
    html = run_cards.progress(running(part="rolling out", round=1, role="style", label=f"Texts {HOSTILE}", done=8, total=64))
    assert "Rolling out the style agent" in clean(html) and '<progress aria-label="Progress of this part" value="0.125">' in html
    assert 'class="pat-now" aria-current=step>Style agent' in html and 'class="">Generator' in html
    assert "Stopping after the part at work" in run_cards.progress(replace(running(), phase="stopping"))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (Status("stopped", ORDER, ORDER.until, RunState("stopped")), "Stopped: the same command goes on where it stood."),
        (Status("failed", ORDER, ORDER.until, RunState("failed"), "all 12 judgments are ties"), "It failed. All 12 judgments are ties."),
        (Status("done", ORDER, ORDER.until, RunState("done", steps=(step(),))), "Published: style-1. Nothing of it serves yet"),
        (Status("done", ORDER, ORDER.until, RunState("done", steps=(step(version="", adapter=""),))), "Nothing was published"),
    ],
)
def test_how_a_run_ended_is_a_sentence(status, said):
    html = run_cards.progress(status)
    assert said in clean(html) and ("pat-alert" in html) == (status.phase == "failed")


def test_curves_hold_their_line_and_their_last_value():
    assert run_cards.curves(()) == ""
    html = run_cards.curves(curve())
    assert html.count("<figure") == 4 and "Accuracy by update: 0.60 at update 1, 1.00 at update 6." in html
    loss = html.split("<figure")[1]
    points = [tuple(map(float, p.split(","))) for p in re.search(r'polyline points="([^"]+)"', loss)[1].split()]
    assert points[0][0] == 0 and points[-1][0] == 100 and all(a[1] < b[1] for a, b in pairwise(points)), "it falls"
    line = float(re.search(r'y1="([\d.]+)"', loss)[1])
    assert 0 <= line < points[0][1] < points[-1][1] <= 100, "from below the coin's loss downward, over a scale from 0"
    one = run_cards.curves(curve(1))
    assert "update 1" in one and "nan" not in one.lower()
    broken = run_cards.curves((replace(curve(1)[0], loss=math.nan), curve(2)[1]))
    assert "nan" not in broken.lower() and "not a number" in broken


def test_a_step_says_whether_it_helped_and_shows_both_texts():
    def said(**changes: Any) -> str:
        return clean(run_cards.steps(Status("done", ORDER, ORDER.until, RunState("done", steps=(step(**changes),)))))

    assert "+0.020 [-0.010, +0.050], a change that may be noise" in said()
    assert "an improvement beyond noise" in said(mean=0.05, half=0.01)
    assert "Not published: the reward of 30 held-out texts" in said(mean=-0.05, half=0.01, adapter="", version="")
    text = said()
    assert "Learned from 21 pairs ; left out: 3 × people are split" in text and "2 of 5 judges" in text
    assert re.search(r"Differential \(used\) 16 9", text) and "the best candidate is not clearly better" in text
    assert "We came back twice." in text and "We came back. Twice." in text and "Guidance: shorter." in text
    assert "6 updates on 21 pairs and 5,400 tokens; loss 0.693 to 0.450" in text
    nothing = {
        "round": 1,
        "role": "topic",
        "rollouts": {},
        "why": "nothing to train on: all 3 judgments are ties",
        "adapter": "",
        "version": "",
    }
    assert "Left as it was: nothing to train on: all 3 judgments are ties." in clean(
        run_cards.steps(Status("done", ORDER, ORDER.until, RunState("done", steps=(nothing,))))
    )


def test_versions_have_a_button_where_they_may_serve_and_the_reason_where_not():
    facts = (
        VersionFacts("style-2", False, False, made_at="2026-11-24T17:00:00+00:00", n_pairs=24, n_votes=9, parent="style-1"),
        VersionFacts("style-1", False, True),
        VersionFacts("style-0", True, False, problem=f"style-0 is damaged {HOSTILE}"),
    )
    html = cards.versions(
        [RoleVersions("style", "style-1", earlier="", versions=facts), RoleVersions("topic", "")], "It could not be loaded."
    )
    text = clean(html)
    assert re.findall(r'data-serve="([^"]+)"', html) == ["activate style style-2", "back style"]
    assert "24 pairs, 9 votes" in text and "serving" in text and "style-0 is damaged" in text and "Roll back to the shipped version" in text
    assert "It could not be loaded." in text and "The base model alone serves it" in text and cards.history([]) == ""


# Handlers


class Page:
    """The Owner page with versions of every role behind it; ``do`` calls a handler as the page would, with the owner's token."""

    def __init__(self, folder: Path, training: Training) -> None:
        self.campaign = open_campaign(folder / "votes.db", TOKEN)
        self.versions = House(folder)
        self.training = training
        room = EngineRoom(DoubleWorkbench(), lambda trace: {}, self.versions.serving)
        runs = Runs()
        self.desk = app.Desk(Opening(lambda report: room), runs, self.campaign, Jobs(runs.turn), training=training)
        self.demo = app.build_app(self.desk, (app.View("Owner", "", self._build),))
        self.desk.opening.start()
        self.desk.opening.finished.wait(10)
        self.act: dict[str, Callable[..., dict]] = {fn.api_name: fn.fn for fn in self.demo.fns.values()}

    def _build(self, demo: gr.Blocks, desk: app.Desk) -> None:
        build_owner(demo, desk.campaign, desk.opening, desk.jobs, desk.training)

    def do(self, name: str, *values: object, token: str = TOKEN) -> str:
        """Everything the handler shows, as one text."""
        return words(" ".join(str(v) for v in self.act[name](token, *values).values()))

    def close(self) -> None:
        self.training.stop()
        self.training.wait(20)
        self.demo.close(verbose=False)
        self.campaign.close()


SCRIPT = """
import sys, time
from pathlib import Path
from pat_core.dpo import Point, Standing
from pat_core.run_state import RunFile
from annotate.learning import stoppable
import json
step = json.loads(Path(sys.argv[2]).read_text())
with RunFile(Path(sys.argv[1])) as run, stoppable() as cancel:
    run.part("training", 1, "style")
    points = []
    for i in range(1, 200):
        if cancel.wait(0.2):
            raise KeyboardInterrupt
        points.append(Point(i, 0.7 - i / 400, i / 100, min(1.0, 0.5 + i / 50), i / 1000, 40.0, 38.0, 100 * i, float(i)))
        run.standing(Standing("training", 100 * i, 1000, (10 - i) / 60, tuple(points)))
        if i == 9 and not Path(sys.argv[2] + ".hold").exists():
            break
    run.step(step)
"""


class Followed(Training):
    """Runs a short play of a run in a real process: nine updates, then a step; with ``hold`` it never ends by itself."""

    hold = False

    def command(self, order: Order, folder: Path) -> list[str]:
        self.home.mkdir(parents=True, exist_ok=True)
        told = self.home / "step.json"
        told.write_text(json.dumps(step()), encoding="utf-8")
        (Path(f"{told}.hold").touch if self.hold else Path(f"{told}.hold").unlink)(**({} if self.hold else {"missing_ok": True}))
        return ["-c", textwrap.dedent(SCRIPT), str(folder / "state.json"), str(told)]


@pytest.fixture
def no_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def page(tmp_path, no_shipped) -> Iterator[Page]:
    it = Page(tmp_path, Followed(tmp_path / "home", DEMO_CORPUS, tmp_path / "votes.db"))
    yield it
    it.close()


FORM = ("both", ["style"], 4, 1)


def test_a_run_that_has_nothing_to_learn_from_is_not_begun(page):
    assert "There are no judgments yet" in page.do("on_train", *FORM)
    pair, _ = add_pair(page.campaign.store, 0)
    vote(page.campaign.store, pair, person(page.campaign.store), "tie")
    said = page.do("on_train", "human", *FORM[1:])
    assert "nothing to learn from votes alone" in said and "ties or both bad" in said
    for wrong in (
        ("both", [], 4, 1),
        ("both", None, 4, 1),
        ("magic", ["style"], 4, 1),
        ("both", ["style"], 1, 1),
        ("both", ["style"], 4, None),
    ):
        assert re.search("at least one role|Use .+magic.+ is not known|Prompts must|Rounds must", page.do("on_train", *wrong)), wrong
    assert page.training.status.phase == "idle"


def test_one_run_at_a_time_and_everybody_else_is_refused(page):
    fill(page.campaign)
    page.training.hold = True
    assert "This is not the owner token" in page.do("on_train", *FORM, token="wrong") and page.training.status.phase == "idle"
    assert "Started." in page.do("on_train", *FORM)
    assert "A run is at work already (1 round of the style agent" in page.do("on_train", *FORM)
    for name in ("on_end_training", "on_go_on", "on_watch_training"):
        assert "This is not the owner token" in page.do(name, token="wrong")
    assert page.training.status.running
    assert "Stopping" in page.do("on_end_training") or page.training.status.phase == "stopped"
    assert page.training.wait(20).phase == "stopped" and "goes on where it stood" in page.do("on_watch_training")
    assert "It goes on where it stood" in page.do("on_go_on")


def test_a_page_that_is_loaded_again_sees_the_run(page, tmp_path):
    fill(page.campaign)
    page.training.hold = True
    page.do("on_train", *FORM)
    end = time.monotonic() + 30
    while "<figure" not in str(page.act["on_open"](TOKEN)):
        assert time.monotonic() < end
        time.sleep(0.2)
    again = Followed(tmp_path / "home", DEMO_CORPUS, tmp_path / "votes.db").status
    assert again.running and again.run.part == "training" and again.run.curve


def pressed(what: object) -> gr.EventData:
    return gr.EventData(None, {"what": what})


def test_versions_are_activated_and_rolled_back(page):
    serving = page.versions.serving
    older, newest = page.versions.named["style"][0], page.versions.named["style"][-1]
    assert f"{older} now serves the style agent." in page.do("on_serve", pressed(f"activate style {older}"))
    assert serving.versions()[0].serving == older
    assert f"{newest} now serves the style agent." in page.do("on_serve", pressed("back style"))
    assert [c.action for c in serving.history()][:2] == ["rolled back", "activated"]
    page.versions.damage(older)
    said = page.do("on_serve", pressed(f"activate style {older}"))
    assert "is damaged" in said and f"{newest} still serves the style agent." in said
    for nonsense in (None, "", "activate", "activate magic x", "back ../..", 3):
        assert "Choose a version first" in page.do("on_serve", pressed(nonsense))


# In a browser

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright (its own browsers are not needed)")
expect = playwright.expect


@pytest.mark.browser
def test_the_owner_trains_looks_and_activates(page, browser):
    from test_owner_page import Visit

    fill(page.campaign)
    _, url, _ = page.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
    visit = Visit(browser, url)
    visit.open()
    visit.tab("Train")
    seen = visit.page
    expect(seen.locator("#pat-would")).to_contain_text("Who counts how much")
    expect(seen.locator("#pat-train-plan")).to_contain_text("6 pairs of votes and up to 16 pairs of its own rollouts")
    seen.get_by_role("radio", name="Votes alone").check()
    expect(seen.locator("#pat-train-plan")).to_contain_text("Generator: nothing")
    visit.press("Start")
    expect(seen.locator("#pat-run-progress")).to_contain_text("Training the style agent", timeout=30_000)
    expect(seen.locator("#pat-run-curves figure")).to_have_count(4)
    expect(seen.locator("#pat-run-progress")).to_contain_text("Done.", timeout=30_000)
    expect(seen.locator("#pat-run-steps")).to_contain_text("We came back. Twice.")
    expect(seen.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    older = page.versions.named["style"][0]
    seen.get_by_role("button", name=f"Activate {older}").click()
    expect(seen.locator("#pat-train-versions-said")).to_contain_text(f"{older} now serves the style agent.")
    expect(seen.locator("#pat-train-versions tr", has_text=older)).to_contain_text("serving")
    assert page.versions.serving.versions()[0].serving == older
    visit.close()


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_it_fits_a_phone(page, browser, mode):
    from test_owner_page import Visit

    fill(page.campaign)
    page.training.start(Order("both", ("style",)))
    page.training.wait(30)
    _, url, _ = page.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
    visit = Visit(browser, f"{url}?__theme={mode}", 390, 844)
    visit.open()
    visit.tab("Train")
    expect(visit.page.locator("#pat-run-steps")).to_contain_text("Before and after")
    assert visit.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    visit.close()
