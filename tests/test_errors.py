from __future__ import annotations

import errno
import os
import pickle

import pytest

from captioner.errors import CaptionerError, OutputError, UnknownWordsError, needing, os_errors_as


def test_an_error_says_what_has_failed_and_then_what_to_do() -> None:
    error = CaptionerError("a.png: is damaged", "copy it again")
    assert (error.what, error.advice) == ("a.png: is damaged", "copy it again")
    assert str(error) == "a.png: is damaged; copy it again"
    assert str(CaptionerError("a.png: is damaged")) == "a.png: is damaged"


@pytest.mark.parametrize(
    "error", [OutputError("what", "advice"), UnknownWordsError("what", ["a", "b"], "advice")], ids=repr
)
def test_errors_pass_from_one_process_to_another(error: CaptionerError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == "what; advice"


def test_failures_of_the_system_become_ours() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(OutputError) as raised,
        os_errors_as(OutputError, "cannot write a: ", advice="make room"),
    ):
        raise full
    assert str(raised.value) == "cannot write a: No space left on device; make room"
    assert raised.value.__cause__ is full
    with (
        pytest.raises(OutputError, match=r"^a: cannot be read \(odd\)$"),
        os_errors_as(OutputError, "a: cannot be read (", ")"),
    ):
        raise OSError("odd")


def test_other_failures_pass() -> None:
    with pytest.raises(KeyError), os_errors_as(OutputError, "cannot write a: "):
        raise KeyError("a")


@pytest.mark.parametrize("module", ["torch", "torch.nn", "torchvision.models", "onnx"])
def test_an_absent_package_of_training_names_what_to_install(module: str) -> None:
    package = module.partition(".")[0]
    with (
        pytest.raises(CaptionerError, match=rf"^captioner train needs {package}: pip install 'captioner\[train\]'$"),
        needing("captioner train"),
    ):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


@pytest.mark.parametrize("module", ["captioner.nothing", "torch_geometric", None])
def test_another_absent_package_is_a_bug(module: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), needing("captioner train"):
        raise ModuleNotFoundError(name=module)
