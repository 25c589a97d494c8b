"""Files that visitors and programs send: the only ones that may be read for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder

from captioner.errors import CaptionerError

KEPT = 3600
"""Seconds after which an upload is removed, and all that is remembered of a visitor who did nothing more."""

Picture = TypeVar("Picture", gr.Image, gr.File)

_SCHEMES = ("http:", "https:")


def no_addresses(component: Picture) -> Picture:
    """Keep a component from fetching a file from an address: this server asks nobody else.

    Args:
        component: a component of Gradio's that takes files. Gradio writes a file beside the code of each
            class that derives from one, so the method is replaced on the object.

    Returns:
        The same component.
    """
    keep = component.async_move_resource_to_block_cache

    async def keep_files(file_path: str | Path | None) -> str | None:
        if str(file_path).lower().startswith(_SCHEMES):
            raise gr.Error("Send the picture itself, not its address.", print_exception=False)
        path: str | None = await keep(file_path)
        return path

    vars(component)["async_move_resource_to_block_cache"] = keep_files
    return component


def uploaded_file(upload: Mapping[str, Any] | None) -> Path:
    """Where a file lies that Gradio received.

    Gradio checks this only for records that say that they are files, so a forged one could name any file
    of the server.

    Args:
        upload: Gradio's record, with ``path``; None if there is none.

    Raises:
        CaptionerError: there is no file, or it was not uploaded.
    """
    if not upload or not upload.get("path"):
        raise CaptionerError("choose a picture first")
    path = Path(str(upload["path"]))
    try:
        inside = path.resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a zero byte, or a loop of links
        inside = False
    if not inside:
        raise CaptionerError("this file was not uploaded", "upload it first")
    return path
