from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from captioner.cli.flags import add_model_arguments, add_options, load_captioner
from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError


def parse(weights: Path, *flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_options(parser, DecodingOptions, "decoding")
    return parser.parse_args(["--weights", str(weights), "--device=cpu", *flags])


def test_flags_go_before_the_options_of_the_checkpoint(checkpoint_file: Path) -> None:
    captioner, options = load_captioner(parse(checkpoint_file, "--max-length=5"))
    assert captioner.device == "cpu"
    assert (options.max_length, options.min_length) == (5, captioner.options.min_length)
    assert captioner.options.max_length == 8


def test_an_encoder_is_for_checkpoints_without_one(checkpoint_file: Path) -> None:
    with pytest.raises(OptionError, match="`encoder` resnet50: the checkpoint carries its own encoder"):
        load_captioner(parse(checkpoint_file, "--encoder=resnet50"))
    with pytest.raises(OptionError, match="`image_size` and `resize` belong to `encoder`"):
        load_captioner(parse(checkpoint_file, "--resize=crop"))
