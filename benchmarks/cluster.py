"""Does a cluster lose or double anything when a machine dies, and does it become faster with more actors?

    python benchmarks/cluster.py [--images 4096] [--milliseconds 10] [--actors 1 2 4]

Starts Ray clusters of two nodes on this machine and captions a folder of small images with a network that knows their
colours and sleeps for some milliseconds an image, as one on a machine of its own would keep this one waiting. First one
node of two is killed in the middle: in the end each image must have one record, the right one. Then the folder is
captioned with 1, 2 and 4 actors: prints images/s, from the first image to the last, and of the whole run with the start
of the actors. Needs ``captioner[ray]``. Ends with exit code 1 if a record is missing, double or wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from builds import REPOSITORY
from PIL import Image

from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Model
from captioner.caption import Caption
from captioner.cluster.engine import caption_on_cluster
from captioner.decoding.options import DecodingOptions
from captioner.images import Preprocessing
from captioner.progress import Progress

PREPROCESSING = Preprocessing(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
BATCH = 4  # images; 16 batches are a part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--milliseconds", type=float, default=10, help="that the network takes for an image")
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument(
        "--only", type=int, help=argparse.SUPPRESS
    )  # one cluster: actors, or 0 for the one that is killed
    args = parser.parse_args()

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(REPOSITORY), "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if args.only is None:  # a process for each cluster: Ray does not forget the one before
        command = [sys.executable, *sys.argv, "--only"]
        codes = [subprocess.run([*command, str(number)], check=False).returncode for number in (0, *args.actors)]
        print("promises were broken" if any(codes) else "each image has one record, the right one")
        sys.exit(any(codes))
    model = colour_model(args.milliseconds / 1000)
    with tempfile.TemporaryDirectory() as temporary:
        folder, output = Path(temporary) / "images", Path(temporary) / "captions"
        make_colours(folder, args.images)
        if args.only == 0:
            kill_one(folder, output, model, args.images)
        else:
            with two_nodes(4):
                seconds, whole = run(folder, output, model, args.only)
            rates = f"{args.images / seconds:.1f} images/s, the whole run {args.images / whole:.1f}"
            print(f"{args.only} actors: {rates}", flush=True)
        problems = check(folder, output)
    print("\n".join(problems[:10]), end="\n" * bool(problems))
    sys.exit(bool(problems))


def kill_one(folder: Path, output: Path, model: Model, images: int) -> None:
    """Caption the folder on two nodes, of which one is killed when two parts are written."""
    with two_nodes(2) as (cluster, second):
        thread = threading.Thread(target=run, args=(folder, output, model, 2))
        thread.start()
        while len(list(output.glob("part-*"))) < 2 and thread.is_alive():
            time.sleep(0.02)
        done = len(list(output.glob("part-*")))
        second.kill_all_processes(check_alive=False, allow_graceful=False)
        cluster.worker_nodes.discard(second)
        thread.join()
        print(f"one of two nodes killed after {done} of {parts(images)} parts", flush=True)


def parts(images: int) -> int:
    return -(-images // (16 * BATCH))


@contextmanager
def two_nodes(processors: int) -> Iterator[tuple[Any, Any]]:
    """A cluster of two nodes on this machine, with so many processors each, as far as Ray knows."""
    import ray
    from ray.cluster_utils import Cluster

    memory = 80 << 20
    head = {"num_cpus": processors, "include_dashboard": False, "object_store_memory": memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(num_cpus=processors, object_store_memory=memory)
    ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield cluster, second
    finally:
        ray.shutdown()
        for node in (*cluster.worker_nodes, cluster.head_node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def run(folder: Path, output: Path, model: Model, actors: int) -> tuple[float, float]:
    """Caption the folder; seconds from the first part to the last, in proportion to all, and of the whole run."""
    options = FolderOptions(
        engine="ray", output=str(output), format="jsonl", batch_size=BATCH, ray_actors=actors, overwrite=True
    )
    start = time.perf_counter()
    caption_on_cluster([str(folder)], options, model, Progress())
    whole = time.perf_counter() - start
    times = sorted(path.stat().st_mtime for path in output.glob("part-*"))
    # The first parts tell when all actors are at work: they are not counted.
    return (times[-1] - times[actors]) * len(times) / (len(times) - 1 - actors), whole


def make_colours(folder: Path, count: int) -> None:
    """Images of one colour each, all different."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8), colour(number)).save(folder / f"{number:06}.png")


def colour(number: int) -> tuple[int, int, int]:
    return number % 256, number // 256, 7


def colour_model(seconds: float) -> Model:
    """A network that says which colour an image has, and takes its time for it."""

    def load() -> Any:
        def encode(pixels: list[Any]) -> Any:
            time.sleep(seconds * len(pixels))
            return np.stack([each[:1, 0].astype(np.float32) for each in pixels])

        def decode(regions: Any, *_: object, **__: object) -> list[list[Caption]]:
            return [[Caption(text_of(tuple(map(int, each[0]))), -1.0)] for each in regions]

        return SimpleNamespace(
            preprocessing=PREPROCESSING,
            digest="colours",
            config=SimpleNamespace(attention="additive"),
            model=SimpleNamespace(seen_together=1, threads=1, begin_thread=lambda: None),
            encode=encode,
            decode=decode,
            seeds=lambda pixels, options: [0] * len(pixels),
        )

    return Model({"weights": "colours"}, DecodingOptions(), load, lambda: PREPROCESSING)


def text_of(values: tuple[int, ...]) -> str:
    return f"colour {' '.join(map(str, values))}"


def check(folder: Path, output: Path) -> list[str]:
    """What is wrong with the records."""
    lines = [line for part in sorted(output.glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    counts = Counter(record["image"] for record in records)
    wrong = [f"{path.name}: {counts[str(path)]} records" for path in folder.iterdir() if counts[str(path)] != 1]
    expected = {str(path): text_of(colour(int(path.stem))) for path in folder.iterdir()}
    return wrong + [f"{r['image']}: {r}" for r in records if r.get("caption") != expected[r["image"]]]


if __name__ == "__main__":
    main()
