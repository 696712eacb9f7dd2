"""Every mistake on the command line is one sentence and exit code 2, and nothing is lost by it."""

import shutil

import numpy as np
import pytest
from tiny_run import ROOT, WORLDS, arguments, files, finished, interrupted, run, scan_folder

from hmgr_jax import modes as commands
from hmgr_jax.files.workdir import lock
from hmgr_jax.main import main
from hmgr_jax.training import loop

F8K = str(ROOT / "configs" / "f8k.py")


@pytest.fixture
def fails(capsys):
    """Run the command, demand one sentence with ``parts`` and that ``kept`` stays as it was."""

    def check(argv, *parts, kept=None, warned=False):
        before = files(kept) if kept else None
        assert main(argv) == 2
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1
        assert warned or lines == errors
        for part in parts:
            assert part in errors[0]
        if kept:
            after = files(kept)
            assert {n: after[n] for n in before if n != ".lock"} == {
                n: before[n] for n in before if n != ".lock"
            }
            assert set(after) - set(before) <= {".lock"}
        return errors[0]

    return check


def _command(text):
    return ["main", *text.replace("WORLDS", WORLDS).split()]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("", "A recipe is required: give one, such as --config worlds."),
        ("--config", "expected one argument"),
        ("--config=", "--config is empty"),
        ("--config configs/none.py", "There is no recipe 'configs/none.py'"),
        ("--config WORLDS:hmgrr", "There is no model 'hmgrr'; did you mean 'hmgr'?"),
        ("--config WORLDS --worddir x", "There is no flag '--worddir'; did you mean --workdir?"),
        ("--config WORLDS extra", "There is no flag 'extra'; known: --help, --mode, --config,"),
        (
            "--config WORLDS --mode=trian",
            "--mode is one of train, evaluate, encode, explain, show,",
        ),
        ("--config WORLDS --split=val", "--split is one of train, dev, test, not 'val'."),
        (
            "--config WORLDS --seeds=a,1",
            "integers from 0 separated by commas, such as 0,1,2, got 'a",
        ),
        ("--config WORLDS --seeds=0,,1", "got '0,,1'"),
        ("--config WORLDS --seeds=-1", "got '-1'"),
        ("--config WORLDS --seeds=3,3", "--seeds names a seed twice: 3,3."),
        (
            "--config WORLDS --seeds=1 --mode=show",
            "--seeds is for --mode=train, not",
        ),
        ("--mode=evaluate", "--mode=evaluate needs a trained run: give its folder as --workdir."),
        ("--mode=evaluate --workdir /none", "/none holds no checkpoints: give the --workdir of"),
        ("--mode=encode --workdir /none", "/none holds no checkpoints: give the --workdir of"),
    ],
)
def test_rejects_bad_flags(fails, command, sentence):
    assert sentence in fails(_command(command))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("train.stpes=3", "no configuration key 'train.stpes'; did you mean --config.train.steps?"),
        ("steps=3", "no configuration key 'steps'; did you mean --config.train.steps?"),
        ("quux=3", "no configuration key 'quux'; --mode=show prints every key."),
        ("train.steps=1.5", "--config.train.steps expects an integer, such as 12, not '1.5'."),
        ("train.lr=fast", "--config.train.lr expects a finite number, such as 0.001, not 'fast'."),
        ("train.lr=nan", "expects a finite number"),
        ("train.lr", "--config.train.lr expects a value: write --config.train.lr=0.001."),
        ("model.visual_graph=maybe", "expects true or false, such as false, not 'maybe'."),
        ("data.buckets=16,b", "expects a list, such as 32, not '16,b'."),
        ("train=3", "--config.train is a group: set --config.train.NAME for one of batch_size,"),
        ("train.steps=0", "train.steps must be at least 1, it is 0"),
        ("train.lr=0", "train.lr must be positive, it is 0.0"),
        ("train.weight_decay=0.1", "train.weight_decay is 0.1, but train.optimizer adam has none"),
        ("train.max_bad_steps=0", "train.max_bad_steps must be at least 1"),
        ("seed=-1", "seed must be at least 0, it is -1"),
        ("train.decay=linear", "train.decay is one of step, steps, cosine, none, not 'linear'."),
        ("train.optimizer=lamb", "train.optimizer is one of adam, adamw, adamp, sgd, not 'lamb'."),
        ("dtype=float16", "dtype is one of float32, bfloat16, not 'float16'."),
        ("parallel.mapper=vmap", "parallel.mapper is one of shard_map, pmap, not 'vmap'."),
        ("parallel.devices=99", "parallel.devices is 99, but this machine has 8"),
        ("train.frozen=imag", "no part of hmgr in train.frozen 'imag'; did you mean 'image'?"),
        ("train.lr_factors.wrds=0.1", "no part of hmgr in train.lr_factors 'wrds'"),
        ("init.txt=/none", "There is no part of hmgr in init 'txt'; did you mean 'text'?"),
        ("init.text=/none", "init.text names /none, which holds no checkpoints"),
        ("init.text=/none.pth", "init.text names /none.pth, but there is no such weight file: co"),
        (
            "train.batch_size=4000",
            "the batch size is 4000 image items but train has only 40",
        ),
        ("data.worlds.train=30", "data.worlds.train is 30, but families have 4 members"),
        ("data.buckets=8", "text holds an item of length"),
        ("data.buckets=()", "data.buckets are positive integers such as (16, 24), not ()."),
        ("model.region_hidden=-1", "model.region_hidden must be at least 0, got -1"),
        ("model.region_dim=100", "has sizes for regions of [6, 100], but the data has [6,"),
        ("model.vocabulary_size=9", "model.vocabulary_size is 9, but the vocabulary has"),
        ("eval.protocols=coco5k", "protocol coco5k is defined on 5000 distinct images, found 12"),
        ("eval.protocols=coco", "no protocol is named 'coco': choose from plain,"),
        ("eval.select=i2t/R@2", "eval.select is 'i2t/R@2', which eval.dev_protocols do not report"),
        ("eval.select=i2t/medR", "eval.select is 'i2t/medR', which"),
    ],
)
def test_rejects_bad_values(fails, tmp_path, value, sentence):
    argv = arguments(tmp_path / "run", f"--config.{value}", model="hmgr")
    assert sentence in fails(argv)
    assert not list(tmp_path.rglob("*.json*"))


