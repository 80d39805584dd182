"""Maps of rows and columns: planted clusters, quality against scikit-learn, reuse, and what cannot be laid out."""

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import weighbridge
from weighbridge.analyses import projections
from weighbridge.analyses.points import chosen
from weighbridge.checkpoints.tokens import channel_namer, tokens
from weighbridge.cli import app
from weighbridge.errors import BadArgument, ReportError, TensorNotFound
from weighbridge.report import Report
from weighbridge_kernels import variants

WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def laid_out(tmp_path):
    def project(source, name="x", **options):
        options.setdefault("report", tmp_path / "report")
        if isinstance(source, dict):  # weights in memory have no report twice
            file = tmp_path / f"{abs(hash(source['x'].tobytes()))}.safetensors"
            if not file.exists():
                save_file(source, file)
            source = file
        return weighbridge.project(source, name, device="cpu", **options)

    return project


@pytest.fixture(scope="module")
def planted():
    """Groups of 60, 40 and 30 rows about directions of their own; group g is set apart by columns 3g to 3g + 2."""
    rng = np.random.default_rng(7)
    truth = np.repeat([0, 1, 2], [60, 40, 30])
    x = rng.normal(0, 0.1, (130, 23)).astype(np.float32)
    for group in range(3):
        x[truth == group, 3 * group : 3 * group + 3] += 1
    order = rng.permutation(130)
    return x[order], truth[order]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("clusters", ["kmeans", "hdbscan"])
@pytest.mark.parametrize("side", ["rows", "cols"])
def test_planted_clusters_are_found(laid_out, planted, clusters, metric, side):
    x, truth = planted
    count = 3 if clusters == "kmeans" else None
    source = {"x": x if side == "rows" else np.ascontiguousarray(x.T)}
    report = laid_out(source, side=side, metric=metric, clusters=clusters, cluster_count=count)
    found = report.projection("x")
    labels = found.arrays.labels
    inside = labels >= 0
    assert inside.mean() > 0.9
    np.testing.assert_array_equal(labels[inside], truth[inside])  # both are in order of size
    held = found.clusters
    assert [set(columns[:3]) for columns in held.columns] == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}]
    assert (held.deviations[:, :3] > 1).all()
    assert list(truth[held.medoids]) == [0, 1, 2]
    units = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    for label, cosine in enumerate(held.similarities):
        members = units[labels == label]
        pairs = (members @ members.T)[np.triu_indices(len(members), 1)]
        assert cosine == pytest.approx(pairs.mean(), rel=1e-5)
        if metric == "cosine":
            assert held.medoids[label] == np.flatnonzero(labels == label)[(members @ members.T).sum(1).argmax()]


@pytest.mark.parametrize("method", ["pca", "tsne", "nmf", "random"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_quality_is_that_of_scikit_learn(laid_out, planted, method, metric):
    from sklearn.manifold import trustworthiness
    from sklearn.neighbors import NearestNeighbors

    x, _ = planted
    report = laid_out({"x": x}, method=method, metric=metric)
    (row,) = report.matrices("x", "projections")
    found = report.projection("x")
    assert row["trustworthiness"] == pytest.approx(
        trustworthiness(x, found.arrays.scores, n_neighbors=10, metric=metric), abs=1e-6
    )
    assert (row["quality_neighbours"], row["quality_points"], row["trustworthiness_error"]) == (10, 130, 0)
    near = NearestNeighbors(n_neighbors=10, metric=metric).fit(x.astype(np.float64)).kneighbors()[1]
    assert (np.sort(found.arrays.neighbours) == np.sort(near)).mean() > 0.999
    after = NearestNeighbors(n_neighbors=10).fit(found.arrays.scores.astype(np.float64)).kneighbors()[1]
    recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(near, after, strict=True)])
    assert row["neighbour_recall"] == pytest.approx(recall, abs=2e-3)


