"""Polling: what is new comes once, what fails is tried again and told, and nothing is lost."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.errors import (
    SourceMisconfiguredError,
    SourceRefusedError,
    SourceUnavailableError,
)
from shared.messages import InstanceReceived, Topic, decode
from shared.pipeline.intake import PollStoppedError
from shared.pipeline.polling import Poller
from shared.pipeline.pull import Puller
from shared.pipeline.source_states import SourceStates, request_poll
from shared.ports import FoundInstance, FoundStudy
from tests.data import build
from tests.unit.sources.asking import SOURCE, Asking, Pacs


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    return Asking(tmp_path / "home")


def failing(error: Exception) -> Any:
    def fail(*_: Any) -> Any:
        raise error

    return fail


class TestWhatIsNew:
    def test_comes_once_as_from_the_source(self, asking: Asking) -> None:
        uids = [asking.pacs.put(f"ct-{n}") for n in range(3)]
        assert asking.poll() == {"found": 3, "queued": 3, "processed": 3, "failed": 0}
        assert sorted(asking.received()) == sorted(uids)
        bus: Any = asking.ports.bus
        leased = bus.lease([Topic.INSTANCE_RECEIVED], limit=1, lease_s=0)
        source = decode(leased[0].data, InstanceReceived).receipt.source
        assert (source.type, source.name) == ("dicomweb", "pacs")
        asking.later(60)
        assert asking.poll() == {"found": 0, "queued": 0, "processed": 0, "failed": 0}
        assert sorted(asking.pacs.given) == sorted(uids)

    def test_is_told_by_instance_when_a_study_grows_late(self, asking: Asking) -> None:
        asking.pacs.put("early")
        asking.poll()
        late = asking.pacs.put("late")
        asking.later(60)
        assert asking.poll()["processed"] == 1
        assert asking.pacs.given[-1] == late

    def test_is_seen_though_as_many_instances_are_shown_as_before(self, asking: Asking) -> None:
        """One Instance took the place of another: an hour later at the latest that is noticed."""
        asking.pacs.put("rejected")
        asking.poll()
        asking.pacs.stored.clear()
        corrected = asking.pacs.put("corrected")
        asking.later(60)
        asking.poll()
        asking.later(3600)
        asking.poll()
        assert asking.pacs.given[-1] == corrected

    def test_is_not_listed_again_while_nothing_changes(self, asking: Asking) -> None:
        asking.pacs.put("one")
        asking.poll()
        for _ in range(3):
            asking.later(60)
            asking.poll()
        assert len(asking.pacs.listed) == 1

    def test_is_listed_each_time_where_the_source_tells_no_counts(self, asking: Asking) -> None:
        asking.pacs.tells_counts = False
        asking.pacs.put("one")
        asking.poll()
        asking.pacs.stored.clear()
        asking.pacs.put("other")
        asking.later(60)
        assert asking.poll()["processed"] == 1

    def test_comes_anew_from_another_address(self, asking: Asking) -> None:
        asking.pacs.put("one")
        asking.poll()
        asking.configure({**SOURCE, "base_url": "http://other.example"})
        assert asking.poll()["processed"] == 1


class TestWhen:
    def test_not_before_the_interval_has_passed(self, asking: Asking) -> None:
        asking.poll()
        asking.later(59)
        asking.poll()
        assert len(asking.pacs.searched_since) == 1
        asking.later(1)
        asking.poll()
        assert len(asking.pacs.searched_since) == 2

    def test_at_once_when_somebody_asks_for_it(self, asking: Asking) -> None:
        asking.poll()
        asking.later(1)
        request_poll("pacs", asking.ports)
        asking.poll()
        assert len(asking.pacs.searched_since) == 2

    def test_within_its_schedule_alone(self, tmp_path: Path) -> None:
        """It is 10:00 when the clock starts."""
        night = {"start": "22:00", "end": "06:00", "timezone": "UTC"}
        asking = Asking(tmp_path / "home", schedule=night)
        asking.poll()
        assert asking.pacs.searched_since == []
        assert asking.state()["state"] == "closed"
        asking.later(12 * 3600)
        asking.poll()
        assert len(asking.pacs.searched_since) == 1

    def test_outside_its_schedule_when_somebody_asks_for_it(self, tmp_path: Path) -> None:
        night = {"start": "22:00", "end": "06:00", "timezone": "UTC"}
        asking = Asking(tmp_path / "home", schedule=night)
        asking.pacs.put("one")
        looks = threading.Semaphore(0)
        look = asking.poller._start_due

        def counted() -> bool:
            runs = look()
            looks.release()
            return runs

        asking.poller._start_due = counted  # type: ignore[method-assign]
        # Until whoever watches has looked at the clock while it is polled.
        asking.pacs.before = lambda uid: [looks.acquire(timeout=30) for _ in range(2)]
        request_poll("pacs", asking.ports)
        assert asking.poll()["processed"] == 1

    def test_only_when_somebody_asks_for_it_where_it_is_not_to_be_polled(
        self, tmp_path: Path
    ) -> None:
        """A source for pulls: it is asked for nothing that nobody wants."""
        asking = Asking(tmp_path / "home", polled=False)
        asking.pacs.put("a")
        asking.poll()
        assert (asking.state()["state"], asking.pacs.searched_since) == ("on-demand", [])
        request_poll("pacs", asking.ports)
        assert asking.poll()["processed"] == 1
        asking.later(3600)
        asking.poll()
        assert asking.state()["state"] == "on-demand"
        assert len(asking.pacs.searched_since) == 1
        asking.configure(SOURCE)
        asking.poll()
        assert asking.state()["state"] == "idle"

    def test_a_poll_pauses_when_its_schedule_ends_and_goes_on_when_it_begins(
        self, tmp_path: Path
    ) -> None:
        morning = {"start": "09:00", "end": "11:00", "timezone": "UTC"}
        asking = Asking(tmp_path / "home", schedule=morning, limits={"max_concurrency": 1})
        for n in range(4):
            asking.pacs.put(f"ct-{n}", study=f"study-{n}")
        come = threading.Event()

        def end_of_window(uid: str) -> None:
            if not come.is_set():
                come.set()
                asking.later(3600)
                # Until whoever watches has seen what time it is.
                stopped = next(iter(asking.poller._running.values())).stopped
                assert stopped.wait(120)

        asking.pacs.before = end_of_window
        asking.poll()
        assert asking.state()["totals"]["processed"] < 4
        asking.later(22 * 3600)
        asking.poll()
        assert asking.state()["totals"]["processed"] == 4
        assert len(set(asking.received())) == len(asking.received()) == 4

    def test_not_while_it_is_disabled(self, tmp_path: Path) -> None:
        asking = Asking(tmp_path / "home", enabled=False)
        asking.poll()
        assert asking.pacs.searched_since == []
        assert asking.state()["state"] == "disabled"

    def test_one_poller_at_a_time(self, asking: Asking) -> None:
        entity = asking.ports.configuration.get().sources[0]
        states = SourceStates(asking.ports.documents, asking.ports.clock)
        assert states.take(entity) is not None
        with pytest.raises(SourceMisconfiguredError, match="being polled"):
            asking.poller.poll("pacs")
        asking.poll()
        assert asking.pacs.searched_since == []
        asking.later(30)  # whoever had it has ended without a word
        asking.poll()
        assert len(asking.pacs.searched_since) == 1

    def test_the_days_that_nobody_asked_are_asked_for_too(self, asking: Asking) -> None:
        started = datetime(2026, 11, 21, 10, tzinfo=UTC)
        asking.poll()
        assert asking.pacs.searched_since == [started - timedelta(days=1)]
        asking.later(10 * 86400)
        Poller(asking.ports).run()
        assert asking.pacs.searched_since[-1] == started - timedelta(days=1)


class TestWhatFails:
    def test_a_source_that_cannot_be_asked_is_asked_with_growing_pauses(
        self, asking: Asking
    ) -> None:
        asking.pacs.search = failing(SourceUnavailableError("pacs", "no answer in time"))  # type: ignore[method-assign]
        asking.poll()
        state = asking.state()
        assert (state["state"], state["failures"]) == ("failing", 1)
        assert state["last_error"] == "pacs: no answer in time"
        asking.later(60)
        asking.poll()
        asking.later(60)
        asking.poll()
        assert asking.state()["failures"] == 2
        asking.later(60)
        asking.poll()
        assert asking.state()["failures"] == 3

    def test_other_sources_go_on(self, asking: Asking) -> None:
        asking.configure(SOURCE, {**SOURCE, "name": "other"})
        asking.readers["other"] = other = Pacs()
        other.put("one")
        asking.pacs.search = failing(SourceMisconfiguredError("pacs", "Unauthorized"))  # type: ignore[method-assign]
        asking.poll()
        assert asking.state()["state"] == "failing"
        assert asking.state("other")["totals"]["processed"] == 1

    def test_a_source_that_hangs_holds_up_no_other(self, asking: Asking) -> None:
        asking.configure(SOURCE, {**SOURCE, "name": "other"})
        asking.readers["other"] = other = Pacs()
        other.put("one")
        asking.pacs.put("never")
        release = threading.Event()
        asking.pacs.before = lambda uid: release.wait(60)
        runs = threading.Thread(target=asking.poller.run)
        runs.start()
        try:
            deadline = threading.Event()
            for _ in range(600):
                if asking.state("other")["totals"]["processed"]:
                    break
                deadline.wait(0.05)
            assert asking.state("other")["totals"]["processed"] == 1
            assert asking.state()["totals"]["processed"] == 0
        finally:
            release.set()
            runs.join(120)

    def test_what_breaks_in_the_middle_is_fetched_again_and_the_rest_is_not(
        self, tmp_path: Path
    ) -> None:
        asking = Asking(tmp_path / "home", limits={"max_concurrency": 1})
        first, second = asking.pacs.put("a"), asking.pacs.put("b")
        lost = SourceUnavailableError("pacs", "answer cut short")

        def break_once(uid: str) -> None:
            if uid == second:
                asking.pacs.before = lambda uid: None
                raise lost

        asking.pacs.before = break_once
        assert asking.poll() == {"found": 2, "queued": 2, "processed": 1, "failed": 0}
        assert asking.exceptions() == []
        asking.later(60)
        assert asking.poll() == {"found": 0, "queued": 1, "processed": 1, "failed": 0}
        assert asking.pacs.given == [first, second]

    def test_what_is_shown_and_never_given_goes_to_the_exception_log_once(
        self, tmp_path: Path
    ) -> None:
        asking = Asking(tmp_path / "home", limits={"max_attempts": 3})
        asking.pacs.put("good")
        missing = build.uid("lost")
        shown = asking.pacs.instances

        def with_another(study: FoundStudy) -> Any:
            return [*shown(study), FoundInstance(missing, build.uid("s1"))]

        asking.pacs.instances = with_another  # type: ignore[method-assign]
        for _ in range(6):
            asking.poll()
            asking.later(300)
        [entry] = asking.exceptions()
        assert (entry["code"], entry["sop_instance_uid"]) == ("not-retrieved", missing)
        assert entry["source"]["name"] == "pacs"

    def test_what_is_no_dicom_goes_to_the_exception_log_and_is_not_asked_for_again(
        self, asking: Asking
    ) -> None:
        good = asking.pacs.put("good")
        uids = (build.uid("study"), build.uid("s1"), build.uid("bad"))
        asking.pacs.stored[uids] = b"<html>no DICOM</html>" * 50
        assert asking.poll()["failed"] == 1
        assert asking.received() == [good]
        assert [entry["code"] for entry in asking.exceptions()] == ["not-dicom"]

    def test_a_refused_study_leaves_the_others_alone(self, asking: Asking) -> None:
        bad, good = asking.pacs.put("x", study="bad"), asking.pacs.put("y", study="good")
        listed = asking.pacs.instances

        def refuse(study: FoundStudy) -> Any:
            if study.uid == build.uid("bad"):
                raise SourceRefusedError("pacs", "Bad Request: HTTP 400")
            return listed(study)

        asking.pacs.instances = refuse  # type: ignore[method-assign]
        asking.poll()
        assert asking.received() == [good]
        assert bad not in asking.pacs.given

    def test_a_bug_of_ours_is_told_without_its_text(self, asking: Asking) -> None:
        asking.pacs.search = failing(KeyError("DOE^JANE"))  # type: ignore[method-assign]
        asking.poll()
        assert asking.state()["last_error"] == "KeyError"


class TestBackPressure:
    def test_nothing_is_fetched_while_too_much_waits_for_the_rules(self, tmp_path: Path) -> None:
        asking = Asking(tmp_path / "home", limits={"max_waiting": 2, "max_concurrency": 1})
        for n in range(8):
            asking.pacs.put(f"ct-{n}", study=f"study-{n}")
        runs = threading.Thread(target=asking.poller.run)
        runs.start()
        tick = threading.Event()
        most = 0
        while runs.is_alive():
            bus: Any = asking.ports.bus
            depth = bus.backlog([Topic.INSTANCE_RECEIVED], at_most=100).messages
            most = max(most, depth)
            if depth >= 2:
                asking.system.work()
            tick.wait(0.02)
        runs.join()
        assert asking.state()["totals"]["processed"] == 8
        assert most <= 3


class TestWhoeverEndsInTheMiddle:
    def test_leaves_nothing_to_be_lost_and_little_to_come_twice(self, tmp_path: Path) -> None:
        """What had come before the end counts, though the ledger does not say so."""
        asking = Asking(tmp_path / "home", limits={"max_concurrency": 1})
        uids = [asking.pacs.put(f"ct-{n}") for n in range(5)]

        class Killed(BaseException):
            pass

        entity = asking.ports.configuration.get().sources[0]
        reader = asking.pacs
        original = Puller.pull.__globals__["Ledger"].write
        calls = []

        def die_late(self: Any, entry: Any) -> None:
            calls.append(entry)
            if len(calls) > 1:
                raise Killed
            original(self, entry)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shared.pipeline.pull.Ledger.write", die_late)
            with Puller(entity, reader, asking.ports) as puller, pytest.raises(Killed):
                puller.pull(next(reader.search(None)))
        assert sorted(asking.received()) == sorted(uids)
        asking.system.work()
        asking.poll()
        assert len(asking.pacs.given) == 5
        assert asking.received() == []

    def test_a_stop_is_no_failure(self, asking: Asking) -> None:
        asking.pacs.put("one")
        stopped = threading.Event()
        stopped.set()
        entity = asking.ports.configuration.get().sources[0]
        with (
            Puller(entity, asking.pacs, asking.ports, stopped=stopped) as puller,
            pytest.raises(PollStoppedError),
        ):
            puller.pull(next(asking.pacs.search(None)))
        assert asking.exceptions() == []
        asking.poll()
        assert len(asking.received()) == 1


def test_no_patient_value_is_in_the_state_the_ledger_or_the_exception_log(
    asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    asking.pacs.put("one", patient_id="CANARY-4711")
    uids = (build.uid("study"), build.uid("s1"), build.uid("bad"))
    asking.pacs.stored[uids] = build.ct(instance="bad", patient_id="CANARY-4711")[:700]
    asking.poll()
    kept = [
        document.data
        for collection in ("source-states", "source-ledger", "exceptions")
        for document in asking.ports.documents.query(collection, limit=100).documents
    ]
    assert kept
    assert "CANARY" not in str(kept) + caplog.text + str(asking.exceptions())
