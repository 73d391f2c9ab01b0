"""Storage commitment, clean-up and a stop in the middle, in the system as people run it."""

from __future__ import annotations

from pathlib import Path

from tests.asking_modality import asking_modality
from tests.data import build
from tests.running import RunningAxiom, wait_until


def test_what_is_committed_is_delivered_and_its_received_file_goes(tmp_path: Path) -> None:
    with asking_modality() as modality, RunningAxiom(tmp_path / "home") as axiom:
        axiom.configure(
            listeners=[modality.listener],
            settings={
                "default_route": ["primary-storage"],
                "min_free_bytes": 0,
                "retention_s": 0.0,
            },
        )
        instances = [build.ct(instance=f"i{number}") for number in range(5)]
        modality.store_and_ask(axiom.dimse_port, instances)
        report = modality.reports.get(timeout=60)
        assert len(report.ReferencedSOPSequence) == 5
        assert "FailedSOPSequence" not in report
        stored = list((axiom.home / "storage").rglob("*.dcm"))
        assert len(stored) == 5
        received = axiom.home / "objects" / "received"
        wait_until(lambda: not list(received.rglob("*.dcm")), 40, "the received files are deleted")
        told = axiom.get_all("/api/v1/clean-ups")
        assert sum(one["files"] for one in told) == 5
        assert axiom.stop() == 0
