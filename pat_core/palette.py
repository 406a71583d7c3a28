"""One palette for light and one for dark, for the app, the pictures and the reports that leave it.

Paper and ink with one accent. A picture is drawn once, in the light colors; ``painted`` lets the page around it put its own in their place.
Leaves out Gradio's theme (``ui/theme.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

LIGHT = {
    "paper": "#f7f5f0",
    "surface": "#fffefb",
    "raised": "#f1eee6",
    "ink": "#1e2326",
    "muted": "#565d61",
    "rule": "#dcd7cb",
    "edge": "#8b8678",
    "accent": "#0e5a5f",
    "accent-ink": "#ffffff",
    "accent-soft": "#e1ecea",
    "style": "#9a3f22",
    "topic": "#28578c",
    "alert": "#9b1c1c",
}
DARK = {
    "paper": "#16191b",
    "surface": "#1d2123",
    "raised": "#262b2e",
    "ink": "#e9e6df",
    "muted": "#a9aeb0",
    "rule": "#363c40",
    "edge": "#7d8588",
    "accent": "#7cc7c3",
    "accent-ink": "#0c2022",
    "accent-soft": "#20383a",
    "style": "#eba688",
    "topic": "#9cc3ee",
    "alert": "#f3a6a0",
}



def variables(palette: Mapping[str, str]) -> str:
    """The colors as declarations of CSS variables."""
    return "".join(f"--pat-{name}:{color};" for name, color in palette.items())


def painted(within: str) -> str:
    """CSS that turns the light colors of drawings inside ``within`` into the variables, so that a drawing changes with its page.

    Plotly writes each color into the ``style`` of its SVG elements, and browsers spell colors there as ``rgb(r, g, b)``.
    """
    rules = []
    for name, color in LIGHT.items():
        rgb = ", ".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))
        rules += [f'{within} [style*="{kind}: rgb({rgb})"]{{{kind}:var(--pat-{name})!important}}' for kind in ("fill", "stroke")]
    return "\n".join(rules)
