"""Which level of the Query/Retrieve information models a key belongs to (PS3.4 C.6)."""

from __future__ import annotations

from typing import Final

from shared.dicom.query import Level

_OF_PATIENT: Final = """
    PatientName PatientID IssuerOfPatientID PatientBirthDate PatientBirthTime PatientSex
    OtherPatientIDs OtherPatientNames EthnicGroup PatientComments
    NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances
"""
_OF_STUDY: Final = """
    StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber
    ReferringPhysicianName NameOfPhysiciansReadingStudy AdmittingDiagnosesDescription
    PatientAge PatientSize PatientWeight Occupation AdditionalPatientHistory
    ModalitiesInStudy SOPClassesInStudy
    NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances
"""
_OF_SERIES: Final = """
    SeriesInstanceUID SeriesNumber Modality SeriesDescription SeriesDate SeriesTime
    BodyPartExamined ProtocolName Laterality PerformedProcedureStepStartDate
    NumberOfSeriesRelatedInstances
"""
_OF_IMAGE: Final = "SOPInstanceUID SOPClassUID InstanceNumber ContentDate ContentTime"

_LEVELS: Final = {
    keyword: level
    for level, keywords in zip(Level, (_OF_PATIENT, _OF_STUDY, _OF_SERIES, _OF_IMAGE), strict=True)
    for keyword in keywords.split()
}


def level_of(keyword: str) -> Level | None:
    """The level of a key; None for one that an archive may keep at any."""
    return _LEVELS.get(keyword)
