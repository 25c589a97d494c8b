"""How large is an installation, and how long does ``make demo`` take, compared with an earlier build?

    python benchmarks/install.py [--wheels DIR] [--builds old new] [--old COMMIT]

Needs a package index, git and make; what is installed is what is committed. For each build all packages are
downloaded first, in the versions of requirements.lock. Then, without the index, it prints the size of a fresh
virtual environment after ``pip install .``, and the seconds of that and of ``make demo``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from builds import OLD, check_out, compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="keep what is downloaded here, for another run")
    parser.add_argument("--builds", nargs="+", choices=["old", "new"], default=["old", "new"])
    parser.add_argument("--old", default=OLD, help=f"commit of the build to compare with (default: {OLD})")
    args = parser.parse_args()

    commits = {"old": args.old, "new": "HEAD"}
    found = {}
    for name in args.builds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            place = check_out(commits[name], folder / "captioner")
            wheels = (args.wheels or folder / "wheels").resolve() / name
            found[name] = size, installing, demo = measure(folder, place, wheels)
        print(f"{name}: {size:,.0f} MB, pip install . {installing:.1f} s, make demo {demo:.1f} s", flush=True)
    if len(found) == 2:
        what = (("virtual environment", "MB"), ("pip install .", "s"), ("make demo", "s"))
        for (label, unit), before, after in zip(what, found["old"], found["new"], strict=True):
            compare(label, [before], [after], unit)


def measure(folder: Path, place: Path, wheels: Path) -> tuple[float, float, float]:
    """Megabytes of a fresh environment with this checkout, seconds to install it, and seconds of ``make demo``."""
    environment = folder / "venv"
    run(sys.executable, "-m", "venv", environment)
    pip, lock = (environment / "bin" / "python", "-m", "pip"), ("--constraint", place / "requirements.lock")
    # The last two build the package, as it is and editable.
    run(*pip, "download", "--quiet", "--dest", wheels, *lock, place, "hatchling", "editables")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    installing = run(*pip, "install", "--quiet", *lock, place, **offline)
    files = (path.lstat() for path in environment.rglob("*") if path.is_symlink() or path.is_file())
    size = sum(status.st_size for status in files) / 1e6
    return size, installing, run("make", "-C", place, f"PYTHON={sys.executable}", "demo", **offline)


def run(*command: str | Path, **variables: str) -> float:
    """Seconds of a command."""
    start = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, env={**environment, **variables})
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
