"""Saliency maps are drawn on one scale, over what they are of, and their curves with their areas."""

import numpy as np
import pytest

pytest.importorskip("holoviews")

from weighbridge import views
from weighbridge.errors import BadArgument, ReportError
from weighbridge.report.saliency import Curves, Randomisation, Saliency
from weighbridge.report.weight_attribution import WeightAttribution
from weighbridge.views.colours import colours
from weighbridge.views.saliency_maps import blended, coloured, grey, maps

RNG = np.random.default_rng(5)
IMAGES = RNG.uniform(size=(3, 7, 5, 2)).astype(np.float32)


def result(values, method="integrated_gradients", converged=True):
    count = len(values)
    nothing = np.full(count, np.nan)
    return Saliency(
        np.asarray(values, np.float32),
        method,
        np.zeros((count, 1), np.int64),
        np.arange(count, dtype=np.float32),
        nothing,
        nothing,
        np.full(count, 64),
        np.full(count, converged),
    )


SIGNED = result(RNG.normal(size=IMAGES.shape))
CAM = result(RNG.uniform(size=(3, 3, 2)), "grad_cam")


def plotted(element):
    import holoviews

    return holoviews.render(element, backend="bokeh")


def test_maps_are_in_shares_of_one_limit_for_all_inputs():
    found = maps(SIGNED, IMAGES.shape)
    summed = SIGNED.values.sum(axis=-1)
    limit = np.quantile(np.abs(summed), 0.995)
    assert {one.limit for one in found} == {limit}
    np.testing.assert_allclose([one.shares for one in found], summed / limit, rtol=1e-6)
    assert all(one.signed for one in found)
    assert not any(one.signed for one in maps(CAM, IMAGES.shape))
    assert "gap" in maps(result(SIGNED.values, converged=False), IMAGES.shape)[0].title


def test_an_all_zero_map_has_a_limit():
    assert maps(result(np.zeros(IMAGES.shape)), IMAGES.shape)[0].limit == 1
    spike = np.zeros(IMAGES.shape)
    spike[0, 0, 0, 0] = 3
    assert maps(result(spike), IMAGES.shape)[0].limit > 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_zero_is_the_picture_and_the_ends_are_the_maps_ends(theme):
    paint = colours(theme)
    shares = np.array([[0.0, 1.0, -1.0, 5.0, np.nan]])
    bright = np.full((1, 5), 1.0 if theme == "light" else 0.0)
    found = blended(shares, bright, paint, signed=True)[0]
    ends = [tuple(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in (paint.diverging[-1], paint.diverging[0])]
    assert [tuple(found[1]), tuple(found[2]), tuple(found[3])] == [ends[0], ends[1], ends[0]]
    assert np.ptp(found[0].astype(int)) < 8
    assert tuple(found[4]) == tuple(int(paint.nan[i : i + 2], 16) for i in (1, 3, 5))
    under = blended(np.zeros((1, 2)), np.array([[0.0, 1.0]]), paint, signed=True)[0].astype(int)
    assert under[1].mean() > under[0].mean() + 40


def test_pictures_are_grey_from_least_to_greatest():
    found = grey(np.array([[[1.0, 3.0], [4.0, 4.0]], [[np.nan, 0.0], [0.0, 0.0]]]))
    assert found.tolist() == [[0.5, 1.0], [0.0, 0.0]]
    assert grey(np.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]


def test_three_channels_are_red_green_and_blue():
    image = RNG.uniform(2, 6, size=(4, 3, 3))
    found = coloured(image)
    np.testing.assert_allclose(found, 255 * (image - image.min()) / np.ptp(image), atol=0.5)
    np.testing.assert_array_equal(coloured(np.moveaxis(image, -1, 0), 0), found)
    assert np.ptp(coloured(image[..., :2]), axis=-1).max() == 0


def test_an_image_has_its_map_over_it_and_its_values_to_hover():
    found = views.saliency(SIGNED, IMAGES, 1)
    pictures = {type(layer).__name__: layer for layer in found}
    assert pictures["RGB"].dimension_values(2, flat=False).shape == (7, 5)
    values = pictures["Image"].dimension_values(2, flat=False)[::-1]
    np.testing.assert_allclose(values, SIGNED.values[1].sum(axis=-1), rtol=1e-5)
    assert plotted(found).title.text == "integrated gradients, output 1"


def test_tokens_and_columns_are_bars_with_their_labels():
    table = result(np.array([[3.0, -2.0, 0.0]]))
    bars = next(iter(views.saliency(table, np.ones((1, 3)), labels=["age", "age", "sex"])))
    assert bars.dimension_values("entry").tolist() == ["2 sex", "1 age", "0 age"]
    np.testing.assert_allclose(bars.dimension_values("value"), [0, -2, 3], rtol=1e-6)
    tokens = result(np.array([[[1.0, 2.0], [3.0, -1.0]]]))
    bars = next(iter(views.saliency(tokens, np.ones((1, 2, 2)), labels=["a", "b"])))
    np.testing.assert_allclose(bars.dimension_values("value"), [2, 3], rtol=1e-6)
    with pytest.raises(BadArgument, match="labels has 1 entries; expected 3"):
        views.saliency(table, np.ones((1, 3)), labels=["age"])
    with pytest.raises(BadArgument, match="index is 1; there are 1 inputs, give 0 to 0"):
        views.saliency(table, np.ones((1, 3)), 1)


def test_an_input_of_one_number_is_a_bar():
    found = next(iter(views.saliency(result(np.array([3.0, -2.0])), np.ones(2), 1, labels=["age"])))
    assert found.dimension_values("entry").tolist() == ["age"]
    np.testing.assert_allclose(found.dimension_values("value"), [-2], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "inputs"),
    [((2, 3, 4, 5, 1), (2, 3, 4, 5, 1)), ((2, 4, 5), (2, 3, 4, 5, 1)), ((2, 2, 3), (2, 6))],
    ids=["a volume", "a picture of a volume", "a picture of a table"],
)
def test_a_map_that_is_no_picture_says_so(values, inputs):
    found = views.saliency(result(RNG.normal(size=values)), np.ones(inputs))
    said = plotted(found).renderers[0].data_source.data["text"][0].replace("\n", " ")
    assert said.startswith("saliency: a map")
    assert f"of an input {inputs[1:]} is no picture; draw a slice of both" in said