@pytest.mark.parametrize("name", ["nope.pth", "nope"])
def test_rejects_missing_cnn_weights(fails, tmp_path, monkeypatch, name):
    """Said before any data is opened, and nothing is written."""
    monkeypatch.setattr(loop, "build", lambda *_: pytest.fail("too late"))
    place, recipe = tmp_path / name, ROOT / "configs" / "worlds_images.py"
    argv = arguments(tmp_path / "run", recipe=recipe, model="pcme", init__cnn=place)
    assert f"init.cnn names {place}, but there is no such weight file" in fails(argv)
    assert not (tmp_path / "run" / "checkpoints").exists()


RECIPE = "from hmgr_jax.training.config import recipe\n\n\ndef get_config(model='vse'):\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{RECIPE}    return 1 / 0\n", "line 5 (ZeroDivisionError: division by zero)"),
        ("def get_config(:\n", "line 1 (SyntaxError: invalid syntax"),
        ("import no_such_module\n", "line 1 (ModuleNotFoundError: No module named"),
        ("x = 1\n", "has no attribute 'get_config'"),
        (f"{RECIPE}    return {{}}\n", "must return a configuration that starts from"),
        (f"{RECIPE}    return recipe('a', model, dimm=3)\n", "did you mean 'dim'?"),
        (
            f"{RECIPE}    c = recipe('a', model)\n    c.train.stps = 3\n    return c\n",
            'line 6 (AttributeError: \'Key "stps" does not exist',
        ),
        (
            f"{RECIPE}    c = recipe('a', model)\n    c.train.steps = 'b'\n    return c\n",
            "line 6 (TypeError: Could not override field 'steps'",
        ),
        (
            f"{RECIPE}    c = recipe('a', model)\n    c.train.stages = ({{'stps': 3}},)\n"
            "    c.data.source = 'worlds'\n    return c\n",
            "There is no key of a stage 'stps'; did you mean 'steps'?",
        ),
        (
            f"{RECIPE}    c = recipe('a', model)\n    c.train.stages = ({{'steps': 2000}},) * 2\n"
            "    c.data.source = 'worlds'\n    return c\n",
            "the stages before the last one have 2000 steps, but train.steps is 1000",
        ),
    ],
)
def test_rejects_bad_recipes(fails, tmp_path, text, sentence):
    path = tmp_path / "mine.py"
    path.write_text(text)
    line = fails(["main", f"--config={path}", f"--workdir={tmp_path / 'run'}"])
    assert sentence in line
    assert len(line) < 500


