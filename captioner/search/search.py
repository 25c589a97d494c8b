"""Which images fit a sentence, shown as a page, and which sentences an image: log P(text | image) of many pairs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from captioner.caption import precise
from captioner.captioner import Captioner
from captioner.errors import UnknownWordsError
from captioner.features import FeatureStore
from captioner.files import write_atomically
from captioner.html import CLOSING, opening
from captioner.images.draw import thumbnail_html
from captioner.runtime.model import Floats, Model, State
from captioner.scoring import Score
from captioner.vocabulary import END, START, known_words

Doubles = np.typing.NDArray[np.float64]
IMAGES = 256
"""Images that take a step together: enough for large matrix products, and their scores of all words
still fit into a processor's cache."""


class Gallery:
    """Images, encoded now or earlier; features come from the cache on disk as they are needed.

    An image that cannot be read is left out and listed in ``broken``.

    Args:
        captioner: the model, of one checkpoint.
        paths: image files.
        cache: folder that keeps features, see :class:`captioner.features.FeatureStore`.

    Attributes:
        vocabulary: the words that the model knows.
        paths: the images that could be read, in the order given.
        broken: why the others could not, by their position among those given.

    Raises:
        CacheError: features cannot be kept on disk.
        EncoderError: the model cannot encode images.
    """

    def __init__(self, captioner: Captioner, paths: Sequence[Path], *, cache: str | Path) -> None:
        captioner.check_sees_images()
        self._model, self.vocabulary = captioner.model, captioner.vocabulary
        store = FeatureStore(cache, captioner.model, pooled=captioner.config.attention == "none")
        self._features = store.collect(paths)
        self._sound = [place for place, row in enumerate(self._features.rows) if row >= 0]
        self.paths = tuple(paths[place] for place in self._sound)
        self.broken: Mapping[int, str] = self._features.broken

    def log_probs(
        self, sentences: Sequence[Sequence[int]], *, on_progress: Callable[[int], Any] = lambda steps: None
    ) -> Doubles:
        """Log P(text | image) of each text for each image.

        Args:
            sentences: ids of the words of each text.
            on_progress: see :func:`captioner.search.search.log_prob_matrix`.

        Returns:
            float64 ``(texts, images)``.
        """
        starts = range(0, len(self._sound), IMAGES)
        blocks = (self._features.fetch(self._sound[start : start + IMAGES]) for start in starts)
        return log_prob_matrix(self._model, blocks, sentences, on_progress=on_progress)


