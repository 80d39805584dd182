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


@pytest.mark.parametrize("steps", [[0.2, 0.7], [1, 1.5], [1, 1], ["a", "b"], [0, np.nan], [0, 1 << 63]], ids=str)
def test_steps_that_are_not_whole_numbers_in_order_are_refused(saved, steps):
    with pytest.raises(BadArgument, match="expected 2 whole numbers, each greater"):
        analysis._steps(saved[:2], steps)


def test_whole_numbers_of_any_kind_are_steps(saved):
    assert analysis._steps(saved[:2], [np.int64(3), 4.0]) == [3, 4]


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["epoch1.h5", "epoch2.h5"], [1, 2]),
        (["a-100.fp16.safetensors", "a-200.fp16.safetensors"], [100, 200]),
        (["run/checkpoint-5/model.safetensors", "run/checkpoint-60/model.safetensors"], [5, 60]),
        (["a.fp8_e4m3.npz", "a.bf16.npz", "a.float32.npz"], [0, 1, 2]),
        (["a.step10", "a.step20"], [10, 20]),
        (["a.100", "a.200"], [100, 200]),
        (["epoch.h5", "epoch7.h5"], [0, 1]),
        ([f"{10**20}.npz", f"{10**21}.npz"], [0, 1]),
    ],
    ids=lambda value: str(value[0]),
)
def test_extensions_hold_no_steps(names, steps):
    assert analysis._steps(names, None) == steps


