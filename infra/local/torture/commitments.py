"""An SCU of storage commitment, and the account of what it was told: a promise must be true."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from infra.local.torture import scp
from infra.local.torture.instances import CT_IMAGE_STORAGE, PACS, WEB, Instance, Kind
from infra.local.torture.ledger import Inbox, Ledger
from infra.local.torture.system import AE_TITLE, System
from shared.adapters.destinations.association import (
    Association,
    AssociationRejectedError,
    Peer,
)
from shared.adapters.destinations.commitment import CONTEXT
from shared.adapters.destinations.upper_layer import ProtocolError
from shared.dicom.commitment import (
    CommitmentReport,
    CommitmentRequest,
    MalformedCommitmentError,
    Reference,
    new_transaction_uid,
)

_SUCCESS: Final = 0x0000
_TIMEOUT_S = 10.0
_PAUSE_S = (0.1, 1.0)
# It waits so long for a report on its own association; the rest comes to the peers' SCP.
_LONGEST_STAY_S = 3.0
_MOST_AT_ONCE = 20
_KINDS = (Kind.PLAIN, Kind.CHANGED, Kind.UNWANTED)


class Promises:
    """What was asked, and what was told. Any thread may take a report."""

    def __init__(self, ledger: Ledger, inboxes: Mapping[str, Inbox]) -> None:
        self._ledger, self._inboxes = ledger, inboxes
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._told: set[str] = set()
        self.committed: set[Instance] = set()
        # Promised before it was true.
        self.lies: set[Instance] = set()

    def asked(self, transaction_uid: str) -> None:
        """A request was answered with success."""
        with self._lock:
            self._asked.add(transaction_uid)

    def take(self, data_set: bytes) -> None:
        """Hold a report against what the peers have."""
        try:
            report = CommitmentReport.parse(data_set, CONTEXT.transfer_syntax)
        except MalformedCommitmentError:
            return
        found = [i for one in report.committed for i in self._ledger.find(one.sop_instance_uid)]
        with self._lock:
            self._told.add(report.transaction_uid)
            for instance in found:
                self.committed.add(instance)
                if not all(instance in self._inboxes[name] for name in (PACS, WEB)):
                    self.lies.add(instance)

    @property
    def counts(self) -> tuple[int, int]:
        """How many requests were acknowledged, and how many of them were not reported."""
        with self._lock:
            return len(self._asked), len(self._asked - self._told)


class Committer:
    """Asks for the commitment of what was acknowledged, until told to stop."""

    def __init__(
        self, system: System, ledger: Ledger, promises: Promises, random_: random.Random
    ) -> None:
        self._system, self._ledger, self._promises = system, ledger, promises
        self._random = random_
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask to end with the request at hand."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._random.uniform(*_PAUSE_S)):
            known = [i for i in self._ledger.acknowledged if i.kind in _KINDS]
            latest = known[-_MOST_AT_ONCE * 2 :]
            if latest:
                count = self._random.randint(1, min(_MOST_AT_ONCE, len(latest)))
                with suppress(OSError, ProtocolError, AssociationRejectedError):
                    self._ask(self._random.sample(latest, count))

    def _ask(self, instances: list[Instance]) -> None:
        system = self._system
        # It calls itself what the peers' SCP is called, so that reports are sent there.
        peer = Peer(system.host, system.dimse_port, AE_TITLE, scp.AE_TITLE, 0, _TIMEOUT_S)
        association = Association(peer, [CONTEXT])
        try:
            transaction_uid = new_transaction_uid()
            references = tuple(
                Reference(CT_IMAGE_STORAGE, one.sop_instance_uid) for one in instances
            )
            request = CommitmentRequest(transaction_uid, references)
            response = association.act(CONTEXT, request.encode(CONTEXT.transfer_syntax))
            if response.status == _SUCCESS:
                self._promises.asked(transaction_uid)
                stay_s = self._random.uniform(0, _LONGEST_STAY_S)
                if (told := association.await_event(CONTEXT, stay_s)) is not None:
                    self._promises.take(told)
        except BaseException:
            association.abort()
            raise
        association.release()
