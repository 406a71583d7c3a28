"""The protocol: who is asked, what is taken out of the corpus, and that a leak is found."""

from dataclasses import replace

import pytest
from eval_data import TOPICS, corpus, review

from pat_core.benchmark import (
    VISITORS,
    LeakError,
    LeakGuard,
    benchmark_cases,
    folds,
    held_out_cases,
    visitor_cases,
    without_targets,
)
from pat_core.corpus import Corpus, part_of
from pat_core.types import Prompt


def asked(*texts: str) -> Prompt:
    return Prompt(tuple(("user", t) for t in texts))


def test_everybody_is_asked_about_their_first_review_with_the_others_as_history():
    cases = benchmark_cases(corpus())
    assert {c.target.review_id for c in cases} == {f"user{i}#0" for i in range(30)}
    assert {c.group: sum(x.group == c.group for x in cases) for c in cases} == {"0": 21, "1": 6, "2+": 3}
    for c in cases:
        assert c.target not in c.query.history and c.target.review_id in c.query.held_out
        assert c.reference == c.target.text and c.query.title == c.target.title and c.query.rating == c.target.rating
    assert sorted(c.target.review_id for c in cases) == sorted(c.target.review_id for c in held_out_cases(corpus()))


def test_parts_history_and_limit_narrow_who_is_asked():
    for part in ("training", "choosing", "untouched"):
        assert {part_of(c.target.user_id) for c in benchmark_cases(corpus(), part=part)} == {part}
    assert {part_of(c.target.user_id) for c in benchmark_cases(corpus(), part="choosing+untouched")} == {"choosing", "untouched"}
    assert {c.group for c in benchmark_cases(corpus(), history="1+")} == {"1", "2+"}
    assert {c.group for c in benchmark_cases(corpus(), history="2+")} == {"2+"}
    five, ten = (benchmark_cases(corpus(), limit=n, seed=3) for n in (5, 10))
    assert [c.case_id for c in ten[:5]] == [c.case_id for c in five] and ten[:5] == five
    assert [c.case_id for c in benchmark_cases(corpus(), limit=5, seed=4)] != [c.case_id for c in five]


def test_a_title_or_a_rating_that_is_asked_for_is_not_shown():
    short, rating = (benchmark_cases(corpus(), task, limit=4) for task in ("short", "rating"))
    assert all(c.query.title == "" and c.reference == c.target.title and c.shown == c.target.text for c in short)
    assert all(c.query.rating is None and c.reference == f"{c.target.rating:g}" and c.query.title == c.target.title for c in rating)
    untitled = Corpus("c", tuple(replace(r, title="", rating=None) for r in corpus().reviews))
    for task, missing in (("short", "a title"), ("rating", "a rating")):
        with pytest.raises(ValueError, match=missing):
            benchmark_cases(untitled, task)


def test_a_corpus_without_anybody_to_hold_out_is_a_sentence():
    alone = Corpus("alone", tuple(replace(r, user_id="u") for r in corpus().reviews))
    with pytest.raises(ValueError, match=r"alone \(1 user\) has nobody who can be held out"):
        benchmark_cases(alone)
    with pytest.raises(ValueError, match="with --history 2\\+"):
        benchmark_cases(Corpus("few", corpus().reviews[-8:]), history="2+")


def test_two_people_who_are_each_others_only_company_are_not_both_taken_out():
    """Users 100 and 101 alone reviewed a seventh topic: with both targets gone neither would find a word on it."""
    pair = (review(100, 0, "anchor"), review(101, 0, "anchor"))
    made = Corpus("c", (*corpus().reviews, *pair))
    few = benchmark_cases(made, limit=31)
    assert sum(c.query.topic_id == "anchor" for c in few) == 1
    everybody = benchmark_cases(made)
    parts = folds(made, everybody)
    assert sum(map(len, parts)) == len(everybody) == 32
    for part in parts:
        rest = without_targets(made, part)
        assert all({r.user_id for r in rest.by_topic[c.query.topic_id]} - {c.target.user_id} for c in part)
        assert len(made.reviews) - len(rest.reviews) <= 0.2 * len(made.reviews)


