"""What a provider is asked about an Instance: a raw value, its context, and what it may not see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from shared.dicom import dictionary
from shared.dicom.header import Header
from shared.dicom.values import as_text
from shared.standardize.attributes import LOOKED_AT
from shared.standardize.proposals import Question
from shared.standardize.text import spelled_without_umlauts, words

_MAX_LENGTH: Final = 1_024  # of one text; a description of the Standard has 64 characters
_MAX_WORDS: Final = 20_000
# Where people and numbers of the hospital are named: who it is, who ordered it, where it was done.
_TELLING_GROUPS: Final = frozenset({0x0008, 0x0010, 0x0012, 0x0020, 0x0032, 0x0038, 0x0040, 0x4008})
_TELLING_VRS: Final = frozenset({"SH", "LO", "LT", "ST", "UT", "UC", "DA", "DT", "AE", "UI"})
_DEVICE_SERIAL_NUMBER: Final = 0x00181000


def question_about(header: Header, attribute: str, context: Iterable[str]) -> Question:
    """The question, without what identifies: that is asked of the header only if it is needed."""
    found = {keyword: _text(header, keyword) for keyword in context if keyword != attribute}
    told = {keyword: text for keyword, text in found.items() if text}
    return Question(attribute, _text(header, attribute), told)


def identifying_words(header: Header) -> frozenset[str]:
    """The folded words of every Value that may name somebody, an Item's included."""
    found: set[str] = set()
    for path, element in header.walk():
        if element.vr != "PN" and not _may_tell(path.last.tag, element.vr):
            continue
        try:
            values = header.values(path) or ()
        except ValueError:
            continue
        for value in values:
            if not isinstance(value, bytes):
                found.update(_words(as_text(value)))
        if len(found) > _MAX_WORDS:
            break
    return frozenset(found)


def _words(text: str) -> Iterator[str]:
    # Müller is Mueller to others.
    for spelt in {text[:_MAX_LENGTH], spelled_without_umlauts(text[:_MAX_LENGTH])}:
        yield from words(spelt)
        # As it stands, too: MARIA-LUISE, O'NEIL and A12B are one word to others.
        yield from ("".join(words(part)) for part in spelt.replace("^", " ").split())
        # Where names have no space between them.
        yield from ("".join(words(group)) for group in spelt.split("=") if "^" in group)


def _may_tell(tag: int, vr: str) -> bool:
    if tag == _DEVICE_SERIAL_NUMBER:
        return True
    is_told = tag >> 16 in _TELLING_GROUPS and vr in _TELLING_VRS
    return is_told and tag not in _looked_at()


@lru_cache(maxsize=1)
def _looked_at() -> frozenset[int]:
    return frozenset(filter(None, map(dictionary.tag_for_keyword, LOOKED_AT)))


def _text(header: Header, keyword: str) -> str:
    try:
        return (header.text(keyword) or "")[:_MAX_LENGTH]
    except ValueError:
        return ""  # a Sequence where there should be text
