"""What the tests of the engine share: where real networks lie, and scans that leave no trace outside of `tmp_path`."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from weighbridge import stream
from weighbridge.demo import locate
from weighbridge.errors import SourceNotFound
from weighbridge.report import Report

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_trace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without a place of their own, and caches, go to a folder of this test; nothing asks for colours."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    for variable in ("WEIGHBRIDGE_DEBUG", "FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def digits() -> Path:
    """The trained network in the package."""
    return locate("digits")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A trained transformer of 22.7 million float32 weights, from its package."""
    try:
        return locate("minilm")
    except SourceNotFound as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def resnet20() -> Path:
    """A trained residual network, kernels stored [out, in, height, width]."""
    path = SHARED_DATA / "resnet20_cifar10.safetensors"
    if not path.exists():
        pytest.skip(f"no folder {SHARED_DATA.parent.name}/{SHARED_DATA.name} with real networks beside the repository")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser, driven by Playwright; where there is none its tests are skipped, in CI they fail.

    Of one module of tests: as long as it runs, Playwright's event loop is that of the main thread and has its signals.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("no Chromium is installed")
    assert found is not None, "install Chromium: the page is tested in a real browser"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()


@pytest.fixture
def scanned(tmp_path: Path) -> Callable[..., Report]:
    """Scans a source on the CPU into a fresh folder."""
    from weighbridge import scan

    numbers = count()

    def scanned(source: Any, **options: Any) -> Report:
        options.setdefault("device", "cpu")
        return scan(source, report=tmp_path / f"report-{next(numbers)}", **options)

    return scanned


@pytest.fixture
def cut_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes every later scan cut tensors into pieces of about so many entries."""
    whole = stream.pieces
    return lambda entries: monkeypatch.setattr(stream, "pieces", partial(whole, entries=entries))
