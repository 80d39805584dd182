"""A heatmap in a file: its size, its colours where they must be, and the same bytes for the same call."""

import sys

import ml_dtypes
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import weighbridge
from weighbridge import cli
from weighbridge.errors import BadArgument, ReportError, TensorNotFound
from weighbridge.views.colours import colours

SIDE = 203


@pytest.fixture
def source(tmp_path):
    x = np.random.default_rng(0).normal(0, 0.1, (SIDE, 157)).astype(np.float32)
    x[101, 77] = 40
    bad = x.copy()
    bad[10:30, 20:40], bad[100:120, 90:110] = np.nan, np.inf
    tensors = {"w": x, "bad": bad, "empty": np.zeros((0, 3), np.float32), "narrow": x.astype(ml_dtypes.bfloat16)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, 3)


def holds(path, colour, at_least=1):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(pixels(path).astype(int) - wanted).max(axis=1) <= 2).sum() >= at_least


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_call_is_the_same_bytes(source, tmp_path, suffix):
    files = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for file in files:
        weighbridge.snapshot(source, "w", file)
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


@pytest.mark.parametrize("size", [(1200, 900), (641, 480)])
def test_the_size_is_in_pixels(source, tmp_path, size):
    weighbridge.snapshot(source, "w", tmp_path / "a.png", size=size)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == size


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_outlier_saturates_where_it_is(source, tmp_path, theme):
    paint = colours(theme)
    weighbridge.snapshot(source, "w", tmp_path / "near.png", rows=(95, 110), cols=(70, 85), limit=1.0, theme=theme)
    assert holds(tmp_path / "near.png", paint.above, at_least=500)
    weighbridge.snapshot(source, "w", tmp_path / "away.png", rows=(0, 50), cols=(0, 50), limit=1.0, theme=theme)
    assert not holds(tmp_path / "away.png", paint.above)
    assert holds(tmp_path / "away.png", paint.background, at_least=1000)


def test_what_is_no_number_has_its_own_colours(source, tmp_path):
    paint = colours("light")
    weighbridge.snapshot(source, "bad", tmp_path / "bad.png")
    assert holds(tmp_path / "bad.png", paint.nan, at_least=500)
    assert holds(tmp_path / "bad.png", paint.inf, at_least=500)
    weighbridge.snapshot(source, "narrow", tmp_path / "good.png")
    assert not holds(tmp_path / "good.png", paint.nan)


def test_reductions_differ(source, tmp_path):
    seen = set()
    for reduction in ("absmax", "mean", "rms", "min", "max", "zeros"):
        weighbridge.snapshot(source, "w", tmp_path / "a.png", reduction=reduction, size=(300, 200))
        seen.add((tmp_path / "a.png").read_bytes())
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"file": "a.gif"}, "unknown kind of picture"),
        ({"size": (10, 900)}, "expected 64 to 8,192 pixels"),
        ({"limit": 0.0}, "expected a positive number"),
        ({"limit": float("nan")}, "expected a positive number"),
        ({"rows": (5, 5)}, "rows 5:5; w has 203"),
        ({"cols": (0, 158)}, "columns 0:158; w has 157"),
        ({"reduction": "sum"}, "expected one of absmax"),
        ({"tensor": "empty"}, "has no entries"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_bad_calls_are_one_line_and_leave_no_file(source, tmp_path, options, said):
    before = set(tmp_path.iterdir())
    tensor, file = options.pop("tensor", "w"), tmp_path / options.pop("file", "a.png")
    with pytest.raises(BadArgument, match=said):
        weighbridge.snapshot(source, tensor, file, **options)
    assert set(tmp_path.iterdir()) == before


def test_an_unknown_tensor_and_a_folder_that_is_not_there(source, tmp_path):
    with pytest.raises(TensorNotFound, match="no tensor 'v'"):
        weighbridge.snapshot(source, "v", tmp_path / "a.png")
    with pytest.raises(ReportError, match="cannot be written"):
        weighbridge.snapshot(source, "w", tmp_path / "none" / "a.png")
    with pytest.raises(BadArgument, match="complex numbers have no order"):
        weighbridge.snapshot({"z": np.ones((3, 3), np.complex64)}, "z", tmp_path / "a.png")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["w", "-o", "a.png", "--size", "400x300", "--rows", "0:100", "--cols", "3:50", "--theme", "dark"], 0),
        (["w", "-o", "a.svg", "--reduction", "rms", "--limit", "0.5"], 0),
        (["w", "-o", "a.png", "--size", "wide"], 2),
        (["w", "-o", "a.png", "--rows", "all"], 2),
        (["w", "-o", "a.png", "--theme", "sepia"], 2),
        (["nothing", "-o", "a.png"], 2),
    ],
    ids=["window", "svg", "size", "rows", "theme", "tensor"],
)
def test_the_command(source, tmp_path, monkeypatch, capsys, arguments, code):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["weighbridge", "snapshot", str(source), *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code
    assert (tmp_path / arguments[2]).exists() == (code == 0)
    assert capsys.readouterr().err.count("\n") == (1 if code else 0)
