"""Another set of adapters in place between two runs: no run is of two sets, what fails changes nothing, everyone is told what serves."""

import itertools
import json
import random
import re
import threading
import time
from contextlib import nullcontext
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from doubles import HashEmbedder, ScriptedLLM
from doubles_ui import HOSTILE, engine_room
from test_adapters import BASE, lora, published, save
from test_pipeline import QUERY, corpus

from pat_core import adapters, serving
from pat_core.adapters import AdapterError, active_adapters
from pat_core.graph import open_style_graph
from pat_core.lineage import Gain, role_versions
from pat_core.llm.types import LLMError
from pat_core.pipeline import Workbench
from pat_core.serving import Serving
from pat_core.topics import TopicSearch
from pat_core.types import ADAPTER_ROLES, RunOptions
from pat_core.ui.runs import Runs
from pat_core.ui.versions import fold, versions_html, when

REAL_SHIPPED = adapters.SHIPPED
OPTIONS = RunOptions(n_drafts=2, alternatives=("none", "lamp"))


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture(scope="module")
def style_graph(tmp_path_factory):
    return open_style_graph(corpus(), tmp_path_factory.mktemp("cache"))


class Engine(ScriptedLLM):
    """Every text of it says which engine wrote it. Once closed it writes nothing more, as an engine whose process has ended."""

    def __init__(self, number, adopted, gate=None):
        super().__init__(self._answer, {role: folder.name for role, folder in adopted.items()})
        self.number, self.gate, self.closed = number, gate, False

    def _answer(self, request):
        return f"Similar writers met engine {self.number} here.\nInference: They like it.\nGuidance: Praise it, seed {request.seed}."

    def generate(self, requests, cancel=None):
        for event in super().generate(requests, cancel):
            if self.closed:
                raise LLMError(f"engine {self.number} is closed")
            yield event
        if self.gate:
            self.gate()

    def close(self):
        self.closed = True


class House:
    """A registry with versions of every role, a workbench and what serves it; ``engines`` are all that were ever opened."""

    def __init__(self, home, style_graph=None, n=3, open_engine=None):
        self.home, self.registry, self.runs = home, home / "adapters", Runs()
        self.named = {role: [self.publish(role, 10 * i + j) for j in range(n)] for i, role in enumerate(ADAPTER_ROLES)}
        self.engines = []
        first = self.open(active_adapters(home, BASE))
        self.bench = SimpleNamespace(llm=first)
        if style_graph:
            self.bench = Workbench(corpus(), style_graph, TopicSearch(corpus(), HashEmbedder(), home), first)
        self.serving = Serving(self.bench, home, BASE, open_engine or self.open, self.runs.between)

    def publish(self, role, seed, registry=None):
        return published(save(self.home / "trained", lora(seed)), registry or self.registry, role).version

    def open(self, adopted):
        self.engines.append(Engine(len(self.engines), adopted))
        return self.engines[-1]

    def damage(self, version):
        (self.registry / version / "adapter_model.safetensors").write_bytes(b"zzz")


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def completions(trace):
    written = [c for r in trace.rounds for c in (r.style, r.topic, r.draft) if c]
    return [*written, *(d.completion for d in trace.drafts), *(a.completion for a in trace.alternatives if a.completion)]


def writer(trace, engines):
    """The number of the engine that wrote all of ``trace``, whose completions name its adapters and no other's."""
    numbers = {int(re.search(r"engine (\d+)", c.text)[1]) for c in completions(trace)}
    assert len(numbers) == 1, f"one run was written by engines {sorted(numbers)}"
    [number] = numbers
    assert {(c.role, c.adapter) for c in completions(trace)} <= {*engines[number].adapters.items(), ("base", "")}
    return number


# Between two runs


def test_a_hundred_runs_under_swaps_are_each_of_one_set_of_adapters(tmp_path, style_graph):
    house = House(tmp_path, style_graph)
    traces, failures, done = [], [], threading.Event()

    def visit():
        try:
            for _ in range(10):
                *_, last = (s for s in house.runs.follow(lambda cancel: house.bench.stream(QUERY, OPTIONS, cancel=cancel)) if s)
                traces.append([last.trace])
        except Exception as error:  # told by the test
            failures.append(error)

    def make_pairs():  # as the job that makes pairs does: a run and its variants in one turn
        with house.runs.turn():
            trace = house.bench.run(QUERY, OPTIONS)
            traces.append([trace, *house.bench.vary(trace, "generator", 2, OPTIONS)])

    def change():
        rng = random.Random(0)
        while not done.is_set():
            role = rng.choice(ADAPTER_ROLES)
            house.serving.activate(role, rng.choice(house.named[role]))

    swapper = threading.Thread(target=change)
    visitors = [threading.Thread(target=visit) for _ in range(10)]
    for thread in (swapper, *visitors):
        thread.start()
    for thread in visitors:
        thread.join()
    make_pairs()
    done.set()
    swapper.join()

    assert failures == [] and len(traces) == 101
    written = [{writer(t, house.engines) for t in together} for together in traces]
    assert all(len(numbers) == 1 for numbers in written)
    assert len({n for numbers in written for n in numbers}) >= 10, "the visitors kept the engines from being exchanged"
    assert [e.number for e in house.engines if not e.closed] == [house.bench.llm.number]


