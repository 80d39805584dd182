"""Every case of the suite runs, and so do its peers; what it reports is whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from weighbridge_benchmarks import circuits, context, projections, spectra, suite
from weighbridge_benchmarks.cases import CASES, Case, array_dtype
from weighbridge_benchmarks.timing import measure
from weighbridge_benchmarks.weights import SHAPES, pool, real_weights
from weighbridge_kernels import variants

SHAPE = "squeezenet.fire9"


@pytest.fixture(scope="module")
def result() -> suite.Result:
    return suite.run(shapes=[SHAPE], seconds=0.0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("form", ["host", "jax:cpu"])
def test_case(case: Case, form: str, benchmark: pytest.FixtureRequest) -> None:
    """Once as a test; as a benchmark with `pytest tests/benchmarks --benchmark-enable`."""
    variant = variants.on_jax("cpu") if form != "host" else variants.select("cpu")
    work = case.prepare(real_weights(SHAPES[SHAPE], array_dtype(case.dtype)), variant)
    work()
    benchmark(work)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_peers(case: Case) -> None:
    weights = real_weights(SHAPES["minilm.attention"], array_dtype(case.dtype))
    for name, prepare in case.peers.items():
        try:
            work = prepare(weights)
        except ImportError:
            assert name != "numpy"
            continue
        work()


def test_every_kernel_of_a_variant_has_a_case() -> None:
    from dataclasses import fields

    kernels = {field.name for field in fields(variants.Variant)} - {
        "name",
        "workers",
        "tile_entries",
        "tile_cols",
        "put",
        "spans",  # the others together
    }
    elsewhere = {"gram", "gram_product", "singular_values_of_gram", "singular_values_direct"}  # spectra.py's
    elsewhere |= {"correlations", "neighbours", "unit_rows"}  # projections.py's
    assert kernels - {case.kernel for case in CASES} - elsewhere == {"float_tile"}  # code_tile stands for both


def test_the_spectra_are_measured(tmp_path: Path) -> None:
    """Every part of `weighbridge_benchmarks.spectra`, on small matrices, without WeightWatcher."""
    found = spectra.vocabulary((300, 40), tmp_path, "cpu")
    assert found["peak_bytes"] > 1 << 24
    assert set(spectra.square(64, tmp_path, "cpu")["seconds"]) >= {"values", "spectra", "numpy"}
    assert spectra.large((40, 90), "cpu")["seconds"]["values"] > 0
    times = spectra.in_turns({"a": lambda: None, "b": lambda: None}, 2)
    assert set(times) == {"a", "b"}


def test_the_circuits_are_measured(tmp_path: Path) -> None:
    """Every part of `weighbridge_benchmarks.circuits`, on narrow modules and few small icons."""
    found = circuits.sheet(tmp_path, "cpu", 0.0)
    assert found["units"] == 256
    assert set(found["seconds"]) >= {"factors", "picture"}
    assert circuits.expanded(2, 9, 0.0)["kernel"] == [7, 7, 16]
    pytest.importorskip("optax")
    assert circuits.icons(2, 8, 2, 0.0)["steps_per_second"] > 0


def test_the_recorder_is_measured() -> None:
    """The cost of a recorded step, over few steps; memory is measured in processes of their own, on request."""
    pytest.importorskip("optax")
    found = context.recorder(2, 2)
    assert set(found["ratio"]) == {"every 50", "every 1"}
    assert min(found["milliseconds"].values()) > 0


def test_rows(result: suite.Result) -> None:
    assert {row["case"] for row in result["rows"]} == {case.name for case in CASES}
    assert {"host", "jax:cpu", "numpy"} <= {row["by"] for row in result["rows"]}
    for row in result["rows"]:
        assert row["median"] > 0
        assert row["weights"] == np.prod(SHAPES[SHAPE])
        assert row["repeats"] >= 3
    assert result["ceilings"]["host_read"] > 1e8
    assert result["machine"]["versions"]["numpy"] == np.__version__
    assert json.loads(suite.dumps(result)) == result


def test_compare_tells_a_change_from_noise(result: suite.Result) -> None:
    assert suite.compare(result, result) == []
    slower = json.loads(suite.dumps(result))
    slower["rows"][0]["median"] *= 1e9  # beyond whatever noise the machine has
    (changed,) = suite.compare(result, slower)
    assert changed[0].startswith(slower["rows"][0]["case"])
    assert changed[1] == pytest.approx(1e9)


def test_weights_are_real_and_tiled() -> None:
    assert pool().size > 50_000
    assert 0 < pool().std() < 1
    shape = (3, pool().size)
    np.testing.assert_array_equal(real_weights(shape, np.float32), np.tile(pool(), (3, 1)))


def test_measure_sees_what_a_call_takes() -> None:
    import time

    timing = measure(lambda: time.sleep(0.002), seconds=0.02)
    assert 0.002 <= timing.least <= timing.median
    assert timing.repeats >= 3


def test_picture(result: suite.Result, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from weighbridge_benchmarks.roofline import draw

    draw(result, tmp_path / "roof.svg")
    text = (tmp_path / "roof.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["host", "jax"])
def test_the_projections_are_measured(form: str) -> None:
    """Every part of `weighbridge_benchmarks.projections`, on a few rows; the peers that are installed too."""
    x = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
    kernels = variants.select("cpu") if form == "host" else variants.on_jax("cpu")
    assert set(projections.neighbours(x, kernels)["seconds"]) == {"neighbours", "correlations", "product", "numpy"}
    assert "pca" in projections.components(x, kernels, 5)["seconds"]
    loss = projections.factors(x, kernels, 3)["loss"]
    assert loss["nmf"] <= 1.01 * loss.get("sklearn", loss["nmf"])
    assert projections.embedding(x, kernels)["kl"]["tsne"] > 0
