"""Files -> Corpus: every format, every kind of bad row, cleaning, holding out, and the three real benchmark files."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pat_core import cleaning, labels
from pat_core.corpus import Corpus, benchmark_target, describe, hold_out, read_corpus
from pat_core.types import Review

ROW = {"user_id": "ann", "topic_id": "k1", "topic": "Kettle", "category": "kitchen", "title": "Fast", "text": "It boils fast.", "rating": 4}


def jsonl(tmp_path, *rows, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def row(**changes):
    return {**ROW, **changes}


def pgraphrag(tmp_path, *users, name="split.json"):
    path = tmp_path / name
    profiles = [
        {"id": user, "profile": [dict(zip(("pid", "rating", "title", "text"), review, strict=True)) for review in reviews]}
        for user, *reviews in users
    ]
    path.write_text(json.dumps(profiles), encoding="utf-8")
    return path


# formats


def test_jsonl_keeps_every_field(tmp_path):
    corpus, report = read_corpus(jsonl(tmp_path, row(time="2024-03-01T10:00:00", rating="4.0")))
    (review,) = corpus.reviews
    assert (review.user_id, review.topic_id, review.topic, review.category) == ("ann", "k1", "Kettle", "kitchen")
    assert (review.title, review.text, review.rating, review.time) == ("Fast", "It boils fast.", 4.0, "2024-03-01")
    assert report.n_read == report.n_kept == 1 and report.format == "JSON Lines"
    assert corpus.by_user == {"ann": (review,)} and corpus.topics == {"k1": "Kettle"} and corpus.category_of == {"k1": "kitchen"}


def test_format_is_told_by_content_not_by_name(tmp_path):
    corpus, report = read_corpus(jsonl(tmp_path, ROW, name="reviews.parquet"))
    assert report.format == "JSON Lines" and len(corpus.reviews) == 1


def test_amazon_2023(tmp_path):
    line = {
        "rating": 2.0,
        "title": "No",
        "text": "Broke in a day.",
        "images": [],
        "asin": "B01",
        "parent_asin": "B07",
        "user_id": "AE1",
        "timestamp": 1588615855070,
    }
    corpus, report = read_corpus(jsonl(tmp_path, line))
    assert report.format == "Amazon Reviews 2023 (JSON Lines)"
    assert (corpus.reviews[0].topic_id, corpus.reviews[0].time, corpus.reviews[0].rating) == ("B07", "2020-05-04", 2.0)


def test_csv_and_parquet_read_alike_with_given_and_guessed_columns(tmp_path):
    columns = {
        "who": ["NA", "007"],
        "asin": ["1", "007"],
        "stars": ["5", "1"],
        "review_body": ["Warm, and\nquiet.", "Cold."],
        "Headline": ["a", "b"],
    }
    text = io.StringIO()
    csv.writer(text).writerows([columns, *zip(*columns.values(), strict=True)])
    (tmp_path / "a.csv").write_text(text.getvalue(), encoding="utf-8")
    pq.write_table(pa.table(columns), tmp_path / "a.bin")
    from_csv, report = read_corpus(tmp_path / "a.csv", columns={"user_id": "who"})
    from_parquet, _ = read_corpus(tmp_path / "a.bin", columns={"user_id": "who"})
    assert [r.user_id for r in from_csv.reviews] == ["NA", "007"] and [r.topic_id for r in from_csv.reviews] == ["1", "007"]
    assert from_csv.reviews == from_parquet.reviews and from_csv.reviews[0].text == "Warm, and\nquiet."
    assert any("text from review_body" in note for note in report.notes)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("utf-8-sig", "café ☕"), ("utf-16", "café ☕"), ("utf-16-le", "cafe in the morning"), ("latin-1", "café olé"), ("cp1252", "“café”")],
)
def test_encodings(tmp_path, encoding, text):
    path = tmp_path / "data.csv"
    path.write_bytes(f"user_id,topic_id,text\nann,k1,{text}\nbob,k1,plain words\n".encode(encoding))
    corpus, _ = read_corpus(path)
    assert [r.text for r in corpus.reviews] == [text, "plain words"]


def test_one_latin1_line_does_not_garble_the_utf8_ones(tmp_path):
    path = tmp_path / "data.jsonl"
    lines = [json.dumps(row(user_id=user, text=text), ensure_ascii=False) for user, text in (("ann", "naïve ☕"), ("bob", "crème"))]
    path.write_bytes(lines[0].encode() + b"\n" + lines[1].encode("latin-1"))
    corpus, report = read_corpus(path)
    assert [r.text for r in corpus.reviews] == ["naïve ☕", "crème"] and "1 lines were not UTF-8" in report.notes[0]


# bad rows


@pytest.mark.parametrize("rating", ["five", 0, 6, -1, "0", "NaN", "inf", True, [5], "4;", "1e999"])
def test_an_invalid_rating_refuses_its_row_only(tmp_path, rating):
    corpus, report = read_corpus(jsonl(tmp_path, row(rating=rating), row(user_id="bob")))
    assert [r.user_id for r in corpus.reviews] == ["bob"]
    assert report.refused == {"rating is not a number from 1 to 5": 1} and report.examples[0].where == "line 1"


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 6000])
def test_ratings_that_only_json_can_spell(tmp_path, literal):
    bad = json.dumps(row(rating=0)).replace('"rating": 0', f'"rating": {literal}')
    corpus, report = read_corpus(jsonl(tmp_path, bad, row(user_id="bob")))
    assert len(corpus.reviews) == 1 and sum(report.refused.values()) == 1


@pytest.mark.parametrize("rating", [None, "", "  "])
def test_a_missing_rating_is_none(tmp_path, rating):
    assert read_corpus(jsonl(tmp_path, row(rating=rating)))[0].reviews[0].rating is None


def test_rows_that_are_no_reviews_are_refused_with_their_line(tmp_path):
    deep = '{"user_id": "x", "text": ' + "[" * 100_000 + "]" * 100_000 + "}"
    path = jsonl(
        tmp_path,
        ROW,
        "{broken",
        deep,
        '"a string"',
        row(text="   "),
        row(user_id=""),
        row(user_id="x" * 500),
        row(text={"a": 1}),
        row(user_id="bob"),
    )
    corpus, report = read_corpus(path)
    assert [r.user_id for r in corpus.reviews] == ["ann", "bob"]
    assert report.refused == {
        "not valid JSON": 2, "not a JSON object": 1, "no text": 1, "no user_id": 1, "user_id longer than 200 characters": 1,
        "text is not text": 1,
    }  # fmt: skip
    assert {e.where for e in report.examples} == {f"line {n}" for n in range(2, 9)}
    assert report.n_read == report.n_kept + sum(report.refused.values()) == 9
    assert "line 2" in str(report) and "2 refused: not valid JSON" in str(report)


def test_repeated_review_ids_are_refused(tmp_path):
    corpus, report = read_corpus(jsonl(tmp_path, row(review_id="r1"), row(review_id="r1", text="Other words."), ROW, ROW))
    assert report.refused["review id already taken"] == 2 and corpus.by_id["r1"].text == "It boils fast."


def test_ragged_csv_rows_and_a_lost_quote(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(
        'user_id,topic_id,text\nann,k1,fine\nbob,k1\ncat,k1,one,two\n\ndan,k1,good too\neve,k1,"lost quote\n' + "x,y,z\n" * 200_000
    )
    corpus, report = read_corpus(path)
    assert [r.user_id for r in corpus.reviews][:2] == ["ann", "dan"]
    assert report.refused["wrong number of columns"] == 2 and report.refused["broken CSV row"] == 1


def test_text_is_safe_for_files_screens_and_sqlite(tmp_path):
    line = json.dumps(row(text="a\u0000b \u202ereversed\u202c \udcff end\r\nnext \U0001f469\u200d\U0001f373 \U000e0041tag"))
    corpus, report = read_corpus(jsonl(tmp_path, line))
    assert corpus.reviews[0].text == "ab reversed \N{REPLACEMENT CHARACTER} end\nnext \U0001f469\u200d\U0001f373 tag"
    assert report.cleaned == {"control or invisible characters removed": 1}


def test_huge_fields_are_capped_with_a_note(tmp_path):
    corpus, report = read_corpus(jsonl(tmp_path, row(text="word " * 100_000, title="t" * 9999)))
    assert len(corpus.reviews[0].text) <= 20_000 and len(corpus.reviews[0].title) == 300
    assert report.cleaned == {"text cut to 20,000 characters": 1, "title cut to 300 characters": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"), (b" \n ", "is empty"), (b"\xef\xbb\xbf", "is empty"), (b'[{"id": "a", "profile": [', "is the file cut off"),
        (b"[" * 200_000, "nested too deeply"), (b"PAR1 not really", "not a whole Parquet file"), (b"\x1f\x8b\x08abc", "compressed"),
        (b"just one sentence", "no known format"), (b",\n", "does not begin with a row of column names"),
        (b"a,b\n1,2\n", "--column user_id=NAME"),
        (b"\x89PNG\r\n" + bytes(4000), "not a text file"),
        (b'{"user_id": "a",\n"text": "b"\n}', "pretty-printed"), (b"[]", "no column holds"), (b"user_id,topic_id,text\n", "it has no rows"),
        (b'{"user_id": "a", "topic_id": "b", "text": ""}', "1 x no text, first at line 1"),
    ],
)  # fmt: skip
def test_a_broken_file_raises_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_corpus(path)


def test_missing_file_folder_and_wrong_columns(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        read_corpus(tmp_path)
    with pytest.raises(ValueError, match="no column is called 'body'"):
        read_corpus(jsonl(tmp_path, ROW), columns={"text": "body"})
    with pytest.raises(ValueError, match="no field is called 'colour'"):
        read_corpus(jsonl(tmp_path, ROW), columns={"colour": "text"})


def test_a_parquet_bomb_stops_at_the_row_cap(tmp_path):
    n = 400_000
    table = pa.table({name: pa.array(["x"] * n).dictionary_encode() for name in ("user_id", "topic_id", "text")})
    pq.write_table(table, tmp_path / "bomb.parquet", row_group_size=n)
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    with pytest.raises(ValueError, match="more than 300,000 rows"):
        read_corpus(tmp_path / "bomb.parquet")


# PGraphRAG and holding out


def test_pgraphrag_keeps_profile_order_and_the_target(tmp_path):
    path = pgraphrag(tmp_path, ("zed", ("k1", 5, "T", "The target."), ("k2", 1, "H", "History one.")), ("ann", ("k1", 2, "A", "Another.")))
    corpus, report = read_corpus(path)
    assert report.format == "PGraphRAG split (JSON)"
    assert [r.review_id for r in corpus.by_user["zed"]] == ["zed#0", "zed#1"]
    assert benchmark_target(corpus, "zed").text == "The target."
    assert benchmark_target(corpus.without({"zed#0"}), "zed") is None
    with pytest.raises(ValueError, match="no user is called 'nobody'"):
        benchmark_target(corpus, "nobody")


def test_target_of_other_files_is_the_newest(tmp_path):
    ids = read_corpus(jsonl(tmp_path, row(review_id="order #7"), row(review_id="order #9", text="Other.")))[0]
    assert benchmark_target(ids, "ann").review_id == "order #7", "an id of the file's own is no place in a profile"
    corpus, _ = read_corpus(
        jsonl(tmp_path, row(time="2024-01-01"), row(time="2024-05-01", text="Newest."), row(time="2023-01-01", text="Oldest."))
    )
    assert benchmark_target(corpus, "ann").text == "Newest."


def test_hold_out_never_tells_the_target(tmp_path):
    path = pgraphrag(
        tmp_path,
        ("zed", ("k1", 5, "Zanzibar", "Purple zeppelin whispers."), ("k2", 4, "Tea", "Green tea tastes fine.")),
        ("ann", ("k1", 2, "Kettle lid", "The kettle lid rattles.")),
        ("bob", ("k1", 2, "Spout", "The kettle spout drips. Kettle lid rattles too."), ("k2", 3, "Tea", "Weak tea.")),
    )
    corpus, _ = read_corpus(path, raw=True)
    target = benchmark_target(corpus, "zed")
    query = hold_out(corpus, target, seed=3)
    assert (query.title, query.rating, query.user_id, query.seed) == ("Zanzibar", 5.0, "zed", 3)
    assert query.held_out == {"zed#0"} and [r.review_id for r in query.history] == ["zed#1"]
    assert "zeppelin" not in query.topic and "kettle" in query.topic


def test_hold_out_also_bars_copies_of_the_target_in_raw_data(tmp_path):
    path = pgraphrag(
        tmp_path,
        ("zed", ("k1", 5, "T", "Same words, twice!"), ("k1", 5, "T", "same words twice")),
        ("ann", ("k1", 5, "T", "Same words twice.")),
    )
    corpus, _ = read_corpus(path, raw=True)
    query = hold_out(corpus, benchmark_target(corpus, "zed"))
    assert query.held_out == {"zed#0", "zed#1", "ann#0"} and query.history == ()


# cleaning


REPLY = (
    "Dear Ann_B, Thank you for taking the time to review our hotel. We are glad you enjoyed your stay. Sincerely, Jo Doe, General Manager"
)


@pytest.mark.parametrize(
    ("text", "clean", "kind"),
    [
        ("Fine.<br /><br />Really &amp; truly", "Fine.\n\nReally & truly", "markup removed"),
        ("[[VIDEOID:12ab]] See above.", "See above.", "markup removed"),
        ("Nice scent. This review was collected as part of a promotion.", "Nice scent.", "promotion tag cut"),
        ("Quiet room. Good bed. The pool was...More", "Quiet room. Good bed.", "truncated text cut to its last whole sentence"),
        (
            "One long sentence that never came to its end and was... More",
            "One long sentence that never came to its end and was",
            "truncated text cut to its last whole sentence",
        ),
        (
            "Good bed. Bad coffee. The...MoreAloha and see you soon!",
            "Good bed. Bad coffee.",
            "truncated text cut to its last whole sentence",
        ),
        ("We slept well." + REPLY, "We slept well.", "management reply cut"),
        ("We slept well " + REPLY, "We slept well", "management reply cut"),
        ("Nice pool.Thanks for the great review! We hope to see you again.", "Nice pool.", "management reply cut"),
    ],
)
def test_noise_is_cut_and_named(text, clean, kind):
    assert cleaning.clean_text(text) == (clean, (kind,))


@pytest.mark.parametrize(
    "text",
    [
        "Thank you to the staff for making our stay so lovely. We look forward to coming back!",
        "I love it <3 and 5 < 6, AT&T too.",
        "Dear Lume, I love your product. Thank you for making it.",
        "There is no more... More is better, they say.",
        "We are glad that we chose it. The general manager was kind.",
        "More",
    ],
)
def test_a_persons_own_words_are_left_alone(text):
    assert cleaning.clean_text(text) == (text, ())


@given(st.text(max_size=400))
def test_cleaning_only_shortens_and_settles(text):
    plain = cleaning.plain_text(text)
    assert cleaning.plain_text(plain) == plain
    assert len(cleaning.without_reply(plain)) <= len(plain)


def test_repeats_go_shared_names_split_and_raw_keeps_both(tmp_path):
    long = "This exact sentence has been posted more than once."
    path = pgraphrag(
        tmp_path,
        ("ann", ("k1", 5, "T", long), ("k1", 5, "T", long.upper())),
        ("bob", ("k2", 3, "T", "Short."), ("k1", 4, "T", long)),
        ("cat", ("k2", 3, "T", "short")),
        ("A verified traveler", ("k1", 5, "T", "First of many."), ("k3", 1, "T", "Second of many.")),
        ("Dave", ("k1", 5, "T", "one"), ("k1", 4, "T", "two"), ("k1", 3, "T", "three")),
        ("dave77", ("k1", 5, "T", "uno"), ("k1", 4, "T", "due"), ("k1", 3, "T", "tre")),
    )
    corpus, report = read_corpus(path)
    assert report.refused == {"repeats another review of its topic": 2}
    assert {"ann#0", "bob#0", "cat#0"} <= set(corpus.by_id) and not {"ann#1", "bob#1"} & set(corpus.by_id)
    assert report.cleaned["display names shared by many people, split"] == 2
    assert {"A verified traveler#0", "A verified traveler#1", "Dave#0", "Dave#1", "Dave#2"} <= set(corpus.by_user)
    assert len(corpus.by_user["dave77"]) == 3
    assert benchmark_target(corpus, "Dave#0").text == "one" and benchmark_target(corpus, "Dave#1") is None
    raw, raw_report = read_corpus(path, raw=True)
    assert len(raw.reviews) == 13 and not raw_report.refused and not raw_report.cleaned and len(raw.by_user) == 6


# names of topics


def test_topics_without_a_name_get_a_readable_unique_one():
    def review(n, topic_id, title, text):
        return Review(f"r{n}", f"u{n}", topic_id, "", "", title, text)

    polish = [
        ("Thumb sucking", "Stopped the thumb sucking."),
        ("Tastes vile", "This nail polish ended thumb sucking."),
        ("Nail polish", "Bitter nail polish."),
    ]
    soup = [("Soup pot", "A heavy soup pot."), ("Heavy", "The soup pot has a glass lid."), ("Glass lid", "Good glass lid.")]
    counts = [labels.phrase_counts(polish), labels.phrase_counts(soup)]
    stats = labels.phrase_stats(counts)
    assert labels.label(labels.ranked_phrases(counts[0], 3, stats)) == "nail polish, thumb sucking"
    assert labels.label(labels.ranked_phrases(counts[1], 3, stats)) == "glass lid, soup pot"
    other = labels.label(labels.ranked_phrases(counts[0], 3, stats), {"nail polish, thumb sucking"})
    assert other and other != "nail polish, thumb sucking"
    assert labels.label([]) == ""


def test_names_in_the_data_are_kept_and_the_commonest_wins(tmp_path):
    corpus, _ = read_corpus(
        jsonl(
            tmp_path, row(topic="Kettle"), row(user_id="b", topic="Kettle"), row(user_id="c", topic="kettle X"), row(user_id="d", topic="")
        )
    )
    assert corpus.topics == {"k1": "Kettle"} and {r.topic for r in corpus.reviews} == {"Kettle"} and not corpus.labeled


# properties

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).map(cleaning.plain_text).filter(bool)
ids = st.text("abcXYZ019-_ é", min_size=1, max_size=8).map(lambda s: " ".join(s.split())).filter(bool)
reviews = st.builds(
    Review, review_id=ids, user_id=ids, topic_id=ids, topic=st.just(""), category=st.just(""),
    title=texts.map(lambda t: t.replace("\n", " ").strip()), text=texts,
    rating=st.none() | st.sampled_from([1.0, 2.5, 5.0]), time=st.just("") | st.dates().map(str),
)  # fmt: skip
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.lists(reviews, min_size=1, max_size=12, unique_by=lambda r: r.review_id))
def test_what_is_written_is_read_back(tmp_path, items):
    items = [replace(item, topic=f"name of {item.topic_id}") for item in items]
    path = jsonl(tmp_path, *(asdict(item) for item in items))
    corpus, report = read_corpus(path, raw=True)
    assert corpus.reviews == tuple(items) and not report.refused
    again, _ = read_corpus(path, raw=True)
    assert again.fingerprint == corpus.fingerprint == Corpus("other name", tuple(reversed(items))).fingerprint
    assert corpus.without({items[0].review_id}).fingerprint != corpus.fingerprint


@quick
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path, data):
    path = tmp_path / "data"
    path.write_bytes(data)
    try:
        corpus, report = read_corpus(path)
    except ValueError as error:
        assert len(str(error)) > 20
    else:
        assert report.n_kept == len(corpus.reviews)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


@quick
@given(st.lists(st.dictionaries(st.sampled_from([*ROW, "time", "review_id"]), json_values, max_size=9), max_size=8))
def test_any_json_rows_beside_a_good_one(tmp_path, rows):
    corpus, report = read_corpus(jsonl(tmp_path, row(review_id="good one"), *rows))
    assert "good one" in corpus.by_id
    assert report.n_read == len(rows) + 1 == report.n_kept + sum(report.refused.values())
    for review in corpus.reviews:
        assert review.text and review.user_id and review.topic_id and review.topic and (review.rating is None or 1 <= review.rating <= 5)
        json.dumps(asdict(review)).encode()
        review.text.encode()


@quick
@given(st.lists(st.lists(st.text(max_size=12), max_size=5), max_size=6))
def test_any_csv_rows_beside_a_good_one(tmp_path, rows):
    text = io.StringIO()
    csv.writer(text).writerows([["user_id", "topic_id", "text"], ["ann", "k1", "good words"], *rows])
    path = tmp_path / "data.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "replace"))
    corpus, _ = read_corpus(path, raw=True)
    assert corpus.reviews[0].text == "good words"


# real files


@pytest.mark.parametrize(
    ("name", "n_users", "n_topics", "n_read", "noise"),
    [
        ("amazon_dev", 2500, 542, 2706, {"markup removed": 150}),
        ("hotel_dev", 2500, 479, 2875, {"management reply cut": 500, "truncated text cut to its last whole sentence": 750}),
        ("gap_dev", 2500, 200, 4356, {"promotion tag cut": 90, "display names shared by many people, split": 20}),
    ],
)
def test_real_files(request, name, n_users, n_topics, n_read, noise):
    path = request.getfixturevalue(name)
    raw, raw_report = read_corpus(path, raw=True)
    assert raw_report.n_read == n_read and len(raw.reviews) >= n_read - 4 and len(raw.by_user) >= n_users - 4
    assert len(set(raw.topics.values())) == len(raw.topics) == n_topics
    assert sum(benchmark_target(raw, user) is not None for user in raw.by_user) >= n_users - 4
    corpus, report = read_corpus(path)
    assert report.n_read == n_read == report.n_kept + sum(report.refused.values()) and report.n_kept > 0.96 * n_read
    for kind, least in noise.items():
        assert report.cleaned[kind] >= least
    assert not any(review.text.rstrip().endswith("...More") for review in corpus.reviews)
    words = [(r.topic_id, cleaning.same_words(r.text)) for r in corpus.reviews if len(r.text.split()) > 8]
    assert len(words) == len(set(words))
    readable = sum(name != topic_id for topic_id, name in corpus.topics.items())
    assert readable > 0.95 * n_topics and all(len(name.split()) <= 4 for name in corpus.topics.values())


def test_command_prints_report_and_numbers(tmp_path):
    path = pgraphrag(
        tmp_path, ("ann", ("k1", 5, "A", "Good kettle."), ("k2", "bad", "B", "Lost.")), ("bob", ("k1", None, "C", "Fine kettle."))
    )
    run = subprocess.run([sys.executable, "-m", "pat_core.corpus", str(path)], capture_output=True, text=True, check=True)
    assert "3 reviews read, 2 kept" in run.stdout and "1 refused: rating is not a number from 1 to 5" in run.stdout
    assert "2 users, 1 topics, 2 reviews" in run.stdout and "0: 2, 1: 0, 2+: 0" in run.stdout
    failed = subprocess.run([sys.executable, "-m", "pat_core.corpus", str(tmp_path / "none")], capture_output=True, text=True)
    assert failed.returncode == 2 and "is not a file" in failed.stderr and "Traceback" not in failed.stderr


def test_describe_counts_history(tmp_path):
    corpus, _ = read_corpus(jsonl(tmp_path, *(row(text=f"Text {n}.") for n in range(3)), row(user_id="bob")))
    assert "0: 1, 1: 0, 2+: 1" in describe(corpus) and "kitchen: 4" in describe(corpus)
