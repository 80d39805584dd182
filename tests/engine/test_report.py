"""A report on disk: its layout, its size, and what is read back from it, also while it grows and by other tools."""

import importlib.metadata
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

import weighbridge
from weighbridge import Report, ReportError, TensorNotFound, stream
from weighbridge.analyses.plan import default_folder
from weighbridge.report import dumps, tables
from weighbridge.report.scan_columns import QUANTILES, SCAN
from weighbridge.report.schema import LISTS, SCALARS
from weighbridge.report.summary import summarize


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.02, shape).astype(np.float32)


def parts(report):
    return sorted(path.name for path in (report.folder / "tables" / "scan").iterdir())


class TestLayout:
    def test_manifest(self, digits, scanned):
        report = scanned(digits, exclude=["z*"], include=["*.kernel", "*.bias"])
        manifest = json.loads((report.folder / "manifest.json").read_text())
        status = digits.stat()
        (file,) = manifest["files"]
        checkpoint = weighbridge.open(digits)
        assert manifest["schema_version"] == 1
        assert (manifest["source"], manifest["location"]) == ("digits_cnn", str(digits))
        assert manifest["header"] == checkpoint.header_hash
        assert (file["name"], file["size"], file["modified_ns"]) == (digits.name, status.st_size, status.st_mtime_ns)
        hashes = "".join(report.table()["content_hash"])
        assert file["content"] == blake3(hashes.encode()).hexdigest()
        assert manifest["versions"]["weighbridge"] == importlib.metadata.version("weighbridge")
        assert {"numpy", "pyarrow", "numba"} <= manifest["versions"].keys()
        analysis = manifest["analyses"]["scan"]
        assert analysis.pop("seconds") > 0
        options = {"include": ["*.bias", "*.kernel"], "exclude": ["z*"]}
        assert analysis == {"options": options, "variant": "host", "status": "complete"}

    def test_nothing_but_the_manifest_and_whole_parts(self, digits, scanned):
        report = scanned(digits)
        assert sorted(path.name for path in report.folder.iterdir()) == ["manifest.json", "tables"]
        assert parts(report) == ["part-00000.parquet"]

    def test_parts_hold_256_tensors(self, scanned):
        report = scanned({f"layers.{i}.weight": weights(2, 3, seed=i) for i in range(600)})
        assert parts(report) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
        folder = report.folder / "tables" / "scan"
        assert sorted(pq.read_metadata(path).num_rows for path in folder.iterdir()) == [88, 256, 256]
        assert pq.read_metadata(folder / "part-00000.parquet").row_group(0).num_rows <= 64
        assert list(report.table()["order"]) == list(range(600))

    def test_a_part_is_written_after_thirty_seconds(self, scanned, monkeypatch):
        monkeypatch.setattr(tables, "PART_SECONDS", 0.0)
        assert len(parts(scanned({f"t{i}": weights(3) for i in range(5)}))) == 5

    def test_long_lists_make_a_part_of_their_own(self, scanned, monkeypatch):
        monkeypatch.setattr(tables, "PART_ELEMENTS", 100)
        assert len(parts(scanned({f"t{i}": weights(7, 50, seed=i) for i in range(3)}))) == 3

    def test_types_are_those_of_the_schema(self, digits, scanned):
        schema = pq.read_schema(scanned(digits).folder / "tables" / "scan" / "part-00000.parquet")
        types = {field.name: str(field.type).replace("element: ", "") for field in schema}
        assert types == {
            column.name: column.type.replace("float64", "double").replace("float32", "float") for column in SCAN
        }


