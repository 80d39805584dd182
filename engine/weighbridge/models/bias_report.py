"""What `bias` writes: a row for each unit and site, a row for each intervention, and what the manifest says of them."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from weighbridge.errors import ReportError
from weighbridge.models.bias_attribution import Attribution, SiteSum
from weighbridge.models.bias_outcomes import Outcome
from weighbridge.models.bias_search import Found
from weighbridge.models.bias_sites import Site
from weighbridge.models.recording import folder_for
from weighbridge.models.saliency_calls import names
from weighbridge.report.manifest import Manifest
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, clear, parts_of
from weighbridge.roles import assign

UNITS, INTERVENTIONS = "bias", "bias_interventions"
_ABOUT_NOTHING: dict[str, Any] = {"shape": [], "role": "other"}


class BiasReport:
    """Takes a result as it comes about; what has been written stays if the rest fails."""

    def __init__(self, report: str | os.PathLike[str], options: dict[str, Any], *, name: str, replace: bool) -> None:
        """Prepares the tables. Raises `ReportError` where there are such already, unless they are to be replaced."""
        self._began = time.monotonic()
        self._written = Counter[str]()
        for table in (UNITS, INTERVENTIONS):
            self.folder, manifest = folder_for(report, table, options, name=name, if_exists="overwrite")
            held = self.folder / "tables" / table
            if parts_of(held) and not replace:
                raise ReportError(
                    f"{self.folder}: holds a table {table} already; choose another report or overwrite it"
                )
            manifest.save(self.folder)
            clear(held)

    def write_units(self, attribution: Attribution, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Sites and units, in place of what is there of them."""
        held = self.folder / "tables" / UNITS
        old = [part for part, _ in parts_of(held)]
        self._written[UNITS] = 0
        self._write(UNITS, [*site_rows(attribution.sums), *unit_rows([s.site for s in attribution.sums], columns)])
        for part in old:
            (held / part).unlink()

    def write_search(self, intervention: str, found: Found) -> None:
        self._write(INTERVENTIONS, search_rows(intervention, found))

    def write_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._write(INTERVENTIONS, outcome_rows(outcomes))

    def _write(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        writer = TableWriter(self.folder / "tables" / table, TABLES[table])
        start = self._written[table]
        writer.add_all([{"status": "done", "variant": "jax", "order": start + i, **r} for i, r in enumerate(rows)])
        writer.flush()
        self._written[table] += len(rows)

    def complete(self, more: Mapping[str, Any]) -> None:
        """Says that both tables are whole, and what has turned up."""
        manifest = Manifest.load(self.folder)
        for table in (UNITS, INTERVENTIONS):
            analysis = manifest.analyses[table]
            analysis.status, analysis.seconds = "complete", time.monotonic() - self._began
            analysis.options |= more
        manifest.save(self.folder)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def hash_of(tree: Any) -> str:
    """BLAKE3 over the names, dtypes, shapes and bytes of a tree's arrays, in its order."""
    found = blake3()
    for name, leaf in zip(names(tree), jax.tree.leaves(tree), strict=True):
        random = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if random else leaf)
        found.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def unit_names(sites: Sequence[Site]) -> list[tuple[Site, int, list[int] | None, str]]:
    """Site, channel, place (None for whole channels) and name of every unit: "3", or "3 at 0, 7"."""
    found = []
    for site in sites:
        channels, places = site.units()
        for i, channel in enumerate(channels):
            place = None if places is None else [int(x) for x in places[i]]
            text = f"{channel}" + (f" at {', '.join(map(str, place))}" if place else "")
            found.append((site, int(channel), place, text))
    return found


def unit_rows(sites: Sequence[Site], columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """A row for each unit, by rank."""
    rows, about = [], {site: _about(site) for site in sites}
    for i, (site, channel, place, text) in enumerate(unit_names(sites)):
        figures = {name: _plain(values[i]) for name, values in columns.items()}
        failed = {} if figures["p"] is not None else {"status": "failed", "reason": "its contributions are not finite"}
        rows.append({"part": text, **about[site], "channel": channel, "place": place, **figures, **failed})
    return sorted(rows, key=lambda row: int(row["rank"]))


def site_rows(sums: Sequence[SiteSum]) -> list[dict[str, Any]]:
    return [
        {
            "part": f"all {'channels' if s.site.grain == 'channel' else 'entries'}",
            **_about(s.site),
            "units": s.site.count,
            "attribution": _plain(s.total),
            "ablated_gap": _plain(s.ablated),
            "completeness_gap": _plain(s.distance),
            "steps": s.steps,
        }
        for s in sums
    ]


def outcome_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    rows = []
    for o in outcomes:
        pairs = {"gap": o.gap_interval, "accuracy": o.accuracy_interval, "accuracy_change": o.change_interval}
        ends = {
            f"{n}_{end}": _plain(x) for n, both in pairs.items() for end, x in zip(("low", "high"), both, strict=True)
        }
        rows.append(
            {
                **_ABOUT_NOTHING,
                "name": o.intervention,
                "part": o.split,
                "units": o.units,
                "gap": _plain(o.gap),
                "removed": _plain(o.removed),
                "accuracy": _plain(o.accuracy),
                "accuracy_change": _plain(o.change),
                "mean_first": _plain(o.means[0]),
                "mean_second": _plain(o.means[1]),
                "accuracy_first": _plain(o.accuracies[0]),
                "accuracy_second": _plain(o.accuracies[1]),
                "compared_first": o.compared[0],
                "compared_second": o.compared[1],
            }
            | ends
        )
    return rows


def search_rows(intervention: str, found: Found) -> list[dict[str, Any]]:
    """A row for each prefix of the ranking that the search has looked at."""
    return [
        {
            **_ABOUT_NOTHING,
            "name": intervention,
            "part": f"validation, first {i}",
            "units": i,
            "gap": _plain(gap),
            "accuracy": _plain(held),
        }
        for i, (gap, held) in enumerate(zip(found.gaps, found.accuracies, strict=True))
    ]


def _about(site: Site) -> dict[str, Any]:
    role = assign(site.name, site.shape, "F32", [site.name])[0] if site.kind == "tensor" else "other"
    return {"name": site.name, "shape": list(site.shape), "role": role, "kind": site.kind, "grain": site.grain}


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python has it, None for what is not finite."""
    found = value.item() if hasattr(value, "item") else value
    return None if isinstance(found, float) and not np.isfinite(found) else found
