"""What visitors read: messages, numbers and answers as HTML.

Every text that comes from a visitor, a file or a checkpoint is escaped here.
"""

import logging
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from captioner import DecodingOptions, Score, vocabulary
from captioner.caption import UNSURE, Caption
from captioner.errors import CaptionerError, ImageError, NoDecoderError, TooManyPixelsError, reworded
from captioner.html import percent
from captioner.images import Pixels, draw

UNLIKELY = 0.02
"""Words below this probability are pointed out."""

_log = logging.getLogger(__name__)
# Replaces advice that only those who run the server can follow.
_ADVICE: dict[type[Exception], str] = {
    TooManyPixelsError: "shrink the image",
    NoDecoderError: "save it as JPEG or PNG first",
}
_GENERIC = "Something went wrong on the server, and its log says what; please try another image."
_SCALE = (("trillion", 12), ("billion", 9), ("million", 6))
_SHOWN_RUNNERS_UP = 3
_LOOK = (
    '<figure class="look"><div class="frame"><img src="{}" alt="The image as the model sees it, a square">'
    '<img class="shade" alt="" hidden></div><figcaption class="hint">Point at a word in the table, or choose it, to '
    "see where the model looked when it wrote it: bright where it looked, dark where it did not.</figcaption></figure>"
)
_FIGURES = ("Chance, 1&nbsp;in", "log&nbsp;P")
_SHADES = (0.02, 0.1, 0.3, 0.6)  # probabilities at which a word's background gets stronger


@dataclass(frozen=True)
class Answer:
    """What the model says of an image, the caption before its alternatives, and in how many seconds."""

    captions: tuple[Caption, ...]
    options: DecodingOptions
    seconds: float


def static(name: str) -> str:
    """Read a file of the page: a script, its style sheet, a piece of HTML."""
    return (Path(__file__).parent / "static" / name).read_text(encoding="utf-8")


def for_visitor(error: Exception) -> str:
    """Describe a failure in one sentence, without paths; a bug goes to the log with its traceback."""
    if not isinstance(error, CaptionerError):
        _log.error("unexpected failure", exc_info=error)
        return _GENERIC
    advice = _ADVICE.get(type(error), error.advice) or ("choose another file" if isinstance(error, ImageError) else "")
    text = reworded(f"{error.what}; {advice}" if advice else error.what, str)
    if ": " not in text and not error.what.startswith("`"):  # else a name stands in front
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def odds(log_prob: float) -> str:
    """Write the N of a small probability "1 in N", given by its natural logarithm.

    >>> odds(-7.85), odds(-21.2)
    ('2,566', '1.6 billion')
    """
    digits = -log_prob / math.log(10)
    if digits >= _SCALE[0][1] + 3:
        return f"10^{digits:.0f}"
    value = math.exp(-log_prob)
    for name, power in _SCALE:
        if digits >= power:
            return f"{value / 10**power:.1f} {name}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def times(log_ratio: float) -> str:
    """Say how many times as probable, given the natural logarithm of the ratio (at least 0).

    >>> times(0.02), times(2.5), times(30.0)
    ('about as', '12 times as', '10.7 trillion times as')
    """
    if log_ratio < math.log(1.1):
        return "about as"
    if log_ratio < math.log(10):
        return f"{math.exp(log_ratio):.1f} times as"
    return f"{odds(-log_ratio)} times as"


def answer_card(answer: Answer) -> str:
    """Show the caption in large letters, its copy button, and the alternatives."""
    best = answer.captions[0]
    text = escape(best.text)
    unsure = best.confidence is not None and best.confidence < UNSURE
    doubt = '<p class="hint doubt">I am not sure about this one.</p>' if unsure else ""
    return (
        f'<div class="answer" data-announce="Caption: {text}"><p class="caption">{text}</p>{doubt}'
        '<p class="caption-tools">'
        f'<button type="button" class="quiet-button" data-copy="{text}">Copy caption</button>'
        f'<span class="took">{answer.seconds:.2f} s to look and write</span></p>'
        f"{_all_captions(answer)}</div>"
    )


def _all_captions(answer: Answer) -> str:
    captions, count = answer.captions, len(answer.captions)
    log_probs = [caption.log_prob for caption in captions]
    bars = [_bar(math.exp(log_prob - max(log_probs))) if count > 1 else "" for log_prob in log_probs]
    rows = "".join(
        f'<tr><td><span class="sentence">{escape(caption.text)}</span>{bar}</td><td>{odds(caption.log_prob)}</td>'
        f"<td>{_minus(caption.log_prob)}</td></tr>"
        for caption, bar in zip(captions, bars, strict=True)
    )
    heading = "How probable it is" if count == 1 else f"Its {count} best captions"
    more = " The bars compare the captions with the likeliest." if count > 1 else ""
    if answer.options.sampling:
        heading = f"The {count} captions that were drawn"
    elif log_probs != sorted(log_probs, reverse=True):
        reason = "The search favours longer sentences a little"
        if answer.options.consensus:
            reason = "What many of them say comes first"
        more += f" {reason}, so the order is not quite that of the bars."
    return (
        f'<h2>{heading}</h2><table class="figures captions"><thead>{_head("Caption", *_FIGURES)}</thead>'
        f'<tbody>{rows}</tbody></table><p class="hint">1 in {odds(log_probs[0])} means: of so many sentences that the '
        "model draws at random for this image, one is the first caption, on average. log P is the natural logarithm of "
        f"this chance.{more}</p>"
    )


