"""Judge one set of captions, or two side by side: figures, intervals, METEOR where it is available, a signature."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from captioner import __version__
from captioner.datasets.records import ImageId
from captioner.decoding.options import DecodingOptions
from captioner.errors import EvaluationError
from captioner.evaluation.options import EvaluationOptions
from captioner.metrics import evaluate as metrics
from captioner.metrics.coco import MAX_ORDER, STATISTICS, bleu, split_tokens
from captioner.metrics.java import meteor, spice, why_no_spice
from captioner.metrics.ptb.tokenizer import TOKENIZER_VERSION, tokenize_lines

METRIC_SET = "BLEU-1..4(coco,closest)+ROUGE-L(beta1.2)+CIDEr-D(n4,sigma6)"

_NEVER = {"CLIPScore": "needs the network CLIP, which is no part of captioner"}
_UNKNOWN = "unknown (captions from a file)"


@dataclass(frozen=True)
class Provenance:
    """Where captions are from.

    Attributes:
        data: data set and split, or the name of the annotations file.
        available: images with references there.
        checkpoint: digest of the model; None where the captions were read from a file.
        decoding: how the captions were searched for; None where they were read from a file.
        precision: number format in which the encoder computed; None where they were read from a file.
        absent: images left out because they are not on disk.
        unreadable: images left out because they are broken.
    """

    data: str
    available: int
    checkpoint: str | None = None
    decoding: DecodingOptions | None = None
    precision: str | None = None
    absent: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Evaluation:
    """What was found about one set of captions.

    Attributes:
        scores: corpus figures and per-image scores.
        intervals: 95 % interval of each figure; empty without a bootstrap.
        meteor: METEOR, or None where it was not computed.
        not_computed: metrics that were not computed, each with the reason.
        signature: everything needed to reproduce the figures, in one line.
        provenance: where the captions are from.
        captions: the captions judged.
        references: the human captions that they were judged by.
        domains: corpus figures and per-image scores of each part of the data set that is also scored alone.
        spice: SPICE, or None where it was not computed.
    """

    scores: metrics.Scores
    intervals: Mapping[str, metrics.Interval]
    meteor: float | None
    not_computed: Mapping[str, str]
    signature: str
    provenance: Provenance
    captions: Mapping[ImageId, str]
    references: Mapping[ImageId, Sequence[str]]
    domains: Mapping[str, metrics.Scores] = field(default_factory=dict)
    spice: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, not multiplied by 100: a CIDEr of 1.0 is printed as 100."""
        found: dict[str, object] = {"scale": "0-1", **self.scores.figures}
        if self.meteor is not None:
            found["METEOR"] = self.meteor
        if self.spice is not None:
            found["SPICE"] = self.spice
        if self.domains:
            found["domains"] = {
                name: {"images": scores.images, **scores.figures} for name, scores in self.domains.items()
            }
        return found | {
            "images": self.scores.images,
            "references": self.scores.references,
            "images_available": self.provenance.available,
            "skipped": {"absent": self.provenance.absent, "unreadable": self.provenance.unreadable},
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "not_computed": dict(self.not_computed),
            "diversity": asdict(self.scores.diversity),
            "degeneration": asdict(self.scores.degeneration),
            "signature": self.signature,
        }

    def to_records(self) -> list[dict[str, object]]:
        """Return plain values for JSON of each image: its id, its caption and its scores from 0 to 1."""
        per_image = {name: values.tolist() for name, values in self.scores.per_image.items()}
        return [
            {"image_id": image_id, "caption": self.captions[image_id]}
            | {name: values[place] for name, values in per_image.items()}
            for place, image_id in enumerate(self.scores.ids)
        ]


