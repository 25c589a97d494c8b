from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from captioner.errors import CaptionerError, OptionError
from captioner.files import check_output, replacing, write_atomically


def test_writes_text_as_utf_8_and_bytes_as_they_are(tmp_path: Path) -> None:
    write_atomically(tmp_path / "text", "café\n")
    write_atomically(tmp_path / "bytes", b"\xff")
    assert (tmp_path / "text").read_bytes() == "café\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\xff"


def test_replaces_a_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "old")
    write_atomically(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "file", "")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_others_may_not_read_stays_so(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "old")
    (tmp_path / "file").chmod(0o600)
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").chmod(0o400)
    with pytest.raises(CaptionerError, match="file: is write-protected, and stays as it is"):
        write_atomically(tmp_path / "file", "newer")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]


def test_a_failed_replacement_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "file", "old")

    def full_disk(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(CaptionerError, match=r"cannot write .*file: No space left on device"):
        write_atomically(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_an_absent_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"cannot write .*absent/file: No such file or directory"):
        write_atomically(tmp_path / "absent" / "file", "text")


def test_ctrl_c_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name exist on Linux only")
def test_a_process_that_is_killed_leaves_no_half_file(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "file") as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name exist on Linux only")
def test_a_process_that_is_killed_as_it_names_a_new_file_leaves_no_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:
        link = os.link

        def link_and_die(*names: Any, **options: Any) -> None:
            link(*names, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "link", link_and_die)
        write_atomically(tmp_path / "file", "whole")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "whole")]


def test_files_are_written_whole_also_where_none_can_be_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.files._OPEN_FILES", tmp_path / "absent")
    for content in ("old", "new"):
        write_atomically(tmp_path / "file", content)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", content)]
    with pytest.raises(CaptionerError, match="cannot write"):
        write_atomically(tmp_path / "absent" / "file", "text")


def test_the_root_or_a_folder_is_no_file(tmp_path: Path) -> None:
    for path in ("/", tmp_path):
        with pytest.raises(CaptionerError, match=f"cannot write {path}: "):
            write_atomically(path, "text")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    check_output("output", None)
    check_output("output", str(tmp_path / "new"))
    with pytest.raises(OptionError, match=r"`output` .*: is a folder; name a file"):
        check_output("output", str(tmp_path))
    with pytest.raises(OptionError, match=r"`html` .*new: there is no folder .*absent"):
        check_output("html", str(tmp_path / "absent" / "new"))
