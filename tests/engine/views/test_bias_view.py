"""Pictures, tab and audit page of a gap between groups show the report's figures, and say what is missing."""

import re

import numpy as np
import pytest

pytest.importorskip("holoviews")

import holoviews as hv

import weighbridge
from weighbridge.errors import BadArgument, ReportError
from weighbridge.models.recording import folder_for
from weighbridge.report import Report
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter
from weighbridge.views import bias, bias_interventions, bias_map, save_bias
from weighbridge.views.bias import maps_of

PLACES = [(c, y, x) for y in range(3) for x in range(5) for c in range(2)]
OPTIONS = {
    "metric": "true_positive_rate of class 1",
    "groups": {"<b>marked": 61, "plain": 53},
    "design": "groups",
    "splits": {n: {"<b>marked": 20, "plain": 17} for n in ("attribution", "validation", "held_out")},
    "layers": ["dense"],
    "positions": ["map"],
    "weights": ["dense.kernel"],
    "entries": [],
    "ablation": "mean",
    "steps": [32, 256],
    "permutations": 999,
    "resamples": 200,
    "level": 0.05,
    "key": 7,
    "intervention": "mean",
    "rescale": 0.5,
    "remove": 0.8,
    "lose": 0.01,
    "accuracy_of": None,
    "function": "f",
    "made": "2026-01-02T03:04:05Z",
    "parameters_hash": "a" * 64,
    "data_hash": "b" * 64,
    "notes": ["a group ended <early>"],
}


def unit(i, name, grain, part, channel, place=None, kind="layer"):
    value = 0.1 / (i + 1) * (-1 if i == 7 else 1)
    ends = {"attribution": value, "low": value - 0.01, "high": value + 0.01, "threshold": 0.02, "statistic": 2.0}
    named = {"named": i < 2, "rank": i + 1, "p": 0.001 if i < 4 else 0.8}
    where = {"name": name, "part": part, "kind": kind, "grain": grain, "channel": channel, "place": place}
    return where | ends | named


def outcome(name, split, units, gap, accuracy):
    row = {"name": name, "part": split, "units": units, "gap": gap, "removed": 1 - abs(gap) / 0.2}
    row |= {"gap_low": gap - 0.02, "gap_high": gap + 0.02, "mean_first": 0.5, "mean_second": 0.5 - gap}
    row |= {"accuracy": accuracy, "accuracy_low": 0.9, "accuracy_high": 1.0, "accuracy_change": accuracy - 0.97}
    row |= {"accuracy_change_low": -0.02, "accuracy_change_high": 0.01}
    return row | {"accuracy_first": 0.9, "accuracy_second": 0.95, "compared_first": 9, "compared_second": 8}


