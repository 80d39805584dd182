"""`bench`: the benchmark suite behind a command."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from weighbridge.errors import BadArgument, ReportError
from weighbridge.exports import written


def bench(
    shapes: list[str] | None,
    kernel: str,
    device: Any,
    seconds: float,
    json: Path | None,
    compare: Path | None,
    picture: Path | None,
    told: Callable[[str], None],
) -> Iterator[str]:
    """Runs the suite and yields its lines; writes the result and the picture where asked for.

    Raises `BadArgument` for an unknown shape, an earlier result that cannot be read, or a picture without matplotlib.
    """
    from weighbridge_benchmarks import suite
    from weighbridge_benchmarks.table import lines
    from weighbridge_benchmarks.weights import QUICK, SHAPES
    from weighbridge_kernels.variants import DeviceUnavailable

    chosen = list(SHAPES) if shapes and "all" in shapes else shapes or list(QUICK)
    unknown = [shape for shape in chosen if shape not in SHAPES]
    if unknown:
        raise BadArgument(f"--shape {unknown[0]!r}; expected one of {', '.join(SHAPES)} or all")
    before = _earlier(compare) if compare else None
    try:
        result = suite.run(shapes=chosen, kernels=kernel, device=device, seconds=seconds, told=told)
    except DeviceUnavailable as error:
        raise BadArgument(f"{error}; use --device cpu") from error
    yield from lines(result)
    if before is not None:
        changed = suite.compare(before, result)
        yield f"{len(changed)} of {len(result['rows'])} measurements changed beyond noise"
        yield from (f"{ratio:6.2f}x  {name}" for name, ratio in changed)
    if json is not None:
        with written(json) as file:
            file.write(suite.dumps(result))
    if picture is not None:
        from weighbridge_benchmarks.roofline import draw

        try:
            draw(result, picture)
        except (OSError, ValueError) as error:
            raise ReportError(f"{picture}: cannot be written: {error}; choose a .svg or .png elsewhere") from error


def _earlier(path: Path) -> dict[str, Any]:
    from weighbridge_benchmarks import suite

    try:
        result = suite.load(path)
        result["rows"][0]["median"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadArgument(f"{path}: is no result of `weighbridge bench --json`: {error}") from error
    return result
