"""How neurons relate: lists and counts as by float64 NumPy, planted ones found, and what layers share."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import weighbridge
from weighbridge.analyses import matrices, relations
from weighbridge.analyses.relations import residual_axis
from weighbridge.cli import app
from weighbridge.errors import BadArgument, ReportError
from weighbridge.report.matrix_columns import CORRELATIONS, RELATIONS
from weighbridge_kernels import variants
from weighbridge_kernels.similar_pairs import EDGES


@pytest.fixture
def correlated(tmp_path):
    numbers = iter(range(100))

    def correlate(source, **options):
        return weighbridge.correlate(source, report=tmp_path / f"correlated-{next(numbers)}", **options)

    return correlate


def row_of(report, name, part="", table="correlations"):
    (row,) = [row for row in report.matrices(name, table) if row["part"] == part]
    return row


def cosines(x, kind="cosine"):
    y = x.astype(np.float64)
    if kind == "pearson":
        y = y - y.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(y, axis=1, keepdims=True)
    y = y / np.where(norms > 0, norms, 1)
    return y @ y.T


@pytest.mark.parametrize("kind", ["cosine", "pearson"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=str)
def test_lists_and_counts_of_both_sides(correlated, dtype, kind):
    x = (np.random.default_rng(0).standard_normal((61, 37)) + 0.4).astype(dtype)
    row = row_of(correlated({"x": x}, kind=kind, count=4), "x")
    for side, matrix in (("row", x), ("col", x.T)):
        s, n = cosines(matrix, kind), len(matrix)
        np.fill_diagonal(s, np.nan)
        similar = row[f"{side}_similarities"].reshape(n, 4)
        np.testing.assert_allclose(similar, -np.sort(-s, axis=1)[:, :4], atol=4e-6)
        np.testing.assert_allclose(
            np.take_along_axis(s, row[f"{side}_neighbours"].reshape(n, 4), 1), similar, atol=4e-6
        )
        np.testing.assert_allclose(
            row[f"{side}_opposed_similarities"].reshape(n, 4), np.sort(s, axis=1)[:, :4], atol=4e-6
        )
        pairs = s[np.triu_indices(n, 1)]
        assert row[f"{side}_pairs"] == pairs.size == row[f"{side}_distribution"].sum()
        assert np.abs(row[f"{side}_distribution"] - np.histogram(pairs, EDGES)[0]).sum() <= 2
        assert row[f"{side}_greatest"] == pytest.approx(pairs.max(), abs=4e-6)
        assert row[f"{side}_least"] == pytest.approx(pairs.min(), abs=4e-6)
        assert row[f"{side}_mean_similarity"] == pytest.approx(pairs.mean(), abs=1e-3)
        assert row[f"{side}_spread"] == pytest.approx(np.sqrt((pairs**2).mean()), rel=1e-2)
    assert row["row_null_spread"] == pytest.approx((37 - (kind == "pearson")) ** -0.5)


def test_planted_neurons_are_found(correlated):
    """Duplicates, opposites, dead rows and one with NaN, among rows and, turned, among columns."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((50, 40)).astype(np.float32)
    x[7] = 3 * x[2]
    x[31] = 0.5 * x[2]
    x[20] = -2 * x[11]
    x[5] = 0
    report = correlated({"rows": x, "cols": np.ascontiguousarray(x.T)})
    for name, side in (("rows", "row"), ("cols", "col")):
        row = row_of(report, name)
        assert row[f"{side}_duplicate_members"].tolist() == [2, 7, 31]
        assert row[f"{side}_duplicate_groups"].tolist() == [2, 2, 2]
        assert row[f"{side}_opposite_members"].tolist() == [11, 20]
        assert (row[f"{side}_dead"], row[f"{side}_duplicates"], row[f"{side}_opposites"]) == (1, 3, 2)
    found = {finding.check: finding for finding in weighbridge.findings(report)}
    assert set(found["duplicate-neurons"].rows) == {"rows", "cols"}
    assert set(found["opposite-neurons"].rows) == {"rows", "cols"}
    x[9, 3] = np.nan
    row = row_of(correlated({"x": x}), "x")
    assert (row["row_not_finite"], row["col_not_finite"], row["row_duplicates"]) == (1, 1, 3)
    assert row["row_neighbours"].reshape(50, 5)[9].tolist() == [-1] * 5


def test_no_tensor_is_left_out(correlated):
    tree = {
        "none": np.ones((0, 7)),
        "one": np.ones((1, 7)),
        "two": np.eye(2),
        "same": np.ones((9, 5), np.float32),
        "zero": np.zeros((6, 4)),
        "bias": np.ones(5),
        "ids": np.arange(6).reshape(2, 3),
        "experts": np.random.default_rng(0).standard_normal((3, 6, 5)),
    }
    table = correlated(tree).table("correlations")
    assert set(table["name"]) == set(tree)
    rows = table.set_index(["name", "part"])
    assert "no entries" in rows.loc[("none", ""), "reason"]
    assert rows.loc[("one", ""), "row_pairs"] == 0
    assert rows.loc[("two", ""), "row_greatest"] == 0
    assert rows.loc[("same", ""), "row_duplicates"] == 9
    assert rows.loc[("zero", ""), "row_dead"] == 6
    assert "fewer than two axes" in rows.loc[("bias", ""), "reason"]
    assert [rows.loc[("experts", str(i)), "status"] for i in range(3)] == ["done"] * 3


