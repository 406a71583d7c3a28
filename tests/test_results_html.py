"""From a results file to sentences, pictures and one HTML file: what is said is what the figures say, and texts stay texts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from doubles_ui import HOSTILE
from eval_data import results_from_json
from results_data import SYSTEMS, difference, estimate, results

from pat_core.palette import DARK, LIGHT, painted
from pat_core.result_pictures import _names, _ticks, draw
from pat_core.result_words import Dot, Finding, findings, gap, headline, plain, standing
from pat_core.results_file import find_reports, keep, load, read_results
from pat_core.results_html import page, write_html
from pat_core.scoring import results_to_json


def finding(key: str, **changes) -> Finding:
    return next(f for f in findings(read_results(results(**changes))) if f.key == key)


class Outline(HTMLParser):
    """Headings in order, what is scripted, and what could reach another host."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.tags: dict[str, int] = {}
        self.outside: list[str] = []
        self.handlers: list[str] = []
        self.unscoped = 0

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.unscoped += tag == "th" and not dict(attrs).get("scope")
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.outside += [value for name, value in attrs if name in ("src", "href")]


def outline(html: str) -> Outline:
    it = Outline()
    it.feed(html)
    return it


# --- sentences


def test_numbers_read_as_in_the_tables_of_the_project():
    assert [plain(x) for x in (0.2, -0.012, 1.0, 0.0, -0.0001, 0.9996)] == [".200", "−.012", "1.000", ".000", ".000", "1.000"]
    assert gap(0.031) == "+.031" and gap(-0.031) == "−.031"


def test_first_place_is_said_with_the_next_and_ours_is_marked():
    f = finding("closer")
    assert f.answer == "PaT is first of 9, with .200 [.190, .210]; next is Neighbors, first 60 words with .185 [.176, .194]."
    rows = f.panels[0].rows
    assert [row.name for row in rows if row.mark == "ours"] == ["PaT"] and rows[0].name == "PaT"
    assert [row.value for row in rows] == sorted((row.value for row in rows), reverse=True)
    assert not {"The person’s own text", "PaT, untrained", "PaT, another person’s notes"} & {row.name for row in rows}


def test_a_lost_comparison_is_said_as_plainly_as_a_won_one():
    gaps = {"none": (0.05, 0.15), "lamp": (0.001, 0.2), "copy-60": (-0.02, 0.22)}
    paired = {name: {"mean": difference(*gap_and_base)} for name, gap_and_base in gaps.items()}
    f = finding("margin", paired=paired)
    assert "Ahead of No notes (+33%)." in f.answer and "Level with LaMP, own history (+0%)." in f.answer
    assert "Behind Neighbors, first 60 words (-9%)." in f.answer
    assert [row.mark for row in f.panels[0].rows] == ["sure", "unsure", "against"] and f.panels[0].line == 0.0


def test_second_place_is_said():
    systems = results()["systems"]
    systems["copy-60"]["groups"]["all"]["mean"] = estimate(0.3, 200, 0.04)
    said = finding("closer", systems=systems).answer
    assert said.startswith("PaT is second of 9, with .200 [.190, .210]; Neighbors, first 60 words is first with .300")


def test_less_is_better_for_ratings():
    systems = {
        name: {"label": SYSTEMS[name][0], "kind": SYSTEMS[name][1], "groups": {"all": {"mae": estimate(error, 200, 0.5)}}}
        for name, error in {"pat": 0.6, "none": 0.9, "lamp": 0.5}.items()
    }
    paired = {"none": {"mae": difference(-0.3, 0.9)}, "lamp": {"mae": difference(0.1, 0.5)}}
    changes = {"task": "rating", "systems": systems, "paired": paired, "gain": {}}
    first = finding("closer", **changes)
    assert first.answer.startswith("PaT is second of 3") and "guess the rating" in first.question
    assert "Ahead of No notes (-33%)." in finding("margin", **changes).answer and "Behind LaMP" in finding("margin", **changes).answer
    assert finding("copying", **changes).missing and finding("personal", **changes).missing
    assert page(read_results(results(**changes)))


