"""A scan that is killed, interrupted, out of disk or out of file leaves what it finished, and the next one goes on."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import weighbridge
from weighbridge import Report, ReportError
from weighbridge.analyses import scan as analysis
from weighbridge.checkpoints.local_file import LocalFile
from weighbridge.cli import app
from weighbridge.report import manifest, tables

SLOW_SCAN = """
import sys, time
from weighbridge import cli, stream
from weighbridge.checkpoints.local_file import LocalFile
from weighbridge.report import tables

read_into = LocalFile.read_into

def slow(self, buffer, offset):
    time.sleep(0.004)
    read_into(self, buffer, offset)

LocalFile.read_into = slow
tables.PART_ROWS = 5
stream.BATCH_PIECES = 3
sys.argv[0] = "weighbridge"
cli.main()
"""
"""The command line, with a disk so slow and parts so small that a kill finds it at work."""

DYING_SCANS = """
import os, shutil, signal, sys
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import weighbridge
from weighbridge.analyses import scan_summary
from weighbridge.matrix import matrix_view
from weighbridge.report import tables
from weighbridge.stream import pieces
from weighbridge_kernels import variants

source, before, deaths, if_exists = sys.argv[1:]
tables.PART_ROWS = 15
x = np.arange(12, dtype=np.float32).reshape(3, 4)  # every kernel once, so that no child has to load it
(piece,) = pieces(weighbridge.open({"x": x})["x"], 4)
scan_summary.summarize(piece, x.reshape(-1).view(np.uint8), matrix_view("x", x.shape, "other"), variants.host())


def dying(change, left):
    def changed(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **options)

    return changed


for steps in count():
    report = Path(deaths) / f"{steps:03}"
    if Path(before).exists():
        shutil.copytree(before, report)
    child = os.fork()
    if child == 0:
        left = [steps]
        for home, name in [(Path, "replace"), (Path, "unlink"), (os, "unlink"), (os, "rmdir"), (Path, "mkdir")]:
            setattr(home, name, dying(getattr(home, name), left))
        Path.write_text = dying(Path.write_text, left)
        pq.write_table = dying(pq.write_table, left)
        weighbridge.scan(source, report=report, if_exists=if_exists, device="cpu")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != signal.SIGKILL:
        sys.exit(status != 0)
