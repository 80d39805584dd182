"""Every table that a report may hold, with its columns, and what a person is shown of each first."""

from weighbridge.report.columns import Column
from weighbridge.report.matrix_columns import (
    CORRELATIONS,
    PROJECTIONS,
    RELATIONS,
    SIDES,
    SPECTRA,
    TRAJECTORY,
    TRAJECTORY_PATH,
    WEIGHTWATCHER,
)
from weighbridge.report.run_columns import (
    BIAS,
    BIAS_INTERVENTIONS,
    CRITICALITY,
    CRITICALITY_CURVES,
    CRITICALITY_UNITS,
    SALIENCY,
    SALIENCY_CHECKS,
    SALIENCY_WEIGHTS,
    TRAINING,
    TRAINING_GROUPS,
    TRAINING_UNITS,
)
from weighbridge.report.scan_columns import SCAN

TABLES: dict[str, tuple[Column, ...]] = {
    "scan": SCAN,
    "spectra": SPECTRA,
    "weightwatcher": WEIGHTWATCHER,
    "projections": PROJECTIONS,
    "correlations": CORRELATIONS,
    "relations": RELATIONS,
    "training": TRAINING,
    "training_groups": TRAINING_GROUPS,
    "training_units": TRAINING_UNITS,
    "trajectory": TRAJECTORY,
    "trajectory_path": TRAJECTORY_PATH,
    "criticality": CRITICALITY,
    "criticality_units": CRITICALITY_UNITS,
    "criticality_curves": CRITICALITY_CURVES,
    "bias": BIAS,
    "bias_interventions": BIAS_INTERVENTIONS,
    "saliency": SALIENCY,
    "saliency_checks": SALIENCY_CHECKS,
    "saliency_weights": SALIENCY_WEIGHTS,
}
"""The columns of every table that a report may hold."""
HEADLINES: dict[str, tuple[str, ...]] = {
    "spectra": ("alpha", "alpha_tail", "stable_rank", "effective_rank", "rank", "mp_spikes", "spectral_norm", "route"),
    "correlations": tuple(
        f"{s}_{name}" for s, _ in SIDES for name in ("dead", "duplicates", "greatest", "null_greatest")
    ),
    "relations": ("extent", "coordinates", "peer_overlap_expected", "parts", "part_overlap_expected"),
    "training": ("step", "weight_norm", "gradient_norm", "update_ratio", "gradient_cosine", "gradient_nan"),
    "training_groups": ("step", "gradient_norm", "share", "noise_scale"),
    "training_units": ("step", "units", "dead", "saturated"),
    "trajectory": ("step", "l2", "sparsity_1e3", "cosine_first", "step_length", "turn", "spectral_norm", "stable_rank"),
    "trajectory_path": ("step", "tensors", "count"),
    "criticality": ("taylor", "joint", "fisher", "magnitude", "loss", "accuracy", "examples"),
    "criticality_units": ("kind", "units", "loss", "accuracy", "examples"),
    "criticality_curves": ("draw", "loss_area", "accuracy_area"),
    "saliency": ("target", "output", "baseline_output", "completeness_gap", "converged", "steps"),
    "saliency_checks": ("deletion_area", "insertion_area", "randomised_correlation"),
    "saliency_weights": ("target", "output", "contribution", "share"),
    "weightwatcher": ("alpha", "D", "num_pl_spikes", "stable_rank", "alpha_weighted", "log_norm", "spectral_norm"),
    "bias": ("attribution", "low", "high", "p", "rank", "named", "completeness_gap"),
    "bias_interventions": ("units", "gap", "removed", "accuracy", "accuracy_change"),
    "projections": ("points", "trustworthiness", "neighbour_recall", "kl", "explained_variance", "clusters"),
}
"""The columns of a table of matrices that a person is shown first."""


def scalars(table: str) -> list[str]:
    """The columns of a table that are no lists; `shape` is short and stays."""
    return [c.name for c in TABLES[table] if not c.type.startswith("list<") or c.name == "shape"]


LISTS = tuple(column.name for column in SCAN if column.type.startswith("list<") and column.name != "shape")
SCALARS = tuple(column.name for column in SCAN if column.name not in LISTS)
