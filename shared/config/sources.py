"""Sources that are asked: where Instances are fetched from, how often, and how much at once.

A DICOMweb server, a Query/Retrieve SCP, a store of the Google Cloud Healthcare API, a bucket or a
folder. A span of time is a number of seconds, or a number with a unit: 30s, 5m, 2h, 1d, 1w.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.addresses import is_googles
from shared.config.entity import Credentials, Entity, Name, entities, path_below
from shared.config.peers import DimseCredentials
from shared.config.schedules import readable
from shared.config.tls import PeerTls
from shared.dicom.ae_titles import checked_ae_title
from shared.errors import Fault
from shared.rules.reading import Faults, nearest
from shared.rules.schedules import Schedule, read_schedule

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# A QIDO-RS parameter: keyword or tag, `.` between those of a path (PS3.18 8.3.4).
_PARAMETER = re.compile(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+)*")
# We page through the answers ourselves.
_OURS = frozenset({"limit", "offset"})
_LONGEST_VALUE = 1024


def seconds(span: float | str) -> float:
    """A span of time in seconds. Raises: ValueError in words."""
    if isinstance(span, str):
        found = _SPAN.fullmatch(span.strip().lower())
        if found is None:
            raise ValueError("is no span of time: a number of seconds, or 30s, 5m, 2h, 1d, 1w")
        return float(found[1]) * _UNITS_S[found[2]]
    return float(span)


def _is_interval(span: float | str) -> float | str:
    if not 1 <= seconds(span) <= 366 * 86400:
        raise ValueError("must be from 1 second to a year")
    return span


def _is_lookback(span: float | str) -> float | str:
    if not 0 <= seconds(span) <= 100 * 366 * 86400:
        raise ValueError("must be from 0 seconds to a hundred years")
    return span


def _is_schedule(document: dict[str, Any]) -> dict[str, Any]:
    _schedule(document)
    return document


def _schedule(document: dict[str, Any]) -> Schedule:
    faults = Faults()
    schedule = read_schedule(document, "schedule", faults)
    for fault in faults:
        raise ValueError(str(fault).removeprefix("schedule."))
    return schedule


def _are_parameters(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if not _PARAMETER.fullmatch(name):
            raise ValueError("has a name that is neither a keyword nor a tag")
        if name.lower() in _OURS:
            raise ValueError(f"must not set {name}: pages are asked for one after the other anyway")
        for one in value if isinstance(value, tuple) else (value,):
            text = str(one)
            if len(text) > _LONGEST_VALUE or not text.isprintable():
                raise ValueError(f"{name} has a value that is too long or not printable")
    return given


def _is_base_url(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        # Addresses are shown in exports, logs and the exception log.
        raise ValueError("takes no user and password; they go into auth_type and credentials")
    return url


Span = Annotated[int | float | str, Field(union_mode="left_to_right")]
Interval = Annotated[Span, AfterValidator(_is_interval)]
Lookback = Annotated[Span, AfterValidator(_is_lookback)]
ScheduleDocument = Annotated[dict[str, Any], AfterValidator(_is_schedule)]
Parameter = str | int | tuple[str, ...]
Parameters = Annotated[dict[str, Parameter], AfterValidator(_are_parameters)]
QueryLevel = Literal["STUDY", "SERIES", "IMAGE"]
AeTitle = Annotated[str, AfterValidator(checked_ae_title)]


Url = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$"), AfterValidator(_is_base_url)]
CloudName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,255}$")]


class Limits(BaseModel):
    """How much a source may be asked, and how much of ours it may fill."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Retrievals from it at the same time.
    max_concurrency: Annotated[int, Field(ge=1, le=16)] = 4
    # No more is fetched while so many Instances wait for validation or rules.
    max_waiting: Annotated[int, Field(ge=1)] = 1000
    # A Study that fails so often in a row goes to the exception log, and is tried once a day then.
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    # Of an archive: members, and bytes once they are unpacked.
    max_archive_members: Annotated[int, Field(ge=1)] = 100_000
    max_archive_bytes: Annotated[int, Field(ge=1)] = 64 << 30


class _Source(Entity):
    # Without it only what somebody wants of it is fetched: a pull, or one poll.
    polled: bool = True
    poll_interval: Interval = 300
    # When it may be asked: the name of a schedule, or one as rules say it; always if absent.
    schedule: Name | ScheduleDocument | None = None
    # How long the source is given for each of its answers.
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    limits: Limits = Limits()

    @property
    def poll_interval_s(self) -> float:
        """From the end of one poll to the begin of the next."""
        return seconds(self.poll_interval)

    def window(self, schedules: Mapping[str, Schedule]) -> Schedule | None:
        """When it may be asked, given the schedules that have names; None is always."""
        if isinstance(self.schedule, str):
            return schedules.get(self.schedule)
        return None if self.schedule is None else _schedule(self.schedule)


