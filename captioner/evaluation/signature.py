"""The line printed under every figure, so that the figure can be reproduced (the idea is sacrebleu's)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captioner.metrics.tokenizer import TOKENIZER_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from captioner.datasets.records import ImageId
    from captioner.decoding.options import DecodingOptions
    from captioner.metrics.scores import Scores

METRIC_SET = "BLEU-1..4(coco,closest)+ROUGE-L(beta1.2)+CIDEr-D(n4,sigma6)"

_UNKNOWN = "unknown (captions from a file)"


@dataclass(frozen=True)
class Provenance:
    """Where captions are from.

    Attributes:
        data: data set and split, or the name of the annotations file.
        available: photos with references there.
        checkpoint: digest of the model; None where the captions were read from a file.
        decoding: how the captions were searched for; None where they were read from a file.
        precision: number format in which the encoder computed; None where they were read from a file.
        absent: photos left out because they are not on disk.
        unreadable: photos left out because they are broken.
    """

    data: str
    available: int
    checkpoint: str | None = None
    decoding: DecodingOptions | None = None
    precision: str | None = None
    absent: int = 0
    unreadable: int = 0


def signature(
    scores: Scores,
    provenance: Provenance,
    captions: Mapping[ImageId, str],
    references: Mapping[ImageId, Sequence[str]],
    *,
    bootstrap: str,
    meteor: bool,
) -> str:
    """Describes an evaluation in one line of ``name:value`` pairs.

    Args:
        scores: what was found.
        provenance: where the captions are from.
        captions: the captions judged; a digest of them is part of the signature.
        references: all human captions used; a digest of them is part of the signature.
        bootstrap: resamples and seed of the intervals.
        meteor: whether METEOR was computed.
    """
    from captioner import __version__

    pairs = {
        "captioner": __version__,
        "metrics": METRIC_SET + ("+METEOR-1.5" if meteor else ""),
        "tokenizer": TOKENIZER_VERSION,
        "data": provenance.data,
        "images": f"{scores.images} of {provenance.available}",
        "absent": provenance.absent,
        "unreadable": provenance.unreadable,
        "references": f"{scores.references} sha256:{_digest(references)}",
        "frequencies": scores.frequencies,
        "bootstrap": bootstrap,
        "checkpoint": provenance.checkpoint or _UNKNOWN,
        "precision": provenance.precision or _UNKNOWN,
        "decoding": _decoding(provenance.decoding),
        "captions": f"sha256:{_digest(captions)}",
    }
    return "|".join(f"{name}:{value}" for name, value in pairs.items())


def _decoding(options: DecodingOptions | None) -> str:
    if options is None:
        return _UNKNOWN
    return ",".join(f"{name}={value}" for name, value in options.to_dict().items())


def _digest(captions: Mapping[ImageId, object]) -> str:
    """Returns a short digest that does not depend on the order of the photos."""
    ordered = sorted((str(image_id), texts) for image_id, texts in captions.items())
    return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()[:12]
