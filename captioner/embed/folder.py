"""Folders: captions into one file, or a file for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from captioner.bulk import output, run
from captioner.bulk.options import FolderOptions
from captioner.embed.texts import Sidecars
from captioner.progress import Progress, Summary

if TYPE_CHECKING:
    from captioner.captioner import Captioner


def caption_folder(
    paths: Sequence[str], options: FolderOptions, model: run.Model | Captioner, progress: Progress | None = None
) -> Summary:
    """Caption what paths name and what is not captioned yet; with ``watch`` until Ctrl-C.

    Args:
        paths: files and folders.
        options: what, where and how.
        model: a captioner, whose decoding options hold; or how one is loaded if there is something to caption.
        progress: shows failures and how far the run is; without it failures are shown only.

    Raises:
        CaptionerError: wrong use, nothing to caption, or an output that cannot be written.
    """
    target: output.Target | None = None
    if options.kind == "sidecar":
        target = Sidecars(options)
    elif options.kind in ("embed", "xmp"):
        from captioner.embed.targets import metadata_target  # it imports what reads and writes metadata

        target = metadata_target(paths, options)
    return run.caption_folder(paths, options, model, progress, target)


caption_inside = caption_folder  # its name when it was for captions inside images alone
