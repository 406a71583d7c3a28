"""The Annotate page's requests by plain HTTP, as somebody without the page would send them: every bad one is refused, none counts twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from doubles_ui import app_desk, engine_room
from store_data import campaign

import app
from annotate.bench import server_component
from annotate.types import Annotator, Judgment, new_id


class Served:
    """The real app on a free port, with six pairs to judge and no model."""

    def __init__(self, folder) -> None:
        self.desk = app_desk(lambda report: engine_room(), folder)
        made = campaign(6)
        self.desk.campaign.add_made([made.item], made.candidates, made.pairs)
        self.demo = app.build_app(self.desk)
        _, url, _ = self.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **app.launch_settings(False))
        self.url = url.rstrip("/")
        self.client = httpx.Client(timeout=30)
        self.component = server_component(self.client.get(f"{self.url}/config").json(), "submit")

    @property
    def answers(self) -> tuple[Judgment, ...]:
        return self.desk.campaign.store.judgments()

    def post(self, function: str, data: Any, **changed: Any) -> httpx.Response:
        body = {"session_hash": "a", "component_id": self.component, "fn_name": function, "data": data} | changed.pop("body", {})
        return self.client.post(f"{self.url}/gradio_api/component_server", content=json.dumps(body), **changed)

    def ask(self, function: str, **data: Any) -> dict[str, Any]:
        reply = self.post(function, data)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def join(self, nickname: str = "Ada") -> str:
        return self.ask("join", nickname=nickname, consent=True)["token"]

    def shown(self, token: str) -> dict[str, Any]:
        pair = self.ask("next", token=token)["pair"]
        return {"token": token, "id": new_id(), "pair": pair["pair"], "ticket": pair["ticket"], "outcome": "A"}


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    it = Served(tmp_path)
    yield it
    it.client.close()
    it.demo.close(verbose=False)
    it.desk.campaign.close()


def code(reply: dict[str, Any]) -> str:
    return reply["refused"]["code"]


def test_forged_and_replayed_answers_are_refused_and_nothing_counts_twice(served):
    ada, bob = served.join(), served.join("Bob")
    hers, his = served.shown(ada), served.shown(bob)
    assert code(served.ask("submit", **hers | {"outcome": "left"})) == "shape"
    assert code(served.ask("submit", **hers | {"token": bob})) == "ticket"  # another person's pair
    assert code(served.ask("submit", **hers | {"ticket": his["ticket"]})) == "ticket"
    assert code(served.ask("submit", **hers | {"pair": "0" * 64})) == "ticket"  # a pair never shown
    assert code(served.ask("submit", **hers | {"token": ada[:-1] + ("0" if ada[-1] != "0" else "1")})) == "token"
    assert code(served.ask("submit", **hers | {"rationale": "x" * 10**6})) == "shape"
    assert code(served.ask("submit", **hers | {"revision_of": new_id()})) == "old"
    assert served.answers == ()
    with ThreadPoolExecutor(20) as pool:  # a double click, many times over
        replies = list(pool.map(lambda _: served.ask("submit", **hers), range(40)))
    assert len({json.dumps(r["saved"]) for r in replies}) == 1 and len(served.answers) == 1
    assert code(served.ask("submit", **hers | {"id": new_id()})) == "judged"  # the same ticket again, as another answer
    assert code(served.ask("submit", **hers | {"outcome": "B"})) == "shape"  # the same id for another answer
    assert len(served.answers) == 1


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"ms_total": Infinity}', "[1]", "null", "7", '"x"', "true", '{"token": [["a"]]}', "[" * 3000 + "]" * 3000]
)
def test_any_json_gets_an_answer_in_words(served, text):
    body = f'{{"session_hash": "a", "component_id": {served.component}, "fn_name": "submit", "data": {text}}}'
    reply = served.client.post(f"{served.url}/gradio_api/component_server", content=body)
    assert reply.status_code in (200, 400, 422) and "Traceback" not in reply.text
    assert reply.status_code != 200 or "refused" in reply.json()
    assert served.answers == () and served.ask("begin")["me"] is None  # and the app still answers


def test_only_the_seven_requests_exist(served):
    for name in ("__init__", "__class__", "preprocess", "postprocess", "unrender", "campaign", ""):
        reply = served.post(name, {})
        assert reply.status_code in (404, 422), (name, reply.text)
    for changed in (
        {"component_id": 10**6},
        {"component_id": "x"},
        {"component_id": None},
        {"fn_name": ["submit"]},
        {"session_hash": None},
    ):
        reply = served.post("submit", {}, body=changed)
        assert reply.status_code >= 400 or "refused" in reply.json(), changed
    assert served.ask("begin")["me"] is None


def test_other_sites_and_giant_bodies_are_turned_away(served):
    token = served.join()
    answer = served.shown(token)
    for origin in ("https://evil.example", "null"):
        assert served.post("submit", answer, headers={"origin": origin}).status_code == 403
    assert served.post("submit", answer, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert served.post("submit", answer | {"rationale": "x" * (5 * 2**20)}).status_code == 413
    assert served.answers == ()
    assert "saved" in served.ask("submit", **answer)


def test_a_signed_in_account_cannot_be_claimed_by_a_browser(served):
    served.ask("join", nickname="Eve", consent=True, account="somebody-else")
    assert [a.identity_sha for a in served.desk.campaign.store.all(Annotator)] == [None]


def test_the_pages_source_and_configuration_give_nothing_away(served):
    page = served.client.get(f"{served.url}/annotate").text + served.client.get(f"{served.url}/config").text
    stored = served.desk.campaign.store.setting("secret", "none yet")
    assert stored not in page and "the owner of the tests" not in page and "text 1" not in page
    for path in ("/votes.db", "/gradio_api/file=votes.db", f"/gradio_api/file={served.desk.campaign.path}"):
        assert served.client.get(served.url + path).status_code in (403, 404)