def test_principal_components_are_numpys(laid_out, planted):
    x, _ = planted
    report = laid_out({"x": x}, dimensions=3)
    found = report.projection("x")
    centred = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    projector = found.arrays.components.T @ found.arrays.components
    np.testing.assert_allclose(projector, vt[:3].T @ vt[:3], atol=1e-8)
    np.testing.assert_allclose(found.arrays.scores, centred @ found.arrays.components.T, atol=1e-6)
    assert found["explained_variance"] == pytest.approx((s[:3] ** 2).sum() / (s**2).sum())
    left = centred - found.arrays.scores @ found.arrays.components
    assert found["reconstruction_error"] == pytest.approx(np.linalg.norm(left) / np.linalg.norm(centred), rel=1e-5)


def test_tsne_keeps_clusters_and_says_its_divergence(laid_out, planted):
    x, truth = planted
    found = laid_out({"x": x}, method="tsne", perplexity=10).projection("x")
    assert found.part == "rows tsne perplexity 10"
    assert (found["perplexity"], found["iterations"]) == (10, 750)
    assert 0 < found["kl"] < 1.5
    assert found["trustworthiness"] > 0.8
    middles = np.stack([found.arrays.scores[truth == group].mean(axis=0) for group in range(3)])
    nearest = np.linalg.norm(found.arrays.scores[:, None] - middles[None], axis=2).argmin(axis=1)
    assert (nearest == truth).all()


@pytest.mark.parametrize("method", ["pca", "tsne", "nmf", "random"])
def test_the_forms_on_jax_agree_with_those_on_the_host(laid_out, planted, tmp_path, monkeypatch, method):
    x, _ = planted
    host = laid_out({"x": x}, method=method, clusters="kmeans", cluster_count=3)
    monkeypatch.setattr(projections.devices, "select", lambda device: variants.on_jax("cpu"))
    jax = laid_out({"x": x}, method=method, clusters="kmeans", cluster_count=3, report=tmp_path / "jax")
    one, other = host.projection("x"), jax.projection("x")
    assert (one["variant"], other["variant"]) == ("host", "jax:cpu")
    np.testing.assert_array_equal(one.arrays.labels, other.arrays.labels)
    assert (one.arrays.neighbours == other.arrays.neighbours).mean() > 0.99
    assert other["trustworthiness"] == pytest.approx(one["trustworthiness"], abs=0.1)
    if method in ("pca", "nmf"):
        np.testing.assert_allclose(other.arrays.scores, one.arrays.scores, atol=1e-4)


@pytest.mark.parametrize("method", ["pca", "tsne", "nmf", "random"])
def test_the_same_key_gives_the_same_numbers(laid_out, planted, tmp_path, method):
    x, _ = planted
    options = {"method": method, "clusters": "kmeans"}
    once, again = (laid_out({"x": x}, report=tmp_path / name, **options).projection("x") for name in "ab")
    for name in ("scores", "labels", "neighbours", "similarities"):
        np.testing.assert_array_equal(getattr(once.arrays, name), getattr(again.arrays, name))
    timeless = [{**found.row, "seconds": 0, "shape": list(found.row["shape"])} for found in (once, again)]
    assert timeless[0] == timeless[1]
    other = laid_out({"x": x}, report=tmp_path / "c", key=1, **options).projection("x")
    assert other.part.endswith("key 1")
    if method in ("tsne", "random"):
        assert (other.arrays.scores != once.arrays.scores).any()


@pytest.mark.parametrize("method", ["pca", "tsne", "nmf", "random"])
@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (3, 5), (5, 1), (3, 1), (7, 2)], ids=str)
def test_few_points_and_few_entries(laid_out, method, shape):
    x = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = laid_out({"x": x}, method=method, clusters="kmeans")
        report = laid_out({"x": x}, method=method, clusters="hdbscan")
    for row in report.matrices("x", "projections"):
        found = report.projection("x", row["part"])
        assert (row["status"], row["points"]) == ("done", shape[0])
        assert found.arrays.scores.shape == (shape[0], 2)
        assert np.isfinite(found.arrays.scores).all()
        assert (row["trustworthiness"] is None) == (shape[0] < 3)


