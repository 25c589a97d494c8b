"""How broken the sentences of a set of captions are: what a model that chases a score gives up first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# Of 30,000 human captions of Flickr8k 0.8 % end in one of these, most of them in "on" ("a crowd looks on").
# Up, down, out, off, around and behind, which end a sentence rightly more often than not, are left out.
_OPEN = frozenset(
    (
        *("a", "an", "the", "his", "its", "their", "this", "that", "these", "those", "another"),
        *("of", "in", "on", "at", "to", "for", "with", "from", "into", "onto", "over", "under", "near"),
        *("by", "beside", "between", "among", "through", "against", "across", "along", "towards", "toward"),
        *("upon", "during", "without"),
        *("and", "or", "but", "nor", "as", "while", "because", "if", "than"),
    )
)


@dataclass(frozen=True)
class Degeneration:
    """Figures about the captions alone, without their references.

    Attributes:
        bad_endings: share of captions whose last word cannot close a sentence: an article or another
            determiner, a preposition or a conjunction ("a man in a"). A caption without words is one.
        repeated_bigrams: share of pairs of neighbouring words that stand earlier in the same caption too.
    """

    bad_endings: float
    repeated_bigrams: float


def degeneration(captions: Collection[Sequence[str]]) -> Degeneration:
    """Measures how broken captions are.

    Args:
        captions: words of each caption in lower case, at least one caption.
    """
    bad = sum(not caption or caption[-1] in _OPEN for caption in captions)
    pairs = [list(pairwise(caption)) for caption in captions]
    count = sum(map(len, pairs))
    repeated = count - sum(len(set(found)) for found in pairs)
    return Degeneration(bad / len(captions), repeated / count if count else 0.0)
