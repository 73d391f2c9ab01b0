"""Delivery by STOW-RS (PS3.18 10.5) to a DICOMweb server, one Instance or several in each request.

Instances are streamed from the received files. The answer is believed only if it is one: an HTML
page with a 200 is somebody's login page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import requests

from shared.adapters.destinations import outcomes, stow_answer
from shared.adapters.destinations.authorization import Authorization
from shared.adapters.destinations.batches import Batches, Pending
from shared.adapters.destinations.http_peer import PIECE_BYTES, HttpPeer, read
from shared.adapters.destinations.multipart import MultipartBody
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.adapters.destinations.stored_copy import Comparison, compare
from shared.adapters.destinations.stow_answer import Failed, StowAnswer
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import AxiomError, InstanceConflictError, PermanentError

_TAKEN: Final = "already exists"  # the Healthcare API's words for a duplicate

_JSON = {"Accept": "application/dicom+json", "Accept-Encoding": "identity"}


class DicomwebDestination(HttpPeer):
    """A BatchingDestination that takes STOW-RS below `base_url`."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        authorization: Authorization,
        timeout_s: float = 60.0,
        max_connections: int = 4,
        batch_instances: int = 1,
        batch_bytes: int = 0,
        session: requests.Session | None = None,
    ) -> None:
        """As HttpPeer; a request brings so many Instances and bytes at most, but one at least."""
        super().__init__(
            name,
            base_url=base_url,
            authorization=authorization,
            timeout_s=timeout_s,
            max_connections=max_connections,
            session=session,
        )
        self._batches = Batches(
            self._deliver_together, self.deliver, most=batch_instances, most_bytes=batch_bytes
        )

    def begin(self, instance: OutgoingInstance) -> Pending:
        """As BatchingDestination."""
        return self._batches.begin(instance)

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination; returns the HTTP status code, with the warning if there is one."""
        body = MultipartBody(instance.part10_parts())
        with (
            self._errors(),
            self._request(
                "POST", "/studies", {**_JSON, "Content-Type": body.content_type}, body
            ) as response,
        ):
            return self._judge(response, read(response), instance)

    def check(self) -> str:
        """Ask for one Study by QIDO-RS (PS3.18 10.6)."""
        with self._errors(), self._request("GET", "/studies?limit=1", _JSON) as response:
            verdict = outcomes.http_status(response.status_code)
            if response.status_code == requests.codes.no_content:
                return "QIDO-RS 204"
            if verdict.outcome is not Outcome.SUCCESS:
                raise self._failure(verdict, response, stow_answer.parse(read(response)).words)
            if "json" not in response.headers.get("Content-Type", ""):
                raise self._no_dicomweb(response)
            return f"QIDO-RS {response.status_code}"

    def _deliver_together(self, instances: Sequence[OutgoingInstance]) -> Mapping[str, str]:
        """As `batches.Send`: what the answer says of each Instance that it names as stored."""
        sent = MultipartBody(*(instance.part10_parts() for instance in instances))
        with (
            self._errors(),
            self._request(
                "POST", "/studies", {**_JSON, "Content-Type": sent.content_type}, sent
            ) as response,
        ):
            verdict = outcomes.http_status(response.status_code)
            body = read(response)
            answer = stow_answer.parse(body)
            if verdict.outcome in (Outcome.TRANSIENT, Outcome.MISCONFIGURED):
                raise self._failure(verdict, response, answer.words)
            if verdict.outcome is Outcome.SUCCESS and not body:
                # It says that all was stored, and older servers say no more.
                return {one.sop_instance_uid: str(response.status_code) for one in instances}
            return {
                uid: _words(response, warning)
                for uid, warning in answer.stored.items()
                if uid not in answer.failed
            }

    # ---- the answer -------------------------------------------------------------------------

    def _judge(self, response: requests.Response, body: bytes, instance: OutgoingInstance) -> str:
        verdict = outcomes.http_status(response.status_code)
        answer = stow_answer.parse(body)
        uid = instance.sop_instance_uid
        failed = _failed(answer, uid)
        if verdict.outcome is Outcome.TRANSIENT:
            raise self._failure(verdict, response, failed.words if failed else answer.words)
        if failed is not None:
            return self._judge_failed(failed, response, instance)
        if not verdict.outcome.is_stored:
            failure = self._failure(verdict, response, answer.words)
            if response.status_code == requests.codes.conflict:
                # The status of every refused Instance; without a reason, it may be that our own
                # copy is there, of an earlier attempt whose answer was lost.
                is_taken = _TAKEN in answer.words.lower()
                return self._compare_with_stored(response, instance, None if is_taken else failure)
            raise failure
        if body and not answer.is_dicom:
            raise self._no_dicomweb(response)
        if uid in answer.stored:
            return _words(response, answer.stored[uid])
        if not body and verdict.outcome is Outcome.SUCCESS:
            # 200 says that all was stored, and older servers say no more.
            return str(response.status_code)
        unnamed = Verdict(Outcome.PERMANENT, "the answer does not name the Instance")
        failure = self._failure(unnamed, response, answer.words)
        if isinstance(failure, PermanentError):
            failure.may_be_stored = True
        raise failure

    def _judge_failed(
        self, failed: Failed, response: requests.Response, instance: OutgoingInstance
    ) -> str:
        """Raises; returns only if the Instance turns out to be stored already."""
        verdict = (
            Verdict(Outcome.PERMANENT, "not stored")
            if failed.reason is None
            else outcomes.dimse_status(failed.reason)
        )
        if verdict.outcome is Outcome.CONFLICT or _TAKEN in failed.words.lower():
            return self._compare_with_stored(response, instance)
        if verdict.outcome.is_stored:
            verdict = Verdict(Outcome.PERMANENT, verdict.meaning)
        reason = "" if failed.reason is None else f"{failed.reason:04X}H"
        raise self._failure(verdict, response, ", ".join(filter(None, [reason, failed.words])))

    def _compare_with_stored(
        self,
        response: requests.Response,
        instance: OutgoingInstance,
        if_missing: AxiomError | None = None,
    ) -> str:
        """Success if what the server has under this SOP Instance UID are the bytes we sent.

        File Meta is left out of it: a server writes its own.
        Raises: InstanceConflictError; `if_missing`, where one is given and the server shows nothing
        under the UID; what asking the server again raises.
        """
        path = instance_path(instance)
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        with self._request("GET", path, headers) as retrieved:
            verdict = outcomes.http_status(retrieved.status_code)
            if verdict.outcome is Outcome.TRANSIENT:
                raise self._failure(verdict, retrieved, "reading what is stored")
            if verdict.outcome is Outcome.SUCCESS:
                comparison = compare(
                    retrieved.iter_content(PIECE_BYTES),
                    retrieved.headers.get("Content-Type", ""),
                    instance.data_set_parts(),
                )
            elif if_missing is not None:
                raise if_missing
            else:
                comparison = Comparison.without_copy(instance.data_set_parts())
        if comparison.are_equal:
            return f"{response.status_code}: equal bytes are stored already"
        raise InstanceConflictError(
            instance.sop_instance_uid, comparison.stored_crc32c, comparison.sent_crc32c
        )

    def _no_dicomweb(self, response: requests.Response) -> AxiomError:
        kind = response.headers.get("Content-Type", "no Content-Type").split(";")[0][:64]
        verdict = Verdict(Outcome.MISCONFIGURED, "answers, but not as a DICOMweb server")
        return self._failure(verdict, response, kind)


def _words(response: requests.Response, warning: int | None) -> str:
    """What an Instance that is stored is answered with, by its Warning Reason."""
    if not outcomes.http_status(response.status_code).outcome.is_stored:
        return f"stored; {response.status_code} for others of the request"
    if warning is None:
        return str(response.status_code)
    return f"{response.status_code}: {outcomes.dimse_status(warning).meaning}, {warning:04X}H"


def instance_path(instance: OutgoingInstance) -> str:
    """Where a DICOMweb server has an Instance, below its base URL."""
    return (
        f"/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )


def _failed(answer: StowAnswer, sop_instance_uid: str) -> Failed | None:
    # One Instance was sent: if one failed it is ours, whatever UID the server read in it.
    return answer.failed.get(sop_instance_uid) or next(iter(answer.failed.values()), None)
