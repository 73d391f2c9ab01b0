"""Column values as the text that an Attribute takes."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID


def text_of(value: Any) -> str | None:
    """Dates and times in DICOM's form (PS3.5 6.2: DA, TM, DT), numbers in decimal, None for NULL.

    Raises: ValueError, without the value, for a type that has no text.
    """
    match value:
        case None | str():
            return value
        case bool():
            return "1" if value else "0"
        case int() | UUID():
            return str(value)
        case float():
            return f"{value:.15g}"
        case Decimal():
            return f"{value:f}"
        case datetime():
            fraction = f".{value:%f}" if value.microsecond else ""
            return f"{value:%Y%m%d%H%M%S}{fraction}{value:%z}"
        case date():
            return f"{value:%Y%m%d}"
        case time():
            return f"{value:%H%M%S}" + (f".{value:%f}" if value.microsecond else "")
        case bytes():
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError("a binary column has no text") from None
    raise ValueError(f"a column of type {type(value).__name__} has no text")
