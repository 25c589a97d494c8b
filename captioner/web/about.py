"""What the page tells of the model: facts, and the model card that comes with the weights."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from captioner.errors import CaptionerError
from captioner.web import render
from captioner.web.messages import for_visitor

if TYPE_CHECKING:
    from captioner.web.models import About
    from captioner.web.service import Service


def about_facts(service: Service, weights: str | None = None) -> str:
    """The weights in figures, as HTML; or why there are none."""
    try:
        about = service.models.about(weights)
    except CaptionerError as error:
        return render.notice(for_visitor(error))
    facts = {
        "Weights": about.name,
        "Digest": about.digest,
        "Parameters": f"{about.parameters / 1e6:.1f} million",
        "Size": f"{about.megabytes:.1f} MB",
        "Words it knows": f"{about.words:,}",
        "Loaded in": f"{service.models.status.seconds:.1f} s",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<h2>This model</h2><dl class="facts">{rows}</dl>'


def model_card(service: Service, weights: str | None = None) -> str:
    """The model card as Markdown, one level of headings deeper; else how the weights came about."""
    try:
        about = service.models.about(weights)
    except CaptionerError:
        return ""
    if not about.card:
        return _training_notes(about)
    lines = []
    code = False
    for line in about.card.splitlines():
        code ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not code else line)
    # Links to files beside the card lead nowhere from here.
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", "\n".join(lines))


def _training_notes(about: About) -> str:
    notes = "\n".join(f"    {key}: {value}" for key, value in about.training.items())
    return f"## How it came about\n\nThere is no model card; the checkpoint says:\n\n{notes or '    nothing'}"
