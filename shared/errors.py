"""The error tree: the class says what happens next, the rest says it to a person.

`PermanentError` goes to the exception log and the message is acknowledged. `TransientError` is
delivered again with exponential backoff. Anything else is a bug: delivered again, then
dead-lettered. No error carries a patient's Values; UIDs, tags and counts are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final


class Category(StrEnum):
    """What kind of help an entry of the exception log needs."""

    VALIDATION = "validation"
    PROCESSING = "processing"
    STORAGE = "storage"
    NETWORK = "network"
    RESOURCE = "resource"
    CONFIGURATION = "configuration"


class AxiomError(Exception):
    """An error we understand. `args` are kept apart, so it survives pickling.

    Subclasses set `code` (stable, kebab-case, for scripts), `category`, `hint` (what the person
    who reads the log can do) and `template`, which `args` fill in order.
    """

    code: ClassVar[str] = "error"
    category: ClassVar[Category] = Category.PROCESSING
    hint: ClassVar[str] = ""
    template: ClassVar[str] = "{}"

    def __str__(self) -> str:
        return self.template.format(*self.args)


class PermanentError(AxiomError):
    """Trying again changes nothing: a person has to look.

    `may_be_stored` is True where a destination may have taken the Instance all the same,
    `refuses_all` where it would refuse any other just as well.
    """

    may_be_stored = False
    refuses_all = False


class TransientError(AxiomError):
    """Trying again later may succeed.

    `retry_after_s` is the peer's own wish in seconds (Retry-After), or None.
    """

    retry_after_s: float | None = None


# ---- what is received ----------------------------------------------------------------------


class NotDicomError(PermanentError):
    """The bytes are not a Part 10 file (PS3.10 7.1): no "DICM" prefix or no File Meta."""

    code = "not-dicom"
    category = Category.VALIDATION
    hint = "Send DICOM Part 10 files; other files, archives and DICOMDIRs are not Instances."
    template = "Not a DICOM Part 10 file: {}"


class MalformedHeaderError(PermanentError):
    """The Data Elements before Pixel Data cannot be walked to their end (PS3.5 7)."""

    code = "malformed-header"
    category = Category.VALIDATION
    hint = "Check the file with a DICOM dump tool and have the sender mend or send it again."
    template = "{} at byte {}"

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason, offset)
        self.reason, self.offset = reason, offset


class TruncatedInstanceError(PermanentError):
    """A declared length runs past the end of what was received."""

    code = "truncated"
    category = Category.VALIDATION
    hint = "The file is cut short or claims a wrong length: send the original again."
    template = "{} declares {} bytes, {} were received"


class InvalidInstanceError(PermanentError):
    """The Instance breaks rules that the configuration says reject it.

    args: one sentence for each finding.
    """

    code = "invalid-instance"
    category = Category.VALIDATION
    hint = "Have the sender mend it, or change what `validation` rejects, and retry."

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


class BrokenOffError(PermanentError):
    """The sender stopped, or its request broke, within an Instance. args: how."""

    code = "broken-off"
    category = Category.NETWORK
    hint = "The sender was not told Success and has the Instance still: have it sent again."
    template = "{}"


class SopInstanceMismatchError(PermanentError):
    """The data set is not of the SOP Class or Instance that the request names (PS3.4 B.2.3)."""

    code = "sop-instance-mismatch"
    category = Category.VALIDATION
    hint = "The sending system mixes up UIDs between its request and its data set."
    template = "{} of request and data set differ: {} and {}"


class InstanceTooLargeError(PermanentError):
    """The Instance is larger than `max_instance_bytes` allows."""

    code = "instance-too-large"
    category = Category.RESOURCE
    hint = "Raise `max_instance_bytes` in the settings if such Instances are wanted."
    template = "larger than the limit of {} bytes"


class OverloadedError(TransientError):
    """Disk or queue is above its watermark: nothing is accepted until it is below again."""

    code = "overloaded"
    category = Category.RESOURCE
    hint = "Free disk space or mend the destination that the queue waits for."
    template = "{}"
    retry_after_s = 30.0


class RateLimitedError(TransientError):
    """The caller sends more than its rate. args: Instances a second that it may send."""

    code = "rate-limited"
    category = Category.RESOURCE
    hint = "Send more slowly, or raise `rate_limit_per_s` in the settings."
    template = "more than {:g} Instances a second"

    def __init__(self, rate: float, retry_after_s: float = 1.0) -> None:
        super().__init__(rate)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[RateLimitedError], tuple[float, float]]:
        return type(self), (self.args[0], self.retry_after_s or 0.0)


# What people call one document of a collection, where that is not its name in the singular.
_NOUNS: Final[Mapping[str, str]] = {
    "api_keys": "API key",
    "configuration versions": "version",
    "enabled rulesets in shadow mode": "enabled ruleset in shadow mode,",
    "instances": "Instance",
    "pull-rows": "row",
    "standardization-decisions": "decision of a standardizer",
    "standardization-series": "decision of a standardizer",
    "standardization-synonyms": "synonym",
    "studies": "Study",
    "vocabularies": "vocabulary",
}


class _DocumentError(PermanentError):
    """args: collection, key."""

    def __str__(self) -> str:
        collection, *key = self.args
        noun = _NOUNS.get(collection) or collection.removesuffix("s").replace("_", " ")
        return self.template.format(noun, *key)


# ---- stores ---------------------------------------------------------------------------------


class ObjectExistsError(PermanentError):
    """An object of this name exists; objects are created once and never changed."""

    code = "object-exists"
    category = Category.STORAGE
    template = "object {} exists"


class ObjectMissingError(PermanentError):
    """There is no object of this name."""

    code = "object-missing"
    category = Category.STORAGE
    hint = "The received file was deleted before it was delivered; have it sent again."
    template = "object {} is missing"


class DocumentExistsError(_DocumentError):
    """A document with this key exists."""

    code = "document-exists"
    category = Category.STORAGE
    template = "the {} {} is there already"


class DocumentMissingError(_DocumentError):
    """There is no document with this key."""

    code = "document-missing"
    category = Category.STORAGE
    hint = "It may be mistyped, or gone: list what there is."
    template = "there is no {} {}"


class DocumentChangedError(_DocumentError):
    """Somebody else changed the document since it was read: read again, decide again."""

    code = "document-changed"
    category = Category.STORAGE
    template = "the {} {} has changed since it was read"


class SecretMissingError(PermanentError):
    """The secret store has no secret of this name."""

    code = "secret-missing"
    category = Category.CONFIGURATION
    hint = "Create the secret, or name another one in the configuration."
    template = "secret {} is missing"


class StorageUnavailableError(TransientError):
    """The store cannot answer now: disk full, locked, connection lost."""

    code = "storage-unavailable"
    category = Category.STORAGE
    hint = "Check disk space and permissions of AXIOM_HOME, or the cloud service's status."
    template = "{}"


class SpoolDamagedError(PermanentError):
    """What a gateway on premises kept is not what it received. args: what is kept."""

    code = "spool-damaged"
    category = Category.STORAGE
    hint = (
        "Check the gateway's disk, and have the Instance sent again: its sender was told Success."
    )
    template = "{} is damaged on the gateway's disk"


class SpoolUnreadableError(PermanentError):
    """The disk of a gateway on premises does not give back what it keeps, or not now. args: what
    is kept.
    """

    code = "spool-unreadable"
    category = Category.STORAGE
    hint = "Check the gateway's disk; the file is tried again every five minutes."
    template = "{} cannot be read on the gateway's disk"


# ---- messages, rules, configuration ---------------------------------------------------------


class MalformedMessageError(PermanentError):
    """A message cannot be read: it goes to the exception log, not round for ever."""

    code = "malformed-message"
    category = Category.PROCESSING
    hint = "A publisher of another version, or a stranger, wrote to the topic."
    template = "{}"


class RetriesSpentError(PermanentError):
    """A message was tried again until its retries were spent. args: attempts, last HTTP status."""

    code = "retries-spent"
    category = Category.PROCESSING
    hint = "Mend what the last answer complains of, then retry."
    template = "given up after {} attempts, the last one answered {}"


class RuleFailedError(PermanentError):
    """A rule's action cannot be carried out on this Instance. args: rule, reason."""

    code = "rule-failed"
    category = Category.PROCESSING
    hint = "Correct the rule, then retry with the current rules."
    template = "rule {}: {}"


