"""Images to show: thumbnails, and drawings of where a model looked at each word of its caption."""

import base64
import io
import math
import textwrap
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from captioner.caption import Caption
from captioner.errors import ImageError, OptionError
from captioner.images.open import DEFAULT_MAX_PIXELS, Source, open_image

Weights = np.typing.NDArray[np.float32]

_SHADE = 0.25  # of its light that an image keeps where the model did not look
_GLOW = np.array([255.0, 190.0, 90.0])  # warm, so that bright and dark images both show it
_GLOWS = 0.35  # share of the glow where the weight is largest
_COLUMNS = 4
_GAP, _TITLE = 12, 30  # px between panels, and for the word above each
_LETTER = 18  # px, height of the letters


def overlay(image: Image.Image, weights: Weights) -> Image.Image:
    """Light an image where weights are large, and darken it elsewhere (as in Xu et al. 2015, figure 5).

    Args:
        image: RGB.
        weights: ``(rows, columns)``, at least 0, laid over the whole image. Only their proportions count.

    Returns:
        RGB, of the size of the image.
    """
    small = Image.fromarray(np.uint8(255 * _shares(weights)), "L")
    heat = np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), np.float32)[..., None] / 255
    lit = np.asarray(image, np.float32) * (_SHADE + (1 - _SHADE) * heat)
    return Image.fromarray(np.uint8(lit + _GLOWS * heat * (_GLOW - lit)), "RGB")


def shade(weights: Weights) -> Image.Image:
    """Make the darkness alone, one pixel a region, for a page that stretches it over the image.

    Args:
        weights: ``(rows, columns)``, at least 0. Only their proportions count.

    Returns:
        Black of more or less opacity, ``LA``.
    """
    darkness = np.uint8(255 * (1 - _SHADE) * (1 - _shares(weights)))
    return Image.fromarray(np.dstack((np.zeros_like(darkness), darkness)), "LA")


def _shares(weights: Weights) -> Weights:
    return weights / max(float(weights.max()), 1e-12)


def draw_explanation(image: Image.Image, caption: Caption, *, side: int = 280) -> Image.Image:
    """Draw the image with its caption, then the image once for each word, bright where the model looked.

    Args:
        image: RGB, all that the encoder saw of it.
        caption: with its attention.
        side: longest side of a panel in pixels.

    Raises:
        OptionError: the caption has no attention.
    """
    if caption.attention is None:
        raise OptionError(
            "the model has no attention, so it looks at the whole image at every word",
            "take other `weights`",
        )
    panel = image.copy()
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


_THUMBNAIL = 320  # px, the long side of an image on a page


def make_thumbnail(source: Source, side: int, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """Return an image as a small JPEG.

    Args:
        source: The image.
        side: Longest side of the JPEG in pixels.
        max_pixels: As for `open_image`.

    Raises:
        ImageError: As `open_image`.
    """
    image = open_image(source, max_pixels=max_pixels, min_size=side)
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.save(data, "jpeg", quality=80)
    return data.getvalue()


def thumbnail_html(path: Path | None, text: str) -> str:
    """Return an image for a page; a grey box, of class `absent`, where it is None or cannot be opened.

    Args:
        path: The image.
        text: What to say of it to those who cannot see it, not yet escaped.
    """
    try:
        if path is not None:
            return f'<img alt="{escape(text)}" src="{data_uri(make_thumbnail(path, _THUMBNAIL))}">'
    except ImageError:
        pass
    return '<div class="absent">image not at hand</div>'


def image_uri(image: Image.Image, kind: str, **options: int) -> str:
    """Return an image as a `data:` address.

    Args:
        image: The image, saved as it is.
        kind: Format of the file, `jpeg` or `png`.
        options: Pillow's, for this format.
    """
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data_uri(data.getvalue(), kind)


def data_uri(content: bytes, kind: str = "jpeg") -> str:
    """Return an image file as a `data:` address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
