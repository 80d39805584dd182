"""Spectra of a checkpoint's matrices: against NumPy's LAPACK, WeightWatcher's own figures, and what has none."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import weighbridge
from weighbridge.analyses import matrices, spectrum_row
from weighbridge.analyses.weightwatcher_bulk import bulk, triangular_density
from weighbridge.cli import app
from weighbridge.errors import BadArgument, CorruptCheckpoint, ReportError
from weighbridge.report.matrix_columns import SPECTRA, WEIGHTWATCHER
from weighbridge_kernels import variants
from weighbridge_kernels.spectral_density import gaussian

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FIGURES = Path(__file__).with_name("weightwatcher_figures.csv")
"""What WeightWatcher 0.7.7 gives for the tensors of `drawn` and three of MiniLM's, where the folder is not at hand."""
FIT = ("mp_softrank", "num_spikes", "sigma_mp")
COMPARED = (
    "M", "N", "num_evals", "alpha", "D", "sigma", "xmin", "xmax", "num_pl_spikes", "log_norm", "norm", "spectral_norm",
    "log_spectral_norm", "stable_rank", "alpha_weighted", "log_alpha_norm", "entropy", "matrix_rank", "rank_loss",
)  # fmt: skip


@pytest.fixture
def decomposed(tmp_path):
    numbers = iter(range(100))

    def decompose(source, **options):
        return weighbridge.spectra(source, report=tmp_path / f"spectra-{next(numbers)}", **options)

    return decompose


def row_of(report, name, table="spectra", part=""):
    rows = report.table(table, lists=True)
    (row,) = rows[(rows["name"] == name) & (rows["part"] == part)].to_dict("records")
    return row


@pytest.mark.parametrize("route", ["gram", "direct"])
@pytest.mark.parametrize("shape", [(257, 61), (61, 257), (64, 64), (300, 2), (2, 300)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16, np.float16])
def test_all_singular_values(decomposed, monkeypatch, dtype, shape, route):
    """Whatever the strips, above a thousandth of the largest within 1e-5, below within 1e-6 of the largest."""
    monkeypatch.setattr(matrices, "STRIP_ENTRIES", 1000)
    x = (np.random.default_rng(3).standard_t(4, shape) * np.geomspace(1, 1e-4, shape[1])).astype(dtype)
    row = row_of(decomposed({"x": x}, route=route), "x")
    expected = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    large = expected > 1e-3 * expected[0]
    np.testing.assert_allclose(row["singular_values"][large], expected[large], rtol=1e-5)
    np.testing.assert_allclose(row["singular_values"][~large], expected[~large], rtol=0, atol=1e-6 * expected[0])
    assert (row["rows"], row["cols"], row["route"]) == (*shape, route)
    assert row["spectral_norm"] == pytest.approx(expected[0], rel=1e-10)
    assert row["frobenius_norm"] == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-10)
    assert row["stable_rank"] == pytest.approx((expected**2).sum() / expected[0] ** 2, rel=1e-9)


def test_no_tensor_is_left_out(decomposed):
    rng = np.random.default_rng(0)
    tree = {
        "h.0.mlp.weight": rng.standard_normal((9, 7)),
        "h.0.mlp.bias": rng.standard_normal(7),
        "ids": np.arange(12).reshape(3, 4),
        "empty.weight": np.zeros((0, 5), np.float32),
        "nan.weight": np.full((4, 4), np.nan, np.float32),
        "inf.weight": np.array([[1, np.inf], [0, 1]], np.float32),
        "wide.weight": rng.standard_normal((40, 41)),
        "zero.weight": np.zeros((6, 5), np.float32),
    }
    rows = decomposed(tree, exact_up_to=20).table("spectra").set_index("name")
    assert set(rows.index) == set(tree)
    assert rows["status"].to_dict() == {
        "h.0.mlp.weight": "done",
        "h.0.mlp.bias": "skipped",
        "ids": "skipped",
        "empty.weight": "skipped",
        "nan.weight": "failed",
        "inf.weight": "failed",
        "wide.weight": "done",
        "zero.weight": "done",
    }
    reasons = rows["reason"]
    assert "fewer than two axes" in reasons["h.0.mlp.bias"]
    assert "I64 holds no weights" in reasons["ids"]
    assert "NaN or Inf" in reasons["nan.weight"]
    assert "short side of 40 exceeds --exact-up-to 20: leading values, and the density" in reasons["wide.weight"]
    assert rows.loc["zero.weight", "rank"] == 0
    assert math.isnan(rows.loc["zero.weight", "alpha"])


