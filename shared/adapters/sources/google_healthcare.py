"""A DICOM store of the Google Cloud Healthcare API as a source: DICOMweb as Google does it.

Its searches take equality and a range of Study Date alone, and no key but those that its
conformance statement lists; pages are of its own largest size.
"""

from __future__ import annotations

from typing import Final

from shared.adapters.sources.dicomweb import DicomwebReader
from shared.adapters.sources.google_tokens import GoogleTokens
from shared.adapters.sources.http import SourceServer
from shared.config.sources import GoogleHealthcareSource
from shared.ports import Clock

# Of Studies and Series; of Instances ten times as many may be asked for.
_PAGE: Final = 1000


def google_healthcare(entity: GoogleHealthcareSource, clock: Clock) -> DicomwebReader:
    """Asks the store that `entity` names, as the service account that this process runs as."""
    url = f"{entity.address}/dicomWeb"
    server = SourceServer(
        entity.name,
        url,
        GoogleTokens(entity.name, url, timeout_s=entity.timeout_s),
        timeout_s=entity.timeout_s,
        max_connections=2 * entity.limits.max_concurrency,
    )
    return DicomwebReader(
        server,
        clock,
        level=entity.query_level,
        query_params=entity.query_params,
        page_size=_PAGE,
    )
