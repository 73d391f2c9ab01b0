"""A DICOM store of the Google Cloud Healthcare API as a source: DICOMweb as Google does it.

Its searches take equality and a range of Study Date alone, and no key but those that its
conformance statement lists; pages are of its own largest size.
"""

from __future__ import annotations

from typing import Final

from shared.adapters.destinations import authorization as sign_in
from shared.adapters.destinations.google_session import credentials_for
from shared.adapters.sources.dicomweb import DicomwebReader
from shared.adapters.sources.http import SourceServer
from shared.config.sources import GoogleHealthcareSource
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationUnavailableError,
    SourceMisconfiguredError,
    SourceUnavailableError,
)
from shared.ports import Clock

# Of Studies and Series; of Instances ten times as many may be asked for.
_PAGE: Final = 1000


def google_healthcare(entity: GoogleHealthcareSource, clock: Clock) -> DicomwebReader:
    """Asks the store that `entity` names, as the service account that this process runs as.

    Raises: SourceMisconfiguredError, SourceUnavailableError.
    """
    url = f"{entity.address}/dicomWeb"
    try:
        credentials = credentials_for(entity.name, url)
    except DestinationMisconfiguredError as error:
        raise SourceMisconfiguredError(*error.args) from None
    except DestinationUnavailableError as error:
        raise SourceUnavailableError(*error.args) from None
    from google.auth.transport.requests import AuthorizedSession

    server = SourceServer(
        entity.name,
        url,
        sign_in.none(),
        timeout_s=entity.timeout_s,
        max_connections=2 * entity.limits.max_concurrency,
        session=AuthorizedSession(credentials),
    )
    return DicomwebReader(
        server,
        clock,
        level=entity.query_level,
        query_params=entity.query_params,
        page_size=_PAGE,
    )
