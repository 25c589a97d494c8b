from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from captioner.datasets import DatasetOptions
from captioner.errors import DatasetError, OptionError
from captioner.features import FeatureStore
from captioner.images import Preprocessing
from captioner.model.encoder import Encoder
from captioner.runtime.torch import TorchEncoder
from captioner.training.data import MixtureWeight, TrainingData, prepare, read_splits
from captioner.training.encoding import fetch
from captioner.training.options import TrainingOptions
from tests.training import shapes

Tiny = Callable[..., TrainingOptions]


@pytest.fixture
def prepared(tmp_path: Path, tiny: Tiny) -> Callable[..., TrainingData]:
    """Prepares data sets with an encoder of one layer."""

    def run(*entries: str, options: TrainingOptions | None = None, **changes: object) -> TrainingData:
        torch.manual_seed(0)
        preprocessing = Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
        encoder = Encoder("toy", nn.Conv2d(3, 8, 32).eval())
        source = TorchEncoder(encoder, preprocessing, device=torch.device("cpu"), dtype=torch.float32)
        store = FeatureStore(tmp_path / "cache", source, pooled=True)
        datasets = DatasetOptions(dataset=entries, **changes)  # type: ignore[arg-type]
        splits = read_splits(datasets)
        return prepare(splits, options or tiny(), store, skip_missing=datasets.skip_missing)

    return run


def test_several_data_sets_are_joined_to_train_and_kept_apart_to_validate(
    tmp_path: Path, prepared: Callable[..., TrainingData]
) -> None:
    shapes.write_flickr8k(tmp_path / "flickr", 8, 4)
    shapes.write_karpathy(tmp_path / "karpathy", 6, 3, first_seed=20)
    shapes.write_coco(tmp_path / "coco", 5, 2, first_seed=40)
    shapes.write_table(tmp_path / "one", 4, 2, first_seed=60)
    shapes.write_table(tmp_path / "two", 9, first_seed=80, suffix=".jsonl")
    entries = ["flickr8k:flickr", "karpathy:karpathy", "coco:coco", "table:one", "table:two"]
    data = prepared(*(entry.replace(":", f":{tmp_path}/") for entry in entries), holdout=0.2)
    assert [part.label for part in data.validation] == ["flickr8k", "karpathy", "coco", "table", "table-2"]
    assert [len(part.records) for part in data.validation] == [4, 3, 2, 2, 2]
    assert len(data.images) == len(data.captions) == 8 + 6 + 5 + 4 + 7
    assert data.summary["training captions"] == 60
    assert data.summary["datasets"] == [
        "flickr8k: 8 photos",
        "karpathy: 6 photos",
        "coco: 5 photos",
        "table: 4 photos",
        "table-2: 7 photos",
    ]
    for part in data.validation:
        for record, image in zip(part.records, part.images, strict=True):
            colour = record.path.name.split("-")[0]
            assert all(colour in caption for caption in record.captions)
            assert part.features.rows[image] >= 0


def test_proportions_are_of_the_images_that_are_left(
    tmp_path: Path, tiny: Tiny, prepared: Callable[..., TrainingData]
) -> None:
    shapes.write_flickr8k(tmp_path / "flickr", 8, 4)
    shapes.write_table(tmp_path / "table", 6, 2, first_seed=60)
    entries = (f"flickr8k:{tmp_path}/flickr", f"table:{tmp_path}/table")
    images = {int(path.stem.split("-")[-1]): path for path in tmp_path.glob("*/images/*")}
    shutil.copy(images[66], images[0])  # one to validate on, two to train on
    shutil.copy(images[66], images[61])
    data = prepared(*entries, options=tiny(proportions="1:3"))
    assert data.mixture_weights == [MixtureWeight(7, 3), MixtureWeight(5, 9)]
    assert prepared(*entries).mixture_weights is None
    with pytest.raises(OptionError, match="`proportions` has 3 numbers for 2 data sets"):
        prepared(*entries, options=tiny(proportions="1:1:1"))
    for seed in range(60, 66):
        shutil.copy(images[66], images[seed])
    with pytest.raises(DatasetError, match="table: no training image is left, so `proportions`"):
        prepared(*entries, options=tiny(proportions="1:3"))


def test_features_belong_to_the_captions_of_the_same_image(
    tmp_path: Path, prepared: Callable[..., TrainingData]
) -> None:
    shapes.write_table(tmp_path / "t", 8, 4)
    data = prepared(f"table:{tmp_path}/t")
    again = prepared(f"table:{tmp_path}/t")
    device = torch.device("cpu")
    red = data.vocabulary.encode(["red"])[0]
    features = fetch(data.features, data.images, device).squeeze(1)
    is_red = torch.tensor([red in captions[0] for captions in data.captions])
    assert is_red.sum() == 2
    # Red images look alike even to one random layer.
    distances = torch.cdist(features[is_red], features)
    assert distances[:, is_red].mean() < distances[:, ~is_red].mean()
    assert torch.equal(features, fetch(again.features, again.images, device).squeeze(1))


