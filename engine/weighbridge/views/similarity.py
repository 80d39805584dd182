"""How similar the rows, or the columns, of a matrix are to one another: every pair, as a heatmap."""

from typing import Any

from weighbridge.checkpoints.protocol import Tensor
from weighbridge.pyramid.similarity import Order, Side, SimilarityMatrix, similarities
from weighbridge.views.colours import Theme, colours
from weighbridge.views.heatmap import heatmap
from weighbridge.views.window import Reduction, check_reduction
from weighbridge_kernels.similar_pairs import Kind


def similarity(
    tensor: Tensor | SimilarityMatrix,
    *,
    side: Side = "rows",
    kind: Kind = "cosine",
    order: Order = "stored",
    reduction: Reduction = "mean",
    limit: float | None = None,
    theme: Theme = "light",
) -> Any:
    """The similarities of all pairs of a tensor's rows or columns as a heatmap: a HoloViews `DynamicMap`.

    Cosines, or Pearson correlations, computed from the rows for the window that is looked at; see `heatmap`. Of a
    window of more than 2^22 pairs there is the mean alone, which is exact, and the label of the colours says so.
    `seriated` has similar rows next to each other, so that groups stand out as squares; hover gives the stored indices.
    Rows of zeros, and those with NaN or Inf, have no similarity and the colour of NaN. A tensor is read once, in
    seconds a billion entries; a `SimilarityMatrix` made before is shown as it is. Raises `BadArgument` for what has no
    rows, for more than 2^27 entries in another than the stored order, and for unknown choices.
    """
    check_reduction(reduction)
    colours(theme)
    matrix = tensor if isinstance(tensor, SimilarityMatrix) else similarities(tensor, side=side, kind=kind, order=order)
    return heatmap(matrix, reduction=reduction, limit=limit, theme=theme)