class TestReading:
    def test_table_leaves_lists_out_unless_asked(self, digits, scanned):
        report = scanned(digits)
        assert list(report.table().columns) == [*SCALARS, "tied_to"]
        assert set(report.table(lists=True).columns) - set(report.table().columns) == set(LISTS)

    def test_rows_come_in_the_order_of_the_checkpoint(self, scanned, monkeypatch):
        monkeypatch.setattr(tables, "PART_ROWS", 7)
        tree = {f"t{i:02}": weights(100_000 if i % 5 == 0 else 3, seed=i) for i in range(40)}
        report = scanned(tree)
        assert list(report.table()["name"]) == list(report) == report.names == sorted(tree)
        assert len(report) == 40

    def test_tied_to_names_the_first_of_the_same_content(self, scanned):
        x = weights(4, 6)
        tree = {
            "b.first": x,
            "c.same": x.copy(),
            "d.other_shape": x.reshape(6, 4),
            "e.other_dtype": x.view(np.int32),
            "f.other": x + 1,
            "g.same": x.copy(),
            "h.empty": x[:0],
            "i.empty": x[:0],
        }
        tied = scanned(tree).table().set_index("name")["tied_to"].dropna().to_dict()
        assert tied == {"c.same": "b.first", "g.same": "b.first"}

    def test_tied_to_survives_a_report_of_failures_alone(self, scanned):
        rows = scanned({"a": np.array(["x"]), "b": np.array(["x"])}).table()
        assert list(rows["status"]) == ["failed", "failed"]
        assert rows["tied_to"].isna().all()

    def test_one_tensor(self, scanned):
        x = weights(19, 23).astype(ml_dtypes.bfloat16)
        entry = scanned({"first": weights(3), "a.weight": x})["a.weight"]
        stored = np.sort(x.astype(np.float64).reshape(-1))
        values, counts = entry.histogram
        np.testing.assert_array_equal(np.repeat(values, counts), stored)
        assert entry.quantile(0.5) == np.quantile(stored, 0.5, method="inverted_cdf")
        shares = np.array(list(QUANTILES.values()))
        np.testing.assert_array_equal(entry.quantile(shares), [entry[column] for column in QUANTILES])
        assert entry.sparsity(0.01) == (np.abs(stored) <= 0.01).mean()
        np.testing.assert_array_equal(entry.row_absmax, np.abs(x.astype(np.float64)).max(axis=1))
        np.testing.assert_array_equal(entry.col_absmax, np.abs(x.astype(np.float64)).max(axis=0))
        for norms in (entry.row_l2, entry.col_l2, entry.row_mean, entry.col_mean):
            assert norms.dtype == np.float64
        assert (entry.row_l2.size, entry.col_l2.size, entry.row_mean.size, entry.col_mean.size) == (19, 23, 19, 23)
        assert repr(entry) == "Entry('a.weight', [19, 23], BF16, done)"

    def test_one_tensor_without_channels_or_histogram(self, scanned):
        report = scanned({"ids": np.arange(100), "bias": weights(7), "nan": np.full(3, np.nan, np.float32)})
        assert report["bias"].row_l2 is report["bias"].col_mean is None
        with pytest.raises(ValueError, match="ids: I64 with status done has no histogram"):
            report["ids"].quantile(0.5)
        assert np.isnan(report["nan"].quantile(0.5))
        assert report["nan"].histogram[0].size == 0

    def test_unknown_names(self, digits, scanned):
        report = scanned(digits)
        with pytest.raises(TensorNotFound, match="no tensor 'conv9' in this report"):
            report["conv9"]
        with pytest.raises(KeyError):
            report["conv9"]
        with pytest.raises(ReportError, match=r"no table 'spectra'; this report has: scan"):
            report.table("spectra")

    def test_rows_are_json(self, scanned):
        """Also where a channel has no finite entry, a figure has no value, or a name is strange."""
        x = weights(6, 5)
        x[2] = np.nan
        tree = {'"quoted"\n<b>': x, "huge": np.full((3, 4), 1e300), "ids": np.arange(3), "text": np.array(["x"])}
        rows = [json.loads(dumps(row)) for row in scanned(tree).rows(lists=True)]
        by_name = {row["name"]: row for row in rows}
        assert by_name.keys() == tree.keys()
        assert by_name['"quoted"\n<b>']["row_mean"][2] is None
        assert by_name['"quoted"\n<b>']["row_mean"][1] == pytest.approx(x[1].mean(), rel=2e-5, abs=1e-8)
        assert by_name["huge"]["row_l2"] == [None] * 3
        assert by_name["text"]["count"] is by_name["text"]["dtype"] is by_name["ids"]["std"] is None
        assert by_name["ids"]["max"] == 2

    def test_what_is_no_report(self, tmp_path):
        with pytest.raises(ReportError, match=r"holds no manifest\.json"):
            Report.open(tmp_path)
        (tmp_path / "manifest.json").write_text("{")
        with pytest.raises(ReportError, match="cannot be read"):
            Report.open(tmp_path)
        for other in ("[]", '{"schema_version": 99}'):
            (tmp_path / "manifest.json").write_text(other)
            with pytest.raises(ReportError, match="expected 1; scan again"):
                Report.open(tmp_path)
        (tmp_path / "manifest.json").write_text('{"schema_version": 1, "analyses": {}}')
        with pytest.raises(ReportError, match="unexpected fields"):
            Report.open(tmp_path)

    def test_a_damaged_part(self, digits, scanned):
        report = scanned(digits)
        part = report.folder / "tables" / "scan" / "part-00000.parquet"
        part.write_bytes(part.read_bytes()[:-100])
        with pytest.raises(ReportError, match="a part cannot be read"):
            report.table()

    def test_summary(self, scanned):
        x = weights(8, 8).astype(ml_dtypes.bfloat16)
        x[0, 0], x[1, 1] = np.nan, np.inf
        tree = {
            "a.weight": x,
            "b.weight": weights(4),
            "b.weight_scale": np.ones(4, np.float32),
            "ids": np.arange(3),
            "text": np.array(["x"]),
        }
        summary = summarize(scanned(tree).table())
        assert (summary.tensors, summary.failed, summary.parameters, summary.quantised) == (5, 1, 68, 4)
        assert summary.nbytes == 128 + 16 + 16 + 24
        assert summary.bytes_by_dtype == {"BF16": 128, "F32": 32, "I64": 24}
        assert (summary.nan, summary.inf) == (1, 1)
        counts = np.unique(x.view(np.uint16), return_counts=True)[1] / 64
        assert summary.entropy == pytest.approx(-(counts * np.log2(counts)).sum(), rel=1e-12)
        fields = [x.view(np.uint16).reshape(-1) >> 7 & 0xFF, tree["b.weight"].view(np.uint32) >> 23 & 0xFF]
        entropies = [(p := np.unique(f, return_counts=True)[1] / f.size) @ -np.log2(p) for f in fields]
        saved = (8 - entropies[0]) * 64 + (8 - entropies[1]) * 4
        assert summary.exponent_saving == pytest.approx(saved / (64 * 16 + 4 * 32), rel=1e-12)