def test_copies_of_a_target_are_taken_out_wherever_they_stand():
    target = corpus().reviews[-1]
    copy = replace(target, review_id="copy#0", user_id="copy", topic_id=TOPICS[0], text=target.text.upper().replace(".", " !"))
    made = Corpus("c", (*corpus().reviews, copy))
    [case] = [c for c in benchmark_cases(made) if c.target.user_id == target.user_id]
    assert case.query.held_out == {target.review_id, "copy#0"}
    assert not {"copy#0", target.review_id} & set(without_targets(made, [case]).by_id)
    with pytest.raises(LeakError, match="stands in the corpus as review 'copy#0'"):
        without_targets(made, [replace(case, query=replace(case.query, held_out=frozenset({target.review_id})))])


def test_visitors_enter_up_to_three_of_their_texts_and_are_otherwise_unknown():
    made = Corpus("c", (*corpus().reviews, *(review(7, n, "lamp") for n in (3, 4))))
    cases = benchmark_cases(made)
    visitors = visitor_cases(made, cases)
    assert len(visitors) == 9 and {v.group for v in visitors} == {VISITORS}
    for v in visitors:
        own = {r.text for r in made.by_user[v.target.user_id]} - {v.target.text}
        assert set(v.query.samples) <= own and len(v.query.samples) == min(3, len(own)) and not v.query.history and not v.query.user_id
        assert {r.review_id for r in made.by_user[v.target.user_id]} <= v.query.held_out
        assert v.case_id not in {c.case_id for c in cases}
    everything_else = without_targets(made, [*cases[:3], *visitor_cases(made, cases[:3])])
    assert len(everything_else.reviews) == len(made.reviews) - 3  # a visitor's other texts stay for others to read


def test_a_target_in_a_prompt_is_found_and_what_others_wrote_too_is_none():
    cases = benchmark_cases(corpus(), limit=4)
    case, rest = cases[0], without_targets(corpus(), cases)
    guard = LeakGuard(cases, rest)
    guard.check(case, "lamp", asked(rest.reviews[0].text, "Review of: the kettle", case.query.title))
    words = case.target.text.split()
    for planted in (case.target.text, " ".join(words[3:11]).upper(), "So: " + ", ".join(words[-8:])):
        with pytest.raises(LeakError, match=f"a prompt of lamp for user '{case.target.user_id}'"):
            guard.check(case, "lamp", asked("Before.", planted))
    guard.check(case, "lamp", asked(" ".join(words[3:10])))  # seven words in a row happen
    guard.check(cases[1], "lamp", asked(case.target.text))  # another case's target is no answer to this one
    guard.check(case, "pat", asked(case.target.text), written=[case.target.text])  # a model that hits on it has not seen it
    LeakGuard(cases, corpus()).check(case, "lamp", asked(case.target.text))  # somebody else wrote just that


def test_short_targets_are_looked_for_whole():
    reviews = tuple(replace(r, text="sturdy purple trousers") if r.review_id == "user20#0" else r for r in corpus().reviews)
    made = Corpus("c", reviews)
    [case] = [c for c in benchmark_cases(made) if c.target.review_id == "user20#0"]
    guard = LeakGuard([case], without_targets(made, [case]))
    guard.check(case, "none", asked("sturdy purple", "purple trousers"))
    with pytest.raises(LeakError, match="sturdy purple trousers"):
        guard.check(case, "none", asked("Some Sturdy, purple trousers!"))


def test_a_title_that_is_asked_for_leaks_like_a_text():
    cases = benchmark_cases(corpus(), "short", limit=2)
    odd = replace(cases[0], target=replace(cases[0].target, title="Eleven purple camels dance"))
    guard = LeakGuard([odd], corpus())
    guard.check(odd, "none", asked(odd.shown))
    with pytest.raises(LeakError):
        guard.check(odd, "none", asked(f"{odd.shown} Eleven purple camels dance"))
