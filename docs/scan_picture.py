"""Draws `docs/scan.svg`, the picture in the README: a scan of MiniLM as a terminal shows it.

    python docs/scan_picture.py
"""

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
    with tempfile.TemporaryDirectory() as folder:
        report = weighbridge.scan(demo.locate("minilm"), report=Path(folder) / "minilm")
        console.print("[bold green]$[/] weighbridge demo --model minilm --sort kurtosis --limit 18")
        print_report(console, report, sort="kurtosis", limit=ROWS)
        console.print("\n[bold green]$[/] weighbridge findings minilm")
        console.print(findings_table(weighbridge.findings(report)))
    drawing = console.export_svg(title="weighbridge", theme=MONOKAI)
    fonts = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # the picture loads nothing from elsewhere
    text = fonts.sub("", drawing).replace("Fira Code", "DejaVu Sans Mono").replace(folder, "reports")
    Path(__file__).with_name("scan.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
