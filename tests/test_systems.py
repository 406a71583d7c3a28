"""The systems: what each may read and write, with one model, one budget and no work done twice."""

from collections import Counter
from dataclasses import replace

import pytest
from eval_data import ADAPTERS, corpus, opened, scripted, small_nets

from pat_core.agents import SUMMARY_TOKENS
from pat_core.benchmark import LeakError, benchmark_cases, visitor_cases
from pat_core.desk import Desk, Job, Untrained, full_length
from pat_core.metrics import n_words
from pat_core.prompts import lamp_messages
from pat_core.rewards import choose, most_typical
from pat_core.rounds_rollouts import text_request
from pat_core.systems import SYSTEMS, asked_of, most_frequent, rating_of, systems_for


@pytest.fixture(autouse=True)
def nets_are_small():
    with small_nets():
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def world(cache):
    """Two people of each history size, with everything retrieved for them."""
    cases = [case for group in ("0", "1", "2+") for case in benchmark_cases(corpus(), history=group, limit=2, seed=1)]
    llm = scripted()
    return llm, *opened(cases, cache, llm)[1:]


def written_by(llm, name: str, desk: Desk, asked) -> tuple[list, list]:
    """The answers of a system and the requests it took."""
    llm.requests.clear()
    answers = SYSTEMS[name].answer(desk, asked)
    return answers, list(llm.requests)


def test_rivals_read_their_best_reviews_by_bm25(world):
    _, asked, _ = world
    for a in asked:
        user, topic = a.case.target.user_id, a.case.query.topic_id
        assert {r.topic_id for r in a.others} == {topic} and user not in {r.user_id for r in a.others} and 1 <= len(a.others) <= 4
        assert set(a.own) == set(a.case.query.history) and a.by_chance.user_id != user
        assert a.case.target.text not in a.sources and {r.text for r in (*a.own, *a.others)} <= set(a.sources)


def test_no_prompt_of_any_system_holds_the_answer(world):
    llm, asked, desk = world
    for system in systems_for("long"):
        system.answer(desk, asked)
    prompts = " ".join(text for r in llm.requests for _, text in r.prompt.messages)
    assert llm.requests and not any(a.case.target.text in prompts for a in asked)


def test_a_planted_answer_is_refused_before_anything_is_asked(world):
    llm, asked, desk = world
    spoiled = replace(asked[0], others=(replace(asked[0].others[0], text=asked[0].case.target.text), *asked[0].others[1:]))
    with pytest.raises(LeakError, match=f"a prompt of pgraphrag for user '{asked[0].case.target.user_id}'"):
        SYSTEMS["pgraphrag"].answer(desk, [asked[1], spoiled])
    assert llm.requests == []
    SYSTEMS["pgraphrag"].answer(desk, [asked[1]])


def test_every_language_system_has_the_same_budget_and_an_untrained_model_a_stronger_penalty_on_repetition(world):
    llm, asked, desk = world
    budgets, penalties = {}, {}
    for name in ("none", "lamp", "pgraphrag", "pgraphrag-both", "pat-zero", "pat", "pat-style-only", "pat-topic-only", "pat-neither"):
        answers = SYSTEMS[name].answer(Desk(llm, desk.guard, drafts=3), asked)
        texts = [r for r in llm.requests if r.max_new_tokens != SUMMARY_TOKENS]  # all but the agents' notes
        penalties[name] = {r.sampling.frequency_penalty for r in texts}
        budgets[name] = [budget(r) for r in texts]
        llm.requests.clear()
        assert all(len(a.drafts) == 3 and a.text in a.drafts for a in answers)
    wanted = Counter(budgets["pat"])
    firsts = [full_length(text_request(llm, a.question, "", "", "", j), a.question) for a in asked for j in range(3)]
    assert wanted == Counter(map(budget, firsts))
    assert {r[1] for r in budgets["none"]} == {int(0.9 * a.question.evidence.context.target_words) for a in asked}
    assert all(set(budgets[name]) == set(wanted) for name in budgets)
    trained = {"pat", "pat-style-only", "pat-topic-only", "pat-neither"}
    assert all(penalties[name] == ({0.2} if name in trained else {0.6}) for name in budgets)


def budget(request):
    return request.max_new_tokens, request.min_new_tokens, replace(request.sampling, frequency_penalty=0), request.seed, request.stop


