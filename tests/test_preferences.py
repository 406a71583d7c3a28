"""The calibrated mix: labels by hand, a reward recovered from simulated votes, what no vote can do, and pairs in files."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pat_core.preferences import (
    Choice,
    Comparison,
    calibrate,
    mixed_pairs,
    pair_from_row,
    pair_to_row,
    read_pairs,
    ridge_logistic,
    write_pairs,
)
from pat_core.types import PreferencePair

PROMPT = (("system", "Say how this person writes."), ("user", "Similar writers use no exclamation marks."))


def compared(pair_id: str, gap: float | None = 0.0, **changes: object) -> Comparison:
    rewards = {} if gap is None else {"reward_a": gap, "reward_b": 0.0}
    known = {"agent": "style", "prompt": PROMPT, "a": "dry", "b": "loud", "words_a": 30, "words_b": 30, **rewards}
    return Comparison(pair_id, **{**known, **changes})


def voted(pair_id: str, *winners: str, who: str = "") -> list[Choice]:
    """One choice per winner, each by another person unless ``who`` is given; sides alternate."""
    return [Choice(pair_id, who or f"judge {i}", w, i % 2 == 0, f"{pair_id}-{who}{i}") for i, w in enumerate(winners)]


def simulated(n: int, c1: float, seed: int, judges: int = 5, c2: float = 0.5, c3: float = 0.6) -> tuple[list[Comparison], list[Choice]]:
    """``n`` comparisons with one vote each, drawn from the model with known coefficients."""
    rng = np.random.default_rng(seed)
    comparisons, choices = [], []
    for i in range(n):
        c = compared(f"p{i}", float(rng.normal(0, 0.15)), words_a=int(rng.integers(10, 90)), words_b=int(rng.integers(10, 90)))
        left = bool(rng.random() < 0.5)
        p = expit(-c3 / 2 + c1 * c.gap + c2 * c.log_length + c3 * left)
        comparisons.append(c)
        choices.append(Choice(c.pair_id, f"judge {rng.integers(judges)}", "a" if rng.random() < p else "b", left, f"v{i}"))
    return comparisons, choices


def test_human_labels_by_hand():
    comparisons = [compared("won twice"), compared("lost once"), compared("one of three")]
    choices = [*voted("won twice", "a", "a"), *voted("lost once", "b"), *voted("one of three", "a", "b", "a")]
    mix = mixed_pairs(comparisons, choices, mode="human")
    assert [(p.chosen, p.rejected) for p in mix.pairs] == [("dry", "loud"), ("loud", "dry"), ("dry", "loud")]
    assert [p.q for p in mix.pairs] == pytest.approx([expit(2), expit(1), expit(1)])  # net wins 2, 1 and 1, each one logit
    assert [p.weight for p in mix.pairs] == [1, 1, 1]
    assert {p.source for p in mix.pairs} == {"human"}
    assert mix.pairs[0].judgment_ids == ("won twice-0", "won twice-1")
    assert mixed_pairs(comparisons, choices, mode="human", kappa=3).pairs[1].q == pytest.approx(expit(3))


def test_a_cap_lowers_the_weight_of_pairs_and_not_their_labels():
    comparisons = [compared(str(i)) for i in range(8)]
    choices = [v for i in range(8) for v in voted(str(i), "a", who="ann" if i < 5 else "bob")]
    choices += voted("7", "cannot_judge", who="bob")
    mix = mixed_pairs(comparisons, choices, mode="human", cap=2)
    assert [(j.annotator, j.n, j.each) for j in mix.judges] == [("ann", 5, 2 / 5), ("bob", 3, 2 / 3)]  # what bob cannot judge is no vote
    assert [p.weight for p in mix.pairs] == pytest.approx([2 / 5] * 5 + [2 / 3] * 3)
    assert {round(p.q, 9) for p in mix.pairs} == {round(float(expit(1)), 9)}


def test_automatic_labels_are_plain_dpo_by_the_higher_reward():
    comparisons = [compared("up", 0.2, weight=0.4), compared("down", -0.1), compared("level", 0.0), compared("unknown", None)]
    mix = mixed_pairs(comparisons, mode="automatic")
    assert [(p.chosen, p.weight, p.q, p.source) for p in mix.pairs] == [("dry", 0.4, 1, "metric"), ("loud", 1, 1, "metric")]
    assert mix.dropped == {"equal rewards": 1, "no reward": 1}
    assert mix.judges == () and mix.calibration is None


def test_both_adds_the_calibrated_reward_and_the_votes():
    comparisons, choices = simulated(400, c1=8, seed=1)
    comparisons += [compared("unjudged", 0.2, weight=0.5), compared("against", -0.1), compared("level", 0.0)]
    choices += [*voted("against", "a"), *voted("level", "b")]
    mix = mixed_pairs(comparisons, choices)
    by_id = {p.pair_id: p for p in mix.pairs}
    c1 = mix.calibration.c1
    assert by_id["unjudged"].q == pytest.approx(expit(0.2 * c1))
    assert (by_id["unjudged"].weight, by_id["unjudged"].source, by_id["unjudged"].judgment_ids) == (0.5, "metric", ())
    assert by_id["against"].q == pytest.approx(expit(abs(1 - 0.1 * c1))) and by_id["against"].source == "both"
    assert by_id["level"].source == "human" and by_id["level"].chosen == "loud"


def test_length_and_side_are_set_to_zero_in_the_labels():
    comparisons, choices = simulated(400, c1=8, seed=1)
    comparisons += [compared("short", 0.2, words_a=5, words_b=80), compared("long", 0.2, words_a=80, words_b=5)]
    mix = mixed_pairs(comparisons, choices)
    short, long = (next(p for p in mix.pairs if p.pair_id == name) for name in ("short", "long"))
    assert short.q == long.q and mix.calibration.c2 > 0.2


def test_known_coefficients_come_back_from_simulated_votes():
    comparisons, choices = simulated(4000, c1=6, seed=7)
    fit = calibrate(comparisons, choices, cap=1e9)
    assert fit.low < 6 < fit.high and fit.high - fit.low < 2.5
    assert (fit.c0, fit.c2, fit.c3) == pytest.approx((-0.3, 0.5, 0.6), abs=0.2)
    assert fit.predicts and fit.n == fit.n_pairs == 4000


def test_a_reward_that_says_nothing_is_told_and_stays_out_of_the_labels():
    comparisons, choices = simulated(300, c1=0, seed=3)
    comparisons.append(compared("unjudged", 0.5))
    mix = mixed_pairs(comparisons, choices)
    assert not mix.calibration.predicts and mix.calibration.low < 0 < mix.calibration.high
    assert any("does not predict people here" in note for note in mix.notes)
    assert mix.dropped["nobody judged it"] == 1
    assert mix.pairs == mixed_pairs(comparisons, choices, mode="human").pairs


def test_a_reward_that_people_dislike_is_told():
    comparisons, choices = simulated(400, c1=-8, seed=5)
    mix = mixed_pairs(comparisons, choices)
    assert mix.calibration.high < 0 and any("the lower automatic reward" in note for note in mix.notes)


def test_the_interval_covers_the_truth_and_seldom_finds_what_is_not_there():
    covered = [f.low <= 6 <= f.high for f in (calibrate(*simulated(60, 6, seed)) for seed in range(100))]
    false = [calibrate(*simulated(60, 0, seed)).predicts for seed in range(100)]
    assert np.mean(covered) >= 0.9 and np.mean(false) <= 0.1


def test_votes_on_one_pair_are_not_independent_evidence():
    # 25 people agree on each of 12 pairs, for a reason that has nothing to do with the reward: 12 coins, not 300
    def predicts(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        comparisons = [compared(f"p{i}", float(rng.normal(0, 0.15))) for i in range(12)]
        choices = [v for c in comparisons for v in voted(c.pair_id, *[str(rng.choice(["a", "b"]))] * 25)]
        return calibrate(comparisons, choices).predicts

    assert np.mean([predicts(seed) for seed in range(60)]) <= 0.15


def test_the_regression_is_the_one_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(80, 4)), rng.uniform(0.1, 1, 80)
    y = (rng.random(80) < expit(2 * x[:, 1])).astype(float)
    beta, variance = ridge_logistic(x, y, w, 0.7, np.arange(80))
    theirs = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, y, sample_weight=w).coef_[0]
    assert beta == pytest.approx(theirs, abs=1e-5)
    assert (variance > 0).all()


def test_separable_votes_keep_a_finite_coefficient():
    comparisons = [compared(f"p{i}", 0.1 * (i + 1)) for i in range(30)]
    fit = calibrate(comparisons, [v for c in comparisons for v in voted(c.pair_id, "a")])
    assert 0 < fit.c1 < 100 and math.isfinite(fit.low) and math.isfinite(fit.high)


def test_ties_and_both_bad_never_become_a_winner():
    comparisons = [compared(name, 0.4) for name in ("tied", "both bad", "mixed", "mostly tied", "won")]
    choices = [
        *voted("tied", "tie"),
        *voted("both bad", "both_bad", "both_bad"),
        *voted("mixed", "tie", "both_bad"),
        *voted("mostly tied", "a", "tie", "both_bad"),
        *voted("won", "a", "tie", "cannot_judge"),
    ]
    for mode in ("human", "both"):  # a reward, however clear, does not overrule people who see no winner
        mix = mixed_pairs(comparisons, choices, mode=mode)
        assert [p.pair_id for p in mix.pairs] == ["won"]
        assert mix.dropped == {"only ties": 3, "people are split": 1}
        assert mix.winners == {"a": 2, "tie": 4, "both_bad": 4, "cannot_judge": 1}


def test_ties_do_not_calibrate_the_reward():
    comparisons = [compared("p", 0.4), compared("q", 0.1)]
    assert calibrate(comparisons, [*voted("p", "tie"), *voted("q", "both_bad")]) is None
    assert calibrate([compared("p", 0.0)], voted("p", "a")) is None  # equal rewards say nothing either


@pytest.mark.parametrize("mode", ["human", "both"])
def test_what_gives_nothing_to_learn_from_is_a_sentence(mode):
    comparisons = [compared("p", 0.4), compared("q", 0.1)]
    with pytest.raises(ValueError, match="there are no judgments yet"):
        mixed_pairs(comparisons, mode=mode)
    with pytest.raises(ValueError, match="there are no judgments yet"):
        mixed_pairs(comparisons, voted("p", "cannot_judge"), mode=mode)
    with pytest.raises(ValueError, match="all 3 judgments are ties or both bad"):
        mixed_pairs(comparisons, [*voted("p", "tie", "both_bad"), *voted("q", "tie")], mode=mode)
    with pytest.raises(ValueError, match="contradict each other"):
        mixed_pairs(comparisons, voted("p", "a", "b"), mode=mode)
    with pytest.raises(ValueError, match=r"no comparison gives a training pair \(trains no agent: 1\)"):
        mixed_pairs([compared("p", agent=None)], voted("p", "a"), mode=mode)


def test_input_that_fits_nothing_is_a_sentence():
    one = [compared("p", 0.2)]
    for bad, match in (
        ({"comparisons": []}, "no comparisons"),
        ({"comparisons": one * 2}, "given 2 times"),
        ({"choices": voted("q", "a")}, "pairs that are not given, such as 'q'"),
        ({"mode": "best"}, "mode 'best'"),
        ({"cap": 0}, "cap 0"),
        ({"kappa": float("nan")}, "kappa nan"),
        ({"ridge": -1}, "ridge -1"),
    ):
        with pytest.raises(ValueError, match=match):
            mixed_pairs(**{"comparisons": one, "choices": voted("p", "a"), **bad})
    with pytest.raises(ValueError, match="winner 'left'"):
        Choice("p", "ann", "left", True)
    with pytest.raises(ValueError, match="weight nan"):
        compared("p", weight=float("nan"))


def test_a_reward_that_is_no_number_is_unknown_and_counted():
    comparisons = [compared("nan", float("nan")), compared("infinite", float("inf")), compared("known", 0.2)]
    with pytest.raises(ValueError, match="no reward: 2"):
        mixed_pairs(comparisons[:2], mode="automatic")
    mix = mixed_pairs(comparisons, mode="automatic")
    assert [p.pair_id for p in mix.pairs] == ["known"] and "2 of 3 comparisons have a reward that is missing" in mix.notes[0]
    by_votes = mixed_pairs(comparisons, [v for c in comparisons for v in voted(c.pair_id, "b")])
    assert len(by_votes.pairs) == 3 and by_votes.calibration.n == 1  # people can judge what the reward could not


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"a": "  "}, "a text is empty"),
        ({"a": "loud"}, "the texts are the same"),
        ({"prompt": ()}, "no prompt"),
        ({"agent": None}, "trains no agent"),
    ],
)
@pytest.mark.parametrize("mode", ["human", "automatic", "both"])
def test_what_cannot_train_is_dropped_and_counted(changes, reason, mode):
    mix = mixed_pairs([compared("p", 0.2, **changes), compared("good", 0.2)], [*voted("p", "a"), *voted("good", "a")], mode=mode)
    assert [p.pair_id for p in mix.pairs] == ["good"] and mix.dropped == {reason: 1}


def test_one_judge_is_allowed_and_called_personal():
    mix = mixed_pairs([compared("p")], voted("p", "a", who="ann"), mode="human")
    assert mix.personal and "one person's" in mix.notes[0]
    assert not mixed_pairs([compared("p")], voted("p", "a", "a"), mode="human").personal


def crowd(n_pairs: int, n_honest: int) -> tuple[list[Comparison], list[Choice], list[Choice]]:
    """Three honest judges with ``n_honest`` votes each for a, and a spammer who votes b on everything."""
    comparisons = [compared(f"p{i}", 0.1 * (1 + i % 7)) for i in range(n_pairs)]
    honest = [Choice(f"p{i}", f"honest {j}", "a", i % 2 == 0) for j in range(3) for i in range(j, n_honest + j)]
    spam = [Choice(c.pair_id, "spammer", "b", True) for c in comparisons]
    return comparisons, honest, spam


def logits(pairs: tuple[PreferencePair, ...]) -> dict[str, float]:
    """Weight times logit toward a, by pair."""
    return {p.pair_id: p.weight * math.log(p.q / (1 - p.q)) * (1 if p.chosen == "dry" else -1) for p in pairs}


def test_a_spammer_with_10_000_votes_moves_no_more_than_the_cap():
    comparisons, honest, spam = crowd(10_000, 40)
    cap, kappa = 30.0, 1.5
    without = logits(mixed_pairs(comparisons, honest, mode="human", cap=cap, kappa=kappa).pairs)
    mix = mixed_pairs(comparisons, [*honest, *spam], mode="human", cap=cap, kappa=kappa)
    moved = [value - without.get(id_, 0.0) for id_, value in logits(mix.pairs).items()]
    assert sum(abs(m) for m in moved) <= kappa * cap + 1e-6
    assert {j.annotator: (j.n, j.total) for j in mix.judges}["spammer"] == (10_000, pytest.approx(cap))
    assert any("4 of 4 judges gave more than 30 judgments" in note for note in mix.notes)
    kept = {p.pair_id: p.chosen for p in mix.pairs}
    assert all(kept[c.pair_id] == "dry" for c in honest)  # where an honest person judged, the spammer decides nothing


def test_a_spammer_does_not_turn_the_calibration_round():
    comparisons, choices = simulated(400, c1=8, seed=1)
    spammed = [compared(f"s{i}", 0.2 if i % 2 else -0.2) for i in range(4000)]
    spam = [Choice(c.pair_id, "spammer", "b" if c.gap > 0 else "a", i % 3 == 0) for i, c in enumerate(spammed)]
    capped, free = (calibrate([*comparisons, *spammed], [*choices, *spam], cap=cap) for cap in (30, 1e9))
    assert capped.c1 > 0 and capped.predicts and free.c1 < 0


def test_a_spammer_does_not_push_aside_what_the_reward_says():
    comparisons, choices = simulated(400, c1=8, seed=1)
    comparisons += [compared(f"free {i}", 0.2) for i in range(1000)]
    spam = [Choice(f"free {i}", "spammer", "b", True) for i in range(1000)]
    mix = mixed_pairs(comparisons, [*choices, *spam], cap=30)
    free = [p for p in mix.pairs if p.pair_id.startswith("free")]
    assert len(free) == 1000 and {p.chosen for p in free} == {"dry"}
    assert all(p.weight == 1 and p.q == pytest.approx(expit(0.2 * mix.calibration.c1 - 30 / 1000)) for p in free)


def test_ten_votes_on_one_pair_by_one_person_are_one_vote():
    comparisons = [compared("p"), compared("q")]
    again = mixed_pairs(comparisons, [*voted("p", *["a"] * 10, who="ann"), *voted("p", "b", "b")], mode="human")
    assert (again.pairs[0].chosen, again.pairs[0].q) == ("loud", pytest.approx(expit(1)))  # 1 against 2
    undecided = [*voted("p", "a", "b", who="ann"), *voted("q", "a")]
    assert mixed_pairs(comparisons, undecided, mode="human").dropped == {"people are split": 1}


winners = st.sampled_from(["a", "b", "tie", "both_bad", "cannot_judge"])
votes = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xyz"), winners, st.booleans()), min_size=1, max_size=30)
gaps = st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=6, max_size=6)


@settings(deadline=None)
@given(votes, gaps, st.sampled_from(["human", "automatic", "both"]), st.floats(0.5, 5))
def test_exchanging_a_and_b_changes_nothing_and_labels_stay_in_range(votes, gaps, mode, cap):
    comparisons = [compared(str(i), gap, words_a=10 + i) for i, gap in enumerate(gaps)]
    choices = [Choice(str(i), who, winner, left, f"v{n}") for n, (i, who, winner, left) in enumerate(votes)]
    other = {"a": "b", "b": "a"}
    turned = [
        dataclasses.replace(c, a=c.b, b=c.a, reward_a=c.reward_b, reward_b=c.reward_a, words_a=c.words_b, words_b=c.words_a)
        for c in comparisons
    ]
    turned_choices = [dataclasses.replace(c, winner=other.get(c.winner, c.winner), a_left=not c.a_left) for c in choices]
    try:
        mix = mixed_pairs(comparisons, choices, mode=mode, cap=cap)
    except ValueError:
        with pytest.raises(ValueError):
            mixed_pairs(turned, turned_choices, mode=mode, cap=cap)
        return
    again = mixed_pairs(turned, turned_choices, mode=mode, cap=cap)
    assert [(p.pair_id, p.chosen, p.rejected) for p in mix.pairs] == [(p.pair_id, p.chosen, p.rejected) for p in again.pairs]
    assert [(p.q, p.weight) for p in mix.pairs] == [(pytest.approx(p.q, abs=1e-6), pytest.approx(p.weight)) for p in again.pairs]
    assert all(0.5 < p.q <= 1 and 0 < p.weight <= 1 for p in mix.pairs)
    assert len(mix.pairs) + sum(mix.dropped.values()) == len(comparisons) and sum(mix.winners.values()) == len(choices)
    assert all(j.total <= cap + 1e-9 for j in mix.judges)


def test_the_same_input_gives_the_same_pairs():
    assert mixed_pairs(*simulated(50, 6, 2)) == mixed_pairs(*simulated(50, 6, 2))


text = st.text(min_size=1).filter(lambda t: t.strip())
training_pairs = st.builds(
    PreferencePair,
    agent=st.sampled_from(["style", "topic", "generator"]),
    prompt=st.lists(st.tuples(st.sampled_from(["system", "user"]), st.text()), min_size=1, max_size=3).map(tuple),
    chosen=text,
    rejected=text.map(lambda t: t + "x-other"),
    weight=st.floats(0, 10),
    q=st.floats(0, 1),
    source=st.sampled_from(["metric", "human", "both"]),
    pair_id=st.text(),
    judgment_ids=st.lists(st.text(), max_size=3).map(tuple),
).filter(lambda p: p.chosen != p.rejected)


@settings(deadline=None)
@given(pairs=st.lists(training_pairs, max_size=4))
def test_pairs_come_back_from_a_file(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    assert write_pairs(path, pairs) == len(pairs)
    assert read_pairs(path) == tuple(pairs)


def test_rows_have_trl_columns():
    row = pair_to_row(PreferencePair("style", PROMPT, "dry", "loud", 0.5, 0.75, "both", "p", ("v1",)))
    assert row["prompt"][0] == {"role": "system", "content": "Say how this person writes."}
    assert (row["chosen"], row["rejected"]) == ([{"role": "assistant", "content": "dry"}], [{"role": "assistant", "content": "loud"}])
    bare = pair_from_row({k: row[k] for k in ("prompt", "chosen", "rejected", "agent")})
    assert (bare.weight, bare.q, bare.source) == (1, 1, "metric")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"agent": "base"}, "agent 'base' is not trained"),
        ({"agent": None}, "agent None"),
        ({"q": 1.5}, "q is 1.5"),
        ({"q": "high"}, "TRL's conversational form"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": -1}, "weight is -1"),
        ({"source": "me"}, "source 'me'"),
        ({"prompt": []}, "needs the prompt"),
        ({"chosen": [{"role": "assistant", "content": " "}]}, "one of them is empty"),
        ({"chosen": [{"role": "assistant", "content": "loud"}]}, "the same text"),
        ({"chosen": "dry"}, "not a list of one message"),
        ({"rejected": [{"role": "assistant"}]}, "needs 'content'"),
        ({"pair_id": 7}, "7 is not a text"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, changes, match):
    row = pair_to_row(PreferencePair("style", PROMPT, "dry", "loud"))
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n\n" + json.dumps(row | changes) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"line 3 of pairs.jsonl: .*{match}"):
        read_pairs(path)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pair = PreferencePair("style", PROMPT, "dry", "loud")
    write_pairs(path, [pair])

    def broken():
        yield dataclasses.replace(pair, chosen="warm")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_pairs(path, broken())
    assert read_pairs(path) == (pair,)