@dataclass(frozen=True)
class Match:
    """An image that was found.

    Attributes:
        path: its file.
        log_prob: log P(text | image).
        score: ``log_prob`` minus the mean of the text's over all images searched: how many nats the text
            is more probable here than it is on average. It makes the matches of different texts comparable.
    """

    path: Path
    log_prob: float
    score: float


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        words: the words searched for.
        matches: all images, the best first; images that fit equally well in the gallery's order.
        mean_log_prob: of the text over all images.
    """

    words: tuple[str, ...]
    matches: Sequence[Match]
    mean_log_prob: float


def search(gallery: Gallery, text: str) -> Answer:
    """Order images by how well a text fits them.

    Args:
        gallery: at least one image.
        text: a sentence like a caption.

    Raises:
        UnknownWordsError: the text holds words that the model does not know.
        OptionError: the text is too long or no UTF-8.
    """
    words = known_words(text, gallery.vocabulary)
    log_probs = gallery.log_probs([gallery.vocabulary.encode(words)])[0]
    mean = log_probs.mean()
    order = np.argsort(-log_probs, kind="stable").tolist()
    values, scores = ([precise(value) for value in each.tolist()] for each in (log_probs, log_probs - mean))
    matches = [Match(gallery.paths[place], values[place], scores[place]) for place in order]
    return Answer(tuple(words), matches, precise(float(mean)))


_STYLE = """\
.score { font-weight: 600; font-variant-numeric: tabular-nums; }
.name { display: block; font-size: .9rem; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
"""
_BODY = """\
<h1>{title}</h1>
<p>The {shown:,} best of {searched:,} images. The score says by how many nats the text is more probable for
an image than it is on average ({mean:.2f}).</p>
<ol class="gallery">
{cards}
</ol>
"""


def write_page(path: str | Path, text: str, answer: Answer, top: int) -> None:
    """Write the best images of a search as a page.

    Args:
        path: the HTML file.
        text: what was searched for.
        answer: what was found.
        top: how many images to show. One that is no longer there leaves a grey box.

    Raises:
        CaptionerError: the file cannot be written.
    """
    best = answer.matches[:top]
    cards = [
        f'<li>{thumbnail_html(match.path, match.path.name)}<span class="score">{match.score:+.2f}</span> '
        f'<span class="quiet">log P {match.log_prob:.2f}</span>'
        f'<a class="name" href="{escape(match.path.absolute().as_uri())}">{escape(str(match.path))}</a></li>'
        for match in best
    ]
    body = _BODY.format(
        title=escape(text),
        shown=len(best),
        searched=len(answer.matches),
        mean=answer.mean_log_prob,
        cards="\n".join(cards),
    )
    page = opening(text, _STYLE) + body + CLOSING
    # half a character, which file names may hold and UTF-8 may not, becomes a question mark
    write_atomically(path, page.encode("utf-8", "replace"))


class PrefixTree:
    """Every prefix of some sentences, each once.

    Attributes:
        children: for each prefix the words that continue it, with the prefixes that arise; prefix 0 is the empty one.
        ends: for each prefix the positions of the sentences that end with it.
    """

    def __init__(self, sentences: Iterable[Sequence[int]]) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.ends: list[list[int]] = [[]]
        for position, sentence in enumerate(sentences):
            prefix = 0
            for word in sentence:
                following = self.children[prefix].setdefault(word, len(self.children))
                if following == len(self.children):
                    self.children.append({})
                    self.ends.append([])
                prefix = following
            self.ends[prefix].append(position)

    def __len__(self) -> int:
        """How many prefixes there are, the empty one included."""
        return len(self.children)


def log_prob_matrix(
    model: Model,
    regions: Iterable[Floats],
    sentences: Sequence[Sequence[int]],
    *,
    on_progress: Callable[[int], Any] = lambda steps: None,
) -> Doubles:
    """Log P(text | image), words and end, for all pairs of a text and an image.

    Texts with a common beginning share the work for it: the decoder takes one step for each prefix and
    image. Of the distribution over all words only its normaliser and the words that follow are kept.

    Args:
        model: what reads them.
        regions: the images in blocks ``(images, regions, channels)``, best of :data:`IMAGES`.
        sentences: ids of the words of each text, without start and end.
        on_progress: called with the number of images of a block after each prefix.

    Returns:
        ``(texts, images)``, added up in float64.
    """
    tree = PrefixTree(sentences)
    blocks = [_block(model, tree, block, len(sentences), on_progress) for block in regions]
    return np.concatenate(blocks, axis=1) if blocks else np.empty((len(sentences), 0))


def _block(model: Model, tree: PrefixTree, regions: Floats, texts: int, on_progress: Callable[[int], Any]) -> Doubles:
    images = len(regions)
    found = np.empty((texts, images))
    # Depth first, so that few states are alive at a time; a list, since a text may have 10,000 words.
    waiting: list[tuple[int, int, Doubles, State]] = [(0, START, np.zeros(images), model.initial_state(regions))]
    while waiting:
        prefix, word, total, state = waiting.pop()
        log_probs, state = model.step(np.full((images, 1), word), state)
        if tree.ends[prefix]:
            found[tree.ends[prefix]] = total + log_probs[:, 0, END]
        for following, child in tree.children[prefix].items():
            waiting.append((child, following, total + log_probs[:, 0, following], state))
        on_progress(images)
    return found


@dataclass(frozen=True)
class Unscored:
    """A text that cannot be scored.

    Attributes:
        text: as it was given.
        unknown: the words that the model does not know.
        reason: names them, with the nearest known words.
    """

    text: str
    unknown: tuple[str, ...]
    reason: str


def score_each(
    captioner: Captioner, regions: Floats, texts: Sequence[str], *, runners_up: int = 0
) -> list[Score | Unscored]:
    """Score many texts for one image; those with unknown words do not keep the others from being scored.

    Args:
        captioner: the model.
        regions: of the image, ``(1, regions, channels)``.
        texts: any number.
        runners_up: see :meth:`captioner.captioner.Captioner.score`.

    Returns:
        For each text, in the order given, its score or why it has none.

    Raises:
        OptionError: a text is too long or no UTF-8.
    """
    refused = [_refused(text, captioner) for text in texts]
    known = [text for text, unscored in zip(texts, refused, strict=True) if unscored is None]
    scores = iter(captioner.score(np.repeat(regions, len(known), axis=0), known, runners_up=runners_up))
    return [unscored or next(scores) for unscored in refused]


def _refused(text: str, captioner: Captioner) -> Unscored | None:
    try:
        known_words(text, captioner.vocabulary)
    except UnknownWordsError as error:
        return Unscored(text, error.words, str(error))
    return None


def rank(
    captioner: Captioner, regions: Floats, texts: Sequence[str], *, per_word: bool = False
) -> list[Score | Unscored]:
    """Order texts by their log-probability for an image.

    Args:
        captioner: the model.
        regions: of the image, ``(1, regions, channels)``.
        texts: any number.
        per_word: order by the mean over words and end instead, which does not favour short texts.

    Returns:
        The most probable text first, equally probable ones in the order given; those with unknown words last.

    Raises:
        OptionError: a text is too long or no UTF-8.
    """

    def key(judged: Score | Unscored) -> tuple[bool, float]:
        if isinstance(judged, Unscored):
            return True, 0.0
        return False, -(judged.mean_log_prob if per_word else judged.log_prob)

    return sorted(score_each(captioner, regions, texts), key=key)