def test_experts_are_rows_and_convolutions_are_unfolded(decomposed):
    rng = np.random.default_rng(1)
    experts, conv = rng.standard_normal((3, 11, 6)), rng.standard_normal((8, 5, 3, 3))
    report = decomposed({"layers.0.mlp.experts.up_proj": experts, "conv1.weight": conv.astype(np.float32)})
    for i in range(3):
        row = row_of(report, "layers.0.mlp.experts.up_proj", part=str(i))
        np.testing.assert_allclose(row["singular_values"], np.linalg.svd(experts[i], compute_uv=False), rtol=1e-10)
    row = row_of(report, "conv1.weight")
    expected = np.linalg.svd(conv.astype(np.float32).astype(float).reshape(8, 45), compute_uv=False)
    np.testing.assert_allclose(row["singular_values"], expected, rtol=1e-7)


def test_a_report_holds_scan_and_spectra_of_the_same_files(digits, tmp_path):
    report = weighbridge.scan(digits, report=tmp_path / "both", device="cpu")
    hashes = [file["content"] for file in report.manifest.files]
    both = weighbridge.spectra(digits, report=tmp_path / "both")
    assert set(both.manifest.analyses) == {"scan", "spectra"}
    assert both.complete
    assert len(both.table("scan")) == len(both.table("spectra")) == len(weighbridge.open(digits))
    assert [file["content"] for file in both.manifest.files] == hashes
    again = weighbridge.scan(digits, report=tmp_path / "both", if_exists="overwrite", device="cpu")
    assert set(again.manifest.analyses) == {"scan", "spectra"}
    assert len(again.table("spectra"))


def test_other_options_or_files_are_refused(digits, resnet20, tmp_path):
    weighbridge.spectra(digits, report=tmp_path / "r")
    assert weighbridge.spectra(digits, report=tmp_path / "r").complete
    with pytest.raises(ReportError, match="other files or options"):
        weighbridge.spectra(digits, report=tmp_path / "r", route="direct")
    with pytest.raises(ReportError, match="other files or options"):
        weighbridge.spectra(resnet20, report=tmp_path / "r")


def test_an_interrupted_run_goes_on(digits, tmp_path, monkeypatch):
    """What is finished is kept, what failed is tried again, and the table is that of one run."""
    whole = weighbridge.spectra(digits, report=tmp_path / "whole").table("spectra", lists=True)
    real, calls = spectrum_row.rows, iter(range(1000))

    def breaks(job):
        if next(calls) == 2:
            raise KeyboardInterrupt
        yield from real(job)

    monkeypatch.setattr(spectrum_row, "rows", breaks)
    with pytest.raises(KeyboardInterrupt):
        weighbridge.spectra(digits, report=tmp_path / "cut")
    monkeypatch.setattr(spectrum_row, "rows", real)
    with pytest.raises(ReportError, match="incomplete"):
        weighbridge.spectra(digits, report=tmp_path / "cut")
    resumed = weighbridge.spectra(digits, report=tmp_path / "cut", if_exists="resume").table("spectra", lists=True)
    assert resumed.astype(str).equals(whole.astype(str))


def test_the_command(tmp_path, monkeypatch):
    """The rows, what failed and why, how a run is taken up again, and what is refused."""
    rng = np.random.default_rng(21)
    experts = rng.standard_normal((2, 9, 6))
    experts[1, 2, 2] = np.inf
    tree = {"layers.0.mlp.experts.up_proj": experts, "wide": rng.standard_normal((30, 40)), "bias": np.ones(3)}
    save_file(tree, tmp_path / "m.safetensors")
    source, folder = str(tmp_path / "m.safetensors"), tmp_path / "r"
    arguments = ["spectra", source, "--report", str(folder), "--device", "cpu", "--exact-up-to", "20", "--top", "3"]
    run = CliRunner().invoke
    assert "3 of 3 tensors" in run(app, [*arguments, "--dry-run"]).output
    assert not folder.exists()
    first = run(app, arguments)
    assert first.exit_code == 3
    assert "failed layers.0.mlp.experts.up_proj[1]: holds NaN or Inf" in first.output
    assert "left out: 1 has fewer than two axes" in first.output
    assert "leading" in first.output
    real, done = spectrum_row.rows, []
    monkeypatch.setattr(spectrum_row, "rows", lambda job: done.append(job.tensor.name) or real(job))
    again = run(app, [*arguments, "--resume", "--json"])
    assert again.exit_code == 3
    assert done == ["layers.0.mlp.experts.up_proj"]
    rows = {(row["name"], row["part"]): row for row in map(json.loads, again.stdout.splitlines())}
    assert {key: row["status"] for key, row in rows.items()} == {
        ("layers.0.mlp.experts.up_proj", "0"): "done",
        ("layers.0.mlp.experts.up_proj", "1"): "failed",
        ("wide", ""): "done",
        ("bias", ""): "skipped",
    }
    assert rows["wide", ""]["route"] == "leading"
    for wrong in (["--route", "fast"], ["--convolutions", "circular"], ["--top", "0"], ["--exact-up-to", "0"]):
        assert run(app, ["spectra", source, "--report", str(tmp_path / "no"), *wrong]).exit_code == 2
    assert not (tmp_path / "no").exists()


