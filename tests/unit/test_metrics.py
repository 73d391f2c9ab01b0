"""What is counted: in a process, by several of them, and as Prometheus reads it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.metrics import METRICS, OTHER, Registry, added
from shared.metrics_folder import MetricsFolder
from shared.pipeline import recent_studies
from shared.pipeline.recent_studies import RecentStudies
from tests.conftest import ROOT
from tests.embedded_system import System
from tests.unit.web_fakes import AUTHORIZED, client_over

_COUNTS_AND_ENDS = """
import sys
from pathlib import Path
from shared import metrics
from shared.metrics_folder import MetricsFolder
metrics.PROCESS.count(metrics.RECEIVED, "dimse", "main", amount=3)
metrics.PROCESS.observe(metrics.RULES_SECONDS, seconds=0.02)
metrics.PROCESS.gauge(metrics.CERTIFICATE_SECONDS, "main", value=7)
folder = MetricsFolder(Path(sys.argv[1]))
folder.keep("gateway")
folder.write("gateway")
"""


class TestARegistry:
    def test_gives_back_what_was_counted(self) -> None:
        registry = Registry()
        registry.count(metrics.RECEIVED, "dimse", "main")
        registry.count(metrics.RECEIVED, "dimse", "main", amount=2)
        registry.observe(metrics.RULES_SECONDS, seconds=0.003)
        registry.observe(metrics.RULES_SECONDS, seconds=1e9)
        snapshot = json.loads(json.dumps(registry.snapshot()))
        assert snapshot["axiom_instances_received"] == [[["dimse", "main"], 3]]
        ((_, (counts, total)),) = snapshot["axiom_rules_evaluation_seconds"]
        assert (counts[1], counts[-1], sum(counts)) == (1, 1, 2)
        assert total == pytest.approx(1e9)

    def test_has_no_room_for_labels_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics, "_MAX_SERIES", 3)
        registry = Registry()
        for number in range(10):
            registry.count(metrics.RULE_MATCHES, str(number))
        snapshot = registry.snapshot()["axiom_rule_matches"]
        assert ([OTHER], 7) in snapshot
        assert len(snapshot) == 4

    def test_leaves_out_what_another_release_counted(self) -> None:
        assert added([{"axiom_gone": [(["x"], 1)]}]) == {}


class TestSeveralProcesses:
    def test_add_up_and_never_run_backwards(self, tmp_path: Path) -> None:
        folder = MetricsFolder(tmp_path / "metrics")
        for times in (1, 2, 3):
            subprocess.run(
                [sys.executable, "-c", _COUNTS_AND_ENDS, str(tmp_path / "metrics")],
                cwd=ROOT,
                check=True,
            )
            total = folder.total()
            assert total["axiom_instances_received"] == [(["dimse", "main"], 3 * times)]
            ((_, (counts, _)),) = total["axiom_rules_evaluation_seconds"]
            assert sum(counts) == times
        # What they left behind does not pile up.
        assert len(list((tmp_path / "metrics").glob("*.json"))) == 2

    def test_say_since_when_they_count_whoever_asks(self, tmp_path: Path) -> None:
        since_ns = MetricsFolder(tmp_path).since_ns()
        (tmp_path / "gateway.1.json").write_text("{}")
        assert MetricsFolder(tmp_path).total() == {}
        assert MetricsFolder(tmp_path).since_ns() == since_ns

    def test_survive_a_file_that_is_cut_short(self, tmp_path: Path) -> None:
        (tmp_path / "gateway.1.json").write_text('{"axiom_inst')
        assert MetricsFolder(tmp_path).total() == {}


class TestTheRoute:
    def test_shows_what_became_of_instances(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home")
        system.receive()
        system.work()
        MetricsFolder(tmp_path / "home" / "run" / "metrics").write("stages")
        response = client_over(system.ports).get("/metrics", headers=AUTHORIZED)
        assert response.status_code == 200
        families = {f.name: f for f in text_string_to_metric_families(response.text)}
        delivered = {
            sample.labels["destination"]: sample.value
            for sample in families["axiom_deliveries"].samples
            if sample.labels["state"] == "delivered" and sample.name.endswith("_total")
        }
        assert delivered["primary-storage"] >= 1
        assert families["axiom_end_to_end_seconds"].type == "histogram"
        stages = {s.labels["stage"] for s in families["axiom_stage_messages"].samples}
        assert {"validate_instance", "apply_rules", "deliver_instance"} <= stages
        assert {s.labels["topic"] for s in families["axiom_queue_messages"].samples} >= {
            "delivery-requested"
        }
        up = {s.labels["destination"]: s.value for s in families["axiom_destination_up"].samples}
        assert up == {"primary-storage": 1.0}

    def test_tells_sources_rules_and_studies_apart(self, tmp_path: Path) -> None:
        before = metrics.PROCESS.snapshot()
        system = System(tmp_path / "home")
        system.receive()
        system.work()
        after = metrics.PROCESS.snapshot()

        def grown(metric: metrics.Metric) -> dict[tuple[str, ...], float]:
            was = {tuple(labels): value for labels, value in before.get(metric.name, [])}
            now = {tuple(labels): value for labels, value in after.get(metric.name, [])}
            return {k: v - was.get(k, 0) for k, v in now.items() if v != was.get(k, 0)}

        (((origin, outcome), times),) = (
            ((labels[:2], labels[2]), value) for labels, value in grown(metrics.VALIDATED).items()
        )
        assert outcome in ("accepted", "warned")
        assert times >= 1
        assert {labels[:2] for labels in grown(metrics.DELIVERIES)} == {origin}

    def test_is_not_for_everybody(self, tmp_path: Path) -> None:
        assert client_over(System(tmp_path / "home").ports).get("/metrics").status_code == 401


def test_every_metric_of_the_page_of_metrics_exists_with_these_labels() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| (`axiom_.*?) \| (.*?) \|", page, re.MULTILINE)
    told = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for names, labels in rows
        for name in re.findall(r"`(axiom_\w+)`", names)
    }
    assert told == {name: metric.labels for name, metric in METRICS.items()}


class TestRecentStudies:
    def test_are_new_again_after_an_hour_without_an_instance(self) -> None:
        recent = RecentStudies()
        assert recent.is_new("main", "1.2", 0.0)
        assert not recent.is_new("main", "1.2", 3000.0)
        assert not recent.is_new("main", "1.2", 6000.0)
        assert recent.is_new("main", "1.2", 9601.0)
        assert recent.is_new("other", "1.2", 9601.0)

    def test_take_no_room_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recent_studies, "_MOST", 2)
        recent = RecentStudies()
        assert [recent.is_new("main", uid, 1.0) for uid in ("1", "2", "3", "3", "1")] == [
            *(True, True, True, False, True)
        ]
