"""Repairs of Gradio: failures become sentences, and no address is fetched. ``page.js`` repairs it in the browser.

Each names the issue of gradio-app/gradio that it works around.
"""

from pathlib import Path
from typing import Any, NoReturn

import gradio as gr

from captioner.errors import CaptionerError
from captioner.html import shown_name
from captioner.web.render import for_visitor

_NOT_UPLOADED = "This file was not uploaded; upload it first."
_NO_FIT = "The request does not fit this function; /?view=api shows what it takes."


def guard(page: gr.Blocks) -> None:
    """Turn every failure while the page answers into a sentence, without paths and types (#6335)."""
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
            raise refusal(error) from error

    page.process_api = guarded  # type: ignore[method-assign]
    # Gradio fetches files from addresses (#13593); this server sends no requests.
    gr.processing_utils.async_ssrf_protected_download = _refuse_address


def refusal(error: Exception) -> gr.Error:
    """Make of a failure what visitors are told."""
    return _refusal(for_visitor(error))


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, duration=None, print_exception=False)


async def _refuse_address(*_: object, **__: object) -> NoReturn:
    raise _refusal("Send the image itself, not its address.")


def uploaded_name(upload: object) -> str:
    """Give the visitor's name of a file that Gradio received."""
    return shown_name(upload.get("orig_name") if isinstance(upload, dict) else None)


def uploaded_file(upload: object) -> Path:
    """Find a file that Gradio received.

    Gradio checks the path only in records that say that they are files (#9898), so a forged one could name any
    file of the server.

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
