from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.errors import UnknownWordsError
from captioner.search.search import Gallery, search

MakeGallery = Callable[..., Gallery]
TEXT = "a dog runs on the beach"


def test_images_come_in_the_order_of_their_log_probabilities(
    images: list[Path], captioner: Captioner, make_gallery: MakeGallery
) -> None:
    answer = search(make_gallery(images), TEXT)
    regions = captioner.encode([captioner.preprocess(image) for image in images])
    expected = {
        image: score.log_prob
        for image, score in zip(images, captioner.score(regions, [TEXT] * len(images)), strict=True)
    }
    mean = sum(expected.values()) / len(images)
    assert [match.path for match in answer.matches] == sorted(images, key=lambda image: -expected[image])
    assert answer.mean_log_prob == pytest.approx(mean, abs=0.05)
    for match in answer.matches:
        assert match.log_prob == pytest.approx(expected[match.path], rel=0.01)
        assert match.score == pytest.approx(match.log_prob - answer.mean_log_prob)
    assert sum(match.score for match in answer.matches) == pytest.approx(0, abs=1e-6 * len(images))  # of six decimals
    assert answer.words == tuple(TEXT.split())


def test_equal_images_keep_their_order(folder: Path, make_gallery: MakeGallery) -> None:
    first = sorted(folder.iterdir())[0]
    copies = [folder / f"copy{number}.jpg" for number in range(3)]
    for copy in copies:
        shutil.copy(first, copy)
    matches = search(make_gallery([copies[1], first, copies[0], copies[2]]), TEXT).matches
    assert [match.path for match in matches] == [copies[1], first, copies[0], copies[2]]
    assert [match.score for match in matches] == [0, 0, 0, 0]


def test_unknown_words_are_named(folder: Path, make_gallery: MakeGallery) -> None:
    with pytest.raises(UnknownWordsError, match="'unicorn'"):
        search(make_gallery(sorted(folder.iterdir())), "a unicorn on the beach")
