"""Text from files on a terminal, without the control sequences that it may hold."""

from __future__ import annotations

_CONTROLS = (
    *range(0x20),
    *range(0x7F, 0xA0),
    *(0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # lines, directions
    *range(0xD800, 0xE000),  # bytes that are no text
)
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}" for code in _CONTROLS}


def escape_controls(text: str) -> str:
    r"""Escape the control characters of ``text``, such as ``\x1b``.

    A caption, an id or a name of a file could otherwise clear the screen, set its title or reverse
    what follows. Escapes are valid in JSON that `json.dumps` returned.
    """
    return text.translate(_ESCAPES)
