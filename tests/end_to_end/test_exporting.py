"""What the real system, all its processes together, tells a collector and /metrics."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.data import build
from tests.otlp_collector import attributes, collecting
from tests.running import RunningAxiom, wait_until
from tests.unit.web_fakes import related

_STAGES = ["receive", "validate_instance", "apply_rules", "deliver_instance"]


def test_all_processes_tell_of_one_instance_together(tmp_path: Path) -> None:
    with collecting() as collector:
        settings = {
            "AXIOM_OTLP_ENDPOINT": collector.url,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with RunningAxiom(tmp_path / "home", **settings) as running:
            running.request(
                "POST",
                "/api/v1/dicomweb/studies",
                data=related(build.ct()),
                headers={"Content-Type": "multipart/related; type=application/dicom; boundary=B"},
            ).raise_for_status()
            wait_until(
                lambda: {"axiom_instances_received", "axiom_deliveries"} <= set(collector.metrics)
            )
            (received,) = collector.metrics["axiom_instances_received"].sum.data_points
            assert attributes(received)["source_type"] == "stow"
            page = running.request("GET", "/metrics").text
        # What had not gone yet goes when the processes end.
        assert sorted(span.name for span in collector.spans) == sorted(_STAGES)
        assert len({span.trace_id for span in collector.spans}) == 1
    families = {family.name: family for family in text_string_to_metric_families(page)}
    counted = [s for s in families["axiom_instances_received"].samples if s.name.endswith("_total")]
    assert [(s.labels["source_type"], s.value) for s in counted] == [("stow", 1.0)]
