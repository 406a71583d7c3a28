"""A whole campaign: two people judge ten pairs each in real browsers, the owner reads what came of it, and what is exported trains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles_model import tiny_llama
from doubles_ui import OWNER_TOKEN, app_desk, engine_room

import app
from annotate.campaign import CampaignSettings
from annotate.export import Options, export
from annotate.schedule import Plan
from annotate.types import Candidate, Item, JudgmentQuery, pair_of
from annotate.ui.choice import TOKEN_KEY
from pat_core.dpo import DPOSettings, train_preferences
from pat_core.types import PreferencePair

N_PAIRS = 10
GOOD = "Wet boots by the oven, dumplings on the table, and nobody moaned on visit {}."
POOR = "It is a wonderful place and everything was great; I would recommend visit {} to anyone."


def fill(desk: app.Desk) -> None:
    """Five pairs of systems and five of style summaries, each with the text that both people will like."""
    items, candidates, pairs = [], [], []
    for i in range(N_PAIRS):
        about = {"topic": "Alpenhof Brandl", "samples": ["Came with wet boots. Nobody moaned."]}
        item = Item(f"Review of Alpenhof Brandl: visit {i}", about)
        asked = [["user", f"How would this person write about visit {i}?"]]
        for text, summary, system in ((GOOD, "Evidence: short and dry.", "pat"), (POOR, "Evidence: long and warm.", "none")):
            taught = {"role": "style", "messages": asked, "prefix": "Evidence:", "text": summary}
            trace = {"rewards": {"total": 0.5 if system == "pat" else 0.2, "terms": {}}} | ({"completion": taught} if i % 2 else {})
            candidates.append(Candidate(item.item_id, text.format(i), "pat" if i % 2 else system, trace))
        pairs.append(pair_of(*candidates[-2:], "one-factor" if i % 2 else "system", agent="style" if i % 2 else None))
        items.append(item)
    desk.campaign.add_made(items, candidates, pairs)
    desk.campaign.save_settings(CampaignSettings(plan=Plan(overlap=1.0, gold=0, swap=0, identical=0)))


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[app.Desk, str]]:
    desk = app_desk(lambda report: engine_room(), tmp_path)
    fill(desk)
    demo = app.build_app(desk)
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
    desk.opening.start()
    yield desk, url.rstrip("/")
    demo.close(verbose=False)
    desk.campaign.close()


class Judge:
    """Somebody at the Annotate page, who likes the shorter, drier text."""

    def __init__(self, browser, desk: app.Desk, url: str, nickname: str) -> None:
        from playwright.sync_api import expect

        self.expect = expect
        session = desk.campaign.join(nickname, consent=True)
        desk.campaign.trained(session.token)  # the way in and the practice round have tests of their own
        context = browser.new_context(viewport={"width": 1280, "height": 860}, locale="en-US")
        context.add_init_script(f"localStorage.getItem('{TOKEN_KEY}') ?? localStorage.setItem('{TOKEN_KEY}', '{session.token}')")
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{url}/annotate")

    def at(self, number: int) -> None:
        self.page.locator(f".ann-number:text-is('Pair {number}')").wait_for(timeout=15_000)

    def liked(self) -> str:
        return "A" if "Wet boots" in self.page.locator(".ann-text").first.inner_text() else "B"

    def saved(self) -> None:
        self.expect(self.page.locator(".ann-status")).to_contain_text(re.compile("[Ss]aved:"))


def by_keyboard(judge: Judge) -> None:
    """Ten pairs on keys, clearly, with a reload in the middle and one answer taken back and given again."""
    for number in range(1, N_PAIRS + 1):
        judge.at(number)
        key = "Shift+Digit1" if judge.liked() == "A" else "Shift+Digit2"
        if number == 5:
            judge.page.keyboard.press(key)
            judge.page.wait_for_timeout(1200)
            judge.page.reload()
            judge.at(number)
            judge.page.keyboard.press("Enter")  # the choice came back with the page
        elif number == 7:
            judge.page.keyboard.press("0")
            judge.page.keyboard.press("Enter")
            judge.at(8)
            judge.page.keyboard.press("u")
            judge.at(7)
            judge.page.keyboard.press(key)
            judge.page.keyboard.press("Enter")
        else:
            judge.page.keyboard.press(key)
            judge.page.keyboard.press("Enter")
        judge.saved()


def by_mouse(judge: Judge) -> None:
    """Ten pairs with the mouse, slightly."""
    for number in range(1, N_PAIRS + 1):
        judge.at(number)
        judge.page.locator(f"[data-pick='{judge.liked()}']").click()
        judge.page.locator("[data-pick='confirm']").click()
        judge.saved()


@pytest.mark.browser
def test_two_people_judge_the_owner_reads_and_the_export_trains(browser, served, tmp_path):
    desk, url = served
    first = Judge(browser, desk, url, "Keys")
    by_keyboard(first)
    second = Judge(browser, desk, url, "Mouse")
    by_mouse(second)
    assert first.errors == second.errors == []
    store = desk.campaign.store
    assert len(store.judgments()) == 2 * N_PAIRS and len(store.judgments(JudgmentQuery(revisions=True))) == 2 * N_PAIRS + 1
    assert {j.input_kind for j in store.judgments()} == {"keyboard", "mouse"}
    assert {j.outcome for j in store.judgments()} == {"A", "B"}  # the sides were balanced, so liking one text means both sides

    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"{url}/owner")
    page.get_by_label("Owner token").fill(OWNER_TOKEN)
    page.get_by_role("button", name="Open", exact=True).click()
    first.expect(page.locator(".pat-answers")).to_contain_text(re.compile(r"People agree on 100% \[\d+, 100\] of 10 pairs"), timeout=60_000)
    page.get_by_role("tab", name="Systems", exact=True).click()
    first.expect(page.get_by_role("region", name="Ratings of the systems")).to_contain_text("PaT")

    out = tmp_path / "campaign"
    export(store, out, Options())
    rows = [json.loads(line) for line in (out / "dpo_style.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == N_PAIRS // 2
    assert {row["chosen"][0]["content"] for row in rows} == {"Evidence: short and dry."}
    trains(rows, tmp_path)


def trains(rows: list[dict], folder: Path) -> None:
    """One step of DPO on the exported rows moves the adapter toward the chosen summaries."""
    pairs = [
        PreferencePair(
            "style",
            tuple((m["role"], m["content"]) for m in row["prompt"]),
            row["chosen"][0]["content"],
            row["rejected"][0]["content"],
            weight=row["weight"],
        )
        for row in rows
    ]
    texts = [text for p in pairs for text in (p.chosen, p.rejected, *(t for _, t in p.prompt))]
    settings = DPOSettings(learning_rate=1e-2, epochs=1, batch_size=len(pairs), rank=4)
    report = train_preferences(tiny_llama(folder / "base", texts), None, pairs, folder / "run", settings)
    assert report.steps == 1 and report.n_pairs == len(pairs) and (report.adapter / "adapter_model.safetensors").is_file()
