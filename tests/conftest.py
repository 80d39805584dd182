"""What holds for every test."""

import signal
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Benchmarks run once, as tests, unless they are asked for with --benchmark-enable or --benchmark-only."""
    if config.pluginmanager.hasplugin("benchmark"):
        option = config.option
        option.benchmark_disable = not (option.benchmark_enable or option.benchmark_only)
    # A shell without job control starts what runs in the background deaf to Ctrl-C, and its children with it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Loads a script of `examples/` by its name; they import one another."""
    folder = str(Path(__file__).resolve().parents[1] / "examples")
    sys.path.insert(0, folder)
    yield import_module
    sys.path.remove(folder)
