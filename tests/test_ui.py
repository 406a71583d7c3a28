"""The Compose view without a browser: its form, its HTML, how runs and the opening behave, and what the server refuses."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import math
import random
import socket
import string
import threading
import time
import xml.etree.ElementTree as ET
import zlib
from html.parser import HTMLParser

import httpx
import networkx as nx
import pytest
from doubles_ui import HOSTILE, REVIEWS, DoubleCorpus, DoubleWorkbench, app_desk, engine_room
from hypothesis import given, settings
from hypothesis import strategies as st

import app
from pat_core.config import DEMO_CORPUS
from pat_core.corpus import read_corpus
from pat_core.types import AGENTS, Contribution, Query, Review, RunOptions, Snapshot
from pat_core.ui import cards, form, theme
from pat_core.ui.form import Entry, Form, form_of_link, form_values, link_token, query_of, read_form
from pat_core.ui.graph_picture import MAX_PER_COLUMN, picture
from pat_core.ui.middleware import MAX_BODY_BYTES, Guard, content_policy, refused
from pat_core.ui.opening import Opening
from pat_core.ui.runs import Runs

GOOD: dict[str, object] = {"topic": "kettle", "title": "A kettle"}
words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=40).map(str.strip).filter(bool)
named = words.filter(lambda text: any(c.isalnum() for c in text)).map(lambda text: " ".join(text.split()))
entries = st.builds(Entry, words, st.sampled_from(("", "sample")), st.sampled_from((None, 1, 2, 3, 4, 5)))
forms = st.builds(
    Form,
    named,
    words.map(lambda text: " ".join(text.split())),
    st.sampled_from((None, 1, 2, 3, 4, 5)),
    st.integers(0, 2**31 - 1),
    st.lists(entries, max_size=5).map(tuple),
    st.builds(RunOptions, rounds=st.integers(1, 4), temperature=st.sampled_from((0.0, 0.7, 1.5))),
)


# --- the form


@given(forms)
def test_a_form_survives_its_own_fields_and_its_own_link(typed):
    assert read_form(form_values(typed)) == typed
    assert form_of_link(link_token(typed)) == typed


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "topic"),
        ({"topic": "   ", "title": "x"}, "topic"),
        ({"topic": "😀😀"}, "no letters"),
        (GOOD | {"topic": ["kettle"]}, "must be text"),
        (GOOD | {"title": {"a": 1}}, "must be text"),
        (GOOD | {"topic": "x" * 1_000_000}, "1,000,000 characters"),
        (GOOD | {"text_2": "x" * 1_000_000}, "Preference 2 has 1,000,000 characters"),
        (GOOD | {"rating": math.nan}, "1 to 5"),
        (GOOD | {"rating": True}, "1 to 5"),
        (GOOD | {"rating": 2.5}, "2, 3"),
        (GOOD | {"rating": "six"}, "1 to 5"),
        (GOOD | {"text_1": "hm", "rating_1": 9}, "preference 1"),
        (GOOD | {"text_1": "hm", "kind_1": "else"}, "choose one of the two"),
        (GOOD | {"seed": -1}, "seed"),
        (GOOD | {"seed": None}, "seed"),
        (GOOD | {"seed": math.inf}, "seed"),
        (GOOD | {"rounds": 99}, "Rounds"),
        (GOOD | {"n_drafts": [4]}, "Drafts"),
        (GOOD | {"temperature": math.nan}, "Temperature"),
        (GOOD | {"alternatives": ["none", "evil"]}, "must be among"),
        (GOOD | {"alternatives": "none"}, "must be among"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(values, says):
    with pytest.raises(ValueError, match=says) as refusal:
        read_form(values)
    assert str(refusal.value).endswith(".") and len(str(refusal.value)) < 250


def test_odd_input_is_taken_and_explained():
    def notes(**values):
        return " ".join(read_form(GOOD | values).notes)

    assert "no words" in notes(text_1="😀😀😀")
    assert "control character" in notes(text_1="a\x00b\x07c")
    assert "plain characters" in notes(text_1="hello <script>alert(1)</script>")
    assert "does not look English" in notes(text_1="Чайник хороший, но шумный")
    assert "does not look English" in notes(text_1="Der Kessel ist gut, aber sehr laut und viel zu teuer, finde ich jedenfalls")
    assert notes(text_1="It is fine. I like the pour, and my cat does not mind the beep at all.") == ""
    assert read_form(GOOD | {"text_1": "a\x00b"}).entries[0].text == "ab"


def test_a_topic_is_found_by_id_by_name_in_any_case_or_is_free_text():
    corpus = DoubleCorpus()
    by_id, by_name, free = (
        query_of(Form(topic), corpus.topics, corpus.category_of) for topic in ("kettle", "NORRA gooseneck Kettle", "Night ferry")
    )
    assert by_id.topic_id == by_name.topic_id == "kettle" and by_id.topic == "Norra gooseneck kettle" and by_id.category == "products"
    assert (free.topic_id, free.topic, free.category) == ("", "Night ferry", "")


def test_a_kind_the_person_chose_is_kept_and_an_open_one_is_guessed():
    typed = read_form(
        GOOD | {"text_1": "short and dry", "kind_1": "sample", "text_2": "short and dry", "text_3": "I was there. We liked it."}
    )
    kinds = [p.kind for p in query_of(typed, {}, {}).preferences]
    assert kinds == ["sample", "statement", "sample"]


@given(st.one_of(st.none(), st.integers(), st.text(max_size=60), st.binary(max_size=40).map(lambda b: b.hex())))
def test_a_link_that_was_not_made_here_is_refused_with_a_sentence(token):
    with pytest.raises(ValueError, match="damaged"):
        form_of_link(token)


def test_a_link_does_not_unpack_without_bound():
    bomb = base64.urlsafe_b64encode(zlib.compress(b'{"t":"' + b"a" * 4_000_000 + b'"}', 9)).decode().rstrip("=")
    assert len(bomb) < form.MAX_LINK_CHARACTERS
    with pytest.raises(ValueError, match="damaged"):
        form_of_link(bomb)
    noise = random.Random(0)
    long = tuple(Entry("".join(noise.choices(string.ascii_letters, k=2000))) for _ in range(5))
    with pytest.raises(ValueError, match="shorten"):
        link_token(Form("kettle", entries=long))


def test_worked_examples_are_valid_and_about_the_demo_corpus():
    examples = form.load_examples(app.EXAMPLES)
    corpus, _ = read_corpus(DEMO_CORPUS)
    queries = {key: query_of(typed, corpus.topics, corpus.category_of) for key, (_, _, typed) in examples.items()}
    assert len(examples) >= 6
    assert sorted({len(q.preferences) for q in queries.values()})[0] == 0 and {1, 3} <= {len(q.preferences) for q in queries.values()}
    assert [key for key, q in queries.items() if not q.topic_id] == ["unknown-topic"]
    assert all(not typed.notes and typed.title and typed.rating for _, _, typed in examples.values())
    own = {r.text for r in corpus.reviews}
    assert not own & {p.text for q in queries.values() for p in q.preferences}


# --- HTML


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def parsed(html: str) -> Tags:
    parser = Tags()
    parser.feed(html)
    parser.close()
    return parser


def finished(workbench: DoubleWorkbench, topic: str = "kettle") -> Snapshot:
    query = Query(topic=workbench.corpus.topics.get(topic, topic), title="t", topic_id=topic if topic in workbench.corpus.topics else "")
    *_, last = workbench.stream(query, cancel=threading.Event())
    return last


DONE = finished(DoubleWorkbench(word_seconds=0))
PANELS = (
    lambda s: cards.neighbors(s, ""),
    cards.rounds,
    cards.results,
    cards.progress,
)


@settings(max_examples=60)
@given(st.one_of(words, st.just(HOSTILE), st.text(alphabet="<>&\"'/=`{}$ ab\n", max_size=60)))
def test_no_text_from_anywhere_becomes_markup(text):
    def dyed(value):
        if isinstance(value, Review):
            return dataclasses.replace(value, **dict.fromkeys(("user_id", "topic", "title", "text"), text))
        if isinstance(value, RunOptions):
            return value  # a closed set of names, which checks itself
        if dataclasses.is_dataclass(value):
            return dataclasses.replace(value, **{f.name: dyed(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init})
        if isinstance(value, tuple):
            return tuple(text if isinstance(v, str) else dyed(v) for v in value)
        return value

    snapshot = dyed(DONE)
    trace = snapshot.trace
    drafts = tuple(dataclasses.replace(d, completion=dataclasses.replace(d.completion, text=text)) for d in trace.drafts)
    others = tuple(dataclasses.replace(a, text=text, name=text) for a in trace.alternatives)
    snapshot = dataclasses.replace(snapshot, trace=dataclasses.replace(trace, drafts=drafts, alternatives=others))
    for panel in PANELS:
        dirty, clean = parsed(panel(snapshot)), parsed(panel(DONE))
        assert set(dirty.tags) <= set(clean.tags) | {"details", "summary", "blockquote", "p"}
        assert {name for name, _ in dirty.attributes} <= {name for name, _ in clean.attributes} | {"class", "data-fold"}
    if text.strip() and len(text) < 200:
        assert " ".join(text.split()) in " ".join(parsed(cards.results(snapshot)).text.split())


def test_the_neighbors_say_why_they_are_there_and_how_far_was_looked():
    text = parsed(cards.neighbors(DONE, "")).text
    assert (
        "Level 0" in text
        and "same topic" in text
        and "4 on the same topic" in text
        and "short sentences, about 9 words" in text
        and "rated 4 of 5" in text
        and "0.81" in text
    )
    far = dataclasses.replace(DONE, topic_neighbors=tuple(dataclasses.replace(n, level=3) for n in DONE.topic_neighbors))
    assert "near the request, on any topic" in parsed(cards.neighbors(far, "")).text


def test_all_drafts_are_there_and_the_chosen_one_is_marked():
    html = cards.results(DONE)
    assert html.count("chosen</b>") == 1 and all(f"Draft {i + 1} · reward" in html for i in range(4))
    assert all(name in parsed(html).text for name in form.ALTERNATIVE_NAMES.values())


@pytest.mark.parametrize(
    ("style", "topic", "says"),
    [
        (0.09, -0.02, "topic summary lowered"),
        (0.0, 0.05, "style summary made no difference"),
        (-0.1, -0.2, "without the style or the topic agent"),
    ],
)
def test_the_contribution_is_said_in_words(style, topic, says):
    share = Contribution(style=style, topic=topic, full=0.3 + style + topic, neither=0.3, style_only=0.3, topic_only=0.3)
    html = cards.contribution(share)
    assert says in parsed(html).text
    assert html.count("pat-minus") == (style < 0) + (topic < 0)


def test_while_it_runs_each_agent_has_a_column_and_round():
    for snapshot in DoubleWorkbench(word_seconds=0).stream(Query("Kettle", "t", topic_id="kettle"), cancel=threading.Event()):
        if snapshot.stage == "reasoning" and snapshot.rounds:
            text = parsed(cards.rounds(snapshot)).text
            assert all(f"{agent.capitalize()} agent" in text for agent in AGENTS) and f"Round {len(snapshot.rounds)}" in text
            assert "data-live" in cards.rounds(snapshot)
    assert "data-live" not in cards.rounds(snapshot) + cards.results(snapshot)


def test_the_graph_is_well_formed_labelled_and_bounded():
    graph = nx.Graph()
    graph.add_node("v", kind="visitor", label="You", score=1.0)
    for i in range(30):
        graph.add_node(f"u{i}", kind="user", label=HOSTILE if i == 0 else f"user {i}", score=1 - i / 30)
        graph.add_node(f"t{i}", kind="topic", label=f"topic {i} {HOSTILE}", score=0.0)
        graph.add_edges_from([("v", f"u{i}"), (f"u{i}", f"t{i}"), (f"u{i}", "t0")])
    graph.add_edge("v", "t29")
    html = picture(graph, frozenset({HOSTILE, "user 1"}), frozenset({"user 1", "user 2"}))
    root = ET.fromstring(f"<div>{html}</div>")
    for svg in root.findall("svg"):
        labels = [e.text for e in svg.iter("text")]
        assert svg.get("role") == "img" and svg.find("title") is not None and svg.find("desc") is not None
        assert len(labels) == 1 + 2 * MAX_PER_COLUMN and {e.tag for e in svg.iter()} <= {
            "svg",
            "g",
            "title",
            "desc",
            "path",
            "circle",
            "rect",
            "text",
        }
        people = [label for label in labels if str(label).startswith("user")]
        assert people[:2] == ["user 1", "user 2"] and heights(svg, "user 1") < heights(svg, "user 2") < heights(svg, "user 9"), (
            "nearest on top"
        )
        assert any(str(label).startswith("topic 29") for label in labels), "what the visitor writes about is never trimmed away"
    assert len(root.findall("svg")) == 2
    assert picture(nx.Graph(), frozenset(), frozenset()) == ""


def heights(svg: ET.Element, label: str) -> float:
    return next(float(e.get("y", "")) for e in svg.iter("text") if e.text == label)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_every_text_stands_out_from_every_ground(palette):
    for text, ground in theme.PAIRS:
        low, high = sorted((luminance(palette[text]), luminance(palette[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"


def test_the_stylesheet_names_no_color_of_its_own_and_fetches_nothing():
    sheet = "".join(path.read_text(encoding="utf-8") for path in theme.STYLESHEETS.glob("*.css"))
    assert "#fff" not in sheet and "url(" not in sheet and "@import" not in sheet
    named = {part.split(")")[0] for part in sheet.split("var(--pat-")[1:]}
    assert named <= set(theme.LIGHT) and set(theme.LIGHT) == set(theme.DARK)


# --- opening and runs


def test_the_opening_says_what_it_does_then_what_there_is():
    seen = []
    opening = Opening(lambda report: engine_room())
    loading = cards.opening(opening.status, "")
    opening.start()
    assert opening.finished.wait(5) and opening.room is not None
    assert "Starting up" in loading and "Test corpus: 9 reviews by 5 people on 3 topics" in cards.opening(opening.status, "an engine")

    def slow(report):
        for i in range(3):
            time.sleep(0.3)
            report("Learning the graph", i + 1, 10)
            seen.append(opening.status)
        raise ValueError("No network. Copy model.gguf to ~/x <b>by hand</b>.")

    opening = Opening(slow)
    opening.start()
    assert opening.finished.wait(5) and opening.room is None
    assert seen[-1].share == 0.3 and 1 < seen[-1].seconds_left < 4
    html = cards.opening(opening.status, "")
    assert 'role="alert"' in html and "Copy model.gguf" in html and "<b>by hand" not in html


def test_an_unforeseen_failure_of_the_opening_is_shown_too():
    opening = Opening(lambda report: 1 / 0)
    opening.start()
    assert opening.finished.wait(5) and opening.status.state == "failed" and "ZeroDivisionError" in opening.status.sentence


def snapshots(n: int, seconds: float = 0.0):
    def start(cancel):
        for i in range(n):
            if cancel.is_set():
                return
            time.sleep(seconds)
            yield Snapshot("writing", float(i))

    return start


def test_a_run_is_thinned_but_its_last_word_always_comes():
    started = time.monotonic()
    seen = [s.seconds for s in Runs().follow(snapshots(500)) if s]
    assert seen[-1] == 499 and len(seen) <= 3 and time.monotonic() - started < 3
    slow = [s for s in Runs().follow(snapshots(3, 0.6)) if s is None]
    assert slow, "a silent model must not keep Stop and a closed tab waiting"


def test_a_closed_page_frees_the_model_for_the_next_run():
    bench, runs = DoubleWorkbench(word_seconds=0.05), Runs()
    query = Query("Kettle", "t", topic_id="kettle")
    first = runs.follow(lambda cancel: bench.stream(query, cancel=cancel))
    next(first)
    first.close()
    started = time.monotonic()
    second = runs.follow(lambda cancel: bench.stream(query, cancel=cancel))  # the double refuses to run twice at once
    while next(second) is None:
        pass
    assert time.monotonic() - started < 3 and bench.cancelled == 1
    runs.stop_all()
    assert [s for s in second if s][-1].stage == "stopped"


def test_what_a_run_raises_reaches_its_follower():
    with pytest.raises(ValueError, match="no such thing"):
        list(Runs().follow(lambda cancel: DoubleWorkbench(fail=ValueError("no such thing")).stream(Query("a", "b"), cancel=cancel)))


# --- the server


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, None),
        ("POST", "/gradio_api/queue/join", {"host": "a.b:1", "origin": "http://a.b:1"}, None),
        ("POST", "/gradio_api/queue/join", {"host": "inner", "origin": "https://a.b", "sec-fetch-site": "same-origin"}, None),
        ("POST", "/gradio_api/queue/join", {"host": "a.b"}, None),
        ("POST", "/gradio_api/queue/join", {"host": "a.b", "origin": "https://evil.example"}, 403),
        ("POST", "/gradio_api/queue/join", {"host": "a.b", "origin": "null"}, 403),
        ("GET", "/gradio_api/queue/data", {"host": "a.b", "sec-fetch-site": "cross-site"}, 403),
        ("GET", "/", {"host": "a.b", "sec-fetch-site": "cross-site"}, None),
        ("POST", "/gradio_api/upload", {"host": "a.b"}, 403),
        ("GET", "/gradio_api/deep_link", {}, 403),
        ("GET", "/gradio_api/proxy=http://169.254.169.254/", {}, 403),
        ("POST", "/gradio_api/queue/join", {"content-length": str(MAX_BODY_BYTES + 1)}, 413),
        ("POST", "/gradio_api/queue/join", {"content-length": "many"}, 413),
    ],
)
def test_what_the_guard_lets_through(method, path, headers, status):
    answer = refused(method, path, headers)
    assert (answer and answer[0]) == status


def test_a_body_without_a_length_is_cut_off_at_the_cap():
    sent = []

    async def inner(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    async def receive():
        return {"type": "http.request", "body": b"x" * 1_000_000, "more_body": True}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(inner)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    assert sent[0]["status"] == 413 and b"larger than 4 MB" in sent[1]["body"]


def test_the_policy_forbids_inline_handlers_and_other_hosts():
    policy = content_policy()
    assert "script-src-attr 'none'" in policy and "connect-src 'self';" in policy and "http" not in policy
    assert "https://huggingface.co" in content_policy(("'self'", "https://huggingface.co"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The real app on a free port with the double as its engine room."""
    bench = DoubleWorkbench()
    desk = app_desk(lambda report: engine_room(bench), tmp_path_factory.mktemp("server"))
    demo = app.build_app(desk)
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
    desk.opening.start()
    assert desk.opening.finished.wait(10)
    yield demo, url.rstrip("/"), bench
    demo.close(verbose=False)


