"""The command line. Every command is a function of the package under the same name."""

import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from weighbridge.errors import BadArgument, WeighbridgeError

if TYPE_CHECKING:
    from rich.console import Console

    from weighbridge.analyses.plan import IfExists
    from weighbridge.report import Report

Command = TypeVar("Command", bound=Callable[..., Any])

DEVICES = ("auto", "cpu", "gpu", "tpu")
DONE, BAD_CALL, SOME_FAILED, FINDINGS, INTERRUPTED = 0, 2, 3, 4, 130

app = typer.Typer(
    name="weighbridge",
    help="Weigh very large neural networks: exact statistics of every tensor of a checkpoint of any size.\n\n"
    "Example: weighbridge scan model.safetensors",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

_Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A .safetensors, .npz or .npy file, an index, or a folder.")
]
_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A report folder, as scan makes one.")]
_ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Where the report goes [default: in the user's data folder]."),
]
_Include = Annotated[
    list[str] | None, typer.Option("--include", metavar="GLOB", help="Only tensors whose name matches; repeatable.")
]
_Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="GLOB", help="No tensor whose name matches; repeatable.")
]
_Memory = Annotated[
    str, typer.Option("--memory", metavar="SIZE", help="Bound on host memory for what is read: 512MiB, 2GiB.")
]
_Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, gpu or tpu.")]
_Resume = Annotated[bool, typer.Option("--resume", help="Finish an incomplete report; retry failed tensors.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the report that is there.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be read and written; write nothing.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a tensor on standard output.")]
_Sort = Annotated[str, typer.Option("--sort", metavar="COLUMN", help="Column to sort by, largest first.")]
_Table = Annotated[
    str | None,
    typer.Option("--table", metavar="NAME", help="scan, spectra, ...; the main one by default."),
]
_Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Rows to show; 0 for all.")]


def main() -> None:
    """The entry point `weighbridge`."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("weighbridge"))
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["WEIGHBRIDGE_DEBUG"] = "1"


def _command(function: Command) -> Command:
    """Registers a command whose errors are one line and an exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt:
            _say("interrupted; finished parts are kept, go on with --resume")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(DONE) from None
        except WeighbridgeError as error:
            if os.environ.get("WEIGHBRIDGE_DEBUG"):
                traceback.print_exc()
            _say(str(error))
            raise typer.Exit(BAD_CALL) from None

    app.command()(guarded)
    return function


def _say(message: str) -> None:
    from weighbridge.terminal import printable

    print("weighbridge: " + printable(" ".join(message.split())), file=sys.stderr)


@_command
def scan(
    source: _Source,
    report: _ReportOption = None,
    include: _Include = None,
    exclude: _Exclude = None,
    memory: _Memory = "1GiB",
    device: _Device = "auto",
    resume: _Resume = False,
    overwrite: _Overwrite = False,
    dry_run: _DryRun = False,
    json: _Json = False,
    sort: _Sort = "nbytes",
    limit: _Limit = 40,
) -> None:
    """Weigh every tensor of a checkpoint and write a report.

    Example: weighbridge scan llama/ --include '*mlp*' --report mlp-report
    """
    _scan(source, report, include or [], exclude or [], memory, device, resume, overwrite, dry_run, json, sort, limit)


def _scan(
    source: Any,
    report: Path | None,
    include: list[str],
    exclude: list[str],
    memory: str,
    device: str,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    json: bool,
    sort: str,
    limit: int,
) -> None:
    from weighbridge.analyses import scan as analysis
    from weighbridge.report.schema import SCALARS
    from weighbridge.terminal import plan_text, progress_bar

    if_exists = _if_exists(resume, overwrite)
    if sort not in SCALARS or sort == "shape":
        raise BadArgument(f"cannot sort by {sort!r}; expected one of {', '.join(c for c in SCALARS if c != 'shape')}")
    if device not in DEVICES:
        raise BadArgument(f"--device {device!r}; expected {', '.join(DEVICES)}")
    bound = _bytes(memory)
    prepared = analysis.plan(source, report=report, include=include, exclude=exclude, if_exists=if_exists)
    if dry_run:
        print(plan_text(prepared))
        return
    with progress_bar(_console(stderr=True)) as progress:
        result = analysis.run(prepared, memory=bound, device=device, progress=progress)  # type: ignore[arg-type]
    _finish(result, "scan", json=json, limit=limit, sort=sort)


