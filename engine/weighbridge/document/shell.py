"""What documents share: templates, the style sheet in the colours of both themes, and what a page may load."""

import hashlib
from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from weighbridge.document.map import LEVELS
from weighbridge.views.colours import THEMES, colours

_HERE = Path(__file__).parent


@cache
def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style_sheet() -> str:
    """The style sheet, with the colours of both themes; paper takes the light one."""
    light, dark = (_variables(theme) for theme in THEMES)
    levels = "\n".join(f".m{i} {{ background: var(--m{i}); }}" for i in range(LEVELS))
    own = (_HERE / "page.css").read_text(encoding="utf-8")
    return (
        f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{levels}\n{own}"
    )


def _variables(theme: Any) -> str:
    palette = colours(theme)
    steps = palette.sequential[:: len(palette.sequential) // LEVELS][:LEVELS]
    named = {name: getattr(palette, name) for name in ("background", "surface", "text", "muted", "grid", "accent")}
    named |= {f"m{i}": colour for i, colour in enumerate(steps)}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


def policy(style: str, script: str | None = None) -> str:
    """Only this style sheet and this script, by their hashes; images that are in the page; nothing else."""
    scripts = f"'sha256-{_hashed(script)}'" if script is not None else "'none'"
    return (
        f"default-src 'none'; style-src 'sha256-{_hashed(style)}'; script-src {scripts}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashed(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
