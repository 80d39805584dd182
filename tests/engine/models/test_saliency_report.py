"""Saliency in a report is what was saved: methods side by side, with their inputs and checks."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("zarr")

import weighbridge
from weighbridge.errors import BadArgument, ReportError, TensorNotFound
from weighbridge.report import Report
from weighbridge.report.saliency import Curves, Randomisation, Saliency
from weighbridge.report.tables import drop_rows
from weighbridge.report.weight_attribution import WeightAttribution

RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(3, 5, 7, 2)).astype(np.float32)
LABELS = ["a", "b", "c"]
SHAPES = {"b/conv.kernel": (2, 3, 5), "b/conv.bias": (5,), "head": (5, 2)}


def result(values=None, method="integrated_gradients", layer=None):
    values = RNG.normal(size=IMAGES.shape).astype(np.float32) if values is None else values
    count = len(values)
    known = np.linspace(-1, 1, count)
    return Saliency(
        values,
        method,
        np.arange(2 * count).reshape(count, 2),
        known,
        np.full(count, np.nan),
        known**2,
        np.full(count, 64),
        np.arange(count) != 1,
        layer,
    )


def curves(method="integrated_gradients"):
    deletion, insertion = RNG.uniform(size=(2, 3, 4))
    return Curves(np.arange(4) / 3, deletion, insertion, deletion.mean(1), insertion.mean(1), "output", method)


def randomisation(method="integrated_gradients"):
    signed, absolute = RNG.uniform(size=(2, 3, 3))
    signed[2, 1] = absolute[2, 1] = np.nan
    return Randomisation(("head", "conv"), signed, absolute, method)


def attribution(count=3):
    weights = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    channels = {name: RNG.normal(size=(count, shape[-1])).astype(np.float32) for name, shape in SHAPES.items()}
    tensors = {name: values.sum(axis=1) for name, values in channels.items()}
    target = np.arange(2 * count).reshape(count, 2)
    return WeightAttribution(weights, channels, tensors, np.linspace(-1, 1, count, dtype=np.float32), target)


def same(a, b):
    for field in a.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)


def test_what_was_saved_is_read_back(tmp_path):
    first, cam = result(), result(RNG.uniform(size=(3, 2, 3)), "grad_cam", "block/conv:0")
    checks = curves(), randomisation()
    weighbridge.save_saliency(tmp_path / "r", IMAGES, [first, cam], labels=LABELS, checks=checks)
    report = Report.open(tmp_path / "r")
    assert report.complete
    found = report.saliency("integrated_gradients")
    same(found.result, first)
    same(found.curves, checks[0])
    same(found.randomisation, checks[1])
    np.testing.assert_array_equal(found.inputs.values, IMAGES)
    assert (found.inputs.labels, found.inputs.entries, found.inputs.channel_axis) == (("a", "b", "c"), (), -1)
    last = report.saliency()
    assert (last.part, last.curves, last.randomisation) == ("grad_cam block/conv:0", None, None)
    same(last.result, cam)
    with pytest.raises(TensorNotFound, match=r"no saliency by 'lime'; there is: 'integrated_gradients', 'grad_cam bl"):
        report.saliency("lime")


def test_the_table_has_a_row_for_each_input_and_method(tmp_path):
    values = result().values
    values[2, 0, 0, 0] = np.nan
    report = weighbridge.save_saliency(
        tmp_path / "r", IMAGES, [result(values), result(method="gradient")], labels=LABELS, checks=randomisation()
    )
    rows = report.table("saliency")
    assert sorted(zip(rows["name"], rows["part"], strict=True)) == [
        (label, part) for label in LABELS for part in ("gradient", "integrated_gradients")
    ]
    mine = rows[rows["part"] == "integrated_gradients"]
    assert mine["target"].tolist() == [0, 2, 4]
    assert mine["converged"].tolist() == [True, False, True]
    np.testing.assert_allclose(mine["sum"].iloc[:2], values[:2].sum(axis=(1, 2, 3), dtype=np.float64))
    np.testing.assert_allclose(mine["absmax"].iloc[:2], np.abs(values[:2]).max(axis=(1, 2, 3)))
    assert mine["sum"].isna().tolist() == [False, False, True]
    assert mine["reason"].fillna("").tolist() == ["", "", "the values hold NaN"]
    assert mine["baseline_output"].isna().all()
    checks = report.table("saliency_checks")
    assert checks["deletion_area"].isna().all()
    assert checks["randomised_correlation"].isna().tolist() == [False, True, False]
    assert len([json.dumps(row) for row in report.rows("saliency", lists=True)]) == 6
    assert "integrated_gradients" in report._repr_html_()


def test_methods_on_the_same_inputs_join_and_replace_their_own(tmp_path):
    folder = tmp_path / "r"
    weighbridge.save_saliency(folder, IMAGES, result(), checks=curves())
    weighbridge.save_saliency(folder, IMAGES, result(method="gradient"))
    again = result()
    report = weighbridge.save_saliency(folder, IMAGES, again)
    assert len(report.table("saliency")) == 6
    found = report.saliency("integrated_gradients")
    same(found.result, again)
    assert found.curves is None  # they were of the map before
    with pytest.raises(BadArgument, match=r"holds saliency of other inputs, \(3, 5, 7, 2\)"):
        weighbridge.save_saliency(folder, IMAGES + 1, again)
    report = weighbridge.save_saliency(folder, IMAGES[:2], result(IMAGES[:2]), if_exists="overwrite")
    assert report.table("saliency")["name"].tolist() == ["0", "1"]


def test_attributions_to_weights_are_read_back(tmp_path):
    first, second = attribution(), attribution()
    for found in (first, second):  # the later one replaces the earlier
        report = weighbridge.save_saliency(tmp_path / "r", IMAGES, [], labels=LABELS, weights=found)
    back = report.attribution_to_weights()
    for field in ("weights", "channels", "tensors", "layers"):
        ours, theirs = getattr(back, field), getattr(second, field)
        assert list(ours) == list(theirs)
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert list(back.layers) == ["b/conv", "head"]
    np.testing.assert_array_equal(back.output, second.output)
    np.testing.assert_array_equal(back.target, second.target)
    assert report.complete


def test_the_table_has_a_row_for_each_tensor_and_input(tmp_path):
    found = attribution()
    found.tensors["head"][2] = np.nan
    report = weighbridge.save_saliency(tmp_path / "r", IMAGES, result(), labels=LABELS, weights=found)
    rows = report.table("saliency_weights")
    assert list(zip(rows["name"], rows["part"], strict=True)) == [(name, label) for name in SHAPES for label in LABELS]
    assert rows["role"].unique().tolist() == ["conv", "bias", "other"]
    head = rows[rows["name"] == "head"]
    assert head["share"].isna().tolist() == [False, True, True]  # an output of 0, a contribution of NaN
    assert head["share"].iloc[0] == -head["contribution"].iloc[0]
    assert np.isnan(report.attribution_to_weights().tensors["head"][2])


def test_attributions_are_of_the_same_inputs_and_tensors(tmp_path):
    with pytest.raises(BadArgument, match="weights are of 2 inputs; expected 3"):
        weighbridge.save_saliency(tmp_path / "r", IMAGES, result(), weights=attribution(2))
    assert not (tmp_path / "r").exists()
    report = weighbridge.save_saliency(tmp_path / "r", IMAGES, result())
    with pytest.raises(TensorNotFound, match=r"no attribution to weights; save_saliency\(weights=...\) writes it"):
        report.attribution_to_weights()
    report = weighbridge.save_saliency(tmp_path / "r", IMAGES, result(), weights=attribution())
    next((tmp_path / "r" / "tables" / "saliency_weights").glob("part-*")).unlink()
    weighbridge.save_saliency(tmp_path / "other", IMAGES, [], weights=attribution())
    part = next((tmp_path / "other" / "tables" / "saliency_weights").glob("part-*"))
    drop_rows(part.parent, ["head"])
    part.rename(tmp_path / "r" / "tables" / "saliency_weights" / part.name)
    with pytest.raises(ReportError, match="rows of saliency_weights are not those of its arrays; save it again"):
        report.attribution_to_weights()
    report = weighbridge.save_saliency(tmp_path / "r", IMAGES[:2], result(IMAGES[:2]), if_exists="overwrite")
    with pytest.raises(TensorNotFound, match="no attribution"):
        report.attribution_to_weights()


def test_a_refused_call_leaves_the_report_as_it_is(tmp_path):
    folder = tmp_path / "r"
    weighbridge.save_saliency(folder, IMAGES, result(), checks=curves())
    before = contents(folder)
    for call in ({"inputs": IMAGES + 1}, {"labels": LABELS}, {"inputs": IMAGES + 1, "weights": attribution()}):
        with pytest.raises(BadArgument, match="holds saliency of other inputs"):
            weighbridge.save_saliency(folder, **{"inputs": IMAGES, "results": result(), **call})
    assert contents(folder) == before


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_narrow_types_are_kept_as_float32(tmp_path, dtype):
    x, values = IMAGES.astype(dtype), result().values.astype(dtype)
    weights = attribution()
    weights.weights["head"] = weights.weights["head"].astype(dtype)
    for _ in range(2):  # the inputs are known again
        report = weighbridge.save_saliency(tmp_path / "r", x, result(values), weights=weights)
    found, head = report.saliency(), report.attribution_to_weights().weights["head"]
    kept = ((found.inputs.values, x), (found.result.values, values), (head, weights.weights["head"]))
    for held, given in kept:
        assert held.dtype == np.float32
        np.testing.assert_array_equal(held, given.astype(np.float32))
    assert report.table("saliency")["dtype"].unique().tolist() == ["F32"]


def test_numbers_are_saved_without_entries(tmp_path):
    x = np.ones(3, np.float32)
    assert weighbridge.save_saliency(tmp_path / "r", x, result(x)).saliency().result.values.shape == (3,)
    with pytest.raises(BadArgument, match=r"entries name other columns or tokens than those of inputs of shape \(3,\)"):
        weighbridge.save_saliency(tmp_path / "s", x, result(x), entries=["age"])


def test_saliency_lies_beside_a_scan(digits, tmp_path):
    folder = weighbridge.scan(digits, report=tmp_path / "r", device="cpu").folder
    report = weighbridge.save_saliency(folder, IMAGES, result())
    assert report.main == "scan"
    assert len(report.table()) > 5
    assert report.saliency().part == "integrated_gradients"


def test_tables_and_nothing(tmp_path):
    x = np.ones((2, 3), np.float32)
    report = weighbridge.save_saliency(tmp_path / "r", x, result(x), entries=["age", "sex", "score"])
    assert report.saliency().inputs.entries == (("age", "sex", "score"),) * 2
    empty = weighbridge.save_saliency(tmp_path / "empty", x[:0], result(x[:0]))
    assert len(empty.table("saliency")) == 0
    with pytest.raises(TensorNotFound, match="there is: none"):
        empty.saliency()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({"labels": ["a", "b"]}, "labels has 2 different entries; expected 3"),
        ({"labels": ["a", "b", "a"]}, "labels has 2 different entries; expected 3"),
        ({"results": result(IMAGES[:2])}, "integrated_gradients is of 2 inputs; expected 3"),
        ({"results": [result(), result()]}, "integrated_gradients is there twice"),
        ({"checks": curves("occlusion")}, "a check is of 'occlusion'; the results are integrated_gradients"),
        ({"entries": ["age"]}, r"entries name other columns or tokens than those of inputs of shape \(3, 5, 7, 2\)"),
        ({"if_exists": "append"}, "if_exists 'append'; expected resume or overwrite"),
    ],
)
def test_a_bad_call_writes_nothing(tmp_path, call, line):
    with pytest.raises(BadArgument, match=line) as caught:
        weighbridge.save_saliency(tmp_path / "r", IMAGES, **{"results": result(), **call})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_arrays_that_are_gone_are_said_to_be(tmp_path):
    report = weighbridge.save_saliency(tmp_path / "r", IMAGES, result())
    shutil.rmtree(tmp_path / "r" / "arrays")
    with pytest.raises(ReportError, match=r"cannot be read: .*; save it again with if_exists='overwrite'"):
        report.saliency()
