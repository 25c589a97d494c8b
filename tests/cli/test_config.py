from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.cli import main
from captioner.cli.configuration import GROUPS, checked_values, read_configuration, write_configuration
from captioner.datasets.options import DatasetOptions
from captioner.options import typed_fields
from captioner.training.options import TrainingOptions

BOTH = list(GROUPS.values())
KINDS = {item.name: kind for options in BOTH for item, kind in typed_fields(options)}
FIELDS = {item.name: item for options in BOTH for item in fields(options)}
HINTS = {name: hint for options in BOTH for name, hint in get_type_hints(options).items()}

# Whatever can stand in a file name or be typed: also quotes, backslashes, control and foreign characters.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    str: TEXTS,
    tuple: st.lists(TEXTS, max_size=3).map(tuple),
}


def value_of(name: str) -> st.SearchStrategy[Any]:
    choices = FIELDS[name].metadata.get("choices")
    return st.sampled_from(choices) if choices else VALUES[KINDS[name]]


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What ``captioner train --print-config`` prints."""

    def run(*flags: str) -> str:
        assert main(["train", "--print-config", *flags]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that ``captioner train`` ends with."""

    def run(*flags: str) -> str:
        assert main(["train", *flags]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("captioner: error: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional={name: value_of(name) for name in FIELDS}))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(write_configuration(values), encoding="utf-8", newline="")
    defaults = {name: item.default for name, item in FIELDS.items() if item.default not in (MISSING, None)}
    assert read_configuration(path) == {**defaults, **values}


@settings(deadline=None)
@given(
    lr=st.floats(1e-9, 10),
    epochs=st.integers(1, 10**6),
    dropout=st.floats(0, 0.99),
    cell=st.sampled_from(["rnn", "lstm", "gru"]),
    output=TEXTS,
    skip=st.booleans(),
    folders=st.lists(TEXTS.filter(bool), min_size=1, max_size=3, unique=True),
)
def test_options_are_the_same_from_flags_and_from_the_file_that_they_print(
    tmp_path_factory: pytest.TempPathFactory,
    lr: float,
    epochs: int,
    dropout: float,
    cell: str,
    output: str,
    skip: bool,
    folders: list[str],
) -> None:
    data = DatasetOptions(dataset=tuple(f"table:{folder}" for folder in folders), skip_missing=skip)
    training = TrainingOptions(output=f"{output}.safetensors", lr=lr, epochs=epochs, dropout=dropout, cell=cell)
    path = tmp_path_factory.getbasetemp() / "same.toml"
    path.write_text(write_configuration({**vars(data), **vars(training)}), encoding="utf-8", newline="")
    values = read_configuration(path)
    assert DatasetOptions(**{name: value for name, value in values.items() if name in vars(data)}) == data
    assert TrainingOptions(**{n: value for n, value in values.items() if n in vars(training)}) == training


def test_the_printed_file_is_complete_and_prints_itself(show: Callable[..., str], tmp_path: Path) -> None:
    flags = [
        "--dataset",
        "flickr8k:D",
        "table:E",
        "--output",
        "x.safetensors",
        "--lr",
        "5e-4",
        "--skip-missing",
    ]
    text = show(*flags, "--clip", "auto:20", "--no-tie-embeddings")
    for name, item in FIELDS.items():
        assert f"\n{name.replace('_', '-')} =" in text or f"\n# {name.replace('_', '-')} =" in text
        assert item.metadata["help"].split()[0] in text
    assert 'dataset = ["flickr8k:D", "table:E"]\n' in text
    assert "\nlr = 0.0005\n" in text
    assert "\ntie-embeddings = false\n" in text
    assert '\nencoder = "efficientnet_lite2"\n' in text
    (tmp_path / "c.toml").write_text(text)
    assert show("--config", str(tmp_path / "c.toml")) == text


def test_a_template_needs_no_options(show: Callable[..., str], tmp_path: Path) -> None:
    text = show()
    assert "\n# dataset =\n" in text
    assert "\n# output =\n" in text
    (tmp_path / "c.toml").write_text(text)
    assert show("--config", str(tmp_path / "c.toml")) == text


def test_without_encoder_for_vectors(show: Callable[..., str]) -> None:
    assert '\nencoder = "none"\n' in show("--dataset", "codes:D", "--output", "x.safetensors")


def test_flags_override_the_file(show: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('dataset = "table:D"\nbatch_size = 7\nhidden-size = 64\ntie-embeddings = true\n')
    (tmp_path / "d.toml").write_text(
        show("--config", str(file), "--dataset", "table:E", "--batch-size", "9", "--no-tie-embeddings")
    )
    printed = lines(tmp_path / "d.toml")
    assert {'dataset = ["table:E"]', "batch-size = 9", "hidden-size = 64", "tie-embeddings = false"} <= set(printed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "there is no option epoch; did you mean epochs?"),
        ("batchsize = 3", "there is no option batchsize; did you mean batch-size?"),
        ("zzzzqqqq = 3", "there is no option zzzzqqqq; --print-config lists all options"),
        ("[training]\nepochs = 3", "[training] is a table; write the options without tables"),
        ("resume = true", "resume is a flag of the command line only"),
        ("print-config = true", "print-config is a flag of the command line only"),
        ("batch-size = 3\nbatch_size = 4", "batch_size is given twice, with - and with _"),
        ("epochs = 3\nepochs = 4", "is not valid TOML (Cannot overwrite a value"),
        ("epochs = ", "is not valid TOML (Invalid value"),
        ("epochs = 1.5", "epochs must be a whole number, not 1.5"),
        ("epochs = true", "epochs must be a whole number, not true"),
        ('epochs = "3"', "epochs must be a whole number, not '3'"),
        ("lr = true", "lr must be a number, not true"),
        ('lr = "1e-3"', "lr must be a number, not '1e-3'"),
        (f"lr = {'9' * 400}", "lr must be a number, not 9999"),
        ("tie-embeddings = 1", "tie-embeddings must be true or false, not 1"),
        ("output = 1979-05-27", "output must be a text in quotes, not datetime.date(1979, 5, 27)"),
        ('cell = ["lstm"]', "cell must be a text in quotes, not ['lstm']"),
        ('cell = "LSTM"', "cell must be one of"),
        ('data = "a\\u0000b"', "data must not hold a NUL character"),
        ("dataset = [1]", "dataset must be a list of texts, not [1]"),
        ("dataset = {a = 1}", "dataset must be a list of texts, not {'a': 1}"),
        ('dataset = "imagenet:D"', "unknown kind 'imagenet'"),
        ("lr = -1", "lr must be above 0 and finite, not -1.0"),
        ("a = " + "[" * 5000, "is not valid TOML"),
        ("#" * (2 << 20), "is too large for a configuration file"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    refusal: Callable[..., str], tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(content)
    said = refusal("--config", str(file), "--print-config")
    assert message in said
    assert str(file) in said


def test_a_file_that_cannot_be_read_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    assert "absent.toml: cannot be read (No such file" in refusal("--config", str(tmp_path / "absent.toml"))
    assert "cannot be read (Is a directory)" in refusal("--config", str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b'data = "caf\xe9"')
    assert "is not UTF-8 text (byte 11)" in refusal("--config", str(tmp_path / "latin.toml"))


def test_what_is_missing_from_file_and_flags_is_named(refusal: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('dataset = "table:D"\n')
    assert "--output is missing" in refusal("--config", str(file))


def test_a_file_name_that_is_no_text_cannot_be_printed(refusal: Callable[..., str]) -> None:
    said = refusal("--print-config", "--data", "caf\udce9")
    assert "--data cannot be written to a configuration file" in said


def test_a_byte_order_mark_and_windows_line_ends_are_welcome(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbfepochs = 3\r\nlr = 1\r\n")
    assert read_configuration(tmp_path / "c.toml") == {"epochs": 3, "lr": 1.0}


def test_a_text_stands_for_a_list_of_one() -> None:
    assert checked_values({"dataset": "table:D"}, where="x") == {"dataset": ("table:D",)}


def test_no_option_can_be_lost_between_file_and_fields() -> None:
    """A value that TOML cannot express is only ever a default; and no two options share a name."""
    assert len(FIELDS) == sum(len(fields(options)) for options in BOTH)
    for name, item in FIELDS.items():
        optional = type(None) in get_args(HINTS[name])
        assert item.default is None or not optional, name


def test_any_dataclass_can_be_written(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Options:
        must: str = field(metadata={"help": "what must be given " * 10})
        ratio: float = field(default=2.0, metadata={"help": "a ratio"})

    (tmp_path / "c.toml").write_text(write_configuration({"must": "\x7f\n\"'"}, {"any": Options}))
    assert read_configuration(tmp_path / "c.toml", {"any": Options}) == {"must": "\x7f\n\"'", "ratio": 2.0}
    assert max(map(len, (tmp_path / "c.toml").read_text().splitlines())) <= 100


def test_info_refuses_a_checkpoint_that_tells_no_options(
    checkpoint_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "--config", str(checkpoint_file)]) == 2
    assert "does not say which options it was trained with" in capsys.readouterr().err


def test_info_refuses_options_that_this_version_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Any
) -> None:
    from captioner.saving import save_checkpoint

    for options in ({"clip_norm": 5.0}, {"lr": "fast"}):
        training = {"datasets": {"dataset": ["table:D"]}, "options": options}
        save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, training=training))
        assert main(["info", "--config", str(tmp_path / "x.safetensors")]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "another captioner trained it, its options cannot be given back" in captured.err
        assert json.dumps(options)[2:4] in captured.err