def written(folder, units, outcomes):
    for table, rows in (("bias", units), ("bias_interventions", outcomes)):
        _, manifest = folder_for(folder, table, OPTIONS, name="a <network>", if_exists="resume")
        manifest.analyses[table].status = "complete" if outcomes else "incomplete"
        manifest.save(folder)
        writer = TableWriter(folder / "tables" / table, TABLES[table])
        writer.add_all([{"status": "done", "order": i} | row for i, row in enumerate(rows)])
        writer.flush()
    return Report.open(folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    units = [{"name": "map", "part": "all entries", "kind": "layer", "grain": "entry", "units": 30, "steps": 32}]
    units[0] |= {"attribution": 0.2, "ablated_gap": 0.201, "completeness_gap": 0.001}
    units += [unit(i, "map", "entry", f"{c} at {y}, {x}", c, [y, x]) for i, (c, y, x) in enumerate(PLACES)]
    units += [unit(30, "dense", "channel", "4", 4), unit(31, "dense.kernel", "channel", "4", 4, kind="tensor")]
    outcomes = [{"name": "mean", "part": f"validation, first {i}", "units": i, "gap": 0.2 - 0.09 * i} for i in range(3)]
    for split in ("validation", "held_out"):
        outcomes += [outcome("none", split, 0, 0.2, 0.97), outcome("ablate", split, 2, -0.03, 0.95)]
        outcomes += [outcome("rescale", split, 2, 0.1, 0.96), outcome("mean", split, 2, 0.02, 0.965)]
    return written(tmp_path_factory.mktemp("audited"), units, outcomes)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return written(tmp_path_factory.mktemp("empty"), [], [])


def drawn(picture, kind):
    hv.renderer("bokeh").get_plot(picture)
    return picture.traverse(lambda x: x, [kind])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_ranked_units_are_the_table(report, theme):
    picture = bias(report, top=9, theme=theme)
    points = {p.label: p for p in drawn(picture, hv.Points)}
    np.testing.assert_allclose(points["named"].dimension_values("attribution"), [0.1, 0.05])
    others = 0.1 / np.array([3, 4, 5, 6, 7, -8, 9])
    np.testing.assert_allclose(points["others"].dimension_values("attribution"), others)
    ticks, bars = drawn(picture, hv.Segments)
    assert set(np.abs(ticks.dimension_values("x0"))) == {0.02}
    np.testing.assert_allclose(bars.dimension_values("x1") - bars.dimension_values("x0"), 0.02)


def test_outcomes_have_gap_and_accuracy(report):
    gaps, accuracies = drawn(bias_interventions(report), hv.Points)
    np.testing.assert_allclose(gaps.dimension_values("gap"), [0.2, -0.03, 0.1, 0.02])
    np.testing.assert_allclose(accuracies.dimension_values("accuracy"), [0.97, 0.95, 0.96, 0.965])
    with pytest.raises(BadArgument, match="expected validation or held_out"):
        bias_interventions(report, split="training")


def test_the_map_sums_over_channels(report):
    found = maps_of(report, "map")
    values = 0.1 / np.arange(1, 31) * np.where(np.arange(30) == 7, -1, 1)
    np.testing.assert_allclose(found.attribution, values.reshape(3, 5, 2).sum(axis=2))
    assert found.significant.tolist() == [[2, 2, 0, 0, 0], [0] * 5, [0] * 5]
    np.testing.assert_allclose(maps_of(report, "map", 1).attribution, values.reshape(3, 5, 2)[..., 1])
    (image,) = drawn(bias_map(report, "map"), hv.Image)
    np.testing.assert_allclose(np.sort(image.dimension_values(2)), np.sort(found.attribution.ravel()))
    with pytest.raises(BadArgument, match="no single entries of layer 'dense'"):
        bias_map(report, "dense")


def test_files_are_the_same_bytes(report, empty, tmp_path):
    for name in ("a.png", "b.png", "a.svg"):
        save_bias(report, tmp_path / name, theme="dark" if name == "a.svg" else "light")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "map : 0 at 0, 0" in (tmp_path / "a.svg").read_text()
    with pytest.raises(BadArgument, match="unknown kind"):
        save_bias(report, tmp_path / "a.gif")
    with pytest.raises(BadArgument, match="no unit"):
        save_bias(empty, tmp_path / "c.png")


def test_a_report_without_results_says_so(empty, tmp_path):
    assert "no unit" in drawn(bias(empty), hv.Text)[0].data[2]
    assert "not reached" in drawn(bias_interventions(empty), hv.Text)[0].data[2]
    folder, manifest = folder_for(tmp_path, "training", {}, name="a run", if_exists="resume")
    manifest.save(folder)
    with pytest.raises(ReportError, match="no table 'bias'"):
        bias(Report.open(folder))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_tab_stands_for_the_report(report, empty, theme):
    from weighbridge.app.bias_tab import bias_tab

    shown = bias_tab(report, theme)
    shown.get_root()
    text = " ".join(pane.object for pane in shown if isinstance(getattr(pane, "object", None), str))
    assert "<b>4</b> of 32 units are significant" in text
    assert "<b>2</b> are named" in text
    assert "&lt;b&gt;marked" in text
    assert "<td>mean-replaced</td><td>2</td><td>0.02</td><td>90.0%</td>" in text
    assert len(shown) == 5
    bias_tab(empty, theme).get_root()


@pytest.fixture(scope="module")
def audited(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "audit.html"
    weighbridge.export(report, html=path)
    return path


def test_the_audit_page_holds_it_all(audited):
    page = audited.read_text()
    assert "<b>marked" not in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    flat = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    for said in (
        "Of 32 units 4 have a part of the gap beyond chance, 2 are named.",
        "takes the gap from 0.2 (0.18 to 0.22) to 0.02 (0 to 0.04)",
        "true positive rate of class 1",
        "999 permutations of the groups&#39; labels",
        "1 map 0 at 0, 0 0.1 0.09 to 0.11 0.0010 named",
        "map all entries 30 0.2 0.201 0.001 32",
        "held out mean-replaced 2 0.02 (0 to 0.04) 90.0 %",
        "96.5 % (90.0 to 100.0 %) −0.5 (−2.0 to +1.0)",
        "a" * 64,
        "2026-01-02T03:04:05Z",
        "a group ended &lt;early&gt;",
        "the rate has no gradient",
        "weights are set to zero",
    ):
        assert said in flat, said
    assert page.count("data:image/png") == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_audit_page_in_a_browser(chromium, audited, scheme):
    opened, said = chromium.new_page(color_scheme=scheme), []
    opened.on("console", lambda message: said.append(message.text))
    opened.goto(audited.as_uri())
    assert opened.locator("img:visible").get_attribute("class") == f"in-{scheme}"
    assert opened.locator("img:visible").evaluate("image => image.naturalWidth") > 1000
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []
    opened.close()


def test_an_unfinished_report_is_exported_too(report, empty, tmp_path):
    weighbridge.export(empty, html=tmp_path / "empty.html")
    assert "did not come to its end" in (tmp_path / "empty.html").read_text()
    with pytest.raises(BadArgument, match="needs a scan"):
        weighbridge.export(report, html=tmp_path / "c.html", heatmaps=["map"])


def test_a_map_may_have_one_axis(tmp_path):
    units = [unit(c, "line", "entry", f"{c % 2}@({c // 2},)", c % 2, [c // 2]) for c in range(8)]
    report = written(tmp_path, [row | {"shape": [4, 2]} for row in units], [])
    found = bias_map(report, "line")
    hv.renderer("bokeh").get_plot(found)
    (image,) = found.traverse(lambda x: x, [hv.Image])
    values = image.dimension_values(2, flat=False)
    assert values.shape == (1, 4)
    np.testing.assert_allclose(values.sum(), sum(row["attribution"] for row in units))
