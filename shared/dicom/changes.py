"""What is to be changed in an Instance, as plain values: shown, stored, replayed, reverted."""

from __future__ import annotations

from msgspec import Struct


class Change(Struct, frozen=True):
    """One Attribute before and after. Applying it is `shared.dicom.edit`'s work.

    Values are shown as text, one str for each Value (a Sequence shows one str for each Item, bytes
    show as hexadecimal digits); None means that the Attribute is absent. The encoded Data Elements,
    tag to last value byte in the Instance's own Transfer Syntax, make replay and revert exact.
    """

    path: str  # canonical text of shared.dicom.paths.AttributePath
    vr: str  # of the new Data Element, or of the old one where it was deleted
    old: tuple[str, ...] | None
    new: tuple[str, ...] | None
    old_element: bytes | None
    new_element: bytes | None
    by: str  # who decided: "ruleset/rule/action number", or "original-attributes"
    # Which of its data set's Data Elements it is, from 0; None where tag order tells. Needed only
    # where Data Elements are out of order, to put one back where it stood.
    position: int | None = None


class Transcoding(Struct, frozen=True):
    """The Transfer Syntax in which an Instance is to leave, after all Changes."""

    transfer_syntax_uid: str
    by: str  # who decided: "ruleset/rule"
    # An Instance that cannot be transcoded leaves as it is; otherwise its delivery fails.
    sends_as_is: bool = False
