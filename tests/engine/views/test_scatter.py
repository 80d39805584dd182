"""Maps as pictures: their data, colours, hover and titles, from hand-written projections."""

import numpy as np
import pytest

from weighbridge.app.projection_tab import inside
from weighbridge.errors import BadArgument
from weighbridge.report.projections import Arrays, Clusters, Projection
from weighbridge.views.colours import categories, colours
from weighbridge.views.scatter import DRAWN_SINGLY, Scatter, apart, colours_of, scatter
from weighbridge.views.selected import selected, signed_absmax

ROW = {
    "name": "embed",
    "part": "rows tsne",
    "method": "tsne",
    "side": "rows",
    "first": 10,
    "points": 6,
    "dims": 2,
    "kl": 0.5,
    "perplexity": 2.0,
    "trustworthiness": 0.91,
    "trustworthiness_error": 0.0,
    "neighbour_recall": 0.4,
    "neighbour_recall_error": 0.01,
    "explained_variance": None,
}


def projection(n=7, dims=2, clusters=2, **row):
    """`n` points, of which the third has no place; labels in turn, the last in none."""
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(n, dims)).astype(np.float32)
    labels = (np.arange(n) % clusters if clusters else np.full(n, -1)).astype(np.int32)
    labels[-1] = -1
    scores[2], labels[2] = np.nan, -1
    channels = ROW["first"] + np.arange(n)
    neighbours = np.stack([np.roll(channels, -1), np.full(n, -1)], axis=1)
    similarities = np.stack([np.linspace(0.1, 0.9, n), np.full(n, np.nan)], axis=1).astype(np.float32)
    sizes = np.array([(labels == label).sum() for label in range(clusters)], np.int64)
    medoids = np.array([channels[labels == label][0] for label in range(clusters)], np.int64)
    table = np.zeros((clusters, 1))
    return Projection(
        ROW | row,
        Arrays(scores, np.linspace(1, 2, n), labels, neighbours, similarities, np.zeros((0, 3))),
        Clusters(sizes, medoids, np.ones(clusters), table.astype(np.int64), table),
    )


def points_of(element):
    return next(layer for layer in element if type(layer).__name__ == "Points")


