"""Which decoding options suit a model best, on images that it was not trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from captioner.captioner import Captioner
from captioner.datasets.records import Record, refuse_train_split
from captioner.decoding.options import DecodingOptions
from captioner.errors import EvaluationError, OptionError
from captioner.evaluation.generate import readable_batches
from captioner.metrics.evaluate import References, score_captions


@dataclass(frozen=True)
class Trial:
    """How captions written in one way do.

    Attributes:
        options: how they were written.
        figures: for each data set BLEU-4 and CIDEr, 0 to 1 and above, see ``captioner.metrics``.
        score: mean over the data sets of the figure that decides.
    """

    options: DecodingOptions
    figures: Mapping[str, Mapping[str, float]]
    score: float


@dataclass(frozen=True)
class Encoded:
    """Images of a data set as the decoder sees them.

    Attributes:
        label: of the data set.
        regions: ``(images, regions, channels)``, float16 on the CPU.
        ids: of the images.
        references: what people say of them, tokenised once.
    """

    label: str
    regions: Tensor
    ids: Sequence[str | int]
    references: References


def grid(base: DecodingOptions, choices: Mapping[str, Sequence[Any]]) -> list[DecodingOptions]:
    """All combinations of some values of options, each once.

    Args:
        base: all other options.
        choices: values of each field; none leave it as it is in ``base``.

    Raises:
        OptionError: a value is out of range, or captions would be drawn by chance.
    """
    if base.sampling:
        raise OptionError("the checkpoint draws its captions by chance", "only searching can be tuned")
    fields = {name: values for name, values in choices.items() if values}
    found = (replace(base, **dict(zip(fields, values, strict=True))) for values in product(*fields.values()))
    return list(dict.fromkeys(found))


def encode_images(
    captioner: Captioner,
    label: str,
    records: Sequence[Record],
    *,
    batch_size: int = 16,
    skip_unreadable: bool = False,
    on_progress: Callable[[int], Any] = lambda images: None,
) -> Encoded:
    """Encode the images of a data set once, for all trials. They stay in memory.

    Args:
        captioner: the model.
        label: what to call the data set.
        records: images that the model was not trained on.
        batch_size: images encoded at once.
        skip_unreadable: whether broken images are left out instead of being an error.
        on_progress: called with the number of images done since the last call.

    Raises:
        OptionError: images are of a train split, or ready-made vectors.
        EvaluationError: images are broken, or none is left.
    """
    refuse_train_split(records, label, "tune")
    if any(record.row is not None for record in records):
        raise OptionError(f"{label}: holds vectors", "only images are tuned on")
    parts, kept = [], []
    for batch in readable_batches(captioner, records, batch_size, skip_unreadable):
        if batch.pixels:
            regions = captioner.encode(batch.pixels)
            # A decoder without attention gets the mean of the regions.
            whole = regions if captioner.config.attention != "none" else regions.mean(dim=1, keepdim=True)
            parts.append(whole.half().cpu())
        kept += batch.readable
        on_progress(len(batch.readable) + len(batch.broken))
    if not kept:
        raise EvaluationError(f"{label}: not one image can be read")
    references = References({record.image_id: record.captions for record in kept})
    return Encoded(label, torch.cat(parts), [record.image_id for record in kept], references)


def try_out(
    captioner: Captioner,
    sets: Sequence[Encoded],
    options: DecodingOptions,
    *,
    select_by: str = "CIDEr",
    batch_size: int = 16,
) -> Trial:
    """Caption all images in one way, and score each data set by itself.

    Args:
        captioner: the model.
        sets: images.
        options: how to search for captions.
        select_by: ``CIDEr`` or ``BLEU-4``.
        batch_size: images captioned at once.

    Raises:
        OptionError: the options ask for what the checkpoint does not have.
    """
    figures = {}
    for part in sets:
        captions: dict[str | int, str] = {}
        for start in range(0, len(part.ids), batch_size):
            regions = part.regions[start : start + batch_size].float()
            written = captioner.decode(regions, options, attention=False)
            found = zip(part.ids[start : start + batch_size], written, strict=True)
            captions |= {image_id: best.text for image_id, (best, *_) in found}
        figures[part.label] = score_captions(captions, part.references).headline
    return Trial(options, figures, sum(found[select_by] for found in figures.values()) / len(figures))


def best_of(trials: Sequence[Trial]) -> Trial:
    """The one with the highest score, of several the first."""
    return max(trials, key=lambda trial: trial.score)


def trials_table(trials: Sequence[Trial], select_by: str) -> str:
    """Figures of all trials on the scale of papers, with the options that vary; the best one is marked."""
    best = best_of(trials)
    written = [trial.options.to_dict() for trial in trials]
    varied = [name for name, value in written[0].items() if any(each[name] != value for each in written)]
    labels = [f"{label} {name}" for label, found in trials[0].figures.items() for name in found]
    rows = [[*(name.replace("_", " ") for name in varied), *labels, f"mean {select_by}"]]
    for trial in trials:
        settings = [getattr(trial.options, name) for name in varied]
        values = [("no", "yes")[value] if isinstance(value, bool) else f"{value:g}" for value in settings]
        values += [f"{100 * value:.1f}" for found in trial.figures.values() for value in found.values()]
        rows.append([*values, f"{100 * trial.score:.1f}" + " *" * (trial is best)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
