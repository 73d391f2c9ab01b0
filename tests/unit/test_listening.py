"""The listeners that `axiom up` shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from infra.local.addresses import Addresses
from infra.local.commands.up import _listeners
from shared import listening

ADDRESSES = Addresses("", 1, "127.0.0.1", 8080, "127.0.0.1", 11112, "AXIOM", ("http",))


def test_all_listeners_are_shown_that_of_the_environment_first(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    there = {"host": "0.0.0.0", "ae_title": "CT"}
    listening.tell(
        tmp_path / "run",
        [
            {**there, "name": "ct", "port": 104, "tls": True},
            {**there, "name": "default", "port": 11112, "tls": False},
        ],
    )
    assert list(_listeners(replace(ADDRESSES, home=str(tmp_path)))) == [
        "0.0.0.0:11112, AE Title CT",
        "0.0.0.0:104, AE Title CT, TLS",
    ]


def test_that_of_the_environment_is_shown_where_the_gateway_has_said_nothing(
    tmp_path: Path,
) -> None:
    shown = list(_listeners(replace(ADDRESSES, home=str(tmp_path))))
    assert shown == ["127.0.0.1:11112, AE Title AXIOM"]
