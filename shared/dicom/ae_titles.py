"""What may be an AE Title."""

from __future__ import annotations

import re


def checked_ae_title(text: str) -> str:
    """`text` without the spaces around it, which do not count (PS3.5 6.2, VR AE).

    Raises: ValueError, with a sentence for a person.
    """
    if not text.strip() or len(text) > 16 or not re.fullmatch(r"[ -\[\]-~]+", text):
        raise ValueError("an AE Title has 1 to 16 printable ASCII characters without backslash")
    return text.strip()
