"""The demo answers again after its package was installed anew."""

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from weighbridge import demo
from weighbridge.cli import app


def test_the_demo_of_another_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    weights = tmp_path / "digits_cnn.safetensors"
    shutil.copy(demo.locate("digits"), weights)
    monkeypatch.setattr(demo, "locate", lambda model: weights)
    for modified in (1, 2):
        os.utime(weights, (modified, modified))
        result = CliRunner().invoke(app, ["demo"])
        assert result.exit_code == 0, result.output
        assert "conv1.kernel" in result.output
