"""An encoder that is trained from one of its stages on."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captioner.errors import OptionError
from captioner.model.encoder import Encoder, Stage, as_regions, listed
from captioner.model.inference import fuse

ALL_STAGES = "all"


class TunedEncoder:
    """Runs an encoder so that its last stages can be trained.

    The encoder stays in evaluation mode: batch-norm keeps the statistics that it was pretrained with (those
    of a few images would be noise), while its scale and shift are trained like other weights of their stage;
    nothing is dropped at random. The stages below the first trained one build no graph, and their batch-norm
    is folded into the convolutions.

    Args:
        encoder: the encoder; weights of the trained stages are made to require gradients, all others not to.
        first: how many stages stay as they are.
        recompute: keep only the activations between stages, and compute those within a stage again when
            its gradient is due (Chen et al. 2016, "Training deep nets with sublinear memory cost").
        device: where to run; the encoder is moved there.
    """

    def __init__(self, encoder: Encoder, first: int, *, recompute: bool, device: torch.device) -> None:
        self.encoder = encoder.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recompute = recompute
        stages = encoder.stages
        encoder.requires_grad_(False)
        self.frozen = _fused(stages[:first])
        self.trained = stages[first:]
        for stage in self.trained:
            for parameter in stage.parameters():
                parameter.requires_grad_(True)

    def __call__(self, images: Tensor) -> Tensor:
        """Region features.

        Shapes: ``(batch, 3, size, size)`` normalised pixels -> ``(batch, regions, channels)``.
        """
        with torch.no_grad():
            features = self.frozen(images)
        for stage in self.trained:
            if self.recompute and torch.is_grad_enabled():
                # Nothing in an encoder in evaluation mode draws random numbers.
                features = checkpoint(stage, features, use_reentrant=False, preserve_rng_state=False)
            else:
                features = stage(features)
        return as_regions(features)


def frozen_stages(encoder: Encoder, first_trained: str) -> int:
    """How many stages of an encoder stay as they are.

    Args:
        encoder: the encoder.
        first_trained: number (from 1) or name of the first stage to train, or ``all``.

    Raises:
        OptionError: there is no such stage; the message lists those that there are.
    """
    names = [stage.name for stage in encoder.stages]
    if first_trained == ALL_STAGES:
        return 0
    if first_trained in names:
        return names.index(first_trained)
    if first_trained in (numbers := [str(number) for number in range(1, len(names) + 1)]):
        return numbers.index(first_trained)
    raise OptionError(
        f"`finetune_from` {first_trained}: {encoder.name} has no such stage; "
        f"it has {listed(encoder.stages)}; {ALL_STAGES} trains every one"
    )


def _fused(stages: Sequence[Stage]) -> Callable[[Tensor], Tensor]:
    parts = tuple(part for stage in stages for part in stage.parts)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    # Those that are not made of modules alone are transformers, which have no batch-norm to fold.
    return fuse(nn.Sequential(*modules)) if len(modules) == len(parts) else Stage("frozen", parts)
