"""Pictures of how neurons and layers relate: what is drawn is the table's, and a text where there is nothing."""

import holoviews as hv
import numpy as np
import pytest

import weighbridge
from weighbridge.app.neurons import neighbour_table
from weighbridge.views import overlaps, relations, similarities
from weighbridge.views.similarities import bars
from weighbridge_kernels.similar_pairs import EDGES


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    rng = np.random.default_rng(5)
    tree = {f"h.{i}.mlp.{name}.weight": rng.standard_normal((60, 40)) for i in range(3) for name in ("up_proj", "gate")}
    tree["h.1.mlp.up_proj.weight"][7] = tree["h.1.mlp.up_proj.weight"][2]
    tree |= {"experts.up_proj": rng.standard_normal((3, 8, 40)), "one.weight": np.ones((1, 3)), "bias": np.ones(4)}
    return weighbridge.correlate(tree, report=tmp_path_factory.mktemp("correlated") / "report")


def row_of(report, name, table="correlations", part=""):
    (row,) = [row for row in report.matrices(name, table) if row["part"] == part]
    return row


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("side", ["row", "col"])
@pytest.mark.parametrize("name", ["h.1.mlp.up_proj.weight", "one.weight", "bias"])
def test_similarities_are_counts_beside_chance(report, name, side, theme):
    row = row_of(report, name)
    picture = similarities(row, side=side, theme=theme)
    hv.renderer("bokeh").get_plot(picture)
    if name == "bias" or (name, side) == ("one.weight", "row"):
        (text,) = picture.traverse(lambda x: x, [hv.Text])
        assert name in text.data[2]
        return
    (drawn,) = picture.traverse(lambda x: x, [hv.Rectangles])
    assert drawn.dimension_values("pairs").sum() == row[f"{side}_pairs"]
    if name != "one.weight":
        (chance,) = picture.traverse(lambda x: x, [hv.Curve])
        assert chance.dimension_values("pairs").sum() == pytest.approx(row[f"{side}_pairs"], rel=0.05)


def test_bars_hold_every_pair_where_it_belongs():
    s = np.random.default_rng(6).uniform(-1, 1, 5000)
    edges, heights = bars(np.histogram(s, EDGES)[0])
    np.testing.assert_array_equal(heights, np.histogram(s, edges)[0])


@pytest.mark.parametrize("quantity", ["cka", "excess"])
def test_the_grid_is_the_table(report, quantity):
    picture = relations(report, quantity)
    hv.renderer("bokeh").get_plot(picture)
    row = row_of(report, "h.0.mlp.up_proj.weight", "relations")
    cells = picture.array(["name", "other", "cka"])
    found = {other: value for name, other, value in cells if name == row["name"]}
    assert found == dict(zip(row["others"], row["cka"], strict=True))
    assert len(cells) == len(row["others"]) ** 2


def test_a_grid_of_nothing_is_a_text(tmp_path):
    report = weighbridge.correlate({"x": np.ones(3)}, report=tmp_path / "r")
    assert relations(report).traverse(lambda x: x, [hv.Text])


def test_overlaps_are_the_table(report):
    row = row_of(report, "experts.up_proj", "relations")
    picture = overlaps(row)
    hv.renderer("bokeh").get_plot(picture)
    found = picture.dimension_values("overlap", flat=False)
    np.testing.assert_allclose(np.sort(found, axis=None), np.sort(row["part_overlap"]))
    assert overlaps(row_of(report, "bias", "relations")).traverse(lambda x: x, [hv.Text])


def test_the_neighbours_of_a_neuron_are_named(report):
    row = row_of(report, "h.1.mlp.up_proj.weight")
    table = neighbour_table(row, "row", 2, lambda index: f"<i>{index}")
    assert "most like &lt;i&gt;2" in table
    assert table.index("&lt;i&gt;7</td><td>1.000") > 0
    assert "no neuron 60 among 60" in neighbour_table(row, "row", 60, str)
    assert "fewer than two axes" in neighbour_table(row_of(report, "bias"), "row", 0, str)
