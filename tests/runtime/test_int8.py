"""Whole numbers of 8 bits: kept beside the float graphs, used when asked for, refused when stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import captioner
from captioner.checkpoint import load_checkpoint
from captioner.cli import main
from captioner.errors import CaptionerError, CheckpointError, OptionError
from captioner.features import FeatureStore
from captioner.metadata import write_metadata
from captioner.runtime.graph import read_graphs
from captioner.saving import save_checkpoint
from captioner.weights import read_header, read_tensors
from tests.small_model import small_checkpoint

pytest.importorskip("onnxscript")

IMAGES = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint in float32, and the same quantised."""
    folder = tmp_path_factory.mktemp("int8")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(IMAGES):  # smooth, as noise would be like no image
        small = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"images/{number}.png")
    checkpoint = small_checkpoint(attention="adaptive")
    save_checkpoint(folder / "plain.safetensors", checkpoint)
    plain = ["export", str(folder / "plain.safetensors"), "--output", str(folder / "float.safetensors")]
    assert main(plain) == 0
    target = folder / "int8.safetensors"
    flags = ["--output", str(target), "--int8", "--calibrate", str(folder / "images")]
    assert main(["export", str(folder / "float.safetensors"), *flags]) == 0
    return folder / "float.safetensors", target


def pixels(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    images = [Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)) for _ in range(count)]
    return [np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)) for image in images]


def test_float_results_stay_as_they_are(files: tuple[Path, Path]) -> None:
    before, after = (captioner.load(file, runtime="onnx") for file in files)
    assert after.precision == "fp32"
    assert np.array_equal(before.encode(pixels(2)), after.encode(pixels(2)))
    found = [model.decode(model.encode(pixels(2))) for model in (before, after)]
    assert found[0] == found[1]
    kept = read_header(files[0]).shapes
    for key, value in read_tensors(files[1], kept).items():
        assert np.array_equal(value, read_tensors(files[0], [key])[key])


def test_whole_numbers_compute_nearly_the_same(files: tuple[Path, Path]) -> None:
    model, exact = captioner.load(files[1], precision="int8"), captioner.load(files[1], runtime="onnx")
    assert (model.precision, model.model.runtime) == ("int8", "onnx")
    images = pixels(6)
    ours, theirs = model.encode(images), exact.encode(images)
    cosine = (ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum())
    assert 0.98 < cosine < 1
    words = np.zeros((6, 1), np.int64)
    found, wanted = (each.step(words, each.initial_state(theirs))[0] for each in (model.model, exact.model))
    assert not np.array_equal(found, wanted)
    assert abs(np.exp(found) - np.exp(wanted)).max() < 0.02


def test_an_image_does_not_depend_on_those_beside_it(files: tuple[Path, Path]) -> None:
    model = captioner.load(files[1], precision="int8")
    regions = model.encode(pixels(4))
    assert np.array_equal(model.encode(pixels(4)[2:3]), regions[2:3])
    alone = [model.decode(regions[place : place + 1])[0] for place in range(4)]
    assert model.decode(regions) == alone


def test_the_graphs_use_whole_numbers(files: tuple[Path, Path]) -> None:
    header = read_header(files[1])
    graphs = read_graphs(header.int8 or "", header.config, header.shapes)
    for name in ("encoder", "step"):
        assert any(node.operator == "QuantizeLinear" for node in graphs[name].nodes)
    assert "I8" in header.dtypes.values()


def test_without_them_they_are_refused_in_one_line(files: tuple[Path, Path]) -> None:
    with pytest.raises(OptionError, match=r"captioner export FILE --int8 --calibrate DIR") as caught:
        captioner.load(files[0], precision="int8")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("beside", [{"runtime": "torch"}, {"device": "cuda"}, {"encoder": "resnet18"}])
def test_what_they_do_not_go_with_is_refused(files: tuple[Path, Path], beside: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="`precision` int8"):
        captioner.Captioner.load(files[1], precision="int8", **beside)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="`precision` int8"):
        captioner.Captioner(small_checkpoint(), precision="int8")


def test_those_of_other_weights_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    content = bytearray(files[1].read_bytes())
    content[-1] ^= 1
    (tmp_path / "stale.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not those that were quantised"):
        captioner.load(tmp_path / "stale.safetensors", precision="int8")


def test_other_metadata_keep_them_and_a_saved_network_loses_them(files: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copy(files[1], tmp_path / "x.safetensors")
    write_metadata(tmp_path / "x.safetensors", tmp_path / "x.safetensors", {"training": json.dumps({"lr": 1})})
    captioner.load(tmp_path / "x.safetensors", precision="int8")
    save_checkpoint(tmp_path / "y.safetensors", load_checkpoint(tmp_path / "x.safetensors"))
    assert read_header(tmp_path / "y.safetensors").int8 is None
    assert not any(key.startswith("int8.") for key in read_header(tmp_path / "y.safetensors").shapes)


def test_their_features_are_kept_apart(files: tuple[Path, Path], tmp_path: Path) -> None:
    models = captioner.load(files[1], runtime="onnx").model, captioner.load(files[1], precision="int8").model
    assert len({FeatureStore(tmp_path, model, pooled=True).name for model in models}) == 2


def test_quantising_twice_gives_the_same_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    flags = ["--output", str(target), "--int8", "--calibrate", str(files[0].parent / "images")]
    assert main(["export", str(files[1]), *flags]) == 0
    assert read_header(target).int8_of == read_header(files[1]).int8_of


def test_a_folder_without_images_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(["export", str(files[0]), "--int8", "--calibrate", str(tmp_path)]) == 2


@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear"])
@pytest.mark.parametrize("value", [None, 1.5, "x", [0], {"a": 1}, 1 << 70, True])
def test_new_operators_take_whole_numbers_only(files: tuple[Path, Path], operator: str, value: object) -> None:
    header = read_header(files[1])
    told = json.loads(header.int8 or "")
    node = next(node for node in told["graphs"]["encoder"]["nodes"] if node[0] == operator)
    node[3]["axis"] = value
    with pytest.raises(CaptionerError, match="graphs are damaged"):
        read_graphs(json.dumps(told), header.config, header.shapes)


@pytest.mark.parametrize("search", [[], ["--temperature", "1", "--num-captions", "2"]])
def test_a_folder_has_the_same_bytes_however_the_work_is_cut(
    search: list[str], files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = files[1].parent / "images"

    def written(name: str, *flags: str, paths: tuple[Path, ...] = (images,), threads: int = 1) -> bytes:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        output = tmp_path / f"{name}.jsonl"
        asked = ["caption", *map(str, paths), "--weights", str(files[1]), "--precision", "int8", "--quiet", *search]
        assert main([*asked, "--output", str(output), *flags]) == 0
        return output.read_bytes()

    whole = written("whole")
    assert len({json.loads(line)["log_prob"] for line in whole.splitlines()}) > IMAGES // 2
    assert whole != written("float", "--precision", "fp32")
    assert written("ones", "--batch-size", "1", "--workers", "0") == whole
    assert written("threads", "--batch-size", "5", threads=3) == whole
    written("resumed", paths=(images / "0.png", images / "1.png"))
    assert written("resumed", "--batch-size", "7") == whole
    shards = [tmp_path / f"shard{number}.jsonl" for number in (1, 2)]
    for number, shard in enumerate(shards, 1):
        written(shard.stem, "--shard", f"{number}/2")
    assert main(["merge", *map(str, shards), "--output", str(tmp_path / "merged.jsonl")]) == 0
    assert (tmp_path / "merged.jsonl").read_bytes() == whole
