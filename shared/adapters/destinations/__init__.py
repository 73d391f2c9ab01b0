"""Where Instances are delivered to: a folder, a Storage SCP, a DICOMweb server, Orthanc, Google
Cloud.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shared.adapters.destinations.security import security_of
from shared.adapters.destinations.user_identity import user_identity_of
from shared.errors import DestinationMisconfiguredError
from shared.ports import Destination, SecretStore

if TYPE_CHECKING:
    # Whoever wants an association alone, such as `axiom send`, needs no configuration.
    from shared.config import entities
    from shared.dicom.commitment import CommitmentReport


def create(
    entity: entities.SingleDestination,
    secrets: SecretStore,
    *,
    storage_root: Path | None = Path("storage"),
    commitment_report: Callable[[str], CommitmentReport | None] = lambda _: None,
) -> Destination:
    """The destination that `entity` configures; it connects when first used.

    A relative path of a filesystem destination lies below `storage_root`; None refuses folders.
    `commitment_report` says what a peer has told a listener of ours about a transaction of storage
    commitment.

    Raises: DestinationMisconfiguredError.
    """
    # Each adapter is imported when one is wanted: a function that writes files starts no HTTP
    # client.
    if entity.type == "filesystem":
        from shared.adapters.destinations.filesystem import FolderDestination

        return FolderDestination(entity.name, root_of(entity, storage_root), entity.template)
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
            commitment_within_s=entity.commitment_timeout_s if entity.storage_commitment else None,
            commitment_report=commitment_report,
            transcodes_when_refused=entity.transcode_when_refused,
            security=security_of(entity.tls, host=entity.host, owner=entity.name, secrets=secrets),
            presents=user_identity_of(entity.credentials, secrets),
            passes_calling_ae_title=entity.pass_calling_ae_title,
        )
    if entity.type == "google_healthcare":
        from shared.adapters.destinations.google_healthcare import HealthcareDestination

        return HealthcareDestination(
            entity.name,
            base_url=entity.address,
            timeout_s=entity.timeout_s,
            max_connections=entity.max_concurrency,
            batch_instances=entity.batch_instances,
            batch_bytes=entity.batch_bytes,
            tier=entity.storage_policy.tier,
        )
    if entity.type == "gcs":
        from shared.adapters.destinations.cloud_storage import BucketDestination

        return BucketDestination(
            entity.name,
            entity.bucket,
            entity.template,
            timeout_s=entity.timeout_s,
            tier=entity.storage_policy.tier,
        )
    from shared.adapters.destinations.dicomweb import DicomwebDestination
    from shared.adapters.signing_in import authorization

    if entity.type == "orthanc":
        from shared.adapters.destinations.orthanc import OrthancRestDestination

        return OrthancRestDestination(
            entity.name,
            base_url=entity.base_url,
            authorization=authorization(entity, secrets),
            timeout_s=entity.timeout_s,
            max_connections=entity.max_concurrency,
        )

    return DicomwebDestination(
        entity.name,
        base_url=entity.base_url,
        authorization=authorization(entity, secrets),
        timeout_s=entity.timeout_s,
        max_connections=entity.max_concurrency,
        batch_instances=entity.batch_instances,
        batch_bytes=entity.batch_bytes,
    )


def root_of(entity: entities.FilesystemDestination, storage_root: Path | None) -> Path:
    """The folder of a destination. Raises: DestinationMisconfiguredError where none would last."""
    if storage_root is None:
        raise DestinationMisconfiguredError(
            entity.name, "no volume is mounted: its folder would go with the process"
        )
    return storage_root / entity.path
