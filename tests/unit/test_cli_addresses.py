"""Ports are settled before anything starts, and in words that name the setting."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from infra.local import addresses
from infra.local.addresses import Addresses, claim_port, read_addresses
from infra.local.terminal import CommandFailedError

LOOPBACK = "127.0.0.1"


def test_zero_chooses_a_port_that_can_be_listened_on() -> None:
    port = claim_port(0, LOOPBACK, "AXIOM_HTTP")
    with socket.create_server((LOOPBACK, port)):
        assert port < 32768  # outgoing connections take theirs from above


def test_a_port_in_use_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_PORT_WAIT_S", 0.0)
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandFailedError) as caught:
            claim_port(port, LOOPBACK, "AXIOM_DIMSE")
    assert str(port) in caught.value.message
    assert "AXIOM_DIMSE_PORT" in caught.value.hint


def test_an_address_of_another_machine_names_the_setting() -> None:
    with pytest.raises(CommandFailedError) as caught:
        claim_port(0, "192.0.2.1", "AXIOM_HTTP")  # RFC 5737: nobody's
    assert "AXIOM_HTTP_HOST" in caught.value.hint


def test_addresses_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    written = Addresses(str(tmp_path), 1, "0.0.0.0", 8080, LOOPBACK, 11112, "AXIOM", ("http",))
    written.write()
    assert read_addresses(tmp_path) == written
    assert written.url == "http://127.0.0.1:8080"  # one cannot connect to 0.0.0.0


def test_a_home_that_never_ran_has_none(tmp_path: Path) -> None:
    assert read_addresses(tmp_path) is None
