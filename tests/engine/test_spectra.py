"""Spectra of a checkpoint's matrices: against NumPy's LAPACK, WeightWatcher's own figures, and what has none."""

import csv
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import weighbridge
from weighbridge.analyses import spectra as analysis
from weighbridge.errors import ReportError
from weighbridge.report.schema import SPECTRA, WEIGHTWATCHER

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
COMPARED = (
    "M", "N", "num_evals", "alpha", "D", "sigma", "xmin", "xmax", "num_pl_spikes", "log_norm", "norm", "spectral_norm",
    "log_spectral_norm", "stable_rank", "alpha_weighted", "log_alpha_norm", "entropy", "matrix_rank", "rank_loss",
)  # fmt: skip
STORED = {
    "embeddings.position_embeddings": {
        "alpha": 1.5519886163048253,
        "D": 0.11841646540275724,
        "xmin": 0.0013761057872230626,
        "log_norm": 2.077327519972481,
        "stable_rank": 7.727494797737474,
        "alpha_weighted": 1.8457626769422408,
        "log_alpha_norm": 2.6137220394491036,
        "entropy": 0.45328427332635807,
        "matrix_rank": 384.0,
    },
    "encoder.layer.0.attention.self.query": {
        "alpha": 2.4597221182382403,
        "D": 0.08425851999825801,
        "xmin": 5.298807253303764,
        "log_norm": 3.1282825283609474,
        "stable_rank": 35.815560056500075,
        "alpha_weighted": 3.872121078384426,
        "log_alpha_norm": 4.80940718887245,
        "entropy": 0.8477816684110845,
        "matrix_rank": 384.0,
    },
    "encoder.layer.3.intermediate.dense": {
        "alpha": 3.410459789999958,
        "D": 0.05275528887767594,
        "xmin": 10.615147696249574,
        "log_norm": 3.393150651428177,
        "stable_rank": 28.036158391756626,
        "alpha_weighted": 6.634818109948457,
        "log_alpha_norm": 6.7711770906964235,
        "entropy": 0.9343083339342341,
        "matrix_rank": 384.0,
    },
}
"""Figures of WeightWatcher 0.7.7, for where the folder with all of them is not at hand."""


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
    monkeypatch.setattr(analysis, "_STRIP_ENTRIES", 1000)
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
    assert "short side of 40 exceeds --exact-up-to 20: leading values alone" in reasons["wide.weight"]
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
    real, calls = analysis.spectrum_rows, iter(range(1000))

    def breaks(tensor, view, options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        yield from real(tensor, view, options)

    monkeypatch.setattr(analysis, "spectrum_rows", breaks)
    with pytest.raises(KeyboardInterrupt):
        weighbridge.spectra(digits, report=tmp_path / "cut")
    monkeypatch.setattr(analysis, "spectrum_rows", real)
    with pytest.raises(ReportError, match="incomplete"):
        weighbridge.spectra(digits, report=tmp_path / "cut")
    resumed = weighbridge.spectra(digits, report=tmp_path / "cut", if_exists="resume").table("spectra", lists=True)
    assert resumed.astype(str).equals(whole.astype(str))


def test_every_column_of_the_schema_is_filled(decomposed, digits):
    for compat, columns in ((None, SPECTRA), ("weightwatcher", WEIGHTWATCHER)):
        report = decomposed(digits, compat=compat)
        rows = report.table(compat or "spectra", lists=True)
        done = rows[rows["status"] == "done"]
        empty = {column.name for column in columns if done[column.name].isna().all()}
        assert empty <= {"step", "reason", "layer", "singular_value_bounds"}


def reference(name):
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"no folder {SHARED_DATA.parent.name}/{SHARED_DATA.name} beside the repository")
    with path.open() as file:
        return list(csv.DictReader(file))


def assert_as_weightwatcher(report, rows):
    found = report.table("weightwatcher").set_index("name")
    for row in rows:
        ours = found.loc[f"{row['longname']}.weight"]
        for column in COMPARED:
            assert float(ours[column]) == pytest.approx(float(row[column]), rel=1e-5, abs=1e-9), (
                row["longname"],
                column,
            )


def test_compat_agrees_with_weightwatcher_on_minilm(decomposed, minilm):
    rows = reference("weightwatcher_minilm.csv")
    assert len(rows) == 39
    assert_as_weightwatcher(decomposed(minilm, compat="weightwatcher"), rows)


def test_compat_agrees_with_weightwatcher_on_convolutions(decomposed, resnet20):
    rows = [row for row in reference("weightwatcher_resnet20.csv") if row["layer_type"] == "conv2d"]
    assert len(rows) == 19
    assert_as_weightwatcher(decomposed(resnet20, compat="weightwatcher"), rows)


def test_where_few_eigenvalues_make_weightwatcher_differ(decomposed, resnet20):
    """Of ten eigenvalues its alpha is the maximum likelihood estimate corrected for a small sample; ours is not."""
    (theirs,) = [row for row in reference("weightwatcher_resnet20.csv") if row["longname"] == "linear"]
    x = weighbridge.open(resnet20)["linear.weight"].read().astype(float)
    eigenvalues = np.sort(np.linalg.svd(x, compute_uv=False) ** 2)
    tail = eigenvalues[eigenvalues >= float(theirs["xmin"]) * (1 - 1e-9)]
    n = tail.size
    likely = 1 + n / np.log(tail / tail[0]).sum()
    assert n == int(theirs["num_pl_spikes"]) == 8
    assert float(theirs["alpha"]) == pytest.approx((likely * (n - 1) + 1) / n, rel=1e-6)
    ours = row_of(decomposed(resnet20, compat="weightwatcher"), "linear.weight", "weightwatcher")
    m = ours["num_pl_spikes"]
    best = eigenvalues[-m:]
    assert ours["alpha"] == pytest.approx(1 + m / np.log(best / best[0]).sum(), rel=1e-9)
    assert ours["spectral_norm"] == pytest.approx(float(theirs["spectral_norm"]), rel=1e-9)


def test_stored_figures_of_weightwatcher(decomposed, minilm):
    report = decomposed(minilm, compat="weightwatcher", include=[f"{name}.weight" for name in STORED])
    for name, figures in STORED.items():
        row = row_of(report, f"{name}.weight", "weightwatcher")
        for column, value in figures.items():
            assert row[column] == pytest.approx(value, rel=1e-5), (name, column)


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
    monkeypatch.setattr(analysis, "_STRIP_ENTRIES", 3001)
    rng = np.random.default_rng(8)
    x = rng.standard_t(3, shape) * np.geomspace(1, 0.05, shape[1])
    options = {"exact_up_to": 10, "top": 12}
    row = row_of(decomposed({"x": x}, **options), "x")
    true = np.linalg.svd(x, compute_uv=False)
    values, bounds = row["singular_values"], row["singular_value_bounds"]
    assert values.shape == bounds.shape == (12,)
    nearest = np.abs(values[:, None] - true[None, :]).min(axis=1)
    assert (nearest <= bounds + 1e-12 * true[0]).all()
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
    np.testing.assert_allclose(row["singular_values"], true[: row["singular_values"].size], atol=1e-6 * max(true[0], 1))


def test_what_is_not_finite_fails_on_every_route(decomposed):
    x = np.ones((50, 40))
    x[3, 4] = np.inf
    for options in ({"exact_up_to": 5}, {"route": "direct"}, {}):
        row = row_of(decomposed({"x": x}, **options), "x")
        assert row["status"] == "failed"
        assert "NaN or Inf" in row["reason"]
