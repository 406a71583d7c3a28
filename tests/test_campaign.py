"""The campaign as the pages see it: joining, being shown pairs, answering, changing answers, leaving; and what is refused, in words."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from store_data import SetClock
from store_data import campaign as few_texts

from annotate.campaign import Campaign, open_campaign
from annotate.database import StoreError
from annotate.gate import RateLimit, Refusal, Standing
from annotate.protocol import PageProtocol
from annotate.schedule import Plan
from annotate.types import Annotator, Assignment, Candidate, Event, Item, Judgment, JudgmentQuery, Pair, new_id, pair_of, winner
from annotate.visit import Answer, CampaignSettings

OWNER = "the owner's long token"
SIDES = ("right", "left")


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def desk(tmp_path, clock):
    opened = open_campaign(tmp_path / "votes.db", OWNER, clock=clock)
    yield opened
    opened.close()


def fill(desk: Campaign, n: int = 6, **kind: str) -> tuple[Pair, ...]:
    made = few_texts(n)
    desk.add_made([made.item], made.candidates, made.pairs)
    return made.pairs


def answer(shown, outcome="A", **details) -> Answer:
    return Answer(details.pop("answer_id", None) or new_id(), shown.assignment.pair_id, shown.ticket, outcome, **details)


def join(desk: Campaign, nickname: str = "Ada", **details):
    return desk.join(nickname, consent=True, **details)


def test_somebody_joins_judges_everything_and_sees_it_again(desk):
    pairs = fill(desk)
    me = join(desk)
    assert desk.progress(me.token).left == len(pairs) and not desk.progress(me.token).trained
    for _ in range(2):
        desk.trained(me.token)
    assert len(desk.store.all(Event, kind="trained")) == 1
    seen = []
    while shown := desk.next_pair(me.token):
        assert shown.number == len(seen) + 1 and shown.answer is None
        kept = desk.submit(me.token, answer(shown, "B", strength="clearly", dims={"style": "A"}, tags=("length",), rationale="fits"))
        seen.append(kept.judgment)
    judged_once = {j.pair_id for j in seen} & {p.pair_id for p in pairs}
    assert judged_once == {p.pair_id for p in pairs}
    progress = desk.progress(me.token)
    assert (progress.judged, progress.left, progress.trained) == (len(seen), 0, True)
    past = desk.history(me.token)
    assert [s.answer for s in past] == seen[::-1][:10] and past[0].number == len(seen)
    assert desk.store.judgments()[0].guideline_version == "1"


def test_an_unanswered_pair_comes_back_with_the_same_sides_and_after_a_restart(desk, clock, tmp_path):
    fill(desk)
    me = join(desk)
    first = desk.next_pair(me.token)
    assert desk.next_pair(me.token) == first  # a second tab
    clock.advance(hours=2)  # the lease is over, and nobody else took it
    again = desk.next_pair(me.token)
    assert (again.left, again.right, again.ticket) == (first.left, first.right, first.ticket)
    desk.close()
    reopened = open_campaign(tmp_path / "votes.db", OWNER, clock=clock)
    assert reopened.next_pair(me.token).ticket == first.ticket
    assert reopened.submit(me.token, answer(first)).judgment.outcome == "A"
    reopened.close()


def test_the_next_pair_is_there_while_another_tab_answers(desk):
    pairs = fill(desk, 40)
    me = join(desk)
    shown = desk.next_pair(me.token)
    with ThreadPoolExecutor(2) as pool:
        for _ in pairs[1:]:
            asked = pool.submit(desk.next_pair, me.token)
            desk.submit(me.token, answer(shown))
            asked.result(30)
            shown = desk.next_pair(me.token)
    assert desk.progress(me.token).judged == 39


def test_a_swapped_repeat_comes_back_after_a_reload_too(desk, clock):
    desk.save_settings(CampaignSettings(plan=Plan(overlap=0, gold=0, identical=0, swap=0.25, swap_after=1)))
    fill(desk, 30)
    me = join(desk)
    for _ in range(20):
        shown = desk.next_pair(me.token)
        assert desk.next_pair(me.token).ticket == shown.ticket
        desk.submit(me.token, answer(shown))
        clock.advance(seconds=1)
    assert len(desk.store.all(Pair, kind="swap")) >= 4


def test_where_many_take_the_same_pairs_everybody_gets_one(desk):
    desk.save_settings(CampaignSettings(plan=Plan(overlap=1.0, gold=0, swap=0, identical=0)))
    fill(desk, 50)
    people = [join(desk, f"p{i}") for i in range(100)]
    with ThreadPoolExecutor(32) as pool:
        shown = list(pool.map(lambda me: desk.next_pair(me.token), people, timeout=60))
    assert sorted(Counter(s.assignment.pair_id for s in shown).values()) == [2] * 50


def test_a_is_the_left_text(desk):
    fill(desk)
    me = join(desk)
    for outcome in ("A", "B"):
        shown = desk.next_pair(me.token)
        kept = desk.submit(me.token, answer(shown, outcome)).judgment
        pair = desk.store.find(Pair, pair_id=kept.pair_id)
        assert winner(pair, kept) == (shown.left if outcome == "A" else shown.right).candidate_id


def test_the_same_answer_fifty_times_at_once_is_one_row_and_one_reply(desk):
    fill(desk)
    me = join(desk)
    given = answer(desk.next_pair(me.token))
    with ThreadPoolExecutor(16) as pool:
        replies = set(pool.map(lambda _: repr(desk.submit(me.token, given).judgment), range(50), timeout=60))
    assert len(replies) == len(desk.store.judgments()) == 1


def test_an_answer_sent_again_after_the_guide_changed_is_the_same_answer(desk):
    fill(desk)
    me = join(desk)
    given = answer(desk.next_pair(me.token))
    kept = desk.submit(me.token, given)
    desk.save_settings(CampaignSettings(guideline_version="2"))
    assert desk.submit(me.token, given) == kept
    assert desk.submit(me.token, answer(desk.next_pair(me.token))).judgment.guideline_version == "2"


def test_answers_change_by_revisions_and_only_the_last_ten(desk):
    fill(desk, 14)
    me = join(desk)
    kept = []
    while len(kept) < 12:
        kept.append(desk.submit(me.token, answer(desk.next_pair(me.token), "A")).judgment)
    last = desk.history(me.token)[0]
    changed = desk.submit(me.token, answer(last, "tie", revision_of=last.answer.judgment_id)).judgment
    assert changed.revision_of == kept[-1].judgment_id
    assert len(desk.store.judgments()) == 12 and len(desk.store.judgments(JudgmentQuery(revisions=True))) == 13
    oldest = desk.store.find(Assignment, pair_id=kept[0].pair_id, annotator_id=me.annotator.annotator_id)
    stale = Answer(new_id(), kept[0].pair_id, desk.seal.ticket(oldest), "B", revision_of=kept[0].judgment_id)
    with pytest.raises(Refusal, match="last 10 answers") as refused:
        desk.submit(me.token, stale)
    assert refused.value.code == "old"
    with pytest.raises(Standing) as standing:  # a second tab that does not know of the first answer
        desk.submit(me.token, answer(last, "B"))
    assert standing.value.judgment == changed


def test_tokens_and_tickets_are_checked(desk):
    fill(desk)
    ada, bob = join(desk), join(desk, "Bob")
    shown = desk.next_pair(ada.token)
    other = desk.next_pair(bob.token)
    turned = replace(shown.assignment, shown_left_id=shown.right.candidate_id)
    for token, given, code in (
        (ada.token + "0", answer(shown), "token"),
        (ada.annotator.annotator_id + "." + bob.token.split(".")[1], answer(shown), "token"),
        ("", answer(shown), "token"),
        (None, answer(shown), "token"),
        (bob.token, answer(shown), "ticket"),
        (ada.token, replace(answer(shown), ticket=other.ticket), "ticket"),
        (ada.token, replace(answer(shown), ticket="\udc80"), "ticket"),
        (ada.token, replace(answer(shown), ticket=None), "ticket"),
        (ada.token, replace(answer(shown), pair_id="0" * 64), "ticket"),
        (ada.token, replace(answer(shown), pair_id=["x"]), "ticket"),
    ):
        with pytest.raises(Refusal) as refused:
            desk.submit(token, given)
        assert refused.value.code == code, given
    assert desk.seal.ticket(turned) != shown.ticket
    assert desk.store.judgments() == ()


def test_paused_blocked_and_erased_people_are_told(desk):
    fill(desk)
    me = join(desk)
    shown = desk.next_pair(me.token)
    desk.submit(me.token, answer(shown, rationale="my own words"))
    desk.store.update_annotator(replace(me.annotator, status="paused"))
    with pytest.raises(Refusal, match="paused") as refused:
        desk.next_pair(me.token)
    assert refused.value.code == "closed"
    desk.store.update_annotator(replace(me.annotator, status="active"))
    assert desk.erase_me(me.token).erasure.n_judgments == 1
    with pytest.raises(Refusal, match="erased"):
        desk.submit(me.token, answer(shown))
    files = [p for p in desk.path.parent.rglob("*") if p.is_file()]
    assert files and not any(b"my own words" in p.read_bytes() for p in files)


def test_invite_codes_stand_for_one_person_and_are_kept_as_hashes(desk):
    desk.save_settings(CampaignSettings(access="invite", plan=Plan(overlap=0.5)))
    assert desk.settings.plan.overlap == 0.5
    code, _ = desk.invite(2)
    first = join(desk, "Ada", code=code)
    again = join(desk, "Somebody else", code=f" {code.lower().replace('-', '')} ")
    assert again.annotator == first.annotator and len(desk.store.all(Annotator)) == 1
    for wrong in ("", "AAAA-AAAA-AAAA", None, 7):
        with pytest.raises(Refusal, match="not known"):
            join(desk, "Eve", code=wrong)
    assert not any(code.encode() in p.read_bytes() for p in desk.path.parent.rglob("*") if p.is_file())
    for n in (0, 501, True, 2.0, "3"):
        with pytest.raises(Refusal, match="from 1 to 500"):
            desk.invite(n)


def test_codes_and_people_survive_being_made_at_the_same_moment(desk, tmp_path, clock):
    desk.save_settings(CampaignSettings(access="invite"))
    with ThreadPoolExecutor(16) as pool:
        codes = [code for made in pool.map(desk.invite, [5] * 16, timeout=60) for code in made]
        devices = list(pool.map(lambda code: join(desk, code=code), codes * 2, timeout=60))
    assert len({s.annotator.annotator_id for s in devices}) == len(desk.store.all(Annotator)) == len(codes) == 80
    fresh = open_campaign(tmp_path / "fresh.db", OWNER, clock=clock)
    with ThreadPoolExecutor(16) as pool:
        tokens = [s.token for s in pool.map(lambda i: join(fresh, f"p{i}"), range(16), timeout=60)]
    fresh.close()
    again = open_campaign(tmp_path / "fresh.db", OWNER, clock=clock)
    assert [again.annotator(token).status for token in tokens] == ["active"] * 16  # one secret was drawn, and kept
    again.close()


def test_an_invitation_cannot_be_gone_round(desk):
    fill(desk)
    early = desk.sign_in("early-bird", "Ada", consent=True)
    item = Item("p", {})
    texts = (Candidate(item.item_id, "one", "pat"), Candidate(item.item_id, "two", "none"))
    visitor, _ = desk.judge_here("", item, texts, Answer(new_id(), "", "", "A"))
    assert desk.next_pair(visitor.token) is not None  # whoever chose in Compose may go on here while anybody may
    desk.save_settings(CampaignSettings(access="invite"))
    (code,) = desk.invite(1)
    with pytest.raises(Refusal, match="invited people") as refused:
        desk.next_pair(visitor.token)
    assert refused.value.code == "token"
    with pytest.raises(Refusal, match="not known"):
        desk.sign_in("stranger", "Eve", "AAAA-AAAA-AAAA", consent=True)
    assert desk.sign_in("early-bird", "A.", consent=True).annotator == early.annotator
    assert desk.sign_in("stranger", "Eve", code, perspective="native", consent=True).annotator.perspective == "native"
    assert desk.erase_me(visitor.token).erasure.n_items == 1  # and can still take back what they chose


def test_nobody_joins_without_agreeing_or_a_name(desk):
    with pytest.raises(Refusal, match="agree"):
        desk.join("Ada")
    for name in ("", "  ", "x" * 81, "a\0b", 7, None):
        with pytest.raises(ValueError, match="nickname"):
            join(desk, name)
    assert desk.store.all(Annotator) == ()


def test_sign_in_finds_the_same_person_and_keeps_no_account_name(desk):
    first = desk.sign_in("ada-lovelace-hf", "Ada", consent=True)
    assert desk.sign_in("ada-lovelace-hf", "A.", consent=True).annotator == first.annotator
    assert not any(b"ada-lovelace-hf" in p.read_bytes() for p in desk.path.parent.rglob("*") if p.is_file())


def test_the_owner_is_known_by_the_token_alone(desk):
    desk.require_owner(OWNER)
    for wrong in ("", OWNER[:-1], None, "\ud800"):
        with pytest.raises(Refusal) as refused:
            desk.require_owner(wrong)
        assert refused.value.code == "owner"


def test_a_rate_limit_lets_bursts_through_and_refills():
    limit = RateLimit(3, 50.0)
    for _ in range(3):
        limit.take("ada", "slow down")
    with pytest.raises(Refusal, match="slow down"):
        limit.take("ada", "slow down")
    limit.take("bob", "slow down")
    import time

    time.sleep(0.05)
    limit.take("ada", "slow down")


def test_failed_checks_lead_to_advice_and_a_note_for_the_owner(desk):
    item = Item("Review of a kettle: fine", {"topic": "kettle"})
    good, bad = (Candidate(item.item_id, f"text {k}", f"check-{k}") for k in ("good", "bad"))
    golds = []
    candidates = []
    for i in range(10):
        own = Item(f"Review of kettle {i}: fine", {"topic": "kettle"})
        good, bad = (Candidate(own.item_id, f"text {i} {k}", f"check-{k}") for k in ("good", "bad"))
        candidates += [(own, good, bad)]
        golds.append((pair_of(good, bad, "gold", expected=good.candidate_id), bad))
    desk.add_made([c[0] for c in candidates], [t for c in candidates for t in c[1:]], [g for g, _ in golds])
    me = join(desk)
    advice = []
    for pair, wrong in golds:
        shown = Assignment(pair.pair_id, me.annotator.annotator_id, wrong.candidate_id, "test")
        desk.store.lease(shown)
        advice.append(desk.submit(me.token, Answer(new_id(), pair.pair_id, desk.seal.ticket(shown), "A")).advice)
    assert advice == [()] * 9 + [("guide",)]
    assert [e.detail for e in desk.store.all(Event, kind="review")] == [{"failed": 10, "of": 10}]


def test_advice_is_no_way_to_find_the_checks_and_its_failure_takes_no_answer_back(desk, monkeypatch):
    fill(desk, 20)
    own = Item("Review of a kettle: fine", {"topic": "kettle"})
    good, bad = (Candidate(own.item_id, f"text {k}", f"check-{k}") for k in ("good", "bad"))
    gold = pair_of(good, bad, "gold", expected=good.candidate_id)
    desk.add_made([own], [good, bad], [gold])
    desk.save_settings(CampaignSettings(plan=Plan(gold=0, swap=0, identical=0, warn_fails=1, review_fails=1)))
    me = join(desk)
    shown = Assignment(gold.pair_id, me.annotator.annotator_id, bad.candidate_id, "test")
    desk.store.lease(shown)
    desk.submit(me.token, Answer(new_id(), gold.pair_id, desk.seal.ticket(shown), "A"))
    for _ in range(8):
        desk.submit(me.token, answer(desk.next_pair(me.token)))
    tenth = answer(desk.next_pair(me.token))
    assert desk.submit(me.token, tenth).advice == desk.submit(me.token, tenth).advice == ("guide",)
    assert len(desk.store.all(Event, kind="review")) == 1  # sent twice, noted once
    last = desk.history(me.token)[0]
    assert desk.submit(me.token, answer(last, "B", revision_of=tenth.answer_id)).advice == ()
    for _ in range(9):
        desk.submit(me.token, answer(desk.next_pair(me.token)))

    def broken(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(desk.store, "checks", broken)
    kept = desk.submit(me.token, answer(desk.next_pair(me.token)))
    assert kept.advice == () and desk.store.find(Judgment, judgment_id=kept.judgment.judgment_id) == kept.judgment


# A choice made in Compose


def test_a_choice_in_compose_is_kept_unblinded_and_a_second_one_revises_it(desk):
    item = Item("Review of a kettle: fine", {"topic": "kettle", "samples": ["my very own sample"]})
    texts = (Candidate(item.item_id, "one text", "pat"), Candidate(item.item_id, "another text", "none"))
    given = Answer(new_id(), "", "", "A", "clearly")
    me, first = desk.judge_here("", item, texts, given)
    assert first.unblinded and first.outcome == "A"
    same, second = desk.judge_here(me.token, item, texts[::-1], replace(given, answer_id=new_id(), dims={"style": "A"}))
    assert same.annotator == me.annotator and second.revision_of == first.judgment_id
    assert (second.outcome, second.dims) == ("B", {"style": "B"})  # the same text is still the left one
    pair = desk.store.all(Pair)[0]
    assert (pair.kind, pair.origin) == ("system", "compose")
    report = desk.erase_me(me.token)
    assert (report.erasure.n_items, desk.store.all(Candidate), desk.store.all(Item)) == (1, (), ())
    assert not any(b"my very own sample" in p.read_bytes() for p in desk.path.parent.rglob("*") if p.is_file())


def test_two_drafts_of_one_prompt_train_the_generator(desk):
    item = Item("p", {})
    drafts = (Candidate(item.item_id, "one", "pat"), Candidate(item.item_id, "two", "pat"))
    desk.judge_here(None, item, drafts, Answer(new_id(), "", "", "B"), agent="generator")
    assert [(p.kind, p.agent) for p in desk.store.all(Pair)] == [("one-factor", "generator")]


def test_what_a_visitor_chose_between_is_shown_to_nobody_else(desk):
    item = Item("Review of a kettle: fine", {"topic": "kettle", "samples": ["my very own sample"]})
    texts = (Candidate(item.item_id, "As an AI language model", "pat"), Candidate(item.item_id, "another text", "none"))
    desk.save_settings(CampaignSettings(plan=Plan(overlap=1.0)))
    desk.judge_here("", item, texts, Answer(new_id(), "", "", "A"))
    assert desk.n_open() == 0 and desk.next_pair(join(desk, "Bob").token) is None


def test_a_choice_in_compose_that_is_changed_on_the_page_stays_unblinded(desk):
    item = Item("p", {})
    texts = (Candidate(item.item_id, "one", "pat"), Candidate(item.item_id, "two", "none"))
    me, _ = desk.judge_here("", item, texts, Answer(new_id(), "", "", "A"))
    (shown,) = desk.history(me.token)
    changed = answer(shown, "B", revision_of=shown.answer.judgment_id)
    assert desk.submit(me.token, changed).judgment.unblinded
    assert desk.submit(me.token, changed).judgment == desk.store.judgments()[0]


def test_choices_that_cannot_be_kept_are_refused(desk):
    item = Item("p", {})
    texts = (Candidate(item.item_id, "one", "pat"), Candidate(item.item_id, "two", "none"))
    for changed in ({"outcome": "C"}, {"outcome": None}, {"strength": "very"}, {"rationale": "x" * 10**6}):
        with pytest.raises(Refusal):
            desk.judge_here("", item, texts, replace(Answer(new_id(), "", "", "A"), **changed))
    with pytest.raises(Refusal, match="word for word"):
        desk.judge_here("", item, (texts[0], replace(texts[1], text="one")), Answer(new_id(), "", "", "A"))
    assert desk.store.judgments() == () and desk.store.all(Item) == ()


# When the disk is not what it should be


def test_a_restore_while_people_judge(desk):
    fill(desk)
    me = join(desk)
    copy = desk.store.backup().path
    shown = desk.next_pair(me.token)
    desk.submit(me.token, answer(shown))
    from pathlib import Path

    sentence = desk.restore(Path(copy))
    assert "Restored" in sentence and desk.store.judgments() == ()
    assert desk.submit(me.token, answer(desk.next_pair(me.token))).judgment.outcome == "A"  # the token still holds
    with pytest.raises(Exception, match="no manifest"):
        desk.restore(desk.path)
    assert len(desk.store.judgments()) == 1 and not desk.fault


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 but cut", b"not a database at all"])
def test_a_damaged_file_refuses_votes_in_words_and_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "votes.db"
    path.write_bytes(content)
    desk = open_campaign(path, OWNER)
    page = PageProtocol(desk)
    for call, payload in ((page.begin, {}), (page.join, {"nickname": "Ada", "consent": True}), (page.next, {"token": "x"})):
        refused = call(payload)["refused"]
        assert refused["code"] == "store" and str(path) in refused["sentence"]
    assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "votes.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    desk = open_campaign(path, OWNER)
    assert "another program" in desk.fault and path.read_bytes() == before


def test_a_database_in_use_can_be_read_beside_its_writer(desk):
    fill(desk)
    me = join(desk)
    beside = open_campaign(desk.path, OWNER)
    assert "in use" in beside.read_only and beside.n_open() == desk.n_open() > 0
    with pytest.raises(Refusal, match="in use") as refused:
        beside.next_pair(me.token)
    assert refused.value.code == "store"
    beside.close()


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere: test_store_files checks this in a child process"
)
def test_a_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "cannot be written" in open_campaign(folder / "votes.db", OWNER).fault
    folder.chmod(stat.S_IRWXU)


# The page's JSON


@pytest.fixture
def page(desk):
    return PageProtocol(desk)


def test_a_judge_learns_nothing_but_the_texts(desk, page):
    fill(desk, 4)
    token = page.join({"nickname": "Ada", "consent": True, "lang": "de"})["token"]
    begun = page.begin({"token": token})
    assert begun["me"] == {"nickname": "Ada", "judged": 0, "left": 4, "trained": False} and begun["loss_seconds"] is None
    assert (begun["campaign"]["break_seconds"], begun["campaign"]["break_pairs"]) == (25 * 60, 60)
    shown = page.next({"token": token})["pair"]
    assert shown["reference"]["samples"] and shown["answer"] is None
    sent = json.dumps([begun, shown, page.history({"token": token})])
    stored = desk.store
    secret_things = (
        {c.candidate_id for c in stored.all(Candidate)} | {c.system for c in stored.all(Candidate)} | {"rewards", "system", "kind"}
    )
    assert [w for w in secret_things if f'"{w}"' in sent] == []
    assert set(shown) == {"pair", "ticket", "number", "lang", "reference", "left", "right", "shared", "answer"}


def test_a_pair_made_elsewhere_shows_its_prompt(desk, page):
    item = Item("Review a kettle for someone who likes it short and dry", {})
    a, b = (Candidate(item.item_id, t, "imported") for t in ("Boils. Beeps.", "I love this kettle so very much!"))
    desk.add_made([item], [a, b], [pair_of(a, b, "system")])
    token = page.join({"nickname": "Ada", "consent": True})["token"]
    shown = page.next({"token": token})["pair"]["reference"]
    assert "".join(text for text, _ in shown["topic"]) == item.prompt and shown["title"] == []


def test_what_is_left_counts_the_pair_on_the_screen(desk, page):
    fill(desk, 3)
    desk.save_settings(CampaignSettings(plan=Plan(overlap=0.0, gold=0, swap=0, identical=0)))
    token = page.join({"nickname": "Ada", "consent": True})["token"]
    for left in (3, 2, 1):
        shown = page.next({"token": token})["pair"]
        assert page.begin({"token": token})["me"]["left"] == left
        given = {"token": token, "id": new_id(), "pair": shown["pair"], "ticket": shown["ticket"], "outcome": "A"}
        assert page.submit(given)["me"]["left"] == left - 1


def test_shared_words_are_marked_and_texts_stay_whole(desk, page):
    item = Item("Review of Norra kettle: Slow pour", {"topic": "Norra kettle", "title": "Slow pour", "samples": ["The pour is slow."]})
    texts = ["A slow pour, and the cat’s asleep.", "Nothing in common here"]
    a, b = (Candidate(item.item_id, t, s) for t, s in zip(texts, ("pat", "none"), strict=True))
    desk.add_made([item], [a, b], [pair_of(a, b, "system")])
    token = page.join({"nickname": "Ada", "consent": True})["token"]
    shown = page.next({"token": token})["pair"]
    by_text = {"".join(s for s, _ in shown[side]): [s for s, mark in shown[side] if mark] for side in ("left", "right")}
    assert by_text == {texts[0]: ["slow", "pour"], texts[1]: []}
    assert [s for s, mark in shown["reference"]["samples"][0] if mark] == ["pour", "slow"]
    assert sorted(shown["shared"].values()) == [0, 2]


def test_an_answer_by_json_and_what_stands_in_another_tab(desk, page):
    fill(desk, 3)
    token = page.join({"nickname": "Ada", "consent": True})["token"]
    shown = page.next({"token": token})["pair"]
    given = {
        "token": token,
        "id": new_id(),
        "pair": shown["pair"],
        "ticket": shown["ticket"],
        "outcome": "B",
        "strength": "slightly",
        "dims": {"style": "B", "fluency": "same"},
        "tags": ["length"],
        "rationale": "closer",
        "ms_visible": 900,
        "ms_total": 1000,
        "input": "keyboard",
        "ui_version": "1",
    }
    saved = page.submit(given)
    assert saved["saved"]["id"] == given["id"] and saved["me"]["judged"] == 1
    assert page.submit(given) == saved
    standing = page.submit(given | {"id": new_id(), "outcome": "A"})
    assert standing["refused"]["code"] == "judged" and standing["standing"]["outcome"] == "B"
    past = page.history({"token": token})["past"]
    assert [(p["pair"], p["answer"]["tags"]) for p in past] == [(shown["pair"], ["length"])]
    assert page.leave({"token": token})["refused"]["code"] == "shape"
    assert page.leave({"token": token, "sure": True}) == {"erased": {"answers": 1, "texts": 0}}
    assert page.next({"token": token})["refused"]["code"] == "token"


DEEP: dict = {}
for _ in range(5_000):
    DEEP = {"a": DEEP}
HOSTILE = (
    None,
    True,
    7,
    float("nan"),
    float("inf"),
    "x" * 10**6,
    "\ud800",
    "a\0b",
    [],
    ["A"],
    {},
    {"path": "/etc/passwd"},
    [[["A"]]],
    DEEP,
)
FIELDS = "token id pair ticket outcome strength dims tags rationale ms_visible ms_total input ui_version revision_of".split()  # noqa: SIM905


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_what_it_cannot_be(desk, page, name):
    fill(desk, 3)
    token = page.join({"nickname": "Ada", "consent": True})["token"]
    shown = page.next({"token": token})["pair"]
    good = {
        "token": token,
        "id": new_id(),
        "pair": shown["pair"],
        "ticket": shown["ticket"],
        "outcome": "A",
        "ms_visible": 5,
        "ms_total": 9,
    }
    fine = {"strength": (None,), "dims": ({},), "tags": ([], ["A"]), "ms_visible": (None, 7), "ms_total": (7,), "revision_of": (None,)}
    for value in HOSTILE:
        if any(value == ok and type(value) is type(ok) for ok in fine.get(name, ())):
            continue
        refused = page.submit(good | {name: value})
        assert "refused" in refused, value
        assert len(refused["refused"]["sentence"]) < 500
    assert desk.store.judgments() == ()
    assert "saved" in page.submit(good)


@pytest.mark.parametrize("method", ["begin", "join", "trained", "next", "submit", "history", "leave"])
def test_every_request_survives_anything(desk, page, method):
    for payload in (
        *HOSTILE,
        {"token": HOSTILE},
        {"nickname": ["x"], "consent": True},
        {"consent": "true", "nickname": "x"},
        {"code": 7, "consent": True},
    ):
        reply = getattr(page, method)(payload)
        assert isinstance(reply, dict) and ("refused" in reply or method == "begin")
    assert desk.store.all(Judgment) == () and desk.store.all(Annotator) == ()


def test_a_hundred_people_at_once_all_get_pairs_nobody_else_has(desk):
    desk.save_settings(CampaignSettings(plan=Plan(overlap=0.0, gold=0, swap=0, identical=0)))
    for i in range(4):
        made = few_texts(30, prompt=f"A hotel in town {i}")
        desk.add_made([made.item], made.candidates, made.pairs)
    people = [join(desk, f"p{i}") for i in range(100)]
    with ThreadPoolExecutor(16) as pool:
        shown = list(pool.map(lambda me: desk.next_pair(me.token), people, timeout=60))
    assert len({s.assignment.pair_id for s in shown}) == 100