@_command
def spectra(
    source: _Source,
    report: _ReportOption = None,
    include: _Include = None,
    exclude: _Exclude = None,
    route: Annotated[str, typer.Option("--route", help="gram, or direct where small singular values matter.")] = "gram",
    exact_up_to: Annotated[
        int | None,
        typer.Option("--exact-up-to", min=1, metavar="N", help="Of matrices with a longer short side, only the top."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Greatest singular values of those.")] = 32,
    key: Annotated[int, typer.Option("--key", help="Seed of the random block they are found from.")] = 0,
    convolutions: Annotated[
        str, typer.Option("--convolutions", metavar="HOW", help="unfolded, slices, or circular with --input-size.")
    ] = "unfolded",
    input_size: Annotated[
        str | None, typer.Option("--input-size", metavar="HxW", help="Sides of the inputs of circular convolutions.")
    ] = None,
    attention: Annotated[
        str, typer.Option("--attention", metavar="HOW", help="whole, or heads: by config.json, a row each as well.")
    ] = "whole",
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="HOW", help="none, or permuted: beside the entries in random order.")
    ] = "none",
    compat: Annotated[
        str | None, typer.Option("--compat", metavar="NAME", help="weightwatcher: its columns by its definitions.")
    ] = None,
    device: _Device = "auto",
    resume: _Resume = False,
    overwrite: _Overwrite = False,
    dry_run: _DryRun = False,
    json: _Json = False,
    limit: _Limit = 40,
) -> None:
    """Singular values of every matrix: norms, ranks, the tail's power law, the noise under the spectrum.

    Example: weighbridge spectra model.safetensors --include '*mlp*'
    """
    from weighbridge.analyses import spectra as analysis
    from weighbridge.analyses.matrices import Attention, Convolutions
    from weighbridge.analyses.spectrum_row import Baseline, Route
    from weighbridge.terminal import plan_text, progress_bar

    _known(
        (route, get_args(Route)),
        (convolutions, get_args(Convolutions)),
        (attention, get_args(Attention)),
        (baseline, get_args(Baseline)),
        (compat, (None, *get_args(analysis.Compat))),
    )
    prepared = analysis.plan(
        source,
        report=report,
        include=include or [],
        exclude=exclude or [],
        if_exists=_if_exists(resume, overwrite),
        route=route,  # type: ignore[arg-type]
        exact_up_to=exact_up_to,
        top=top,
        key=key,
        convolutions=convolutions,  # type: ignore[arg-type]
        input_size=_sides(input_size),
        attention=attention,  # type: ignore[arg-type]
        baseline=baseline,  # type: ignore[arg-type]
        compat=compat,  # type: ignore[arg-type]
    )
    if dry_run:
        print(plan_text(prepared))
        return
    with progress_bar(_console(stderr=True), "decomposing") as progress:
        result = analysis.run(prepared, device=device, progress=progress)  # type: ignore[arg-type]
    _finish(result, prepared.table, json=json, limit=limit)


