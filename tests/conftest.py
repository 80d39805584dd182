"""What holds for every test."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Benchmarks run once, as tests, unless they are asked for with --benchmark-enable or --benchmark-only."""
    if config.pluginmanager.hasplugin("benchmark"):
        option = config.option
        option.benchmark_disable = not (option.benchmark_enable or option.benchmark_only)