def test_chance_is_called_chance():
    assert "The style notes add +.004, which could be chance." in finding("parts").answer
    unsure = [row.name for panel in finding("personal").panels[:1] for row in panel.rows if row.mark == "unsure"]
    assert unsure == ["One other review (34)", "Two or more (16)", "Visitors, one to three texts (60)"]
    up, down = (read_results(results(gain={"all": {"mean": difference(d, 0.2)}})) for d in (0.05, -0.05))
    assert "closer than with another’s" in findings(up)[3].answer and "further off" in findings(down)[3].answer
    read = read_results(results(paired={"x": {"mean": difference(0.01, 0.2, 10)}})).paired["x"]["mean"]
    assert standing(read, up=True) == "level"


def test_a_question_without_figures_says_why_and_has_no_picture():
    bare = results(paired={}, gain={}, judge=None, systems={"none": results()["systems"]["none"]})
    missing = findings(read_results(bare))
    assert all(f.missing and draw(f) is None for f in missing)
    html = page(read_results(bare))
    assert html.count("Not answered by this run") == 1 and "data-picture=" not in html.split("<script>")[0]
    assert len(headline(read_results(bare))) == 1


# --- pictures


def test_every_question_of_a_whole_run_has_a_picture_in_the_palette():
    for f in findings(read_results(results())):
        drawn = draw(f).to_json()
        colors = set(re.findall(r"#[0-9a-f]{6}", drawn))
        assert colors <= set(LIGHT.values()), f.key
        assert len(draw(f).data) >= 1 and draw(f).layout.height > 100


def test_pictures_hold_the_figures():
    figure = draw(finding("closer"))
    points = [(x, x - low, x + high) for t in figure.data for x, low, high in zip(t.x, t.error_x.arrayminus, t.error_x.array, strict=True)]
    wanted = [(row.value, row.low, row.high) for row in finding("closer").panels[0].rows]
    assert sorted(points) == [pytest.approx(w) for w in sorted(wanted)]
    low, high = figure.layout.xaxis.range
    assert low == 0 and high > max(row.high for row in finding("closer").panels[0].rows)


def test_groups_share_a_scale_and_different_measures_do_not():
    whom, personal = draw(finding("whom")).layout, draw(finding("personal")).layout
    assert whom.xaxis.range == whom.xaxis2.range == whom.xaxis3.range
    assert personal.xaxis.range != personal.xaxis2.range


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.21), (-0.012, 0.0301), (0.0, 4.7), (0.38, 0.81), (0.1999, 0.2001), (-9e5, 3e6)])
def test_ticks_are_few_and_inside(low, high):
    at = _ticks(low, high)
    assert 2 <= len(at) <= 7 and all(low <= x <= high for x in at)


def test_names_of_crowded_dots_do_not_meet():
    dots = [Dot(f"System number {i}", 0.02 * (i % 4), 0.15 + 0.004 * i, "", i == 0) for i in range(9)]
    notes = _names(dots, (-0.05, 1.0), (0.1, 0.22))
    boxes = []
    for note in notes:
        dot_x = (note["x"] + 0.05) / 1.05 * 300
        dot_y = (1 - (note["y"] - 0.1) / 0.12) * 306
        x, y = dot_x + note.get("ax", note.get("xshift", 0)), dot_y + note.get("ay", -note.get("yshift", 0))
        boxes.append((x - len(note["text"]) * 3.5, y - 8, x + len(note["text"]) * 3.5, y + 8))
    meeting = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]
    assert len(boxes) == 9 and meeting == []


def test_the_colors_of_pictures_follow_the_page():
    css = painted(".js-plotly-plot")
    assert 'fill: rgb(14, 90, 95)"]{fill:var(--pat-accent)!important}' in css
    assert len(set(LIGHT.values())) == len(LIGHT) and set(LIGHT) == set(DARK)


# --- the file


def test_the_report_is_one_accessible_file_that_asks_nobody(tmp_path):
    path = tmp_path / "report.html"
    write_html(results(), path)
    html = path.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert "default-src 'none'" in policy and policy.count("sha256-") == 2 and "unsafe-inline" not in policy.split("style-src")[0]
    it = outline(html.split("</main>")[0])
    assert it.headings[0] == 1 and it.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(it.headings, it.headings[1:], strict=False))
    assert it.outside == [] and it.handlers == [] and it.unscoped == 0
    assert it.tags["table"] == 6 and it.tags["details"] == 20 and html.count('role="img" aria-label=') == 8
    for wanted in ("python -m pat_core.evaluate synthetic_dev.json --limit 200 --seed 0", "PaT is not better than copying", "temperature",
                   "+.050 [+.044, +.056]", "The judge favors no place.", "generator-000", "70% [60%, 80%]"):  # fmt: skip
        assert wanted in html, wanted