"""
"""Scans in processes of their own: the n-th kills itself at its n-th change to a file, until one gets through."""

TENSORS = 240
TENSORS_OF_FEW = 40


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, digits):
    """Many tensors, made of the real ones in the package, each rolled by its number."""
    arrays = [tensor.read() for tensor in weighbridge.open(digits).values()]
    path = tmp_path_factory.mktemp("source") / "many.npz"
    np.savez(path, **{f"layers.{i}.weight": np.roll(arrays[i % len(arrays)], i) for i in range(TENSORS)})
    return path


@pytest.fixture(scope="module")
def undisturbed(checkpoint, tmp_path_factory):
    """The rows of a scan that nobody interrupted."""
    report = weighbridge.scan(checkpoint, report=tmp_path_factory.mktemp("undisturbed") / "report", device="cpu")
    return list(report.rows(lists=True))


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "slow_scan.py"
    path.write_text(SLOW_SCAN)
    return path


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, str(script), "scan", *map(str, arguments), "--device", "cpu", "--limit", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished_names(report):
    """Names of the rows that lie in whole parts, read without Weighbridge."""
    return [name for part in parts_of(report) for name in pq.read_table(part, columns=["name"])["name"].to_pylist()]


def parts_of(report):
    return sorted((report / "tables" / "scan").glob("part-*.parquet"))


def hidden_files(report):
    return [path.name for path in report.rglob(".*")]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


class TestKilled:
    @pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
    def test_at_random_moments(self, kills, checkpoint, undisturbed, script, tmp_path):
        """Each killed run is resumed by the next; when one gets through, the table is what it would have been."""
        moments = random.Random(0)
        reports = (tmp_path / f"report-{i}" for i in count())
        report = next(reports)
        at_work = 0
        for _ in range(kills):
            before = finished_names(report)
            kill_at_work(script, checkpoint, report, moments.randrange(12), moments.uniform(0.0, 0.1))
            kept = finished_names(report)
            assert kept[: len(before)] == before
            assert len(set(kept)) == len(kept)
            at_work += len(before) < len(kept) < TENSORS
            if len(kept) == TENSORS:
                assert_finished(checkpoint, undisturbed, report)
                report = next(reports)
        assert at_work >= kills // 2
        assert_finished(checkpoint, undisturbed, report)

    @pytest.mark.parametrize(
        "beginning",
        [
            "interrupted",
            *(pytest.param(b, marks=pytest.mark.slow) for b in ("nothing", "failures", "complete", "another")),
        ],
    )
    def test_at_every_step_that_changes_a_file(self, beginning, few, tmp_path):
        """Every writing, renaming and removal of a file in turn is the last thing that a run does.

        It resumes from nothing, from an interrupted report or from a complete one with failures, or it overwrites a
        complete one of its own or of another checkpoint. Whatever it leaves must not say that it is complete unless
        it is, and a second run with the same option must finish it.
        """
        before = tmp_path / "before"
        another = tmp_path / "another.npz"
        np.savez(another, **{f"layers.{i}.weight": np.ones(3) for i in range(7)})
        if beginning != "nothing":
            weighbridge.scan(another if beginning == "another" else few, report=before, device="cpu")
        if beginning in ("interrupted", "failures"):
            damage(before, {"interrupted": "incomplete", "failures": "complete"}[beginning])
        if_exists = "overwrite" if beginning in ("complete", "another") else "resume"
        expected = list(weighbridge.scan(few, report=tmp_path / "expected", device="cpu").rows(lists=True))
        deaths = tmp_path / "deaths"
        command = [sys.executable, "-c", DYING_SCANS, few, before, deaths, if_exists]
        subprocess.run([str(word) for word in command], check=True)
        wrecks = sorted(deaths.iterdir())
        assert len(wrecks) > 12
        for wreck in wrecks:
            if (wreck / manifest.FILE).exists():
                report = Report.open(wreck)
                rows = {"few": TENSORS_OF_FEW, "another": 7}[report.manifest.source]
                assert not report.complete or len(report.table()) == rows, wreck.name
            assert_finished(few, expected, wreck, if_exists)


def kill_at_work(script, checkpoint, report, parts, delay):
    """Resumes a scan and kills it some time after it has opened its report and written some parts."""
    opened, written = written_at(report / manifest.FILE), len(parts_of(report))
    process = start(script, checkpoint, "--report", report, "--resume")
    wait_for(lambda: process.poll() is not None or written_at(report / manifest.FILE) != opened)
    wait_for(lambda: process.poll() is not None or len(parts_of(report)) >= written + parts)
    time.sleep(delay)
    process.kill()
    _, stderr = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), stderr


def written_at(path):
    return path.stat().st_mtime_ns if path.exists() else None


def assert_finished(checkpoint, expected, report, if_exists="resume"):
    """One more run makes the report what it would have been, and leaves nothing else."""
    result = weighbridge.scan(checkpoint, report=report, if_exists=if_exists, device="cpu")
    assert result.complete
    assert list(result.rows(lists=True)) == expected
    assert hidden_files(report) == []


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A checkpoint of a few small tensors."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    rng = np.random.default_rng(0)
    np.savez(path, **{f"layers.{i}.weight": rng.normal(size=(5, i)).astype(np.float32) for i in range(TENSORS_OF_FEW)})
    return path


def damage(report, status):
    """Makes of a complete report one in two parts with failed rows; of an interrupted one rows are missing too."""
    path = report / manifest.FILE
    fields = json.loads(path.read_text())
    fields["analyses"]["scan"]["status"] = status
    path.write_text(json.dumps(fields))
    (part,) = (report / "tables" / "scan").iterdir()
    table = pq.ParquetFile(part).read()
    reasons = ["failed" if i % 10 == 3 else "done" for i in range(table.num_rows)]
    table = table.set_column(table.schema.get_field_index("status"), "status", [reasons])
    pq.write_table(table.slice(0, 20), part)
    pq.write_table(table.slice(20, 5 if status == "incomplete" else 20), part.with_name("part-00001.parquet"))


class TestInterrupted:
    def test_by_the_keyboard(self, checkpoint, undisturbed, script, tmp_path):
        report = tmp_path / "report"
        process = start(script, checkpoint, "--report", report)
        wait_for(lambda: process.poll() is not None or len(finished_names(report)) >= 10)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        assert stderr == "weighbridge: interrupted; finished parts are kept, go on with --resume\n"
        assert stdout == ""
        kept = finished_names(report)
        assert 10 <= len(kept) < TENSORS
        assert not Report.open(report).complete
        assert hidden_files(report) == []
        read = count_reads(checkpoint, report)
        assert read == TENSORS - len(kept)
        assert list(Report.open(report).rows(lists=True)) == undisturbed

    def test_a_report_is_not_finished_unasked(self, checkpoint, tmp_path):
        def stop(now):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            weighbridge.scan(checkpoint, report=tmp_path / "report", progress=stop, device="cpu")
        with pytest.raises(ReportError, match="incomplete report of this checkpoint; use --resume or --overwrite"):
            weighbridge.scan(checkpoint, report=tmp_path / "report", device="cpu")

    def test_options_stay_those_of_the_first_run(self, checkpoint, tmp_path):
        def stop(now):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            weighbridge.scan(checkpoint, report=tmp_path / "report", include=["*1*"], progress=stop, device="cpu")
        with pytest.raises(ReportError, match="other files or options"):
            weighbridge.scan(checkpoint, report=tmp_path / "report", if_exists="resume", device="cpu")

    def test_the_time_of_all_runs_adds_up(self, few, tmp_path):
        weighbridge.scan(few, report=tmp_path / "report", device="cpu")
        damage(tmp_path / "report", "incomplete")
        before = Report.open(tmp_path / "report").manifest.analyses["scan"].seconds
        report = weighbridge.scan(few, report=tmp_path / "report", if_exists="resume", device="cpu")
        assert report.manifest.analyses["scan"].seconds > before


def count_reads(checkpoint, report):
    """Finishes a report and tells how many tensors were still to be read."""
    prepared = analysis.plan(checkpoint, report=report, if_exists="resume")
    analysis.run(prepared, device="cpu")
    return len(prepared.remaining)


def scan_command(source, report, *options):
    return CliRunner().invoke(app, ["scan", str(source), "--report", str(report), "--device", "cpu", *options])


def assert_one_line(result, exit_code, *words):
    """One message on standard error, no trace, nothing on standard output."""
    assert result.exit_code == exit_code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("weighbridge: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


class TestDisk:
    def test_full_after_some_parts(self, checkpoint, undisturbed, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "PART_ROWS", 10)
        write, left = pq.write_table, iter(range(4))

        def full(table, path, **options):
            if next(left, None) is None:
                Path(path).write_bytes(b"half of a pa")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(table, path, **options)

        with monkeypatch.context() as patched:
            patched.setattr(pq, "write_table", full)
            result = scan_command(checkpoint, tmp_path / "report")
        assert_one_line(result, 2, "No space left on device", "finished parts are kept", "--resume")
        kept = finished_names(tmp_path / "report")
        assert len(kept) == 40
        assert hidden_files(tmp_path / "report") == []
        result = scan_command(checkpoint, tmp_path / "report", "--resume")
        assert result.exit_code == 0
        report = Report.open(tmp_path / "report")
        assert set(kept) < set(report)
        assert list(report.rows(lists=True)) == undisturbed

    def test_full_for_the_manifest(self, checkpoint, tmp_path, monkeypatch):
        def full(self, *args, **options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", full)
            result = scan_command(checkpoint, tmp_path / "report")
        assert_one_line(result, 2, "cannot write manifest.json", "No space left on device")
        assert scan_command(checkpoint, tmp_path / "report").exit_code == 0

    def test_a_limit_on_the_size_of_files(self, checkpoint, undisturbed, tmp_path):
        """The system's own refusal, in a process that may write files of 20 kB at most."""
        limited = (
            "import resource, signal, sys; from weighbridge import cli;"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
            "sys.argv[0] = 'weighbridge'; cli.main()"
        )
        command = [sys.executable, "-c", limited, "scan", str(checkpoint), "--report", str(tmp_path / "report")]
        done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert "File too large" in done.stderr
        assert hidden_files(tmp_path / "report") == []
        assert scan_command(checkpoint, tmp_path / "report", "--resume").exit_code == 0
        assert list(Report.open(tmp_path / "report").rows(lists=True)) == undisturbed

    def test_a_place_that_cannot_be_written(self, checkpoint, tmp_path):
        (tmp_path / "file").write_text("precious")
        result = scan_command(checkpoint, tmp_path / "file" / "report")
        assert_one_line(result, 2, "Not a directory", "choose another --report")
        assert (tmp_path / "file").read_text() == "precious"

    def test_a_file_in_the_place_of_the_report(self, checkpoint, tmp_path):
        (tmp_path / "file").write_text("precious")
        assert_one_line(scan_command(checkpoint, tmp_path / "file"), 2, "Not a directory", "choose another --report")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_the_right_to_write(self, checkpoint, tmp_path):
        (tmp_path / "locked").mkdir(mode=0o555)
        result = scan_command(checkpoint, tmp_path / "locked" / "report")
        assert_one_line(result, 2, "Permission denied", "choose another --report")


