"""SOP Classes and Transfer Syntaxes by the names that rules use (PS3.6 Annex A, edition 2025).

A SOP Class is named by its UID, by its PS3.6 keyword or name with or without "Storage", or with
its whole category; a Transfer Syntax by its UID, keyword or a group. Case, spaces and hyphens in
names do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from shared.rules.reading import nearest

_ROOT: Final = "1.2.840.10008."
_UID: Final = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+", re.ASCII)

# Category: a line for each SOP Class, its UID after the root and its keyword; retired ones too.
_SOP_CLASSES: Final[Mapping[str, str]] = {
    "document": """
        5.1.4.1.1.104.1 EncapsulatedPDFStorage
        5.1.4.1.1.104.2 EncapsulatedCDAStorage
        5.1.4.1.1.104.3 EncapsulatedSTLStorage
        5.1.4.1.1.104.4 EncapsulatedOBJStorage
        5.1.4.1.1.104.5 EncapsulatedMTLStorage
    """,
    "image": """
        5.1.1.29 HardcopyGrayscaleImageStorage
        5.1.1.30 HardcopyColorImageStorage
        5.1.4.1.1.1 ComputedRadiographyImageStorage
        5.1.4.1.1.1.1 DigitalXRayImageStorageForPresentation
        5.1.4.1.1.1.1.1 DigitalXRayImageStorageForProcessing
        5.1.4.1.1.1.2 DigitalMammographyXRayImageStorageForPresentation
        5.1.4.1.1.1.2.1 DigitalMammographyXRayImageStorageForProcessing
        5.1.4.1.1.1.3 DigitalIntraOralXRayImageStorageForPresentation
        5.1.4.1.1.1.3.1 DigitalIntraOralXRayImageStorageForProcessing
        5.1.4.1.1.2 CTImageStorage
        5.1.4.1.1.2.1 EnhancedCTImageStorage
        5.1.4.1.1.2.2 LegacyConvertedEnhancedCTImageStorage
        5.1.4.1.1.3 UltrasoundMultiFrameImageStorageRetired
        5.1.4.1.1.3.1 UltrasoundMultiFrameImageStorage
        5.1.4.1.1.4 MRImageStorage
        5.1.4.1.1.4.1 EnhancedMRImageStorage
        5.1.4.1.1.4.3 EnhancedMRColorImageStorage
        5.1.4.1.1.4.4 LegacyConvertedEnhancedMRImageStorage
        5.1.4.1.1.5 NuclearMedicineImageStorageRetired
        5.1.4.1.1.6 UltrasoundImageStorageRetired
        5.1.4.1.1.6.1 UltrasoundImageStorage
        5.1.4.1.1.6.2 EnhancedUSVolumeStorage
        5.1.4.1.1.6.3 PhotoacousticImageStorage
        5.1.4.1.1.7 SecondaryCaptureImageStorage
        5.1.4.1.1.7.1 MultiFrameSingleBitSecondaryCaptureImageStorage
        5.1.4.1.1.7.2 MultiFrameGrayscaleByteSecondaryCaptureImageStorage
        5.1.4.1.1.7.3 MultiFrameGrayscaleWordSecondaryCaptureImageStorage
        5.1.4.1.1.7.4 MultiFrameTrueColorSecondaryCaptureImageStorage
        5.1.4.1.1.12.1 XRayAngiographicImageStorage
        5.1.4.1.1.12.1.1 EnhancedXAImageStorage
        5.1.4.1.1.12.2 XRayRadiofluoroscopicImageStorage
        5.1.4.1.1.12.2.1 EnhancedXRFImageStorage
        5.1.4.1.1.12.3 XRayAngiographicBiPlaneImageStorage
        5.1.4.1.1.13.1.1 XRay3DAngiographicImageStorage
        5.1.4.1.1.13.1.2 XRay3DCraniofacialImageStorage
        5.1.4.1.1.13.1.3 BreastTomosynthesisImageStorage
        5.1.4.1.1.13.1.4 BreastProjectionXRayImageStorageForPresentation
        5.1.4.1.1.13.1.5 BreastProjectionXRayImageStorageForProcessing
        5.1.4.1.1.14.1 IntravascularOpticalCoherenceTomographyImageStorageForPresentation
        5.1.4.1.1.14.2 IntravascularOpticalCoherenceTomographyImageStorageForProcessing
        5.1.4.1.1.20 NuclearMedicineImageStorage
        5.1.4.1.1.30 ParametricMapStorage
        5.1.4.1.1.77.1 VLImageStorageTrial
        5.1.4.1.1.77.1.1 VLEndoscopicImageStorage
        5.1.4.1.1.77.1.2 VLMicroscopicImageStorage
        5.1.4.1.1.77.1.3 VLSlideCoordinatesMicroscopicImageStorage
        5.1.4.1.1.77.1.4 VLPhotographicImageStorage
        5.1.4.1.1.77.1.5.1 OphthalmicPhotography8BitImageStorage
        5.1.4.1.1.77.1.5.2 OphthalmicPhotography16BitImageStorage
        5.1.4.1.1.77.1.5.4 OphthalmicTomographyImageStorage
        5.1.4.1.1.77.1.5.5 WideFieldOphthalmicPhotographyStereographicProjectionImageStorage
        5.1.4.1.1.77.1.5.6 WideFieldOphthalmicPhotography3DCoordinatesImageStorage
        5.1.4.1.1.77.1.5.7 OphthalmicOpticalCoherenceTomographyEnFaceImageStorage
        5.1.4.1.1.77.1.5.8 OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage
        5.1.4.1.1.77.1.6 VLWholeSlideMicroscopyImageStorage
        5.1.4.1.1.77.1.7 DermoscopicPhotographyImageStorage
        5.1.4.1.1.77.1.8 ConfocalMicroscopyImageStorage
        5.1.4.1.1.77.1.9 ConfocalMicroscopyTiledPyramidalImageStorage
        5.1.4.1.1.77.2 VLMultiFrameImageStorageTrial
        5.1.4.1.1.81.1 OphthalmicThicknessMapStorage
        5.1.4.1.1.82.1 CornealTopographyMapStorage
        5.1.4.1.1.128 PositronEmissionTomographyImageStorage
        5.1.4.1.1.128.1 LegacyConvertedEnhancedPETImageStorage
        5.1.4.1.1.130 EnhancedPETImageStorage
        5.1.4.1.1.481.1 RTImageStorage
        5.1.4.1.1.481.23 EnhancedRTImageStorage
        5.1.4.1.1.481.24 EnhancedContinuousRTImageStorage
        5.1.4.1.1.501.1 DICOSCTImageStorage
        5.1.4.1.1.501.2.1 DICOSDigitalXRayImageStorageForPresentation
        5.1.4.1.1.501.2.2 DICOSDigitalXRayImageStorageForProcessing
        5.1.4.1.1.601.1 EddyCurrentImageStorage
        5.1.4.1.1.601.2 EddyCurrentMultiFrameImageStorage
    """,
    "key_object": """
        5.1.4.1.1.88.59 KeyObjectSelectionDocumentStorage
    """,
    "other": """
        5.1.4.1.1.67 RealWorldValueMappingStorage
        5.1.1.27 StoredPrintStorage
        5.1.4.1.1.4.2 MRSpectroscopyStorage
        5.1.4.1.1.8 StandaloneOverlayStorage
        5.1.4.1.1.9 StandaloneCurveStorage
        5.1.4.1.1.10 StandaloneModalityLUTStorage
        5.1.4.1.1.11 StandaloneVOILUTStorage
        5.1.4.1.1.66 RawDataStorage
        5.1.4.1.1.66.2 SpatialFiducialsStorage
        5.1.4.1.1.66.6 TractographyResultsStorage
        5.1.4.1.1.68.1 SurfaceScanMeshStorage
        5.1.4.1.1.68.2 SurfaceScanPointCloudStorage
        5.1.4.1.1.77.1.5.3 StereometricRelationshipStorage
        5.1.4.1.1.78.1 LensometryMeasurementsStorage
        5.1.4.1.1.78.2 AutorefractionMeasurementsStorage
        5.1.4.1.1.78.3 KeratometryMeasurementsStorage
        5.1.4.1.1.78.4 SubjectiveRefractionMeasurementsStorage
        5.1.4.1.1.78.5 VisualAcuityMeasurementsStorage
        5.1.4.1.1.78.6 SpectaclePrescriptionReportStorage
        5.1.4.1.1.78.7 OphthalmicAxialMeasurementsStorage
        5.1.4.1.1.78.8 IntraocularLensCalculationsStorage
        5.1.4.1.1.79.1 MacularGridThicknessAndVolumeReportStorage
        5.1.4.1.1.80.1 OphthalmicVisualFieldStaticPerimetryMeasurementsStorage
        5.1.4.1.1.91.1 MicroscopyBulkSimpleAnnotationsStorage
        5.1.4.1.1.129 StandalonePETCurveStorage
        5.1.4.1.1.131 BasicStructuredDisplayStorage
        5.1.4.1.1.200.1 CTDefinedProcedureProtocolStorage
        5.1.4.1.1.200.2 CTPerformedProcedureProtocolStorage
        5.1.4.1.1.200.3 ProtocolApprovalStorage
        5.1.4.1.1.200.7 XADefinedProcedureProtocolStorage
        5.1.4.1.1.200.8 XAPerformedProcedureProtocolStorage
        5.1.4.1.1.201.1 InventoryStorage
        5.1.4.1.1.501.3 DICOSThreatDetectionReportStorage
        5.1.4.1.1.501.4 DICOS2DAITStorage
        5.1.4.1.1.501.5 DICOS3DAITStorage
        5.1.4.38.1 HangingProtocolStorage
        5.1.4.39.1 ColorPaletteStorage
        5.1.4.43.1 GenericImplantTemplateStorage
        5.1.4.44.1 ImplantAssemblyTemplateStorage
        5.1.4.45.1 ImplantTemplateGroupStorage
    """,
    "presentation_state": """
        5.1.4.1.1.11.1 GrayscaleSoftcopyPresentationStateStorage
        5.1.4.1.1.11.2 ColorSoftcopyPresentationStateStorage
        5.1.4.1.1.11.3 PseudoColorSoftcopyPresentationStateStorage
        5.1.4.1.1.11.4 BlendingSoftcopyPresentationStateStorage
        5.1.4.1.1.11.5 XAXRFGrayscaleSoftcopyPresentationStateStorage
        5.1.4.1.1.11.6 GrayscalePlanarMPRVolumetricPresentationStateStorage
        5.1.4.1.1.11.7 CompositingPlanarMPRVolumetricPresentationStateStorage
        5.1.4.1.1.11.8 AdvancedBlendingPresentationStateStorage
        5.1.4.1.1.11.9 VolumeRenderingVolumetricPresentationStateStorage
        5.1.4.1.1.11.10 SegmentedVolumeRenderingVolumetricPresentationStateStorage
        5.1.4.1.1.11.11 MultipleVolumeRenderingVolumetricPresentationStateStorage
        5.1.4.1.1.11.12 VariableModalityLUTSoftcopyPresentationStateStorage
    """,
    "registration": """
        5.1.4.1.1.66.1 SpatialRegistrationStorage
        5.1.4.1.1.66.3 DeformableSpatialRegistrationStorage
    """,
    "rt": """
        5.1.4.1.1.481.14 TomotherapeuticRadiationStorage
        5.1.4.1.1.481.15 RoboticArmRadiationStorage
        5.1.4.1.1.481.18 TomotherapeuticRadiationRecordStorage
        5.1.4.1.1.481.20 RoboticRadiationRecordStorage
        5.1.4.1.1.481.2 RTDoseStorage
        5.1.4.1.1.481.3 RTStructureSetStorage
        5.1.4.1.1.481.4 RTBeamsTreatmentRecordStorage
        5.1.4.1.1.481.5 RTPlanStorage
        5.1.4.1.1.481.6 RTBrachyTreatmentRecordStorage
        5.1.4.1.1.481.7 RTTreatmentSummaryRecordStorage
        5.1.4.1.1.481.8 RTIonPlanStorage
        5.1.4.1.1.481.9 RTIonBeamsTreatmentRecordStorage
        5.1.4.1.1.481.10 RTPhysicianIntentStorage
        5.1.4.1.1.481.11 RTSegmentAnnotationStorage
        5.1.4.1.1.481.12 RTRadiationSetStorage
        5.1.4.1.1.481.16 RTRadiationRecordSetStorage
        5.1.4.1.1.481.17 RTRadiationSalvageRecordStorage
        5.1.4.1.1.481.21 RTRadiationSetDeliveryInstructionStorage
        5.1.4.1.1.481.22 RTTreatmentPreparationStorage
        5.1.4.1.1.481.25 RTPatientPositionAcquisitionInstructionStorage
        5.1.4.34.1 RTBeamsDeliveryInstructionStorageTrial
        5.1.4.34.7 RTBeamsDeliveryInstructionStorage
        5.1.4.34.10 RTBrachyApplicationSetupDeliveryInstructionStorage
        5.1.4.1.1.481.13 CArmPhotonElectronRadiationStorage
        5.1.4.1.1.481.19 CArmPhotonElectronRadiationRecordStorage
    """,
    "segmentation": """
        5.1.4.1.1.66.4 SegmentationStorage
        5.1.4.1.1.66.5 SurfaceSegmentationStorage
    """,
    "sr": """
        5.1.4.1.1.88.1 TextSRStorageTrial
        5.1.4.1.1.88.2 AudioSRStorageTrial
        5.1.4.1.1.88.3 DetailSRStorageTrial
        5.1.4.1.1.88.4 ComprehensiveSRStorageTrial
        5.1.4.1.1.88.11 BasicTextSRStorage
        5.1.4.1.1.88.22 EnhancedSRStorage
        5.1.4.1.1.88.33 ComprehensiveSRStorage
        5.1.4.1.1.88.34 Comprehensive3DSRStorage
        5.1.4.1.1.88.35 ExtensibleSRStorage
        5.1.4.1.1.88.40 ProcedureLogStorage
        5.1.4.1.1.88.50 MammographyCADSRStorage
        5.1.4.1.1.88.65 ChestCADSRStorage
        5.1.4.1.1.88.67 XRayRadiationDoseSRStorage
        5.1.4.1.1.88.68 RadiopharmaceuticalRadiationDoseSRStorage
        5.1.4.1.1.88.69 ColonCADSRStorage
        5.1.4.1.1.88.70 ImplantationPlanSRStorage
        5.1.4.1.1.88.71 AcquisitionContextSRStorage
        5.1.4.1.1.88.72 SimplifiedAdultEchoSRStorage
        5.1.4.1.1.88.73 PatientRadiationDoseSRStorage
        5.1.4.1.1.88.74 PlannedImagingAgentAdministrationSRStorage
        5.1.4.1.1.88.75 PerformedImagingAgentAdministrationSRStorage
        5.1.4.1.1.88.76 EnhancedXRayRadiationDoseSRStorage
        5.1.4.1.1.88.77 WaveformAnnotationSRStorage
        5.1.4.1.1.90.1 ContentAssessmentResultsStorage
    """,
    "video": """
        5.1.4.1.1.77.1.1.1 VideoEndoscopicImageStorage
        5.1.4.1.1.77.1.2.1 VideoMicroscopicImageStorage
        5.1.4.1.1.77.1.4.1 VideoPhotographicImageStorage
    """,
    "waveform": """
        5.1.4.1.1.9.1 WaveformStorageTrial
        5.1.4.1.1.9.1.1 TwelveLeadECGWaveformStorage
        5.1.4.1.1.9.1.2 GeneralECGWaveformStorage
        5.1.4.1.1.9.1.3 AmbulatoryECGWaveformStorage
        5.1.4.1.1.9.1.4 General32bitECGWaveformStorage
        5.1.4.1.1.9.2.1 HemodynamicWaveformStorage
        5.1.4.1.1.9.3.1 CardiacElectrophysiologyWaveformStorage
        5.1.4.1.1.9.4.1 BasicVoiceAudioWaveformStorage
        5.1.4.1.1.9.4.2 GeneralAudioWaveformStorage
        5.1.4.1.1.9.5.1 ArterialPulseWaveformStorage
        5.1.4.1.1.9.6.1 RespiratoryWaveformStorage
        5.1.4.1.1.9.6.2 MultichannelRespiratoryWaveformStorage
        5.1.4.1.1.9.7.1 RoutineScalpElectroencephalogramWaveformStorage
        5.1.4.1.1.9.7.2 ElectromyogramWaveformStorage
        5.1.4.1.1.9.7.3 ElectrooculogramWaveformStorage
        5.1.4.1.1.9.7.4 SleepElectroencephalogramWaveformStorage
        5.1.4.1.1.9.8.1 BodyPositionWaveformStorage
    """,
}
_TRANSFER_SYNTAXES: Final = """
    1.2 ImplicitVRLittleEndian
    1.2.1 ExplicitVRLittleEndian
    1.2.1.98 EncapsulatedUncompressedExplicitVRLittleEndian
    1.2.1.99 DeflatedExplicitVRLittleEndian
    1.2.2 ExplicitVRBigEndian
    1.2.4.50 JPEGBaseline8Bit
    1.2.4.51 JPEGExtended12Bit
    1.2.4.52 JPEGExtended35
    1.2.4.53 JPEGSpectralSelectionNonHierarchical68
    1.2.4.54 JPEGSpectralSelectionNonHierarchical79
    1.2.4.55 JPEGFullProgressionNonHierarchical1012
    1.2.4.56 JPEGFullProgressionNonHierarchical1113
    1.2.4.57 JPEGLossless
    1.2.4.58 JPEGLosslessNonHierarchical15
    1.2.4.59 JPEGExtendedHierarchical1618
    1.2.4.60 JPEGExtendedHierarchical1719
    1.2.4.61 JPEGSpectralSelectionHierarchical2022
    1.2.4.62 JPEGSpectralSelectionHierarchical2123
    1.2.4.63 JPEGFullProgressionHierarchical2426
    1.2.4.64 JPEGFullProgressionHierarchical2527
    1.2.4.65 JPEGLosslessHierarchical28
    1.2.4.66 JPEGLosslessHierarchical29
    1.2.4.70 JPEGLosslessSV1
    1.2.4.80 JPEGLSLossless
    1.2.4.81 JPEGLSNearLossless
    1.2.4.90 JPEG2000Lossless
    1.2.4.91 JPEG2000
    1.2.4.92 JPEG2000MCLossless
    1.2.4.93 JPEG2000MC
    1.2.4.94 JPIPReferenced
    1.2.4.95 JPIPReferencedDeflate
    1.2.4.100 MPEG2MPML
    1.2.4.100.1 MPEG2MPMLF
    1.2.4.101 MPEG2MPHL
    1.2.4.101.1 MPEG2MPHLF
    1.2.4.102 MPEG4HP41
    1.2.4.102.1 MPEG4HP41F
    1.2.4.103 MPEG4HP41BD
    1.2.4.103.1 MPEG4HP41BDF
    1.2.4.104 MPEG4HP422D
    1.2.4.104.1 MPEG4HP422DF
    1.2.4.105 MPEG4HP423D
    1.2.4.105.1 MPEG4HP423DF
    1.2.4.106 MPEG4HP42STEREO
    1.2.4.106.1 MPEG4HP42STEREOF
    1.2.4.107 HEVCMP51
    1.2.4.108 HEVCM10P51
    1.2.4.201 HTJ2KLossless
    1.2.4.202 HTJ2KLosslessRPCL
    1.2.4.203 HTJ2K
    1.2.4.204 JPIPHTJ2KReferenced
    1.2.4.205 JPIPHTJ2KReferencedDeflate
    1.2.5 RLELossless
