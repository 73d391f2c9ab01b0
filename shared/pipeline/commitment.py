"""Storage commitment: what others ask of us, and what others have told us (PS3.4 Annex J).

A request is durable before it is answered. An Instance is committed once every Delivery that was
decided for it is confirmed; a request is decided once all its Instances are, or its time is over.
While the association that asked is open its gateway reports there; else, and always in the end, the
message of the request has it reported on a new association.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from msgspec import Struct

from shared import crash_points
from shared.config.entities import DimseDestination
from shared.config.peers import DimsePeer
from shared.config.service import ConfigurationService
from shared.dicom.commitment import (
    CommitmentReport,
    CommitmentRequest,
    Failure,
    FailureReason,
    Reference,
    unique,
)
from shared.errors import (
    CommitmentPeerUnknownError,
    DocumentChangedError,
    DocumentExistsError,
    NotDecidedYetError,
)
from shared.messages import CommitmentRequested, Source, Topic, encode
from shared.pipeline import exceptions, instance_records
from shared.pipeline.delivery_records import COLLECTION as DELIVERIES
from shared.pipeline.delivery_records import DELIVERED, RETRYING, delivery_key, is_overtaken
from shared.pipeline.instance_records import COLLECTING, DISCARDED, HELD, RELEASED
from shared.ports import Clock, DocumentStore, Filter, MessageBus, Outgoing
from shared.times import timestamp

# Requests made of us; what peers have told us about our own requests.
COLLECTION, REPORTS = "commitments", "commitment-reports"

# How long the stages may take to decide about an Instance that was received just before.
_UNDECIDED_S = 60.0


class _Undecided(Enum):
    OPEN = "not decided yet"


_OPEN = _Undecided.OPEN

Data = Mapping[str, Any]


class Spool(Protocol):
    """What a gateway on premises has received and the cloud has not."""

    def position(self) -> int:
        """A place in the queue: all that was received until now stands before it."""

    def has_left(self, position: int) -> bool:
        """Whether the cloud has all that was received before that place."""


class Elsewhere(Struct, frozen=True):
    """Where Instances are decided about by others, and we are a gateway on premises."""

    spool: Spool
    documents: DocumentStore  # what became of the Instances


class Commitments:
    """The requests and reports, in documents. Used by gateways and by whoever reports."""

    def __init__(
        self,
        documents: DocumentStore,
        bus: MessageBus,
        clock: Clock,
        configuration: ConfigurationService,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """With `elsewhere`, `documents` hold requests alone, and all are reported on associations
        of ours: an inquiry may wait for the link.
        """
        self._documents, self._bus, self._clock = documents, bus, clock
        self._configuration = configuration
        self._elsewhere = elsewhere

    # ---- requests

    def request(self, request: CommitmentRequest, source: Source, *, here_for_s: float) -> str:
        """Keep a request for good; its key. `here_for_s`: how long the caller hopes to report on
        the association that asked.

        The same again is the same request, which is reported again. Raises:
        StorageUnavailableError.
        """
        parts = (source.calling_ae_title, request.transaction_uid)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        now = self._clock.now()
        data: dict[str, Any] = {
            "transaction_uid": request.transaction_uid,
            "references": [
                [one.sop_class_uid, one.sop_instance_uid] for one in unique(request.references)
            ],
            "ae_title": source.calling_ae_title,
            "called_ae_title": source.called_ae_title,
            "listener": source.name,
            "peer_address": source.peer_address,
            "requested_at": timestamp(now),
            "held_until": timestamp(now + timedelta(seconds=here_for_s)),
            "committed": None,
            "failed": None,
            "finished_at": None,
        }
        if self._elsewhere is not None:
            data |= {"held_until": "", "position": self._elsewhere.spool.position()}
        self._documents.put(COLLECTION, key, data)
        crash_points.reached(crash_points.AFTER_REQUEST)
        message = Outgoing(
            Topic.COMMITMENT_REQUESTED,
            encode(CommitmentRequested(key)),
            lane=source.calling_ae_title,
        )
        self._bus.publish([message])
        crash_points.reached(crash_points.AFTER_REQUEST_PUBLISHED)
        return key

    def inquire(self, key: str) -> Inquiry | None:
        """Find out what became of a request; None if there is none, it is reported already, or is
        to be reported on an association of ours.
        """
        found = self._documents.get(COLLECTION, key)
        if found is None or found.data["finished_at"] or self._elsewhere is not None:
            return None
        return Inquiry(found.data, self._documents, self._clock, self._longest_s())

    def reported(self, key: str, report: CommitmentReport) -> None:
        """The peer has taken the report."""
        crash_points.reached(crash_points.AFTER_REPORT)
        self._change(
            key,
            committed=len(report.committed),
            failed=len(report.failures),
            finished_at=timestamp(self._clock.now()),
        )

    def let_go(self, key: str) -> None:
        """The association that asked is not there to be told any more."""
        # Not a time: the clock may be wrong just now, and others would wait until it is that late.
        self._change(key, held_until="")

    def due(self, key: str) -> Due | None:
        """What to tell whom on a new association; None if there is nothing to tell any more.

        Raises: NotDecidedYetError, also while the association that asked may be told;
        CommitmentPeerUnknownError.
        """
        found = self._documents.get(COLLECTION, key)
        if found is None or found.data["finished_at"]:
            return None
        # Before it was requested: the clock was set back since.
        if found.data["requested_at"] <= timestamp(self._clock.now()) < found.data["held_until"]:
            raise NotDecidedYetError(found.data["transaction_uid"])
        report = self._inquiry(key, found.data).report()
        if report is None:
            raise NotDecidedYetError(found.data["transaction_uid"])
        ae_title = found.data["ae_title"]
        peer = self._peer(ae_title, found.data["listener"])
        if peer is None:
            raise CommitmentPeerUnknownError(ae_title)
        return Due(report, peer, ae_title, found.data["called_ae_title"])

    def forget_finished(self) -> None:
        """Delete requests that were reported long ago, where no clean-up does that.

        Raises: StorageUnavailableError.
        """
        since = self._clock.now() - timedelta(
            seconds=self._configuration.get().settings.record_retention_s
        )
        where = [Filter("finished_at", "<", timestamp(since))]
        page = self._documents.query(COLLECTION, where, order_by="finished_at", limit=1000)
        for found in page.documents:
            self._documents.delete(COLLECTION, found.key)

    def _inquiry(self, key: str, request: Data) -> Inquiry:
        if self._elsewhere is None:
            return Inquiry(request, self._documents, self._clock, self._longest_s())
        if not request.get("left_at") and self._elsewhere.spool.has_left(request["position"]):
            # Whoever decides has all of it from now on, and may take a while.
            request = {**request, "left_at": timestamp(self._clock.now())}
            self._change(key, left_at=request["left_at"])
        documents = self._elsewhere.documents if request.get("left_at") else None
        return Inquiry(request, documents, self._clock, self._longest_s())

    def _longest_s(self) -> float:
        return self._configuration.get().settings.commitment_timeout_s

    def _peer(self, ae_title: str, listener: str) -> DimsePeer | None:
        """Where the AE listens: by its listener, another one, or a destination of that title."""
        configuration = self._configuration.get()
        listeners = sorted(configuration.listeners, key=lambda one: one.name != listener)
        for one in listeners:
            if ae_title in one.commitment_peers:
                return one.commitment_peers[ae_title]
        for destination in configuration.destinations:
            if isinstance(destination, DimseDestination) and destination.ae_title == ae_title:
                return DimsePeer.at(destination)
        return None

    def _change(self, key: str, **fields: Any) -> None:
        while True:
            known = self._documents.get(COLLECTION, key)
            if known is None or known.data["finished_at"]:
                return
            try:
                self._documents.replace(COLLECTION, key, {**known.data, **fields}, known.version)
            except DocumentChangedError:
                continue
            return

    # ---- reports of peers about our own requests

    def keep_report(self, report: CommitmentReport) -> None:
        """Keep what a peer told a listener of ours; whoever asked finds it. The first one counts.

        Raises: StorageUnavailableError.
        """
        data = {
            "committed": [one.sop_instance_uid for one in report.committed],
            "failures": [[f.reference.sop_instance_uid, f.reason] for f in report.failures],
            "finished_at": timestamp(self._clock.now()),
        }
        try:
            self._documents.create(REPORTS, report.transaction_uid, data)
        except DocumentExistsError:
            return
        crash_points.reached(crash_points.AFTER_KEPT_REPORT)

    def report_of(self, transaction_uid: str) -> CommitmentReport | None:
        """What a peer told a listener of ours about a transaction, if it has."""
        found = self._documents.get(REPORTS, transaction_uid)
        if found is None:
            return None
        return CommitmentReport(
            transaction_uid,
            tuple(Reference("", uid) for uid in found.data["committed"]),
            tuple(Failure(Reference("", uid), reason) for uid, reason in found.data["failures"]),
        )


class Due(Struct, frozen=True):
    """A report that is to be made on a new association, from our AE to the peer's."""

    report: CommitmentReport
    peer: DimsePeer
    ae_title: str
    own_ae_title: str


