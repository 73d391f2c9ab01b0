"""Compile Body Part Examined (PS3.16 Annex L) from the table that highdicom carries.

    python -m infra.vocabularies.body_part_examined anatomic_regions.json

The argument is `highdicom/_standard/anatomic_regions.json` of an unpacked highdicom wheel
(MIT licence). Run it again when the edition below changes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

EDITION = "PS3.16 Annex L, highdicom 0.28.0"
SOURCE = (
    "DICOM PS3.16 Annex L (Correspondence of Anatomic Region Codes and Body Part Examined "
    "Defined Terms), from the table in highdicom 0.28.0 (MIT licence)"
)
# Defined Terms that PS3.3 named before Annex L: still legal where they are found, never proposed.
RETIRED = {"ARM": "Arm", "LEG": "Leg"}

TARGET = Path(__file__).parents[2] / "shared/standardize/data/body_part_examined.json"


def main() -> None:
    """Write the vocabulary; the argument is the file of regions."""
    regions = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    terms = [
        {"term": term, "scheme": scheme, "code": code, "meaning": meaning, "paired": paired}
        for term, (scheme, code, meaning, paired) in sorted(regions.items())
        if term not in RETIRED
    ]
    terms += [
        {"term": term, "meaning": meaning, "retired": True} for term, meaning in RETIRED.items()
    ]
    lines = ",\n    ".join(json.dumps(term, ensure_ascii=False) for term in terms)
    TARGET.write_text(
        "{\n"
        '  "name": "body-part-examined",\n'
        f'  "edition": {json.dumps(EDITION)},\n'
        f'  "source": {json.dumps(SOURCE)},\n'
        f'  "terms": [\n    {lines}\n  ]\n'
        "}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