def test_a_sheet_has_a_row_for_each_input_and_a_key_for_each_kind_of_map():
    sheet = views.saliency_sheet([SIGNED, CAM], IMAGES, captions=["a", "b", "c"])
    assert len(sheet) == 3 * 3 + 2
    plotted(sheet)
    assert "no inputs" in plotted(views.saliency_sheet([], IMAGES)).renderers[0].data_source.data["text"][0]
    with pytest.raises(BadArgument, match=r"inputs have shape \(3, 4\); a sheet needs images"):
        views.saliency_sheet([SIGNED], np.ones((3, 4)))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_sheet_as_a_file_is_the_same_bytes_again(kind, tmp_path):
    for name in ("a", "b"):
        views.save_saliency_sheet([SIGNED, CAM], IMAGES, tmp_path / f"{name}.{kind}")
    first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("a", "b"))
    assert first == second
    assert len(first) > 1000
    assert {path.name for path in tmp_path.iterdir()} == {f"a.{kind}", f"b.{kind}"}


def test_a_sheet_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(BadArgument, match=r"a\.gif: unknown kind of picture"):
        views.save_saliency_sheet([SIGNED], IMAGES, tmp_path / "a.gif")
    with pytest.raises(ReportError, match="cannot be written"):
        views.save_saliency_sheet([SIGNED], IMAGES, tmp_path / "missing" / "a.png")
    with pytest.raises(BadArgument, match="there are no inputs to draw"):
        views.save_saliency_sheet([SIGNED], IMAGES[:0], tmp_path / "a.png")


def test_curves_are_means_with_areas():
    scores = np.array([[1.0, 0.5, 0.0], [0.5, 0.0, 0.0], [np.nan] * 3])
    areas = np.array([0.5, 0.125, np.nan])
    found = Curves(np.array([0, 0.5, 1]), scores, scores[:, ::-1], areas, areas, "probability", "occlusion")
    deletion, insertion = views.saliency_curves(found)
    line = next(iter(deletion))
    assert line.label == "occlusion 0.312"
    assert line.dimension_values("y").tolist() == [0.75, 0.25, 0]
    assert next(iter(insertion)).dimension_values("y").tolist() == [0, 0.25, 0.75]
    plotted(views.saliency_curves([found, found]))


def test_randomisation_is_a_line_over_the_layers():
    values = np.array([[1.0, 1.0], [0.5, np.nan], [np.nan, np.nan]])
    found = views.saliency_randomisation(Randomisation(("head", "conv"), values, values, "gradient"))
    line = next(iter(found))
    np.testing.assert_array_equal(line.dimension_values("y"), [1, 0.5, np.nan])
    assert plotted(found).xaxis.ticker.ticks == [0, 1, 2]


def contributions(channels):
    values = RNG.normal(size=(2, channels)).astype(np.float32)
    parts = {"conv.kernel": values, "conv.bias": -values}
    sums = {name: part.sum(axis=1) for name, part in parts.items()}
    weights = {name: part.mean(axis=0) for name, part in parts.items()}
    return WeightAttribution(weights, parts, sums, np.float32([2, 3]), np.zeros((2, 1), np.int64))


def bars(element):
    held = element.Bars.I
    return held.dimension_values("entry").tolist(), held.dimension_values("value")


def test_contributions_of_tensors_are_bars_in_their_order():
    found = contributions(5)
    names, values = bars(views.tensor_attribution(found, 1))
    assert names == ["conv.bias", "conv.kernel"]  # from below
    np.testing.assert_allclose(values, [found.tensors[name][1] for name in names])
    assert "f = 3" in plotted(views.tensor_attribution(found, 1)).title.text
    with pytest.raises(BadArgument, match="index is 2; there are 2 inputs"):
        views.tensor_attribution(found, 2)


def test_of_many_channels_the_greatest_are_shown():
    found = contributions(100)
    names, values = bars(views.channel_attribution(found, "conv.kernel", 0))
    every = found.channels["conv.kernel"][0]
    assert sorted(map(int, names)) == sorted(np.argsort(-np.abs(every))[:32])
    assert (np.diff(values) >= 0).all()  # the greatest above
    assert "68 smaller ones left out" in plotted(views.channel_attribution(found, "conv.kernel")).title.text
    with pytest.raises(BadArgument, match=r"tensor 'dense' is not in the attribution; there is: conv\.kernel"):
        views.channel_attribution(found, "dense")