@_command
def correlate(
    source: _Source,
    report: _ReportOption = None,
    include: _Include = None,
    exclude: _Exclude = None,
    kind: Annotated[str, typer.Option("--kind", help="cosine, or pearson: less each neuron's mean.")] = "cosine",
    count: Annotated[
        int, typer.Option("--count", min=1, metavar="K", help="Most similar, and most opposed, of each neuron.")
    ] = 5,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="S", help="Similarity from which neurons count as duplicates.")
    ] = 0.99,
    between: Annotated[
        str, typer.Option("--between", help="layers: how matrices relate as well, heads and experts too; or none.")
    ] = "layers",
    key: Annotated[int, typer.Option("--key", help="Seed of what is drawn.")] = 0,
    memory: _Memory = "4GiB",
    device: _Device = "auto",
    resume: _Resume = False,
    overwrite: _Overwrite = False,
    dry_run: _DryRun = False,
    json: _Json = False,
    limit: _Limit = 40,
) -> None:
    """Which neurons do the same thing: similarities among rows and columns, groups, and what layers share.

    Example: weighbridge correlate model.safetensors --include '*attention*' --threshold 0.95
    """
    from weighbridge.analyses import correlations as analysis
    from weighbridge.terminal import plan_text, progress_bar
    from weighbridge_kernels.similar_pairs import Kind

    _known((kind, get_args(Kind)), (between, get_args(analysis.Between)))
    bound = _bytes(memory)
    prepared = analysis.plan(
        source,
        report=report,
        include=include or [],
        exclude=exclude or [],
        if_exists=_if_exists(resume, overwrite),
        kind=kind,  # type: ignore[arg-type]
        count=count,
        threshold=threshold,
    )
    if dry_run:
        print(plan_text(prepared))
        return
    with progress_bar(_console(stderr=True), "comparing") as progress:
        result = analysis.run(prepared, between=between, key=key, memory=bound, device=device, progress=progress)  # type: ignore[arg-type]
    _finish(result, prepared.table, json=json, limit=limit)


@_command
def trajectory(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Checkpoints of one network, in order; two or more.")
    ],
    report: _ReportOption = None,
    include: _Include = None,
    exclude: _Exclude = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="100,200,300", help="Theirs [default: the last number in each name]."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Leading singular values of a matrix.")] = 8,
    key: Annotated[int, typer.Option("--key", help="Seed of the random block those of large ones are found from.")] = 0,
    device: _Device = "auto",
    resume: _Resume = False,
    overwrite: _Overwrite = False,
    dry_run: _DryRun = False,
    json: _Json = False,
    limit: _Limit = 40,
) -> None:
    """How tensors move over saved checkpoints: norms, directions, spectra, and the path of all weights.

    Example: weighbridge trajectory run/step-100.safetensors run/step-200.safetensors run/step-300.safetensors
    """
    from weighbridge.analyses import trajectory as analysis
    from weighbridge.terminal import plan_text, progress_bar

    prepared = analysis.plan(
        sources,
        steps=[_whole(text.strip()) for text in steps.split(",")] if steps is not None else None,
        report=report,
        include=include or [],
        exclude=exclude or [],
        if_exists=_if_exists(resume, overwrite),
        top=top,
        key=key,
    )
    if dry_run:
        print(plan_text(prepared))
        return
    with progress_bar(_console(stderr=True), "following") as progress:
        result = analysis.run(prepared, sources, device=device, progress=progress)  # type: ignore[arg-type]
    _finish(result, prepared.table, json=json, limit=limit)


