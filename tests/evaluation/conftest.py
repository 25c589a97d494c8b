from __future__ import annotations

import pytest

from captioner.evaluation.evaluate import Evaluation, Provenance, evaluate
from captioner.evaluation.options import EvaluationOptions
from captioner.metrics.evaluate import References
from tests.evaluation.small import CAPTIONS, REFERENCES
from tests.search.conftest import cache, folder, make_gallery  # noqa: F401  # fixtures


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    """An evaluation of the small set, with one caption that would be markup if it were not escaped."""
    captions = {**CAPTIONS, 60: '<b onload="x">a blue square</b>'}
    return evaluate(
        captions,
        References(REFERENCES),
        Provenance("coco val", 8, checkpoint="0123", absent=2),
        EvaluationOptions(bootstrap=50, meteor=False),
        seed=3,
        training_captions=["a red square on the wall"],
    )
