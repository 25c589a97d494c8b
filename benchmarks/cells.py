"""Which recurrent cell writes the best captions, and what does it cost? The table of docs/recurrent.md.

    python benchmarks/cells.py --data FLICKR8K --runs FOLDER [--epochs 5] [--hidden-size 256]

Trains every cell with one and with two layers on Flickr8k with ``captioner train``, all with the same
options, and prints a Markdown table: figures of the captions of the dev images after the last epoch, loss of
the last epoch, parameters of the decoder and the share of clipped steps. The same command goes on after an
interruption, and trains nothing twice. Speed is measured apart, at the end and in turn, on random captions
of the usual lengths, so that the ratios hold also on a busy machine.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.model.config import CELLS, ModelConfig
from captioner.model.decoder import Decoder, decoder_blueprint
from captioner.weights import read_header

IMAGES, CAPTIONS = 32, 5  # of a batch, and of an image
ROUNDS = 7
HEADINGS = (
    "cell",
    "layers",
    "dev BLEU-4",
    "dev CIDEr",
    "training loss",
    "parameters",
    "clipped steps",
    "tokens/s",
    "speed, lstm = 1",
)


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    cell: str
    layers: int
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The trained model."""
        return self.folder / f"{self.cell}-{self.layers}.safetensors"

    def rows(self, name: str) -> list[dict[str, str]]:
        """A log of the run so far."""
        path = self.checkpoint.with_suffix(".run") / name
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of Flickr8k, see docs/data.md")
    parser.add_argument("--runs", required=True, type=Path, help="folder for checkpoints and logs")
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--embedding-size", type=int, default=256)
    parser.add_argument("--clip", default="norm:5")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--cache", default="~/.cache/captioner", help="folder of encoded images")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()

    args.runs.mkdir(parents=True, exist_ok=True)
    runs = [Run(cell, layers, args.runs) for layers in args.layers for cell in args.cells]
    for run in runs:
        train(run, args)
    speeds = tokens_per_second([read_header(run.checkpoint).config for run in runs])
    print(f"| {' | '.join(HEADINGS)} |")
    print(f"|---|{'---:|' * (len(HEADINGS) - 1)}")
    # compared with the first lstm, or the first cell where there is none
    unit = next((speed for run, speed in zip(runs, speeds, strict=True) if run.cell == "lstm"), speeds[0])
    for run, speed in zip(runs, speeds, strict=True):
        print(f"| {' | '.join(table_row(run, speed, unit))} |")


def train(run: Run, args: argparse.Namespace) -> None:
    """Train to the end, or see that this was done."""
    if len(run.rows("epochs.csv")) >= args.epochs:
        return
    options = {
        "--cell": run.cell,
        "--layers": run.layers,
        "--output": run.checkpoint,
        "--epochs": args.epochs,
        "--patience": 0,  # all for the same epochs
        "--hidden-size": args.hidden_size,
        "--embedding-size": args.embedding_size,
        "--clip": args.clip,
        "--lr": args.lr,
        "--batch-size": IMAGES,
        "--data": args.data,
        "--cache": args.cache,
        "--device": args.device,
    }
    flags = [str(part) for pair in options.items() for part in pair]
    print(f"{run.cell}, layers: {run.layers}", file=sys.stderr)
    command = [sys.executable, "-m", "captioner", "train", "--dataset", "flickr8k", *flags, "--resume"]
    if code := subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        sys.exit(code)


def table_row(run: Run, speed: float, unit: float) -> list[str]:
    """The cells of one line of the table."""
    last, steps = run.rows("epochs.csv")[-1], run.rows("steps.csv")
    figures = {name.rsplit(" ", 1)[-1]: 100 * float(last[name]) for name in last if name.startswith("flickr")}
    clipped = sum(row["clipped"] == "1" for row in steps) / len(steps)
    parameters = sum(part.numel() for part in decoder_blueprint(read_header(run.checkpoint).config).parameters())
    return [
        f"`{run.cell}`",
        str(run.layers),
        f"{figures['BLEU-4']:.1f}",
        f"{figures['CIDEr']:.1f}",
        f"{float(last['loss']):.3f}",
        f"{parameters / 1e6:.2f} M",
        f"{100 * clipped:.1f} %",
        f"{speed:,.0f}",
        f"{speed / unit:.2f}",
    ]


def tokens_per_second(configs: list[ModelConfig]) -> list[float]:
    """Words of captions a second in training on the CPU, without the encoder: the best of some rounds.

    The decoders take turns, so that what else the machine does meets all of them.
    """
    torch.manual_seed(0)
    lengths = torch.randint(7, 18, (IMAGES * CAPTIONS,)).sort(descending=True).values
    decoders = [Decoder(config) for config in configs]
    optimisers = [torch.optim.AdamW(decoder.parameters()) for decoder in decoders]
    best = [float("inf")] * len(decoders)
    for _ in range(ROUNDS):
        for place, (decoder, optimiser) in enumerate(zip(decoders, optimisers, strict=True)):
            seconds = step_seconds(decoder, optimiser, configs[place], lengths)
            best[place] = min(best[place], seconds)
    return [int(lengths.sum()) / seconds for seconds in best]


def step_seconds(
    decoder: Decoder, optimiser: torch.optim.Optimizer, config: ModelConfig, lengths: torch.Tensor
) -> float:
    """Duration of loss, gradient and optimiser step on random captions of these lengths."""
    words = torch.randint(0, config.vocabulary_size, (len(lengths), int(lengths[0]) + 1))
    targets = pack_padded_sequence(words[:, 1:], lengths, batch_first=True).data
    regions = torch.randn(IMAGES, 1, config.channels)
    owners = torch.arange(len(lengths)) % IMAGES
    start = time.perf_counter()
    outputs = decoder.teacher_force(words[:, :-1], lengths, decoder.initial_state(regions).select(owners))
    optimiser.zero_grad()
    nn.functional.cross_entropy(decoder.logits(outputs), targets).backward()
    optimiser.step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
