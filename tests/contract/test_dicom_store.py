"""What every DicomStore promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from shared.adapters.cloud.dicom_store import HealthcareDicomStore
from shared.errors import ObjectMissingError, StorageUnavailableError
from shared.ports import DicomStore
from tests.data import build
from tests.google.healthcare import HealthcareStore, healthcare
from tests.peers import OrthancPeer

pytest_plugins = ("tests.peers",)

STUDY, SERIES, INSTANCE = build.uid("study"), build.uid("ct-series"), build.uid("ct-1")


class Store(NamedTuple):
    """A DicomStore, and what it asks seen from behind."""

    store: DicomStore
    behind: HealthcareStore


class Held(NamedTuple):
    """A DicomStore, and how others put Instances there."""

    store: DicomStore
    put: Callable[[bytes], object]


@pytest.fixture
def healthcare_api() -> Iterator[Store]:
    """A store with the rules of the Healthcare API."""
    with healthcare() as behind, AuthorizedSession(AnonymousCredentials()) as session:
        yield Store(HealthcareDicomStore(session, behind.dicomweb_url, timeout_s=10), behind)


@pytest.fixture
def orthanc_dicomweb(orthanc: OrthancPeer) -> Iterator[Held]:
    """A DICOMweb server that others wrote. It sends no single part, and deletes nothing over
    DICOMweb, so of the promises it can show those of searching.
    """

    def put(part10: bytes) -> None:
        requests.post(f"{orthanc.rest_url}/instances", data=part10, timeout=60).raise_for_status()

    with AuthorizedSession(AnonymousCredentials()) as session:
        yield Held(HealthcareDicomStore(session, orthanc.dicomweb_url, timeout_s=60), put)


@pytest.fixture
def healthcare_dicomweb(healthcare_api: Store) -> Held:
    """The store with Google's rules."""
    return Held(healthcare_api.store, healthcare_api.behind.put)


@pytest.fixture(params=["healthcare_dicomweb", "orthanc_dicomweb"])
def held(request: pytest.FixtureRequest) -> Held:
    """Each DICOMweb server in turn."""
    found: Held = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["healthcare_api"])
def adapter(request: pytest.FixtureRequest) -> Store:
    """Each DicomStore in turn."""
    found: Store = request.getfixturevalue(request.param)
    return found


class TestSearching:
    """On each server that may be asked."""

    def test_goes_page_by_page(self, held: Held) -> None:
        for number in range(3):
            held.put(build.ct(instance=f"ct-{number}"))
        found = [
            one["00080018"]["Value"][0]
            for offset in (0, 2)
            for one in held.store.search(
                "instances", StudyInstanceUID=STUDY, limit=2, offset=offset
            )
        ]
        assert sorted(found) == sorted(build.uid(f"ct-{number}") for number in range(3))

    def test_finds_what_fits_at_each_level(self, held: Held) -> None:
        for name in ("one", "other"):
            held.put(build.ct(instance=name, series=f"{name}-series", study=f"{name}-study"))
        study = build.uid("one-study")
        (found,) = held.store.search("studies", StudyInstanceUID=study)
        assert found["0020000D"]["Value"] == [study]
        (found,) = held.store.search("series", StudyInstanceUID=study)
        assert found["0020000E"]["Value"] == [build.uid("one-series")]
        (found,) = held.store.search("instances", SOPInstanceUID=build.uid("one"), limit=1)
        assert found["00080018"]["Value"] == [build.uid("one")]

    def test_finds_nothing_where_nothing_fits(self, held: Held) -> None:
        held.put(build.ct())
        assert list(held.store.search("instances", SOPInstanceUID="1.2.3", limit=1)) == []


class TestDicomStore:
    """A new adapter is one more param of the `adapter` fixture."""

    def test_gives_what_is_stored_as_it_is_stored(self, adapter: Store) -> None:
        received = build.ct(600, 600, transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
        adapter.behind.put(received)
        with adapter.store.retrieve(STUDY, SERIES, INSTANCE) as pieces:
            assert b"".join(pieces) == received

    @pytest.mark.parametrize("status", [403, 404])
    def test_what_is_not_there_is_missing(self, adapter: Store, status: int) -> None:
        adapter.behind.missing = status
        with pytest.raises(ObjectMissingError), adapter.store.retrieve("1.2", "1.3", "1.4"):
            pass

    def test_what_is_forbidden_is_not_missing(self, adapter: Store) -> None:
        """Else an Instance would be passed over for want of a role."""
        adapter.behind.put(build.ct())
        adapter.behind.answer_next(403)
        adapter.behind.answer_next(403)
        with (
            pytest.raises(StorageUnavailableError, match="google_healthcare_dicom_store"),
            adapter.store.retrieve(STUDY, SERIES, INSTANCE),
        ):
            pass

    def test_an_outage_says_how_long_to_wait(self, adapter: Store) -> None:
        adapter.behind.answer_next(429, {"Retry-After": "5"})
        with pytest.raises(StorageUnavailableError) as caught:
            adapter.store.search("studies")
        assert caught.value.retry_after_s == pytest.approx(5)

    def test_deletes_one_and_nothing_twice(self, adapter: Store) -> None:
        adapter.behind.put(build.ct())
        adapter.behind.put(build.ct(instance="ct-2"))
        for _ in range(2):
            adapter.store.delete(STUDY, SERIES, INSTANCE)
        assert adapter.behind.get(INSTANCE) is None
        assert len(adapter.behind) == 1

    def test_an_outage_is_told_as_ours(self, adapter: Store) -> None:
        store = HealthcareDicomStore(
            AuthorizedSession(AnonymousCredentials()), "http://127.0.0.1:1/v1", timeout_s=5
        )
        with pytest.raises(StorageUnavailableError):
            store.search("studies")
