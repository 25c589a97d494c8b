from __future__ import annotations

import argparse
import math
from dataclasses import fields

import pytest

from captioner.cli import build_parser
from captioner.cli.caption import COMMANDS
from captioner.cli.flags import read_options
from captioner.errors import OptionError
from captioner.web.options import ServingOptions


def test_flags_and_options_are_the_same() -> None:
    parser = argparse.ArgumentParser()
    COMMANDS["serve"].add_arguments(parser)
    assert {action.dest for action in parser._actions} - {"help"} == {item.name for item in fields(ServingOptions)}


def test_flags_become_options() -> None:
    args = build_parser().parse_args(
        ["serve", "--port", "80", "--max-upload-mb", "2.5", "--root-path", "/captioner", "--timeout", "9"]
    )
    assert read_options(args, ServingOptions) == ServingOptions(
        port=80, max_upload_mb=2.5, root_path="/captioner", timeout=9
    )


def test_by_default_it_listens_to_this_machine_alone() -> None:
    assert (ServingOptions().host, ServingOptions().port) == ("127.0.0.1", 7860)
    assert ServingOptions().max_upload_mb == 20


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "LOCALHOST", "::1", "0:0:0:0:0:0:0:1"])
def test_this_machine_has_many_names(host: str) -> None:
    assert ServingOptions(host=host).local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "no such host"])
def test_all_others_are_not_this_machine_alone(host: str) -> None:
    assert not ServingOptions(host=host).local


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": -1}, "`port` must be a whole number from 0 to 65535, not -1"),
        ({"port": 65536}, "`port` must be a whole number from 0 to 65535"),
        ({"max_batch_size": 0}, "`max_batch_size` must be at least 1, not 0"),
        ({"queue_size": 0}, "`queue_size` must be at least 1, not 0"),
        ({"max_upload_mb": 0}, "`max_upload_mb` must be above 0"),
        ({"max_upload_mb": math.inf}, "`max_upload_mb` must be above 0 and finite"),
        ({"timeout": math.nan}, "`timeout` must be above 0 and finite"),
        ({"root_path": "captioner"}, "`root_path` must begin with a slash"),
        ({"ssl_keyfile": "key.pem"}, "give both"),
        ({"ssl_certfile": "cert.pem"}, "give both"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ServingOptions(**values)  # type: ignore[arg-type]
