#!/usr/bin/env bash
# torch 2.14.1: while torch.fx traces a module in one thread, unrelated modules fail in all other threads.
#
# Expected: torch.fx.symbolic_trace concerns the module that it is given.
# Seen: a plain nn.Linear that another thread calls during the trace raises
# "NameError: module is not installed as a submodule". After the trace it works again.
# Why: the tracer replaces torch.nn.Module.__call__ for the whole process as long as it traces.
# It matters to servers: folding batch-norm by torch.fx (torch.fx.experimental.optimization.fuse) when a second model
# is loaded makes requests to the first one fail.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import threading

import torch
from torch import fx, nn

begun, answered = threading.Event(), threading.Event()
answers = []


class Waiting(nn.Module):
    """Its trace lasts until the other thread has its answer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, values):
        begun.set()
        answered.wait(30)
        return self.inner(values)


unrelated = nn.Linear(2, 2)


def call_unrelated():
    begun.wait(30)
    try:
        answers.append(unrelated(torch.ones(1, 2)))
    except Exception as error:
        answers.append(error)
    finally:
        answered.set()


thread = threading.Thread(target=call_unrelated)
thread.start()
fx.symbolic_trace(Waiting())
thread.join()
print("torch", torch.__version__, "during the trace:", repr(answers[0]))
print("after the trace:", type(unrelated(torch.ones(1, 2))).__name__)
assert isinstance(answers[0], NameError) and "not installed as a submodule" in str(answers[0])
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
