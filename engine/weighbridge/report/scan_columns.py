"""The columns of the table `scan`, in order. Types are pyarrow's, as strings."""

from weighbridge.report.columns import FINITE, Column

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
    Column("min", "float64", f"least {FINITE}"),
    Column("max", "float64", f"greatest {FINITE}"),
    Column("mean", "float64", f"mean {FINITE}"),
    Column("std", "float64", f"standard deviation {FINITE}, divided by n"),
    Column("skewness", "float64", f"skewness {FINITE}; null where they are equal"),
    Column("kurtosis", "float64", f"excess kurtosis {FINITE}; null where they are equal"),
    Column("l1", "float64", f"sum of magnitudes {FINITE}"),
    Column("l2", "float64", f"root of the sum of squares {FINITE}"),
    Column("absmax", "float64", f"greatest magnitude {FINITE}"),
    *(Column(name, "float64", f"{q} quantile {FINITE} (inverted_cdf)") for name, q in QUANTILES.items()),
    *(Column(name, "float64", f"share {FINITE} with |w| <= {t:g} absmax") for name, t in SPARSITIES.items()),
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
