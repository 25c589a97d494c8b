"""A record has the same bytes whatever stands beside its image, and however many threads compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captioner.bulk.merge import merge
from captioner.captioner import Captioner
from captioner.concepts import read_concepts
from captioner.datasets.codes import open_vectors
from captioner.vectors import caption_vectors
from captioner.weights import find_weights, read_header
from tests.bulk.folders import caption, make_folder
from tests.small_model import WORDS, save_with_graphs, small_checkpoint
from tests.vectors import fake_codes

SEARCHES: dict[str, dict[str, float]] = {
    "defaults": {},
    "several": {"num_captions": 4, "beam_size": 5},
    "consensus": {"consensus": True, "beam_size": 5},
    "greedy": {"beam_size": 1},
    "drawn": {"temperature": 1.0, "top_p": 0.9, "num_captions": 2},
}


MODELS = {"tags": ["tags"], "attention": ["attention"], "ensemble": ["tags", "attention"]}
CASES = [
    *[("tags", search) for search in SEARCHES],
    *[(models, search) for models in ("attention", "ensemble") for search in ("defaults", "drawn")],
]
Arguments = Mapping[str, float]


def save_small(path: Path, *, seed: int, attention: str) -> Path:
    """A model that is sure to see this and that in every image, so that most captions are searched for twice."""
    checkpoint = small_checkpoint(attention=attention)
    torch.manual_seed(seed)
    classifier = nn.Linear(checkpoint.network.config.channels, 1000)
    nameable = [n for concept in read_concepts() if set(concept.words) & set(WORDS.split()) for n in concept.classes]
    with torch.no_grad():
        checkpoint.network.decoder.output.bias.normal_()
        classifier.weight *= 30
        classifier.bias.fill_(-100)[nameable] = 0.0
    decoding = replace(checkpoint.decoding, tag_threshold=0.3)
    checkpoint = replace(checkpoint, classifier=classifier, decoding=decoding)
    return save_with_graphs(path, checkpoint)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: save_small(folder / f"{name}.safetensors", seed=seed, attention=attention)
        for seed, (name, attention) in enumerate({"tags": "none", "attention": "adaptive"}.items())
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images than are written of at once."""
    return make_folder(tmp_path_factory.mktemp("images"), 20, broken=(4,))


def run(model: Captioner, paths: Sequence[Path], output: Path, decoding: Arguments, **options: object) -> list[bytes]:
    """Lines of the output for some images."""
    settings = {"output": str(output), "format": "jsonl", **options}
    caption(model, *paths, decoding=dict(decoding), **settings)
    return output.read_bytes().splitlines()


@contextmanager
def loaded(files: Sequence[Path], runtime: str, threads: int) -> Iterator[Captioner]:
    """A model that computes in some threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", str(threads))
            model = Captioner.load(files, runtime=runtime, device="cpu")
        assert (model.model.runtime, model.model.threads) == (runtime, threads)
        yield model
    finally:
        torch.set_num_threads(before)


def check_same(model: Captioner, paths: list[Path], folder: Path, decoding: Arguments) -> list[bytes]:
    """Caption images in batches of several sizes, backwards and in shards; give the lines that all agree on."""
    folder.mkdir(exist_ok=True)
    lines = run(model, paths, folder / "16.jsonl", decoding, batch_size=16)
    assert len(lines) == len(paths)
    for size in (1, 3, 5):
        assert run(model, paths, folder / f"{size}.jsonl", decoding, batch_size=size) == lines, size
    backwards = run(model, paths[::-1], folder / "backwards.jsonl", decoding, batch_size=7)
    assert backwards[::-1] == lines
    shards = [folder / f"shard-{number}.jsonl" for number in (1, 2, 3)]
    for number, shard in enumerate(shards, 1):
        run(model, paths, shard, decoding, batch_size=4, shard=f"{number}/3")
    assert merge([str(shard) for shard in shards], str(folder / "merged.jsonl"))
    assert (folder / "merged.jsonl").read_bytes().splitlines() == lines
    return lines


@pytest.mark.parametrize(("models", "search"), CASES)
@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_records_are_the_same_bytes(
    runtime: str, models: str, search: str, files: dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    paths = sorted(folder.iterdir())
    given = [files[name] for name in MODELS[models]]
    with loaded(given, runtime, 1) as model:
        lines = check_same(model, paths, tmp_path, SEARCHES[search])
    assert len({line.split(b'"caption"')[-1] for line in lines}) > 5  # else equality would say little
    with loaded(given, runtime, 3) as model:
        assert run(model, paths, tmp_path / "threads.jsonl", SEARCHES[search], batch_size=5) == lines


@pytest.mark.parametrize("runtime", ["torch", *["onnx"] * (read_header(find_weights()).graphs is not None)])
def test_records_of_the_shipped_weights_are_the_same_bytes(runtime: str, images: list[Path], tmp_path: Path) -> None:
    paths = [*images, *crops(images[:4], 1, tmp_path)]
    with loaded([find_weights()], runtime, 1) as model:
        lines = check_same(model, paths, tmp_path, {})
        more = [run(model, paths, tmp_path / f"tags-{n}.jsonl", {"tag_threshold": 0.05}, batch_size=n) for n in (16, 3)]
    assert more[0] == more[1] != lines


def crops(images: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Parts of images."""
    made = []
    for path in images:
        with Image.open(path) as image:
            width, height = image.size
            for number in range(1, count + 1):
                part = image.crop((width * number // 9, 0, width, height - height * number // 7))
                made.append(folder / f"{path.stem}-{number}.png")
                part.save(made[-1])
    return made


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_captions_of_vectors_do_not_depend_on_batches(runtime: str, files: dict[str, Path], tmp_path: Path) -> None:
    with loaded([files["tags"]], runtime, 2) as model:
        np.save(tmp_path / "codes.npy", fake_codes(40, model.model.channels))
        vectors = [open_vectors(tmp_path / "codes.npy")]
        found = [list(caption_vectors(model, vectors, model.options, batch_size=size)) for size in (1, 7, 40)]
    assert found[0] == found[1] == found[2]
