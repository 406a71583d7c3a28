"""The Annotate page in a real Chromium on a real campaign, and the words it is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import gradio as gr
import pytest
from doubles_ui import HOSTILE

import app
from annotate.campaign import Campaign, CampaignSettings, open_campaign
from annotate.protocol import PageProtocol
from annotate.types import Candidate, Item, Judgment, JudgmentQuery, pair_of
from annotate.ui.page import ASSETS, LANGUAGES, PARTS, REQUESTS, build_annotate, page_catalogs, page_script, server_function

SIZES = {"desk": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}
CALLS = "**/component_server/**"
PLACES = ("Alpenhof Brandl", "Norra kettle", "Pawprint vet clinic", "Fable library app")
OFFLINE = "ERR_FAILED"  # what the browser logs for a request that a test has cut

# The words


def test_every_language_has_every_sentence_with_the_same_gaps():
    catalogs = page_catalogs()
    english = catalogs["en"]
    for code in LANGUAGES:
        words = {key: text for key, text in catalogs[code].items() if not key.startswith("refused.")}  # the server's own are English
        assert words.keys() == english.keys(), code
        for key, text in words.items():
            if isinstance(text, str):
                assert text.strip(), (code, key)
                assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", english[key])), (code, key)
        for name in ("examples", "practice"):
            assert [e["expected"] for e in words[name]] == [e["expected"] for e in english[name]], (code, name)
        assert [len(row) for row in words["keys"]] == [2] * len(english["keys"])


def test_every_sentence_the_program_asks_for_is_there_and_none_lies_idle():
    script, english = page_script(), page_catalogs()["en"]
    keys = {re.sub(r"\.(one|other)$", "", key) for key in english}
    spaces = {key.split(".")[0] for key in keys if "." in key}
    quoted = {
        text for text in re.findall(r"'([a-z_]+(?:\.\w+)*)'", script) if text in keys or ("." in text and text.split(".")[0] in spaces)
    }
    built = tuple(re.findall(r"`([a-z_]+\.[\w.]*)\$\{", script))  # `answer.${outcome}`
    assert quoted <= keys, quoted - keys
    idle = {key for key in keys - quoted - {"language", "examples", "practice", "keys"} if not key.startswith(built)}
    assert idle == set()


def test_texts_of_others_never_become_markup():
    for part in PARTS:
        script = (ASSETS / f"{part}.js").read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script), part
        assert not re.search(r"https?://", script), part


# What Gradio calls


@pytest.fixture
def campaign(tmp_path) -> Iterator[Campaign]:
    opened = open_campaign(tmp_path / "votes.db", "owner")
    yield opened
    opened.close()


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("payload", [None, 7, "text", [], [{}], float("nan"), {}, {"token": ["x"]}, {"token": "x" * 3_000_000}])
def test_whatever_comes_in_the_answer_is_a_sentence(campaign, name, payload):
    reply = server_function(PageProtocol(campaign), name)(payload)
    if name == "begin" and isinstance(payload, dict):
        assert reply["me"] is None and reply["campaign"]["n_open"] == 0
    else:
        assert reply["refused"]["code"] in ("shape", "token", "consent") and reply["refused"]["sentence"].endswith(".")


def test_only_the_session_says_which_account_somebody_has(campaign):
    asked = []

    class Service:
        def __getattr__(self, name):
            return lambda payload: asked.append(payload) or {"me": None}

    profile = gr.OAuthProfile({"sub": "id-7", "preferred_username": "ada", "name": "Ada", "profile": "", "picture": ""})
    begin, join = server_function(Service(), "begin"), server_function(Service(), "join")
    join({"nickname": "Eve", "account": "id-7"})
    join({"nickname": "Ada", "account": "id-9"}, profile)
    assert asked == [{"nickname": "Eve"}, {"nickname": "Ada", "account": "id-7"}]
    assert begin({}, profile)["account"] == "ada" and "account" not in begin({})


# The page


def fill(campaign: Campaign, n: int = 30, hostile: bool = False) -> None:
    """``n`` pairs, each of an item of its own, whose left or right text is the plain one."""
    items, candidates, pairs = [], [], []
    for i in range(n):
        place = HOSTILE if hostile else PLACES[i % len(PLACES)]
        sample = f"Came at {i + 7}:10 with wet boots. The dumplings were the size of a handball, and nobody moaned. " * (1 + i % 3)
        about = {"topic": place, "title": f"Visit {i}, in short", "rating": 4, "statements": [place] if i % 2 else []}
        item = Item(f"Review of {place}: visit {i}", about | {"samples": [HOSTILE if hostile else sample] * (1 + i % 3)}, "test")
        good = HOSTILE if hostile else f"Wet boots by the oven, dumplings on the table, and nobody moaned at visit {i}."
        a = Candidate(item.item_id, good, "pat", {"seed": i})
        b = Candidate(item.item_id, f"It is a wonderful place and I would definitely recommend visit {i} to anyone.", "none", {"seed": i})
        items.append(item)
        candidates += [a, b]
        pairs.append(pair_of(a, b, "system", origin="test"))
    campaign.add_made(items, candidates, pairs)


class Served:
    """The page at /annotate of an app with the real launch settings, on a campaign that tests can look into."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        with gr.Blocks(title="PaT Workbench", analytics_enabled=False, fill_width=True) as self.demo:
            gr.HTML("<p>The first page</p>")
        with self.demo.route("Annotate", "/annotate"):
            build_annotate(self.demo, PageProtocol(campaign))
        _, url, _ = self.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
        self.url = url.rstrip("/")

    def answers(self, *, all_of_them: bool = False) -> tuple[Judgment, ...]:
        return tuple(self.campaign.store.judgments(JudgmentQuery(revisions=all_of_them)))


