from __future__ import annotations

import csv
import gzip
import io
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioner.datasets import DatasetOptions, present, read_records
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from captioner.datasets import Record


def _read(folder: Path, text: str | bytes, name: str = "captions.csv", split: str = "all") -> list[Record]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_records(DatasetOptions((f"table:{folder}",)), split)


def _captions(records: list[Record]) -> dict[int | str, tuple[str, ...]]:
    return {record.image_id: record.captions for record in records}


def test_rows_of_one_image_are_joined_also_when_scattered(tmp_path: Path) -> None:
    text = "image,caption\nb.jpg,A dog.\na.jpg,A cat.\nb.jpg,Dog.\n"
    assert _captions(_read(tmp_path, text)) == {"b.jpg": ("A dog.", "Dog."), "a.jpg": ("A cat.",)}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_spreadsheet_habits_are_understood(tmp_path: Path, bom: bytes, delimiter: str, newline: str) -> None:
    rows = [
        ["Image ", "source", "Caption"],
        ["a.jpg", "me", f'A "cat"{delimiter} and\nmore'],
        [],
        ["b.jpg", "", "Ü"],
    ]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=newline).writerows(rows)
    read = _read(tmp_path, bom + out.getvalue().encode())
    assert _captions(read) == {"a.jpg": (f'A "cat"{delimiter} and\nmore',), "b.jpg": ("Ü",)}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_caption_survives_csv_and_jsonl(tmp_path: Path, captions: list[str]) -> None:
    captions = [text for text in captions if text.strip()[:1] not in ("[", "(")]  # may be lists of captions
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["image", "caption"], ["a.jpg", "x"], *(["a.jpg", text] for text in captions)])
    lines = "".join(json.dumps({"image": "a.jpg", "caption": text}) + "\n" for text in ["x", *captions])
    expected = {"a.jpg": ("x", *(text for text in captions if text.strip()))}
    (tmp_path / "captions.jsonl").unlink(missing_ok=True)
    assert _captions(_read(tmp_path, out.getvalue())) == expected
    (tmp_path / "captions.csv").unlink()
    assert _captions(_read(tmp_path, lines, "captions.jsonl")) == expected