def test_a_run_at_work_ends_on_the_engine_it_began_with(tmp_path, style_graph):
    house = House(tmp_path, style_graph)
    reached, go_on = threading.Event(), threading.Event()

    def gate():
        reached.set()
        assert go_on.wait(10)

    old = house.bench.llm
    old.gate = gate
    snapshots = house.runs.follow(lambda cancel: house.bench.stream(QUERY, OPTIONS, cancel=cancel))
    next(snapshots)
    assert reached.wait(10)
    said = []
    other = house.named["style"][0]
    change = threading.Thread(target=lambda: said.append(house.serving.activate("style", other)))
    change.start()
    while len(house.engines) < 2 or not house.engines[1].requests:
        time.sleep(0.01)
    change.join(0.3)
    assert change.is_alive() and house.bench.llm is old and not old.closed  # the new one is there and waits
    go_on.set()
    *_, last = (s for s in snapshots if s)
    change.join(10)
    assert writer(last.trace, house.engines) == 0 and old.closed
    assert said == [f"{other} now serves the style agent."] and writer(house.bench.run(QUERY, OPTIONS), house.engines) == 1


def test_activating_and_going_back_tell_what_serves_and_keep_the_registry_in_line(house):
    first, second, third = house.named["style"]
    assert house.serving.activate("style", first, by="Ada") == f"{first} now serves the style agent."
    assert house.serving.roll_back("style", by="Bob") == f"{third} now serves the style agent."
    assert house.serving.roll_back("style") == f"{second} now serves the style agent."
    assert house.bench.llm.adapters["style"] == active_adapters(house.home, BASE)["style"].name == second
    assert [(c.version, c.action, c.by) for c in house.serving.history()[:3]] == [
        (second, "rolled back", ""), (third, "rolled back", "Bob"), (first, "activated", "Ada")
    ]  # fmt: skip
    n = len(house.engines)
    assert second in house.serving.activate("style", second) and len(house.engines) == n  # it serves already: nothing to load


def test_going_back_to_what_is_shipped_and_to_the_base_model(tmp_path, shipped):
    house = House(tmp_path, n=1)
    assert house.serving.roll_back("topic") == "The base model now serves the topic agent."
    with pytest.raises(AdapterError, match=r"no earlier version for topic to go back to\. The base model still serves the topic agent\."):
        house.serving.roll_back("topic")
    ours = house.publish("generator", 99, shipped)
    assert house.serving.roll_back("generator") == f"{ours} now serves the generator."


# What fails changes nothing


def no_memory(adopted):
    raise MemoryError


def no_gpu_memory(adopted):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def no_process(adopted):
    raise LLMError("the OpenVINO process ended with code -9; try again")


@pytest.mark.parametrize(
    ("open_engine", "sentence"), [(no_memory, "out of memory"), (no_gpu_memory, "2.00 GiB"), (no_process, "ended with code -9")]
)
def test_an_engine_that_cannot_be_loaded_leaves_the_old_one_serving(tmp_path, open_engine, sentence):
    house = House(tmp_path, open_engine=open_engine)
    before, old = house.serving.history(), house.bench.llm
    first, *_, now = house.named["topic"]
    with pytest.raises(AdapterError, match=rf"could not be loaded .*{re.escape(sentence)}.*{now} still serves the topic agent\."):
        house.serving.activate("topic", first)
    assert house.bench.llm is old and not old.closed and house.serving.history() == before
    with pytest.raises(AdapterError, match="still serves the topic agent"):
        house.serving.roll_back("topic")
    assert active_adapters(house.home, BASE)["topic"].name == now and house.serving.history() == before


def test_an_engine_that_writes_no_words_is_closed_and_not_put_in_place(tmp_path):
    house = House(tmp_path)
    old = house.bench.llm

    def mute(adopted):
        engine = house.open(adopted)
        engine.answer = lambda request: "\ufffd\ufffd 12"
        return engine

    house.serving._open = mute
    with pytest.raises(AdapterError, match=r"first answer of style-\w+ has no word.* still serves the style agent"):
        house.serving.activate("style", house.named["style"][0])
    assert house.bench.llm is old and [e.closed for e in house.engines] == [False, True]


