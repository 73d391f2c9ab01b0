"""Delivery into a DICOM store that keeps to Google's rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError

from shared.adapters.destinations import create
from shared.adapters.destinations.google_healthcare import HealthcareDestination
from shared.adapters.destinations.inventory import inventory
from shared.config import entities
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    InstanceConflictError,
)
from tests.data import build
from tests.google.healthcare import HealthcareStore, healthcare
from tests.unit.destinations.received import outgoing
from tests.unit.destinations.test_create import Secrets

UID = build.uid("ct-1")


class RenewedCredentials(Credentials):
    """Tokens `t1`, `t2` and so on, the next one at each refresh."""

    def __init__(self) -> None:
        super().__init__()
        self.refreshes = 0

    def refresh(self, request: Any) -> None:
        self.refreshes += 1
        self.token = f"t{self.refreshes}"


class NoToken(Credentials):
    def refresh(self, request: Any) -> None:
        raise RefreshError("no")


Make = Callable[..., HealthcareDestination]


@pytest.fixture
def store() -> Iterator[HealthcareStore]:
    with healthcare() as found:
        yield found


@pytest.fixture
def destination(store: HealthcareStore) -> Iterator[Make]:
    made: list[HealthcareDestination] = []

    def make(
        credentials: Credentials | None = None, tier: str | None = None
    ) -> HealthcareDestination:
        made.append(
            HealthcareDestination(
                "archive",
                base_url=store.dicomweb_url,
                timeout_s=10,
                tier=tier,
                credentials=credentials,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def other_bytes() -> bytes:
    """Another Instance under the same UIDs."""
    return build.ct(patient_id="OTHER-0001")


def replacing(instance: OutgoingInstance) -> OutgoingInstance:
    object.__setattr__(instance, "replaces", True)
    return instance


class TestStoring:
    def test_stores_the_very_bytes(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        assert destination().deliver(outgoing(tmp_path, build.ct())) == "200"
        assert store.get(UID) == build.ct()

    def test_equal_bytes_again_are_success(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        for _ in range(2):
            assert destination().deliver(outgoing(tmp_path, build.ct())) == "200"
        assert len(store) == 1

    def test_a_renewed_token_does_not_send_an_empty_body(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        """A generator would be spent by the request that got the 401, and Google answers 200 to
        nothing at all as little as we believe it.
        """
        store.tokens = {"t2"}
        large = build.ct(600, 600)
        assert destination(RenewedCredentials()).deliver(outgoing(tmp_path, large)) == "200"
        assert store.get(UID) == large
        first, second = (one.size for one in store.requests)
        assert first == second > len(large)

    def test_is_streamed_with_a_length(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        destination().deliver(outgoing(tmp_path, build.ct()))
        assert int(store.requests[0].headers["Content-Length"]) == store.requests[0].size


class TestATier:
    def test_is_what_is_stored_moved_to(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        answer = destination(tier="nearline").deliver(outgoing(tmp_path, build.ct()))
        assert (answer, store.classes) == ("200, NEARLINE", {UID: "NEARLINE"})

    def test_that_cannot_be_set_now_is_set_by_the_next_attempt(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        def fail_next(action: str, path: str) -> None:
            store.answer_next(503)

        store.on_change = fail_next
        with pytest.raises(DestinationUnavailableError) as caught:
            destination(tier="archive").deliver(outgoing(tmp_path, build.ct()))
        assert caught.value.may_be_stored
        store.on_change = lambda action, path: None
        destination(tier="archive").deliver(outgoing(tmp_path, build.ct()))
        assert store.classes == {UID: "ARCHIVE"}


class TestRefusals:
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_quota_or_an_outage_is_waited_for_as_long_as_google_says(
        self, store: HealthcareStore, destination: Make, tmp_path: Path, status: int
    ) -> None:
        store.answer_next(status, {"Retry-After": "7"})
        with pytest.raises(DestinationUnavailableError) as caught:
            destination().deliver(outgoing(tmp_path, build.ct()))
        assert caught.value.retry_after_s is not None
        assert math.isclose(caught.value.retry_after_s, 7)
        assert destination().deliver(outgoing(tmp_path, build.ct())) == "200"

    def test_the_store_s_own_words_reach_the_operator(
        self, destination: Make, tmp_path: Path
    ) -> None:
        """Google gives Failure Reason 0110H, which others mean to be tried again, for good."""
        instance = outgoing(tmp_path, build.ct())
        broken = build.ct()[:200]
        object.__setattr__(instance, "part10_parts", lambda: [broken])
        with pytest.raises(DestinationRefusedError, match="invalid DICOM: cannot parse"):
            destination().deliver(instance)

    def test_a_token_that_does_not_count_is_a_matter_of_configuration(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        store.tokens = {"somebody else's"}
        with pytest.raises(DestinationMisconfiguredError, match="401"):
            destination(RenewedCredentials()).deliver(outgoing(tmp_path, build.ct()))

    def test_no_token_for_now_is_tried_again(self, destination: Make, tmp_path: Path) -> None:
        with pytest.raises(DestinationUnavailableError, match="no access token"):
            destination(NoToken()).deliver(outgoing(tmp_path, build.ct()))


class TestOtherBytes:
    def test_what_is_there_stays_unless_it_is_to_be_replaced(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        store.put(other_bytes())
        with pytest.raises(InstanceConflictError):
            destination().deliver(outgoing(tmp_path, build.ct()))
        assert store.get(UID) == other_bytes()

    def test_what_is_there_gives_way_where_the_newest_counts(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        store.put(other_bytes())
        assert destination().deliver(replacing(outgoing(tmp_path, build.ct()))) == "200"
        assert store.get(UID) == build.ct()

    def test_compares_without_having_it_transcoded(
        self, store: HealthcareStore, destination: Make, tmp_path: Path
    ) -> None:
        """Google decompresses what is retrieved unless told otherwise: the store here refuses."""
        store.put(build.ct(transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))
        with pytest.raises(InstanceConflictError):
            destination().deliver(outgoing(tmp_path, build.ct()))
        retrieval = store.requests[-1]
        assert retrieval.method == "GET"
        assert "transfer-syntax=*" in retrieval.headers["Accept"]


class TestAround:
    def test_is_made_of_its_configuration(self, store: HealthcareStore, tmp_path: Path) -> None:
        entity = configured(store)
        made = create(entity, Secrets())
        made.deliver(outgoing(tmp_path, build.ct()))
        assert made.check() == "QIDO-RS 200"
        made.close()
        assert store.get(UID) == build.ct()

    def test_its_inventory_is_what_it_holds(self, store: HealthcareStore) -> None:
        for name in ("ct-1", "ct-2"):
            store.put(build.ct(instance=name))
        with inventory(configured(store), Secrets(), storage_root=None) as held:
            assert held.instances(build.uid("study")) == {UID, build.uid("ct-2")}
            assert held.instances("1.2.3") == set()


def configured(store: HealthcareStore) -> entities.GoogleHealthcareDestination:
    document: Mapping[str, Any] = {
        "name": "archive",
        "type": "google_healthcare",
        "project_id": "p",
        "location": "europe-west3",
        "dataset_id": "d",
        "dicom_store_id": "s",
        "base_url": f"{store.url}/v1",
    }
    return entities.GoogleHealthcareDestination.model_validate(document)