@_command
def circuits(
    source: _Source,
    unit: Annotated[str, typer.Argument(metavar="UNIT", help="tensor:index, or mlp.layer.neuron of a transformer.")],
    chain: Annotated[
        str | None, typer.Option("--chain", metavar="A,B,C", help="Tensors in the order of the network.")
    ] = None,
    expanded: Annotated[
        bool, typer.Option("--expanded", help="The weights through the whole chain, from what its first tensor reads.")
    ] = False,
    strides: Annotated[
        str | None, typer.Option("--strides", metavar="2,1,1", help="Of an expanded chain's convolutions.")
    ] = None,
    paddings: Annotated[
        str | None, typer.Option("--paddings", metavar="0,1,same", help="Of an expanded chain: pixels, same or valid.")
    ] = None,
    downstream: Annotated[bool, typer.Option("--downstream", help="What reads the unit instead.")] = False,
    top: Annotated[int, typer.Option("--top", min=1, metavar="K", help="Strongest inputs of each unit.")] = 6,
    depth: Annotated[int, typer.Option("--depth", min=1, metavar="N", help="Steps to follow.")] = 2,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw it to a .png, .svg, .pdf or .html.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a weight on standard output.")] = False,
) -> None:
    """What a unit is built from: its strongest inputs, theirs, and so on, from the weights alone.

    Example: weighbridge circuits model.safetensors head.weight:3 --depth 3 -o circuit.svg
    """
    names = chain.split(",") if chain else None
    if expanded:
        _expanded(source, unit, names, strides, paddings, top, output, json)
        return
    if strides or paddings:
        raise BadArgument("--strides and --paddings are of an expanded chain; add --expanded")
    from weighbridge.analyses.circuits import circuits as find
    from weighbridge.report import dumps
    from weighbridge.terminal import circuit_tree

    direction = "downstream" if downstream else "upstream"
    found = find(source, unit, chain=names, top=top, depth=depth, direction=direction)  # type: ignore[arg-type]
    if output is not None:
        from weighbridge.views.circuit_file import circuit_file

        circuit_file(found, output)
    if json:
        for edge in found.edges:
            ends = {"source": edge.source._asdict(), "target": edge.target._asdict()}
            print(dumps(ends | {"weight": edge.weight}))
    else:
        _console().print(circuit_tree(found))


def _expanded(
    source: str,
    unit: str,
    chain: list[str] | None,
    strides: str | None,
    paddings: str | None,
    top: int,
    output: Path | None,
    json: bool,
) -> None:
    """The strongest inputs of a unit through a chain of tensors, which ends at the unit's own."""
    from weighbridge.models.chain_weights import chain_weights
    from weighbridge.report import dumps
    from weighbridge.terminal import inputs_table

    tensor, _, number = unit.rpartition(":")
    if not number.isdecimal() or chain is None or chain[-1] != tensor:
        raise BadArgument(f"unit {unit!r}; expected tensor:index, the tensor being the last of --chain")
    moves = [_whole(text) for text in strides.split(",")] if strides else [1]
    added = [text if text in ("same", "valid") else _whole(text) for text in paddings.split(",")] if paddings else []
    found = chain_weights(
        source,
        chain,
        int(number),
        strides=moves[0] if len(moves) == 1 else moves,
        paddings=(added or ["same"])[0] if len(added) < 2 else added,
    )
    if output is not None:
        from weighbridge.views import expanded_inputs

        title = f"{unit}: strongest inputs through {', '.join(chain)}"
        expanded_inputs(found.values, count=top, title=title).save(output)
    if json:
        for channel, weights in enumerate(found.values.reshape(-1, found.values.shape[-1]).T):
            shaped = weights.reshape(found.values.shape[:-1]).tolist()
            print(dumps({"input": channel, "weights": shaped}))
    else:
        _console().print(inputs_table(found.values, limit=top))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise BadArgument(f"{text!r}; expected a whole number")
    return int(text)


def _known(*options: tuple[str | None, tuple[str | None, ...]]) -> None:
    """Raises `BadArgument` for an option's value that is none of those it may have."""
    for given, known in options:
        if given not in known:
            raise BadArgument(f"{given!r}; expected {' or '.join(str(k) for k in known if k)}")


