"""Character sets: what we encode, pydicom and we ourselves decode to the same text."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, decode_bytes

from shared.dicom.character_sets import character_set, is_defined_term

DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C}
REPERTOIRES = [
    ((), ""),
    (("ISO_IR 100",), "äöüßéÅ"),
    (("ISO_IR 101",), "čěšřžŁ"),
    (("ISO_IR 109",), "ħĝĉĜ"),
    (("ISO_IR 110",), "ąķļģņ"),
    (("ISO_IR 126",), "αβγΩΔ"),
    (("ISO_IR 127",), "قباني"),
    (("ISO_IR 138",), "שרון"),
    (("ISO_IR 144",), "Люкceмбypг"),
    (("ISO_IR 148",), "çğıİöş"),
    (("ISO_IR 166",), "นามสกุล"),
    (("ISO_IR 13",), "ﾔﾏﾀﾞﾀﾛｳ"),
    (("ISO_IR 192",), "山田ä김희중😀"),
    (("GB18030",), "王小东😀"),
    (("GBK",), "王小東"),
    (("", "ISO 2022 IR 87"), "山田太郎やまだ"),
    (("ISO 2022 IR 13", "ISO 2022 IR 87"), "ﾔﾏﾀﾞ山田太郎"),
    (("", "ISO 2022 IR 87", "ISO 2022 IR 159"), "山田俟俠"),
    (("", "ISO 2022 IR 149"), "김희중洪吉洞"),
    (("ISO 2022 IR 100", "ISO 2022 IR 144"), "éäЛюк"),
    (("ISO 2022 IR 6", "ISO 2022 IR 100", "ISO 2022 IR 126"), "éαä"),
]
ids = ["+".join(terms) or "default" for terms, _ in REPERTOIRES]


def decoded_by_pydicom(raw: bytes, terms: tuple[str, ...]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_bytes(raw, convert_encodings(list(terms)), DELIMITERS)


@pytest.mark.parametrize(("terms", "letters"), REPERTOIRES, ids=ids)
@given(data=st.data())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_text_survives(terms: tuple[str, ...], letters: str, data: st.DataObject) -> None:
    """Names with component delimiters too, after which the sets start anew."""
    text = data.draw(st.text(alphabet=letters + "AZaz 09^=", max_size=24))
    raw = character_set(terms).encode(text)
    assert character_set(terms).decode(raw) == text
    assert character_set(terms).decode_strictly(raw) == text
    assert decoded_by_pydicom(raw, terms) == text


@pytest.mark.parametrize(("terms", "letters"), REPERTOIRES, ids=ids)
@given(raw=st.binary(max_size=30))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_any_bytes_become_some_text(terms: tuple[str, ...], letters: str, raw: bytes) -> None:
    assert isinstance(character_set(terms).decode(raw), str)


def test_the_example_of_the_standard() -> None:
    """PS3.5 H.3.1: each component group switches back before its delimiters."""
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert character_set(("", "ISO 2022 IR 87")).encode(name) == (
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
    )


def test_the_korean_example_of_the_standard() -> None:
    """PS3.5 I.2."""
    name = "Hong^Gildong=洪^吉洞=홍^길동"
    assert character_set(("", "ISO 2022 IR 149")).encode(name) == (
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"
        b"=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
    )


@pytest.mark.parametrize(
    ("terms", "text"),
    [((), "é"), (("ISO_IR 100",), "山"), (("ISO_IR 13",), "山"), (("", "ISO 2022 IR 87"), "é")],
)
def test_what_a_set_lacks_is_not_encoded(terms: tuple[str, ...], text: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        character_set(terms).encode(text)


def test_common_misspellings_are_understood() -> None:
    assert character_set(("ISO-IR 100",)) == character_set(("ISO_IR 100",))
    assert character_set(("ISO IR 192",)) == character_set(("ISO_IR 192",))
    assert character_set(("ISO-2022-IR-87",)).codecs == ("iso2022_jp",)
    assert character_set(("NONSENSE",)) == character_set(())


@pytest.mark.parametrize(
    ("terms", "right"),
    [
        (("ISO_IR 100",), True),
        (("ISO_IR 192",), True),
        (("", "ISO 2022 IR 87"), True),
        (("ISO 2022 IR 6", "ISO 2022 IR 100"), True),
        (("ISO_IR 100", "ISO_IR 144"), False),
        (("ISO_IR 6",), True),
        (("utf8",), False),
        (("ISO 2022 IR 87", ""), False),
    ],
)
def test_defined_terms(terms: tuple[str, ...], right: bool) -> None:
    claims = [is_defined_term(term, i, len(terms)) for i, term in enumerate(terms)]
    assert all(claims) == right
