"""A caption belongs to its image, whatever the order, failures, duplicates, batches and shards."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.bulk.merge import merge
from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Progress, Summary, caption_folder
from tests.bulk import fakes


@pytest.fixture(autouse=True, scope="module")
def _colours() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioner.engine.Engine", fakes.ColourEngine)
        yield


def run(paths: list[Path], output: Path, **options: object) -> Summary:
    choices = FolderOptions(output=str(output), format="jsonl", workers=0, **options)  # type: ignore[arg-type]
    return caption_folder([str(path) for path in paths], choices, fakes.colour_model(), Progress())


# What each image of a folder is: a colour (the same one twice is a duplicate), or broken.
IMAGES = st.lists(st.one_of(st.integers(0, 5), st.just(None)), min_size=1, max_size=14)


@settings(max_examples=25, deadline=None)
@given(IMAGES, st.integers(1, 6), st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_caption_is_that_of_its_image(
    kinds: list[int | None], batch_size: int, shards: int, chance: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, expected = [], []
        for number, kind in enumerate(kinds):
            path = folder / "ab"[number % 2] / f"{number}.png"
            caption = None if kind is None else fakes.save_colour(path, kind)
            if kind is None:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"broken")
            paths.append(path)
            expected.append((str(path), caption))
        order = list(range(len(paths)))
        chance.shuffle(order)
        paths, expected = [paths[i] for i in order], [expected[i] for i in order]

        fakes.SEEN.clear()
        cut = chance.randint(0, len(paths))
        if cut:
            run(paths[:cut], folder / "all.jsonl", batch_size=batch_size)
        run(paths, folder / "all.jsonl", batch_size=batch_size)
        lines = (folder / "all.jsonl").read_text().splitlines()
        assert [(r["image"], r.get("caption")) for r in map(json.loads, lines)] == expected
        assert len(fakes.SEEN) == len(set(fakes.SEEN))  # equal bytes were looked at once, also after the break

        outputs = [folder / f"part-{number}.jsonl" for number in range(1, shards + 1)]
        for number, output in enumerate(outputs, 1):
            run(paths, output, batch_size=chance.randint(1, 6), shard=f"{number}/{shards}")
        chance.shuffle(outputs)
        assert merge([str(output) for output in outputs], str(folder / "merged.jsonl"))
        assert (folder / "merged.jsonl").read_bytes() == (folder / "all.jsonl").read_bytes()


def test_equal_files_are_looked_at_once_even_in_flight(tmp_path: Path) -> None:
    fakes.SEEN.clear()
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for number, path in enumerate(paths):
        fakes.save_colour(path, number // 10)
    summary = run(paths, tmp_path / "out.jsonl", batch_size=2)
    assert summary.captioned == 30
    assert len(fakes.SEEN) == 3
