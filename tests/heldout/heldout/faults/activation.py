"""Another function than meant: swapped activations, approximations of GELU, soft caps, clipping."""
import math

import numpy as np

from ..graph import attribute, drop_attributes, set_attribute
from .registry import fault, pick, planted

SWAPS = {"Relu": ["Softplus", "Elu", "LeakyRelu"], "Sigmoid": ["HardSigmoid"], "Tanh": ["Softsign", "Erf"], "Erf": ["Tanh"], "Selu": ["Elu", "Relu"],
         "Elu": ["Selu", "Relu"], "HardSwish": ["Relu"], "LeakyRelu": ["Relu"], "HardSigmoid": ["Sigmoid"]}


@fault("activation")
def activation(g, rng):
    node = pick(rng, (n for n in g.of(*SWAPS) if g.computed(n.output[0])))
    if node is None:
        return None
    node.op_type = pick(rng, SWAPS[node.op_type])
    drop_attributes(node)
    return planted(node)


@fault("activation")
def activation_slope(g, rng):
    """The right function with another parameter."""
    node = pick(rng, g.of("LeakyRelu", "Elu", "Selu", "HardSigmoid"))
    if node is None:
        return None
    name, default = {"LeakyRelu": ("alpha", 0.01), "Elu": ("alpha", 1.0), "Selu": ("gamma", 1.0507), "HardSigmoid": ("alpha", 0.2)}[node.op_type]
    set_attribute(node, name, attribute(node, name, default) * 1.25)
    return planted(node)


@fault("activation")
def gelu_tanh(g, rng):
    """erf(u) of the exact GELU, replaced by the tanh approximation of the same argument u = x / sqrt(2)."""
    node = pick(rng, g.of("Erf"))
    if node is None:
        return None
    u, stem = node.input[0], node.output[0] + "_approx"
    c1 = g.add_constant(np.float32(math.sqrt(2 / math.pi) * math.sqrt(2)), stem + "_c1")
    c3 = g.add_constant(np.float32(math.sqrt(2 / math.pi) * 0.044715 * 2 * math.sqrt(2)), stem + "_c3")
    square = g.insert(node, "Mul", [u, u], stem)
    cube = g.insert(node, "Mul", [square.output[0], u], stem)
    first = g.insert(node, "Mul", [u, c1], stem)
    third = g.insert(node, "Mul", [cube.output[0], c3], stem)
    total = g.insert(node, "Add", [first.output[0], third.output[0]], stem)
    node.op_type = "Tanh"
    node.input[0] = total.output[0]
    return planted(square, cube, first, third, total, node)


def _tanh_gelu_argument(g, tanh):
    """x of tanh(sqrt(2/pi) * (x + 0.044715 x^3)), or None."""
    scale = g.producer(tanh.input[0])
    inner = g.producer(next((i for i in scale.input if g.constant(i) is None), "")) if scale is not None and scale.op_type == "Mul" else None
    if inner is None or inner.op_type != "Add":
        return None
    below = [i for i in inner.input if any(i in g.ancestors(other, 6) for other in inner.input if other != i)]
    return below[0] if below else None


@fault("activation")
def gelu_erf(g, rng):
    """tanh of the approximate GELU, replaced by erf(x / sqrt(2))."""
    found = pick(rng, [(n, x) for n in g.of("Tanh") if (x := _tanh_gelu_argument(g, n))])
    if found is None:
        return None
    node, x = found
    c = g.add_constant(np.float32(math.sqrt(0.5)), node.output[0] + "_c")
    scaled = g.insert(node, "Mul", [x, c], node.output[0] + "_exact")
    node.op_type = "Erf"
    node.input[0] = scaled.output[0]
    return planted(scaled, node)


@fault("activation")
def quick_gelu(g, rng):
    """erf(u) replaced by 2 sigmoid(1.702 sqrt(2) u) - 1, which makes the whole a quick GELU."""
    node = pick(rng, g.of("Erf"))
    if node is None:
        return None
    stem, out = node.output[0] + "_quick", node.output[0]
    k, two, one = (g.add_constant(np.float32(v), f"{stem}_c{i}") for i, v in enumerate((1.702 * math.sqrt(2), 2, 1)))
    a = g.insert(node, "Mul", [node.input[0], k], stem)
    b = g.insert(node, "Sigmoid", [a.output[0]], stem)
    c = g.insert(node, "Mul", [b.output[0], two], stem)
    g.rename_output(node, 0, g.fresh(out + "_unused"))
    d = g.insert(node, "Sub", [c.output[0], one], stem, output=out)
    g.remove(node)
    return planted(a, b, c, d)


@fault("activation")
def relu_for_silu(g, rng):
    """x * sigmoid(x) replaced by max(x, 0)."""
    sites = []
    for s in g.of("Sigmoid"):
        for m in g.consumers(s.output[0]):
            if m.op_type == "Mul" and s.input[0] in m.input:
                sites.append((s, m))
    found = pick(rng, sites)
    if found is None:
        return None
    sigmoid, mul = found
    x = sigmoid.input[0]
    mul.op_type = "Relu"
    del mul.input[:]
    mul.input.append(x)
    if not g.consumers(sigmoid.output[0]):
        g.remove(sigmoid)
    return planted(mul)


@fault("activation")
def quick_gelu_factor(g, rng):
    """x * sigmoid(1.702 x) with the factor forgotten or another one."""
    sites = []
    for s in g.of("Sigmoid"):
        m = g.producer(s.input[0])
        if m is not None and m.op_type == "Mul":
            sites += [(m, i) for i, name in enumerate(m.input) if abs((g.scalar(name) or 0) - 1.702) < 1e-3]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    node.input[i] = g.add_constant(np.float32(pick(rng, [1.0, 1.5957])).reshape(g.shape(node.input[i])), node.input[i] + "__z")
    return planted(node)


@fault("activation")
def clip_bounds(g, rng):
    sites = [n for n in g.of("Clip") if len(n.input) > 2 and g.scalar(n.input[2]) is not None]
    node = pick(rng, sites)
    if node is None:
        return None
    # a lower ceiling inside the range that occurs, or none at all
    x = g.value(node.input[0])
    new = float(np.quantile(x, 0.97)) if x.max() < 6 or rng.integers(2) else float(x.max()) + 100
    node.input[2] = g.add_constant(np.float32(min(new, 1e4)), node.input[2] + "__z")
    return planted(node)


@fault("activation")
def softcap_missing(g, rng):
    """cap * tanh(x / cap) with the tanh left out."""
    sites = []
    for t in g.of("Tanh"):
        before, after = g.producer(t.input[0]), g.consumers(t.output[0])
        if before is not None and before.op_type in ("Div", "Mul") and len(after) == 1 and after[0].op_type == "Mul":
            if any(g.scalar(i) for i in before.input) and any((g.scalar(i) or 0) > 1.5 for i in after[0].input):
                sites.append(t)
    node = pick(rng, sites)
    if node is None:
        return None
    node.op_type = "Identity"
    return planted(node)


@fault("activation")
def softcap_value(g, rng):
    """Another cap inside the soft cap: only the division is changed, as when the two constants are read from different settings."""
    sites = []
    for t in g.of("Tanh"):
        before = g.producer(t.input[0])
        if before is not None and before.op_type == "Div" and (g.scalar(before.input[1]) or 0) > 1.5:
            sites.append(before)
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[1] = g.add_constant(np.float32(g.scalar(node.input[1]) * 0.8).reshape(g.shape(node.input[1])), node.input[1] + "__z")
    return planted(node)
