"""/health: open to everybody, honest, and cheap to ask."""

from __future__ import annotations

import threading
from pathlib import Path

from shared.identity.settings import IdentitySettings
from shared.pipeline import edges
from shared.pipeline.ports import HealthCheck
from shared.web.health import KeptCheck
from shared.web.wsgi import create_app
from tests.fakes import FakeClock
from tests.unit.web_fakes import AUTHORIZED, KEY, FakeReception, client_over, fake_ports


def works() -> str | None:
    return None


def broken() -> str | None:
    return "/var/axiom is full"


class TestHealth:
    def test_is_200_without_a_key_when_every_part_works(self, tmp_path: Path) -> None:
        checks: dict[str, HealthCheck] = {"documents": works, "objects": works}
        client = client_over(fake_ports(tmp_path, FakeReception(), health_checks=checks))
        response = client.get("/health")
        assert response.status_code == 200
        assert response.get_json() == {
            "status": "healthy",
            "checks": {"documents": {"status": "healthy"}, "objects": {"status": "healthy"}},
        }

    def test_is_503_when_one_part_does_not(self, tmp_path: Path) -> None:
        checks: dict[str, HealthCheck] = {"documents": works, "objects": broken}
        client = client_over(fake_ports(tmp_path, FakeReception(), health_checks=checks))
        response = client.get("/health")
        assert response.status_code == 503
        assert response.get_json()["status"] == "degraded"
        assert response.get_json()["checks"]["objects"] == {"status": "degraded"}

    def test_says_what_is_wrong_to_those_with_a_key(self, tmp_path: Path) -> None:
        """Paths and host names are nobody else's business."""
        checks: dict[str, HealthCheck] = {"objects": broken}
        client = client_over(fake_ports(tmp_path, FakeReception(), health_checks=checks))
        detail = client.get("/health", headers=AUTHORIZED).get_json()["checks"]["objects"]
        assert detail == {"status": "degraded", "detail": "/var/axiom is full"}

    def test_a_check_that_breaks_is_a_part_that_does_not_work(self, tmp_path: Path) -> None:
        def breaks() -> str | None:
            raise OSError

        client = client_over(
            fake_ports(tmp_path, FakeReception(), health_checks={"objects": breaks})
        )
        assert client.get("/health").status_code == 503

    def test_runs_its_checks_once_a_second_at_most(self, tmp_path: Path) -> None:
        """Anybody may ask, and a check writes to the disk."""
        clock, asked = FakeClock(), []

        def check() -> str | None:
            asked.append(1)
            return None

        ports = fake_ports(tmp_path, FakeReception(), clock=clock, health_checks={"objects": check})
        client = client_over(ports)
        for _ in range(3):
            client.get("/health")
        assert len(asked) == 1
        clock.advance(1)
        client.get("/health")
        assert len(asked) == 2

    def test_answers_head_without_a_body(self, tmp_path: Path) -> None:
        client = client_over(fake_ports(tmp_path, FakeReception()))
        response = client.head("/health")
        assert (response.status_code, response.data) == (200, b"")


class TestReady:
    def test_looks_at_what_a_request_needs_alone(self, tmp_path: Path) -> None:
        checks: dict[str, HealthCheck] = {"documents": works, "objects": works, "delivery": broken}
        client = client_over(fake_ports(tmp_path, FakeReception(), health_checks=checks))
        assert client.get("/health").status_code == 503
        response = client.get("/ready")
        assert response.status_code == 200
        assert set(response.get_json()["checks"]) == {"documents", "objects"}

    def test_is_503_without_it(self, tmp_path: Path) -> None:
        checks: dict[str, HealthCheck] = {"documents": broken}
        client = client_over(fake_ports(tmp_path, FakeReception(), health_checks=checks))
        assert client.get("/ready").status_code == 503


class TestDicomProcessing:
    def test_a_silent_gateway_on_premises_degrades_the_listeners_alone(
        self, tmp_path: Path
    ) -> None:
        ports = fake_ports(tmp_path, FakeReception(), health_checks={"documents": works})
        state = edges.EdgeState(0, 0.0, 0, 1, 0, 0, 1)
        edges.say("clinic-1", state, ports.documents, ports.clock)
        client = client_over(ports)
        assert client.get("/health/dicom-processing").status_code == 200
        ports.clock.advance(3600)
        response = client.get("/health/dicom-processing", headers=AUTHORIZED)
        assert response.get_json()["checks"]["listeners"] == {
            "status": "degraded",
            "detail": "edges: clinic-1: no sign of life for 3600 s",
        }
        assert client.get("/health").status_code == 200

    def test_has_four_checks(self, tmp_path: Path) -> None:
        checks: dict[str, HealthCheck] = {"documents": works, "gateway": works, "stages": works}
        client = client_over(fake_ports(tmp_path, FakeReception(), health_checks=checks))
        response = client.get("/health/dicom-processing")
        assert response.status_code == 200
        assert response.get_json() == {
            "status": "healthy",
            "checks": {
                name: {"status": "healthy"} for name in ("listeners", "workers", "storage", "queue")
            },
        }

    def test_is_degraded_when_any_is_not_healthy(self, tmp_path: Path) -> None:
        checks: dict[str, HealthCheck] = {"gateway": broken, "stages": works, "delivery": works}
        client = client_over(fake_ports(tmp_path, FakeReception(), health_checks=checks))
        response = client.get("/health/dicom-processing", headers=AUTHORIZED)
        body = response.get_json()
        assert (response.status_code, body["status"]) == (503, "degraded")
        assert body["checks"]["listeners"] == {
            "status": "degraded",
            "detail": "gateway: /var/axiom is full",
        }
        assert body["checks"]["workers"] == {"status": "healthy"}

    def test_tells_of_worklists_that_modalities_are_not_shown(self, tmp_path: Path) -> None:
        ports = fake_ports(tmp_path, FakeReception())
        app = create_app(ports, IdentitySettings(preset_key=KEY), worklists=lambda: "ris: gone")
        response = app.test_client().get("/health/dicom-processing", headers=AUTHORIZED)
        assert response.get_json()["checks"]["listeners"] == {
            "status": "degraded",
            "detail": "worklists: ris: gone",
        }
        assert app.test_client().get("/health").status_code == 200


class TestKeptCheck:
    def test_tells_what_was_said_last_while_it_is_asked_anew(self) -> None:
        """A database that does not answer keeps nobody waiting who asks how the system is."""
        clock, said = FakeClock(), threading.Semaphore(0)
        asked = threading.Semaphore(0)

        def slow() -> str | None:
            asked.release()
            assert said.acquire(timeout=60)
            return "no answer"

        check = KeptCheck(slow, clock, keep_s=30)
        assert check() is None
        assert asked.acquire(timeout=60)
        clock.advance(100)
        assert check() is None
        said.release()
        assert _eventually(check) == "no answer"
        assert asked.acquire(timeout=60)  # by one of those, since it was long ago
        clock.advance(29)
        assert check() == "no answer"
        said.release()
        assert not asked.acquire(blocking=False)

    def test_of_one_that_breaks_is_a_fault(self) -> None:
        def breaks() -> str | None:
            raise ValueError

        assert _eventually(KeptCheck(breaks, FakeClock(), keep_s=30)) is not None


def _eventually(check: HealthCheck) -> str | None:
    for _ in range(6000):
        if (fault := check()) is not None:
            return fault
        threading.Event().wait(0.01)
    return None
