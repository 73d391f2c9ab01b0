"""What is counted: in a process, by several of them, and as Prometheus reads it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.metrics import METRICS, OTHER, Registry, added
from shared.metrics_folder import MetricsFolder
from shared.pipeline import readings, recent_studies
from shared.pipeline.crosswalks import CrosswalkStatus
from shared.pipeline.recent_studies import RecentStudies
from shared.times import timestamp
from tests.conftest import ROOT
from tests.counting import counting
from tests.embedded_system import SOURCE, System
from tests.unit.web_fakes import AUTHORIZED, client_over

_COUNTS_AND_ENDS = """
import sys
from collections.abc import Sequence
from dataclasses import replace as replaced
from functools import partial
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


class Copied:
    """Crosswalks that do as they say."""

    def __init__(self, *statuses: CrosswalkStatus) -> None:
        self._statuses = statuses

    def status(self) -> Sequence[CrosswalkStatus]:
        return self._statuses


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
        system = System(tmp_path / "home")
        with (
            counting(metrics.VALIDATED) as validated,
            counting(metrics.DELIVERIES) as deliveries,
            counting(metrics.STUDIES) as studies,
        ):
            system.receive()
            system.receive(name="two")
            system.work()
            origin = (SOURCE.type, SOURCE.name)
            assert sum(validated().values()) == 2
            assert {labels[:2] for labels in validated()} == {origin}
            assert deliveries() == {(*origin, "primary-storage", "delivered"): 2}
            assert studies() in ({}, {origin: 1})  # this process may have met the Study before

    def test_tells_how_copies_of_crosswalks_do(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home")
        synced_at = timestamp(system.clock.now())
        status = partial(CrosswalkStatus, source="ris", type="mysql", enabled=True)
        crosswalks = Copied(
            status("ids", is_copied=True, rows=7, synced_at=synced_at),
            status("late", is_copied=True, rows=1, synced_at=synced_at, failed_at=synced_at),
            status("new", is_copied=True, failed_at=synced_at),
            status("direct", is_copied=False),
        )
        system.clock.advance(60.0)
        ports = replaced(system.ports, crosswalks=crosswalks)  # type: ignore[arg-type]
        snapshot = readings.read(ports)

        def read(metric: metrics.Metric) -> dict[str, float]:
            return {labels[0]: value for labels, value in snapshot[metric.name]}

        assert read(metrics.CROSSWALK_UP) == {"ids": 1.0, "late": 0.0, "new": 0.0}
        assert read(metrics.CROSSWALK_AGE_SECONDS) == {"ids": 60.0, "late": 60.0}
        assert read(metrics.CROSSWALK_ROWS) == {"ids": 7, "late": 1}

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
