from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from captioner.errors import OptionError
from captioner.model.classifier import pretrained_classifier
from captioner.model.config import ATTENTIONS
from captioner.model.encoder import build_encoder
from captioner.runtime.model import State
from captioner.runtime.torch import TorchModel, choose_device, choose_dtype, fuse
from tests.small_model import SIZE, small_checkpoint

MOST = 20  # images, more than one block


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("fp32", cpu) == torch.float32
    assert choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(OptionError, match="precision must be one of auto, fp32, bf16, int8, not 'fp16'"):
        choose_dtype("fp16", cpu)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "vulkan", "hpu", "opengl", "nonsense", "", "cpu:-1", "cuda:x\n"])
def test_a_device_that_is_not_there_is_one_clear_line(name: str) -> None:
    with pytest.raises(OptionError, match="is not available") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_fusing_never_hands_out_the_original() -> None:
    """The caller moves and converts what it gets; the original must not follow."""
    encoder = build_encoder("vit_b_32", 224, pretrained=False)
    fuse(encoder).bfloat16()
    assert next(encoder.parameters()).dtype == torch.float32


def test_networks_are_fused_in_some_threads_while_others_are_at_work() -> None:
    """A page loads weights while it captions with others; a program may load several at once."""
    network = build_encoder("resnet18", 64, pretrained=False).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = network(image)
    errors: list[BaseException] = []

    def repeat(act: Callable[[], object], times: int) -> None:
        try:
            for _ in range(times):
                act()
        except BaseException as error:  # told by the thread that waits
            errors.append(error)

    def look() -> None:
        with torch.inference_mode():
            assert torch.equal(network(image), expected)

    threads = [
        *(threading.Thread(target=repeat, args=(lambda: fuse(network), 4)) for _ in range(2)),
        threading.Thread(target=repeat, args=(look, 40)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    look()


@pytest.fixture(scope="module", params=ATTENTIONS)
def model(request: pytest.FixtureRequest) -> TorchModel:
    checkpoint = small_checkpoint(attention=request.param)
    return TorchModel(replace(checkpoint, classifier=pretrained_classifier("efficientnet_lite0")), device="cpu")


def steps(model: TorchModel, regions: np.typing.NDArray[np.float32], first: int) -> tuple[list[bytes], State]:
    """What each image is told at each of three steps, the later ones with captions exchanged; and the state then.

    Args:
        model: what tells.
        regions: of the images.
        first: number of the first of them among all, which decides about its words.
    """
    images = len(regions)
    words = np.random.default_rng(0).integers(4, 34, (3, MOST, 5))[:, first : first + images]
    parents = np.random.default_rng(1).integers(0, 5, (MOST, 5))[first : first + images]
    told = [b""] * images
    state = model.initial_state(regions)
    for time, at_once in enumerate(words):
        log_probs, state = model.step(at_once[:, :1] if time == 0 else at_once, state)
        told = [before + after.tobytes() for before, after in zip(told, log_probs, strict=True)]
        state = state.reorder(parents if time else np.zeros_like(parents))
    if model.attends:
        log_probs, weights, _ = model.look(words[0], state)
        told = [before + a.tobytes() + b.tobytes() for before, a, b in zip(told, log_probs, weights, strict=True)]
    return told, state


def test_what_an_image_is_told_does_not_depend_on_its_company_to_the_last_bit(model: TorchModel) -> None:
    pixels = list(np.random.default_rng(0).integers(0, 256, (MOST, SIZE, SIZE, 3), dtype=np.uint8))
    regions = np.concatenate([model.encode([each]) for each in pixels])
    classes = np.concatenate([model.classify(each[None]) for each in regions])
    alone = [steps(model, regions[image : image + 1], image)[0][0] for image in range(MOST)]
    assert len(set(alone)) == MOST
    for images in range(1, MOST + 1):
        assert np.array_equal(model.encode(pixels[:images]), regions[:images])
        assert np.array_equal(model.classify(regions[:images]), classes[:images])
        assert steps(model, regions[:images], 0)[0] == alone[:images]
        first = MOST - images
        assert steps(model, regions[first:], first)[0] == alone[first:]


def test_nor_on_those_that_have_left(model: TorchModel) -> None:
    regions = np.random.default_rng(0).normal(size=(MOST, 4, 1280)).astype(np.float32)
    words = np.random.default_rng(2).integers(4, 34, (MOST, 5))
    after = [steps(model, regions[image : image + 1], image)[1] for image in range(MOST)]
    alone = [model.step(words[image : image + 1], state)[0] for image, state in enumerate(after)]
    _, state = steps(model, regions, 0)
    chance, rows = np.random.default_rng(3), np.arange(MOST)
    while len(rows):
        log_probs, _ = model.step(words[rows], state)
        assert np.array_equal(log_probs, np.concatenate([alone[row] for row in rows]))
        kept = chance.permutation(len(rows))[: len(rows) - 1 - len(rows) // 4]
        rows, state = rows[kept], state.select(kept) if len(kept) else state
