"""python -m weighbridge_benchmarks: the kernels on real shapes, beside NumPy and the machine's own limits."""

import argparse
import sys
from pathlib import Path

from weighbridge_benchmarks import suite
from weighbridge_benchmarks.table import lines
from weighbridge_benchmarks.weights import QUICK, SHAPES


def main() -> None:
    parser = argparse.ArgumentParser(prog="weighbridge_benchmarks", description=__doc__)
    parser.add_argument("--shape", action="append", choices=[*SHAPES, "all"], help="a named shape; repeatable")
    parser.add_argument("--kernel", default="*", help="a glob on kernels")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu", "tpu"])
    parser.add_argument("--seconds", type=float, default=0.5, help="time spent on each case")
    parser.add_argument("--json", type=Path, help="where the result goes")
    parser.add_argument("--compare", type=Path, help="an earlier result; changes beyond noise are listed")
    parser.add_argument("--picture", type=Path, help="a roofline as .svg or .png (needs matplotlib)")
    given = parser.parse_args()
    shapes = list(SHAPES) if given.shape and "all" in given.shape else given.shape or list(QUICK)
    result = suite.run(
        shapes=shapes,
        kernels=given.kernel,
        device=given.device,
        seconds=given.seconds,
        told=lambda line: print(line, file=sys.stderr),
    )
    print("\n".join(lines(result)))
    if given.json:
        given.json.write_text(suite.dumps(result), encoding="utf-8")
    if given.compare:
        for name, ratio in suite.compare(suite.load(given.compare), result) or [("nothing changed beyond noise", 1.0)]:
            print(f"{ratio:6.2f}x  {name}")
    if given.picture:
        from weighbridge_benchmarks.roofline import draw

        draw(result, given.picture)


if __name__ == "__main__":
    main()
