"""What is exported by OTLP: spans of one trace for each Instance, and the metrics of /metrics."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from pydicom import dcmread

from shared import logs, metrics, tracing
from shared.adapters.otlp import spans
from shared.adapters.otlp.export import Export
from shared.adapters.otlp.settings import OtlpSettings
from shared.adapters.otlp.spans import SpanSink
from shared.errors import InvalidInstanceError
from shared.messages import InstanceReceived, Topic, decode
from shared.pipeline import readings
from shared.pipeline.envelope import MESSAGE_ID_HEADER, open_envelope
from shared.pipeline.push import PushRequest
from shared.ports import Outgoing
from tests.conftest import ROOT
from tests.data import build
from tests.embedded_system import SOURCE, System
from tests.otlp_collector import Collector, attributes, collecting

CANARY = "CANARY^YELLOW"
_EVERY = {
    "PatientName": CANARY,
    "PatientID": CANARY,
    "AccessionNumber": "CANARY",
    "StudyDescription": CANARY,
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(autouse=True)
def nobody_takes_spans_afterwards() -> Iterator[None]:
    yield
    tracing.take_with(None)


def _with_canaries(**values: str) -> bytes:
    dataset = dcmread(BytesIO(build.ct()))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    written = BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def exporting(collector: Collector, system: System | None = None, sampling: float = 1.0) -> Export:
    settings = OtlpSettings(collector.url, sampling, 3600.0)
    read = None if system is None else lambda: readings.read(system.ports)
    return Export(settings, read)


class TestSpans:
    def test_of_an_instance_are_one_trace_from_reception_to_each_delivery(
        self, tmp_path: Path, collector: Collector
    ) -> None:
        system = System(tmp_path / "home")
        system.ports.configuration.apply(
            {
                "destinations": [
                    {"name": "primary-storage", "type": "filesystem", "path": "a"},
                    {"name": "second", "type": "filesystem", "path": "b"},
                ],
                "settings": {"default_route": ["primary-storage", "second"], "min_free_bytes": 0},
            },
            by="test",
        )
        export = exporting(collector)
        receipt = system.receive()
        system.work()
        export.close(30)

        assert {span.trace_id.hex() for span in collector.spans} == {receipt.trace_id}
        received = collector.named("receive")
        validated = collector.named("validate_instance")
        decided = collector.named("apply_rules")
        delivered = [span for span in collector.spans if span.name == "deliver_instance"]
        assert received.parent_span_id == b""
        assert validated.parent_span_id == received.span_id
        assert decided.parent_span_id == validated.span_id
        assert {span.parent_span_id for span in delivered} == {decided.span_id}
        assert {attributes(span)["axiom.destination"] for span in delivered} == {
            *("primary-storage", "second")
        }
        assert {attributes(span)["axiom.state"] for span in delivered} == {"delivered"}
        for span in collector.spans:
            said = attributes(span)
            assert said["dicom.sop_instance_uid"] == receipt.sop_instance_uid
            assert said["axiom.receipt_id"] == receipt.receipt_id
            assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert collector.resources[0]["service.name"] == "axiom-flow"

    def test_hold_nothing_of_a_patient(self, tmp_path: Path, collector: Collector) -> None:
        system = System(tmp_path / "home")
        export = exporting(collector, system)
        with system.ports.receiver.begin(SOURCE) as staging:
            staging.write(_with_canaries(**_EVERY))
            staging.commit()
        with system.ports.receiver.begin(SOURCE) as staging:
            # Some senders mix up their elements.
            staging.write(_with_canaries(**_EVERY, SeriesInstanceUID="CANARY"))
            with pytest.raises(InvalidInstanceError):
                staging.commit()
        system.work()
        export.close(30)
        assert {attributes(span).get("error.type") for span in collector.spans} == {
            *(None, "invalid-instance")
        }
        assert collector.metrics
        assert not any(b"CANARY" in body.upper() for body in collector.bodies)

    def test_say_the_code_of_what_went_wrong_and_no_more(
        self, tmp_path: Path, collector: Collector
    ) -> None:
        export = exporting(collector)
        with (
            pytest.raises(ValueError),
            tracing.stage("apply_rules", tracing.new_trace_id(), ""),
        ):
            raise ValueError(CANARY)
        export.close(30)
        (span,) = collector.spans
        assert attributes(span)["error.type"] == span.status.message == "ValueError"
        assert not span.events

    def test_find_their_trace_whoever_published_the_message(self, collector: Collector) -> None:
        """A person tries an Instance again; a job works on many."""
        export = exporting(collector)
        trace_id, job = tracing.new_trace_id(), tracing.new_trace_id()
        with tracing.stage("run_job", job, ""):
            carried = tracing.published_here()[tracing.TRACEPARENT]
        for parent in (carried, "", "nonsense", f"00-{trace_id}-{'0' * 16}-01x"):
            with tracing.stage("apply_rules", trace_id, parent):
                pass
        export.close(30)
        decided = [span for span in collector.spans if span.name == "apply_rules"]
        assert {span.trace_id.hex() for span in decided} == {trace_id}
        assert {span.parent_span_id.hex() for span in decided} == {trace_id[:16]}

    def test_of_a_trace_are_all_kept_or_all_left_out(self, collector: Collector) -> None:
        export = exporting(collector, sampling=0.5)
        for _ in range(60):
            trace_id = tracing.new_trace_id()
            with tracing.reception(trace_id, 1) as scope:
                carried = tracing.published_here()[tracing.TRACEPARENT]
                assert carried == scope.traceparent
            with tracing.stage("validate_instance", trace_id, carried):
                pass
        export.close(30)
        by_trace: dict[bytes, int] = {}
        for span in collector.spans:
            by_trace[span.trace_id] = by_trace.get(span.trace_id, 0) + 1
        assert set(by_trace.values()) == {2}
        assert 0 < len(by_trace) < 60

    def test_are_sent_when_a_process_ends(self, tmp_path: Path, collector: Collector) -> None:
        program = (
            "import sys\n"
            "from pathlib import Path\n"
            "from shared import exporting\n"
            "from tests.embedded_system import System\n"
            "exporting.begin()\n"
            "System(Path(sys.argv[1])).receive()\n"
        )
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "home")],
            cwd=ROOT,
            check=True,
            env={"AXIOM_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "hospital"},
        )
        assert collector.named("receive").parent_span_id == b""
        assert collector.resources[0]["service.name"] == "hospital"

    def test_are_left_to_processes_that_go_on(self, tmp_path: Path, collector: Collector) -> None:
        """A command would pay for a second's imports."""
        program = (
            "import sys\n"
            "from shared import exporting\n"
            "exporting.be_command()\n"
            "exporting.begin()\n"
            "exporting.close()\n"
            "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        )
        environ = {"AXIOM_OTLP_ENDPOINT": collector.url, "AXIOM_HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, env=environ)
        assert not collector.bodies


class _Stuck(SpanExporter):
    """One whose collector takes the connection and says nothing."""

    def __init__(self) -> None:
        self.asked, self.goes_on = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.goes_on.wait(60)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.goes_on.set()


def lost() -> float:
    return _outcomes().get("lost", 0)


def _outcomes() -> dict[str, float]:
    return {labels[0]: n for labels, n in metrics.PROCESS.snapshot().get("axiom_trace_spans", [])}


class TestACollectorThatIsAway:
    def test_holds_nothing_up_and_takes_no_memory_without_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spans, "MAX_WAITING", 40)
        monkeypatch.setattr(spans, "_BATCH", 10)
        before = lost()
        exporter = _Stuck()
        sink = SpanSink(exporter, Resource({}), sampling=1.0)
        for _ in range(10):
            sink.begin("receive", tracing.new_trace_id(), "", "", None).end("")
        assert exporter.asked.wait(60)  # it waits with ten
        for _ in range(100):
            sink.begin("receive", tracing.new_trace_id(), "", "", None).end("")
        assert lost() - before == 60
        sink.close(0.05)
        assert lost() - before == 100  # what waited is lost as well

    def test_costs_no_instance(self, tmp_path: Path, collector: Collector) -> None:
        collector.status = 500
        before = lost()
        system = System(tmp_path / "home")
        export = exporting(collector, system)
        system.receive()
        assert set(system.work()) == {204}
        assert system.delivered()
        export.close(30)
        assert lost() - before >= 4


class TestMetrics:
    def test_are_the_numbers_of_the_route(self, tmp_path: Path, collector: Collector) -> None:
        system = System(tmp_path / "home")
        system.receive()
        system.work()
        expected = metrics.PROCESS.snapshot()
        settings = OtlpSettings(collector.url, 1.0, 3600.0)
        export = Export(settings, lambda: {**readings.read(system.ports), **expected})
        export.close(30)
        for name, listed in expected.items():
            metric, exported = metrics.METRICS[name], collector.metrics[name]
            points = getattr(exported, exported.WhichOneof("data")).data_points
            found = {tuple(attributes(p)[label] for label in metric.labels): p for p in points}
            assert set(found) == {tuple(labels) for labels, _ in listed}
            for labels, value in listed:
                point = found[tuple(labels)]
                if metric.kind is metrics.Kind.HISTOGRAM:
                    assert list(point.bucket_counts) == value[0]
                    assert (point.count, point.sum) == (sum(value[0]), value[1])
                    assert tuple(point.explicit_bounds) == metrics.BUCKETS_S
                else:
                    assert point.as_double + point.as_int == value
        assert collector.metrics["axiom_stage_seconds"].unit == "s"
        assert collector.metrics["axiom_deliveries"].sum.is_monotonic
        assert "axiom_destination_up" in collector.metrics


class TestMessages:
    def test_carry_the_span_they_come_from(self, collector: Collector) -> None:
        export = exporting(collector)
        with tracing.reception("ab" * 16, 1):
            message = Outgoing(Topic.INSTANCE_RECEIVED, b"")
        export.close(30)
        assert message.attributes == {"axiom-traceparent": f"00-{'ab' * 16}-{'ab' * 8}-01"}
        assert Outgoing(Topic.INSTANCE_RECEIVED, b"").attributes == {}

    def test_say_so_in_whichever_envelope_they_come(self) -> None:
        traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
        attributes = {tracing.TRACEPARENT: traceparent}
        wrapped = json.dumps({"message": {"data": "e30=", "attributes": attributes}}).encode()
        for request in (
            PushRequest(wrapped, {"content-type": "application/json"}),
            PushRequest(
                wrapped,
                {
                    "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
                    "content-type": "application/json",
                },
            ),
            PushRequest(b"{}", {MESSAGE_ID_HEADER: "1", **attributes}),
        ):
            assert open_envelope(request).traceparent == traceparent

    def test_carry_nothing_where_nobody_takes_spans(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home")
        system.receive()
        (leased,) = system.ports.bus.lease(  # type: ignore[attr-defined]
            [Topic.INSTANCE_RECEIVED], limit=1, lease_s=60
        )
        assert leased.attributes == {}
        assert len(decode(leased.data, InstanceReceived).receipt.trace_id) == 32


class TestLogs:
    def test_have_the_trace_of_what_is_worked_on(self) -> None:
        line = _line(logs.JsonFormatter("stages", "hospital-1"))
        assert line["trace_id"] == "ab" * 16
        assert line["logging.googleapis.com/trace"] == f"projects/hospital-1/traces/{'ab' * 16}"
        assert "logging.googleapis.com/spanId" not in line

    def test_name_the_span_where_there_is_one(self, collector: Collector) -> None:
        export = exporting(collector)
        line = _line(logs.JsonFormatter("stages", "hospital-1"))
        export.close(30)
        assert line["logging.googleapis.com/spanId"] == collector.spans[0].span_id.hex()

    def test_name_no_span_of_a_trace_that_is_left_out(self, collector: Collector) -> None:
        export = exporting(collector, sampling=0.0)
        line = _line(logs.JsonFormatter("stages", "hospital-1"))
        export.close(30)
        assert line["trace_id"] == "ab" * 16
        assert "logging.googleapis.com/spanId" not in line

    def test_say_nothing_of_google_elsewhere(self) -> None:
        assert not any("googleapis" in name for name in _line(logs.JsonFormatter("stages")))


def _line(formatter: logs.JsonFormatter) -> dict[str, object]:
    record = logging.LogRecord("axiom", logging.INFO, "", 1, "said", (), None)
    with tracing.stage("apply_rules", "ab" * 16, ""):
        line: dict[str, object] = json.loads(formatter.format(record))
    return line


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"AXIOM_OTLP_ENDPOINT": "collector:4318"},
            {"AXIOM_OTLP_ENDPOINT": "http://c", "AXIOM_TRACE_SAMPLING": "1.5"},
            {"AXIOM_OTLP_ENDPOINT": "http://c", "AXIOM_TRACE_SAMPLING": "nan"},
            {"AXIOM_OTLP_ENDPOINT": "http://c", "OTEL_METRIC_EXPORT_INTERVAL": "often"},
        ],
    )
    def test_that_are_wrong_are_named(self, wrong: dict[str, str]) -> None:
        with pytest.raises(ValueError, match=list(wrong)[-1]):
            OtlpSettings.read(wrong)

    def test_switch_it_on_in_our_words_or_opentelemetrys(self) -> None:
        assert OtlpSettings.read({}) is None
        ours = OtlpSettings.read({"AXIOM_OTLP_ENDPOINT": "https://telemetry.googleapis.com/"})
        assert ours is not None
        assert ours.is_googles
        assert ours.url("traces") == "https://telemetry.googleapis.com/v1/traces"
        theirs = OtlpSettings.read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
        assert theirs is not None
        assert theirs.url("traces") is None
        off = {"OTEL_SDK_DISABLED": "true", "AXIOM_OTLP_ENDPOINT": "http://localhost:4318"}
        assert OtlpSettings.read(off) is None
