"""One Instance through every stage, on the embedded platform, without processes or time passing."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import cast

import msgspec
import pydicom
import pytest

from functions.apply_rules.main import apply_rules
from functions.deliver_instance.main import deliver_instance
from functions.record_exception.main import record_exception
from functions.standardize_attributes.main import standardize_attributes
from functions.validate_instance.main import validate_instance
from shared import bootstrap
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.dicom.changes import Change
from shared.dicom.header import Header
from shared.errors import (
    InstanceTooLargeError,
    NotDicomError,
    OverloadedError,
    PermanentError,
    SopInstanceMismatchError,
)
from shared.messages import DeliveryRequested, Receipt, Source, Topic, encode
from shared.pipeline import rules
from shared.pipeline.copies import Copies, Copy, fingerprint
from shared.pipeline.ports import Ports
from shared.pipeline.push import MESSAGE_ID_HEADER, PushRequest, PushResponse
from shared.ports import Outgoing
from shared.times import timestamp
from tests.data import build

SOURCE = Source("dimse", "main-listener", calling_ae_title="CT1", peer_address="10.1.2.3")

EntryPoint = Callable[[PushRequest], PushResponse]

# functions-framework's decorator promises what Flask takes and gives; the embedded runner, as we do
# here, hands them less and gets this.
ENTRY_POINTS: dict[str, EntryPoint] = {
    Topic.INSTANCE_RECEIVED: cast(EntryPoint, validate_instance),
    Topic.INSTANCE_ACCEPTED: cast(EntryPoint, apply_rules),
    Topic.STANDARDIZATION_REQUESTED: cast(EntryPoint, standardize_attributes),
    Topic.DELIVERY_REQUESTED: cast(EntryPoint, deliver_instance),
    Topic.EXCEPTION_RAISED: cast(EntryPoint, record_exception),
}

CT_RULE = {
    "name": "ct",
    "conditions": [{"type": "tag_equals", "tag": "(0x0008,0x0060)", "value": "CT"}],
    "actions": [{"type": "set", "tag": "(0x0008,0x103E)", "value": "CHANGED"}],
    "storage_backends": ["primary-storage"],
}


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ports]:
    """The embedded system below tmp_path, as the entry points find it."""
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path))
    bootstrap.from_environment.cache_clear()
    ports = bootstrap.from_environment()
    # The check of free space is tested by itself; a full disk elsewhere must not fail the others.
    ports.configuration.apply(
        {"settings": {"default_route": ["primary-storage"], "min_free_bytes": 0}}, by="test"
    )
    yield ports
    ports.destinations.close()
    bootstrap.from_environment.cache_clear()


def receive(ports: Ports, part10: bytes, **names: str) -> Receipt:
    with ports.receiver.begin(SOURCE) as staging:
        for start in range(0, len(part10), 100_000):
            staging.write(part10[start : start + 100_000])
        return staging.commit(**names)


def pump(ports: Ports, times: int = 1) -> list[int]:
    """Hand every message to its entry point, `times` times each, until the queue is empty."""
    bus = ports.bus
    assert isinstance(bus, SqliteMessageBus)
    statuses = []
    while leased := bus.lease(list(ENTRY_POINTS), limit=10, lease_s=60):
        for message in leased:
            request = PushRequest(message.data, {MESSAGE_ID_HEADER: str(message.message_id)})
            statuses += [ENTRY_POINTS[message.topic](request)[1] for _ in range(times)]
        bus.settle(acknowledged=[message.message_id for message in leased])
    return statuses


def delivered(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "storage" / "primary-storage").rglob("*.dcm"))


class TestAnInstance:
    def test_takes_the_default_route_unchanged(self, ports: Ports, tmp_path: Path) -> None:
        sent = build.ct()
        receive(ports, sent)
        assert set(pump(ports)) == {204}
        (file,) = delivered(tmp_path)
        assert file.read_bytes() == sent

    def test_is_changed_by_the_rule_that_matches(self, ports: Ports, tmp_path: Path) -> None:
        ports.configuration.create("rulesets", {"name": "r", "rules": [CT_RULE]}, by="test")
        sent = build.ct()
        receipt = receive(ports, sent)
        pump(ports)
        (file,) = delivered(tmp_path)
        before, after = pydicom.dcmread(BytesIO(sent)), pydicom.dcmread(file)
        assert after.SeriesDescription == "CHANGED"
        assert after.PixelData == before.PixelData
        (kept,) = after.OriginalAttributesSequence
        (previous,) = kept.ModifiedAttributesSequence
        assert previous.get("SeriesDescription", "") == before.get("SeriesDescription", "")
        del after.OriginalAttributesSequence
        after.SeriesDescription = before.get("SeriesDescription")
        assert {e.tag for e in after} - {e.tag for e in before} <= {0x0008103E}
        document = ports.documents.get("instances", receipt.receipt_id)
        assert document is not None
        assert document.data["matched_rules"] == ["r/ct"]

    def test_that_comes_twice_at_every_stage_leaves_what_once_leaves(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        """The bus delivers at least once."""
        ports.configuration.create("rulesets", {"name": "r", "rules": [CT_RULE]}, by="test")
        receive(ports, build.ct())
        assert set(pump(ports, times=2)) == {204}
        assert len(delivered(tmp_path)) == 1
        assert ports.documents.count("instances") == ports.documents.count("deliveries") == 1
        assert ports.documents.count("exceptions") == 0

    def test_that_is_sent_again_is_changed_to_equal_bytes(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        """Its sender did not get our answer. Other bytes would be a conflict at every destination,
        and Original Attributes tell the time of the change.
        """
        ports.configuration.create("rulesets", {"name": "r", "rules": [CT_RULE]}, by="test")
        for _ in range(3):
            receive(ports, build.ct())
            pump(ports)
        assert len(delivered(tmp_path)) == 1
        assert ports.documents.count("instances") == 3
        assert ports.documents.count("exceptions") == 0

    @pytest.mark.parametrize("quiet", ["second", "group"])
    def test_tells_previous_values_only_where_they_may_go(
        self, quiet: str, ports: Ports, tmp_path: Path
    ) -> None:
        """What a rule takes out for research would leave with every copy."""
        folder = {"type": "filesystem"}
        destinations = [
            {**folder, "name": "first", "path": "first"},
            {**folder, "name": "second", "path": "second", "original_attributes": False},
            {"name": "group", "type": "group", "members": ["second"]},
        ]
        rule = {**CT_RULE, "storage_backends": ["first", quiet]}
        ports.configuration.apply(
            {
                "destinations": destinations,
                "rulesets": [{"name": "r", "rules": [rule]}],
                "settings": {"min_free_bytes": 0},
            },
            by="test",
        )
        description = {0x0008103E: build.element(0x0008103E, "LO", "BEFORE")}
        receipt = receive(ports, build.ct(changes=description))
        pump(ports)
        told, untold = ((tmp_path / "storage" / n).rglob("*.dcm") for n in ("first", "second"))
        assert b"BEFORE" in next(told).read_bytes()
        (file,) = untold
        assert pydicom.dcmread(file).SeriesDescription == "CHANGED"
        assert b"BEFORE" not in file.read_bytes()
        document = ports.documents.get("instances", receipt.receipt_id)
        assert document is not None
        planned = {plan["destination"]: plan["changes"] for plan in document.data["deliveries"]}
        assert len(planned["first"]) == len(planned[quiet]) + 1

    @pytest.mark.parametrize("was_tried", [False, True])
    def test_sent_elsewhere_leaves_without_previous_values_where_they_may_not_go(
        self, was_tried: bool, ports: Ports, tmp_path: Path
    ) -> None:
        """A retry to another destination brings the Changes that were decided for the first."""
        quiet = {"type": "filesystem", "name": "quiet", "path": "q", "original_attributes": False}
        ports.configuration.create("destinations", quiet, by="test")
        ports.configuration.create("rulesets", {"name": "r", "rules": [CT_RULE]}, by="test")
        description = {0x0008103E: build.element(0x0008103E, "LO", "BEFORE")}
        receipt = receive(ports, build.ct(changes=description))
        pump(ports)
        document = ports.documents.get("instances", receipt.receipt_id)
        assert document is not None
        decided = document.data["deliveries"][0]["changes"]
        changes = msgspec.convert(decided, tuple[Change, ...])
        if was_tried:  # with them, before the destination was configured so
            copies = Copies(ports.documents, ports.clock)
            copy = Copy(
                destination="quiet",
                address=ports.destinations.entity("quiet").address,
                sop_instance_uid=receipt.sop_instance_uid,
                fingerprint=fingerprint(receipt, changes),
                receipt_id=receipt.receipt_id,
                received_at=timestamp(receipt.received_at),
                original_attributes=changes[-1],
            )
            copies.claim(copy)
            copies.rest(copy, gives_up=False)
        message = DeliveryRequested(receipt, "quiet", changes)
        topic = Topic.DELIVERY_REQUESTED
        ports.bus.publish([Outgoing(topic, encode(message), lane="quiet")])
        pump(ports)
        (file,) = (tmp_path / "storage" / "q").rglob("*.dcm")
        assert pydicom.dcmread(file).SeriesDescription == "CHANGED"
        assert b"BEFORE" not in file.read_bytes()

    def test_is_the_same_bytes_at_each_destination(self, ports: Ports, tmp_path: Path) -> None:
        """One copy can be compared with another, and be sent where the other is."""
        names = ["primary-storage", "second"]
        ports.configuration.apply(
            {
                "destinations": [{"name": n, "type": "filesystem", "path": n} for n in names],
                "rulesets": [{"name": "r", "rules": [{**CT_RULE, "storage_backends": names}]}],
            },
            by="test",
        )
        description = {0x0008103E: build.element(0x0008103E, "LO", "BEFORE")}
        receive(ports, build.ct(changes=description))
        pump(ports)
        one, other = (tmp_path / "storage").rglob("*.dcm")
        assert b"BEFORE" in one.read_bytes()
        assert one.read_bytes() == other.read_bytes()

    def test_of_other_bytes_under_its_uid_is_a_conflict(self, ports: Ports, tmp_path: Path) -> None:
        ports.configuration.create("rulesets", {"name": "r", "rules": [CT_RULE]}, by="test")
        receive(ports, build.ct())
        receive(ports, build.ct(patient_id="OTHER"))
        pump(ports)
        assert len(delivered(tmp_path)) == 1
        (entry,) = ports.documents.query("exceptions").documents
        assert entry.data["code"] == "instance-conflict"

    def test_keeps_its_first_decision_when_rules_change_meanwhile(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        """A redelivered message must not deliver a second, different copy."""
        receipt = receive(ports, build.ct())
        bus = ports.bus
        assert isinstance(bus, SqliteMessageBus)
        pump(ports)
        ports.configuration.create("rulesets", {"name": "r", "rules": [CT_RULE]}, by="test")
        known = ports.documents.get("instances", receipt.receipt_id)
        assert known is not None
        accepted = json.dumps({"receipt": _receipt_json(receipt)}).encode()
        bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, accepted)])
        pump(ports)
        again = ports.documents.get("instances", receipt.receipt_id)
        assert again == known
        assert len(delivered(tmp_path)) == 1

    def test_is_held_where_no_rule_and_no_default_route_takes_it(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        ports.configuration.apply({"settings": {"min_free_bytes": 0}}, by="test")
        receipt = receive(ports, build.ct())
        pump(ports)
        document = ports.documents.get("instances", receipt.receipt_id)
        assert document is not None
        assert document.data["state"] == "held"
        assert delivered(tmp_path) == []
        ports.configuration.create("rulesets", {"name": "r", "rules": [CT_RULE]}, by="test")
        rules.release(receipt.receipt_id, ports)
        pump(ports)
        assert len(delivered(tmp_path)) == 1

    def test_whose_destination_is_gone_waits_in_the_exception_log(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        receive(ports, build.ct())
        ports.configuration.apply(
            {"destinations": [], "settings": {"min_free_bytes": 0}}, by="test"
        )
        bus = ports.bus
        assert isinstance(bus, SqliteMessageBus)
        ports.configuration.apply(
            {
                "destinations": [
                    {"name": "off", "type": "filesystem", "path": "off", "enabled": False}
                ],
                "settings": {"default_route": ["off"], "min_free_bytes": 0},
            },
            by="test",
        )
        pump(ports)
        (entry,) = ports.exceptions.list().documents
        assert entry.data["code"] == "destination-misconfigured"
        assert entry.data["destination"] == "off"
        ports.configuration.replace(
            "destinations", "off", {"name": "off", "type": "filesystem", "path": "off"}, by="test"
        )
        assert ports.exceptions.retry(entry.key, by="test")["status"] == "retried"
        pump(ports)
        assert len(list((tmp_path / "storage" / "off").rglob("*.dcm"))) == 1

    def test_that_validation_rejects_is_kept_for_a_retry(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        receive(ports, build.without_patient_id())
        pump(ports)
        (entry,) = ports.exceptions.list(where={"status": "open"}).documents
        assert (entry.data["category"], entry.data["stage"]) == ("validation", "validate_instance")
        assert entry.data["hint"]
        settings = ports.configuration.export()["settings"]
        ports.configuration.apply(
            {"settings": {**settings, "validation": {"patient-id-missing": "warn"}}}, by="test"
        )
        ports.exceptions.retry(entry.key, by="test")
        pump(ports)
        assert len(delivered(tmp_path)) == 1


def _receipt_json(receipt: Receipt) -> dict[str, object]:
    data: dict[str, object] = msgspec.to_builtins(receipt)
    return data


class TestReception:
    @pytest.mark.parametrize(
        ("name", "sent"),
        [
            ("text", build.text_file()),
            ("truncated header", build.truncated_header()),
            ("truncated pixels", build.truncated_pixels()),
            ("no UIDs", build.without_study_and_series_uid()),
            ("10 GB claim", build.ten_gigabyte_claim()),
            ("nothing", b""),
        ],
    )
    def test_refuses_what_is_broken_and_says_so_once(
        self, ports: Ports, tmp_path: Path, name: str, sent: bytes
    ) -> None:
        with pytest.raises(PermanentError):
            receive(ports, sent)
        pump(ports)
        (entry,) = ports.exceptions.list().documents
        assert entry.data["category"] == "validation"
        assert entry.data["hint"]
        assert entry.data["source"]["calling_ae_title"] == "CT1"
        assert not [f for f in (tmp_path / "objects").rglob("*.dcm") if f.is_file()]

    @pytest.mark.parametrize("sent", [build.truncated_header(), build.four_gigabyte_element()])
    def test_names_what_it_refuses_by_its_file_meta_information_if_no_more_can_be_read(
        self, ports: Ports, sent: bytes
    ) -> None:
        """Of C-STORE that is what the request said: else nobody could tell which one it was."""
        with pytest.raises(PermanentError):
            receive(ports, sent)
        pump(ports)
        (entry,) = ports.exceptions.list().documents
        whole = Header.parse(build.ct())
        assert entry.data["sop_class_uid"] == whole.text("SOPClassUID")
        assert entry.data["sop_instance_uid"] == whole.text("SOPInstanceUID")
        assert entry.data["transfer_syntax_uid"] == whole.transfer_syntax_uid

    @pytest.mark.parametrize("length", [0, 100, 132, 140, 200])
    def test_names_nothing_where_that_cannot_be_read_either(
        self, ports: Ports, length: int
    ) -> None:
        with pytest.raises(PermanentError):
            receive(ports, build.ct()[:length])
        pump(ports)
        (entry,) = ports.exceptions.list().documents
        assert entry.data["sop_instance_uid"] == ""

    @pytest.mark.parametrize("piece_bytes", [333, 65536, 70_000, 1 << 20])
    def test_finds_the_body_of_a_long_header_however_it_comes(
        self, ports: Ports, piece_bytes: int
    ) -> None:
        """Only what the header needs is kept, 64 KiB first and then twice as much each time."""
        text = build.element(0x00091010, "UT", "x" * 150_000)
        sent = build.ct(
            changes={0x00090010: build.element(0x00090010, "LO", "X"), 0x00091010: text}
        )
        with ports.receiver.begin(SOURCE) as staging:
            for start in range(0, len(sent), piece_bytes):
                staging.write(sent[start : start + piece_bytes])
            receipt = staging.commit()
        header = Header.parse(sent)
        assert receipt.file.body_offset == header.body_offset > 150_000
        with ports.objects.open(receipt.file.object_name) as reader:
            assert reader.read_at(0, reader.size) == sent

    def test_refuses_another_instance_than_was_announced(self, ports: Ports) -> None:
        with pytest.raises(SopInstanceMismatchError):
            receive(ports, build.ct(), sop_instance_uid="1.2.3")

    def test_says_in_which_transfer_syntax_came_what_it_refuses(self, ports: Ports) -> None:
        with pytest.raises(SopInstanceMismatchError):
            receive(ports, build.ct(), sop_instance_uid="1.2.3")
        pump(ports)
        (entry,) = ports.exceptions.list().documents
        assert entry.data["transfer_syntax_uid"] == Header.parse(build.ct()).transfer_syntax_uid

    def test_stops_at_the_size_limit(self, ports: Ports) -> None:
        ports.configuration.apply(
            {"settings": {"min_free_bytes": 0, "max_instance_bytes": 1000}}, by="test"
        )
        with pytest.raises(InstanceTooLargeError):
            receive(ports, build.ct())

    def test_takes_nothing_while_the_disk_is_full(self, ports: Ports) -> None:
        ports.configuration.apply({"settings": {"min_free_bytes": 1 << 62}}, by="test")
        with pytest.raises(OverloadedError):
            ports.receiver.begin(SOURCE)

    def test_names_no_patient_in_logs_errors_or_the_exception_log(
        self, ports: Ports, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        name = {0x00100010: build.element(0x00100010, "PN", "CANARY^PATIENT")}
        with pytest.raises(PermanentError) as refused:
            receive(ports, build.ct(patient_id="CANARYID", changes=name)[:-100])
        assert "CANARY" not in str(refused.value)
        receive(ports, build.ct(changes={**name, 0x00100020: None}))
        pump(ports)
        assert ports.documents.count("exceptions") == 2
        for entry in ports.exceptions.list().documents:
            shown = {**entry.data, "retry_message": ""}
            assert "CANARY" not in json.dumps(shown)
        assert "CANARY" not in caplog.text

    def test_logs_why_there_is_a_new_entry(
        self, ports: Ports, caplog: pytest.LogCaptureFixture
    ) -> None:
        receive(ports, build.ct(changes={0x00100020: None}))
        pump(ports)
        (entry,) = ports.exceptions.list().documents
        (told,) = [one for one in caplog.records if "exception log" in one.message]
        assert told.__dict__["reason"] == entry.data["message"]

    def test_of_a_text_file_says_that_it_is_no_dicom(self, ports: Ports) -> None:
        with pytest.raises(NotDicomError):
            receive(ports, build.text_file())


class TestAPush:
    def test_that_is_no_message_goes_to_the_exception_log(self, ports: Ports) -> None:
        """A stranger's message would otherwise come back for ever."""
        raw = {MESSAGE_ID_HEADER: "1"}
        for body, headers in ((b"{}", raw), (b"\xff\x00", raw), (b"hello", {}), (b"", {})):
            push = PushRequest(body, headers)
            assert ENTRY_POINTS[Topic.INSTANCE_RECEIVED](push)[1] == 204
        pump(ports)
        assert {e.data["code"] for e in ports.exceptions.list().documents} == {"malformed-message"}

    def test_in_pub_subs_envelope_is_understood(self, ports: Ports, tmp_path: Path) -> None:
        receive(ports, build.ct())
        bus = ports.bus
        assert isinstance(bus, SqliteMessageBus)
        (message,) = bus.lease([Topic.INSTANCE_RECEIVED], limit=1, lease_s=60)
        wrapped = {
            "subscription": "projects/p/subscriptions/s",
            "message": {"data": base64.b64encode(message.data).decode(), "messageId": "1"},
        }
        push = PushRequest(json.dumps(wrapped).encode(), {})
        assert ENTRY_POINTS[Topic.INSTANCE_RECEIVED](push)[1] == 204
        pump(ports)
        assert len(delivered(tmp_path)) == 1