class RefusedByRuleError(PermanentError):
    """A rule refuses what is being received. `status` is what the sender is told (PS3.7 C)."""

    code = "refused-by-rule"
    category = Category.VALIDATION
    hint = "If such Instances are wanted, change the rule and have them sent again."
    template = "rule {0}: {1}"

    def __init__(self, rule: str = "", reason: str = "", status: int = 0xC000) -> None:
        super().__init__(rule, reason, status)
        self.status = status


class RulesUnavailableError(TransientError):
    """The rulesets of the stage `reception` cannot be read. args: how many there are."""

    code = "rules-unavailable"
    category = Category.CONFIGURATION
    hint = "Correct them: `axiom config export` and `axiom rules validate` name what is wrong."
    template = "{} rulesets of the stage reception cannot be read"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a document: where (`rules[0].actions[1].tag`), what, hint."""

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class InvalidConfigurationError(PermanentError):
    """A configuration document is wrong; nothing of it was applied. args: all the faults."""

    code = "invalid-configuration"
    category = Category.CONFIGURATION
    hint = "Mend every fault named: with one of them nothing is applied."

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults: tuple[Fault, ...] = faults

    def __str__(self) -> str:
        return "; ".join(map(str, self.faults))


# ---- crosswalks -----------------------------------------------------------------------------


class CrosswalkUnavailableError(TransientError):
    """A crosswalk cannot answer now. args: map, reason without the database's own text, which may
    quote what was looked up.
    """

    code = "crosswalk-unavailable"
    category = Category.NETWORK
    hint = "The Instance waits; it goes on by itself once the database answers again."
    template = "crosswalk {}: {}"


class CrosswalkMisconfiguredError(PermanentError):
    """A crosswalk cannot be asked like this. args: map, reason, as above."""

    code = "crosswalk-misconfigured"
    category = Category.CONFIGURATION
    hint = "Correct the crosswalk map or its source, try `axiom crosswalk lookup`, then retry."
    template = "crosswalk {}: {}"


class CrosswalkAmbiguousError(PermanentError):
    """More than one row fits, so that which one is meant would be a guess. args: map."""

    code = "crosswalk-ambiguous"
    category = Category.PROCESSING
    hint = "Make the key unique in the table, or match another column as well; then retry."
    template = "crosswalk {}: more than one row fits"


# ---- standardisation ------------------------------------------------------------------------


class UnknownVocabularyError(PermanentError):
    """There is no vocabulary for this Attribute. args: its keyword."""

    code = "unknown-vocabulary"
    category = Category.CONFIGURATION
    hint = "Name an Attribute that has a vocabulary, or give it one of the site."
    template = "no vocabulary for {}"


class NoTermError(PermanentError):
    """The value is no current term of the vocabulary. args: the vocabulary, the Attribute."""

    code = "no-term"
    category = Category.CONFIGURATION
    hint = "Give one of the vocabulary's terms, as it is spelt there."
    template = "not a term of {} for {}"


class ProviderFailedError(TransientError):
    """A provider of proposals gave no usable answer. args: the provider, the reason.

    `reason` is one of unavailable, quota, timeout, safety, malformed, refused-STATUS,
    no-credentials, not-installed.
    """

    code = "standardizer-failed"
    category = Category.NETWORK
    hint = "The standardizer's policy applies. See its provider's quota, address and credentials."
    template = "{}: {}"


# ---- destinations ---------------------------------------------------------------------------


class DestinationUnavailableError(TransientError):
    """The destination cannot take it now: no connection, 408, 429, 5xx, A7xxH, rejected-transient.

    args: destination name, the peer's own words. `may_be_stored` is False where it is certain that
    the destination has nothing of it: the connection was refused, or the answer was a refusal.
    """

    code = "destination-unavailable"
    category = Category.NETWORK
    hint = "Delivery goes on by itself once the destination answers again."
    template = "{}: {}"
    may_be_stored = True


class DestinationBusyError(DestinationUnavailableError):
    """It is not asked now: others have their turn, or it just took nothing. args: as above."""

    code = "destination-busy"
    may_be_stored = False


class DestinationRefusedError(PermanentError):
    """The destination will not take this Instance. args: destination name, the peer's own words."""

    code = "destination-refused"
    category = Category.NETWORK
    hint = "See the peer's own words; mend its settings or the Instance, then retry."
    template = "{}: {}"


