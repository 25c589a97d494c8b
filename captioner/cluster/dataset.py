"""Parts of the images as a Ray dataset: tasks read them, actors hold the model, tasks write.

A block of the dataset is a part. If a worker or a machine dies, Ray gives its blocks to others.
"""

import logging
import os
import pickle
import secrets
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from captioner import __version__
from captioner.bulk.options import FolderOptions
from captioner.bulk.reading import ImageReader, processors
from captioner.bulk.run import Model
from captioner.cluster import steps
from captioner.errors import OptionError

try:
    import ray.data
except ImportError as error:
    raise OptionError("`engine` ray needs Ray: pip install 'captioner[ray]'") from error

_PARTS_AT_ONCE = 2048  # of a dataset: their lists lie in the memory of this process
_STORE_BYTES = 1 << 30  # of a cluster that is started for this run alone
# Of a processor. Reading waits for files, and takes a tenth of the time of the network. That these differ
# also keeps Ray from making one step of two.
_READING, _WRITING = 0.5, 0.25
_WHOLE = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """A connection to a cluster; one that this process has already stays as it is.

    Args:
        address: where it is; None for the one that RAY_ADDRESS names, or else one for this run alone.

    Raises:
        OptionError: there is none.
    """
    if ray.is_initialized():
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes back as exceptions
    if where == "local":
        own = {"num_cpus": processors(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Without it Ray would leave one in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray.init(where, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of many classes, and Ray's own are not all of one family
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        what = "no Ray cluster can be started here" if where == "local" else f"no Ray cluster at {where}"
        raise OptionError(f"{what} ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def captioned(
    parts: Iterable[steps.Part],
    options: FolderOptions,
    model: Model,
    files: steps.PartFiles,
) -> Generator[steps.Done, None, None]:
    """Caption parts, and write them.

    Args:
        parts: those that are due.
        options: of the run.
        model: a model, which is loaded where the work is done.
        files: where parts are written.

    Yields:
        What became of each, in the order in which they are ready.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # a block stays whole, whatever its size
    preprocessing = model.load().preprocessing if model.preprocessing is None else model.preprocessing()
    folder = str(Path.cwd())
    reader = ImageReader(preprocessing, options.pixel_limit)
    tables = (steps.table_of(*part) for part in parts)
    while some := list(islice(tables, _PARTS_AT_ONCE)):
        dataset = (
            ray.data.from_arrow(some)
            .map_batches(steps.read, fn_args=(reader, folder), num_cpus=_READING, **_WHOLE)
            .map_batches(
                steps.Captions,
                fn_constructor_args=(model, options, __version__, folder),
                **_actors(options.ray_actors, model.device),
                **_WHOLE,
            )
            .map_batches(steps.write, fn_args=(files,), num_cpus=_WRITING, **_WHOLE)
        )
        for row in dataset.iter_rows():
            yield pickle.loads(row["done"])


def _actors(wanted: int | None, device: str) -> dict[str, Any]:
    """How many hold the model, and what each needs."""
    there = ray.cluster_resources()
    on_gpus = there.get("GPU", 0) >= 1 and device != "cpu"
    most = int(there["GPU"]) if on_gpus else max(1, int(there.get("CPU", 1) * 7 // 8))
    pool = ray.data.ActorPoolStrategy(min_size=wanted or 1, max_size=wanted or most)
    return {"compute": pool, "num_cpus": 1, "num_gpus": 1 if on_gpus else 0}
