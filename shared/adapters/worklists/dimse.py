"""Another Modality Worklist SCP, asked by C-FIND (PS3.4 K.4.1). What it shows counts as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pynetdicom import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind as WorklistFind,
)

from shared.adapters.sources.associations import AskedPeer
from shared.config.worklists import DimseWorklist
from shared.dicom.query import Key, Match, dataset_of, found_of
from shared.errors import SourceRefusedError, SourceUnavailableError
from shared.ports import SecretStore

_PENDING: Final = {0xFF00: True, 0xFF01: False}  # whether all keys were matched
_SUCCESS: Final = 0x0000


class WorklistScp:
    """A Worklist; each request has an association of its own."""

    def __init__(self, entity: DimseWorklist, secrets: SecretStore) -> None:
        self._name, self._peer = entity.name, AskedPeer(entity, secrets)

    def find(self, keys: Sequence[Key]) -> Iterator[Match | None]:
        """As Worklist; whoever wants no more ends the association."""
        identifier = dataset_of(keys)
        identifier.SpecificCharacterSet = "ISO_IR 192"
        with self._peer.associated([build_context(WorklistFind)]) as association:
            for status, shown in association.send_c_find(identifier, WorklistFind):
                if "Status" not in status:
                    raise SourceUnavailableError(self._name, "no answer to C-FIND")
                code = int(status.Status)
                if code in _PENDING:
                    yield None if shown is None else Match(found_of(shown), _PENDING[code])
                elif code != _SUCCESS:
                    words = f"C-FIND {code:04X}H"
                    passes = 0xA700 <= code <= 0xA7FF or 0xC000 <= code <= 0xCFFF
                    kind = SourceUnavailableError if passes else SourceRefusedError
                    raise kind(self._name, words)

    def close(self) -> None:
        """As Worklist: nothing is open."""
