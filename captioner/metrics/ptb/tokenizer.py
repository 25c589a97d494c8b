"""Penn Treebank tokenisation of captions, as the COCO caption evaluation does it, in pure Python.

The COCO evaluation (Chen et al. 2015, "Microsoft COCO Captions: Data Collection and Evaluation Server")
hands every caption to the PTBTokenizer of Stanford CoreNLP 3.4.1 with ``-preserveLines -lowerCase`` and drops
a list of punctuation tokens. Its steps, here:

1. At each place of the text take the longest match of any rule of the table ``rules.ini``; a character that no
   rule matches is dropped.
2. Spell the match as the treebank does: ``(`` becomes ``-LRB-``, a curly apostrophe a straight one.
3. Put it in lower case.
4. Drop it if it is in :data:`PUNCTUATION`. Brackets stay, since ``-lrb-`` is not in the list: so it is in the
   reference, and published figures are with brackets.
"""

import json
import re
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from captioner.metrics.ptb.lexer import Scanner

TOKENIZER_VERSION = "ptb-coco-1"
"""Changes whenever any text could be tokenised differently; part of every result's signature."""

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""The tokens that the COCO evaluation drops."""


@dataclass(frozen=True)
class Rule:
    """One rule of the table ``rules.ini``, which explains the fields."""

    name: str
    pattern: str
    ahead: str
    keep: int | None
    becomes: str | None
    spell: tuple[tuple[str, str], ...]
    example: str
    tokens: tuple[str, ...]


def _read_rules() -> tuple[dict[str, str], tuple[Rule, ...]]:
    """Return the named parts of patterns and the rules."""
    file = ConfigParser(delimiters="=", interpolation=None)
    file.read_string(Path(__file__).with_name("rules.ini").read_text(encoding="utf-8"))
    table = {name: dict(file[name]) for name in file.sections()}
    # "0041-005A 00AA" becomes the inside of a class, "\u0041-\u005A\u00AA"
    characters = {
        f"@{name}": re.sub(r"(\w+)\s*", r"\\u\1", ranges).strip() for name, ranges in table.pop("characters").items()
    }
    parts = {
        name: re.sub(r"@[A-Z]+", lambda found: characters[found[0].lower()], pattern.replace("\n", ""))
        for name, pattern in table.pop("parts").items()
    }
    spellings = {name: tuple(json.loads(pairs).items()) for name, pairs in table.pop("spellings").items()}
    rules = tuple(
        Rule(
            name=name,
            pattern=rule["pattern"].replace("\n", ""),
            ahead=rule.get("ahead", ""),
            keep=json.loads(rule.get("keep", "null")),
            becomes=json.loads(rule.get("becomes", "null")),
            spell=tuple(pair for name in rule.get("spell", "").split() for pair in spellings[name]),
            example=json.loads(rule["example"]),
            tokens=tuple(json.loads(rule["tokens"])),
        )
        for name, rule in table.items()
    )
    return parts, rules


_PARTS, RULES = _read_rules()


def expand(pattern: str) -> str:
    """Return ``pattern`` with every ``{NAME}`` replaced, in brackets, by that part."""
    expanded = re.sub(r"\{([A-Z_]+)\}", lambda name: f"({_PARTS[name[1].lower()]})", pattern)
    return expanded if expanded == pattern else expand(expanded)


# No rule reaches from a letter across a space, so words between spaces need no automaton; most are such.
_PLAIN_WORDS = re.compile(
    rf"(?:(?!(?:cannot|gonna|gotta|lemme|gimme|wanna)(?: |\Z))[A-Za-z]+(?: +(?!{_PARTS['blank']})|\Z))+",
    re.IGNORECASE | re.ASCII,
)
_BEYOND_BASIC_PLANE = re.compile("[\U00010000-\U0010ffff]")
_BEYOND_BASIC_PLANE_UNITS = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# Letters and digits, with a single joiner between letters; the scripts written without spaces are left out.
_SIGMA_LETTERS = r"(?:(?![\u2E80-\uD7FF\uF900-\uFAFF])[^\W_]|[\u0300-\u036F\u200B-\u200F])+"
_SIGMA_WORD = re.compile(
    rf"{_SIGMA_LETTERS}(?:(?<=[^\W\d_]|[\u0300-\u036F\u200B-\u200F])[-_'.\u00AD\u058A\u2010-\u2015](?=[^\W\d_]){_SIGMA_LETTERS})*"
)


def tokenize(text: str, following: str = "") -> list[str]:
    """Return the tokens of one caption, in lower case and without punctuation.

    A token can hold a no-break space (``"1 1/2"`` is one token, spelt with U+00A0).

    Args:
        text: The caption. Line breaks count as spaces.
        following: What stands on the lines below, if the caption is a line of a file. The reference reads a
            file as one text, and what opens the next line decides whether a letter or ``No.`` at the end of
            this one keeps its full stop.
    """
    text = text.replace("\n", " ")
    lowered = (_lower(token) for token in _tokens(text, following))
    return [token for token in lowered if token not in PUNCTUATION]


def tokenize_lines(texts: Sequence[str]) -> list[list[str]]:
    """Return each caption's tokens as the reference finds them when ``texts`` are the lines of one file."""
    tokenised: list[list[str]] = []
    below = ""
    for text in reversed(texts):
        tokenised.append(tokenize(text, below))
        below = text.replace("\n", " ") + "\n" + ("" if text.strip() else below)
    return tokenised[::-1]


