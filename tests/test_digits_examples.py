"""`examples/digits_training.py` and `examples/digits_criticality.py` run to their pictures and reports."""

import pytest

for distribution in ("flax", "optax", "safetensors", "sklearn", "matplotlib", "holoviews"):
    pytest.importorskip(distribution)

import weighbridge  # noqa: E402


@pytest.mark.slow
def test_a_training_is_recorded_and_drawn(script, tmp_path):
    script("digits_training").main(tmp_path / "run", tmp_path, epochs=1)
    report = weighbridge.Report.open(tmp_path / "run")
    assert report.complete
    rows = report.table("training")
    assert set(rows[rows["status"] == "done"]["step"] % 5) == {0}
    assert report.table("training_groups")["part"].nunique() == 10
    assert (tmp_path / "digits_training.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_criticality_is_measured_and_drawn(script, tmp_path, capsys):
    script("digits_criticality").main(tmp_path)
    assert "by taylor" in capsys.readouterr().out
    assert weighbridge.Report.open(tmp_path / "report").complete
    pages = {path.stem for path in tmp_path.glob("*.html")}
    assert pages >= {"layers", "curves", "accuracy", "selectivity", "conv1"}
