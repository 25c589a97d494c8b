"""What a caption names twice: "a white toilet sitting next to a toilet", "a green tree on top of a tree".

A caption is cut into phrases. Prepositions, articles, pronouns, conjunctions, auxiliary verbs and participles close a
phrase; the words between two of them are one, and its last word says what it names: the bench, in "a wooden park bench
in". A phrase names a thing again if an earlier one ends in the same word, and all words of one of the two are in the
other. So nothing tells them apart, as it does in "a street sign next to a traffic sign".
"""

from collections.abc import Hashable, Sequence
from enum import IntEnum


class Kind(IntEnum):
    """What a word does in a phrase: nothing but say more of the thing, or one of the others."""

    PLAIN = 0
    CLOSING = 1
    POINTING = 2
    """Closes a phrase, too; the phrase behind it speaks of what is known, as "the dog" of a dog."""
    TELLING = 3
    """Tells the thing of its phrase from others: "another cat"."""
    SEVERAL = 4
    """Names nothing, or what a caption rightly names twice: "a man in red and a man in blue"."""


CLOSES = (Kind.CLOSING, Kind.POINTING)
"""What ends the phrase before it."""

_POINTING = "the his her their its this that these those both each"
_CLOSING = """
a an my your our some any all every no
about above across after against along among around as at atop away back before behind below beneath beside between by
close down during for from front full in inside into like near nearby next of off on onto out outside over past side
through to top toward towards under underneath up upon with within without
also and because but if nor not or so than then together what when where which while who
am are be been can could do does had has have is was were will would he him it she them there they 's n't
attached covered decorated displayed dressed filled loaded mounted parked piled placed seated served stacked surrounded
topped eats holds jumps lays lies looks plays rides runs sits stands walks wears"""
_TELLING = """
another different many more one other same second several third two three four five six seven eight
baby bigger larger small smaller young"""
_SEVERAL = """
boy boys child children couple dog dogs girl girls group guy kid kids lady man men people person player players
team woman women
black blue brown gray green grey orange pink purple red white yellow
bunch half kind lot lots pair piece slice sort view"""
# A word in -ing is a participle and closes a phrase, unless it is one of these.
_PLAIN = "building ceiling clothing cutting dining king living parking railing ring something string thing wing"
_KINDS = {
    word: kind
    for kind, words in {
        Kind.POINTING: _POINTING,
        Kind.CLOSING: _CLOSING,
        Kind.TELLING: _TELLING,
        Kind.SEVERAL: _SEVERAL,
        Kind.PLAIN: _PLAIN,
    }.items()
    for word in words.split()
}


def kind_of(word: str) -> Kind:
    """Say what a word in lower case does in a phrase."""
    return _KINDS.get(word, Kind.CLOSING if word.endswith("ing") else Kind.PLAIN)


def named_again(words: Sequence[Hashable], kinds: Sequence[int]) -> list[int]:
    """Find the words that name a thing again.

    Args:
        words: of a caption, as texts or as ids; it may be unfinished, and its last phrase counts as it is.
        kinds: the :class:`Kind` of each.

    Returns:
        Their places, each that of the last word of a phrase.
    """
    found: list[int] = []
    named: dict[Hashable, list[set[Hashable]]] = {}
    first = 0
    for place, kind in enumerate(kinds):
        if kind in CLOSES:
            first = place + 1
            continue
        closed = place + 1 == len(kinds) or kinds[place + 1] in CLOSES
        if not closed or kind != Kind.PLAIN or Kind.TELLING in kinds[first:place]:
            continue
        phrase, before = set(words[first : place + 1]), named.setdefault(words[place], [])
        known = first > 0 and kinds[first - 1] == Kind.POINTING
        if not known and any(phrase <= other or other <= phrase for other in before):
            found.append(place)
        before.append(phrase)
    return found