def test_roles_and_prompts_are_those_of_the_system(world):
    llm, asked, desk = world
    a = asked[-1]  # a person with history
    roles = {}
    for name in ("none", "lamp", "pgraphrag", "pgraphrag-both", "pat-zero", "pat", "pat-neither"):
        _, requests = written_by(llm, name, Desk(llm, desk.guard, drafts=2), [a])
        roles[name] = {r.role for r in requests}
        shown = " ".join(text for r in requests for _, text in r.prompt.messages[-1:])
        assert ("The same person wrote" in shown) == (name in ("lamp", "pgraphrag-both"))
        assert ("Another person" in shown) == (name in ("pgraphrag", "pgraphrag-both"))
        assert ("How to write" in shown) == ("What to say" in shown) == (name in ("pat", "pat-zero"))
        assert {len(r.prompt.messages) > 1 for r in requests} == {not name.startswith("pat") or name == "pat-zero"}, "worked examples"
    assert roles["pat"] == {"style", "topic", "generator"} and roles["pat-neither"] == {"generator"}
    assert all(roles[name] == {"base"} for name in ("none", "lamp", "pgraphrag", "pgraphrag-both", "pat-zero"))


def test_choices_know_no_more_than_they_may(world):
    _, asked, desk = world
    for name in ("none", "pat-neither"):
        for answer_ in SYSTEMS[name].answer(desk, asked):
            assert answer_.text == answer_.drafts[most_typical(answer_.drafts)]
    for a, answer_ in zip(asked, SYSTEMS["pat"].answer(desk, asked), strict=True):
        assert answer_.text == answer_.drafts[choose(answer_.drafts, a.question.evidence.context)[0]]
    context = asked[0].question.evidence.context
    _, rewards = choose(["The price was warm.", "Nothing."], replace(context, topic_texts=()))
    assert all(r.terms["topic"] == 0 for r in rewards)


def test_notes_are_written_once_and_shared(world):
    llm, asked, desk = world
    _, first = written_by(llm, "pat", desk, asked)
    assert Counter(r.role for r in first) == {"style": 6, "topic": 6, "generator": 18}
    for name, n in (("pat-style-only", 18), ("pat-topic-only", 18), ("pat", 0)):
        answers, requests = written_by(llm, name, desk, asked)
        assert Counter(r.role for r in requests) == Counter({"generator": n} if n else {})
        assert all(a.tokens > 0 and bool(a.style_summary) == (name != "pat-topic-only") for a in answers)
    _, requests = written_by(llm, "pat-wrong-user", desk, asked)
    assert Counter(r.role for r in requests)["topic"] == 0, "what there is to say is the same"


def test_a_rival_with_nothing_to_show_is_no_retrieval(world):
    llm, asked, desk = world
    cold = [a for a in asked if not a.case.query.history]
    none, _ = written_by(llm, "none", desk, cold)
    lamp, requests = written_by(llm, "lamp", desk, cold)
    assert requests == [] and [a.text for a in lamp] == [a.text for a in none] and [a.seconds for a in lamp] == [a.seconds for a in none]


def test_the_wrong_user_is_another_one_about_another_topic(world):
    _, asked, _ = world
    by_target = {a.question.evidence.context.target_phi.tobytes(): a for a in asked}
    for a in asked:
        mine, wrong, me = a.question, a.stranger, a.case.target.user_id
        other = by_target[wrong.evidence.context.target_phi.tobytes()]
        assert other.case.target.user_id != me and a.case.query.topic_id not in topics(other)
        alike = [o for o in asked if o is not a and o.case.group == a.case.group and a.case.query.topic_id not in topics(o)]
        assert other in alike or not alike
        assert wrong.query == replace(mine.query, history=other.case.query.history)
        assert wrong.evidence.style_neighbors == tuple(n for n in other.question.evidence.style_neighbors if n.review.user_id != me)
        assert wrong.evidence.topic_neighbors == mine.evidence.topic_neighbors and wrong.evidence.facts.topic == mine.evidence.facts.topic


def topics(asked) -> set[str]:
    return {r.topic_id for r in (asked.case.target, *asked.case.query.history)}


def test_without_another_person_there_is_no_wrong_user(cache):
    with pytest.raises(ValueError, match="leave pat-wrong-user out"):
        opened(benchmark_cases(corpus(), limit=1), cache, scripted())