class TestOtherTools:
    def test_pandas_reads_the_folder(self, digits, scanned):
        report = scanned(digits)
        frame = pd.read_parquet(report.folder / "tables" / "scan")
        assert set(frame["name"]) == set(report)
        assert frame["histogram_counts"].map(sum).sum() == frame["count"].sum() - frame["zeros"].sum()

    def test_a_growing_report_is_readable(self, tmp_path, monkeypatch):
        """Whenever it is looked at: whole rows, in whole parts, and nothing of the part being written."""
        monkeypatch.setattr(tables, "PART_ROWS", 4)
        folder = tmp_path / "report"
        table = folder / "tables" / "scan"
        seen = []
        write = pq.write_table

        def look(part, path, **options):
            write(part, path, **options)
            hidden = Path(path).name
            assert hidden.startswith(".")
            growing = Report.open(folder)
            assert not growing.complete
            names = sorted(growing.table()["name"]) if seen else []
            if seen:
                assert sorted(pd.read_parquet(table)["name"]) == names
                assert sorted(pyarrow.dataset.dataset(table).to_table()["name"].to_pylist()) == names
            seen.append(len(names))

        monkeypatch.setattr(pq, "write_table", look)
        report = weighbridge.scan({f"t{i:02}": weights(5, seed=i) for i in range(30)}, report=folder, device="cpu")
        assert seen == [0, 4, 8, 12, 16, 20, 24, 28]
        assert report.complete
        assert len(report) == 30