@pytest.mark.parametrize("method", ["pca", "tsne", "nmf", "random"])
def test_rows_without_direction_are_left_out_and_counted(laid_out, planted, method):
    x = planted[0].copy()
    x[5], x[9, 2], x[11, 0] = 0, np.nan, np.inf
    report = laid_out({"x": x}, method=method, clusters="kmeans")
    found = report.projection("x")
    assert (found["points"], found["dead"], found["not_finite"]) == (127, 1, 2)
    gone = [5, 9, 11]
    assert np.isnan(found.arrays.scores[gone]).all()
    assert (found.arrays.labels[gone] == -1).all()
    assert (found.arrays.neighbours[gone] == -1).all()
    assert np.isfinite(np.delete(found.arrays.scores, gone, axis=0)).all()
    assert not np.isin(found.arrays.neighbours, gone).any()
    assert found.arrays.norms[5] == 0
    np.testing.assert_array_equal(found.placed, np.delete(np.arange(130), gone))


def test_equal_rows(laid_out):
    x = np.ones((40, 6), np.float32)
    for method in ("pca", "tsne", "nmf", "random"):
        report = laid_out({"x": x}, method=method, clusters="hdbscan")
        assert set(report.table("projections")["status"]) == {"done"}
    assert laid_out({"x": x}, clusters="kmeans").projection("x")["status"] == "done"


@pytest.mark.parametrize(
    "x", [np.zeros((4, 3)), np.full((4, 3), np.nan), np.full((4, 3), 1e30)], ids=["dead", "nan", "huge"]
)
def test_nothing_to_lay_out_is_a_row_that_says_so(laid_out, tmp_path, x):
    save_file({"x": x.astype(np.float32)}, tmp_path / "x.safetensors")
    report = laid_out(tmp_path / "x.safetensors")
    (row,) = report.matrices("x", "projections")
    assert row["status"] == "failed"
    assert "no rows to lay out" in row["reason"]
    with pytest.raises(TensorNotFound, match="no projection '' of 'x'; there is: none"):
        report.projection("x")
    call = ["project", str(tmp_path / "x.safetensors"), "x", "--report", str(tmp_path / "report")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 3
    assert "no rows to lay out" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "umap"}, "'umap'; expected pca or tsne or nmf or random"),
        ({"method": "tsne", "dimensions": 3}, "t-SNE in 3 dimensions; expected 2"),
        ({"dimensions": 1}, "dimensions 1; expected 2 or 3"),
        ({"perplexity": float("nan")}, "perplexity nan; expected a positive number"),
        ({"rows": slice(500, 600)}, "expected some consecutive ones"),
        ({"rows": slice(0, 100, 2)}, "expected some consecutive ones"),
        ({"rows": 5}, "expected a slice or a range"),
        ({"cluster_count": 3}, "cluster_count 3 with clusters 'none'"),
        ({"key": -1}, "key -1; expected 0"),
    ],
    ids=str,
)
def test_bad_calls_are_one_line_before_any_work(laid_out, planted, tmp_path, options, message):
    with pytest.raises(BadArgument, match=message):
        laid_out({"x": planted[0]}, **options)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(7, np.float32), "has no rows and columns"),
        (np.zeros((0, 7), np.float32), "has no entries"),
        (np.zeros((3, 7), np.int32), "holds no weights"),
    ],
    ids=["vector", "empty", "integers"],
)
def test_tensors_without_rows(laid_out, x, message):
    with pytest.raises(BadArgument, match=message):
        laid_out({"x": x})
    with pytest.raises(TensorNotFound, match="no tensor 'y'"):
        laid_out({"x": x}, name="y")


def test_clusters_without_scikit_learn_say_what_to_install(laid_out, planted, monkeypatch):
    monkeypatch.setattr("weighbridge.analyses.clusters.find_spec", lambda name: None)
    with pytest.raises(BadArgument, match=r"needs scikit-learn; pip install 'weighbridge\[clusters\]'"):
        laid_out({"x": planted[0]}, clusters="kmeans")


@pytest.fixture
def stored(planted, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"x": planted[0], "y": planted[0].T.copy()}, path)
    return path


def test_other_options_are_another_row_and_the_same_are_reused(laid_out, stored, monkeypatch):
    report = laid_out(stored)
    laid_out(stored, method="random")
    laid_out(stored, rows=slice(10, 50))
    report = laid_out(stored, name="y")
    assert sorted(report.table("projections")["part"]) == ["rows 10:50 pca", "rows pca", "rows pca", "rows random"]
    assert report.complete
    monkeypatch.setattr(projections, "_projected", lambda *_: pytest.fail("it is there already"))
    for if_exists in ("reuse", "resume"):
        again = laid_out(stored, if_exists=if_exists)
        assert len(again.table("projections")) == 4
    some = again.projection("x", "rows 10:50 pca")
    np.testing.assert_array_equal(some.channels, np.arange(10, 50))
    assert some.arrays.neighbours.min() >= 10


