"""Words of a description as they are compared: folded case, no accents, split where they differ."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Letters that NFKD leaves alone, as people write them on keyboards that lack them.
_PLAIN = str.maketrans(
    {
        "ß": "ss",
        "ł": "l",
        "ø": "o",
        "æ": "ae",
        "œ": "oe",
        "đ": "d",
        "\u0131": "i",
        "þ": "th",
        "ð": "d",
    }
)
_UMLAUTS = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "Ä": "AE",
        "Ö": "OE",
        "Ü": "UE",
        "ø": "oe",
        "å": "aa",
        "Ø": "OE",
        "Å": "AA",
    }
)
_CAMEL = re.compile(r"(?<=[a-zà-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])")
_DOTTED = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.){2,}(?:[^\W\d_](?![^\W_]))?")
_SPACED = re.compile(r"(?<!\S)(?:[^\W\d_] ){3,}[^\W\d_](?!\S)")
_WORD = re.compile(r"[^\W\d_]+(?:[?\ufffd][^\W\d_]+)*|\d+")
# Scripts that are written without spaces between words.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def fold(text: str) -> str:
    """`text` without case and accents; letters with a stroke become the plain letter."""
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_PLAIN))
    bare = "".join(one for one in decomposed if not unicodedata.combining(one))
    return unicodedata.normalize("NFC", bare)


def spelled_without_umlauts(text: str) -> str:
    """`text` with ae, oe and ue for the umlauts, and aa for the a with a ring."""
    return unicodedata.normalize("NFC", text).translate(_UMLAUTS)


@lru_cache(maxsize=8192)
def words(text: str) -> tuple[str, ...]:
    """The folded words and numbers of `text`.

    `CTAbdomen` is two words, `I.A.C.` and `L I V E R` are one. A `?` inside a word stays: there
    stood a letter that some system could not encode.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _DOTTED.sub(lambda found: found[0].replace(".", "") + " ", text)
    text = _SPACED.sub(lambda found: found[0].replace(" ", ""), text)
    return tuple(_WORD.findall(fold(_CAMEL.sub(" ", text))))


def is_unspaced(word: str) -> bool:
    """True if the word's script has no spaces, so that it may be several words."""
    return _UNSPACED.search(word) is not None
