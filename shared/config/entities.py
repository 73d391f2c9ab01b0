"""The configuration as values: what may be said, and in which form.

Rulesets are documents of `shared.rules`, kept as they were written. Unknown fields are refused, so
that a misspelt one is never silently without effect.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.config.callers import UserIdentity
from shared.config.crosswalks import AnyCrosswalkSource, CrosswalkMap, CrosswalkSource
from shared.config.entity import Credentials, Entity, Name, by_name, entities, path_below
from shared.config.peers import DimseCredentials, DimsePeer
from shared.config.query_retrieve import QueryRetrieve
from shared.config.schedules import NamedSchedule
from shared.config.sources import AnySource, CloudName, Source
from shared.config.standardizers import Standardizer, Vocabulary
from shared.config.storage_policy import StoragePolicy
from shared.config.tls import ListenerTls, PeerTls
from shared.config.worklists import AnyWorklist, Worklist
from shared.dicom.ae_titles import checked_ae_title
from shared.dicom.path_template import DEFAULT_TEMPLATE, PathTemplate
from shared.dicom.validation import DEFAULT_SEVERITIES, Severity
from shared.errors import Fault


def _is_network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("not an IP address or network such as 10.1.0.0/16") from None
    return text


def _is_template(text: str) -> str:
    PathTemplate.parse(text)
    return text


def _has_no_password(text: str) -> str:
    if "@" in urlsplit(text).netloc:
        # Addresses are shown in exports, logs and the exception log.
        raise ValueError("takes no user and password; they go into auth_type and credentials")
    return text


AeTitle = Annotated[str, AfterValidator(checked_ae_title)]
Network = Annotated[str, AfterValidator(_is_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
# 0 offers no limit (PS3.8 D.1); below 4096 a peer may not even fit its command set.
MaxPduSize = Annotated[int, Field(ge=0, le=1 << 30)]


class Listener(Entity):
    """A DIMSE listener of the gateway: one AE on one port."""

    ae_title: AeTitle = "AXIOM"
    host: str = ""  # the address of AXIOM_DIMSE_HOST
    port: Port = 11112
    max_pdu_size: MaxPduSize = 131072
    # Which gateways serve it: a shell pattern over AXIOM_INSTANCE. A gateway without that setting
    # serves every listener.
    instance_filter: str = ""
    # Nobody is turned away where these are empty.
    allowed_calling_ae_titles: tuple[AeTitle, ...] = ()
    allowed_peers: tuple[Network, ...] = ()
    require_called_ae_title: bool = False
    # Whoever calls need not say who they are without it.
    user_identity: UserIdentity | None = None
    accept_unknown_sop_classes: bool = False
    # C-STORE, storage commitment and C-ECHO; what is off is refused at negotiation.
    storage: bool = True
    storage_commitment: bool = True
    verification: bool = True
    max_associations: Annotated[int, Field(ge=1, le=10_000)] = 100
    network_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    # In the clear without it.
    tls: ListenerTls | None = None
    # By AE Title, who is told of storage commitment after its own association has ended.
    commitment_peers: dict[AeTitle, DimsePeer] = Field(default_factory=dict)
    # What may be found and fetched here; nothing without it.
    query_retrieve: QueryRetrieve | None = None
    # The name of the worklist that modalities are shown here; none without it.
    worklist: Name | None = None


class OnConflict(StrEnum):
    """What becomes of other bytes under a SOP Instance UID that a destination has already."""

    KEEP_FIRST = "keep_first"  # what is there stays; the other goes to the exception log
    REPLACE = "replace"  # the newest received counts
    QUARANTINE = "quarantine"  # what is there stays; the other is set aside for a person


class _Destination(Entity):
    # Which parts of a storage policy its type can do.
    policies: ClassVar[frozenset[str]] = frozenset({"compression"})

    # Deliveries to it at the same time.
    max_concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    # Instances, and bytes, a second that one process delivers there; 0 is no limit.
    rate_limit_per_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    rate_limit_bytes_per_s: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    on_conflict: OnConflict = OnConflict.KEEP_FIRST
    # Whether previous values leave in Original Attributes Sequence, where the settings have them.
    original_attributes: bool = True
    storage_policy: StoragePolicy = StoragePolicy()

    @model_validator(mode="after")
    def _can_do_its_policy(self) -> Self:
        given = self.storage_policy.model_dump(exclude_none=True)
        for name in sorted(given.keys() - self.policies):
            can = ", ".join(sorted(self.policies)) or "nothing of it"
            raise ValueError(f"storage_policy.{name}: a destination of this type can do {can}")
        return self


class FilesystemDestination(_Destination):
    """A folder. A relative `path` lies below AXIOM_HOME/storage."""

    policies = frozenset({"compression", "retain_days"})

    type: Literal["filesystem"]
    path: Annotated[str, Field(min_length=1), AfterValidator(partial(path_below, folder="storage"))]
    template: Annotated[str, Field(min_length=1), AfterValidator(_is_template)] = DEFAULT_TEMPLATE

    @property
    def address(self) -> str:
        """Where Instances end up; another address has none of those that were sent to this one."""
        return self.path


class DimseDestination(_Destination):
    """A Storage SCP."""

    type: Literal["dimse"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AeTitle
    calling_ae_title: AeTitle = "AXIOM"
    # As the AE that an Instance came from, where that was one: ours counts for all others, and for
    # storage commitment, whose answer comes to us.
    pass_calling_ae_title: bool = False
    # What we let the peer send to us in one PDU; its own limit counts for what we send.
    max_pdu_size: MaxPduSize = 131072
    # What it does not take in its own Transfer Syntax goes in one that every peer must know.
    transcode_when_refused: bool = False
    # A Delivery counts once the peer has committed itself to keep the Instance (PS3.4 Annex J).
    storage_commitment: bool = False
    commitment_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    # In the clear without it.
    tls: PeerTls | None = None
    # Who we say that we are, to peers that ask.
    credentials: DimseCredentials = DimseCredentials()

    @property
    def address(self) -> str:
        """As of a folder."""
        return f"{self.ae_title}@{self.host}:{self.port}"


class _StowDestination(_Destination):
    # What one request brings at most, of what is to be delivered just then.
    batch_instances: Annotated[int, Field(ge=1, le=1000)] = 16
    batch_bytes: Annotated[int, Field(ge=0)] = 32 << 20


class _HttpDestination(_Destination):
    base_url: Annotated[
        str, Field(pattern=r"^https?://[^\s?#]+$"), AfterValidator(_has_no_password)
    ]
    auth_type: Literal["none", "basic", "bearer_token"] = "none"
    credentials: Credentials = Credentials()

    @property
    def address(self) -> str:
        """As of a folder."""
        return self.base_url

    @model_validator(mode="after")
    def _has_what_it_signs_in_with(self) -> Self:
        self.credentials.check(self.auth_type)
        return self


class DicomwebDestination(_HttpDestination, _StowDestination):
    """A DICOMweb origin server that takes STOW-RS (PS3.18 10.5) below `base_url`."""

    type: Literal["dicomweb"]


class OrthancDestination(_HttpDestination):
    """An Orthanc that takes Instances by its own REST API, whose root `base_url` is."""

    type: Literal["orthanc"]


class GoogleHealthcareDestination(_StowDestination):
    """A DICOM store of the Google Cloud Healthcare API, as the process's own service account."""

    policies = frozenset({"compression", "tier"})

    type: Literal["google_healthcare"]
    project_id: CloudName
    location: CloudName
    dataset_id: CloudName
    dicom_store_id: CloudName
    # Another one than Google's own, such as a private endpoint.
    base_url: Annotated[
        str, Field(pattern=r"^https?://[^\s?#]+$"), AfterValidator(_has_no_password)
    ] = "https://healthcare.googleapis.com/v1"

    @property
    def address(self) -> str:
        """As of a folder: the base URL of its DICOMweb services."""
        return (
            f"{self.base_url.rstrip('/')}/projects/{self.project_id}/locations/{self.location}"
            f"/datasets/{self.dataset_id}/dicomStores/{self.dicom_store_id}/dicomWeb"
        )


