from __future__ import annotations

import errno
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from captioner.bulk import run
from captioner.bulk.output import differences
from captioner.bulk.store import store_of
from captioner.captioner import Captioner
from captioner.errors import DatasetError, ImageError, NoDecoderError, OptionError, OutputError
from captioner.images import reading
from tests.bulk.folders import caption, contents, make_folder, save_image

FORMATS = ("jsonl", "csv", "text", "coco")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images that are called as COCO's are, the third broken."""
    folder = tmp_path / "pictures"
    for number in range(8):
        save_image(folder / f"{number:012}.png", number)
    (folder / f"{2:012}.png").write_text("no image")
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "captions"


def images(output: Path) -> list[str]:
    return [Path(json.loads(line)["image"]).name for line in output.read_text().splitlines()]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_second_run_writes_nothing(captioner: Captioner, folder: Path, output: Path, kind: str) -> None:
    first = caption(captioner, folder, output=str(output), format=kind)
    assert (first.captioned, first.skipped, first.failed) == (7, 0, 1)
    (folder / f"{2:012}.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in output.parent.iterdir()}
    content = output.read_bytes()
    second = caption(captioner, folder, output=str(output), format=kind)
    assert (second.captioned, second.skipped, second.failed) == (0, 7, 0)
    assert output.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "captions",
        "captions.journal",
        "pictures",
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_images_that_come_later_are_added_where_they_belong(
    captioner: Captioner, folder: Path, output: Path, kind: str
) -> None:
    late = [folder / f"{number:012}.png" for number in (0, 3, 7)]
    kept = [path.rename(path.with_suffix(".later")) for path in late]
    caption(captioner, folder, output=str(output), format=kind)
    for path, target in zip(kept, late, strict=True):
        path.rename(target)
    summary = caption(captioner, folder, output=str(output), format=kind)
    assert (summary.captioned, summary.skipped, summary.failed) == (3, 4, 1)
    caption(captioner, folder, output=str(output.with_name("whole")), format=kind)
    assert output.read_bytes() == output.with_name("whole").read_bytes()
    assert caption(captioner, folder, output=str(output), format=kind).captioned == 0


def test_images_at_the_end_are_appended_and_the_rest_is_not_touched(
    captioner: Captioner, folder: Path, output: Path
) -> None:
    (folder / f"{2:012}.png").unlink()
    caption(captioner, folder, output=str(output), format="jsonl")
    inode, before = output.stat().st_ino, output.read_bytes()
    save_image(folder / f"{9:012}.png", 9)
    caption(captioner, folder, output=str(output), format="jsonl")
    assert output.stat().st_ino == inode
    assert output.read_bytes().startswith(before)
    assert images(output)[-1] == f"{9:012}.png"


def test_another_folder_into_the_same_file_loses_nothing(
    captioner: Captioner, folder: Path, output: Path, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "other", 3)
    caption(captioner, other, output=str(output), format="jsonl")
    caption(captioner, folder, output=str(output), format="jsonl")
    assert images(output)[:4] == ["0.png", "1.png", "2.png", f"{0:012}.png"]
    caption(captioner, folder, other, output=str(output), format="jsonl")
    assert images(output)[-3:] == ["0.png", "1.png", "2.png"]
    assert len(images(output)) == 11


@pytest.mark.parametrize("kind", FORMATS)
def test_a_changed_image_is_told_and_captioned_anew(
    captioner: Captioner, folder: Path, output: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    caption(captioner, folder, output=str(output), format=kind)
    changed, touched = folder / f"{4:012}.png", folder / f"{5:012}.png"
    save_image(changed, 77)
    os.utime(touched)
    capsys.readouterr()
    summary = caption(captioner, folder, output=str(output), format=kind)
    assert (summary.captioned, summary.skipped, summary.failed) == (1, 6, 1)
    assert f"captioner: {changed}: has changed; it is captioned anew\n" in capsys.readouterr().err
    caption(captioner, folder, output=str(output.with_name("whole")), format=kind)
    assert output.read_bytes() == output.with_name("whole").read_bytes()


def test_a_image_that_was_mended_takes_the_place_of_its_error(captioner: Captioner, folder: Path, output: Path) -> None:
    caption(captioner, folder, output=str(output), format="jsonl")
    save_image(folder / f"{2:012}.png", 2)
    summary = caption(captioner, folder, output=str(output), format="jsonl")
    assert (summary.captioned, summary.skipped, summary.failed) == (1, 7, 0)
    caption(captioner, folder, output=str(output.with_name("whole")), format="jsonl")
    assert output.read_bytes() == output.with_name("whole").read_bytes()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decoding": {"beam_size": 2}}, "beam_size 3, not 2"),
        ({"decoding": {"seed": 5, "temperature": 0.5}}, "temperature none, not 0.5, seed 0, not 5"),
        ({"prepend": "photo of"}, "prepend none, not photo of"),
        ({"format": "csv"}, "format jsonl, not csv"),
        ({"shard": "1/2"}, "shard none, not 1/2, images none, not 8"),
    ],
    ids=str,
)
def test_other_options_are_told_and_not_mixed(
    captioner: Captioner, folder: Path, output: Path, changed: dict[str, object], said: str
) -> None:
    caption(captioner, folder, output=str(output), format="jsonl")
    before = contents(output.parent)
    with pytest.raises(OutputError, match=f"captions: was begun with {said}; give the same options"):
        caption(captioner, folder, output=str(output), **{"format": "jsonl", **changed})
    assert contents(output.parent) == before
    caption(captioner, folder, output=str(output), overwrite=True, **{"format": "jsonl", **changed})
    assert contents(output.parent) != before


