"""The recorder: the training is the same to the bit, the figures are NumPy's, and nothing stops it."""

import errno
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weighbridge
from weighbridge.errors import BadArgument, ReportError
from weighbridge.models import groups as grouped
from weighbridge.report import tables

record, record_groups = weighbridge.recorder.record, weighbridge.recorder.record_groups

STEPS = 50
RNG = np.random.default_rng(0)
X = RNG.standard_normal((STEPS, 24, 16)).astype(np.float32)
Y = RNG.integers(0, 7, (STEPS, 24))
LABELS = {"w1": "a", "b1": "b", "s": "b", "w2": "a", "e": "b"}
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "nesterov": lambda: optax.sgd(0.1, 0.9, nesterov=True),
    "adam": lambda: optax.adam(1e-2),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1)),
    "multi_transform": lambda: optax.multi_transform({"a": optax.adam(1e-2), "b": optax.sgd(0.1)}, LABELS),
}


def network():
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "w1": jax.random.normal(keys[0], (16, 33)) * 0.2,
        "b1": jnp.zeros(33),
        "s": jnp.ones(33),
        "w2": jax.random.normal(keys[1], (33, 7)) * 0.2,
        "e": jax.random.normal(keys[2], (7, 16)) * 0.1,
    }


def loss(p, batch):
    x, y = batch
    h = jnp.tanh((x + p["e"][y]) @ p["w1"] * jnp.exp(p["s"]) + p["b1"])
    logits = h @ p["w2"] + x @ p["e"].T
    decay = sum(jnp.sum(v**2) for v in p.values())
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() + 1e-3 * decay


def step_of(optimizer):
    def step(p, s, batch):
        u, s = optimizer.update(jax.grad(loss)(p, batch), s, p)
        return optax.apply_updates(p, u), s

    return step


def jitted(optimizer):
    step, p = jax.jit(step_of(optimizer)), network()
    s = optimizer.init(p)
    for batch in zip(X, Y, strict=True):
        p, s = step(p, s, batch)
    return p, s


def scanned(optimizer):
    step, p = step_of(optimizer), network()
    go = jax.jit(lambda p, s: jax.lax.scan(lambda c, batch: (step(*c, batch), None), (p, s), (X, Y))[0])
    return go(p, optimizer.init(p))


@cache
def plain(name, train):
    return train(OPTIMIZERS[name]())[0]


def table(folder):
    return weighbridge.Report.open(folder).table("training", lists=True)


