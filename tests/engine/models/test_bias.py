"""Bias: contributions equal hand computations, the test is exact, and the named set closes a planted gap."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from rich.console import Console

import weighbridge
from weighbridge.errors import BadArgument, ReportError
from weighbridge.models import bias_outcomes
from weighbridge.models.bias_significance import intervals, max_t, relabelled
from weighbridge.models.saliency_calls import network
from weighbridge.report import Report
from weighbridge.terminal import print_matrices

RNG = np.random.default_rng(3)
SHAPE = (3, 2, 5)
FIRST, SECOND = 41, 29
PARAMS = {
    "conv": {"kernel": RNG.normal(size=(2, 5)).astype(np.float32)},
    "head": {"kernel": RNG.normal(size=(30, 3)).astype(np.float32) / 3},
}
FEW = {"permutations": 199, "resamples": 99, "steps": (8, 8)}


def product(x, w):
    return jnp.matmul(x, w, precision="highest")


def linear(params, x):
    """(batch, 3, 2, 2) to three logits, the layer "map" (batch, 3, 2, 5) between."""
    found = checkpoint_name(product(x, params["conv"]["kernel"]), "map")
    return product(found.reshape(len(x), 30), params["head"]["kernel"])


def curved(params, x):
    found = checkpoint_name(product(x, params["conv"]["kernel"]), "map")
    hidden = checkpoint_name(jnp.tanh(found).mean(axis=(1, 2)), "hidden")
    return (hidden * params["head"]["kernel"][0, 0]).sum(axis=1) ** 2


INPUTS = RNG.normal(size=(FIRST + SECOND, 3, 2, 2)).astype(np.float32)
LABELS = RNG.integers(0, 3, FIRST + SECOND)
GROUPS = {"one": INPUTS[:FIRST], "other": INPUTS[FIRST:]}
KNOWN = {"one": LABELS[:FIRST], "other": LABELS[FIRST:]}


def small(function=linear, groups=GROUPS, labels=KNOWN, **options):
    chosen = {"metric": "score", "target": 1, "layers": ["map"], "params": PARAMS, "key": 5, **FEW}
    return weighbridge.bias(function, groups, labels, **chosen | options)


def of_site(found, site, grain):
    """Attributions of one site."""
    at = 0
    for s in found.sites:
        if (s.site.name, s.site.grain) == (site, grain):
            return found.units.attribution[at : at + s.site.count]
        at += s.site.count
    raise AssertionError(site)


def difference(values, rows):
    return values[rows[0]].mean(axis=0) - values[rows[1]].mean(axis=0)


# Attribution.


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_a_linear_network_by_hand(ablation):
    found = small(
        positions=["map"], weights=["conv.kernel"], entries=["head.kernel"], ablation=ablation, splits=(0.5, 0.25, 0.2)
    )
    rows = found.splits["attribution"]
    maps = INPUTS.astype(np.float64) @ PARAMS["conv"]["kernel"]
    head = PARAMS["head"]["kernel"].astype(np.float64)
    parts = difference(maps * head[:, 1].reshape(SHAPE), rows)  # the base is the same for all and cancels
    np.testing.assert_allclose(of_site(found, "map", "entry"), parts.ravel(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_site(found, "map", "channel"), parts.sum(axis=(0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_site(found, "conv.kernel", "channel"), parts.sum(axis=(0, 1)), rtol=1e-4, atol=1e-6)
    weights = np.zeros((30, 3))
    weights[:, 1] = parts.ravel()
    np.testing.assert_allclose(of_site(found, "head.kernel", "entry"), weights.ravel(), rtol=1e-4, atol=1e-6)
    gap = difference(maps.reshape(len(maps), 30) @ head, rows)[1]
    for site in found.sites:
        assert site.complete
        assert site.steps == 8
        np.testing.assert_allclose([site.total, site.ablated], gap, rtol=1e-4)
    assert set(found.units.names) >= {"map:4", "map:4 at 2, 1", "conv.kernel:4", "head.kernel:2 at 29"}


def test_steps_double_until_the_parts_add_up():
    found = small(curved, target=None, layers=["map", "hidden"], steps=(1, 256))
    map_, hidden = found.sites
    assert map_.steps > hidden.steps == 1  # the midpoint of a quadratic is exact
    for site in found.sites:
        assert site.distance <= max(0.01 * abs(site.ablated), 1e-3)
    rough = small(curved, target=None, steps=(1, 1))
    assert "1 steps" in rough.notes[0]
    assert rough.sites[0].distance > map_.distance


def test_a_user_metric_and_a_true_positive_rate():
    def margin(outputs, labels):
        return jnp.take_along_axis(outputs, labels[:, None], axis=1)[:, 0] - outputs.mean(axis=1)

    found = small(metric=margin, ablation="zero")  # of which all outputs are 0, and the margin with them
    outputs = np.asarray(linear(PARAMS, INPUTS), np.float64)
    margins = outputs[np.arange(len(LABELS)), LABELS] - outputs.mean(axis=1)
    assert found.metric == "margin"
    assert found.sites[0].total == pytest.approx(difference(margins, found.splits["attribution"]), rel=1e-3)
    assert found.outcome("none").gap == pytest.approx(difference(margins, found.splits["held_out"]), rel=1e-4)

    rate = small(metric="true_positive_rate", splits={n: np.arange(len(x)) % 3 for n, x in GROUPS.items()})
    hit = (outputs.argmax(axis=1) == 1).astype(float)
    rows = [r[LABELS[r] == 1] for r in rate.splits["held_out"]]
    assert rate.outcome("none").gap == pytest.approx(difference(hit, rows))
    assert rate.outcome("none").compared == tuple(map(len, rows))
    right = outputs.argmax(axis=1) == LABELS
    assert rate.outcome("none").accuracy == pytest.approx(right[np.concatenate(rate.splits["held_out"])].mean())
    chances = np.asarray(jax.nn.softmax(linear(PARAMS, INPUTS)), np.float64)[:, 1]
    rows = [r[LABELS[r] == 1] for r in rate.splits["attribution"]]
    assert rate.sites[0].ablated == pytest.approx(difference(chances, rows), rel=1e-3, abs=1e-6)


# Significance.


@pytest.mark.parametrize("paired", [False, True], ids=["groups", "pairs"])
def test_max_t_is_the_explicit_permutation(paired):
    first, n, count = 17, 34 if paired else 30, 499
    values = RNG.normal(size=(n, 7)) + np.where(np.arange(n) < first, 1.2, 0)[:, None] * [1, 0, 0, 0, 0, 0, 0.4]
    values[:, 3], values[2, 4] = 0.25, np.nan
    found = max_t(values, first, paired=paired, permutations=count, level=0.05, key=(1, 2))
    rng = np.random.default_rng((1, 2))
    tested = [0, 1, 2, 5, 6]
    x = values[:, tested]
    if paired:
        d = x[:first] - x[first:]
        signs = np.concatenate([relabelled(np.ones(first), rng, 256, paired=True) for _ in range(2)])[:count]
        drawn = [np.abs((s[:, None] * d).mean(axis=0)) / np.sqrt((d**2).mean(axis=0) / first) for s in signs]
        own = d.mean(axis=0) / np.sqrt((d**2).mean(axis=0) / first)
    else:
        scale = x.std(axis=0) * np.sqrt(1 / first + 1 / (n - first))
        marks = np.where(np.arange(n) < first, 1.0, 0.0)
        orders = np.concatenate([relabelled(marks, rng, 256, paired=False) for _ in range(2)])[:count] > 0
        drawn = [np.abs(x[m].mean(axis=0) - x[~m].mean(axis=0)) / scale for m in orders]
        own = (x[:first].mean(axis=0) - x[first:].mean(axis=0)) / scale
    greatest = np.max(drawn, axis=1)
    np.testing.assert_allclose(found.statistic[tested], own, rtol=1e-9)
    np.testing.assert_allclose(found.greatest, np.sort(greatest), rtol=1e-5)
    expected = (1 + (greatest[:, None] >= np.abs(own) * (1 - 1e-5)).sum(axis=0)) / (1 + count)
    np.testing.assert_allclose(found.p[tested], expected)
    assert found.p[0] < 0.05 < found.p[1]
    assert (found.statistic[3], found.p[3]) == (0, 1)
    assert np.isnan([found.statistic[4], found.p[4], found.threshold[4]]).all()
    gaps = np.abs(values[:first].mean(axis=0) - values[first:].mean(axis=0))[tested]
    assert ((gaps > found.threshold[tested]) == (found.p[tested] <= 0.05)).all()


def test_bootstrap_intervals_are_those_of_the_mean():
    x = RNG.normal(size=(400, 2)) * [1, 3]
    low, high = intervals(x, 200, (1, -1), paired=False, resamples=4000, level=0.05, key=(0,))
    gap = x[:200].mean(axis=0) - x[200:].mean(axis=0)
    error = np.sqrt(x[:200].var(axis=0) / 200 + x[200:].var(axis=0) / 200)
    np.testing.assert_allclose([low, high], [gap - 1.96 * error, gap + 1.96 * error], atol=0.15 * error.max())
    twins = np.concatenate([x[:200], x[:200] + np.array([0.5, 0])])
    low, high = intervals(twins, 200, (1, -1), paired=True, resamples=99, level=0.05, key=(0,))
    np.testing.assert_allclose([low, high], [[-0.5, 0]] * 2, atol=1e-12)


def test_pairs_find_what_differs_within_them():
    """Between inputs that vary much a small shift shows in pairs alone; and only in the channel that reads it."""
    shift = np.zeros((3, 2, 2), np.float32)
    shift[0, 0] = np.linalg.solve(PARAMS["conv"]["kernel"][:, :2].T, [0.1, 0]).astype(np.float32)
    twins = {"one": INPUTS + shift, "other": INPUTS}
    labels = {"one": LABELS, "other": LABELS}
    found = small(groups=twins, labels=labels, design="pairs", positions=["map"], layers=[])
    assert not small(groups=twins, labels=labels, positions=["map"], layers=[]).units.significant.any()
    at = [name for name, chosen in zip(found.units.names, found.units.significant, strict=True) if chosen]
    assert "map:0 at 0, 0" in at
    assert all(name.endswith("at 0, 0") and not name.startswith("map:1 ") for name in at)
    rows = found.splits["held_out"]
    assert np.array_equal(rows[0] + len(INPUTS), rows[1])


def test_flax_modules_are_called_as_they_are():
    nnx, linen = pytest.importorskip("flax.nnx"), pytest.importorskip("flax.linen")
    kernel, x = PARAMS["conv"]["kernel"], {name: values[:, 0, 0] for name, values in GROUPS.items()}
    own = nnx.Linear(2, 5, use_bias=False, rngs=nnx.Rngs(0))
    own.kernel[...] = jnp.asarray(kernel)
    bound = linen.Dense(5, use_bias=False).bind({"params": {"kernel": kernel}})
    call = {"metric": "score", "target": 3, "weights": ["kernel"], "key": 5, **FEW}
    for function, params in ((own, None), (bound, None), (lambda p, x: x @ p["kernel"], {"kernel": kernel})):
        found = weighbridge.bias(function, x, KNOWN, params=params, **call)
        rows = found.splits["attribution"]
        expected = np.zeros(5)
        expected[3] = difference(INPUTS[:, 0, 0] @ kernel, rows)[3]
        np.testing.assert_allclose(found.units.attribution, expected, rtol=1e-4, atol=1e-6)


# The named set, and what changing it does.


def shortcut(x):
    """(batch, 6) to two logits: units 0 and 1 read the label, 2 the attribute of the group, 3 nothing."""
    units = checkpoint_name(jnp.stack([x[:, 0], -x[:, 1], x[:, 2], 0 * x[:, 3]], axis=1), "units")
    logit = 1.5 * (units[:, 0] + units[:, 1]) + units[:, 2]
    return jnp.stack([-logit, logit], axis=1) / 2


def planted(key, count=160):
    rng = np.random.default_rng(key)
    labels = np.arange(2 * count) // 10 % 2
    x = rng.normal(scale=0.1, size=(2 * count, 6)).astype(np.float32)
    x[:, :2] += np.stack([labels - 0.5, 0.5 - labels], axis=1)
    x[:count, 2] += 1
    return {"marked": x[:count], "plain": x[count:]}, {"marked": labels[:count], "plain": labels[count:]}


PLANTED = network(shortcut)
SPLITS = {name: np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, 2])[np.arange(160) % 10] for name in ("marked", "plain")}
"""Both labels are as many in each part, so that the attribute alone makes the gap."""
STUDY = {"target": 1, "layers": ["units"], "splits": SPLITS, **FEW}


@pytest.mark.parametrize("key", range(5))
def test_the_named_set_closes_a_planted_gap(key):
    groups, labels = planted(key)
    found = weighbridge.bias(PLANTED, groups, labels, key=key, accuracy_of="plain", **STUDY)
    assert [found.units.names[i] for i in np.flatnonzero(found.units.named)] == ["units:2"]
    assert found.reached
    before, after = found.outcome("none"), found.outcome("mean")
    assert before.gap > 0.05
    assert after.removed >= 0.7
    assert before.accuracies[1] - after.accuracies[1] < 0.02
    assert before.gap_interval[0] < before.gap < before.gap_interval[1]
    rescaled = found.outcome("rescale")
    assert after.gap < rescaled.gap < before.gap
    held = np.concatenate(list(groups.values()))
    held[:, 2] = 0
    zeroed = np.asarray(jax.nn.softmax(shortcut(held)))[:, 1]
    assert found.outcome("ablate").gap == pytest.approx(difference(zeroed, found.splits["held_out"]), abs=1e-5)
    assert after.change == pytest.approx(after.accuracy - before.accuracy)


def test_random_groups_are_rarely_different():
    """At 0.05 some 1 in 20 runs finds a unit; more than 7 of 50 has a chance of 0.3 %."""
    groups, labels = planted(0)
    inputs, known = np.concatenate(list(groups.values()))[160:], labels["plain"]
    runs = 0
    for draw in range(20):
        order = np.random.default_rng(draw).permutation(len(inputs))
        halves = {"a": inputs[order[:80]], "b": inputs[order[80:]]}
        marks = {"a": known[order[:80]], "b": known[order[80:]]}
        found = weighbridge.bias(PLANTED, halves, marks, target=1, layers=["units"], key=draw, **FEW)
        runs += bool(found.units.significant.any())
    assert runs <= 4


# The report, and what goes wrong.


def test_the_report_holds_the_result(tmp_path):
    groups, labels = planted(1)
    call = {"key": 1, "report": tmp_path / "report", **STUDY}
    found = weighbridge.bias(PLANTED, groups, labels, **call)
    report = Report.open(tmp_path / "report")
    assert report.complete
    rows = report.table("bias")
    assert rows["part"][0] == "all channels"
    units, by_rank = rows[1:], np.argsort(found.units.rank)
    assert list(units["part"]) == [found.units.names[i].removeprefix("units:") for i in by_rank]
    np.testing.assert_array_equal(units["attribution"].astype(float), found.units.attribution[by_rank])
    np.testing.assert_array_equal(units["rank"].astype(int), [1, 2, 3, 4])
    assert list(units["named"]) == found.units.named[by_rank].tolist() == [True, False, False, False]
    assert rows["attribution"][0] == pytest.approx(units["attribution"].sum())
    outcomes = report.table("bias_interventions")
    held = outcomes[outcomes["part"] == "held_out"].set_index("name")
    assert list(held.index) == ["none", "ablate", "rescale", "mean"]
    assert held["gap"]["mean"] == found.outcome("mean").gap
    text = io.StringIO()
    for table in ("bias", "bias_interventions"):
        print_matrices(Console(file=text, width=200), report, table)
        weighbridge.export(report, csv=tmp_path / f"{table}.csv", table=table)
    assert "held_out" in text.getvalue()
    options = report.manifest.analyses["bias"].options
    assert options["groups"] == {"marked": 160, "plain": 160}
    assert options["parameters_hash"] is None  # the function holds its own
    assert len(options["data_hash"]) == 64
    with pytest.raises(ReportError, match="holds a table bias already"):
        weighbridge.bias(PLANTED, groups, labels, **call)
    again = weighbridge.bias(PLANTED, groups, labels, if_exists="overwrite", **call)
    np.testing.assert_array_equal(again.units.p, found.units.p)
    assert len(Report.open(tmp_path / "report").table("bias")) == 5


def test_what_was_computed_stays(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise MemoryError("no room for the proof")

    groups, labels = planted(1)
    call = {"key": 1, "report": tmp_path, **STUDY}
    monkeypatch.setattr(bias_outcomes.Judge, "compare", broken)
    with pytest.raises(MemoryError):
        weighbridge.bias(PLANTED, groups, labels, **call)
    report = Report.open(tmp_path)
    assert not report.complete
    assert report.table("bias")["named"].notna().sum() == 4
    assert len(report.table("bias_interventions")) > 1


def batches(groups, labels, group, until, error=None):
    for at in range(0, until, 20):
        yield groups[group][at : at + 20], labels[group][at : at + 20]
    if error is not None:
        raise error


@pytest.mark.parametrize("error", [None, OSError("the disk is gone\nsomewhere")])
def test_a_dataset_that_ends_early_leaves_what_came(caplog, error):
    groups, labels = planted(2)
    given = {"marked": batches(groups, labels, "marked", 120, error), "plain": batches(groups, labels, "plain", 160)}
    found = weighbridge.bias(PLANTED, given, target=1, layers=["units"], key=2, count=150, **FEW)
    assert found.notes[0].startswith("group 'marked' ended after 120 of 150 inputs")
    assert "\n" not in found.notes[0]
    assert found.notes[0] in caplog.text
    assert sum(len(rows[1]) for rows in found.splits.values()) == 150
    assert found.units.significant.tolist() == [False, False, True, False]


def test_given_splits_and_labels_are_of_the_inputs_as_they_came():
    """What ends early or holds NaN leaves the marks and labels of the others where they were."""
    groups, labels = planted(2)
    marks = {name: np.arange(160) % 3 for name in groups}
    bad = {name: x.copy() for name, x in groups.items()}
    bad["marked"][7].flat[0] = np.nan
    found = weighbridge.bias(PLANTED, bad, labels, target=1, layers=["units"], key=2, splits=marks, **FEW)
    first = [rows[0] for rows in found.splits.values()]
    came = np.delete(np.arange(160), 7)
    for i, rows in enumerate(first):
        np.testing.assert_array_equal(came[rows] % 3, i)
    ending = {"marked": (groups["marked"][at : at + 20] for at in range(0, 120, 20)), "plain": groups["plain"]}
    found = weighbridge.bias(
        PLANTED, ending, labels, target=1, layers=["units"], key=2, splits=marks, **FEW | {"count": 160}
    )
    assert "ended after 120 of 160" in found.notes[0]
    assert sum(len(rows[0]) for rows in found.splits.values()) == 120


def test_where_the_metric_shows_no_gap_nothing_is_named():
    """What has a gradient differs between the groups, the exact metric does not."""
    shifted = {"one": INPUTS[:FIRST] + 9, "other": INPUTS[FIRST:]}
    metric = (lambda out, labels: out[:, 1], lambda out, labels: jnp.zeros(len(out)))
    found = small(groups=shifted, metric=metric, target=None)
    assert len(found.units.order)
    assert (found.reached, found.units.named.any()) == (False, False)
    assert any("shows no gap on the validation inputs" in note for note in found.notes)


def test_nan_in_coarse_inputs_is_left_out():
    one = np.asarray(jnp.asarray(GROUPS["one"], jnp.bfloat16)).copy()
    one[3, 0, 0, 0] = np.nan
    coarse = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS)
    found = small(groups={"one": one, "other": GROUPS["other"].astype(one.dtype)}, params=coarse)
    assert np.isfinite(found.units.p).all()
    assert found.notes[0].startswith("1 inputs with NaN")


def test_options_may_be_numbers_of_numpy(tmp_path):
    small(permutations=np.int64(199), steps=(np.int64(8), np.int64(8)), rescale=np.float32(0.5), report=tmp_path)
    assert Report.open(tmp_path).manifest.analyses["bias"].options["permutations"] == 199


def test_inputs_with_nan_are_left_out():
    groups, labels = planted(2)
    broken = {"marked": groups["marked"].copy(), "plain": groups["plain"]}
    broken["marked"][[3, 5], 4] = np.nan
    found = weighbridge.bias(PLANTED, broken, labels, target=1, layers=["units"], key=2, **FEW)
    assert "2 inputs with NaN" in found.notes[0]
    assert np.isfinite(found.units.p).all()


def test_an_empty_named_set_says_why():
    found = small()
    assert not found.units.named.any()
    assert found.notes == ("no unit is significant",)
    assert not found.reached
    with pytest.raises(BadArgument, match="only 'none'"):
        found.outcome("mean")


BAD = {
    "one group": ({"groups": {"one": INPUTS}}, "1 groups; expected a mapping of two"),
    "shapes": ({"groups": {"one": INPUTS, "other": INPUTS[:, :2]}, "labels": None}, "group 'other': inputs of shape"),
    "labels": ({"labels": {"one": LABELS, "other": LABELS}}, "labels of shape (70,); expected one of each of 41"),
    "one labelled": ({"labels": {"one": LABELS[:FIRST]}}, "group 'other' has no labels"),
    "no inputs": ({"groups": {"one": INPUTS[:0], "other": INPUTS}, "labels": None}, "group 'one' has no inputs"),
    "numbers": ({"groups": {"one": [[1, 2]], "other": INPUTS}, "labels": None}, "no batch (a batch is one number)"),
    "no batch": ({"groups": {"one": iter(()), "other": INPUTS}, "labels": None}, "group 'one' gives no batch"),
    "uneven pairs": ({"design": "pairs"}, "pairs of 41 and 29 inputs"),
    "design": ({"design": "triples"}, "design 'triples'; expected one of groups, pairs"),
    "layer": ({"layers": ["mop"]}, "layer 'mop' is not in the network; its layers are map"),
    "tensor": ({"weights": ["conv"]}, "tensor 'conv' is not among the parameters; they are conv.kernel, head.kernel"),
    "nothing": ({"layers": []}, "no layers, positions, weights or entries"),
    "a word": ({"layers": "map"}, "layers is 'map'; expected a sequence"),
    "metric": ({"metric": "fairness"}, "metric 'fairness'; expected one of score"),
    "not scalar": ({"metric": lambda outputs, labels: outputs}, "metric gives shape (70, 3) for 70 inputs"),
    "no gradient": ({"metric": lambda outputs, labels: outputs.argmax(axis=1)}, "metric gives int32, which has no"),
    "no target": ({"target": None}, "target is None; an input has 3 outputs"),
    "target": ({"target": 3}, "target is 3; the network has 3 outputs, give 0 to 2"),
    "outputs": ({"function": lambda p, x: p["head"]["kernel"][0, 0]}, "function gives shape () for 70 inputs"),
    "fails": ({"function": lambda p, x: x @ p["head"]["kernel"]}, "function fails on inputs of shape (70, 3, 2, 2)"),
    "unlabelled": ({"metric": "true_positive_rate", "labels": None}, "true_positive_rate needs labels"),
    "few": ({"splits": (0.9, 0.01, 0.09)}, "split 'validation' has 0 inputs of 'one'"),
    "shares": ({"splits": (0.5, 0.6, 0.2)}, "expected three positive shares"),
    "given": ({"splits": {"one": np.zeros(41, int)}}, "splits of 'other' have shape (0,)"),
    "accuracy": ({"accuracy_of": "none"}, "accuracy_of is 'none'; expected 'one' or 'other'"),
    "permutations": ({"permutations": 10}, "at least 1 / level - 1 permutations"),
    "key": ({"key": -1}, "key is -1; expected a whole number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_calls_are_one_line_before_any_work(case, tmp_path):
    options, said = BAD[case]
    with pytest.raises(BadArgument) as caught:
        small(**options, report=tmp_path / "report")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()


# A trained network; the full gates.


@pytest.fixture(scope="module")
def example(script):
    for package in ("flax", "optax", "sklearn", "holoviews"):
        pytest.importorskip(package)
    return script("digits_bias")


@pytest.mark.slow
@pytest.mark.parametrize("key", range(5))
def test_a_trained_shortcut_is_closed(example, key):
    shown, known, images, labels = example.data(key)
    model = example.train_digits.train(shown, known, epochs=example.EPOCHS, seed=key)
    found = example.study(model, images, labels, key=key)
    before, after = found.outcome("none"), found.outcome("mean")
    assert before.gap >= 0.05
    assert after.removed >= 0.7
    assert before.accuracies[1] - after.accuracies[1] < 0.02
    places = [found.units.names[i].split(" at ")[1] for i in found.units.order[:5]]
    assert set(places) <= {"0, 0", "0, 1", "1, 0", "1, 1"}


@pytest.mark.slow
def test_the_example_ends_in_pictures_and_an_audit_page(example, tmp_path):
    example.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report", "bias.png", "bias_dark.png", "audit.html"}


@pytest.mark.slow
def test_random_groups_on_a_trained_network(example):
    shown, known, images, labels = example.data(0)
    model = network(example.train_digits.train(shown, known, epochs=example.EPOCHS))
    finds = 0
    for draw in range(50):
        order = np.random.default_rng(draw).permutation(len(images))
        halves = np.array_split(order, 2)
        groups = {name: images[half] for name, half in zip("ab", halves, strict=True)}
        marks = {name: labels[half] for name, half in zip("ab", halves, strict=True)}
        call = {"target": 3, "layers": ["norm2", "dense"], "positions": ["norm2"], "permutations": 999}
        found = weighbridge.bias(model, groups, marks, key=draw, steps=(8, 8), resamples=99, **call)
        finds += bool(found.units.significant.any())
    print(f"{finds} of 50 runs found something at level 0.05")
    assert finds <= 7
