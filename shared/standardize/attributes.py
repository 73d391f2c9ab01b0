"""Which Attributes may be standardised and looked at: none of them says who the patient is."""

from __future__ import annotations

from typing import Final

# Attributes with a vocabulary of the Standard, which is used unless the site names its own.
WITH_VOCABULARY: Final = (
    "BodyPartExamined",
    "Laterality",
    "ImageLaterality",
    "ViewPosition",
    "Modality",
    "PatientPosition",
)
DESCRIPTIONS: Final = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
LOOKED_AT: Final = (
    *WITH_VOCABULARY,
    *DESCRIPTIONS,
    "ImageType",
    "ScanningSequence",
    "SequenceVariant",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "Manufacturer",
    "ManufacturerModelName",
    "PatientOrientation",
    "SliceThickness",
    "AcquisitionContrast",
)
DEFAULT_CONTEXT: Final = (
    "Modality",
    "BodyPartExamined",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
)
# Of an Image, not of its Series: two Instances of a Series may rightly differ in them.
OF_THE_IMAGE: Final = frozenset({"ImageLaterality", "ViewPosition"})
