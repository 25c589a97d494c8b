"""Files as Gradio hands them over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any


def upload(path: Path, name: str = "holiday.jpg") -> dict[str, Any]:
    """What Gradio tells of an uploaded file; one that lies elsewhere is copied to the uploads first."""
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    if not path.is_relative_to(folder):
        path = Path(shutil.copy(path, folder))
    return {"path": str(path), "orig_name": name, "meta": {"_type": "gradio.FileData"}}