class DestinationMisconfiguredError(PermanentError):
    """The delivery cannot start: a missing destination, path, secret. args: destination, reason."""

    code = "destination-misconfigured"
    category = Category.CONFIGURATION
    hint = "Correct the destination in the configuration, then retry."
    template = "{}: {}"


class CannotTranscodeError(PermanentError):
    """An Instance cannot be sent in the Transfer Syntax that is asked for.

    args: who asks (a rule, a destination), the Transfer Syntax it has, the one asked for, reason.
    """

    code = "cannot-transcode"
    category = Category.PROCESSING
    hint = "Ask for another Transfer Syntax, or have it sent as it is, then retry."
    template = "{} asks to transcode from {} to {}: {}"


class InstanceConflictError(PermanentError):
    """Other bytes are stored under this SOP Instance UID, which names one Instance (PS3.5 9).

    args: SOP Instance UID, and 8 hex digits of a checksum of what is stored and of what came, or
    "unknown".
    """

    code = "instance-conflict"
    category = Category.STORAGE
    hint = (
        "Compare the two: `axiom instances show` names the received file, below $AXIOM_HOME/objects"
        " or in the bucket. Is the newer one wanted, a corrected header or what a changed rule"
        " makes of it, the destination takes it with on_conflict: replace; changed pixels need a"
        " new UID."
    )
    template = "{}: other bytes are there (their CRC32C or digest differs): stored {}, received {}"


