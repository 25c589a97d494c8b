from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.cli import main
from tests.small_model import save_with_graphs
from tests.vectors import vector_checkpoint

Run = Callable[..., tuple[int, str, str]]
TEXT = "a dog runs on the beach"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(checkpoint_file: Path, capsys: pytest.CaptureFixture[str], cache: Path) -> Run:
    """Runs ``captioner search`` with the small model: exit code, standard output, standard error."""

    def search(*arguments: str | Path) -> tuple[int, str, str]:
        model = ["--weights", str(checkpoint_file), "--device", "cpu"]
        code = main(["search", *map(str, arguments), "--cache", str(cache), *model])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return search


@pytest.fixture
def folder(tmp_path: Path, images: list[Path]) -> Path:
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    for image in images[:4]:
        shutil.copy(image, tmp_path / "photos")
    shutil.copy(images[4], tmp_path / "photos" / "inner")
    return tmp_path / "photos"


def test_the_best_images_come_first(run: Run, folder: Path) -> None:
    code, out, _ = run(folder, TEXT)
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    scores = [float(score) for score, _, _ in rows]
    assert code == 0
    assert {path for _, _, path in rows} == {str(path) for path in folder.rglob("*.*")}
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(0, abs=0.05)
    assert len({float(log_prob) - float(score) for score, log_prob, _ in rows}) <= 5  # rounding of one mean
    assert run(folder, TEXT, "--top", "2")[1].splitlines() == out.splitlines()[:2]
    assert run(folder, TEXT, "--no-recursive")[1].count("\n") == 4


def test_a_second_search_encodes_nothing_and_says_nothing(run: Run, folder: Path) -> None:
    first = run(folder, TEXT)
    again = run(folder, TEXT)
    assert again[:2] == first[:2]
    assert "encoding" not in again[2]


def test_json(run: Run, folder: Path) -> None:
    code, out, _ = run(folder, TEXT, "--json", "--top", "3")
    record = json.loads(out)
    lines = run(folder, TEXT, "--top", "3")[1].splitlines()
    assert code == 0
    assert list(record) == ["text", "words", "pictures", "mean_log_prob", "matches", "broken"]
    assert (record["text"], record["words"], record["pictures"]) == (TEXT, TEXT.split(), 5)
    assert [
        f"{match['score']:+7.2f} {match['log_prob']:8.2f}  {match['image']}" for match in record["matches"]
    ] == lines
    for match in record["matches"]:
        assert match["score"] == pytest.approx(match["log_prob"] - record["mean_log_prob"])


def test_broken_images_are_listed(run: Run, folder: Path) -> None:
    (folder / "broken.jpg").write_text("no image")
    os.mkfifo(folder / "pipe.jpg")
    code, out, err = run(folder, TEXT, "--json")
    record = json.loads(out)
    assert code == 1
    assert {broken["image"] for broken in record["broken"]} == {
        str(folder / "broken.jpg"),
        str(folder / "pipe.jpg"),
    }
    for broken in record["broken"]:
        assert broken["error"] in err
        assert broken["error"].startswith(broken["image"])
    assert len(record["matches"]) == 5


def test_a_page(run: Run, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    page.write_text("an earlier one")
    code, out, _ = run(folder, TEXT, "--html", page, "--top", "2")
    text = page.read_text()
    assert code == 0
    assert text.count("data:image/jpeg;base64,") == 2
    assert all(line.split(maxsplit=2)[2] in text for line in out.splitlines())


def test_odd_names_stay_on_one_line(run: Run, tmp_path: Path, images: list[Path]) -> None:
    names = [b"new\nline.jpg", b"\xff.jpg", b"\x1b[31m.jpg"]
    for name in names:
        shutil.copy(images[0], tmp_path / os.fsdecode(name))
    code, out, _ = run(tmp_path, TEXT, "--html", tmp_path / "found.html")
    assert code == 0
    assert {line.split(maxsplit=2)[2] for line in out.splitlines()} == {
        f"{tmp_path}/new\\nline.jpg",
        f"{tmp_path}/\\udcff.jpg",
        f"{tmp_path}/\\x1b[31m.jpg",
    }
    record = json.loads(run(tmp_path, TEXT, "--json")[1])
    assert {os.fsencode(Path(match["image"]).name) for match in record["matches"]} == set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", TEXT], "absent: no such folder"),
        ([".", "a corgi"], "the model does not know the word 'corgi'"),
        ([".", "..."], "there is no word in TEXT"),
        ([".", TEXT], "no images in ."),
        ([".", TEXT, "--top", "0"], "--top must be at least 1, not 0"),
        ([".", TEXT, "--html", "."], "--html .: is a folder; name a file"),
        ([".", TEXT, "--html", "absent/x.html"], "--html absent/x.html: there is no folder absent"),
        ([".", TEXT, "--cache", ""], "--cache must name a folder"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str],
    message: str,
    checkpoint_file: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", *arguments, "--weights", str(checkpoint_file), "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"captioner: error: {message}\n")


def test_not_one_image_can_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    code, out, err = run(tmp_path, TEXT)
    assert (code, out) == (2, "")
    assert "broken.jpg: not an image" in err
    assert err.endswith(f"captioner: error: not one image in {tmp_path} can be read\n")


def test_a_cache_that_cannot_be_written(
    folder: Path, checkpoint_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    arguments = ["search", str(folder), TEXT, "--weights", str(checkpoint_file), "--device", "cpu"]
    assert main([*arguments, "--cache", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("captioner: error: cannot keep features in")
    assert err.endswith("choose another folder with --cache")


def test_a_model_of_vectors_has_to_be_told_its_encoder(
    run: Run, folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "vectors.safetensors"
    save_with_graphs(weights, vector_checkpoint())
    command = [
        "search",
        str(folder),
        TEXT,
        "--cache",
        str(cache),
        "--weights",
        str(weights),
        "--device",
        "cpu",
    ]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("captioner: error: the checkpoint was trained on vectors")
    assert main([*command, "--encoder", "efficientnet_lite0", "--image-size", "64"]) == 0
    assert capsys.readouterr().out == run(folder, TEXT, "--runtime", "torch")[1]
