"""Recipes from the command line: ``--config NAME:MODEL`` and ``--config.KEY=VALUE``."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.command import expand_home
from hmgr_jax.errors import UserError
from hmgr_jax.training.config import OPEN_GROUPS, flatten, plain
from hmgr_jax.training.pretrained import fit_to_folders

FLAG = "--config."
PACKAGE = Path(__file__).parents[1]
RECIPES = PACKAGE / "recipes" if (PACKAGE / "recipes").is_dir() else PACKAGE.parent / "configs"
"""Recipes of the package: in a wheel within it, in a checkout beside it."""
_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def split_overrides(arguments: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """({key: text} of every ``--config.KEY=TEXT`` or ``--config.KEY TEXT``, other arguments).

    The text is None where none is given; of a key given twice the last text counts.
    """
    overrides: dict[str, str | None] = {}
    others: list[str] = []
    waiting: str | None = None
    for argument in arguments:
        if waiting is not None and not argument.startswith("--"):
            overrides[waiting], waiting = argument, None
        elif argument.startswith(FLAG):
            key, equals, text = argument.removeprefix(FLAG).partition("=")
            overrides[key] = text if equals else None
            waiting = None if equals else key
        else:
            others.append(argument)
            waiting = None
    return overrides, others


def load(recipe: str, overrides: Mapping[str, str | None]) -> ConfigDict:
    """The configuration of ``recipe`` (``FILE`` or ``FILE:MODEL``) with ``overrides``, locked.

    Raises:
        UserError: missing or broken recipe, unknown key (with a spelling hint), wrong type.
    """
    name, _, model = recipe.partition(":")
    if not name:
        raise UserError("--config is empty: give a recipe, such as worlds or configs/worlds.py.")
    model = overrides.get("model.name") or model
    config = _get_config(_find(name), model)
    for key, text in overrides.items():
        if key != "model.name":  # the recipe itself was asked for that system
            override(config, key, text)
    for key, value in flatten(plain(config)).items():
        if isinstance(value, str) and value.startswith("~"):
            override(config, key, expand_home(value))
    fit_to_folders(config, overrides)
    return config.lock()


def override(config: ConfigDict, key: str, text: str | None) -> None:
    """Set one value, which keeps the type that the recipe gave it.

    Raises:
        UserError: unknown key (with a spelling hint), wrong type.
    """
    group_name, _, last = key.rpartition(".")
    group: Any = config
    for name in filter(None, group_name.split(".")):
        group = group[name] if isinstance(group, ConfigDict) and name in group else None
    if not isinstance(group, ConfigDict) or (last not in group and group_name not in OPEN_GROUPS):
        raise UserError(_unknown(config, key))
    old = group[last] if last in group else OPEN_GROUPS[group_name]
    if isinstance(old, ConfigDict):
        known = ", ".join(old) or "the parts of the model"
        raise UserError(f"{FLAG}{key} is a group: set {FLAG}{key}.NAME for one of {known}.")
    group[last] = _parse(key, old, text)


def _find(name: str) -> Path:
    """The file of a recipe: ``name`` itself, or the recipe of that name in the package."""
    path = Path(name)
    if path.is_file() and path.suffix == ".py":
        return path
    packaged = RECIPES / f"{name}.py"
    if path.name == name and packaged.is_file():
        return packaged
    here = map(str, sorted(path.parent.glob("*.py"))) if path.name != name else ()
    known = list(here) or sorted(recipe.stem for recipe in RECIPES.glob("*.py"))
    raise UserError(
        f"There is no recipe {name!r}: give a Python file with get_config(), or one of "
        f"{', '.join(known)}."
    )


def _get_config(path: Path, model: str) -> ConfigDict:
    """The result of the recipe's ``get_config``; an error in the file is one sentence."""
    spec = importlib.util.spec_from_file_location("recipe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*([model] if model else []))
    except UserError:
        raise
    except Exception as error:
        what = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        raise UserError(
            f"The recipe {path} fails in line {_line(path, error)} ({what}): correct that line."
        ) from None
    if not isinstance(config, ConfigDict) or not {"model", "data", "train"} <= set(config):
        raise UserError(
            f"get_config() of {path} must return a configuration that starts from "
            f"hmgr_jax.training.config.recipe, it returns a {type(config).__name__}: correct it."
        )
    return config


def _line(path: Path, error: Exception) -> int:
    """The last line of the recipe itself that the error went through."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno or 1 for f in frames if Path(f.filename).absolute() == path.absolute()]
    return lines[-1] if lines else 1


def _unknown(config: ConfigDict, key: str) -> str:
    known = list(flatten(plain(config)))
    close = difflib.get_close_matches(key, known, n=1)
    same_end = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    meant = [*close, *same_end]
    hint = f"did you mean {FLAG}{meant[0]}?" if meant else "--mode=show prints every key."
    return f"There is no configuration key {key!r}; {hint}"


def _parse(key: str, old: Any, text: str | None) -> Any:
    """``text`` as a value of the type of ``old``."""
    if text is None and not isinstance(old, bool):
        raise UserError(f"{FLAG}{key} expects a value: write {FLAG}{key}={_format_value(old)}.")
    kind, read = _KINDS[type(old)]
    try:
        return read("true" if text is None else text, old)
    except (ValueError, KeyError, SyntaxError):
        raise UserError(
            f"{FLAG}{key} expects {kind}, such as {_format_value(old)}, not {text!r}."
        ) from None


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "a,b"
    return str(value).lower() if isinstance(value, bool) else str(value) or "TEXT"


def _finite(text: str, _: float) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _tuple(text: str, old: tuple) -> tuple:
    """``1,2`` or ``a,b`` or a Python tuple; elements of the type that the recipe's have, if any."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = tuple(part.strip() for part in text.strip("()[]").split(",") if part.strip())
    found = tuple(found) if isinstance(found, list | tuple) else (found,)
    wanted = type(old[0]) if old else (str, int, float)
    if not all(isinstance(element, wanted) for element in found):
        raise ValueError(text)
    return found


_KINDS: dict[type, tuple[str, Callable[[str, Any], Any]]] = {
    bool: ("true or false", lambda text, _: _YES_NO[text.lower()]),
    int: ("an integer", lambda text, _: int(text)),
    float: ("a finite number", _finite),
    str: ("a text", lambda text, _: text),
    tuple: ("a list", _tuple),
}
