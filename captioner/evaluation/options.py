"""What an evaluation does besides scoring."""

from dataclasses import dataclass

from captioner.options import check, option


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    subset: bool = option(False, "score only the images that the results file names")
    limit: int | None = option(None, "caption and score only the first N images", low=1)
    bootstrap: int = option(1000, "resamples for the 95% intervals; 0 for none", low=0)
    meteor: bool = option(True, "compute METEOR where Java and the package pycocoevalcap are there")

    def __post_init__(self) -> None:
        check(self)
