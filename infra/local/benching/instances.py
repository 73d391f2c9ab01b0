"""Synthetic Instances to measure with: nobody's data, the sizes and headers of real ones."""

from __future__ import annotations

import io
import random
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

_ROOT = "2.25.7190411"
_SEED = 11
_PIECE_BYTES = 1 << 21


def synthetic_ct(
    folder: Path, count: int, *, rows: int = 512, columns: int = 512, first: int = 1
) -> list[Path]:
    """`count` CT Instances of one Series, of 16 bits a pixel, with a header of about 10 KB,
    numbered from `first` on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = random.Random(_SEED).randbytes(rows * columns * 2)  # noqa: S311
    paths = []
    for number in range(first, first + count):
        dataset = _header(CTImageStorage, number, rows=rows, columns=columns)
        path = folder / f"{number:05d}.dcm"
        path.write_bytes(_part10(dataset, len(pixels)) + pixels)
        paths.append(path)
    return paths


def synthetic_multi_frame(path: Path, mebibytes: int, number: int = 1) -> Path:
    """One multi-frame Instance with so much Pixel Data, an even number of mebibytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    piece = random.Random(_SEED).randbytes(_PIECE_BYTES)  # noqa: S311
    dataset = _header(EnhancedCTImageStorage, number, rows=1024, columns=1024)
    dataset.NumberOfFrames = mebibytes // 2
    with path.open("wb") as file:
        file.write(_part10(dataset, mebibytes << 20))
        for _ in range(mebibytes // 2):
            file.write(piece)
    return path


def _part10(dataset: Dataset, pixel_bytes: int) -> bytes:
    """The file up to and with the header of Pixel Data."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue() + b"\xe0\x7f\x10\x00OW\0\0" + pixel_bytes.to_bytes(4, "little")


def _header(sop_class_uid: str, number: int, *, rows: int, columns: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = f"{_ROOT}.9.{rows}.{number}"
    for kind in ("InstanceCreation", "Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{kind}Date", "20240102")
        setattr(dataset, f"{kind}Time", "101112.345000")
    for keyword, value in _TEXTS.items():
        setattr(dataset, keyword, value)
    dataset.ProcedureCodeSequence = [_code("71250", "C4", "CT THORAX")]
    dataset.ReferencedImageSequence = [
        _reference(CTImageStorage, f"{_ROOT}.8.{number}.{k}") for k in (1, 2, 3)
    ]
    dataset.ReferencedStudySequence = [_reference("1.2.840.10008.3.1.2.3.1", f"{_ROOT}.7.1")]
    source = _reference(CTImageStorage, f"{_ROOT}.6.1")
    source.PurposeOfReferenceCodeSequence = [_code("121322", "DCM", "Source image")]
    dataset.SourceImageSequence = [source]
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "ALT123", "OTHER"
    dataset.OtherPatientIDsSequence = [other]
    requested = Dataset()
    requested.ScheduledProcedureStepDescription = "CHEST"
    requested.ScheduledProcedureStepID, requested.RequestedProcedureID = "SPS1", "RP1"
    requested.ScheduledProtocolCodeSequence = [_code("X1", "99L", "chest"), _code("X2", "99L", "l")]
    dataset.RequestAttributesSequence = [requested]
    for group, creator in ((0x0009, "SYNTH HEADER"), (0x0019, "SYNTH CT"), (0x0029, "SYNTH CSA")):
        block = dataset.private_block(group, creator, create=True)
        for k in range(12):
            block.add_new(k, *_PRIVATE[k % len(_PRIVATE)])
    block.add_new(0x10, "OB", bytes(range(256)) * 24)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{_ROOT}.1.1", f"{_ROOT}.2.1"
    dataset.FrameOfReferenceUID = f"{_ROOT}.3.1"
    dataset.InstanceNumber = str(number)
    dataset.ImagePositionPatient = ["-175.0", "-175.0", f"{number}.0"]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.SliceLocation = f"{number}.0"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.PixelSpacing = rows, columns, ["0.68", "0.68"]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = ["40", "-600"], ["400", "1200"]
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    dataset.LossyImageCompression = "00"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


_PRIVATE = (("LO", "private text"), ("UN", b"\1\2" * 64), ("DS", "1.25"), ("OB", bytes(128)))

_TEXTS = {
    "AccessionNumber": "ACC000001",
    "Modality": "CT",
    "Manufacturer": "SYNTHETIC",
    "InstitutionName": "Test Hospital",
    "InstitutionAddress": "1 Test Street, Nowhere",
    "ReferringPhysicianName": "REF^PHYSICIAN",
    "StationName": "CT01",
    "StudyDescription": "CT CHEST W/O CONTRAST",
    "SeriesDescription": "CHEST 1.0 B70f",
    "InstitutionalDepartmentName": "RADIOLOGY",
    "PhysiciansOfRecord": "REC^PHYS",
    "PerformingPhysicianName": "PERF^PHYS",
    "NameOfPhysiciansReadingStudy": "READ^PHYS",
    "OperatorsName": "OP^ONE",
    "AdmittingDiagnosesDescription": "COUGH",
    "ManufacturerModelName": "SynthScan 64",
    "DerivationDescription": "none",
    "PatientName": "DOE^JANE",
    "PatientID": "PID00001",
    "IssuerOfPatientID": "HOSP",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "PatientAge": "054Y",
    "PatientSize": "1.70",
    "PatientWeight": "70.5",
    "EthnicGroup": "UNKNOWN",
    "PatientComments": "synthetic",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "FAST",
    "SliceThickness": "1.0",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "DeviceSerialNumber": "12345",
    "SoftwareVersions": "V1.0",
    "ProtocolName": "Thorax",
    "ReconstructionDiameter": "350",
    "DistanceSourceToDetector": "1040",
    "DistanceSourceToPatient": "570",
    "GantryDetectorTilt": "0",
    "TableHeight": "150",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "200",
    "Exposure": "100",
    "FilterType": "FLAT",
    "GeneratorPower": "40",
    "FocalSpots": "1.2",
    "DateOfLastCalibration": "20240101",
    "TimeOfLastCalibration": "060000",
    "ConvolutionKernel": "B70f",
    "PatientPosition": "HFS",
    "StudyID": "1",
    "SeriesNumber": "2",
    "AcquisitionNumber": "1",
    "PositionReferenceIndicator": "",
    "ImageComments": "c",
    "WindowCenterWidthExplanation": ["WINDOW1", "WINDOW2"],
    "RequestingPhysician": "REQ^PHYS",
    "RequestedProcedureDescription": "CT CHEST",
    "PerformedProcedureStepStartDate": "20240102",
    "PerformedProcedureStepStartTime": "101000",
    "PerformedProcedureStepID": "PPS1",
    "PerformedProcedureStepDescription": "CHEST",
}
