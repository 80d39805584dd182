"""What a tensor does in its network, told from its name.

A checkpoint says how its tensors are called, not what they are for. `assign` gives each a role and the number of the
block that it lies in, so that a report can group attention with attention and plot a statistic against depth. The rules
know the naming habits of Hugging Face transformers, timm, torchvision, flax, Keras, and of the usual quantisers; a name
that none of them knows gets `other`, because no role is better than a wrong one.

Where habits disagree or a role is too coarse, these choices hold:

- A scale or shift of a normalisation layer, and its running statistics, are `norm`; any other additive bias is `bias`,
  also that of a router, a head or a recurrent cell. A counter of batches is `other`.
- Key and value in one matrix count as `attention_qkv`, as query, key and value in one do; so DeepSeek's `kv_b_proj` and
  `kv_a_proj_with_mqa` do too. Its `q_a_proj` and `q_b_proj` are both `attention_q`.
- Gate and up projection in one matrix count as `mlp_up`.
- A matrix of a shared expert is `expert`; the gate of a shared expert is `router`.
- Every matrix inside an output head is `head`, its hidden layers included; so are the projections of CLIP's towers. A
  lone `fc`, `linear` or `output` at the root of a network is its head; `dense` and numbered layers say too little.
- Learned tables and tokens (positions, token types, relative position biases, class token) are `embedding`; the
  convolution that cuts an image into patches is `conv`.
- A layer scale (`layer_scale`, `ls1.gamma`, ConvNeXt's `gamma`) normalises nothing and is `other`.
- Weights that hold one code an entry (float8, float4, int8) keep their role; `codes` are entries packed together.
- The low-rank factors of an adapter (LoRA) and the state of an optimiser are `other`.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

__all__ = ["ROLES", "Assignment", "Role", "assign", "is_conv_hwio", "layer_of"]

Role = Literal[
    "embedding",
    "attention_q",
    "attention_k",
    "attention_v",
    "attention_o",
    "attention_qkv",
    "mlp_up",
    "mlp_gate",
    "mlp_down",
    "norm",
    "router",
    "expert",
    "conv",
    "bias",
    "head",
    "codes",
    "scales",
    "other",
]

ROLES: tuple[Role, ...] = get_args(Role)


class Assignment(NamedTuple):
    """Role of a tensor and number of its block; the number is None outside of numbered blocks."""

    role: Role
    layer: int | None


# Fragments of the rules. A path is lower case with '.' between its parts; a word begins a part or follows '_'.
_WORD = r"(?:^|[._])"
_MATRIX = r"(?:weights?|kernel|w)$"
_TABLE = r"(?:weight|kernel|w|embeddings?)$"
_NORM = r"(?:[^.]*norm[^.]*|(?:[^.]*_)?(?:ln|bn|gn|grn)(?:[\d_][^.]*)?)"
_ATTENTION = r"att(?:n|ention)[^.]*\.(?:\w+\.)?"
_FFN = r"(?:ffn|feed_?forward)"
_MLP = rf"(?:mlp|{_FFN})"
_ROOT = r"^(?:(?:module|model|params|resnet)\.)?"

# In order: the first rule found in a path gives its role.
_RULES: tuple[tuple[str, Role], ...] = (
    # What a later rule would take for a weight
    (rf"{_WORD}lora[._]|^(?:opt_state|optimizer)\.|\.quant_state\.", "other"),
    (rf"masked_bias$|{_WORD}(?:g_idx|weight_shape|weight_format)$", "other"),
    (r"(?:\.\d+|\.ls\d*|layer_?scale[^.]*)\.gamma$", "other"),
    # Quantisers
    (rf"{_WORD}(?:scales|absmax|quant_map|scb|zero_points?|amax)$", "scales"),
    (rf"{_WORD}(?:weight|kernel|input|output|global|proj|[qkv]|kv|w\d+)_scale(?:_inv|_\d)?$", "scales"),
    (rf"{_WORD}(?:qweight|qzeros|packed|blocks|codes)$", "codes"),
    # Normalisation and biases
    (rf"(?:{_WORD}(?:(?:running|moving)_(?:mean|var|variance)|gamma|beta)|\.scale)$", "norm"),
    (rf"(?:^|\.){_NORM}\.(?:weight|bias|scale|offset|mean|var|w|b|g)$", "norm"),
    # ConvNeXt normalises before it downsamples and after its stem, in a Sequential
    (r"(?:\bstages\.\d+\.downsampl\w+\.0|downsample_layers\.(?:0\.1|[1-9]\.0)|^stem\.1)\.bias$", "norm"),
    (rf"{_WORD}(?:bias|biases|bias_(?:ih|hh|k|v)(?:_l\d+)?(?:_reverse)?|b)$", "bias"),
    # Mixture of experts
    (rf"{_WORD}router\.(?:\w+\.)*{_MATRIX}", "router"),
    (rf"(?:gate_inp|expert_gate)\w*\.{_MATRIX}|(?:{_MLP}|moe)\.gate\.(?:wg\.)?{_MATRIX}", "router"),
    (rf"{_WORD}experts?(?:_\d+)?\.|_(?:exps|shexp)\.weight$|moe\.(?:input|output)_linear\.", "expert"),
    # Attention
    (rf"{_WORD}(?:qkv|qkv_proj|wqkv|w_pack|c_attn|query_key_value|qkv_einsum)[._]{_MATRIX}", "attention_qkv"),
    (rf"{_WORD}(?:w?kv(?:_[ab])?(?:_proj)?(?:_mqa|_with_mqa)?|kv_einsum)\.{_MATRIX}", "attention_qkv"),
    (rf"{_ATTENTION}in_proj(?:_qkvz?)?[._]{_MATRIX}", "attention_qkv"),
    (rf"{_WORD}(?:q_proj|q_lin|to_q|wq|query_proj|q_einsum|q_attn|attn_q)[._]{_MATRIX}", "attention_q"),
    (rf"{_WORD}(?:q_[ab]_proj|wq_[ab]|attn_q_[ab])\.{_MATRIX}", "attention_q"),
    (rf"{_WORD}(?:k_proj|k_lin|to_k|wk|key_proj|attn_k)[._]{_MATRIX}", "attention_k"),
    (rf"{_WORD}(?:v_proj|v_lin|to_v|wv|value_proj|attn_v)[._]{_MATRIX}", "attention_v"),
    (rf"{_WORD}(?:o_proj|out_lin|to_out|to_out\.0|att(?:n|ention)_output|attn_vec_einsum)\.{_MATRIX}", "attention_o"),
    (rf"{_ATTENTION}(?:query|q)\.{_MATRIX}", "attention_q"),
    (rf"{_ATTENTION}(?:key|k)\.{_MATRIX}", "attention_k"),
    (rf"{_ATTENTION}(?:value|v)\.{_MATRIX}", "attention_v"),
    (rf"{_ATTENTION}(?:o|wo|out|proj|c_proj|out_proj|dense|projection|output)\.{_MATRIX}", "attention_o"),
    # Feed-forward
    (rf"{_WORD}(?:gate_proj|wi_0|ffn_gate)\.{_MATRIX}|{_FFN}\.w1\.{_MATRIX}", "mlp_gate"),
    (rf"{_WORD}(?:up_proj|c_fc|fc_in|dense_h_to_4h|lin1|wi|wi_1|pwconv1|ffn_up)\.{_MATRIX}", "mlp_up"),
    (rf"{_WORD}(?:down_proj|fc_out|dense_4h_to_h|lin2|pwconv2|ffn_down|ffn_output)\.{_MATRIX}", "mlp_down"),
    (rf"intermediate(?:_query)?[._]dense\.{_MATRIX}|{_WORD}ffn\.{_MATRIX}", "mlp_up"),
    (
        rf"output(?:_query)?[._]dense\.{_MATRIX}|(?:{_MLP}|densereludense)\.(?:wo|c_proj)\.{_MATRIX}|mlp\.linear(?:\.w)?$",
        "mlp_down",
    ),
    (rf"(?:{_MLP}|\.\d+)\.(?:linear_)?fc1\.{_MATRIX}|\.\d+\.linear1\.{_MATRIX}", "mlp_up"),
    (rf"(?:{_MLP}|\.\d+)\.(?:linear_)?fc2\.{_MATRIX}|\.\d+\.linear2\.{_MATRIX}", "mlp_down"),
    (rf"\d\.mlp\.(?:0|linear_1)\.{_MATRIX}|mlp\w*\.dense_0\.{_MATRIX}", "mlp_up"),
    (rf"\d\.mlp\.(?:2|3|linear_2)\.{_MATRIX}|mlp\w*\.dense_1\.{_MATRIX}", "mlp_down"),
    (rf"{_FFN}\.w3\.{_MATRIX}|mlp\.w12\.{_MATRIX}|mlp\.gating_einsum(?:\.w)?$", "mlp_up"),
    (rf"{_FFN}\.w2\.{_MATRIX}|mlp\.w3\.{_MATRIX}", "mlp_down"),
    # Ends of the network
    (
        rf"\b(?:\w*lm_head|heads?|head_dist|score|\w*classifier|cls|predictions|logits|qa_outputs)\.(?:.*\.)?{_MATRIX}",
        "head",
    ),
    (rf"{_WORD}(?:embed_out|unembed\w*|logits_dense|output_projection)\.{_MATRIX}", "head"),
    (rf"{_WORD}vocab_(?:projector|transform)\.{_MATRIX}", "head"),
    (rf"(?:^|\.)(?:visual|text)_projection(?:\.{_MATRIX}|$)|^visual\.proj$", "head"),
    (rf"{_ROOT}(?:fc|linear|decoder|proj_out|(?:output\.)?output)\.{_MATRIX}", "head"),
    (rf"{_WORD}(?:embed|embeddings?|position_bias_table|rel_pos_[hw])$", "embedding"),
    (rf"{_WORD}(?:cls_token|class_token|dist_token|mask_token|register_tokens)$|^(?:params\.)?cls$", "embedding"),
    (rf"{_WORD}(?:embed|embd|emb|embedder|embeddings?)(?:_(?:tokens|positions|in|\d+))?\.{_TABLE}", "embedding"),
    (rf"{_WORD}(?:wte|wpe|relative_attention_bias)\.{_TABLE}|{_ROOT}shared\.{_TABLE}", "embedding"),
    (r"conv(?!next|bert).*[._](?:weights?|weight_v|original1|kernel|w|uniform\d+)$", "conv"),
)

_COMPILED_RULES = tuple((re.compile(pattern), role) for pattern, role in _RULES)

# Keras 1 called a kernel after its initialiser: `uniform3`.
_KERNEL = re.compile(r"(?:^|[._])(?:weights?|kernel|w|uniform\d+)$")
_CHANNELS_LAST_KERNEL = re.compile(r"(?:^|[._])(?:weights|kernel|w|uniform\d+)$")
_WEIGHT_IN_SEQUENTIAL = re.compile(r"(?:^|\.)\d+\.weight$")

# A part that is a number (not an expert's, nor one inside a stem, MLP or head), or the number that ends a layer's name.
# TensorFlow's BERT writes `layer_._3`. Nine digits: more than any network has, and what int() takes in any case.
_NUMBERED_LAYER = (
    rf"\bh|layer|block|stage|fire|conv(?:[123]d)?(?:_transpose|_dw|_pw)?|dense|{_ROOT}(?:fc|linear)"
    r"|bn|norm(?:alization)?|embed(?:ding)?|attention|lstm|gru|rnn|cell"
)
_BLOCK = re.compile(
    r"(?:(?:^|(?<!experts)(?<!stem)(?<!mlp)(?<!head)(?<!classifier)\.)(?=[0-9]+(?:\.|$))"
    rf"|(?:{_NUMBERED_LAYER})s?(?:_|_\._)?)([0-9]{{1,9}})(?=[._]|$)"
)

# What a name calls a matrix may be a convolution: `fc1` of squeeze-and-excitation, `patch_embedding`.
_MAY_BE_CONV: frozenset[Role] = frozenset({"embedding", "mlp_up", "mlp_gate", "mlp_down", "other"})
# The number of a block or an expert that has parts of its own: no rule asks which, and without it names share a cache.
_NUMBERED_MODULE = re.compile(r"\.[0-9]+(?=\.[a-z_][^.]*\.)")
_PACKED_DTYPES = frozenset({"U8", "I32", "U32"})


def assign(name: str, shape: tuple[int, ...], dtype: str, siblings: Collection[str] = ()) -> Assignment:
    """Role and block number of the tensor called `name`.

    `shape` and `dtype` (as safetensors names it: F32, BF16, F8_E4M3, U8, ...) decide where the name alone cannot;
    `siblings`, a set of all names in the checkpoint, tells packed codes by the scales beside them, and the bias of an
    unnamed normalisation by its statistics. Parts of a name may be separated by '.', '/' or ':'; case is ignored.

    The layer is the first block number in the name: 17 in `model.layers.17.mlp.experts.3.w1.weight`, 3 in
    `Conv_3/kernel`. Where blocks are numbered within stages (`layer1.0` of ResNet, `stages.0.blocks.2`) it is that of
    the stage: one name does not tell how many blocks came before. Never raises: what is unknown is `other` and None.
    """
    path = _path(name)
    return Assignment(_role(name, path, shape, dtype, siblings), _block_number(path))


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to: its name without the last part; a tensor at the top is a layer by itself."""
    return name.rpartition(".")[0] or name


