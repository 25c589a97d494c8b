"""What ``pip install captioner`` brings, and processes that see no more than that."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
_MEASURING = {"coverage", "pytest-cov"}  # also in the processes that tests start


def project() -> dict[str, Any]:
    """The table ``project`` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def installed(*extras: str) -> set[str]:
    """Packages that an installation with these extras has, as far as they are installed here."""
    waiting = [Requirement(f"captioner[{','.join(extras)}]")]
    found: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in found:
                found.add((name, extra))
                waiting += _required(name, extra)
    return {name for name, _ in found}


def _required(name: str, extra: str) -> list[Requirement]:
    """What a package needs on this system, with an extra or without (empty)."""
    if name == "captioner":  # what is installed may be older
        its = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    else:
        try:
            its = requires(name) or []
        except PackageNotFoundError:  # an older Python needs it, or another system
            return []
    needed = map(Requirement, its)
    return [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]


def light_environment(*extras: str) -> dict[str, str]:
    """Environment of a process that can import what an installation with these extras has, and no other package."""
    there = installed(*extras) | _MEASURING
    owners = packages_distributions()
    absent = (module for module, names in owners.items() if not there & {canonicalize_name(name) for name in names})
    folders = (str(Path(__file__).parent / "absent"), str(ROOT), os.environ.get("PYTHONPATH", ""))
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "CAPTIONER_ABSENT": " ".join(absent)}


def run(*command: object, environment: dict[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