def test_an_option_that_is_new_and_off_is_no_other_one() -> None:
    begun = {"decoding": {"beam_size": 3}}
    assert differences(begun, {"decoding": {"beam_size": 3, "new": False}}) == ""
    assert differences(begun, {"decoding": {"beam_size": 3, "new": True}}) == "new none, not True"
    assert differences(begun, {"decoding": {"beam_size": 3, "new": 0}}) == "new none, not 0"


def test_other_weights_are_told(
    captioner: Captioner, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caption(captioner, folder, output=str(output))
    monkeypatch.setattr(captioner, "digest", "other")
    with pytest.raises(OutputError, match=r"was begun with weights [0-9a-f]{16}, not other"):
        caption(captioner, folder, output=str(output))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_not_ours_is_not_touched(captioner: Captioner, folder: Path, output: Path, kind: str) -> None:
    output.write_text("dear diary")
    with pytest.raises(OutputError, match="captions: is there already, and no journal of a run"):
        caption(captioner, folder, output=str(output), format=kind)
    assert output.read_text() == "dear diary"
    assert not store_of(output).exists()
    caption(captioner, folder, output=str(output), format=kind, overwrite=True)
    assert "dear diary" not in output.read_text()


@pytest.mark.parametrize("kind", FORMATS)
def test_corrections_by_hand_are_not_overwritten(captioner: Captioner, folder: Path, output: Path, kind: str) -> None:
    caption(captioner, folder, output=str(output), format=kind)
    edited = output.read_bytes().replace(b"\n", b" \n", 1)
    output.write_bytes(edited)
    save_image(folder / f"{9:012}.png", 9)
    with pytest.raises(OutputError, match="captions: was changed by another program"):
        caption(captioner, folder, output=str(output), format=kind)
    assert output.read_bytes() == edited


@pytest.mark.parametrize("lost", [1, 5, 60, 10_000])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "text"])
def test_a_torn_end_is_mended(captioner: Captioner, folder: Path, output: Path, kind: str, lost: int) -> None:
    caption(captioner, folder, output=str(output), format=kind)
    whole = output.read_bytes()
    output.write_bytes(whole[: max(0, len(whole) - lost)])
    assert caption(captioner, folder, output=str(output), format=kind).captioned == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize("kind", FORMATS)
def test_an_output_that_was_deleted_comes_back(captioner: Captioner, folder: Path, output: Path, kind: str) -> None:
    caption(captioner, folder, output=str(output), format=kind)
    whole = output.read_bytes()
    output.unlink()
    assert caption(captioner, folder, output=str(output), format=kind).captioned == 0
    assert output.read_bytes() == whole


def test_a_damaged_journal_is_one_line(captioner: Captioner, folder: Path, output: Path) -> None:
    caption(captioner, folder, output=str(output))
    store_of(output).write_bytes(b"nonsense" * 1000)
    with pytest.raises(OutputError, match=r"captions.journal: is damaged or no journal of captioner; `overwrite`"):
        caption(captioner, folder, output=str(output))
    assert caption(captioner, folder, output=str(output), overwrite=True).captioned == 7


@pytest.mark.parametrize("kind", FORMATS)
def test_an_output_keeps_its_permissions(captioner: Captioner, folder: Path, output: Path, kind: str) -> None:
    (folder / f"{2:012}.png").unlink()  # nothing is left to do
    caption(captioner, folder, output=str(output), format=kind)
    output.chmod(0o400)
    whole = output.read_bytes()
    assert caption(captioner, folder, output=str(output), format=kind).skipped == 7
    save_image(folder / f"{2:012}.png", 9)  # in the middle: the output is written anew
    with pytest.raises(OutputError, match="captions: is write-protected, and stays as it is; what is written is whole"):
        caption(captioner, folder, output=str(output), format=kind)
    assert output.read_bytes() == whole
    output.chmod(0o600)
    caption(captioner, folder, output=str(output), format=kind)
    assert len(output.read_bytes()) > len(whole)
    assert output.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_cannot_be_opened_is_one_line(captioner: Captioner, folder: Path, output: Path) -> None:
    store_of(output).mkdir()
    advice = "make it a file that can be written, or choose another `output`"
    with pytest.raises(OutputError, match=f"cannot write .*captions.journal: unable to open .*; {advice}"):
        caption(captioner, folder, output=str(output))
    assert not output.exists()


