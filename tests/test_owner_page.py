"""The Owner page: closed to everybody without the token, by every door, and what its owner does on it in a real browser."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gradio as gr
import httpx
import pytest
from doubles_ui import DoubleWorkbench, engine_room
from test_report import simulate

import app
from annotate.campaign import Campaign, open_campaign
from annotate.jobs import Jobs
from annotate.training import Training
from annotate.types import Annotator, Exclusion, new_id
from annotate.ui.owner import build_owner
from pat_core.config import DEMO_CORPUS
from pat_core.corpus import read_corpus
from pat_core.ui.opening import Opening
from pat_core.ui.runs import Runs

TOKEN = "the owner's long token"
CANARY = "Canary Wrexley"  # somebody's nickname: whatever answers with it has answered with data
HOSTILE = "<img src=x onerror='window.pwned=1'> ${window.pwned=2} {{constructor}}"


class Served:
    """The Owner page alone on a free port, on a campaign with some three hundred answers and the double for its engine room."""

    def __init__(self, folder: Path) -> None:
        self.campaign: Campaign = open_campaign(folder / "votes.db", TOKEN)
        people = simulate(self.campaign.store, 240, 8)
        self.campaign.store.update_annotator(replace(people[0], nickname=CANARY))
        self.campaign.store.add_annotator(Annotator(new_id(), HOSTILE[:80]))
        self.campaign.store.exclude(Exclusion(HOSTILE, "owner", judgment_id=self.campaign.store.judgments()[0].judgment_id))
        self.campaign.store.backup()
        self.canary = people[0]
        bench = DoubleWorkbench(read_corpus(DEMO_CORPUS)[0], word_seconds=0)
        runs = Runs()
        training = Training(folder / "home", DEMO_CORPUS, self.campaign.path)
        self.desk = app.Desk(Opening(lambda report: engine_room(bench)), runs, self.campaign, Jobs(runs.turn), training=training)
        self.demo: gr.Blocks = app.build_app(self.desk, (app.View("Owner", "", self._build),))
        _, url, _ = self.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
        self.url = url.rstrip("/")
        self.client = httpx.Client(timeout=30)
        self.desk.opening.start()
        self.desk.opening.finished.wait(10)

    def _build(self, demo: gr.Blocks, desk: app.Desk) -> None:
        build_owner(demo, desk.campaign, desk.opening, desk.jobs, desk.training)

    def close(self) -> None:
        self.client.close()
        self.desk.jobs.stop()
        self.desk.jobs.wait(10)
        self.demo.close(verbose=False)
        self.campaign.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    it = Served(tmp_path_factory.mktemp("owner"))
    yield it
    it.close()


# --- without the token


def plausible(served: Served, props: dict) -> object:
    """What a field could hold, so that a handler without the check would go through with it."""
    label, store = str(props.get("label")), served.campaign.store
    return {
        "Person": served.canary.annotator_id,
        "Answer": store.judgments()[0].judgment_id,
        "Pair": store.judgments()[0].pair_id,
        "Reason": "because",
        "Type restore to confirm": "restore",
        "Type erase to confirm": "erase",
        "Rows": '{"prompt": "a", "text_a": "b", "text_b": "c"}',
        "Status": "blocked",
        "What": "person",
        "How many": 3,
        "Seed": "1",
    }.get(label, props.get("value"))


def attempts(served: Served) -> list[tuple[str, dict]]:
    """Every handler of the page by every door, without a token, with a wrong one and with one of another type."""
    config = served.demo.get_config_file()
    props = {c["id"]: c["props"] for c in config["components"]}
    token = next(i for i, p in props.items() if p.get("label") == "Owner token")
    requests = []
    for dependency in config["dependencies"]:
        if not dependency["backend_fn"]:
            continue
        for wrong in (None, "not the token", True):
            data = [wrong if i == token else plausible(served, props[i]) for i in dependency["inputs"]]
            for door in ("queue/join", f"run/{dependency['api_name']}", f"call/{dependency['api_name']}"):
                body = {"data": data, "fn_index": dependency["id"], "event_data": {"id": "x"}, "session_hash": f"attempt{len(requests)}"}
                requests.append((door, body))
    return requests


def answered(served: Served, request: tuple[str, dict]) -> str:
    """All that comes back: the reply, and what the stream of its session or event brings."""
    door, body = request
    base = f"{served.url}/gradio_api"
    reply = served.client.post(f"{base}/{door}", json=body)
    text = reply.text
    if reply.status_code == 200 and not door.startswith("run/"):
        where = f"{base}/queue/data?session_hash={body['session_hash']}"
        if door.startswith("call/"):
            where = f"{base}/{door}/{reply.json()['event_id']}"
        with served.client.stream("GET", where) as stream:
            ending = False
            for line in stream.iter_lines():
                text += line
                if "process_completed" in line or (ending and line.startswith("data:")):
                    break
                ending = line in ("event: complete", "event: error")
    return text


def test_no_handler_answers_without_the_token_by_any_door(served):
    store = served.campaign.store
    before, requests = store.content_hash(), attempts(served)
    assert len(requests) > 100
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda request: answered(served, request), requests))
    for (door, body), text in zip(requests, replies, strict=True):
        leaked = [word for word in (CANARY, served.canary.annotator_id, "Elo points", "People agree", "base64") if word in text]
        assert not leaked, f"{door} of {body['fn_index']} answered with {leaked}: {text[:300]}"
    refused = sum("This is not the owner token" in text for text in replies)
    assert refused > len(requests) / 3, "the checks were reached, not only missed"
    assert store.content_hash() == before, "and nothing was done"
    assert not served.desk.jobs.status.running and served.desk.training.status.phase == "idle"


def test_the_page_itself_holds_no_figure_and_its_components_no_functions(served):
    page, config = served.client.get(served.url).text, json.dumps(served.demo.get_config_file(), default=str)
    for text in (page, config):
        assert CANARY not in text and served.canary.annotator_id not in text and "still to be judged" not in text and TOKEN not in text
    components = {c["id"]: c["props"].get("server_fns") or () for c in served.demo.get_config_file()["components"]}

    def called(at: tuple[int, str]) -> httpx.Response:
        body = {"session_hash": "s", "component_id": at[0], "fn_name": at[1], "data": {}}
        return served.client.post(f"{served.url}/gradio_api/component_server", json=body)

    with ThreadPoolExecutor(16) as pool:
        for reply in pool.map(called, [(i, name) for i, names in components.items() for name in {*names, "paint"}]):
            assert CANARY not in reply.text
    assert not any(components.values())


def test_with_the_token_the_same_doors_answer(served):
    """Else the tests above would pass on a page that never answers. Whoever has overheard the owner's session gets nothing out of it."""
    dependency = next(d for d in served.demo.get_config_file()["dependencies"] if d["api_name"] == "on_open")
    body = {"data": [TOKEN], "fn_index": dependency["id"], "session_hash": "owner"}
    text = answered(served, ("run/on_open", body))
    assert CANARY in text and "People agree on" in text
    overheard = [(door, body | {"session_hash": "owner"}) for door, body in attempts(served) if door.startswith("run/")]
    with ThreadPoolExecutor(16) as pool:
        for text in pool.map(lambda request: answered(served, request), overheard):
            assert CANARY not in text and served.canary.annotator_id not in text


