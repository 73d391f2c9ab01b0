"""The resource name of a DICOM store of the Cloud Healthcare API, and what it says of Instances."""

from __future__ import annotations

import re

from msgspec import Struct

_NAME = re.compile(
    r"projects/([a-z0-9.:-]{1,63})/locations/([a-z0-9-]{1,63})"
    r"/datasets/([A-Za-z0-9_.-]{1,256})/dicomStores/([A-Za-z0-9_.-]{1,256})"
)
_UID = r"([0-9.]{1,64})"
_INSTANCE = re.compile(rf"({_NAME.pattern})/dicomWeb/studies/{_UID}/series/{_UID}/instances/{_UID}")


class DicomStoreName(Struct, frozen=True):
    """Project, location, dataset and store, which make up its name."""

    project_id: str
    location: str
    dataset_id: str
    dicom_store_id: str

    @classmethod
    def parse(cls, text: str) -> DicomStoreName:
        """Raises: ValueError for anything else than the full resource name."""
        found = _NAME.fullmatch(text)
        if found is None:
            raise ValueError("not projects/P/locations/L/datasets/D/dicomStores/S")
        return cls(*found.groups())

    def __str__(self) -> str:
        return (
            f"projects/{self.project_id}/locations/{self.location}"
            f"/datasets/{self.dataset_id}/dicomStores/{self.dicom_store_id}"
        )

    def dicomweb_url(self, endpoint: str) -> str:
        """Base URL of its DICOMweb services, no slash at its end."""
        return f"{endpoint.rstrip('/')}/v1/{self}/dicomWeb"


class StoredInstanceName(Struct, frozen=True):
    """One Instance in a store, as notifications name it."""

    store: DicomStoreName
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str

    @classmethod
    def parse(cls, text: str) -> StoredInstanceName:
        """Raises: ValueError for anything else than the path of an Instance in a store."""
        found = _INSTANCE.fullmatch(text)
        if found is None:
            raise ValueError("not the path of an Instance in a DICOM store")
        return cls(DicomStoreName.parse(found[1]), *found.groups()[-3:])

    def __str__(self) -> str:
        return (
            f"{self.store}/dicomWeb/studies/{self.study_instance_uid}"
            f"/series/{self.series_instance_uid}/instances/{self.sop_instance_uid}"
        )
