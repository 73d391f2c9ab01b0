"""What a gateway on premises says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import bootstrap
from shared.edge.environment import EdgeEnvironment
from shared.environment import Environment

NOWHERE = "127.0.0.1:9"


def test_a_listener_that_cannot_listen_is_told_to_the_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else there knows: its modalities are refused, and all the rest goes on."""
    settings = {
        "AXIOM_PLATFORM": "cloud",
        "AXIOM_PROJECT": "demo",
        "AXIOM_BUCKET": "demo",
        "AXIOM_OIDC": "off",
        "AXIOM_HOME": str(tmp_path / "home"),
        "AXIOM_INSTANCE": "clinic-1",
        "AXIOM_GATEWAY_SPOOL": str(tmp_path / "spool"),
        "PUBSUB_EMULATOR_HOST": NOWHERE,
        "FIRESTORE_EMULATOR_HOST": NOWHERE,
        "STORAGE_EMULATOR_HOST": f"http://{NOWHERE}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    told = EdgeEnvironment.read()
    assert told is not None
    edge = bootstrap.beside_reception(bootstrap.edge(Environment.read(), told))
    assert edge is not None
    assert edge.state().fault == ""
    edge.listeners_fault = "listener secure: the secret cert is not there"
    assert edge.state().fault == edge.listeners_fault
