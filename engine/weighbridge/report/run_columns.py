"""The columns of tables of a network that runs: training, saliency, criticality, bias."""

from weighbridge.report.columns import FINITE, MATRIX, STATE, Column

WHOLE = "all tensors"
"""The name of rows that are of the whole network."""
TRAINING = (
    *MATRIX[:-2],
    Column("weight_norm", "float64", f"L2 norm {FINITE}, before the update"),
    Column("gradient_norm", "float64", f"L2 norm of the gradient, {FINITE}"),
    Column("update_norm", "float64", f"L2 norm of what is added to the weights, {FINITE}"),
    Column("update_ratio", "float64", "update_norm over weight_norm; null for weights of norm 0"),
    Column("gradient_cosine", "float64", "cosine between this gradient and the one recorded before"),
    *(
        Column(f"{of}_{what}", "int64", f"{meaning} of the {of}")
        for of in ("gradient", "update", "weight")
        for what, meaning in (("zeros", "entries that are +0 or -0"), ("nan", "NaN entries"), ("inf", "±Inf entries"))
    ),
    *STATE,
    Column("gradient_histogram", "list<int32>", "entries by sign and exponent: 256 s + e of the float32 word"),
)
TRAINING_GROUPS = (
    *MATRIX[:-2],
    Column("examples", "int64", "inputs in the group"),
    Column("loss", "float64", "loss over the group, that of the whole network"),
    Column("gradient_norm", "float64", "L2 norm of the group's gradient in this tensor"),
    Column("share", "float64", "of the squared norm of the group's whole gradient"),
    Column("noise_scale", "float64", "examples at which noise equals signal: trace over squared gradient"),
    Column("noise_trace", "float64", "trace of the covariance of one example's gradient, unbiased"),
    Column("squared_gradient", "float64", "squared norm of the true gradient, unbiased: may be negative"),
    *STATE,
    Column("others", "list<string>", "the groups, itself among them"),
    Column("cosine", "list<float64>", "cosine of the group's gradient with that of each of these"),
)
TRAINING_UNITS = (
    *MATRIX[:-2],
    Column("units", "int64", "units of the layer"),
    Column("dead", "int64", "units with the same activation on every input of the group; null for fewer than two"),
    Column("saturated", "int64", "units near a bound of their activation on nearly every input; null without bounds"),
    *STATE,
    Column("dead_units", "list<int32>", "which"),
    Column("saturated_units", "list<int32>", "which"),
)
SALIENCY = (
    *MATRIX[:-2],
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
    *STATE,
    Column("targets", "list<int64>", "index of the chosen output along each axis of the outputs"),
)
SALIENCY_CHECKS = (
    *MATRIX[:-2],
    Column("method", "string", "the method that is checked"),
    Column("score", "string", "what the curves are of: probability or output; null where there are none"),
    Column("deletion_area", "float64", "under the score as what the map holds for most important goes"),
    Column("insertion_area", "float64", "under the score as it comes"),
    Column("randomised_correlation", "float64", "rank correlation of |map| with that of the wholly random network"),
    *STATE,
    Column("fraction", "list<float64>", "share of the places that have gone or come"),
    Column("deletion", "list<float64>", "score at each of these"),
    Column("insertion", "list<float64>", "score at each of these"),
    Column("layers", "list<string>", "layers in the order in which they become random, from the output"),
    Column("correlation", "list<float64>", "rank correlation of the map with the trained network's, from no layer on"),
    Column("absolute", "list<float64>", "that of the magnitudes"),
)
SALIENCY_WEIGHTS = (
    *MATRIX[:-2],
    Column("target", "int64", "index of the chosen output, the first where it has several; null where there is one"),
    Column("output", "float64", "the chosen output"),
    Column("contribution", "float64", "sum of w ∂f/∂w over the tensor; the part names the input"),
    Column("share", "float64", "contribution over output; null for an output of 0"),
    *STATE,
    Column("targets", "list<int64>", "index of the chosen output along each axis of the outputs"),
    Column("channels", "list<float32>", "contribution of each channel"),
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
    *MATRIX[:-2],
    *_EXAMINED,
    Column("magnitude", "float64", "sum of |w|"),
    *(Column(name, "float64", meaning) for name, meaning in _CRITICALITY),
    *STATE,
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
    *STATE,
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
    *STATE,
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
    *STATE,
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
    *STATE,
)
