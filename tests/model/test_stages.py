from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from captioner.model.encoder import Encoder, _VisionTransformer, build_encoder, listed

# One of each family: name, side of the image, stages and the names of some by their number.
FAMILIES = [
    ("efficientnet_lite0", 64, 9, {1: "stem", 2: "blocks1", 8: "blocks7", 9: "head"}),
    ("efficientnet_lite2", 64, 9, {5: "blocks4"}),
    ("alexnet", 64, 5, {1: "features.0", 5: "features.10"}),
    ("convnext_tiny", 64, 8, {1: "features.0", 8: "features.7"}),
    ("densenet121", 64, 8, {1: "features.conv0", 2: "features.denseblock1", 3: "features.transition1"}),
    ("efficientnet_b0", 64, 9, {1: "features.0", 9: "features.8"}),
    ("googlenet", 64, 12, {1: "conv1", 4: "inception3a"}),
    ("inception_v3", 96, 16, {1: "Conv2d_1a_3x3", 16: "Mixed_7c"}),
    ("maxvit_t", 224, 5, {1: "stem", 5: "blocks.3"}),
    ("mnasnet0_5", 64, 10, {1: "layers.0"}),
    ("mobilenet_v2", 64, 19, {1: "features.0"}),
    ("mobilenet_v3_small", 64, 13, {13: "features.12"}),
    ("regnet_x_400mf", 64, 5, {1: "stem", 5: "trunk_output.block4"}),
    ("resnet18", 64, 5, {1: "conv1", 2: "layer1", 5: "layer4"}),
    ("shufflenet_v2_x0_5", 64, 5, {2: "stage2", 5: "conv5"}),
    ("squeezenet1_1", 64, 9, {2: "features.3"}),
    ("swin_t", 64, 8, {1: "features.0", 8: "features.7"}),
    ("vgg11_bn", 64, 8, {2: "features.4"}),
    ("vit_b_32", 224, 13, {1: "patches", 2: "encoder_layer_0", 13: "encoder_layer_11"}),
]


@pytest.mark.parametrize(("name", "size", "count", "names"), FAMILIES)
def test_stages_share_all_weights_of_an_encoder_among_them(
    name: str, size: int, count: int, names: dict[int, str]
) -> None:
    # Random weights would take longer than all else; a RegNet computes its sizes with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        encoder = build_encoder(name, size, pretrained=False)
    stages = encoder.stages
    assert len(stages) == count
    assert {number: stages[number - 1].name for number in names} == names
    assert len({stage.name for stage in stages}) == count
    held = [id(parameter) for stage in stages for parameter in stage.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in encoder.parameters()}
    assert all(next(stage.parameters(), None) is not None for stage in stages)


def test_the_stages_of_a_lite_encoder_are_the_package_s_own_network() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("efficientnet_lite0", 64, pretrained=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = encoder.backbone.network.extract_features(images)  # type: ignore[union-attr]
        assert torch.equal(encoder(images), expected.flatten(2).transpose(1, 2))


@pytest.mark.usefixtures("double")
def test_the_stages_of_a_vision_transformer_are_torchvision_s_own_network() -> None:
    torch.manual_seed(0)
    network = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    ).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        tokens = torch.cat((network.class_token.expand(2, -1, -1), network._process_input(images)), dim=1)
        expected = network.encoder(tokens)[:, 1:]
        torch.testing.assert_close(Encoder("vit", _VisionTransformer(network))(images), expected)


def test_a_network_that_is_no_chain_is_one_stage() -> None:
    stages = Encoder("toy", nn.Conv2d(3, 8, 32)).stages
    assert listed(stages) == "1 all"


@pytest.mark.usefixtures("double")
def test_layers_without_weights_belong_to_the_stage_before_them() -> None:
    network = nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3)
    )
    first, second, third = Encoder("toy", network).stages
    assert len(first.parts) == 1  # what comes before all weights is a stage of its own
    assert [type(part) for part in second.parts] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    assert third.parts == (network[5],)
    images = torch.randn(1, 3, 20, 20)
    torch.testing.assert_close(third(second(first(images))), network(images))
