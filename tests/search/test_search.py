"""``hmgr_jax.search``: an index of a run, asked by sentences and pictures, swapped while served."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from tiny_run import finished

import hmgr_jax
from hmgr_jax.files import digests
from hmgr_jax.search import gallery, searcher
from hmgr_jax.search import report as search_report
from hmgr_jax.search.command import main
from hmgr_jax.search.index import Index
from hmgr_jax.search.searcher import Searcher, model_key

pytest.importorskip("faiss", reason="needs faiss-cpu: pip install 'hmgr-jax[index]'")

SENTENCES = ["a red circle left of a blue square", "a green ring"]


def _search(*arguments):
    return main(["search", *map(str, arguments)])


def _asked(tmp_path, *arguments):
    """The queries of the JSON that a query writes."""
    assert _search("query", *arguments, "--json", tmp_path / "found.json") == 0
    return json.loads((tmp_path / "found.json").read_text())["queries"]


def _refused(capsys, *arguments):
    """The sentence of a refusal."""
    capsys.readouterr()
    assert _search(*arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == said.count("error: ") + said.count("warning: ")
    return said


@pytest.fixture(scope="module")
def vse(tmp_path_factory):
    """An index of the test images of an embedding model."""
    out = tmp_path_factory.mktemp("vse") / "index"
    assert _search("index", "--workdir", finished("vse"), "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def imram(tmp_path_factory):
    """An index of the test captions of a model that scores pairs."""
    out = tmp_path_factory.mktemp("imram") / "index"
    more = ("--modality", "text", "--candidates", 7)
    assert _search("index", "--workdir", finished("imram"), "--out", out, *more) == 0
    return out


def test_an_embedding_model_finds_what_its_scores_say(vse, tmp_path):
    retriever = hmgr_jax.load(finished("vse"))
    split = retriever.open(("test",)).splits["test"]
    codes = retriever.evaluator.encode_split(retriever.variables, split)
    asked = retriever.encode("text", SENTENCES)
    numbers, scores = retriever.search(("text", asked), ("image", codes["image"]), k=5)
    queries = _asked(tmp_path, "--index", vse, *SENTENCES, "-k", 5)
    assert [row["query"] for row in queries] == SENTENCES
    for row, wanted, of_wanted in zip(queries, numbers, scores, strict=True):
        results = row["results"]
        assert [r["id"] for r in results] == [split.ids["image"][n] for n in wanted]
        np.testing.assert_allclose([r["score"] for r in results], of_wanted, atol=1e-6)
        assert [r["rank"] for r in results] == [1, 2, 3, 4, 5]
        own = split.sources["text"].captions[5 * wanted[0]]
        assert results[0]["caption"] == own
        assert results[0]["owner"] == results[0]["id"]


@pytest.mark.slow
def test_pairs_are_scored_by_the_model_itself(imram, tmp_path):
    retriever = hmgr_jax.load(finished("imram"))
    split = retriever.open(("test",)).splits["test"]
    codes = retriever.evaluator.encode_split(retriever.variables, split)
    scores = retriever.score(("image", codes["image"]), ("text", codes["text"]))
    ids = split.ids["text"]
    asked = ("--index", imram, "--image", "test/000003", 5, "-k", 6)
    for number, row in zip((3, 5), _asked(tmp_path, *asked, "--candidates", 60), strict=True):
        best = np.argsort(-scores[number], kind="stable")[:6]
        assert [r["id"] for r in row["results"]] == [ids[n] for n in best]
        found = [r["score"] for r in row["results"]]
        np.testing.assert_allclose(found, scores[number][best], atol=1e-6)
    vectors = {
        m: retriever.evaluator.vectors(retriever.variables, m, codes[m]) for m in ("image", "text")
    }
    near = np.argsort(-(vectors["image"] @ vectors["text"].T), axis=1)[:, :7]
    for number, row in zip((3, 5), _asked(tmp_path, *asked), strict=True):
        shortlist = near[number][np.argsort(-scores[number][near[number]])][:6]
        assert [r["id"] for r in row["results"]] == [ids[n] for n in shortlist]
        assert row["query"] == split.ids["image"][number]


def test_items_of_the_querying_owner_are_left_out(imram, vse, tmp_path):
    asked = ("--index", imram, "--image", "test/000003", "-k", 20, "--candidates", 60)
    owners = {r["owner"] for r in _asked(tmp_path, *asked, "--without-own")[0]["results"]}
    assert "test/000003" not in owners
    assert "test/000003" in {
        r["owner"] for r in _asked(tmp_path, *asked[:-4], "-k", 60)[0]["results"]
    }
    (row,) = _asked(tmp_path, "--index", vse, "--image", "test/000003", "-k", 11)
    assert len({r["id"] for r in row["results"]} - {"test/000003"}) == 11


@pytest.mark.slow
def test_captions_of_a_file(tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("a red circle\na green ring\na blue square\n")
    out = tmp_path / "index"
    given = ("index", "--workdir", finished("imram"), "--out", out)
    assert _search(*given, "--captions", tmp_path / "lines.txt") == 0
    assert "3 text items" in capsys.readouterr().out
    (row,) = _asked(tmp_path, "--index", out, "--image", "0", "-k", 3)
    assert sorted(r["caption"] for r in row["results"]) == [
        "a blue square", "a green ring", "a red circle",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_sheet_shows_scenes_and_captions(vse, imram, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        search_report, "draw_grid", lambda *given, **options: drawn.append((given, options))
    )
    sheet = tmp_path / "sheet.png"
    assert _search("query", "--index", vse, *SENTENCES, "-k", 3, "--sheet", sheet) == 0
    assert _search("query", "--index", imram, "--image", "7", "-k", 3, "--sheet", sheet) == 0
    ((_, rows), options), ((_, of_captions), _) = drawn
    assert options["headings"] == {0: "vse: 12 image items"}
    for sentence, (query, *tiles) in zip(SENTENCES, rows, strict=True):
        assert (query.words, query.picture) == (sentence, None)
        assert [tile.picture.shape for tile in tiles] == [(96, 96, 3)] * 3
    ((query, *tiles),) = of_captions
    assert query.picture.shape == (96, 96, 3)
    assert query.below.splitlines()[0] == "test/000007"
    split = hmgr_jax.load(finished("imram")).open(("test",)).splits["test"]
    for tile in tiles:  # the id and score, and the caption in lines
        caption = " ".join(tile.below.splitlines()[1:])
        assert caption in split.sources["text"].captions


def test_json_alone_on_the_screen(vse, capsys):
    capsys.readouterr()
    assert _search("query", "--index", vse, SENTENCES[1], "-k", 2, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["system"], found["count"], found["modality"]) == ("vse", 12, "image")
    assert len(found["queries"][0]["results"]) == 2


def test_all_splits_and_more_results_than_there_are(tmp_path, capsys):
    given = ("index", "--workdir", finished("vse"), "--split", "all", "--out", tmp_path / "index")
    assert _search(*given) == 0
    split = hmgr_jax.load(finished("vse")).open(("train", "dev", "test")).splits
    count = sum(len(split[role].ids["image"]) for role in split)
    assert f"{count} image items" in capsys.readouterr().out
    (row,) = _asked(tmp_path, "--index", tmp_path / "index", SENTENCES[0], "-k", 10 * count)
    assert len({result["id"] for result in row["results"]}) == count
    (row,) = _asked(tmp_path, "--index", tmp_path / "index", "--image", "dev/000003", "-k", 3)
    assert row["query"] == "dev/000003"


@pytest.mark.slow
def test_an_approximate_engine_prints_its_recall(tmp_path, capsys):
    given = ("index", "--workdir", finished("vse"), "--split", "train", "--engine", "hnsw")
    assert _search(*given, "--out", tmp_path / "index") == 0
    assert "recall@10:  1.000" in capsys.readouterr().out


@pytest.mark.slow
def test_a_name_is_swapped_only_to_an_index_of_the_same_model(vse, imram, tmp_path, capsys):
    name, dev = tmp_path / "served" / "current", tmp_path / "dev"
    given = ("index", "--workdir", finished("vse"), "--split", "dev", "--out", dev)
    assert _search(*given) == 0
    assert _search("swap", "--name", name, "--to", vse) == 0
    assert len(_asked(tmp_path, "--index", name, *SENTENCES, "-k", 12)) == 2
    assert _search("swap", "--name", name, "--to", dev) == 0
    assert "(was " in capsys.readouterr().out
    (row,) = _asked(tmp_path, "--index", name, SENTENCES[0], "-k", 1)
    assert row["results"][0]["id"].startswith("dev/")
    assert "The other index has model" in _refused(capsys, "swap", "--name", name, "--to", imram)
    assert "no index" in _refused(capsys, "swap", "--name", name, "--to", tmp_path / "none")
    assert "is a file or folder" in _refused(capsys, "swap", "--name", dev, "--to", vse)
    assert name.resolve() == dev.resolve()


@pytest.mark.slow
def test_the_folder_of_a_moved_run_can_be_given(vse, tmp_path, capsys):
    moved = shutil.copytree(finished("vse"), tmp_path / "moved")
    assert len(_asked(tmp_path, "--index", vse, "--workdir", moved, *SENTENCES, "-k", 2)) == 2
    said = _refused(capsys, "query", "--index", vse, "--workdir", finished("imram"), "a ring")
    assert "was built with model" in said
    assert f"hmgr_jax.search index --workdir {finished('vse')}" in said


def test_the_key_of_a_model_is_of_its_weights():
    retriever = hmgr_jax.load(finished("vse"))
    before = model_key(retriever)
    assert before == model_key(hmgr_jax.load(finished("vse")))
    own = retriever.variables
    leaves, form = jax.tree.flatten(own.params)
    other = jax.tree.unflatten(form, [leaves[0].at[(0,) * leaves[0].ndim].add(1e-3), *leaves[1:]])
    retriever.variables = dataclasses.replace(own, params=other)
    assert before != model_key(retriever)


def test_a_query_hashes_nothing_that_a_stored_digest_vouches_for(vse, tmp_path, monkeypatch):
    hashed, real = [], digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: hashed.append(path) or real(path))
    monkeypatch.setattr(searcher, "model_key", lambda _: pytest.fail("hashed again"))
    Searcher.open(vse)
    checkpoint = finished("vse") / "checkpoints"
    assert hashed
    assert all(checkpoint in path.parents for path in hashed)
    assert len(hashed) == len(set(hashed))
    hashed.clear()
    touched = shutil.copytree(vse, tmp_path / "touched")
    (touched / "items.jsonl").touch()
    Searcher.open(touched)
    assert [path for path in hashed if checkpoint not in path.parents] == [touched / "items.jsonl"]


@pytest.mark.slow
def test_a_program_can_search_an_index(vse):
    searcher = Searcher.open(vse)
    own = gallery.of_split(searcher.retriever, "test", "text")
    codes = own.codes(searcher.retriever)
    numbers, scores = searcher.search("text", codes, 4, without=[i.owner for i in own.items])
    for item, hits in zip(own.items, searcher.hits(numbers, scores), strict=True):
        assert item.owner not in {hit.item.id for hit in hits}
    assert isinstance(searcher.index, Index)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search"], "There is no action 'search': choose from index, query, find, update"),
        (["index", "--out", "x"], "--workdir is missing"),
        (["index", "--workdir", "{vse}"], "--out is missing"),
        (["index", "--workdir", "none", "--out", "x"], "holds no checkpoints"),
        (["index", "--workdir", "{vse}", "--out", "{index}"], "exists: give another --out"),
        (
            ["index", "--workdir", "{vse}", "--out", "x", "--split", "half"],
            "--split is one of",
        ),
        (
            ["index", "--workdir", "{vse}", "--out", "x", "--split", "dev", "--images", "p"],
            "--split and --images exclude each other",
        ),
        (
            ["index", "--workdir", "{vse}", "--out", "x", "--images", "p", "--modality", "text"],
            "leave them out with --images",
        ),
        (["index", "--workdir", "{vse}", "--out", "x", "--modality", "mesh"], "no modality mesh"),
        (["index", "--workdir", "{vse}", "--out", "x", "--engine", "annoy"], "no engine 'annoy'"),
        (["index", "--workdir", "{vse}", "--out", "x", "--uri", "a"], "uri is for engine milvus"),
        (["index", "--workdir", "{vse}", "--out", "x", "--images", "."], "not on pixels"),
        (["index", "pictures", "--images", ".", "--out", "x"], "DIR and --images exclude"),
        (["index", "--workdir", "{vse}", "--out", "x", "--captions", "none"], "cannot be read"),
        (["index", "--workdir", "{vse}", "--out", "x", "--pictures", "none"], "not a folder"),
        (
            ["index", "--workdir", "{vse}", "--out", "x", "--candidates", "0"],
            "candidates must be at least 1",
        ),
        (
            ["index", "--workdir", "{vse}", "--out", "x", "--candidates", "5"],
            "candidates is 5, but vse scores by an inner product",
        ),
        (["query", "--index", "{index}", "a ring", "--candidates", "5"], "without a shortlist"),
        (["query", "a ring"], "--index is missing"),
        (["query", "--index", "none", "a ring"], "There is no index"),
        (["query", "--index", "{index}"], "Give either sentences"),
        (["query", "--index", "{index}", "a ring", "--image", "3"], "Give either sentences"),
        (["query", "--index", "{index}", "a ring", "-k", "0"], "-k is 0, but must be at least 1"),
        (["query", "--index", "{index}", " "], "Sentence 0 is empty"),
        (["query", "--index", "{index}", "--image", "none.jpg"], "no image 'none.jpg' among"),
        (["query", "--index", "{index}", "--image", __file__], "not on pixels"),
        (["query", "--index", "{index}", "a ring", "--sheet", "a.jpg"], "end in .png"),
        (["query", "--index", "{index}", "a ring", "--from", "mesh", "--kk", "3"], "no flag"),
        (["swap", "--name", "x"], "--to is missing"),
    ],
)
def test_rejects_invalid_inputs_in_one_sentence(
    arguments, sentence, vse, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    known = {"vse": finished("vse"), "index": vse}
    assert sentence in _refused(capsys, *[a.format(**known) for a in arguments])
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_pairs_of_one_modality_are_refused(imram, capsys):
    said = _refused(capsys, "query", "--index", imram, "a ring")
    assert "the index and the query are both text items" in said


def test_a_damaged_index_names_the_command(vse, tmp_path, capsys):
    copy = shutil.copytree(vse, tmp_path / "index")
    (copy / "vectors.npy").write_bytes((copy / "vectors.npy").read_bytes()[:-7])
    said = _refused(capsys, "query", "--index", copy, "a ring")
    assert "bytes instead of" in said
    assert "build it again: python -m hmgr_jax.search index --workdir" in said


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "point a name to another index"),
        (["query", "--help"], "-k INT"),
        (["swap", "-h"], "--to DIR"),
    ],
)
def test_help_shows_the_options_of_an_action(arguments, shown, capsys):
    assert _search(*arguments) == 0
    assert shown in capsys.readouterr().out
