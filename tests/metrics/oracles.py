"""The COCO server's own code as the oracle; it needs Java only for its tokeniser and METEOR."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

Tokens = list[str]


def oracle_scores(metric: Any, hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> tuple[Any, Any]:
    """Returns the corpus figure and the per-photo figures of one of the oracle's classes."""
    gts = {i: [" ".join(caption) for caption in captions] for i, captions in enumerate(references)}
    res = {i: [" ".join(caption)] for i, caption in enumerate(hypotheses)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its counts
        return metric.compute_score(gts, res)


def oracle(name: str) -> Any:
    """Returns a fresh object of one of the oracle's classes: Bleu, Rouge, Cider, Meteor or PTBTokenizer."""
    reason = "pycocoevalcap is not installed (extra: dev)"
    folder = "tokenizer" if name == "PTBTokenizer" else name.lower()
    module = pytest.importorskip(f"pycocoevalcap.{folder}.{name.lower()}", reason=reason)
    return getattr(module, name)()
