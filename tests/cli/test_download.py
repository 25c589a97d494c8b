from __future__ import annotations

import argparse
import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from captioner.cli.train import COMMANDS, download
from captioner.download.catalog import COLLECTIONS
from captioner.download.fetch import Patience
from captioner.errors import DatasetError, OptionError
from tests.download.server import FileServer, serving
from tests.download.small import small_collection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = Patience(timeout=0.3, attempts=2, pause=0.0)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        yield running


def _run(server: FileServer, *words: str) -> int:
    parser = argparse.ArgumentParser()
    COMMANDS["download"].add_arguments(parser)
    collections = {name: small_collection(entry, server) for name, entry in COLLECTIONS.items()}
    return download(parser.parse_args(words), collections, QUICK)


def test_fetches_and_says_how_to_use_it(server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    assert _run(server, "coco2017", "--to", str(folder), "--split", "val", "--yes") == 0
    out, err = capsys.readouterr()
    assert out == f"coco2017 is now in {folder}; use it with --dataset coco:{folder}\n"
    assert server.address("val2017.zip") in err
    assert server.address("train2017.zip") not in err
    assert "licence: captions: CC BY 4.0" in err
    assert "MB to fetch" in err
    assert "free" in err
    assert "fetching val2017.zip: 100%" in err
    assert "unpacking val2017.zip: 100%" in err


def test_a_second_run_asks_and_fetches_nothing(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(server, "karpathy", "--to", str(tmp_path), "--yes")
    server.requests.clear()
    capsys.readouterr()
    assert _run(server, "karpathy", "--to", str(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"karpathy is already in {tmp_path}; use it with --dataset karpathy")
    assert (err, server.requests) == ("", [])


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_asks_on_a_terminal(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    assert _run(server, "karpathy", "--to", str(tmp_path / "data")) == code
    assert "fetch 0.0 MB? [y/N]" in capsys.readouterr().err
    assert (tmp_path / "data").exists() == (code == 0)
    assert bool(server.requests) == (code == 0)


def test_without_a_terminal_yes_is_needed(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(OptionError, match="give --yes"):
        _run(server, "karpathy", "--to", str(tmp_path))
    assert server.requests == []


def test_impossible_splits_and_refusals_are_errors(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="it comes whole"):
        _run(server, "flickr8k", "--to", str(tmp_path), "--split", "val", "--yes")
    server.usual.status = 404
    with pytest.raises(DatasetError, match="404"):
        _run(server, "flickr8k", "--to", str(tmp_path), "--yes")


def test_importing_the_command_imports_no_network_code() -> None:
    code = "import sys, captioner.cli.train; print(*{'torch', 'urllib.request', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