def _tokens(text: str, following: str) -> Iterator[str]:
    """Yield the tokens of ``text`` in treebank spelling, punctuation included."""
    for rule, matched in matches(text, following):
        if rule is None:
            yield from matched.split()
        elif token := _spelling(rule, matched):
            yield token


def matches(text: str, following: str = "") -> Iterator[tuple[Rule | None, str]]:
    """Yield the rules that take ``text`` apart, in order, each with what it takes; None for plain words.

    Characters that no rule matches are left out. ``following`` as in :func:`tokenize`.
    """
    whole, stop = _as_code_units(f"{text}\n{following}"), len(_as_code_units(text))
    position, classes = 0, ""
    while position < stop:
        if plain := _PLAIN_WORDS.match(whole, position, stop):
            yield None, plain[0]
            position = plain.end()
            continue
        classes = classes or _scanner().classify(whole)
        match = _scanner().longest(classes, position)
        if match is None:
            position += 1
            continue
        rule, matched = RULES[match.pattern], whole[position : match.end]
        taken = matched[: _taken(rule, matched)]
        yield rule, taken
        position += len(taken)


def _taken(rule: Rule, matched: str) -> int:
    """Return how many characters of ``matched`` belong to the token; the others are read again."""
    if rule.keep is not None:
        return rule.keep
    if not rule.ahead:
        return len(matched)
    pattern, ahead = _single_scanner(rule.pattern), _single_scanner(rule.ahead)
    heads = pattern.ends(pattern.classify(matched), 0)
    classes = ahead.classify(matched)
    return max(head for head in heads if len(matched) in ahead.ends(classes, head))


def _spelling(rule: Rule, taken: str) -> str:
    """Return the token for the matched text, or the empty string where it is no token."""
    if rule.becomes is not None:
        return rule.becomes
    for old, new in rule.spell:
        taken = taken.replace(old, new)
    # Only soft hyphens can have left nothing: alone, they are a hyphen.
    return _BEYOND_BASIC_PLANE_UNITS.sub(_joined, taken) if taken else "-"


def _lower(token: str) -> str:
    """Return ``token`` in lower case as Java has it, which differs from Python's in where a sigma is final.

    A sigma is final behind a cased letter and before none of the same word, and a word can hold digits and
    single hyphens.
    """
    return (_SIGMA_WORD.sub(_lower_sigmas, token) if "\u03a3" in token else token).lower()


def _lower_sigmas(word: re.Match[str]) -> str:
    text = word[0]
    cased = [at for at, character in enumerate(text) if character.lower() != character.upper()]
    return "".join(
        character if character != "\u03a3" else "\u03c2" if cased[0] < at == cased[-1] else "\u03c3"
        for at, character in enumerate(text)
    )


def _as_code_units(text: str) -> str:
    """Return ``text`` with characters beyond the basic plane as two surrogates: rules count 16-bit units."""
    return _BEYOND_BASIC_PLANE.sub(_surrogates, text)


def _surrogates(character: re.Match[str]) -> str:
    high, low = divmod(ord(character[0]) - 0x10000, 0x400)
    return chr(0xD800 + high) + chr(0xDC00 + low)


def _joined(surrogates: re.Match[str]) -> str:
    return surrogates[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


@cache
def _single_scanner(pattern: str) -> Scanner:
    return Scanner([expand(pattern)])


@cache
def _scanner() -> Scanner:
    """The scanner of all rules; what must follow a match counts towards its length, as in the reference."""
    return Scanner([expand(f"({rule.pattern})({rule.ahead})") for rule in RULES])
