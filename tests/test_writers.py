from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.caption import Caption
from captioner.records import Record
from captioner.writers import WRITERS, Coco, Csv, JsonLines, Text


def written(caption: str, log_prob: float, confidence: float | None = None) -> Caption:
    return Caption(caption, log_prob, confidence=confidence)


# Names as file systems hold them: any bytes, those that are no UTF-8 as halves of characters.
NAMES = st.binary(min_size=1, max_size=12).map(lambda name: name.decode("utf-8", "surrogateescape"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ENTRIES = st.one_of(
    st.builds(
        lambda image, captions: Record(image, tuple(captions), None, 7),
        NAMES,
        st.lists(st.builds(written, TEXTS, st.floats(-1e3, 0), st.none() | st.floats(0, 1)), min_size=1, max_size=3),
    ),
    st.builds(lambda image, error: Record(image, (), error, 7), NAMES, TEXTS.filter(bool)),
)


def whole(kind: str, entries: list[Record]) -> bytes:
    return b"".join(WRITERS[kind]().pieces(entries))


@given(st.lists(ENTRIES, max_size=5))
def test_json_lines_hold_every_name_and_text_exactly(entries: list[Record]) -> None:
    text = b"".join(JsonLines(several=True).pieces(entries)).decode()
    records = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [record["image"] for record in records] == [entry.image for entry in entries]
    for record, entry in zip(records, entries, strict=True):
        assert record.get("error") == entry.error
        captions = [written(**line) for line in record.get("captions", [])]
        assert captions == list(entry.captions)
        assert all(None not in line.values() for line in record.get("captions", []))


@given(st.lists(ENTRIES, max_size=5))
def test_csv_is_rfc_4180(entries: list[Record]) -> None:
    text = whole("csv", entries).decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert header == ["image", "caption", "log_prob", "error"]
    name = {entry.image: entry.image.encode("utf-8", "backslashreplace").decode() for entry in entries}
    expected = (
        [
            [name[entry.image], caption.text, str(caption.log_prob), ""]
            for entry in entries
            for caption in entry.captions
        ]
        if all(entry.error is None for entry in entries)
        else None
    )
    if expected is not None:
        assert rows == expected
    assert [row[3] for row in rows if row[3]] == [entry.error for entry in entries if entry.error]
    assert text.startswith("image,caption,log_prob,error\r\n")
    assert text.endswith("\r\n")


@given(st.lists(ENTRIES, max_size=5))
def test_text_has_one_printable_line_a_caption(entries: list[Record]) -> None:
    lines = whole("text", entries).decode().split("\n")[:-1]
    assert len(lines) == sum(len(entry.captions) for entry in entries)
    assert all(part.isprintable() for line in lines for part in line.split("\t"))
    assert all(line.count("\t") == 1 for line in lines)


@given(st.lists(ENTRIES, max_size=5))
def test_coco_is_one_json_list_of_the_best_captions(entries: list[Record]) -> None:
    records = json.loads(whole("coco", entries))
    assert records == [{"image_id": 7, "caption": entry.captions[0].text} for entry in entries if entry.captions]


def test_what_the_formats_look_like() -> None:
    entries = [
        Record('a"b.jpg', (Caption("A dog, wet.", -1.5), Caption("A cat.", -2.25)), None, 1),
        Record("c.jpg", (), "c.jpg: no such file", 2),
        Record("d.jpg", (Caption("Ein Café.", -3.0),), None, 3),
    ]
    assert whole("text", entries).decode() == 'a"b.jpg\tA dog, wet.\na"b.jpg\tA cat.\nd.jpg\tEin Café.\n'
    assert b"".join(Text(log_prob=True).pieces(entries[2:])).decode() == "d.jpg\tEin Café.\t-3.00\n"
    assert whole("jsonl", entries).decode() == (
        '{"image": "a\\"b.jpg", "caption": "A dog, wet.", "log_prob": -1.5}\n'
        '{"image": "c.jpg", "error": "c.jpg: no such file"}\n'
        '{"image": "d.jpg", "caption": "Ein Café.", "log_prob": -3.0}\n'
    )
    assert whole("csv", entries).decode() == (
        "image,caption,log_prob,error\r\n"
        '"a""b.jpg","A dog, wet.",-1.5,\r\n'
        '"a""b.jpg",A cat.,-2.25,\r\n'
        "c.jpg,,,c.jpg: no such file\r\n"
        "d.jpg,Ein Café.,-3.0,\r\n"
    )
    assert whole("coco", entries).decode() == (
        '[\n{"image_id": 1, "caption": "A dog, wet."},\n{"image_id": 3, "caption": "Ein Café."}\n]\n'
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_formats_that_grow_can_be_appended_to(kind: str) -> None:
    writer = WRITERS[kind]()
    assert not writer.grows or writer.separator == writer.footer == ""
    assert writer.names_by_number == isinstance(writer, Coco)
    assert isinstance(writer, Csv) == (writer.header.startswith("image"))
