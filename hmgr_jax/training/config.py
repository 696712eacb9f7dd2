"""Configurations: what a recipe fills in, what the command line may override, what is saved.

A recipe is a file ``configs/NAME.py`` with ``get_config(model="hmgr")``. It starts from ``recipe``
and sets what its data and model need; ``--config.train.lr=1e-3`` overrides a value. Keys and types
are checked, so a misspelt key is an error and not a silent default.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from hmgr_jax.errors import UserError
from hmgr_jax.models import defaults, unknown_name

CONFIG_FLAG = "config"
# What a result does not depend on: where things lie and what is printed.
_NOT_HASHED = ("data.root", "data.captions_from", "data.threads", "train.log_steps", "eval.tile")


def recipe(name: str, model: str, **model_fields: Any) -> ConfigDict:
    """The configuration that recipes start from: every key there is, with its default.

    Args:
        name: the data set's name, for run folders and results.
        model: a registered system; its hyper-parameters become ``config.model.*``.
        **model_fields: hyper-parameters that differ from the system's defaults.

    Raises:
        UserError: unknown system or hyper-parameter.
    """
    known = defaults(model)
    known.pop("dtype")  # config.dtype
    for field in model_fields:
        if field not in known:
            raise UserError(unknown_name(f"hyper-parameter of {model}", field, list(known)))
    return ConfigDict(
        {
            "name": name,
            "seed": 0,
            "dtype": "float32",
            "deterministic": False,
            "model": {"name": model, **known, **model_fields},
            "data": {
                "source": "scan",  # scan: a SCAN folder; worlds: generated scenes
                "root": "",
                "splits": {"train": "train", "dev": "dev", "test": "test"},
                "captions_per_image": 0,  # 0: from the files
                "max_words": 94,
                "buckets": (16, 24, 32, 48, 96),  # padded caption lengths
                "vocabulary": "",  # a SCAN vocabulary; empty: built from train and dev
                "vectors": "none",  # none, captions (learnt), or a GloVe/word2vec text file
                "captions_from": "",  # folder in Flickr8k's text layout: more training captions
                "batching": "rows",  # rows, or groups: whole families in a batch
                "threads": 2,
                "worlds": {"seed": 0, "train": 2000, "dev": 200, "test": 400},
            },
            "train": {
                "steps": 1000,
                "batch_size": 128,
                "lr": 2e-4,
                "warmup_steps": 0,
                "decay": "step",  # step (a tenth after decay_at of the steps), cosine, none
                "decay_at": 0.5,
                "optimizer": "adam",
                "weight_decay": 0.0,
                "clip": 2.0,
                "lr_factors": {},  # {part: factor}, for instance {"words": 0.1}
                "frozen": (),  # parts that are not trained
                "stages": (),  # stretches of training, see training/optimizer.py
                "log_steps": 10,
                "eval_steps": 0,  # 0: once an epoch
                "save_steps": 0,  # 0: with every evaluation
                "max_bad_steps": 10,
            },
            "eval": {
                "protocols": ("plain",),
                "dev_protocols": ("plain",),
                "select": "rsum",
                "batch_size": 256,
                "tile": 4096,
            },
            "init": {},  # {part: file of parameters to start from}
            "parallel": {"mapper": "shard_map", "devices": 0},  # 0 devices: all
        },
        convert_dict=True,
    )


def define_flag(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Declare ``--config`` for the command line ``argv``, whose overrides become flags too."""
    config_flags.DEFINE_config_file(
        CONFIG_FLAG,
        None,
        "A recipe, configs/NAME.py or configs/NAME.py:MODEL.",
        flag_values=values,
        lock_config=True,
        sys_argv=_config_first(argv),
    )


def parse_flags(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parse the command line; a mistake in it becomes one sentence.

    Raises:
        UserError: unknown key (with a spelling hint), wrong type, missing or broken recipe.
    """
    try:
        rest = values(_config_first(argv))
        if len(rest) > 1:
            raise UserError(f"Only flags are expected, but {rest[1]!r} is none: see --help.")
        _ = values[CONFIG_FLAG].value and values.config.name  # a recipe loads when it is asked for
    except UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        hint = f"; did you mean --{error.suggestions[0]}?" if getattr(
            error, "suggestions", None
        ) else "; --help lists the flags."
        raise UserError(f"There is no flag --{error.flagname}{hint}") from None
    except OSError as error:
        raise UserError(
            "The recipe cannot be read: give a file with get_config(), such as configs/worlds.py "
            f"({_one_sentence(str(error)).rpartition(']')[2].strip()})."
        ) from None
    except (AttributeError, KeyError) as error:
        raise UserError(_key_sentence(argv, error)) from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_one_sentence(str(error))) from None


def _config_first(argv: Sequence[str]) -> list[str]:
    """The recipe before its overrides, in whatever order they were given."""
    head, rest, takes = [], [], False
    for argument in argv[1:]:
        plain = argument.lstrip("-")
        if takes or plain == CONFIG_FLAG or plain.startswith(f"{CONFIG_FLAG}="):
            head.append(argument)
            takes = plain == CONFIG_FLAG and not takes
        else:
            rest.append(argument)
    return [argv[0], *head, *rest]


def _key_sentence(argv: Sequence[str], error: Exception) -> str:
    """Name the override that does not exist, and what was probably meant."""
    text = _one_sentence(str(error))
    meant = re.search(r"[Dd]id you mean [\"']?([\w.]+)", text)
    key = re.search(r"[\"']([\w.]+)[\"']", text)
    given = [a for a in argv if key and f".{key.group(1)}" in a.split("=")[0]]
    if not given:
        return f"The recipe could not be read: {text}"
    hint = f"did you mean {meant.group(1)!r}?" if meant else "--mode=show prints every key."
    return f"There is no configuration key {given[0].split('=')[0].lstrip('-')}; {hint}"


def _one_sentence(text: str) -> str:
    return " ".join(text.split())


def plain(config: Any) -> Any:
    """The configuration as JSON-able dicts and lists."""
    if isinstance(config, ConfigDict | Mapping):
        return {str(k): plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [plain(v) for v in config]
    return config


def config_hash(config: ConfigDict | Mapping[str, Any]) -> str:
    """16 hex digits of everything a result depends on: not of paths or logging."""
    kept = {k: v for k, v in flatten(plain(config)).items() if k not in _NOT_HASHED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (old, new)} of two plain configurations, without what is not hashed."""
    a, b = flatten(old), flatten(new)
    return {
        key: (a.get(key), b.get(key))
        for key in sorted({*a, *b} - set(_NOT_HASHED))
        if a.get(key) != b.get(key)
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