class BucketDestination(_Destination):
    """A bucket of Cloud Storage, one object for each Instance."""

    policies = frozenset({"compression", "retain_days", "tier"})

    type: Literal["gcs"]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")]
    template: Annotated[str, Field(min_length=1), AfterValidator(_is_template)] = DEFAULT_TEMPLATE

    @property
    def address(self) -> str:
        """As of a folder."""
        return f"gs://{self.bucket}"


class GroupStrategy(StrEnum):
    """Which member of a group gets an Instance; the others stand in for it."""

    FAILOVER = "failover"  # the first of the list
    SHARE_STUDIES = "share_studies"  # each Study has its member


class GroupDestination(_Destination):
    """Destinations that stand in for each other: an Instance goes to one of them."""

    # What is kept, its members keep.
    policies = frozenset()

    type: Literal["group"]
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    strategy: GroupStrategy = Field(GroupStrategy.FAILOVER, strict=False)

    @property
    def address(self) -> str:
        """As of a folder."""
        return f"group of {' '.join(sorted(self.members))}"


def destination_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between groups and their members; `document` may be anything."""
    destinations = by_name(document, "destinations")
    for i, entity in enumerate(entities(document, "destinations")):
        named = entity.get("members") if entity.get("type") == "group" else None
        members = named if isinstance(named, list | tuple) else ()
        for k, name in enumerate(members):
            path = f"destinations[{i}].members[{k}]"
            if not isinstance(name, str):
                continue
            if name not in destinations:
                yield Fault(path, f"there is no destination {name!r}")
            elif destinations[name].get("type") == "group":
                yield Fault(path, f"{name!r} is a group itself; name its members here")
            elif name in members[:k]:
                yield Fault(path, f"{name!r} is there twice")


# Those that are one place.
SingleDestination = (
    FilesystemDestination
    | DimseDestination
    | DicomwebDestination
    | OrthancDestination
    | GoogleHealthcareDestination
    | BucketDestination
)
AnyDestination = SingleDestination | GroupDestination
Destination = Annotated[AnyDestination, Field(discriminator="type")]


def _known_finding(code: str) -> str:
    if code not in DEFAULT_SEVERITIES:
        raise ValueError(f"is no finding; these are: {', '.join(sorted(DEFAULT_SEVERITIES))}")
    return code


class Settings(BaseModel):
    """What holds for the whole system."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Where an Instance goes that no rule sent anywhere; held if empty.
    default_route: tuple[Name, ...] = ()
    # Record previous Values in Original Attributes Sequence (PS3.3 C.12.1).
    original_attributes: bool = True
    modifying_system: Annotated[str, Field(min_length=1, max_length=64)] = "AXIOM FLOW"
    # What a finding of `validate_instance` does, where it differs from the default.
    validation: dict[Annotated[str, AfterValidator(_known_finding)], Severity] = {}
    max_instance_bytes: Annotated[int, Field(ge=1)] = 8 << 30
    # Of one STOW-RS request, which may bring a whole Study.
    max_request_bytes: Annotated[int, Field(ge=1)] = 64 << 30
    # Below this nothing is accepted: A700H over C-STORE, 503 over HTTP.
    min_free_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    # The same while what waits for validation and rules is older or more than this, or a process
    # that receives is larger; 0 is no limit. What waits for a destination does not count.
    max_queue_age_s: Annotated[float, Field(ge=0)] = 900.0
    max_queue_messages: Annotated[int, Field(ge=0)] = 200_000
    max_memory_bytes: Annotated[int, Field(ge=0)] = 2 << 30
    # Instances a second from one caller, and how many at once after a pause; 0 is no limit.
    rate_limit_per_s: Annotated[float, Field(ge=0)] = 0.0
    rate_limit_burst: Annotated[int, Field(ge=1)] = 100
    # The same of requests of the API and DICOMweb, from one credential at one address.
    api_rate_limit_per_s: Annotated[float, Field(ge=0)] = 0.0
    api_rate_limit_burst: Annotated[int, Field(ge=1)] = 1000
    # How long a received file is kept after it came, once all its deliveries are confirmed.
    retention_s: Annotated[float, Field(ge=0)] = 7 * 86400.0
    # Records of Instances, deliveries and closed exceptions; of who did what. 0 keeps them.
    record_retention_s: Annotated[float, Field(ge=0)] = 90 * 86400.0
    audit_retention_s: Annotated[float, Field(ge=0)] = 0.0
    # Who asks for storage commitment is told of failure when deliveries take longer than this.
    commitment_timeout_s: Annotated[float, Field(gt=0)] = 86400.0
    # A message that cannot be worked off for so long goes to the exception log.
    retry_budget_s: Annotated[float, Field(ge=0, le=365 * 86400)] = 3 * 86400.0


