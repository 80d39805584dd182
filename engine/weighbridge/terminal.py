"""What a person sees in a terminal: the table of tensors, the model's summary, findings, progress."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from weighbridge.errors import BadArgument
from weighbridge.report.schema import HEADLINES
from weighbridge.report.summary import Summary, summarize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from weighbridge.analyses.findings import Finding
    from weighbridge.analyses.plan import Plan, Progress
    from weighbridge.circuit import Circuit, Unit
    from weighbridge.report import Projection, Report

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_ROWS = 40
_BARS = " ▁▂▃▄▅▆▇█"
_BAR_CHARACTERS = 16
_PICTURED = (
    "name",
    "dtype",
    "effective_dtype",
    "status",
    "zeros",
    "min",
    "max",
    "q001",
    "q999",
    "histogram_bins",
    "histogram_counts",
)


class PlainConsole(Console):
    """A console that leaves a closed pipe to the caller; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_report(console: Console, report: "Report", *, sort: str = "nbytes", limit: int = _ROWS) -> None:
    """The summary, the table of tensors and the failures of a report."""
    rows = report.table("scan")
    ordered = sorted_rows(rows, sort)
    console.print(summary_panel(report, summarize(rows)), end="\n\n")
    console.print(tensor_table(report, ordered, limit))
    failed = rows[rows["status"] != "done"]
    for name, reason in zip(failed["name"], failed["reason"], strict=True):
        console.print(f"[red]failed[/red] {escape(printable(name))}: {escape(printable(reason))}", soft_wrap=True)