class TestSource:
    @pytest.fixture
    def source(self, digits, tmp_path):
        path = tmp_path / "network.safetensors"
        path.write_bytes(digits.read_bytes())
        return path

    def test_a_file_that_shrinks(self, source, undisturbed, tmp_path, monkeypatch):
        """What lies behind its new end fails with one clear line each; resumed when it is whole, it is done."""
        whole = source.read_bytes()
        stat = source.stat()
        checkpoint = weighbridge.open(source)
        lost = [name for name, tensor in checkpoint.items() if tensor.start + tensor.nbytes > len(whole) // 2]
        assert 0 < len(lost) < len(checkpoint)
        read_into = LocalFile.read_into

        def shrinking(self, buffer, offset):
            if self.path == source and offset > 8:
                os.truncate(source, len(whole) // 2)
            read_into(self, buffer, offset)

        plan = analysis.plan
        monkeypatch.setattr(analysis, "plan", lambda *args, **options: then_shrink(plan(*args, **options)))

        def then_shrink(prepared):
            monkeypatch.setattr(LocalFile, "read_into", shrinking)
            return prepared

        result = scan_command(source, tmp_path / "report", "--limit", "1")
        assert result.exit_code == 3
        assert result.stderr == ""
        lines = [line for line in result.stdout.splitlines() if line.startswith("failed ")]
        assert len([line for line in lines if ": " in line]) == len(lost)
        rows = Report.open(tmp_path / "report").table()
        assert set(rows.loc[rows["status"] == "failed", "name"]) == set(lost)
        for name, reason in rows.loc[rows["status"] == "failed", ["name", "reason"]].itertuples(index=False):
            assert reason.startswith(f"{name}: network.safetensors: ends at byte ")
            assert reason.endswith("; it changed while being read, restore it and try again")
            assert any(f"{name}: " in line and reason in line for line in lines)
        monkeypatch.undo()
        source.write_bytes(whole)
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        result = scan_command(source, tmp_path / "report", "--resume")
        assert result.exit_code == 0
        rows = Report.open(tmp_path / "report").table()
        assert len(rows) == len(checkpoint)
        assert set(rows["status"]) == {"done"}

    def test_a_complete_report_with_failures_is_shown_again(self, source, tmp_path, monkeypatch):
        """At once and with the same exit code, until `--resume` retries what failed."""
        read_into = LocalFile.read_into
        lost = weighbridge.open(source)["dense.bias"]

        def failing(self, buffer, offset):
            if offset < lost.start + lost.nbytes and lost.start < offset + len(buffer):
                raise weighbridge.ReadFailed(f"{self.name}: bad sector")
            read_into(self, buffer, offset)

        with monkeypatch.context() as patched:
            patched.setattr(LocalFile, "read_into", failing)
            assert scan_command(source, tmp_path / "report").exit_code == 3
        again = scan_command(source, tmp_path / "report")
        assert again.exit_code == 3
        assert "dense.bias: network.safetensors: bad sector" in again.stdout
        assert scan_command(source, tmp_path / "report", "--resume").exit_code == 0

    def test_a_shard_that_is_missing(self, tmp_path):
        save_file = pytest.importorskip("safetensors.numpy").save_file
        folder = tmp_path / "sharded"
        folder.mkdir()
        save_file({"a": np.ones(3, np.float32)}, folder / "m-1.safetensors")
        save_file({"b": np.ones(4, np.float32)}, folder / "m-2.safetensors")
        index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        shard = (folder / "m-2.safetensors").read_bytes()
        (folder / "m-2.safetensors").unlink()
        result = scan_command(folder, tmp_path / "report", "--limit", "0")
        assert result.exit_code == 3
        assert "failed b: m-2.safetensors: is missing from sharded; download it" in result.stdout.splitlines()
        assert " nan " not in result.stdout
        assert pd.isna(Report.open(tmp_path / "report").table().set_index("name").loc["b", "count"])
        (folder / "m-2.safetensors").write_bytes(shard)
        result = scan_command(folder, tmp_path / "report", "--resume")
        assert_one_line(result, 2, "other files or options")


def test_leftovers_of_a_run_killed_at_its_start_do_not_matter(checkpoint, undisturbed, tmp_path):
    report = tmp_path / "report"
    report.mkdir()
    (report / f".{manifest.FILE}.123").write_text("{")
    assert list(weighbridge.scan(checkpoint, report=report, device="cpu").rows(lists=True)) == undisturbed
    assert hidden_files(report) == []