def evaluate(
    captions: Mapping[ImageId, str],
    references: metrics.References,
    provenance: Provenance,
    options: EvaluationOptions,
    *,
    seed: int = 0,
    training_captions: Iterable[str] | None = None,
    domains: Mapping[str, Sequence[ImageId]] | None = None,
) -> Evaluation:
    """Judge one caption for each image.

    Args:
        captions: the captions to judge.
        references: the human captions of the same images.
        provenance: where the captions are from.
        options: intervals and METEOR.
        seed: of the bootstrap.
        training_captions: raw captions that the model was trained on.
        domains: images that are also scored alone, by the name of their part of the data set.

    Raises:
        EvaluationError: captions and references are not of the same images.
    """
    scores = metrics.score_captions(captions, references, training_captions=training_captions)
    not_computed, by_java = dict(_NEVER), {}
    wanted = {"METEOR": meteor} if options.meteor else {}
    wanted |= {"SPICE": spice} if options.spice else {}
    tokens = tokenize_lines([captions[image_id] for image_id in references.tokens]) if wanted else []
    for name, compute in wanted.items():
        try:
            by_java[name] = compute(tokens, list(references.tokens.values()))
        except EvaluationError as error:  # noqa: PERF203 (twice at most)
            not_computed[name] = str(error)
    if not options.meteor:
        not_computed["METEOR"] = "switched off"
    if not options.spice:
        not_computed["SPICE"] = why_no_spice() or "off unless asked for; needs Java, a parser of 400 MB, and minutes"
    bootstrap = f"{options.bootstrap} seed {seed}" if options.bootstrap else "none"
    return Evaluation(
        scores=scores,
        intervals=metrics.intervals(scores, options.bootstrap, seed) if options.bootstrap else {},
        meteor=by_java.get("METEOR"),
        not_computed=not_computed,
        domains={name: _part(captions, references, images) for name, images in (domains or {}).items()},
        spice=by_java.get("SPICE"),
        signature=signature(
            scores, provenance, captions, references.captions, bootstrap=bootstrap, meteor="METEOR" in by_java
        ),
        provenance=provenance,
        captions=captions,
        references=references.captions,
    )


def _part(captions: Mapping[ImageId, str], references: metrics.References, images: Sequence[ImageId]) -> metrics.Scores:
    """Score some of the images as if there were no others."""
    judged = {image_id: captions[image_id] for image_id in images if image_id in captions}
    return metrics.score_captions(
        judged, metrics.References({i: references.captions[i] for i in judged}, references.frequencies)
    )


def signature(
    scores: metrics.Scores,
    provenance: Provenance,
    captions: Mapping[ImageId, str],
    references: Mapping[ImageId, Sequence[str]],
    *,
    bootstrap: str,
    meteor: bool,
) -> str:
    """Describe an evaluation in one line of ``name:value`` pairs.

    Args:
        scores: what was found.
        provenance: where the captions are from.
        captions: the captions judged; a digest of them is part of the signature.
        references: all human captions used; a digest of them is part of the signature.
        bootstrap: resamples and seed of the intervals.
        meteor: whether METEOR was computed.
    """
    decoding = {} if provenance.decoding is None else provenance.decoding.to_dict()
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
        "decoding": ",".join(f"{name}={value}" for name, value in decoding.items()) or _UNKNOWN,
        "captions": f"sha256:{_digest(captions)}",
    }
    return "|".join(f"{name}:{value}" for name, value in pairs.items())


def _digest(captions: Mapping[ImageId, object]) -> str:
    """Return a short digest that does not depend on the order of the images."""
    ordered = sorted((str(image_id), texts) for image_id, texts in captions.items())
    return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()[:12]