def test_points_have_their_places_values_and_names():
    found = projection()
    points = points_of(scatter(found, named=lambda channel: f"token{channel}"))
    placed = [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal(points.dimension_values("x"), found.arrays.scores[placed, 0])
    np.testing.assert_array_equal(points.dimension_values("y"), found.arrays.scores[placed, 1])
    np.testing.assert_array_equal(points.dimension_values("norm"), found.arrays.norms[placed])
    assert list(points.dimension_values("point")) == [f"token{10 + i}" for i in placed]
    assert list(points.dimension_values("group")) == ["0", "1", "1", "0", "1", "none"]
    assert points.dimension_values("nearest")[0] == "token11 (0.10)"


def test_the_title_says_method_and_quality():
    import holoviews as hv

    element = scatter(projection())
    title = hv.Store.lookup_options("bokeh", element, "plot").kwargs["title"]
    assert "embed: t-SNE of its rows, coloured by L2 norm" in title
    assert "6 points · trustworthiness 0.910 · neighbour recall 0.400 ± 0.010 · KL 0.500 at perplexity 2" in title
    assert "distances between clusters of t-SNE mean nothing" in title
    pca = scatter(projection(method="pca", kl=None, explained_variance=0.25))
    title = hv.Store.lookup_options("bokeh", pca, "plot").kwargs["title"]
    assert "principal components" in title
    assert "explained variance 25.0%" in title
    assert "mean nothing" not in title


def test_clusters_have_colours_of_their_own_and_names_at_their_medoids():
    found = projection()
    element = scatter(found, colour="cluster", named=lambda channel: f"token{channel} · {channel}")
    labels = next(layer for layer in element if type(layer).__name__ == "Labels")
    assert set(labels.dimension_values("name")) <= {"token10", "token11"}
    assert labels.dimension_values("x")[0] == found.arrays.scores[0, 0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_many_clusters_differ(theme):
    for count in (2, 6, 7, 32, 100):
        assert len(set(categories(count, theme))) == count
    assert len(categories(600, theme)) == 600
    assert categories(3, theme) == colours(theme).series[:3]


def test_what_it_can_be_coloured_by():
    assert colours_of(projection()) == ["norm", "cluster", "similarity"]
    assert colours_of(projection(clusters=0)) == ["norm", "similarity"]
    entry = type("Entry", (), {"row_absmax": np.arange(20.0), "row_mean": np.linspace(-1, 1, 20)})()
    assert colours_of(projection(), entry) == ["norm", "cluster", "similarity", "absmax", "mean"]
    points = points_of(scatter(projection(), colour="absmax", entry=entry))
    np.testing.assert_array_equal(points.dimension_values("absmax"), [10, 11, 13, 14, 15, 16])
    with pytest.raises(BadArgument, match="no colour 'cluster' for this projection; expected one of norm"):
        scatter(projection(clusters=0), colour="cluster")


def test_two_of_three_dimensions():
    found = projection(dims=3, method="pca")
    points = points_of(scatter(found, axes=(0, 2)))
    np.testing.assert_array_equal(points.dimension_values("y"), found.arrays.scores[found.placed, 2])
    with pytest.raises(BadArgument, match="expected two of the 2"):
        scatter(projection(), axes=(0, 2))


@pytest.mark.parametrize("colour", ["norm", "cluster", "similarity"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_many_points_are_rasterised(colour, theme):
    import holoviews as hv

    found = projection(n=DRAWN_SINGLY + 101, clusters=9)
    element = scatter(found, colour=colour, theme=theme)
    image = next(layer for layer in element[()] if isinstance(layer, hv.Image | hv.RGB))
    values = image.dimension_values(2, flat=False)
    drawn = np.isfinite(values) if colour != "cluster" else image.dimension_values("A", flat=False) > 0
    assert DRAWN_SINGLY / 2 < drawn.sum() < 50 * DRAWN_SINGLY
    if colour == "norm":
        assert 1 <= np.nanmin(values) < np.nanmax(values) <= 2  # dots that meet do not add up
    hv.renderer("bokeh").get_plot(element)


def test_the_point_under_the_pointer():
    shown = Scatter(projection(n=DRAWN_SINGLY + 101))
    x, y = shown.x[7], shown.y[7]
    assert shown.nearest(x, y, 0.1) == 7
    assert shown.nearest(x + 50, y, 0.1) is None
    told = shown.described(np.array([7]))
    assert told["point"] == ["18"]  # the third point is not on the map
    assert told["norm"][0] == pytest.approx(shown._projection.arrays.norms[8])


def test_no_points_give_a_text():
    found = projection(n=3)
    found.arrays.scores[:] = np.nan
    assert "no points are on this map" in str(next(iter(scatter(found))).data[2])


def test_labels_that_would_meet_are_left_out():
    x, y = np.array([0.0, 0.01, 0.5]), np.array([0.0, 0.01, 0.5])
    assert apart(x, y, ["first", "second", "third"], 1.0) == [0, 2]


def test_what_a_lasso_holds():
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    x, y = np.array([1, 3, -1, 1.99, 1]), np.array([1, 1, 1, 0.01, 2.5])
    assert inside(square, x, y).tolist() == [True, False, False, True, False]
    notched = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], float)
    assert inside(notched, np.array([2.0, 2.0, 0.2]), np.array([0.5, 2.0, 2.0])).tolist() == [True, False, True]


def test_selected_lines():
    import holoviews as hv

    lines = np.random.default_rng(1).normal(size=(3, 2500)).astype(np.float32)
    lines[1, 77] = -50
    cells = signed_absmax(lines, 1000)
    assert cells.shape == (3, 834)
    assert cells[1, 25] == -50
    image = selected(lines, ["a", "b", "c"])
    assert isinstance(image, hv.Image)
    np.testing.assert_array_equal(image.dimension_values(2, flat=False), cells)  # from y = 0, on top, up
    assert "nothing is selected" in str(next(iter(selected(np.zeros((0, 5)), []))).data[2])
