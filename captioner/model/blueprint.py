"""A decoder's names and shapes without its weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captioner.model.config import ModelConfig
from captioner.model.decoder import Decoder


class _NothingDrawn(TorchFunctionMode):
    """Leaves out drawing from normal distributions, for which torch loads its compiler on ``meta``."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def decoder_blueprint(config: ModelConfig) -> Decoder:
    """The decoder of a configuration on torch's ``meta`` device: takes no memory, however large it is."""
    with torch.device("meta"), _NothingDrawn():
        return Decoder(config)