def test_the_side_up_to_which_all_values_are_found(decomposed):
    """Of the device, unless asked for; a side of just that length is decomposed whole."""
    assert spectrum_row.EXACT_UP_TO < spectrum_row.EXACT_UP_TO_ON_ACCELERATOR
    asked = spectrum_row.Options("gram", None, 32, 0, "unfolded", None, "whole", "none")
    for name, side in (("host", 8192), ("jax:cpu", 8192), ("jax:gpu", 16384)):
        kernels = replace(variants.select("cpu"), name=name)
        assert spectrum_row.exact_up_to(spectrum_row.Job(None, None, None, asked, kernels)) == side
    for limit, route in ((9, "leading"), (10, "gram")):
        assert row_of(decomposed({"x": np.ones((10, 12))}, exact_up_to=limit), "x")["route"] == route


def test_every_column_of_the_schema_is_filled(decomposed, digits):
    for compat, columns in ((None, SPECTRA), ("weightwatcher", WEIGHTWATCHER)):
        report = decomposed(digits, compat=compat, baseline="permuted")
        rows = report.table(compat or "spectra", lists=True)
        done = rows[rows["status"] == "done"]
        empty = {column.name for column in columns if done[column.name].isna().all()}
        assert empty <= {"step", "reason", "layer", "singular_value_bounds", "density_at", "density", "density_error"}


def shared(name):
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"no folder {SHARED_DATA.parent.name}/{SHARED_DATA.name} beside the repository")
    return figures_in(path)


def figures_in(path):
    """The rows of a table of WeightWatcher's by the names of tensors."""
    with path.open() as file:
        return {f"{row['longname']}.weight": row for row in csv.DictReader(file)}


def assert_as_weightwatcher(report, rows, columns, rel):
    found = report.table("weightwatcher").set_index("name")
    for name, row in rows.items():
        for column in columns:
            expected = pytest.approx(float(row[column]), rel=rel, abs=1e-9)
            assert float(found.loc[name, column]) == expected, (name, column)


def test_compat_agrees_with_weightwatcher_on_minilm(decomposed, minilm):
    rows, fits = shared("weightwatcher_minilm.csv"), shared("weightwatcher_minilm_mp.csv")
    assert len(rows) == len(fits) == 39
    report = decomposed(minilm, compat="weightwatcher")
    assert_as_weightwatcher(report, rows, COMPARED, 1e-5)
    assert_as_weightwatcher(report, fits, FIT, 1e-4)


def test_compat_agrees_with_weightwatcher_on_convolutions(decomposed, resnet20):
    """And on a last layer of ten eigenvalues, where its alpha is one for small samples."""
    rows = shared("weightwatcher_resnet20.csv")
    assert len(rows) == 20
    assert_as_weightwatcher(decomposed(resnet20, compat="weightwatcher"), rows, COMPARED, 1e-5)