def test_overwrite_makes_a_row_anew_and_keeps_the_others(laid_out, stored):
    laid_out(stored)
    laid_out(stored, method="random")
    before = laid_out(stored).table("projections").set_index("part")
    after = laid_out(stored, if_exists="overwrite").table("projections").set_index("part")
    assert sorted(after.index) == ["rows pca", "rows random"]
    assert after.loc["rows random", "seconds"] == before.loc["rows random", "seconds"]
    assert after.loc["rows pca", "seconds"] != before.loc["rows pca", "seconds"]


def test_it_shares_a_report_with_a_scan(laid_out, stored, tmp_path):
    weighbridge.scan(stored, report=tmp_path / "report", device="cpu")
    report = laid_out(stored)
    assert {*report.manifest.analyses} == {"scan", "projections"}
    report = weighbridge.scan(stored, report=tmp_path / "report", if_exists="overwrite", device="cpu")
    assert report.projection("x").part == "rows pca"


def test_a_report_of_other_files_is_refused_or_replaced(laid_out, stored, planted, tmp_path):
    laid_out(stored)
    save_file({"x": planted[0][:77]}, tmp_path / "other.safetensors")
    with pytest.raises(ReportError, match="of other files"):
        laid_out(tmp_path / "other.safetensors")
    report = laid_out(tmp_path / "other.safetensors", if_exists="overwrite")
    assert list(report.table("projections")["points"]) == [77]


def test_a_run_killed_before_its_row_leaves_nothing_of_it(laid_out, stored, monkeypatch):
    laid_out(stored)
    with monkeypatch.context() as patched:
        patched.setattr(projections, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            laid_out(stored, method="random")
    report = laid_out(stored)
    assert list(report.table("projections")["part"]) == ["rows pca"]
    assert laid_out(stored, method="random").projection("x").part == "rows random"


def test_arrays_that_are_gone_are_said_to_be(laid_out, stored):
    report = laid_out(stored)
    for path in (report.folder / "arrays").rglob("zarr.json"):
        path.unlink()
    with pytest.raises(ReportError, match="project again with --overwrite"):
        report.projection("x")


def test_what_is_chosen_of_so_many():
    assert chosen(None, 5) == range(5)
    assert chosen(slice(2, None), 5) == range(2, 5)
    assert chosen(range(1, 3), 5) == range(1, 3)
    assert chosen(slice(-2, None), 5) == range(3, 5)


def test_a_channel_is_a_token_where_the_vocabulary_is_as_long():
    assert channel_namer({0: "a", 9: "b"}, 10)(9) == "b · 9"
    assert channel_namer({0: "a", 9: "b"}, 10)(3) == "3"
    assert channel_namer({0: "a", 9: "b"}, 30)(9) == "9"


def test_a_vocabulary_end_to_end(minilm, tmp_path):
    """Two thousand words of MiniLM: years and names come together, tokens are told by their text."""
    call = ["project", str(minilm), WORDS, "--rows", "2000:4000", "--method", "tsne", "--clusters", "kmeans"]
    call += ["--cluster-count", "8", "--report", str(tmp_path / "report"), "--device", "cpu"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "trustworthiness 0." in done.stdout
    assert "neighbour recall 0." in done.stdout
    assert "KL 1." in done.stdout or "KL 2." in done.stdout
    found = Report.open(tmp_path / "report").projection(WORDS)
    assert found.part == "rows 2000:4000 tsne kmeans 8"
    assert found["trustworthiness"] > 0.85
    assert f" · {found.clusters.medoids[0]}" in done.stdout
    known = tokens(weighbridge.open(minilm))
    year = next(number for number, text in known.items() if text == "1994")
    at = year - 2000
    assert all(known[other].isdigit() for other in found.arrays.neighbours[at])
    told = CliRunner().invoke(app, [*call, "--json"])
    assert json.loads(told.stdout)["trustworthiness"] == found["trustworthiness"]