def test_a_version_that_is_damaged_while_its_engine_loads_is_not_activated(tmp_path):
    house = House(tmp_path)
    first, *_, now = house.named["style"]

    def meanwhile(adopted):
        house.damage(first)
        return house.open(adopted)

    house.serving._open = meanwhile
    with pytest.raises(AdapterError, match=f"{first} is damaged.*{now} still serves"):
        house.serving.activate("style", first)
    assert house.bench.llm.number == 0 and [e.closed for e in house.engines] == [False, True]
    assert active_adapters(house.home, BASE)["style"].name == now


def test_what_is_refused_is_not_loaded(house):
    first, second, now = house.named["style"]
    house.damage(first)
    manifest = house.registry / second / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"base_sha256": "c" * 64}))
    for version, why in (
        (first, "damaged"),
        (second, "not the model that is loaded"),
        (house.named["topic"][0], "is for topic"),
        ("style-0", "no adapter version"),
        ("../trained", "no adapter version"),
    ):
        with pytest.raises(AdapterError, match=rf"{why}.*\. {now} still serves the style agent\.$"):
            house.serving.activate("style", version)
    with pytest.raises(AdapterError, match="unknown role 'base'"):
        house.serving.activate("base", now)
    assert len(house.engines) == 1


def test_a_model_without_a_registry_says_what_its_server_names():
    elsewhere = Serving(SimpleNamespace(llm=ScriptedLLM(str, {"style": "style"})), REAL_SHIPPED, "", no_memory, nullcontext)
    elsewhere.refresh()
    assert {r.role: (r.serving, r.versions) for r in elsewhere.versions()} == {
        "style": ("style", ()),
        "topic": ("", ()),
        "generator": ("", ()),
    }
    with pytest.raises(AdapterError, match="has no adapters here"):
        elsewhere.activate("style", "style-0")
    assert "nothing else is known of it here" in fold(elsewhere.versions(), "a server")


# Another process


def until(fulfilled, seconds=10):
    end = time.monotonic() + seconds
    while not fulfilled():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_what_another_process_activates_is_put_in_place(house, monkeypatch):
    monkeypatch.setattr(serving, "WATCH_SECONDS", 0.02)
    house.serving.watch()
    new = house.publish("generator", 77)  # as a round trained beside the app does
    until(lambda: house.bench.llm.adapters["generator"] == new and house.engines[0].closed)
    adapters.roll_back(house.registry, "generator", BASE)
    until(lambda: house.bench.llm.adapters["generator"] == house.named["generator"][-1])
    (house.registry / "active.json").unlink()
    until(lambda: house.bench.llm.adapters == {})
    n = len(house.engines)
    time.sleep(0.2)
    assert len(house.engines) == n and house.serving.stop(5)
    house.publish("generator", 78)
    time.sleep(0.2)
    assert len(house.engines) == n


def test_what_another_process_activates_and_cannot_be_loaded_is_tried_once_and_told(house, monkeypatch):
    monkeypatch.setattr(serving, "WATCH_SECONDS", 0.02)
    tried, works = [], threading.Event()

    def sometimes(adopted):
        tried.append(adopted)
        return (house.open if works.is_set() else no_gpu_memory)(adopted)

    house.serving._open = sometimes
    house.serving.watch()
    now = house.bench.llm.adapters
    new = house.publish("style", 77)
    until(lambda: house.serving.trouble)
    time.sleep(0.2)
    assert len(tried) == 1 and house.bench.llm.adapters == now and "serves on" in house.serving.trouble
    [style, *_] = house.serving.versions()
    assert (style.serving, style.chosen) == (now["style"], new)
    page = versions_html(engine_room()._replace(serving=house.serving))
    assert "could not be loaded" in page and "GiB" not in page
    works.set()
    house.serving.activate("style", new)
    assert house.serving.trouble == "" and house.serving.versions()[0].serving == new
    house.serving.stop(5)


# What is known of the versions