def handler(demo, name: str):
    return next(d for d in demo.get_config_file()["dependencies"] if d["api_name"] == name)


def called(server, name: str, values: dict[str, object] | None = None, session: str = "s") -> list[dict]:
    """Every update of a handler called by plain HTTP with its fields' first values but for ``values`` by label."""
    demo, url, _ = server
    config = demo.get_config_file()
    dependency = handler(demo, name)
    components = {c["id"]: c["props"] for c in config["components"]}
    data = [(values or {}).get(str(components[i].get("label")), components[i].get("value")) for i in dependency["inputs"]]
    body = json.dumps({"data": data, "fn_index": dependency["id"], "session_hash": session})
    joined = httpx.post(f"{url}/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
    assert joined.status_code == 200, joined.text
    updates = []
    with httpx.stream("GET", f"{url}/gradio_api/queue/data", params={"session_hash": session}, timeout=20) as stream:
        for line in stream.iter_lines():
            message = json.loads(line[5:]) if line.startswith("data:") else {}
            if message.get("output"):
                updates.append(message)
            if message.get("msg") == "process_completed":
                return updates
    raise AssertionError("the stream ended early")


def test_a_run_by_plain_http_ends_with_all_panels(server):
    last = json.dumps(called(server, "on_write", {"Topic": "kettle", "Title": "Hello"})[-1])
    assert "Done" in last and "PGraphRAG style" in last and "Round 2" in last and "pat-graph-title-wide" in last
    assert server[2].queries[-1].title == "Hello"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"Topic": ["a"], "Title": "x"}, "must be text"),
        ({"Topic": {"path": "/etc/passwd"}, "Title": "x"}, "must be text"),
        ({"Topic": "kettle", "Seed": math.nan}, "whole number"),
        ({"Topic": "kettle", "Temperature": math.nan}, "Temperature"),
        ({"Topic": "kettle", "Rounds": 1e9}, "maximum"),
        ({"Topic": "kettle", "Rating": math.nan}, "not in the list"),
        ({"Topic": "kettle", "Rating": True}, "not in the list"),
        ({"Topic": "kettle", "Preference 3": "x" * 1_000_000}, "1,000,000 characters"),
        ({"Topic": "\ud800\x00"}, "topic"),
    ],
)
def test_bad_values_by_plain_http_get_a_sentence_and_no_run(server, values, says):
    n_runs = len(server[2].queries)
    updates = json.dumps(called(server, "on_write", values))
    assert says in updates and "Traceback" not in updates
    assert len(server[2].queries) == n_runs


