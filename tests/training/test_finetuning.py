from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from captioner.errors import OptionError
from captioner.model.encoder import Encoder, _VisionTransformer, build_encoder
from captioner.training.encoding import TunedEncoder, frozen_stages
from captioner.training.optim import parameter_groups, trained_parameters
from captioner.training.options import TrainingOptions

CPU = torch.device("cpu")
SIDE = 64


def _small_vit() -> Encoder:
    network = VisionTransformer(image_size=SIDE, patch_size=16, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32)
    return Encoder("vit", _VisionTransformer(network))


def _built(name: str) -> Encoder:
    """An encoder with random weights, and statistics as after training."""
    torch.manual_seed(0)
    encoder = _small_vit() if name == "vit" else build_encoder(name, SIDE, pretrained=False)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return encoder.eval()


def _images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _tuned(encoder: Encoder, frozen: int, *, recompute: bool = False) -> TunedEncoder:
    return TunedEncoder(encoder, frozen, recompute=recompute, device=CPU)


def _gradients(tuned: TunedEncoder) -> dict[str, Tensor | None]:
    tuned.encoder.zero_grad(set_to_none=True)
    tuned(_images()).square().mean().backward()
    return {name: value.grad for name, value in tuned.encoder.named_parameters()}


# Name and how many stages stay as they are; 0 trains all.
CASES = [
    ("efficientnet_lite0", 7),
    ("efficientnet_lite0", 0),
    ("resnet18", 3),
    ("mobilenet_v3_small", 9),
    ("convnext_tiny", 6),
    ("swin_t", 5),
    ("densenet121", 6),
    ("vit", 2),
    ("vit", 0),
]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("name", "frozen"), CASES)
def test_gradients_reach_exactly_the_trained_stages_also_when_recomputed(name: str, frozen: int) -> None:
    encoder = _built(name)
    with torch.inference_mode():
        expected = encoder(_images())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    tuned = _tuned(encoder, frozen)
    torch.testing.assert_close(tuned(_images()), expected)
    gradients = _gradients(tuned)
    trained = {id(value) for stage in encoder.stages[frozen:] for value in stage.parameters()}
    for key, value in encoder.named_parameters():
        gradient = gradients[key]
        if id(value) in trained:
            assert value.requires_grad
            assert gradient is not None, key
            assert gradient.isfinite().all(), key
        else:
            assert not value.requires_grad
            assert gradient is None, key
    assert any(bool(gradient.any()) for gradient in gradients.values() if gradient is not None)
    recomputed = _gradients(_tuned(encoder, frozen, recompute=True))
    for key, gradient in gradients.items():
        torch.testing.assert_close(recomputed[key], gradient, msg=key)
    for key, value in encoder.state_dict().items():  # statistics of batch-norm among them
        assert torch.equal(value, before[key]), key


def _saved_bytes(run: Callable[[], Any]) -> int:
    """How much memory a forward pass keeps for the backward pass, weights aside."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(sizes.values())


def test_less_is_kept_where_less_is_trained_and_where_activations_are_recomputed() -> None:
    encoder = _built("resnet18")
    kept = {
        (frozen, recompute): _saved_bytes(
            lambda frozen=frozen, recompute=recompute: _tuned(encoder, frozen, recompute=recompute)(_images())
        )
        for frozen in (0, 3)
        for recompute in (False, True)
    }
    assert kept[3, False] < kept[0, False] / 3
    assert kept[0, True] < kept[0, False] / 3


def test_frozen_stages_build_no_graph_and_inference_builds_none_at_all() -> None:
    encoder = _built("resnet18")
    tuned = _tuned(encoder, 4)
    reached = []
    node = tuned(_images()).grad_fn
    while node is not None:  # down one way to the leaves
        reached.append(node.name())
        node = next((after for after, _ in node.next_functions if after is not None), None)
    assert reached[-1] == "torch::autograd::AccumulateGrad"
    assert sum("ConvolutionBackward" in name for name in reached) <= 5  # the last stage has five
    with torch.no_grad():
        assert _tuned(encoder, 0, recompute=True)(_images()).grad_fn is None


@pytest.mark.parametrize("recompute", [False, True])
def test_mixed_precision_gives_nearly_the_same_gradients(recompute: bool) -> None:
    encoder = _built("resnet18")
    exact = _gradients(_tuned(encoder, 3))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _gradients(_tuned(encoder, 3, recompute=recompute))
    for key, gradient in exact.items():
        other = rounded[key]
        assert (gradient is None) == (other is None)
        if gradient is not None and other is not None:
            assert other.dtype == torch.float32
            assert torch.cosine_similarity(gradient.flatten(), other.flatten(), dim=0) > 0.9, key


def test_a_stage_is_named_by_number_or_name() -> None:
    encoder = _built("resnet18")
    for wanted, frozen in (("all", 0), ("1", 0), ("conv1", 0), ("5", 4), ("layer4", 4)):
        assert frozen_stages(encoder, wanted) == frozen


@pytest.mark.parametrize("wanted", ["0", "6", "-1", "05", "layer5", "", "ALL"])
def test_a_stage_that_is_not_there_is_one_line_with_those_that_are(wanted: str) -> None:
    with pytest.raises(OptionError) as raised:
        frozen_stages(_built("resnet18"), wanted)
    assert str(raised.value) == (
        f"`finetune_from` {wanted}: resnet18 has no such stage; "
        "it has 1 conv1, 2 layer1, 3 layer2, 4 layer3, 5 layer4; all trains every one"
    )


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "swin_t", "vit"])
def test_kernels_of_the_encoder_decay_and_all_its_weights_learn_at_their_own_rate(name: str) -> None:
    encoder = _built(name)
    _tuned(encoder, 0)
    network = nn.ModuleDict({"encoder": encoder, "decoder": nn.Linear(4, 4)})
    options = TrainingOptions("x.safetensors", finetune_from="all", encoder_lr=1e-6, weight_decay=0.1)
    parameters = trained_parameters(network)
    names = {id(value): key for key, value in parameters.items()}
    kernels = {
        f"{place}.{key}"
        for place, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.MultiheadAttention)
        for key in ("weight", "in_proj_weight")
        if isinstance(getattr(module, key, None), nn.Parameter)
    }
    seen = set()
    for group in parameter_groups(parameters, options):
        for value in group["params"]:
            key = names[id(value)]
            seen.add(key)
            assert group["highest"] == (1e-6 if key.startswith("encoder.") else 1e-3), key
            assert group["weight_decay"] == (0.1 if key in kernels else 0.0), key
    assert seen == set(parameters)