def test_split_column_with_synonyms(tmp_path: Path) -> None:
    text = "image,caption,split\na.jpg,A.,train\nb.jpg,B.,Validation\nc.jpg,C.,dev\nd.jpg,D.,test\n"
    assert [record.split for record in _read(tmp_path, text)] == ["train", "val", "val", "test"]
    assert list(_captions(_read(tmp_path, text, split="val"))) == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_image_ids_are_whole_numbers(tmp_path: Path, name: str) -> None:
    text = "image,caption,image_id\na.jpg,A.,17\na.jpg,B.,17\n"
    if name.endswith("jsonl"):
        rows = [{"image": "a.jpg", "caption": caption, "image_id": 17} for caption in ("A.", "B.")]
        text = "\n".join(json.dumps(row) for row in rows)
    assert _captions(_read(tmp_path, text, name)) == {17: ("A.", "B.")}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("captions.csv", "", "empty"),
        (
            "captions.csv",
            "photo,text\na.jpg,A.\n",
            r"'image' and 'caption' are needed \(found: photo, text\)",
        ),
        ("captions.csv", "image,caption,image\na.jpg,A.,b\n", "two columns have the same name"),
        ("captions.csv", "image,caption\na.jpg,A cat, and a dog\n", "line 2 has 3 fields, the header 2"),
        ("captions.csv", "image,caption\na.jpg\n", "line 2 has 1 fields"),
        ("captions.csv", 'image,caption\na.jpg,"A cat\n', "line 2 is not valid CSV"),
        ("captions.csv", 'image,caption\na.jpg,"A" cat\n', "line 2 is not valid CSV"),
        ("captions.csv", "image,caption\n,A cat\n", "line 2 lacks a text 'image'"),
        (
            "captions.csv",
            "image,caption,split\na.jpg,A.,evaluation\n",
            "line 2 has the unknown split 'evaluation'",
        ),
        ("captions.csv", "image,caption,split\na.jpg,A.,\n", "line 2 has the unknown split ''"),
        (
            "captions.csv",
            "image,caption,split\na.jpg,A.,train\na.jpg,B.,val\n",
            "line 3 gives a.jpg another split",
        ),
        ("captions.csv", "image,caption,image_id\na.jpg,A.,1.5\n", "line 2 has the image_id '1.5'"),
        (
            "captions.csv",
            "image,caption,image_id\na.jpg,A.,1\na.jpg,B.,2\n",
            "line 3 gives a.jpg another split or",
        ),
        (
            "captions.csv",
            "image,caption,image_id\na.jpg,A.,1\nb.jpg,B.,1\n",
            "line 3 gives b.jpg the image_id 1 of a",
        ),
        ("captions.csv", "image,caption\n../a.jpg,A.\n", "outside the folder"),
        ("captions.csv", b"image,caption\na.jpg,caf\xe9\n", "not UTF-8"),
        ("captions.jsonl", '{"image": "a.jpg", "caption": "A."}\n{"image": \n', "line 2 is not valid JSON"),
        ("captions.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("captions.jsonl", '\n{"image": "a.jpg"}\n', "line 2 lacks a text 'image' or a text 'caption'"),
        ("captions.jsonl", '{"image": "a.jpg", "caption": ["A.", 3]}', "line 1 lacks"),
        ("captions.jsonl", '{"image": "a.jpg", "caption": {"en": "A."}}', "line 1 lacks"),
        ("captions.json", '[{"image": "a.jpg", "caption": "A."}, {"image": "b.jpg"}]', "entry 1 lacks a text 'image'"),
        ("captions.json", '{"a.jpg": "A."}', "not a list of objects with 'image' and 'caption'"),
        (
            "captions.csv",
            b"image,caption\n" + b"a.jpg,A.\n" * 2000 + b"a.jpg,caf\xe9\n",
            r"not UTF-8 text \(line 2,002\)",
        ),
        ("captions.jsonl", '{"image": "a.jpg", "caption": "A.", "image_id": true}', "image_id True"),
        ("captions.jsonl", '{"image": "a.jpg", "caption": "A.", "split": 3}', "unknown split 3"),
    ],
)
def test_malformed_tables_name_the_file_and_line(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        _read(tmp_path, text, name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", "\ufeffFile_Name;Text\r\na.jpg;A.\r\n;\r\n\r\na.jpg;B.\r\n"),
        ("captions.csv", "image_path,caption_1,caption_2,label\na.jpg,A.,B.,3\n"),
        ("captions.csv", "path,captions\na.jpg,\"['A.', 'B.']\"\n"),
        ("captions.tsv", "filename\tcaption\na.jpg\tA.\na.jpg\tB.\n"),
        ("captions.jsonl", '{"image": "a.jpg", "caption": ["A.", "B."]}\r\n'),
        ("captions.jsonl", '{"Image": "a.jpg", "Captions": ["A.", " ", "B."]}'),
        ("captions.json", '[{"image": "a.jpg", "caption": "A."}, {"image": "./a.jpg", "caption": "B."}]'),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_other_forms_of_tables(tmp_path: Path, name: str, text: str, compressed: bool) -> None:
    data = gzip.compress(text.encode()) if compressed else text.encode()
    (tmp_path / f"{name}{'.gz' * compressed}").write_bytes(data)
    assert _captions(read_records(DatasetOptions((f"table:{tmp_path}",)), "all")) == {"a.jpg": ("A.", "B.")}


def test_the_column_of_captions_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text('image,raw,caption\na.jpg,"[""A.""]",no\n')
    options = DatasetOptions((f"table:{tmp_path}",), caption_column="Raw")
    assert _captions(read_records(options, "all")) == {"a.jpg": ("A.",)}
    with pytest.raises(DatasetError, match=r"lacks .* or a text 'alt'; .*found: image, raw, caption.*`caption_column`"):
        read_records(DatasetOptions((f"table:{tmp_path}",), caption_column="alt"), "all")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(("7", "08"), [7, 8]), (("7", "0054c91397f2fe05"), ["7", "0054c91397f2fe05"]), (("a", "b"), ["a", "b"])],
)
def test_image_ids_are_numbers_where_all_are(tmp_path: Path, ids: tuple[str, str], expected: list[int | str]) -> None:
    records = _read(tmp_path, f"image,caption,image_id\n1,A.,{ids[0]}\n2,B.,{ids[1]}\n")
    assert [record.image_id for record in records] == expected
    assert [record.image_id for record in _read(tmp_path, "image,caption\n1,A.\n2,B.\n")] == ["1", "2"]


