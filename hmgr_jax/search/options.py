"""The actions of ``hmgr-jax search`` and their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPLITS = ("train", "dev", "test", "all")
MODEL = "flickr8k"
"""The model that comes with the package."""
ACTIONS = {
    "index": "encode pictures or another gallery and write an index of them",
    "query": "search an index",
    "find": "search the pictures of a folder, without training or an index of your own",
    "update": "follow the folders of an index: add what is new, drop what is gone",
    "add": "add pictures to an index",
    "remove": "remove items from an index",
    "info": "print what an index holds",
    "swap": "point a name to another index of the same model, atomically",
}
DIR: dict[str, Any] = {"metavar": "DIR"}
FILE: dict[str, Any] = {"metavar": "FILE"}
K: dict[str, Any] = {"type": int, "default": 10, "metavar": "INT", "help": "results per query"}
JSON: dict[str, Any] = {
    "metavar": "FILE|-",
    "help": "write the results as JSON; - prints JSON instead of the table",
}
INDEX = DIR | {"help": "an index, or a name created by swap"}
MOVED = DIR | {"help": "the new folder of a run that was moved"}
OPTIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "index": {
        "folders": {"nargs": "*", "metavar": "DIR", "help": "index all pictures in these folders"},
        "--workdir": DIR
        | {"help": "a trained run, or for folders what find takes as --model (default: flickr8k)"},
        "--out": DIR | {"help": "the folder to create"},
        "--split": {"choices": SPLITS, "help": "index a split of the run (default: test)"},
        "--images": DIR | {"help": "the same as DIR"},
        "--gallery": DIR | {"help": "index what prepare folder made of pictures without captions"},
        "--captions": FILE | {"help": "index the sentences of a file, one per line"},
        "--modality": {"help": "modality of the split's items (default: what captions describe)"},
        "--pictures": DIR | {"help": "picture files of the split or gallery, named by their ids"},
        "--engine": {"help": "flat, hnsw, ivf or milvus (default: flat, ivf for large galleries)"},
        "--uri": {"help": "a Milvus server, token in MILVUS_TOKEN (default: Milvus Lite)"},
        "--candidates": {
            "type": int,
            "help": "length of the shortlist of a pair scorer (default: 100)",
        },
    },
    "query": {
        "sentences": {"nargs": "*", "help": "sentences to search for, or --image"},
        "--index": INDEX,
        "--image": {
            "nargs": "+",
            "metavar": "FILE|ID",
            "help": "pictures, or ids (or numbers) of items of a split",
        },
        "--split": {"choices": SPLITS, "help": "split of the ids (default: that of the index)"},
        "--from": {"help": "modality of the ids (default: what captions describe)"},
        "-k": K,
        "--without-own": {
            "action": "store_true",
            "help": "exclude results that belong to the query's own item",
        },
        "--candidates": {"type": int, "help": "length of the shortlist (default: as indexed)"},
        "--json": JSON,
        "--sheet": {"metavar": "FILE.png", "help": "draw a contact sheet of the results"},
        "--pictures": DIR | {"help": "picture files of the query items"},
        "--workdir": MOVED,
    },
    "find": {
        "sentences": {"nargs": "*", "help": "sentences to search for, or --image"},
        "--in": DIR | {"help": "the folder of the pictures"},
        "--image": {"nargs": "+", "metavar": "FILE", "help": "pictures to search by"},
        "--model": {
            "metavar": "MODEL",
            "default": MODEL,
            "help": "a model of the package, a packed file, a trained run, or the folder of a CLIP "
            "or SigLIP as transformers saves it (default: flickr8k)",
        },
        "--encoder": {"metavar": "clip=DIR", "help": "the same as --model DIR"},
        "-k": K,
        "--json": JSON,
        "--sheet": {
            "metavar": "FILE.png",
            "default": "found.png",
            "help": "the contact sheet of the results (default: found.png)",
        },
    },
    "update": {"--index": INDEX, "--workdir": MOVED},
    "add": {
        "files": {"nargs": "+", "metavar": "FILE", "help": "pictures"},
        "--index": INDEX,
        "--workdir": MOVED,
    },
    "remove": {
        "ids": {"nargs": "+", "metavar": "ID", "help": "ids of items, as query prints them"},
        "--index": INDEX,
        "--workdir": MOVED,
    },
    "info": {"--index": INDEX},
    "swap": {
        "--name": {"metavar": "NAME", "help": "the name that query takes as --index"},
        "--to": DIR | {"help": "the index"},
    },
}