def _sides(text: str | None) -> list[int] | None:
    """Sides written as `32x32`."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if not all(side.strip().isdecimal() for side in sides):
        raise BadArgument(f"--input-size {text!r}; expected sides such as 32x32")
    return [int(side) for side in sides]


@_command
def project(
    source: _Source,
    tensor: Annotated[str, typer.Argument(metavar="TENSOR", help="The tensor's name.")],
    method: Annotated[str, typer.Option("--method", help="pca, tsne, nmf or random.")] = "pca",
    side: Annotated[str, typer.Option("--side", help="What the points are: rows or cols.")] = "rows",
    dimensions: Annotated[int, typer.Option("--dimensions", metavar="N", help="Of the map: 2, or 3.")] = 2,
    metric: Annotated[
        str, typer.Option("--metric", help="By which points are neighbours: cosine or euclidean.")
    ] = "cosine",
    perplexity: Annotated[float, typer.Option("--perplexity", help="Neighbours that t-SNE keeps of a point.")] = 30.0,
    clusters: Annotated[str, typer.Option("--clusters", help="none, kmeans or hdbscan.")] = "none",
    cluster_count: Annotated[
        int | None, typer.Option("--cluster-count", metavar="N", help="Of kmeans [default: by the points].")
    ] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="LOW:HIGH", help="Only these rows or columns.")] = None,
    key: Annotated[int, typer.Option("--key", help="Seed of all that is random.")] = 0,
    report: _ReportOption = None,
    device: _Device = "auto",
    resume: _Resume = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make this projection anew.")] = False,
    json: _Json = False,
) -> None:
    """Lay the rows of a tensor out on a map: how far it can be trusted, neighbours, clusters.

    Example: weighbridge project model.safetensors lm_head.weight --method tsne --clusters kmeans
    """
    from weighbridge.analyses import projections as analysis
    from weighbridge.checkpoints.tokens import channel_namer, tokens
    from weighbridge.terminal import print_projection

    if device not in DEVICES:
        raise BadArgument(f"--device {device!r}; expected {', '.join(DEVICES)}")
    prepared = analysis.plan(
        source,
        tensor,
        method=method,  # type: ignore[arg-type]
        side=side,  # type: ignore[arg-type]
        dimensions=dimensions,
        metric=metric,  # type: ignore[arg-type]
        perplexity=perplexity,
        clusters=clusters,  # type: ignore[arg-type]
        cluster_count=cluster_count,
        key=key,
        rows=slice(*_pair(rows, ":", "--rows")) if rows else None,
        report=report,
        if_exists=_if_exists(resume, overwrite),
    )
    with _console(stderr=True).status("projecting") as status:
        result = analysis.run(
            prepared,
            device=device,  # type: ignore[arg-type]
            progress=lambda what, done, total: status.update(f"{what} {done / total:.0%}" if done else what),
        )
    row = next(row for row in result.rows(prepared.row.table) if (row["name"], row["part"]) == prepared.row.key)
    if json:
        from weighbridge.report import dumps

        print(dumps(row))
    elif row["status"] == "done":
        named = channel_namer(tokens(prepared.row.checkpoint), prepared.channels)
        print_projection(_console(), result, result.projection(*prepared.row.key), named)
    if row["status"] == "failed":
        _say(row["reason"])
        raise typer.Exit(SOME_FAILED)


@_command
def show(
    folder: _Folder, table: _Table = None, json: _Json = False, sort: _Sort = "nbytes", limit: _Limit = 40
) -> None:
    """Print a report again.

    Example: weighbridge show report --sort kurtosis --limit 10
    """
    from weighbridge.report import Report

    _show(Report.open(folder), table, json=json, sort=sort, limit=limit)


@_command
def findings(
    folder: _Folder,
    fail_on: Annotated[
        str | None,
        typer.Option("--fail-on", metavar="SEVERITY", help="Exit with 4 at findings of error, warning or info."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a finding on standard output.")] = False,
) -> None:
    """List what a reviewer wants to be told.

    Example: weighbridge findings report --fail-on error
    """
    from dataclasses import asdict

    from weighbridge.analyses.findings import SEVERITIES, reaches
    from weighbridge.analyses.findings import findings as find
    from weighbridge.report import Report, dumps
    from weighbridge.terminal import findings_table

    if fail_on is not None and fail_on not in SEVERITIES:
        raise BadArgument(f"--fail-on {fail_on!r}; expected one of {', '.join(SEVERITIES)}")
    found = find(Report.open(folder))
    if json:
        for finding in found:
            print(dumps(asdict(finding)))
    else:
        _console().print(findings_table(found))
    if fail_on is not None and reaches(found, fail_on):
        raise typer.Exit(FINDINGS)


@_command
def export(
    folder: _Folder,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="The scalar columns as CSV.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All columns, one JSON object a line.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="A document for reviewers that stands by itself.")
    ] = None,
    heatmap: Annotated[
        list[str] | None,
        typer.Option("--heatmap", metavar="NAME", help="A tensor to picture in the document; repeatable."),
    ] = None,
    table: _Table = None,
) -> None:
    """Write a report to a file: its table, or a document.

    Example: weighbridge export report --html weights.html
    """
    from weighbridge.exports import export as write

    write(folder, csv=csv, json=json, html=html, heatmaps=heatmap or (), table=table)


@_command
def view(
    source: Annotated[str, typer.Argument(metavar="SOURCE|DIR", help="A checkpoint, or a report folder.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to serve at; 0 for a free one.")] = 0,
    address: Annotated[str, typer.Option("--address", help="Address to bind; this machine's own by default.")] = (
        "127.0.0.1"
    ),
    cache: Annotated[
        str, typer.Option("--cache", metavar="SIZE", help="Bound on what pictures of large matrices take on disk.")
    ] = "20GiB",
    device: _Device = "auto",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Look at a model in a browser: its map, its tensors, any matrix down to the single weight.

    Example: weighbridge view model.safetensors
    """
    from weighbridge.app import view as serve

    if device not in DEVICES:
        raise BadArgument(f"--device {device!r}; expected {', '.join(DEVICES)}")
    bound = _bytes(cache, "--cache")
    serve(
        source,
        port=port,
        address=address,
        browser=browser,
        cache=bound,
        device=device,  # type: ignore[arg-type]
        told=_serving,
    )


