"""pynetdicom as a requestor that gets its association on a busy machine too."""

from __future__ import annotations

from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association

from tests.running import wait_until


def established(entity: AE, port: int, **options: Any) -> Association:
    """An association with the AE `AXIOM` on a loopback port.

    On a busy machine pynetdicom's requestor sometimes takes its negotiation for aborted: then it
    asks again.
    """

    def association() -> Association | None:
        asked = entity.associate("127.0.0.1", port, ae_title="AXIOM", **options)
        return asked if asked.is_established else None

    found = wait_until(association, what="an association")
    assert isinstance(found, Association)
    return found
