"""C-MOVE and C-GET (PS3.4 C.4.2, C.4.3): Instances out of an archive, one sub-operation at a time.

An Instance is spooled to a temporary file while it is fetched, so that one whose transfer breaks is
never sent in part, and memory holds a piece of it at most.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, Protocol

from scp_gateway.dimse_messages import SubOperations, data_pdus, store_request
from scp_gateway.dimse_status import SUCCESS, Answer, Status
from scp_gateway.fetching import Fetching, Lane, Spooled
from scp_gateway.query_jobs import Archive, Control, Job, Reply
from shared.adapters.destinations.association import Association, AssociationRejectedError, Peer
from shared.adapters.destinations.upper_layer import MAX_CONTEXTS, Context, ProtocolError
from shared.dicom.header import read_header
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.dicom.query import Level, Query, encode_failed
from shared.errors import AxiomError
from shared.ports import FoundInstance, Retrieval

log = logging.getLogger(__name__)

# Of Instances that are asked for one by one, so many in a row.
_AT_A_TIME: Final = 8
# More than this is not moved by one request.
_MOST_INSTANCES: Final = 200_000
# Proposed for each SOP Class, the commonest first, as many as there is room for.
_TRANSFER_SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.102",
)
# What an Instance is transcoded to where its own syntax is not taken.
_INSTEAD: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_WARNING_STATUSES: Final = frozenset({0x0001, 0x0107, 0x0116})


class Taker(Protocol):
    """Who gets the Instances."""

    def open(self, sop_classes: Iterable[str]) -> None:
        """Called once, before the first. Raises: OSError, ProtocolError,
        AssociationRejectedError.
        """

    def transfer_syntaxes(self, sop_class_uid: str) -> Iterable[str]:
        """Those in which Instances of the SOP Class are taken."""

    def take(self, instance: OutgoingInstance) -> Generator[None, None, int]:
        """C-STORE it; the Status. Raises: as `open`, after which nothing more is taken."""

    def close(self) -> None:
        """No more come; never raises."""


class MoveTaker:
    """Another AE, over one association for all of it."""

    def __init__(self, peer: Peer, originator: tuple[str, int]) -> None:
        self._peer, self._originator = peer, originator
        self._association: Association | None = None
        self._contexts: list[Context] = []

    def open(self, sop_classes: Iterable[str]) -> None:
        """As of Taker."""
        wanted = sorted(set(filter(None, sop_classes)))[:MAX_CONTEXTS]
        # The first syntaxes of all classes before the second of any: each has a chance.
        contexts = [Context(uid, syntax) for syntax in _TRANSFER_SYNTAXES for uid in wanted]
        self._contexts = contexts[:MAX_CONTEXTS]
        self._association = Association(self._peer, self._contexts)

    def transfer_syntaxes(self, sop_class_uid: str) -> Iterable[str]:
        """As of Taker."""
        association = self._association
        return [
            context.transfer_syntax
            for context in self._contexts
            if context.abstract_syntax == sop_class_uid
            and association is not None
            and association.accepts(context)
        ]

    def take(self, instance: OutgoingInstance) -> Generator[None, None, int]:
        """As of Taker."""
        association = self._association
        if association is None:
            raise ConnectionError("the association is over")
        context = Context(instance.sop_class_uid, instance.transfer_syntax_uid)
        try:
            response = association.store(
                context, instance.sop_instance_uid, instance.data_set_parts(), self._originator
            )
        except BaseException:
            self._association = None
            association.abort()
            raise
        yield
        return response.status

    def close(self) -> None:
        """As of Taker."""
        association, self._association = self._association, None
        if association is not None:
            association.release()


class GetTaker:
    """Whoever asked, over the association that it asked on.

    `contexts` are ID and Transfer Syntax of those that it is SCP of, by SOP Class.
    """

    def __init__(
        self,
        contexts: Mapping[str, Sequence[tuple[int, str]]],
        send: Callable[[bytes], None],
        control: Control,
        *,
        max_pdu_size: int,
    ) -> None:
        self._contexts, self._send, self._control = contexts, send, control
        self._max_pdu_size = max_pdu_size
        self._message_ids = itertools.cycle(range(1, 0x10000))

    def open(self, sop_classes: Iterable[str]) -> None:
        """As of Taker: it is open."""

    def transfer_syntaxes(self, sop_class_uid: str) -> Iterable[str]:
        """As of Taker."""
        return [syntax for _, syntax in self._contexts.get(sop_class_uid, ())]

    def take(self, instance: OutgoingInstance) -> Generator[None, None, int]:
        """As of Taker."""
        number = next(
            number
            for number, syntax in self._contexts[instance.sop_class_uid]
            if syntax == instance.transfer_syntax_uid
        )
        parts = instance.data_set_parts()
        self._send(
            store_request(
                number, next(self._message_ids), instance.sop_class_uid, instance.sop_instance_uid
            )
        )
        for pdu in data_pdus(number, chunks(parts), sum(map(len, parts)), self._max_pdu_size):
            self._send(pdu)
        self._control.wait()
        while self._control.is_waiting:
            yield
        return self._control.response

    def close(self) -> None:
        """As of Taker: it goes on."""


def retrieving(
    archive: Archive,
    query: Query,
    taker: Taker,
    control: Control,
    *,
    transfer_syntax_uid: str,
    max_instance_bytes: int,
) -> Job:
    """C-MOVE or C-GET to `taker`. Raises: SourceUnavailableError and its kin until the first
    sub-operation; after that what fails is counted.
    """
    listed: list[tuple[str, FoundInstance]] = []
    for found in archive.instances(query):
        if control.is_cancelled:
            yield Reply(Answer(Status.CANCELLED), counts=SubOperations(0, 0, 0, 0))
            return
        if found is not None:
            listed.append(found)
        if len(listed) > _MOST_INSTANCES:
            yield Reply(Answer(Status.CANNOT_COUNT_MATCHES, "too many Instances for one request"))
            return
        yield None
    sub_operations = _SubOperations([instance.uid for _, instance in listed])
    if not listed:
        yield Reply(SUCCESS, counts=sub_operations.counts)
        return
    try:
        taker.open({instance.sop_class_uid for _, instance in listed})
    except (OSError, ProtocolError, AssociationRejectedError) as error:
        log.warning("nobody to retrieve to", extra={"error": type(error).__name__})
        sub_operations.give_up()
        yield sub_operations.final(transfer_syntax_uid, "no association with the destination")
        return
    try:
        yield Reply(Answer(Status.PENDING), counts=sub_operations.counts)
        wanted = list(_retrievals(listed, are_whole=query.level is not Level.IMAGE))
        with closing(Fetching(archive, wanted, max_instance_bytes=max_instance_bytes)) as fetching:
            for lane in fetching.each():
                yield from _lane(fetching, lane, taker, control, sub_operations)
                if control.is_cancelled:
                    yield sub_operations.final(transfer_syntax_uid, status=Status.CANCELLED)
                    return
                sub_operations.fail_all(one.uid for one in lane.wanted.instances)
                yield Reply(Answer(Status.PENDING), counts=sub_operations.counts)
    except (OSError, ProtocolError) as error:
        log.warning("sub-operations break off", extra={"error": type(error).__name__})
        sub_operations.give_up()
        yield sub_operations.final(transfer_syntax_uid, "the association to send over is lost")
        return
    finally:
        taker.close()
    yield sub_operations.final(transfer_syntax_uid)


class _SubOperations:
    """What became of each Instance."""

    def __init__(self, uids: Iterable[str]) -> None:
        self._left = dict.fromkeys(uids)
        self._failed: list[str] = []
        self._completed = self._warning = 0

    @property
    def counts(self) -> SubOperations:
        return SubOperations(len(self._left), self._completed, len(self._failed), self._warning)

    def expects(self, uid: str) -> bool:
        return uid in self._left

    def done(self, uid: str, status: int) -> None:
        del self._left[uid]
        if status == Status.SUCCESS:
            self._completed += 1
        elif status & 0xF000 == 0xB000 or status in _WARNING_STATUSES:
            self._warning += 1
        else:
            self._failed.append(uid)

    def fail_all(self, uids: Iterable[str]) -> None:
        """Those of them that nothing has become of have failed."""
        for uid in uids:
            if uid in self._left:
                del self._left[uid]
                self._failed.append(uid)

    def give_up(self) -> None:
        self.fail_all(list(self._left))

    def final(
        self, transfer_syntax_uid: str, comment: str = "", status: int | None = None
    ) -> Reply:
        # A warning is no success of the whole (PS3.4 Table C.4-2).
        if status is None and not (self._failed or self._warning):
            return Reply(SUCCESS, counts=self.counts)
        if status is None:
            some = self._completed + self._warning
            status = Status.SUB_OPERATIONS_FAILED if some else Status.CANNOT_PERFORM_SUB_OPERATIONS
        identifier = encode_failed(self._failed, transfer_syntax_uid) if self._failed else b""
        return Reply(Answer(status, comment), identifier, self.counts)


def _retrievals(
    listed: Iterable[tuple[str, FoundInstance]], *, are_whole: bool
) -> Iterator[Retrieval]:
    """By Series, for those that are whole come in one answer; others a few at a time."""
    series: dict[tuple[str, str], list[FoundInstance]] = {}
    for study, instance in listed:
        series.setdefault((study, instance.series_instance_uid), []).append(instance)
    for (study, uid), instances in series.items():
        size = len(instances) if are_whole else _AT_A_TIME
        for start in range(0, len(instances), size):
            some = tuple(instances[start : start + size])
            yield Retrieval(study, some, series_instance_uid=uid, is_whole=are_whole)


def _lane(
    fetching: Fetching,
    lane: Lane,
    taker: Taker,
    control: Control,
    sub_operations: _SubOperations,
) -> Job:
    """Send what comes of one retrieval; what does not come is left."""
    try:
        yield from _sent(fetching.files(lane), taker, control, sub_operations)
        return
    except AxiomError as error:
        missing = [one for one in lane.wanted.instances if sub_operations.expects(one.uid)]
        if not lane.has_waited or not missing:
            log.warning("a Series is not retrieved", extra={"error": str(error)})
            return
        log.info("a Series is asked for again", extra={"error": str(error)})
    try:
        yield from _sent(fetching.once_more(lane, missing), taker, control, sub_operations)
    except AxiomError as error:
        log.warning("a Series is not retrieved", extra={"error": str(error)})


def _sent(
    files: Iterator[Spooled | None], taker: Taker, control: Control, sub_operations: _SubOperations
) -> Job:
    while not control.is_cancelled:
        try:
            file = next(files)
        except StopIteration:
            return
        except OSError as error:
            log.error("no room to spool an Instance", extra={"errno": error.errno})
            return
        if file is None:
            yield None
            continue
        try:
            header = read_header(file)
            instance = OutgoingInstance(header, file, header.body_offset, unchanged=True)
            uid = instance.sop_instance_uid
            if not sub_operations.expects(uid):
                yield None
                continue
            sendable = _as_taken(instance, taker)
        except AxiomError as error:
            log.warning("an Instance cannot be sent", extra={"error": str(error)})
            sub_operations.fail_all([file.uid])
            yield None
            continue
        if sendable is None:
            sub_operations.fail_all([uid])
        else:
            sub_operations.done(uid, (yield from taker.take(sendable)))
        yield Reply(Answer(Status.PENDING), counts=sub_operations.counts)


def _as_taken(instance: OutgoingInstance, taker: Taker) -> OutgoingInstance | None:
    """The Instance in a Transfer Syntax that is taken, its own if that is; None if there is none.

    Raises: CannotTranscodeError and other errors of the Instance.
    """
    taken = list(taker.transfer_syntaxes(instance.sop_class_uid))
    if instance.transfer_syntax_uid in taken:
        return instance
    for syntax in _INSTEAD:
        if syntax in taken:
            from shared.dicom.transcode import transcoded

            return transcoded(instance, syntax, asked_by="Query/Retrieve")
    return None