def test_what_serves_is_told_with_its_data_its_pairs_and_its_measured_change(tmp_path, shipped):
    ours = published(save(tmp_path / "trained", lora(5)), shipped, "style").version
    data = {"files": ["amazon_dev.json"], "n_pairs": 24, "sources": {"human": 20, "metric": 4}}
    dev = {"total": {"mean": 0.0312, "low": 0.0101, "high": 0.0523, "n": 30}}
    made = adapters.publish(
        save(tmp_path / "trained", lora(6)), tmp_path / "adapters", "style", "SmolLM2", BASE, data=data, settings={"kind": "DPO round"},
        metrics={"dev": dev}, parent=ours, judgment_ids=("a", "b"), by="rounds",
    )  # fmt: skip
    style, topic, _ = role_versions(tmp_path, BASE, {"style": made.version})
    facts = style.facts(made.version)
    assert (facts.gain, facts.n_pairs, facts.n_votes, facts.data) == (Gain(0.0312, 0.0101, 0.0523, 30), 24, 2, ("amazon_dev.json",))
    assert (facts.kind, facts.by, facts.parent, facts.serving, facts.shipped) == ("DPO round", "rounds", ours, True, False)
    assert (style.earlier, style.chosen, style.since, topic.serving) == ("", made.version, style.changes[0].at, "")
    assert [v.version for v in style.versions] == [made.version, ours] and style.versions[1].shipped
    page = re.sub(r"<[^>]+>", "", fold((style, topic), "SmolLM2 on OpenVINO"))
    for told in (
        "SmolLM2 on OpenVINO", made.version, when(style.since), "24 pairs of texts, 20 preferred by people’s votes, 4 preferred by the",
        "2 votes among them; files: amazon_dev.json", "+0.031 [+0.010, +0.052]", "30 people", "better, beyond noise", ours,
        "The base model, without an adapter.",
    ):  # fmt: skip
        assert told in page, told
    assert "rounds" not in page  # who changed something is left to the owner


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


ODD = (None, 3, -1, 1.5, float("nan"), 10**300, True, HOSTILE, "\ud800", [HOSTILE], {"files": HOSTILE}, {HOSTILE: {HOSTILE: 1}}, [[[]]], {})


def test_a_hostile_manifest_is_escaped_and_breaks_nothing(tmp_path):
    version = published(save(tmp_path / "trained", lora(1)), tmp_path / "adapters", "style").version
    path = tmp_path / "adapters" / version / "manifest.json"
    manifest = json.loads(path.read_text())
    good = fold(role_versions(tmp_path, BASE, {"style": version}), "engine")
    fields = ("data", "settings", "metrics", "parent", "made_at", "base", "judgment_ids")
    cases = [*itertools.product(fields, ODD), ("made_at", "0001-01-01T00:00:00+14:00")]
    for odd in ODD:
        figures = dict.fromkeys(("mean", "low", "high", "n"), odd)
        cases += [("metrics", {"dev": {"total": value}, "n_examples": odd}) for value in (odd, figures)]
        cases += [("data", {"files": odd, "n_pairs": odd, "sources": odd, HOSTILE: {"n": 1}}), ("settings", {"kind": odd})]
    for name, odd in cases:
        path.write_text(json.dumps(manifest | {name: odd}))
        page = fold(role_versions(tmp_path, BASE, {"style": version}), HOSTILE)
        assert Tags(page).tags <= Tags(good).tags | {"b"} and "window.pwned" in page
        page.encode()
    path.write_text(json.dumps(manifest | {"version": HOSTILE, "parent": HOSTILE * 99}))
    assert len(fold(role_versions(tmp_path, BASE, {"style": version}), "engine")) < 8_000
    change = dict.fromkeys(("version", "previous", "action", "at"), HOSTILE) | {"role": "style"}
    (tmp_path / "adapters" / "active.json").write_text(json.dumps({"style": version, "history": [change]}))
    page = fold(role_versions(tmp_path, BASE, {"style": HOSTILE}), HOSTILE)
    assert Tags(page).tags <= Tags(good).tags | {"b"}


# The embedded model


def test_after_a_swap_the_texts_are_those_of_a_freshly_opened_engine(embedded_home, tmp_path, shipped):
    from pat_core.config import Config
    from pat_core.llm import adapter_base, open_llm
    from pat_core.llm.types import Request, Sampling
    from pat_core.lora import CANARIES

    config = Config(home=embedded_home, engine="openvino")
    [trained] = REAL_SHIPPED.glob("style-*")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / trained.name).symlink_to(trained, target_is_directory=True)

    def texts(llm):
        asked = [
            Request(f"{role}-{seed}", llm.prompt(CANARIES["style"][0]), role, Sampling(0.8, 0.95), seed, max_new_tokens=24)
            for role in ("style", "generator")
            for seed in (0, 1)
        ]
        return {e.key: e.text for e in llm.generate(asked) if e.finish}

    bench = SimpleNamespace(llm=open_llm(config, adapters={}))
    bare, first = texts(bench.llm), bench.llm
    changing = Serving(bench, tmp_path, adapter_base(config), lambda adopted: open_llm(config, adapters=adopted), nullcontext)
    try:
        assert changing.activate("style", trained.name) == f"{trained.name} now serves the style agent." and not first._worker.alive
        adapted = texts(bench.llm)
        fresh = open_llm(config, adapters={"style": trained})
        try:
            assert adapted == texts(fresh)
        finally:
            fresh.close()
        assert all(adapted[key] != bare[key] for key in bare if key.startswith("style"))
        assert changing.roll_back("style") == "The base model now serves the style agent." and texts(bench.llm) == bare
    finally:
        bench.llm.close()
