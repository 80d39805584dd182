"""Draws `docs/scan.svg`, the picture in the README: a scan of MiniLM as a terminal shows it.

python docs/scan_picture.py
"""

import contextlib
import io
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

import weighbridge
from weighbridge import demo
from weighbridge.terminal import findings_table, print_report

ROWS = 18


def main() -> None:
    console = Console(record=True, width=178, file=io.StringIO(), force_terminal=True, highlight=False)
    target = Path(__file__).resolve().with_name("scan.svg")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        weighbridge.scan(demo.locate("minilm"), report="warm")  # compiles, so that the second run shows its own time
        report = weighbridge.scan(demo.locate("minilm"), report="minilm")
        console.print("[bold green]$[/] weighbridge demo --model minilm --report minilm --sort kurtosis --limit 18")
        print_report(console, report, sort="kurtosis", limit=ROWS)
        console.print("\n[bold green]$[/] weighbridge findings minilm")
        console.print(findings_table(weighbridge.findings(report)))
    drawing = console.export_svg(title="weighbridge", theme=MONOKAI)
    fonts = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # the picture loads nothing from elsewhere
    text = fonts.sub("", drawing).replace("Fira Code", "DejaVu Sans Mono")
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