@pytest.mark.parametrize("train", [jitted, pytest.param(scanned, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_same_to_the_bit(name, train, tmp_path):
    recorder = record(OPTIMIZERS[name](), every=7, report=tmp_path, buffer=3)
    p, s = train(recorder)
    recorder.close(s)
    for key, value in plain(name, train).items():
        np.testing.assert_array_equal(np.asarray(p[key]).view(np.uint32), np.asarray(value).view(np.uint32))
    rows = table(tmp_path)
    assert sorted(set(rows["step"])) == list(range(0, STEPS, 7))
    assert len(rows) == 8 * 5
    assert weighbridge.Report.open(tmp_path).complete


def test_an_optimiser_that_uses_a_gradient_once_may_round_otherwise(tmp_path):
    """The compiler folds its use into the scatter or sum that makes the gradient, unless somebody else reads it too."""
    momentum = optax.sgd(0.1, 0.9)
    p, _ = jitted(record(momentum, every=7, report=tmp_path))
    for key, value in jitted(momentum)[0].items():
        np.testing.assert_allclose(p[key], value, atol=1e-5)


def test_figures_are_numpys(tmp_path):
    rng = np.random.default_rng(1)
    recorder = record(optax.sgd(0.5), every=1, report=tmp_path)
    p = {"a": rng.standard_normal((19, 23)).astype(np.float32), "h": jnp.ones((3, 5), jnp.bfloat16)}
    s, update = recorder.init(p), jax.jit(recorder.update)
    scales = (1.0, 1e-25, 1e25)
    given = [(rng.standard_normal((19, 23)) * scale).astype(np.float32) for scale in scales]
    given[1][0, :5] = 0, -0.0, np.nan, np.inf, -np.inf
    given[2][1, :2] = 1e-40, -1e-40
    half = jnp.asarray(rng.standard_normal((3, 5)), jnp.bfloat16)
    for g in given:
        _, s = update({"a": g, "h": half}, s, p)
    recorder.close(s)
    rows = table(tmp_path).set_index(["name", "step"])
    finite = [np.where(np.isfinite(g), g, 0).astype(np.float64) for g in given]
    for i, g in enumerate(given):
        row = rows.loc["a", i]
        assert row["gradient_norm"] == pytest.approx(np.linalg.norm(finite[i]), rel=1e-6)
        assert row["update_norm"] == pytest.approx(0.5 * np.linalg.norm(finite[i]), rel=1e-6)
        assert row["weight_norm"] == pytest.approx(np.linalg.norm(p["a"]), rel=1e-6)
        assert row["update_ratio"] == pytest.approx(row["update_norm"] / row["weight_norm"])
        counts = [(g == 0).sum(), np.isnan(g).sum(), np.isinf(g).sum()]
        assert [row[f"gradient_{what}"] for what in ("zeros", "nan", "inf")] == counts
        np.testing.assert_array_equal(
            row["gradient_histogram"], np.bincount(g.view(np.uint32).reshape(-1) >> 23, minlength=512)
        )
        if i:
            a, b = finite[i].reshape(-1), finite[i - 1].reshape(-1)
            expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert row["gradient_cosine"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(rows.loc["a", 0]["gradient_cosine"])
    assert rows.loc["h", 1]["gradient_cosine"] == pytest.approx(1, abs=1e-6)
    assert rows.loc["h", 1]["dtype"] == "BF16"
    assert rows.loc["h", 1]["gradient_histogram"].sum() == 15


def test_filters_and_tensors_that_are_no_floats(tmp_path):
    p = {"a": jnp.ones(3), "b": jnp.ones(3), "n": jnp.ones(3, jnp.int32)}
    recorder = record(optax.set_to_zero(), every=1, report=tmp_path, exclude=["b"])
    _, s = recorder.update(p, recorder.init(p), p)
    recorder.close(s)
    rows = table(tmp_path).set_index("name")
    assert set(rows.index) == {"a", "n"}
    assert "int32" in rows.loc["n"]["reason"]
    with pytest.raises(BadArgument, match="leave none of 3"):
        record(optax.sgd(1.0), every=1, report=tmp_path, include=["z"]).init(p)


def test_one_string_is_one_pattern(tmp_path):
    p = {"ab": jnp.ones(3), "b": jnp.ones(3)}
    recorder = record(optax.sgd(1.0), every=1, report=tmp_path / "r", include="a*")
    _, s = recorder.update(p, recorder.init(p), p)
    recorder.close(s)
    assert set(table(tmp_path / "r")["name"]) == {"ab"}
    measure = record_groups(lambda p, x: p["b"].sum(), {"x": np.ones(8)}, report=tmp_path / "g", exclude="a*")
    measure(p, 0)
    report = weighbridge.Report.open(tmp_path / "g")
    assert set(report.table("training_groups")["name"]) == {"b", grouped.WHOLE}
    assert report.manifest.analyses["training_groups"].options["exclude"] == ["a*"]


def test_two_leaves_of_one_name_are_refused(tmp_path):
    p = {"a": {"b": jnp.ones(3)}, "a.b": jnp.ones(2)}
    with pytest.raises(BadArgument, match=r"two leaves are called 'a\.b'; rename one"):
        record(optax.sgd(1.0), every=1, report=tmp_path).init(p)


@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"every": 2.5}, {"buffer": 0}, {"successive": "x"}, {"delivery": "x"}, {"if_exists": "x"}],
    ids=str,
)
def test_bad_numbers_raise_before_any_work(tmp_path, options):
    with pytest.raises(BadArgument):
        record(optax.sgd(1.0), report=tmp_path, **options)


def test_a_folder_of_something_else_is_refused(digits, scanned, tmp_path):
    report = scanned(digits)
    with pytest.raises(ReportError, match="not of a run"):
        record(optax.sgd(1.0), report=report.folder)


def steps_taken(recorder, state, count):
    update = jax.jit(recorder.update)
    for _ in range(count):
        _, state = update({"a": jnp.ones(3) * (1 + state.step)}, state, {"a": jnp.ones(3)})
    return state


def test_a_run_that_resumes_replaces_what_came_later(tmp_path):
    first = record(optax.sgd(1.0), every=2, report=tmp_path, buffer=2)
    early = steps_taken(first, first.init({"a": jnp.ones(3)}), 10)
    first.close(steps_taken(first, early, 7))
    assert list(table(tmp_path)["step"]) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    again = record(optax.sgd(2.0), every=2, report=tmp_path, buffer=2)
    again.close(steps_taken(again, early, 3))
    rows = table(tmp_path).sort_values("step")
    assert list(rows["step"]) == [0, 2, 4, 6, 8, 10, 12]
    norms = np.sqrt(3) * (1 + np.arange(0, 13, 2))
    np.testing.assert_allclose(rows["gradient_norm"], norms, rtol=1e-6)
    np.testing.assert_allclose(rows["update_norm"], norms * np.where(rows["step"] < 9, 1, 2), rtol=1e-6)
    anew = record(optax.sgd(1.0), every=2, report=tmp_path, start=50, if_exists="overwrite")
    anew.close(steps_taken(anew, anew.init({"a": jnp.ones(3)}), 1))
    assert list(table(tmp_path)["step"]) == [50]


@pytest.mark.parametrize("delivery", ["callback", "flush"])
def test_a_state_that_went_back_replaces_what_came_later(delivery, tmp_path):
    recorder = record(optax.sgd(1.0), every=1, report=tmp_path, buffer=32, delivery=delivery)
    early = steps_taken(recorder, recorder.init({"a": jnp.ones(3)}), 4)
    recorder.flush(steps_taken(recorder, early, 16))
    update = jax.jit(recorder.update)
    for _ in range(2):
        _, early = update({"a": jnp.full(3, 7.0)}, early, {"a": jnp.ones(3)})
    recorder.close(early)
    rows = table(tmp_path).sort_values("step")
    assert list(rows["step"]) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(rows["gradient_norm"], np.sqrt(3) * np.array([1, 2, 3, 4, 7, 7]), rtol=1e-6)


def test_each_of_several_recorders_writes_its_own(tmp_path):
    inner = record(optax.scale(2.0), every=1, report=tmp_path / "inner")
    outer = record(optax.chain(inner, optax.scale(3.0)), every=1, report=tmp_path / "outer")
    last = record(optax.scale(5.0), every=1, report=tmp_path / "last")
    whole = optax.chain(outer, last)
    p = {"a": jnp.ones(1)}
    _, state = jax.jit(whole.update)(p, whole.init(p), p)
    for recorder in (inner, outer, last):
        recorder.close(state)
    for name, gradient, update in (("inner", 1, 2), ("outer", 1, 6), ("last", 6, 30)):
        (row,) = table(tmp_path / name).to_dict("records")
        assert (row["gradient_norm"], row["update_norm"]) == (gradient, update), name


def test_a_recorder_is_of_one_model(tmp_path):
    recorder = record(optax.sgd(1.0), every=1, report=tmp_path)
    recorder.init({"a": jnp.ones(3)})
    with pytest.raises(BadArgument, match=r"watches 1 tensors, 'a' first.* make another recorder for another model"):
        recorder.init({"a": jnp.ones(3), "b": jnp.ones(2)})


def test_leaves_that_are_no_float_arrays_are_told_once_and_change_nothing(tmp_path):
    """Python numbers and integers are left alone, whatever gradient they get, also where a run goes on."""
    p = {"a": jnp.ones(3), "n": jnp.arange(3), "rate": 0.5}
    for _ in range(2):
        recorder = record(optax.set_to_zero(), every=1, report=tmp_path)
        _, s = recorder.update({"a": jnp.ones(3), "n": jnp.ones(3), "rate": 1.0}, recorder.init(p), p)
        recorder.close(s)
    rows = table(tmp_path)
    assert sorted(rows["name"]) == ["a", "n", "rate"]
    assert sorted(rows["name"][rows["step"].isna()]) == ["n", "rate"]


def test_flushing_twice_writes_once_and_a_small_ring_keeps_the_last(tmp_path):
    recorder = record(optax.sgd(1.0), every=1, report=tmp_path, buffer=4, delivery="flush")
    state = steps_taken(recorder, recorder.init({"a": jnp.ones(3)}), 3)
    recorder.flush(state)
    recorder.flush(state)
    assert list(table(tmp_path)["step"]) == [0, 1, 2]
    state = steps_taken(recorder, state, 6)
    recorder.close(state)
    assert list(table(tmp_path)["step"]) == [0, 1, 2, 5, 6, 7, 8]


def test_without_parameters_weights_are_null(tmp_path):
    recorder = record(optax.sgd(1.0), every=1, report=tmp_path)
    _, state = recorder.update({"a": jnp.ones(3)}, recorder.init({"a": jnp.ones(3)}))
    recorder.close(state)
    (row,) = table(tmp_path).to_dict("records")
    assert np.isnan(row["weight_norm"])
    assert row["gradient_norm"] == pytest.approx(3**0.5)


def test_a_full_disk_warns_once_and_later_records_are_written(tmp_path, monkeypatch, caplog):
    full = True
    replace = tables._replace

    def write(part, table):
        if full:
            raise ReportError(f"{part}: no space") from OSError(errno.ENOSPC, "No space left on device")
        replace(part, table)

    monkeypatch.setattr(tables, "_replace", write)
    recorder = record(OPTIMIZERS["adam"](), every=1, report=tmp_path, buffer=2)
    p, s = jitted(recorder)
    recorder.flush(s)
    recorder.flush(s)
    for key, value in plain("adam", jitted).items():
        np.testing.assert_array_equal(p[key], value)
    assert [record.getMessage() for record in caplog.records if "training goes on" in record.getMessage()] != []
    assert len(caplog.records) == 1
    full = False
    recorder.close(s)
    assert table(tmp_path)["step"].nunique() == STEPS


def test_rows_that_wait_are_bounded(tmp_path, monkeypatch):
    from weighbridge.models import recording

    def refuse(self):
        raise ReportError("no space")

    monkeypatch.setattr(recording, "WAITING_ROWS", 10)
    monkeypatch.setattr(recording.Recording, "_write", refuse)
    recorder = record(optax.sgd(1.0), every=1, report=tmp_path, buffer=1)
    recorder.flush(steps_taken(recorder, recorder.init({"a": jnp.ones(3)}), 30))
    assert len(recorder.recording._rows) == 10


def test_many_records_are_written_before_they_are_too_many(tmp_path, monkeypatch):
    """Between parts there may be half a minute; what would not fit is written before."""
    from weighbridge.models import recording

    monkeypatch.setattr(recording, "WAITING_ROWS", 40)
    monkeypatch.setattr(recording.Recording, "_pause", lambda self: 1e9)
    recorder = record(optax.sgd(1.0), every=1, report=tmp_path, buffer=2)
    state = recorder.init({"a": jnp.ones(3)})
    for _ in range(30):
        state = steps_taken(recorder, state, 4)
        recorder.recording.turn("due")
    recorder.close(state)
    assert sorted(table(tmp_path)["step"]) == list(range(120))


def test_a_part_that_is_damaged_stops_nothing(tmp_path, caplog):
    first = record(optax.sgd(1.0), every=1, report=tmp_path)
    first.close(steps_taken(first, first.init({"a": jnp.ones(3)}), 3))
    part = next((tmp_path / "tables" / "training").glob("part-*"))
    part.write_bytes(part.read_bytes()[:100])
    again = record(optax.sgd(1.0), every=1, report=tmp_path)
    again.flush(steps_taken(again, again.init({"a": jnp.ones(3)}), 3))
    assert "cannot be read" in caplog.text
    part.unlink()
    again.close()
    assert list(table(tmp_path)["step"]) == [0, 1, 2]


def examples(count, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 16)).astype(np.float32), rng.integers(0, 7, count)


