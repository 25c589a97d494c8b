"""Which tests may be skipped where everything that the tests need should be there.

With ``CAPTIONER_STRICT_SKIPS=1``, as in continuous integration, a test fails if it is skipped for a reason
that is not in :data:`ALLOWED`, so that a missing program is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

NO_DATA = "no CAPTIONER_DATA"
NO_GPU = "no GPU"
ALLOWED = (NO_DATA, NO_GPU)
"""How the reasons begin that are allowed everywhere."""

STRICT = "CAPTIONER_STRICT_SKIPS"


def data_folder() -> Path:
    """The folder of real data sets; skips the test where there is none."""
    folder = os.environ.get("CAPTIONER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{NO_DATA}: it does not name the folder of real data sets")
    return Path(folder)


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get(STRICT, "0") == "0" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"{STRICT} is set and this is no reason to skip a test: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _judge(report)
    return report
