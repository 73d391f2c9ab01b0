"""Delivery by C-STORE (PS3.4 Annex B) to a Storage SCP.

An Instance is sent in its own Transfer Syntax. A peer that does not take that refuses it, unless
the destination may transcode: then it goes in Explicit or Implicit VR Little Endian. Whether equal
bytes are stored already C-STORE cannot ask: a peer that answers 0111H (duplicate) is a conflict,
unless an earlier attempt of ours may have stored them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec.structs import replace

from shared import crash_points
from shared.adapters.destinations import outcomes
from shared.adapters.destinations.association import (
    Association,
    AssociationLostError,
    AssociationRejectedError,
    Peer,
)
from shared.adapters.destinations.association_pool import (
    AssociationPool,
    ContextRefusedError,
    NoAssociationError,
    PoolClosedError,
)
from shared.adapters.destinations.channel import Security
from shared.adapters.destinations.checksums import crc32c
from shared.adapters.destinations.commitment import CONTEXT, ReportOf, request_commitment
from shared.adapters.destinations.outcomes import Outcome
from shared.adapters.destinations.responses import Response
from shared.adapters.destinations.upper_layer import Context, ProtocolError
from shared.adapters.destinations.user_identity import Presents
from shared.dicom.ae_titles import checked_ae_title
from shared.dicom.command_set import VERIFICATION
from shared.dicom.commitment import Reference
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.errors import (
    CannotTranscodeError,
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
    PermanentError,
)

_IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_EVERY_PEER_KNOWS = ("1.2.840.10008.1.2.1", _IMPLICIT_VR_LITTLE_ENDIAN)
_INSTEAD_S = 300.0


class _SyntaxRefusedError(DestinationRefusedError):
    """The peer takes associations, but not this SOP Class in this Transfer Syntax."""

    hint = (
        "Have the peer accept this SOP Class in this Transfer Syntax, or set the destination's"
        " transcode_when_refused: true, which tries Explicit and Implicit VR Little Endian, too."
        " Then retry."
    )


class StorageScpDestination:
    """A Destination that is a Storage SCP."""

    def __init__(
        self,
        name: str,
        *,
        host: str,
        port: int,
        called_ae_title: str,
        calling_ae_title: str,
        max_pdu_size: int = 131072,
        timeout_s: float = 60.0,
        pool: AssociationPool | None = None,
        commitment_within_s: float | None = None,
        commitment_report: ReportOf = lambda _: None,
        transcodes_when_refused: bool = False,
        security: Security | None = None,
        presents: Presents | None = None,
        passes_calling_ae_title: bool = False,
    ) -> None:
        """`timeout_s` limits each wait for the peer: connect, accept, take bytes, answer.

        With `passes_calling_ae_title` an Instance goes out as of the AE that sent it to us, where
        one did that.

        With `commitment_within_s` the peer has to commit itself to keep each Instance, in so many
        seconds. `commitment_report` tells what it has told a listener of ours.
        """
        self._name = name
        self._peer = Peer(
            host,
            port,
            called_ae_title,
            calling_ae_title,
            max_pdu_size,
            timeout_s,
            security,
            presents,
        )
        self._pool = pool or AssociationPool(self._open, wait_s=timeout_s)
        self._transcodes_when_refused = transcodes_when_refused
        self._passes_calling_ae_title = passes_calling_ae_title
        # Presentation Contexts that the peer refused, what it took instead, and until when that is
        # tried at once: each refusal costs an association.
        self._instead: dict[Context, tuple[str, float]] = {}
        self._commitment_within_s = commitment_within_s
        self._commitment_report = commitment_report

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination; returns the DIMSE Status, with its meaning if it is a warning."""
        answer = self._deliver_as_accepted(instance)
        if self._commitment_within_s is None:
            return answer
        crash_points.reached(crash_points.AFTER_STORE)
        try:
            self._have_committed(instance, self._commitment_within_s)
        except PermanentError as error:
            error.may_be_stored = True
            raise
        return f"{answer}, committed"

    def _deliver_as_accepted(self, instance: OutgoingInstance) -> str:
        wanted = Context(instance.sop_class_uid, instance.transfer_syntax_uid)
        known, until_s = self._instead.get(wanted, ("", 0.0))
        if known and time.monotonic() < until_s:
            with suppress(_SyntaxRefusedError):
                return self._deliver_transcoded(instance, known)
        try:
            return self._deliver(instance)
        except _SyntaxRefusedError:
            if not self._transcodes_when_refused:
                raise
            for uid in _EVERY_PEER_KNOWS:
                if uid == instance.transfer_syntax_uid:
                    continue
                with suppress(_SyntaxRefusedError, CannotTranscodeError):
                    answer = self._deliver_transcoded(instance, uid)
                    self._instead[wanted] = uid, time.monotonic() + _INSTEAD_S
                    return answer
            raise

    def _deliver_transcoded(self, instance: OutgoingInstance, uid: str) -> str:
        from shared.dicom.transcode import transcoded

        asked_by = f"destination {self._name}"
        answer = self._deliver(transcoded(instance, uid, asked_by=asked_by))
        return f"{answer}, transcoded to {uid}"

    def _have_committed(self, instance: OutgoingInstance, within_s: float) -> None:
        """Raises: DestinationUnavailableError and its kin unless the peer commits itself."""
        with self._errors():
            try:
                # The answer comes to the AE that asks: to us.
                with self._pool.borrow(CONTEXT, self._peer.calling_ae_title) as association:
                    request_commitment(
                        association,
                        Reference(instance.sop_class_uid, instance.sop_instance_uid),
                        name=self._name,
                        within_s=within_s,
                        report_of=self._commitment_report,
                    )
            except ContextRefusedError:
                raise DestinationMisconfiguredError(
                    self._name, "stored, but the peer does no storage commitment"
                ) from None

    def _deliver(self, instance: OutgoingInstance) -> str:
        context = Context(instance.sop_class_uid, instance.transfer_syntax_uid)
        if not context.abstract_syntax or not instance.sop_instance_uid:
            raise DestinationRefusedError(self._name, "C-STORE needs SOP Class and Instance UID")
        data_set = instance.data_set_parts()
        is_begun = False

        def store(association: Association) -> Response:
            nonlocal is_begun
            is_begun = True
            return association.store(context, instance.sop_instance_uid, data_set)

        try:
            with self._errors():
                try:
                    calling_ae_title = self._calling_ae_title(instance)
                    size = sum(map(len, data_set))
                    response = self._store(context, calling_ae_title, store, size)
                except ContextRefusedError as error:
                    words = outcomes.client_error(error).meaning
                    asked = f"{context.abstract_syntax} in {context.transfer_syntax}"
                    raise _SyntaxRefusedError(self._name, f"{words}: {asked}") from error
        except DestinationUnavailableError as error:
            error.may_be_stored = is_begun
            raise
        verdict = outcomes.dimse_status(response.status)
        answer = f"{response.status:04X}H"
        words = ", ".join(filter(None, [answer, outcomes.printable(response.words)]))
        if verdict.outcome is Outcome.SUCCESS:
            return answer
        if verdict.outcome is Outcome.WARNING:
            return f"{verdict.meaning}: {words}"
        if verdict.outcome is Outcome.CONFLICT:
            if instance.redelivery:
                return f"{answer}: stored by an earlier attempt, whose answer was lost"
            raise InstanceConflictError(
                instance.sop_instance_uid, "unknown", crc32c(chunks(instance.part10_parts()))
            )
        failure = outcomes.failure(verdict, self._name, words)
        if isinstance(failure, DestinationUnavailableError):
            failure.may_be_stored = False
        raise failure

    def check(self) -> str:
        """C-ECHO; a peer that accepts an association but no Verification is there too."""
        context = Context(VERIFICATION, _IMPLICIT_VR_LITTLE_ENDIAN)
        with self._errors():
            try:
                response = self._exchange(
                    context,
                    self._peer.calling_ae_title,
                    lambda association: association.echo(context),
                )
            except ContextRefusedError:
                return "association accepted, C-ECHO not supported"
        verdict = outcomes.dimse_status(response.status)
        if not verdict.outcome.is_stored:
            raise outcomes.failure(verdict, self._name, f"C-ECHO {response.status:04X}H")
        return f"C-ECHO {response.status:04X}H"

    def close(self) -> None:
        """As Destination."""
        self._pool.close()

    def _store(
        self,
        context: Context,
        calling_ae_title: str,
        store: Callable[[Association], Response],
        size: int,
    ) -> Response:
        try:
            return self._exchange(context, calling_ae_title, store)
        except AssociationLostError:
            if size % 2 == 0:
                raise
            # dcmtk, for one, aborts when it sees that, each time anew.
            raise DestinationRefusedError(
                self._name, "aborted; the data set has an odd number of bytes (PS3.8 E.1)"
            ) from None

    def _exchange(
        self, context: Context, calling_ae_title: str, ask: Callable[[Association], Response]
    ) -> Response:
        was_used = False
        try:
            with self._pool.borrow(context, calling_ae_title) as association:
                was_used = association.was_used
                return ask(association)
        except ConnectionError:
            # The peer may have ended an idle association just as it was taken up again. Storing
            # twice leaves what storing once leaves, so a new one is tried at once.
            if not was_used:
                raise
        with self._pool.borrow(context, calling_ae_title, fresh=True) as association:
            return ask(association)

    def _calling_ae_title(self, instance: OutgoingInstance) -> str:
        with suppress(ValueError):
            if self._passes_calling_ae_title and instance.calling_ae_title:
                return checked_ae_title(instance.calling_ae_title)
        return self._peer.calling_ae_title

    def _open(
        self, calling_ae_title: str, contexts: Sequence[Context], within_s: float | None
    ) -> Association:
        peer = replace(self._peer, calling_ae_title=calling_ae_title)
        return Association(peer, contexts, accept_within_s=within_s)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what goes wrong with the peer into the errors that a Destination raises."""
        try:
            yield
        except AssociationRejectedError as error:
            rejected = error.rejected
            verdict = outcomes.association_rejection(
                rejected.result, rejected.source, rejected.reason
            )
            failure = outcomes.failure(verdict, self._name, "association rejected")
            if isinstance(failure, PermanentError):
                # It has not even heard which Instance it is.
                failure.refuses_all = True
            raise failure from error
        except (AssociationLostError, ProtocolError) as error:
            # Their texts are ours.
            raise outcomes.failure(outcomes.client_error(error), self._name, str(error)) from error
        except (OSError, ContextRefusedError, NoAssociationError, PoolClosedError) as error:
            raise outcomes.failure(outcomes.client_error(error), self._name) from error
