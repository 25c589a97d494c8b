from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.bulk.options import FolderOptions
from captioner.bulk.output import State
from captioner.captioner import Captioner
from captioner.embed.texts import Sidecars
from captioner.errors import OptionError, OutputError
from captioner.images.reading import Identity
from captioner.records import Record
from tests.bulk.folders import caption, contents, make_folder, save_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, the third broken, in two folders."""
    folder = make_folder(tmp_path / "pictures", 5, broken=(2,))
    (folder / "inner").mkdir()
    (folder / "4.png").rename(folder / "inner" / "4.png")
    return folder


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


BLANKS = (b"", b"\n", b"  \r\n\t", "\ufeff\n".encode(), "\ufeff\r\n".encode("utf-16-le"), "\u3000\n".encode())


def test_a_file_in_which_nothing_stands_is_not_done(captioner: Captioner, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures", len(BLANKS) + 1)
    for number, blank in enumerate(BLANKS):
        (folder / f"{number}.txt").write_bytes(blank)
    (folder / f"{len(BLANKS)}.txt").write_bytes(b"\n by hand")
    assert run(captioner, folder) == (len(BLANKS), 1, 0)
    assert all((folder / f"{number}.txt").read_text()[-2] == "." for number in range(len(BLANKS)))
    (folder / "0.txt").write_bytes(b"")
    assert run(captioner, folder) == (1, len(BLANKS), 0)


def captions_of(captioner: Captioner, folder: Path) -> dict[str, str]:
    return {path.stem: captioner.caption([path])[0][0].text for path in sorted(folder.glob("?.png"))}


@pytest.fixture(params=["noted", "not noted"])
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images, the first two with texts; with extended attributes and without."""
    if request.param == "noted":
        request.getfixturevalue("_noted")
    else:

        def refuse(*_: object) -> None:
            raise OSError

        monkeypatch.setattr(os, "setxattr", refuse)
        monkeypatch.setattr(os, "getxattr", refuse)
    folder = make_folder(tmp_path / "small", 4)
    (folder / "0.txt").write_bytes(b"1girl, solo")
    (folder / "1.txt").write_bytes("\ufeffby hand\nin two lines\n".encode())
    return folder


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({"if_exists": "append"}, "1girl, solo {}\n", "\ufeffby hand\nin two lines {}\n"),
        ({"if_exists": "append", "prepend": ","}, "1girl, solo, {}\n", "\ufeffby hand\nin two lines, {}\n"),
        ({"if_exists": "prepend"}, "{} 1girl, solo\n", "\ufeff{} by hand\nin two lines\n"),
        ({"if_exists": "prepend", "append": ","}, "{}, 1girl, solo\n", "\ufeff{}, by hand\nin two lines\n"),
        ({"if_exists": "skip"}, "1girl, solo", "\ufeffby hand\nin two lines\n"),
        ({"if_exists": "overwrite"}, "{}\n", "{}\n"),
    ],
    ids=str,
)
def test_a_caption_is_added_to_a_text_once(
    captioner: Captioner, small: Path, options: dict[str, str], first: str, second: str
) -> None:
    best = captions_of(captioner, small)
    run(captioner, small / "0.png", **options)
    run(captioner, small, **options)
    run(captioner, small, **options)
    assert (small / "0.txt").read_bytes().decode() == first.format(best["0"])
    assert (small / "1.txt").read_bytes().decode() == second.format(best["1"])
    before, after = options.get("prepend", ""), options.get("append", "")
    assert (small / "2.txt").read_text() == f"{before} {best['2']}{after}\n".lstrip(" ")


@pytest.mark.usefixtures("_noted")
def test_texts_that_a_caption_was_added_to_are_a_persons(captioner: Captioner, folder: Path) -> None:
    (folder / "0.txt").write_text("by hand")
    (folder / "0.txt").chmod(0o600)
    assert run(captioner, folder, if_exists="append") == (4, 0, 1)
    assert (folder / "0.txt").stat().st_mode & 0o777 == 0o600
    before = contents(folder)
    assert run(captioner, folder, if_exists="append") == (0, 4, 1)
    save_image(folder / "0.png", 77)  # another image, but the text is not all of this program
    assert run(captioner, folder) == (0, 4, 1)
    assert contents(folder)["0.txt"] == before["0.txt"]
    # Other captions are added to those of an earlier run.
    run(captioner, folder, if_exists="append", append="!")
    assert contents(folder)["1.txt"].decode().startswith(before["1.txt"].decode().strip() + " ")


def test_a_text_that_is_no_utf8_stays_and_is_told(
    captioner: Captioner, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "0.txt").write_bytes(b"caf\xe9")
    assert run(captioner, folder, if_exists="append") == (3, 0, 2)
    assert (folder / "0.txt").read_bytes() == b"caf\xe9"
    assert "0.txt: is not UTF-8 text, and stays as it is; save it as UTF-8" in capsys.readouterr().err


def test_what_is_written_by_hand_during_the_run_stays(
    captioner: Captioner, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = FolderOptions(format="sidecar", workers=0)
    target = Sidecars(settings)
    target.open({})
    image = folder / "0.png"
    assert target.state(image) is State.DUE
    (folder / "0.txt").write_text("by hand")
    identity = Identity(1, 1, bytes(16))
    (written,) = target.write([Record(image, tuple(captioner.caption([image])[0]), identity=identity)])
    assert "0.txt: was written during the run, and stays as it is" in str(written.error)
    assert (folder / "0.txt").read_text() == "by hand"


def test_full_names_keep_two_images_of_one_stem_apart(captioner: Captioner, folder: Path) -> None:
    save_image(folder / "3.bmp", 8)
    with pytest.raises(OptionError, match=r"3.bmp and .*3.png would .* 3.txt; `sidecar_name` full takes 3.bmp.txt"):
        run(captioner, folder)
    assert run(captioner, folder, sidecar_name="full") == (5, 0, 1)
    names = {"0.png.txt", "1.png.txt", "3.bmp.txt", "3.png.txt", "inner/4.png.txt"}
    assert {name for name in contents(folder) if name.endswith(".txt")} == names
    assert run(captioner, folder, sidecar_name="full") == (0, 5, 1)


@pytest.mark.parametrize("existing", ["append", "overwrite"])
def test_a_text_file_that_is_write_protected_stays(
    captioner: Captioner, folder: Path, existing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "0.txt").write_text("by hand")
    (folder / "0.txt").chmod(0o444)
    assert run(captioner, folder, if_exists=existing) == (3, 0, 2)
    assert f"{folder}/0.txt: is write-protected, and stays as it is" in capsys.readouterr().err
    assert (folder / "0.txt").read_text() == "by hand"
