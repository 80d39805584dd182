"""Pictures of criticality: what is drawn is the tables', and a text or an error where there is nothing."""

import holoviews as hv
import jax.numpy as jnp
import numpy as np
import panel
import pytest

import weighbridge
from weighbridge.app.criticality_tab import criticality_tab
from weighbridge.errors import BadArgument
from weighbridge.views import criticality, criticality_curves, criticality_layers, criticality_selectivity

RNG = np.random.default_rng(2)
WEIGHTS = {"w1": RNG.normal(size=(5, 6)), "w2": RNG.normal(size=(6, 3))}
WEIGHTS["w2"][1] = 0


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A network with a unit that nothing depends on, of three tasks."""
    x, y = RNG.normal(size=(24, 5)), np.arange(24) % 3
    folder = tmp_path_factory.mktemp("criticality")
    result = weighbridge.criticality(
        lambda p, x: jnp.maximum(x @ p["w1"], 0) @ p["w2"],
        [(x, y)],
        params={name: jnp.asarray(w, jnp.float32) for name, w in WEIGHTS.items()},
        tasks="labels",
        shares=(0.1, 0.5),
        draws=3,
        leave_one_out=["w1"],
        report=folder,
    )
    return weighbridge.Report.open(folder), result


def drawn(picture, kind):
    hv.renderer("bokeh").get_plot(picture)
    return picture.traverse(lambda x: x, [kind])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_grid_is_the_table_in_the_order_of_the_tasks(measured, theme):
    report, result = measured
    (image,) = drawn(criticality(report, "w1", theme=theme), hv.Image)
    units = image.dimension_values("channel", flat=False)[0].astype(int)
    assert sorted(units) == [0, 2, 3, 4, 5]
    scores = result.units["w1"].leave_one_out[1:, units]
    np.testing.assert_allclose(image.dimension_values("leave_one_out", flat=False)[::-1], scores[::-1])
    assert (np.diff(scores.argmax(axis=0)) >= 0).all()


def test_layers_are_the_sums(measured):
    report, result = measured
    *tasks, whole = drawn(criticality_layers(report, score="fisher"), hv.Scatter)
    np.testing.assert_allclose(whole.dimension_values("fisher"), [result.tensors[name].fisher[0] for name in WEIGHTS])
    assert [points.label for points in tasks] == ["0", "1", "2"]
    np.testing.assert_allclose(tasks[2].dimension_values("fisher")[1], result.tensors["w2"].fisher[3])


@pytest.mark.parametrize("outcome", ["loss", "accuracy"])
def test_curves_have_a_band_of_the_random_orders(measured, outcome):
    report, result = measured
    picture = criticality_curves(report, outcome)
    lines = [line for line in drawn(picture, hv.Curve) if type(line) is hv.Curve]
    assert [line.label.split(",")[0] for line in lines] == ["taylor", "fisher", "magnitude", "3 random"]
    np.testing.assert_allclose(lines[1].dimension_values(outcome), getattr(result.curves[1], outcome))
    random = np.stack([getattr(curve, outcome) for curve in result.curves if curve.score == "random"])
    bands = [(area.dimension_values("low"), area.dimension_values("high")) for area in drawn(picture, hv.Area)]
    assert any(np.allclose(low, random.min(axis=0)) and np.allclose(high, random.max(axis=0)) for low, high in bands)


def test_selectivity_is_of_the_units_that_matter(measured):
    report, result = measured
    points = drawn(criticality_selectivity(report), hv.Scatter)
    found = {
        (layer, unit): (x, task)
        for of in points
        for layer, unit, x, task in zip(
            *(of.dimension_values(d) for d in ("layer", "unit", "selectivity", "task")), strict=True
        )
    }
    index = result.units["w1"].selectivity()
    for unit in np.flatnonzero(np.isfinite(index)):
        x, task = found["w1", unit]
        assert x == pytest.approx(index[unit])
        assert int(task) == result.units["w1"].leave_one_out[1:, unit].argmax()
    assert ("w1", 1) not in found


@pytest.mark.filterwarnings("ignore:Widget.name is deprecated:PendingDeprecationWarning")
def test_what_is_not_there_is_a_text_or_an_error(measured, tmp_path):
    report, _ = measured
    with pytest.raises(BadArgument, match="there is: w1, w2"):
        criticality(report, "w3")
    with pytest.raises(BadArgument, match="'w2' has no leave_one_out"):
        criticality(report, "w2")
    for call in (lambda: criticality(report, "w1", score="x"), lambda: criticality_layers(report, score="x")):
        with pytest.raises(BadArgument, match="expected one of"):
            call()
    with pytest.raises(BadArgument, match="loss, accuracy"):
        criticality_curves(report, "x")
    weighbridge.criticality(
        lambda p, x: x @ p, [(np.ones((2, 2)), [0, 1])], params=jnp.zeros((2, 2)), shares=(), report=tmp_path
    )
    alone = weighbridge.Report.open(tmp_path)
    assert drawn(criticality_selectivity(alone), hv.Text)
    assert drawn(criticality(alone, alone.names[0]), hv.Text)
    assert "HoloViews" in repr(criticality_tab(alone, "light"))


@pytest.mark.filterwarnings("ignore:Widget.name is deprecated:PendingDeprecationWarning")
def test_the_tab_shows_what_the_report_has(measured, scanned, digits):
    report, _ = measured
    tab = criticality_tab(report, "dark")
    layer, score = tab.select(lambda part: getattr(part, "name", "") in ("layer", "score"))
    assert layer.options == ["w1", "w2"]

    def images():
        return [pane for pane in tab.select(panel.pane.HoloViews) if isinstance(pane.object, hv.Image)]

    assert len(images()) == 1
    layer.value = "w2"
    assert not images()
    score.value = "taylor"
    assert len(images()) == 1
    assert "no criticality" in criticality_tab(scanned(digits), "light").object


@pytest.mark.filterwarnings("ignore:Widget.name is deprecated:PendingDeprecationWarning")
@pytest.mark.parametrize(("tasks", "units"), [("none", 6), ("labels", 1)], ids=["one task", "one unit"])
def test_a_grid_may_have_one_row_or_one_column(tasks, units, tmp_path):
    x, y = RNG.normal(size=(24, 5)), np.arange(24) % 3
    params = {"w1": jnp.asarray(RNG.normal(size=(5, units)), jnp.float32), "w2": jnp.ones((units, 3), jnp.float32)}
    params["w2"] = params["w2"].at[:, 1].set(-1)
    weighbridge.criticality(
        lambda p, x: jnp.tanh(x @ p["w1"]) @ p["w2"], [(x, y)], params=params, tasks=tasks, shares=(), report=tmp_path
    )
    report = weighbridge.Report.open(tmp_path)
    (image,) = drawn(criticality(report, "w1"), hv.Image)
    scores = image.dimension_values("leave_one_out", flat=False)
    assert scores.shape == ((1 if tasks == "none" else 3), units)
    assert "HoloViews" in repr(criticality_tab(report, "light"))
