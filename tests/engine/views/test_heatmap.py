"""What a heatmap draws, as data of its elements and of the plot: cells, flags, limits, hover, norms, themes."""

from types import SimpleNamespace
from typing import Any

import holoviews as hv
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weighbridge
from weighbridge import BadArgument, ReadFailed
from weighbridge.pyramid import WeightMatrix, matrix_of
from weighbridge.pyramid import matrix as matrices
from weighbridge.views import heatmap
from weighbridge.views.colours import THEMES, colours
from weighbridge.views.heatmap import Heatmap, buckets, prepared

ROWS, COLS = 203, 357


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((ROWS, COLS)).astype(np.float32)
    x[5, 6], x[50, 61] = np.nan, -np.inf
    return x


@pytest.fixture(scope="module")
def tensor(x: np.ndarray) -> weighbridge.Tensor:
    return weighbridge.open({"w": x})["w"]


def images(drawn: Any) -> tuple[hv.Image, hv.Image]:
    """The map and the flags over it, as they are drawn now."""
    overlay = drawn[()]
    return overlay.Weights.I, overlay.Flags.I


def plotted(drawn: Any) -> Any:
    """The Bokeh plot of the map itself."""
    return hv.renderer("bokeh").get_plot(drawn).subplots["Weights", "I"]


def at(image: hv.Image, row: int, col: int) -> float:
    return float(image[col + 0.5, row + 0.5])


def test_what_is_drawn_is_what_is_stored(tensor: weighbridge.Tensor, x: np.ndarray) -> None:
    """Each cell of the element lies where its entries are, rows downwards."""
    drawn = heatmap(tensor)
    drawn.event(x_range=(40, 80), y_range=(30, 61))
    image, flags = images(drawn)
    assert image.bounds.lbrt() == flags.bounds.lbrt() == (40, 30, 80, 61)
    for row in range(30, 61):
        for col in range(40, 80):
            if np.isfinite(x[row, col]):
                assert at(image, row, col) == x[row, col]
                assert at(flags, row, col) == 0
    assert np.isnan(at(image, 50, 61))
    assert at(flags, 50, 61) == 2
    drawn.event(x_range=(0, 9), y_range=(0, 9))
    assert at(images(drawn)[1], 5, 6) == 1
    np.testing.assert_array_equal(images(drawn)[0].dimension_values(2, flat=False), x[:9, :9])


def test_it_renders_and_follows_the_window(tensor: weighbridge.Tensor, x: np.ndarray) -> None:
    drawn = heatmap(tensor)
    plot = plotted(drawn)
    first = plot.handles["cds"].data["image"][0]
    np.testing.assert_array_equal(first, np.where(np.isfinite(x), x, np.nan))
    assert plot.handles["y_range"].start > plot.handles["y_range"].end, "rows run downwards"
    assert (plot.handles["x_range"].bounds, plot.handles["y_range"].bounds) == ((0, COLS), (0, ROWS))
    drawn.event(x_range=(100.2, 119.9), y_range=(20.5, 30.5))
    source = plot.handles["cds"].data
    np.testing.assert_array_equal(source["image"][0], x[20:31, 100:120])
    assert [source[key][0] for key in ("x", "y", "dw", "dh")] == [100, 20, 20, 11]
    hover = plot.handles["cells"].data
    assert (hover["row"], hover["col"], hover["height"], hover["width"]) == ([20], [100], [1], [1])


def test_bounds_are_multiples_of_the_cell(tensor: weighbridge.Tensor) -> None:
    """The last cells too, though they are cut short: so every cell has the same size on the screen."""
    drawn = heatmap(tensor)
    shown = drawn.streams[1]
    shown.event(width=50, height=40)
    image, flags = images(drawn)
    assert image.bounds.lbrt() == (0, 0, 45 * 8, 34 * 6)
    assert image.dimension_values(2, flat=False).shape == (34, 45)
    assert flags.dimension_values(2, flat=False).shape == (34, 45)
    shown.event(width=None, height=None)
    assert images(drawn)[0].dimension_values(2, flat=False).shape == (ROWS, COLS)


def test_flags_where_there_are_none_are_one_cell() -> None:
    drawn = heatmap(weighbridge.open({"w": np.ones((30, 40), np.float32)})["w"])
    flags = images(drawn)[1]
    np.testing.assert_array_equal(flags.dimension_values(2, flat=False), [[0]])
    assert flags.bounds.lbrt() == (0, 0, 40, 30)


@pytest.mark.parametrize("fill", [0, 3, np.nan, np.inf], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5,)], ids=str)
def test_the_smallest_and_emptiest(shape: tuple[int, ...], fill: float) -> None:
    plot = plotted(heatmap(weighbridge.open({"w": np.full(shape, fill, np.float32)})["w"]))
    expected = np.full((1, *shape)[-2:], fill if np.isfinite(fill) else np.nan)
    np.testing.assert_array_equal(plot.handles["cds"].data["image"][0], expected)
    mapper = plot.handles["color_mapper"]
    assert -mapper.low == mapper.high == (3 if fill == 3 else 1)