class Inquiry:
    """Finds out what became of the Instances of one request. What is settled is asked once."""

    def __init__(
        self, request: Data, documents: DocumentStore | None, clock: Clock, longest_s: float
    ) -> None:
        """Without `documents`, whoever decides does not have the Instances yet."""
        self._request, self._documents, self._clock = request, documents, clock
        self._longest_s = longest_s
        self._open = [Reference(*pair) for pair in request["references"]]
        self._outcomes: dict[Reference, FailureReason | None] = {}

    def report(self) -> CommitmentReport | None:
        """The report once all is decided, or the request's time is over; None before.

        Raises: StorageUnavailableError.
        """
        waited_s = self._since("requested_at")
        decided_for_s = self._since("left_at" if self._request.get("left_at") else "requested_at")
        still_open = []
        for reference in self._open:
            outcome = self._outcome(reference, decided_for_s)
            if outcome is _OPEN and waited_s < self._longest_s:
                still_open.append(reference)
            else:
                self._outcomes[reference] = (
                    FailureReason.PROCESSING_FAILURE if outcome is _OPEN else outcome
                )
        self._open = still_open
        if still_open:
            return None
        outcomes = [
            (reference, self._outcomes[reference])
            for reference in (Reference(*pair) for pair in self._request["references"])
        ]
        return CommitmentReport(
            self._request["transaction_uid"],
            tuple(reference for reference, reason in outcomes if reason is None),
            tuple(Failure(ref, reason) for ref, reason in outcomes if reason is not None),
        )

    def _since(self, field: str) -> float:
        at = datetime.fromisoformat(self._request[field]).astimezone(UTC)
        return (self._clock.now() - at).total_seconds()

    def _outcome(self, reference: Reference, waited_s: float) -> FailureReason | _Undecided | None:
        """None if it is committed, `_OPEN` if that is not decided, else why it is not."""
        documents = self._documents
        if documents is None:
            return _OPEN
        instance = self._instance(reference.sop_instance_uid, documents)
        if instance is None:
            if _is_refused(reference.sop_instance_uid, documents):
                return FailureReason.PROCESSING_FAILURE
            # The stages may just have it, if it came right before the request.
            if waited_s < _UNDECIDED_S:
                return _OPEN
            return FailureReason.NO_SUCH_OBJECT_INSTANCE
        if instance["sop_class_uid"] != reference.sop_class_uid:
            return FailureReason.CLASS_INSTANCE_CONFLICT
        if instance["state"] == DISCARDED:
            return FailureReason.NO_SUCH_OBJECT_INSTANCE
        if instance["state"] in (HELD, COLLECTING, RELEASED) or instance.get("collecting_for"):
            return _OPEN
        states = [_state(instance, plan, documents) for plan in instance["deliveries"]]
        if any(state not in (DELIVERED, RETRYING) for state in states):
            return FailureReason.PROCESSING_FAILURE
        return _OPEN if RETRYING in states else None

    def _instance(self, sop_instance_uid: str, documents: DocumentStore) -> Data | None:
        """The newest that came from whoever asks, or of all if it sent none."""
        page = documents.query(
            instance_records.COLLECTION,
            [Filter("sop_instance_uid", "==", sop_instance_uid)],
            limit=100,
        )
        found: Sequence[Data] = [document.data for document in page.documents]
        own = [
            one for one in found if one["source"]["calling_ae_title"] == self._request["ae_title"]
        ]
        return max(own or found, key=lambda one: str(one["received_at"]), default=None)


def _state(instance: Data, plan: Data, documents: DocumentStore) -> str:
    """The Delivery's state; one that was not tried yet, or is to be anew, is on its way."""
    key = delivery_key(instance["receipt_id"], plan["destination"])
    found = documents.get(DELIVERIES, key)
    if found is None or is_overtaken(found.data, plan, instance):
        return RETRYING
    return str(found.data["state"])


def _is_refused(sop_instance_uid: str, documents: DocumentStore) -> bool:
    where = [
        Filter("sop_instance_uid", "==", sop_instance_uid),
        Filter("status", "==", exceptions.OPEN),
    ]
    return bool(documents.query(exceptions.COLLECTION, where, limit=1).documents)