def test_a_image_to_validate_on_is_never_trained_on(tmp_path: Path, prepared: Callable[..., TrainingData]) -> None:
    shapes.write_table(tmp_path / "t", 8, 4)
    images = tmp_path / "t" / "images"
    val = sorted(path.name for path in images.iterdir() if int(path.stem.split("-")[-1]) >= 8)
    train = sorted(path.name for path in images.iterdir() if int(path.stem.split("-")[-1]) < 8)
    shutil.copy(images / val[0], images / train[0])
    shutil.copy(images / val[0], images / train[5])
    data = prepared(f"table:{tmp_path}/t")
    assert len(data.images) == 6
    assert data.summary["training photos"] == 6
    assert data.summary["training photos left out as validation photos"] == 2
    held_out = {data.features.digests[image] for image in data.validation[0].images}
    assert not held_out & {data.features.digests[image] for image in data.images}


def test_nothing_left_to_train_on_is_one_line(tmp_path: Path, prepared: Callable[..., TrainingData]) -> None:
    shapes.write_table(tmp_path / "t", 4, 4)
    images = list((tmp_path / "t" / "images").iterdir())
    for image in images[1:]:
        shutil.copy(images[0], image)
    with pytest.raises(DatasetError, match="no training image is left"):
        prepared(f"table:{tmp_path}/t")


