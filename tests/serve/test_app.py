"""The API of a server: what it answers, what it refuses, and that swaps lose no request."""

import io
import json
import shutil
import struct
import threading
import zlib

import numpy as np
import pytest
import served
from PIL import Image
from starlette.testclient import TestClient

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.search import following, running
from hmgr_jax.search.command import main as search_main
from hmgr_jax.search.index import Index, Item
from hmgr_jax.serve.app import create_app
from hmgr_jax.serve.command import main
from hmgr_jax.serve.pictures import Pictures
from hmgr_jax.serve.safety import Access, Limits
from hmgr_jax.serve.service import Job, Part, Service
from hmgr_jax.serve.snapshot import Filters

HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A model, pictures and an index."""
    return served.made(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def service(root):
    """A warm service."""
    found = Service(root / "index")
    found.warm()
    return found


@pytest.fixture
def client(service, tmp_path, monkeypatch):
    """A client of the application, on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with TestClient(create_app(service), base_url=HERE) as found:
        yield found


def _ids(answer):
    assert answer.status_code == 200, answer.text
    return [result["id"] for result in answer.json()["results"]]


def _scores(answer):
    return {result["id"]: result["score"] for result in answer.json()["results"]}


def _ask(client, **asked):
    return client.post("/api/search", json=asked)


def test_sentences_pictures_and_ids_find_what_the_index_finds(client, root):
    library = hmgr_jax.load(root / "clip").index(root / "pictures", out=root / "index")
    for query, answer in (
        ("two dogs", _ask(client, query="two dogs", k=4)),
        (
            root / "pictures" / "b.png",
            client.post(
                "/api/search",
                data={"request": json.dumps({"k": 4})},
                files={"picture": (root / "pictures" / "b.png").read_bytes()},
            ),
        ),
    ):
        hits = library.search(query, k=4)
        assert _ids(answer) == [hit.item.id for hit in hits]
        wanted = {hit.item.id: pytest.approx(hit.score, abs=1e-5) for hit in hits}
        assert _scores(answer) == wanted
    similar = _ask(client, queries=[{"id": "b.png"}], k=5)
    assert _ids(similar) == _ids(answer)[1:] + _ids(similar)[3:]
    assert "b.png" not in _ids(similar)


def test_a_combined_query_scores_by_the_weighted_mean(client):
    text, like = (
        _scores(_ask(client, k=9, queries=[q])) for q in ({"text": "red"}, {"id": "a.png"})
    )
    queries = [{"text": "red", "weight": 1}, {"id": "a.png", "weight": -0.5}]
    both = _scores(_ask(client, queries=queries, k=9))
    assert len(both) == 5
    for id, score in both.items():
        assert score == pytest.approx((text[id] - 0.5 * like[id]) / 1.5, abs=1e-5)


def test_filters_by_folder_and_date(client, root):
    assert set(_ids(_ask(client, query="red", folder="sub"))) == {*served.NAMES[2:5]}
    assert _ids(_ask(client, query="red", folder="nothing")) == []
    assert _ids(_ask(client, query="red", after="2100-01-01")) == []
    answer = _ask(client, query="red", before="2100-01-01")
    assert set(_ids(answer)) == {*served.NAMES}
    assert answer.json()["results"][0]["date"].startswith("20")


def test_more_results_than_there_are(client):
    assert set(_ids(_ask(client, query="a red dog", k=999))) == {*served.NAMES}


def test_unknown_words_are_named_and_refused_alone(client, service, monkeypatch):
    known = service.encoder.retriever.vocabulary
    monkeypatch.setattr(
        type(known), "unknown_words", lambda self, words: [w for w in words if w != "a"]
    )
    assert "The model does not know " in _ask(client, query="a dog").json()["notes"][0]
    answer = _ask(client, query="dog")
    assert (answer.status_code, "knows no word of" in answer.json()["error"]) == (400, True)


