from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; not part of the project."""
    folder = os.environ.get("CAPTIONER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("CAPTIONER_DATA does not name the folder of real data sets")
    return Path(folder)
