"""One folder run in which reading and captioning take no time, so that only the books are measured.

    python benchmarks/fake_run.py FOLDER [--output FILE] [--shard I/N] [--die-at N] [--dry-run]
    python benchmarks/fake_run.py --merge SHARD ... --output FILE

Prints as JSON the seconds until the first image is captioned and until the end, and the most memory in MB.
``benchmarks/records.py`` runs it with two builds, whose modules have other names.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from captioner.decoding.options import DecodingOptions

NEW = importlib.util.find_spec("captioner.bulk") is not None
ENGINE, READERS = ("engine", "images.reading") if NEW else ("batch.engine", "batch.workers")
IDENTITY, READING, RUN = (
    ("images.reading", "images.reading", "bulk.run") if NEW else ("batch.records", "batch.reading", "batch.job")
)


class Readers:
    """Stands in for the processes that read images: every file is another image, and none is opened."""

    def __init__(self, reader: object, workers: int) -> None:
        self._identity, self._loaded = module(IDENTITY).Identity, module(READING).Loaded
        self._names = [field.name for field in fields(self._identity)]

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, items: Iterable[Any], ahead: int) -> Iterator[tuple[Any, Any]]:
        """Give each image what reading it would give, but its pixels."""
        for item in items:
            status, digest = item.stat(), hashlib.blake2b(os.fsencode(item), digest_size=16).digest()
            values = {"size": status.st_size, "modified": status.st_mtime_ns}
            identity = self._identity(**{name: values.get(name, digest) for name in self._names})
            yield item, self._loaded(identity, np.frombuffer(digest[:15], np.uint8).reshape(1, 5, 3))


class Engine:
    """Stands in for the network: it answers at once."""

    threads = 2
    seen = 0
    began = 0.0
    first: float | None = None
    die_at: int | None = None

    def __init__(self, captioner: object, options: object) -> None:
        pass

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, pixels: list[Any]) -> list[Future[list[list[Any]]]]:
        """Give each image a caption of its own."""
        Engine.first = Engine.first or time.perf_counter()
        future: Future[list[list[Any]]] = Future()
        texts = [f"an image like {each.tobytes().hex()}, and no other" for each in pixels]
        Engine.seen += len(pixels)
        future.set_result([[SimpleNamespace(text=text, log_prob=-1.5, confidence=None)] for text in texts])
        if Engine.die_at is not None and Engine.seen >= Engine.die_at:
            report()
            os._exit(0)  # as by kill -9
        return [future]


def module(name: str) -> Any:
    return importlib.import_module(f"captioner.{name}")


def report() -> None:
    start, peak = Engine.began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    with suppress(OSError):  # elsewhere than on Linux
        # The figure above begins with what the process that started this one held then.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1000
    first = None if Engine.first is None else Engine.first - start
    result = {"first": first, "seconds": time.perf_counter() - start, "megabytes": peak}
    print(json.dumps(result), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--merge", nargs="*", default=[])
    parser.add_argument("--output")
    parser.add_argument("--shard")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    Engine.die_at = args.die_at
    if args.merge:
        merge = module("bulk.merge" if NEW else "batch.merge").merge
        Engine.began = time.perf_counter()
        merge(args.merge, args.output)
        report()
        return
    module(ENGINE).Engine = Engine
    module(READERS).Readers = Readers
    run, options = module(RUN), module("bulk.options" if NEW else "batch.options").FolderOptions
    progress = module("progress" if NEW else "batch.progress").Progress()
    captioner: Any = SimpleNamespace(preprocessing=None)
    model = run.Model({"weights": "none"}, DecodingOptions(), lambda: captioner)
    chosen = options(output=args.output, shard=args.shard, dry_run=args.dry_run)
    Engine.began = time.perf_counter()
    run.caption_folder([args.folder], chosen, model, progress)
    report()


if __name__ == "__main__":
    main()
