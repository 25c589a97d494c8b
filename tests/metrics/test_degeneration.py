from __future__ import annotations

import pytest

from captioner.metrics.evaluate import degeneration


def _words(*captions: str) -> list[list[str]]:
    return [caption.split() for caption in captions]


def test_counts_captions_that_end_in_the_middle_of_a_sentence() -> None:
    bad = _words("a man in a", "two dogs and", "a dog on the", "a man with his", "a boy jumps into", "")
    good = _words("a man in a hat", "the bear stands up", "a dog behind", "he looks around")
    assert degeneration(bad).bad_endings == 1
    assert degeneration(good).bad_endings == 0
    assert degeneration([*bad[:1], *good[:3]]).bad_endings == 0.25


def test_counts_pairs_that_stand_earlier_in_the_same_caption() -> None:
    # 5 + 1 pairs, of which "a dog" is one again.
    found = degeneration(_words("a dog and a dog runs", "a dog"))
    assert found.repeated_bigrams == pytest.approx(1 / 6)
    assert degeneration(_words("on on on on")).repeated_bigrams == pytest.approx(2 / 3)


def test_counts_captions_that_name_one_thing_twice() -> None:
    found = degeneration(_words("a white toilet next to a toilet", "a toilet on a toilet on a toilet", "a man", ""))
    assert found.named_twice == 0.5


def test_without_pairs_nothing_is_repeated() -> None:
    assert degeneration(_words("", "dog")).repeated_bigrams == 0
