"""Sheets of weight images: every tile holds the weights it says, on one scale, in elements and in files."""

import re

import holoviews as hv
import numpy as np
import pytest

from weighbridge.errors import BadArgument, ReportError
from weighbridge.views import (
    Sheet,
    Tile,
    banding,
    factors,
    factors_rgb,
    family_grid,
    filters,
    images,
    spatial_weights,
    strongest_inputs,
)
from weighbridge.views.sheet import resized

RNG = np.random.default_rng(7)
KERNEL = RNG.standard_normal((3, 5, 7, 11))
ICON = RNG.random((19, 23, 3))


def cells(sheet, tile):
    """What is laid where a tile lies, one value a cell of its picture, from the middle of each."""
    box, (height, width) = sheet.box(tile), tile.picture.shape[:2]
    rows = box.top + ((np.arange(height) + 0.5) * box.height / height).astype(int)
    cols = box.left + ((np.arange(width) + 0.5) * box.width / width).astype(int)
    laid = sheet.values() if tile.picture.ndim == 2 else sheet.colours()
    return laid[np.ix_(rows, cols)]


def drawn(sheet, theme="light"):
    element = sheet.element(theme=theme)
    hv.renderer("bokeh").get_plot(element)
    return element


def layers(element, kind):
    return [layer for layer in element.traverse(lambda x: x, [kind]) if type(layer) is kind]


def test_every_tile_is_laid_at_its_place():
    tiles = [Tile(i, j, RNG.standard_normal((3, 5))) for i in range(2) for j in range(3)]
    sheet = Sheet((*tiles, Tile(1, 3, ICON)))
    for tile in tiles:
        np.testing.assert_allclose(cells(sheet, tile), tile.picture, rtol=1e-6)
    assert np.isnan(sheet.values()).any()
    assert set(np.unique(sheet.colours()[..., 3])) == {0, 1}
    boxes = [sheet.box(tile) for tile in sheet.tiles]
    covered = sum(box.height * box.width for box in boxes)
    assert covered == np.isfinite(sheet.values()).sum() + (sheet.colours()[..., 3] == 1).sum()


def test_elements_hold_the_sheet():
    sheet = Sheet((Tile(0, 0, KERNEL[:, :, 0, 0], "a", "first"), Tile(0, 1, ICON, "b")), "two")
    element = drawn(sheet)
    (image,), (rgb,) = layers(element, hv.Image), layers(element, hv.RGB)
    np.testing.assert_array_equal(image.dimension_values("weight", flat=False)[::-1], sheet.values())
    np.testing.assert_allclose(rgb.dimension_values("green", flat=False)[::-1], sheet.colours()[..., 1], atol=1e-6)
    (frames,), (captions,) = layers(element, hv.Rectangles), layers(element, hv.Labels)
    assert list(frames.dimension_values("says")) == ["first", "b"]
    assert list(captions.dimension_values("caption")) == ["a", "b"]
    drawn(sheet, "dark")


def test_the_scale_is_shared_and_follows_the_quantile():
    sheet = Sheet((Tile(0, 0, np.full((2, 2), 0.5)), Tile(0, 1, np.array([[-2.0, np.nan]])), Tile(0, 2, ICON)))
    assert sheet.limit == pytest.approx(np.quantile([0.5] * 4 + [2], 0.995))
    assert Sheet(sheet.tiles, given_limit=3.0).limit == 3
    assert Sheet((Tile(0, 0, np.zeros((2, 2))),)).limit == 1
    with pytest.raises(BadArgument, match="expected a positive number"):
        Sheet((), given_limit=0.0)
    with pytest.raises(BadArgument, match="expected"):
        Sheet((Tile(0, 0, np.zeros((2, 2, 4))),))


def test_a_sheet_without_tiles_says_so(tmp_path):
    assert layers(drawn(Sheet((), "none")), hv.Text)
    with pytest.raises(BadArgument, match="no pictures"):
        Sheet(()).save(tmp_path / "x.png")


def test_pictures_grow_by_repeating_and_shrink_to_means():
    x = RNG.random((6, 4))
    np.testing.assert_array_equal(resized(x, 12, 12), x.repeat(2, 0).repeat(3, 1))
    np.testing.assert_allclose(resized(x, 3, 2), x.reshape(3, 2, 2, 2).mean(axis=(1, 3)))
    odd = resized(RNG.random((19, 23, 3)) * 0 + 0.25, 7, 5)
    np.testing.assert_allclose(odd, 0.25)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf", "html"])
