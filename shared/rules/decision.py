"""What the rules are told about an Instance, and what they decide about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from shared.dicom.changes import Change, Transcoding
from shared.dicom.standardized import Standardized

# How Instances come in: C-STORE, STOW-RS, and the types of sources that are polled or notify.
SOURCE_TYPES: Final = (
    "dimse",
    "stow",
    "dicomweb",
    "dimse_qr",
    "google_healthcare",
    "bucket",
    "folder",
)


class Facts(Struct, frozen=True):
    """What is known of an Instance beside its header."""

    source_type: str  # one of SOURCE_TYPES
    source_name: str  # the listener's or source's name in the configuration
    calling_ae_title: str
    called_ae_title: str
    peer_address: str  # IP address without the port, "" if there is none
    transfer_syntax_uid: str
    sop_class_uid: str
    size: int  # bytes of the received file
    received_at: datetime  # timezone-aware
    # The loop guard's answer: these very bytes left from here to a destination before.
    returned: bool = False
    # A person has released it: `hold` actions count no more.
    released: bool = False
    # By the name of the standardizer, what is known of this Instance. What is not there is asked
    # for if the caller can ask (`asks`); else `standardize` changes nothing.
    standardized: Mapping[str, Standardized] = field(default_factory=dict)
    asks: bool = False
    # Tags of the Body beside Pixel Data: they can be deleted, but not be read.
    beside_pixels: frozenset[int] = frozenset()


class Verdict(StrEnum):
    """What becomes of the Instance."""

    ROUTE = "route"  # to the planned deliveries; without any, to the default route
    HOLD = "hold"  # kept until a person releases it
    DISCARD = "discard"  # on purpose to no destination; recorded, the received file may go
    REJECT = "reject"  # to the exception log


class PlannedDelivery(Struct, frozen=True):
    """One destination, with all the Changes for it: the common ones first, then its own."""

    destination: str
    changes: tuple[Change, ...]
    # None for the Transfer Syntax it came in.
    transcoding: Transcoding | None = None


class RuleFailure(Struct, frozen=True):
    """A rule that could not be carried out; nothing of it was done.

    `reason` names actions, Attributes and lengths, never a patient's Values.
    """

    rule: str  # "ruleset/rule"
    reason: str


class Refusal(Struct, frozen=True):
    """The answer that a sender gets when a rule refuses its Instance."""

    status: int  # DIMSE Status (PS3.7 C): A700H to CFFFH
    reason: str
    rule: str


class Ask(Struct, frozen=True):
    """A standardizer is to look at the Instance with these Changes, before rules can go on."""

    standardizer: str
    changes: tuple[Change, ...]


class Decision(Struct, frozen=True):
    """All that the rules decided about one Instance.

    The verdict ROUTE without deliveries means that no rule chose a destination: the caller takes
    the default route, or holds. With HOLD, the deliveries are what a release would send.
    """

    matched_rules: tuple[str, ...]  # "ruleset/rule", in the order of evaluation
    changes: tuple[Change, ...]  # common to all deliveries
    deliveries: tuple[PlannedDelivery, ...]
    verdict: Verdict
    failures: tuple[RuleFailure, ...] = ()
    reason: str = ""
    high_priority: bool = False
    transcoding: Transcoding | None = None  # for where no rule says otherwise, the default route
    refusal: Refusal | None = None  # with REJECT
    # Study rules ("ruleset/rule") that want this Instance collected until its study is complete;
    # what is decided here about its own way without a destination waits until they have decided.
    collect_for: tuple[str, ...] = ()
    # The rules need this answer first: everything else of the Decision counts for nothing.
    ask: Ask | None = None
