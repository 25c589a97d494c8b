"""Words: from a caption to tokens, from tokens to ids, and back to a readable sentence.

Captions are taken apart the way the Penn Treebank does it (``isn't`` -> ``is n't``), so that a
generated sentence falls into the same tokens again when it is evaluated. Punctuation is split off and
then left out: the metrics of the field do not count it, and a model that need not predict commas
spends its capacity on words.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from captioner.errors import OptionError, UnknownWordsError

MOST_WORDS = 100_000
"""Longer texts are refused: they are no captions, and memory grows with their length."""
PAD, START, END, UNKNOWN = range(4)
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unk>")

_CLITIC = r"(?:n't|'(?:s|re|ve|ll|d|m))"
# A letter or digit of any script; combining marks and Indic or Thai vowel signs belong to the word.
_LETTER = r"(?:[^\W_]|[\u0300-\u036f\u0900-\u0963\u0966-\u0eff])"
_TOKEN = re.compile(
    rf"""
      {_CLITIC}(?!{_LETTER})                          # a clitic that stands alone: 's
    | \d+(?:[.,:]\d+)+                                # 10,000  3.5  12:30
    | {_LETTER}+(?:['&-]{_LETTER}+)*                  # dog  t-shirt  o'clock  r&b
    | [^\s]                                           # punctuation, one sign at a time
    """,
    re.VERBOSE,
)
_CLITIC_END = re.compile(rf"(.+?)((?:{_CLITIC})+)")
_CLITICS = re.compile(_CLITIC)
_WORD = re.compile(rf"{_CLITIC}|\d.*|{_LETTER}.*", re.DOTALL)
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u00b4": "'", "`": "'"})
_SENTENCE_END = (".", "!", "?")
_NO_SPACE_BEFORE = frozenset(".,!?;:%)]}")
_NO_SPACE_AFTER = frozenset("([{$#")
_NAMED = 8  # how many unknown words a message names
_NEAREST = 2  # how many known words it offers for each
_SHOWN = 40  # letters of a word in a message


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case tokens: words, clitics, numbers and single punctuation signs.

    >>> tokenize("The man's dog isn't wet.")
    ['the', 'man', "'s", 'dog', 'is', "n't", 'wet', '.']
    """
    tokens: list[str] = []
    # Twice NFC: lower-casing a composed letter (U+0130) may leave marks in another order.
    normal = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    for match in _TOKEN.finditer(normal.translate(_QUOTES)):
        token = match.group()
        parts = _CLITIC_END.fullmatch(token)
        if parts is None:
            tokens.append(token)
        else:
            tokens.append(parts.group(1))
            tokens.extend(_CLITICS.findall(parts.group(2)))
    return tokens


def caption_words(text: str) -> list[str]:
    """Split a caption into its words: its tokens without punctuation. This is what models are trained on."""
    return [token for token in tokenize(text) if _WORD.fullmatch(token)]


def detokenize(tokens: Sequence[str]) -> str:
    """Make a readable sentence: capital letter, clitics and punctuation closed up, a full stop at the end.

    >>> detokenize(["the", "man", "'s", "dog", "is", "n't", "wet"])
    "The man's dog isn't wet."
    """
    text = ""
    for token in tokens:
        attached = token in _NO_SPACE_BEFORE or _CLITICS.fullmatch(token) is not None
        if text and not attached and text[-1] not in _NO_SPACE_AFTER:
            text += " "
        text += token
    if not text:
        return ""
    first = text[0].upper()
    # Letters such as the German sharp s have no single capital; they stay, so that nothing is lost.
    if first.lower() == text[0]:
        text = first + text[1:]
    return text if text.endswith(_SENTENCE_END) else text + "."


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows, in the order of their ids; the first four are special.

    Attributes:
        words: ``("<pad>", "<start>", "<end>", "<unk>", ...)``; a word's position is its id.

    Raises:
        OptionError: the special words are not in front, or a word occurs twice.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SPECIAL_WORDS)] != SPECIAL_WORDS:
            raise OptionError(f"a vocabulary must start with {' '.join(SPECIAL_WORDS)}")
        if len(self._ids) != len(self.words):
            raise OptionError("a vocabulary must not contain a word twice")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Collect words that occur at least ``min_count`` times, frequent ones first, then by alphabet."""
        counts = Counter(word for caption in captions for word in caption_words(caption))
        frequent = [word for word, count in counts.items() if count >= min_count]
        frequent.sort(key=lambda word: (-counts[word], word))
        return cls(SPECIAL_WORDS + tuple(frequent))

    def extended(self, captions: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Add the words that occur at least ``min_count`` times in captions, behind those that are there."""
        found = Vocabulary.build(captions, min_count).words
        return Vocabulary((*self.words, *(word for word in found if word not in self)))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def encode(self, words: Iterable[str]) -> list[int]:
        """Find the ids of words; a word that is not known becomes ``<unk>``. No start or end is added."""
        return [self._ids.get(word, UNKNOWN) for word in words]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Find the words of ids, special ones included."""
        return [self.words[index] for index in ids]


def text_words(text: str) -> list[str]:
    """Split a text into its words as the model reads them, known or not.

    Punctuation is left out, as in training (:func:`caption_words`). Pictorial signs
    such as emoji mean something, so they count as words here.

    Raises:
        OptionError: the text holds bytes that are no UTF-8, or more than :data:`MOST_WORDS` words.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:  # such bytes in the shell's arguments become half characters
        raise OptionError(f"the text {text[:_SHOWN]!r} is not valid UTF-8") from error
    words = caption_words(text)
    if any(unicodedata.category(character) == "So" for character in text):
        kept = {*words}
        words = [t for t in tokenize(text) if t in kept or unicodedata.category(t[0]) == "So"]
    if len(words) > MOST_WORDS:
        raise OptionError(f"a text of {len(words):,} words is too long", f"at most {MOST_WORDS:,} can be scored")
    return words


def known_words(text: str, vocabulary: Vocabulary) -> list[str]:
    """Split a text into its words, all of which the model knows.

    Raises:
        UnknownWordsError: it does not know some; the message offers the nearest that it knows.
        OptionError: see :func:`text_words`.
    """
    words = text_words(text)
    unknown = tuple(dict.fromkeys(word for word in words if word not in vocabulary))
    if unknown:
        raise UnknownWordsError(f"the model does not know {name_unknown(unknown, vocabulary)}", unknown)
    return words


def name_unknown(unknown: Sequence[str], vocabulary: Vocabulary) -> str:
    """List unknown words for people, with the nearest known words.

    >>> name_unknown(["dogg"], Vocabulary((*SPECIAL_WORDS, "dog", "cat")))
    "the word 'dogg' (did you mean dog?)"
    """

    def with_nearest(word: str) -> str:
        if len(word) > _SHOWN:  # nothing that the model knows is near to such words
            return repr(word[:_SHOWN] + "...")
        near = difflib.get_close_matches(word, vocabulary.words[len(SPECIAL_WORDS) :], n=_NEAREST, cutoff=0.75)
        return f"{word!r} (did you mean {' or '.join(near)}?)" if near else repr(word)

    named = ", ".join(map(with_nearest, unknown[:_NAMED]))
    more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
    return f"the word{'' if len(unknown) == 1 else 's'} {named}{more}"
