"""What the classes of ImageNet are called in captions (the table ``concepts.txt``), and captions that name them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from captioner.decoding.beam import Hypothesis
from captioner.decoding.filters import Floats, SpecialIds
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import S, StepModel, decode
from captioner.vocabulary import Vocabulary

_ARTICLES = ("a", "an")
_LEAST_FOR_BORROWED = 0.5  # below, classes that captions have no word for are mostly mistaken (docs/tags.md)
_LINE = re.compile(r"(?P<words>[a-z ]+?)(?: \((?P<like>[a-z ]+)\))?: (?P<classes>[0-9 -]+)")


@dataclass(frozen=True)
class Concept:
    """Something that several classes show.

    Attributes:
        words: any of these names it in a caption.
        like: words that can stand in their place, one for one, where a vocabulary has none of them; or none.
        classes: numbers of the classes that show it.
    """

    words: tuple[str, ...]
    like: tuple[str, ...]
    classes: tuple[int, ...]


@cache
def read_concepts() -> tuple[Concept, ...]:
    """Read the concepts of the table."""
    lines = files(__package__).joinpath("concepts.txt").read_text(encoding="utf-8").splitlines()
    return tuple(parse(line) for line in lines if line and not line.startswith("#"))


def parse(line: str) -> Concept:
    """Read one line of the table, ``words [(words in their place)]: classes``.

    Raises:
        ValueError: the line is malformed.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"no concept: {line!r}")
    classes: list[int] = []
    for part in match["classes"].split():
        first, _, last = part.partition("-")
        classes += range(int(first), int(last or first) + 1)
    return Concept(tuple(match["words"].split()), tuple((match["like"] or "").split()), tuple(classes))


@dataclass(frozen=True)
class Tag:
    """Something that the classifier is sure to see.

    Attributes:
        name: what it is called.
        probability: that it is there, as the classifier finds.
        ids: words that name it; one of them in a caption is enough.
        names: for those of ``ids`` that stand in the place of another word, which the vocabulary lacks, that
            word.
    """

    name: str
    probability: float
    ids: frozenset[int]
    names: Mapping[int, str]


class Tagger:
    """Names what a classifier sees.

    Args:
        vocabulary: words that captions are written in; concepts that it cannot name are left out.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        found = [(concept, *_names(concept, vocabulary)) for concept in read_concepts()]
        self.concepts = [(concept, ids, names) for concept, ids, names in found if ids]

    def tags(self, probabilities: Floats, threshold: float) -> list[list[Tag]]:
        """Name what is in each image with at least a probability of ``threshold``, the surest first.

        Args:
            probabilities: ``(images, classes)`` as the classifier gives them.
            threshold: above 0.
        """
        found = []
        # In plain numbers: an array may add up an image otherwise when another stands beside it.
        for of_image in probabilities.tolist():
            tags = []
            for concept, ids, names in self.concepts:
                probability = sum(of_image[number] for number in concept.classes)
                if probability >= (max(threshold, _LEAST_FOR_BORROWED) if names else threshold):
                    tags.append(Tag(concept.words[0], probability, ids, names))
            found.append(sorted(tags, key=lambda tag: -tag.probability))
        return found


def _names(concept: Concept, vocabulary: Vocabulary) -> tuple[frozenset[int], dict[int, str]]:
    """The ids that name a concept, and what those are to say that are borrowed."""
    own = [word for word in concept.words if word in vocabulary]
    if own:
        return frozenset(vocabulary.encode(own)), {}
    pairs = zip(concept.like, concept.words, strict=False)
    # The first of equal words wins: "deer deer" says the singular.
    borrowed = {like: word for like, word in reversed(list(pairs)) if like in vocabulary}
    names = dict(zip(vocabulary.encode(borrowed), borrowed.values(), strict=True))
    return frozenset(names), names


@dataclass(frozen=True)
class Written:
    """The captions of one image as ids.

    Attributes:
        hypotheses: the captions.
        tags: those that made a difference.
        names: words to say in the place of some ids.
    """

    hypotheses: list[Hypothesis]
    tags: tuple[Tag, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    def spoken(self, words: Sequence[str], ids: Sequence[int]) -> list[str]:
        """Put the names into their places in the words of a caption."""
        spoken = list(words)
        for place, number in enumerate(ids):
            if number in self.names:
                spoken[place] = self.names[number]
                if place and spoken[place - 1] in _ARTICLES:
                    spoken[place - 1] = "an" if spoken[place][0] in "aeiou" else "a"
        return spoken


def write_with_tags(
    model: StepModel[S],
    regions: Floats,
    options: DecodingOptions,
    special: SpecialIds,
    tags: Sequence[Sequence[Tag]],
) -> list[Written]:
    """Search for captions; where the best one does not name a sure tag, search for one that does.

    An image without tags, or whose caption names them, keeps the caption that it has anyway. Of several
    tags that are not named the surest is asked for. A tag whose word is borrowed is named in any case.

    Args:
        model: decoder.
        regions: ``(images, regions, channels)``.
        options: decoding options of a search.
        special: ids that are treated apart.
        tags: of each image, the surest first.
    """
    written = [Written(found) for found in decode(model, regions, options, special)]
    missing: dict[int, Tag] = {}
    for image, of_image in enumerate(tags):
        best = set(written[image].hypotheses[0].words)
        unnamed = [tag for tag in of_image if tag.names or not tag.ids & best]
        if unnamed:
            missing[image] = unnamed[0]
    if not missing:
        return written
    rows = list(missing)
    wanted = [[missing[image].ids] for image in rows]
    for image, found in zip(rows, decode(model, regions[rows], options, special, wanted=wanted), strict=True):
        if found:  # else the caption is too short to hold the word
            tag = missing[image]
            written[image] = Written(found, (tag,), tag.names)
    return written
