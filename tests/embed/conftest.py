from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def _noted(tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "user.test", b"")
    except (AttributeError, OSError):
        pytest.skip("no extended attributes here")
