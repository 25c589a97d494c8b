"""Sentences as a tree of prefixes, so that the work for a common beginning is done once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class PrefixTree:
    """Every prefix of some sentences, each once.

    Attributes:
        children: for each prefix the words that continue it, with the prefixes that arise; prefix 0 is the
            empty one.
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
