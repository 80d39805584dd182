"""The page on reports of runs, from the report alone: it follows a training, and shows saliency and a trajectory."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from typer.testing import CliRunner

import weighbridge
from weighbridge.cli import app as command

from .test_page import Visit

POINTS = """() => Math.max(0, ...Bokeh.documents.flatMap((doc) => Array.from(doc._all_models.values())
  .filter((model) => model.type == "GlyphRenderer" && model.glyph.type == "Line")
  .map((model) => model.data_source.length ?? model.data_source.get_length() ?? 0)))"""
TITLES = """() => Bokeh.documents.flatMap((doc) => Array.from(doc._all_models.values())
  .filter((model) => model.type == "Figure").map((model) => model.title?.text ?? ""))"""
WEIGHTS = np.random.default_rng(0).normal(size=(6, 5, 2, 3)).astype(np.float32)
IMAGES = np.random.default_rng(1).uniform(size=(2, 6, 5, 2)).astype(np.float32)


def scores(params, x):
    return jnp.tanh(jnp.einsum("nhwc,hwck->nk", x, params["w"]))


def loss(params, batch):
    return optax.softmax_cross_entropy_with_integer_labels(scores(params, batch[0]), batch[1]).mean()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A report of a training that goes on, with groups, units and saliency; `more` takes further steps."""
    folder = tmp_path_factory.mktemp("live") / "run"
    recorder = weighbridge.recorder.record(optax.sgd(0.1), every=1, report=folder, buffer=2, name="a run")
    params = {"w": jnp.asarray(WEIGHTS)}
    state = recorder.init(params)

    def more(count):
        nonlocal state
        for step in range(count):
            _, state = recorder.update({"w": params["w"] * 0.5**step}, state, params)
        recorder.flush(state)

    more(3)
    labels = np.array([0, 1])
    measure = weighbridge.recorder.record_groups(
        loss,
        {"<b>one</b>": (IMAGES, labels), "two": (IMAGES[::-1], labels)},
        report=folder,
        splits=2,
        activations=lambda params, batch: {"tanh": scores(params, batch[0])},
        bounds=(-1, 1),
    )
    measure(params, 0)
    found = [
        weighbridge.saliency(scores, IMAGES, labels, params=params, method=method)
        for method in ("gradient", "integrated_gradients")
    ]
    weights = weighbridge.attribution_to_weights(scores, params, IMAGES, labels)
    weighbridge.save_saliency(folder, IMAGES, found, labels=["<i>first</i>", "second"], weights=weights)
    yield folder, more
    recorder.close()


def test_show_and_export_print_every_table(run, tmp_path):
    folder, _ = run
    for table in weighbridge.Report.open(folder).manifest.analyses:
        shown = CliRunner().invoke(command, ["show", str(folder), "--table", table])
        assert shown.exit_code == 0, shown.output
        weighbridge.export(folder, csv=tmp_path / "t.csv", table=table)
        weighbridge.export(folder, json=tmp_path / "t.json", table=table)
        assert len((tmp_path / "t.json").read_text().splitlines()) >= 2
    assert "<table>" in weighbridge.Report.open(folder)._repr_html_()


def test_the_page_follows_a_training_and_shows_saliency(chromium, serving, run):
    folder, more = run
    visited = Visit(chromium, f"{serving(folder)}?result=training")
    page = visited.page
    before = visited.wait(lambda: page.evaluate(POINTS), lambda points: points >= 3)
    more(4)
    visited.wait(lambda: page.evaluate(POINTS), lambda points: points == before + 4)
    visited.keep("training")
    page.get_by_role("button", name="Groups").click()
    visited.wait(lambda: page.evaluate(TITLES), lambda titles: any("cosines of the groups" in t for t in titles))
    visited.keep("groups")
    page.get_by_role("button", name="Units").click()
    page.wait_for_timeout(500)
    visited.keep("units")
    page.get_by_role("button", name="Saliency").click()
    page.get_by_label("input").select_option("second")
    page.get_by_label("method").select_option("integrated gradients")
    page.get_by_text("within its bound").wait_for()
    visited.keep("saliency")
    page.get_by_role("button", name="Weights").click()
    page.get_by_label("input").select_option("second")
    visited.wait(lambda: page.evaluate(TITLES), lambda titles: any("w: Σ w ∂f/∂w by channel" in t for t in titles))
    assert np.prod(visited.image()["shape"]) == WEIGHTS.size
    visited.keep("attribution")
    visited.close()


def test_the_page_of_a_trajectory(chromium, serving, tmp_path):
    rng = np.random.default_rng(2)
    steps = [{"h.0.mlp.weight": rng.normal(size=(4, 5)), "bias": rng.normal(size=3)} for _ in range(4)]
    weighbridge.trajectory(steps, report=tmp_path / "path", device="cpu")
    visited = Visit(chromium, serving(tmp_path / "path"))
    visited.wait(
        lambda: visited.page.evaluate(TITLES),
        lambda titles: any("the path of" in t for t in titles) and any("distance" in t for t in titles),
    )
    visited.keep("trajectory")
    shown = CliRunner().invoke(command, ["show", str(tmp_path / "path"), "--table", "trajectory_path"])
    assert shown.exit_code == 0, shown.output
    weighbridge.export(tmp_path / "path", csv=tmp_path / "path.csv", table="trajectory_path")
    visited.close()
