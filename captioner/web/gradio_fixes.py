"""Repairs of Gradio: failures become sentences, and no address is fetched. ``page.js`` repairs it in the browser."""

import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
import orjson

from captioner.errors import CaptionerError
from captioner.web.render import for_visitor, shown_name

KEPT = 3600
"""Seconds after which an upload is removed, and all that is remembered of a visitor who did nothing more."""

_NOT_UPLOADED = "This file was not uploaded; upload it first."
_NO_FIT = "The request does not fit this function; /?view=api shows what it takes."


def guard(page: gr.Blocks) -> None:
    """Turn every failure while the page answers into a sentence, without paths and types."""
    process = page.process_api

    async def guarded(block_fn: Any, inputs: list[Any], *args: Any, **more: Any) -> Any:
        function = page.fns[block_fn] if isinstance(block_fn, int) else block_fn
        if len(inputs) < len(function.inputs):
            raise _refusal(_NO_FIT)
        try:
            return await process(block_fn, inputs, *args, **more)
        except gr.Error:  # a sentence already
            raise
        except gr.exceptions.InvalidPathError as error:
            raise _refusal(_NOT_UPLOADED) from error
        except (TypeError, ValueError) as error:  # of Gradio: our handlers raise none
            raise _refusal(_NO_FIT) from error
        except Exception as error:
            raise _refusal(for_visitor(error)) from error

    page.process_api = guarded  # type: ignore[method-assign]
    # Gradio fetches files from addresses (gradio-app/gradio#13593); this server sends no requests.
    gr.processing_utils.async_ssrf_protected_download = _refuse_address


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


async def _refuse_address(*_: object, **__: object) -> NoReturn:
    raise _refusal("Send the image itself, not its address.")


class Uploads:
    """The files that Gradio received: it keeps all for an hour, and parts of them for ever (gradio-app/gradio#7517).

    It calls them by their paths on the server, which #13586 finds risky. Here they have no folders above their own.
    """

    def __init__(self, by_visitor: int, in_all: int) -> None:
        self._folder = Path(gr.utils.get_upload_folder())
        self._by_visitor, self._in_all = by_visitor, in_all  # bytes
        self._owners: dict[str, str] = {}
        self._long, self._short = f"{self._folder}/".encode(), f"{self._folder.name}/".encode()

    def note(self, visitor: str, answer: bytes) -> None:
        """See :class:`captioner.web.gate.Uploads`."""
        if answer.startswith(b'["'):
            self._owners.update(dict.fromkeys(orjson.loads(answer), visitor))

    def hide(self, body: bytes) -> bytes:
        """See :class:`captioner.web.gate.Uploads`."""
        return body.replace(self._long, self._short)

    def find(self, body: bytes) -> bytes:
        """See :class:`captioner.web.gate.Uploads`."""
        return body.replace(self._short, self._long)

    def trim(self) -> None:
        """See :class:`captioner.web.gate.Uploads`."""
        files = [(path.lstat(), path) for path in self._folder.rglob("*") if path.is_file()]
        kept: Counter[str] = Counter()
        for stat, path in sorted(files, key=lambda pair: -pair[0].st_mtime):
            owner = self._owners.get(str(path), "")
            kept[owner] += stat.st_size
            much = sum(kept.values()) > self._in_all or (owner and kept[owner] > self._by_visitor)
            if much or time.time() - stat.st_mtime >= KEPT:
                path.unlink(missing_ok=True)
                kept[owner] -= stat.st_size
                self._owners.pop(str(path), None)


def uploaded_name(upload: object) -> str:
    """Give the visitor's name of a file that Gradio received."""
    return shown_name(upload.get("orig_name") if isinstance(upload, dict) else None)


def uploaded_file(upload: object) -> Path:
    """Find a file that Gradio received.

    Gradio checks the path only in records that say that they are files, so a forged one could name any file of
    the server.

    Raises:
        CaptionerError: there is no file, or it was not uploaded.
    """
    if not isinstance(upload, dict) or not upload.get("path"):
        raise CaptionerError("choose an image first")
    path = Path(str(upload["path"]))
    try:
        inside = path.resolve().is_relative_to(Path(gr.utils.get_upload_folder()).resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a zero byte, or a loop of links
        inside = False
    if not inside:
        raise CaptionerError("this file was not uploaded", "upload it first")
    return path
