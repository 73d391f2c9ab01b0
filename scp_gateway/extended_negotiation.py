"""SOP Class Extended Negotiation of Query/Retrieve (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1): a byte for
each thing that a requestor would like, 1 where it is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from scp_gateway.query_services import QUERY_SOP_CLASSES
from shared.dicom.command_set import C_FIND_RQ

# Relational queries and retrieval; of C-FIND alone, a date and its time as one span, and fuzzy
# matching of names.
_RELATIONAL, _SPANS, _FUZZY = range(3)
_MOST_BYTES: Final = 6


def answers(
    asked: Mapping[str, bytes], offered: Collection[str], *, has_fuzzy: bool
) -> Iterator[tuple[str, bytes]]:
    """Of the SOP Classes that are offered, what is done of what is asked; `has_fuzzy` if the store
    matches names fuzzily.
    """
    for sop_class, wishes in asked.items():
        known = QUERY_SOP_CLASSES.get(sop_class)
        if known is None or not known.levels or sop_class not in offered:
            continue
        done = {_RELATIONAL}
        if known.command_field == C_FIND_RQ:
            done |= {_SPANS, _FUZZY} if has_fuzzy else {_SPANS}
        yield (
            sop_class,
            bytes(
                int(place in done and wish == 1) for place, wish in enumerate(wishes[:_MOST_BYTES])
            ),
        )


def has_spans(answer: bytes) -> bool:
    """True if ranges of a date and of its time are one span together."""
    return answer[_SPANS : _SPANS + 1] == b"\1"


def is_fuzzy(answer: bytes) -> bool:
    """True if names are matched fuzzily."""
    return answer[_FUZZY : _FUZZY + 1] == b"\1"