def test_two_rounds_read_the_draft_and_the_other_notes(world):
    llm, asked, desk = world
    _, requests = written_by(llm, "pat", Desk(llm, desk.guard, drafts=2, rounds=2), asked[:1])
    second = [r for r in requests if "The other agent notes" in r.prompt.messages[-1][1]]
    assert {r.role for r in second} == {"style", "topic"} and all("The draft has" in r.prompt.messages[-1][1] for r in second)
    assert len([r for r in requests if r.role == "generator"]) == 2, "the draft between the rounds is the first of the two texts"


def test_untrained_is_the_base_model_with_worked_examples():
    llm = scripted()
    base = Untrained(llm)
    assert base.adapters == {} and llm.adapters == ADAPTERS
    list(base.generate([Job(None, text_request_of(llm)).request]))
    assert llm.requests[0].role == "base"


def text_request_of(llm):
    from pat_core.llm.types import Request

    return Request("k", llm.prompt(lamp_messages(benchmark_cases(corpus(), limit=1)[0].query, [])), role="generator")


def test_copies_are_title_and_neighbors_cut(world):
    _, asked, desk = world
    for n in (60, 100):
        for a, answer_ in zip(asked, SYSTEMS[f"copy-{n}"].answer(desk, asked), strict=True):
            everything = " ".join([a.case.query.title, *(x.review.text for x in a.question.evidence.topic_neighbors)])
            assert n_words(answer_.text) == min(n, n_words(everything)) and everything.startswith(answer_.text)
            assert answer_.prompt is None and answer_.prompt_sha256 == "" and answer_.tokens == 0
    assert [a.text for a in SYSTEMS["reference"].answer(desk, asked)] == [a.case.target.text for a in asked]
    assert [a.text for a in SYSTEMS["random"].answer(desk, asked)] == [a.by_chance.text for a in asked]


@pytest.mark.parametrize("task", ["short", "rating"])
def test_titles_and_ratings_are_answered_by_every_system_that_can(task, cache):
    cases = benchmark_cases(corpus(), task, limit=6)
    llm = scripted()
    _, asked, desk = opened(cases, cache, llm)
    for system in systems_for(task):
        answers = system.answer(desk, asked)
        assert len(answers) == 6 and all(a.text for a in answers)
        if task == "rating":
            assert all(1 <= float(a.text) <= 5 for a in answers), system.name
    texts = [r for r in llm.requests if r.role == "base" and "What is there to say" not in r.prompt.messages[-1][1]]
    texts = [r for r in texts if not r.prompt.messages[-1][1].endswith("How would this person write?")]
    for case in cases:
        mine = [r for r in texts if case.target.text in r.prompt.messages[-1][1]]
        assert mine and not any(f"Title: {case.target.title}" in r.prompt.messages[-1][1] for r in mine if task == "short")
        assert not any(f"Stars: {case.target.rating:g}" in r.prompt.messages[-1][1] for r in mine if task == "rating")
    assert {r.role for r in llm.requests} == {"base", "style", "topic"}, "the generator's adapter writes reviews only"


def test_the_rating_most_drafts_give_counts():
    assert most_frequent(["4", "2 stars", "two", "2"]) == 1 and rating_of("I say 5!") == 5 and rating_of("nothing") == 3
    assert most_frequent(["4", "5"]) == 0


def test_systems_are_named_and_belong_to_tasks():
    assert [s.name for s in systems_for("long", ["pat", "none"])] == ["none", "pat"]
    assert "title" not in {s.name for s in systems_for("short")} and "topic-mean" in {s.name for s in systems_for("rating")}
    with pytest.raises(ValueError, match="no system is called 'lama'; choose from none, random"):
        systems_for("long", ["lama"])
    with pytest.raises(ValueError, match="the system copy-60 does not apply to the task rating"):
        systems_for("rating", ["copy-60"])
    with pytest.raises(ValueError, match="no system is named"):
        systems_for("long", [])


def test_visitors_are_asked_for_pat_and_the_wrong_user_only():
    visitor = visitor_cases(corpus(), benchmark_cases(corpus()))[0]
    assert {name for name, s in SYSTEMS.items() if asked_of(s, visitor)} == {"pat", "pat-wrong-user"}
