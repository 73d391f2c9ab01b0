"""The demo's own checks: they must fail when what they claim is not so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence

from infra.local.demo.plan import EXHIBITS, RULESET, write_exhibits
from infra.local.demo.verify import verify_arrival
from shared.rules import parse_ruleset

CHANGES = {"StationName": "MR-1"}


@pytest.fixture
def sent() -> Path:
    return Path(str(get_testdata_file("MR_small.dcm", download=False)))


def change_as_ruled(dataset: Dataset) -> None:
    kept, item = Dataset(), Dataset()
    kept.StationName = dataset.StationName
    item.ModifiedAttributesSequence = Sequence([kept])
    dataset.OriginalAttributesSequence = Sequence([item])
    dataset.StationName = "MR-1"


def broken_claims(
    sent: Path,
    folder: Path,
    change: Callable[[Dataset], None],
    changes: Mapping[str, str] = CHANGES,
) -> list[str]:
    dataset = dcmread(sent)
    change(dataset)
    dataset.save_as(folder / "arrived.dcm")
    checks = verify_arrival(sent, folder / "arrived.dcm", "there", changes)
    return [check.claim.partition(": ")[2] for check in checks if not check.holds]


def test_every_claim_holds_of_what_was_changed_as_ruled(sent: Path, tmp_path: Path) -> None:
    assert broken_claims(sent, tmp_path, change_as_ruled) == []


def test_one_pixel_is_noticed(sent: Path, tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        change_as_ruled(dataset)
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]

    assert "pixel data byte-identical" in broken_claims(sent, tmp_path, change)


def test_an_attribute_that_no_rule_named_is_noticed(sent: Path, tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        change_as_ruled(dataset)
        del dataset.PatientBirthDate

    claim = "header differs where rules said and nowhere else"
    assert broken_claims(sent, tmp_path, change) == [claim]


def test_a_change_that_was_not_made_is_noticed(sent: Path, tmp_path: Path) -> None:
    assert broken_claims(sent, tmp_path, lambda _: None) == [
        "header differs where rules said and nowhere else",
        "new Values as the rules say",
        "Original Attributes keep the old Values",
    ]


def test_an_instance_that_no_rule_changes_must_arrive_as_it_was(sent: Path, tmp_path: Path) -> None:
    assert broken_claims(sent, tmp_path, lambda _: None, {}) == []
    assert broken_claims(sent, tmp_path, change_as_ruled, {}) != []


def test_an_instance_that_did_not_arrive_is_noticed(sent: Path) -> None:
    checks = list(verify_arrival(sent, None, "there", CHANGES))
    assert [check.holds for check in checks] == [False]


def test_the_rules_are_valid_and_the_files_are_shipped(tmp_path: Path) -> None:
    destinations = {name for exhibit in EXHIBITS for name in exhibit.destinations}
    parse_ruleset(RULESET, destinations=destinations)
    paths = write_exhibits(tmp_path / "sent")
    assert all(path.stat().st_size for path in paths.values())
