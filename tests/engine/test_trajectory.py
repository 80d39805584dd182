"""Checkpoints in order: every figure as by NumPy in float64, the path as by scikit-learn, gaps with their reasons."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from typer.testing import CliRunner

import weighbridge
from weighbridge.analyses import trajectory as analysis
from weighbridge.cli import app
from weighbridge.errors import BadArgument
from weighbridge_kernels.path_components import path_components

STEPS = (100, 200, 400)


def weights(step):
    rng = np.random.default_rng(step)
    return {
        "h.0.mlp.weight": rng.standard_normal((19, 23)).astype(np.float32),
        "conv.weight": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "norm.bias": np.where(rng.random(17) < 0.3, 0, rng.standard_normal(17)).astype(np.float32),
    }


@pytest.fixture
def saved(tmp_path):
    paths = []
    for step in STEPS:
        paths.append(tmp_path / f"run-{step}.safetensors")
        save_file(weights(step), paths[-1])
    return paths


def test_every_figure_is_numpys(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "CHUNK_ENTRIES", 100)
    report = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu", top=4)
    rows = report.table("trajectory", lists=True).set_index(["name", "step"])
    assert len(rows) == 9
    for name in weights(100):
        w = [weights(step)[name].astype(np.float64).reshape(-1) for step in STEPS]
        for i, step in enumerate(STEPS):
            row = rows.loc[name, step]
            norms = [np.linalg.norm(x) for x in w]
            assert row["l2"] == pytest.approx(norms[i], rel=1e-12)
            assert row["absmax"] == np.abs(w[i]).max()
            assert row["zeros"] == (w[i] == 0).sum()
            assert row["sparsity_1e3"] == (np.abs(w[i]) <= 1e-3 * np.abs(w[i]).max()).mean()
            assert row["cosine_first"] == pytest.approx(w[i] @ w[0] / norms[i] / norms[0], rel=1e-12)
            assert row["cosine_last"] == pytest.approx(w[i] @ w[2] / norms[i] / norms[2], rel=1e-12)
            assert row["distance"] == pytest.approx(np.linalg.norm(w[i] - w[0]), rel=1e-12)
            if i:
                assert row["cosine_previous"] == pytest.approx(w[i] @ w[i - 1] / norms[i] / norms[i - 1], rel=1e-12)
                assert row["step_length"] == pytest.approx(np.linalg.norm(w[i] - w[i - 1]), rel=1e-12)
            if name == "norm.bias":
                assert row["singular_values"] is None
                continue
            shape = (19, 23) if name == "h.0.mlp.weight" else (5, 27)
            values = np.linalg.svd(w[i].reshape(shape), compute_uv=False)
            np.testing.assert_allclose(row["singular_values"], values[:4], rtol=1e-10)
            assert row["stable_rank"] == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-10)
        a, b = w[1] - w[0], w[2] - w[1]
        assert rows.loc[name, 400]["turn"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)


def test_the_path_is_sklearns(saved, tmp_path):
    report = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu")
    rows = report.table("trajectory_path", lists=True)
    points = np.stack([np.concatenate([x.reshape(-1) for x in weights(step).values()]) for step in STEPS])
    reference = PCA(2).fit(points.astype(np.float64))
    scores = np.stack(rows["scores"])
    expected = reference.transform(points.astype(np.float64))
    np.testing.assert_allclose(np.abs(scores[:, :2]), np.abs(expected), rtol=1e-9)
    np.testing.assert_allclose(rows["explained"][0][:2], reference.explained_variance_ratio_, rtol=1e-9)
    assert list(rows["step"]) == list(STEPS)
    assert set(rows["tensors"]) == {3}
    assert set(rows["count"]) == {points.shape[1]}


def test_gaps_have_reasons(tmp_path):
    a, b, c = weights(1), weights(2), weights(3)
    del b["norm.bias"]
    b["conv.weight"] = b["conv.weight"][:4]
    c["h.0.mlp.weight"][3, 4] = np.nan
    report = weighbridge.trajectory([a, b, c], report=tmp_path / "r", device="cpu")
    rows = report.table("trajectory").set_index(["name", "step"])
    assert "no such tensor" in rows.loc["norm.bias", 1]["reason"]
    assert "[4, 3, 3, 3]" in rows.loc["conv.weight", 1]["reason"]
    assert "NaN" in rows.loc["h.0.mlp.weight", 2]["reason"]
    assert rows.loc["h.0.mlp.weight", 1]["step_length"] > 0
    assert rows.loc["norm.bias", 2].isna()["step_length"]
    assert (rows["status"] == "failed").sum() == 3
    path = report.table("trajectory_path")
    assert set(path["status"]) == {"skipped"}


def test_a_finished_report_is_shown_and_others_are_refused(saved, tmp_path):
    first = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu")
    again = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu")
    assert first.complete
    assert again.complete
    with pytest.raises(weighbridge.ReportError, match="other files or options"):
        weighbridge.trajectory(saved[:2], report=tmp_path / "r", device="cpu")


def test_an_interrupted_run_resumes(saved, tmp_path, monkeypatch):
    rows = analysis._rows
    monkeypatch.setattr(analysis, "_rows", lambda p, o, t, k: 1 / 0 if "norm" in t.name else rows(p, o, t, k))
    with pytest.raises(ZeroDivisionError):
        weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu")
    monkeypatch.setattr(analysis, "_rows", rows)
    report = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu", if_exists="resume")
    assert len(report.table("trajectory")) == 9
    assert report.complete


def test_steps_come_from_names_or_places(saved):
    assert analysis._steps(saved, None) == list(STEPS)
    assert analysis._steps(saved[::-1], None) == [0, 1, 2]
    with pytest.raises(BadArgument, match="greater than the one before"):
        analysis._steps(saved, [3, 2, 1])
    with pytest.raises(BadArgument, match="two checkpoints"):
        analysis.plan(saved[:1])


def test_the_command_prints_rows(saved, tmp_path):
    done = CliRunner().invoke(app, ["trajectory", *map(str, saved), "--report", str(tmp_path / "r"), "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["step"] for row in rows} == set(STEPS)
    assert CliRunner().invoke(app, ["trajectory", str(saved[0])]).exit_code == 2


def test_points_that_are_one_explain_nothing():
    found = path_components(np.zeros((3, 3)), count=2)
    assert np.isnan(found.explained).all()
    assert (found.scores == 0).all()
