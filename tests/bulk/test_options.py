from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.bulk.options import FORMATS, FolderOptions, Shard
from captioner.errors import OptionError
from captioner.writers import WRITERS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, not 0"),
        ({"max_pixels": -1}, "`max_pixels` must be at least 1, not -1"),
        ({"workers": -1}, "`workers` must be at least 0"),
        ({"format": "xml"}, "`format` must be one of text, jsonl"),
        ({"shard": "0/3"}, "`shard` takes I/N with I from 1 to N, such as 1/4, not '0/3'"),
        ({"shard": "4/3"}, "`shard` takes"),
        ({"shard": "1"}, "`shard` takes"),
        ({"shard": "1/2/3"}, "`shard` takes"),
        ({"shard": "-1/2"}, "`shard` takes"),
        ({"shard": "\uff11/\uff12"}, "`shard` takes"),
        ({"shard": "1/0"}, "`shard` takes"),
        ({"prepend": "a\nb"}, "`prepend` must be one line of text"),
        ({"append": "\x1b[0m"}, "`append` must be one line of text"),
        ({"annotations": "a.json"}, "`annotations` is for `format` coco"),
        ({"format": "coco", "log_prob": True}, "`log_prob` has no place in the format coco"),
        ({"output": "a.html", "log_prob": True}, "`log_prob` has no place in the format html"),
        ({"in_place": True}, "`in_place` is for `embed`"),
        ({"embed": True}, "`embed` needs a folder for copies (`output` FOLDER), or else `in_place`"),
        ({"embed": True, "in_place": True, "output": "x"}, "`embed` needs a folder"),
        ({"embed": True, "in_place": True, "format": "csv"}, "leave out `format` and `log_prob`"),
        ({"embed": True, "output": "x", "log_prob": True}, "leave out `format` and `log_prob`"),
        ({"embed": True, "output": "x", "annotations": "a"}, "`annotations` is for `format` coco"),
        ({"sidecar_extension": ".txt"}, "`sidecar_extension` is for `format` sidecar"),
        ({"engine": "spark"}, "`engine` must be one of local, ray, not 'spark'"),
        ({"ray_address": "auto"}, "`ray_address` is for `engine` ray"),
        ({"ray_actors": 2}, "`ray_actors` is for `engine` ray"),
        ({"format": "parquet", "output": "x"}, "`format` parquet is for `engine` ray"),
        ({"engine": "ray"}, "`engine` ray writes into a folder; name it with `output`"),
        ({"engine": "ray", "output": "x", "format": "csv"}, "writes the formats parquet and jsonl, not csv"),
        ({"engine": "ray", "output": "x.html"}, "writes the formats parquet and jsonl, not html"),
        ({"engine": "ray", "output": "x", "embed": True}, "`embed` is for `engine` local"),
        ({"engine": "ray", "output": "x", "workers": 2}, "`workers` is for `engine` local"),
        ({"engine": "ray", "output": "x", "ray_actors": 0}, "`ray_actors` must be at least 1, not 0"),
        ({"watch": True}, "`watch` adds to what is written; name a file with `output`, or `format` xmp"),
        ({"watch": True, "output": "a.csv", "shard": "1/2"}, "`watch` takes folders, not `shard`"),
        ({"watch": True, "output": "a.csv", "dry_run": True}, "`watch` takes folders, not `dry_run`"),
        ({"watch": True, "output": "a.csv", "from_file": "-"}, "`watch` takes folders, not `from_file`"),
        ({"watch": True, "output": "a.csv", "input_tar": ("a.tar",)}, "`watch` takes folders, not `input_tar`"),
        ({"watch": True, "engine": "ray", "output": "x"}, "`watch` is for `engine` local"),
        ({"watch": True, "output": "a.csv", "overwrite": True}, "`watch` goes on with what is there"),
        ({"watch": True, "format": "sidecar", "if_exists": "overwrite"}, "`watch` goes on with what is there"),
        ({"input_tar": ("-",)}, "`input_tar` -: standard input is read once, a tar twice"),
        ({"input_tar": ("a.tar",), "format": "sidecar"}, "not into tars"),
        ({"input_tar": ("a.tar",), "embed": True, "output": "x"}, "not into tars"),
        ({"format": "sidecar", "output": "x"}, "leave out `output`"),
        ({"format": "sidecar", "sidecar_extension": "txt"}, "must be like .txt, not 'txt'"),
        ({"format": "sidecar", "sidecar_extension": "."}, "must be like .txt"),
        ({"format": "sidecar", "sidecar_extension": ".a/b"}, "must be like .txt"),
        ({"format": "sidecar", "sidecar_extension": ".\n"}, "must be like .txt"),
        ({"format": "sidecar", "sidecar_extension": ".JPG"}, "would make captions look like images"),
        ({"format": "sidecar", "sidecar_extension": ".txt.png"}, "would make captions look like images"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as refusal:
        FolderOptions(**values)  # type: ignore[arg-type]
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "text"),
        ({"output": "a.jsonl"}, "jsonl"),
        ({"output": "a.CSV"}, "csv"),
        ({"output": "a.json"}, "coco"),
        ({"output": "a.txt"}, "text"),
        ({"output": "jsonl"}, "text"),
        ({"output": "a.jsonl", "format": "csv"}, "csv"),
        ({"output": "a.html"}, "html"),
        ({"output": "a.HTM"}, "html"),
        ({"output": "a.html", "embed": True}, "embed"),
        ({"output": "a", "engine": "ray"}, "parquet"),
        ({"output": "a.jsonl", "engine": "ray"}, "jsonl"),
        ({"output": "a.ndjson", "engine": "ray"}, "jsonl"),
        ({"output": "a", "engine": "ray", "format": "jsonl"}, "jsonl"),
    ],
)
def test_the_format_follows_from_the_output(values: dict[str, str], kind: str) -> None:
    assert FolderOptions(**values).kind == kind  # type: ignore[arg-type]


def test_every_writer_is_a_format() -> None:
    assert set(FORMATS) == {*WRITERS, "sidecar", "xmp", "parquet"}


@given(st.integers(0, 500), st.integers(1, 40))
def test_shards_in_order_are_the_whole_and_nearly_equal(total: int, count: int) -> None:
    parts = [Shard.parse(f"{number}/{count}").of(total) for number in range(1, count + 1)]
    assert [place for part in parts for place in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("before", "after", "dressed"),
    [
        (None, None, "A dog."),
        ("photo of", None, "photo of A dog."),
        ("photo of ", "", "photo of A dog."),
        ("", "in colour", "A dog. in colour"),
        (None, ", in colour", "A dog., in colour"),
        ("x\u3000", " y", "x\u3000A dog. y"),
    ],
)
def test_texts_before_and_after_a_caption(before: str | None, after: str | None, dressed: str) -> None:
    assert FolderOptions(prepend=before, append=after).dressed("A dog.") == dressed