def sorted_rows(rows: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """Largest first for figures, alphabetical for text; ties in checkpoint order. Raises `BadArgument`."""
    if column not in rows.columns or column == "shape":
        raise BadArgument(
            f"cannot sort by {column!r}; expected one of {', '.join(c for c in rows.columns if c != 'shape')}"
        )
    text = rows[column].dtype == object or str(rows[column].dtype) in ("str", "string")
    return rows.sort_values(column, ascending=text or column in ("order", "layer"), kind="stable")


def summary_panel(report: "Report", summary: Summary) -> RenderableType:
    """The model in a few lines."""
    manifest = report.manifest
    analysis = manifest.analyses["scan"]
    state = "" if report.complete else "  [yellow](incomplete)[/yellow]"
    lines = [
        f"[bold]{escape(printable(manifest.source))}[/bold]  {summary.tensors:,} tensors, "
        f"{summary.parameters:,} parameters, {size(summary.nbytes)}{state}",
        "stored as  " + ("  ".join(f"{name} {size(n)}" for name, n in summary.bytes_by_dtype.items()) or "nothing"),
    ]
    if summary.quantised:
        lines.append(f"quantised  {summary.quantised:,} entries are codes or scales, not counted as parameters")
    if summary.entropy is not None:
        lines.append(f"entropy    {summary.entropy:.2f} bits a weight (16-bit and narrower tensors)")
    if summary.exponent_saving is not None:
        lines.append(f"exponents  lossless coding of exponents would save {summary.exponent_saving:.1%} of the bytes")
    colour = "red" if summary.nan or summary.inf else "green"
    lines.append(f"finite     [{colour}]{summary.nan:,} NaN, {summary.inf:,} Inf[/{colour}]")
    if summary.failed:
        lines.append(f"[red]failed     {summary.failed:,} tensors, listed below[/red]")
    lines.append(
        f"[dim]report     {escape(printable(report.folder))}  ({analysis.variant}, {analysis.seconds:.1f} s)[/dim]"
    )
    return Text.from_markup("\n".join(lines))


def tensor_table(report: "Report", rows: "pd.DataFrame", limit: int) -> Table:
    """One line a tensor with its distribution as a small picture; the first `limit` (all for 0)."""
    shown = rows.head(limit) if limit else rows
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("tensor", "role", "dtype", "shape"):
        table.add_column(title, overflow="fold", no_wrap=title != "tensor")
    for title in ("bytes", "mean", "std", "absmax", "zeros", "kurt", "int4", "fp8"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("distribution", no_wrap=True)
    pictures = _pictures(report, list(shown["name"]))
    for row in shown.to_dict("records"):
        name = Text(printable(row["name"]), style="red" if row["status"] != "done" else "")
        dtype = "" if row["dtype"] is None or row["dtype"] != row["dtype"] else str(row["dtype"])
        table.add_row(
            name,
            str(row["role"]),
            dtype,
            "×".join(str(side) for side in row["shape"]) or ("scalar" if dtype else ""),
            size(row["nbytes"]),
            _number(row["mean"]),
            _number(row["std"]),
            _number(row["absmax"]),
            _share(row["zeros"], row["count"]),
            _number(row["kurtosis"]),
            _percent(row["qerr_int4_32"]),
            _percent(row["qerr_fp8_e4m3"]),
            pictures.get(row["name"], ""),
        )
    if len(shown) < len(rows):
        table.caption = f"{len(rows) - len(shown):,} more tensors; --limit 0 shows all"
        table.caption_justify = "left"
    return table


def print_matrices(console: Console, report: "Report", name: str, *, limit: int = _ROWS) -> None:
    """A line a matrix in checkpoint order by the headlines of a table, and how many tensors were left out, and why."""
    rows = report.table(name)
    found = rows[rows["status"] == "done"]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("tensor", "part", "role", "shape"):
        table.add_column(title, overflow="fold", no_wrap=title != "tensor")
    for title in HEADLINES[name]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in (found.head(limit) if limit else found).to_dict("records"):
        figures = [_figure(row[key]) for key in HEADLINES[name]]
        shape = "×".join(map(str, _sides(row)))
        table.add_row(
            Text(printable(row["name"])), Text(printable(row["part"])), str(row.get("role", "")), shape, *figures
        )
    if limit and len(found) > limit:
        table.caption = f"{len(found) - limit:,} more rows; --limit 0 shows all"
        table.caption_justify = "left"
    console.print(table)
    skipped = rows[rows["status"] == "skipped"]
    if len(skipped):
        why = "; ".join(f"{count:,} {reason}" for reason, count in skipped["reason"].value_counts().head(5).items())
        console.print(f"[dim]left out: {escape(printable(why))}[/dim]", soft_wrap=True)
    failed = rows[rows["status"] == "failed"]
    for tensor, part, reason in zip(failed["name"], failed["part"], failed["reason"], strict=True):
        what = f"{tensor}[{part}]" if part else tensor
        why = reason.removeprefix(f"{tensor}: ")
        console.print(f"[red]failed[/red] {escape(printable(what))}: {escape(printable(why))}", soft_wrap=True)
    console.print(f"[dim]report     {escape(printable(report.folder))}[/dim]")


def _sides(row: Mapping[Any, Any]) -> Any:
    """Rows and columns of a row's matrix; of one without these the sides of its shape."""
    sides = row.get("rows"), row.get("cols")
    if all(isinstance(side, int) for side in sides):
        return sides
    shape = row.get("shape")
    return () if shape is None else shape


def print_projection(console: Console, report: "Report", found: "Projection", named: Callable[[int], str]) -> None:
    """The quality of a map, and its clusters with their medoids by name; `named` gives what a point is called."""
    console.print(f"[bold]{escape(printable(found.name))}[/bold]  {escape(printable(found.part))}", soft_wrap=True)
    console.print("  ".join(found.quality), soft_wrap=True)
    left_out = [f"{found[why]:,} {text}" for why, text in (("dead", "of zeros"), ("not_finite", "with NaN or Inf"))]
    if found["dead"] or found["not_finite"]:
        console.print(f"[yellow]left out: {', '.join(left_out)}[/yellow]")
    if len(found.clusters.sizes):
        console.print(_cluster_table(found, named))
    if found["unclustered"]:
        console.print(f"[dim]in no cluster: {found['unclustered']:,}[/dim]")
    console.print(f"[dim]report     {escape(printable(report.folder))}[/dim]", soft_wrap=True)


def _cluster_table(found: "Projection", named: Callable[[int], str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("cluster", "size", "cosine"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("medoid", overflow="fold")
    table.add_column(f"{'columns' if found['side'] == 'rows' else 'rows'} that set it apart, in standard deviations")
    held = found.clusters
    for label in range(len(held.sizes)):
        apart = (f"{c}: {z:+.1f}" for c, z in zip(held.columns[label], held.deviations[label], strict=True))
        medoid = Text(printable(named(int(held.medoids[label]))))
        cosine = _number(held.similarities[label])
        table.add_row(str(label), f"{held.sizes[label]:,}", cosine, medoid, "  ".join(apart))
    return table


def circuit_tree(found: "Circuit") -> Tree:
    """A circuit as a tree: under each unit what it leads to, the strongest first; one met before is not opened."""
    shown: set[Unit] = set()
    leading: dict[Unit, list[tuple[float, Unit]]] = {}
    for edge, (opener, other) in found.openers().items():
        leading.setdefault(opener, []).append((edge.weight, other))

    def grow(branch: Tree, unit: "Unit") -> None:
        if unit in shown:
            return
        shown.add(unit)
        for weight, other in sorted(leading.get(unit, []), key=lambda pair: -abs(pair[0])):
            colour = "red" if weight > 0 else "blue"
            name = escape(printable(f"{other.layer} {found.label(other)}"))
            grow(branch.add(f"[{colour}]{weight:+.3g}[/{colour}] {name}"), other)

    root = Tree(escape(printable(f"{found.unit.layer} {found.label(found.unit)}")))
    grow(root, found.unit)
    return root


def inputs_table(weights: "npt.NDArray[np.floating]", *, limit: int) -> Table:
    """The strongest inputs of weights [*kernel, inputs]: norm, sum, and the kernel's size."""
    import numpy as np

    flat = weights.reshape(-1, weights.shape[-1])
    norms, sums = np.sqrt(np.square(flat).sum(axis=0)), flat.sum(axis=0)
    size = " × ".join(map(str, weights.shape[:-1])) or "1"
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in (f"input of {len(norms):,}", "norm", f"sum over {size}"):
        table.add_column(name, justify="right")
    for i in np.argsort(-norms, kind="stable")[:limit]:
        table.add_row(str(i), f"{norms[i]:.4g}", f"{sums[i]:+.4g}")
    return table


def findings_table(found: list["Finding"]) -> RenderableType:
    """Findings, worst first, each with its evidence."""
    if not found:
        return Text("no findings", style="green")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for finding in found:
        count = f"{len(finding.rows):,} tensor{'s' if len(finding.rows) > 1 else ''}"
        evidence = Text(printable(finding.evidence), style="dim")
        what = Text.assemble(f"{finding.summary} ({count})\n", evidence)
        table.add_row(Text(finding.severity, style=_COLOURS[finding.severity]), finding.check, what)
    return table


def plan_text(plan: "Plan") -> str:
    """What a scan would read and write."""
    lines = [
        f"source   {plan.checkpoint!r}",
        f"read     {len(plan.remaining):,} of {len(plan.checkpoint):,} tensors, {size(plan.nbytes)}"
        + (f"; {plan.excluded:,} left out by --include and --exclude" if plan.excluded else ""),
        f"write    {plan.folder}",
    ]
    if plan.finished is not None:
        lines[1] = "read     nothing: the report is complete"
    if plan.faults:
        lines.append(f"faults   {len(plan.faults):,} tensors cannot be read; first: {plan.faults[0].reason}")
    return "\n".join(map(printable, lines))


@contextmanager
def progress_bar(console: Console, doing: str = "scanning") -> Iterator[Callable[["Progress"], None]]:
    """A bar with bytes, rate and time left; on what is no terminal a line every ten seconds."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = [
        TextColumn(doing),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[tensors]}"),
    ]
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scan", total=None, tensors="")
        lines = _progress_lines(console, doing)

        def show(now: "Progress") -> None:
            if console.is_terminal:
                tensors = f"{now.tensors_done:,}/{now.tensors_total:,} tensors"
                bar.update(task, completed=now.bytes_done, total=now.bytes_total, tensors=tensors)
            else:
                lines(now)

        yield show


def _progress_lines(console: Console, doing: str, every: float = 10.0) -> Callable[["Progress"], None]:
    import time

    began = last = time.monotonic()

    def show(now: "Progress") -> None:
        nonlocal last
        moment = time.monotonic()
        if moment - last < every:
            return
        last = moment
        rate = now.bytes_done / (moment - began)
        left = (now.bytes_total - now.bytes_done) / rate if rate else 0.0
        console.print(
            f"{doing} {size(now.bytes_done)} of {size(now.bytes_total)}, {size(int(rate))}/s, {left:.0f} s left, "
            f"{now.tensors_done:,}/{now.tensors_total:,} tensors",
            highlight=False,
        )

    return show


def printable(text: Any) -> str:
    """Text out of a file, with what a terminal would obey (escape sequences, line breaks) spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def size(nbytes: Any) -> str:
    """Bytes in binary units: 4.0 GiB."""
    if nbytes is None or nbytes != nbytes:
        return ""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def sparkline(values: Any, counts: Any, low: float, high: float) -> str:
    """Counts in equal bins between two bounds as block characters, tallest bin full."""
    import numpy as np

    bins, _ = np.histogram(values, bins=_BAR_CHARACTERS, range=(low, high), weights=counts)
    scaled = np.ceil(bins / max(bins.max(), 1) * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[level] for level in scaled)


def _pictures(report: "Report", names: list[str]) -> dict[str, str]:
    """Distributions between the 0.001 and 0.999 quantiles, by name."""
    pictures = {}
    for entry in report.entries(names, _PICTURED):
        low, high = entry["q001"], entry["q999"]
        if entry["histogram_bins"] is not None and low is not None and low < high:
            values, counts = entry.histogram
            inside = (values >= low) & (values <= high)
            pictures[entry.name] = sparkline(values[inside], counts[inside], low, high)
    return pictures


def _number(value: Any) -> str:
    return "" if value is None or value != value else f"{value:.3g}"


def _figure(value: Any) -> str:
    """Text as it is, whole numbers whole, others to three digits."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else _number(value)


def _share(part: Any, whole: Any) -> str:
    if part is None or part != part or not whole:
        return ""
    return "0" if part == 0 else _percent(part / whole)


def _percent(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.2%}" if value >= 5e-5 else f"{value:.0e}"
