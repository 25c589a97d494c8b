from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.cli.flags import add_options, given_values, one_line, read_options
from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError


def option(default: Any, text: str = "", **metadata: object) -> Any:
    return field(default=default, metadata={"help": text, **metadata})


@dataclass(frozen=True)
class Options:
    must: str = field(metadata={"help": "what must be given"})
    beam_size: int = option(3, "100 % of the beam")
    rate: float | None = option(None, "none by default")
    colour: str = option("red", choices=("red", "blue"))
    loud: bool = option(False)
    names: tuple[str, ...] = option(())
    hidden: int = option(7)
    no_rush: bool = option(False)
    derived: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise OptionError("beam_size must be at least 1")


def parse(*arguments: str, base: Options | None = None) -> Options:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, Options, "options", skip=("hidden",))
    return read_options(parser.parse_args(arguments), Options, base)


def test_flags_that_are_not_given_take_the_defaults() -> None:
    assert parse("--must", "x") == Options("x")


def test_every_kind_of_field_has_a_flag() -> None:
    options = parse(
        *("--must", "x", "--beam-size", "5", "--rate", "0.5", "--colour", "blue", "--loud"),
        *("--names", "a", "b", "--names", "c"),
    )
    assert options == Options("x", 5, 0.5, "blue", True, ("a", "b", "c"))


def test_a_base_gives_what_is_not_given_and_flags_win() -> None:
    base = Options("base", beam_size=9, loud=True, names=("z",))
    assert parse(base=base) == base
    assert parse("--no-loud", "--beam-size", "2", base=base) == Options("base", beam_size=2, names=("z",))


@pytest.mark.parametrize("before", [True, False])
def test_an_option_may_say_no_in_its_name(before: bool) -> None:
    base = Options("x", no_rush=before)
    assert parse(base=base).no_rush == before
    assert parse("--no-rush", base=base).no_rush is True
    assert parse("--no-no-rush", base=base).no_rush is False


def test_flags_go_before_values_and_values_before_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Options, "options")
    values = {"must": "file", "beam_size": 7, "names": ("a",), "of_another_command": 1}
    args = parser.parse_args(["--beam-size", "9"])
    assert read_options(args, Options, values=values) == Options("file", beam_size=9, names=("a",))
    assert given_values(args, Options, values) == {"must": "file", "beam_size": 9, "names": ("a",)}
    base = Options("base", beam_size=2, colour="blue")
    assert read_options(args, Options, base, values) == Options("file", 9, colour="blue", names=("a",))


def test_a_missing_value_is_named_as_a_flag() -> None:
    with pytest.raises(OptionError, match="`must` is missing; what must be given"):
        parse()


def test_the_dataclass_has_the_last_word() -> None:
    with pytest.raises(OptionError, match="beam_size must be at least 1"):
        parse("--must", "x", "--beam-size", "0")


@pytest.mark.parametrize(
    "arguments", [("--beam-size", "many"), ("--colour", "green"), ("--hidden", "1"), ("--derived", "1")]
)
def test_what_no_flag_takes_is_wrong_use(arguments: tuple[str, ...]) -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parse("--must", "x", *arguments)


def test_help_shows_text_choices_and_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Options, "some options")
    text = parser.format_help()
    assert "some options:" in text
    assert "100 % of the beam (default: 3)" in text
    assert "--colour {red,blue}" in text
    assert "--loud, --no-loud" in text
    assert "(default: no)" in text
    assert "none by default\n" in text


def test_decoding_options_and_their_flags_cannot_drift_apart() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, DecodingOptions, "decoding")
    assert read_options(parser.parse_args([]), DecodingOptions) == DecodingOptions()
    for name in DecodingOptions.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in parser.format_help()


@given(st.text(st.characters()))
def test_one_line_is_one_printable_line_and_leaves_plain_text_alone(text: str) -> None:
    assert one_line(text).isprintable()
    if text.isprintable():
        assert one_line(text) == text


def test_one_line_shows_what_was_there() -> None:
    assert one_line("a\nb\t\x1b[31m\udcff é 🦄") == "a\\nb\\t\\x1b[31m\\udcff é 🦄"
