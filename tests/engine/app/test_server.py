"""The page's server: what it answers, what it refuses, what it holds on to, and what it says of what is gone."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighbridge
from weighbridge.app import server
from weighbridge.app.model import Model
from weighbridge.errors import BadArgument
from weighbridge.pyramid import PyramidCache

SIDE = 6007


@pytest.fixture
def model(digits, tmp_path) -> Model:
    weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
    return Model.open(tmp_path / "report", PyramidCache(tmp_path / "cache"))


@pytest.fixture
def running(model):
    served = server.serve(model)
    thread = threading.Thread(target=served.run)
    thread.start()
    time.sleep(0.5)
    yield served
    served.stop()
    thread.join(10)
    assert not thread.is_alive()


def status(address: str, path: str, **headers: str) -> int:
    at = urlsplit(address)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
    connection.request("GET", path, headers=headers)
    found = connection.getresponse().status
    connection.close()
    return found


def test_only_the_token_opens_the_page(running):
    at = urlsplit(running.address_of_page)
    assert at.hostname == "127.0.0.1"
    token = at.path.strip("/")
    assert len(token) >= 32
    assert status(running.address_of_page, at.path) == 200
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    for path in ("/", "/index", f"/{wrong}/", f"/{token[:-1]}/", "/static/js/bokeh.min.js", "/autoload.js", "/ws"):
        assert status(running.address_of_page, path) == 404, path


def test_two_servers_have_two_tokens(model):
    served = [server.serve(model) for _ in range(2)]
    assert len({urlsplit(one.address_of_page).path for one in served}) == 2
    for one in served:
        one.close()


def test_a_foreign_origin_gets_no_socket(running):
    """The socket of a session is refused to a page of another host, the session's own token or not."""
    from tornado.httpclient import HTTPClientError, HTTPRequest
    from tornado.websocket import websocket_connect

    at = urlsplit(running.address_of_page)

    async def connect(origin: str) -> int:
        request = HTTPRequest(f"ws://{at.netloc}{at.path}ws", headers={"Origin": origin})
        try:
            socket = await websocket_connect(request, subprotocols=["bokeh", "no-token"])
        except HTTPClientError as error:
            await asyncio.sleep(0.2)  # the client's own end is closed by its loop
            return error.code
        socket.close()
        while await socket.read_message() is not None:
            pass
        await asyncio.sleep(0.2)
        return 101

    assert asyncio.run(connect("http://evil.example")) == 403
    assert asyncio.run(connect(f"http://{at.netloc}.evil.example")) == 403
    assert asyncio.run(connect(f"http://{at.netloc}")) == 101


def test_nothing_can_be_written_from_the_page(running, model):
    for method in ("POST", "PUT", "DELETE"):
        at = urlsplit(running.address_of_page)
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
        connection.request(method, at.path, body=b"{}")
        assert connection.getresponse().status in (403, 404, 405)
        connection.close()


def test_a_port_in_use_is_one_line(model):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadArgument, match="cannot be bound"):
            server.serve(model, port=taken.getsockname()[1])


