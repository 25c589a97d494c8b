from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.metrics.ptb import tokenizer
from captioner.metrics.ptb.tokenizer import PUNCTUATION, RULES, Rule, tokenize, tokenize_lines
from tests.oracle import ptb
from tests.oracle.adversarial import KINDS, adversarial_lines

needs_java = pytest.mark.skipif(ptb.absence() is not None, reason=str(ptb.absence()))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rules_example_gives_its_tokens(rule: Rule) -> None:
    assert tokenize(rule.example) == list(rule.tokens)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rules_example_uses_the_rule(rule: Rule) -> None:
    assert rule in [used for used, _ in tokenizer.matches(rule.example)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\u00a0 ", []),
        ("A man riding a horse.", ["a", "man", "riding", "a", "horse"]),
        ("A man\nriding", ["a", "man", "riding"]),
        ("The dog isn't the man's.", ["the", "dog", "is", "n't", "the", "man", "'s"]),
        ("the dogs' bowls", ["the", "dogs", "bowls"]),
        ("red-haired (left) - \u201chi!\u201d", ["red-haired", "-lrb-", "left", "-rrb-", "hi"]),
        ("Mr. Smith of St. Ives, Calif. left.", ["mr.", "smith", "of", "st.", "ives", "calif.", "left"]),
        ("It cost $1,000.50, or 50\u00a2", ["it", "cost", "$", "1,000.50", "or", "50", "cents"]),
        ("at 3:30pm... and 4 p.m.", ["at", "3:30", "pm", "and", "4", "p.m."]),
        ("\u0130stanbul, STRASSE stra\u00dfe", ["i\u0307stanbul", "strasse", "stra\u00dfe"]),
        ("\u0391\u03a3-\u0392\u03a3", ["\u03b1\u03c3-\u03b2\u03c2"]),
        ("a dog \U0001f600\U0001f600 runs", ["a", "dog", "runs"]),
        ("http://\U0001f600", ["http://\U0001f600"]),
        ("what?! no!!", ["what", "?!", "no", "!!"]),
        ("gonna. cannot, wanna", ["gon", "na", "can", "not", "wan", "na"]),
        ("wi\u00adfi", ["wifi"]),
        ("\u041c\u0418\u0420 \u4e2d\u6587", ["\u043c\u0438\u0440", "\u4e2d\u6587"]),
    ],
)  # fmt: skip
def test_captions_have_these_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_the_next_line_decides_whether_a_last_letter_keeps_its_full_stop() -> None:
    assert tokenize("plan B.") == ["plan", "b."]
    assert tokenize("plan B.", following="The man") == ["plan", "b"]
    assert tokenize_lines(["plan B.", "", "The man", "plan B.", "man"]) == [
        ["plan", "b"],
        [],
        ["the", "man"],
        ["plan", "b."],
        ["man"],
    ]


@given(st.lists(st.sampled_from([piece for kind in KINDS for piece in kind] + [" ", "  ", " \u00a0"]), max_size=8))
def test_words_read_at_once_are_the_words_that_the_rules_give(pieces: list[str]) -> None:
    for text in ("".join(pieces), " ".join(pieces)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer, "_PLAIN_WORDS", re.compile(r"(?!)"))
            by_rules_alone = tokenize(text)
        assert tokenize(text) == by_rules_alone


@given(st.text())
def test_any_text_has_tokens_without_punctuation_or_blanks(text: str) -> None:
    assert all(token and token not in PUNCTUATION and " " not in token for token in tokenize(text))


def test_the_tokeniser_needs_neither_torch_nor_numpy() -> None:
    check = (
        "import sys; from captioner.metrics.ptb.tokenizer import tokenize; tokenize('a'); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@needs_java
def test_5000_adversarial_lines_have_the_oracles_tokens() -> None:
    lines = adversarial_lines(5000, seed=0)
    assert [tokenize(line) for line in lines] == ptb.tokenize_each(lines)


@needs_java
def test_5000_adversarial_lines_of_one_file_have_the_oracles_tokens() -> None:
    lines = adversarial_lines(5000, seed=1)
    assert tokenize_lines(lines) == ptb.tokenize_as_file(lines)


@needs_java
def test_every_character_of_the_basic_plane_is_cut_where_the_oracle_cuts_it() -> None:
    codes = [code for code in range(1, 0x10000) if code not in LINE_ENDS and not 0xD800 <= code < 0xE000]
    # Java's and Python's Unicode differ in which of the newest letters have two cases.
    characters = [chr(code) for code in codes if chr(code).lower() == chr(code) or code < 0x2C00]
    lines = [pattern.format(character) for character in characters for pattern in ("a{}b", "1{}2", "{}")]
    assert [tokenize(line) for line in lines] == ptb.tokenize_each(lines)


LINE_ENDS = {ord(character) for character in "\n\v\f\r\x85\u2028\u2029"}


@needs_java
def test_coco_val2017_has_the_oracles_tokens(real_data: Path) -> None:
    file = real_data / "coco" / "annotations" / "captions_val2017.json"
    annotations = json.loads(file.read_text("utf-8"))["annotations"]
    captions = [annotation["caption"] for annotation in annotations]
    assert len(captions) == 25_014
    assert [tokenize(caption) for caption in captions] == ptb.tokenize_each(captions)
    assert tokenize_lines(captions) == ptb.tokenize_as_file(captions)


@needs_java
def test_flickr8k_has_the_oracles_tokens(real_data: Path) -> None:
    text = (real_data / "flickr8k" / "Flickr8k.token.txt").read_text("utf-8")
    captions = re.findall(r"^[^\t\n]+\.jpg#\d\t(.*)$", text, re.MULTILINE)
    assert len(captions) == 40_455
    assert [tokenize(caption) for caption in captions] == ptb.tokenize_each(captions)
    assert tokenize_lines(captions) == ptb.tokenize_as_file(captions)


@needs_java
def test_captions_of_mixed_sources_have_the_oracles_tokens(real_data: Path) -> None:
    with (real_data / "mixed" / "captions.csv").open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert [tokenize(caption) for caption in captions] == ptb.tokenize_each(captions)
    assert tokenize_lines(captions) == ptb.tokenize_as_file(captions)