class TestSize:
    """The bar: 16 kB a bfloat16 tensor, 32 kB a float32 tensor, and 8 B a channel."""

    @staticmethod
    def bytes_of(report):
        return sum(path.stat().st_size for path in (report.folder / "tables" / "scan").iterdir())

    @staticmethod
    def channels_of(report):
        rows = report.table(lists=True)
        return sum(len(norms) for column in ("row_l2", "col_l2") for norms in rows[column] if norms is not None)

    @pytest.mark.parametrize(("dtype", "bound"), [("BF16", 16_000), ("F32", 32_000)])
    def test_a_real_transformer(self, dtype, bound, minilm, scanned):
        arrays = {tensor.name: tensor.read() for tensor in weighbridge.open(minilm).values()}
        if dtype == "BF16":
            arrays = {name: x.astype(ml_dtypes.bfloat16) if x.dtype == np.float32 else x for name, x in arrays.items()}
        report = scanned(arrays)
        allowed = len(report) * bound + 8 * self.channels_of(report)
        assert self.bytes_of(report) <= allowed

    @pytest.mark.parametrize(("dtype", "bound"), [("BF16", 16_000), ("F32", 32_000)])
    def test_its_large_matrices_alone(self, dtype, bound, minilm, scanned):
        """The matrices that fill the most bins, without the small tensors that would hide them in a mean."""
        large = [tensor for tensor in weighbridge.open(minilm).values() if tensor.count >= 384 * 384]
        assert len(large) > 30
        arrays = {
            tensor.name: tensor.read().astype(ml_dtypes.bfloat16 if dtype == "BF16" else np.float32) for tensor in large
        }
        report = scanned(arrays)
        assert self.bytes_of(report) <= len(report) * bound + 8 * self.channels_of(report)

    @pytest.mark.parametrize(
        ("dtype", "bound"), [(ml_dtypes.bfloat16, 16_000), (np.float32, 32_000)], ids=["BF16", "F32"]
    )
    def test_its_largest_matrix_in_a_report_of_its_own(self, dtype, bound, minilm, scanned):
        """One row, with all that a file of Parquet adds to it."""
        words = max(weighbridge.open(minilm).values(), key=lambda tensor: tensor.count)
        report = scanned({words.name: words.read().astype(dtype)})
        assert self.channels_of(report) == 30522 + 384
        assert self.bytes_of(report) <= bound + 8 * self.channels_of(report)


