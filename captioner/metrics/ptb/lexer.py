r"""A longest-match scanner: many patterns, one lazily built automaton, as lexer generators define it.

Python's :mod:`re` takes the first alternative that matches; a lexer takes the rule that matches the *most*
text, and only among equals the one listed first. Emulating the second with the first is where copies of
lexers go wrong, so the patterns are compiled here to a non-deterministic automaton (Thompson 1968), and its
deterministic states are made when a text first needs them (Aho, Sethi and Ullman 1986, section 3.6).

Pattern syntax: a small part of :mod:`re`'s. Literals, ``\x`` escapes, ``[classes]``, ``(groups)``, ``|``, and
the quantifiers ``* + ? {m} {m,n}``. **A literal letter stands for both of its cases, a letter in a class for
itself alone.**
"""

import re
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

# Adds one part of a pattern behind a node and returns the node behind that part.
_Part = Callable[[int], int]


_PIECE = re.compile(r"\[\^?(?:\\.|[^\]\\])+\]|\\.|.", re.DOTALL)
_QUANTIFIER = re.compile(r"[*+?]|\{(\d+)(?:,(\d+))?\}")
_SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Match(NamedTuple):
    """Which pattern matched, and where its match ends."""

    pattern: int
    end: int


class _State:
    """One deterministic state: the automaton nodes it stands for, the pattern it accepts (-1: none)."""

    __slots__ = ("accepts", "following", "nodes")

    def __init__(self, nodes: frozenset[int], accepts: int) -> None:
        self.nodes = nodes
        self.accepts = accepts
        self.following: dict[str, _State] = {}


class _Classes(dict[int, str]):
    """Map a code point to a stand-in character, the same for all characters that no pattern tells apart."""

    def __init__(self, atoms: Sequence[re.Pattern[str]]) -> None:
        super().__init__()
        self._atoms = atoms
        self._stand_ins: dict[frozenset[int], str] = {}
        self._numbers = count(1)
        self.members: dict[str, frozenset[int]] = {}

    def __missing__(self, code: int) -> str:
        matching = frozenset(i for i, atom in enumerate(self._atoms) if atom.match(chr(code)))
        # A number from the counter is never given out twice, whichever thread asks.
        stand_in = self._stand_ins.get(matching) or chr(next(self._numbers))
        stand_in = self._stand_ins.setdefault(matching, stand_in)
        self.members[stand_in] = matching
        self[code] = stand_in
        return stand_in


