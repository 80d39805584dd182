"""Circuits: the strongest weights upstream of a unit, against a plain search over arrays, and their diagrams."""

import json
import re

import holoviews as hv
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import weighbridge
from weighbridge.analyses.circuits import circuits
from weighbridge.circuit import Unit
from weighbridge.cli import app
from weighbridge.errors import BadArgument, ReportError, TensorNotFound
from weighbridge.views.circuit import circuit
from weighbridge.views.circuit_file import circuit_file
from weighbridge.views.circuit_layout import drawing


@pytest.fixture
def network():
    """Convolutions of 3 to 5 and to 4 channels, a flattened map of 2 × 2 of these to 6, and 2 outputs; PyTorch's."""
    rng = np.random.default_rng(0)
    shapes = {"conv1": (5, 3, 3, 3), "conv2": (4, 5, 3, 3), "fc1": (6, 16), "fc2": (2, 6)}
    return {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def signed_norms(x):
    """Of the weights from each input, [inputs, ...]."""
    flat = x.reshape(len(x), -1).astype(float)
    return np.sign(flat.sum(axis=1)) * np.linalg.norm(flat, axis=1)


def test_edges_are_the_strongest_weights(network):
    found = circuits(network, "fc2.weight:1", top=3, depth=4)
    assert found.layers == ("input", "conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight")
    expected = {
        "fc2.weight": lambda unit: network["fc2.weight"][unit].astype(float),
        "fc1.weight": lambda unit: signed_norms(network["fc1.weight"][unit].reshape(4, 4)),
        "conv2.weight": lambda unit: signed_norms(network["conv2.weight"][unit]),
        "conv1.weight": lambda unit: signed_norms(network["conv1.weight"][unit]),
    }
    for unit in found.units:
        if unit.layer == "input":
            assert found.inputs(unit) == []
            continue
        weights = expected[unit.layer](unit.number)
        strongest = np.argsort(-np.abs(weights))[:3]
        edges = found.inputs(unit)
        assert [edge.source.number for edge in edges] == strongest.tolist()
        np.testing.assert_allclose([edge.weight for edge in edges], weights[strongest], rtol=1e-6)
    assert len(circuits(network, "fc2.weight:1", top=3, depth=1).edges) == 3


def test_flax_stores_the_other_way_round(network):
    """Kernels [in, out], maps flattened with channels last: the same network has the same circuit."""
    flax = {
        "conv1.kernel": network["conv1.weight"].transpose(2, 3, 1, 0),
        "conv2.kernel": network["conv2.weight"].transpose(2, 3, 1, 0),
        "fc1.kernel": network["fc1.weight"].reshape(6, 4, 4).transpose(2, 1, 0).reshape(16, 6),
        "fc2.kernel": network["fc2.weight"].T,
    }
    ours = circuits(network, "fc2.weight:0", depth=4)
    theirs = circuits({name: np.ascontiguousarray(x) for name, x in flax.items()}, "fc2.kernel:0", depth=4)
    turned = [
        (
            e.source.layer.replace("kernel", "weight"),
            e.source.number,
            e.target.number,
            pytest.approx(e.weight, rel=1e-5),
        )
        for e in theirs.edges
    ]
    assert [(e.source.layer, e.source.number, e.target.number, e.weight) for e in ours.edges] == turned


def test_a_chain_is_as_given(network):
    found = circuits(network, "fc2.weight:0", chain=["conv2.weight", "fc1.weight", "fc2.weight"], depth=9)
    assert found.layers[:2] == ("input", "conv2.weight")
    with pytest.raises(BadArgument, match="no multiple of the 4 outputs of conv2"):
        circuits(network, "fc2.weight:0", chain=["conv2.weight", "fc2.weight"])
    with pytest.raises(BadArgument, match="is not in the chain"):
        circuits(network, "fc2.weight:0", chain=["fc1.weight"])


def test_what_cannot_be_asked(network):
    for unit, error, match in (
        ("fc2.weight:2", BadArgument, "no unit 2; expected 0 to 1"),
        ("fc3.weight:0", TensorNotFound, "fc3"),
        ("fc2.weight", BadArgument, "expected tensor:index"),
        ("mlp.0.1", BadArgument, "named as none of"),
    ):
        with pytest.raises(error, match=match):
            circuits(network, unit)
    with pytest.raises(BadArgument, match="fewer than two axes"):
        circuits(network | {"b.bias": np.ones(3)}, "b.bias:0")
    with pytest.raises(BadArgument, match="top is 0"):
        circuits(network, "fc2.weight:0", top=0)


def test_zero_weights_are_no_edges():
    x = np.zeros((2, 5), np.float32)
    x[1, 3] = -2
    assert circuits({"x.weight": x}, "x.weight:0").edges == ()
    (edge,) = circuits({"x.weight": x}, "x.weight:1").edges
    assert (edge.source, edge.weight) == (Unit("input", 3), -2)


@pytest.fixture
def llama(tmp_path):
    rng = np.random.default_rng(1)
    tree = {"model.embed_tokens.weight": rng.standard_normal((31, 16)), "model.norm.weight": np.ones(16)}
    for i in range(3):
        at = f"model.layers.{i}"
        for name, shape in (("q", (16, 16)), ("k", (16, 16)), ("v", (16, 16)), ("o", (16, 16))):
            tree[f"{at}.self_attn.{name}_proj.weight"] = rng.standard_normal(shape)
        tree |= {f"{at}.mlp.{name}_proj.weight": rng.standard_normal((40, 16)) for name in ("up", "gate")}
        tree[f"{at}.mlp.down_proj.weight"] = rng.standard_normal((16, 40))
        tree[f"{at}.post_attention_layernorm.weight"] = rng.standard_normal(16)
    save_file({name: x.astype(np.float32) for name, x in tree.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    vocabulary = {f"word{i}": i for i in range(31)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return tmp_path, tree


def test_what_writes_to_a_neuron(llama):
    """The strongest of all neurons before it and of all tokens, through the residual stream and the norm's scale."""
    folder, tree = llama
    found = circuits(folder, "mlp.2.7", top=12, depth=1)
    read = tree["model.layers.2.post_attention_layernorm.weight"] * tree["model.layers.2.mlp.up_proj.weight"][7]
    every = {("tokens", i): w for i, w in enumerate(tree["model.embed_tokens.weight"] @ read)}
    for layer in range(2):
        written = tree[f"model.layers.{layer}.mlp.down_proj.weight"].T @ read
        every |= {(f"mlp {layer}", i): w for i, w in enumerate(written)}
    strongest = sorted(every, key=lambda unit: -abs(every[unit]))[:12]
    assert [tuple(edge.source) for edge in found.inputs(found.unit)] == strongest
    for edge in found.edges:
        assert edge.weight == pytest.approx(every[tuple(edge.source)], rel=1e-4)
        if edge.source.layer == "tokens":
            assert found.label(edge.source) == f"word{edge.source.number}"
    with pytest.raises(BadArgument, match="no neuron 40; expected 0 to 39"):
        circuits(folder, "mlp.2.40")
    with pytest.raises(BadArgument, match="no layer 3"):
        circuits(folder, "mlp.3.0")


def test_what_reads_a_neuron_and_what_a_logit_reads(llama):
    """Later neurons and logits downstream, all neurons upstream of a logit; a neuron bears its top token."""
    folder, tree = llama
    found = circuits(folder, "mlp.1.7", top=9, depth=1, direction="downstream")
    down = {i: tree[f"model.layers.{i}.mlp.down_proj.weight"] for i in range(3)}
    final = tree["model.norm.weight"] * tree["model.embed_tokens.weight"]
    read = tree["model.layers.2.post_attention_layernorm.weight"] * tree["model.layers.2.mlp.up_proj.weight"]
    every = {("mlp 2", i): w for i, w in enumerate(read @ down[1][:, 7])}
    every |= {("logits", i): w for i, w in enumerate(final @ down[1][:, 7])}
    strongest = sorted(every, key=lambda unit: -abs(every[unit]))[:9]
    assert [tuple(edge.target) for edge in found.edges] == strongest
    np.testing.assert_allclose([edge.weight for edge in found.edges], [every[unit] for unit in strongest], rtol=1e-4)
    for unit in found.units:
        if unit.layer == "mlp 2":
            top = np.argmax(tree["model.embed_tokens.weight"] @ read[unit.number])
            assert found.label(unit) == f"{unit.number} word{top}"
    found = circuits(folder, "logits.4", top=5, depth=1)
    every = {(f"mlp {i}", n): w for i in range(3) for n, w in enumerate(down[i].T @ final[4])}
    every |= {("tokens", n): w for n, w in enumerate(tree["model.embed_tokens.weight"] @ final[4])}
    strongest = sorted(every, key=lambda unit: -abs(every[unit]))[:5]
    assert [tuple(edge.source) for edge in found.edges] == strongest
    assert circuits(folder, "tokens.4").edges == ()
    for unit, match in (("logits.31", "no token 31"), ("tokens.99", "no token 99")):
        with pytest.raises(BadArgument, match=match):
            circuits(folder, unit)


@pytest.mark.parametrize("top", [1, 7, 99])
def test_upstream_and_downstream_see_the_same_weights(network, top):
    """The edge from a to b is found from either end; grouped and depthwise convolutions keep to their groups."""
    rng = np.random.default_rng(5)
    grouped = {"conv3.weight": rng.standard_normal((6, 2, 3, 3)), "conv4.weight": rng.standard_normal((6, 1, 3, 3))}
    tree = {**dict(list(network.items())[:2]), **{name: x.astype(np.float32) for name, x in grouped.items()}}
    chain = list(tree)
    kernel = {("conv2.weight", "conv3.weight"): 2, ("conv3.weight", "conv4.weight"): 6}
    for (before, after), groups in kernel.items():
        reads, each = tree[after].shape[1], tree[after].shape[0] // groups
        weights = np.zeros((tree[before].shape[0], tree[after].shape[0]))
        for o in range(weights.shape[1]):
            start = o // each * reads
            weights[start : start + reads, o] = signed_norms(tree[after][o])
        for o in range(weights.shape[1]):
            edges = circuits(tree, f"{after}:{o}", chain=chain, top=top, depth=1).edges
            own = np.argsort(-np.abs(weights[:, o]), kind="stable")[: min(top, np.count_nonzero(weights[:, o]))]
            np.testing.assert_allclose([edge.weight for edge in edges], weights[own, o], rtol=1e-6)
        for i in range(weights.shape[0]):
            edges = circuits(tree, f"{before}:{i}", chain=chain, top=top, depth=1, direction="downstream").edges
            own = np.argsort(-np.abs(weights[i]), kind="stable")[: min(top, np.count_nonzero(weights[i]))]
            np.testing.assert_allclose([edge.weight for edge in edges], weights[i, own], rtol=1e-6)
    with pytest.raises(BadArgument, match="expected upstream or downstream"):
        circuits(tree, "conv1.weight:0", direction="sideways")


def test_a_flattened_map_is_read_by_its_channels(network):
    edges = circuits(network, "conv2.weight:3", top=9, depth=1, direction="downstream").edges
    weights = signed_norms(network["fc1.weight"].reshape(6, 4, 4)[:, 3])
    np.testing.assert_allclose([e.weight for e in edges], sorted(weights, key=lambda w: -abs(w)), rtol=1e-6)


def test_a_transformer_s_matrices_have_the_stream_between_them(minilm):
    """An MLP's outputs read its neurons, and an output of attention its values; what reads the stream reads inputs."""
    at = "encoder.layer.3"
    for name, layers in (
        ("output.dense", ("input", f"{at}.intermediate.dense.weight", f"{at}.output.dense.weight")),
        ("attention.self.value", ("input", f"{at}.attention.self.value.weight", f"{at}.attention.output.dense.weight")),
        ("attention.self.key", ("input", f"{at}.attention.self.key.weight")),
    ):
        assert circuits(minilm, f"{at}.{name}.weight:0").layers == layers
    x = weighbridge.open(minilm)[f"{at}.output.dense.weight"].read()[5]
    (edge,) = circuits(minilm, f"{at}.output.dense.weight:5", top=1, depth=1).edges
    assert (edge.source.number, edge.weight) == (np.abs(x).argmax(), pytest.approx(x[np.abs(x).argmax()]))


def test_gpt2_stores_inputs_first():
    rng = np.random.default_rng(3)
    tree = {"h.0.mlp.c_fc.weight": rng.standard_normal((6, 24)), "h.0.mlp.c_proj.weight": rng.standard_normal((24, 6))}
    found = circuits(tree, "h.0.mlp.c_proj.weight:5", top=3, depth=2)
    assert found.edges[0].weight == pytest.approx(max(tree["h.0.mlp.c_proj.weight"][:, 5], key=abs))
    neuron = found.edges[0].source
    assert found.inputs(neuron)[0].weight == pytest.approx(max(tree["h.0.mlp.c_fc.weight"][:, neuron.number], key=abs))


def test_numbers_in_names_count():
    tree = {f"conv{i}.weight": np.ones((i, i - 1, 1, 1)) for i in (10, 11, 9)}
    assert circuits(dict(sorted(tree.items())), "conv11.weight:0").layers[1:] == tuple(
        f"conv{i}.weight" for i in (9, 10, 11)
    )


def test_a_post_norm_network_is_refused(minilm):
    with pytest.raises(BadArgument, match="normalises after adding"):
        circuits(minilm, "mlp.3.0")


def test_a_diagram_has_the_strongest_edges_that_lead_on(network):
    found = circuits(network, "fc2.weight:0", top=4, depth=4)
    drawn = drawing(found, 10)
    reached, left = {found.unit}, list(found.edges)
    for edge in drawn.edges:
        assert edge == max((e for e in left if e.target in reached), key=lambda e: abs(e.weight))
        left.remove(edge)
        reached.add(edge.source)
    assert len(drawn.edges) == 10
    columns = [found.layers.index(unit.layer) for unit in sorted(drawn.places, key=lambda unit: drawn.places[unit][0])]
    assert columns == sorted(columns)
    by_weight = sorted(drawn.edges, key=lambda edge: abs(edge.weight))
    assert [*map(drawn.width, by_weight)] == sorted(map(drawn.width, by_weight))
    assert len(set(drawn.places.values())) == len(drawn.places)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_diagrams_are_drawn(network, tmp_path, theme):
    found = circuits(network, "fc2.weight:0", depth=4)
    picture = circuit(found, theme=theme)
    hv.renderer("bokeh").get_plot(picture)
    (lines,) = (x for x in picture.traverse(lambda x: x, [hv.Path]) if type(x) is hv.Path)
    assert len(lines) == len(drawing(found, 60).edges) > 20
    for suffix in (".png", ".svg", ".pdf", ".html") if theme == "light" else (".png",):
        circuit_file(found, tmp_path / f"c{suffix}", theme=theme)
        assert (tmp_path / f"c{suffix}").stat().st_size > 1000
    icons = {unit: np.random.default_rng(0).random((9, 9, 3)) for unit in found.units[::2]}
    circuit_file(found, tmp_path / "icons.png", icons=icons, theme=theme)
    assert (tmp_path / "icons.png").stat().st_size != (tmp_path / "c.png").stat().st_size
    with pytest.raises(BadArgument, match="expected a name that ends in"):
        circuit_file(found, tmp_path / "c.gif")
    with pytest.raises(ReportError, match="cannot be written"):
        circuit_file(found, tmp_path / "no" / "c.png")


def test_an_html_diagram_has_a_slider_and_units_that_open(network, tmp_path, chromium):
    """As many edges as the slider says, strongest first; a click hides what a unit is built from."""
    found = circuits(network, "fc2.weight:0", top=4, depth=3)
    icons = {unit: np.full((9, 9, 3), unit.number / 9) for unit in found.units if unit.layer == "conv2.weight"}
    circuit_file(found, tmp_path / "c.html", icons=icons)
    drawn = drawing(found, 60, icons)
    text = (tmp_path / "c.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", text)
    page = chromium.new_page()
    page.goto(f"file://{tmp_path / 'c.html'}")

    def shown(kind):
        found = (
            f"[...document.querySelectorAll('[id^={kind}-]')].filter((e) => e.style.display != 'none').map((e) => e.id)"
        )
        return sorted(int(name.partition("-")[2]) for name in page.evaluate(found))

    page.locator("input").fill("7")
    assert shown("edge") == list(range(7))
    page.locator("input").fill(str(len(drawn.edges)))
    units = list(drawn.places)
    assert shown("icon") == [i for i, unit in enumerate(units) if unit in icons]
    page.locator(f"#name-{units.index(found.unit)}").click()
    assert shown("edge") == []
    assert shown("icon") == []
    page.locator(f"#name-{units.index(found.unit)}").click()
    assert len(shown("edge")) == len(drawn.edges)
    page.close()


@pytest.mark.slow
def test_many_edges_are_bundled_and_keep_their_ends():
    rng = np.random.default_rng(0)
    found = circuits({f"fc{i}.weight": rng.standard_normal((20, 20)) for i in range(2)}, "fc1.weight:0", top=20)
    drawn = drawing(found)
    assert drawn.bundled
    assert len(drawn.edges) == 420
    paths = drawn.paths()
    for edge, path in zip(drawn.edges, paths, strict=True):
        np.testing.assert_array_equal(path[[0, -1]], [drawn.places[edge.source], drawn.places[edge.target]])
    assert np.median([len(path) for path in paths]) > 5


def test_a_unit_without_inputs_is_drawn_alone(tmp_path):
    found = circuits({"x.weight": np.zeros((2, 5), np.float32)}, "x.weight:0")
    hv.renderer("bokeh").get_plot(circuit(found))
    circuit_file(found, tmp_path / "c.png")


def test_the_command(digits, tmp_path):
    run = CliRunner().invoke
    done = run(app, ["circuits", str(digits), "head.kernel:3", "--depth", "3", "-o", str(tmp_path / "c.svg")])
    assert done.exit_code == 0, done.output
    assert "dense.kernel" in done.stdout
    assert (tmp_path / "c.svg").read_text().count("<text") > 10
    rows = [
        json.loads(line) for line in run(app, ["circuits", str(digits), "head.kernel:3", "--json"]).stdout.splitlines()
    ]
    found = weighbridge.circuits(digits, "head.kernel:3")
    assert [row["weight"] for row in rows] == [edge.weight for edge in found.edges]
    assert run(app, ["circuits", str(digits), "head.kernel:99"]).exit_code == 2
    assert run(app, ["circuits", str(digits), "head.kernel:3", "--strides", "2"]).exit_code == 2
    assert "head.kernel" in run(app, ["circuits", str(digits), "conv2.kernel:3", "--downstream"]).stdout


def test_the_command_of_a_whole_chain(digits, tmp_path):
    run = CliRunner().invoke
    options = ["--chain", "conv1.kernel,conv2.kernel", "--expanded", "--strides", "2,1", "--paddings", "1,same"]
    done = run(app, ["circuits", str(digits), "conv2.kernel:3", *options, "-o", str(tmp_path / "c.png")])
    assert done.exit_code == 0, done.output
    assert "sum over 7 × 7" in done.stdout
    assert (tmp_path / "c.png").stat().st_size > 1000
    (row,) = run(app, ["circuits", str(digits), "conv2.kernel:3", *options, "--json"]).stdout.splitlines()
    found = weighbridge.chain_weights(digits, ["conv1.kernel", "conv2.kernel"], 3, strides=[2, 1])
    np.testing.assert_allclose(json.loads(row)["weights"], found.values[..., 0])
    for wrong in (
        ["head.kernel:3", *options],
        ["conv2.kernel:3", "--expanded"],
        ["conv2.kernel:3", *options, "--strides", "x"],
    ):
        assert run(app, ["circuits", str(digits), *wrong]).exit_code == 2
