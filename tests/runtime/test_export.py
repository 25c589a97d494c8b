from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.checkpoint import Checkpoint, load_checkpoint, with_encoder
from captioner.errors import CheckpointError
from captioner.model.config import ATTENTIONS, CELLS, ModelConfig
from captioner.model.encoder import NO_PREPROCESSING, CaptionNetwork, encoder_preprocessing, output_shape
from captioner.runtime.export import export_graphs, graphs_of, renewed_graphs
from captioner.runtime.graph import read_graphs
from captioner.runtime.onnx import from_file
from captioner.runtime.torch import TorchModel
from captioner.saving import save_checkpoint
from captioner.vocabulary import SPECIAL_WORDS, Vocabulary
from captioner.weights import read_header
from tests.small_model import small_checkpoint
from tests.tolerance import summation_bound

pytest.importorskip("onnxscript")

VECTORS = ModelConfig(
    "none", 1, channels=20, vocabulary_size=12, hidden_size=24, embedding_size=24, attention_size=16, attention_heads=4
)
OTHERS = (
    {"cell": "rnn", "nonlinearity": "sigmoid"},
    {"cell": "lstm", "layers": 3, "residual_layers": True, "attention": "adaptive"},
    {"cell": "gru", "layers": 2, "attention": "additive", "tie_embeddings": False, "embedding_size": 16},
    {"cell": "gated_rnn", "embedding_size": 40},
    {"attention": "adaptive", "attributes": 5},
)
# Cells and attention are graphs of their own making: each cell once, with each kind of attention in turn.
DECODERS = [
    {"cell": cell, "attention": attention} for cell, attention in zip(CELLS, itertools.cycle(ATTENTIONS), strict=False)
]
# The layers between input and result add at most this many numbers each, of sizes that the seed keeps near one.
TOLERANCE = 100 * summation_bound(64)


def vector_checkpoint(config: ModelConfig) -> Checkpoint:
    torch.manual_seed(0)
    network = CaptionNetwork(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    words = Vocabulary((*SPECIAL_WORDS, *"abcdefgh"[: config.vocabulary_size - len(SPECIAL_WORDS)]))
    return Checkpoint(network, words, NO_PREPROCESSING, training={})


@pytest.mark.parametrize("changes", [*DECODERS, *OTHERS], ids=lambda changes: "-".join(map(str, changes.values())))
def test_onnx_runtime_steps_as_torch_does(changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = vector_checkpoint(replace(VECTORS, **changes))
    checkpoint = replace(checkpoint, graphs=graphs_of(checkpoint, pytest.fail))
    save_checkpoint(tmp_path / "x.safetensors", checkpoint, dtype=torch.float32)
    ours = from_file(tmp_path / "x.safetensors", read_header(tmp_path / "x.safetensors")).model
    torchs = TorchModel(checkpoint, device="cpu")
    random = np.random.default_rng(0)
    for images, regions in ((1, 1), (3, 4)):
        seen = random.standard_normal((images, regions, VECTORS.channels), dtype=np.float32)
        state, wanted_state = ours.initial_state(seen), torchs.initial_state(seen)
        for width in (1, 5, 2):
            words = random.integers(0, VECTORS.vocabulary_size, (images, width))
            parents = random.integers(0, state.cell.shape[1], (images, width))
            state, wanted_state = state.reorder(parents), wanted_state.reorder(parents)
            found, wanted = [], []
            if ours.attends:
                (*found, state), (*wanted, wanted_state) = ours.look(words, state), torchs.look(words, wanted_state)
            else:
                (*found, state), (*wanted, wanted_state) = ours.step(words, state), torchs.step(words, wanted_state)
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("squeezenet1_1", 64),
        pytest.param("mobilenet_v3_small", 64, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 64, marks=pytest.mark.slow),
        pytest.param("vit_b_32", 224, marks=pytest.mark.slow),
        pytest.param("swin_t", 64, marks=pytest.mark.slow),
    ],
)
def test_graphs_of_an_encoder_hold_no_weights(name: str, size: int, tmp_path: Path) -> None:
    preprocessing = encoder_preprocessing(name, image_size=size)
    torch.manual_seed(0)
    config = replace(VECTORS, encoder=name, image_size=size, channels=1)
    _, channels = output_shape(CaptionNetwork(config).encoder, size)
    network = CaptionNetwork(replace(config, channels=channels))
    for module in network.modules():  # nothing that is one or zero at first is to be taken for granted
        if isinstance(module, torch.nn.BatchNorm2d):
            for statistic in (module.running_mean, module.running_var, module.weight, module.bias):
                torch.nn.init.uniform_(statistic, 0.5, 1)  # type: ignore[arg-type]
    checkpoint = replace(vector_checkpoint(VECTORS), network=network.eval(), preprocessing=preprocessing)
    save_checkpoint(tmp_path / "x.safetensors", checkpoint, dtype=torch.float32)
    found, difference = renewed_graphs(tmp_path / "x.safetensors")
    assert found.problem == ""
    assert difference <= 1e-4
    assert len(found.text) < 300_000


