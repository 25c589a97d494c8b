"""How much faster is a step of the trainer than one of a plain training loop?

    python benchmarks/training.py [--images 32] [--encoder efficientnet_lite0] [--rounds 5] [--device cpu]

The plain loop is the one of many tutorials: each caption is a row with the features of its image, rows are
padded to the longest, an LSTMCell walks over the time steps, all in float32. Both train the same model (same
number of weights, same dropout, label smoothing, clipping, AdamW) on the same batches: random features,
captions of random words whose lengths are distributed as in Flickr8k, five to an image. First their losses
are compared on equal weights. Then steps of both are timed in turn, and the fastest rounds are compared, in
words (with the end of each caption) a second:

- decoder only: features are given to both. What can be gained is the padding, about half of all places;
- with the encoder: a frozen encoder runs within the step: for each image in the trainer's, batch-norm folded
  into its convolutions; for each row, as it is, in the plain one. So much is what batches by image save in a
  first epoch; from the second on the trainer reads features from its cache and the encoder does not run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from captioner.checkpoint import Checkpoint
from captioner.features import FeatureRows
from captioner.model.encoder import (
    NO_PREPROCESSING,
    CaptionNetwork,
    build_encoder,
    encoder_preprocessing,
    output_shape,
)
from captioner.runtime.torch import choose_device, choose_dtype, fuse
from captioner.training.data import Batch, TrainingData, make_batch
from captioner.training.folder import RunFolder, TrainingState
from captioner.training.options import TrainingOptions
from captioner.training.trainer import Trainer
from captioner.vocabulary import END, PAD, SPECIAL_WORDS, START, Vocabulary

CAPTIONS = 5  # of an image
WORDS = 4000  # Flickr8k with --min-count 3
STEPS = 4  # batches, taken in turn
# Of 1,000 captions of Flickr8k, how many have 0, 1, 2, ... words.
LENGTHS = (0, 0, 1, 4, 12, 29, 65, 84, 97, 109, 113, 104, 92, 76, 62, 44, 34, 22, 17, 12, 7, 5, 3, 2, 2, 1, 1)


class PlainDecoder(nn.Module):
    """The same model, one time step after the other over padded rows."""

    def __init__(self, channels: int, words: int, size: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.initial = nn.Linear(channels, 2 * size)
        self.cell = nn.LSTMCell(size, size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, words)
        self.output.weight = self.embedding.weight

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """``(rows, channels)`` and ``(rows, time)`` -> ``(rows, time, vocab)``."""
        hidden, memory = torch.tanh(self.initial(self.dropout(features))).chunk(2, dim=1)
        logits = []
        for inputs in self.dropout(self.embedding(words)).unbind(1):
            hidden, memory = self.cell(inputs, (hidden, memory))
            logits.append(self.output(self.dropout(hidden)))
        return torch.stack(logits, dim=1)


class PlainLoop:
    """Trains it as a tutorial does."""

    def __init__(self, trainer: Trainer, features: Callable[[Batch], Tensor]) -> None:
        options, vocabulary = trainer.options, len(trainer.data.vocabulary)
        channels = trainer.checkpoint.network.config.channels
        self.decoder = PlainDecoder(channels, vocabulary, options.hidden_size, options.dropout)
        self.decoder.to(trainer.device)
        self.features, self.device = features, trainer.device
        self.optimiser = torch.optim.AdamW(self.decoder.parameters(), options.lr)
        self.objective = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=options.label_smoothing)

    def loss(self, batch: Batch) -> Tensor:
        """Mean over all words; padding does not count."""
        words = batch.words.to(self.device)
        logits = self.decoder(self.features(batch), words[:, :-1])
        loss: Tensor = self.objective(logits.flatten(0, 1), words[:, 1:].flatten())
        return loss

    def step(self, batch: Batch) -> float:
        """One step of the optimiser."""
        self.optimiser.zero_grad()
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 5.0)
        self.optimiser.step()
        return loss.item()


@dataclass(frozen=True)
class Encoding:
    """Features made within the step, by a frozen encoder; what is trained sees them in float32."""

    encoder: nn.Module
    pixels: Tensor
    dtype: torch.dtype

    def ahead(self, steps: Iterable[list[Batch]], *_: object) -> Iterator[list[Batch]]:
        """All pixels are in memory."""
        yield from steps

    @torch.no_grad()
    def fetch(self, numbers: Sequence[int]) -> Tensor:
        """``(images, 1, channels)``."""
        images = self.pixels[list(numbers)].to(self.dtype, memory_format=torch.channels_last)
        regions: Tensor = self.encoder(images)
        return regions.float().mean(dim=1, keepdim=True)


def made_up_data(numbers: int, channels: int) -> TrainingData:
    chance = np.random.default_rng(0)
    vocabulary = Vocabulary((*SPECIAL_WORDS, *(f"w{number}" for number in range(WORDS))))
    lengths = chance.choice(len(LENGTHS), (numbers, CAPTIONS), p=np.array(LENGTHS) / sum(LENGTHS))
    # Few words are frequent, and most are rare, as in any text.
    ranks = 1 / np.arange(1, WORDS + 1)
    captions = [
        [
            [START, *(len(SPECIAL_WORDS) + chance.choice(WORDS, length, p=ranks / ranks.sum())).tolist(), END]
            for length in of_image
        ]
        for of_image in lengths
    ]
    array = chance.standard_normal((numbers, 1, channels), np.float32).astype(np.float16)
    features = FeatureRows(array, np.arange(numbers), [""] * numbers, {})
    return TrainingData(vocabulary, captions, [], list(range(numbers)), features, [], "CIDEr", {}, None, "made up")


def made_up_trainer(folder: str, args: argparse.Namespace, channels: int) -> Trainer:
    options = TrainingOptions(
        output=f"{folder}/model.safetensors",
        encoder="none",
        hidden_size=args.size,
        embedding_size=args.size,
        batch_size=args.numbers,
        device=args.device,
        precision=args.precision,
    )
    data, run = made_up_data(STEPS * args.numbers, channels), RunFolder(Path(options.output))
    config = options.model_config(image_size=1, channels=channels, vocabulary_size=len(data.vocabulary))
    torch.manual_seed(0)
    checkpoint = Checkpoint(CaptionNetwork(config), data.vocabulary, NO_PREPROCESSING)
    run.path.mkdir()
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    return Trainer(checkpoint, data, options, TrainingState({}), run, device=device, dtype=dtype)


def compare_losses(trainer: Trainer, plain: PlainLoop, batch: Batch) -> None:
    """Both compute the same on equal weights."""
    ours, theirs = trainer.decoder, plain.decoder
    theirs.load_state_dict(
        {name.replace("core.", "").replace("_l0", ""): value for name, value in ours.state_dict().items()}
    )
    count = sum(value.numel() for value in ours.parameters())
    assert count == sum(value.numel() for value in theirs.parameters())
    ours.eval()
    theirs.eval()
    words = int(batch.lengths.sum())
    losses = trainer._backward(batch, words).item(), plain.loss(batch).item()
    print(f"loss of both on the same {count / 1e6:.1f} million weights: {losses[0]:.4f}, {losses[1]:.4f}")
    ours.train()
    theirs.train()


def compare_speeds(title: str, trainer: Trainer, plain: PlainLoop, batches: list[Batch], rounds: int) -> None:
    words = sum(int(batch.lengths.sum()) for batch in batches)
    fastest = {"trainer": float("inf"), "plain loop": float("inf")}
    ways: dict[str, Callable[[Batch], object]] = {
        "trainer": lambda batch: trainer._step([batch]),
        "plain loop": plain.step,
    }
    for take in ways.values():
        take(batches[0])  # what is done once, such as finding the fastest kernels
    for _ in range(rounds):
        for name, take in ways.items():
            start = time.perf_counter()
            for batch in batches:
                take(batch)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    rates = {name: words / seconds for name, seconds in fastest.items()}
    print(
        f"{title}: trainer {rates['trainer']:,.0f} words/s, plain loop {rates['plain loop']:,.0f} words/s, "
        f"ratio {rates['trainer'] / rates['plain loop']:.1f}"
    )


def batches_of(trainer: Trainer) -> list[Batch]:
    size, captions = trainer.options.batch_size, trainer.data.captions
    batches = [make_batch(list(range(start, start + size)), captions) for start in range(0, len(captions), size)]
    filled = sum(int(batch.lengths.sum()) for batch in batches)
    places = sum(batch.words[:, 1:].numel() for batch in batches)
    print(f"{size} images a batch, {CAPTIONS} captions each; padded, {filled / places:.0%} of places hold words")
    return batches


def for_rows(fetch: Callable[[Sequence[int]], Tensor]) -> Callable[[Batch], Tensor]:
    """Features ``(rows, channels)`` of the image of each caption."""
    return lambda batch: fetch([batch.numbers[owner] for owner in batch.owners.tolist()]).squeeze(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32, help="in a batch")
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=512, help="of the recurrent state and of word vectors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="of the trainer")
    args = parser.parse_args()

    side = encoder_preprocessing(args.encoder).size
    encoder = build_encoder(args.encoder, side, pretrained=True).eval()
    _, channels = output_shape(encoder, side)
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_up_trainer(folder, args, channels)
        device, dtype = trainer.device, trainer.dtype
        print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, trainer in {dtype}")
        batches = batches_of(trainer)
        plain = PlainLoop(trainer, for_rows(trainer.inputs.fetch))
        compare_losses(trainer, plain, batches[0])
        compare_speeds("decoder only", trainer, plain, batches, args.rounds)

        pixels = torch.randn(len(trainer.data.captions), 3, side, side, device=device)
        fused = fuse(encoder).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        trainer.inputs = Encoding(fused, pixels, dtype)
        plain.features = for_rows(Encoding(encoder.to(device), pixels, torch.float32).fetch)
        compare_speeds("with the encoder", trainer, plain, batches, max(1, args.rounds // 2))
        trainer.log.close()


if __name__ == "__main__":
    main()
