"""Pictures of a report: what is drawn is what the report holds, for every dtype and for what has nothing to draw."""

from types import SimpleNamespace

import holoviews as hv
import ml_dtypes
import numpy as np
import pytest

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.report import Entry
from weighbridge.report.scan_columns import QUANTILES
from weighbridge.views import channels, distribution, findings, model_map, overview, ridge
from weighbridge.views.channels import BUCKETS, envelope, outliers
from weighbridge.views.distribution import levels, positions, symmetric_log_bins
from weighbridge.views.overview import NO_LAYER, RIDGES, map_table

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

RNG = np.random.default_rng(11)
TENSORS = {
    "normal": RNG.normal(0, 0.02, (19, 23)).astype(np.float32),
    "constant": np.full((3, 5), 0.25, np.float32),
    "zeros": np.zeros((4, 4), np.float32),
    "one": np.array([[3.0]], np.float32),
    "negative": -np.abs(RNG.normal(1, 0.1, 101)).astype(np.float32),
    "subnormal": (RNG.normal(size=97) * 1e-7).astype(np.float16),
    "float8": RNG.normal(size=(17, 9)).astype(ml_dtypes.float8_e4m3fn),
    "bfloat16": RNG.standard_t(2, 4099).astype(ml_dtypes.bfloat16),
    "int8": RNG.integers(-128, 128, (13, 7)).astype(np.int8),
    "bool": RNG.random((5, 7)) < 0.5,
    "special": np.array([np.nan, np.inf, -np.inf, 1.0, -2.0, 0.0, -0.0], np.float32),
    "wide": np.array([1e-300, 1e300, -1.0]),
    "no_finite": np.full(7, np.nan, np.float32),
    "complex": np.ones(3, np.complex64),
    "long": RNG.integers(-(2**40), 2**40, 11),
    "empty": np.zeros((0, 3), np.float32),
}


def drawn(element):
    """Rendered as the page renders it; what cannot be drawn raises here."""
    return hv.renderer("bokeh").get_plot(element)


def layers(element, kind):
    return list(element.traverse(lambda x: x, [kind]))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return weighbridge.scan(TENSORS, report=tmp_path_factory.mktemp("views") / "report", device="cpu")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", TENSORS)
def test_every_tensor_has_a_distribution_or_a_reason(report, name, theme):
    entry = report[name]
    picture = distribution(entry, quantisers=["int8", "nf4_64"] if entry["absmax"] else [], theme=theme)
    drawn(picture)
    bars = layers(picture, hv.Rectangles)
    if entry["histogram_bins"] is None or name in ("no_finite", "empty"):
        (text,) = layers(picture, hv.Text)
        assert name in text.data[2].replace("\n", " ")
    else:
        values = np.asarray(TENSORS[name], np.float64)
        assert bars[0].dimension_values("entries").sum() == np.isfinite(values).sum()


@pytest.mark.parametrize("name", ["normal", "bfloat16", "int8", "negative"])
def test_marks_are_the_rows_quantiles(report, name):
    entry = report[name]
    (marks,) = [s for s in layers(distribution(entry), hv.Segments) if "quantile" in s]
    at = np.sort(marks.dimension_values("x0"))
    bins = symmetric_log_bins(*entry.histogram)
    expected = [entry[column] for column in QUANTILES] + [entry["min"], entry["max"]]
    np.testing.assert_allclose(np.unique(at), np.unique(positions(np.array(expected), bins.threshold)), rtol=1e-12)


@hypothesis.given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149]),
        min_size=1,
        max_size=60,
    )
)
def test_every_value_is_in_one_bin_that_holds_it(values):
    distinct, counts = np.unique(np.array(values) + 0.0, return_counts=True)
    bins = symmetric_log_bins(distinct, counts)
    assert bins.counts.sum() == len(values)
    assert (np.diff(bins.edges) >= 0).all()
    for low, high, count in zip(bins.edges[:-1], bins.edges[1:], bins.counts, strict=True):
        inside = (
            distinct == 0
            if low == high
            else (distinct >= low) & (distinct < high) & (distinct > 0)
            | (distinct > low) & (distinct <= high) & (distinct < 0)
        )
        assert counts[inside].sum() == count


def test_levels_of_quantisers():
    np.testing.assert_allclose(levels("int8", 127.0), np.arange(-127, 128))
    np.testing.assert_allclose(levels("int4_32", 7.0), np.arange(-7, 8))
    for name in ("int8", "fp8_e4m3", "int4_32", "nf4_64", "mxfp4_32", "nvfp4_16"):
        grid = levels(name, 3.3)
        assert (np.diff(grid) > 0).all()
        assert grid[-1] == pytest.approx(3.3, rel=0.34)
        assert 0 in grid
    with pytest.raises(BadArgument, match="expected one of int8"):
        levels("int3", 1.0)


def made(norms: np.ndarray, **columns: object) -> Entry:
    kept = {f"row_{quantity}": norms for quantity in ("l2", "absmax", "mean")}
    return Entry({"name": "w", "reason": None, "col_l2": None, "status": "done"} | kept | columns)


@hypothesis.given(st.integers(1, 9000), st.integers(0, 2**32 - 1))
@hypothesis.settings(deadline=None, max_examples=30)
def test_no_channel_vanishes_in_buckets(size, seed):
    values = np.random.default_rng(seed).standard_normal(size)
    first, last, low, high = envelope(values)
    assert len(first) <= BUCKETS
    assert first[0] == 0
    assert last[-1] == size - 1
    np.testing.assert_array_equal(first[1:], last[:-1] + 1)
    for a, b, least, greatest in zip(first, last, low, high, strict=True):
        assert (values[a : b + 1].min(), values[a : b + 1].max()) == (least, greatest)


