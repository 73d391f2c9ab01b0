"""Which listeners a gateway has: those configured for it, and the environment's."""

from __future__ import annotations

from typing import Any

import pytest

from scp_gateway.main import listeners
from shared.config.entities import Configuration
from shared.environment import Environment
from tests.gateway import listener


def _environment(**settings: str) -> Environment:
    return Environment.read({"AXIOM_DIMSE_PORT": "11112", "AXIOM_AE_TITLE": "FLOW", **settings})


def _configured(*entries: dict[str, Any]) -> Configuration:
    return Configuration(listeners=tuple(listener(**entry) for entry in entries))


def test_without_configuration_there_is_the_environments() -> None:
    [only] = listeners(Configuration(), _environment())
    assert (only.name, only.host, only.port, only.ae_title) == (
        "default",
        "127.0.0.1",
        11112,
        "FLOW",
    )


def test_a_configured_listener_on_its_port_takes_its_place() -> None:
    configuration = _configured({"name": "ct", "port": 11112})
    assert [entry.name for entry in listeners(configuration, _environment())] == ["ct"]


def test_a_disabled_one_does_not() -> None:
    configuration = _configured({"name": "ct", "port": 11112, "enabled": False})
    names = [entry.name for entry in listeners(configuration, _environment())]
    assert names == ["ct", "default"]


def test_no_configured_listener_loses_its_place_to_a_name() -> None:
    configuration = _configured({"name": "default", "port": 104}, {"name": "default-2", "port": 2})
    names = [entry.name for entry in listeners(configuration, _environment())]
    assert names == ["default", "default-2", "default-3"]


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ("", ["everywhere", "north", "south"]),
        ("north-1", ["everywhere", "north"]),
        ("NORTH-1", ["everywhere"]),
    ],
)
def test_a_filter_chooses_the_gateways(instance: str, expected: list[str]) -> None:
    configuration = _configured(
        {"name": "everywhere", "port": 11112},
        {"name": "north", "instance_filter": "north-*"},
        {"name": "south", "instance_filter": "south-*"},
    )
    found = listeners(configuration, _environment(AXIOM_INSTANCE=instance))
    assert [entry.name for entry in found] == expected


def test_one_without_a_host_listens_where_the_environments_would() -> None:
    """In a container, whose own loopback nobody reaches."""
    configuration = _configured({"name": "ct", "host": ""}, {"name": "mr", "host": "10.1.2.3"})
    found = listeners(configuration, _environment(AXIOM_DIMSE_HOST="0.0.0.0"))
    assert {entry.name: entry.host for entry in found} == {
        "ct": "0.0.0.0",
        "mr": "10.1.2.3",
        "default": "0.0.0.0",
    }


@pytest.mark.parametrize("key", ["schlüssel", " leading space", "line\nbreak"])
def test_an_api_key_that_no_header_carries_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="AXIOM_API_KEY"):
        Environment.read({"AXIOM_API_KEY": key})


@pytest.mark.parametrize("number", ["0", "-1", "two", "65"])
def test_a_number_of_processes_that_cannot_be_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="AXIOM_GATEWAY_PROCESSES"):
        Environment.read({"AXIOM_GATEWAY_PROCESSES": number})