"""
# Names that say more than the keyword does.
_LONG_NAMES: Final = {
    "JPEG-LS Lossless Image Compression": "JPEGLSLossless",
    "JPEG 2000 Image Compression (Lossless Only)": "JPEG2000Lossless",
    "High-Throughput JPEG 2000 Image Compression (Lossless Only)": "HTJ2KLossless",
}
# Groups of Transfer Syntaxes by patterns of keywords (PS3.5 Annex A).
_TRANSFER_SYNTAX_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "uncompressed": (
        "ImplicitVRLittleEndian",
        "ExplicitVRLittleEndian",
        "EncapsulatedUncompressedExplicitVRLittleEndian",
        "DeflatedExplicitVRLittleEndian",
        "ExplicitVRBigEndian",
    ),
    "any_jpeg": ("JPEG(?!LS|2000).*",),
    "any_jpegls": ("JPEGLS.*",),
    "any_jpeg2000": ("JPEG2000.*",),
    "any_htj2k": ("HTJ2K.*",),
    "rle": ("RLELossless",),
    "video": ("MPEG.*", "HEVC.*"),
}


@lru_cache(maxsize=1024)
def sop_class_uids(name: str) -> tuple[str, ...]:
    """The UIDs that the name of a SOP Class or category stands for.

    Raises: ValueError with the nearest right name.
    """
    return _resolve(name, _sop_classes(), "SOP Class or category")


@lru_cache(maxsize=1024)
def transfer_syntax_uids(name: str) -> tuple[str, ...]:
    """The UIDs that the name of a Transfer Syntax or group stands for.

    Raises: ValueError with the nearest right name.
    """
    return _resolve(name, _transfer_syntaxes(), "Transfer Syntax")


def transfer_syntax_keyword(uid: str) -> str:
    """The keyword of a Transfer Syntax; the UID itself where it is none of the Standard's."""
    return next((keyword for found, keyword in _rows(_TRANSFER_SYNTAXES) if found == uid), uid)


