"""What has to be done again and again for all of a system: some of it at each call of a timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.environment import Platform
from shared.pipeline import edges
from shared.pipeline.ports import Ports
from shared.pipeline.retention import Cleaner

if TYPE_CHECKING:
    from shared.pipeline.audit_forwarding import Forwarder

# How long a call works: Cloud Scheduler makes one a minute, the embedded mode one in a few seconds.
_FOR_S: Final = {Platform.EMBEDDED: 2.0, Platform.CLOUD: 50.0}
# Side by side: in the cloud each waits for Google's answers, a dozen for one Instance.
_AT_ONCE: Final = {Platform.EMBEDDED: 1, Platform.CLOUD: 16}


class Housekeeping:
    """Sends what was audited, tells how gateways on premises are, and deletes what is needed no
    more; one for each process that does so.
    """

    def __init__(self, ports: Ports, forwarder: Forwarder | None, platform: Platform) -> None:
        """`forwarder` sends audit messages to their repository, if there is one."""
        self._ports, self._forwarder = ports, forwarder
        self._for_s, self._has_edges = _FOR_S[platform], platform is Platform.CLOUD
        self._cleaner = Cleaner(ports, at_once=_AT_ONCE[platform])

    def run(self) -> None:
        """Raises: StorageUnavailableError; the next call goes on."""
        if self._forwarder is not None:
            self._forwarder.run(for_s=self._for_s / 2)
        if self._has_edges:
            edges.look_after(self._ports.documents, self._ports.clock)
        self._cleaner.run(for_s=self._for_s)