class Scanner:
    """Find the longest match of any of ``patterns``; among equally long ones, the first listed wins.

    Args:
        patterns: One pattern per rule, most important first; syntax as in the module's description.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._atom_ids: dict[str, int] = {}
        # By node: the moves that consume one character, as (atom, node), and those that consume nothing.
        self._edges: list[list[tuple[int, int]]] = []
        self._jumps: list[list[int]] = []
        self._accepts: dict[int, int] = {}
        first = self._node()
        for index, pattern in enumerate(patterns):
            start = self._node()
            self._jumps[first].append(start)
            self._accepts[_Reader(pattern, self).build(start)] = index
        self._classes = _Classes([_compile_atom(atom) for atom in self._atom_ids])
        self._states: dict[frozenset[int], _State] = {}
        self._first = self._state({first})

    def classify(self, text: str) -> str:
        """Return ``text`` with each character replaced by its class's stand-in, for the other methods."""
        return text.translate(self._classes)

    def longest(self, classes: str, start: int) -> Match | None:
        """Return the longest match that begins at ``start``, or None."""
        state, best = self._first, None
        for position in range(start, len(classes)):
            stand_in = classes[position]
            state = state.following.get(stand_in) or self._follow(state, stand_in)
            if state.accepts >= 0:
                best = (state.accepts, position + 1)
            elif not state.nodes:
                break
        return Match(*best) if best else None

    def ends(self, classes: str, start: int) -> list[int]:
        """Return every position at which a match that begins at ``start`` can end, in order."""
        state, found = self._first, []
        if state.accepts >= 0:
            found.append(start)
        for position in range(start, len(classes)):
            stand_in = classes[position]
            state = state.following.get(stand_in) or self._follow(state, stand_in)
            if state.accepts >= 0:
                found.append(position + 1)
        return found

    def _follow(self, state: _State, stand_in: str) -> _State:
        atoms = self._classes.members[stand_in]
        targets = {target for node in state.nodes for atom, target in self._edges[node] if atom in atoms}
        state.following[stand_in] = following = self._state(targets)
        return following

    def _state(self, nodes: set[int]) -> _State:
        """Return the state for ``nodes`` and all that can be reached from them without a character."""
        reached, waiting = set(nodes), list(nodes)
        while waiting:
            for target in self._jumps[waiting.pop()]:
                if target not in reached:
                    reached.add(target)
                    waiting.append(target)
        key = frozenset(reached)
        if key not in self._states:
            accepts = min((self._accepts[node] for node in key if node in self._accepts), default=-1)
            self._states[key] = _State(key, accepts)
        return self._states[key]

    def _node(self) -> int:
        self._edges.append([])
        self._jumps.append([])
        return len(self._edges) - 1

    def add_atom(self, start: int, atom: str) -> int:
        """Add a move over one character from node ``start``; return the node it leads to."""
        end = self._node()
        self._edges[start].append((self._atom_ids.setdefault(atom, len(self._atom_ids)), end))
        return end

    def add_choice(self, start: int, choices: Sequence[_Part]) -> int:
        """Add all of ``choices`` side by side from node ``start``; return the node where they meet."""
        end = self._node()
        for choice in choices:
            entry = self._node()
            self._jumps[start].append(entry)
            self._jumps[choice(entry)].append(end)
        return end

    def add_repeat(self, start: int, part: _Part, least: int, most: int | None) -> int:
        """Add ``least`` to ``most`` (None: any number of) copies of ``part``; return the node behind them."""
        for _ in range(least):
            start = part(start)
        if most is None:
            loop = self._node()
            self._jumps[start].append(loop)
            self._jumps[part(loop)].append(loop)
            return loop
        end = self._node()
        for _ in range(most - least):
            self._jumps[start].append(end)
            start = part(start)
        self._jumps[start].append(end)
        return end


def _compile_atom(atom: str) -> re.Pattern[str]:
    caseless = len(atom) == 1 and atom.isascii() and atom.isalpha()
    return re.compile(f"[{atom.lower()}{atom.upper()}]" if caseless else re.escape(atom) if len(atom) == 1 else atom)


class _Reader:
    """Read one pattern by recursive descent and adds it to a scanner's automaton."""

    def __init__(self, pattern: str, scanner: Scanner) -> None:
        self._pattern = pattern
        self._scanner = scanner
        self._at = 0

    def build(self, start: int) -> int:
        """Add the whole pattern behind node ``start`` and return its last node.

        Raises:
            ValueError: The pattern has an unmatched bracket or a quantifier with nothing to repeat.
        """
        part = self._choice()
        if self._at < len(self._pattern):
            raise ValueError(f"pattern {self._pattern!r}: unexpected {self._pattern[self._at]!r} at {self._at}")
        return part(start)

    def _choice(self) -> _Part:
        choices = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            choices.append(self._sequence())
        if len(choices) == 1:
            return choices[0]
        return lambda start: self._scanner.add_choice(start, choices)

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._quantified(self._single()))

        def add(start: int) -> int:
            for part in parts:
                start = part(start)
            return start

        return add

    def _quantified(self, part: _Part) -> _Part:
        found = _QUANTIFIER.match(self._pattern, self._at)
        if found is None:
            return part
        self._at = found.end()
        least, most = _SIGNS.get(found[0]) or (int(found[1]), int(found[2] or found[1]))
        return lambda start: self._scanner.add_repeat(start, part, least, most)

    def _single(self) -> _Part:
        if self._peek() == "(":
            self._at += 1
            part = self._choice()
            if self._peek() != ")":
                raise ValueError(f"pattern {self._pattern!r}: missing ) at {self._at}")
            self._at += 1
            return part
        piece = _PIECE.match(self._pattern, self._at)
        if piece is None or piece[0] in "*+?{[":
            raise ValueError(f"pattern {self._pattern!r}: nothing to repeat or open class at {self._at}")
        self._at = piece.end()
        atom = piece[0][1] if piece[0][0] == "\\" else piece[0]
        return lambda start: self._scanner.add_atom(start, atom)

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]
