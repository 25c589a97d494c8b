"""What a cluster does with a part, done here without a cluster."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captioner import __version__
from captioner.bulk.options import FolderOptions
from captioner.bulk.pipeline import caption_paths
from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.cluster import steps
from captioner.cluster.steps import PartFiles
from captioner.errors import CheckpointError
from captioner.images.reading import ImageReader
from captioner.records import Record
from tests.bulk.folders import make_folder, model_of
from tests.test_confidence import CALIBRATION

KNOWN = Record("known", (Caption("Known before.", -1.0),))


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # the steps go to their folder, and the test comes back


@pytest.fixture
def table(captioner: Captioner, tmp_path: Path) -> Any:
    """Five images, of which the second is broken and the fourth has its caption."""
    folder = make_folder(tmp_path / "pictures", 5, broken=(1,))
    items = [path.relative_to(tmp_path) for path in sorted(folder.iterdir())]
    table = steps.table_of(3, items, [None, None, None, KNOWN, None])
    return steps.read(table, ImageReader(captioner.preprocessing, 10_000), str(tmp_path))


def options(tmp_path: Path, **more: Any) -> FolderOptions:
    return FolderOptions(engine="ray", output=str(tmp_path / "out"), format="jsonl", batch_size=2, **more)


def run(table: Any, captions: steps.Captions, files: PartFiles) -> steps.Done:
    done: steps.Done = pickle.loads(steps.write(captions(table), files)["done"][0].as_py())
    return done


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_steps_make_what_one_process_makes(
    captioner: Captioner, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(captioner, "calibration", CALIBRATION)
    files = PartFiles(tmp_path / "out", kind, several=False)
    files.begin({}, overwrite=False)
    captions = steps.Captions(model_of(captioner), options(tmp_path, prepend="photo of"), __version__, str(tmp_path))
    done = run(table, captions, files)
    expected = list(caption_paths(captioner, ["pictures"], captioner.options))
    assert done == steps.Done(3, (str(expected[1].error),))
    images = [str(result.image) for result in expected]
    entries = files.read(3, [*images[:3], "known", images[4]])
    assert entries is not None
    assert entries[3] == KNOWN
    for entry, result in zip(entries, expected, strict=True):
        if entry is not entries[3]:
            assert entry.error == result.error
            assert [line.text for line in entry.captions] == [f"photo of {c.text}" for c in result.captions]
            assert [line.log_prob for line in entry.captions] == [c.log_prob for c in result.captions]
            assert [line.confidence for line in entry.captions] == [c.confidence for c in result.captions]
    assert entries[0].captions[0].confidence is not None


def test_what_is_wrong_on_a_machine_stops_the_run(captioner: Captioner, table: Any, tmp_path: Path) -> None:
    files = PartFiles(tmp_path / "out", "jsonl", several=False)
    files.begin({}, overwrite=False)
    model = model_of(captioner)

    def absent() -> Captioner:
        raise CheckpointError("mine.safetensors: no such checkpoint")

    for captions, reason in (
        (
            steps.Captions(model, options(tmp_path), "0.0", str(tmp_path)),
            "this is captioner 0.0, but a machine",
        ),
        (
            steps.Captions(replace(model, load=absent), options(tmp_path), __version__, str(tmp_path)),
            "no such checkp",
        ),
        (
            steps.Captions(replace(model, settings={"weights": "x"}), options(tmp_path), __version__, str(tmp_path)),
            "has other weights",
        ),
    ):
        done = run(table, captions, files)
        assert reason in str(done.stopped)
        assert not list((tmp_path / "out").glob("part*"))
    files.path(3).mkdir()
    done = run(table, steps.Captions(model, options(tmp_path), __version__, str(tmp_path)), files)
    assert "Is a directory; what is written is whole, and the same command goes on" in str(done.stopped)


def test_a_block_that_is_not_a_whole_part_is_never_written(captioner: Captioner, table: Any, tmp_path: Path) -> None:
    files = PartFiles(tmp_path / "out", "jsonl", several=False)
    captions = steps.Captions(model_of(captioner), options(tmp_path), __version__, str(tmp_path))
    with pytest.raises(AssertionError, match="Ray has cut a part into pieces"):
        steps.write(captions(table).slice(0, 2), files)