@pytest.fixture(scope="module")
def expect(browser):
    from playwright.sync_api import expect

    return expect


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    opened = open_campaign(tmp_path_factory.mktemp("page") / "votes.db", "owner")
    fill(opened)
    it = Served(opened)
    yield it
    it.demo.close(verbose=False)
    opened.close()


class Visit:
    """Somebody's browser on the page; remembers what went wrong in it and what it fetched from elsewhere."""

    def __init__(self, browser, served: Served, size: str = "desk", *, query: str = "", locale: str = "en-US", token: str = "") -> None:
        touch = {"has_touch": True, "is_mobile": True} if size == "phone" else {}
        self.context = browser.new_context(viewport=SIZES[size], locale=locale, **touch)
        self.served, self.query, self.errors, self.elsewhere = served, query, [], []
        if token:
            name = "'pat-annotate-token'"
            self.context.add_init_script(f"localStorage.getItem({name}) ?? localStorage.setItem({name}, '{token}')")
        self.page = self.open()

    def open(self):
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith((self.served.url, "data:", "blob:")) else self.elsewhere.append(r.url))
        page.goto(f"{self.served.url}/annotate{self.query}")
        return page

    @property
    def status(self):
        return self.page.locator(".ann-status")

    def at_pair(self, number: int, page=None) -> None:
        (page or self.page).get_by_role("heading", name=re.compile(rf"\b{number}\b")).first.wait_for(timeout=10_000)
        (page or self.page).locator(f".ann-number:has-text('{number}')").wait_for(timeout=10_000)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def close(self, allowed: str = "") -> None:
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        pwned = self.page.evaluate("window.pwned ?? null")
        self.context.close()
        assert wide <= 0, f"the page is {wide} px wider than the window"
        assert [e for e in self.errors if not allowed or allowed not in e] == [] and self.elsewhere == [] and pwned is None


def judge(served: Served, nickname: str = "Ada") -> tuple[str, str]:
    """The token and id of somebody who is past the practice round."""
    session = served.campaign.join(nickname, consent=True)
    served.campaign.trained(session.token)
    return session.token, session.annotator.annotator_id


