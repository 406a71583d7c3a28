"""Findings as plotly figures: intervals in rows, or systems as named dots. One figure serves the page, the report, a desk and a phone.

Names stand above their bars and never beside them, so that nothing depends on the width; the size of every row is fixed. Colors are those
of the light palette, which the page around a figure replaces by its own (``palette.painted``). Leaves out the words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from pat_core.palette import LIGHT
from pat_core.result_words import Dot, Finding, Panel, Row, plain, share

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW, CAPTION, SCALE, GAP = 42, 30, 30, 14  # px: a row, the line above its panel, the numbers below it, the space between panels
EDGE = 14  # px left and right of the scale, half a dot and its bar's end
LINE_CHARS = 48  # of a name and its figures: what fits into a line on a phone
DOTS = 380  # px, the height of a picture of dots
NARROWEST = 300  # px, the width for which the names of dots are placed; on a wider screen they are only further apart
FONT = {"family": "IBM Plex Sans, system-ui, sans-serif", "size": 13, "color": LIGHT["ink"]}
STRONG = {"color": LIGHT["accent"], "weight": 700}
SMALL = {**FONT, "color": LIGHT["muted"]}
PRINTED: dict[str, Callable[[float], str]] = {"score": plain, "share": share, "seconds": lambda x: f"{x:g}"}
CHAR, LINE = 7.0, 17  # px: a character and a line of a dot's name
COLORS = {"ours": "accent", "sure": "accent", "other": "muted", "unsure": "muted", "against": "style"}


def draw(finding: Finding) -> go.Figure | None:
    """The picture of ``finding``; None where it has none."""
    if finding.panels:
        return _intervals(finding.panels)
    return _dots(finding.dots) if finding.dots else None


def _intervals(panels: Sequence[Panel]) -> go.Figure:
    import plotly.graph_objects as go

    heights = [CAPTION + ROW * len(p.rows) + SCALE for p in panels]
    total = sum(heights) + GAP * (len(panels) - 1)
    figure, top = go.Figure(), total
    shared = _range([row for p in panels for row in p.rows], panels[0].line) if _one_scale(panels) else None
    for i, (panel, height) in enumerate(zip(panels, heights, strict=True), 1):
        axis = "" if i == 1 else str(i)
        low, high = shared or _range(panel.rows, panel.line)
        inside = [(top - height + SCALE) / total, (top - CAPTION) / total]
        figure.update_layout({
            f"xaxis{axis}": _scale(panel, (low, high)) | {"anchor": f"y{axis}"},
            f"yaxis{axis}": {"domain": inside, "range": [len(panel.rows), 0], "visible": False, "fixedrange": True, "anchor": f"x{axis}"},
        })  # fmt: skip
        figure.add_annotation(_note(panel.caption, 0, top / total, SMALL, yanchor="top"))
        _add_rows(figure, panel, axis)
        top -= height + GAP
    return _finished(figure, total)


def _one_scale(panels: Sequence[Panel]) -> bool:
    """May panels be read against each other? Those that name their measure may not."""
    return len(panels) > 1 and all(p.line is None for p in panels)


def _add_rows(figure: go.Figure, panel: Panel, axis: str) -> None:
    for i, row in enumerate(panel.rows):
        figure.add_shape(type="line", xref=f"x{axis} domain", yref=f"y{axis}", x0=0, x1=1, y0=i + 0.72, y1=i + 0.72, layer="below",
                         line={"color": LIGHT["rule"], "width": 1})  # fmt: skip
        font = FONT | (STRONG if row.mark == "ours" else {})
        figure.add_annotation(_note(_cut(row.name, LINE_CHARS - len(row.said)), 0, i + 0.3, font, yref=f"y{axis}"))
        figure.add_annotation(_note(row.said, 1, i + 0.3, font, yref=f"y{axis}", xanchor="right"))
        if panel.line is not None:
            figure.add_shape(type="line", xref=f"x{axis}", yref=f"y{axis}", x0=panel.line, x1=panel.line, y0=i + 0.56, y1=i + 0.9,
                             layer="below", line={"color": LIGHT["ink"], "width": 1.5, "dash": "2px,2px"})  # fmt: skip
    for mark in COLORS:
        chosen = [(i, row) for i, row in enumerate(panel.rows) if row.mark == mark]
        if chosen:
            figure.add_scatter(**_bars(chosen, mark), xaxis=f"x{axis}", yaxis=f"y{axis}")


def _bars(rows: Sequence[tuple[int, Row]], mark: str) -> dict[str, Any]:
    """A trace of dots with their intervals; hollow where it could be chance."""
    return {
        "x": [row.value for _, row in rows],
        "y": [i + 0.72 for i, _ in rows],
        "mode": "markers",
        "marker": _marker(mark),
        "error_x": {
            "array": [row.high - row.value for _, row in rows],
            "arrayminus": [row.value - row.low for _, row in rows],
            "color": LIGHT[COLORS[mark]],
            "thickness": 3,
            "width": 4,
        },
        "hovertext": [f"{_safe(row.name)}<br>{_safe(row.said)}<br>{row.low:.3g} to {row.high:.3g}, n = {row.n:,}" for _, row in rows],
        "hoverinfo": "text",
        "cliponaxis": False,
        "showlegend": False,
    }


def _marker(mark: str) -> dict[str, Any]:
    color = LIGHT[COLORS[mark]]
    if mark == "unsure":
        return {"color": LIGHT["paper"], "size": 10, "line": {"color": color, "width": 2.5}, "opacity": 1}
    return {"color": color, "size": 9 if mark == "other" else 12, "line": {"color": LIGHT["paper"], "width": 1.5}, "opacity": 1}


def _range(rows: Sequence[Row], line: float | None) -> tuple[float, float]:
    """The scale of some rows: all of their bars, the line, and a little air; where they begin near zero, zero too."""
    ends = [x for row in rows for x in (row.value, row.low, row.high)] + ([] if line is None else [line])
    low, high = min(ends), max(ends)
    if line is None and low > 0 and low < 0.6 * high:
        low = 0.0
    air = 0.04 * (high - low or abs(high) or 1.0)
    return (low if low == 0 and line != 0 else low - air, high + air)


def _scale(panel: Panel, limits: tuple[float, float]) -> dict[str, Any]:
    return _axis(limits, PRINTED[panel.unit]) | {"showgrid": False}


def _axis(limits: tuple[float, float], printed: Callable[[float], str]) -> dict[str, Any]:
    """An axis from end to end with at most six round numbers."""
    at = _ticks(*limits)
    return {
        "range": list(limits),
        "tickvals": at,
        "ticktext": [printed(x).replace(".000", "0") if x == 0 else printed(x) for x in at],
        "tickfont": SMALL,
        "tickangle": 0,
        "ticklabeloverflow": "allow",
        "gridcolor": LIGHT["rule"],
        "zeroline": False,
        "showline": False,
        "fixedrange": True,
        "automargin": False,
    }


def _ticks(low: float, high: float) -> list[float]:
    """The multiples of the smallest of 1, 2 and 5 times a power of ten that are at most six between ``low`` and ``high``."""
    power = 10.0 ** math.floor(math.log10((high - low) / 6))
    step = next(power * k for k in (1, 2, 5, 10, 20) if (high - low) / (power * k) < 6)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _dots(dots: Sequence[Dot]) -> go.Figure:
    import plotly.graph_objects as go

    across, up = _around([d.x for d in dots], 0.0), _around([d.y for d in dots], None)
    figure = go.Figure()
    for mark in ("other", "ours"):
        chosen = [d for d in dots if d.strong == (mark == "ours")]
        figure.add_scatter(
            x=[d.x for d in chosen],
            y=[d.y for d in chosen],
            mode="markers",
            marker=_marker(mark) | {"symbol": "circle" if mark == "ours" else "square"},
            hovertext=[f"{_safe(d.name)}<br>{_safe(d.said)}" for d in chosen],
            hoverinfo="text",
            cliponaxis=False,
            showlegend=False,
        )
    for annotation in _names(dots, across, up):
        figure.add_annotation(annotation)
    figure.update_layout(xaxis=_axis(across, share), yaxis=_axis(up, plain))
    figure.add_annotation(_note("Score ↑ more is closer", 0, 1, SMALL, yanchor="bottom"))
    figure.add_annotation(_note("Copied in one piece →", 1, 0, SMALL, xanchor="right", yanchor="top", yshift=-22))
    return _finished(figure, DOTS, {"l": 42, "t": 28, "b": 46})


def _around(values: Sequence[float], zero: float | None) -> tuple[float, float]:
    low, high = min(values), max(values)
    low = low if zero is None else min(low, zero)
    air = (high - low or abs(high) or 1.0) * 0.12
    return low - air / (1 if zero is None else 2), high + air


def _names(dots: Sequence[Dot], across: tuple[float, float], up: tuple[float, float]) -> list[dict[str, Any]]:
    """The names of the dots where they cover neither a dot nor another name on the narrowest screen, tied to their dot by a line if far.

    Tries the places around a dot from near to far; ours first. A name without a free place keeps the last one that was tried.
    """
    width, height = NARROWEST, DOTS - 74
    at = [((d.x - across[0]) / (across[1] - across[0]) * width, (1 - (d.y - up[0]) / (up[1] - up[0])) * height) for d in dots]
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in at]
    notes = []
    for i in sorted(range(len(dots)), key=lambda i: (not dots[i].strong, at[i][1])):
        (x, y), name = at[i], _cut(dots[i].name, 28)
        half = len(name) * CHAR / 2 + 2
        box, (dx, dy) = (0.0, 0.0, 0.0, 0.0), (0.0, 0.0)
        for dx, dy in _places(half):
            box = (x + dx - half, y + dy - LINE / 2, x + dx + half, y + dy + LINE / 2)
            inside = box[0] >= 0 and box[2] <= width and box[1] >= -6 and box[3] <= height
            if inside and not any(_meet(box, t) for t in taken):
                break
        taken.append(box)
        far = abs(dy) > 20 or abs(dx) > half + 12
        font = FONT | (STRONG if dots[i].strong else {})
        notes.append({"x": dots[i].x, "y": dots[i].y, "text": _safe(name), "font": font, "showarrow": far, "borderpad": 0} | (
            {"ax": dx, "ay": dy, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": LIGHT["edge"], "standoff": 6}
            if far
            else {"xshift": dx, "yshift": -dy}
        ))  # fmt: skip
    return notes


def _places(half: float) -> list[tuple[float, float]]:
    """Offsets of a name's middle from its dot: beside it, above, below, then along rings around it."""
    beside = [(half + 9, 0.0), (-half - 9, 0.0), (0.0, -16.0), (0.0, 16.0)]
    away = [sign * dy for dy in (18.0, 34.0, 50.0, 68.0, 88.0, 110.0, 134.0, 160.0) for sign in (-1, 1)]
    rings = [(side * half, dy) for sides in ((0.9, -0.9, 0.0), (1.8, 2.7)) for dy, side in product(away, sides)]
    return beside + rings


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _note(text: str, x: float, y: float, font: dict[str, Any], yref: str = "paper", **more: Any) -> dict[str, Any]:
    """Text at a place of the picture, from the edge of the scale."""
    anchor = {"xanchor": "left", "yanchor": "middle"} | more
    shift = -EDGE if anchor["xanchor"] == "left" else EDGE
    return {"text": _safe(text), "x": x, "y": y, "xref": "paper", "yref": yref, "xshift": shift, "showarrow": False, "font": font,
            "borderpad": 0} | anchor  # fmt: skip


def _finished(figure: go.Figure, height: int, margin: dict[str, int] | None = None) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": EDGE, "r": EDGE, "t": 0, "b": 0, "pad": 0, "autoexpand": False} | (margin or {}),
        font=FONT,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        hovermode="closest",
        hoverlabel={"bgcolor": LIGHT["surface"], "bordercolor": LIGHT["edge"], "font": FONT, "align": "left"},
    )
    return figure


def _cut(name: str, most: int) -> str:
    words = " ".join(name.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def _safe(text: str) -> str:
    """``text`` as plotly shows it letter by letter: its own few tags and entities would be read."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
