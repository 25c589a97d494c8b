from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import OptionError
from captioner.images import find
from captioner.images.find import list_images, read_list

NAMES = st.lists(st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name), min_size=1)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", []),
        (b"a.jpg", ["a.jpg"]),
        (b"a.jpg\nb c.jpg\n", ["a.jpg", "b c.jpg"]),
        (b"\n\na.jpg\r\n\r\nb.jpg\r\n", ["a.jpg", "b.jpg"]),
        (b"\xef\xbb\xbfa.jpg\n", ["a.jpg"]),
        (b"a\n.jpg\0b\r\0", ["a\n.jpg", "b\r"]),
        (b"only\n.jpg\0", ["only\n.jpg"]),
        (b"a.jpg\0b.jpg", ["a.jpg", "b.jpg"]),
        (b"\xff\xfe.jpg\n\xf0\x9f\xa6\x84.jpg", ["\udcff\udcfe.jpg", "🦄.jpg"]),
        (b" a.jpg \n# b.jpg\n", [" a.jpg ", "# b.jpg"]),
    ],
)
def test_lists(tmp_path: Path, content: bytes, names: list[str]) -> None:
    (tmp_path / "list").write_bytes(content)
    assert list(read_list(str(tmp_path / "list"))) == names


@given(NAMES)
def test_any_names_survive_when_they_end_in_nul(names: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find, "_BLOCK_BYTES", 32)
        stream = io.TextIOWrapper(io.BytesIO(b"".join(name + b"\0" for name in names)))
        patch.setattr(sys, "stdin", stream)
        marked = names[0].startswith(b"\xef\xbb\xbf")
        expected = [names[0].removeprefix(b"\xef\xbb\xbf"), *names[1:]] if marked else names
        assert [os.fsencode(name) for name in read_list("-")] == [name for name in expected if name]


def test_a_list_is_read_as_far_as_it_is_asked_for(tmp_path: Path) -> None:
    names = "".join(f"{number}.jpg\n" for number in range(100_000))
    (tmp_path / "list").write_text(names)
    stream = read_list(str(tmp_path / "list"))
    assert [next(stream), next(stream)] == ["0.jpg", "1.jpg"]
    assert sum(1 for _ in stream) == 99_998


def test_lists_that_cannot_be_read_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"`from_file` .*absent\\n: No such file or directory"):
        list(read_list(f"{tmp_path}/absent\n"))
    with pytest.raises(OptionError, match="Is a directory"):
        list(read_list(str(tmp_path)))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(OptionError, match="`from_file` -: standard input is closed"):
        list(read_list("-"))


def test_a_list_names_folders_too_and_comes_after_the_paths(tmp_path: Path) -> None:
    for name in ("a.jpg", "b/c.jpg", "d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list").write_text(f"{tmp_path / 'b'}\n{tmp_path / 'd.jpg'}\n{tmp_path / 'a.jpg'}\n")
    found = list_images([str(tmp_path / "d.jpg")], str(tmp_path / "list"), recursive=True)
    assert [path.name for path in found] == ["d.jpg", "c.jpg", "a.jpg"]