def test_groups_are_explicit_gradients(tmp_path):
    batches = {"one": examples(20, 1), "two": examples(13, 2), "three": examples(31, 3)}
    p = network()
    measure = record_groups(loss, batches, report=tmp_path, splits=4)
    measure(p, 5)
    measure(p, 5)
    rows = weighbridge.Report.open(tmp_path).table("training_groups", lists=True).set_index(["name", "part"])
    assert len(rows) == 6 * 3
    gradients = {group: jax.grad(loss)(p, batch) for group, batch in batches.items()}
    flat = {g: {n: np.asarray(x, np.float64).reshape(-1) for n, x in of.items()} for g, of in gradients.items()}
    for of in flat.values():
        of[grouped.WHOLE] = np.concatenate([of[name] for name in p])
    for name in [*p, grouped.WHOLE]:
        for group, of in flat.items():
            row = rows.loc[name, group]
            norm = np.linalg.norm(of[name])
            assert row["gradient_norm"] == pytest.approx(norm, rel=1e-5)
            assert row["share"] == pytest.approx(norm**2 / np.linalg.norm(of[grouped.WHOLE]) ** 2, rel=1e-5)
            cosines = [of[name] @ other[name] / norm / np.linalg.norm(other[name]) for other in flat.values()]
            np.testing.assert_allclose(row["cosine"], cosines, atol=1e-5)
            assert row["step"] == 5


