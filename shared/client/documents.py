"""What the API answers, as types. A document may have more fields than are named here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list, and the cursor of the rest; None at the end."""

    items: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Tagged:
    """An entity of the configuration with its ETag, which a change of it may name."""

    document: Mapping[str, Any]
    etag: str


class DestinationState(TypedDict):
    """How a destination is, and what waits for it."""

    destination: str
    type: str
    address: str
    enabled: bool
    circuit: str
    failures: int
    waiting: int | None
    retrying: int
    quarantined: int
    last_error: str


class Checked(TypedDict):
    """What a destination or source answered when it was asked whether it is there."""

    ok: bool
    answer: str
    hint: str
    ms: int


class SourceState(TypedDict):
    """How a source is, and what came from it."""

    source: str
    type: str
    enabled: bool
    state: str
    failures: int
    last_error: str
    poll_ended_at: str | None
    next_poll_at: str | None
    totals: dict[str, int]
    last_poll: dict[str, int]


class Instance(TypedDict):
    """A received Instance in a list."""

    receipt_id: str
    received_at: str
    state: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    matched_rules: list[str]
    destinations: list[str]
    source: dict[str, Any]


class InstanceDetail(TypedDict):
    """What is known of one Instance."""

    receipt_id: str
    state: str
    exceptions: list[dict[str, Any]]


class Delivery(TypedDict):
    """How an Instance went to a destination."""

    receipt_id: str
    destination: str
    state: str
    attempts: int
    updated_at: str


class ExceptionEntry(TypedDict):
    """An entry of the exception log."""

    id: str
    status: str
    category: str
    stage: str
    code: str
    message: str
    hint: str
    destination: str
    first_at: str
    last_at: str
    attempts: int
    can_retry: bool


class Job(TypedDict):
    """What runs in the background."""

    id: str
    kind: str
    action: str
    state: str
    total: int
    done: int
    failed: int


class Pull(Job):
    """A pull on demand."""

    source: str
    unknown: int
    instances: int
    reason: str


class PullRow(TypedDict):
    """What became of one row of a pull."""

    number: int
    state: str
    studies: list[str]
    shown: int
    received: int
    refused: int
    missing: int
    reason: str


class StudyRule(TypedDict):
    """How far a study or series rule is with a Study."""

    study_instance_uid: str
    rule: str
    state: str
    opened_at: str
    instances: int


class StudyRules(TypedDict):
    """All rules that want a Study."""

    study_instance_uid: str
    rules: list[StudyRule]


class Version(TypedDict):
    """A version of the configuration."""

    version: int
    at: str
    by: str
    reason: str


class Study(StudyRules):
    """How much came of a Study."""

    instances: int
    exceptions: int


class FollowedInstance(TypedDict):
    """An Instance, and what happened to it in the order of time: `at`, `step` and more."""

    receipt_id: str
    sop_instance_uid: str
    state: str
    timeline: list[dict[str, Any]]


class MissingSecret(TypedDict):
    """A place of the configuration that names a secret which is not there."""

    path: str
    name: str


class Reconciliation(TypedDict):
    """What came against what is there."""

    id: str
    state: str
    reason: str
    present: int
    missing: int
    failed: int
    requeued: int


class CrosswalkStatus(TypedDict):
    """How a crosswalk map does."""

    map_name: str
    source: str
    type: str
    enabled: bool
    is_copied: bool
    rows: int | None
    synced_at: str | None
    error: str | None


class Review(TypedDict):
    """A decision of a standardizer."""

    key: str
    state: str
    attribute: str
    series_instance_uid: str


class ApiKey(TypedDict):
    """A key, without its secret."""

    id: str
    user: str
    label: str
    roles: list[str] | None
    addresses: list[str]
    expires_at: str | None
    last_used_at: str | None


class NewKey(TypedDict):
    """A key that is shown this once."""

    id: str
    key: str


class Health(TypedDict):
    """What the parts say of themselves."""

    status: str
    checks: dict[str, dict[str, str]]


class BrowseLine(TypedDict, total=False):
    """A line of a search: a match, a problem, how far it is, or the summary in the end."""

    type: Literal["match", "problem", "progress", "summary"]
    source: str
    level: str
    attributes: dict[str, Any]
    certain: bool
    code: str
    detail: str
    hint: str
    running: dict[str, int]
    sources: list[dict[str, Any]]
    next_cursor: str | None
