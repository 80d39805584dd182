"""Pictures of a spectrum: what is drawn is the row's spectrum, its fit where it says, a text where there is none."""

import holoviews as hv
import numpy as np
import pytest

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.views import depth, singular_vectors, spectrum


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    rng = np.random.default_rng(2)
    planted = rng.standard_normal((150, 61)) + 60 * np.outer(rng.standard_normal(150), rng.standard_normal(61)) / 90
    tensors = {
        "planted": planted,
        "zero": np.zeros((9, 7)),
        "one": np.eye(5),
        "bias": np.ones(4),
        "nan": np.full((3, 3), np.nan),
    }
    return weighbridge.spectra(tensors, report=tmp_path_factory.mktemp("spectrum") / "report")


def row_of(report, name):
    (row,) = report.matrices(name)
    return row


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["ranked", "tail", "bulk"])
@pytest.mark.parametrize("name", ["planted", "zero", "one", "bias", "nan"])
def test_every_row_is_drawn_or_says_why(report, name, kind, theme):
    picture = spectrum(row_of(report, name), kind=kind, theme=theme)
    hv.renderer("bokeh").get_plot(picture)
    if name in ("zero", "bias", "nan"):
        (text,) = picture.traverse(lambda x: x, [hv.Text])
        assert name in text.data[2]


def test_ranks_are_the_singular_values(report):
    row = row_of(report, "planted")
    (line,) = spectrum(row).traverse(lambda x: x, [hv.Curve])
    np.testing.assert_array_equal(line.dimension_values("singular value"), row["singular_values"])
    np.testing.assert_array_equal(line.dimension_values("rank"), np.arange(1, 62))


def test_the_law_goes_through_the_tail_with_its_share(report):
    row = row_of(report, "planted")
    (line,) = spectrum(row, kind="tail").traverse(lambda x: x, [hv.Curve])
    x, law = (line.dimension_values(name) for name in ("eigenvalue", "density"))
    assert x[0] == pytest.approx(row["alpha_xmin"])
    slope = np.diff(np.log(law)) / np.diff(np.log(x))
    np.testing.assert_allclose(slope, -row["alpha"], rtol=1e-6)
    share = law[0] * row["alpha_xmin"] / (row["alpha"] - 1)
    assert share == pytest.approx(row["alpha_tail"] / 61)


def test_the_bulk_is_the_histogram_and_noise_has_area_one(report):
    row = row_of(report, "planted")
    picture = spectrum(row, kind="bulk")
    (bars,) = picture.traverse(lambda x: x, [hv.Histogram])
    edges = bars.edges
    inside = np.square(row["singular_values"])
    inside = ((inside >= edges[0]) & (inside <= edges[-1])).mean()
    assert (bars.dimension_values("density") * np.diff(edges)).sum() == pytest.approx(inside)
    (line,) = picture.traverse(lambda x: x, [hv.Curve])
    assert np.trapezoid(line.dimension_values("density"), line.dimension_values("eigenvalue")) == pytest.approx(
        1, abs=0.02
    )


def test_another_kind_is_refused(report):
    with pytest.raises(BadArgument, match="expected one of ranked, tail, bulk"):
        spectrum(row_of(report, "planted"), kind="heap")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["planted", "zero", "one", "bias", "nan"])
def test_the_leading_vectors_are_drawn_or_say_why(report, name, theme):
    row = row_of(report, name)
    picture = singular_vectors(row, rows=lambda i: f"<b>token {i}</b>", theme=theme)
    hv.renderer("bokeh").get_plot(picture)
    if name != "planted":
        assert picture.traverse(lambda x: x, [hv.Text])
        return
    bars = picture.traverse(lambda x: x, [hv.Rectangles])
    assert len(bars) == 2 * len(row["row_participation"]) == 2 * len(row["vector_ranks"])
    np.testing.assert_array_equal(bars[0].dimension_values("loading"), row["row_loadings"][:8])
    assert bars[0].dimension_values("channel")[0] == f"<b>token {row['row_carriers'][0]}</b>"
    assert bars[1].dimension_values("channel")[0] == str(row["col_carriers"][0])


def test_the_density_of_what_is_not_decomposed(tmp_path):
    x = np.random.default_rng(3).standard_normal((60, 50))
    row = row_of(weighbridge.spectra({"x": x}, report=tmp_path / "r", exact_up_to=20), "x")
    picture = spectrum(row, kind="bulk")
    hv.renderer("bokeh").get_plot(picture)
    band, line = (next(x for x in picture if type(x) is kind) for kind in (hv.Area, hv.Curve))
    np.testing.assert_array_equal(line.dimension_values("density"), row["density"])
    np.testing.assert_allclose(band.dimension_values("high"), row["density"] + 2 * row["density_error"])


def test_alpha_by_layer_and_role(tmp_path):
    rng = np.random.default_rng(4)
    tree = {f"h.{i}.mlp.{name}.weight": rng.standard_normal((40, 30)) for i in range(3) for name in ("c_fc", "c_proj")}
    report = weighbridge.spectra(tree | {"head": np.eye(4)}, report=tmp_path / "r")
    for column in ("alpha", "stable_rank"):
        picture = depth(report, column)
        hv.renderer("bokeh").get_plot(picture)
        points = picture.traverse(lambda x: x, [hv.Scatter])
        assert {p.label for p in points} == {"mlp_up", "mlp_down"}
        found = {
            n: v for p in points for n, v in zip(p.dimension_values("name"), p.dimension_values(column), strict=True)
        }
        rows = report.table("spectra").set_index("name")[column]
        assert found == {name: rows[name] for name in tree}
        assert len(picture.traverse(lambda x: x, [hv.HSpan])) == (column == "alpha")
    with pytest.raises(BadArgument, match="expected one of"):
        depth(report, "name")
    assert depth(weighbridge.spectra({"x": np.eye(9)}, report=tmp_path / "s")).traverse(lambda x: x, [hv.Text])
