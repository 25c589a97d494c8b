"""How the page looks: one theme for Gradio's components and one style sheet, light and dark.

All fonts are those of the visitor's machine, so that nothing is fetched from elsewhere.
"""

from pathlib import Path
from typing import TypedDict

import gradio as gr

_STATIC = Path(__file__).parent / "static"
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]

# name: (light, dark); the style sheet knows them as --paper and so on.
_COLOURS = {
    "paper": ("#f7f5f0", "#151412"),
    "card": ("#ffffff", "#1f1d1a"),
    "well": ("#f1eee7", "#292622"),
    "line": ("#ddd7cb", "#3b3731"),
    "edge": ("#8c8475", "#7d766a"),
    "ink": ("#1f1c17", "#f2eee6"),
    "muted": ("#5f594e", "#b3aca0"),
    "accent": ("#0c665e", "#63cfc1"),
    "accent_strong": ("#084f49", "#8be0d5"),
    "accent_soft": ("#dcece9", "#16342f"),
    "on_accent": ("#ffffff", "#0b211e"),
    "warn": ("#963209", "#ffb48a"),
    "warn_soft": ("#fcebdf", "#3a2114"),
}

# Gradio's variable: name of a colour.
_USES = {
    "body_background_fill": "paper",
    "body_text_color": "ink",
    "body_text_color_subdued": "muted",
    "background_fill_primary": "card",
    "background_fill_secondary": "well",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "color_accent": "accent",
    "color_accent_soft": "accent_soft",
    "link_text_color": "accent",
    "link_text_color_active": "accent_strong",
    "link_text_color_hover": "accent_strong",
    "link_text_color_visited": "accent",
    "block_background_fill": "card",
    "block_border_color": "line",
    "block_info_text_color": "muted",
    "block_label_background_fill": "card",
    "block_label_border_color": "line",
    "block_label_text_color": "muted",
    "block_title_text_color": "ink",
    "input_background_fill": "card",
    "input_border_color": "edge",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "muted",
    "checkbox_background_color": "card",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "edge",
    "checkbox_border_color_selected": "accent",
    "checkbox_border_color_focus": "accent",
    "checkbox_label_background_fill": "card",
    "checkbox_label_background_fill_selected": "accent_soft",
    "checkbox_label_text_color": "ink",
    "checkbox_label_text_color_selected": "ink",
    "checkbox_label_border_color": "line",
    "checkbox_label_border_color_selected": "accent",
    "slider_color": "accent",
    "loader_color": "accent",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent_strong",
    "button_primary_border_color": "accent",
    "button_primary_border_color_hover": "accent_strong",
    "button_primary_text_color": "on_accent",
    "button_secondary_background_fill": "card",
    "button_secondary_background_fill_hover": "well",
    "button_secondary_border_color": "edge",
    "button_secondary_border_color_hover": "ink",
    "button_secondary_text_color": "ink",
    "error_background_fill": "warn_soft",
    "error_border_color": "warn",
    "error_text_color": "warn",
    "table_border_color": "line",
    "table_even_background_fill": "card",
    "table_odd_background_fill": "well",
}


class Look(TypedDict):
    """What Gradio's ``launch`` and ``mount_gradio_app`` take."""

    theme: gr.themes.Base
    css: str
    head: str


def look() -> Look:
    """Theme, style sheet and script of the page."""
    variables = _variables(0, ":root") + _variables(1, ":root.dark, :root .dark")
    script = (_STATIC / "page.js").read_text(encoding="utf-8")
    style = (_STATIC / "style.css").read_text(encoding="utf-8")
    return Look(theme=_theme(), css=variables + style, head=f"<script>{script}</script>")


def _variables(which: int, selector: str) -> str:
    lines = (f"--{name.replace('_', '-')}: {pair[which]};" for name, pair in _COLOURS.items())
    return f"{selector} {{ {' '.join(lines)} }}\n"


def _theme() -> gr.themes.Base:
    theme = gr.themes.Base(font=_SANS, font_mono=_MONO, text_size=gr.themes.sizes.text_md)
    values = {}
    for variable, name in _USES.items():
        values[variable] = f"var(--{name.replace('_', '-')})"
        if variable != "color_accent":  # the one without a dark sibling
            values[f"{variable}_dark"] = values[variable]
    shape = {
        "block_radius": "12px",
        "input_radius": "8px",
        "block_border_width": "1px",
        "button_border_width": "1px",
        "layout_gap": "16px",
    }
    flat = {"block_shadow": "none", "block_shadow_dark": "none", "block_label_shadow": "none"}
    return theme.set(**values, **shape, **flat)
