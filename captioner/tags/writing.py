"""Captions that say what the classifier is sure to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from captioner.decoding.filters import SpecialIds
from captioner.decoding.loop import S, StepModel, decode
from captioner.decoding.options import DecodingOptions
from captioner.decoding.strategies import Hypothesis
from captioner.tags.tagger import Tag, Tagger

_ARTICLES = ("a", "an")


@dataclass(frozen=True)
class Written:
    """The captions of one picture as ids.

    Attributes:
        hypotheses: the captions.
        tags: those that made a difference.
        names: words to say in the place of some ids.
    """

    hypotheses: list[Hypothesis]
    tags: tuple[Tag, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    def spoken(self, words: Sequence[str], ids: Sequence[int]) -> list[str]:
        """The words of a caption with the names in their places."""
        spoken = list(words)
        for place, number in enumerate(ids):
            if number in self.names:
                spoken[place] = self.names[number]
                if place and spoken[place - 1] in _ARTICLES:
                    spoken[place - 1] = "an" if spoken[place][0] in "aeiou" else "a"
        return spoken


def write_with_tags(
    model: StepModel[S], regions: Tensor, options: DecodingOptions, special: SpecialIds, tagger: Tagger
) -> list[Written]:
    """Search for captions; where the best one does not name a sure tag, search for one that does.

    A picture without tags, or whose caption names them, keeps the caption that it has anyway. Of several
    tags that are not named the surest is asked for. A tag whose word is borrowed is named in any case.

    Args:
        model: decoder.
        regions: ``(pictures, regions, channels)``.
        options: decoding options, of a search with ``tag_threshold``.
        special: ids that are treated apart.
        tagger: names what is there.
    """
    written = [Written(found) for found in decode(model, regions, options, special)]
    missing: dict[int, Tag] = {}
    for picture, tags in enumerate(tagger.tags(regions, options.tag_threshold)):
        best = set(written[picture].hypotheses[0].words)
        unnamed = [tag for tag in tags if tag.names or not tag.ids & best]
        if unnamed:
            missing[picture] = unnamed[0]
    if not missing:
        return written
    rows = list(missing)
    wanted = [[missing[picture].ids] for picture in rows]
    for picture, found in zip(
        rows, decode(model, regions[rows], options, special, wanted=wanted), strict=True
    ):
        if found:  # else the caption is too short to hold the word
            tag = missing[picture]
            written[picture] = Written(found, (tag,), tag.names)
    return written
