from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.bulk.options import FolderOptions
from captioner.captioner import Captioner
from captioner.errors import OptionError, OutputError
from tests.bulk.folders import caption, contents, make_folder, save_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, the third broken, in two folders."""
    folder = make_folder(tmp_path / "pictures", 5, broken=(2,))
    (folder / "inner").mkdir()
    (folder / "4.png").rename(folder / "inner" / "4.png")
    return folder


@pytest.fixture
def _noted(tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "user.test", b"")
    except (AttributeError, OSError):
        pytest.skip("no extended attributes here")


def run(captioner: Captioner, folder: Path, **options: object) -> tuple[int, int, int]:
    summary = caption(captioner, folder, **{"format": "sidecar", **options})  # type: ignore[arg-type]
    return summary.captioned, summary.skipped, summary.failed


def test_each_image_gets_a_file_with_one_line_and_nothing_else_is_written(captioner: Captioner, folder: Path) -> None:
    before = contents(folder)
    assert run(captioner, folder) == (4, 0, 1)
    added = {name: data for name, data in contents(folder).items() if name not in before}
    assert sorted(added) == ["0.txt", "1.txt", "3.txt", "inner/4.txt"]
    for name, data in added.items():
        ((best,),) = captioner.caption([(folder / name).with_suffix(".png")])
        assert data.decode() == f"{best.text}\n"
    assert {name: contents(folder)[name] for name in before} == before


def test_the_second_run_writes_nothing(captioner: Captioner, folder: Path) -> None:
    (folder / "2.png").unlink()
    run(captioner, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run(captioner, folder) == (0, 4, 0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_ending_and_texts(captioner: Captioner, folder: Path) -> None:
    run(captioner, folder, sidecar_extension=".caption", prepend="photo of", append="!")
    text = (folder / "0.caption").read_text()
    assert text.startswith("photo of ")
    assert text.endswith("!\n")
    assert not (folder / "0.txt").exists()


def test_captions_that_are_there_are_left_whoever_wrote_them(captioner: Captioner, folder: Path) -> None:
    (folder / "1.txt").write_text("by hand")
    assert run(captioner, folder) == (3, 1, 1)
    assert (folder / "1.txt").read_text() == "by hand"
    assert run(captioner, folder, overwrite=True) == (4, 0, 1)
    assert (folder / "1.txt").read_text() != "by hand"


def test_two_images_with_one_stem_are_refused_before_anything_is_written(
    captioner: Captioner, folder: Path, tmp_path: Path
) -> None:
    save_image(folder / "3.bmp", 8)
    before = contents(folder)
    with pytest.raises(OptionError, match=r"3.bmp and .*3.png would both be captioned in 3.txt"):
        run(captioner, folder)
    assert contents(folder) == before
    (tmp_path / "link").symlink_to(folder)
    both = [folder / "3.bmp", tmp_path / "link" / "3.png"]
    with pytest.raises(OptionError, match=r"3.bmp and .*link/3.png would both be captioned in 3.txt"):
        caption(captioner, *both, format="sidecar")


@pytest.mark.usefixtures("_noted")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decoding": {"beam_size": 2}}, "decoding options"),
        ({"prepend": "photo of"}, "`prepend` or `append`"),
        ({"decoding": {"seed": 3}, "append": "!"}, "decoding options and `prepend` or `append`"),
    ],
    ids=str,
)
def test_other_options_are_told_and_not_mixed(
    captioner: Captioner, folder: Path, changed: dict[str, object], said: str
) -> None:
    run(captioner, folder)
    save_image(folder / "9.png", 9)
    before = contents(folder)
    with pytest.raises(OutputError, match=f"0.txt: was made with other {said}; give the same to go on"):
        run(captioner, folder, **changed)
    assert contents(folder) == before
    assert run(captioner, folder, overwrite=True, **changed) == (5, 0, 1)


@pytest.mark.usefixtures("_noted")
def test_other_weights_are_told(captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(captioner, folder)
    monkeypatch.setattr(captioner, "digest", "other")
    with pytest.raises(OutputError, match=r"0.txt: was made with other weights;"):
        run(captioner, folder)


@pytest.mark.usefixtures("_noted")
def test_a_changed_image_is_told_and_captioned_anew_unless_its_caption_was_edited(
    captioner: Captioner, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(captioner, folder)
    for number in (0, 1):
        save_image(folder / f"{number}.png", 50 + number)
    (folder / "1.txt").write_text("edited\n")
    os.utime(folder / "3.png")  # the same image, copied anew
    capsys.readouterr()
    assert run(captioner, folder) == (1, 3, 1)
    said = capsys.readouterr().err
    assert f"{folder}/0.png: has changed; it is captioned anew" in said
    assert f"{folder}/1.png: has changed, but its caption was edited by hand and stays as it is" in said
    assert "3.png" not in said
    ((best,),) = captioner.caption([folder / "0.png"])
    assert (folder / "0.txt").read_text() == f"{best.text}\n"
    assert (folder / "1.txt").read_text() == "edited\n"
    capsys.readouterr()
    assert run(captioner, folder) == (0, 4, 1)


def test_without_extended_attributes_what_is_there_is_done(
    captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "setxattr", raising=False)
    monkeypatch.delattr(os, "getxattr", raising=False)
    assert run(captioner, folder) == (4, 0, 1)
    save_image(folder / "0.png", 50)
    assert run(captioner, folder, prepend="photo of") == (0, 4, 1)


def test_a_sidecar_that_cannot_be_written_fails_its_image_alone(captioner: Captioner, folder: Path) -> None:
    long = "x" * 250  # .png still fits, .caption does not
    save_image(folder / f"{long}.png", 9)
    (folder / "1.caption").mkdir()
    assert run(captioner, folder, sidecar_extension=".caption") == (3, 1, 2)
    assert run(captioner, folder, sidecar_extension=".caption", overwrite=True) == (3, 0, 3)
    assert sorted(path.name for path in folder.glob(".*")) == []


def test_shards_share_the_folder(captioner: Captioner, folder: Path) -> None:
    counts = [run(captioner, folder, shard=f"{number}/3") for number in (3, 1, 2)]
    assert [sum(numbers) for numbers in zip(*counts, strict=True)] == [4, 0, 1]
    assert run(captioner, folder) == (0, 4, 1)


def test_sidecars_named_as_images_are_refused(captioner: Captioner, folder: Path) -> None:
    """As with ``captioner caption *`` in a folder that has its captions."""
    run(captioner, folder)
    before = contents(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    with pytest.raises(OptionError, match=r"0.png and .*0.txt would both be captioned in 0.txt"):
        caption(captioner, *files, format="sidecar")
    assert contents(folder) == before
    assert FolderOptions(format="sidecar").sidecar_ending == ".txt"
