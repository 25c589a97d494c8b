from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captioner import features
from captioner.datasets import DatasetOptions, Record
from captioner.errors import TrainingError
from captioner.features import FeatureStore
from captioner.images import Preprocessing
from captioner.model.encoder import Encoder
from captioner.runtime.torch import TorchEncoder
from captioner.training.data import (
    Batch,
    ImageInputs,
    TrainingData,
    epoch_batches,
    make_batch,
    prepare,
    read_splits,
    steps_of,
)
from captioner.training.encoding import Images, PixelStore, TunedEncoder
from captioner.training.options import TrainingOptions
from tests.training import shapes

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(32, mean=(0.5,) * 3, std=(0.5,) * 3)

Prepared = Callable[..., TrainingData]


def _encoder() -> Encoder:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 8, 4), nn.ReLU(), nn.Conv2d(4, 8, 7))
    return Encoder("toy", network.eval())


def _store(folder: Path, encoder: Encoder | None = None, dtype: torch.dtype = torch.float32) -> PixelStore:
    tuned = TunedEncoder(encoder or _encoder(), 1, recompute=False, device=CPU)
    return PixelStore(folder / "cache", tuned, PREPROCESSING, dtype)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Images of a table behind an encoder in training."""

    def run(table: Path, **changes: object) -> TrainingData:
        options = TrainingOptions("x.safetensors", min_count=1, finetune_from="2", **changes)  # type: ignore[arg-type]
        splits = read_splits(DatasetOptions(dataset=(f"table:{table}",)))
        return prepare(splits, options, _store(tmp_path), skip_missing=True)

    return run


def _inputs(data: TrainingData, augment: str = "crop", seed: int = 3) -> ImageInputs:
    options = TrainingOptions("x.safetensors", finetune_from="2", augment=augment, seed=seed)
    inputs = data.inputs(options, CPU)
    assert isinstance(inputs, ImageInputs)
    return inputs


def _images(step: list[Batch]) -> list[int]:
    return [image for batch in step for image in batch.images]


def _seen(data: TrainingData, inputs: ImageInputs, epoch: int, size: int, start: int = 0) -> dict[int, bytes]:
    """What the decoder sees of each image in an epoch, in batches of a size."""
    batches = epoch_batches(data.captions, size, seed=0, epoch=epoch, start=start)
    seen = {}
    for step in inputs.ahead(steps_of(batches, 2), _images, epoch):
        for batch in step:
            for image, regions in zip(batch.images, inputs.fetch(batch.images), strict=True):
                seen[image] = regions.detach().numpy().round(4).tobytes()
    return seen


def test_broken_and_equal_images_are_told_as_a_feature_store_tells_them(tmp_path: Path) -> None:
    shapes.write_table(tmp_path / "t", 8)
    paths = sorted((tmp_path / "t" / "images").iterdir())
    paths[1].write_bytes(paths[1].read_bytes()[:50])
    shutil.copy(paths[1], paths[4])
    shutil.copy(paths[2], paths[6])
    paths[3].unlink()
    records = [Record(path.name, path, ("a",), "train") for path in paths]
    stored = FeatureStore(
        tmp_path / "cache", TorchEncoder(_encoder(), PREPROCESSING, device=CPU, dtype=torch.float32), pooled=False
    )
    expected = stored.features_of(records)
    store = _store(tmp_path)
    assert store.shape == stored.shape
    found = store.features_of(records)
    assert dict(found.broken) == dict(expected.broken)
    assert list(found.digests) == list(expected.digests)
    assert [row >= 0 for row in found.rows] == [row >= 0 for row in expected.rows]
    assert [list(found.rows).index(row) for row in found.rows] == [
        list(expected.rows).index(row) for row in expected.rows
    ]


@pytest.mark.usefixtures("double_training")
def test_features_are_those_of_the_weights_at_that_moment(tmp_path: Path) -> None:
    shapes.write_table(tmp_path / "t", 40)
    paths = sorted((tmp_path / "t" / "images").iterdir())
    encoder = _encoder()
    store = _store(tmp_path, encoder)
    images = store.features_of([Record(path.name, path, ("a",), "val") for path in paths])
    wanted = [5, 0, *range(38)]

    def expected() -> torch.Tensor:
        pixels = np.stack([PREPROCESSING.load(paths[image]) for image in wanted])
        with torch.no_grad():
            return encoder(PREPROCESSING.normalise(torch.from_numpy(pixels)).double())

    before = images.fetch(wanted, CPU)
    torch.testing.assert_close(before, expected())
    with torch.no_grad():
        encoder.backbone[2].weight.mul_(2)
    torch.testing.assert_close(images.fetch(wanted, CPU), expected())
    assert not before.requires_grad
    assert not any((tmp_path / "cache").rglob("features.bin"))  # nothing is kept that would be out of date


def test_another_encoder_or_other_weights_have_another_name(tmp_path: Path) -> None:
    name = _store(tmp_path).name
    assert _store(tmp_path).name == name
    other = _encoder()
    other.backbone[0].bias.data[0] += 1
    assert _store(tmp_path, other).name != name


def test_mixed_precision_is_used_outside_the_trainer_too(tmp_path: Path) -> None:
    shapes.write_table(tmp_path / "t", 2)
    records = [Record(path.name, path, ("a",), "val") for path in (tmp_path / "t" / "images").iterdir()]
    exact = _store(tmp_path).features_of(records).fetch([0, 1], CPU)
    rounded = _store(tmp_path, dtype=torch.bfloat16).features_of(records).fetch([0, 1], CPU)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)


def test_what_is_seen_of_a_image_depends_on_seed_epoch_and_image_alone(table: Path, prepared: Prepared) -> None:
    data = prepared(table)
    whole = _seen(data, _inputs(data), epoch=1, size=4)
    assert len(whole) == 24
    # Other batches, another run, and a run that was resumed in the middle.
    assert _seen(data, _inputs(data), epoch=1, size=7) == whole
    rest = _seen(data, _inputs(data), epoch=1, size=4, start=3)
    assert len(rest) == 12
    assert rest.items() <= whole.items()
    for other in (
        _seen(data, _inputs(data), epoch=2, size=4),
        _seen(data, _inputs(data, seed=4), epoch=1, size=4),
    ):
        assert sum(other[image] == whole[image] for image in whole) == 0


@pytest.mark.usefixtures("double_training")
def test_gradients_reach_the_encoder_and_images_without_change_are_as_in_validation(
    table: Path, prepared: Prepared
) -> None:
    data = prepared(table)
    inputs = _inputs(data, augment="none")
    batches = epoch_batches(data.captions, 4, seed=0, epoch=0)
    steps = inputs.ahead(steps_of(batches, 1), _images, 0)
    step = next(steps)
    regions = inputs.fetch(step[0].images)
    assert isinstance(data.features, Images)
    as_in_validation = data.features.fetch([data.images[image] for image in step[0].images], CPU)
    torch.testing.assert_close(regions, as_in_validation)
    regions.sum().backward()
    lower, _, upper = data.features.store.encoder.encoder.backbone
    assert lower.weight.grad is None
    assert upper.weight.grad.any()


def test_images_whose_captions_tell_of_sides_are_never_mirrored(tmp_path: Path, prepared: Prepared) -> None:
    table = shapes.write_table(tmp_path / "t", 8, 2)
    text = table.read_text()
    table.write_text(text.replace("A red square on a white ground", "A red square left of nothing", 1))
    data = prepared(tmp_path / "t")
    inputs = _inputs(data, augment="flip")
    red = data.vocabulary.encode(["left"])[0]
    told = [any(red in ids for ids in captions) for captions in data.captions]
    assert sum(told) == 1
    plain = _seen(data, _inputs(data, augment="none"), epoch=0, size=4)
    changed = dict.fromkeys(plain, 0)
    for epoch in range(8):
        for image, seen in _seen(data, inputs, epoch, 4).items():
            changed[image] += seen != plain[image]
    assert [changed[image] > 0 for image in range(len(told))] == [not one for one in told]


def test_images_of_the_next_step_are_read_during_a_step(
    table: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(table)
    inputs = _inputs(data)
    read: set[int] = set()
    enough = threading.Event()
    pixels = ImageInputs._pixels

    def noting(self: ImageInputs, image: int, epoch: int) -> object:
        result = pixels(self, image, epoch)
        read.add(image)
        if len(read) >= 16:
            enough.set()
        return result

    monkeypatch.setattr(ImageInputs, "_pixels", noting)
    steps = inputs.ahead(steps_of(epoch_batches(data.captions, 4, seed=0, epoch=0), 2), _images, 0)
    next(steps)
    assert enough.wait(60)  # without a single fetch: this step's eight images and the next one's
    assert len(read) == 16  # and no more, however long the step takes


def test_a_image_may_come_twice_in_a_step_and_again_in_the_next(table: Path, prepared: Prepared) -> None:
    data = prepared(table)
    inputs = _inputs(data)
    batches = [make_batch(images, data.captions) for images in ([0, 1, 0], [1, 0, 2], [2, 2, 1])]
    seen: dict[int, list[Tensor]] = {0: [], 1: [], 2: []}
    for step in inputs.ahead(([batch] for batch in batches), _images, 0):
        for image, regions in zip(_images(step), inputs.fetch(_images(step)).detach(), strict=True):
            seen[image].append(regions)
    assert [len(found) for found in seen.values()] == [3, 3, 3]
    assert all(torch.equal(regions, found[0]) for found in seen.values() for regions in found)


def test_breaking_off_does_not_read_on(table: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(table)
    inputs = _inputs(data)
    gate, begun = threading.Event(), []

    def slow(_self: ImageInputs, image: int, _epoch: int) -> None:
        begun.append(image)
        gate.wait(60)

    monkeypatch.setattr(features, "READERS", 2)
    monkeypatch.setattr(ImageInputs, "_pixels", slow)
    steps = inputs.ahead(steps_of(epoch_batches(data.captions, 4, seed=0, epoch=0), 2), _images, 0)
    next(steps)
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    assert len(begun) <= 4


def test_a_image_that_vanishes_during_training_is_one_line(table: Path, tmp_path: Path, prepared: Prepared) -> None:
    shutil.copytree(table, tmp_path / "t")
    data = prepared(tmp_path / "t")
    inputs = _inputs(data)
    assert isinstance(data.features, Images)
    path = data.features.paths[data.images[3]]
    path.unlink()
    with pytest.raises(TrainingError, match=rf"{path.name}: no such file; .* go on with `resume`"):
        _seen(data, inputs, epoch=0, size=4)
    with pytest.raises(TrainingError, match="no such file"):
        data.features.fetch([data.images[3]], CPU)
