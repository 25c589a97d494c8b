"""Images in tars: the same records as for files, whatever the tars are like."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Progress, caption_folder
from captioner.errors import OptionError
from captioner.images.reading import ImageReader
from captioner.images.tars import Tars
from tests.bulk import fakes
from tests.bulk.tarring import colour, cut, good, make_tar, records, run, samples
from tests.small_model import small_preprocessing


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)
    monkeypatch.chdir(tmp_path)
    fakes.SEEN.clear()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tars_are_captioned_in_order_without_unpacking(tmp_path: Path, mode: str, workers: int) -> None:
    for shard in range(3):
        make_tar(Path(f"p-{shard}.tar"), samples(*range(7 * shard, 7 * shard + 7)), mode)
    summary = run("p-{0..2}.tar", workers=workers, batch_size=4)
    assert (summary.captioned, summary.failed) == (21, 0)
    assert records() == [
        record for shard in range(3) for record in good(f"p-{shard}.tar", *range(7 * shard, 7 * shard + 7))
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.jsonl",
        "out.jsonl.journal",
        "p-0.tar",
        "p-1.tar",
        "p-2.tar",
    ]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_kind_become_ids(format_: int) -> None:
    names = {
        "./plain.png": "plain.png",
        "/absolute/x.JPG": "absolute/x.JPG",
        "folder.d/y.webp": "folder.d/y.webp",
        "../up.png": "../up.png",
        "é 🦄.png": "é 🦄.png",
        "new\nline.png": "new\nline.png",
        os.fsdecode(b"\xff.png"): os.fsdecode(b"\xff.png"),
        "/".join(["long" * 20] * 2) + ".png": "/".join(["long" * 20] * 2) + ".png",
    }
    with tarfile.open("t.tar", "w", format=format_, errors="surrogateescape") as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(colour(number))
            tar.addfile(info, io.BytesIO(colour(number)))
    run("t.tar")
    assert records() == [(f"t.tar/{name}", fakes.caption_of(i)) for i, name in enumerate(names.values())]


def test_what_a_sample_is() -> None:
    members = [
        ("README", b"no sample"),
        ("._a.jpg", b"no sample either"),
        ("a.txt", b""),
        ("a.png", colour(1)),
        ("a.seg.png", colour(2)),
        ("b.left.png", colour(3)),
        ("b.json", b""),
        ("c.txt", b""),
        ("d.jpg", colour(4)),
        ("d.png", colour(5)),
        ("e.json", b""),
        ("f.jpg", b"broken"),
        ("g.jpg", b""),
        ("c.cls", b"of the sample c, which has no image here either"),
        ("a.json", b"of the sample a, which has one"),
        ("e.png", colour(6)),
        ("a.png", colour(7)),
        ("x/a.png", colour(8)),
    ]
    make_tar(Path("t.tar"), members)
    summary = run("t.tar")
    assert records() == [
        ("t.tar/a.png", fakes.caption_of(1)),
        ("t.tar/b.left.png", fakes.caption_of(3)),
        ("t.tar/d.jpg", fakes.caption_of(4)),
        ("t.tar/d.png#2", "t.tar/d.png#2: sample d has an image already, which counts"),
        (
            "t.tar/f.jpg",
            "t.tar/f.jpg: not an image in a known format "
            "(JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, JPEG XL, camera raw)",
        ),
        ("t.tar/g.jpg", "t.tar/g.jpg: file is empty"),
        ("t.tar/e.png", fakes.caption_of(6)),
        ("t.tar/a.png#2", "t.tar/a.png#2: sample a has an image already, which counts"),
        ("t.tar/x/a.png", fakes.caption_of(8)),
        ("t.tar/c", "t.tar/c: a sample without an image"),
    ]
    assert (summary.captioned, summary.failed) == (5, 5)


def test_links_folders_and_the_like_are_no_images() -> None:
    with tarfile.open("t.tar", "w") as tar:
        for name, kind in {
            "d.png": tarfile.DIRTYPE,
            "l.png": tarfile.SYMTYPE,
            "h.png": tarfile.LNKTYPE,
            "p.png": tarfile.FIFOTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    run("t.tar")
    link = "a link to /etc/passwd, which is no file in its tar"
    reasons = {"p": "no plain file in its tar, but a device or the like", "l": link, "h": link}
    assert records() == [(f"t.tar/{name}.png", f"t.tar/{name}.png: {reason}") for name, reason in reasons.items()]


BROKEN = "broken, cut off, or no tar"


@pytest.mark.parametrize(
    ("spoil", "found", "said"),
    [
        (lambda tar: tar.unlink(), (), "t.tar: no such file"),
        (lambda tar: tar.write_bytes(b""), (), f"t.tar: {BROKEN} (empty file)"),
        (lambda tar: tar.write_text("words" * 200), (), f"t.tar: {BROKEN} ("),
        (lambda tar: cut(tar, 100), (), f"t.tar: {BROKEN} (truncated header)"),
        # Each sample takes three headers with a block of content each.
        (lambda tar: cut(tar, 512 * 6), (0,), f"t.tar: {BROKEN} (no mark at its end)"),
        (lambda tar: cut(tar, 512 * 6 + 9), (0,), f"t.tar: {BROKEN} (no mark at its end)"),
        (lambda tar: cut(tar, 512 * 11 + 9), (0, 1), f"t.tar: {BROKEN} (unexpected end of data)"),
        (
            lambda tar: tar.write_bytes(tar.read_bytes()[: 512 * 6] + b"x" * 512 * 9),
            (0,),
            f"t.tar: {BROKEN} (no mark at its end)",
        ),
        (lambda tar: make_tar(tar, []), (), "t.tar: holds no images"),
        (lambda tar: make_tar(tar, [("README", b"")]), (), "t.tar: holds no images"),
        (lambda tar: (tar.unlink(), tar.mkdir()), (), "t.tar: cannot be read (not a regular file)"),
        (lambda tar: (tar.unlink(), os.mkfifo(tar)), (), "t.tar: cannot be read (not a regular file)"),
        (
            lambda tar: tar.write_bytes(gzip.compress(tar.read_bytes(), 0)[: 512 * 7]),
            (0,),
            "t.tar: cannot be read (Compressed file ended before the end-of-stream marker was reached)",
        ),
    ],
)
def test_a_broken_tar_is_told_and_the_others_go_on(
    spoil: Callable[[Path], object],
    found: tuple[int, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_tar(Path("s.tar"), samples(11))
    make_tar(Path("u.tar"), samples(12))
    spoil(make_tar(Path("t.tar"), samples(0, 1, 2)))
    run("{s,t,u}.tar")
    told = records()
    assert told[:1] == good("s.tar", 11)
    assert told[-1:] == good("u.tar", 12)
    assert told[-2][0] == "t.tar"
    assert told[-2][1].startswith(said)
    assert f"captioner: {said}" in capsys.readouterr().err
    assert told[1:-2] == good("t.tar", *found)


def test_a_image_that_is_cut_off_has_an_error_of_its_own() -> None:
    tar = make_tar(Path("t.tar"), [("a.png", colour(1)), ("b.png", colour(2) + bytes(2000))])
    cut(tar, 512 * 4)
    run("t.tar")
    assert records() == [
        ("t.tar/a.png", fakes.caption_of(1)),
        ("t.tar/b.png", "t.tar/b.png: cannot be read (the tar ends within it)"),
        (
            "t.tar",
            "t.tar: broken, cut off, or no tar (unexpected end of data); what may follow in it is missing",
        ),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (124, b"\xff" * 12),  # the size, in base 256: -1
        (124, b"\x80" + b"\xff" * 11),  # and far beyond every end
        (156, b"L"),  # a long name, whose length is the image's size
        (156, b"x"),  # extended headers of that length
    ],
)
def test_hostile_headers_end_the_tar_and_take_neither_time_nor_memory(field: int, value: bytes) -> None:
    tar = make_tar(Path("t.tar"), [("a.png", colour(1)), ("b.png", bytes(5 << 20)), ("c.png", colour(2))])
    content = bytearray(tar.read_bytes())
    header = content[1024:1536]
    header[field : field + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[1024:1536] = header
    tar.write_bytes(content)
    tracemalloc.start()
    listed = list(Tars(["t.tar"]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert listed[0].name == "t.tar/a.png"
    assert listed[-1].name == "t.tar"
    assert len(listed) <= 3
    assert peak < 3 << 20


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_in_a_tar_is_an_error_at_worst(data: st.DataObject) -> None:
    content = bytearray(Path(make_tar(Path("t.tar"), samples(0, 1))).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 300))] = data.draw(st.binary(max_size=200))
    if data.draw(st.booleans()):
        content = bytearray(gzip.compress(bytes(content)))[: data.draw(st.integers(0, 2000))]
    Path("t.tar").write_bytes(content)
    listed = list(Tars(["t.tar"]))
    assert listed
    assert len({member.name for member in listed}) == len(listed)
    reader = ImageReader(small_preprocessing(), 1000)
    assert all((loaded.pixels is None) == (loaded.error is not None) for loaded in map(reader, listed))


def test_a_tar_that_changes_while_it_is_read_gives_errors_and_no_wrong_captions() -> None:
    (first, second) = list(Tars([str(make_tar(Path("t.tar"), samples(1, 2)))]))
    reader = ImageReader(small_preprocessing(), 1000)
    assert reader(first).error is None
    with Path("t.tar").open("r+b") as tar:
        tar.write(b"x")
    os.utime("t.tar", ns=(1, 1))
    assert "the tar has changed since this run began" in str(reader(second).error)


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_does_not_grow_with_the_tar(compressed: bool) -> None:
    one = colour(1) + bytes(1 << 20)
    make_tar(Path("t.tar"), [(f"{n}.png", one) for n in range(12)], "w:gz" if compressed else "w")
    reader = ImageReader(small_preprocessing(), 1000)
    tracemalloc.start()
    assert sum(reader(member).error is None for member in Tars(["t.tar"])) == 12
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20


def test_a_reader_with_an_open_tar_can_be_sent_to_another_process() -> None:
    (member,) = Tars([str(make_tar(Path("t.tar"), samples(1)))])
    reader = ImageReader(small_preprocessing(), 1000)
    expected = reader(member).identity
    assert pickle.loads(pickle.dumps(reader))(member).identity == expected


def test_what_tars_do_not_go_with_is_refused(tmp_path: Path) -> None:
    make_tar(Path("t.tar"), samples(1))
    choices = FolderOptions(input_tar=("t.tar",))
    with pytest.raises(OptionError, match="`input_tar` comes without other images"):
        caption_folder(["x.jpg"], choices, fakes.colour_model(), Progress())


def joined(*tars: bytes) -> Path:
    Path("t.tar").write_bytes(b"".join(tars))
    return Path("t.tar")


def tar_of(*numbers: int) -> bytes:
    return make_tar(Path("part.tar"), samples(*numbers)).read_bytes()


@pytest.mark.parametrize(
    "join",
    [
        lambda a, b, c: joined(a, b, c),
        lambda a, b, c: joined(a, bytes(512 * 777), b, c, bytes(512)),
        lambda a, b, c: joined(a.rstrip(b"\0") + bytes(-len(a.rstrip(b"\0")) % 512 + 512), b, c),  # one block of zeros
        lambda a, b, c: joined(*map(gzip.compress, (a, b, c))),
        lambda a, b, c: joined(*map(lzma.compress, (a, b, c))),
        lambda a, b, c: joined(bz2.compress(a + b), bz2.compress(c)),
    ],
)
def test_a_tar_behind_the_end_of_another_is_read_too(join: Callable[[bytes, bytes, bytes], Path]) -> None:
    join(tar_of(0, 1), tar_of(2), tar_of(3, 4))
    run("t.tar")
    assert records() == good("t.tar", 0, 1, 2, 3, 4)
    assert run("t.tar").skipped == 5


@pytest.mark.parametrize(
    ("behind", "found", "said"),
    [
        (b"words" * 200, (0,), "what follows the mark at its end is no tar, and is missing"),
        (b"words", (0,), "what follows the mark at its end is no tar, and is missing"),
        (None, (0, 1), f"{BROKEN} (unexpected end of data); what may follow in it is missing"),
        (bytes(512 * 9 + 3), (0,), ""),
    ],
)
def test_what_cannot_be_read_behind_the_end_is_told(behind: bytes | None, found: tuple[int, ...], said: str) -> None:
    joined(tar_of(0), tar_of(1).rstrip(b"\0") if behind is None else behind)
    run("t.tar")
    assert records() == good("t.tar", *found) + ([("t.tar", f"t.tar: {said}")] if said else [])


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress], ids=["bz2", "xz"])
@pytest.mark.parametrize("workers", [0, 2])
def test_tars_by_bzip2_and_xz_are_read_whatever_they_are_called(
    compress: Callable[[bytes], bytes], workers: int
) -> None:
    whole = compress(tar_of(0, 1, 2))
    joined(whole)
    run("t.tar", workers=workers)
    assert records() == good("t.tar", 0, 1, 2)
    joined(whole[:-20])
    run("t.tar", output="cut.jsonl")
    assert records("cut.jsonl")[-1][0] == "t.tar"


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\x28\xb5\x2f\xfd\x04", "compressed by zstd"),
        (b"\x04\x22\x4d\x18", "compressed by lz4"),
        (b"PK\x03\x04", "a zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    ],
)
def test_other_archives_are_told_as_what_they_are(start: bytes, said: str) -> None:
    joined(start + bytes(600))
    run("t.tar")
    reason = f"cannot be read (it is {said}; unpack it first, or make it a tar, plain or by gzip, bzip2 or xz)"
    assert records() == [("t.tar", f"t.tar: {reason}")]


def test_a_plain_tar_may_begin_like_another_archive() -> None:
    make_tar(Path("t.tar"), [("BZh9.png", colour(3))])
    run("t.tar")
    assert records() == [("t.tar/BZh9.png", fakes.caption_of(3))]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_lead_to_files_of_their_tar_that_lie_before_or_behind_them(mode: str) -> None:
    links = {
        "hard.png": (tarfile.LNKTYPE, "blobs/one"),
        "soft.png": (tarfile.SYMTYPE, "blobs/one"),
        "deep/er/soft.png": (tarfile.SYMTYPE, "../../blobs/./one"),
        "blobs/soft.png": (tarfile.SYMTYPE, "two.png"),
        "again.png": (tarfile.SYMTYPE, "hard.png"),
        "absent.png": (tarfile.SYMTYPE, "blobs/none"),
        "out.png": (tarfile.SYMTYPE, "/etc/passwd"),
        "later.png": (tarfile.LNKTYPE, "z.png"),
        "first.png": (tarfile.SYMTYPE, "deep/second"),
        "deep/second": (tarfile.SYMTYPE, "third.png"),
        "deep/third.png": (tarfile.SYMTYPE, "../z.png"),
        "one.png": (tarfile.SYMTYPE, "other.png"),
        "other.png": (tarfile.SYMTYPE, "one.png"),
        "self.png": (tarfile.SYMTYPE, "self.png"),
    }
    with tarfile.open("t.tar", mode) as tar:  # type: ignore[call-overload]
        for name, number in {"./blobs/one": 1, "blobs/two.png": 2}.items():
            info = tarfile.TarInfo(name)
            info.size = len(colour(number))
            tar.addfile(info, io.BytesIO(colour(number)))
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        info = tarfile.TarInfo("z.png")
        info.size = len(colour(9))
        tar.addfile(info, io.BytesIO(colour(9)))
    run("t.tar")
    told = dict(records())
    numbers = {"hard": 1, "soft": 1, "deep/er/soft": 1, "blobs/soft": 2, "again": 1, "blobs/two": 2, "z": 9}
    numbers |= {"later": 9, "first": 9, "deep/third": 9}
    for name, number in numbers.items():
        assert told.pop(f"t.tar/{name}.png") == fakes.caption_of(number)
    assert told == {
        f"t.tar/{name}": f"t.tar/{name}: a link to {target}, which is no file in its tar"
        for name, (_, target) in links.items()
        if name.split(".")[0] in ("absent", "out", "self", "one", "other")
    }


def test_what_is_left_out_of_folders_is_left_out_of_tars() -> None:
    kept = ["a.png", "x/b.png"]
    out = ["__MACOSX/a.png", "x/__MACOSX/._b.png", "._c.png", ".cache/d.png", "@eaDir/e.png", "a-masklabel.png"]
    make_tar(Path("t.tar"), [(name, colour(1)) for name in [*kept, *out]])
    summary = run("t.tar")
    assert [name for name, _ in records()] == [f"t.tar/{name}" for name in kept]
    assert str(summary).endswith("6 images left out")
    run("t.tar", output="some.jsonl", exclude=("x/*",))
    assert [name for name, _ in records("some.jsonl")] == ["t.tar/a.png"]
    assert run("t.tar", output="all.jsonl", include_all=True).captioned == len(kept) + len(out) - 2  # ._*: no samples