def _huge_png(side):
    """A black PNG of many pixels in a few bytes."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({}, "from 1 to 8 queries, got 0"),
        ({"query": ""}, "text is text, got ''"),
        ({"query": 3}, "text is text, got 3"),
        ({"query": "a" * 2001}, "2,001 characters, of at most 2,000"),
        ({"query": "a", "k": 0}, "k must be from 1 to 1000, got 0"),
        ({"query": "a", "k": 10**9}, "k must be from 1 to 1000"),
        ({"query": "a", "k": True}, "k must be from 1 to 1000"),
        ({"query": "a", "n": 1}, "There is no key 'n'"),
        ({"queries": [{"id": "../a.png"}]}, "holds no item '../a.png'"),
        ({"queries": [{"id": "a.png\0"}]}, "holds no item"),
        ({"queries": [{"text": "a", "id": "a.png"}]}, "A query has one of text, id, upload"),
        ({"queries": [{"text": "a"}] * 9}, "from 1 to 8 queries, got 9"),
        ({"queries": [{"text": "a", "weight": "x"}]}, "weight is a number"),
        ({"queries": [{"text": "a", "weight": 1e9}]}, "weight is a number up to 100"),
        ({"queries": [{"text": "a", "weight": 0}]}, "All weights are 0"),
        ({"queries": [{"upload": 0}]}, "upload counts the picture files"),
        ({"query": "a", "after": "yesterday"}, "after is a date"),
        ({"query": "a", "folder": 1}, "folder is text"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(client, asked, sentence):
    answer = _ask(client, **asked)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "sentence"),
    [
        (b"{", {"content-type": "application/json"}, 400, "is not JSON"),
        (b"[" * 100_000, {"content-type": "application/json"}, 400, "is not JSON"),
        (b"[]", {"content-type": "application/json"}, 400, "must be an object"),
        (b'{"query": "a", "k": NaN}', {"content-type": "application/json"}, 400, "k must be"),
        (b"a", {"content-type": "text/plain"}, 400, "Send application/json"),
        (b"a", {"content-type": "multipart/form-data"}, 400, "The form cannot be read"),
        (b"a" * 3_000_000, {"content-type": "application/json"}, 413, "at most 2,000,000 bytes"),
        (b"a" * 11, {"content-type": "multipart/form-data; boundary=b"}, 413, "at most 10 bytes"),
    ],
)
def test_bodies_that_are_no_search(service, content, headers, status, sentence):
    app = create_app(service, limits=Limits(text=2_000_000, form=10))
    with TestClient(app, base_url=HERE) as client:
        answer = client.post("/api/search", content=content, headers=headers)
        assert (answer.status_code, sentence in answer.json()["error"]) == (status, True)
        chunks = (content[n : n + 65536] for n in range(0, len(content), 65536))
        answer = client.post("/api/search", content=chunks, headers=headers)  # without a length
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("upload", "sentence"),
    [
        (b"", "is not a readable picture"),
        (b"PK\x03\x04" + bytes(1000), "is not a readable picture"),
        (_huge_png(9000), "9,000 x 9,000 pixels, of at most 64,000,000"),
        (_huge_png(50_000), "could be decompression bomb"),
    ],
    ids=["empty", "zip", "large", "bomb"],
)
def test_uploads_that_are_no_pictures(client, upload, sentence):
    answer = client.post("/api/search", files={"picture": upload})
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_only_pictures_of_the_index_are_served(client, root):
    (root / "pictures" / "secret.txt").write_text("secret")
    for id in ("/etc/passwd", "../clip/config.json", "secret.txt", "a.png\0", "%2e%2e%2f", "sub"):
        for part in ("", "/thumbnail", "/picture"):
            assert client.get(f"/api/items/{_quoted(id)}{part}").status_code == 404
    for path in ("/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/app.js/../../app.py"):
        assert client.get(path).status_code == 404
    answer = client.get(f"/api/items/{_quoted(served.NAMES[3])}/thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (30, 40)
    answer = client.get(f"/api/items/{_quoted(served.NAMES[3])}")
    assert answer.json()["id"] == "sub/d <script>.png"


def _quoted(id):
    from urllib.parse import quote

    return quote(id, safe="")


def test_the_page_allows_only_its_own_scripts(client):
    answer = client.get("/")
    assert "<title>Search</title>" in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for name in ("app.js", "style.css", "icon.svg"):
        found = client.get(f"/{name}")
        assert found.status_code == 200
        assert "http://" not in found.text.replace("http://www.w3.org/", "")
        assert "https://" not in found.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "attacker.example"}, 421),
        ({"host": "127.0.0.1.attacker.example:8000"}, 421),
        ({"host": ""}, 421),
        ({"origin": HERE}, 200),
        ({"origin": "http://attacker.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_hosts_and_sites_are_refused(client, headers, status):
    answer = client.post("/api/search", json={"query": "red"}, headers=headers)
    assert answer.status_code == status


def test_a_token_is_asked_for(service):
    token = "0123456789abcdef"
    app = create_app(service, Access("0.0.0.0", token))
    with TestClient(app, base_url="http://192.0.2.1:8000") as client:
        assert client.get("/api/health").status_code == 200
        assert client.get("/").status_code == 401
        assert _ask(client, query="red").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        answer = client.post("/api/search", json={"query": "red"}, headers=bearer)
        assert "picture" not in answer.json()["results"][0]  # no path of this machine
        assert "/" not in answer.json()["version"]
        first = client.get(f"/?token={token}", follow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (303, "/")
        assert "HttpOnly" in first.headers["set-cookie"]
        assert _ask(client, query="red").status_code == 200
        assert client.get("/").status_code == 200


def test_above_the_bound_requests_are_told_to_come_again(service):
    with TestClient(create_app(service, limits=Limits(running=0)), base_url=HERE) as client:
        answer = _ask(client, query="red")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/api/health").status_code == 200


def test_health_metrics_and_the_document(client):
    _ask(client, query="red")
    _ask(client)
    health = client.get("/api/health").json()
    assert (health["count"], health["explains"], health["combined"]) == (6, False, True)
    text = client.get("/metrics").text
    assert 'hmgr_requests_total{path="/api/search",status="200"} 1' in text
    assert 'hmgr_requests_total{path="/api/search",status="400"} 1' in text
    assert 'hmgr_search_seconds_bucket{le="+Inf"} 2' in text
    assert "hmgr_index_items 6" in text
    paths = client.get("/api/openapi.json").json()["paths"]
    for path in (path for path, methods in paths.items() if "get" in methods):
        assert client.get(path.replace("{id}", "a.png")).status_code in (200, 400), path
    assert "does not explain" in client.get("/api/explain?query=red&id=a.png").json()["error"]
    found = client.get("/api/overview").json()
    assert sum(cluster["count"] for cluster in found["clusters"]) == 6
    assert {point["id"] for point in found["points"]} == {*served.NAMES}


def test_an_update_is_taken_over_without_a_dropped_or_mixed_answer(root, tmp_path):
    shutil.copytree(root / "pictures", tmp_path / "pictures")
    retriever = hmgr_jax.load(root / "clip")
    following.build(retriever, [tmp_path / "pictures"], tmp_path / "b").save(tmp_path / "index")
    service = Service(tmp_path / "index")
    versions, failed, stop = {}, [], threading.Event()

    def ask():
        while not stop.is_set():
            answer = _ask(client, query="red", k=99)
            if answer.status_code != 200:
                failed.append(answer.text)
                continue
            found = answer.json()
            ids = frozenset(result["id"] for result in found["results"])
            if versions.setdefault(found["version"], ids) != ids or found["count"] != len(ids):
                failed.append(found)

    with TestClient(create_app(service), base_url=HERE) as client:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(5):
            served.draw(tmp_path / "pictures" / f"new{number}.png", number)
            following.update(tmp_path / "index", retriever=retriever)
            assert service.renew() or service.swaps == number + 1
        stop.set()
        for thread in threads:
            thread.join()
        assert client.get("/api/health").json()["count"] == 11
    assert failed == []
    assert len(versions) > 1
    assert service.swaps == 5


def test_a_version_that_cannot_be_served_leaves_the_one_before(root, tmp_path):
    copy = shutil.copytree(root / "index", tmp_path / "index")
    service = Service(copy)
    before = service.snapshot
    vectors = np.eye(2, before.searcher.index.dim, dtype=np.float32)
    other = Index.build(vectors, [Item("x"), Item("y")], model="another")
    other.save(copy / "versions" / "2")
    (copy / "current").symlink_to("versions/2")
    assert not service.renew()
    assert "was built with model another" in service.refused
    assert service.snapshot is before


def test_an_error_of_one_search_is_not_that_of_its_batch(service):
    snapshot = service.snapshot
    jobs = [
        Job(snapshot, [Part("text", "red")], 2),
        Job(snapshot, [Part("id", "none")], 2),
        Job(snapshot, [Part("text", "two dogs")], 3, Filters("sub")),
    ]
    good, bad, filtered = service.answer(jobs)
    assert (len(good), len(filtered)) == (2, 3)
    assert isinstance(bad, KeyError)
    alone = service.answer(jobs[:1])[0]
    assert [hit.item for hit in alone] == [hit.item for hit in good]


def test_a_sentence_that_cannot_be_read_fails_alone(service, monkeypatch):
    read = service.encoder.sentences

    def sentences(texts, against):
        if "bad" in texts:
            raise UserError("bad is bad")
        return read(texts, against)

    monkeypatch.setattr(service.encoder, "sentences", sentences)
    jobs = [Job(service.snapshot, [Part("text", text)], 2) for text in ("red", "bad", "two dogs")]
    good, bad, other = service.answer(jobs)
    assert (len(good), str(bad), len(other)) == (2, "bad is bad", 2)


def test_sentences_compile_one_program_a_bucket(service):
    encode = service.encoder._evaluators["text"]._encoders["text"]
    before = encode._cache_size()
    for count in (1, 3, 16, 17):
        service.encoder.sentences(["a red dog", "dog", "two dogs"] * count, "image")
    assert encode._cache_size() == before


def test_copies_of_pictures_are_cached_and_bounded(service, tmp_path, monkeypatch):
    pictures = Pictures(lambda item: None, folder=tmp_path)
    item = service.snapshot.item("a.png")
    first = pictures.jpeg(item, 16)
    (file,) = tmp_path.glob("*/*.jpg")
    monkeypatch.setattr("hmgr_jax.serve.pictures.load_picture", lambda *a, **b: pytest.fail("read"))
    assert pictures.jpeg(item, 16) == first == file.read_bytes()
    monkeypatch.setattr("hmgr_jax.serve.pictures.MOST_BYTES", 0)
    pictures.prune()
    assert not list(tmp_path.glob("*/*.jpg"))
    with pytest.raises(UserError, match="has no picture"):
        pictures.jpeg(item._replace(picture=""), 16)
    with pytest.raises(UserError, match="is gone"):
        pictures.jpeg(item._replace(picture="/none.png"), 16)


def test_the_command_line_asks_a_running_server(client, root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    index = root / "index"
    ask = ["search", "query", "--index", str(index), "two dogs", "-k", "2", "--json", "-"]
    assert search_main(ask) == 0
    alone = json.loads(capsys.readouterr().out)

    def asked(server, sentence, k):
        assert server["token"] == "secret"
        return _ask(client, query=sentence, k=k).json()

    monkeypatch.setattr(running, "_asked", asked)
    monkeypatch.setattr("hmgr_jax.search.searcher.Searcher.open", lambda *a: pytest.fail("loaded"))
    with running.announced(index, "http://none", "secret"):
        (file,) = tmp_path.rglob("servers/*.json")
        assert file.parent.stat().st_mode & 0o077 == 0
        assert search_main(ask) == 0
    found = json.loads(capsys.readouterr().out)
    for row in found["queries"][0]["results"]:
        row.pop("date")
    for rows in (alone, found):
        for result in rows["queries"][0]["results"]:
            result["score"] = pytest.approx(result["score"], abs=1e-5)
    assert {**found, "queries": 0} == {**alone, "queries": 0}
    assert not list(tmp_path.rglob("servers/*.json"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "--index is missing"),
        (["--index", "none"], "There is no index"),
        (["--index", ".", "--host", "0.0.0.0"], "give a --token of at least 16 characters"),
        (["--index", ".", "--host", "::", "--token", "short"], "at least 16 characters"),
        (["--index", ".", "--token", "with space"], "letters, digits"),
        (["--index", ".", "--port", "99999"], "--port is 99999"),
    ],
)
def test_mistakes_of_the_command(options, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HMGR_JAX_TOKEN", raising=False)
    assert main(["serve", *(options or ["--port", "1"])]) == 2
    assert sentence in capsys.readouterr().err
