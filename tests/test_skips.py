from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import STRICT

TESTS = """
import pytest
from tests.skips import NO_GPU, data_folder

@pytest.mark.skipif(True, reason=f"{NO_GPU}: needs CUDA")
def test_allowed(): pass

def test_also_allowed(): data_folder()

@pytest.mark.xfail
def test_known_to_fail(): assert False

def test_passes(): pass
"""
WITHIN = "def test_within(): pytest.skip('needs exiftool')\n"
MARKED = "@pytest.mark.skipif(True, reason='needs curl')\ndef test_marked(): pass\n"
MODULE = "pytest.importorskip('no_such_module', reason='needs a module')\n"


@pytest.mark.parametrize(
    ("more", "strict", "code", "summary"),
    [
        ("", "1", 0, "1 passed, 2 skipped, 1 xfailed"),
        (WITHIN, "0", 0, "1 passed, 3 skipped, 1 xfailed"),
        (WITHIN, "1", 1, "no reason to skip a test: needs exiftool"),
        (MARKED, "1", 1, "no reason to skip a test: needs curl"),
        (MODULE, "0", 5, "1 skipped"),
        (MODULE, "1", 2, "no reason to skip a test: needs a module"),
    ],
)
def test_only_allowed_reasons_skip_where_skips_are_strict(
    tmp_path: Path, more: str, strict: str, code: int, summary: str
) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(TESTS + more)
    environment = {name: value for name, value in os.environ.items() if name != "CAPTIONER_DATA"}
    environment |= {STRICT: strict, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.skips",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
    ]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", file], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert summary in done.stdout