def cross_check(evaluation: Evaluation, references: metrics.References) -> dict[str, float | int | None]:
    """Compute BLEU-4 on the same tokens with nltk, whose code is independent of ``captioner.metrics``.

    nltk counts a guess for each order that a caption is too short for, the COCO code does not. So captions of
    less than four words are left out on both sides.

    Args:
        evaluation: what :func:`evaluate` found.
        references: the human captions that it used.

    Returns:
        ``nltk_bleu_4`` from 0 to 1 and its ``difference`` from the BLEU-4 here, both None if no caption is
        long enough; ``images``: the number compared. If no four words of any caption match, nltk gives 0 and
        COCO's small constants up to 0.0002. Otherwise a difference above 1e-8 is an error in one of them.
    """
    from nltk.translate.bleu_score import corpus_bleu

    hypotheses = tokenize_lines([evaluation.captions[image_id] for image_id in references.tokens])
    pairs = zip(hypotheses, references.tokens.values(), strict=True)
    # As in the COCO code a token may hold a blank, see captioner.metrics.coco.
    words = [(split_tokens(tokens), [*map(split_tokens, human)]) for tokens, human in pairs]
    rows = [row for row, (hypothesis, _) in enumerate(words) if len(hypothesis) >= MAX_ORDER]
    if not rows:
        return {"nltk_bleu_4": None, "difference": None, "images": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of captions without a match
        theirs = float(corpus_bleu([words[row][1] for row in rows], [words[row][0] for row in rows]))
    statistics = evaluation.scores.statistics[rows, :STATISTICS]
    ours = float(bleu(statistics.sum(axis=0))[-1])
    return {"nltk_bleu_4": theirs, "difference": ours - theirs, "images": len(rows)}


class Contrast(NamedTuple):
    """An image on which two captions differ: its CIDEr-D under each of them."""

    image_id: ImageId
    first: float
    second: float
    first_caption: str
    second_caption: str


@dataclass(frozen=True)
class Comparison:
    """Two evaluations and their differences.

    Attributes:
        first: the evaluation to start from.
        second: the evaluation that may be better.
        differences: of each metric, second minus first, with interval and p-value.
        contrasts: the images on whose CIDEr-D the two differ most, the largest difference first.
        resamples: of the paired bootstrap.
        seed: of the paired bootstrap.
    """

    first: Evaluation
    second: Evaluation
    differences: Mapping[str, metrics.Difference]
    contrasts: tuple[Contrast, ...]
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, on the scale of :meth:`Evaluation.to_dict`."""
        return {
            "scale": "0-1",
            "differences": {
                name: {**found._asdict(), "interval": list(found.interval)} for name, found in self.differences.items()
            },
            "bootstrap": {"resamples": self.resamples, "seed": self.seed},
            "contrasts": [contrast._asdict() for contrast in self.contrasts],
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
        }


def check_same_images(first: Mapping[ImageId, str], second: Mapping[ImageId, str]) -> None:
    """Check that two sets of captions are of the same images.

    Raises:
        EvaluationError: an image has a caption in only one of them.
    """
    if odd := first.keys() ^ second.keys():
        raise EvaluationError(
            f"{len(odd)} images have a caption in one of the two files only: {metrics.name_some(odd)}"
        )


def compare_evaluations(first: Evaluation, second: Evaluation, *, resamples: int, seed: int, top: int) -> Comparison:
    """Compare two evaluations by the paired bootstrap.

    Args:
        first: the evaluation to start from.
        second: the evaluation that may be better.
        resamples: of the paired bootstrap, at least 1.
        seed: of the paired bootstrap.
        top: how many of the images on which the two differ most are named.

    Raises:
        EvaluationError: the two are not of the same images.
    """
    check_same_images(first.captions, second.captions)
    places = {image_id: place for place, image_id in enumerate(second.scores.ids)}
    order = [places[image_id] for image_id in first.scores.ids]
    ours, theirs = first.scores.per_image["CIDEr"], second.scores.per_image["CIDEr"][order]
    ranked = np.argsort(-np.abs(theirs - ours), kind="stable")[:top].tolist()
    odd = [(first.scores.ids[place], place) for place in ranked if ours[place] != theirs[place]]
    contrasts = tuple(
        Contrast(
            image_id, float(ours[place]), float(theirs[place]), first.captions[image_id], second.captions[image_id]
        )
        for image_id, place in odd
    )
    differences = metrics.compare(first.scores, second.scores, resamples, seed)
    return Comparison(first, second, differences, contrasts, resamples, seed)
