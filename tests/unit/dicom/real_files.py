"""Real DICOM files: those in pydicom's wheel, and the corpus if it is beside the repository."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pydicom.data

from shared.dicom.header import Header
from shared.errors import AxiomError

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "files"
WHEEL = Path(pydicom.data.__file__).parent / "test_files"


@lru_cache(maxsize=1)
def real_files() -> tuple[Path, ...]:
    """Every file, DICOM or not, in a fixed order."""
    return tuple(
        path
        for root in (WHEEL, CORPUS)
        if root.is_dir()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in (".py", ".md", ".txt", ".zip", ".gz")
    )


@lru_cache(maxsize=1)
def readable_files() -> tuple[Path, ...]:
    """Those with a Header that can be walked to its end."""
    return tuple(path for path in real_files() if _is_readable(path))


def name_of(path: Path) -> str:
    """A short name that tells the two places apart."""
    root = CORPUS if path.is_relative_to(CORPUS) else WHEEL.parent
    return str(path.relative_to(root))


def header_of(path: Path) -> Header:
    """The Header of a whole file in memory."""
    data = path.read_bytes()
    return Header.parse(data, file_size=len(data))


def _is_readable(path: Path) -> bool:
    try:
        for _ in header_of(path).walk():
            pass
    except AxiomError:
        return False
    return True
