"""A destination is used as fast as it is configured, and what is kept there is compressed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydantic import TypeAdapter, ValidationError

from shared.config import entities
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.errors import DestinationUnavailableError
from shared.pipeline.destination_terms import on_its_terms
from shared.ports import Destination
from tests.data import build
from tests.fakes import FakeClock
from tests.unit.destinations.received import outgoing

ANY_DESTINATION: TypeAdapter[entities.AnyDestination] = TypeAdapter(entities.Destination)
PLACES: dict[str, dict[str, Any]] = {
    "filesystem": {"path": "kept"},
    "dimse": {"host": "pacs", "port": 104, "ae_title": "PACS"},
    "dicomweb": {"base_url": "https://pacs.example/dicom-web"},
    "orthanc": {"base_url": "http://orthanc.example:8042"},
    "google_healthcare": dict.fromkeys(
        ("project_id", "location", "dataset_id", "dicom_store_id"), "x1"
    ),
    "gcs": {"bucket": "cold-images"},
    "group": {"members": ("a",)},
}


class Taken:
    """A Destination that takes everything."""

    def __init__(self, clock: FakeClock) -> None:
        self.instances: list[OutgoingInstance] = []
        self.at_s: list[float] = []
        self._clock, self._began_s = clock, clock.monotonic_s()

    def deliver(self, instance: OutgoingInstance) -> str:
        self.instances.append(instance)
        self.at_s.append(self._clock.monotonic_s() - self._began_s)
        return "0000H"

    def check(self) -> str:
        return "0000H"

    def close(self) -> None:
        """Nothing is open."""


def of(kind: str = "dicomweb", **settings: Any) -> entities.AnyDestination:
    return ANY_DESTINATION.validate_python({"name": "a", "type": kind, **PLACES[kind], **settings})


def used(
    taken: Taken, clock: FakeClock, longest_wait_s: float = 1e9, **settings: Any
) -> Destination:
    return on_its_terms(
        taken, of(**settings), clock, longest_wait_s=longest_wait_s, wait=clock.advance
    )


class TestARate:
    def test_of_instances_is_kept_after_a_second_s_worth_of_them(self, tmp_path: Path) -> None:
        clock = FakeClock()
        taken = Taken(clock)
        destination = used(taken, clock, rate_limit_per_s=4.0)
        for _ in range(12):
            destination.deliver(outgoing(tmp_path, build.ct()))
        assert taken.at_s[:4] == [0.0] * 4
        assert taken.at_s[4:] == pytest.approx([0.25 * n for n in range(1, 9)])

    def test_of_bytes_is_kept_whatever_their_size(self, tmp_path: Path) -> None:
        clock = FakeClock()
        taken = Taken(clock)
        destination = used(taken, clock, rate_limit_bytes_per_s=100_000.0)
        sizes = []
        for rows in (600, 16, 300, 16, 16):
            data = build.ct(rows, 600)
            sizes.append(len(data))
            destination.deliver(outgoing(tmp_path, data))
        # The last is sent once all before it are paid for, but for what a second is worth.
        assert taken.at_s[-1] == pytest.approx((sum(sizes) - 100_000) / 100_000, rel=0.05)

    def test_is_another_s_turn_where_nobody_may_wait_so_long(self, tmp_path: Path) -> None:
        """Who pushes a message gets an answer in time, and comes again."""
        clock = FakeClock()
        taken = Taken(clock)
        destination = used(taken, clock, longest_wait_s=5.0, rate_limit_per_s=0.1)
        destination.deliver(outgoing(tmp_path, build.ct()))
        with pytest.raises(DestinationUnavailableError) as caught:
            destination.deliver(outgoing(tmp_path, build.ct()))
        assert caught.value.retry_after_s == pytest.approx(10.0)
        assert not caught.value.may_be_stored
        clock.advance(10.0)
        destination.deliver(outgoing(tmp_path, build.ct()))
        assert len(taken.instances) == 2

    def test_none_costs_nothing(self) -> None:
        clock = FakeClock()
        taken = Taken(clock)
        assert used(taken, clock) is taken

    def test_ends_with_its_destination(self, tmp_path: Path) -> None:
        """Who waits for its turn is not sent to a destination that is configured anew."""
        clock = FakeClock()
        taken = Taken(clock)
        destination = used(taken, clock, rate_limit_per_s=1.0)
        destination.deliver(outgoing(tmp_path, build.ct()))
        destination.close()
        with pytest.raises(DestinationUnavailableError):
            destination.deliver(outgoing(tmp_path, build.ct()))
        assert len(taken.instances) == 1


class TestCompression:
    @pytest.mark.parametrize(
        ("name", "uid"),
        [("rle", "1.2.840.10008.1.2.5"), ("jpeg_2000", "1.2.840.10008.1.2.4.90")],
    )
    def test_loses_nothing(self, name: str, uid: str, tmp_path: Path) -> None:
        clock = FakeClock()
        taken = Taken(clock)
        data = build.pydicom_file("CT_small.dcm")
        used(taken, clock, storage_policy={"compression": name}).deliver(outgoing(tmp_path, data))
        path = tmp_path / "sent.dcm"
        path.write_bytes(b"".join(chunks(taken.instances[0].part10_parts())))
        sent, received = pydicom.dcmread(path), pydicom.dcmread(io.BytesIO(data))
        assert sent.file_meta.TransferSyntaxUID == uid
        assert np.array_equal(sent.pixel_array, received.pixel_array)

    @pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "JPEG2000.dcm"])
    def test_leaves_what_is_compressed_already(self, name: str, tmp_path: Path) -> None:
        clock = FakeClock()
        taken = Taken(clock)
        instance = outgoing(tmp_path, build.pydicom_file(name))
        used(taken, clock, storage_policy={"compression": "htj2k"}).deliver(instance)
        assert taken.instances == [instance]

    def test_leaves_what_a_rule_has_decided(self, tmp_path: Path) -> None:
        clock = FakeClock()
        taken = Taken(clock)
        instance = outgoing(tmp_path, build.pydicom_file("CT_small.dcm"))
        object.__setattr__(instance, "is_syntax_decided", True)
        used(taken, clock, storage_policy={"compression": "rle"}).deliver(instance)
        assert taken.instances == [instance]


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize(
    ("part", "value", "kinds"),
    [
        ("compression", "rle", set(PLACES) - {"group"}),
        ("retain_days", 30, {"filesystem", "gcs"}),
        ("tier", "nearline", {"gcs", "google_healthcare"}),
    ],
)
def test_a_policy_that_a_type_cannot_keep_is_refused(
    kind: str, part: str, value: Any, kinds: set[str]
) -> None:
    if kind in kinds:
        assert getattr(of(kind, storage_policy={part: value}).storage_policy, part) == value
    else:
        with pytest.raises(ValidationError, match=f"storage_policy.{part}"):
            of(kind, storage_policy={part: value})