def drawn():
    """Kernels of several sizes, tall and square matrices, few eigenvalues."""
    rng = np.random.default_rng(0)
    shapes = {
        "conv3": (24, 16, 3, 3),
        "conv5": (20, 10, 5, 5),
        "conv1": (60, 48, 1, 1),
        "tall": (300, 90),
        "square": (80, 80),
        "ten": (10, 64),
        "fifteen": (15, 40),
    }
    return {
        f"{name}.weight": rng.standard_t(3, shape).astype(np.float32) * np.float32(0.1)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("form", ["host", "jax"])
def test_stored_figures_of_weightwatcher(decomposed, monkeypatch, form):
    """The factor of a convolution is sqrt(1 / 2) whatever its kernel's size: of sqrt(k · k / 2) no norm would agree."""
    tensors = drawn()
    if form == "jax":
        monkeypatch.setattr(variants, "find_spec", lambda name: None)
        tensors = {name: tensors[name] for name in ("conv5.weight", "fifteen.weight")}
    rows = {name: row for name, row in figures_in(FIGURES).items() if name in tensors}
    assert len(rows) == len(tensors)
    report = decomposed(tensors, compat="weightwatcher")
    assert set(report.table("weightwatcher")["variant"]) == {"host" if form == "host" else "jax:cpu"}
    assert_as_weightwatcher(report, rows, COMPARED, 1e-5)
    assert_as_weightwatcher(report, rows, FIT, 1e-3)


def test_stored_figures_of_weightwatcher_on_minilm(decomposed, minilm):
    rows = {name: row for name, row in figures_in(FIGURES).items() if name not in drawn()}
    assert len(rows) == 3
    report = decomposed(minilm, compat="weightwatcher", include=list(rows))
    assert_as_weightwatcher(report, rows, COMPARED, 1e-5)
    assert_as_weightwatcher(report, rows, FIT, 1e-4)


def test_compat_of_what_is_singular_or_broken(decomposed):
    """Ranks slice by slice, an expert with NaN alone; no bulk where the density's points miss all eigenvalues."""
    rng = np.random.default_rng(19)
    conv = rng.standard_normal((7, 5, 1, 2))
    conv[:, :, 0, 0] = np.outer(np.arange(7), np.ones(5))
    experts = rng.standard_normal((3, 9, 6))
    experts[1, 2, 2] = np.nan
    tree = {"conv1.weight": conv, "layers.0.mlp.experts.up_proj": experts, "zero": np.zeros((6, 4))}
    report = decomposed(tree, compat="weightwatcher")
    row = row_of(report, "conv1.weight", "weightwatcher")
    assert (row["num_evals"], row["matrix_rank"], row["rank_loss"]) == (10, 6, 4)
    rows = report.table("weightwatcher").query("name.str.contains('experts')").set_index("part")
    assert rows["status"].to_dict() == {"0": "done", "1": "failed", "2": "done"}
    row = row_of(report, "zero", "weightwatcher")
    assert row["matrix_rank"] == 0
    assert math.isnan(row["alpha"])
    assert math.isnan(bulk(np.append(np.full(3999, 0.5), 2000.0), (8000, 4000)).sigma)


def test_the_triangular_density_is_its_sum():
    values = np.sort(np.random.default_rng(20).uniform(0, 3, 50))
    at = np.concatenate([np.linspace(-0.5, 3.5, 83), values[:3], values[:3] + 0.1])
    plain = np.maximum(1 - np.abs(at[:, None] - values) / 0.1, 0).sum(axis=1) / (50 * 0.1)
    np.testing.assert_allclose(triangular_density(values, at), plain, atol=1e-12)


def test_findings_of_spectra(decomposed):
    """Noise, a rank of three, one direction: each found where it was planted, and nothing where nothing was."""
    rng = np.random.default_rng(4)
    noise, thin = rng.standard_normal((200, 120)), rng.standard_normal((90, 3)) @ rng.standard_normal((3, 70))
    single = 0.01 * rng.standard_normal((64, 64)) + np.outer(rng.standard_normal(64), rng.standard_normal(64))
    left, right = (np.linalg.qr(rng.standard_normal((side, 100)))[0] for side in (300, 100))
    heavy = (left * np.arange(1, 101) ** -0.5) @ right.T
    report = decomposed({"noise": noise, "thin": thin, "single": single, "heavy": heavy})
    found = {finding.check: finding.rows for finding in weighbridge.findings(report)}
    assert found["near-random"] == ("noise",)
    assert found["low-rank"] == ("thin",)
    assert found["rank-collapse"] == ("single",)
    assert "heavy" not in {name for rows in found.values() for name in rows}


@pytest.mark.parametrize("shape", [(400, 150), (150, 400), (90, 90)], ids=str)
def test_leading_values_are_within_their_bounds(decomposed, monkeypatch, shape):
    """Every value within its own bound of a true one, the greatest to many digits, the same for the same key."""
    monkeypatch.setattr(matrices, "STRIP_ENTRIES", 3001)
    rng = np.random.default_rng(8)
    x = rng.standard_t(3, shape) * np.geomspace(1, 0.05, shape[1])
    options = {"exact_up_to": 10, "top": 12}
    row = row_of(decomposed({"x": x}, **options), "x")
    true = np.linalg.svd(x, compute_uv=False)
    values, bounds = row["singular_values"], row["singular_value_bounds"]
    assert values.shape == bounds.shape == (12,)
    nearest = np.abs(values[:, None] - true[None, :]).min(axis=1)
    assert (nearest <= bounds).all()
    np.testing.assert_allclose(values[:4], true[:4], rtol=1e-8)
    assert row["route"] == "leading"
    assert row["accuracy"] == bounds.max()
    assert row["frobenius_norm"] == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert row["stable_rank"] == pytest.approx((true**2).sum() / true[0] ** 2, rel=1e-8)
    assert math.isnan(row["nuclear_norm"])
    np.testing.assert_array_equal(values, row_of(decomposed({"x": x}, **options), "x")["singular_values"])
    other = row_of(decomposed({"x": x}, **options, key=1), "x")["singular_values"]
    np.testing.assert_allclose(other[:4], true[:4], rtol=1e-8)


@pytest.mark.parametrize("x", [np.zeros((30, 20)), np.eye(40), np.outer(np.arange(30.0), np.ones(25))])
def test_leading_values_of_singular_matrices(decomposed, x):
    row = row_of(decomposed({"x": x}, exact_up_to=5, top=8), "x")
    true = np.linalg.svd(x, compute_uv=False)
    values = row["singular_values"]
    assert (np.abs(values - true[: values.size]) <= row["singular_value_bounds"]).all()


def test_what_is_not_finite_fails_on_every_route(decomposed):
    x = np.ones((50, 40))
    x[3, 4] = np.inf
    for options in ({"exact_up_to": 5}, {"route": "direct"}, {}):
        row = row_of(decomposed({"x": x}, **options), "x")
        assert row["status"] == "failed"
        assert "NaN or Inf" in row["reason"]


def test_the_density_of_a_matrix_too_large_to_decompose(decomposed):
    """Nearly everywhere within two standard errors of the true density, equally smoothed."""
    x = np.random.default_rng(12).standard_t(5, (500, 300))
    row = row_of(decomposed({"x": x}, exact_up_to=100), "x")
    true = np.linalg.svd(x, compute_uv=False)
    width = np.sqrt(np.square(true).mean()) / 8
    expected = gaussian((row["density_at"][:, None] - true) / width).mean(axis=1) / width
    assert (np.abs(row["density"] - expected) <= 2 * row["density_error"] + 1e-3 * expected.max()).mean() > 0.8
    assert np.trapezoid(row["density"], row["density_at"]) == pytest.approx(1, abs=0.03)


def test_the_entries_that_carry_a_singular_vector(decomposed):
    """One planted on three rows and two columns is found there; of equal singular values none is told."""
    rng = np.random.default_rng(13)
    u, v = np.zeros(90), np.zeros(40)
    u[[5, 17, 60]], v[[3, 30]] = [0.8, -0.5, 0.33], [-0.9, 0.43]
    x = 100 * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v)) + 0.01 * rng.standard_normal((90, 40))
    for matrix, rows, cols in ((x, [5, 17, 60], [3, 30]), (x.T, [3, 30], [5, 17, 60])):
        row = row_of(decomposed({"x": matrix}), "x")
        assert sorted(row["row_carriers"][: len(rows)]) == rows
        assert sorted(row["col_carriers"][: len(cols)]) == cols
        assert row["row_participation"][0] < 4
        left, _, right = np.linalg.svd(matrix)
        sign = np.sign(right[0][row["col_carriers"][0]] * row["col_loadings"][0])
        np.testing.assert_allclose(row["row_loadings"][:8], sign * left[:, 0][row["row_carriers"][:8]], atol=1e-6)
        np.testing.assert_allclose(row["col_loadings"][:8], sign * right[0][row["col_carriers"][:8]], atol=1e-6)
    assert row_of(decomposed({"x": np.eye(20)}), "x")["row_carriers"] is None
    partly = row_of(decomposed({"x": np.diag([9.0, 5, 5, 3, 1, 0.5])}), "x")
    assert partly["vector_ranks"].tolist() == [1, 4]
    assert partly["row_carriers"].reshape(2, -1)[:, 0].tolist() == [0, 3]
    for top, ranks in ((2, [1]), (9, [1, 2, 3, 4])):  # below the last of the leading values lies what is not known
        row = row_of(decomposed({"x": np.diag(0.7 ** np.arange(40.0))}, exact_up_to=20, top=top), "x")
        assert row["vector_ranks"].tolist() == ranks
        assert row["col_carriers"].reshape(len(ranks), -1)[:, 0].tolist() == [rank - 1 for rank in ranks]


