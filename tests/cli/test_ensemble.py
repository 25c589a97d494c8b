from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint
from captioner.cli import build_parser, main
from captioner.cli.caption import _model
from captioner.decoding.options import DecodingOptions
from captioner.model.encoder import CaptionNetwork
from captioner.saving import save_checkpoint
from captioner.vocabulary import SPECIAL_WORDS, Vocabulary
from tests.small_model import WORDS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def second(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same words and another habit of searching."""
    network = CaptionNetwork(checkpoint.network.config, pretrained=True)
    torch.manual_seed(5)
    with torch.no_grad():
        for key, value in network.decoder.state_dict().items():
            value.copy_(checkpoint.network.decoder.state_dict()[key] + 0.3 * torch.randn_like(value))
    path = tmp_path_factory.mktemp("second") / "second.safetensors"
    save_checkpoint(path, replace(checkpoint, network=network, decoding=DecodingOptions(beam_size=2)))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(command: str, *arguments: str | Path) -> tuple[int, str, str]:
        code = main([command, *map(str, arguments), "--device", "cpu"])
        return code, *capsys.readouterr()

    return call


def test_two_files_caption_evaluate_and_score(
    run: Run, checkpoint_file: Path, second: Path, images: list[Path], tmp_path: Path
) -> None:
    both = ("--weights", checkpoint_file, second)
    model = Captioner.load([checkpoint_file, second], device="cpu")
    assert model.options == Captioner.load(checkpoint_file, device="cpu").options
    expected = [captions[0] for captions in model.caption(images[:3])]

    code, out, _ = run("caption", *images[:3], "--workers", "0", *both)
    assert code == 0
    assert out.splitlines() == [f"{p}\t{c.text}" for p, c in zip(images, expected, strict=False)]
    # what is no checkpoint is an image, wherever it stands
    assert run("caption", "--workers", "0", *both, *images[:3])[1] == out
    # "--weights a --weights b" is the same
    again = ("--weights", checkpoint_file, "--weights", second)
    assert run("caption", *images[:3], "--workers", "0", *again)[1] == out

    # a cluster asks for this before the model is loaded on its machines
    arguments = build_parser().parse_args(["caption", str(images[0]), *map(str, again), "--device", "cpu"])
    told = _model(arguments)
    assert told.preprocessing is not None
    assert told.preprocessing() == model.preprocessing
    assert told.settings["weights"] == model.digest

    for image in images[:3]:
        shutil.copy(image, tmp_path)
    table = ["image,caption,split", *(f"{image.name},a dog,val" for image in images[:3])]
    (tmp_path / "captions.csv").write_text("\n".join(table))
    results = tmp_path / "results.json"
    flags = ("--dataset", f"table:{tmp_path}", "--no-meteor", "--bootstrap", "0", "--output", results)
    code, out, err = run("evaluate", *flags, "--json", *both)
    assert code == 0, err
    assert f"|checkpoint:{model.digest}|" in json.loads(out)["signature"]
    assert [entry["caption"] for entry in json.loads(results.read_text())] == [c.text for c in expected]

    code, out, _ = run("score", images[0], expected[0].text, "--json", *both)
    assert code == 0
    assert json.loads(out)["log_prob"] == pytest.approx(expected[0].log_prob, abs=1e-3)


def test_a_folder_is_gone_on_with_by_the_same_checkpoints_only(
    run: Run, checkpoint_file: Path, second: Path, images: list[Path], tmp_path: Path
) -> None:
    given = ("--workers", "0", "--output", tmp_path / "out.jsonl", "--weights", checkpoint_file)
    assert run("caption", *images[:2], *given, second)[0] == 0
    assert run("caption", *images[:3], *given, second)[2].count("1 captioned, 2 skipped") == 1
    whole = (tmp_path / "out.jsonl").read_bytes()
    digests = [Captioner.load(path, device="cpu").digest for path in (checkpoint_file, second)]
    code, _, err = run("caption", *images[:3], *given)
    assert code == 2
    assert f"was begun with weights {'+'.join(digests)}, not {digests[0]}" in err
    code, _, err = run("caption", *images[:3], *given, second, second)
    assert (code, err.count("\n")) == (2, 1)
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_what_does_not_go_together_is_one_clear_line(
    run: Run, checkpoint: Checkpoint, checkpoint_file: Path, images: list[Path], tmp_path: Path
) -> None:
    words = Vocabulary(SPECIAL_WORDS + tuple(WORDS.replace("cat", "fox").split()))
    save_checkpoint(tmp_path / "fox.safetensors", replace(checkpoint, vocabulary=words))
    first = (images[0], "--weights", checkpoint_file)
    for arguments, message in (
        ((*first, tmp_path / "fox.safetensors"), "word 33 is 'cat' in the one and 'fox' in the other"),
        ((*first, tmp_path / "absent.safetensors"), "absent.safetensors: no such checkpoint"),
        (("--weights", checkpoint_file, checkpoint_file), "name an image or a folder"),
    ):
        code, out, err = run("caption", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("captioner: error: ")
        assert message in err
        assert err.count("\n") == 1


def test_commands_of_one_checkpoint_take_one(run: Run, checkpoint_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run("search", tmp_path, "a dog", "--weights", checkpoint_file, checkpoint_file)
    assert ended.value.code == 2
