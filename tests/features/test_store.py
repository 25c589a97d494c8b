from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from captioner import features
from captioner.errors import CacheError
from captioner.features import FeatureStore
from captioner.images import Pixels, Preprocessing
from captioner.model.encoder import Encoder
from captioner.runtime.model import Floats
from captioner.runtime.torch import TorchEncoder
from tests.training import processes, shapes

CPU = torch.device("cpu")
CHANNELS, REGIONS = 6, 4


def _preprocessing(**changes: object) -> Preprocessing:
    values: dict[str, object] = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} | changes
    return Preprocessing(**values)  # type: ignore[arg-type]


def _encoder(seed: int = 0, *, norm: bool = True) -> Encoder:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, CHANNELS, 16, 16), nn.BatchNorm2d(CHANNELS) if norm else nn.Identity()]
    return Encoder("toy", nn.Sequential(*layers).eval())


def _store(
    folder: Path,
    encoder: Encoder | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    pooled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> FeatureStore:
    source = TorchEncoder(encoder or _encoder(), preprocessing or _preprocessing(), device=CPU, dtype=dtype)
    return FeatureStore(folder, source, pooled=pooled)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    drawn = shapes.drawings(7)
    for name, colour, shape, seed in drawn:
        shapes.draw(tmp_path / "photos" / name, colour, shape, seed)
    return [tmp_path / "photos" / name for name, *_ in drawn]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the encoder was given."""
    counts: list[int] = []
    encode = FeatureStore._encode

    def counting(store: FeatureStore, pixels: Sequence[Pixels]) -> object:
        counts.append(len(pixels))
        return encode(store, pixels)

    monkeypatch.setattr(FeatureStore, "_encode", counting)
    return counts


def _expected(paths: Sequence[Path], size: int = 32) -> Floats:
    preprocessing, encoder = _preprocessing(size=size), _encoder()
    pixels = torch.from_numpy(np.stack([preprocessing.load(path) for path in paths]))
    with torch.inference_mode():
        regions: Floats = encoder(preprocessing.normalise(pixels)).numpy()
    return regions


def test_features_are_those_of_the_encoder_in_the_order_asked_for(tmp_path: Path, images: list[Path]) -> None:
    found = _store(tmp_path).collect(images).fetch([5, 0, 5])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _expected([images[5], images[0], images[5]]), rtol=2e-3, atol=2e-3)


def test_pooled_features_are_the_mean_over_regions(tmp_path: Path, images: list[Path]) -> None:
    found = _store(tmp_path, pooled=True).collect(images).fetch(range(7))
    assert found.shape == (7, 1, CHANNELS)
    np.testing.assert_allclose(found, _expected(images).mean(1, keepdims=True), rtol=2e-3, atol=2e-3)


def test_features_stay_on_disk(tmp_path: Path, images: list[Path]) -> None:
    array = _store(tmp_path).collect(images).array
    assert isinstance(array, np.memmap)
    assert array.shape == (7, REGIONS, CHANNELS)
    assert array.dtype == np.float16


def test_a_image_is_encoded_once_whatever_its_name(tmp_path: Path, images: list[Path], encoded: list[int]) -> None:
    copy = tmp_path / "elsewhere.png"
    shutil.copy(images[2], copy)
    rows = _store(tmp_path).collect([*images, copy]).rows
    assert encoded == [7]
    assert rows[2] == rows[7]
    assert sorted(set(rows.tolist())) == list(range(7))
    again = _store(tmp_path).collect([copy, *images[:2]])
    assert encoded == [7]
    np.testing.assert_allclose(again.fetch([0, 1]), _expected([copy, images[0]]), rtol=2e-3, atol=2e-3)


def test_other_contents_under_the_same_name_are_encoded_again(
    tmp_path: Path, images: list[Path], encoded: list[int]
) -> None:
    _store(tmp_path).collect(images)
    shutil.copy(images[1], images[0])
    shapes.draw(images[3], "black", "circle", 1)
    found = _store(tmp_path).collect(images)
    assert encoded == [7, 1]
    np.testing.assert_allclose(found.fetch(range(7)), _expected(images), rtol=2e-3, atol=2e-3)


def test_other_weights_preprocessing_pooling_or_precision_have_a_store_of_their_own(tmp_path: Path) -> None:
    stores = [
        _store(tmp_path),
        _store(tmp_path, _encoder(1)),
        _store(tmp_path, preprocessing=_preprocessing(size=48)),
        _store(tmp_path, preprocessing=_preprocessing(resize="crop")),
        _store(tmp_path, pooled=True),
        _store(tmp_path, dtype=torch.bfloat16),
    ]
    assert len({store.folder for store in stores}) == len(stores)
    assert _store(tmp_path).folder == stores[0].folder


@pytest.mark.parametrize("norm", [True, False])
def test_the_encoder_itself_keeps_its_precision_and_weights(tmp_path: Path, images: list[Path], norm: bool) -> None:
    encoder = _encoder(norm=norm)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    _store(tmp_path, encoder, dtype=torch.bfloat16).collect(images)
    for key, value in encoder.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("broken_index", ["torn line", "no row", "no line", "zeros", "no text"])
def test_what_a_crash_leaves_is_repaired(
    tmp_path: Path, images: list[Path], encoded: list[int], broken_index: str
) -> None:
    store = _store(tmp_path)
    store.collect(images[:4])
    lines = store.index.read_bytes()
    match broken_index:
        case "torn line":
            store.index.write_bytes(lines[:-30])
        case "no row":
            store.data.write_bytes(store.data.read_bytes()[:-5])
        case "no line":
            store.data.write_bytes(store.data.read_bytes() + b"torn row")
        case "zeros":
            store.index.write_bytes(lines[:-65] + bytes(65))
        case "no text":
            store.index.write_bytes(lines[:-65] + b"\xff" * 64 + b"\n")
    found = _store(tmp_path).collect(images)
    assert encoded == [4, 3 if broken_index == "no line" else 4]
    np.testing.assert_allclose(found.fetch(range(7)), _expected(images), rtol=2e-3, atol=2e-3)
    assert len(store.index.read_bytes()) == 7 * 65
    assert store.data.stat().st_size == 7 * REGIONS * CHANNELS * 2


def test_a_line_that_stands_twice_shifts_no_row(tmp_path: Path, images: list[Path]) -> None:
    store = _store(tmp_path)
    store.collect(images[:3])
    lines, rows = store.index.read_bytes(), store.data.read_bytes()
    store.index.write_bytes(lines[:65] + lines)
    store.data.write_bytes(rows[: len(rows) // 3] + rows)
    found = _store(tmp_path).collect(images)
    np.testing.assert_allclose(found.fetch(range(7)), _expected(images), rtol=2e-3, atol=2e-3)


def test_broken_images_are_told_with_their_reasons(tmp_path: Path, images: list[Path]) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:60])
    shutil.copy(broken, tmp_path / "same.png")
    asked = [images[0], broken, images[1], tmp_path / "absent.png", tmp_path / "same.png"]
    found = _store(tmp_path).collect(asked)
    assert sorted(found.broken) == [1, 3, 4]
    assert "absent.png" in found.broken[3]
    assert [row < 0 for row in found.rows] == [False, True, False, True, True]
    assert found.digests[3] == ""
    np.testing.assert_allclose(found.fetch([0, 2]), _expected([images[0], images[1]]), rtol=2e-3, atol=2e-3)


def test_not_one_sound_image_gives_no_rows(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    found = _store(tmp_path).collect([tmp_path / "text.jpg"])
    assert found.rows.tolist() == [-1]
    assert len(found.array) == 0


def test_progress_is_shown(tmp_path: Path, images: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    _store(tmp_path).collect(images)
    assert "encoding images: 100%" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, images: list[Path]) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CacheError, match=r"cannot keep features in .*file.*`cache`") as raised:
        _store(tmp_path / "file").collect(images)
    assert "\n" not in str(raised.value)


def test_values_beyond_float16_stay_finite(tmp_path: Path, images: list[Path]) -> None:
    encoder = _encoder(norm=False)
    with torch.no_grad():
        for value in encoder.parameters():
            value.mul_(1e7)
    assert np.isfinite(_store(tmp_path, encoder).collect(images).array).all()


def _collect(
    folder: Path, paths: list[Path], batch: int, size: int = 32, kill_at: int = 0, most_bytes: int = 0
) -> None:
    """Run in another process."""
    features._BATCH = batch
    encode = FeatureStore._encode
    calls = 0

    def killing(store: FeatureStore, pixels: Sequence[Pixels]) -> object:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(store, pixels)

    FeatureStore._encode = killing  # type: ignore[method-assign,assignment]
    if most_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        found = _store(folder, preprocessing=_preprocessing(size=size)).collect(paths)
    except CacheError as error:
        print("error:", error)
        sys.exit(2)
    print("rows:", len(found.array))


def test_encoding_goes_on_after_kill_9(tmp_path: Path, images: list[Path], encoded: list[int]) -> None:
    process = processes.start(_collect, tmp_path / "log", tmp_path, images, 2, 32, 3)
    assert processes.finish(process) == -signal.SIGKILL
    found = _store(tmp_path).collect(images)
    assert sum(encoded) == 3
    np.testing.assert_allclose(found.fetch(range(7)), _expected(images), rtol=2e-3, atol=2e-3)


def test_a_full_disk_is_one_line_and_what_is_encoded_is_kept(
    tmp_path: Path, images: list[Path], encoded: list[int]
) -> None:
    row_bytes = 32 * 32 * CHANNELS * 2
    process = processes.start(_collect, tmp_path / "log", tmp_path, images, 2, 512, 0, 5 * row_bytes)
    assert processes.finish(process) == 2
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("error: cannot keep features in")
    assert "File too large" in last
    found = _store(tmp_path, preprocessing=_preprocessing(size=512)).collect(images)
    assert sum(encoded) == 3
    np.testing.assert_allclose(found.fetch(range(7)), _expected(images, 512), rtol=2e-3, atol=2e-3)


def test_two_processes_share_a_store(tmp_path: Path, images: list[Path]) -> None:
    both = [
        processes.start(_collect, tmp_path / f"log{part[0].name}", tmp_path, part, 1)
        for part in (images[:5], images[:1:-1])
    ]
    assert [processes.finish(process) for process in both] == [0, 0]
    found = _store(tmp_path).collect(images)
    assert found.array.shape[0] == 7
    np.testing.assert_allclose(found.fetch(range(7)), _expected(images), rtol=2e-3, atol=2e-3)


def test_who_waits_for_another_run_is_told(tmp_path: Path, images: list[Path]) -> None:
    import fcntl

    store = _store(tmp_path)
    store.folder.mkdir(parents=True)
    with (store.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = processes.start(_collect, tmp_path / "log", tmp_path, images, 4)
        while "waiting for another run" not in _log(tmp_path / "log"):
            assert process.is_alive()
            process.join(0.05)
    assert processes.finish(process) == 0
    assert "rows: 7" in _log(tmp_path / "log")


def _log(path: Path) -> str:
    return path.read_text() if path.exists() else ""