def test_paths_of_other_systems_and_through_the_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("sub/a.jpg", "b.jpg"):
        (tmp_path / "images" / name).touch()
    text = (
        f"image,caption\nsub\\a.jpg,A.\nsub/a.jpg,B.\nimages/b.jpg,C.\n{tmp_path}/images/b.jpg,D.\nimages\\b.jpg,E.\n"
    )
    assert _captions(_read(tmp_path, text)) == {"sub/a.jpg": ("A.", "B."), "b.jpg": ("C.", "D.", "E.")}
    with pytest.raises(DatasetError, match="outside the folder"):
        _read(tmp_path, "image,caption\n..\\a.jpg,A.\n")


def test_header_alone_is_an_empty_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no captioned image"):
        _read(tmp_path, "image,caption\n")


def test_empty_captions_are_dropped(tmp_path: Path) -> None:
    assert _captions(_read(tmp_path, "image,caption\na.jpg, \na.jpg,A.\nb.jpg,\n")) == {"a.jpg": ("A.",)}


def test_which_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("image,caption\nmine.jpg,A.\n")
    options = DatasetOptions((f"table:{tmp_path}",))
    assert read_records(options, "all")[0].image_id == "mine.jpg"
    (tmp_path / "other.csv").write_text("image,caption\nother.jpg,A.\n")
    with pytest.raises(DatasetError, match=r"mine\.csv, other\.csv\); say which with `annotations`"):
        read_records(options, "all")
    named = DatasetOptions((f"table:{tmp_path}",), annotations=str(tmp_path / "other.csv"))
    assert read_records(named, "all")[0].image_id == "other.jpg"
    (tmp_path / "captions.jsonl").write_text('{"image": "usual.jpg", "caption": "A."}')
    assert read_records(options, "all")[0].image_id == "usual.jpg"


def test_where_the_images_are(tmp_path: Path) -> None:
    assert _read(tmp_path, "image,caption\na.jpg,A.\n")[0].path == tmp_path / "a.jpg"
    (tmp_path / "images").mkdir()
    assert _read(tmp_path, "image,caption\ns/a.jpg,A.\n")[0].path == tmp_path / "images" / "s" / "a.jpg"
    (tmp_path / "photos").mkdir()
    options = DatasetOptions(("table",), annotations=str(tmp_path / "captions.csv"), images=str(tmp_path / "photos"))
    assert read_records(options, "all")[0].path == tmp_path / "photos" / "s" / "a.jpg"


def _names(folder: Path, split: str, holdout: float = 0.05, holdout_seed: int = 0) -> set[int | str]:
    options = DatasetOptions((f"table:{folder}",), holdout=holdout, holdout_seed=holdout_seed)
    return {record.image_id for record in read_records(options, split)}


