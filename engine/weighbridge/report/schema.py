"""The columns of `tables/scan`, in order, with what each holds. DESIGN's names; pyarrow types as strings."""

from typing import NamedTuple


class Column(NamedTuple):
    name: str
    type: str
    meaning: str


QUANTILES = {
    "q0001": 0.0001,
    "q001": 0.001,
    "q01": 0.01,
    "q05": 0.05,
    "q25": 0.25,
    "q50": 0.5,
    "q75": 0.75,
    "q95": 0.95,
    "q99": 0.99,
    "q999": 0.999,
    "q9999": 0.9999,
}
SPARSITIES = {"sparsity_1e2": 1e-2, "sparsity_1e3": 1e-3, "sparsity_1e6": 1e-6}

WHOLE = "all tensors"
"""The name of rows that are of the whole network."""
_FINITE = "of the finite entries"
SCAN = (
    Column("name", "string", "the tensor's name"),
    Column("shape", "list<int64>", "sides, outermost first"),
    Column("dtype", "string", "dtype as stored, in the names of safetensors"),
    Column(
        "effective_dtype", "string", "the narrowest float that holds every stored value: BF16 or F16 in F32, F32 in F64"
    ),
    Column("count", "int64", "all entries"),
    Column("nan", "int64", "NaN entries"),
    Column("posinf", "int64", "+Inf entries (complex: infinite ones)"),
    Column("neginf", "int64", "-Inf entries"),
    Column("zeros", "int64", "entries that are +0 or -0"),
    Column("distinct", "int64", "different finite values, ±0 one; null beyond 16 bits"),
    Column("min", "float64", f"least {_FINITE}"),
    Column("max", "float64", f"greatest {_FINITE}"),
    Column("mean", "float64", f"mean {_FINITE}"),
    Column("std", "float64", f"standard deviation {_FINITE}, divided by n"),
    Column("skewness", "float64", f"skewness {_FINITE}; null where they are equal"),
    Column("kurtosis", "float64", f"excess kurtosis {_FINITE}; null where they are equal"),
    Column("l1", "float64", f"sum of magnitudes {_FINITE}"),
    Column("l2", "float64", f"root of the sum of squares {_FINITE}"),
    Column("absmax", "float64", f"greatest magnitude {_FINITE}"),
    *(Column(name, "float64", f"{q} quantile {_FINITE} (inverted_cdf)") for name, q in QUANTILES.items()),
    *(Column(name, "float64", f"share {_FINITE} with |w| <= {t:g} absmax") for name, t in SPARSITIES.items()),
    Column("sparsity_2of4", "float64", "share of groups of four along the rows with two zeros or more"),
    Column("entropy", "float64", "Shannon entropy of the bit patterns, bits a weight; null beyond 16 bits"),
    Column("exponent_entropy", "float64", "Shannon entropy of the exponent field, bits a weight"),
    Column("outlier_rows", "int64", "rows whose L2 norm exceeds 6 medians of the live rows'"),
    Column("outlier_cols", "int64", "columns whose L2 norm exceeds 6 medians of the live columns'"),
    Column("dead_rows", "int64", "rows of norm 0"),
    Column("dead_cols", "int64", "columns of norm 0"),
    Column("qerr_int8", "float64", "‖w - Q(w)‖/‖w‖ under int8, one scale"),
    Column("qerr_fp8_e4m3", "float64", "‖w - Q(w)‖/‖w‖ under FP8 E4M3, one scale"),
    Column("qerr_int4_32", "float64", "‖w - Q(w)‖/‖w‖ under int4, blocks of 32"),
    Column("qerr_nf4_64", "float64", "‖w - Q(w)‖/‖w‖ under NF4, blocks of 64"),
    Column("qerr_mxfp4_32", "float64", "‖w - Q(w)‖/‖w‖ under MXFP4, blocks of 32"),
    Column("qerr_nvfp4_16", "float64", "‖w - Q(w)‖/‖w‖ under NVFP4, blocks of 16"),
    Column("role", "string", "what the tensor is for, by its name"),
    Column("layer", "int32", "number of the block it belongs to, by its name"),
    Column("content_hash", "string", "BLAKE3 of the tensor's bytes, hexadecimal"),
    Column("part", "string", "head, expert or slice; empty for the whole tensor"),
    Column("step", "int64", "training step; null for a checkpoint"),
    Column("status", "string", "done, skipped or failed"),
    Column("reason", "string", "why the row or a column of it is missing; null for none"),
    Column("variant", "string", "form of the kernels that ran"),
    Column("file", "string", "file the tensor lives in"),
    Column("nbytes", "int64", "bytes as stored"),
    Column("order", "int64", "position in the checkpoint"),
    Column(
        "histogram_bins", "list<int32>", "occupied bit patterns; for F32 and F64 upper halves of finite non-zero words"
    ),
    Column("histogram_counts", "list<int64>", "entries in each"),
    *(
        Column(f"{side}_{quantity}", "list<float32>", f"{meaning} of each {word}")
        for side, word in (("row", "row, or output channel"), ("col", "column, or input channel"))
        for quantity, meaning in (
            ("l2", "L2 norm to 16 significant bits"),
            ("absmax", "greatest magnitude"),
            ("mean", "mean to 16 significant bits"),
        )
    ),
)
_MATRIX = (
    Column("name", "string", "the tensor's name"),
    Column("part", "string", "expert, head or place in a kernel; empty for the whole tensor"),
    Column("step", "int64", "training step; null for a checkpoint"),
    Column("shape", "list<int64>", "sides of the tensor, outermost first"),
    Column("dtype", "string", "dtype as stored, in the names of safetensors"),
    Column("role", "string", "what the tensor is for, by its name"),
    Column("layer", "int32", "number of the block it belongs to, by its name"),
    Column("rows", "int64", "rows of the matrix"),
    Column("cols", "int64", "columns of the matrix"),
)
_STATE = (
    Column("status", "string", "done, skipped or failed"),
    Column("reason", "string", "why the row is missing; null for none"),
    Column("variant", "string", "form of the kernels that ran"),
    Column("order", "int64", "position in the checkpoint"),
)
SPECTRA = (
    *_MATRIX,
    Column(
        "route",
        "string",
        "gram: by the short side's Gram matrix; direct; leading: by Lanczos; fourier: of a convolution",
    ),
    Column("accuracy", "float64", "singular values below this are noise of the route; of leading ones the worst bound"),
    Column("spectral_norm", "float64", "greatest singular value"),
    Column("frobenius_norm", "float64", "root of the sum of squares"),
    Column("nuclear_norm", "float64", "sum of the singular values"),
    Column("log_spectral_norm", "float64", "log10 of the greatest eigenvalue (squared singular value)"),
    Column("log_frobenius_norm", "float64", "log10 of the sum of the eigenvalues"),
    Column("stable_rank", "float64", "sum of the eigenvalues over the greatest"),
    Column("effective_rank", "float64", "exponential of the entropy of the singular values (Roy and Vetterli 2007)"),
    Column("participation_ratio", "float64", "squared sum of the eigenvalues over the sum of their squares"),
    Column("rank", "int64", "singular values above rank_tolerance"),
    Column("rank_tolerance", "float64", "greatest singular value · greatest side · 2^-23"),
    Column("condition", "float64", "greatest over least singular value; infinite beyond the tolerance"),
    Column("entropy", "float64", "entropy of the eigenvalues over the logarithm of their number, 0 to 1"),
    Column("alpha", "float64", "exponent of the power law of the eigenvalues' tail (Clauset and others 2009)"),
    Column("alpha_sigma", "float64", "standard error of alpha"),
    Column("alpha_xmin", "float64", "eigenvalue from which the power law is"),
    Column("alpha_distance", "float64", "distance of Kolmogorov and Smirnov of the tail from its law"),
    Column("alpha_tail", "int64", "eigenvalues in the tail"),
    Column("mp_sigma", "float64", "standard deviation of the noise under the spectrum (Marchenko and Pastur)"),
    Column("mp_edge", "float64", "upper edge of the noise, as an eigenvalue"),
    Column("mp_spikes", "int64", "eigenvalues beyond the noise"),
    Column("mp_soft_rank", "float64", "upper edge of the noise over the greatest eigenvalue"),
    Column("random_spectral_norm", "float64", "greatest singular value of the same entries in random order"),
    Column("random_spikes", "int64", "singular values beyond that"),
    Column("random_distance", "float64", "Jensen-Shannon distance of the singular values from those, 0 to 1"),
    *_STATE,
    Column("singular_values", "list<float64>", "singular values, greatest first; all, or the leading ones"),
    Column("singular_value_bounds", "list<float64>", "within what a true one lies of each leading singular value"),
    Column("density_at", "list<float64>", "singular values at which the density of all is estimated"),
    Column("density", "list<float64>", "density of the singular values, smoothed by an eighth of their rms"),
    Column("density_error", "list<float64>", "its standard error"),
    Column("vector_ranks", "list<int64>", "of which singular values, from 1, the leading vectors are determined"),
    *(
        Column(f"{side}_{quantity}", kind, f"of the leading singular vectors over the {word}: {meaning}")
        for side, word in (("row", "rows"), ("col", "columns"))
        for quantity, kind, meaning in (
            ("participation", "list<float64>", "how many entries carry each, sum(v²)² / sum(v⁴)"),
            ("carriers", "list<int64>", "the entries of greatest magnitude, those of one vector after another's"),
            ("loadings", "list<float64>", "their values"),
        )
    ),
)
WEIGHTWATCHER = (
    *_MATRIX,
    *(
        Column(name, kind, "as WeightWatcher 0.7.7 defines it; see docs/weightwatcher.md")
        for name, kind in (
            ("M", "int64"),
            ("N", "int64"),
            ("num_evals", "int64"),
            ("alpha", "float64"),
            ("D", "float64"),
            ("sigma", "float64"),
            ("xmin", "float64"),
            ("xmax", "float64"),
            ("num_pl_spikes", "int64"),
            ("log_norm", "float64"),
            ("norm", "float64"),
            ("spectral_norm", "float64"),
            ("log_spectral_norm", "float64"),
            ("stable_rank", "float64"),
            ("alpha_weighted", "float64"),
            ("log_alpha_norm", "float64"),
            ("entropy", "float64"),
            ("matrix_rank", "int64"),
            ("rank_loss", "int64"),
            ("mp_softrank", "float64"),
            ("num_spikes", "int64"),
            ("sigma_mp", "float64"),
            ("rand_num_spikes", "int64"),
        )
    ),
    *_STATE,
)
PROJECTIONS = (
    *_MATRIX,
    Column("method", "string", "pca, tsne, nmf or random"),
    Column("side", "string", "rows or cols: of which each point is one"),
    Column("first", "int64", "the first row or column looked at"),
    Column("points", "int64", "points laid out"),
    Column("dead", "int64", "rows or columns left out because all of their entries are zero"),
    Column("not_finite", "int64", "rows or columns left out because they hold NaN or Inf"),
    Column("dims", "int64", "dimensions of the map"),
    Column("metric", "string", "by which points are neighbours: cosine or euclidean"),
    Column("key", "int64", "seed of all that is random"),
    Column("perplexity", "float64", "neighbours that t-SNE keeps of each point, as used; null for other methods"),
    Column("iterations", "int64", "of t-SNE's descent, or sweeps of the non-negative factors"),
    Column("kl", "float64", "KL divergence of the map's affinities from the points', nats; of t-SNE"),
    Column("explained_variance", "float64", "share of the variance (nmf: of the sum of squares) that the map keeps"),
    Column("reconstruction_error", "float64", "‖x - x'‖/‖x‖ of the points, x' from the map; pca: about their mean"),
    Column("trustworthiness", "float64", "1 where no neighbour in the map is a stranger among the points, 0 at worst"),
    Column("trustworthiness_error", "float64", "its standard error; 0 where all points were taken"),
    Column("neighbour_recall", "float64", "share of each point's nearest neighbours that it has in the map"),
    Column("neighbour_recall_error", "float64", "its standard error; 0 where all points were taken"),
    Column("quality_neighbours", "int64", "neighbours of each point that both are of"),
    Column("quality_points", "int64", "points that both are means over"),
    Column("clustering", "string", "none, kmeans or hdbscan"),
    Column("clusters", "int64", "clusters found"),
    Column("unclustered", "int64", "points in no cluster"),
    Column("seconds", "float64", "time that it took"),
    *_STATE,
)
_SIDES = (("row", "rows"), ("col", "columns"))
_SIMILARITY = (
    ("dead", "int64", "of norm 0 (for Pearson: constant)"),
    ("not_finite", "int64", "with NaN or Inf"),
    ("duplicates", "int64", "that share a group whose members are alike up to the threshold"),
    ("opposites", "int64", "that share a group linked by opposites up to the threshold"),
    ("pairs", "int64", "pairs compared"),
    ("mean_similarity", "float64", "mean over all pairs, by bins"),
    ("spread", "float64", "root mean square over all pairs, by bins"),
    ("greatest", "float64", "greatest similarity of a pair"),
    ("least", "float64", "least similarity of a pair"),
    ("null_spread", "float64", "spread of random directions"),
    ("null_greatest", "float64", "greatest magnitude expected among as many pairs of random directions"),
)
_SIMILARITY_LISTS = (
    ("neighbours", "list<int32>", "the most similar ones of each, a run of `count` after another; -1 for none"),
    ("similarities", "list<float32>", "their similarities"),
    ("opposed", "list<int32>", "the most opposed ones of each"),
    ("opposed_similarities", "list<float32>", "their similarities"),
    ("distribution", "list<int64>", "pairs in each bin of similarity (weighbridge_kernels.similar_pairs.EDGES)"),
    ("duplicate_members", "list<int32>", "those that are alike"),
    ("duplicate_groups", "list<int32>", "the first of the group of each of these"),
    ("opposite_members", "list<int32>", "those that are opposite"),
    ("opposite_groups", "list<int32>", "the first of the group of each of these"),
)
CORRELATIONS = (
    *_MATRIX,
    Column("kind", "string", "cosine or pearson"),
    *(Column(f"{s}_{n}", kind, f"{what}: {means}") for s, what in _SIDES for n, kind, means in _SIMILARITY),
    *_STATE,
    *(Column(f"{s}_{n}", kind, f"{what}: {means}") for s, what in _SIDES for n, kind, means in _SIMILARITY_LISTS),
)
RELATIONS = (
    *_MATRIX[:-2],
    Column("extent", "int64", "length of the residual axis"),
    Column("coordinates", "int64", "places of it that were looked at"),
    Column("peer_overlap_expected", "float64", "peer_overlap of spaces in random position"),
    Column("parts", "int64", "heads or experts"),
    Column("part_overlap_expected", "float64", "part_overlap of spaces in random position"),
    *_STATE,
    Column("others", "list<string>", "the matrices that share the axis, itself among them"),
    Column("cka", "list<float64>", "debiased linear CKA with each of these"),
    Column("cka_null_mean", "list<float64>", "its mean over random matrices of the same row norms"),
    Column("cka_null_std", "list<float64>", "its standard deviation over these"),
    Column("peers", "list<string>", "the matrices of the same role, itself among them"),
    Column("peer_overlap", "list<float64>", "mean squared cosine of the angles between the leading subspaces"),
    Column("peer_least_angle", "list<float64>", "least of those angles, radians"),
    Column("part_overlap", "list<float64>", "mean squared cosine between heads or experts, row after row"),
    Column("part_least_angle", "list<float64>", "least angle between them, radians"),
)
TRAINING = (
    *_MATRIX[:-2],
    Column("weight_norm", "float64", f"L2 norm {_FINITE}, before the update"),
    Column("gradient_norm", "float64", f"L2 norm of the gradient, {_FINITE}"),
    Column("update_norm", "float64", f"L2 norm of what is added to the weights, {_FINITE}"),
    Column("update_ratio", "float64", "update_norm over weight_norm; null for weights of norm 0"),
    Column("gradient_cosine", "float64", "cosine between this gradient and the one recorded before"),
    *(
        Column(f"{of}_{what}", "int64", f"{meaning} of the {of}")
        for of in ("gradient", "update", "weight")
        for what, meaning in (("zeros", "entries that are +0 or -0"), ("nan", "NaN entries"), ("inf", "±Inf entries"))
    ),
    *_STATE,
    Column("gradient_histogram", "list<int32>", "entries by sign and exponent: 256 s + e of the float32 word"),
)
TRAINING_GROUPS = (
    *_MATRIX[:-2],
    Column("examples", "int64", "inputs in the group"),
    Column("loss", "float64", "loss over the group, that of the whole network"),
    Column("gradient_norm", "float64", "L2 norm of the group's gradient in this tensor"),
    Column("share", "float64", "of the squared norm of the group's whole gradient"),
    Column("noise_scale", "float64", "examples at which noise equals signal: trace over squared gradient"),
    Column("noise_trace", "float64", "trace of the covariance of one example's gradient, unbiased"),
    Column("squared_gradient", "float64", "squared norm of the true gradient, unbiased: may be negative"),
    *_STATE,
    Column("others", "list<string>", "the groups, itself among them"),
    Column("cosine", "list<float64>", "cosine of the group's gradient with that of each of these"),
)
TRAINING_UNITS = (
    *_MATRIX[:-2],
    Column("units", "int64", "units of the layer"),
    Column("dead", "int64", "units with one and the same activation on every input of the group"),
    Column("saturated", "int64", "units near a bound of their activation on nearly every input; null without bounds"),
    *_STATE,
    Column("dead_units", "list<int32>", "which"),
    Column("saturated_units", "list<int32>", "which"),
)
TRAJECTORY = (
    *_MATRIX,
    Column("checkpoint", "string", "which of the sources"),
    Column("count", "int64", "all entries"),
    Column("l2", "float64", "root of the sum of squares"),
    Column("absmax", "float64", "greatest magnitude"),
    Column("zeros", "int64", "entries that are +0 or -0"),
    Column("sparsity_1e3", "float64", "share with |w| <= 0.001 absmax"),
    Column("cosine_first", "float64", "cosine with the same tensor of the first checkpoint"),
    Column("cosine_previous", "float64", "cosine with that of the checkpoint before"),
    Column("cosine_last", "float64", "cosine with that of the last checkpoint"),
    Column("step_length", "float64", "L2 norm of the difference from the checkpoint before"),
    Column("distance", "float64", "L2 norm of the difference from the first checkpoint"),
    Column("turn", "float64", "cosine between this step and the one before"),
    Column("spectral_norm", "float64", "greatest singular value of the matrix, or of an unfolded convolution"),
    Column("stable_rank", "float64", "sum of the squared singular values over the greatest"),
    *_STATE,
    Column("singular_values", "list<float64>", "leading singular values, greatest first"),
    Column("products", "list<float64>", "inner products of the difference from the first with those of every step"),
)
TRAJECTORY_PATH = (
    *_MATRIX[:3],
    Column("checkpoint", "string", "which of the sources"),
    Column("tensors", "int64", "tensors that the path is of: those that every checkpoint has, finite"),
    Column("count", "int64", "their entries"),
    *_STATE,
    Column("scores", "list<float64>", "where the step lies along each principal component"),
    Column("explained", "list<float64>", "share of the variance that each component explains, the same in every row"),
)
_EXAMINED = (
    Column("examples", "int64", "examples that the row is over; its part names their task, empty for all"),
    Column("broken", "int64", "examples left out because their loss or gradient is not finite"),
    Column("loss", "float64", "mean loss of the network on them"),
    Column("loss_error", "float64", "its standard error"),
    Column("accuracy", "float64", "share whose greatest output is at the label; null where that has no meaning"),
)
_CRITICALITY = (
    ("taylor", "sum over the weights of |mean of w ∂L/∂w|"),
    ("joint", "|mean of the sum of w ∂L/∂w|: what the loss changes by without them, to first order"),
    ("joint_error", "its standard error over examples"),
    ("fisher", "sum over the weights of the mean of (∂L/∂w)²"),
    ("fisher_error", "its standard error over examples"),
)
CRITICALITY = (
    *_MATRIX[:-2],
    *_EXAMINED,
    Column("magnitude", "float64", "sum of |w|"),
    *(Column(name, "float64", meaning) for name, meaning in _CRITICALITY),
    *_STATE,
)
CRITICALITY_UNITS = (
    Column("name", "string", "the layer, or the attention whose heads these are"),
    Column("part", "string", "the task; empty for all examples"),
    Column("step", "int64", "training step; null for a checkpoint"),
    Column("role", "string", "what the layer's largest tensor is for, by its name"),
    Column("layer", "int32", "number of the block it belongs to, by its name"),
    Column("kind", "string", "channel or head"),
    Column("units", "int64", "how many there are"),
    *_EXAMINED,
    Column("selectivity_of", "string", "the score that unit_selectivity is of"),
    *_STATE,
    Column("tensors", "list<string>", "the tensors that make the units"),
    *(Column(f"unit_{name}", "list<float64>", f"of each unit: {meaning}") for name, meaning in _CRITICALITY),
    Column("unit_leave_one_out", "list<float64>", "mean loss without each unit, less the mean loss; NaN: not measured"),
    Column("unit_leave_one_out_error", "list<float64>", "its standard error over examples"),
    Column("unit_magnitude", "list<float64>", "sum of |w| over each unit"),
    Column("unit_selectivity", "list<float64>", "1 for a unit that one task needs, 0 for one that all need alike"),
)
CRITICALITY_CURVES = (
    Column("name", "string", "the score whose highest weights are removed first, or random"),
    Column("part", "string", "empty"),
    Column("step", "int64", "training step; null for a checkpoint"),
    Column("role", "string", "other"),
    Column("draw", "int64", "which of the random orders; 0 for a score"),
    Column("weights", "int64", "weights that shares are of"),
    Column("loss_area", "float64", "mean over the shares' range of the loss above that of the whole network"),
    Column("accuracy_area", "float64", "mean over the shares' range of the accuracy"),
    *_STATE,
    Column("shares", "list<float64>", "shares of the weights that are removed"),
    Column("loss", "list<float64>", "mean loss at each"),
    Column("loss_error", "list<float64>", "its standard error over examples"),
    Column("accuracy", "list<float64>", "accuracy at each"),
)
BIAS = (
    Column("name", "string", "the layer, or the tensor of weights"),
    Column("part", "string", "the unit: its channel, of single entries with its place; or all of them"),
    Column("step", "int64", "training step; null"),
    Column("shape", "list<int64>", "sides of one input's activation, or of the tensor"),
    Column("role", "string", "what the tensor is for, by its name; other for layers"),
    Column("kind", "string", "layer or tensor"),
    Column("grain", "string", "channel or entry: what a unit is"),
    Column("channel", "int64", "the unit's channel"),
    Column("attribution", "float64", "the unit's part of the gap, in the metric's units"),
    Column("low", "float64", "lower end of its bootstrap interval"),
    Column("high", "float64", "upper end of its bootstrap interval"),
    Column("statistic", "float64", "standardised difference between the groups"),
    Column("p", "float64", "family-wise adjusted p of the max-T permutation test over all units"),
    Column("threshold", "float64", "magnitude of the attribution beyond which p is below the level"),
    Column("rank", "int64", "place in the order of what makes the gap, from 1"),
    Column("named", "bool", "whether the unit is of the named set"),
    Column("units", "int64", "of a whole site: its units"),
    Column("ablated_gap", "float64", "of a whole site: what its ablation takes off the gap; the sum should be that"),
    Column("completeness_gap", "float64", "of a whole site: distance between that and the sum of its units"),
    Column("steps", "int64", "of a whole site: midpoint steps of the integral"),
    *_STATE,
    Column("place", "list<int64>", "of a single entry: where along the axes other than the channels'"),
)
_GROUPS = (("first", "first"), ("second", "second"))
BIAS_INTERVENTIONS = (
    Column("name", "string", "none, ablate, rescale or mean: what is done to the units"),
    Column("part", "string", "validation or held_out; of the search also how many units"),
    Column("step", "int64", "training step; null"),
    Column("shape", "list<int64>", "empty"),
    Column("role", "string", "other"),
    Column("units", "int64", "units changed, from the first of the ranking on"),
    Column("gap", "float64", "mean of the exact metric over the first group less that over the second"),
    Column("gap_low", "float64", "lower end of its bootstrap interval"),
    Column("gap_high", "float64", "upper end of its bootstrap interval"),
    Column("removed", "float64", "1 - |gap| / |gap before|"),
    *(Column(f"mean_{g}", "float64", f"mean of the exact metric over the {what} group") for g, what in _GROUPS),
    Column("accuracy", "float64", "share of right predictions, where the search bounds its loss"),
    Column("accuracy_low", "float64", "lower end of its bootstrap interval"),
    Column("accuracy_high", "float64", "upper end of its bootstrap interval"),
    Column("accuracy_change", "float64", "accuracy less that before"),
    Column("accuracy_change_low", "float64", "lower end of its bootstrap interval"),
    Column("accuracy_change_high", "float64", "upper end of its bootstrap interval"),
    *(Column(f"accuracy_{g}", "float64", f"share of right predictions in the {what} group") for g, what in _GROUPS),
    *(
        Column(f"compared_{g}", "int64", f"inputs of the {what} group that the metric applies to")
        for g, what in _GROUPS
    ),
    *_STATE,
)
SALIENCY = (
    *_MATRIX[:-2],
    Column("method", "string", "gradient, input_x_gradient, integrated_gradients, smoothgrad, grad_cam or occlusion"),
    Column("activation", "string", "the layer that Grad-CAM looks at; null for other methods"),
    Column("target", "int64", "index of the chosen output, the first where it has several; null where there is one"),
    Column("output", "float64", "the chosen output"),
    Column("baseline_output", "float64", "that of the baseline; null for methods without one"),
    Column("completeness_gap", "float64", "|sum of the values - (output - baseline_output)|; of integrated gradients"),
    Column("converged", "bool", "whether the gap is within its bound; true for methods without a gap"),
    Column("steps", "int64", "how often the network ran for the input"),
    Column("sum", "float64", "sum of the values"),
    Column("absmax", "float64", "greatest magnitude of the values"),
    *_STATE,
    Column("targets", "list<int64>", "index of the chosen output along each axis of the outputs"),
)
SALIENCY_CHECKS = (
    *_MATRIX[:-2],
    Column("method", "string", "the method that is checked"),
    Column("score", "string", "what the curves are of: probability or output; null where there are none"),
    Column("deletion_area", "float64", "under the score as what the map holds for most important goes"),
    Column("insertion_area", "float64", "under the score as it comes"),
    Column("randomised_correlation", "float64", "rank correlation of |map| with that of the wholly random network"),
    *_STATE,
    Column("fraction", "list<float64>", "share of the places that have gone or come"),
    Column("deletion", "list<float64>", "score at each of these"),
    Column("insertion", "list<float64>", "score at each of these"),
    Column("layers", "list<string>", "layers in the order in which they become random, from the output"),
    Column("correlation", "list<float64>", "rank correlation of the map with the trained network's, from no layer on"),
    Column("absolute", "list<float64>", "that of the magnitudes"),
)
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
}
"""The columns of every table that a report may hold."""
HEADLINES: dict[str, tuple[str, ...]] = {
    "spectra": ("alpha", "alpha_tail", "stable_rank", "effective_rank", "rank", "mp_spikes", "spectral_norm", "route"),
    "correlations": tuple(
        f"{s}_{name}" for s, _ in _SIDES for name in ("dead", "duplicates", "greatest", "null_greatest")
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