def test_absent_images_stop_the_run_or_are_left_out_and_named(
    tmp_path: Path, prepared: Callable[..., TrainingData], capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.write_table(tmp_path / "t", 8, 4)
    for name in ("red-square-0", "red-circle-1", "red-square-8"):
        (tmp_path / "t" / "images" / f"{name}.png").unlink()
    with pytest.raises(DatasetError, match=r"2 of 8 images are absent .*red-square-0\.png.*`skip_missing`"):
        prepared(f"table:{tmp_path}/t")
    data = prepared(f"table:{tmp_path}/t", skip_missing=True)
    said = capsys.readouterr().err
    assert "table: left out 2 absent images: red-square-0.png, red-circle-1.png\n" in said
    assert "table: left out 1 absent images: red-square-8.png\n" in said
    assert (len(data.images), len(data.validation[0].records)) == (6, 3)


def test_broken_images_stop_the_run_or_are_left_out_and_named(
    tmp_path: Path, prepared: Callable[..., TrainingData], capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.write_table(tmp_path / "t", 8, 4)
    images = tmp_path / "t" / "images"
    for name in ("red-square-0", "red-circle-1", "green-square-2", "green-circle-3", "red-square-8"):
        (images / f"{name}.png").write_bytes((images / f"{name}.png").read_bytes()[:50])
    with pytest.raises(DatasetError, match=r"5 of 12 images are broken: .*red-square-0.*`skip_missing`") as raised:
        prepared(f"table:{tmp_path}/t")
    assert "\n" not in str(raised.value)
    data = prepared(f"table:{tmp_path}/t", skip_missing=True)
    said = capsys.readouterr().err
    assert "left out 5 broken images: " in said
    assert "red-circle-1.png" in said
    assert said.rstrip().endswith("...")
    assert (len(data.images), len(data.validation[0].records)) == (4, 3)
    assert data.summary["broken photos"] == 5
    assert all(
        record.path.name != "red-square-8.png" and data.features.rows[image] >= 0
        for record, image in zip(data.validation[0].records, data.validation[0].images, strict=True)
    )


def test_a_data_set_whose_validation_images_are_all_broken_is_one_line(
    tmp_path: Path, prepared: Callable[..., TrainingData]
) -> None:
    shapes.write_table(tmp_path / "t", 4, 2)
    for image in (tmp_path / "t" / "images").iterdir():
        if int(image.stem.split("-")[-1]) >= 4:
            image.write_text("broken")
    with pytest.raises(DatasetError, match="table: not one validation image can be read"):
        prepared(f"table:{tmp_path}/t", skip_missing=True)


def test_images_and_captions_that_do_not_meet_are_one_line(
    tmp_path: Path, prepared: Callable[..., TrainingData]
) -> None:
    shapes.write_table(tmp_path / "t", 4, 2)
    (tmp_path / "t" / "images").rename(tmp_path / "moved")
    for skip in (False, True):
        with pytest.raises(DatasetError, match="not one of the 4 images is in"):
            prepared(f"table:{tmp_path}/t", skip_missing=skip)


def test_an_empty_data_set_is_one_line(tmp_path: Path, prepared: Callable[..., TrainingData]) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\n")
    with pytest.raises(DatasetError, match="no captioned image in the split 'train'"):
        prepared(f"table:{tmp_path}")


def test_a_minimum_count_that_no_word_reaches_is_one_line(
    tmp_path: Path, prepared: Callable[..., TrainingData], tiny: Tiny
) -> None:
    shapes.write_table(tmp_path / "t", 4, 2)
    with pytest.raises(DatasetError, match=r"no word occurs 1000 times .*`min_count`"):
        prepared(f"table:{tmp_path}/t", options=tiny(min_count=1000))


def test_one_image_cannot_be_judged_by_cider(tmp_path: Path, prepared: Callable[..., TrainingData], tiny: Tiny) -> None:
    shapes.write_table(tmp_path / "t", 4, 1)
    with pytest.raises(DatasetError, match=r"CIDEr of a single image is always 0.*`select_by` BLEU-4"):
        prepared(f"table:{tmp_path}/t", options=tiny(select_by="CIDEr"))
    data = prepared(f"table:{tmp_path}/t", options=tiny(select_by="BLEU-4"))
    assert len(data.validation[0].records) == 1
    assert data.select_by == "BLEU-4"
    assert "best epoch" not in data.summary


@pytest.mark.parametrize("kind", ["flickr8k", "karpathy", "coco", "table"])
def test_where_one_image_is_held_out_bleu_chooses_by_itself(
    tmp_path: Path, prepared: Callable[..., TrainingData], kind: str
) -> None:
    getattr(shapes, f"write_{kind}")(tmp_path / "data", 4, 1)
    data = prepared(f"{kind}:{tmp_path}/data")
    assert data.select_by == "BLEU-4"
    assert str(data.summary["best epoch"]).startswith("chosen by BLEU-4: there is one validation image")


@pytest.mark.parametrize(
    ("images", "held", "chooses"),
    [(2, 1, "BLEU-4"), (3, 1, "BLEU-4"), (5, 2, "CIDEr"), (24, 2, "CIDEr"), (100, 5, "CIDEr")],
)
def test_small_tables_without_splits_can_be_trained_on(
    tmp_path: Path, prepared: Callable[..., TrainingData], images: int, held: int, chooses: str
) -> None:
    shapes.write_table(tmp_path / "t", images)
    data = prepared(f"table:{tmp_path}/t")
    assert (len(data.images), len(data.validation[0].records)) == (images - held, held)
    assert data.select_by == chooses


def test_a_table_of_one_image_is_one_line(tmp_path: Path, prepared: Callable[..., TrainingData]) -> None:
    shapes.write_table(tmp_path / "t", 1)
    with pytest.raises(DatasetError, match=r"in the split 'val'; it needs at least two images, and `holdout`"):
        prepared(f"table:{tmp_path}/t")


def test_captions_that_are_all_the_same_cannot_be_judged_by_cider(
    tmp_path: Path, prepared: Callable[..., TrainingData], tiny: Tiny
) -> None:
    table = shapes.write_table(tmp_path / "t", 6, 3)
    _, *rows = table.read_text().splitlines()
    cells = [row.split(",") for row in rows]
    same = [f"{name},An image.,{split}\n" for name, _, split in cells]
    table.write_text("image,caption,split\n" + "".join(same))
    data = prepared(f"table:{tmp_path}/t")
    assert data.select_by == "BLEU-4"
    assert "all validation images have the same captions" in str(data.summary["best epoch"])
    with pytest.raises(DatasetError, match=r"the same captions.*`select_by` BLEU-4"):
        prepared(f"table:{tmp_path}/t", options=tiny(select_by="CIDEr"))


def test_one_data_set_with_two_images_to_validate_on_is_enough_for_cider(
    tmp_path: Path, prepared: Callable[..., TrainingData]
) -> None:
    shapes.write_table(tmp_path / "one", 4, 1)
    shapes.write_table(tmp_path / "three", 3, first_seed=20)
    shapes.write_flickr8k(tmp_path / "two", 4, 2, first_seed=40)
    single = [f"table:{tmp_path}/one", f"table:{tmp_path}/three"]
    assert prepared(*single).select_by == "BLEU-4"
    assert prepared(*single, f"flickr8k:{tmp_path}/two").select_by == "CIDEr"


@pytest.mark.parametrize("change", ["caption", "image", "swap", "order"])
def test_other_data_have_another_identity(tmp_path: Path, prepared: Callable[..., TrainingData], change: str) -> None:
    table = shapes.write_table(tmp_path / "t", 4, 2)
    images = tmp_path / "t" / "images"
    before = prepared(f"table:{tmp_path}/t").identity
    assert prepared(f"table:{tmp_path}/t").identity == before
    match change:
        case "caption":
            table.write_text(table.read_text().replace("A red square", "One red square", 1))
        case "image":
            shapes.draw(images / "red-square-0.png", "black", "circle", 99)
        case "swap":
            (images / "red-square-0.png").rename(images / "spare.png")
            (images / "red-circle-1.png").rename(images / "red-square-0.png")
            (images / "spare.png").rename(images / "red-circle-1.png")
        case "order":
            header, *rows = table.read_text().splitlines(keepends=True)
            table.write_text("".join([header, *reversed(rows)]))
    assert prepared(f"table:{tmp_path}/t").identity != before
