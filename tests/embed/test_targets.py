from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Progress
from captioner.embed.embedding import embed, packet_texts, read_texts
from captioner.embed.folder import caption_inside
from captioner.errors import OptionError, OutputError
from tests.bulk import fakes
from tests.bulk.folders import contents, in_a_child
from tests.embed.pictures import XMP, png_chunk


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, of which 3 is broken and 4 of a format without support, in two folders."""
    folder = tmp_path / "pictures"
    for number in range(3):
        fakes.save_colour(folder / ("inner" if number == 2 else "") / f"{number}.png", number)
    (folder / "3.png").write_text("broken")
    Image.new("RGB", (5, 4)).save(folder / "4.gif")
    return folder


def run(*paths: Path, **options: object) -> tuple[int, int, int]:
    settings = FolderOptions(**{"embed": True, "workers": 0, "batch_size": 2, **options})  # type: ignore[arg-type]
    summary = caption_inside([os.fspath(path) for path in paths], settings, fakes.colour_model(), Progress())
    return summary.captioned, summary.skipped, summary.failed


def texts(path: Path) -> tuple[str, str]:
    with path.open("rb") as file:
        return tuple(read_texts(file, path.name))  # type: ignore[return-value]


def caption_of(number: int) -> tuple[str, str]:
    return (f"colour {number} 0 7",) * 2


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def describe(path: Path, caption: str, **options: object) -> None:
    path.write_bytes(embed(path.read_bytes(), caption, path.name, **options))  # type: ignore[arg-type]


def test_copies_mirror_the_folder_and_originals_are_not_touched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, copies = contents(folder), tmp_path / "new" / "copies"
    assert run(folder, output=str(copies)) == (3, 0, 2)
    said = capsys.readouterr().err
    assert "3.png: not an image in a known format" in said
    assert "4.gif: no caption can be embedded (its format is GIF, not JPEG, PNG or WebP)" in said
    assert contents(folder) == before
    assert sorted(contents(copies)) == ["0.png", "1.png", "inner/2.png"]
    for number, name in enumerate(sorted(contents(copies))):
        assert texts(copies / name) == caption_of(number)
        assert Image.open(copies / name).tobytes() == Image.open(folder / name).tobytes()


@pytest.mark.parametrize("in_place", [True, False])
def test_the_second_run_writes_nothing(folder: Path, tmp_path: Path, in_place: bool) -> None:
    where = {"in_place": True} if in_place else {"output": str(tmp_path / "copies")}
    assert run(folder, **where) == (3, 0, 2)
    before = stamps(tmp_path)
    fakes.SEEN.clear()
    assert run(folder, **where) == (0, 3, 2)
    assert stamps(tmp_path) == before
    assert fakes.SEEN == []
    assert run(folder, overwrite=True, **where) == (3, 0, 2)
    assert stamps(tmp_path) != before


@pytest.mark.parametrize("in_place", [True, False])
def test_without_extended_attributes_what_is_there_is_done(
    folder: Path, tmp_path: Path, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("setxattr", "getxattr", "listxattr"):
        monkeypatch.delattr(os, name, raising=False)
    where = {"in_place": True} if in_place else {"output": str(tmp_path / "copies")}
    assert run(folder, **where) == (3, 0, 2)
    assert run(folder, prepend="photo of", **where) == (0, 3, 2)


@pytest.mark.usefixtures("_noted")
@pytest.mark.parametrize("in_place", [True, False])
def test_other_options_are_told_and_not_mixed(folder: Path, tmp_path: Path, in_place: bool) -> None:
    where = {"in_place": True} if in_place else {"output": str(tmp_path / "copies")}
    run(folder, prepend="photo of", append="!", **where)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"0.png: was made with other `prepend` or `append`; give the same"):
        run(folder, **where)
    assert contents(tmp_path) == before
    first = (folder if in_place else tmp_path / "copies") / "0.png"
    assert texts(first) == ("photo of colour 0 0 7!",) * 2
    assert run(folder, overwrite=True, **where) == (3, 0, 2)
    assert texts(first) == caption_of(0)


@pytest.mark.usefixtures("_noted")
def test_a_changed_original_is_told_and_copied_anew_unless_the_copy_was_edited(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = tmp_path / "copies"
    run(folder, output=str(copies))
    describe(copies / "1.png", "by hand", overwrite=True)
    for number in (0, 1):
        fakes.save_colour(folder / f"{number}.png", 50 + number)
    capsys.readouterr()
    assert run(folder, output=str(copies)) == (1, 2, 2)
    said = capsys.readouterr().err
    assert "0.png: has changed; it is captioned anew" in said
    assert "1.png: has changed, but its caption was edited by hand" in said
    assert texts(copies / "0.png") == caption_of(50)
    assert texts(copies / "1.png") == ("by hand", "by hand")


@pytest.mark.usefixtures("_noted")
def test_a_image_changed_in_place_is_captioned_anew_unless_its_caption_was_edited(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, in_place=True)
    other = folder.parent / "other.png"
    fakes.save_colour(other, 50)
    # A program that writes into the file itself keeps its attributes, and copies the texts.
    (folder / "0.png").write_bytes(embed(other.read_bytes(), caption_of(0)[0], "0.png"))
    (folder / "1.png").write_bytes(embed(other.read_bytes(), "by hand", "1.png"))
    describe(folder / "inner" / "2.png", "by hand", overwrite=True)  # the image is the same
    capsys.readouterr()
    assert run(folder, in_place=True) == (1, 2, 2)
    said = capsys.readouterr().err
    assert "0.png: has changed; it is captioned anew" in said
    assert "1.png: has changed, but its caption was edited by hand" in said
    assert "2.png" not in said
    assert texts(folder / "0.png") == caption_of(50)
    assert texts(folder / "1.png") == ("by hand", "by hand")
    assert run(folder, in_place=True) == (0, 3, 2)


def test_what_somebody_has_written_stays_without_overwrite(folder: Path) -> None:
    describe(folder / "0.png", "by hand")
    before = (folder / "0.png").read_bytes()
    assert run(folder, in_place=True) == (2, 1, 2)
    assert (folder / "0.png").read_bytes() == before
    assert run(folder, in_place=True, overwrite=True) == (3, 0, 2)
    assert texts(folder / "0.png") == caption_of(0)


def test_permissions_attributes_and_links_survive(folder: Path, tmp_path: Path) -> None:
    path, copies = folder / "0.png", tmp_path / "copies"
    path.chmod(0o640)
    (folder / "1.png").chmod(0o400)
    (tmp_path / "real.png").write_bytes(path.read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "real.png")
    attributes = hasattr(os, "setxattr")
    if attributes:
        os.setxattr(path, "user.rating", b"5")
    assert run(folder, output=str(copies)) == (4, 0, 2)
    assert (copies / "0.png").stat().st_mode & 0o777 == 0o640 & ~_umask()
    assert run(folder, in_place=True) == (3, 0, 3)  # the write-protected one stays
    assert texts(folder / "1.png") == ("", "")
    assert path.stat().st_mode & 0o777 == 0o640
    assert not attributes or os.getxattr(path, "user.rating") == b"5"
    assert (folder / "link.png").is_symlink()
    assert texts(tmp_path / "real.png") == caption_of(0)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_where_copies_go(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = tmp_path / "list"
    listed.write_text(f"../{tmp_path.name}/pictures/1.png\n{folder}/0.png\n")
    run(Path("pictures/inner/2.png"), output="copies", from_file=str(listed))
    inside = sorted(["2.png", f"{tmp_path.name}/pictures/1.png", f"{folder}/0.png".lstrip("/")])
    assert sorted(contents(tmp_path / "copies")) == inside
    run(Path("pictures"), Path("pictures/inner"), output="others")
    assert sorted(contents(tmp_path / "others"))[:2] == ["0.png", "1.png"]


def test_copies_that_would_meet_images_or_each_other_are_refused(folder: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    for place in (folder, folder / "inner", folder / "new"):
        with pytest.raises(OptionError, match=r"`output` .*: lies in .*pictures, whose images are captioned"):
            run(folder, output=str(place))
    with pytest.raises(OptionError, match=r"0.png: lies in `output`, which is for copies alone"):
        run(folder, output=str(folder), recursive=False)
    with pytest.raises(OptionError, match=r"0.png: lies in `output`"):
        run(folder / "0.png", output=str(folder))
    fakes.save_colour(tmp_path / "other" / "0.png", 9)
    with pytest.raises(OptionError, match=r"pictures/0.png and .*other/0.png would both be captioned in 0.png"):
        run(folder, tmp_path / "other", output=str(tmp_path / "copies"))
    (tmp_path / "link.png").symlink_to(folder / "0.png")
    with pytest.raises(
        OptionError, match=r"0.png and .*link.png would both be captioned in 0.png; leave one .* out with `exclude`"
    ):
        run(folder, tmp_path / "link.png", in_place=True)
    with pytest.raises(OutputError, match=r"`output` .*4.gif: is a file; `embed` takes a folder"):
        run(tmp_path / "other", output=str(folder / "4.gif"))
    (tmp_path / "link.png").unlink()
    (tmp_path / "other" / "0.png").unlink()
    assert contents(tmp_path) == before


def test_shards_share_the_folder(folder: Path, tmp_path: Path) -> None:
    where = str(tmp_path / "copies")
    counts = [run(folder, output=where, shard=f"{number}/3") for number in (3, 1, 2)]
    assert [sum(numbers) for numbers in zip(*counts, strict=True)] == [3, 0, 2]
    assert run(folder, output=where) == (0, 3, 2)


def test_a_image_that_changes_during_the_run_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit = fakes.ColourEngine.submit

    def meanwhile(engine: fakes.ColourEngine, pixels: list[object]) -> object:
        fakes.save_colour(folder / "0.png", 60)
        return submit(engine, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(fakes.ColourEngine, "submit", meanwhile)
    assert run(folder, in_place=True) == (2, 0, 3)
    assert "0.png: was changed during the run; the same command captions it anew" in capsys.readouterr().err
    assert texts(folder / "0.png") == ("", "")
    monkeypatch.undo()
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)
    assert run(folder, in_place=True) == (1, 2, 2)
    assert texts(folder / "0.png") == caption_of(60)


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [True, False])
def test_a_run_that_is_killed_leaves_whole_images_and_ends_like_another(tmp_path: Path, in_place: bool) -> None:
    def place(name: str) -> tuple[Path, dict[str, object]]:
        folder = tmp_path / name / "pictures"
        for number in range(24):
            fakes.save_colour(folder / f"{number}.png", number)
        return folder, {"in_place": True} if in_place else {"output": str(tmp_path / name / "copies")}

    def run_in_a_child(folder: Path, where: dict[str, object], seconds: float | None = None) -> None:
        in_a_child(lambda: run(folder, **where), seconds)

    undisturbed, where = place("undisturbed")
    originals = contents(undisturbed)
    start = time.monotonic()
    run_in_a_child(undisturbed, where)
    duration = time.monotonic() - start
    expected = contents(undisturbed.parent)
    chance = random.Random(3)
    for attempt in range(8):
        folder, where = place(f"killed {attempt}")
        run_in_a_child(folder, where, chance.uniform(0, duration))
        for name, data in contents(folder.parent).items():
            if not Path(name).name.startswith(".captioner-"):  # never read as an image
                assert data in (originals.get(Path(name).name), expected[name]), name
        run_in_a_child(folder, where)
        after = contents(folder.parent)
        assert {n: d for n, d in after.items() if not Path(n).name.startswith(".captioner-")} == expected


OLD = 1_000_000_000 * 10**9


@pytest.mark.parametrize("keep_date", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_images_keep_their_dates_unless_they_are_not_to(
    folder: Path, tmp_path: Path, in_place: bool, keep_date: bool
) -> None:
    for number in range(2):
        os.utime(folder / f"{number}.png", ns=(OLD, OLD + number))
    where = {"in_place": True} if in_place else {"output": str(tmp_path / "copies")}
    assert run(folder, keep_date=keep_date, **where) == (3, 0, 2)
    for number in range(2):
        found = ((folder if in_place else tmp_path / "copies") / f"{number}.png").stat().st_mtime_ns
        assert (found == OLD + number) is keep_date
    assert run(folder, keep_date=keep_date, **where) == (0, 3, 2)


@pytest.mark.usefixtures("_noted")
def test_an_image_is_the_same_when_only_its_metadata_or_date_changed(folder: Path) -> None:
    run(folder, in_place=True)
    first, second = folder / "0.png", folder / "1.png"
    data = first.read_bytes()
    first.write_bytes(data[:33] + png_chunk(b"tEXt", b"Rating\x004") + data[33:])
    second.write_bytes(embed(second.read_bytes(), "by hand", "1.png", overwrite=True))
    os.utime(folder / "inner" / "2.png")
    fakes.SEEN.clear()
    assert run(folder, in_place=True) == (0, 3, 2)
    assert fakes.SEEN == []
    assert texts(second) == ("by hand", "by hand")


def beside(file: Path) -> tuple[str, str]:
    return tuple(packet_texts(file.read_bytes()))  # type: ignore[return-value]


def write_xmp(folder: Path, **options: object) -> tuple[int, int, int]:
    return run(folder, embed=False, format="xmp", **options)


@pytest.mark.parametrize("name", ["full", "stem"])
def test_xmp_files_lie_beside_images_of_all_formats(folder: Path, name: str) -> None:
    before = contents(folder)
    assert write_xmp(folder, sidecar_name=None if name == "full" else name) == (4, 0, 1)
    new = {"0", "1", "4", "inner/2"}
    endings = {"0": ".png.xmp", "1": ".png.xmp", "4": ".gif.xmp", "inner/2": ".png.xmp"}
    files = {stem + (endings[stem] if name == "full" else ".xmp") for stem in new}
    assert contents(folder).keys() - before.keys() == files
    for number in range(2):
        assert beside(folder / f"{number}{'.png.xmp' if name == 'full' else '.xmp'}") == caption_of(number)
    assert {path: content for path, content in contents(folder).items() if path in before} == before
    fakes.SEEN.clear()
    assert write_xmp(folder, sidecar_name=name) == (0, 4, 1)
    assert fakes.SEEN == []


def test_the_comment_of_a_gif_is_a_description(folder: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(folder / "4.gif", comment=b"by hand")
    write_xmp(folder)
    assert beside(folder / "4.gif.xmp")[0] == ""
    assert beside(folder / "4.gif.xmp")[1]


def test_an_xmp_file_that_is_there_is_added_to_and_a_persons_words_stay(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "0.png.xmp").write_bytes(XMP)
    mine = XMP.replace(
        b'xmp:Rating="4"/>',
        b'xmp:Rating="4" xmlns:d="http://purl.org/dc/elements/1.1/"><d:description><r:Alt><r:li xml:lang="x-default"/>'
        b'<r:li xml:lang="de">Oma</r:li></r:Alt></d:description></r:Description>',
    )
    (folder / "1.png.xmp").write_bytes(mine)
    describe(folder / "inner" / "2.png", "by hand")  # in the image itself: nothing may cover it
    (folder / "4.gif.xmp").write_text("no xmp")
    assert write_xmp(folder) == (3, 0, 2)
    assert f"{folder}/4.gif.xmp: stays as it is (its XMP is damaged" in capsys.readouterr().err
    assert (folder / "4.gif.xmp").read_text() == "no xmp"
    assert b'xmp:Rating="4"/><!-- kept -->' in (folder / "0.png.xmp").read_bytes()
    assert beside(folder / "0.png.xmp") == caption_of(0)
    assert beside(folder / "1.png.xmp") == ("Oma", caption_of(1)[0])
    assert beside(folder / "inner" / "2.png.xmp") == ("", caption_of(2)[0])
    assert write_xmp(folder, overwrite=True) == (3, 0, 2)
    assert beside(folder / "1.png.xmp") == caption_of(1)
    assert b'xmp:Rating="4"' in (folder / "1.png.xmp").read_bytes()


def test_words_in_other_formats_and_in_the_file_of_the_other_name_are_not_covered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pillow_jxl", reason="the extra 'jxl' is not installed")
    exif = Image.Exif()
    exif[0x010E] = "Oma"
    fakes.draw_colour(5).save(
        folder / "5.jxl", lossless=True, exif=exif.tobytes(), use_container=True, compress_metadata=True
    )
    words = XMP.replace(b'xmp:Rating="4"/>', b'xmlns:d="http://purl.org/dc/elements/1.1/" d:description="Oma"/>')
    (folder / "0.xmp").write_bytes(words)
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "brotli", None)
        assert write_xmp(folder) == (4, 0, 2)
    assert "5.jxl: its metadata are compressed and cannot be read; run: pip" in capsys.readouterr().err
    assert write_xmp(folder) == (1, 4, 1)
    assert beside(folder / "5.jxl.xmp") == ("", caption_of(5)[0])
    assert beside(folder / "0.png.xmp") == ("", caption_of(0)[0])
    assert beside(folder / "1.png.xmp") == caption_of(1)
    assert write_xmp(folder, sidecar_name="stem") == (5, 0, 1)  # the program's own words are no person's
    assert [beside(folder / f"{number}.xmp")[0] for number in (0, 1, 5)] == ["Oma", caption_of(1)[0], ""]


def test_an_xmp_file_that_is_write_protected_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "0.png.xmp").write_bytes(XMP)
    (folder / "0.png.xmp").chmod(0o444)
    assert write_xmp(folder) == (3, 0, 2)
    assert f"{folder}/0.png.xmp: is write-protected, and stays as it is" in capsys.readouterr().err
    assert (folder / "0.png.xmp").read_bytes() == XMP


@pytest.mark.usefixtures("_noted")
def test_xmp_of_a_changed_image_is_written_anew(folder: Path) -> None:
    write_xmp(folder)
    for number in range(2):
        fakes.save_colour(folder / f"{number}.png", 50 + number)
    describe_xmp = (folder / "1.png.xmp").read_bytes().replace(caption_of(1)[0].encode(), b"by hand")
    (folder / "1.png.xmp").write_bytes(describe_xmp)
    assert write_xmp(folder) == (1, 3, 1)
    assert beside(folder / "0.png.xmp") == caption_of(50)
    assert beside(folder / "1.png.xmp") == ("by hand", "by hand")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "sidecar", "sidecar_extension": ".xmp"}, "would not make it XMP; use `format` xmp"),
        ({"format": "sidecar", "sidecar_extension": ".XMP"}, "use `format` xmp"),
        ({"format": "xmp", "output": "x"}, "`format` xmp writes beside the images"),
        ({"format": "xmp", "input_tar": ("a.tar",)}, "`format` xmp writes beside images, not into tars"),
        ({"format": "csv", "sidecar_name": "full"}, "`sidecar_name` is for `format`"),
        ({"embed_iptc": True}, "`embed_iptc` is for `embed`"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FolderOptions(**options)  # type: ignore[arg-type]
