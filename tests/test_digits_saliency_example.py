"""`examples/digits_saliency.py` draws its maps and their checks, and the page shows them from its report."""

from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest

for distribution in ("flax", "optax", "safetensors", "sklearn", "zarr", "holoviews", "panel"):
    pytest.importorskip(distribution)

import panel  # noqa: E402

import weighbridge  # noqa: E402
from weighbridge.app.saliency_tab import saliency_tab  # noqa: E402
from weighbridge.report import Report  # noqa: E402


@pytest.fixture(scope="module")
def drawn(script, tmp_path_factory) -> Path:
    folder, example = tmp_path_factory.mktemp("digits") / "pictures", script("digits_saliency")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "OPTIONS", {name: example.OPTIONS[name] for name in ("input_x_gradient", "grad_cam")})
        patch.setattr(example, "CHECKED", ("input_x_gradient",))
        example.main(folder)
    return folder


def test_pictures_and_report_are_written(drawn):
    for name in ("saliency.png", "checks.png"):
        assert (drawn / name).read_bytes().startswith(b"\x89PNG")
    found = Report.open(drawn / "report").saliency("input_x_gradient")
    assert found.inputs.labels == tuple(f"digit {digit}" for digit in range(8))
    assert found.result.target[:, 0].tolist() == list(range(8))
    assert (found.result.output > 0).all()


def test_maps_find_what_the_network_reads(drawn):
    """Without a tenth of the pixels, those of the highest values, each digit's probability is well below its own."""
    curves = Report.open(drawn / "report").saliency("input_x_gradient").curves
    early = np.searchsorted(curves.fraction, 0.1)
    assert (curves.deletion[:, early] < curves.deletion[:, 0]).all()
    assert curves.deletion_area.mean() < 0.3 < curves.insertion_area.mean()


@pytest.mark.filterwarnings("ignore:Widget.name is deprecated")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_shows_the_input_and_the_method_chosen(drawn, theme):
    view = saliency_tab(Report.open(drawn / "report"), theme)
    of, by = view[0]
    assert list(of.options) == [f"digit {digit}" for digit in range(8)]
    assert by.options == {"input × gradient": "input_x_gradient", "Grad-CAM conv2": "grad_cam conv2"}

    def seen(kind):
        return list(view.select(kind))

    for method, plots in (("grad_cam conv2", 4), ("input_x_gradient", 5)):
        by.value = method
        assert len(seen(panel.pane.HoloViews)) == plots
    first = seen(panel.pane.HTML)[0].object
    of.value = 3
    second = seen(panel.pane.HTML)[0].object
    assert first != second
    assert "<th>target</th><td>3</td>" in second


def test_each_layer_below_a_bias_gave_about_the_output(drawn):
    """Norms and biases aside, a network of products and ReLUs hands its output through every layer."""
    found = Report.open(drawn / "report").attribution_to_weights()
    for name in ("head", "dense"):
        np.testing.assert_allclose(found.shares()[name], 1, atol=0.1, err_msg=name)


@pytest.mark.filterwarnings("ignore:Widget.name is deprecated")
@pytest.mark.parametrize("inputs", [(2, 8, 3), (2, 3, 4, 5, 1), (2,)], ids=["tokens", "volumes", "numbers"])
def test_the_page_shows_what_is_no_picture(inputs, tmp_path):
    """Of eight named tokens a layer of stride two has four places, which are numbered."""
    x = np.ones(inputs, np.float32)
    fine = weighbridge.saliency(lambda x: x.reshape(len(x), -1).sum(axis=1), x, method="gradient")
    coarse = [replace(fine, values=np.ones((2, 4), np.float32), method="grad_cam", layer="conv")]
    entries = [f"word {i}" for i in range(8)] if len(inputs) == 3 else None
    report = weighbridge.save_saliency(tmp_path / "r", x, [fine, *coarse], entries=entries)
    view = saliency_tab(report, "light")
    names = {}
    for part in view[0][1].options.values():
        view[0][1].value = part
        names[part] = [pane.object for pane in view.select(panel.pane.HoloViews)]
    assert all(len(drawn) == 1 for drawn in names.values())
    assert bar_names(names["grad_cam conv"][0]) == ["0", "1", "2", "3"]
    if entries is not None:
        assert bar_names(names["gradient"][0]) == entries


def bar_names(drawn):
    return sorted(drawn.Bars.I.dimension_values("entry").tolist())


def test_a_report_without_saliency_says_how_to_get_it(tmp_path):
    with as_file(files("weighbridge") / "data" / "digits_cnn.safetensors") as path:
        report = weighbridge.scan(path, report=tmp_path / "r", device="cpu")
    assert "weighbridge.save_saliency writes it" in saliency_tab(report, "light").object