def test_convolutions_in_slices_and_as_maps(decomposed):
    rng = np.random.default_rng(14)
    torch, flax = rng.standard_normal((6, 4, 3, 2)), rng.standard_normal((3, 2, 4, 6))
    tree = {"conv1.weight": torch, "Conv_0.kernel": flax}
    slices = decomposed(tree, convolutions="slices")
    circular = decomposed(tree, convolutions="circular", input_size=(7, 6))
    for name, kernel in (("conv1.weight", torch), ("Conv_0.kernel", flax.transpose(3, 2, 0, 1))):
        for place in np.ndindex(3, 2):
            row = row_of(slices, name, part=f"place {place[0]},{place[1]}")
            np.testing.assert_allclose(row["singular_values"], np.linalg.svd(kernel[:, :, *place], compute_uv=False))
        row = row_of(circular, name, part="circular 7 x 6")
        dense = circulant(kernel, (7, 6))
        np.testing.assert_allclose(row["singular_values"], np.linalg.svd(dense, compute_uv=False), atol=1e-12)
        assert (row["rows"], row["cols"], row["route"]) == (*dense.shape, "fourier")
        assert "circular padding and stride 1" in row["reason"]
    small = decomposed(tree, convolutions="circular", input_size=(2, 6)).table("spectra")
    assert set(small["status"]) == {"skipped"}
    with pytest.raises(BadArgument, match="expected a size with 'circular'"):
        weighbridge.spectra(tree, convolutions="circular")