def _resolve(name: str, known: Mapping[str, tuple[str, ...]], what: str) -> tuple[str, ...]:
    if len(name) <= 64 and _UID.fullmatch(name):
        return (name,)
    found = known.get(_plain(name)) or known.get(_plain(name).removesuffix("storage"))
    if found is None:
        hint = nearest(_plain(name), known)
        raise ValueError(f"{name[:100]!r} is no {what}" + (f"; {hint}" if hint else ""))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _rows(table: str) -> Iterable[tuple[str, str]]:
    for line in table.split("\n"):
        if line.strip():
            uid, keyword = line.split()
            yield _ROOT + uid, keyword


@lru_cache(maxsize=1)
def _sop_classes() -> Mapping[str, tuple[str, ...]]:
    known: dict[str, tuple[str, ...]] = {}
    for category, table in _SOP_CLASSES.items():
        rows = list(_rows(table))
        known[_plain(category)] = tuple(uid for uid, _ in rows)
        for uid, keyword in rows:
            known[keyword.lower()] = known[keyword.lower().removesuffix("storage")] = (uid,)
    known["seg"] = known["segmentation"]
    known["pr"] = known["presentationstate"]
    known["ko"] = known["keyobject"]
    return known


@lru_cache(maxsize=1)
def _transfer_syntaxes() -> Mapping[str, tuple[str, ...]]:
    rows = list(_rows(_TRANSFER_SYNTAXES))
    known: dict[str, tuple[str, ...]] = {keyword.lower(): (uid,) for uid, keyword in rows}
    for group, patterns in _TRANSFER_SYNTAX_GROUPS.items():
        members = tuple(
            uid
            for uid, keyword in rows
            if any(re.fullmatch(pattern, keyword) for pattern in patterns)
        )
        known[_plain(group)] = members
    known.update({_plain(name): known[keyword.lower()] for name, keyword in _LONG_NAMES.items()})
    uncompressed = set(known["uncompressed"])
    known["compressed"] = tuple(uid for uid, _ in rows if uid not in uncompressed)
    return known
