from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.datasets.codes import open_vectors
from captioner.errors import DatasetError
from tests.vectors import fake_codes


def header_only(header: bytes, *, length: int | None = None, version: int = 1) -> bytes:
    """A file of this header, which may lie about its length."""
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack(width, length or len(header)) + header


def described(shape: str, descr: str = "'<f4'") -> bytes:
    return header_only(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_one_vector_an_image_is_one_region(tmp_path: Path, dtype: type, order: str) -> None:
    array = np.array(fake_codes(7), dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "x.npy", array)
    vectors = open_vectors(tmp_path / "x.npy")
    assert len(vectors) == 7
    assert vectors.array.shape == (7, 1, 12)
    assert vectors.array.dtype == dtype
    assert (vectors.array[:, 0] == array).all()
    assert vectors.name(3) == f"{tmp_path / 'x.npy'}#3"


def test_regions_stay_as_they_are(tmp_path: Path) -> None:
    array = fake_codes(5, regions=3)
    np.save(tmp_path / "x.npy", array)
    assert (open_vectors(tmp_path / "x.npy").array == array).all()


def test_the_array_is_mapped_not_loaded(tmp_path: Path) -> None:
    """A file of 64 GB, all holes, opens at once, and its last row can be read."""
    path = tmp_path / "x.npy"
    rows = 1 << 24
    content = described(f"({rows}, 1024)")
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + rows * 1024 * 4)
    vectors = open_vectors(path)
    assert not vectors.array[rows - 1].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a NumPy array"),
        (b"PK\x03\x04 an npz file", "is not a NumPy array"),
        (pickle.dumps([1, 2, 3]), "is not a NumPy array"),
        (b"\x93NUMPY", "damaged NumPy array"),
        (b"\x93NUMPY\x01\x00\x76", "damaged NumPy array"),
        (b"\x93NUMPY\x09\x00\x76\x00\x00\x00", "damaged NumPy array"),
        (header_only(b"{}", length=5000), "damaged NumPy array"),
        (header_only(b"rubbish\n"), "damaged NumPy array"),
        (header_only(b"(" * 5000), "damaged NumPy array"),
        (header_only(b"[" * 5000 + b"]" * 4000), "damaged NumPy array"),
        (header_only(b"\xff\xfe" * 50), "damaged NumPy array"),
        (header_only(b"", length=60_000), "header of 60,000 bytes is too long"),
        (header_only(b"", length=1 << 31, version=2), "header of 2,147,483,648 bytes is too long"),
        (described("(3, 4)", "'|O'"), "holds Python objects, which are never loaded"),
        (described("(3, 4)", "'<f8'"), r"holds the type float64; save numbers as .*astype\('float32'\)"),
        (described("(3, 4)", "'>f4'"), "holds the type >f4"),
        (described("(3, 4)", "'<i4'"), "holds the type int32"),
        (described("(3, 4)", "[('a', '<f4')]"), "holds the type"),
        (described("(3, 4)", "'<U9'"), "holds the type"),
        (described("(3, 4)", "'nonsense'"), "damaged NumPy array"),
        (described("()"), r"has the shape \(\), not"),
        (described("(12,)"), r"has the shape \(12,\), not \(images, features\)"),
        (described("(1, 2, 3, 4)"), r"has the shape \(1, 2, 3, 4\), not"),
        (described("(0, 12)"), r"has the shape \(0, 12\), not"),
        (described("(3, 0)"), r"has the shape \(3, 0\), not"),
        (described("(-3, 4)"), r"has the shape \(-3, 4\), not"),
        (described("(1, 2000000)"), "at most 1,048,576 features"),
        (described("(9" + "9" * 3000 + ", 9)"), "at most 1,048,576 features"),
        (described("(3, 4)") + bytes(47), r"cut short: \(3, 4\) takes 48 bytes, not 47"),
        (described("(3, 4)") + bytes(50), "holds 2 bytes behind its array"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as failure:
        open_vectors(path)
    assert str(failure.value).startswith(f"{path}: ")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(("make", "message"), [(lambda path: None, "no such file"), (Path.mkdir, "is not a file")])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "x.npy")
    with pytest.raises(DatasetError, match=message):
        open_vectors(tmp_path / "x.npy")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    np.save(tmp_path / "x.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match="Python objects"):
        open_vectors(tmp_path / "x.npy")
    assert not (tmp_path / "sprung").exists()


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_file_opens_or_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    """Noise over any part of a true file."""
    path = tmp_path_factory.getbasetemp() / "noisy.npy"
    np.save(path, fake_codes(4))
    content = path.read_bytes()
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    refusal = ""
    try:
        assert open_vectors(path).array.ndim == 3
    except DatasetError as error:
        refusal = str(error)
    assert "\n" not in refusal


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_without_numbers_are_named(tmp_path: Path, dtype: type) -> None:
    array = fake_codes(6).astype(dtype)
    array[1, 3], array[4, 0] = np.nan, np.inf
    np.save(tmp_path / "x.npy", array)
    vectors = open_vectors(tmp_path / "x.npy")
    problems = vectors.problems(range(6), vectors.array[:])
    assert list(problems) == [1, 4]
    assert problems[4] == f"{tmp_path / 'x.npy'}#4: holds values that are infinite or not numbers"


def test_a_number_that_would_overflow_later_is_a_problem_too(tmp_path: Path) -> None:
    array = fake_codes(2)
    array[1, 3] = 1e30
    np.save(tmp_path / "x.npy", array)
    vectors = open_vectors(tmp_path / "x.npy")
    assert list(vectors.problems([5, 7], vectors.array[:])) == [7]


def test_blocks_cover_the_whole_array_once(tmp_path: Path) -> None:
    array = np.arange(3000 * 2048, dtype=np.float32).reshape(3000, 2048)
    np.save(tmp_path / "x.npy", array)
    blocks = list(open_vectors(tmp_path / "x.npy").blocks())
    assert len(blocks) > 1
    assert [row for rows, _ in blocks for row in rows] == list(range(3000))
    assert (np.concatenate([block[:, 0] for _, block in blocks]) == array).all()
