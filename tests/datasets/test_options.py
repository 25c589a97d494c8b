from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captioner.datasets.options import DatasetOptions
from captioner.errors import OptionError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": ()}, "`dataset` is missing"),
        (
            {"dataset": ("imagenet:D",)},
            "unknown kind 'imagenet'; choose from coco, karpathy, flickr8k, .*, codes",
        ),
        ({"dataset": ("coco:",)}, "folder after the colon is missing"),
        ({"dataset": ("coco",)}, "say where it is with `data` DIR or coco:DIR"),
        ({"dataset": ("coco",), "images": "I"}, "say where it is"),
        ({"dataset": ("coco:D",), "data": "E"}, "names a folder already; leave out `data` E"),
        ({"dataset": ("coco:D", "table")}, "give each as table:DIR"),
        ({"dataset": ("coco:D", "table:E"), "data": "F"}, "`data` works with one data set only"),
        ({"dataset": ("coco:D", "table:E"), "annotations": "F"}, "`annotations` works with one"),
        ({"dataset": ("coco:D", "table:E"), "images": "F"}, "`images` works with one"),
        ({"dataset": ("coco:D", "coco:D")}, "given twice"),
        ({"dataset": ("table:D",), "holdout": 1.0}, "`holdout` must be at least 0 and below 1, not 1.0"),
        ({"dataset": ("table:D",), "holdout": -0.1}, "`holdout` must be at least 0 and below 1, not -0.1"),
        (
            {"dataset": ("table:D",), "holdout": float("nan")},
            "`holdout` must be at least 0 .*, not nan",
        ),
    ],
)
def test_impossible_options_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DatasetOptions(**values)


def test_sources_of_one_data_set() -> None:
    (source,) = DatasetOptions(("coco",), data="D", annotations="F", images="I", holdout=0.2).sources()
    assert (source.kind, source.folder, source.annotations) == ("coco", Path("D"), Path("F"))
    assert (source.images, source.holdout, source.holdout_seed) == (Path("I"), 0.2, 0)


def test_sources_of_several_data_sets_keep_order_and_colons() -> None:
    sources = DatasetOptions(("table:a", "coco:b:c", "table:d")).sources()
    assert [(source.kind, source.folder) for source in sources] == [
        ("table", Path("a")),
        ("coco", Path("b:c")),
        ("table", Path("d")),
    ]


def test_tilde_after_the_colon_is_the_home_folder() -> None:
    (source,) = DatasetOptions(("coco:~/data",)).sources()
    assert source.folder == Path.home() / "data"


def test_every_field_has_a_help_text_for_its_flag() -> None:
    assert all(field.metadata["help"] for field in dataclasses.fields(DatasetOptions))


def test_reading_data_sets_imports_nothing_heavy() -> None:
    code = "import sys, captioner.datasets; print(*[m for m in ('torch', 'numpy', 'nltk') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