def test_hover_names_exact_ranges(tensor: weighbridge.Tensor) -> None:
    drawn = heatmap(tensor, reduction="rms")
    drawn.streams[1].event(width=50, height=40)
    cells = plotted(drawn).handles["cells"]
    assert cells.data == {
        "row": [0],
        "col": [0],
        "height": [6],
        "width": [8],
        "rows": [ROWS],
        "cols": [COLS],
        "row_axes": [[ROWS]],
        "col_axes": [[COLS]],
        "digits": [9],
        "meaning": ["root mean square"],
    }
    drawn.event(x_range=(350, 400), y_range=(200, 1000))
    assert (cells.data["row"], cells.data["col"]) == ([200], [350])
    assert cells.data["meaning"] == ["stored weight"]


def test_a_share_of_zeros_is_no_stored_weight(tensor: weighbridge.Tensor) -> None:
    drawn = heatmap(tensor, reduction="zeros")
    assert plotted(drawn).handles["cells"].data["meaning"] == ["share of zeros"]


def test_the_reduction_switches(tensor: weighbridge.Tensor, x: np.ndarray) -> None:
    chosen = ["absmax"]
    switch = hv.streams.Counter()
    shown = Heatmap(matrix_of(tensor))
    drawn = shown.element(lambda: chosen[0], lambda found: found.limit, switch)
    plot = plotted(drawn)
    drawn.streams[1].event(width=50, height=40)
    block = x[60:66, 80:88]
    for reduction, label, expected in (
        ("max", "maximum", block.max()),
        ("min", "minimum", block.min()),
        ("absmax", "signed absmax", block.flat[np.abs(block).argmax()]),
    ):
        chosen[0] = reduction
        switch.event()
        assert plot.handles["cds"].data["image"][0][10, 10] == expected
        assert plot.handles["cells"].data["meaning"] == [label]
        mapper = plot.handles["color_mapper"]
        assert -mapper.low == mapper.high == pytest.approx(shown.picture.limit)


def test_limits_are_symmetric_follow_the_window_and_can_be_fixed() -> None:
    values = np.linspace(0.5, 2, 100 * 100, dtype=np.float32).reshape(100, 100)
    tensor = weighbridge.open({"w": values})["w"]
    for limit, whole, first in ((None, np.quantile(values, 0.995, method="inverted_cdf"), values[9, 9]), (7.0, 7, 7)):
        drawn = heatmap(tensor, limit=limit)
        mapper = plotted(drawn).handles["color_mapper"]
        assert (mapper.low, mapper.high) == (-whole, whole)
        drawn.event(x_range=(0, 10), y_range=(0, 10))
        assert (mapper.low, mapper.high) == (-first, first)


@pytest.mark.parametrize("limit", [0, -1.0, np.nan, np.inf])
def test_a_limit_that_is_none(tensor: weighbridge.Tensor, limit: float) -> None:
    with pytest.raises(BadArgument, match=r"^limit is .*; expected a positive number$"):
        heatmap(tensor, limit=limit)


def test_unknown_choices_are_refused_at_once(tensor: weighbridge.Tensor) -> None:
    with pytest.raises(BadArgument, match="reduction 'median'; expected one of absmax, "):
        heatmap(tensor, reduction="median")  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="theme 'blue'; expected one of light, dark"):
        heatmap(tensor, theme="blue")  # type: ignore[arg-type]


@pytest.mark.parametrize("theme", THEMES)
def test_themes(tensor: weighbridge.Tensor, theme: Any) -> None:
    plot, of_theme = plotted(heatmap(tensor, theme=theme)), colours(theme)
    figure, mapper = plot.state, plot.handles["color_mapper"]
    assert figure.background_fill_color == figure.border_fill_color == of_theme.background
    assert tuple(mapper.palette) == of_theme.diverging
    assert (mapper.low_color, mapper.high_color, mapper.nan_color) == (of_theme.below, of_theme.above, of_theme.nan)
    assert {axis.axis_label_text_color for axis in figure.axis} == {of_theme.text}


def luminance(colour: str) -> float:
    return float(np.dot([int(colour[k : k + 2], 16) for k in (1, 3, 5)], [0.2126, 0.7152, 0.0722])) / 255