def test_a_campaign_that_cannot_be_written_can_be_looked_at(served):
    """As where another program holds the database."""
    campaign = open_campaign(served.campaign.path, TOKEN)
    assert "is in use" in campaign.read_only
    with gr.Blocks() as demo:
        build_owner(demo, campaign, served.desk.opening, served.desk.jobs)
    act = {fn.api_name: fn.fn for fn in demo.fns.values()}
    shown = [str(value) for value in act["on_open"](TOKEN).values()]
    assert any("People agree on" in text for text in shown) and any("is in use" in text for text in shown)
    for name, values in {"on_import": ("pasted", json.dumps(ROWS)), "on_make": ("systems", "", 2, ""), "on_invite": (2,)}.items():
        (said,) = act[name](TOKEN, *values).values()
        assert "is in use" in said and "alert" in said, name
    campaign.close()


def test_every_handler_is_private(served):
    assert {d["api_visibility"] for d in served.demo.get_config_file()["dependencies"]} == {"private"}


# --- in a browser

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright (its own browsers are not needed)")
expect = playwright.expect
TABS = ("Overview", "People", "Systems", "Agreement and bias", "Rewards", "Pairs", "Train", "Settings", "Ledger", "Data")
ROWS = [
    {"topic": "Lodge", "title": f"Night {i}", "text_a": f"A slow night {i}.", "text_b": f"Loud! {i}", "system_a": "pat", "system_b": "none"}
    for i in range(2)
]


