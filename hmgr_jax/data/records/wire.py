"""Where a feature's bytes lie in a serialised ``tf.train.Example``: no copy, unlike a parser's.

An Example is field 1, Features, whose entries (field 1) are pairs of a name (field 1) and a Feature
(field 2); a list of bytes is field 1 of a Feature, its values field 1 of that. All of them are
written with a length before them; see developers.google.com/protocol-buffers/docs/encoding.
"""

from __future__ import annotations

_FIRST, _SECOND = 0x0A, 0x12  # fields 1 and 2, with a length


def locate(record: bytes, name: bytes) -> tuple[int, int] | None:
    """(offset, size) of the first bytes of feature ``name``; None where it is not found so."""
    try:
        size, at = _enter(record, 0, _FIRST)
        end = at + size
        while at < end:
            size, at = _enter(record, at, _FIRST)
            after = at + size
            size, at = _enter(record, at, _FIRST)
            if record[at : at + size] == name:
                _, at = _enter(record, at + size, _SECOND)
                _, at = _enter(record, at, _FIRST)
                size, at = _enter(record, at, _FIRST)
                return (at, size) if at + size <= after <= len(record) else None
            at = after
    except (IndexError, ValueError):
        pass
    return None


def _enter(record: bytes, at: int, field: int) -> tuple[int, int]:
    """(length, offset) of what is in the field that begins at ``at``."""
    if record[at] != field:
        raise ValueError(f"no field {field >> 3} at byte {at}")
    value = shift = 0
    while True:
        at += 1
        part = record[at]
        value |= (part & 0x7F) << shift
        if part < 0x80:
            return value, at + 1
        shift += 7
