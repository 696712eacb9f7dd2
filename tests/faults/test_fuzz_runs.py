"""A damaged run or index gives the same result, a refusal in a sentence, or a warning."""

import json
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from fuzz import COUNT, MANY, alike, fuzz
from tiny_run import config, finished, interrupted

import hmgr_jax
from hmgr_jax.evaluation import results, score_store
from hmgr_jax.evaluation.trained_run import read_run
from hmgr_jax.files import digests
from hmgr_jax.leaves import by_name
from hmgr_jax.search.index import Index
from hmgr_jax.search.rerank import CodeStore
from hmgr_jax.training import config as configs
from hmgr_jax.training import resume
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import build
from hmgr_jax.training.records import METRICS, MetricLog
from hmgr_jax.training.tables import keep_tables, read_tables

sys.path.append(str(Path(__file__).parents[1] / "search"))
from index_cases import captions, unit

NOT_READ = (".png", ".lock", "timing.jsonl")


def _arrays(tree):
    return {name: np.asarray(x) for name, x in by_name(jax.device_get(tree)).items()}


def run(root):
    """A finished run, read as by evaluate, encode, search index and export."""
    shutil.copytree(finished(), root / "run")

    def read():
        found = read_run(root / "run")
        meta = {name: value for name, value in found.meta.items() if name != "versions"}
        return found.step, configs.plain(found.config), meta, _arrays(found.state)

    return read


def run_encoded(root):
    """A finished run whose encoder is compiled and used."""
    shutil.copytree(finished(), root / "run")
    return lambda: hmgr_jax.load(root / "run").encode("text", ["a red circle", "a blue star"])


def run_again(root):
    """A finished run, when the same command is started again."""
    shutil.copytree(finished(), root / "run")
    same = config()

    def start():
        found = results.finished(root / "run", same)
        # Without results the command computes them again, from the checkpoint.
        return found or json.loads((finished() / "results.json").read_text())

    return start


def run_resumed(root):
    """An interrupted run, when the same command is started again."""
    interrupted(root / "run")
    experiment = build(config())

    def start():
        work = root / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(root / "run", work)
        with Checkpoints(work / "checkpoints") as checkpoints:
            saved = resume.find(checkpoints, experiment.config, work)
            step = saved.step if saved else 0
            log = MetricLog(work)
            if saved:
                resume.check_same_data(saved, experiment)
                state, _, _ = checkpoints.restore(experiment.abstract_state(), step)
                log.check(saved.meta["metrics"])
            else:
                state = experiment.first_state()
            log.cut_after(step if saved else -1)
            rows = (work / METRICS).read_bytes() if (work / METRICS).exists() else b""
            return step, rows, _arrays(state.params), _arrays(state.optimizer)

    return start


def tables(root):
    """The constants of a run."""
    draw = np.random.default_rng(0)
    keep_tables(root, {"graph": {"words": draw.random((40, 4)).astype("f4")}, "ids": np.arange(9)})
    digests.write_run(root)
    return lambda: _arrays(read_tables(root))


def scores(root):
    """Scores of an interrupted evaluation, finished."""
    whole = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    places = [np.index_exp[2 * k : 2 * k + 2, :] for k in range(3)]

    def fill(folder, tiles):
        with score_store.opened(folder, "key", whole.shape, places) as store:
            for done in range(store.done, tiles):
                store.scores[places[done]] = whole[places[done]]
                store.advance(done + 1)
            return np.array(store.scores)

    fill(root / "kept", 2)

    def go_on():
        shutil.rmtree(root / "work", ignore_errors=True)
        if (root / "kept").exists():
            shutil.copytree(root / "kept", root / "work")
        return fill(root / "work", 3)

    return go_on


def _index(root, engine):
    """An index with codes of a system that scores pairs, searched."""
    codes = CodeStore.of({"words": unit(40, 6), "counts": (np.arange(40) % 3 + 1,)})
    index = Index.build(unit(40), captions(40), model="m", engine=engine)
    index.save(root / "index", command="make the index", more=codes.write)
    queries = unit(5, seed=1)

    def search():
        found = Index.load(root / "index", model="m")
        stored = CodeStore.read(root / "index", found.size)
        numbers, best = found.search(queries, 4)
        return found.items(numbers.reshape(-1)), best, stored.gather(numbers)

    return search


def index_flat(root):
    """An exact index."""
    return _index(root, "flat")


def index_hnsw(root):
    """A graph."""
    return _index(root, "hnsw")


def index_ivf(root):
    """Cells."""
    return _index(root, "ivf")


SHARES = {
    run: 0.3,
    run_resumed: 0.2,
    run_again: 0.2,
    run_encoded: 0.02,
    tables: 0.06,
    scores: 0.04,
    index_flat: 0.08,
    index_hnsw: 0.05,
    index_ivf: 0.05,
}
"""{group: its share of all damages}."""
QUICK = [group for group in SHARES if group is not run_encoded]


def _fuzz(group, root, count, seed=0):
    action = group(root)
    files = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(NOT_READ) and "tensorboard" not in path.parts
    ]
    told = Counter()

    def act():
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = action()
        return found, bool(warned)

    def same(now, before):
        told["warned"] += now[1]
        return now[1] or alike(now[0], before[0])

    assert not act()[1], "the undamaged files lead to a warning"
    found = fuzz(files, act, same=same, count=count, seed=seed, seconds=30)
    # A row of the table in docs/reliability.md, shown by pytest -s.
    equal, refused = found["equal"] - told["warned"], found["refused"]
    print(f"\n| {group.__name__} | {count} | {equal} | {refused} | {told['warned']} |")


@pytest.mark.parametrize(
    "group", [g for g in SHARES if g is not run_encoded], ids=lambda g: g.__name__
)
def test_a_damaged_run_or_index_is_equal_refused_or_warned_about(group, tmp_path):
    _fuzz(group, tmp_path, COUNT // 2)


@pytest.mark.slow
@pytest.mark.parametrize("group", SHARES, ids=lambda g: g.__name__)
def test_much_damage_is_equal_refused_or_warned_about(group, tmp_path):
    _fuzz(group, tmp_path, round(MANY * SHARES[group]), seed=1000)