class CopyInFlightError(TransientError):
    """Another copy of this SOP Instance is being delivered to the destination right now.

    args: destination name, SOP Instance UID. It tells nothing of how the destination is.
    """

    code = "copy-in-flight"
    category = Category.PROCESSING
    hint = "It goes on by itself once the other copy is delivered."
    template = "{}: another copy of {} is being delivered"
    retry_after_s = 2.0


# ---- sources --------------------------------------------------------------------------------


class SourceUnavailableError(TransientError):
    """The source cannot be asked now: no connection, 408, 429, 5xx, A7xxH, no answer in time.

    args: source name, the peer's own words.
    """

    code = "source-unavailable"
    category = Category.NETWORK
    hint = (
        "See that it runs and can be reached. Scheduled polls and pulls try it again by themselves,"
        " with growing pauses; a check or a search does not."
    )
    template = "{}: {}"


class SourceRefusedError(PermanentError):
    """The source does not give what it is asked for. args: source name, the peer's own words."""

    code = "source-refused"
    category = Category.NETWORK
    hint = "See the peer's own words; mend its settings or the source's."
    template = "{}: {}"


class SourceMisconfiguredError(PermanentError):
    """The source cannot be asked like this: a wrong address, a secret that is missing or not taken.

    args: source name, reason.
    """

    code = "source-misconfigured"
    category = Category.CONFIGURATION
    hint = "Correct the source in the configuration; it is tried again by itself."
    template = "{}: {}"


class NotRetrievedError(PermanentError):
    """A source shows an Instance and does not give it. args: source name, attempts, last reason."""

    code = "not-retrieved"
    category = Category.NETWORK
    hint = "It is tried again once a day; `axiom sources poll NAME --failed` tries it now."
    template = "{}: not retrieved in {} attempts: {}"


# ---- storage commitment ---------------------------------------------------------------------


class NotDecidedYetError(TransientError):
    """Some of the Instances are still on their way, so nothing can be said of their commitment.

    args: Transaction UID. It tells nothing of how the peer is.
    """

    code = "not-decided-yet"
    category = Category.PROCESSING
    hint = "It goes on by itself once all deliveries are decided."
    template = "{}: some Instances are still on their way"
    retry_after_s = 1.0


class SeriesUnderDecisionError(NotDecidedYetError):
    """A provider is being asked about the Series for another of its Instances.

    args: Series Instance UID.
    """

    hint = "It goes on by itself once the provider has answered."
    template = "series {}: a provider is being asked"


class CommitmentPeerUnknownError(PermanentError):
    """Nobody knows where the AE listens that asked for storage commitment. args: AE Title."""

    code = "commitment-peer-unknown"
    category = Category.CONFIGURATION
    hint = "Name its host and port in the listener's `commitment_peers`, then retry."
    template = "{} asked for storage commitment and is not there to be told"


# ---- operations -----------------------------------------------------------------------------


class NothingToRetryError(PermanentError):
    """The sender was refused, so nothing was accepted that could be tried again. args: entry."""

    code = "nothing-to-retry"
    hint = "The sender still has the Instance: have it sent again."
    template = "{}: the sender was refused, so there is nothing here to retry"


class NeedsCurrentRulesError(PermanentError):
    """The Instance was accepted and went on without what failed, so that no stage is there to run
    again: only a new decision can do it. args: entry.
    """

    code = "needs-current-rules"
    hint = "Correct the rule, then retry with the current rules."
    template = (
        "{}: the Instance was accepted and went on without that rule; retry it with the current "
        "rules, or archive the entry"
    )


class WrongStateError(PermanentError):
    """What is asked for does not fit the state. args: what it is asked of, its state."""

    code = "wrong-state"
    hint = "Look at it again: it may have been dealt with already."
    template = "{} is {}"
