"""How far two computations of one thing may lie apart that differ only in the order of their sums.

Processors, numbers of threads, batches and processes add the same numbers in different orders, and each
addition rounds. A tolerance chosen by looking at one machine holds on that machine only. So a test that
compares two orders of one sum either

- works in float64 (:func:`in_double`), where rounding is 5e8 times smaller than in float32 and wrong sums
  stand out from it, or
- takes its tolerance from here, where it follows from the number of terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Six digits are written to CSV files. Numbers that differ by rounding alone may be written as neighbours,
# which lie at most this far apart (100000 and 100001; the thousandth is for the rounding of the test).
SIX_DIGITS = 1.001e-5

# Log-probabilities and confidences are rounded to six decimals, to neighbours then at most.
SIX_DECIMALS = 1.001e-6


@contextmanager
def in_double() -> Iterator[None]:
    """Within the block new tensors and networks have float64, and ``Tensor.float`` gives that too.

    A comparison with ``torch.testing.assert_close`` takes the tolerance of float64 then.
    """
    default, single = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.float = single  # type: ignore[method-assign]
        torch.set_default_dtype(default)


def summation_bound(terms: int, magnitude: float = 1.0, dtype: torch.dtype = torch.float32) -> float:
    """Largest difference between two sums of the same numbers in any two orders.

    Each differs from the true sum by at most ``n u / (1 - n u)`` times the sum of the magnitudes, ``u``
    being half the distance from 1 to the next number (Higham 2002, "Accuracy and Stability of Numerical
    Algorithms", section 4.2). Products of two numbers, as in a matrix product, count as one term more.

    Args:
        terms: how many numbers are added.
        magnitude: sum of their absolute values; for a relative tolerance that of the result, where all
            terms have one sign.
        dtype: in which they are added.
    """
    rounding = terms * torch.finfo(dtype).eps / 2
    assert rounding < 1
    return 2 * magnitude * rounding / (1 - rounding)


def adam_bound(lr: float, steps: int, gradient_error: float, eps: float = 1e-8) -> float:
    """Largest difference between weights after some steps of Adam with gradients that differ by rounding.

    A step moves a weight by ``lr * m / (sqrt(v) + eps)``. Where the gradient itself is but rounding, that
    is at most ``lr * error / eps``, and elsewhere less. In float32 the error reaches ``eps``, and Adam makes
    a whole step of the rounding: so such comparisons are to be made in float64.
    """
    return steps * lr * gradient_error / eps