def by(served: Served, annotator_id: str, **which: bool) -> list[Judgment]:
    return [j for j in served.answers(**which) if j.annotator_id == annotator_id]


@pytest.mark.browser
def test_from_the_door_to_the_tenth_pair_with_the_keyboard_alone(browser, expect, served):
    visit = Visit(browser, served)
    page, practised = visit.page, len(served.answers())
    expect(page.get_by_role("heading", name="Which text sounds more like this person?")).to_be_visible(timeout=20_000)
    expect(page.locator(".nav-holder")).to_be_hidden()
    page.get_by_label("Nickname").focus()
    visit.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="choose a nickname")).to_be_visible()
    page.keyboard.type("Grace 1290")
    visit.press("Tab", "Tab", "Tab", "Space", "Tab", "Enter")
    expect(page.get_by_role("heading", name="How to compare")).to_be_focused()
    page.get_by_role("button", name="Try three pairs").focus()
    visit.press("Enter")
    for answer, feedback in (("1", "We would say: B, clearly."), ("Shift+Digit1", "We think so too."), ("0", "We think so too.")):
        expect(page.locator(".ann-number")).to_contain_text("Practice")
        visit.press("Enter")
        expect(visit.status).to_contain_text("Choose an answer first")
        visit.press(answer, "Enter")
        expect(page.locator(".ann-verdict")).to_contain_text(feedback)
        expect(page.locator(".ann-verdict")).to_be_focused()
        page.wait_for_timeout(450)
        visit.press("Enter")
    visit.at_pair(1)
    before = len(served.answers())
    assert visit.page.evaluate("localStorage.getItem('pat-annotate-token')") and before == practised
    given = ["1", "2", "0", "9", "s", "Shift+Digit1", "Shift+Digit2", "Numpad1", "1", "2"]
    for i, key in enumerate(given):
        visit.at_pair(i + 1)
        expect(page.locator("#ann-title")).to_be_focused()
        expect(page.locator(".ann-count").first).to_be_visible()
        visit.press(key)
        if i == 0:  # down to the details: style A, topic the same, writing left out, reasons one and five
            visit.press("ArrowDown", "1", "ArrowDown", "0", "d", "d", "1", "5", "2", "2")
        if i == 1:
            visit.press("d", "2", "Escape", "1", "2")  # back at the overall question the digits mean texts again
        visit.press("Enter")
        expect(visit.status).to_contain_text("Saved:")
    visit.at_pair(11)
    expect(page.locator(".ann-progress")).to_contain_text("10 judged")
    kept = served.answers()[before:]
    assert [(j.outcome, j.strength) for j in kept] == [
        ("A", "slightly"), ("B", "slightly"), ("tie", None), ("both_bad", None), ("cannot_judge", None),
        ("A", "clearly"), ("B", "clearly"), ("A", "slightly"), ("A", "slightly"), ("B", "slightly"),
    ]  # fmt: skip
    assert kept[0].dims == {"style": "A", "topic": "same"} and kept[0].tags == ("voice", "details") and kept[1].dims == {"style": "B"}
    assert all(0 < j.ms_visible <= j.ms_total < 60_000 for j in kept)
    assert {(j.input_kind, j.ui_version[:9]) for j in kept} == {("keyboard", "annotate-")}
    visit.close()


