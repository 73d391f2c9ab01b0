"""Where Instances are fetched from: DICOMweb servers, Query/Retrieve SCPs, folders, buckets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.config.sources import AnySource
    from shared.pipeline.browsing import Searched, SearchedEntity
    from shared.ports import Clock, SecretStore, SourceReader


def open_source(
    entity: AnySource,
    secrets: SecretStore,
    clock: Clock,
    *,
    root: Path = Path("incoming"),
    is_taken: Callable[[str], bool] = lambda _: False,
) -> SourceReader:
    """Asks the source that `entity` configures; it connects when first asked.

    A relative path of a folder lies below `root`; `is_taken` knows the objects of a bucket that
    came by a notification, as `gs://BUCKET/NAME#GENERATION`. Raises: SourceMisconfiguredError.
    """
    # Each adapter is imported when one is wanted.
    if entity.type == "dicomweb":
        from shared.adapters.signing_in import authorization
        from shared.adapters.sources.dicomweb import DicomwebReader
        from shared.adapters.sources.http import SourceServer

        server = SourceServer(
            entity.name,
            entity.base_url,
            authorization(entity, secrets),
            timeout_s=entity.timeout_s,
            max_connections=2 * entity.limits.max_concurrency,
        )
        return DicomwebReader(
            server,
            clock,
            level=entity.query_level,
            query_params=entity.query_params,
            page_size=entity.page_size,
        )
    if entity.type == "dimse_qr":
        from shared.adapters.sources.dimse import DimseReader

        return DimseReader(entity, clock, secrets)
    if entity.type == "google_healthcare":
        from shared.adapters.sources.google_healthcare import google_healthcare

        return google_healthcare(entity, clock)
    from shared.adapters.sources.files import FilesReader

    deletes = entity.after == "delete"
    if entity.type == "folder":
        from shared.adapters.sources.folder import Folder

        folder = Folder(entity.name, root / entity.path, settle_s=entity.settle_s, now=clock.now)
        return FilesReader(entity.name, folder, entity.limits, deletes=deletes)
    from shared.adapters.sources.bucket import Bucket

    bucket = Bucket(
        entity.name,
        entity.bucket,
        entity.prefix,
        settle_s=entity.settle_s,
        now=clock.now,
        is_taken=is_taken,
    )
    return FilesReader(entity.name, bucket, entity.limits, deletes=deletes)


def open_search(entity: SearchedEntity, secrets: SecretStore, clock: Clock) -> Searched:
    """Searches what `entity` configures; it connects when first asked.

    Raises: SourceMisconfiguredError and its kin.
    """
    if entity.type == "dimse_qr":
        from shared.adapters.sources.dimse_search import DimseSearch

        return DimseSearch(entity, clock, secrets)
    from shared.adapters.archive import open_archive

    return open_archive(entity, secrets, clock)
