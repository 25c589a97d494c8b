"""A picture of how a caption came about: where the model looked at each of its words."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from captioner.errors import OptionError
from captioner.images.heatmap import overlay

if TYPE_CHECKING:
    from captioner.caption import Caption

_COLUMNS = 4
_GAP, _TITLE = 12, 30  # px between panels, and for the word above each
_LETTER = 18  # px, height of the letters


def draw_explanation(picture: Image.Image, caption: Caption, *, side: int = 280) -> Image.Image:
    """The picture with its caption, then the picture once for each word, bright where the model looked.

    Args:
        picture: RGB, all that the encoder saw of it.
        caption: with its attention.
        side: longest side of a panel in pixels.

    Raises:
        OptionError: the caption has no attention.
    """
    if caption.attention is None:
        raise OptionError(
            "the model has no attention, so it looks at the whole picture at every word",
            "take other `weights`",
        )
    panel = picture.copy()
    panel.thumbnail((side, side))
    panels = [panel, *(overlay(panel, weights) for weights in caption.attention)]
    chances = [math.exp(value) for value in caption.word_log_probs]
    titles = ["", *(f"{word}  {chance:.0%}" for word, chance in zip(caption.words, chances, strict=True))]
    width, height = panel.width + _GAP, panel.height + _TITLE + _GAP
    columns = min(_COLUMNS, len(panels))
    font = ImageFont.load_default(size=_LETTER)
    lines = textwrap.wrap(caption.text, width=max(1, (columns * width - _GAP) * 2 // _LETTER))
    top = _GAP + len(lines) * (_LETTER + 6)
    size = (columns * width + _GAP, top + -(-len(panels) // columns) * height + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((_GAP, _GAP // 2), "\n".join(lines), fill="black", font=font)
    for place, (shown, title) in enumerate(zip(panels, titles, strict=True)):
        left, upper = _GAP + place % columns * width, top + place // columns * height
        draw.text((left, upper), title, fill="black", font=font)
        sheet.paste(shown, (left, upper + _TITLE))
    return sheet