class TestPlace:
    def test_the_default_folder_is_named_after_the_source(self, digits, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        report = weighbridge.scan(digits, device="cpu")
        checkpoint = weighbridge.open(digits)
        assert report.folder == default_folder(checkpoint)
        assert report.folder.name == f"digits_cnn-{checkpoint.header_hash[:8]}"
        assert tmp_path in report.folder.parents

    def test_a_complete_report_is_returned_without_reading(self, digits, tmp_path, monkeypatch):
        first = weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
        before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
        monkeypatch.setattr(stream, "run", lambda *args, **options: pytest.fail("read again"))
        again = weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
        assert again.table().equals(first.table())
        assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before

    def test_other_options_are_refused(self, digits, tmp_path):
        weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
        for other in ({"include": ["*.bias"]}, {"exclude": ["*.bias"]}):
            with pytest.raises(ReportError, match="other files or options; use --overwrite or another --report"):
                weighbridge.scan(digits, report=tmp_path / "report", **other)
            with pytest.raises(ReportError, match="other files or options"):
                weighbridge.scan(digits, report=tmp_path / "report", if_exists="resume", **other)

    @pytest.mark.parametrize("change", ["content", "header"])
    def test_another_file_is_refused(self, change, tmp_path):
        np.savez(tmp_path / "a.npz", x=weights(4, 6))
        weighbridge.scan(tmp_path / "a.npz", report=tmp_path / "report", device="cpu")
        shape = (4, 6) if change == "content" else (6, 4)
        np.savez(tmp_path / "a.npz", x=weights(*shape, seed=1))
        with pytest.raises(ReportError, match="other files or options"):
            weighbridge.scan(tmp_path / "a.npz", report=tmp_path / "report", device="cpu")

    def test_weights_in_memory_are_never_taken_for_those_scanned_before(self, tmp_path):
        """They have no time of change: equal names and shapes say nothing about their values."""
        weighbridge.scan({"x": np.zeros(5)}, report=tmp_path / "report", device="cpu")
        for if_exists in ("reuse", "resume"):
            with pytest.raises(ReportError, match="use --overwrite or another --report"):
                weighbridge.scan({"x": np.ones(5)}, report=tmp_path / "report", device="cpu", if_exists=if_exists)
        again = weighbridge.scan({"x": np.ones(5)}, report=tmp_path / "report", device="cpu", if_exists="overwrite")
        assert again["x"]["max"] == 1

    def test_overwrite_starts_anew(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "PART_ROWS", 4)
        weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
        np.savez(tmp_path / "a.npz", x=weights(4, 6))
        again = weighbridge.scan(tmp_path / "a.npz", report=tmp_path / "report", device="cpu", if_exists="overwrite")
        assert list(again) == ["x"]
        assert again.manifest.source == "a"
        assert parts(again) == ["part-00000.parquet"]

    @pytest.mark.parametrize("old", ["{", "[]", '{"schema_version": 0}'])
    def test_overwrite_replaces_what_this_version_cannot_read(self, old, digits, tmp_path):
        weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
        (tmp_path / "report" / "manifest.json").write_text(old)
        with pytest.raises(ReportError):
            weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
        again = weighbridge.scan(digits, report=tmp_path / "report", device="cpu", if_exists="overwrite")
        assert again.complete
        assert again["head.bias"]["status"] == "done"

    @pytest.mark.parametrize("if_exists", ["reuse", "resume", "overwrite"])
    def test_a_folder_that_is_no_report_is_left_alone(self, if_exists, digits, tmp_path):
        precious = tmp_path / "folder" / "tables" / "scan" / "precious.txt"
        precious.parent.mkdir(parents=True)
        precious.write_text("precious")
        with pytest.raises(ReportError, match=r"holds no manifest\.json"):
            weighbridge.scan(digits, report=tmp_path / "folder", if_exists=if_exists)
        assert precious.read_text() == "precious"

    @pytest.mark.parametrize("if_exists", ["reuse", "resume", "overwrite"])
    def test_a_file_in_the_place_of_the_folder(self, if_exists, digits, tmp_path):
        (tmp_path / "report").write_text("precious")
        with pytest.raises(ReportError, match="Not a directory; choose another --report"):
            weighbridge.scan(digits, report=tmp_path / "report", if_exists=if_exists)
        assert (tmp_path / "report").read_text() == "precious"

    def test_an_empty_folder_is_taken(self, digits, tmp_path):
        assert weighbridge.scan(digits, report=tmp_path, device="cpu").complete

    def test_a_source_without_tensors(self, scanned):
        report = scanned({})
        assert report.complete
        assert (len(report), len(report.table())) == (0, 0)
        assert list(report.table().columns) == [*SCALARS, "tied_to"]
        assert "0 tensors" in report._repr_html_()


class Tags(HTMLParser):
    """The tags of a page in order, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


class TestNotebook:
    """HTML that is well-formed, escaped and stands by itself."""

    HOSTILE = '<script>alert("1")</script>&amp;\'"'

    @staticmethod
    def checked(page):
        ET.fromstring(page)
        tags = Tags(page)
        assert "script" not in tags.tags
        assert "http" not in page
        return "".join(tags.text)

    def test_report(self, scanned):
        tree = {self.HOSTILE: weights(30, 40), "b": np.array(["x"])} | {
            f"t{i:02}": weights(3, seed=i) for i in range(25)
        }
        text = self.checked(scanned(tree)._repr_html_())
        assert self.HOSTILE in text
        assert "27 tensors" in text
        assert "7 more tensors" in text

    def test_an_incomplete_report_says_so(self, tmp_path):
        def stop(now):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            weighbridge.scan({"x": weights(5)}, report=tmp_path / "report", device="cpu", progress=stop)
        assert "(incomplete)" in self.checked(Report.open(tmp_path / "report")._repr_html_())

    @pytest.mark.parametrize(
        "array",
        [
            weights(19, 23),
            weights(19, 23).astype(ml_dtypes.float8_e4m3fn),
            np.full((4, 5), 2.0, np.float32),
            np.full(3, np.nan, np.float32),
            np.zeros(0, np.float32),
            np.arange(7),
            np.array([1 + 2j]),
            np.array([True]),
            np.array(["x"]),
        ],
        ids=["F32", "F8", "constant", "nan", "empty", "I64", "complex", "bool", "failed"],
    )
    def test_entry(self, array, scanned):
        entry = scanned({self.HOSTILE: array})[self.HOSTILE]
        page = entry._repr_html_()
        text = self.checked(page)
        assert self.HOSTILE in text
        assert ("<svg" in page) == (array.shape == (19, 23))
        if entry["status"] == "failed":
            assert "holds no weights" in text
        else:
            assert f"count{array.size:,}" in text

    def test_the_picture_has_the_shape_of_the_distribution(self, scanned):
        """Bars between the outer quantiles, the tallest as high as the picture, as many as bins are filled."""
        x = np.concatenate([np.full(600, -1.0), np.full(300, 0.0), np.full(100, 1.0)]).astype(np.float32)
        page = scanned({"x": x})["x"]._repr_html_()
        bars = [rect.attrib for rect in ET.fromstring(page).iter("rect")]
        assert [float(bar["height"]) for bar in bars] == [120, 60, 20]
        assert [float(bar["x"]) for bar in bars] == [0, 240, 476]
        assert [text.text for text in ET.fromstring(page).iter("text")] == ["-1", "1"]
