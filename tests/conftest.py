"""What holds for every test."""

import signal

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
