from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioner.checkpoint import load_checkpoint
from captioner.errors import CheckpointError, EncoderError
from tests.checkpoint.altering import ENTRIES, assert_refused

ODD_TEXTS = ("", "{", "[]", "{}", "null", "1", '"x"', "[" * 5000, "1" * 5000, "[[1]]", "NaN", '{"x": NaN}')


@pytest.mark.parametrize(
    ("version", "match"),
    [
        ("2", "upgrade"),
        ("99999", "upgrade"),
        ("0", "damaged"),
        ("-1", "damaged"),
        ("\u0661", "damaged"),
        ("", "damaged"),
    ],
)
def test_other_format_versions_are_refused(edited: Callable[..., Path], version: str, match: str) -> None:
    assert_refused(edited(lambda header: header["__metadata__"].update(version=version)), match)


def test_the_vocabulary_must_have_one_word_for_each_output(edited: Callable[..., Path]) -> None:
    def longer(header: dict[str, Any]) -> None:
        words = json.loads(header["__metadata__"]["vocabulary"])
        header["__metadata__"]["vocabulary"] = json.dumps([*words, "zebra"])

    assert_refused(edited(longer), "has 35 words for 34 outputs")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_size": 25}, "has shape"),
        ({"cell": "gru"}, "has shape"),
        ({"attention": "additive"}, "absent or superfluous"),
        ({"tie_embeddings": False}, r"absent or superfluous, such as 'decoder\.output\.weight'"),
        ({"embedding_size": 24}, "absent or superfluous"),
        ({"image_size": 96}, "another size"),
        ({"channels": 1281}, "has shape"),
        ({"hidden_size": 1 << 20, "embedding_size": 1 << 20}, "absent or superfluous"),
        ({"hidden_size": 1 << 21}, "damaged: hidden_size must be"),
        ({"hidden_size": "24"}, "damaged: hidden_size must be"),
        ({"encoder": "efficientnet_lite1"}, "absent or superfluous"),
        ({"surprise": 1}, "unknown fields: surprise"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(
    with_metadata: Callable[..., Path], changes: dict[str, object], match: str
) -> None:
    assert_refused(with_metadata("config", **changes), match)


def test_an_unknown_encoder_names_the_file(with_metadata: Callable[..., Path]) -> None:
    path = with_metadata("config", encoder="resnet51")
    with pytest.raises(EncoderError, match=rf"{path}: no encoder is called 'resnet51'"):
        load_checkpoint(path)


def test_absurd_sizes_are_refused_before_memory_is_taken(with_metadata: Callable[..., Path]) -> None:
    # A decoder of this size would take 64 tebibytes; torch refuses, or the machine gives up.
    path = with_metadata("config", hidden_size=1 << 20, attention="additive", attention_size=1 << 20)
    load_checkpoint_error(path)  # loads what is loaded once
    tracemalloc.start()
    try:
        load_checkpoint_error(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def load_checkpoint_error(path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@pytest.mark.parametrize("entry", ENTRIES)
def test_metadata_of_the_wrong_type_are_refused(edited: Callable[..., Path], entry: str) -> None:
    for text in ODD_TEXTS:
        if (entry, text) in {("training", "{}"), ("decoding", "{}")}:
            continue
        path = edited(lambda header, text=text: header["__metadata__"].update({entry: text}))
        assert_refused(path, "its metadata are damaged")
    assert_refused(edited(lambda header: header["__metadata__"].pop(entry)), f"damaged: '{entry}' is missing")


def test_messages_stay_short_whatever_a_file_holds(with_metadata: Callable[..., Path]) -> None:
    path = with_metadata("config", cell="x\n" * 100_000)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 400 + len(str(path))
