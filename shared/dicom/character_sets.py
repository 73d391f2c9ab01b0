"""Text in the character sets that Specific Character Set (0008,0005) names (PS3.5 6.1, PS3.3
C.12.1.1.2), code extensions by ISO 2022 escape sequences included.

Reading forgives what real files get wrong, as pydicom does; writing does not.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from msgspec import Struct

UTF_8: Final = "ISO_IR 192"


class CharacterSet(Struct, frozen=True):
    """The meaning of one value of Specific Character Set: Python codecs, the initial one first."""

    codecs: tuple[str, ...]

    def decode(self, raw: bytes) -> str:
        """The text; bytes that mean nothing here become U+FFFD."""
        return self._decode(raw, "replace")

    def decode_strictly(self, raw: bytes) -> str:
        """The text. Raises: UnicodeDecodeError."""
        return self._decode(raw, "strict")

    def encode(self, text: str) -> bytes:
        """The text with escape sequences where the set has them. Raises: UnicodeEncodeError."""
        if text.isascii():
            if "\x1b" in text:
                raise UnicodeEncodeError("dicom", text, 0, len(text), "ESC is no text")
            return text.encode("ascii")
        first = self.codecs[0]
        if len(self.codecs) == 1 and first not in _CODE_ELEMENTS:
            return text.encode("ascii" if first == _DEFAULT else first)
        # Each delimiter resets to the initial sets (PS3.5 6.1.2.5.3), so each part stands alone.
        out = bytearray()
        for part in re.split(r"([\\^=\t\n\f\r])", text):
            # Readers that do not reset at `^` still read it right if the set is named again.
            is_after_escape = _ESC in out
            out += self._encode_part(part, is_after_escape)
        return bytes(out)

    def _decode(self, raw: bytes, errors: str) -> str:
        if _ESC not in raw:
            return raw.decode(self.codecs[0], errors)
        return "".join(self._decode_fragment(f, errors) for f in _FRAGMENT.findall(raw))

    def _decode_fragment(self, fragment: bytes, errors: str) -> str:
        """`fragment` has an escape sequence at its start or none."""
        first = self.codecs[0]
        if not fragment.startswith(_ESC):
            return fragment.decode(first, errors)
        escape = fragment[: 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3]
        codec = _CODEC_BY_ESCAPE.get(escape)
        if codec is None or (codec not in self.codecs and codec != _DEFAULT):
            if errors == "strict":
                raise UnicodeDecodeError("dicom", fragment, 0, len(escape), "unknown escape")
            return fragment.decode(first, errors)
        if codec in _CODECS_THAT_ESCAPE:
            return fragment.decode(codec, errors)
        fragment = fragment[len(escape) :]
        end = _DELIMITER.search(fragment)
        if end is None:
            return fragment.decode(codec, errors)
        at = end.start()
        return fragment[:at].decode(codec, errors) + fragment[at:].decode(first, errors)

    def _encode_part(self, part: str, is_after_escape: bool) -> bytes:
        """Encode text without delimiters, leaving the initial sets in use at its end.

        Whatever a reader makes of G0 and G1, each run of characters follows the escape sequence
        of its own set, or none if that is the initial one.
        """
        back = _ROMAJI_G0 if self.codecs[0] == "shift_jis" else _ASCII_G0
        current = "" if is_after_escape else self.codecs[0]
        out = bytearray()
        for position, char in enumerate(part):
            if char.isascii():
                if current in _CODECS_THAT_ESCAPE:
                    out += back
                    current = _CODEC_BY_ESCAPE[back]
                out += char.encode("ascii")
                continue
            for codec in (current, *self.codecs):
                element = _CODE_ELEMENTS.get(codec)
                code = element.code(char) if element else None
                if element is not None and code is not None:
                    break
            else:
                raise UnicodeEncodeError("dicom", part, position, position + 1, "not in the set")
            if codec != current:
                out += element.escape
                current = codec
            out += code
        if current in _CODECS_THAT_ESCAPE:
            out += back
        return bytes(out)


@lru_cache(maxsize=256)
def character_set(terms: tuple[str, ...]) -> CharacterSet:
    """The set that these Values of Specific Character Set name; none means ASCII.

    Common misspellings are understood (`ISO-IR 100`); what is not counts as the default.
    """
    if not terms:
        return DEFAULT
    found = [_codec(term, position) for position, term in enumerate(terms)]
    if terms[0] in _STAND_ALONE:
        return CharacterSet((found[0],))
    kept = [c for t, c in zip(terms[1:], found[1:], strict=True) if t not in _STAND_ALONE]
    return CharacterSet((found[0], *kept))


def is_defined_term(term: str, position: int, count: int) -> bool:
    """True if PS3.3 C.12.1.1.2 has this Value at this place among `count` Values."""
    if not term:
        return position == 0
    if term in _STAND_ALONE or term.startswith("ISO_IR"):
        return count == 1 and term in _CODECS
    return term in _CODECS and term.startswith("ISO 2022 IR")


_ESC: Final = b"\x1b"
_DEFAULT: Final = "iso8859"  # Latin-1 in reading: so many files forget to name it
DEFAULT: Final = CharacterSet((_DEFAULT,))
_ASCII_G0: Final = b"\x1b(B"
_ROMAJI_G0: Final = b"\x1b(J"
_FRAGMENT: Final = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_DELIMITER: Final = re.compile(rb"[\\\n\r\t\f]")
_STAND_ALONE: Final = frozenset(("ISO_IR 192", "GBK", "GB18030"))

_CODEC_BY_NUMBER: Final = {
    "6": _DEFAULT,
    "13": "shift_jis",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "166": "iso8859_11",
    "203": "iso8859_15",
}
_CODECS: Final = {
    **{f"ISO_IR {number}": codec for number, codec in _CODEC_BY_NUMBER.items()},
    **{f"ISO 2022 IR {number}": codec for number, codec in _CODEC_BY_NUMBER.items()},
    "ISO 2022 IR 58": "gb2312",
    "ISO 2022 IR 87": "iso2022_jp",
    "ISO 2022 IR 149": "euc_kr",
    "ISO 2022 IR 159": "iso2022_jp_2",
    UTF_8: "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO 2022 GBK": "gbk",
    "ISO 2022 58": "gb2312",
}
_CODEC_BY_ESCAPE: Final = {
    _ASCII_G0: _DEFAULT,
    _ROMAJI_G0: "shift_jis",
    b"\x1b)I": "shift_jis",
    b"\x1b-A": "latin_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "iso8859_11",
    b"\x1b-b": "iso8859_15",
    b"\x1b$B": "iso2022_jp",
    b"\x1b$(D": "iso2022_jp_2",
    b"\x1b$)C": "euc_kr",
    b"\x1b$)A": "gb2312",
}
# Python's codecs for these read and write the escape sequences themselves.
_CODECS_THAT_ESCAPE: Final = ("iso2022_jp", "iso2022_jp_2")


class _CodeElement(Struct, frozen=True):
    """One set that an escape sequence calls (PS3.3 tables C.12-3, C.12-4)."""

    codec: str
    escape: bytes

    def code(self, char: str) -> bytes | None:
        """The character's bytes in this set, None if it has none."""
        try:
            code = char.encode(self.codec)
            if code.decode(self.codec) != char:
                return None
        except UnicodeError:
            return None
        if self.codec in _CODECS_THAT_ESCAPE:
            # iso2022_jp writes other sets too, each with its own escape sequence.
            return code[len(self.escape) : -3] if code.startswith(self.escape) else None
        if self.codec == "shift_jis" and len(code) != 1:
            return None  # IR 13 has half-width katakana alone
        return code if min(code) >= 0x80 else None


_CODE_ELEMENTS: Final = {
    codec: _CodeElement(codec, escape)
    for escape, codec in _CODEC_BY_ESCAPE.items()
    if codec != _DEFAULT and escape != _ROMAJI_G0
}


def _codec(term: str, position: int) -> str:
    known = _CODECS.get(term)
    if known is not None:
        return known
    if not term:
        return _DEFAULT
    spelling = re.fullmatch(r"ISO(.2022.IR.|.IR.?)(\d+)", term)
    if spelling is not None:
        prefix = "ISO 2022 IR " if "2022" in spelling[1] else "ISO_IR "
        return _CODECS.get(prefix + spelling[2], _DEFAULT)
    return _python_codec(term) or _DEFAULT


def _python_codec(name: str) -> str | None:
    """Some writers put their own codec's name: `iso8859-1`."""
    if not re.fullmatch(r"[A-Za-z0-9_\- ]{1,16}", name):
        return None
    try:
        info = codecs.lookup(name)
    except LookupError:
        return None
    return info.name if info._is_text_encoding else None


def terms_of(values: Iterable[object]) -> tuple[str, ...]:
    """Values of Specific Character Set as terms."""
    return tuple(str(value).strip() for value in values)
