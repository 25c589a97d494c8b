from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import ImageError
from captioner.images import open_image
from captioner.images.find import IMAGE_EXTENSIONS, Omitted, find_images, natural_order


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(*paths: str | os.PathLike[str], below: Path, recursive: bool = True) -> list[str]:
    return [path.relative_to(below).as_posix() for path in find_images(paths, recursive=recursive)]


def test_a_folder_gives_its_files_then_those_of_its_folders_in_natural_order(tmp_path: Path) -> None:
    make(tmp_path, "img10.jpg", "img2.jpg", "IMG1.jpg", "b/x.jpg", "a2/x.jpg", "a10/x.jpg", "a2/deep/y.png")
    expected = ["IMG1.jpg", "img2.jpg", "img10.jpg", "a2/x.jpg", "a2/deep/y.png", "a10/x.jpg", "b/x.jpg"]
    assert found(tmp_path, below=tmp_path) == expected
    assert found(tmp_path, below=tmp_path, recursive=False) == expected[:3]


def test_the_order_does_not_depend_on_the_order_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["1.jpg", "01.jpg", "001.jpg", "a.jpg", "A.jpg", "a1b2.jpg", "a1b10.jpg"]
    make(tmp_path, *names)
    expected = found(tmp_path, below=tmp_path)
    scandir = os.scandir

    class Reversed:
        def __init__(self, folder: Path) -> None:
            with scandir(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert found(tmp_path, below=tmp_path) == expected
    assert expected == ["001.jpg", "01.jpg", "1.jpg", "A.jpg", "a.jpg", "a1b2.jpg", "a1b10.jpg"]


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2, max_size=20))
def test_numbers_in_names_are_ordered_as_numbers(numbers: list[int]) -> None:
    names = sorted((f"image {n} (1).jpg" for n in numbers), key=natural_order)
    assert names == [f"image {n} (1).jpg" for n in sorted(numbers)]


def test_extensions_count_in_any_case_and_other_files_do_not(tmp_path: Path) -> None:
    images = [f"{i}{e.upper() if i % 2 else e}" for i, e in enumerate(sorted(IMAGE_EXTENSIONS))]
    make(tmp_path, *images, "notes.txt", "jpg", "a.jpg.txt", "film.mp4")
    assert sorted(found(tmp_path, below=tmp_path)) == sorted(images)


def test_hidden_files_and_folders_are_skipped_unless_named(tmp_path: Path) -> None:
    make(tmp_path, ".hidden.jpg", "._a.jpg", ".cache/b.jpg", "c.jpg")
    assert found(tmp_path, below=tmp_path) == ["c.jpg"]
    named = found(tmp_path / ".hidden.jpg", tmp_path / ".cache", tmp_path, below=tmp_path)
    assert named == [".hidden.jpg", ".cache/b.jpg", "c.jpg"]


def test_a_named_file_is_given_whatever_its_extension_and_even_if_absent(tmp_path: Path) -> None:
    make(tmp_path, "photo.dat")
    names = [tmp_path / "photo.dat", tmp_path / "absent.jpg", tmp_path / "no" / "folder.jpg"]
    assert list(find_images(names)) == names


def test_the_order_of_the_paths_given_is_kept(tmp_path: Path) -> None:
    make(tmp_path, "z.jpg", "a.jpg", "m/x.jpg")
    paths = [tmp_path / "z.jpg", tmp_path / "m", tmp_path / "a.jpg"]
    assert found(*paths, below=tmp_path) == ["z.jpg", "m/x.jpg", "a.jpg"]


def test_no_file_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.jpg", "b/c.jpg", "b/odd.dat")
    monkeypatch.chdir(tmp_path)
    first = [
        "a.jpg",
        str(tmp_path / "a.jpg"),
        "./a.jpg",
        "b/../a.jpg",
        "gone.jpg",
        "gone.jpg",
        "x/y.jpg",
        "x/y.jpg",
    ]
    assert [str(path) for path in find_images(first)] == ["a.jpg", "gone.jpg", "x/y.jpg"]
    assert [str(path) for path in find_images(["b/c.jpg", ".", tmp_path])] == ["b/c.jpg", "a.jpg"]
    later = find_images([".", "b", "a.jpg", "b/c.jpg", "b/odd.dat"])
    assert [str(path) for path in later] == ["a.jpg", "b/c.jpg", "b/odd.dat"]


