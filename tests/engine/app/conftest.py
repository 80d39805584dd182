"""A page served by the command line, as a person would, and a real browser in front of it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import weighbridge

COMMAND = "from weighbridge.cli import main; main()"


@pytest.fixture(scope="session")
def minilm_report(minilm, tmp_path_factory) -> Path:
    """A report of MiniLM whose source is where it was."""
    folder = tmp_path_factory.mktemp("minilm") / "report"
    weighbridge.scan(minilm, report=folder, device="cpu")
    return folder


@pytest.fixture(scope="session")
def serving(tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Serves something in a process of its own and gives the page's address."""
    running: list[subprocess.Popen[str]] = []
    home = tmp_path_factory.mktemp("served")
    places = {"XDG_DATA_HOME": str(home / "data"), "XDG_CACHE_HOME": str(home / "cache")}

    def serve(source: object, *options: str) -> str:
        command = [sys.executable, "-c", COMMAND, "view", str(source), "--no-browser", *options]
        with open(home / f"log-{len(running)}.txt", "w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | places)
        running.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), Path(log.name).read_text()
        return address

    yield serve
    for process in running:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