def decisions(score: Score, seen: Pixels) -> str:
    """Show the words of a caption one by one: probability, runners-up, and where the model looked at what it saw."""
    attention = score.attention
    shades = [""] * (len(score.words) + 1)
    figure = ""
    if attention is not None:
        shades[: len(attention)] = [draw.image_uri(draw.shade(weights), "png") for weights in attention]
        figure = _LOOK.format(draw.image_uri(Image.fromarray(seen), "jpeg", quality=80))
    log_probs = (*score.word_log_probs, score.end_log_prob)
    words = (*score.words, vocabulary.SPECIAL_WORDS[vocabulary.END])
    rows = "".join(
        _decision(word, math.exp(log_prob), others, where)
        for word, log_prob, others, where in zip(words, log_probs, score.runners_up, shades, strict=True)
    )
    return (
        '<div class="decisions"><p class="hint">The sentence is written word by word. Each time the model gives '
        f"every word it knows a probability, from the image and the words before.</p>{figure}"
        f"<table><thead>{_head('Word', 'Probability', 'Runners-up')}</thead><tbody>{rows}</tbody></table></div>"
    )


def _decision(word: str, probability: float, others: tuple[tuple[str, float], ...], where: str) -> str:
    rest = [pair for pair in others if pair[0] != word][:_SHOWN_RUNNERS_UP]
    named = "".join(f'<li>{_word(other)} <span class="p">{percent(chance)}</span></li>' for other, chance in rest)
    shown = _word(word)
    if where:  # the model looked somewhere: the word can be pointed at or chosen
        shown = f'<button type="button" class="look-at" aria-pressed="false" data-shade="{where}">{shown}</button>'
    return (
        f'<tr><th scope="row">{shown}</th>'
        f'<td class="chance">{_bar(probability)}<span class="p">{percent(probability)}</span></td>'
        f'<td><ul class="runners-up">{named}</ul></td></tr>'
    )


def comparison_card(own: Score, caption: Caption) -> str:
    """Show a visitor's sentence beside the model's caption of the same image."""
    model = Score(caption.text, caption.words, caption.word_log_probs, caption.end_log_prob)
    gain = model.log_prob - own.log_prob
    if gain >= 0:
        verdict = f"The model finds its own caption {times(gain)} probable as yours."
    else:
        verdict = f"The model finds your sentence {times(-gain)} probable as its own caption."
    both = {"Your sentence": own, "Its own caption": model}
    rows = "".join(
        f'<tr><th scope="row">{title}</th><td>{odds(score.log_prob)}</td><td>{_minus(score.log_prob)}</td>'
        f"<td>{_rounded(score.perplexity)}</td></tr>"
        for title, score in both.items()
    )
    return (
        f'<div class="comparison" data-announce="{escape(verdict)}"><p class="verdict">{escape(verdict)}</p>'
        f"{''.join(_scored(title, score) for title, score in both.items())}"
        f'<table class="figures"><thead>{_head("Sentence", *_FIGURES, "Perplexity")}</thead><tbody>{rows}</tbody>'
        '</table><p class="hint">The stronger a word is coloured, the more the model expected it. Perplexity is how '
        "many words it hesitates between at each place, on average.</p></div>"
    )


def _scored(title: str, score: Score) -> str:
    chances = [(word, math.exp(value)) for word, value in zip(score.words, score.word_log_probs, strict=True)]
    words = "".join(
        f'<span class="word shade-{sum(chance >= bound for bound in _SHADES)}" title="{percent(chance)}">'
        f"{escape(word)}</span> "
        for word, chance in chances
    )
    named = [f"<b>{escape(word)}</b> ({percent(chance)})" for word, chance in chances if chance < UNLIKELY]
    unlikely = f"Found unlikely: {', '.join(named)}" if named else "No word of it surprised the model."
    return (
        f'<section class="scored"><h2>{title}</h2><p class="shaded">{words}</p>'
        f'<p class="unlikely">{unlikely}</p></section>'
    )


def notice(text: str, *, kind: str = "error") -> str:
    """Show a message in the place of an answer; ``kind`` is ``error`` or ``busy``."""
    return f'<div class="notice {kind}" data-announce="{escape(text)}"><p>{escape(text)}</p></div>'


def _head(*names: str) -> str:
    return "".join(["<tr>", *(f'<th scope="col">{name}</th>' for name in names), "</tr>"])


def _bar(share: float) -> str:
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * min(share, 1):.1f}%"></i></span>'


def _word(word: str) -> str:
    return '<i class="end">end of sentence</i>' if word == vocabulary.SPECIAL_WORDS[vocabulary.END] else escape(word)


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _rounded(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}" if value < 1e9 else "beyond a billion"