def test_a_file_below_a_folder_that_was_not_entered_still_comes(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b/c.jpg")
    given_paths = (tmp_path, tmp_path / "b" / "c.jpg")
    assert found(*given_paths, below=tmp_path, recursive=False) == ["a.jpg", "b/c.jpg"]


def test_loops_of_links_end_and_linked_folders_are_read_once(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "b/y.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "c").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "endless").symlink_to(tmp_path / "endless")
    assert found(tmp_path, below=tmp_path) == ["a/x.jpg", "b/y.jpg"]


def test_two_links_to_one_file_are_two_files(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    assert found(tmp_path, below=tmp_path) == ["a.jpg", "b.jpg"]


def test_what_cannot_be_opened_is_given_so_that_it_gets_its_own_error(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "endless.jpg").symlink_to(tmp_path / "endless.jpg")
    assert found(tmp_path, below=tmp_path) == ["a.jpg", "broken.jpg", "endless.jpg"]


def test_a_folder_called_like_a_image_is_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "holiday.jpg/1.jpg")
    assert found(tmp_path, below=tmp_path) == ["holiday.jpg/1.jpg"]
    assert found(tmp_path / "holiday.jpg", below=tmp_path, recursive=False) == ["holiday.jpg/1.jpg"]


def test_a_folder_called_like_a_image_is_given_itself_where_no_image_stands_for_it(
    tmp_path: Path,
) -> None:
    make(tmp_path, "full.jpg/1.jpg", "a.jpg")
    (tmp_path / "empty.jpg").mkdir()
    (tmp_path / "words.png").mkdir()
    (tmp_path / "words.png" / "note.txt").touch()
    assert found(tmp_path, below=tmp_path) == ["a.jpg", "empty.jpg", "full.jpg/1.jpg", "words.png"]
    names = ["a.jpg", "empty.jpg", "full.jpg", "words.png"]
    assert sorted(found(tmp_path, below=tmp_path, recursive=False)) == names
    assert found(tmp_path / "empty.jpg", below=tmp_path) == ["empty.jpg"]
    with pytest.raises(ImageError, match="a folder, not an image"):
        open_image(tmp_path / "empty.jpg")


def test_a_folder_that_cannot_be_read_is_given_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/x.jpg", "b/y.jpg")
    scandir = os.scandir

    def forbid(folder: Path) -> object:
        if folder == tmp_path / "a":
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", forbid)  # Root may read anything, so chmod would not do.
    assert found(tmp_path, below=tmp_path) == ["a", "b/y.jpg"]
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path / "a")


def test_folders_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "later/b.jpg")
    stream = find_images([tmp_path])
    assert next(stream).name == "a.jpg"
    make(tmp_path, "later/c.jpg")
    assert [path.name for path in stream] == ["b.jpg", "c.jpg"]


def test_very_deep_folders_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deep = Path(*["d"] * 300)
    deep.mkdir(parents=True)
    make(deep, "a.jpg")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(250)
    try:
        assert list(find_images([Path("d")])) == [deep / "a.jpg"]
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.skipif(sys.platform != "linux", reason="only some file systems take any bytes as a name")
def test_names_that_are_not_utf8_are_found_and_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"words")
    (path,) = find_images([tmp_path])
    with pytest.raises(ImageError, match="not an image"):
        open_image(path)


def test_an_empty_path_is_refused_and_is_not_the_current_folder() -> None:
    with pytest.raises(ImageError, match="empty path"):
        list(find_images([""]))


def test_a_path_with_a_null_character_is_left_to_open_image() -> None:
    (path,) = find_images(["a\0b.jpg"])
    with pytest.raises(ImageError):
        open_image(path)


def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    assert list(find_images([tmp_path])) == []


