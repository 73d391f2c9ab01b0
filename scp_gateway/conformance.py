"""The DICOM Conformance Statement (PS3.2), made of the tables that the gateway runs on.

`python -m scp_gateway.conformance > docs/conformance.md` writes it; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydicom.uid import UID

from scp_gateway.dimse_status import Status
from scp_gateway.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_gateway.presentation_contexts import (
    LATER_NAMES,
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION_SOP_CLASS,
)
from scp_gateway.query_services import QUERY_SOP_CLASSES
from shared.config.entities import Listener
from shared.dicom.command_set import C_FIND_RQ, C_GET_RQ, C_MOVE_RQ
from shared.dicom.commitment import STORAGE_COMMITMENT_PUSH_MODEL
from shared.dicom.commitment import TRANSFER_SYNTAXES as SMALL_DATA_SET_SYNTAXES

_SERVICES = {C_FIND_RQ: "C-FIND", C_MOVE_RQ: "C-MOVE", C_GET_RQ: "C-GET"}

_BEGINNING = """\
# DICOM Conformance Statement

Of the gateway (PS3.2), made of the tables that it runs on: `python -m scp_gateway.conformance`
writes this page. How each service behaves is told in [receiving](receiving.md), [storage
commitment](commitment.md), [Query/Retrieve](query-retrieve.md), [Modality Worklist](worklist.md)
and [TLS](tls.md); what we do as SCU in [sources](sources.md) and [destinations](destinations.md).
"""
_NOTE = """\
Verification, storage commitment and storage are accepted unless a listener has `verification`,
`storage_commitment` or `storage` switched off; those of Query/Retrieve where it has
`query_retrieve`, that of Modality Worklist where it has `worklist`; private and unknown ones, for
storage, where it has `accept_unknown_sop_classes`. Of the Transfer Syntaxes that are proposed, the
first that is known is accepted.
"""


def statement() -> str:
    """The page."""
    return "\n".join([_BEGINNING, *_associations(), *_services(), *_statuses(), *_storage()])


def _associations() -> Iterator[str]:
    defaults = Listener(name="default")
    yield "## Associations\n"
    yield from _table(
        ("", ""),
        [
            ("Application Context Name", "1.2.840.10008.3.1.1.1"),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("AE Title, port", "of each listener"),
            ("associations at once", f"{defaults.max_associations}, `max_associations`"),
            ("PDU size received", f"{defaults.max_pdu_size} bytes, `max_pdu_size`"),
            ("asynchronous operations", "none"),
            (
                "SOP Class Extended Negotiation",
                "of Query/Retrieve: relational queries and retrieval, combined date-time matching, "
                "fuzzy semantic matching of names where the store has it",
            ),
            (
                "user identity",
                "username, username and passcode, JSON Web Token, where a listener asks for it; "
                "Kerberos and SAML are refused",
            ),
            ("SCP/SCU role selection", "for storage commitment, and for storage where C-GET is on"),
            ("Specific Character Set of responses", "ISO_IR 192"),
        ],
    )


def _services() -> Iterator[str]:
    yield "## SOP Classes as SCP\n"
    small = ", ".join(_name(uid) for uid in SMALL_DATA_SET_SYNTAXES)
    rows = [
        (_name(VERIFICATION_SOP_CLASS), VERIFICATION_SOP_CLASS, "C-ECHO", "all of those below"),
        (_name(STORAGE_COMMITMENT_PUSH_MODEL), STORAGE_COMMITMENT_PUSH_MODEL, "N-ACTION", small),
    ]
    for uid, known in QUERY_SOP_CLASSES.items():
        service = ": ".join(filter(None, [_SERVICES[known.command_field], ", ".join(known.levels)]))
        rows.append((_name(uid), uid, service, small))
    rows.append(("storage, below", f"{len(STORAGE_SOP_CLASSES)}", "C-STORE", "all of those below"))
    yield from _table(("SOP Class", "UID", "service", "Transfer Syntaxes"), rows)
    yield _NOTE


def _statuses() -> Iterator[str]:
    yield "## Statuses\n"
    yield "Rules may refuse with others of their own.\n"
    yield from _table(
        ("", ""),
        [(f"{status:04X}H", status.name.lower().replace("_", " ")) for status in sorted(Status)],
    )


def _storage() -> Iterator[str]:
    yield "## Transfer Syntaxes of storage\n"
    yield from _table(("Transfer Syntax", "UID"), _named(TRANSFER_SYNTAXES))
    yield "## SOP Classes of storage\n"
    yield from _table(("SOP Class", "UID"), _named(STORAGE_SOP_CLASSES))


def _named(uids: Iterable[str]) -> list[tuple[str, str]]:
    return sorted((_name(uid), uid) for uid in uids)


def _name(uid: str) -> str:
    return LATER_NAMES.get(uid) or UID(uid).name


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


if __name__ == "__main__":
    print(statement(), end="")
