"""`report_commitment`: tell an AE, on an association of ours, what became of its Instances."""

from __future__ import annotations

import logging

from shared.messages import CommitmentRequested
from shared.pipeline.ports import Ports

log = logging.getLogger(__name__)


def run(message: CommitmentRequested, ports: Ports) -> None:
    """Report once all is decided, unless that was done on the association that asked.

    Raises: NotDecidedYetError; DestinationUnavailableError, after which the message comes again;
    PermanentError.
    """
    due = ports.commitments.due(message.key)
    if due is None:
        return
    ports.report_commitment(due)
    ports.commitments.reported(message.key, due.report)
    log.info(
        "storage commitment reported",
        extra={"committed": len(due.report.committed), "failed": len(due.report.failures)},
    )