def _scan(root, workdir, *more):
    sizes = {"train__batch_size": 8, "eval__protocols": "plain", "eval__dev_protocols": "plain"}
    values = (f"--config.data.root={root}", "--config.data.batching=rows", *more)
    return arguments(workdir, *values, data__source="scan", **sizes)


def _nan(root):
    features = np.load(root / "train_ims.npy")
    features[5, 2, 1] = np.nan
    np.save(root / "train_ims.npy", features)


def _edit(name, change):
    def edit(root):
        lines = (root / name).read_text().split("\n")
        change(lines)
        (root / name).write_text("\n".join(lines))

    return edit


@pytest.mark.parametrize(
    ("harm", "parts"),
    [
        (shutil.rmtree, ["is not a folder", "train_ims.npy", "dev_caps.txt", "test_ims.npy"]),
        (lambda root: (root / "dev_ims.npy").unlink(), ["lacks dev_ims.npy (or dev_feat.npy)"]),
        (_edit("train_caps.txt", lambda x: x.pop(0)), ["has 47 captions for 24 rows"]),
        (_edit("test_ids.txt", lambda x: x.__setitem__(3, x[0])), ["test_ids.txt:4 repeats"]),
        (_edit("dev_caps.txt", lambda x: x.__setitem__(2, " ")), ["dev_caps.txt:3 is empty"]),
        (
            _edit("dev_caps.txt", lambda x: x.__setitem__(2, "very " * 40)),
            ["dev's text holds an item of length 42, but the last bucket is 32"],
        ),
        (_nan, ["train_ims.npy, row 5 (counted from 0), holds NaN or infinity"]),
    ],
)
def test_rejects_bad_data(fails, tmp_path, harm, parts):
    root = scan_folder(tmp_path / "data")
    harm(root)
    fails(_scan(root, tmp_path / "run"), *parts)
    assert not list((tmp_path / "run").glob("[!.]*"))  # nothing but the lock


@pytest.mark.parametrize(
    ("recipe", "test"), [("f8k", "test"), ("f30k", "test"), ("coco", "testall")]
)
def test_rejects_a_missing_data_folder(fails, tmp_path, recipe, test):
    path = F8K.replace("f8k", recipe)
    files = ["train_ims.npy", "dev_caps.txt", f"{test}_ims.npy", f"{test}_caps.txt"]
    command = ["main", f"--config={path}", f"--workdir={tmp_path}"]
    fails(command, *files, "--config.data.root=FOLDER")
    fails([*command, f"--config.data.root={tmp_path / 'none'}"], *files, "is not a folder")


def test_rejects_a_missing_source_split_and_vectors(fails, tmp_path):
    root = scan_folder(tmp_path / "data")
    for value, part in {
        "data.source=hdf5": "modelnet, vqa, worlds, clips, solids, questions, not 'hdf5'.",
        "data.splits.test=testall": "lacks testall_ims.npy",
        "data.vectors=/none.txt": "the vectors /none.txt cannot be read",
        "data.vocabulary=/none.json": "/none.json",
        "data.captions_from=/none": "/none",
    }.items():
        fails(_scan(root, tmp_path / "run", f"--config.{value}"), part)
        assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"model": "hmgr"}, ["holds a run with another model.name ('vse', not 'hmgr')"]),
        ({"seed": 7}, ["holds a run with another seed (0, not 7)"]),
        ({"eval__select": "i2t/R@1"}, ["holds a run with another eval.select ('rsum', not"]),
        ({"model__dim": 24}, ["float32[", "16]", "24]", "another --workdir"]),
        ({"data__worlds__seed": 1}, ["not the data that this run was trained on"]),
        ({"train__steps": 8, "train__lr": 1.0}, ["no step is left to train", "train.lr: 0.001"]),
    ],
)
def test_rejects_the_workdir_of_another_run(fails, tmp_path, options, parts):
    workdir = interrupted(tmp_path / "run")
    fails(arguments(workdir, **options), *parts, kept=workdir, warned=True)


