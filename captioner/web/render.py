"""Answers as HTML. Every text that comes from a visitor, a file or a checkpoint is escaped here."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from captioner.caption import UNSURE
from captioner.images import open_image
from captioner.images.draw import image_uri, shade
from captioner.vocabulary import END, SPECIAL_WORDS

if TYPE_CHECKING:
    from captioner.caption import Caption
    from captioner.scoring import Score
    from captioner.web.single import Answer, Comparison


_SCALE = (("quintillion", 18), ("quadrillion", 15), ("trillion", 12), ("billion", 9), ("million", 6))


def percent(probability: float) -> str:
    """A probability as percentage with two digits that count.

    >>> percent(0.634), percent(0.0423), percent(0.0002)
    ('63 %', '4.2 %', '< 0.1 %')
    """
    value = 100 * probability
    if value < 0.1:
        return "< 0.1 %"
    if value < 9.95:
        return f"{value:.1f} %"
    return f"{min(value, 99 if probability < 1 else 100):.0f} %"


def one_in(log_prob: float) -> str:
    """A small probability, given by its natural logarithm, as "1 in N".

    >>> one_in(-7.85), one_in(-21.2)
    ('1 in 2,566', '1 in 1.6 billion')
    """
    digits = -log_prob / math.log(10)
    if digits >= _SCALE[0][1] + 3:
        return f"1 in 10^{digits:.0f}"
    odds = math.exp(-log_prob)
    for name, power in _SCALE:
        if digits >= power:
            return f"1 in {odds / 10**power:.1f} {name}"
    return f"1 in {odds:,.0f}" if odds >= 10 else f"1 in {odds:.1f}"


def times(log_ratio: float) -> str:
    """How many times as probable, given the natural logarithm of the ratio (at least 0).

    >>> times(0.02), times(2.5), times(30.0)
    ('about as', '12 times as', '10.7 trillion times as')
    """
    if log_ratio < math.log(1.1):
        return "about as"
    if log_ratio < math.log(10):
        return f"{math.exp(log_ratio):.1f} times as"
    return f"{one_in(-log_ratio).removeprefix('1 in ')} times as"


UNLIKELY = 0.02
"""Words below this probability are pointed out."""

_SHOWN_RUNNERS_UP = 3
_LOOK = (
    '<figure class="look"><div class="frame"><img src="{}" alt="The image as the model sees it, a square">'
    '<img class="shade" alt="" hidden></div><figcaption class="hint">Point at a word of the table, or choose '
    "it, to see where the model looked when it wrote it: bright where it looked, dark where it did "
    "not.</figcaption></figure>"
)
_SHADES = (0.02, 0.1, 0.3, 0.6)  # probabilities at which a word's background gets stronger


def answer_card(answer: Answer) -> str:
    """The caption in large letters, its copy button, and the alternatives."""
    best = answer.captions[0]
    took = f"{answer.looking:.2f} s to look, {answer.writing:.2f} s to write"
    return (
        f'<div class="answer" data-announce="Caption: {escape(best.text)}">'
        f'<p class="caption">{escape(best.text)}</p>{_doubt(best)}'
        '<p class="caption-tools">'
        f'<button type="button" class="quiet-button" data-copy="{escape(best.text)}">Copy caption</button>'
        f'<span class="took">{took}</span></p>'
        f"{_alternatives(answer)}</div>"
    )


def _doubt(caption: Caption) -> str:
    """Says so in words when a caption is more likely bad than good."""
    if caption.confidence is None or caption.confidence >= UNSURE:
        return ""
    return '<p class="hint doubt">I am not sure about this one.</p>'


def _alternatives(answer: Answer) -> str:
    if len(answer.captions) < 2:
        return ""
    sampled, count = answer.options.sampling, len(answer.captions)
    heading = f"The {count} captions that were drawn" if sampled else f"Its {count} best captions"
    likeliest = max(caption.log_prob for caption in answer.captions)
    items = "".join(_alternative(caption, likeliest) for caption in answer.captions)
    return (
        f'<h2>{heading}</h2><ol class="alternatives">{items}</ol>'
        '<p class="hint">The bar shows how probable each sentence is beside the likeliest of them. '
        f"Any one exact sentence is improbable, so the numbers are small.{_order_hint(answer)}</p>"
    )


def _order_hint(answer: Answer) -> str:
    found = [caption.log_prob for caption in answer.captions]
    if answer.options.sampling or found == sorted(found, reverse=True):
        return ""
    if answer.options.consensus:
        return " What many of them say comes first, so the order is not quite that of the bars."
    return " The search favours longer sentences a little, so the order is not quite that of the bars."


def _alternative(caption: Caption, likeliest: float) -> str:
    share = math.exp(caption.log_prob - likeliest)
    return (
        f'<li><span class="sentence">{escape(caption.text)}</span>'
        f'<span class="odds">{one_in(caption.log_prob)}'
        f'<span class="log-prob">log P {_minus(caption.log_prob)}</span></span>{_bar(share)}</li>'
    )


def decisions(answer: Answer) -> str:
    """The words of the caption one by one: each with its probability, the runners-up, and where it looked."""
    score, attention = answer.score, answer.score.attention
    shades = [""] * (len(score.words) + 1)
    figure = ""
    if attention is not None:
        shades[: len(attention)] = [image_uri(shade(weights), "png") for weights in attention]
        figure = _LOOK.format(image_uri(Image.fromarray(answer.seen), "jpeg", quality=80))
    log_probs = (*score.word_log_probs, score.end_log_prob)
    words = (*score.words, SPECIAL_WORDS[END])
    rows = "".join(
        _decision(word, math.exp(log_prob), others, where)
        for word, log_prob, others, where in zip(words, log_probs, score.runners_up, shades, strict=True)
    )
    return (
        f'<div class="decisions">{figure}<p class="hint">The sentence is written word by word. Each time the '
        "model gives every word it knows a probability, from the image and the words before.</p>"
        '<table><thead><tr><th scope="col">Word</th><th scope="col">Probability</th>'
        f'<th scope="col">Runners-up</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _decision(word: str, probability: float, others: Sequence[tuple[str, float]], where: str) -> str:
    rest = [pair for pair in others if pair[0] != word][:_SHOWN_RUNNERS_UP]
    named = "".join(f'<li>{_word(other)} <span class="p">{percent(chance)}</span></li>' for other, chance in rest)
    return (
        f'<tr><th scope="row">{_looking(word, where)}</th>'
        f'<td class="chance">{_bar(probability)}<span class="p">{percent(probability)}</span></td>'
        f'<td><ul class="runners-up">{named}</ul></td></tr>'
    )


def _looking(word: str, where: str) -> str:
    """A word; if it is known where the model looked, one that can be pointed at or chosen."""
    if not where:
        return _word(word)
    return f'<button type="button" class="look-at" aria-pressed="false" data-shade="{where}">{_word(word)}</button>'


def comparison_card(comparison: Comparison) -> str:
    """A visitor's sentence beside the model's caption."""
    gain = comparison.model.log_prob - comparison.own.log_prob
    if gain >= 0:
        verdict = f"The model finds its own caption {times(gain)} probable as yours."
    else:
        verdict = f"The model finds your sentence {times(-gain)} probable as its own caption."
    return (
        f'<div class="comparison" data-announce="{escape(verdict)}"><p class="verdict">{escape(verdict)}</p>'
        f"{_scored('Your sentence', comparison.own)}{_scored('Its own caption', comparison.model)}"
        '<p class="hint">The stronger a word is coloured, the more the model expected it. Perplexity is how '
        "many words it hesitates between on average at each place.</p></div>"
    )


def _scored(title: str, score: Score) -> str:
    words = "".join(
        _shaded(word, math.exp(log_prob)) for word, log_prob in zip(score.words, score.word_log_probs, strict=True)
    )
    return (
        f'<section class="scored"><h2>{escape(title)}</h2>'
        f'<p class="shaded">{words}</p><dl><div><dt>log P(sentence | image)</dt>'
        f"<dd>{_minus(score.log_prob)}</dd></div><div><dt>Probability</dt><dd>{one_in(score.log_prob)}</dd></div>"
        f"<div><dt>Perplexity</dt><dd>{_rounded(score.perplexity)}</dd></div></dl>{_unlikely(score)}</section>"
    )


def _shaded(word: str, probability: float) -> str:
    shade = sum(probability >= bound for bound in _SHADES)
    return f'<span class="word shade-{shade}" title="{percent(probability)}">{escape(word)}</span> '


def _unlikely(score: Score) -> str:
    pairs = zip(score.words, score.word_log_probs, strict=True)
    found = [(word, math.exp(value)) for word, value in pairs if math.exp(value) < UNLIKELY]
    if not found:
        return '<p class="unlikely">No word of it surprised the model.</p>'
    named = ", ".join(f"<b>{escape(word)}</b> ({percent(probability)})" for word, probability in found)
    return f'<p class="unlikely">Found unlikely: {named}</p>'


def notice(text: str, *, kind: str = "error") -> str:
    """A message in the place of an answer; ``kind`` is ``error`` or ``busy``."""
    return f'<div class="notice {kind}" data-announce="{escape(text)}"><p>{escape(text)}</p></div>'


def _bar(share: float) -> str:
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * min(share, 1):.1f}%"></i></span>'


def _word(word: str) -> str:
    return '<i class="end">end of sentence</i>' if word == SPECIAL_WORDS[END] else escape(word)


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _rounded(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}" if value < 1e9 else "beyond a billion"


FOLDER = Path(__file__).resolve().parents[2] / "data" / "samples"
_SIDE = 160  # pixels

# What data/samples/README.md says that they show.
_SHOWN = {
    "astronaut": "an astronaut",
    "cat": "the face of a cat",
    "coffee": "a cup of coffee",
    "dogs": "two dogs at a window",
    "mountains": "a meadow before mountains",
    "pagoda": "a pagoda above a lake",
    "photographer": "a man with a camera",
    "tulips": "a field of tulips",
}


@dataclass(frozen=True)
class Sample:
    """An image to click.

    Attributes:
        path: the file.
        alt: what it shows.
        thumbnail: a small JPEG as ``data:`` address.
    """

    path: Path
    alt: str
    thumbnail: str


def find_samples(folder: Path = FOLDER) -> dict[str, Sample]:
    """Samples by name; empty where there are none."""
    found = {}
    for path in sorted(folder.glob("*.*")):
        if path.stem in _SHOWN and path.suffix in (".jpg", ".png"):
            found[path.stem] = Sample(path, _SHOWN[path.stem], thumbnail(path, _SIDE))
    return found


def thumbnail(source: Path | bytes, side: int) -> str:
    """An image scaled to at most ``side`` pixels, as ``data:`` address.

    Raises:
        ImageError: it cannot be read.
    """
    # Asked for a quarter of the side, since the reader keeps four times what it is asked for.
    image = open_image(source, min_size=-(-side // 4))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def sample_buttons(samples: Mapping[str, Sample]) -> str:
    """The samples as a row of buttons."""
    buttons = "".join(
        f'<li><button type="button" data-sample="{escape(name)}">'
        f'<img src="{sample.thumbnail}" alt="Sample: {escape(sample.alt)}"></button></li>'
        for name, sample in samples.items()
    )
    return f'<h2>Or try one of these</h2><ul class="samples">{buttons}</ul>'