@pytest.mark.browser
def test_a_phone_with_a_thumb(browser, expect, served):
    token, me = judge(served, "Thumb")
    visit = Visit(browser, served, "phone", query="?__theme=dark", locale="de-DE", token=token)
    page = visit.page
    visit.at_pair(1)
    expect(page.locator(".ann")).to_have_attribute("lang", "de")
    expect(page.get_by_role("heading", name="Welchen würde diese Person unterschreiben?")).to_be_visible()
    paper, ink = page.locator(".ann-foot").evaluate("foot => [getComputedStyle(foot).backgroundColor, getComputedStyle(foot).color]")
    assert max(map(int, re.findall(r"\d+", paper)[:3])) < 60 < 180 < min(map(int, re.findall(r"\d+", ink)[:3]))
    for box in page.locator(".ann-answers button").all():
        size = box.bounding_box()
        assert size["width"] >= 44 and size["height"] >= 44 and size["y"] + size["height"] <= SIZES["phone"]["height"]
    assert page.locator("kbd:visible").count() == 0
    top = page.locator(".ann-answers").bounding_box()["y"]
    page.get_by_role("button", name="Beide schlecht").tap()
    page.get_by_role("button", name="B", exact=True).last.tap()
    assert page.locator(".ann-answers").bounding_box()["y"] == top  # nothing moves under the thumb
    page.get_by_role("group", name="Wie deutlich?").get_by_role("button", name="deutlich").tap()
    page.get_by_role("button", name="Gründe nennen").tap()
    page.get_by_role("group", name=re.compile("^Stil")).get_by_role("button", name="Gleich").tap()
    page.get_by_role("button", name="Wortwahl").tap()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Speichern").tap()
    expect(visit.status).to_contain_text("Gespeichert: B, deutlich.")
    visit.at_pair(2)
    kept = by(served, me)[0]
    assert (kept.outcome, kept.strength, kept.dims, kept.tags, kept.input_kind) == ("B", "clearly", {"style": "same"}, ("words",), "touch")
    page.get_by_role("button", name="Letzte zehn").tap()
    expect(page.get_by_role("heading", name="Ihre letzten zehn Antworten")).to_be_focused()
    page.go_back()  # the browser's own Back leaves the list, not the page
    visit.at_pair(2)
    assert len(by(served, me)) == 1
    visit.close()


@pytest.mark.browser
def test_typing_never_votes_and_a_reload_keeps_everything(browser, expect, served):
    token, me = judge(served, "Typist")
    visit = Visit(browser, served, token=token)
    page = visit.page
    visit.at_pair(1)
    visit.press("2", "r")
    expect(page.get_by_label("In your own words")).to_be_focused()
    page.keyboard.type("1 0 9 s u h d ? too long, 1 of 2")
    visit.press("Enter")
    page.wait_for_timeout(1100)
    page.reload()
    visit.at_pair(1)
    expect(visit.status).to_contain_text("Your unfinished answer is back.")
    expect(page.get_by_label("In your own words")).to_have_value("1 0 9 s u h d ? too long, 1 of 2\n")
    expect(page.locator("[data-pick='B']")).to_have_attribute("aria-pressed", "true")
    assert by(served, me) == []
    visit.press("r", "Escape", "Shift+Digit2", "r", "Control+Enter")
    visit.at_pair(2)
    kept = by(served, me)[0]
    assert (kept.outcome, kept.strength, kept.rationale) == ("B", "clearly", "1 0 9 s u h d ? too long, 1 of 2") and kept.ms_visible >= 1000
    visit.press("Control+1", "Alt+2", "Meta+1")  # the browser's own
    expect(page.locator("[data-pick][aria-pressed='true']")).to_have_count(0)
    visit.close()


@pytest.mark.browser
def test_undo_is_a_revision_and_the_last_ten_can_be_changed(browser, expect, served):
    token, me = judge(served, "Changer")
    visit = Visit(browser, served, token=token)
    page = visit.page
    for i in (1, 2):
        visit.at_pair(i)
        visit.press("1", "Enter")
    visit.at_pair(3)
    visit.press("9")  # half an answer to the third pair, which has to survive
    visit.press("u")
    visit.at_pair(2)
    expect(page.locator(".ann-banner")).to_contain_text("You are changing an earlier answer (A, slightly")
    visit.press("0", "Enter")
    expect(visit.status).to_contain_text("Change saved: equally good.")
    visit.at_pair(3)
    expect(page.locator("[data-pick='both_bad']")).to_have_attribute("aria-pressed", "true")
    visit.press("h")
    page.get_by_role("button", name="Change pair 1").click()
    visit.at_pair(1)
    visit.press("2", "Escape")  # thought better of it
    visit.at_pair(3)
    standing, everything = by(served, me), by(served, me, all_of_them=True)
    assert [j.outcome for j in standing] == ["A", "tie"] and len(everything) == 3
    assert everything[-1].revision_of == everything[1].judgment_id and everything[-1].pair_id == everything[1].pair_id
    visit.close()