def test_files(kind, tmp_path):
    sheet = filters(KERNEL[:, :, :3], title="<filters> $x$ {y}")
    sheet.save(tmp_path / f"a.{kind}")
    sheet.save(tmp_path / f"b.{kind}", theme="dark")
    written = (tmp_path / f"a.{kind}").read_bytes()
    assert written.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!DOCTYPE"}[kind])
    assert written != (tmp_path / f"b.{kind}").read_bytes()
    assert not re.search(rb"<(script|link)[^>]+(src|href)=", written)
    if kind != "html":  # bokeh's identifiers are new each time
        sheet.save(tmp_path / f"again.{kind}")
        assert (tmp_path / f"again.{kind}").read_bytes() == written


def test_files_that_cannot_be(tmp_path):
    sheet = images(ICON[None])
    with pytest.raises(BadArgument, match=r"expected one of \.png"):
        sheet.save(tmp_path / "a.gif")
    with pytest.raises(ReportError, match="cannot be written"):
        sheet.save(tmp_path / "no" / "a.png")
    assert sheet._repr_png_().startswith(b"\x89PNG")


def test_filters_that_read_colours_are_coloured():
    sheet = filters(KERNEL[:, :, :3], limit=2.0)
    for unit in (0, 10):
        expected = np.clip(0.5 + KERNEL[:, :, :3, unit] / 4, 0, 1)
        np.testing.assert_allclose(cells(sheet, sheet.tiles[unit])[..., :3], expected, rtol=1e-6)
    drawn(sheet)
    by_norm = filters(KERNEL[:, :, :3], order="norm")
    norms = np.linalg.norm(KERNEL[:, :, :3], axis=(0, 1)).T
    assert [int(tile.caption) for tile in by_norm.tiles] == list(np.argsort(-np.linalg.norm(norms, axis=1)))


def test_other_filters_are_signed():
    sheet = filters(KERNEL)
    np.testing.assert_allclose(cells(sheet, sheet.tiles[4]), KERNEL[..., 4].mean(axis=2), rtol=1e-5)


def test_the_strongest_inputs_stand_first():
    icons = dict.fromkeys(range(7), ICON)
    for inputs, own in ((None, None), (icons, {2: ICON})):
        sheet = strongest_inputs(KERNEL, [2, 9], count=3, input_icons=inputs, unit_icons=own)
        signed = sheet.signed
        for n, unit in enumerate((2, 9)):
            norms = np.linalg.norm(KERNEL[..., unit], axis=(0, 1))
            assert [int(tile.caption) for tile in signed[3 * n : 3 * n + 3]] == list(np.argsort(-norms)[:3])
            first = signed[3 * n]
            np.testing.assert_allclose(cells(sheet, first), KERNEL[:, :, np.argmax(norms), unit], rtol=1e-6)
        assert len(sheet.tiles) == (6 if inputs is None else 13)
        drawn(sheet)
    with pytest.raises(BadArgument, match="unit 11; expected 0 to 10"):
        strongest_inputs(KERNEL, [11])


def test_families_stand_across_and_down():
    sheet = family_grid(KERNEL, [6, 1], [0, 3, 10], input_icons={6: ICON}, unit_icons={0: ICON, 3: ICON})
    at = {(tile.row, tile.col): tile for tile in sheet.tiles}
    np.testing.assert_allclose(cells(sheet, at[3, 1]), KERNEL[:, :, 6, 10], rtol=1e-6)
    np.testing.assert_allclose(cells(sheet, at[1, 2]), KERNEL[:, :, 1, 0], rtol=1e-6)
    assert at[0, 1].picture is ICON
    assert sheet.row_names == ("", "unit 0", "unit 3", "unit 10")
    drawn(sheet)
    with pytest.raises(BadArgument, match="input 7; expected 0 to 6"):
        family_grid(KERNEL, [7], [0])