def circulant(kernel, size):
    """A convolution under circular padding as a dense matrix, entry by entry."""
    outputs, inputs, *space = kernel.shape
    dense = np.zeros((outputs, *size, inputs, *size))
    for at in np.ndindex(*size):
        for place in np.ndindex(*space):
            source = tuple((a + p) % side for a, p, side in zip(at, place, size, strict=True))
            dense[(slice(None), *at, slice(None), *source)] += kernel[(slice(None), slice(None), *place)]
    return dense.reshape(outputs * math.prod(size), -1)


def test_attention_by_head(decomposed, tmp_path):
    """Rows of queries and keys, columns of the output, as many heads as config.json tells; shared ones for keys."""
    rng = np.random.default_rng(15)
    shapes = {"q_proj": (24, 20), "k_proj": (12, 20), "v_proj": (12, 20), "o_proj": (20, 24)}
    tree = {f"model.layers.0.self_attn.{name}.weight": rng.standard_normal(s) for name, s in shapes.items()}
    save_file(tree, tmp_path / "model.safetensors")
    settings = {"hidden_size": 20, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    report = decomposed(tmp_path, attention="heads")
    for name, x in tree.items():
        count = 2 if x.shape[0] == 12 else 4
        pieces = np.split(x, count, axis=1 if "o_proj" in name else 0)
        assert len(report.table("spectra").query("name == @name")) == 1 + count
        for head, piece in enumerate(pieces):
            row = row_of(report, name, part=f"head {head}")
            np.testing.assert_allclose(row["singular_values"], np.linalg.svd(piece, compute_uv=False), rtol=1e-10)
    assert len(decomposed(tmp_path).table("spectra")) == 4
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CorruptCheckpoint, match=r"config.json: is a list; expected an object"):
        decomposed(tmp_path, attention="heads")