def test_the_command_prints_rows(saved, tmp_path):
    done = CliRunner().invoke(app, ["trajectory", *map(str, saved), "--report", str(tmp_path / "r"), "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["step"] for row in rows} == set(STEPS)
    assert CliRunner().invoke(app, ["trajectory", str(saved[0])]).exit_code == 2


def test_the_command_takes_steps(saved, tmp_path):
    call = ["trajectory", *map(str, saved), "--report", str(tmp_path / "r"), "--json", "--steps"]
    done = CliRunner().invoke(app, [*call, "3, 5,8"])
    assert done.exit_code == 0, done.output
    assert {json.loads(line)["step"] for line in done.stdout.splitlines()} == {3, 5, 8}
    for wrong in ("0.2,0.7,1", "1,2", "3,2,1", ""):
        assert CliRunner().invoke(app, [*call, wrong]).exit_code == 2


def test_a_tensor_that_is_finite_nowhere_has_rows_and_stops_nothing(tmp_path):
    steps = [{"mask": np.full((3, 3), -np.inf), "w": np.eye(3) * i} for i in (1, 2)]
    report = weighbridge.trajectory(steps, report=tmp_path / "r", device="cpu")
    rows = report.table("trajectory").set_index(["name", "step"])
    assert set(rows.loc["mask"]["status"]) == {"failed"}
    assert all("NaN or Inf" in reason for reason in rows.loc["mask"]["reason"])
    assert [list(shape) for shape in rows.loc["mask"]["shape"]] == [[3, 3]] * 2
    assert set(rows.loc["mask"]["count"]) == {9}
    assert rows.loc["w", 1]["step_length"] == pytest.approx(3**0.5)
    assert set(report.table("trajectory_path")["tensors"]) == {1}
    assert report.complete


def test_nan_is_found_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "CHUNK_ENTRIES", 4)
    a, b = np.ones(10), np.ones(10)
    b[7] = np.nan
    rows = weighbridge.trajectory([{"w": a}, {"w": b}], report=tmp_path / "r", device="cpu").table("trajectory")
    assert list(rows["status"]) == ["done", "failed"]


def test_integers_are_skipped_and_fail_nothing(tmp_path):
    paths = [tmp_path / f"run-{step}.safetensors" for step in (1, 2, 3)]
    for i, path in enumerate(paths):
        counted = {"num_batches_tracked": np.array(i)} if i < 2 else {}
        save_file({"w": np.full((2, 2), i, np.float32)} | counted, path)
    done = CliRunner().invoke(app, ["trajectory", *map(str, paths), "--report", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    assert "left out: 3 I64 holds no weights" in done.stdout
    rows = weighbridge.Report.open(tmp_path / "r").table("trajectory").set_index("name")
    assert set(rows.loc["num_batches_tracked"]["status"]) == {"skipped"}


def test_the_command_prints_shapes(saved, tmp_path):
    done = CliRunner().invoke(app, ["trajectory", *map(str, saved), "--report", str(tmp_path / "r")])
    assert "None" not in done.stdout
    assert done.stdout.count("19×23") == done.stdout.count("5×3×3×3") == 3


def failing_once(name):
    """`moves`, of which that of tensors as large as `name` fails."""
    moves, size = analysis.moves, weights(STEPS[0])[name].size

    def fail(usable, count):
        if usable[0].count == size:
            raise weighbridge.ReportError("lost")
        return moves(usable, count)

    return fail


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
def test_the_path_is_of_the_rows_that_are_there(saved, tmp_path, monkeypatch, if_exists):
    with monkeypatch.context() as patch:
        patch.setattr(analysis, "moves", failing_once("conv.weight"))
        early = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu")
    assert set(early.table("trajectory_path")["tensors"]) == {2}
    late = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu", if_exists=if_exists)
    fresh = weighbridge.trajectory(saved, report=tmp_path / "s", device="cpu").table("trajectory_path", lists=True)
    path = late.table("trajectory_path", lists=True)
    assert list(path["tensors"]) == [3, 3, 3]
    np.testing.assert_array_equal(np.stack(path["scores"]), np.stack(fresh["scores"]))
    assert late.complete


def test_a_run_killed_before_the_path_leaves_no_old_one(saved, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(analysis, "moves", failing_once("conv.weight"))
        weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(analysis, "_path", lambda prepared: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu", if_exists="resume")
    report = weighbridge.trajectory(saved, report=tmp_path / "r", device="cpu")
    assert set(report.table("trajectory_path")["tensors"]) == {3}


@pytest.mark.parametrize("scale", [1e-200, 1e160, 1e-310], ids=str)
def test_figures_of_any_magnitude(tmp_path, scale):
    rng = np.random.default_rng(2)
    w = [rng.standard_normal((4, 5)) * scale for _ in range(3)]
    report = weighbridge.trajectory([{"w": x} for x in w], report=tmp_path / "r", device="cpu")
    rows = report.table("trajectory", lists=True)
    plain = [(x / scale).reshape(-1) for x in w]
    norms = [np.linalg.norm(x) for x in plain]
    moved = np.diff(plain, axis=0)
    near = 1e-4 if scale < 1e-300 else 1e-12
    for i, row in rows.iterrows():
        assert row["l2"] == pytest.approx(norms[i] * scale, rel=near, abs=0)
        assert row["cosine_first"] == pytest.approx(plain[0] @ plain[i] / norms[0] / norms[i], rel=near)
        assert row["distance"] == pytest.approx(np.linalg.norm(plain[i] - plain[0]) * scale, rel=near, abs=0)
        values = np.linalg.svd(plain[i].reshape(4, 5), compute_uv=False)
        np.testing.assert_allclose(row["singular_values"], values * scale, rtol=max(near, 1e-10))
        assert row["stable_rank"] == pytest.approx((norms[i] / values[0]) ** 2, rel=near)
    assert rows["step_length"][2] == pytest.approx(np.linalg.norm(moved[1]) * scale, rel=near, abs=0)
    turn = moved[0] @ moved[1] / np.linalg.norm(moved[0]) / np.linalg.norm(moved[1])
    assert rows["turn"][2] == pytest.approx(turn, rel=near)
    path = report.table("trajectory_path")
    assert set(path["status"]) == {"skipped" if scale > 1 else "done"}


def test_magnitudes_may_differ_by_step_and_by_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "CHUNK_ENTRIES", 3)
    w = [np.array([1e-200, 2e-200]), np.array([1e-200, 2e160]), np.array([2e-200, 2e160])]
    rows = weighbridge.trajectory([{"w": x} for x in w], report=tmp_path / "r", device="cpu").table("trajectory")
    assert list(rows["l2"]) == pytest.approx([5**0.5 * 1e-200, 2e160, 2e160], rel=1e-12, abs=0)
    assert list(rows["step_length"][1:]) == pytest.approx([2e160, 1e-200], rel=1e-12, abs=0)
    assert rows["cosine_previous"][1] == pytest.approx(2 / 5**0.5, rel=1e-12)


def test_points_that_are_one_explain_nothing():
    found = path_components(np.zeros((3, 3)), count=2)
    assert np.isnan(found.explained).all()
    assert (found.scores == 0).all()
