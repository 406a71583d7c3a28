"""Campaigns and pairs from elsewhere: the same bytes again, nothing twice, nobody erased comes back, and no file is a traceback."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_data import SetClock, answer, fill, offer, person, vote

from annotate import sheets
from annotate.export import Options, export
from annotate.sheets import neutral, plain
from annotate.store import open_store
from annotate.transfer import import_any, import_pairs, import_text, in_words, main, read_export, take_over
from annotate.types import (
    Annotator,
    Candidate,
    Event,
    Exclusion,
    Item,
    Judgment,
    JudgmentQuery,
    Pair,
    new_id,
    pair_of,
)

ROOT = Path(__file__).resolve().parents[1]
ALL = JudgmentQuery(judge_kind=None, excluded=True, revisions=True)


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "votes.db", clock=SetClock()) as opened:
        yield opened


@pytest.fixture
def other(tmp_path):
    with open_store(tmp_path / "other.db") as opened:
        yield opened


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# A whole campaign

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
OUTCOMES = st.sampled_from(["A", "B", "tie", "both_bad", "cannot_judge"])


@st.composite
def campaigns(draw):
    """Writes a small campaign of every kind of row into a store."""
    texts = draw(st.lists(st.lists(TEXT, min_size=2, max_size=4, unique=True), max_size=3))
    names = draw(st.lists(TEXT, max_size=3))
    votes = draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), OUTCOMES, st.booleans(), TEXT), max_size=8))
    clicks = draw(st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=2))

    def write(store):
        people = [
            store.add_annotator(
                Annotator(new_id(), name[:80], "llm" if i == 2 else "human", perspective=name, identity_sha=f"{i}" * 64 if i else None)
            )
            for i, name in enumerate(names)
        ]
        pairs = []
        for i, group in enumerate(texts):
            item = Item(group[0], {"topic": group[-1]}, contributor_id=people[0].annotator_id if people and i == 2 else None)
            traces = [{"completion": {"role": "style", "messages": [["user", group[0]]], "prefix": "", "text": t}} for t in group]
            candidates = [Candidate(item.item_id, t, f"s{n}", trace) for n, (t, trace) in enumerate(zip(group, traces, strict=True))]
            copy = Candidate(item.item_id, group[0], "check-copy")
            made = [pair_of(candidates[0], c, "one-factor", agent="style", propensity=1 / (i + 1)) for c in candidates[1:2]]
            made += [pair_of(candidates[0], c, "system") for c in candidates[2:3]]
            made += [pair_of(candidates[1], c, "gold", expected=c.candidate_id) for c in candidates[2:3]]
            made += [pair_of(candidates[0], copy, "identical", expected="tie")]
            made += [pair_of(candidates[0], candidates[1], "swap", repeat_of=made[0].pair_id)]
            store.add_pairs(made, [*candidates, copy], [item])
            pairs += made
        for n, (which, whom, outcome, left, said) in enumerate(votes):
            if not pairs or not people:
                continue
            pair, who = pairs[which % len(pairs)], people[whom % len(people)]
            standing = store.judgments(replace(ALL, pair_id=pair.pair_id, annotator_id=who.annotator_id, revisions=False))
            details = {"rationale": said, "tags": (said,), "dims": {"style": "same"}, "unblinded": n == 3, "ms_total": n}
            if standing:
                [old] = standing
                store.revise(replace(old, judgment_id=new_id(), outcome=outcome, revision_of=old.judgment_id, created_at="", seq=None))
                continue
            side = pair.lo_id if left else pair.hi_id
            first = store.find(Pair, pair_id=pair.repeat_of) if pair.repeat_of else None
            shown = [a for a in store.judgments(ALL) if first and (a.pair_id, a.annotator_id) == (first.pair_id, who.annotator_id)]
            if shown:
                side = pair.hi_id if shown[0].shown_left_id == pair.lo_id else pair.lo_id
            store.record_judgment(answer(offer(store, pair, who, side), outcome, **details))
        given = store.judgments(ALL)
        for which, active in clicks:
            if given:
                store.exclude(Exclusion("careless", "owner", judgment_id=given[which % len(given)].judgment_id, active=active))
        if people:
            store.update_annotator(replace(people[-1], status="blocked"))

    return write


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(campaigns(), st.booleans())
def test_an_export_of_an_import_of_an_export_has_the_same_bytes(write, named):
    options = Options(include_unblinded=True, with_names=named)
    with tempfile.TemporaryDirectory() as name, open_store(Path(name) / "a.db") as one, open_store(Path(name) / "b.db") as two:
        folder = Path(name)
        write(one)
        first = export(one, folder / "first", options)
        done = take_over(two, read_export(folder / "first"))
        assert not done.refused and done.judgments == one.counts()["judgments"]
        assert export(two, folder / "second", options) == first
        assert files(folder / "first") == files(folder / "second")
        before = two.content_hash()
        take_over(two, read_export(folder / "first"))
        assert two.content_hash() == before  # a second time changes nothing


def voted(store, tmp_path):
    """A campaign with a person who voted, exported; the pairs, the person and the folder."""
    pairs, ada = fill(store).pairs, person(store, "Ada")
    vote(store, pairs[0], ada, "A")
    export(store, tmp_path / "out")
    return pairs, ada, tmp_path / "out"


def test_somebody_erased_here_does_not_come_back(store, tmp_path):
    pairs, ada = fill(store).pairs, person(store, "Ada")
    fill(store, prompt="Ada's own words", contributor_id=ada.annotator_id)
    bob = person(store, "Bob")
    vote(store, pairs[0], ada)
    vote(store, pairs[0], bob)
    export(store, tmp_path / "out")
    store.erase(ada.annotator_id)
    before = store.content_hash()
    done = import_any(store, tmp_path / "out")
    assert done.erased == 1 and store.content_hash() == before
    assert "erased here and stay so: 1" in in_words(done)


def test_an_answer_that_contradicts_one_here_is_refused_and_the_rest_go_on(store, other, tmp_path):
    pairs, ada, out = voted(store, tmp_path)
    import_any(other, out)
    vote(other, pairs[1], ada, "B")
    vote(store, pairs[1], ada, "A")
    vote(store, pairs[2], ada, "tie")
    export(store, tmp_path / "more")
    done = import_any(other, tmp_path / "more")
    assert done.judgments == 1 and [r.reason for r in done.refused] == ["you have answered this pair; change that answer instead"]
    assert {j.pair_id: j.outcome for j in other.judgments(ALL)} == {pairs[0].pair_id: "A", pairs[1].pair_id: "B", pairs[2].pair_id: "tie"}


def test_answers_on_texts_that_are_another_pair_here_are_refused(store, other, tmp_path):
    _, _, out = voted(store, tmp_path)
    made = fill(other)  # the same pair as what it is: known
    twin = [Candidate(made.item.item_id, c.text, "elsewhere") for c in made.candidates[:2]]
    with open_store(tmp_path / "third.db") as third:
        third.add_pairs([pair_of(*twin, "system")], twin, [made.item])
        done = import_any(third, out)
        assert done.judgments == 0 and "these two texts are another pair here" in done.refused[0].reason
    assert import_any(other, out).refused == ()


def test_an_altered_or_missing_file_is_refused(store, other, tmp_path):
    _, _, out = voted(store, tmp_path)
    path = out / "campaign" / "judgments.jsonl"
    good = path.read_bytes()
    for bad in (good.replace(b'"outcome":"A"', b'"outcome":"B"'), good[:-5], b""):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="changed or cut short"):
            import_any(other, out)
    path.unlink()
    with pytest.raises(ValueError, match="not a whole export"):
        import_any(other, out)
    assert other.counts()["items"] == 0


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"[" * 100_000, "line 1"),
        (b"{}", "line 1: judgment_id, pair_id"),
        (b'"text"', "line 1: not a JSON object"),
        (b"\xff\xfe", "line 1"),
        (b'{"judgment_id":"x"}', "line 1"),
    ],
)
def test_a_forged_export_gets_a_sentence(line, sentence, store, other, tmp_path):
    _, _, out = voted(store, tmp_path)
    path = out / "campaign" / "judgments.jsonl"
    sums = out / "SHA256SUMS"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(line)
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(line).hexdigest()))
    with pytest.raises(ValueError, match=sentence):
        import_any(other, out)


def test_what_was_imported_is_in_the_audit_trail(store, other, tmp_path):
    _, _, out = voted(store, tmp_path)
    import_any(other, out)
    import_text(other, "pairs.jsonl", '{"prompt":"p","text_a":"a","text_b":"b"}')
    assert [e.detail["source"] for e in other.all(Event, kind="import")] == ["out", "pairs.jsonl"]


# Pairs made elsewhere

ROWS = [
    {"prompt": "Review of A: t", "text_a": "=one", "text_b": "two\nlines", "system_a": "m1", "system_b": "m2", "lang": "de"},
    {"prompt": "Review of B: t", "text_a": "'=three", "text_b": "fóur", "system_a": "m1", "system_b": "m2", "lang": "de"},
]


def jsonl(rows, indent=None):
    return "".join(json.dumps(row, indent=indent) + "\n" for row in rows)


def csv_text(rows, delimiter=",", end="\n"):
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows({k: neutral(v) for k, v in row.items()} for row in rows)
    return file.getvalue()


def write_formats(folder):
    """The same rows as files of every kind."""
    import datasets

    (folder / "a.jsonl").write_text(jsonl(ROWS), encoding="utf-8-sig")
    (folder / "a.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    (folder / "comma.csv").write_text(csv_text(ROWS), encoding="utf-8", newline="")
    (folder / "excel.csv").write_text(csv_text(ROWS, ";", "\r\n"), encoding="utf-8-sig", newline="")
    (folder / "unicode.txt").write_text(csv_text(ROWS, "\t", "\r\n"), encoding="utf-16", newline="")
    (folder / "latin.csv").write_bytes(csv_text(ROWS).encode("latin-1"))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "a.parquet")
    (folder / "files").mkdir()
    (folder / "files" / "README.md").write_text("nothing to read")
    (folder / "files" / "part.jsonl").write_text(jsonl(ROWS))
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(folder / "saved")


def test_every_format_brings_the_same_pairs_once(store, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_formats(folder)
    sources = sorted(folder.iterdir())
    assert import_pairs(store, sources[0]).added.pairs == 2
    for source in sources[1:]:
        done = import_pairs(store, source)
        assert (done.added.pairs, done.added.known, done.refused) == (0, 2, ()), source.name
    assert {c.text for c in store.all(Candidate)} == {"=one", "two\nlines", "'=three", "fóur"}
    assert {(i.lang, i.prompt) for i in store.all(Item)} == {("de", "Review of A: t"), ("de", "Review of B: t")}
    assert {c.system for c in store.all(Candidate)} == {"m1", "m2"} and {p.kind for p in store.all(Pair)} == {"system"}


def test_both_orders_are_one_pair_and_equal_texts_are_none(store):
    rows = [{"prompt": "p", "a": "x", "b": "y"}, {"prompt": "p", "a": "y", "b": "x"}, {"prompt": "p", "a": "z", "b": "z"}]
    done = import_text(store, "pairs.jsonl", jsonl(rows))
    assert (done.added.pairs, done.added.known, done.added.identical) == (1, 1, 1)
    assert len(store.all(Candidate)) == 2 and len(store.all(Item)) == 1
    assert import_text(store, "again.csv", csv_text(rows)).added.pairs == 0


def test_which_text_was_preferred_elsewhere_decides_no_side(store):
    rows = [{"prompt": f"p{i}", "chosen": f"text {i}", "rejected": f"another {i}"} for i in range(200)]
    assert import_text(store, "hh.jsonl", jsonl(rows)).added.pairs == 200
    texts = {c.candidate_id: c for c in store.all(Candidate)}
    pairs = store.all(Pair)
    n_lo = sum(texts[p.lo_id].text.startswith("text") for p in pairs)
    assert 70 < n_lo < 130  # the order in a pair is that of hashes
    assert {texts[p.lo_id].system for p in pairs} | {texts[p.hi_id].system for p in pairs} == {"imported"}
    assert {c.trace["label"] for c in texts.values() if c.text.startswith("text")} == {"chosen"}


def test_what_the_judge_needs_comes_along(store):
    row = {"topic": "Hotel", "title": "Great", "rating": "4", "samples": '["Loved it!!", "Meh."]', "statements": "short and dry"}
    import_text(store, "a.csv", csv_text([row | {"text_a": "x", "text_b": "y"}]))
    [item] = store.all(Item)
    assert item.prompt == "Review of Hotel: Great" and item.source == "a.csv"
    assert item.reference == {
        "topic": "Hotel", "title": "Great", "rating": 4.0, "samples": ["Loved it!!", "Meh."], "statements": ["short and dry"],
        "neighbors": [],
    }  # fmt: skip


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Review it"}]


@pytest.mark.parametrize("implicit", [False, True])
def test_chats_as_trl_writes_them_train_again_after_a_vote(implicit, store, tmp_path):
    answers = {name: [{"role": "assistant", "content": f"{name} text"}] for name in ("chosen", "rejected")}
    row = {k: CHAT + v for k, v in answers.items()} if implicit else {"prompt": CHAT, **answers}
    import_text(store, "dpo.jsonl", jsonl([row | {"agent": "generator"}]))
    [pair], [item] = store.all(Pair), store.all(Item)
    assert (item.prompt, pair.agent) == ("Review it", "generator")
    store.record_judgment(answer(offer(store, pair, person(store)), "A", strength="clearly"))
    export(store, tmp_path / "out")
    [line] = [json.loads(x) for x in (tmp_path / "out" / "dpo_generator.jsonl").read_text().splitlines()]
    assert line["prompt"] == CHAT and {line["chosen"][0]["content"], line["rejected"][0]["content"]} == {"chosen text", "rejected text"}


def test_the_flat_table_of_an_export_is_a_file_of_pairs_too(store, tmp_path):
    _, _, out = voted(store, tmp_path)
    for name in ("judgments.csv", "judgments.parquet", "judgments.jsonl"):
        done = import_pairs(store, out / name)
        assert (done.added.pairs, done.added.known, done.refused) == (0, 1, ()), name


@given(st.text(st.sampled_from("'=+-@\t\rx "), max_size=6))
def test_a_cell_is_neutral_and_comes_back(cell):
    assert plain(neutral(cell)) == cell
    assert not neutral(cell).startswith(("=", "+", "-", "@", "\t", "\r"))


GOOD = {"prompt": "p", "text_a": "x", "text_b": "y"}
BAD_ROWS = {
    "a missing text": ({"prompt": "p", "text_a": "x"}, "text_b is missing or empty"),
    "no prompt": ({"text_a": "x", "text_b": "y"}, "prompt is missing or empty, and there is no topic"),
    "a number for a text": (GOOD | {"text_a": 3}, "text_a must be text, not int"),
    "a text beyond the limit": (GOOD | {"text_a": "x" * 60_000}, "at most 50,000 are kept"),
    "NUL": (GOOD | {"text_a": "a\0b"}, "NUL character"),
    "half a character": (GOOD | {"text_b": "\ud800"}, "lone surrogate"),
    "half a character in a label": (GOOD | {"system_a": "\ud800"}, "lone surrogate"),
    "blank": (GOOD | {"text_b": " \n "}, "text_b is empty"),
    "an unknown agent": (GOOD | {"agent": "boss"}, "agent 'boss' is not known; use one of style, topic, generator"),
    "an agent that is a list": (GOOD | {"agent": ["style"]}, "is not known"),
    "a rating in words": (GOOD | {"rating": "five"}, "rating 'five' is not a number from 1 to 5"),
    "a rating of 6": (GOOD | {"rating": 6}, "rating 6 is not a number"),
    "a rating of true": (GOOD | {"rating": True}, "is not a number"),
    "an infinite rating": (GOOD | {"rating": "1e999"}, "is not a number"),
    "samples that are a number": (GOOD | {"samples": 3}, "samples must be a text or a list"),
    "too many samples": (GOOD | {"samples": ["x"] * 30}, "at most 20"),
    "a reference in words": (GOOD | {"reference": "nice"}, "Expecting value"),
    "a reference with a bad part": (GOOD | {"reference": {"samples": [1]}}, "samples must be text"),
    "a deep reference": (GOOD | {"reference": "[" * 5000 + "]" * 5000}, "nested too deeply|JSON object"),
    "a chat without an answer": ({"chosen": CHAT, "rejected": CHAT}, "one answer each, by the assistant"),
    "a chat against a text": ({"prompt": "p", "chosen": CHAT, "rejected": "x"}, "must be text or a list of chat messages"),
    "a chat of somebody else": ({"prompt": [{"role": "boss", "content": "x"}], "text_a": "x", "text_b": "y"}, "holds a message that is no"),
    "a language that is a number": (GOOD | {"lang": 3}, "lang must be text"),
    "a text that speaks as a model": (GOOD | {"text_a": "As an AI language model, I like it."}, "text_a speaks as an assistant"),
    "a text that names its system": (GOOD | {"text_b": "Written by MyNet-7B.", "system_b": "MyNet-7B"}, "text_b names the model"),
    "a list": ([1], "not a JSON object"),
    "not JSON": ("{", "not valid JSON"),
    "deep JSON": ('{"text_a":' + "[" * 100_000, "not valid JSON"),
    "a number of 5000 digits": ('{"prompt":"p","text_a":"x","text_b":' + "9" * 5000 + "}", "not valid JSON"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_refused_with_its_line_and_the_others_come_in(name, store):
    row, sentence = BAD_ROWS[name]
    text = row if isinstance(row, str) else json.dumps(row)
    done = import_text(store, "pairs.jsonl", f"{json.dumps(GOOD)}\n{text}\n{json.dumps(GOOD | {'prompt': 'q'})}\n")
    assert done.added.pairs == 2 and len(done.refused) == 1
    assert done.refused[0].where == "line 2"
    assert re.search(sentence, done.refused[0].reason)
    assert "Refused: 1.\n  line 2: " in in_words(done)


BAD_FILES = {
    "": "is empty",
    "\ufeff \n": "is empty",
    "just a sentence": "is no known format",
    "[1, 2": "not valid JSON",
    "[" * 100_000: "nested too deeply",
    "name,stars\nx,1\n": "has no column for text_a and text_b; it has 'name', 'stars'",
    "prompt,text_a,text_b\n" + "p,x,y\n" * 50_001: "more than 50,000 rows",
    '{"prompt": "p",\n"text_a": 1': "",
    "x" * 5_000_000: "larger than 4 MB",
}


@pytest.mark.parametrize("text", BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_bad_text_gets_a_sentence_and_changes_nothing(text, store):
    before = store.content_hash()
    try:
        done = import_text(store, "x.csv", text)
    except ValueError as error:
        assert BAD_FILES[text] and BAD_FILES[text] in str(error)
    else:
        assert not BAD_FILES[text] and done.added.pairs == 0 and len(done.refused) == done.n_rows > 0
    assert store.content_hash() == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200) | st.text(st.sampled_from('{}[]",:\n\r\ttext_abp'), max_size=200).map("prompt,text_a,text_b\n{}".format))
def test_any_text_is_read_or_refused(store, text):
    try:
        import_text(store, text[:20], text)
    except ValueError as error:
        assert str(error)


def test_ragged_rows_and_odd_ids_stay_what_they_are(store):
    done = import_text(store, "a.csv", "prompt,text_a,text_b\nNA,007,1e5\np,x\np,x,y,z\n,,\n")
    assert [(r.where, r.reason) for r in done.refused] == [("line 3", "2 columns instead of 3"), ("line 4", "4 columns instead of 3")]
    assert {c.text for c in store.all(Candidate)} == {"007", "1e5"} and store.all(Item)[0].prompt == "NA"


def test_a_parquet_file_that_unpacks_without_end_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "MAX_DECODED", 20 * 2**20)
    text = pyarrow.array(["x" * 50_000] * 500)
    bomb = tmp_path / "bomb.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": text, "text_a": text, "text_b": text, "notes": text}), bomb, compression="zstd")
    assert bomb.stat().st_size < 10**6
    with pytest.raises(ValueError, match="unpacks to more than 20 MB"):
        import_pairs(store, bomb)
    bomb.write_bytes(bomb.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        import_pairs(store, bomb)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00", "is compressed"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
        ("a.bin", bytes(range(256)) * 50, "no known format|has no column"),
        ("folder", None, "holds no .jsonl"),
        ("missing", ..., "is not there"),
    ],
)
def test_a_file_that_is_none_gets_a_sentence(name, data, sentence, store, tmp_path):
    path = tmp_path / name
    if data is None:
        path.mkdir()
    elif data is not ...:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=sentence):
        import_pairs(store, path)


def test_the_command_line_imports_within_its_memory(store, tmp_path):
    _, _, out = voted(store, tmp_path)
    (tmp_path / "pairs.jsonl").write_text(jsonl([*ROWS, {"prompt": "p"}]))
    db = tmp_path / "new.db"
    run = [sys.executable, "-m", "annotate.transfer", "--db", db]
    done = subprocess.run([*run, out], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pairs: 4, people: 1, answers: 1" in done.stdout
    assert main(["--db", str(db), str(tmp_path / "pairs.jsonl")]) == 0
    with open_store(db) as busy:
        assert main(["--db", str(db), str(out)]) == 1  # in use by the app
        assert busy.counts()["pairs"] == 6 and len(busy.judgments(ALL)) == 1
    assert main(["--db", str(db), str(tmp_path / "nothing")]) == 1
    assert isinstance(store.all(Judgment)[0], Judgment)