def test_entries_in_random_order(decomposed):
    """What is noise is as its own shuffle; what is not has values beyond it; the same key gives the same numbers."""
    rng = np.random.default_rng(16)
    noise = rng.standard_normal((300, 200))
    u, v = (side / np.linalg.norm(side) for side in (rng.standard_normal(300), rng.standard_normal(200)))
    spiked = noise + 60 * np.outer(u, v)
    first = decomposed({"noise": noise, "spiked": spiked}, baseline="permuted")
    again = decomposed({"noise": noise, "spiked": spiked}, baseline="permuted")
    other = decomposed({"noise": noise, "spiked": spiked}, baseline="permuted", key=1)
    for name, spikes in (("noise", (0, 1)), ("spiked", (1, 1))):
        rows = [row_of(report, name) for report in (first, again, other)]
        assert spikes[0] <= rows[0]["random_spikes"] <= spikes[1]
        assert rows[0]["random_spectral_norm"] == rows[1]["random_spectral_norm"] != rows[2]["random_spectral_norm"]
        assert rows[0]["random_spectral_norm"] == pytest.approx(np.sqrt(300) + np.sqrt(200), rel=0.05)
        assert rows[0]["random_distance"] < 0.15
    row = row_of(decomposed({"x": noise * np.geomspace(1, 1e-3, 200)}, baseline="permuted"), "x")
    assert row["random_distance"] > 0.3


@pytest.mark.parametrize("shape", [(50, 30), (30, 50)], ids=str)
def test_a_shuffle_keeps_every_entry(monkeypatch, shape):
    monkeypatch.setattr(spectrum_row, "_SHUFFLED_ENTRIES", 400)
    monkeypatch.setattr(spectrum_row, "STRIP_ENTRIES", 130)
    x = np.arange(1500, dtype=np.float32).reshape(shape)
    (tensor,) = weighbridge.open({"x": x}).values()
    strips = list(spectrum_row.permuted(matrices.Reader(tensor), matrices.Part("", 0, *shape, shape[1]), 0))
    assert all(strip.shape[1] == 30 for strip in strips)
    found = np.concatenate([strip.reshape(-1) for strip in strips])
    assert sorted(found) == sorted(x.reshape(-1))
    assert (found != np.sort(found)).mean() > 0.9


def test_one_expert_with_nan_fails_alone(decomposed):
    experts = np.random.default_rng(17).standard_normal((4, 9, 6))
    experts[2, 3, 3] = np.nan
    for route in ("gram", "direct"):
        rows = decomposed({"layers.0.mlp.experts.up_proj": experts}, route=route).table("spectra").set_index("part")
        assert rows["status"].to_dict() == {"0": "done", "1": "done", "2": "failed", "3": "done"}


@pytest.mark.parametrize("route", ["gram", "direct"])
def test_the_jax_form_gives_the_same_rows(decomposed, monkeypatch, route):
    monkeypatch.setattr(matrices, "STRIP_ENTRIES", 700)
    rng = np.random.default_rng(18)
    tree = {"tall": rng.standard_normal((101, 33)).astype(ml_dtypes.bfloat16), "wide": rng.standard_normal((33, 47))}
    tree["layers.0.mlp.experts.up_proj"] = rng.standard_normal((5, 8, 6)).astype(np.float32)
    for options in ({"route": route}, {"exact_up_to": 20, "top": 4}):
        host = decomposed(tree, **options, device="cpu")
        monkeypatch.setattr(variants, "find_spec", lambda name: None)
        jax = decomposed(tree, **options, device="cpu")
        monkeypatch.undo()
        assert set(jax.table("spectra")["variant"]) == {"jax:cpu"}
        for (_, a), (_, b) in zip(*(r.table("spectra", lists=True).iterrows() for r in (host, jax)), strict=True):
            np.testing.assert_allclose(a["singular_values"], b["singular_values"], rtol=1e-10)
            assert a["stable_rank"] == pytest.approx(b["stable_rank"], rel=1e-10)


def test_a_report_without_a_scan_shows_its_spectra(decomposed, digits, tmp_path):
    report = decomposed(digits, compat="weightwatcher")
    assert f"{len(weighbridge.open(digits)):,} tensors" in repr(report)
    assert "num_pl_spikes" in report._repr_html_()
    run = CliRunner().invoke
    assert "alpha_weighted" in run(app, ["show", str(report.folder)]).output
    assert run(app, ["export", str(report.folder), "--csv", str(tmp_path / "w.csv")]).exit_code == 0
    assert "mp_softrank" in (tmp_path / "w.csv").read_text()
    refused = run(app, ["show", str(report.folder), "--table", "scan"])
    assert refused.exit_code == 2
    assert "no table 'scan'; this report has: weightwatcher" in refused.output