class Visit:
    """The opened page, and what went wrong on it."""

    def __init__(self, browser: playwright.Browser, url: str, width: int = 1280, height: int = 900) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(url)

    def open(self) -> None:
        self.page.get_by_label("Owner token").fill(TOKEN)
        self.page.get_by_role("button", name="Open", exact=True).click()
        expect(self.page.locator(".pat-answers")).to_be_visible(timeout=30_000)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def press(self, name: str, *, inside: str = "body") -> None:
        self.page.locator(inside).get_by_role("button", name=name, exact=True).click()

    def choose(self, selector: str, text: str) -> None:
        """The first option of a dropdown that holds ``text``."""
        self.page.locator(f"{selector} input").click()
        self.page.get_by_role("option").filter(has_text=text).first.click()

    def close(self) -> None:
        pwned = self.page.evaluate("window.pwned ?? null")
        self.context.close()
        assert self.errors == [] and pwned is None


@pytest.mark.browser
def test_the_owner_opens_the_page_and_reads_it(served, browser):
    visit = Visit(browser, served.url)
    page = visit.page
    page.get_by_label("Owner token").fill("a wrong token")
    visit.press("Open")
    expect(page.locator("#pat-gate-said")).to_contain_text("This is not the owner token")
    assert CANARY not in page.content()
    visit.open()
    expect(page.get_by_label("Owner token")).to_be_hidden()
    expect(page.locator(".pat-answers")).to_contain_text(re.compile(r"People agree on \d+% \[\d+, \d+\] of \d+ pairs"))
    visit.tab("Systems")
    expect(page.get_by_role("region", name="Ratings of the systems")).to_contain_text("PaT")
    assert page.locator(".pat-interval").count() >= 5
    visit.tab("People")
    expect(page.locator("#pat-people")).to_contain_text(CANARY)
    visit.tab("Agreement and bias")
    expect(page.get_by_role("region", name="The pull of the left side")).to_contain_text("between equal texts")
    visit.close()


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_no_tab_is_wider_than_a_phone(served, browser, mode):
    visit = Visit(browser, f"{served.url}/?__theme={mode}", 390, 844)
    visit.open()
    for name in TABS:
        visit.tab(name)
        visit.page.wait_for_timeout(150)
        assert visit.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
    visit.close()


@pytest.mark.browser
def test_pairs_come_from_a_file_and_from_the_corpus(served, browser, tmp_path):
    visit = Visit(browser, served.url)
    page = visit.page
    visit.open()
    before = served.campaign.store.counts()["pairs"]
    visit.tab("Pairs")
    file = tmp_path / "two.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)) + '\n{"prompt": "only"}\n', encoding="utf-8")
    page.locator(".pat-pick input").set_input_files(file)
    expect(page.locator("#pat-rows textarea")).to_have_value(re.compile("slow night"))
    visit.press("Import")
    expect(page.locator("#pat-import-said")).to_contain_text("2 pairs added from 3 rows")
    expect(page.locator("#pat-import-said")).to_contain_text("1 row refused")
    assert served.campaign.store.counts()["pairs"] == before + 2
    expect(page.get_by_role("region", name="Newest pairs")).to_contain_text("A slow night 1.")
    page.locator("#pat-make-n input").fill("3")
    visit.press("Make pairs")
    expect(page.locator("#pat-job")).to_contain_text("3 pairs added", timeout=40_000)
    expect(page.locator("#pat-job")).to_contain_text("done")
    assert served.campaign.store.counts()["pairs"] >= before + 5
    visit.close()


