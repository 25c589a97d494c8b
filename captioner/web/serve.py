"""Serving the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from captioner.errors import CaptionerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the page and serve it until Ctrl-C.

    Returns:
        Exit code: 0, or 2 when the page cannot be opened.
    """
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Caption pictures in the browser.",
        epilog="example: python app.py --port 8080",
    )
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: the shipped one)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="(default: 7860)")
    args = parser.parse_args(arguments)
    try:
        _serve(args.weights, args.host, args.port)
    except CaptionerError as error:
        print(f"captioner: error: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(weights: str | None, host: str, port: int) -> None:
    from captioner.captioner import Captioner

    try:
        from captioner.web.page import build_page
    except ModuleNotFoundError as error:
        raise CaptionerError("the page needs gradio; run: pip install 'captioner[app]'") from error
    page = build_page(Captioner.load(weights))
    try:
        page.queue(max_size=64).launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            max_file_size="20mb",
            footer_links=["api"],
        )
    except OSError as error:
        raise CaptionerError(
            f"cannot listen on {host}:{port}; is something else there? Try --port"
        ) from error
