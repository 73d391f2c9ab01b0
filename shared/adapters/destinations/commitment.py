"""Storage commitment with a peer: asking for it, and reporting it (PS3.4 Annex J)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.association import Association, AssociationRejectedError
from shared.adapters.destinations.outcomes import Outcome
from shared.adapters.destinations.peers import peer_at
from shared.adapters.destinations.upper_layer import Context, ProtocolError
from shared.dicom.commitment import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_COMMITMENT_PUSH_MODEL,
    TRANSFER_SYNTAXES,
    CommitmentReport,
    CommitmentRequest,
    MalformedCommitmentError,
    Reference,
    new_transaction_uid,
)
from shared.errors import DestinationRefusedError, DestinationUnavailableError

if TYPE_CHECKING:
    from shared.config.peers import DimsePeer
    from shared.ports import SecretStore

# Every peer takes the default Transfer Syntax (PS3.5 10.1).
CONTEXT = Context(STORAGE_COMMITMENT_PUSH_MODEL, IMPLICIT_VR_LITTLE_ENDIAN)

# How often to look whether the peer has told a listener of ours, while it may tell us here.
_LOOK_EVERY_S = 0.25
_REPORT_TIMEOUT_S = 30.0

ReportOf = Callable[[str], CommitmentReport | None]


def request_commitment(
    association: Association,
    reference: Reference,
    *,
    name: str,
    within_s: float,
    report_of: ReportOf,
) -> None:
    """Ask the peer to commit itself to keep one Instance, and return once it has.

    It may say so on this association, or on one of its own to a listener of ours, which
    `report_of` asks for. Raises: DestinationUnavailableError if it does not, or not in time;
    DestinationRefusedError; what Association raises.
    """
    request = CommitmentRequest(new_transaction_uid(), (reference,))
    response = association.act(CONTEXT, request.encode(CONTEXT.transfer_syntax))
    verdict = outcomes.dimse_status(response.status)
    if not verdict.outcome.is_stored:
        words = ", ".join(filter(None, [f"N-ACTION {response.status:04X}H", response.words]))
        raise outcomes.failure(verdict, name, outcomes.printable(words))
    deadline_s = time.monotonic() + within_s
    while True:
        report = report_of(request.transaction_uid)
        left_s = deadline_s - time.monotonic()
        if report is None and left_s > 0:
            event = association.await_event(CONTEXT, min(left_s, _LOOK_EVERY_S))
            if event is not None:
                report = _parsed(event)
        if report is not None and report.transaction_uid == request.transaction_uid:
            break
        if left_s <= 0:
            raise DestinationUnavailableError(name, f"stored, not committed within {within_s:g} s")
    failed = [f.reason for f in report.failures]
    if failed:
        raise DestinationUnavailableError(name, f"stored, not committed: {failed[0]:04X}H")


def report_commitment(
    report: CommitmentReport,
    where: DimsePeer,
    secrets: SecretStore,
    *,
    called_ae_title: str,
    calling_ae_title: str,
) -> None:
    """Tell a peer what became of its request, on an association of our own.

    Raises: DestinationUnavailableError if it cannot be told now; DestinationRefusedError,
    DestinationMisconfiguredError.
    """
    peer = peer_at(
        where,
        secrets,
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        timeout_s=_REPORT_TIMEOUT_S,
    )
    # One after the other would do, but not each peer takes the default as it has to.
    contexts = [Context(STORAGE_COMMITMENT_PUSH_MODEL, syntax) for syntax in TRANSFER_SYNTAXES]
    try:
        association = Association(peer, contexts, scp_of=[STORAGE_COMMITMENT_PUSH_MODEL])
        try:
            accepted = [context for context in contexts if association.accepts(context)]
            if not accepted:
                raise DestinationRefusedError(called_ae_title, "takes no storage commitment report")
            data = report.encode(accepted[0].transfer_syntax)
            response = association.report(accepted[0], report.event_type_id, data)
        except BaseException:
            association.abort()
            raise
        association.release()
    except AssociationRejectedError as error:
        rejected = error.rejected
        verdict = outcomes.association_rejection(rejected.result, rejected.source, rejected.reason)
        raise outcomes.failure(verdict, called_ae_title, "association rejected") from error
    except (OSError, ProtocolError) as error:
        raise outcomes.failure(outcomes.client_error(error), called_ae_title) from error
    verdict = outcomes.dimse_status(response.status)
    if verdict.outcome is Outcome.CONFLICT or not verdict.outcome.is_stored:
        words = outcomes.printable(response.words)
        text = ", ".join(filter(None, [f"N-EVENT-REPORT {response.status:04X}H", words]))
        raise outcomes.failure(verdict, called_ae_title, text)


def _parsed(data: bytes) -> CommitmentReport | None:
    with suppress(MalformedCommitmentError):
        return CommitmentReport.parse(data, CONTEXT.transfer_syntax)
    return None