def test_all_of_a_machines_names_are_its_own(model):
    """Bound to every address, the page is that of the machine by name, and of this machine alone by default."""
    assert server._names("127.0.0.1") == ["127.0.0.1", "localhost"]
    assert server._names("192.0.2.7") == ["192.0.2.7"]
    names = server._names("0.0.0.0")
    assert {"127.0.0.1", "localhost"} <= set(names)
    assert "0.0.0.0" not in names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.safetensors"], "there is no such file or folder"),
        ([".", "--device", "abacus"], "expected auto, cpu, gpu, tpu"),
        ([".", "--cache", "much"], "--cache 'much'; expected a size"),
        (["{digits}", "--address", "203.0.113.7"], "cannot be bound"),
    ],
    ids=["source", "device", "cache", "address"],
)
def test_a_bad_call_is_one_line_and_serves_nothing(digits, tmp_path, monkeypatch, capfd, arguments, said):
    from weighbridge import cli

    monkeypatch.chdir(tmp_path)
    given = [argument.format(digits=digits) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["weighbridge", "view", "--no-browser", *given])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_an_interrupt_ends_the_command(digits, tmp_path):
    """Ctrl-C in the terminal: the page is gone, in a second, without a trace."""
    import signal

    weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
    command = [sys.executable, "-c", "from weighbridge.cli import main; main()", "view", str(tmp_path / "report")]
    with subprocess.Popen(
        [*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert "Traceback" not in process.stderr.read()


_GROWTH = """
import gc, json, sys, threading, time, urllib.request
from pathlib import Path
import weighbridge
from weighbridge.app import server
from weighbridge.app.model import Model
from weighbridge.pyramid import PyramidCache

server._KEEP_UNUSED_MS, server._CHECK_UNUSED_MS = 300, 100
served = server.serve(Model.open(Path(sys.argv[1]), PyramidCache(Path(sys.argv[2]))))
names = list(weighbridge.Report.open(sys.argv[1]))

def anonymous():
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

def visit(count):
    for i in range(count):
        tab = ("heatmap", "channels", "distribution", "figures")[i % 4]
        query = f"?tensor={names[i % len(names)]}&tab={tab}" if i % 5 else ""
        urllib.request.urlopen(served.address_of_page + query).read()
    time.sleep(2)

def measure():
    visit(20)
    before = anonymous()
    visit(50)
    print(json.dumps(anonymous() - before))
    served.stop()

threading.Thread(target=measure).start()
served.run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_pages_that_are_gone_leave_no_memory_behind(digits, tmp_path):
    """After 20 pages, 50 more opened and expired grow the server by less than 100 MB."""
    weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
    command = [sys.executable, "-c", _GROWTH, str(tmp_path / "report"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1]) < 100 << 20


def test_a_report_whose_source_is_gone_shows_what_is_stored(serving, chromium, digits, tmp_path):
    moved = shutil.copy(digits, tmp_path / "model.safetensors")
    weighbridge.scan(moved, report=tmp_path / "report", device="cpu")
    Path(moved).unlink()
    address = serving(tmp_path / "report")
    page = chromium.new_page()
    page.goto(address)
    page.get_by_text("Stored results only: the weights are not where they were").wait_for()
    name = next(iter(weighbridge.Report.open(tmp_path / "report")))
    page.goto(f"{address}?tensor={name}")
    page.get_by_text("the weights are not where they were").first.wait_for()
    page.get_by_role("button", name="figures").click()
    page.get_by_text("kurtosis").first.wait_for()
    page.close()


def test_a_report_whose_source_changed_says_so(digits, tmp_path):
    path = Path(shutil.copy(digits, tmp_path / "model.safetensors"))
    weighbridge.scan(path, report=tmp_path / "report", device="cpu")
    os.utime(path, (1, 1))
    model = Model.open(tmp_path / "report", PyramidCache(tmp_path / "cache"))
    assert model.checkpoint is None
    assert "has changed since it was weighed" in model.missing


def test_a_source_is_weighed_while_it_is_shown(serving, chromium, tmp_path):
    """The table fills with what a scan that goes on has done."""
    rng = np.random.default_rng(0)
    tensors = {f"layers.{i}.mlp.weight": rng.normal(size=(64, 96)).astype(np.float32) for i in range(12)}
    save_file(tensors, tmp_path / "growing.safetensors")
    page = chromium.new_page()
    page.goto(serving(tmp_path / "growing.safetensors"))
    page.get_by_text("12 tensors").wait_for()
    page.get_by_text("layers.11.mlp.weight").first.wait_for()
    page.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A matrix that needs a pyramid, of heavy tails, with one weight far out."""
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    x = np.resize(np.random.default_rng(1).standard_t(5, 1_000_003), (SIDE, SIDE)).astype(np.float16)
    x[4001, 1234] = 3e4
    save_file({"wide.weight": x}, path)
    return path


_LARGEST = """() => { for (const doc of Bokeh.documents) for (const model of doc._all_models.values())
  if (model.type == "Figure") for (const renderer of model.renderers)
    if (renderer.glyph?.type == "Image" && renderer.glyph.color_mapper.palette.length > 3) {
      const data = renderer.data_source.data, image = data.image[0], [h, w] = image.shape
      let at = 0
      for (let i = 0; i < image.length; i++) if (Math.abs(image[i]) > Math.abs(image[at])) at = i
      return [image[at], Math.floor(at / w) * data.dh[0] / h, (at % w) * data.dw[0] / w, data.dh[0] / h] }
  return null }"""


def test_a_large_matrix_is_built_shown_and_mended(serving, chromium, large, tmp_path_factory):
    """A pyramid is built in the background; the outlier is in the first picture; a damaged entry is built anew."""
    address = serving(large)
    page = chromium.new_page(viewport={"width": 1500, "height": 900})
    page.goto(f"{address}?tensor=wide.weight")
    for visit in range(2):
        deadline = time.monotonic() + 60
        while not (found := page.evaluate(_LARGEST)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        value, row, col, side = found
        assert value == 30_000
        assert row <= 4001 < row + side
        assert col <= 1234 < col + side
        if visit == 0:
            found_in = tmp_path_factory.getbasetemp().glob("served*/cache/weighbridge/pyramids/*")
            (folder,) = {path.resolve() for path in found_in}
            for chunk in folder.glob("*/greatest/c/*/*"):
                with contextlib.suppress(FileNotFoundError):  # the page may have noticed the first, and taken all away
                    chunk.write_bytes(os.urandom(chunk.stat().st_size))
            page.goto(f"{address}?tensor=wide.weight&reduction=absmax")
            page.get_by_role("heading", level=2).wait_for()
    page.close()
    with urllib.request.urlopen(address) as answer:
        assert answer.status == 200
