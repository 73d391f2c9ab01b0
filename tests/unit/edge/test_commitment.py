"""Storage commitment that is asked of a gateway on premises: never more than the cloud knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.dicom.commitment import CommitmentReport, CommitmentRequest, FailureReason, Reference
from shared.errors import NotDecidedYetError, StorageUnavailableError
from shared.messages import Receipt
from shared.times import timestamp
from tests.data import build
from tests.edge_system import SOURCE, EdgeSystem

PEER = {"CT1": {"host": "10.1.2.3", "port": 104}}
LISTENER = {"name": "main", "ae_title": "AXIOM", "port": 0, "commitment_peers": PEER}


@pytest.fixture
def edge(tmp_path: Path) -> EdgeSystem:
    system = EdgeSystem(tmp_path)
    system.cloud.configuration.apply({"listeners": [LISTENER]}, by="test")
    system.mirror.look()
    system.clock.advance(1)
    return system


def _asked(edge: EdgeSystem, *receipts: Receipt) -> str:
    references = [Reference(build.CT_IMAGE_STORAGE, one.sop_instance_uid) for one in receipts]
    return edge.commitments.request(
        CommitmentRequest("1.2.3", tuple(references)), SOURCE, here_for_s=30
    )


def _decided(edge: EdgeSystem, receipt: Receipt) -> None:
    """As the stages in the cloud would, with nothing to deliver."""
    edge.cloud.put(
        "instances",
        receipt.receipt_id,
        {
            "receipt_id": receipt.receipt_id,
            "sop_class_uid": receipt.sop_class_uid,
            "sop_instance_uid": receipt.sop_instance_uid,
            "received_at": timestamp(receipt.received_at),
            "source": {"calling_ae_title": "CT1"},
            "state": "routed",
            "deliveries": [],
        },
    )


def test_what_waits_on_the_disk_is_not_decided_however_long_that_takes(edge: EdgeSystem) -> None:
    receipt = edge.receive()
    edge.cloud.is_cut = True
    key = _asked(edge, receipt)
    for _ in range(3):
        edge.clock.advance(3600)
        with pytest.raises(NotDecidedYetError):
            edge.commitments.due(key)
    edge.cloud.is_cut = False
    edge.clock.advance(120)
    edge.move()
    with pytest.raises(NotDecidedYetError):  # the stages may take a moment
        edge.commitments.due(key)
    _decided(edge, receipt)
    due = edge.commitments.due(key)
    assert due is not None
    assert [one.sop_instance_uid for one in due.report.committed] == [receipt.sop_instance_uid]
    assert (due.peer.host, due.report.failures) == ("10.1.2.3", ())


def test_nothing_is_said_while_the_cloud_cannot_be_asked(edge: EdgeSystem) -> None:
    receipt = edge.receive()
    edge.move()
    key = _asked(edge, receipt)
    edge.cloud.is_cut = True
    with pytest.raises(StorageUnavailableError):
        edge.commitments.due(key)


def test_what_never_came_is_said_to_be_missing_once_the_cloud_has_the_rest(
    edge: EdgeSystem,
) -> None:
    edge.receive()
    key = edge.commitments.request(
        CommitmentRequest("1.2.3", (Reference(build.CT_IMAGE_STORAGE, "1.2.9"),)),
        SOURCE,
        here_for_s=30,
    )
    edge.move()
    with pytest.raises(NotDecidedYetError):
        edge.commitments.due(key)
    edge.clock.advance(61)
    due = edge.commitments.due(key)
    assert due is not None
    [failure] = due.report.failures
    assert failure.reason == FailureReason.NO_SUCH_OBJECT_INSTANCE


def test_a_request_whose_time_is_over_is_never_answered_in_the_affirmative(
    edge: EdgeSystem,
) -> None:
    receipt = edge.receive()
    edge.cloud.is_cut = True
    key = _asked(edge, receipt)
    edge.clock.advance(edge.configuration.get().settings.commitment_timeout_s + 1)
    due = edge.commitments.due(key)
    assert due is not None
    assert due.report.committed == ()
    [failure] = due.report.failures
    assert failure.reason == FailureReason.PROCESSING_FAILURE


def test_it_is_reported_on_an_association_of_ours(edge: EdgeSystem) -> None:
    """An inquiry may wait for the link, and nobody's association waits with it."""
    key = _asked(edge, edge.receive())
    assert edge.commitments.inquire(key) is None


def test_what_is_reported_is_forgotten_in_time(edge: EdgeSystem) -> None:
    key = _asked(edge, edge.receive())
    edge.commitments.reported(key, CommitmentReport("1.2.3", (), ()))
    edge.commitments.forget_finished()
    assert edge.documents.get("commitments", key) is not None
    edge.clock.advance(edge.configuration.get().settings.record_retention_s + 1)
    edge.commitments.forget_finished()
    assert edge.documents.get("commitments", key) is None


def test_what_a_destination_reports_to_our_listener_reaches_the_cloud(edge: EdgeSystem) -> None:
    reference = Reference(build.CT_IMAGE_STORAGE, "1.2.9")
    edge.cloud.is_cut = True
    for _ in range(2):
        edge.commitments.keep_report(CommitmentReport("1.2.77", (reference,), ()))
    edge.move()
    edge.cloud.is_cut = False
    edge.clock.advance(120)
    edge.move()
    kept = edge.cloud.get("commitment-reports", "1.2.77")
    assert kept.data["committed"] == ["1.2.9"]
    assert edge.spool.depth().messages == 0