def test_the_noise_scale_of_a_known_problem(tmp_path):
    """Linear loss: a batch's gradient is its mean, so signal and noise are the mean and the variance drawn from."""
    mean, std, d = 0.3, 2.0, 4
    x = np.random.default_rng(0).normal(mean, std, (200_000, d)).astype(np.float32)
    measure = record_groups(
        lambda p, x: jnp.mean(x @ p["w"]), {"x": x[: len(x) // 2], "y": x[len(x) // 2 :]}, report=tmp_path, splits=1000
    )
    measure({"w": jnp.zeros(d)}, 0)
    row = weighbridge.Report.open(tmp_path).table("training_groups").iloc[0]
    assert row["squared_gradient"] == pytest.approx(d * mean**2, rel=0.05)
    assert row["noise_trace"] == pytest.approx(d * std**2, rel=0.1)
    assert row["noise_scale"] == pytest.approx(std**2 / mean**2, rel=0.15)


def test_idle_units(tmp_path):
    values = np.tanh(np.random.default_rng(0).standard_normal((100, 4)))
    values[:, 1], values[:, 2] = 0, np.where(values[:, 2] < 0, -1, 1)
    dead, saturated = grouped.idle_units(values, (-1, 1))
    assert list(dead) == [1]
    assert list(saturated) == [2]
    measure = record_groups(
        lambda p, x: jnp.sum(p["w"] * x.mean()),
        {"all": values.astype(np.float32)},
        report=tmp_path,
        activations=lambda p, x: {"hidden": x},
    )
    measure({"w": jnp.ones(2)}, 3)
    measure({"w": jnp.ones(2)}, 3)
    (row,) = weighbridge.Report.open(tmp_path).matrices("hidden", "training_units")
    assert list(row["dead_units"]) == [1]
    assert row["saturated"] is None


def test_a_unit_is_dead_along_the_examples_alone(tmp_path):
    """One that has the same map on every input tells inputs apart by nothing; of one input nothing is known."""
    values = np.random.default_rng(0).standard_normal((5, 3, 2, 4)).astype(np.float32)
    values[..., 2] = values[:1, ..., 2]
    dead, _ = grouped.idle_units(values, None)
    assert list(dead) == [2]
    for one in (values[:1], values[0, 0, 0]):
        dead, saturated = grouped.idle_units(one, (-1, 1))
        assert dead is None
        assert saturated is not None
    measure = record_groups(
        lambda p, x: p["w"] * x.mean(),
        {"all": values, "one": values[:1]},
        report=tmp_path,
        splits=3,
        activations=lambda p, x: {"maps": x},
    )
    measure({"w": jnp.ones(())}, 0)
    every, one = weighbridge.Report.open(tmp_path).matrices("maps", "training_units")
    assert every["dead"] == 1
    assert one["dead"] is None
    assert one["dead_units"] is None


def test_groups_wait_for_a_disk_that_is_full(tmp_path, monkeypatch, caplog):
    full, replace = True, tables._replace

    def write(part, table):
        if full:
            raise ReportError(f"{part}: no space") from OSError(errno.ENOSPC, "No space left on device")
        replace(part, table)

    monkeypatch.setattr(tables, "_replace", write)
    measure = record_groups(
        lambda p, x: jnp.mean(x @ p["w"]), {"x": X[0]}, report=tmp_path, activations=lambda p, x: {"x": x}
    )
    for step in (0, 1, 5, 2):
        measure({"w": jnp.zeros(16)}, step)
    (warning,) = caplog.records
    assert warning.name == "weighbridge"
    assert "no space; training goes on" in warning.getMessage()
    full = False
    measure({"w": jnp.zeros(16)}, 3)
    report = weighbridge.Report.open(tmp_path)
    assert list(report.table("training_units")["step"]) == [0, 1, 2, 3]
    assert sorted(report.table("training_groups")["step"]) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert report.complete


def test_groups_are_measured_by_real_floats_alone(tmp_path):
    p = {"w": jnp.arange(4.0), "n": jnp.arange(4), "rate": 2.0, "none": None}

    def loss(p, x):
        assert p["none"] is None
        return jnp.mean(x @ (p["w"] * p["n"])) * p["rate"]

    x = X[0][:, :4]
    record_groups(loss, {"x": x}, report=tmp_path)(p, 0)
    rows = weighbridge.Report.open(tmp_path).table("training_groups").set_index("name")
    assert set(rows.index) == {"w", grouped.WHOLE}
    expected = np.linalg.norm(x.astype(np.float64).mean(axis=0) * np.arange(4) * 2)
    assert rows.loc["w", "gradient_norm"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(BadArgument, match="leave no tensor of real floats"):
        record_groups(loss, {"x": x}, report=tmp_path, include=["n"])(p, 0)


LOSSES = {
    "of each example": (lambda p, x: x @ p["w"], r"group 'x': the loss is float32\[24\]; expected one real number"),
    "with auxiliaries": (lambda p, x: (p["w"].sum(), x), "group 'x': the loss is a tuple"),
    "whole": (lambda p, x: x.shape[0], r"the loss is int32\[\]"),
    "branches": (lambda p, x: p["w"][0] if x[0, 0] > 0 else 0.0, "cannot be traced and differentiated: Tracer"),
    "other sizes": (lambda p, x: jnp.mean(x @ p["w"][:3]), "cannot be traced and differentiated: TypeError: "),
    "no reverse": (
        lambda p, x: jax.lax.while_loop(lambda a: a < 9, lambda a: a + 1, p["w"][0]),
        "cannot be traced and differentiated: ValueError: Reverse-mode",
    ),
}


@pytest.mark.parametrize("what", LOSSES)
def test_a_loss_without_a_gradient_is_one_line(tmp_path, what):
    loss, said = LOSSES[what]
    measure = record_groups(loss, {"x": X[0]}, report=tmp_path)
    with pytest.raises(BadArgument, match=said) as raised:
        measure({"w": jnp.ones(16)}, 0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"tokens": np.ones((9, 5))}, r"group 'b': an example is of shape \[5\], in 'a' of \[7\]; pad or cut them"),
        ({"token": np.ones((9, 7))}, "group 'b': its arrays are not called as those of 'a'"),
    ],
    ids=["length", "name"],
)
def test_groups_that_are_not_alike_raise(tmp_path, other, said):
    with pytest.raises(BadArgument, match=said):
        record_groups(loss, {"a": {"tokens": np.ones((9, 7))}, "b": other}, report=tmp_path)


def test_groups_that_cannot_be_measured_raise(tmp_path):
    for batches, splits in (({}, 2), ({"a": np.zeros((0, 2))}, 2), ({"a": np.zeros((3, 2))}, 4)):
        with pytest.raises(BadArgument):
            record_groups(loss, batches, report=tmp_path, splits=splits)
