from __future__ import annotations

from packaging.requirements import Requirement

from tests.light.installing import installed, light_environment, project, run


def test_captions_need_no_torch_and_no_page() -> None:
    assert not installed() & {"torch", "torchvision", "onnx", "onnxscript", "gradio", "matplotlib"}
    assert not installed("app", "mcp", "heif") & {"torch", "torchvision", "onnx", "onnxscript", "matplotlib"}
    assert {"torch", "torchvision", "onnx", "onnxscript", "matplotlib"} <= installed("train")


def test_all_means_all() -> None:
    extras = project()["optional-dependencies"]
    everything = {extra for text in extras["all"] for extra in Requirement(text).extras}
    assert everything == {name for name, its in extras.items() if its} - {"all", "dev"}
    assert "captioner[all]" in extras["dev"]


def test_what_is_absent_is_absent_in_children_too() -> None:
    code = (
        "import importlib.util, subprocess, sys, numpy\n"
        "print(*map(importlib.util.find_spec, ('torch', 'onnx', 'gradio')))\n"
        "try: import torch.nn\n"
        "except ModuleNotFoundError as error: print(error)\n"
        "subprocess.run([sys.executable, '-c', 'import gradio'])"
    )
    done = run("-c", code, environment=light_environment())
    assert done.stdout == "None None None\nNo module named 'torch'\n"
    assert "No module named 'gradio'" in done.stderr