def _serving(address: str) -> None:
    print(address, flush=True)
    _say("serving at the address above; it holds a token, share it with care; Ctrl-C ends")


@_command
def snapshot(
    source: _Source,
    tensor: Annotated[str, typer.Argument(metavar="TENSOR", help="The tensor's name.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A .png, .svg or .pdf file.")],
    size: Annotated[str, typer.Option("--size", metavar="W×H", help="Width and height in pixels.")] = "1200x900",
    rows: Annotated[str | None, typer.Option("--rows", metavar="LOW:HIGH", help="Only these rows.")] = None,
    cols: Annotated[str | None, typer.Option("--cols", metavar="LOW:HIGH", help="Only these columns.")] = None,
    reduction: Annotated[
        str, typer.Option("--reduction", help="What a cell shows: absmax, mean, rms, min, max or zeros.")
    ] = "absmax",
    limit: Annotated[
        float | None, typer.Option("--limit", help="Magnitude at which colours saturate [default: by what is shown].")
    ] = None,
    theme: Annotated[str, typer.Option("--theme", help="light or dark.")] = "light",
) -> None:
    """Draw a tensor, or a window of it, for a paper.

    Example: weighbridge snapshot model.safetensors lm_head.weight -o head.png --rows 0:4096
    """
    from weighbridge.snapshots import snapshot as draw
    from weighbridge.views.colours import THEMES

    if theme not in THEMES:
        raise BadArgument(f"--theme {theme!r}; expected {' or '.join(THEMES)}")
    draw(
        source,
        tensor,
        output,
        size=_pair(size.replace("×", "x"), "x", "--size"),
        rows=_pair(rows, ":", "--rows") if rows else None,
        cols=_pair(cols, ":", "--cols") if cols else None,
        reduction=reduction,  # type: ignore[arg-type]
        limit=limit,
        theme=theme,
    )


