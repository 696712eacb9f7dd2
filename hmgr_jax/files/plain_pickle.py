"""Pickles read without importing or calling anything that they name.

A name is looked up in a table of stand-ins that only hold data; any other name is refused. Python's
unpickler in Python is used: the one in C can be made to allocate any amount of memory.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from hmgr_jax.errors import UserError, reason

KEYS = (str, bytes, int, float, bool, type(None))
"""Types of keys and members of sets. Nested tuples overflow the stack where they are hashed, and
take for ever where they share their parts."""


class Stream(Protocol):
    """An open file or memory map; ``read`` never allocates more bytes than there are."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""

    def readline(self) -> bytes:
        """The next line."""


def load_pickle(
    data: bytes | Stream,
    where: str,
    known: Mapping[tuple[str, str], Any],
    persistent: Callable[[Any], Any] | None = None,
    advice: str = "get the file again.",
) -> Any:
    """Read a pickled object of plain values and of ``known``.

    Args:
        data: the pickle, or a stream positioned at its beginning.
        where: the file, for messages.
        known: {(module, name): stand-in}. Stand-ins have ``__setstate__`` or no attributes, or a
            pickle could change them for the next one; they allocate no more than they are given.
        persistent: returns the object of a persistent id; its errors mean a damaged pickle.
        advice: the end of the sentence for a name that is not known.

    Raises:
        UserError: the pickle names anything else, or is damaged.
    """
    try:
        return _Unpickler(data, where, known, persistent, advice).load()
    except UserError:
        raise
    except Exception as error:  # damaged bytes can raise anything
        raise UserError(
            f"{where} holds a pickle that cannot be read ({type(error).__name__}: "
            f"{reason(error)}): it is cut short or damaged, get the file again."
        ) from None


def plain_keys(keys: Any) -> Any:
    """Return ``keys``; ValueError unless all are of `KEYS`."""
    if not all(type(key) in KEYS for key in keys):
        raise ValueError("a key is neither text nor a number")
    return keys


def used_up(items: Any) -> list[Any]:
    """The members of a list, which is empty then.

    A pickle can hand one long list to very many calls, of which each would keep a copy.
    """
    if items == ():
        return []
    if type(items) is not list:
        raise ValueError("something is made of no list")
    found = items.copy()
    items.clear()
    return found


class Items(dict):
    """Stands for ``OrderedDict``; attributes set by PyTorch (versions of modules) are dropped."""

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__()
        for key, value in used_up(pairs):
            self[plain_keys((key,))[0]] = value

    def __setstate__(self, state: Any) -> None:
        pass


class Inert:
    """Stands for anything that does not matter."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Lines:
    """A stream that raises for a last line without an end, which would be half a name."""

    def __init__(self, file: Stream) -> None:
        self.read, self._readline = file.read, file.readline

    def readline(self) -> bytes:
        line = self._readline()
        if not line.endswith(b"\n"):
            raise EOFError("a line is cut short")
        return line


def _keys_first(
    load: Callable[[Any], None], keys: Callable[[list[Any]], list[Any]]
) -> Callable[[Any], None]:
    """``load`` of an opcode after a check of ``keys``, a part of the stack."""

    def checked(self: Any) -> None:
        plain_keys(keys(self.stack))
        load(self)

    return checked


class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    for _code, _keys in (
        (pickle.SETITEM, lambda stack: stack[-2:-1]),
        (pickle.SETITEMS, lambda stack: stack[::2]),
        (pickle.DICT, lambda stack: stack[::2]),
        (pickle.ADDITEMS, lambda stack: stack),
        (pickle.FROZENSET, lambda stack: stack),
    ):
        dispatch[_code[0]] = _keys_first(dispatch[_code[0]], _keys)
    # The original allocates as many bytes as it is told.
    dispatch[pickle.BYTEARRAY8[0]] = dispatch[pickle.BINBYTES8[0]]

    def __init__(
        self,
        data: bytes | Stream,
        where: str,
        known: Mapping[tuple[str, str], Any],
        persistent: Callable[[Any], Any] | None,
        advice: str,
    ) -> None:
        file = io.BytesIO(data) if isinstance(data, bytes) else data
        # latin-1 keeps the bytes of Python 2
        super().__init__(_Lines(file), encoding="latin-1")
        self._where, self._known, self._advice = where, known, advice
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; nothing is imported."""
        try:
            return self._known[module, name]
        except KeyError:
            raise UserError(
                f"{self._where} asks for {module[:80]}.{name[:80]}, which is neither an array nor "
                "a plain value and could run any program, so the file was refused and nothing was "
                f"run: {self._advice}"
            ) from None

    def get_extension(self, code: int) -> None:
        """Refuse numbers that stand for names, which no file of these has."""
        self.find_class("copyreg", f"extension {code}")

    def persistent_load(self, pid: Any) -> Any:
        """The object of a persistent id."""
        if self._persistent is None:
            raise ValueError("it refers to another file")
        return self._persistent(pid)