@pytest.mark.browser
def test_saved_is_said_after_the_reply_and_presses_in_between_do_nothing(browser, expect, served):
    token, me = judge(served, "Hasty")
    visit = Visit(browser, served, token=token)
    page, held = visit.page, []
    visit.at_pair(1)
    page.route(CALLS, lambda route: held.append(route) if call_of(route) == "submit" else route.continue_())
    visit.press("1", "Enter", "Enter", "2", "Enter")
    page.get_by_role("button", name="Saving …").dblclick(force=True)
    expect(visit.status).to_contain_text("Saving …")
    page.wait_for_timeout(400)
    assert len(held) == 1 and "Saved" not in visit.status.inner_text() and by(served, me) == []
    held.pop().continue_()
    expect(visit.status).to_contain_text("Saved: A, slightly.")
    visit.at_pair(2)
    page.unroute(CALLS)
    page.locator("[data-pick='B']").dblclick()
    page.wait_for_timeout(300)
    assert len(by(served, me)) == 1  # a double click chooses and saves nothing
    page.locator("[data-pick='confirm']").dblclick()
    visit.at_pair(3)
    page.wait_for_timeout(300)
    assert [j.outcome for j in by(served, me)] == ["A", "B"]
    visit.close()


@pytest.mark.browser
@pytest.mark.parametrize("reached", [False, True], ids=["lost on the way there", "lost on the way back"])
def test_a_lost_connection_loses_no_answer_and_doubles_none(browser, expect, served, reached):
    token, me = judge(served, "Tunnel")
    visit = Visit(browser, served, token=token)
    page = visit.page
    visit.at_pair(1)

    def cut(route):
        if call_of(route) != "submit":
            return route.continue_()
        if reached:
            route.fetch()
        return route.abort()

    page.route(CALLS, cut)
    visit.press("Shift+Digit2", "r")
    page.keyboard.type("from a tunnel")
    visit.press("Control+Enter")
    expect(page.get_by_role("alert").filter(has_text="Your answer is safe in this browser")).to_be_visible()
    assert len(by(served, me)) == int(reached) and "Saved" not in visit.status.inner_text()
    page.reload()  # impatience
    expect(page.get_by_role("alert").filter(has_text="Your answer is safe in this browser")).to_be_visible(timeout=10_000)
    page.unroute(CALLS)
    page.get_by_role("button", name="Try now").click()
    visit.at_pair(2)
    kept = by(served, me, all_of_them=True)
    assert [(j.outcome, j.strength, j.rationale) for j in kept] == [("B", "clearly", "from a tunnel")]
    visit.close(allowed=OFFLINE)


@pytest.mark.browser
def test_a_second_tab_hears_which_answer_stands(browser, expect, served):
    token, me = judge(served, "Two tabs")
    visit = Visit(browser, served, token=token)
    visit.at_pair(1)
    other = visit.open()
    visit.at_pair(1, other)
    visit.press("Shift+Digit1", "Enter")
    visit.at_pair(2)
    other.keyboard.press("2")
    other.keyboard.press("Enter")
    expect(other.locator(".ann-notice")).to_contain_text("A, clearly. That answer stands")
    visit.at_pair(2, other)
    assert [(j.outcome, j.strength) for j in by(served, me, all_of_them=True)] == [("A", "clearly")]
    visit.close()


