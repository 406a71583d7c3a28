"""Compose in a real Chromium: quickly at both widths on the double, and once (``slow``) as ``python app.py`` on the embedded model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles_ui import HOSTILE, DoubleWorkbench, app_desk, engine_room
from test_serving import House

import app

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright (its own browsers are not needed)")
expect = playwright.expect

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent
SIZES = {"desk": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}


class Served:
    """The real app on a free port with a double for its engine room, which opens when ``open`` is called."""

    def __init__(self, bench: DoubleWorkbench, folder: Path) -> None:
        self.bench = bench
        self.desk = app_desk(self._load, folder)
        self.demo = app.build_app(self.desk)
        _, url, _ = self.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
        self.url = url.rstrip("/")

    def _load(self, report):
        report("Learning the style graph", 4, 10)
        time.sleep(1.5)
        return engine_room(self.bench)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    it = Served(DoubleWorkbench(), tmp_path_factory.mktemp("served"))
    it.desk.opening.start()
    it.desk.opening.finished.wait(10)
    yield it
    it.demo.close(verbose=False)
    it.desk.campaign.close()


@pytest.fixture
def slow_served(tmp_path) -> Iterator[Served]:
    """A model that takes seconds, not yet opened."""
    it = Served(DoubleWorkbench(word_seconds=0.1), tmp_path)
    yield it
    it.desk.runs.stop_all()
    it.demo.close(verbose=False)
    it.desk.campaign.close()


class Visit:
    """A page that remembers what went wrong on it and what it fetched from elsewhere."""

    def __init__(self, browser: playwright.Browser, url: str, size: str = "desk", path: str = "") -> None:
        self.context = browser.new_context(viewport=SIZES[size], accept_downloads=True)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else self.elsewhere.append(r.url))
        self.page.goto(url + "/" + path)

    @property
    def write(self):
        return self.page.get_by_role("button", name="Write", exact=True)

    def ready(self) -> None:
        expect(self.write).to_be_enabled(timeout=30_000)

    def example(self, key: str) -> None:
        self.page.locator(f'[data-pick="{key}"]').click()
        expect(self.page.get_by_role("textbox", name="Title")).not_to_have_value("")
        self.page.wait_for_timeout(300)  # the fields settle one after the other

    def run(self) -> None:
        self.write.click()
        expect(self.page.locator("#pat-progress")).to_contain_text("Done", timeout=30_000)
        expect(self.write).to_be_enabled()

    def close(self, allowed: str = "") -> None:
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        pwned = self.page.evaluate("window.pwned ?? null")
        self.context.close()
        assert wide <= 0, f"the page is {wide} px wider than the window"
        assert [e for e in self.errors if not allowed or allowed not in e] == [] and self.elsewhere == [] and pwned is None


@pytest.mark.parametrize("size", SIZES)
def test_an_example_runs_to_the_end_at_both_widths(browser, served, size):
    visit = Visit(browser, served.url, size)
    visit.ready()
    visit.example("three")
    visit.run()
    page = visit.page
    for heading in ("Neighbors", "Two agents", "The text"):
        expect(page.get_by_role("heading", name=heading).last).to_be_visible()
    assert page.locator(".pat-trace").count() == 4 and page.locator(".pat-others .pat-card").count() == 4
    expect(page.locator(f".pat-graph svg.pat-{'wide' if size == 'desk' else 'narrow'}")).to_be_visible()
    expect(page.locator(f".pat-graph svg.pat-{'narrow' if size == 'desk' else 'wide'}")).to_be_hidden()
    query = served.bench.queries[-1]
    assert [p.kind for p in query.preferences] == ["sample", "sample", "statement"] and query.seed == 13 and query.rating == 5
    visit.close()


def test_folds_stay_open_and_keyboard_reaches_them(browser, slow_served):
    slow_served.desk.opening.start()
    visit = Visit(browser, slow_served.url)
    visit.ready()
    visit.example("nobody")
    visit.write.click()
    quote = visit.page.locator("details.pat-quote").first
    quote.locator("summary").focus()
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_timeout(1500)  # some twenty updates later
    assert quote.evaluate("fold => fold.open")
    visit.page.get_by_role("button", name="Stop").click()
    visit.close()


def test_the_page_answers_while_models_load_and_says_so(browser, slow_served):
    visit = Visit(browser, slow_served.url)
    expect(visit.page.locator("#pat-header")).to_contain_text("Starting up", timeout=10_000)
    expect(visit.page.get_by_role("button", name=re.compile("starting up"))).to_be_disabled()
    visit.example("one")
    slow_served.desk.opening.start()
    expect(visit.page.locator("#pat-header")).to_contain_text("40%", timeout=10_000)
    visit.ready()
    expect(visit.page.locator("#pat-header")).to_contain_text("9 reviews by 5 people on 3 topics")
    expect(visit.page.get_by_label("Topic").first).to_have_value("Hotel Marlowe")
    visit.write.click()  # what was loading a moment ago runs now
    expect(visit.page.get_by_role("button", name="Writing …")).to_be_disabled(timeout=10_000)
    visit.page.get_by_role("button", name="Stop").click()
    visit.ready()
    visit.close()


def test_what_went_wrong_at_the_start_is_on_the_page(browser, tmp_path):
    def load(report):
        raise ValueError("No network: put model.gguf into ~/.cache/pat-workbench.")

    desk = app_desk(load, tmp_path)
    demo = app.build_app(desk)
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
    desk.opening.start()
    visit = Visit(browser, url.rstrip("/"))
    expect(visit.page.get_by_role("alert")).to_contain_text("put model.gguf into", timeout=10_000)
    expect(visit.page.get_by_role("button", name=re.compile("could not be opened"))).to_be_disabled()
    visit.close()
    demo.close(verbose=False)


def test_stop_ends_the_run_and_keeps_what_was_written(browser, slow_served):
    slow_served.desk.opening.start()
    visit = Visit(browser, slow_served.url)
    visit.ready()
    visit.example("nobody")
    visit.write.click()
    visit.page.locator(".pat-trace").first.wait_for()
    visit.page.get_by_role("button", name="Stop").click()
    expect(visit.page.locator("#pat-progress")).to_contain_text("Stopped")
    expect(visit.write).to_be_enabled()
    expect(visit.page.locator("[data-live]")).to_have_count(0)  # the panels of one update are painted one after the other
    assert visit.page.locator(".pat-trace").count() >= 2
    ended = wait_until(lambda: not slow_served.bench.running)
    assert ended < 2 and slow_served.bench.cancelled == 1
    visit.page.wait_for_timeout(300)
    assert visit.page.locator("[data-live]").count() == 0  # nothing of the run came after
    visit.close()


def test_a_closed_tab_frees_the_model_for_the_visitor_who_waits(browser, slow_served):
    slow_served.desk.opening.start()
    first, second = (Visit(browser, slow_served.url) for _ in range(2))
    for visit in (first, second):
        visit.ready()
        visit.example("nobody")
    first.write.click()
    first.page.locator(".pat-trace").first.wait_for()
    second.write.click()
    expect(second.page.locator("#pat-progress")).to_contain_text("Waiting for the model")
    expect(second.page.get_by_role("button", name="Stop")).to_be_enabled()
    first.context.close()
    expect(second.page.locator(".pat-trace").first).to_be_visible(timeout=5_000)
    assert slow_served.bench.cancelled == 1
    second.page.get_by_role("button", name="Stop").click()
    second.close()


def test_hostile_text_from_data_and_visitor_stays_text(browser, served):
    visit = Visit(browser, served.url)
    visit.ready()
    visit.page.get_by_label("Topic").first.fill("Night ferry <img src=x onerror=window.pwned=1>")
    visit.page.get_by_role("textbox", name="Title").fill(HOSTILE[:200])
    visit.page.get_by_label("Preference 1").fill(HOSTILE)
    visit.run()
    expect(visit.page.locator("#pat-topic-note")).to_contain_text("Nobody in this corpus")
    expect(visit.page.locator("#pat-go")).to_contain_text("plain characters")
    assert served.bench.queries[-1].preferences[0].text == HOSTILE
    assert HOSTILE[:40] in visit.page.locator("#pat-neighbors").inner_text() + visit.page.locator("#pat-neighbors").inner_html().replace(
        "&lt;", "<"
    )
    visit.close()


def test_mistakes_get_a_sentence_where_one_looks(browser, served):
    visit = Visit(browser, served.url)
    visit.ready()
    visit.write.click()
    expect(visit.page.get_by_role("alert")).to_contain_text("Choose a topic")
    expect(visit.page.locator("#pat-progress")).to_contain_text("Both lines of reasoning fused")
    visit.example("one")
    visit.page.get_by_label("Preference 1").fill("x" * 1_000_000)
    visit.write.click()
    expect(visit.page.get_by_role("alert")).to_contain_text("1,000,000 characters", timeout=10_000)
    visit.page.get_by_label("Preference 1").fill("x" * 5_000_000)
    visit.write.click()
    expect(visit.page.get_by_text("larger than 4 MB").first).to_be_visible(timeout=20_000)
    visit.ready()
    visit.close(allowed="413")


def test_what_a_preference_is_taken_for_is_shown_and_can_be_changed(browser, served):
    visit = Visit(browser, served.url)
    visit.ready()
    taste, own = (visit.page.get_by_role("radio", name=name).first for name in ("Their taste", "Their own text"))
    visit.page.get_by_label("Preference 1").fill("short and dry")
    visit.page.get_by_role("textbox", name="Title").click()
    expect(taste).to_be_checked()
    visit.page.locator("label").filter(has_text="Their own text").first.click()
    visit.page.get_by_label("Preference 1").fill("very short and dry")
    visit.page.get_by_role("textbox", name="Title").click()
    visit.page.wait_for_timeout(500)
    expect(own).to_be_checked()
    visit.page.get_by_role("button", name="Add another preference").click()
    expect(visit.page.get_by_label("Preference 2")).to_be_visible()
    visit.close()


def test_a_link_restores_the_inputs_and_a_damaged_one_is_explained(browser, served):
    visit = Visit(browser, served.url)
    visit.ready()
    visit.example("three")
    visit.page.get_by_role("button", name="Link to these inputs").click()
    expect(visit.page.locator("#pat-url textarea, #pat-url input")).to_have_value(re.compile("run="))
    link = visit.page.locator("#pat-url textarea, #pat-url input").input_value()
    visit.close()
    again = Visit(browser, served.url, path=link.removeprefix(served.url + "/"))
    again.ready()
    expect(again.page.get_by_label("Preference 3")).to_have_value("always mentions what the children thought of it")
    expect(again.page.get_by_role("textbox", name="Title")).to_have_value("Three children, four dumplings each")
    again.run()
    assert served.bench.queries[-1].seed == 13
    again.close()
    broken = Visit(browser, served.url, path="?run=" + link[-60:])
    expect(broken.page.get_by_role("alert")).to_contain_text("damaged")
    broken.close()


def test_the_trace_downloads_fresh_and_edited_summaries_are_fused(browser, served):
    visit = Visit(browser, served.url)
    visit.ready()
    visit.example("picky")
    visit.run()
    first = downloaded(visit)
    visit.page.get_by_label("Style summary").fill("Guidance: shout.")
    visit.page.get_by_role("button", name="Fuse again").click()
    expect(visit.page.locator("#pat-progress")).to_contain_text("Fused again", timeout=10_000)
    expect(visit.page.locator(".pat-fused")).to_contain_text("Guidance: shout.")
    assert visit.page.locator(".pat-others .pat-card").count() == 4
    second = downloaded(visit)
    assert first["seed"] == second["seed"] == 15 and "shout" not in first["output"] and "shout" in second["output"]
    visit.close()


@pytest.mark.parametrize("size", SIZES)
def test_everyone_sees_what_serves_and_a_new_version_after_the_next_run(browser, tmp_path, size):
    house = House(tmp_path)
    desk = app_desk(lambda report: engine_room()._replace(serving=house.serving), tmp_path)
    demo = app.build_app(desk)
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
    desk.opening.start()
    try:
        visit = Visit(browser, url.rstrip("/"), size)
        visit.ready()
        fold, (old, *_, new) = visit.page.locator("#pat-versions"), house.named["style"]
        expect(fold).to_contain_text(new)
        expect(fold.locator("dt", has_text="Measured change").first).to_be_hidden()
        fold.locator("summary").first.click()
        expect(fold.locator("dt", has_text="Measured change")).to_have_count(3)
        house.serving.activate("style", old)
        visit.example("three")
        visit.run()
        expect(fold.locator("code").first).to_have_text(old)
        expect(fold.locator("dt", has_text="Measured change").first).to_be_visible()  # a fold that was opened stays open
        visit.close()
    finally:
        demo.close(verbose=False)
        desk.campaign.close()


@pytest.mark.slow
def test_python_app_py_with_the_embedded_model(browser, tmp_path):
    """From the command line to a finished run, then Ctrl-C. The weights are those of PAT_HOME."""
    command = [sys.executable, "app.py", "--no-browser"]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            started = time.monotonic()
            assert wait_until(lambda: "PaT Workbench: http" in (tmp_path / "log").read_text() or process.poll() is not None, 60) < 60
            url = re.search(r"http://[\w.:]+", (tmp_path / "log").read_text())
            assert url, (tmp_path / "log").read_text()
            print(f"page after {time.monotonic() - started:.1f} s")
            visit = Visit(browser, url[0])
            expect(visit.write).to_be_enabled(timeout=400_000)
            print(f"ready after {time.monotonic() - started:.1f} s")
            visit.example("three")
            clicked = time.monotonic()
            visit.write.click()
            visit.page.locator(".pat-trace .pat-text p").first.wait_for(timeout=60_000)
            print(f"first text {time.monotonic() - clicked:.1f} s after the click")
            expect(visit.page.locator("#pat-progress")).to_contain_text("Done", timeout=120_000)
            print(f"done {time.monotonic() - clicked:.1f} s after the click")
            expect(visit.page.locator("#pat-header")).to_contain_text("SmolLM2-135M")
            assert len(visit.page.locator(".pat-fused > .pat-text").inner_text().split()) >= 5
            assert visit.page.locator(".pat-others .pat-card").count() == 4 and visit.page.locator(".pat-column .pat-card").count() >= 8
            trace = downloaded(visit)
            assert {"query", "style_neighbors", "topic_neighbors", "rounds", "drafts", "output", "alternatives", "timings"} <= trace.keys()
            assert len(trace["drafts"]) == 4 and all(r["style"]["text"] and r["topic"]["text"] for r in trace["rounds"])
            visit.close()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    assert process.returncode == 0, (tmp_path / "log").read_text()


def downloaded(visit: Visit) -> dict:
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("button", name="Download the trace").click()
    assert re.fullmatch(r"pat-[a-z0-9-]+\.json", waiting.value.suggested_filename)
    return json.loads(Path(waiting.value.path()).read_text(encoding="utf-8"))


def wait_until(done, limit: float = 10.0) -> float:
    """Seconds until ``done()``, or ``limit``."""
    started = time.monotonic()
    while not done() and time.monotonic() - started < limit:
        time.sleep(0.02)
    return time.monotonic() - started