def is_conv_hwio(name: str) -> bool:
    """Whether a convolution kernel of this name is stored channels last, [height, width, in, out].

    True for the habits of flax, Keras and TensorFlow, whose leaf is called `kernel`; False for PyTorch's
    [out, in, height, width], whose leaf is called `weight`.
    """
    return _CHANNELS_LAST_KERNEL.search(_path(name)) is not None


def _path(name: str) -> str:
    """`name` in lower case with '.' between parts, without what wrappers add to it.

    Keras ends a name in `:0`, flax.nnx in `.value`; PEFT puts `base_layer` between a module and its weight.
    """
    path = name.lower().removesuffix(":0").replace("/", ".").replace(":", ".")
    return path.removesuffix(".value").replace(".base_layer.", ".")


def _block_number(path: str) -> int | None:
    match = _BLOCK.search(path)
    return int(match[1]) if match else None


def _role(name: str, path: str, shape: tuple[int, ...], dtype: str, siblings: Collection[str]) -> Role:
    if dtype == "F8_E8M0":
        return "scales"
    return _role_beside(name, dtype, siblings) or _role_in_shape(_role_of_path(path), path, shape, dtype)


def _role_beside(name: str, dtype: str, siblings: Collection[str]) -> Role | None:
    """The role that the neighbours of a tensor give away, if they do."""
    start = max(name.rfind("."), name.rfind("/"), name.rfind(":")) + 1
    module, separator, leaf = name[:start], name[start - 1 : start], name[start:]

    def beside(*leaves: str) -> bool:
        return any(module + leaf in siblings for leaf in leaves)

    if dtype in _PACKED_DTYPES and leaf == "weight" and beside("scale", "scales"):
        return "codes"
    if dtype in _PACKED_DTYPES and beside(leaf + "_scale", leaf + "_scales", leaf + separator + "absmax"):
        return "codes"
    if (leaf == "scale" and beside("weight")) or (leaf == "biases" and beside("scales")):
        return "scales"
    if leaf in ("weight", "bias", "gamma") and beside("running_mean", "beta"):
        return "norm"
    if leaf == "bias" and beside("scale") and not beside("weight", "kernel"):
        return "norm"
    return None


def _role_of_path(path: str) -> Role:
    return _first_match(_NUMBERED_MODULE.sub(".0", path))


@lru_cache(maxsize=1 << 12)
def _first_match(path: str) -> Role:
    for pattern, role in _COMPILED_RULES:
        if pattern.search(path):
            return role
    return "other"


def _role_in_shape(role: Role, path: str, shape: tuple[int, ...], dtype: str) -> Role:
    """`role`, corrected where the number of axes contradicts it."""
    axes = len(shape)
    if axes == 1 and _WEIGHT_IN_SEQUENTIAL.search(path):
        return "norm"
    if axes >= 4 and role in _MAY_BE_CONV and dtype.startswith(("F", "BF")) and _KERNEL.search(path):
        return "conv"
    if (axes >= 4 and role == "bias") or (axes < 3 and role == "conv"):
        return "other"
    return role
