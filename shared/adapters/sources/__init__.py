"""Where Instances are fetched from: DICOMweb servers, Query/Retrieve SCPs, folders, buckets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import SourceMisconfiguredError

if TYPE_CHECKING:
    from shared.config.sources import AnySource
    from shared.ports import Clock, SecretStore, SourceReader


def open_source(
    entity: AnySource, secrets: SecretStore, clock: Clock, *, root: Path = Path("incoming")
) -> SourceReader:
    """Asks the source that `entity` configures; it connects when first asked.

    A relative path of a folder lies below `root`. Raises: SourceMisconfiguredError.
    """
    # Each adapter is imported when one is wanted.
    if entity.type == "dicomweb":
        from shared.adapters.sources.dicomweb import DicomwebReader
        from shared.adapters.sources.http import SourceServer
        from shared.adapters.sources.signing_in import authorization

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

        return DimseReader(entity, clock)
    raise SourceMisconfiguredError(entity.name, f"sources of type {entity.type} cannot be asked")
