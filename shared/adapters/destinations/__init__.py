"""Where Instances are delivered to: a folder, a Storage SCP, a DICOMweb server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared.dicom.outgoing import OutgoingInstance
from shared.ports import SecretStore

if TYPE_CHECKING:
    # Whoever wants an association alone, such as `axiom send`, needs no configuration.
    from shared.config import entities


class Destination(Protocol):
    """Takes Instances; may be used from several threads at once."""

    def deliver(self, instance: OutgoingInstance) -> str:
        """Deliver and return the peer's answer in short: "0000H", "200", a path.

        Equal bytes a second time are success, wherever the peer lets us see that.

        Raises: DestinationUnavailableError, DestinationRefusedError,
        DestinationMisconfiguredError, InstanceConflictError; what reading the received file raises.
        """

    def check(self) -> str:
        """Ask the peer whether it is there; nothing stays stored there.

        Returns its answer in short. Raises as `deliver`.
        """

    def close(self) -> None:
        """Release connections that nobody uses; a delivery under way finishes first.

        Twice is once, and nothing is delivered after it.
        """


def create(
    entity: entities.FilesystemDestination
    | entities.DimseDestination
    | entities.DicomwebDestination,
    secrets: SecretStore,
    *,
    storage_root: Path = Path("storage"),
) -> Destination:
    """The destination that `entity` configures; it connects when first used.

    A relative path of a filesystem destination lies below `storage_root`.

    Raises: DestinationMisconfiguredError.
    """
    # Each adapter is imported when one is wanted: a function that writes files starts no HTTP
    # client.
    if entity.type == "filesystem":
        from shared.adapters.destinations.filesystem import FolderDestination

        return FolderDestination(entity.name, storage_root / entity.path, entity.template)
    if entity.type == "dimse":
        from shared.adapters.destinations.dimse import StorageScpDestination

        return StorageScpDestination(
            entity.name,
            host=entity.host,
            port=entity.port,
            called_ae_title=entity.ae_title,
            calling_ae_title=entity.calling_ae_title,
            max_pdu_size=entity.max_pdu_size,
            timeout_s=entity.timeout_s,
        )
    from shared.adapters.destinations.dicomweb import DicomwebDestination, authorization

    return DicomwebDestination(
        entity.name,
        base_url=entity.base_url,
        authorization=authorization(entity, secrets),
        timeout_s=entity.timeout_s,
        max_connections=entity.max_concurrency,
    )
