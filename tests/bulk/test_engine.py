from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.engine import Engine
from captioner.images import Pixels
from tests.bulk.folders import save_image


@pytest.fixture(scope="module")
def pixels(captioner: Captioner, images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Pixels]:
    folder = tmp_path_factory.mktemp("pixels")
    made = [save_image(folder / f"{number}.png", number) for number in range(20 - len(images))]
    return [captioner.preprocess(path) for path in [*images, *made]]


def caption(captioner: Captioner, pixels: list[Pixels], size: int, **decoding: float) -> list[list[Caption]]:
    with Engine(captioner, replace(captioner.options, **decoding)) as engine:  # type: ignore[arg-type]
        starts = range(0, len(pixels), size)
        futures = [future for start in starts for future in engine.submit(pixels[start : start + size])]
        return [captions for future in futures for captions in future.result()]


@pytest.mark.parametrize("decoding", [{}, {"temperature": 1.0, "num_captions": 2}], ids=["search", "sample"])
def test_captions_are_equal_to_the_last_bit_whatever_stands_beside_a_image(
    captioner: Captioner, pixels: list[Pixels], decoding: dict[str, float]
) -> None:
    expected = caption(captioner, pixels, 16, **decoding)
    for size in (1, 3, 17):
        assert caption(captioner, pixels, size, **decoding) == expected, size
    assert caption(captioner, pixels[::-1], 7, **decoding) == expected[::-1]
    assert caption(captioner, pixels[5:6], 1, **decoding) == expected[5:6]


def test_captions_do_not_depend_on_the_number_of_threads(captioner: Captioner, pixels: list[Pixels]) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(caption(captioner, pixels, 16))
            with ThreadPoolExecutor(1) as others:
                assert torch.get_num_threads() == others.submit(torch.get_num_threads).result() == number  # as before
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_captions_are_those_of_the_captioner(captioner: Captioner, pixels: list[Pixels]) -> None:
    found = caption(captioner, pixels, 16)
    expected = captioner.caption(pixels)
    assert [each[0].words for each in found] == [each[0].words for each in expected]


def test_an_accelerator_sees_groups_of_one_size(captioner: Captioner, pixels: list[Pixels]) -> None:
    with Engine(captioner, captioner.options) as engine:
        engine.seen_together = 16
        futures = engine.submit(pixels)
        words = [captions[0].words for future in futures for captions in future.result()]
    assert words == [captions[0].words for captions in captioner.caption(pixels)]


def test_a_failure_of_the_network_reaches_whoever_waits_and_leaves_no_thread(
    captioner: Captioner, pixels: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("out of memory")

    before = threading.active_count()
    for step in ("encode", "decode"):
        with monkeypatch.context() as patch:
            patch.setattr(captioner, step, fail)
            with pytest.raises(RuntimeError, match="out of memory"):
                caption(captioner, pixels, 16)
    assert threading.active_count() <= before  # those of earlier tests may have ended
