"""Delivery into Orthanc by its own REST API, which every Orthanc has, with or without plugins.

Orthanc answers what it did: it has stored the Instance, had it already, or its filter refused it.
What it has under the UIDs is compared with what was sent: by default Orthanc keeps the first copy
and calls the second a success, and where `OverwriteInstances` is set it replaces it unasked.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import requests

from shared.adapters.destinations import outcomes, stow_answer
from shared.adapters.destinations.authorization import Authorization
from shared.adapters.destinations.http_peer import PIECE_BYTES, HttpPeer, read
from shared.adapters.destinations.multipart import Body, StreamedBody
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.adapters.destinations.stored_copy import Comparison, compare
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import AxiomError, InstanceConflictError

if TYPE_CHECKING:
    from shared.config.entities import OrthancDestination
    from shared.pipeline.reconcile import Inventory
    from shared.ports import SecretStore

_JSON: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
# How long it is believed whether it overwrites: that takes a restart to change.
_SETTINGS_HOLD_S: Final = 300.0
_GONE: Final = frozenset({200, 404})
_PAGE: Final = 1000
# `Status` of an answer, besides what stands for success.
_REFUSALS: Final[Mapping[str, Verdict]] = {
    "FilteredOut": Verdict(Outcome.PERMANENT, "its filter refuses the Instance"),
    "StorageFull": Verdict(Outcome.TRANSIENT, "its storage is full"),
    "Failure": Verdict(Outcome.TRANSIENT, "it failed to store the Instance"),
}


class OrthancRestDestination(HttpPeer):
    """A Destination that is an Orthanc; `base_url` is the root of its REST API."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        authorization: Authorization,
        timeout_s: float = 60.0,
        max_connections: int = 4,
    ) -> None:
        """As HttpPeer."""
        super().__init__(
            name,
            base_url=base_url,
            authorization=authorization,
            timeout_s=timeout_s,
            max_connections=max_connections,
        )
        self._lock = threading.Lock()
        self._overwrites, self._known_until_s = False, float("-inf")

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination; returns where Orthanc has it."""
        with self._errors():
            if not instance.replaces and self._overwrites_unasked():
                found = self._lookup(instance.sop_instance_uid)
                if found:
                    return self._compare_with_stored(found, instance)
            status, stored = self._upload(instance)
            if status == "AlreadyStored":
                try:
                    return self._compare_with_stored(stored, instance)
                except InstanceConflictError:
                    if not instance.replaces:
                        raise
                self._delete(stored)
                status, stored = self._upload(instance)
            place = f"instances/{stored}"
            if instance.replaces and instance.earlier_answer not in ("", place):
                self._delete_earlier(instance)
            return place

    def check(self) -> str:
        """Ask what it is."""
        with self._errors():
            return f"Orthanc {self._system().get('Version', '')}".strip()

    # ---- inside

    def _upload(self, instance: OutgoingInstance) -> tuple[str, str]:
        """`Status` of the answer, and Orthanc's own identifier of the Instance."""
        body = StreamedBody(instance.part10_parts(), "application/dicom")
        with self._request(
            "POST", "/instances", {**_JSON, "Content-Type": body.content_type}, body
        ) as response:
            answer = self._document(response)
            status, stored = str(answer.get("Status", "")), str(answer.get("ID", ""))
            if status in _REFUSALS:
                raise self._failure(_REFUSALS[status], response)
            if status not in ("Success", "AlreadyStored") or not _ID.fullmatch(stored):
                raise self._no_orthanc(response)
            return status, stored

    def _compare_with_stored(self, stored: str, instance: OutgoingInstance) -> str:
        """Success if Orthanc has the bytes that are sent; File Meta is left out of it.

        Raises: InstanceConflictError.
        """
        with self._request("GET", f"/instances/{stored}/file", {}) as response:
            verdict = outcomes.http_status(response.status_code)
            if verdict.outcome is Outcome.SUCCESS:
                comparison = compare(
                    response.iter_content(PIECE_BYTES), "", instance.data_set_parts()
                )
            elif verdict.outcome is Outcome.TRANSIENT:
                raise self._failure(verdict, response, "reading what is stored")
            else:
                comparison = Comparison.without_copy(instance.data_set_parts())
        if comparison.are_equal:
            return f"instances/{stored}"
        raise InstanceConflictError(
            instance.sop_instance_uid, comparison.stored_crc32c, comparison.sent_crc32c
        )

    def _overwrites_unasked(self) -> bool:
        with self._lock:
            if time.monotonic() < self._known_until_s:
                return self._overwrites
        # Old ones do not say.
        overwrites = self._system().get("OverwriteInstances") is not False
        with self._lock:
            self._overwrites, self._known_until_s = overwrites, time.monotonic() + _SETTINGS_HOLD_S
        return overwrites

    def _system(self) -> Mapping[str, Any]:
        with self._request("GET", "/system", _JSON) as response:
            system = self._document(response)
            if "Version" not in system or "ApiVersion" not in system:
                raise self._no_orthanc(response)
            return system

    def _lookup(self, sop_instance_uid: str) -> str:
        """Orthanc's identifier of an Instance of that UID; "" if it has none."""
        with self._request(
            "POST", "/tools/lookup", {**_JSON, "Content-Type": "text/plain"},
            sop_instance_uid.encode(),
        ) as response:  # fmt: skip
            found = self._answer(response)
            if not isinstance(found, list):
                raise self._no_orthanc(response)
            for one in found:
                if isinstance(one, dict) and one.get("Type") == "Instance":
                    stored = str(one.get("ID", ""))
                    if _ID.fullmatch(stored):
                        return stored
        return ""

    def _delete_earlier(self, instance: OutgoingInstance) -> None:
        """Delete what gives way, where other UIDs above it gave it another identifier."""
        earlier = instance.earlier_answer.removeprefix("instances/")
        if not _ID.fullmatch(earlier):
            return
        with self._request("GET", f"/instances/{earlier}", _JSON) as response:
            if response.status_code == requests.codes.not_found:
                return
            tags = self._document(response).get("MainDicomTags", {})
        if isinstance(tags, dict) and tags.get("SOPInstanceUID") == instance.sop_instance_uid:
            self._delete(earlier)

    def _delete(self, stored: str) -> None:
        with self._request("DELETE", f"/instances/{stored}", _JSON) as response:
            if response.status_code not in _GONE:
                verdict = outcomes.http_status(response.status_code)
                raise self._failure(verdict, response, "deleting what is to be replaced")

    def _document(self, response: requests.Response) -> Mapping[str, Any]:
        answer = self._answer(response)
        if not isinstance(answer, dict):
            raise self._no_orthanc(response)
        return answer

    def _answer(self, response: requests.Response) -> Any:
        """What it says as JSON. Raises: what its status stands for."""
        body = read(response)
        verdict = outcomes.http_status(response.status_code)
        if verdict.outcome is not Outcome.SUCCESS:
            if response.status_code == requests.codes.not_found and b'"OrthancStatus"' in body:
                # It is there, and says so of an Instance in which it finds no UIDs.
                verdict = Verdict(Outcome.PERMANENT, verdict.meaning)
            raise self._failure(verdict, response, stow_answer.parse(body).words)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self._no_orthanc(response) from None

    def _no_orthanc(self, response: requests.Response) -> AxiomError:
        verdict = Verdict(Outcome.MISCONFIGURED, "answers, but not as Orthanc")
        return self._failure(verdict, response)


