"""Where a model computes, and in which numbers."""

from __future__ import annotations

import torch

from captioner.errors import OptionError
from captioner.model.inference import supports_fast_bfloat16

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes the best that is there.

    Raises:
        OptionError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # some devices exist in name only
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise OptionError(f"device {name!r} is not to be had here ({reason})", "try cpu") from error
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of a precision on a device.

    Raises:
        OptionError: no such precision.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    fast = precision == "auto" and supports_fast_bfloat16(device)
    return torch.bfloat16 if fast or precision == "bf16" else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """The precision that :func:`choose_dtype` makes this number format of."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"
