"""What Pub/Sub gives up goes round again while the budget lasts, then to the exception log."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from functions.record_dead_letter.main import record_dead_letter
from shared.messages import (
    MAX_INLINE_HEADER_BYTES,
    DeliveryRequested,
    ExceptionRaised,
    InstanceReceived,
    Topic,
    decode,
    encode,
)
from shared.pipeline.push import PushRequest
from shared.times import timestamp
from tests.data import build
from tests.unit.operating import System, running_system

EVENTARC_BYTES = 512 * 1000


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path / "home", monkeypatch.setenv)


def push(data: bytes, **attributes: str) -> int:
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    message = {"data": base64.b64encode(data).decode(), "attributes": named, "messageId": "1"}
    request = PushRequest(json.dumps({"message": message}).encode(), {})
    return record_dead_letter(request)[1]


def spent(system: System, **changes: str) -> dict[str, str]:
    began = system.ports.clock.now() - timedelta(days=4)
    return {
        "axiom_topic": Topic.DELIVERY_REQUESTED,
        "CloudPubSubDeadLetterSourceDeliveryCount": "100",
        "CloudPubSubDeadLetterSourceTopicPublishTime": timestamp(began),
        "axiom_lane": "pacs",
        **changes,
    }


def delivery(system: System) -> bytes:
    receipt = system.receive(build.ct())
    system.bus.settle(
        [one.message_id for one in system.bus.lease(["instance-received"], limit=9, lease_s=9)]
    )
    return encode(DeliveryRequested(receipt, "pacs"))


class TestADelivery:
    def test_goes_round_again_while_the_budget_lasts(self, system: System) -> None:
        """100 attempts are half a day, and a destination may be dead for days."""
        now = timestamp(system.ports.clock.now() - timedelta(hours=1))
        told = spent(system, CloudPubSubDeadLetterSourceTopicPublishTime=now)
        data = delivery(system)
        assert push(data, **told) == 204
        (leased,) = system.bus.lease([Topic.DELIVERY_REQUESTED], limit=9, lease_s=60)
        assert leased.data == data
        assert leased.attributes["axiom-attempt"] == "100"
        assert leased.attributes["axiom-first-at"] == now
        assert system.entries() == []

    def test_counts_from_when_it_was_published_at_first(self, system: System) -> None:
        now = system.ports.clock.now()
        told = spent(
            system,
            CloudPubSubDeadLetterSourceTopicPublishTime=timestamp(now),
            axiom_first_at=timestamp(now - timedelta(days=3, seconds=1)),
            axiom_attempt="900",
        )
        assert push(delivery(system), **told) == 204
        (entry,) = system.entries()
        assert entry["attempts"] == 1000

    def test_is_recorded_with_what_a_retry_needs(self, system: System) -> None:
        assert push(delivery(system), **spent(system)) == 204
        (entry,) = system.entries()
        assert (entry["code"], entry["destination"]) == ("retries-spent", "pacs")
        system.ports.exceptions.retry(entry["id"], by="test")
        system.pump()
        assert system.peers["pacs"].stored.keys() == {build.uid("ct-1")}

    @pytest.mark.parametrize("when", ["", "yesterday", "9999"])
    def test_without_a_time_does_not_go_round_for_ever(self, system: System, when: str) -> None:
        told = spent(system, CloudPubSubDeadLetterSourceTopicPublishTime=when)
        assert push(delivery(system), **told) == 204
        assert len(system.entries()) == 1


class TestOthers:
    def test_an_entry_of_the_exception_log_is_written(self, system: System) -> None:
        assert push(delivery(system), **spent(system)) == 204
        (known,) = system.entries()
        raised: Any = ExceptionRaised(
            exception_id="e1",
            occurred_at=datetime.fromisoformat(known["last_at"]),
            stage=known["stage"],
            category=known["category"],
            code="x",
            message="m",
        )
        assert push(encode(raised), axiom_topic=Topic.EXCEPTION_RAISED) == 204
        assert {entry["code"] for entry in system.entries()} == {"retries-spent", "x"}

    @pytest.mark.parametrize("topic", ["", "elsewhere"])
    def test_a_stranger_s_is_recorded_and_does_not_come_again(
        self, system: System, topic: str
    ) -> None:
        assert push(b"?", axiom_topic=topic) == 204
        system.pump()
        assert [entry["code"] for entry in system.entries()] == ["malformed-message"]


class TestTheSizeOfAMessage:
    def test_the_largest_header_that_travels_fits_into_an_event(self, system: System) -> None:
        receipt = system.receive(build.ct())
        (leased,) = system.bus.lease([Topic.INSTANCE_RECEIVED], limit=1, lease_s=60)
        message = decode(leased.data, InstanceReceived)
        assert message.receipt.header is not None
        largest = len(leased.data) + MAX_INLINE_HEADER_BYTES * 4 // 3
        assert largest * 4 / 3 < EVENTARC_BYTES  # and again in base64, in a push
        assert receipt == message.receipt

    def test_a_larger_header_is_read_from_the_received_file(self, system: System) -> None:
        comment = build.element(0x00204000, "LT", b"x" * 10_000)
        private = build.element(0x00091010, "OB", b"y" * (MAX_INLINE_HEADER_BYTES + 2))
        creator = build.element(0x00090010, "LO", b"AXIOM")
        changes = {0x00204000: comment, 0x00090010: creator, 0x00091010: private}
        received = build.ct(changes=changes)
        system.receive(received)
        (leased,) = system.bus.lease([Topic.INSTANCE_RECEIVED], limit=1, lease_s=60)
        assert len(leased.data) < 4096
        system.bus.settle(later=[(leased.message_id, 0.0)])
        system.pump()
        assert system.peers["pacs"].stored[build.uid("ct-1")] == received
