"""``python -m tests.training.in_double ARGUMENTS``: ``python -m captioner``, computing in float64."""

import runpy

from tests.training.runs import in_double

if __name__ == "__main__":
    with in_double():
        runpy.run_module("captioner", run_name="__main__", alter_sys=True)
