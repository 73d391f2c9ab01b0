"""What a destination holds of a Study: asked by C-FIND or QIDO-RS, or seen in its folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.adapters.destinations import root_of
from shared.adapters.destinations.security import security_of
from shared.adapters.destinations.user_identity import (
    UserIdentityUnusableError,
    user_identity_of,
)
from shared.dicom.header import FIRST_READ_BYTES, Header, HeaderIncompleteError
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
    PermanentError,
)

if TYPE_CHECKING:
    from shared.config.entities import (
        DicomwebDestination,
        DimseDestination,
        GoogleHealthcareDestination,
        SingleDestination,
    )
    from shared.pipeline.reconcile import Inventory
    from shared.ports import SecretStore

_QIDO_PAGE = 1000
_PENDING = (0xFF00, 0xFF01)
# A header beyond this is no file of ours.
_LARGEST_HEADER_BYTES = 64 << 20


def inventory(
    entity: SingleDestination,
    secrets: SecretStore,
    *,
    storage_root: Path | None,
) -> AbstractContextManager[Inventory]:
    """What the destination that `entity` configures holds, while the block runs."""
    if entity.type == "filesystem":
        return _folder(entity.name, root_of(entity, storage_root))
    if entity.type == "dimse":
        return _query_scp(entity, secrets)
    if entity.type == "google_healthcare":
        return _google_qido(entity)
    if entity.type == "gcs":
        from shared.adapters.destinations.cloud_storage import bucket_inventory

        return bucket_inventory(entity.name, entity.bucket)
    if entity.type == "orthanc":
        from shared.adapters.destinations.orthanc import orthanc_inventory

        return orthanc_inventory(entity, secrets)
    return _qido(entity, secrets)


@contextmanager
def inventory_of_all(members: Sequence[AbstractContextManager[Inventory]]) -> Iterator[Inventory]:
    """What several destinations hold together."""
    with ExitStack() as stack:
        yield _Together([stack.enter_context(member) for member in members])


class _Together:
    def __init__(self, members: Sequence[Inventory]) -> None:
        self._members = members

    def instances(self, study_instance_uid: str) -> set[str] | None:
        found: set[str] = set()
        for one in self._members:
            there = one.instances(study_instance_uid)
            if there is None:
                return None
            found |= there
        return found


# ---- a folder


@contextmanager
def _folder(name: str, root: Path) -> Iterator[Inventory]:
    yield _Folder(name, root)


class _Folder:
    """Every file below a folder is looked at, once, for its template may put it anywhere."""

    def __init__(self, name: str, root: Path) -> None:
        self._name, self._root = name, root
        self._studies: dict[str, set[str]] | None = None

    def instances(self, study_instance_uid: str) -> set[str]:
        if self._studies is None:
            self._studies = defaultdict(set)
            try:
                for path in self._files():
                    self._look_at(path, self._studies)
            except OSError as error:
                raise DestinationUnavailableError(self._name, error.strerror or "") from error
        return set(self._studies.get(study_instance_uid, ()))

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self._root):
            yield from (Path(folder, name) for name in names if not name.startswith("."))

    def _look_at(self, path: Path, studies: dict[str, set[str]]) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(FIRST_READ_BYTES)
                size = os.fstat(file.fileno()).st_size
                while True:
                    try:
                        header = Header.parse(data, file_size=size)
                        break
                    except HeaderIncompleteError:
                        more = file.read(len(data))
                        if not more or len(data) > _LARGEST_HEADER_BYTES:
                            return
                        data += more
        except (FileNotFoundError, PermanentError):
            return  # it went meanwhile, or is no Instance
        study, uid = header.text("StudyInstanceUID"), header.text("SOPInstanceUID")
        if uid:
            studies[study or ""].add(uid)


# ---- a Query SCP (PS3.4 Annex C)


@contextmanager
def _query_scp(entity: DimseDestination, secrets: SecretStore) -> Iterator[Inventory]:
    # pynetdicom takes a second to import, and who delivers needs nothing of it.
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        StudyRootQueryRetrieveInformationModelFind as StudyRootFind,
    )

    from shared.adapters.requestor import Requestor

    security = security_of(entity.tls, host=entity.host, owner=entity.name, secrets=secrets)
    ae = Requestor(
        entity.calling_ae_title,
        timeout_s=entity.timeout_s,
        security=security,
        presents=user_identity_of(entity.credentials, secrets),
    )
    ae.add_requested_context(StudyRootFind)
    try:
        association = ae.associate(
            entity.host, entity.port, ae_title=entity.ae_title, ext_neg=list(ae.negotiates())
        )
    except UserIdentityUnusableError as error:
        raise DestinationMisconfiguredError(entity.name, str(error)) from error
    try:
        if association.is_rejected:
            raise DestinationUnavailableError(entity.name, "association rejected")
        # pynetdicom ends an association of which no Presentation Context is accepted.
        if association.rejected_contexts and not association.accepted_contexts:
            reason = "it does not accept C-FIND (Study Root), so it cannot be asked what it holds"
            raise DestinationMisconfiguredError(entity.name, reason)
        if not association.is_established:
            raise DestinationUnavailableError(entity.name, "no association")
        yield _QueryScp(entity.name, association, StudyRootFind)
    finally:
        if association.is_established:
            association.release()


class _QueryScp:
    """Study Root, level by level: IMAGE needs to know the Series (PS3.4 C.4.1.2.1)."""

    def __init__(self, name: str, association: Any, model: str) -> None:
        self._name, self._association, self._model = name, association, model

    def instances(self, study_instance_uid: str) -> set[str] | None:
        if not study_instance_uid:
            return None  # universal matching: it would answer with all it has (PS3.4 C.2.2.2.3)
        series = self._find("SERIES", "SeriesInstanceUID", StudyInstanceUID=study_instance_uid)
        found: set[str] = set()
        for uid in series:
            found |= self._find(
                "IMAGE",
                "SOPInstanceUID",
                StudyInstanceUID=study_instance_uid,
                SeriesInstanceUID=uid,
            )
        return found

    def _find(self, level: str, wanted: str, **keys: str) -> set[str]:
        from pydicom.dataset import Dataset

        query = Dataset()
        query.QueryRetrieveLevel = level
        for keyword, value in {**keys, wanted: ""}.items():
            setattr(query, keyword, value)
        found: set[str] = set()
        for status, identifier in self._association.send_c_find(query, self._model):
            if "Status" not in status:
                raise DestinationUnavailableError(self._name, "no answer to C-FIND")
            if status.Status in _PENDING:
                if identifier is not None and identifier.get(wanted):
                    found.add(str(identifier[wanted].value))
            elif status.Status != 0x0000:
                words = f"C-FIND {status.Status:04X}H"
                if 0xA700 <= status.Status <= 0xA7FF:
                    raise DestinationUnavailableError(self._name, words)
                raise DestinationRefusedError(self._name, words)
        return found


# ---- a DICOMweb server (PS3.18 10.6)


@contextmanager
def _qido(entity: DicomwebDestination, secrets: SecretStore) -> Iterator[Inventory]:
    from shared.adapters.guarded_http import guarded_session
    from shared.adapters.signing_in import authorization

    with guarded_session() as session:
        session.auth = authorization(entity, secrets)
        session.headers["Accept"] = "application/dicom+json"
        yield _Qido(entity, session)


@contextmanager
def _google_qido(entity: GoogleHealthcareDestination) -> Iterator[Inventory]:
    from shared.adapters.destinations.google_session import google_session

    with google_session(entity.name, entity.address) as session:
        session.headers["Accept"] = "application/dicom+json"
        yield _Qido(entity, session)


class _Qido:
    """Search for Instances of a Study, page by page."""

    def __init__(
        self, entity: DicomwebDestination | GoogleHealthcareDestination, session: Any
    ) -> None:
        self._entity, self._session = entity, session

    def instances(self, study_instance_uid: str) -> set[str] | None:
        if not study_instance_uid:
            return None
        found: set[str] = set()
        while True:
            page = self._page(study_instance_uid, offset=len(found))
            if page <= found:
                return found
            found |= page

    def _page(self, study_instance_uid: str, offset: int) -> set[str]:
        import requests

        name = self._entity.name
        url = f"{self._entity.address.rstrip('/')}/studies/{study_instance_uid}/instances"
        try:
            response = self._session.get(
                url,
                params={"limit": _QIDO_PAGE, "offset": offset, "includefield": "00080018"},
                timeout=self._entity.timeout_s,
                allow_redirects=False,
            )
            if response.status_code in (204, 404):
                return set()
            words = f"QIDO-RS {response.status_code}"
            if response.status_code in (408, 429) or response.status_code >= 500:
                raise DestinationUnavailableError(name, words)
            if response.status_code != 200:
                raise DestinationRefusedError(name, words)
            return {str(one["00080018"]["Value"][0]) for one in response.json()}
        except requests.JSONDecodeError as error:
            raise DestinationRefusedError(name, "answers, but not as a DICOMweb server") from error
        except (requests.RequestException, OSError) as error:
            # The text of these errors may quote the URL with whatever is in it.
            raise DestinationUnavailableError(name, "request failed") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DestinationRefusedError(name, "answers, but not as a DICOMweb server") from error
