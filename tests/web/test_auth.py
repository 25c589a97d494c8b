from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import OptionError
from captioner.web.options import read_users


def users_file(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "users"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def test_each_line_names_a_visitor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = "# who may come in\nanna:secret\n\n  bert:a:b c \r\nzoë:geheim\n"
    assert read_users(users_file(tmp_path, content)) == [
        ("anna", "secret"),
        ("bert", "a:b c"),  # a password may hold colons and spaces
        ("zoë", "geheim"),
    ]
    assert capsys.readouterr().err == ""


def test_a_file_that_others_can_read_gets_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = users_file(tmp_path, "anna:secret", mode=0o644)
    assert read_users(file) == [("anna", "secret")]
    assert f"chmod 600 {file}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("anna", "line 1: must be USER:PASSWORD"),
        ("anna:secret\n:secret", "line 2: must be USER:PASSWORD"),
        ("anna:", "line 1: must be USER:PASSWORD"),
        ("", "contains no visitors"),
        ("# anna:secret\n\n", "contains no visitors"),
        (b"anna:\xff", "not UTF-8"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = users_file(tmp_path, content)
    with pytest.raises(OptionError, match=message) as caught:
        read_users(file)
    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [".", "absent"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        read_users(tmp_path / name)