def test_hostile_text_stays_text(tmp_path):
    whole = json.loads(json.dumps(results()).replace("Item 0", "HOSTILE").replace("PaT, no notes", "HOSTILE"))
    whole = json.loads(json.dumps(whole).replace("HOSTILE", json.dumps(HOSTILE)[1:-1]))
    whole |= {"notes": [HOSTILE], "command": HOSTILE, "engine": HOSTILE, "corpus": HOSTILE, "settings": {HOSTILE: HOSTILE}}
    whole["systems"][HOSTILE] = whole["systems"]["none"] | {"label": HOSTILE, "description": HOSTILE}
    whole["judge"]["rivals"][HOSTILE] = whole["judge"]["rivals"]["none"]
    html = page(read_results(whole))
    it = outline(html.split("</main>")[0])
    assert it.handlers == [] and it.tags.get("img", 0) == 0 and it.tags["script"] == 8
    assert html.count("</script>") == html.count("<script")  # none ends where it should not
    for f in findings(read_results(whole)):
        assert "<img" not in draw(f).to_json()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "version is '2', not 1"),
        ({"task": "poem"}, "task 'poem' is not known; use one of long, short, rating"),
        ({"systems": {}}, "systems holds 0 systems"),
        ({"systems": []}, "systems holds list where an object with names is expected"),
        ({"n_users": "many"}, "n_users is 'many', not a number"),
        ({"examples": [3]}, "an example holds int"),
        ({"paired": {"none": {"mean": {"mean": 1}}}}, "paired.none.mean.low is None, not a number"),
        ({"systems": {"pat": {"kind": "god", "groups": {}}}}, "systems.pat.kind 'god' is not known; use one of ours"),
        ({"seconds": 10**400}, "seconds is 1000"),
    ],
)
def test_a_foreign_file_gets_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_results(results(**change))


def test_the_evaluation_writes_what_the_report_reads():
    written = results_to_json(results_from_json(results()))
    assert read_results(written) == read_results(results())


def test_finished_runs_are_kept_and_found_newest_first(tmp_path):
    first = keep(results(), tmp_path)
    again = keep(results(), tmp_path)
    newer = keep(results(corpus="../other", made_at="2026-12-01T00:00:00Z"), tmp_path)
    assert first == tmp_path / "results" / "synthetic_dev-long-20261124T170000Z.json" and again.stem == first.stem + "-2"
    assert newer.parent == first.parent and json.loads(first.read_text(encoding="utf-8")) == json.loads(json.dumps(results()))
    found = find_reports([tmp_path / "results", tmp_path / "nowhere"])
    assert list(found.reports) == [newer.stem, again.stem, first.stem] and found.skipped == ()
    assert load(first) == found.reports[first.stem]
    with pytest.raises(ValueError, match="version"):
        keep({}, tmp_path)
    assert len(list(first.parent.iterdir())) == 3


def test_what_is_no_report_is_skipped_with_a_sentence(tmp_path):
    for name, content in {
        "a": b"{", "b": b"[]", "c": b"\xff\xfe", "d": b'{"version": 1}', "e": b"[" * 100_000, "f": b" " * (9 * 1024 * 1024),
        "g": json.dumps(results(n_users=float("nan"))).encode(),
    }.items():  # fmt: skip
        (tmp_path / f"{name}.json").write_bytes(content)
    (tmp_path / "h.json").mkdir()
    (tmp_path / "i.json").symlink_to(tmp_path / "gone")
    found = find_reports([tmp_path])
    assert found.reports == {} and sorted(s[:6] for s in found.skipped) == [f"{c}.json" for c in "abcdefg"]
    said = " ".join(found.skipped)
    for part in ("not JSON", "holds list", "not UTF-8", "task ''", "nested too deeply", "larger than 8 MB", "n_users is nan"):
        assert part in said, part


def test_halves_of_characters_do_not_break_the_file(tmp_path: Path):
    write_html(results(notes=["a \ud800 b", {"nested": "\udfff"}]), tmp_path / "r.html")
    assert "a ? b" in (tmp_path / "r.html").read_text(encoding="utf-8")
