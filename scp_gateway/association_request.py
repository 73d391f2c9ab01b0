"""What real requestors get wrong in an A-ASSOCIATE-RQ, put right before pynetdicom reads it.

pynetdicom aborts where PS3.8 9.3.1 says to ignore: on Items of an unrecognized type. It also does
on AE Titles padded with NUL and on an Implementation Version Name that is too long, which devices
in the field send; neither is worth turning Instances away.
"""

from __future__ import annotations

from collections.abc import Iterator

_FIXED_BYTES = 74  # PDU header, protocol version, AE Titles, reserved (PS3.8 Table 9-11)
_AE_TITLES = slice(10, 42)
_ITEM_HEADER_BYTES = 4

_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_IMPLEMENTATION_VERSION_NAME = 0x55
_ITEMS = frozenset({_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION})
# PS3.7 D.3.3: maximum length to user identity.
_USER_SUB_ITEMS = frozenset(range(0x51, 0x5A))


def put_right(request: bytes | bytearray) -> bytes:
    """The same A-ASSOCIATE-RQ PDU, header included, as pynetdicom can read it.

    One that is malformed in another way comes back as it is.
    """
    if len(request) < _FIXED_BYTES:
        return bytes(request)
    try:
        items = b"".join(_kept_items(request[_FIXED_BYTES:]))
    except ValueError:
        return bytes(request)
    fixed = bytearray(request[:_FIXED_BYTES])
    fixed[_AE_TITLES] = bytes(map(_ae_title_byte, fixed[_AE_TITLES]))
    fixed[2:6] = (len(fixed) - 6 + len(items)).to_bytes(4, "big")
    return bytes(fixed) + items


def _kept_items(data: bytes | bytearray) -> Iterator[bytes]:
    for kind, item in _items(data):
        if kind == _USER_INFORMATION:
            body = b"".join(
                sub_item
                for sub_kind, sub_item in _items(item[_ITEM_HEADER_BYTES:])
                if sub_kind in _USER_SUB_ITEMS and _is_readable(sub_kind, sub_item)
            )
            yield item[:2] + len(body).to_bytes(2, "big") + body
        elif kind in _ITEMS:
            yield item


def _items(data: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        item = bytes(data[position : position + _ITEM_HEADER_BYTES + length])
        if len(item) < _ITEM_HEADER_BYTES + length:
            raise ValueError("an Item is cut short")
        yield item[0], item
        position += len(item)


def _is_readable(kind: int, sub_item: bytes) -> bool:
    # The name is optional and only informs: it may as well be left out.
    name = sub_item[_ITEM_HEADER_BYTES:]
    return kind != _IMPLEMENTATION_VERSION_NAME or bool(
        len(name) <= 16 and name.strip() and all(_ae_title_byte(b) == b for b in name)
    )


def _ae_title_byte(byte: int) -> int:
    if byte == 0:
        return ord(" ")
    return byte if ord(" ") <= byte <= ord("~") and byte != ord("\\") else ord("?")
