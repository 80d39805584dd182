"""Pictures of training: what is drawn is the table's, marks where NaN is, and a text where there is nothing."""

import holoviews as hv
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weighbridge
from weighbridge.app import training_tab
from weighbridge.errors import BadArgument
from weighbridge.views import (
    gradient_histogram,
    group_conflicts,
    group_curves,
    group_shares,
    idle_units,
    noise_scale,
    training,
    trajectory,
    trajectory_curves,
)

NAMES = ["h.0.mlp.weight", "h.1.mlp.weight", "bias"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    recorder = weighbridge.recorder.record(optax.sgd(0.1), every=1, report=folder, buffer=2)
    params = {name: jnp.ones((4, 5)) for name in NAMES} | {"count": jnp.ones(2, jnp.int32)}
    state = recorder.init(params)
    for step in range(6):
        gradients = {name: jnp.asarray(rng.standard_normal((4, 5)) * 10.0**-step, jnp.float32) for name in NAMES}
        if step == 3:
            gradients["bias"] = gradients["bias"].at[0, :2].set(jnp.array([jnp.nan, 0]))
        _, state = recorder.update(gradients | {"count": params["count"]}, state, params)
    recorder.close(state)
    return weighbridge.Report.open(folder)


def drawn(picture, kind):
    hv.renderer("bokeh").get_plot(picture)
    return picture.traverse(lambda x: x, [kind])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("by", ["tensor", "role"])
def test_lines_are_the_table(run, by, theme):
    lines = drawn(training(run, by=by, theme=theme), hv.Curve)
    rows = run.table("training")
    rows = rows[rows["status"] == "done"]
    assert len(lines) == rows["role" if by == "role" else "name"].nunique()
    expected = rows.groupby(["role" if by == "role" else "name", "step"])["gradient_norm"].median()
    for line in lines:
        name = line.dimension_values("name")[0]
        np.testing.assert_allclose(line.dimension_values("gradient_norm"), expected[name].to_numpy())


def test_records_with_nan_are_marked(run):
    (marks,) = drawn(training(run, names=["bias"]), hv.Scatter)
    assert list(marks.dimension_values("step")) == [3]


def test_the_image_is_the_histogram(run):
    (image,) = drawn(gradient_histogram(run, "bias"), hv.Image)
    shares = image.dimension_values("share", flat=False)
    np.testing.assert_allclose(np.nansum(shares, axis=0), 1)
    assert shares[-1, 3] == shares[0, 3] == pytest.approx(1 / 20)


def test_what_is_not_there_is_a_text_or_an_error(run):
    assert drawn(training(run, names=["none"]), hv.Text)
    assert drawn(gradient_histogram(run, "count"), hv.Text)
    with pytest.raises(BadArgument, match="expected one of weight_norm"):
        training(run, "reason")
    with pytest.raises(BadArgument, match="tensor, role"):
        training(run, by="layer")


def test_the_path_and_its_curves(tmp_path):
    rng = np.random.default_rng(1)
    steps = [{name: rng.standard_normal((4, 5)) for name in NAMES} for _ in range(4)]
    report = weighbridge.trajectory(steps, report=tmp_path / "r", device="cpu")
    picture = trajectory(report)
    (points,) = drawn(picture, hv.Points)
    scores = np.stack(report.table("trajectory_path", lists=True)["scores"])
    np.testing.assert_allclose(points.array(["x", "y"]).astype(float), scores[:, :2])
    (labels,) = picture.traverse(lambda x: x, [hv.Labels])
    assert list(labels.dimension_values("text")) == ["0", "1", "2", "3"]
    assert len(drawn(trajectory_curves(report, "turn"), hv.Curve)) == 3
    with pytest.raises(BadArgument, match="components"):
        trajectory(report, (0, 9))
    other = weighbridge.trajectory([{"a": np.ones(2)}, {"b": np.ones(2)}], report=tmp_path / "s", device="cpu")
    assert drawn(trajectory(other), hv.Text)


def test_checkpoints_that_are_one_have_no_variance(tmp_path):
    steps = [{"w": np.ones(3)}] * 2
    plot = hv.renderer("bokeh").get_plot(trajectory(weighbridge.trajectory(steps, report=tmp_path / "r", device="cpu")))
    assert plot.handles["xaxis"].axis_label == "component 1 (no variance)"
    assert plot.handles["yaxis"].axis_label == "component 2 (no variance)"


def test_a_path_that_is_not_there_says_why(tmp_path):
    report = weighbridge.trajectory([{"w": np.ones(3)}, {"w": np.full(3, 1e200)}], report=tmp_path / "r", device="cpu")
    (text,) = drawn(trajectory(report), hv.Text)
    assert "squared steps exceed float64" in text.data[2]


def test_a_drawing_that_fails_is_tried_again(run, monkeypatch):
    """A part may be read while the run replaces it."""
    follow, draws = [], []
    monkeypatch.setattr(training_tab.panel.state, "add_periodic_callback", lambda call, period: follow.append(call))

    def draw():
        draws.append(1)
        if len(draws) == 2:
            raise weighbridge.ReportError("a part cannot be read")
        return []

    training_tab._following(run, "training", (), draw)
    parts = training_tab.parts_of(run.folder / "tables" / "training")
    monkeypatch.setattr(training_tab, "parts_of", lambda folder: [*parts, ("part-00099.parquet", 1)])
    with pytest.raises(weighbridge.ReportError):
        follow[0]()
    follow[0]()
    follow[0]()
    assert len(draws) == 3


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Two groups that pull one tensor in opposite directions, and move another in common."""
    folder = tmp_path_factory.mktemp("grouped")

    def loss(params, batch):
        return (batch["sign"] * params["a"].sum() + 2 * params["b"].sum()).mean()

    groups = {name: {"sign": jnp.full(8, sign, jnp.float32)} for name, sign in (("up", 1.0), ("down", -1.0))}
    measure = weighbridge.recorder.record_groups(
        loss, groups, report=folder, activations=lambda params, batch: {"layer": batch["sign"][:, None] * jnp.eye(3)[0]}
    )
    for step in (0, 5):
        measure({"a": jnp.zeros(4), "b": jnp.zeros(9)}, step)
    return weighbridge.Report.open(folder)


def cells(picture, quantity):
    (grid,) = drawn(picture, hv.HeatMap)
    rows, columns, values = (grid.dimension_values(d) for d in ("of", "group", quantity))
    return {(row, column): value for row, column, value in zip(rows, columns, values, strict=True)}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_conflicts_and_what_groups_move(grouped, theme):
    opposed = cells(group_conflicts(grouped, "a", theme=theme), "cosine")
    assert opposed == pytest.approx({("up", "up"): 1, ("up", "down"): -1, ("down", "up"): -1, ("down", "down"): 1})
    assert cells(group_conflicts(grouped, "b"), "cosine")["up", "down"] == pytest.approx(1)
    shares = cells(group_shares(grouped, theme=theme), "share")
    assert shares == pytest.approx({(t, g): s for t, s in (("a", 0.1), ("b", 0.9)) for g in ("up", "down")})


def test_groups_over_the_steps(grouped):
    lines = drawn(group_curves(grouped, name="a"), hv.Curve)
    assert {line.dimension_values("name")[0] for line in lines} == {"up", "down"}
    assert all(list(line.dimension_values("gradient_norm")) == pytest.approx([2, 2]) for line in lines)
    assert drawn(noise_scale(grouped), hv.Curve)
    (idle,) = drawn(idle_units(grouped), hv.Curve)
    assert list(idle.dimension_values("share of dead units")) == pytest.approx([1, 1])
    assert drawn(group_conflicts(grouped, step=3), hv.Text)