def test_rejects_a_finished_run_of_another_configuration(fails, tmp_path):
    workdir = shutil.copytree(finished(), tmp_path / "run")
    command = arguments(workdir, train__lr=0.5)
    fails(command, "train.lr: 0.001 -> 0.5", "use --mode=evaluate", kept=workdir)
    (workdir / "config.json").rename(tmp_path / "config.json")
    fails(arguments(workdir), "config.json cannot be read", kept=workdir)
    (tmp_path / "config.json").rename(workdir / "config.json")
    shutil.rmtree(workdir / "checkpoints")
    fails(command, "holds the results of a finished run", kept=workdir)
    (workdir / "results.json").write_text("{")
    fails(command, "results.json is not JSON", kept=workdir)


@pytest.mark.slow
def test_rejects_a_finished_run_on_other_files(fails, tmp_path, capsys):
    """Only where the files lie may differ, not what they hold."""
    root, workdir = scan_folder(tmp_path / "data"), tmp_path / "run"
    command = [*_scan(root, workdir), "--config.train.steps=1"]
    assert main(command) == 0
    moved = root.rename(tmp_path / "moved")
    elsewhere = [part.replace(str(root), str(moved)) for part in command]
    assert main(elsewhere) == 0
    (moved / "train_caps.txt").write_text((moved / "train_caps.txt").read_text().replace("p", "q"))
    fails(elsewhere, "holds the results of a run on other files (data.root:", kept=workdir)


@pytest.mark.slow
def test_rejects_other_values_for_a_run_without_a_checkpoint(fails, tmp_path):
    workdir = interrupted(tmp_path / "run")
    for folder in ("checkpoints", "digests"):
        shutil.rmtree(workdir / folder)
    fails(arguments(workdir, train__lr=0.5), "first steps of a run of another", kept=workdir)
    assert main(arguments(workdir)) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_rejects_a_run_whose_checkpoints_are_all_damaged(fails, tmp_path):
    workdir = interrupted(tmp_path / "run")
    for step in ("4", "8"):
        (workdir / "checkpoints" / step / "meta" / "metadata").unlink()
    fails(arguments(workdir), "Every checkpoint", "8.damaged", warned=True)
    fails(arguments(workdir), "Every checkpoint", "8.damaged", kept=workdir)
    assert (workdir / "metrics.jsonl").stat().st_size > 0


def test_rejects_a_workdir_in_use(fails, tmp_path):
    workdir = interrupted(tmp_path / "run")
    with lock(workdir):
        fails(arguments(workdir), "in use by process", "give another --workdir", kept=workdir)


def test_rejects_a_workdir_that_is_a_file(fails, tmp_path):
    (tmp_path / "run").write_text("mine")
    fails(arguments(tmp_path / "run"), f"The system refused {tmp_path / 'run'}")
    assert (tmp_path / "run").read_text() == "mine"


def test_evaluation_rejects_another_system_and_settled_values(fails):
    fails(arguments(finished(), "--mode=evaluate", model="hmgr"), "holds a vse, not a hmgr")
    workdir = ["main", f"--workdir={finished()}", "--mode=evaluate"]
    fails([*workdir, "--config.model.dim=3"], "--config.model.dim cannot change after")
    fails([*workdir, "--config.model.score_step=1"], "no configuration key 'model.score_step'")
    fails([*workdir, "--config.data.rot=x"], "did you mean --config.data.root?")
    fails([*workdir, "--config.eval.protocols=f30k,coco5k"], "defined on 5000 distinct images")


def test_ctrl_c_outside_of_training_is_no_traceback(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupt)
    assert run(tmp_path / "run") == 130
    assert capsys.readouterr().err.startswith("error: Stopped by Ctrl-C")


def test_an_internal_error_is_a_fault_of_the_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "show", lambda config: 1 / 0)
    assert run(tmp_path / "run", "--mode=show") == 70
    assert capsys.readouterr().err.startswith("error: This is a fault of the program (ZeroDiv")


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        (["--help"], "--mode {train,evaluate,encode,explain,show}", "--pair"),
        (["--mode=explain", "--help"], "--pair IMAGE CAPTION", "--seeds"),
    ],
)
def test_help_shows_the_options_of_a_mode(capsys, arguments, shown, hidden):
    assert main(["main", *arguments]) == 0
    out = capsys.readouterr().out
    assert shown in out
    assert hidden not in out
