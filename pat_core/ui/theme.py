"""How the app looks: the two palettes as Gradio theme variables and as the CSS variables of the stylesheets in ``assets``.

The two agents differ in label and mark first, in color second. Fonts ship inside Gradio: no page fetches one.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from pat_core.palette import DARK, LIGHT, painted, variables

STYLESHEETS = Path(__file__).resolve().parents[2] / "assets"
# Every text on every ground it is printed on; tests hold each pair to a contrast of at least 4.5
PAIRS = [(text, ground) for ground in ("paper", "surface", "raised") for text in ("ink", "muted", "accent", "style", "topic", "alert")] + [
    ("accent-ink", "accent"),
    ("ink", "accent-soft"),
    ("muted", "accent-soft"),
    ("accent", "accent-soft"),
]


def css() -> str:
    """The palettes as CSS variables, then every stylesheet in ``assets``, in the order of their names."""
    sheets = "\n".join(path.read_text(encoding="utf-8") for path in sorted(STYLESHEETS.glob("*.css")))
    return f":root{{{variables(LIGHT)}}}\n.dark{{{variables(DARK)}}}\n{painted('.js-plotly-plot')}\n{sheets}"


def theme() -> gr.themes.Base:
    """Gradio's plain theme in our palettes."""
    sans = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
    mono = [gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"]
    base = gr.themes.Base(radius_size="sm", text_size="md", spacing_size="md", font=sans, font_mono=mono)
    settings: dict[str, str] = {}
    for names, color in {
        "body_background_fill background_fill_primary": "paper",
        "background_fill_secondary code_background_fill": "raised",
        "body_text_color block_title_text_color block_label_text_color button_secondary_text_color button_secondary_text_color_hover "
        "checkbox_label_text_color accordion_text_color table_text_color": "ink",
        "body_text_color_subdued block_info_text_color input_placeholder_color": "muted",
        "border_color_primary block_border_color panel_border_color checkbox_label_border_color": "rule",
        "input_border_color input_border_color_hover checkbox_border_color checkbox_border_color_hover "
        "button_secondary_border_color": "edge",
        "block_background_fill input_background_fill input_background_fill_focus input_background_fill_hover checkbox_background_color "
        "checkbox_background_color_hover checkbox_background_color_focus button_secondary_background_fill checkbox_label_background_fill "
        "block_label_background_fill panel_background_fill": "surface",
        "button_secondary_background_fill_hover checkbox_label_background_fill_hover": "raised",
        "color_accent_soft checkbox_label_background_fill_selected": "accent-soft",
        "border_color_accent input_border_color_focus checkbox_border_color_focus checkbox_border_color_selected "
        "checkbox_background_color_selected link_text_color link_text_color_hover link_text_color_active link_text_color_visited "
        "button_primary_background_fill button_primary_background_fill_hover button_primary_border_color button_primary_border_color_hover "
        "button_secondary_border_color_hover loader_color slider_color checkbox_label_border_color_selected": "accent",
        "button_primary_text_color button_primary_text_color_hover": "accent-ink",
        "checkbox_label_text_color_selected": "ink",
        "error_text_color error_border_color error_icon_color": "alert",
        "error_background_fill": "surface",
    }.items():
        for name in names.split():
            settings |= {name: LIGHT[color], f"{name}_dark": DARK[color]}
    return base.set(
        **settings,
        color_accent="var(--pat-accent)",
        block_shadow="none",
        block_shadow_dark="none",
        input_shadow="none",
        input_shadow_dark="none",
        input_shadow_focus="none",
        input_shadow_focus_dark="none",
        checkbox_label_shadow="none",
        button_primary_shadow="none",
        button_secondary_shadow="none",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_padding="0px",
        block_title_text_weight="700",
        block_title_text_size="14px",
        block_info_text_size="13px",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_text_size="15px",
        checkbox_label_text_size="14px",
        button_large_text_weight="700",
        button_large_text_size="16px",
        button_small_text_weight="400",
        button_medium_text_weight="400",
        layout_gap="20px",
        form_gap_width="0px",
    )