def test_a_side_that_does_not_fit_says_so(correlated):
    report = correlated({"x": np.ones((30, 20))}, memory=1000)
    row = row_of(report, "x")
    assert row["reason"] == (
        "rows need 12,000 bytes, --memory allows 1,000; cols need 12,000 bytes, --memory allows 1,000"
    )
    assert row["row_pairs"] is None


@pytest.mark.parametrize("kind", ["cosine", "pearson"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_short_side_of_what_does_not_fit_is_compared_by_its_gram(correlated, monkeypatch, kind, turned):
    """Columns of a tall matrix, rows of a wide one: as if it were held, duplicates, dead and NaN among them."""
    monkeypatch.setattr(matrices, "STRIP_ENTRIES", 3000)
    x = (np.random.default_rng(9).standard_normal((700, 23)) + 0.3).astype(np.float32)
    x[:, 4], x[:, 9], x[:, 15], x[3, 20] = 2 * x[:, 1], 0, -x[:, 2], np.nan
    matrix = np.ascontiguousarray(x.T) if turned else x
    side, other = ("row", "col") if turned else ("col", "row")
    whole = row_of(correlated({"x": matrix}, kind=kind), "x")
    by_gram = row_of(correlated({"x": matrix}, kind=kind, memory=40_000), "x")
    assert f"{other}s need" in by_gram["reason"]
    for column in ("dead", "not_finite", "duplicates", "opposites", "pairs"):
        assert by_gram[f"{side}_{column}"] == whole[f"{side}_{column}"], column
    np.testing.assert_allclose(by_gram[f"{side}_similarities"], whole[f"{side}_similarities"], atol=4e-6)
    assert by_gram[f"{side}_null_spread"] == whole[f"{side}_null_spread"]
    assert by_gram[f"{side}_duplicates"] == 2


def test_the_jax_form_gives_the_same_rows(correlated, monkeypatch):
    x = np.random.default_rng(2).standard_normal((43, 29)).astype(np.float32)
    host = row_of(correlated({"x": x}, device="cpu"), "x")
    monkeypatch.setattr(variants, "find_spec", lambda name: None)
    jax = row_of(correlated({"x": x}, device="cpu"), "x")
    assert jax["variant"] == "jax:cpu"
    np.testing.assert_array_equal(host["row_neighbours"], jax["row_neighbours"])
    np.testing.assert_allclose(host["row_similarities"], jax["row_similarities"], atol=4e-6)


def test_reports_are_reused_resumed_and_refused(correlated, digits, tmp_path):
    report = weighbridge.correlate(digits, report=tmp_path / "r")
    assert set(report.manifest.analyses) == {"correlations", "relations"}
    assert report.complete
    again = weighbridge.correlate(digits, report=tmp_path / "r")
    assert again.manifest.analyses["correlations"].seconds == report.manifest.analyses["correlations"].seconds
    with pytest.raises(ReportError, match="other files or options"):
        weighbridge.correlate(digits, report=tmp_path / "r", threshold=0.9)
    assert set(correlated(digits, between="none").manifest.analyses) == {"correlations"}
    for option in ({"count": 0}, {"threshold": 0.0}, {"threshold": 1.1}):
        with pytest.raises(BadArgument):
            weighbridge.correlate(digits, **option)


@pytest.fixture
def transformer(tmp_path):
    """Four layers; the values of layer 2 read what those of layer 0 do; heads 0 and 1 of its queries are one."""
    rng = np.random.default_rng(3)
    tree = {}
    for layer in range(4):
        at = f"model.layers.{layer}"
        for name in "qkv":
            tree[f"{at}.self_attn.{name}_proj.weight"] = rng.standard_normal((48, 48))
        tree[f"{at}.self_attn.o_proj.weight"] = rng.standard_normal((48, 48))
        tree[f"{at}.mlp.up_proj.weight"] = rng.standard_normal((96, 48))
        tree[f"{at}.mlp.down_proj.weight"] = rng.standard_normal((48, 96))
    turned = np.linalg.qr(rng.standard_normal((48, 48)))[0]
    tree["model.layers.2.self_attn.v_proj.weight"] = turned @ tree["model.layers.0.self_attn.v_proj.weight"]
    q = tree["model.layers.1.self_attn.q_proj.weight"]
    q[12:24] = rng.standard_normal((12, 12)) @ q[:12]
    save_file({name: x.astype(np.float32) for name, x in tree.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 48, "num_attention_heads": 4}))
    return tmp_path


def test_layers_that_share_directions_are_found(correlated, transformer):
    report = correlated(transformer)
    v0, v2 = (f"model.layers.{i}.self_attn.v_proj.weight" for i in (0, 2))
    row = row_of(report, v0, table="relations")
    others = list(row["others"])
    assert len(others) == 24
    assert row["cka"][others.index(v0)] == pytest.approx(1)
    assert row["cka"][others.index(v2)] == pytest.approx(1, abs=1e-5)
    for name, cka, mean, std in zip(others, row["cka"], row["cka_null_mean"], row["cka_null_std"], strict=True):
        if name not in (v0, v2):
            assert abs(cka - mean) < 8 * std + 0.05
    assert list(row["peers"]) == [f"model.layers.{i}.self_attn.v_proj.weight" for i in range(4)]
    assert row["peer_overlap"][2] == pytest.approx(1, abs=1e-4)
    assert abs(row["peer_overlap"][1] - row["peer_overlap_expected"]) < 0.2
    q = row_of(report, "model.layers.1.self_attn.q_proj.weight", table="relations")
    overlap = q["part_overlap"].reshape(4, 4)
    assert overlap[0, 1] == pytest.approx(1, abs=1e-5)
    assert q["part_overlap_expected"] == pytest.approx(12 / 48)
    assert overlap[2, 3] < 0.45


def test_cka_is_its_float64_definition(correlated, transformer):
    report = correlated(transformer, include=["*layers.0*"])
    checkpoint = weighbridge.open(transformer)
    up, down = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("up", "down"))
    row = row_of(report, up, table="relations")
    x, y = checkpoint[up].read().astype(float).T, checkpoint[down].read().astype(float)
    assert row["cka"][list(row["others"]).index(down)] == pytest.approx(plain_cka(x, y), abs=1e-9)