class Configuration(BaseModel):
    """The whole configuration; it is checked, versioned and applied as one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listeners: tuple[Listener, ...] = ()
    sources: tuple[Source, ...] = ()
    destinations: tuple[Destination, ...] = ()
    rulesets: tuple[dict[str, Any], ...] = ()
    schedules: tuple[NamedSchedule, ...] = ()
    crosswalk_sources: tuple[CrosswalkSource, ...] = ()
    crosswalk_maps: tuple[CrosswalkMap, ...] = ()
    vocabularies: tuple[Vocabulary, ...] = ()
    standardizers: tuple[Standardizer, ...] = ()
    worklists: tuple[Worklist, ...] = ()
    settings: Settings = Settings()

    def destination(self, name: str) -> AnyDestination | None:
        """The destination of that name, enabled or not."""
        return next((d for d in self.destinations if d.name == name), None)

    def tells_original_attributes(self, destination: str) -> bool:
        """Whether Instances go there with previous values; of a group, to whichever member."""
        entity = self.destination(destination)
        members = entity.members if isinstance(entity, GroupDestination) else ()
        all_of_them = (entity, *map(self.destination, members))
        return self.settings.original_attributes and all(
            one is None or one.original_attributes for one in all_of_them
        )

    def source(self, name: str) -> AnySource | None:
        """The source of that name, enabled or not."""
        return next((s for s in self.sources if s.name == name), None)

    def crosswalk_source(self, name: str) -> AnyCrosswalkSource | None:
        """The crosswalk source of that name, enabled or not."""
        return next((s for s in self.crosswalk_sources if s.name == name), None)

    def crosswalk_map(self, name: str) -> CrosswalkMap | None:
        """The crosswalk map of that name, enabled or not."""
        return next((m for m in self.crosswalk_maps if m.name == name), None)

    def standardizer(self, name: str) -> Standardizer | None:
        """The standardizer of that name, enabled or not."""
        return next((s for s in self.standardizers if s.name == name), None)

    def worklist(self, name: str) -> AnyWorklist | None:
        """The worklist of that name, enabled or not."""
        return next((w for w in self.worklists if w.name == name), None)

    def vocabulary(self, name: str) -> Vocabulary | None:
        """The site's vocabulary of that name, enabled or not."""
        return next((v for v in self.vocabularies if v.name == name), None)