def test_handlers_that_need_a_run_say_so_without_one(server):
    assert "press Write first" in json.dumps(called(server, "on_again", session="nobody"))


def test_every_handler_is_private_and_none_skips_the_queue_to_the_model(server):
    demo, url, _ = server
    for dependency in demo.get_config_file()["dependencies"]:
        assert dependency["api_visibility"] == "private", dependency["api_name"]
    for name in ("on_write", "on_again"):
        reply = httpx.post(f"{url}/gradio_api/run/{name}", json={"data": [], "fn_index": handler(demo, name)["id"], "session_hash": "x"})
        assert reply.status_code in (404, 403) and not reply.json().get("data")


@pytest.mark.parametrize(
    "path", ["/monitoring", "/gradio_api/runs", "/gradio_api/mcp/", "/docs", "/gradio_api/file=/etc/passwd", "/gradio_api/file=app.py"]
)
def test_pages_that_nobody_needs_are_closed(server, path):
    assert httpx.get(server[1] + path).status_code in (403, 404)


def test_uploads_and_foreign_pages_are_refused_and_headers_set(server):
    url = server[1]
    assert httpx.post(f"{url}/gradio_api/upload", files={"files": b"x"}).status_code == 403
    assert httpx.post(f"{url}/gradio_api/queue/join", json={}, headers={"origin": "https://evil.example"}).status_code == 403
    page = httpx.get(url)
    assert "script-src-attr 'none'" in page.headers["content-security-policy"] and page.headers["x-content-type-options"] == "nosniff"


# --- the program


def test_a_missing_file_or_a_wrong_setting_is_a_sentence_and_status_2(capsys, monkeypatch, tmp_path):
    assert app.main(["--data", str(tmp_path / "none.jsonl"), "--no-browser"]) == 2
    assert "There is no file" in capsys.readouterr().err
    monkeypatch.setenv("PAT_ENGINE", "magic")
    assert app.main(["--no-browser"]) == 2
    assert "PAT_ENGINE='magic'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        app.main(["--port", "99999"])
    assert end.value.code == 2


def test_a_taken_port_is_a_sentence_and_status_2(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PAT_HOME", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert app.main(["--port", str(taken.getsockname()[1]), "--no-browser"]) == 2
    assert "--port" in capsys.readouterr().err


def test_the_doubles_reviews_are_reviews():
    assert len({r.review_id for r in REVIEWS}) == len(REVIEWS)
