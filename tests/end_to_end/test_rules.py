"""Rules in the running system: what a sender is told, and what a person may ask."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import yaml
from pynetdicom import AE

from tests.associations import established
from tests.conftest import ROOT, StartAxiom
from tests.data import build
from tests.running import RunningAxiom, wait_until

COOKBOOK = ROOT / "docs" / "rules"


def c_store(running: RunningAxiom, data: bytes) -> int:
    """The Status of the answer."""
    entity = AE("MODALITY")
    for sop_class in (build.CT_IMAGE_STORAGE, build.MR_IMAGE_STORAGE):
        entity.add_requested_context(sop_class, build.EXPLICIT_VR_LITTLE_ENDIAN)
    association = established(entity, running.dimse_port)
    try:
        return int(association.send_c_store(pydicom.dcmread(BytesIO(data))).Status)
    finally:
        association.release()


def stow(running: RunningAxiom, data: bytes) -> Any:
    body = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--B--\r\n"
    content_type = 'multipart/related; type="application/dicom"; boundary=B'
    return running.request(
        "POST",
        "/api/v1/dicomweb/studies",
        data=body,
        headers={"Content-Type": content_type, "Accept": "application/dicom+json"},
    )


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((COOKBOOK / name).read_text())
    return document


def test_a_rule_at_reception_refuses_over_both_protocols(axiom_up: StartAxiom) -> None:
    running = axiom_up()
    destination = {"name": "store", "type": "filesystem", "path": "store"}
    running.configure(
        destinations=[destination],
        rulesets=[load("R12-refuse-at-reception.yaml")],
        settings={"default_route": ["store"], "min_free_bytes": 0},
    )
    # Followed within a second, without a restart.
    wait_until(lambda: c_store(running, build.ct()) == 0x0124, 10, "the rule to count")
    assert c_store(running, build.mr()) == 0x0000
    refused = stow(running, build.ct(instance="ct-2"))
    assert refused.status_code == 409
    (failed,) = refused.json()["00081198"]["Value"]
    assert failed["00081197"]["Value"] == [0x0124]
    assert stow(running, build.mr(instance="mr-2")).status_code == 200

    def about() -> list[str]:
        entries = running.get_all("/api/v1/exceptions")
        return [e["code"] for e in entries if e["sop_instance_uid"] == build.uid("ct-2")]

    assert wait_until(about, what="its entry") == ["refused-by-rule"]
    store: Path = running.home / "storage" / "store"
    both = {build.uid("mr-1"), build.uid("mr-2")}
    # A CT may be there too, taken before the rule counted.
    wait_until(lambda: both <= {p.stem for p in store.rglob("*.dcm")}, 20, "both to arrive")


def test_a_shadow_reports_and_an_instance_is_explained(axiom_up: StartAxiom) -> None:
    running = axiom_up()
    live = {"name": "main", "rules": [{"name": "all", "destinations": ["store"]}]}
    shadow = {
        "name": "next",
        "mode": "shadow",
        "replaces": "main",
        "rules": [{"name": "mr", "conditions": ['Modality == "MR"'], "destinations": ["store"]}],
    }
    running.configure(
        destinations=[{"name": "store", "type": "filesystem", "path": "store"}],
        rulesets=[live, shadow],
        settings={"min_free_bytes": 0},
    )

    def counted() -> Any:
        report = running.request("GET", "/api/v1/config/rulesets/next/shadow-report").json()
        return report if report.get("instances") else None

    def sent_and_decided() -> Any:
        assert stow(running, build.ct()).status_code == 200
        return [
            one
            for one in running.get_all("/api/v1/instances")
            if "main/all" in one["matched_rules"]
        ]

    (instance, *_) = wait_until(sent_and_decided, 20, "the rules to count", every_s=0.5)
    report = wait_until(counted, 20, "the shadow to be counted")
    assert report["different"] == report["instances"]
    told = running.request("GET", f"/api/v1/instances/{instance['receipt_id']}/explain").json()
    assert told["rules"][0]["matched"] is True