@pytest.mark.parametrize("theme", THEMES)
def test_zero_is_in_the_middle_and_looks_like_the_background(theme: Any) -> None:
    of_theme = colours(theme)
    middle = of_theme.diverging[len(of_theme.diverging) // 2]
    assert abs(luminance(middle) - luminance(of_theme.background)) < 0.12
    special = {of_theme.below, of_theme.above, of_theme.nan, of_theme.inf}
    assert len(special - {*of_theme.diverging}) == 4


def place(n: int, axes: list[int]) -> tuple[int, ...]:
    """As hover counts it."""
    found: list[int] = []
    for side in reversed(axes):
        n, rest = divmod(n, side)
        found.insert(0, rest)
    return tuple(found)


@pytest.mark.parametrize(
    ("name", "shape", "index"),
    [
        ("conv1.weight", (6, 5, 3, 4), lambda row, col: (row[0], col[0], row[1], col[1])),
        ("params.Conv_0.kernel", (3, 4, 5, 6), lambda row, col: (row[1], col[1], col[0], row[0])),
        ("encoder.attention.query.kernel", (16, 4, 8), lambda row, col: (row[0], *col)),
        ("encoder.attention.out.kernel", (4, 8, 16), lambda row, col: (*row, col[0])),
    ],
    ids=["OIHW", "HWIO", "to heads", "from heads"],
)
def test_folded_axes_lead_to_the_stored_entry(name: str, shape: tuple[int, ...], index: Any) -> None:
    """What hover says of a cell's row and column is the index of the weight whose value it shows."""
    stored = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    drawn = heatmap(weighbridge.open({name: stored})[name])
    cells = plotted(drawn).handles["cells"].data
    image = images(drawn)[0]
    seen = set()
    for row in range(cells["rows"][0]):
        for col in range(cells["cols"][0]):
            where = index(place(row, cells["row_axes"][0]), place(col, cells["col_axes"][0]))
            assert at(image, row, col) == stored[where]
            seen.add(where)
    assert len(seen) == stored.size


def test_a_large_tensor_gets_its_pyramid(monkeypatch: pytest.MonkeyPatch, x: np.ndarray) -> None:
    """Weights in memory too, whose pyramid lasts as long as the map."""
    from weighbridge.views import window

    monkeypatch.setattr(matrices, "DIRECT_ENTRIES", 1000)
    monkeypatch.setattr(window, "DIRECT_ENTRIES", 1000)
    matrix = prepared(weighbridge.open({"w": x})["w"])
    assert isinstance(matrix, WeightMatrix)
    assert matrix.pyramid is not None
    drawn = heatmap(matrix, reduction="max")
    drawn.streams[1].event(width=50, height=40)
    image = images(drawn)[0]
    assert image.bounds.lbrt() == (0, 0, 45 * 8, 26 * 8)
    assert at(image, 100, 100) == x[96:104, 96:104].max()


def test_what_reading_raises() -> None:
    """Is raised, unless somebody is told: then the map is empty."""
    x = np.ones((20, 30), np.float32)
    tensor = weighbridge.open({"w": x})["w"]
    matrix = matrix_of(tensor)

    def broken(*_: object) -> None:
        raise ReadFailed("w: the disk is gone")

    matrix.reduced = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(ReadFailed, match="the disk is gone"):
        heatmap(matrix)[()]
    told: list[Exception] = []
    shown = Heatmap(matrix, failed=told.append)
    image, _ = images(shown.element(lambda: "mean", lambda found: found.limit))
    assert np.isnan(image.dimension_values(2)).all()
    assert [str(error) for error in told] == ["w: the disk is gone"]


def test_norms_beside(tensor: weighbridge.Tensor) -> None:
    rows, cols = np.arange(ROWS, dtype=np.float64), np.arange(COLS, dtype=np.float64)[::-1]
    layout = heatmap(tensor, norms=SimpleNamespace(row_l2=rows, col_l2=cols))
    (above, _), (main, beside) = layout
    layout.get_root()
    top, right = above.object[()], beside.object[()]
    np.testing.assert_array_equal(top.dimension_values("col_l2"), cols)
    np.testing.assert_array_equal(right.dimension_values("row_l2"), rows)
    main.object.event(x_range=(100, 150), y_range=(7, 9))
    np.testing.assert_array_equal(above.object[()].dimension_values("col_l2"), cols[100:151])
    np.testing.assert_array_equal(beside.object[()].dimension_values("row_l2"), rows[7:10])


@settings(deadline=None)
@given(
    values=st.lists(st.floats(0, 1e9), max_size=90),
    asked=st.one_of(st.none(), st.tuples(st.floats(), st.floats())),
    pixels=st.integers(0, 40),
)
def test_buckets_lose_no_peak(values: list[float], asked: tuple[float, float] | None, pixels: int) -> None:
    """Each shows the greatest of exactly its channels; together they cover what is asked for, about one a pixel."""
    norms = np.array(values)
    edges, peaks = buckets(norms, asked, pixels)
    assert len(edges) == len(peaks) + 1
    assert len(peaks) <= max(pixels, 1) + 1
    whole = asked is None or not np.isfinite(asked).all()
    low, high = (0, len(values)) if whole else (max(int(min(asked)), 0), min(int(max(asked)) + 1, len(values)))
    if low >= high:
        assert peaks.tolist() == [0]
        return
    assert edges[0] <= low < high <= edges[-1] <= len(values)
    assert len(set(np.diff(edges)[:-1])) <= 1
    for first, last, peak in zip(edges[:-1], edges[1:], peaks, strict=True):
        assert peak == norms[first:last].max()
