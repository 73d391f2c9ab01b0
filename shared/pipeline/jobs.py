"""One action on all that a filter means: a job, which can be watched and survives a restart.

A job is a document. The message that asks for it has it worked off in batches; after each batch
its document says where it is. Doing a batch twice does each of its actions once, because what was
done names the job in its history.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from shared.audit import AuditLog
from shared.errors import (
    AxiomError,
    DocumentChangedError,
    DocumentMissingError,
    NothingToRetryError,
    TransientError,
)
from shared.messages import JobRequested, Topic, encode
from shared.pipeline import instance_actions, pulls, reconcile
from shared.pipeline.ports import Ports
from shared.pipeline.selections import Selection, was_done
from shared.ports import Document, Outgoing
from shared.times import timestamp

COLLECTION = "jobs"
RUNNING, FINISHED = "running", "finished"
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "exceptions": ("retry", "archive", "discard"),
    "instances": ("release", "reroute", "discard"),
}

_BATCH = 100
# Then another message has the job go on, so that no message is worked on for hours.
_AT_A_TIME_S = 30.0
_FAILURES_SHOWN = 20

Data = Mapping[str, Any]


class Action(Struct, frozen=True):
    """What is to be done to each of `kind`."""

    kind: str  # "exceptions" or "instances"
    name: str  # one of ACTIONS[kind]
    destination: str = ""
    with_current_rules: bool = False
    reason: str = ""

    def check(self, ports: Ports) -> None:
        """Raises: ValueError in words; DestinationMisconfiguredError."""
        if self.name not in ACTIONS.get(self.kind, ()):
            raise ValueError(f"action is one of {', '.join(ACTIONS[self.kind])}")
        if self.name == "discard" and not self.reason.strip():
            raise ValueError("a reason is needed to discard")
        if self.name == "reroute" and not self.destination:
            raise ValueError("a destination is needed to reroute")
        if self.destination and self.with_current_rules:
            raise ValueError("either a destination or the current rules, not both")
        if self.destination and self.name not in ("retry", "reroute"):
            raise ValueError(f"{self.name} takes no destination")
        if self.with_current_rules and self.name != "retry":
            raise ValueError(f"{self.name} takes no with_current_rules")
        if self.destination:
            ports.destinations.entity(self.destination)

    def carry_out(self, key: str, *, by: str, ports: Ports, job: str = "") -> Data:
        """Do it to one; its document then. Raises: as the action does."""
        if self.kind == "instances":
            if self.name == "release":
                return instance_actions.release(key, by=by, ports=ports, job=job)
            if self.name == "reroute":
                to = self.destination
                return instance_actions.reroute(key, to, by=by, ports=ports, job=job)
            return instance_actions.discard(key, reason=self.reason, by=by, ports=ports, job=job)
        if self.name == "retry":
            return ports.exceptions.retry(
                key,
                by=by,
                destination=self.destination,
                with_current_rules=self.with_current_rules,
                job=job,
            )
        if self.name == "archive":
            return ports.exceptions.archive(key, by=by, reason=self.reason, job=job)
        return ports.exceptions.discard(key, by=by, reason=self.reason, job=job)


def preview(kind: str, filter: Mapping[str, str], ports: Ports) -> int:
    """How many the filter means now. Raises: ValueError for a filter that cannot be."""
    return Selection.of(kind, filter, ports.clock.now()).count(ports.documents)


def start(action: Action, filter: Mapping[str, str], *, by: str, ports: Ports) -> Data:
    """Make a job of it, and ask for it. Raises: ValueError; DestinationMisconfiguredError."""
    job = create(action, filter, by=by, ports=ports)
    _ask_for(job["id"], ports)
    return job


def create(action: Action, filter: Mapping[str, str], *, by: str, ports: Ports) -> Data:
    """As `start`, for one who will `work` on it."""
    action.check(ports)
    now = ports.clock.now()
    selection = Selection.of(action.kind, filter, now)
    job_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    data = {
        "id": job_id,
        "kind": action.kind,
        "action": action.name,
        "destination": action.destination,
        "with_current_rules": action.with_current_rules,
        "reason": action.reason,
        "filter": dict(selection.filter),
        "until": selection.until,
        "by": by,
        "state": RUNNING,
        "total": selection.count(ports.documents),
        "done": 0,
        "skipped": 0,
        "failed": 0,
        "failures": [],
        "cursor": None,
        "created_at": timestamp(now),
        "updated_at": timestamp(now),
    }
    created = ports.documents.create(COLLECTION, job_id, data).data
    AuditLog(ports.documents, ports.clock).add(
        who=by, what=f"{action.kind}.bulk-{action.name}", id=job_id, reason=action.reason
    )
    return created


def run(message: JobRequested, ports: Ports) -> None:
    """Work on a job for a while; ask for the rest.

    Raises: DocumentMissingError; TransientError, after which it goes on where it was.
    """
    if message.job_id.startswith(reconcile.ID_PREFIX):
        reconcile.work(message.job_id, ports)
        return
    if message.job_id.startswith(pulls.ID_PREFIX):
        if not pulls.work(message.job_id, ports, for_s=_AT_A_TIME_S):
            _ask_for(message.job_id, ports)
        return
    if not work(message.job_id, ports, for_s=_AT_A_TIME_S):
        _ask_for(message.job_id, ports)


def work(job_id: str, ports: Ports, *, for_s: float = float("inf")) -> bool:
    """Work on a job for `for_s` seconds; True if it is finished. Raises: as `run`."""
    until_s = ports.clock.monotonic_s() + for_s
    while True:
        known = ports.documents.get(COLLECTION, job_id)
        if known is None:
            raise DocumentMissingError(COLLECTION, job_id)
        if known.data["state"] == FINISHED:
            return True
        if ports.clock.monotonic_s() >= until_s:
            return False
        try:
            ports.documents.replace(COLLECTION, job_id, _batch(known, ports), known.version)
        except DocumentChangedError:
            # The message came twice; the other one has done this batch.
            continue


def _batch(job: Document, ports: Ports) -> Data:
    """Carry out the next batch; the job's document then."""
    data = job.data
    action = Action(
        data["kind"],
        data["action"],
        data["destination"],
        data["with_current_rules"],
        data["reason"],
    )
    selection = Selection(data["kind"], data["filter"], data["until"])
    page = selection.page(ports.documents, _BATCH, data["cursor"], job=job.key)
    done, skipped, failures = 0, 0, []
    for document in page.documents:
        try:
            if not was_done(document.data, job.key):
                action.carry_out(document.key, by=data["by"], ports=ports, job=job.key)
            done += 1
        except NothingToRetryError:
            skipped += 1
        except TransientError:
            raise
        except (AxiomError, ValueError) as error:
            failures.append({"id": document.key, "reason": str(error)})
    is_finished = page.cursor is None
    now = timestamp(ports.clock.now())
    return {
        **data,
        "state": FINISHED if is_finished else RUNNING,
        "done": data["done"] + done,
        "skipped": data["skipped"] + skipped,
        "failed": data["failed"] + len(failures),
        "failures": [*data["failures"], *failures][:_FAILURES_SHOWN],
        "cursor": page.cursor,
        "updated_at": now,
        **({"finished_at": now} if is_finished else {}),
    }


def _ask_for(job_id: str, ports: Ports) -> None:
    ports.bus.publish([Outgoing(Topic.JOB_REQUESTED, encode(JobRequested(job_id)))])