def test_held_out_images_are_seeded_disjoint_and_independent_of_row_order(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,Caption {j}\n" for i in range(40) for j in range(2)]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(rows))
    train, val = _names(tmp_path, "train"), _names(tmp_path, "val")
    assert (len(train), len(val), train & val) == (38, 2, set())
    assert train | val == _names(tmp_path, "all")
    assert len(_names(tmp_path, "val", holdout=0.25)) == 10
    assert _names(tmp_path, "val", holdout=0.25, holdout_seed=1) != _names(tmp_path, "val", holdout=0.25)
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(reversed(rows)))
    assert _names(tmp_path, "val") == val


def test_held_out_share_of_tiny_tables_and_of_zero(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,A.\nb.jpg,B.\n")
    assert (len(_names(tmp_path, "train")), len(_names(tmp_path, "val"))) == (1, 1)
    assert len(_names(tmp_path, "train", holdout=0.99)) == 1
    assert len(_names(tmp_path, "train", holdout=0.0)) == 2
    with pytest.raises(DatasetError, match="no captioned image in the split 'val'"):
        _names(tmp_path, "val", holdout=0.0)
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,A.\n")
    assert _names(tmp_path, "train") == {"a.jpg"}


def test_the_real_table(real_data: Path) -> None:
    records = read_records(DatasetOptions((f"table:{real_data / 'mixed'}",)), "all")
    splits = [record.split for record in records]
    assert (splits.count("train"), splits.count("val")) == (5488, 136)
    assert sum(len(record.captions) for record in records) == 20_169
    present(records, skip_missing=False)


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("['a grey picture', 'a ramp', 'a gradient']", ("a grey picture", "a ramp", "a gradient")),
        ('["a dog\'s bowl", \'it "is"\']', ("a dog's bowl", 'it "is"')),
        ('["caf\\u00e9", "\\ud83e\\udd84"]', ("café", "🦄")),
        ("['a grey picture' 'a ramp'\n 'a gradient']", ("a grey picture", "a ramp", "a gradient")),
        ("('a dog', 'it\\'s here',)", ("a dog", "it's here")),
        ("[np.str_('a dog'), np.str_('a cat')]", ("a dog", "a cat")),
        ("[ 'one' ]", ("one",)),
        ("['a dog', ' ']", ("a dog",)),
        ("[a dog] and [a cat]", ("[a dog] and [a cat]",)),
        ("a sign: ['stop']", ("a sign: ['stop']",)),
        ("[1, 2]", ("[1, 2]",)),
        ('"quoted"', ('"quoted"',)),
    ],
)
def test_a_list_in_a_cell_is_several_captions(tmp_path: Path, cell: str, captions: tuple[str, ...]) -> None:
    with (tmp_path / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), ("a.jpg", cell), ("a.jpg", "another")])
    (record,) = read_records(DatasetOptions((f"table:{tmp_path}",)), "all")
    assert record.captions == (*captions, "another")


@pytest.mark.parametrize("cell", ["['a dog', 3]", "['a dog' nan]", "['a dog', ...]", "['a', None]", '["a", null]'])
def test_a_list_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, cell: str) -> None:
    with (tmp_path / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), ("a.jpg", "fine"), ("a.jpg", cell)])
    with pytest.raises(DatasetError, match="line 3 holds a list of captions that cannot be read; write one row a cap"):
        read_records(DatasetOptions((f"table:{tmp_path}",)), "all")


def test_one_image_under_several_spellings_is_one_image(tmp_path: Path) -> None:
    names = ["a.jpg", "./a.jpg", "sub/../a.jpg", f"{tmp_path}/a.jpg", "sub//b.jpg", "sub/./b.jpg"]
    table = "".join(f"{name},caption {place}\n" for place, name in enumerate(names))
    (tmp_path / "captions.csv").write_text(f"image,caption\n{table}")
    first, second = read_records(DatasetOptions((f"table:{tmp_path}",)), "all")
    assert (first.image_id, first.path, len(first.captions)) == ("a.jpg", tmp_path / "a.jpg", 4)
    assert (second.image_id, second.path, len(second.captions)) == ("sub/b.jpg", tmp_path / "sub" / "b.jpg", 2)