def test_outliers_and_dead_channels_are_marked():
    norms = np.abs(np.random.default_rng(0).normal(1, 0.1, 5000))
    norms[[17, 4321]] = 60, 90
    norms[[5, 4000]] = 0
    median, beyond = outliers(norms)
    assert median == pytest.approx(np.median(norms[norms > 0]))
    assert beyond.tolist() == [4321, 17]
    picture = channels(made(norms))
    drawn(picture)
    marked = [points.dimension_values("channel").tolist() for points in layers(picture, hv.Points)]
    assert marked == [[4321, 17], [5, 4000]]
    (bars,) = layers(picture, hv.Rectangles)
    assert len(bars) <= BUCKETS
    assert bars.dimension_values("greatest").max() == 90


def test_a_million_channels_are_few_glyphs():
    norms = np.ones(1 << 20)
    norms[777_777] = 50
    picture = channels(made(norms))
    (bars,) = layers(picture, hv.Rectangles)
    at = bars.dimension_values("greatest").argmax()
    assert bars.dimension_values("first")[at] <= 777_777 <= bars.dimension_values("last")[at]
    assert sum(len(element) for element in layers(picture, hv.Rectangles) + layers(picture, hv.Points)) < 4000


def test_channels_that_are_not_kept_say_why(report):
    (text,) = layers(channels(report["negative"]), hv.Text)
    assert "negative" in text.data[2]
    drawn(channels(report["normal"], side="col", quantity="mean", order="sorted", theme="dark"))


def rows_of(tensors, scanned):
    return scanned({name: RNG.normal(scale, 1, shape).astype(np.float32) for name, scale, shape in tensors})


@pytest.fixture
def deep(scanned):
    return rows_of(
        [
            (f"layers.{i}.mlp.{part}.weight", i, (6, 5 + j))
            for i in range(7)
            for j, part in enumerate(("up_proj", "gate_proj"))
        ]
        + [(f"layers.{i}.norm.weight", 1, (5,)) for i in range(7)]
        + [("embed_tokens.weight", 0, (31, 5))],
        scanned,
    )


def test_the_map_joins_by_its_rules(deep):
    rows = deep.table()
    std = map_table(rows, "std").set_index(["role", "layer"])
    assert std.loc[("embedding", NO_LAYER), "tensors"] == 1
    norms = rows[(rows["role"] == "norm") & (rows["layer"] == 3)]
    assert std.loc[("norm", 3), "value"] == pytest.approx(norms["std"].iloc[0])
    absmax = map_table(rows.assign(role="other", layer=None), "absmax")
    assert absmax["value"].tolist() == [rows["absmax"].max()]
    assert absmax["name"].tolist() == [rows.loc[rows["absmax"].idxmax(), "name"]]
    counts = map_table(rows.assign(role="other", layer=None), "count")
    assert counts["value"].tolist() == [rows["count"].sum()]
    means = map_table(rows.assign(role="other", layer=None), "mean")
    assert means["value"].tolist() == [pytest.approx(np.average(rows["mean"], weights=rows["count"]))]
    with pytest.raises(BadArgument, match="expected one of"):
        map_table(rows, "name")


def test_the_map_shows_every_place_once(deep):
    shown = model_map(deep, "absmax", theme="dark")
    drawn(shown)
    table = map_table(deep.table(), "absmax")
    assert len(shown) == len(table)
    np.testing.assert_allclose(shown.dimension_values("value"), table["value"])
    assert shown.dimension_values("name").tolist() == table["name"].tolist()


def test_ridges_are_densities_of_their_layers(deep):
    shown = ridge(deep, "mlp_up")
    drawn(shown)
    areas = layers(shown, hv.Area)
    assert len(areas) == 7
    low = min(deep[f"layers.{i}.mlp.up_proj.weight"]["q001"] for i in range(7))
    assert areas[0].dimension_values("weight").min() >= low


def test_many_layers_are_thinned_with_both_ends(scanned):
    report = rows_of([(f"layers.{i}.mlp.up_proj.weight", 0, (4, 4)) for i in range(97)], scanned)
    shown = ridge(report)
    assert len(layers(shown, hv.Area)) <= RIDGES
    ticks = [label for _, label in hv.Store.lookup_options("bokeh", shown, "plot").kwargs["yticks"]]
    assert ticks[0] == "0"
    assert "layers" in hv.Store.lookup_options("bokeh", shown, "plot").kwargs["title"]


def test_an_empty_report_is_a_text(scanned):
    empty = scanned({"bias": np.zeros(0, np.float32)})
    for picture in (ridge(empty), model_map(empty, "std"), overview(empty)):
        drawn(picture)
        assert layers(picture, hv.Text)


def test_findings_as_they_are_given(report):
    found = weighbridge.findings(report)
    assert found
    table = findings(found)
    drawn(table)
    assert table.dimension_values("check").tolist() == [finding.check for finding in found]
    assert table.dimension_values("tensors").tolist() == [len(finding.rows) for finding in found]
    assert layers(findings([]), hv.Text)
    assert findings([SimpleNamespace(severity="info", check="c", summary="s", evidence="e", rows=("a",))])