def test_factors_are_red_green_and_blue():
    spatial = np.zeros((2, 3, 3, 3))
    spatial[0, 0, 0] = [2, 0, 0]
    spatial[1, 2, 1] = [0, 0, -1]
    sheet = factors_rgb(spatial, units=[5, 8], limit=2.0)
    np.testing.assert_allclose(cells(sheet, sheet.tiles[0])[0, 0], [1, 0.5, 0.5, 1])
    np.testing.assert_allclose(cells(sheet, sheet.tiles[1])[2, 1], [0.5, 0.5, 0.25, 1])
    assert sheet.tiles[1].says == "unit 8: red 0, green 0, blue 1"
    assert len(layers(drawn(factors_rgb(RNG.standard_normal((256, 3, 3, 3)))), hv.RGB)) == 1
    with pytest.raises(BadArgument, match="expected as many"):
        factors_rgb(spatial, units=[1])


def test_weights_by_position():
    sheet = spatial_weights(KERNEL, 4)
    tile = next(tile for tile in sheet.tiles if (tile.row, tile.col) == (2, 3))
    shown = cells(sheet, tile).ravel()
    np.testing.assert_allclose(shown[:7], KERNEL[2, 3, :, 4], rtol=1e-6)
    assert np.isnan(shown[7:]).all()
    assert tile.caption == f"norm {np.linalg.norm(KERNEL[2, 3, :, 4]):.2g}"
    assert f"inputs {np.argmax(np.abs(KERNEL[2, 3, :, 4]))} " in tile.says
    drawn(sheet)
    pictures = RNG.random((3, 5, 8, 8, 3))
    shown = spatial_weights(KERNEL, 4, images=pictures)
    np.testing.assert_array_equal(shown.tiles[7].picture, pictures[1, 2])
    with pytest.raises(BadArgument, match="images of shape"):
        spatial_weights(KERNEL, 4, images=pictures[:2])


def test_factors_with_the_units_that_make_them():
    channels = np.array([[0, 3.0, 4.0, 0], [1, 0, 0, 0]])
    sheet = factors(KERNEL[:, :, :2, 0], channels, icons={2: ICON}, factor_icons={1: ICON})
    found = {(tile.row, tile.col): tile for tile in sheet.tiles}
    np.testing.assert_allclose(cells(sheet, found[1, 0]), KERNEL[:, :, 1, 0], rtol=1e-6)
    assert [found[0, col].caption for col in (2, 3)] == ["2: 64%", "1: 36%"]
    assert found[0, 2].picture is ICON
    np.testing.assert_allclose(found[0, 3].picture, 1 - 0.6)
    assert found[1, 1].picture is ICON
    assert (1, 3) not in found
    drawn(sheet)
    with pytest.raises(BadArgument, match="expected as many"):
        factors(KERNEL[:, :, :3, 0], channels)


def test_images_are_as_they_are():
    grey = RNG.random((5, 6, 7, 1))
    sheet = images(grey, captions=list("abcde"), cols=2)
    assert (sheet.rows, sheet.cols) == (3, 2)
    np.testing.assert_allclose(cells(sheet, sheet.tiles[3])[..., :3], np.broadcast_to(grey[3], (6, 7, 3)), rtol=1e-6)
    for wrong, match in ((grey + 1, r"all in \[0, 1\]"), (grey[0], "expected")):
        with pytest.raises(BadArgument, match=match):
            images(wrong)
    with pytest.raises(BadArgument, match="captions"):
        images(grey, captions=["a"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_banding_by_layer(theme):
    bands = np.broadcast_to(RNG.standard_normal((3, 1, 2, 4)), (3, 3, 2, 4)).copy()
    bands[..., 3] = 1.0
    picture = banding({"noise": KERNEL, "bands": bands, "pointwise": np.ones((1, 1, 3, 3))}, theme=theme)
    hv.renderer("bokeh").get_plot(picture)
    (points,) = layers(picture, hv.Points)
    of_bands = points.dimension_values("name") == "bands"
    assert of_bands.sum() == 3
    np.testing.assert_allclose(points.dimension_values("index")[of_bands], 1)
    np.testing.assert_array_equal(points.dimension_values("unit")[of_bands], [0, 1, 2])
    assert len(points) == 3 + 11
    assert layers(banding({"pointwise": np.ones((1, 1, 3, 3))}), hv.Text)
