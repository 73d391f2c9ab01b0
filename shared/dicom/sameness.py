"""What makes two files the same Instance: their data set in its Transfer Syntax.

File Meta Information names who wrote or sent the file (PS3.10 7.1), and Data Set Trailing Padding
has no meaning (PS3.10 7.2): systems drop or add either on the way.
"""

from __future__ import annotations

from array import array
from functools import cache
from typing import Final

from crc32c import crc32c

from shared.dicom.header import Header
from shared.ports import ObjectReader

DATA_SET_TRAILING_PADDING: Final = 0xFFFCFFFC

# The polynomial of CRC-32C and 1 and x, as remainders: bit 31 holds the coefficient of x^0.
_POLYNOMIAL: Final = 0x82F63B78
_ONE: Final = 1 << 31
_X: Final = 1 << 30


def data_set_mark(
    header: Header, reader: ObjectReader, *, file_crc32c: int, padding_start: int | None
) -> str:
    """Equal for files with equal data sets in the same Transfer Syntax. `padding_start` is where
    padding begins that reaches to the end of the file, None if there is none.

    Reads the file only if there is padding: else the CRC of the file tells that of its data set.
    """
    meta_end = header.meta_end
    if padding_start is None:
        size = reader.size - meta_end
        crc = file_crc32c ^ followed_by(crc32c(header.data[:meta_end]), size)
    else:
        size, crc = padding_start - meta_end, 0
        for piece in reader.stream(meta_end, size):
            crc = crc32c(piece, crc)
    return f"{header.transfer_syntax_uid}:{size}:{crc:08x}"


def padding_of_header(header: Header, size: int) -> int | None:
    """Where trailing padding begins in a file of that size that ends with its header."""
    entry = header.data_set.entries.get(DATA_SET_TRAILING_PADDING)
    if entry is None or header.is_deflated or header.body_offset != size:
        return None
    start, _, end, _ = entry
    return start if end == size else None


def followed_by(crc: int, size: int) -> int:
    """What a CRC-32C contributes to that of the same bytes with `size` more of them behind."""
    for exponent in range(size.bit_length()):
        if size >> exponent & 1:
            table = _table(exponent)
            crc = (
                table[crc & 0xFF]
                ^ table[0x100 | crc >> 8 & 0xFF]
                ^ table[0x200 | crc >> 16 & 0xFF]
                ^ table[0x300 | crc >> 24]
            )
    return crc


@cache
def _table(exponent: int) -> array[int]:
    """What 2^exponent more bytes make of each of the four bytes of a CRC, which is linear."""
    power = _X
    for _ in range(exponent + 3):  # x to the 8th is a byte
        power = _product(power, power)
    of_bits = [_product(power, 1 << bit) for bit in range(32)]
    table = array("L")
    for first_bit in range(0, 32, 8):
        start = len(table)
        table.append(0)
        for value in range(1, 256):
            lowest = (value & -value).bit_length() - 1
            rest = value & (value - 1)
            table.append(table[start + rest] ^ of_bits[first_bit + lowest])
    return table


def _product(a: int, b: int) -> int:
    """a * b modulo the polynomial."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