@pytest.mark.browser
def test_a_person_is_left_out_and_taken_back_and_paused(served, browser):
    visit = Visit(browser, served.url)
    page, store = visit.page, served.campaign.store
    visit.open()
    visit.tab("Ledger")
    page.get_by_role("radio", name="All answers of a person").check()
    visit.choose("#pat-ledger-who", CANARY)
    page.locator("#pat-reason textarea, #pat-reason input").first.fill("clicked at random")
    visit.press("Leave out")
    expect(page.locator("#pat-ledger")).to_contain_text(f"all answers of {CANARY}")
    assert [e.active for e in store.all(Exclusion, annotator_id=served.canary.annotator_id)] == [True]
    page.locator("#pat-ledger tr", has_text=CANARY).get_by_role("button", name=re.compile("Count again")).click()
    expect(page.locator("#pat-ledger tr", has_text=CANARY)).to_contain_text("Leave out again")
    assert [e.active for e in store.all(Exclusion, annotator_id=served.canary.annotator_id)] == [False]
    visit.tab("People")
    visit.choose("#pat-status-who", CANARY)
    visit.press("Change status")
    expect(page.get_by_text(f"{CANARY} is paused now.")).to_be_visible()
    assert store.find(Annotator, annotator_id=served.canary.annotator_id).status == "paused"
    visit.press("Make invite codes")
    expect(page.locator("#pat-codes textarea")).to_have_value(re.compile(r"^(\w{4}-\w{4}-\w{4}\n?){5}$"))
    visit.close()


@pytest.mark.browser
def test_backup_export_erase_and_restore(served, browser):
    visit = Visit(browser, served.url)
    page = visit.page
    visit.open()
    visit.tab("Data")
    visit.press("Make a backup")
    expect(page.locator("#pat-backup-said")).to_contain_text("Copied:")
    with page.expect_download() as download:
        visit.press("Export and save")
    with zipfile.ZipFile(download.value.path()) as unpacked:
        assert unpacked.testzip() is None and {"README.md", "SHA256SUMS", "judgments.csv"} <= set(unpacked.namelist())
        assert CANARY not in unpacked.read("campaign/annotators.jsonl").decode()
    assert served.campaign.store.counts()["exports"] == 1
    gone = next(a for a in served.campaign.store.all(Annotator) if a.nickname == "Judge 3")
    visit.choose("#pat-erase-who", "Judge 3")
    visit.press("Erase this person")
    expect(page.locator("#pat-erase-said")).to_contain_text("type erase to confirm")
    assert served.campaign.store.find(Annotator, annotator_id=gone.annotator_id)
    page.locator("#pat-erase-word input, #pat-erase-word textarea").first.fill("erase")
    visit.press("Erase this person")
    expect(page.locator("#pat-erase-said")).to_contain_text("Erased:")
    expect(page.locator("#pat-erase-said")).to_contain_text("delete them by hand")
    visit.choose("#pat-copies", "answers")
    page.locator("#pat-restore-word input, #pat-restore-word textarea").first.fill("restore")
    visit.press("Restore this backup")
    expect(page.locator("#pat-restore-said")).to_contain_text("Restored to change", timeout=20_000)
    assert served.campaign.store.find(Annotator, annotator_id=gone.annotator_id) is None, "erased people stay erased"
    visit.tab("Overview")
    expect(page.locator(".pat-answers")).to_contain_text("7 people have given")
    visit.close()
