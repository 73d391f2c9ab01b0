"""What a Header shows of itself to those who search: one Attribute as DICOM JSON."""

from __future__ import annotations

from shared.dicom.data_set import HasItemsError
from shared.dicom.header import Header
from shared.dicom.query import Found
from shared.dicom.values import as_text
from shared.errors import AxiomError


def shown(header: Header, tag: str) -> Found | None:
    """The Attribute of `tag` ("00100010"); None where it is absent, a Sequence or not readable."""
    try:
        values = header.values(tag)
        if values is None:
            return None
        plain = [as_text(value) for value in values if not isinstance(value, bytes)]
        return {"vr": header.data_set.vr(int(tag, 16)), "Value": plain}
    except (HasItemsError, AxiomError):
        return None