def test_two_processes_do_not_write_one_file(captioner: Captioner, folder: Path, output: Path) -> None:
    caption(captioner, folder, output=str(output))
    other = sqlite3.connect(store_of(output), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError, match=r"captions.journal: another captioner is writing here; wait for it"):
        caption(captioner, folder, output=str(output))
    other.close()
    assert caption(captioner, folder, output=str(output)).skipped == 7


def test_places_that_cannot_be_written_are_refused(captioner: Captioner, folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader, writer = os.pipe()
    for place, message in {
        folder: "is a folder; give a file in it",
        tmp_path / "absent" / "captions": "there is no folder",
        tmp_path / "pipe": "is no regular file; leave out `output`",
        Path("/dev/null"): "is no regular file",
        Path(f"/dev/fd/{writer}"): f"/dev/fd/{writer}: is no regular file",  # such as /dev/stdout
        tmp_path / ("x" * 255): "cannot write .*: File name too long",
    }.items():
        with pytest.raises(OutputError, match=message):
            caption(captioner, folder, output=str(place))
    os.close(reader)
    os.close(writer)


def test_a_link_stays_a_link(captioner: Captioner, folder: Path, output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    output.symlink_to(tmp_path / "elsewhere" / "real")
    caption(captioner, folder, output=str(output), format="coco")
    assert output.is_symlink()
    assert len(json.loads((tmp_path / "elsewhere" / "real").read_text())) == 7


def test_an_empty_file_is_nothing_to_lose(captioner: Captioner, folder: Path, output: Path) -> None:
    output.touch()
    assert caption(captioner, folder, output=str(output)).captioned == 7


def test_numbers_come_from_annotations_or_names(captioner: Captioner, folder: Path, output: Path) -> None:
    (folder / "cat.png").write_bytes((folder / f"{1:012}.png").read_bytes())
    with pytest.raises(OptionError, match=r"cat.png: has no number for the format coco; give the ids"):
        caption(captioner, folder, output=str(output), format="coco")
    annotations = output.with_name("annotations.json")
    listed = [
        {"file_name": f"{folder.name}/{path.name}", "id": 100 + i} for i, path in enumerate(sorted(folder.iterdir()))
    ]
    annotations.write_text(json.dumps({"images": listed}))
    caption(captioner, folder, output=str(output), format="coco", annotations=str(annotations))
    found = {each["image_id"]: each["caption"] for each in json.loads(output.read_text())}
    assert sorted(found) == [100, 101, 103, 104, 105, 106, 107, 108]
    assert found[101] == found[108]  # the same bytes under another name
    annotations.write_text(json.dumps({"images": listed[:-1]}))
    with pytest.raises(OptionError, match=r"cat.png: is not among the images of .*annotations.json"):
        caption(captioner, folder, output=str(output), format="coco", annotations=str(annotations))


def test_two_images_with_one_number_are_refused(captioner: Captioner, folder: Path, output: Path) -> None:
    save_image(folder / f"COCO_val2014_{3:012}.png", 3)
    with pytest.raises(OptionError, match=r"COCO_val2014_0{11}3.png would both be image_id 3"):
        caption(captioner, folder, output=str(output), format="coco")
    assert not output.exists()


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_fail_fast_stops_at_the_first_failure_and_goes_on_later(
    captioner: Captioner, folder: Path, output: Path, batch_size: int
) -> None:
    summary = caption(captioner, folder, output=str(output), format="jsonl", fail_fast=True, batch_size=batch_size)
    assert (summary.captioned, summary.failed, summary.remaining) == (2, 1, 5)
    assert images(output) == [f"{number:012}.png" for number in range(3)]
    caption(captioner, folder, output=str(output), format="jsonl")
    caption(captioner, folder, output=str(output.with_name("whole")), format="jsonl")
    assert output.read_bytes() == output.with_name("whole").read_bytes()


def test_a_write_that_fails_half_way_leaves_whole_records(
    captioner: Captioner, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.write, 0

    def full_later(handle: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[: len(data) // 2] if calls == 2 else data)

    with monkeypatch.context() as patch:
        patch.setattr(run, "SECONDS_TOGETHER", 0.0)
        patch.setattr(os, "write", full_later)
        message = r"cannot write .*captions: No space left on device; what is written is whole, and the same"
        with pytest.raises(OutputError, match=message):
            caption(captioner, folder, output=str(output), format="jsonl")
    assert images(output) == [f"{number:012}.png" for number in range(4)]  # the first batch
    caption(captioner, folder, output=str(output), format="jsonl")
    assert len(images(output)) == 8


@pytest.fixture
def cameras(folder: Path) -> Path:
    """Three images of one name."""
    for place, number in {"cam1": 1, "cam2": 2, ".": 3}.items():
        save_image(folder / place / "0001.png", number)
    return folder


def ids(captioner: Captioner, annotations: dict[str, int], *paths: Path) -> list[int]:
    output, file = paths[0].parent / "ids.json", paths[0].parent / "annotations.json"
    file.write_text(json.dumps({"images": [{"file_name": name, "id": i} for name, i in annotations.items()]}))
    caption(captioner, *paths, output=str(output), format="coco", annotations=str(file), overwrite=True)
    return [each["image_id"] for each in json.loads(output.read_text())]


@pytest.mark.parametrize(
    "names",
    [
        ("cam1/0001.png", "cam2/0001.png"),
        ("./cam1/0001.png", "cam1/../cam2/0001.png"),
        ("cam1\\0001.png", "cam2\\0001.png"),
        ("../pictures/cam1/0001.png", "pictures/cam2/0001.png"),
        ("cam1/0001.png", "0001.png"),
    ],
)
def test_a_number_is_found_by_the_longest_end_of_the_path(
    captioner: Captioner, cameras: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    annotations = {name: number for number, name in enumerate(names, 1)}
    assert ids(captioner, annotations, cameras / "cam1", cameras / "cam2") == [1, 2]
    assert ids(captioner, annotations, cameras / "cam2" / ".." / "cam1" / "0001.png") == [1]
    monkeypatch.chdir(cameras / "cam2")
    assert ids(captioner, annotations, Path("0001.png")) == [2]


def test_an_image_of_another_folder_has_no_number(captioner: Captioner, cameras: Path) -> None:
    message = r"cam2/0001.png: is not among the images of .*; that has cam1/0001.png, in another folder"
    with pytest.raises(OptionError, match=message):
        ids(captioner, {"cam1/0001.png": 1}, cameras / "cam2")
    with pytest.raises(DatasetError, match=r"cam1/0001.png has two ids, 1 and 2"):
        ids(captioner, {"cam1/0001.png": 1, "./cam1/0001.png": 2}, cameras / "cam1")


def test_what_is_left_out_is_said_and_a_run_goes_on_with_or_without_it(
    captioner: Captioner, folder: Path, output: Path
) -> None:
    save_image(folder / "@eaDir" / "a.png", 21)
    save_image(folder / "a-masklabel.png", 22)
    save_image(folder / "old" / "b.png", 23)
    options = {"output": str(output), "format": "jsonl"}
    summary = caption(captioner, folder, exclude=("old",), **options)
    assert (summary.captioned, summary.failed) == (7, 1)
    assert str(summary).endswith("1 image and 2 folders left out")
    assert caption(captioner, folder, exclude=("old",), **options).skipped == 7
    assert caption(captioner, folder, **options).captioned == 1
    everything = caption(captioner, folder, include_all=True, **options)
    assert (everything.captioned, str(everything).endswith("left out")) == (2, False)
    fresh = output.with_name("fresh")
    caption(captioner, folder, include_all=True, output=str(fresh), format="jsonl")
    assert output.read_bytes() == fresh.read_bytes()


def test_a_folder_of_which_all_is_left_out_says_so(captioner: Captioner, tmp_path: Path) -> None:
    save_image(tmp_path / "p" / "#recycle" / "a.png", 1)
    (tmp_path / "p" / "b.psd").touch()
    message = r"no images in .*p; 1 folder left out, 1 in formats that are not read \(1 PSD\) \(`include_all` takes in"
    with pytest.raises(ImageError, match=message):
        caption(captioner, tmp_path / "p")


def test_images_that_need_an_extra_are_counted_by_kind(
    captioner: Captioner, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reading.read_item

    def without_extras(item: Path, *others: Any, **options: Any) -> bytes:
        if item.suffix in (".jxl", ".nef"):
            raise NoDecoderError(f"{item}: is not read here", "run: pip install 'captioner[raw]'")
        return read(item, *others, **options)

    monkeypatch.setattr(reading, "read_item", without_extras)
    for name in ("a.nef", "b.nef", "c.jxl"):
        (folder / name).touch()
    summary = caption(captioner, folder, output=str(output), format="jsonl")
    assert summary.failed == 4
    assert str(summary).endswith("3 in formats that are not read (2 NEF, 1 JXL)")