LEFT_BEHIND = (
    *(
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/b.jpg",
        "@Recycle/b.jpg",
        ".@__thumb/b.jpg",
    ),
    *("$RECYCLE.BIN/$R1.jpg", "$Recycle.Bin/S-1-5-21/$R2.jpg", "System Volume Information/x.png", "FOUND.000/x.jpg"),
    *(
        "__MACOSX/a.jpg",
        "deep/er/__MACOSX/a.jpg",
        "._a.jpg",
        ".AppleDouble/a.jpg",
        ".Trashes/501/a.jpg",
        "lost+found/1.png",
    ),
    *(
        ".thumbnails/1.jpg",
        ".Trash-1000/files/a.jpg",
        ".picasaoriginals/a.jpg",
        ".dtrash/a.jpg",
        ".ipynb_checkpoints/a.png",
    ),
    *("~snapshot/a.jpg", "_gsdata_/_saved_/a.jpg", "P.photoslibrary/resources/derivatives/a.jpg"),
    *("P.photolibrary/Thumbnails/a.jpg", "P.aplibrary/Previews/2/a.jpg"),
    *("Catalog Previews.lrdata/0/a.jpg", "a-masklabel.png", "sub/B-MaskLabel.PNG", "a-condlabel.png"),
)


def test_what_systems_and_programs_leave_behind_is_left_out_and_counted(tmp_path: Path) -> None:
    kept = ["a.jpg", "eaDir.jpg", "masklabel.png", "recycle/b.jpg", "sub/@home.jpg", "sub/lost.jpg"]
    make(tmp_path, *LEFT_BEHIND, *kept)
    omitted = Omitted()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path], omitted=omitted)) == kept
    files = [name for name in LEFT_BEHIND if "/" not in name or name.startswith("sub/")]
    tops = {name.partition("/")[0] for name in LEFT_BEHIND} - set(files) - {"sub", "deep"}
    assert (omitted.images, omitted.folders) == (len(files), len(tops) + 1)
    assert str(omitted) == f"{len(files)} images and {len(tops) + 1} folders left out"
    everything = find_images([tmp_path], omitted=Omitted(()))
    assert len(list(everything)) == len(LEFT_BEHIND) + len(kept)


def test_what_is_left_out_is_not_even_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.jpg", "lost+found/b.jpg")
    scandir = os.scandir

    def forbid(folder: Path) -> object:
        if folder.name == "lost+found":
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", forbid)
    assert found(tmp_path, below=tmp_path) == ["a.jpg"]


def test_what_is_named_is_never_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "a-masklabel.png", "@eaDir/b.jpg", "#recycle/c.jpg", "sub/d-masklabel.png")
    omitted = Omitted()
    named = [tmp_path, tmp_path / "a-masklabel.png", tmp_path / "@eaDir", tmp_path / "#recycle" / "c.jpg"]
    listed = [path.relative_to(tmp_path).as_posix() for path in find_images(named, omitted=omitted)]
    assert listed == ["a.jpg", "a-masklabel.png", "@eaDir/b.jpg", "#recycle/c.jpg"]
    assert omitted.images == 1  # the one in sub
    omitted = Omitted()
    assert len(list(find_images([*named[1:], tmp_path], omitted=omitted))) == 4
    assert (omitted.images, omitted.folders) == (1, 1)  # and #recycle, of which a file was named


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*-mask.png", ["a.jpg", "old/a.jpg", "old/new/b.jpg", "x/old/c.jpg"]),
        ("old", ["a.jpg", "a-mask.png"]),
        ("OLD/", ["a.jpg", "a-mask.png"]),
        ("/old", ["a.jpg", "a-mask.png", "x/old/c.jpg"]),
        ("old/*.jpg", ["a.jpg", "a-mask.png"]),
        ("old/a*", ["a.jpg", "a-mask.png", "old/new/b.jpg", "x/old/c.jpg"]),
        ("[ab].???", ["a-mask.png", "x/old/c.jpg"]),
        ("ld", ["a.jpg", "a-mask.png", "old/a.jpg", "old/new/b.jpg", "x/old/c.jpg"]),
    ],
)
def test_a_pattern_fits_at_any_part_of_a_path_and_all_that_is_below(
    tmp_path: Path, pattern: str, left: list[str]
) -> None:
    make(tmp_path, "a.jpg", "a-mask.png", "old/a.jpg", "old/new/b.jpg", "x/old/c.jpg")
    omitted = Omitted((pattern,))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path], omitted=omitted)) == sorted(
        left
    )


def test_images_that_nothing_reads_are_counted_by_kind(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "1.PSD", "2.psd", "b/3.svg", "notes.txt", ".hidden.psd", "@eaDir/4.psd")
    omitted = Omitted()
    assert len(list(find_images([tmp_path], omitted=omitted))) == 1
    assert str(omitted) == "1 folder left out, 3 in formats that are not read (2 PSD, 1 SVG)"
