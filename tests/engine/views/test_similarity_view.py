"""What the picture of similarities draws: cells, hover that names rows as stored, labels that say what is shown."""

from typing import Any

import holoviews as hv
import numpy as np
import pytest

import weighbridge
from weighbridge import BadArgument
from weighbridge.pyramid import SimilarityMatrix, product, similarities
from weighbridge.pyramid import similarity as module
from weighbridge.views import similarity

ROWS, COLS = 203, 37


@pytest.fixture(scope="module")
def tensor() -> weighbridge.Tensor:
    x = np.random.default_rng(0).standard_normal((ROWS, COLS)).astype(np.float32)
    x[17] = 0
    return weighbridge.open({"w": x})["w"]


def plotted(drawn: Any) -> Any:
    """The Bokeh plot of the map itself."""
    return hv.renderer("bokeh").get_plot(drawn).subplots["Weights", "I"]


def shown(drawn: Any) -> np.ndarray:
    return drawn[()].Weights.I.dimension_values(2, flat=False)


@pytest.mark.parametrize("order", module.ORDERS)
@pytest.mark.parametrize(("side", "count"), [("rows", ROWS), ("cols", COLS)])
def test_cells_are_pairs(tensor: weighbridge.Tensor, side: Any, order: Any, count: int) -> None:
    drawn = similarity(tensor, side=side, order=order)
    drawn.event(x_range=(20, 30), y_range=(3, 9))
    pairs = similarities(tensor, side=side, order=order).read((slice(3, 9), slice(20, 30)))
    np.testing.assert_allclose(shown(drawn), pairs, rtol=0, atol=1e-6)
    plot = plotted(drawn)
    assert (plot.handles["x_range"].bounds, plot.handles["y_range"].bounds) == ((0, count), (0, count))
    assert plot.handles["cells"].data["meaning"] == ["cosine"]


def test_hover_names_rows_as_they_are_stored(tensor: weighbridge.Tensor) -> None:
    """Of a cell of many rows the first few, in their order; of a single one it alone."""
    matrix = similarities(tensor, order="seriated")
    assert matrix.order is not None
    drawn = similarity(matrix)
    drawn.streams[1].event(width=50, height=120)
    cells = plotted(drawn).handles["cells"]
    assert cells.data["row_names"][0][:2] == [f"{a}; {b}" for a, b in matrix.order[:4].reshape(2, 2)]
    a, b, c = matrix.order[:3]
    assert cells.data["col_names"][0][0] == f"{a}; {b}; {c}; … (5 of them)"
    drawn.event(x_range=(20, 30), y_range=(3, 9))
    assert cells.data["row_names"] == [[str(row) for row in matrix.order[3:9]]]
    assert cells.data["col_names"] == [[str(row) for row in matrix.order[20:30]]]
    assert "row_names" not in plotted(similarity(tensor)).handles["cells"].data


def test_hover_names_folded_columns() -> None:
    x = np.random.default_rng(0).standard_normal((6, 5, 7)).astype(np.float32)
    kernel = weighbridge.open({"encoder.attention.query.kernel": x})["encoder.attention.query.kernel"]
    matrix = similarities(kernel, side="cols", order="seriated")
    assert (matrix.shape, matrix.axes) == ((35, 35), ((5, 7), (5, 7)))
    assert matrix.order is not None
    first = int(matrix.order[0])
    names = plotted(similarity(matrix)).handles["cells"].data["row_names"][0]
    assert names[0] == f"{first} ({first // 7}, {first % 7})"


def test_sides_have_their_names(tensor: weighbridge.Tensor) -> None:
    for side, order, label in (
        ("rows", "stored", "row"),
        ("cols", "stored", "column"),
        ("cols", "seriated", "column, by its place in the order"),
    ):
        figure = plotted(similarity(tensor, side=side, order=order)).state
        assert {axis.axis_label for axis in figure.axis} == {label}


def test_of_a_large_window_the_mean_is_shown_and_said(
    tensor: weighbridge.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "FULL_ENTRIES", 1000)
    drawn = similarity(tensor, reduction="max")
    plot = plotted(drawn)
    assert drawn[()].Weights.I.vdims[0].pprint_label == "mean of the cosine (zoom in for maximum)"
    assert plot.handles["cells"].data["meaning"] == ["cosine"]
    drawn.event(x_range=(0, 30), y_range=(0, 30))
    assert drawn[()].Weights.I.vdims[0].pprint_label == "maximum of the cosine"


def test_rows_without_direction_have_the_colour_of_no_number(tensor: weighbridge.Tensor) -> None:
    drawn = similarity(tensor)
    flags = drawn[()].Flags.I.dimension_values(2, flat=False)
    assert np.isnan(shown(drawn)[17]).all()
    assert (flags[17] == 1).all()
    assert flags.sum() == 2 * ROWS - 1


@pytest.mark.parametrize("choice", [{"side": "x"}, {"kind": "x"}, {"order": "x"}, {"theme": "x"}, {"reduction": "x"}])
def test_unknown_choices_are_refused(tensor: weighbridge.Tensor, choice: Any) -> None:
    with pytest.raises(BadArgument, match="'x'; expected one of"):
        similarity(tensor, **choice)


def test_a_matrix_made_before_is_shown_as_it_is(tensor: weighbridge.Tensor) -> None:
    matrix = similarities(tensor, kind="pearson", side="cols")
    assert isinstance(matrix, SimilarityMatrix)
    assert plotted(similarity(matrix)).handles["cells"].data["meaning"] == ["Pearson correlation"]