@pytest.mark.browser
def test_the_owners_own_question_is_the_one_that_is_asked(browser, expect, campaign):
    campaign.save_settings(CampaignSettings(title="Which text is funnier?"))
    fill(campaign, 2)
    served = Served(campaign)
    door = Visit(browser, served)
    expect(door.page.get_by_role("heading", name="Which text is funnier?")).to_be_visible()
    expect(door.page.get_by_text("You answer this question about them.")).to_be_visible()
    door.close()
    token, _ = judge(served, "Comic")
    visit = Visit(browser, served, token=token)
    visit.at_pair(1)
    expect(visit.page.get_by_role("heading", name="Pair 1 Which text is funnier?")).to_be_visible()
    visit.close()
    served.demo.close(verbose=False)


@pytest.mark.browser
def test_a_break_is_proposed_and_data_can_be_deleted(browser, expect, served):
    token, me = judge(served, "Leaver")
    visit = Visit(browser, served, token=token)
    page = visit.page
    visit.at_pair(1)
    page.evaluate("sessionStorage.setItem('pat-annotate:work', JSON.stringify({ since: Date.now(), pairs: 59 }))")
    visit.press("1", "Enter")
    expect(page.get_by_role("dialog", name="Time for a short break?")).to_be_visible()
    visit.press("2")  # keys do not act behind a dialog
    visit.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("[data-pick][aria-pressed='true']")).to_have_count(0)
    visit.at_pair(2)
    visit.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    visit.press("Escape")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Type DELETE to confirm").fill("yes")
    visit.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="Nothing was deleted")).to_be_visible()
    page.get_by_label("Type DELETE to confirm").fill("delete")
    visit.press("Enter")
    expect(page.locator(".ann-notice")).to_contain_text("Deleted: 1 answer, and you.")
    expect(page.get_by_label("Nickname")).to_be_visible()
    assert by(served, me) == [] and page.evaluate("localStorage.getItem('pat-annotate-token')") is None
    visit.close()


@pytest.mark.browser
def test_a_name_that_is_not_known_any_more_comes_back_to_the_door(browser, expect, served):
    token, me = judge(served, "Erased")
    visit = Visit(browser, served, token=token)
    visit.at_pair(1)
    served.campaign.erase(me)
    visit.press("1", "Enter")
    expect(visit.page.locator(".ann-notice")).to_contain_text("erased")
    expect(visit.page.get_by_label("Nickname")).to_be_visible()
    visit.close()


@pytest.mark.browser
def test_hostile_texts_stay_texts_and_blocked_storage_stops_nothing(browser, expect, tmp_path):
    opened = open_campaign(tmp_path / "votes.db", "owner")
    fill(opened, 3, hostile=True)
    served = Served(opened)
    try:
        visit = Visit(browser, served)
        visit.page.close()
        for name in ("localStorage", "sessionStorage"):
            visit.context.add_init_script(f"Object.defineProperty(window, '{name}', {{ get() {{ throw new DOMException('blocked') }} }})")
        visit.page = page = visit.open()
        page.get_by_label("Nickname").fill(HOSTILE[:60])
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Start").click()
        page.get_by_role("button", name="Try three pairs").click()
        for key in ("2", "1", "0"):
            visit.press(key, "Enter")
            page.wait_for_timeout(450)
            visit.press("Enter")
        visit.at_pair(1)
        expect(page.locator(".ann-texts")).to_contain_text("window.pwned=1")
        assert page.locator(".ann img, .ann script, .ann iframe").count() == 0
        visit.press("1", "r")
        page.keyboard.type(HOSTILE)
        visit.press("Control+Enter")
        visit.at_pair(2)
        visit.press("h")
        expect(page.locator(".ann-past li")).to_have_count(1)
        page.get_by_role("button", name="Settings").click()
        expect(page.locator(".ann-narrow")).to_contain_text(HOSTILE[:40])
        assert served.answers()[0].rationale == HOSTILE
        visit.close(allowed="blocked")
    finally:
        served.demo.close(verbose=False)
        opened.close()


def call_of(route) -> str:
    return json.loads(route.request.post_data or "{}").get("fn_name", "")