def test_regions_are_those_of_torch_for_every_image(checkpoint: Checkpoint, tmp_path: Path) -> None:
    whole = replace(checkpoint, graphs=graphs_of(checkpoint, pytest.fail))
    save_checkpoint(tmp_path / "x.safetensors", whole, dtype=torch.float32)
    ours = from_file(tmp_path / "x.safetensors", read_header(tmp_path / "x.safetensors")).model
    torchs = TorchModel(load_checkpoint(tmp_path / "x.safetensors"), device="cpu")
    pixels = list(np.random.default_rng(0).integers(0, 256, (3, *ours.preprocessing.shape), dtype=np.uint8))
    wanted = torchs.encode(pixels)
    np.testing.assert_allclose(ours.encode(pixels), wanted, atol=1e-4 * np.abs(wanted).max())


def test_exporting_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    export_graphs.cache_clear()
    export_graphs(replace(VECTORS, cell="rnn"), NO_PREPROCESSING)
    assert torch.equal(torch.rand(3), wanted)


def test_graphs_are_kept_until_they_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint = vector_checkpoint(replace(VECTORS, cell="rnn"))
    save_checkpoint(path, replace(checkpoint, graphs=graphs_of(checkpoint, pytest.fail)))
    loaded = load_checkpoint(path)
    assert loaded.graphs is not None
    save_checkpoint(path, loaded)
    assert read_header(path).graphs == loaded.graphs
    other = vector_checkpoint(replace(VECTORS, cell="rnn", hidden_size=32, embedding_size=32)).network
    save_checkpoint(path, replace(loaded, network=other))
    assert read_header(path).graphs is None


def test_an_encoder_that_is_not_in_the_file_has_no_graph(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config, preprocessing = checkpoint.network.config, checkpoint.preprocessing
    with_it = graphs_of(checkpoint, pytest.fail)
    without = graphs_of(checkpoint, pytest.fail, encoder=False)
    tensors = set(checkpoint.network.state_dict())
    assert read_graphs(with_it or "", config, tensors).keys() == {"begin", "step", "encoder"}
    assert read_graphs(without or "", config, tensors).keys() == {"begin", "step"}
    assert preprocessing.size == config.image_size
    for graphs, kept in ((with_it, None), (without, without)):
        path = tmp_path / "x.safetensors"
        save_checkpoint(path, replace(checkpoint, graphs=graphs), external_encoder=True)
        assert read_header(path).graphs == kept


def test_another_encoder_needs_other_graphs() -> None:
    blind = vector_checkpoint(replace(VECTORS, channels=1280))
    seeing = with_encoder(replace(blind, graphs="{}"), "efficientnet_lite0", image_size=64)
    assert seeing.graphs is None


@pytest.fixture
def said() -> list[str]:
    return []


def test_without_the_packages_a_checkpoint_is_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    export_graphs.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert graphs_of(small_checkpoint(), said.append) is None
    assert said == [
        "graphs for ONNX Runtime cannot be exported: onnxscript is not installed; "
        "run: pip install 'captioner[train]'; until then the checkpoint needs torch"
    ]


def test_an_encoder_that_cannot_be_exported_is_told(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    export: Callable[..., Any] = torch.onnx.export

    def stumble(program: Any, **settings: Any) -> Any:
        if settings["input_names"] == ["pixels"]:
            raise RuntimeError("no such\nlayer")
        return export(program, **settings)

    monkeypatch.setattr("torch.onnx.export", stumble)
    export_graphs.cache_clear()
    checkpoint = small_checkpoint()
    text = graphs_of(checkpoint, said.append)
    export_graphs.cache_clear()
    assert said == ["the encoder cannot be exported, so images need torch: RuntimeError: no such layer"]
    graphs = read_graphs(text or "", checkpoint.network.config, set(checkpoint.network.state_dict()))
    assert graphs.keys() == {"begin", "step"}


def test_a_decoder_that_cannot_be_exported_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such layer")

    monkeypatch.setattr("torch.onnx.export", stumble)
    export_graphs.cache_clear()
    with pytest.raises(CheckpointError, match="the graph begin cannot be exported: RuntimeError: no such layer"):
        export_graphs(VECTORS, NO_PREPROCESSING)
