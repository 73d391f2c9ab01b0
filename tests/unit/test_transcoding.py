"""Rules that have Instances leave in another Transfer Syntax, in the whole system."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from shared.errors import DestinationUnavailableError, InvalidConfigurationError
from tests.data import build
from tests.unit.operating import System, running_system

RLE, EXPLICIT = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path, monkeypatch.setenv)


def rules(*destinations: Any, **action: Any) -> dict[str, Any]:
    transcode = {"type": "transcode", "transfer_syntax": "RLE Lossless", **action}
    rule = {"name": "small", "actions": [transcode], "destinations": list(destinations)}
    return {"name": "leaner", "rules": [rule]}


def apply(system: System, ruleset: dict[str, Any]) -> None:
    system.ports.configuration.apply({"rulesets": [ruleset]}, by="test")


def stored(system: System, peer: str = "pacs") -> bytes:
    (data,) = system.peers[peer].stored.values()
    return data


def syntax(data: bytes) -> str:
    return str(pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID)


def test_each_destination_gets_the_one_that_rules_want_for_it(system: System) -> None:
    as_it_was = {"type": "transcode", "transfer_syntax": EXPLICIT}
    apply(system, rules("pacs", {"name": "spare", "actions": [as_it_was]}))
    data = build.pydicom_file("CT_small.dcm")
    receipt = system.receive(data)
    system.pump()
    assert syntax(stored(system)) == RLE
    small, plain = (
        pydicom.dcmread(io.BytesIO(d)) for d in (stored(system), stored(system, "spare"))
    )
    assert np.array_equal(small.pixel_array, plain.pixel_array)
    assert system.delivery(receipt)["state"] == "delivered"
    planned = {p["destination"]: p["transcoding"] for p in system.instance(receipt)["deliveries"]}
    assert planned["pacs"]["by"] == "leaner/small"


def test_it_is_made_after_all_changes(system: System) -> None:
    ruleset = rules("pacs")
    ruleset["rules"][0]["actions"].append({"type": "set", "tag": "PatientID", "value": "山田"})
    apply(system, ruleset)
    system.receive(build.pydicom_file("CT_small.dcm"))
    system.pump()
    found = pydicom.dcmread(io.BytesIO(stored(system)))
    assert found.PatientID == "山田"
    assert found.file_meta.TransferSyntaxUID == RLE


def test_the_default_route_takes_it_too(system: System) -> None:
    apply(system, rules())
    system.receive(build.pydicom_file("CT_small.dcm"))
    system.pump()
    assert syntax(stored(system)) == RLE


def test_what_has_the_transfer_syntax_already_is_the_same_as_before(system: System) -> None:
    data = build.pydicom_file("MR_small_RLE.dcm")
    system.receive(data)
    system.pump()
    apply(system, rules("pacs"))
    receipt = system.receive(data)
    system.pump()
    assert "equal bytes are there already" in system.delivery(receipt)["answer"]


def test_a_delivery_that_is_tried_again_brings_the_same_bytes(system: System) -> None:
    apply(system, rules("pacs"))
    peer = system.peers["pacs"]
    first: list[bytes] = []

    def lose_the_answer(instance: Any) -> None:
        if not first:
            first.append(stored(system))
            raise DestinationUnavailableError("pacs", "lost")

    peer.after = lose_the_answer
    system.receive(build.pydicom_file("CT_small.dcm"))
    system.pump()
    assert [one.redelivery for one in peer.sent] == [False, True]
    assert stored(system) == first[0]


class TestWhatCannotBeDone:
    """Single bits, for which the Standard knows no compression."""

    DATA = build.pydicom_file("liver_1frame.dcm")

    def test_is_in_the_exception_log_with_the_rule(self, system: System) -> None:
        apply(system, rules("pacs"))
        receipt = system.receive(self.DATA)
        system.pump()
        (entry,) = system.entries(code="cannot-transcode")
        assert entry["message"].startswith("rule leaner/small asks to transcode from ")
        assert system.delivery(receipt)["state"] == "failed"
        assert system.peers["pacs"].stored == {}

    def test_may_leave_as_it_is(self, system: System) -> None:
        apply(system, rules("pacs", on_failure="send_as_is"))
        system.receive(self.DATA)
        system.pump()
        assert stored(system) == self.DATA
        assert system.entries() == []

    def test_may_go_elsewhere_as_it_came(self, system: System) -> None:
        apply(system, rules("pacs"))
        system.receive(self.DATA)
        system.pump()
        (entry,) = system.entries(code="cannot-transcode")
        system.ports.exceptions.retry(entry["id"], by="test", destination="spare")
        system.pump()
        assert syntax(stored(system, "spare")) == syntax(self.DATA)

    def test_goes_on_once_the_rule_is_mended(self, system: System) -> None:
        apply(system, rules("pacs"))
        system.receive(self.DATA)
        system.pump()
        apply(system, rules("pacs", on_failure="send_as_is"))
        (entry,) = system.entries(code="cannot-transcode")
        system.ports.exceptions.retry(entry["id"], by="test", with_current_rules=True)
        system.pump()
        assert stored(system) == self.DATA


def test_what_loses_something_is_refused_at_load(system: System) -> None:
    with pytest.raises(InvalidConfigurationError, match="only what loses nothing"):
        apply(system, rules("pacs", transfer_syntax="JPEG 2000"))


def test_tests_beside_the_rules_name_the_transfer_syntax(system: System) -> None:
    ruleset = rules("pacs")
    expected = {"pacs": "RLE Lossless"}
    ruleset["tests"] = [{"name": "t", "attributes": {}, "expect": {"transfer_syntaxes": expected}}]
    apply(system, ruleset)
    expected["pacs"] = "Explicit VR Little Endian"
    with pytest.raises(InvalidConfigurationError, match="transfer_syntax of pacs: expected"):
        apply(system, ruleset)
