from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.metrics.ptb.lexer import Match, Scanner

PATTERNS = ["a", "(ab|a)c?", "[ab]{2,3}", "b+(ca)*", "[^ab]{2}", r"\.|a?\.{3}"]


def longest(patterns: list[str], text: str) -> Match | None:
    scanner = Scanner(patterns)
    return scanner.longest(scanner.classify(text), 0)


def longest_by_trying_every_length(patterns: list[str], text: str) -> Match | None:
    for end in range(len(text), 0, -1):
        for index, pattern in enumerate(patterns):
            if re.fullmatch(pattern, text[:end]):
                return Match(index, end)
    return None


@given(st.text("abc.", max_size=8), st.permutations(PATTERNS))
def test_the_longest_match_wins_and_the_first_rule_among_equals(text: str, patterns: list[str]) -> None:
    assert longest(patterns, text) == longest_by_trying_every_length(patterns, text)


@given(st.text("abc.", max_size=8), st.sampled_from(PATTERNS))
def test_ends_are_all_lengths_at_which_the_pattern_matches(text: str, pattern: str) -> None:
    scanner = Scanner([pattern])
    assert scanner.ends(scanner.classify(text), 0) == [
        end for end in range(len(text) + 1) if re.fullmatch(pattern, text[:end])
    ]


def test_a_pattern_that_allows_nothing_ends_where_it_begins() -> None:
    scanner = Scanner(["a*"])
    assert scanner.ends(scanner.classify("aab"), 0) == [0, 1, 2]


def test_a_literal_letter_stands_for_both_cases_and_a_letter_in_a_class_for_itself() -> None:
    assert longest(["ab"], "aB") == Match(0, 2)
    assert longest(["[a]b"], "aB") == Match(0, 2)
    assert longest(["[a]b"], "Ab") is None


@pytest.mark.parametrize("pattern", ["(a", "a)", "*a", "a|+", "[a", "a**"])
def test_a_malformed_pattern_is_named(pattern: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(pattern))):
        Scanner([pattern])