def _pair(text: str, between: str, option: str) -> tuple[int, int]:
    """Two whole numbers out of an option. Raises `BadArgument`."""
    low, _, high = text.partition(between)
    try:
        return int(low), int(high)
    except ValueError:
        raise BadArgument(f"{option} {text!r}; expected two whole numbers as in 1{between}2") from None


@_command
def demo(
    model: Annotated[
        str, typer.Option("--model", help="digits, which is in the package, or minilm (extra [demo]).")
    ] = "digits",
    report: _ReportOption = None,
    overwrite: _Overwrite = False,
    json: _Json = False,
    sort: _Sort = "order",
    limit: _Limit = 40,
) -> None:
    """Weigh a small real network that comes with the package.

    Example: weighbridge demo
    """
    from weighbridge.demo import locate

    anew = overwrite or report is None  # the demo's own place, where an older installation may have left its report
    _scan(locate(model), report, [], [], "1GiB", "auto", False, anew, False, json, sort, limit)


@_command
def bench(
    shape: Annotated[
        list[str] | None, typer.Option("--shape", metavar="NAME", help="A named shape or all; repeatable.")
    ] = None,
    kernel: Annotated[str, typer.Option("--kernel", metavar="GLOB", help="Only kernels whose name matches.")] = "*",
    device: _Device = "auto",
    seconds: Annotated[float, typer.Option("--seconds", min=0.0, help="Time to spend on a measurement.")] = 0.5,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Where the result goes.")] = None,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="FILE", help="An earlier result: list changes beyond noise.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="A roofline as .svg or .png.")
    ] = None,
) -> None:
    """Measure the kernels on named real shapes, beside NumPy and the machine's own limits.

    Example: weighbridge bench --shape 7b.mlp --json now.json --compare before.json
    """
    from weighbridge.bench import bench as measure

    if device not in DEVICES:
        raise BadArgument(f"--device {device!r}; expected {', '.join(DEVICES)}")
    for line in measure(shape, kernel, device, seconds, json, compare, picture, told=_say):
        print(line)


def _if_exists(resume: bool, overwrite: bool) -> "IfExists":
    if resume and overwrite:
        raise BadArgument("--resume and --overwrite exclude each other; give one")
    return "resume" if resume else "overwrite" if overwrite else "reuse"


def _finish(report: "Report", table: str, *, json: bool, limit: int, sort: str = "nbytes") -> None:
    """Shows what a command made; that some tensors failed is an exit code."""
    _show(report, table, json=json, sort=sort, limit=limit)
    if (report.table(table)["status"] == "failed").any():
        raise typer.Exit(SOME_FAILED)


def _print_rows(report: "Report", table: str) -> None:
    from weighbridge.report import dumps

    for row in report.rows(table):
        print(dumps(row))


def _show(report: "Report", table: str | None = None, *, json: bool, sort: str, limit: int) -> None:
    """A table of a report, by default the one that stands for it."""
    from weighbridge.terminal import print_matrices, print_report

    table = table or report.main
    if json:
        _print_rows(report, table)
    elif table == "scan":
        print_report(_console(), report, sort=sort, limit=limit)
    else:
        print_matrices(_console(), report, table, limit=limit)


def _console(*, stderr: bool = False) -> "Console":
    """A console as wide as the terminal; without bound where there is none, so that a piped table keeps its lines."""
    from weighbridge.terminal import PlainConsole

    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(stderr=stderr, width=None if stream.isatty() else 1 << 16, highlight=False)


_UNITS = {
    "": 1,
    "b": 1,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
}


def _bytes(text: str, option: str = "--memory") -> int:
    """`512MiB` as a number of bytes. Raises `BadArgument`."""
    number = text.strip().rstrip("abgikmABGIKM")
    unit = text.strip()[len(number) :].lower()
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise BadArgument(f"{option} {text!r}; expected a size such as 512MiB or 2GiB") from None