def plain_cka(x, y):
    def hsic(k, m):
        k, m = (a - np.diag(np.diag(a)) for a in (k, m))
        d, one = len(k), np.ones(len(k))
        rest = one @ k @ one * (one @ m @ one) / ((d - 1) * (d - 2)) - 2 / (d - 2) * (one @ k @ m @ one)
        return (np.trace(k @ m) + rest) / (d * (d - 3))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_peers_beyond_a_bound_say_so(correlated, transformer, monkeypatch):
    monkeypatch.setattr(relations, "_PEERS", 3)
    report = correlated(transformer)
    for layer in range(4):
        row = row_of(report, f"model.layers.{layer}.mlp.up_proj.weight", table="relations")
        assert (row["peers"] is None) == (layer == 3)
        assert (row["reason"] is not None) == (layer == 3)


@pytest.mark.parametrize(
    ("name", "role", "shape", "axis"),
    [
        ("a.weight", "attention_q", (48, 32), "cols"),
        ("a.weight", "attention_q", (32, 32), "cols"),
        ("a.weight", "attention_o", (32, 32), "rows"),
        ("a.weight", "mlp_down", (32, 99), "rows"),
        ("a.kernel", "attention_q", (32, 32), "rows"),
        ("a.kernel", "attention_o", (32, 32), "cols"),
        ("experts", "expert", (4, 32, 8), "rows"),
        ("a.weight", "mlp_up", (31, 33), None),
    ],
)
def test_the_residual_axis(name, role, shape, axis):
    assert residual_axis(name, role, shape, 32) == axis


def test_experts_that_share_directions(correlated):
    rng = np.random.default_rng(4)
    experts = rng.standard_normal((3, 64, 10))
    experts[2] = experts[0] @ rng.standard_normal((10, 10))
    tree = {"layers.0.mlp.experts.down_proj": experts, "layers.0.mlp.router.weight": rng.standard_normal((3, 64))}
    row = row_of(correlated(tree), "layers.0.mlp.experts.down_proj", table="relations")
    assert (row["parts"], row["extent"]) == (3, 64)
    overlap = row["part_overlap"].reshape(3, 3)
    assert overlap[0, 2] == pytest.approx(1, abs=1e-6)
    assert overlap[0, 1] < 0.5


def test_every_column_is_filled(correlated, minilm):
    report = correlated(minilm, include=["*layer.[01].*", "*position*"])
    for table, columns in (("correlations", CORRELATIONS), ("relations", RELATIONS)):
        rows = report.table(table, lists=True)
        done = rows[rows["status"] == "done"]
        assert len(done) == 13
        assert {c.name for c in columns if done[c.name].isna().all()} <= {"step", "reason"}


def test_the_command(transformer, tmp_path):
    run = CliRunner().invoke
    arguments = ["correlate", str(transformer), "--report", str(tmp_path / "r"), "--include", "*layers.0*"]
    done = run(app, arguments)
    assert done.exit_code == 0, done.output
    assert "row_duplicates" in done.stdout
    assert "row_null_greatest" in done.stdout
    assert len(run(app, [*arguments, "--json"]).stdout.splitlines()) == 6
    assert run(app, [*arguments, "--kind", "euclidean"]).exit_code == 2
    assert run(app, [*arguments, "--threshold", "2"]).exit_code == 2
    assert run(app, [*arguments, "--dry-run"]).exit_code == 0
    assert "extent" in run(app, ["show", str(tmp_path / "r"), "--table", "relations"]).stdout