@contextmanager
def orthanc_inventory(entity: OrthancDestination, secrets: SecretStore) -> Iterator[Inventory]:
    """What an Orthanc holds. Raises as `OrthancRestDestination`."""
    from shared.adapters.signing_in import authorization

    peer = _Inventory(
        entity.name,
        base_url=entity.base_url,
        authorization=authorization(entity, secrets),
        timeout_s=entity.timeout_s,
    )
    try:
        yield peer
    finally:
        peer.close()


class _Inventory(OrthancRestDestination):
    def instances(self, study_instance_uid: str) -> set[str] | None:
        """The SOP Instance UIDs of a Study, page by page."""
        if not study_instance_uid:
            return None
        found: set[str] = set()
        since = 0
        while True:
            page = self._page(study_instance_uid, since)
            found.update(page)
            if len(page) < _PAGE:
                return found
            since += _PAGE

    def _page(self, study_instance_uid: str, since: int) -> list[str]:
        wanted = {
            "Level": "Instance",
            "Query": {"StudyInstanceUID": study_instance_uid},
            "Expand": True,
            "Limit": _PAGE,
            "Since": since,
        }
        body: Body = json.dumps(wanted).encode()
        headers = {**_JSON, "Content-Type": "application/json"}
        with self._errors(), self._request("POST", "/tools/find", headers, body) as response:
            page = self._answer(response)
            try:
                return [str(one["MainDicomTags"]["SOPInstanceUID"]) for one in page]
            except (KeyError, TypeError):
                raise self._no_orthanc(response) from None
