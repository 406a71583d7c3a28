"""The Results page and the report in a real Chromium: read from files at each visit, drawn, and nothing in a file runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from doubles_ui import HOSTILE, app_desk, engine_room
from results_data import results

import app
from pat_core.results_file import keep
from pat_core.results_html import write_html

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright (its own browsers are not needed)")
expect = playwright.expect
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


class Served:
    """The app's Compose and Results pages on a free port, with reports under ``home``."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.desk = app_desk(lambda report: engine_room(), folder)._replace(results=(self.home / "results", folder / "shipped"))
        self.demo = app.build_app(self.desk, tuple(v for v in app.VIEWS if v.name in ("Compose", "Results")))
        _, url, _ = self.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
        self.url = url.rstrip("/")

    def close(self) -> None:
        self.demo.close(verbose=False)
        self.desk.campaign.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    it = Served(tmp_path_factory.mktemp("results"))
    yield it
    it.close()


@pytest.fixture
def reports(served) -> Iterator[Path]:
    """A whole report, an older one full of hostile text that lacks half of the questions, and two files that are none."""
    keep(results(), served.home)
    hostile = json.loads(json.dumps(results()).replace("Item 0", "HOSTILE").replace("HOSTILE", json.dumps(HOSTILE)[1:-1]))
    hostile |= {"corpus": HOSTILE, "notes": [HOSTILE], "engine": HOSTILE, "made_at": "2026-01-01T00:00:00Z", "gain": {}, "judge": None}
    hostile["systems"]["lamp"]["label"] = HOSTILE
    (served.home / "results" / "hostile.json").write_text(json.dumps(hostile), encoding="utf-8")
    (served.home / "results" / "broken<img src=x onerror='window.pwned=4'>.json").write_text("{", encoding="utf-8")
    (served.home / "results" / "foreign.json").write_text('{"name": "vega"}', encoding="utf-8")
    yield served.home / "results"
    for path in (served.home / "results").iterdir():
        path.unlink()


class Visit:
    """A page that remembers what went wrong on it and what it asked of others."""

    def __init__(self, browser: playwright.Browser, address: str, size: str = "desk", **context) -> None:
        self.context = browser.new_context(viewport=SIZES[size], **context)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        home = re.match(r"\w+://[^/]*", address)[0]
        self.page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else self.elsewhere.append(r.url))
        self.page.goto(address)

    def drawn(self, n: int) -> None:
        expect(self.page.locator(".js-plotly-plot .scatterlayer .trace .point").first).to_be_visible()
        expect(self.page.locator(".js-plotly-plot:visible")).to_have_count(n)

    def close(self) -> None:
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        outside = self.page.evaluate(OUTSIDE)
        pwned = self.page.evaluate("window.pwned ?? null")
        self.context.close()
        assert wide <= 0, f"the page is {wide} px wider than the window"
        assert outside == [] and self.errors == [] and self.elsewhere == [] and pwned is None


# Texts of a picture that leave it or lie on each other
OUTSIDE = """() => [...document.querySelectorAll('.js-plotly-plot')].filter(p => p.offsetParent).flatMap(plot => {
  const frame = plot.getBoundingClientRect();
  const texts = [...plot.querySelectorAll('.annotation text, .xtick text, .ytick text')];
  const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
  const leaves = a => a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 2 || a.bottom > frame.bottom + 2;
  return boxes.flatMap(([text, a], i) => [
    ...(leaves(a) ? [`${text} leaves`] : []),
    ...boxes.slice(0, i).filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
      .map(([other]) => `${text} on ${other}`)]);
})"""


@pytest.mark.browser
def test_without_a_report_the_page_says_what_to_run(served, browser):
    visit = Visit(browser, served.url)
    visit.page.get_by_role("link", name="Results").click()
    expect(visit.page.get_by_role("heading", name="No evaluation has been run yet")).to_be_visible()
    expect(visit.page.locator("#pat-results-said")).to_contain_text("python -m pat_core.evaluate FILE")
    expect(visit.page.locator("#pat-report")).to_be_hidden()
    visit.page.get_by_role("link", name="Write with PaT").click()
    expect(visit.page.get_by_role("heading", name="PaT Workbench")).to_be_visible()
    visit.close()


@pytest.mark.browser
@pytest.mark.parametrize(("size", "mode"), [("desk", "light"), ("phone", "dark")])
def test_a_stakeholder_reads_the_reports(served, reports, browser, size, mode):
    visit = Visit(browser, f"{served.url}/results?__theme={mode}", size)
    page = visit.page
    visit.drawn(8)
    expect(page.get_by_role("heading", name="Does it copy?")).to_be_visible()
    expect(page.locator("#pat-results-said")).to_contain_text("PaT is first of 9")
    for sentence in ("foreign.json is left out: version is 'None'", "onerror='window.pwned=4'>.json is left out: it is not JSON"):
        expect(page.locator("#pat-results-said")).to_contain_text(sentence)
    expect(page.locator(".res-example")).to_have_count(5)
    ink = page.locator(".annotation text").first.evaluate("text => getComputedStyle(text).fill")
    assert ink == {"light": "rgb(86, 93, 97)", "dark": "rgb(169, 174, 176)"}[mode]  # muted, of either palette
    page.get_by_role("listbox", name="Report").or_(page.get_by_label("Report", exact=True)).first.click()
    page.get_by_role("option", name=re.compile("^2026-01-01")).click()
    visit.drawn(6)  # nothing about judges and other persons' notes in this one
    expect(page.get_by_role("heading", name="Is it personal?")).to_be_hidden()
    expect(page.locator("#pat-results-rest")).to_contain_text("Is it personal? PaT was not also asked to write with another person’s notes")
    assert "<img src=x onerror='window.pwned=1'>" in page.locator("#pat-results-said").inner_text()
    visit.close()


@pytest.mark.browser
def test_the_report_opens_from_the_disk_with_and_without_scripts(browser, tmp_path):
    write_html(results(corpus=HOSTILE, notes=[HOSTILE]), tmp_path / "report.html")
    address = (tmp_path / "report.html").as_uri()
    visit = Visit(browser, address, "phone", color_scheme="dark")
    visit.drawn(8)
    visit.close()
    plain = Visit(browser, address, java_script_enabled=False)
    expect(plain.page.locator("noscript p")).to_be_visible()
    expect(plain.page.get_by_role("table").first).to_be_visible()
    plain.context.close()
    assert plain.errors == [] and plain.elsewhere == []


def test_a_forged_choice_shows_the_newest_report(served, reports):
    config = served.demo.get_config_file()
    choice = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "pat-report")
    asked = next(d for d in config["dependencies"] if d["inputs"] == [choice])
    for forged in ("../../secret", 7, ["hostile"], None):
        body = {"data": [forged], "fn_index": asked["id"], "session_hash": "forged"}
        reply = httpx.post(f"{served.url}/gradio_api/run/{asked['api_name']}", json=body, timeout=30)
        assert reply.status_code in (200, 500)
        if reply.status_code == 200:
            assert "synthetic_dev" in reply.text and "secret" not in reply.text
