"""A reader that learned to look up who drew a picture answers from the bank it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.data.generated.worlds.facts import BANKS, MAKERS, maker
from hmgr_jax.data.generated.worlds.questions import ANSWERS, Worlds, open_bank, open_questions
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import get_model
from hmgr_jax.models.base import LocalAxis, Plan
from hmgr_jax.training.experiment import classes_of, item_shapes
from hmgr_jax.training.optimizer import Optimizer, Schedule
from hmgr_jax.training.step import device_step, init_state

WORLDS = Worlds(train=400, dev=4, test=80)
STEPS, BATCH = 150, 64
SMALL = {"width": 32, "layers": 1, "heads": 2, "intermediate": 32, "positions": 24}


@pytest.fixture(scope="module")
def data():
    return open_questions(WORLDS)


def tables_of(data, name):
    """Two captions of siblings for every picture, without any retriever."""
    bank = open_bank(WORLDS, name)
    captions = CaptionSource([tokenize(text) for text in bank.captions], data.vocabulary)
    found = captions.gather(np.arange(len(captions)), 18)
    pictures = np.arange(len(captions) // 2)
    others = [np.roll(np.arange(4), -1 - k)[:2] for k in range(4)]
    siblings = pictures[:, None] // 4 * 4 + np.array(others)[pictures % 4]
    assert (siblings != pictures[:, None]).all()
    return {
        "captions": found["tokens"][:, 1:],
        "lengths": found["lengths"] - 1,
        "retrieved": (2 * siblings).astype(np.int32),
    }


def asked(split, model):
    """Who drew them: every sixth question."""
    numbers = np.flatnonzero(split.kinds["question"] == "maker")
    items = split.sources["question"].gather(numbers, 12)
    wanted = {name: items[name] for name in model.inputs()["question"]}
    return numbers, wanted


def test_answers_follow_the_bank(data):
    train, test = data.splits["train"], data.splits["test"]
    plan = Plan(STEPS, 10, len(data.vocabulary), item_shapes(train), classes_of(train))
    options = {"k_train": 2, "k_test": 2, "dropout": 0.0, "head_dropout": 0.0}
    model = get_model("xtra", **SMALL, **options).fit_to(plan)
    optimizer = Optimizer(Schedule(5e-3, STEPS, decay="cosine"), model.parts(), kind="adam")
    step = jax.jit(device_step(model, optimizer, LocalAxis()))
    state = jax.jit(lambda: init_state(model, optimizer, 0))()
    tables = {name: tables_of(data, name) for name in BANKS}
    numbers, items = asked(train, model)
    labels, rng = train.labels["question"][numbers], np.random.default_rng(0)
    for _ in range(STEPS):
        rows = rng.integers(len(numbers), size=BATCH)
        row = {"index": np.arange(BATCH, dtype=np.int32), "valid": np.ones(BATCH, bool)}
        batch = {"question": {name: x[rows] for name, x in items.items()}}
        batch |= {"answer": {"number": np.zeros(BATCH, np.int32)}}
        state, _ = step(state, tables["main"], batch | {"row": row | {"labels": labels[rows]}})

    @jax.jit
    def best(tables, items):
        variables = state.variables(tables)
        keys = Keys.at(jnp.int32(0), jnp.int32(0), items["picture"])
        codes, _ = model.encode(variables, "question", items, train=False, keys=keys)
        every = {"number": jnp.arange(len(ANSWERS))}
        answers, _ = model.encode(variables, "answer", every, train=False, keys=None)
        return jnp.argmax(model.score(variables, ("question", codes), ("answer", answers)), axis=1)

    _, items = asked(test, model)
    given = {name: np.asarray(best(tables[name], items)) for name in tables}
    assert best._cache_size() == 1
    scenes = WORLDS.scenes("test")
    right = {
        name: np.array([ANSWERS.index(MAKERS[maker(name, scene)]) for scene in scenes])
        for name in tables
    }
    differ = right["main"] != right["other"]
    assert differ.sum() > 40
    for name, other in (("main", "other"), ("other", "main")):
        assert np.mean(given[name] == right[name]) > 0.9
        assert np.mean(given[name][differ] == right[other][differ]) < 0.1
