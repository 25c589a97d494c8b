"""Captions and references must be of the same photos; otherwise the figure is of something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captioner.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from captioner.datasets.records import ImageId

_NAMED = 5


def name_some(ids: Collection[ImageId]) -> str:
    """Names the first few of some photos and counts the others, for a one-line message."""
    named = ", ".join(repr(image_id) for image_id in list(ids)[:_NAMED])
    return named if len(ids) <= _NAMED else f"{named} and {len(ids) - _NAMED} more"


def check_ids(
    captioned: Collection[ImageId],
    referenced: Collection[ImageId],
    *,
    subset: bool = False,
    source: str = "the captions",
) -> None:
    """Checks that every photo has both a caption and references.

    Args:
        captioned: photos with a caption to judge.
        referenced: photos with human captions.
        subset: whether photos without a caption to judge are left out on purpose.
        source: what to call the captions to judge, such as their file.

    Raises:
        EvaluationError: there are no captions, or some photos have only one of the two.
    """
    if not captioned:
        raise EvaluationError(f"{source}: there is nothing to score")
    if unknown := _absent(captioned, referenced):
        hint = _hint_at_types(unknown, referenced)
        raise EvaluationError(
            f"{source}: {len(unknown)} captions are of photos without references: {name_some(unknown)}{hint}"
        )
    if not subset and (missing := _absent(referenced, captioned)):
        raise EvaluationError(
            f"{source}: {len(missing)} of {len(referenced)} photos have no caption: {name_some(missing)} "
            "(`subset` scores only the photos that have one)"
        )


def _absent(ids: Iterable[ImageId], among: Collection[ImageId]) -> list[ImageId]:
    known = set(among)
    return [image_id for image_id in ids if image_id not in known]


def _hint_at_types(unknown: Iterable[ImageId], referenced: Iterable[ImageId]) -> str:
    """Explains ids that would match but for their type, as "139" and 139."""
    written = {str(image_id): image_id for image_id in referenced}
    for image_id in unknown:
        if str(image_id) in written:
            return f" (the references write {written[str(image_id)]!r})"
    return ""