class _QueriedSource(_Source):
    # Studies of these last days are looked at in each poll, and those since the last poll.
    lookback: Lookback = "7d"
    query_params: Parameters = Field(default_factory=dict)
    # STUDY fetches each Study that fits whole; SERIES and IMAGE only what fits itself.
    query_level: QueryLevel = "STUDY"

    @property
    def lookback_span(self) -> timedelta:
        """How far back a poll looks."""
        return timedelta(seconds=seconds(self.lookback))


class SourceCredentials(Credentials):
    """How to sign in, with OAuth 2.0 too."""

    client_id: str | None = None
    client_secret: str | None = Field(default=None, repr=False)
    client_secret_secret: str | None = None


class DicomwebSource(_QueriedSource):
    """A DICOMweb server that answers QIDO-RS and WADO-RS (PS3.18 10.4, 10.6) below `base_url`."""

    type: Literal["dicomweb"]
    base_url: Url
    auth_type: Literal["none", "basic", "bearer_token", "oauth2_client_credentials", "google"] = (
        "none"
    )
    credentials: SourceCredentials = SourceCredentials()
    # Of oauth2_client_credentials (RFC 6749 4.4).
    token_url: Url | None = None
    scope: str = ""
    # What one page of answers asks for.
    page_size: Annotated[int, Field(ge=1, le=10_000)] = 500

    @property
    def address(self) -> str:
        """Another address has nothing that this one gave."""
        return self.base_url

    @model_validator(mode="after")
    def _has_what_it_signs_in_with(self) -> DicomwebSource:
        given = self.credentials
        given.check(self.auth_type)
        if self.auth_type == "oauth2_client_credentials" and not (
            self.token_url
            and given.client_id
            and (given.client_secret or given.client_secret_secret)
        ):
            raise ValueError(
                "auth_type oauth2_client_credentials needs token_url, credentials.client_id and "
                ".client_secret"
            )
        if self.auth_type == "google" and not is_googles(self.base_url):
            raise ValueError(
                "auth_type google shows its token to https://*.googleapis.com alone; base_url is "
                "elsewhere"
            )
        return self


class DimseQrSource(_QueriedSource):
    """A Query/Retrieve SCP, asked in the Study Root model (PS3.4 Annex C).

    With `move_destination`, an AE Title that the peer knows as one of our listeners, it is asked to
    send there (C-MOVE); without, Instances come over our own association (C-GET).
    """

    type: Literal["dimse_qr"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AeTitle
    calling_ae_title: AeTitle = "AXIOM"
    move_destination: AeTitle | None = None
    # What was moved has to arrive at the listener, and be decided about, within this.
    arrival_timeout_s: Annotated[float, Field(gt=0, le=86400)] = 300.0
    # In the clear without it.
    tls: PeerTls | None = None
    # Who we say that we are, to peers that ask.
    credentials: DimseCredentials = DimseCredentials()

    @property
    def address(self) -> str:
        """As of a DICOMweb server."""
        return f"{self.ae_title}@{self.host}:{self.port}"


class GoogleHealthcareSource(_QueriedSource):
    """A DICOM store of the Google Cloud Healthcare API."""

    type: Literal["google_healthcare"]
    project_id: CloudName
    location: CloudName
    dataset_id: CloudName
    dicom_store_id: CloudName
    # Another one than Google's own, such as a private endpoint.
    base_url: Url = "https://healthcare.googleapis.com/v1"

    @property
    def address(self) -> str:
        """As of a DICOMweb server."""
        return (
            f"{self.base_url.rstrip('/')}/projects/{self.project_id}/locations/{self.location}"
            f"/datasets/{self.dataset_id}/dicomStores/{self.dicom_store_id}"
        )


class _FileSource(_Source):
    # What becomes of a file once all that is in it is received.
    after: Literal["keep", "delete"] = "keep"
    # A file that is younger may still be written.
    settle_s: Annotated[float, Field(ge=0, le=86400)] = 5.0


class FolderSource(_FileSource):
    """A folder, with all below it. A relative `path` lies below AXIOM_HOME/incoming.

    Zip archives are looked into; files that are no DICOM are left where they are.
    """

    type: Literal["folder"]
    path: Annotated[
        str, Field(min_length=1), AfterValidator(partial(path_below, folder="incoming"))
    ]

    @property
    def address(self) -> str:
        """As of a DICOMweb server."""
        return self.path


class BucketSource(_FileSource):
    """A landing bucket of Cloud Storage: its objects are listed, whether events tell of them or
    not.
    """

    type: Literal["bucket"]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")]
    prefix: Annotated[str, Field(max_length=1024)] = ""

    @property
    def address(self) -> str:
        """As of a DICOMweb server."""
        return f"gs://{self.bucket}/{self.prefix}"


def source_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between the sources of a configuration and its schedules."""
    known = readable(document)
    for i, source in enumerate(entities(document, "sources")):
        name = source.get("schedule")
        if isinstance(name, str) and name not in known:
            yield Fault(
                f"sources[{i}].schedule", f"there is no schedule {name!r}", nearest(name, known)
            )


AnySource = DicomwebSource | DimseQrSource | GoogleHealthcareSource | FolderSource | BucketSource
Source = Annotated[AnySource, Field(discriminator="type")]
