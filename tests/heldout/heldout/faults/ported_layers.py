"""What goes wrong around layers when a model is ported or its kernels are fused: norms, activations, borders, choices, numbers. Second set."""
import numpy as np
from onnx import TensorProto

from ..graph import attribute, drop_attributes, set_attribute
from .normalisation import rms_gains
from .numeric import _chain, _site
from .registry import Planted, fault, pick, planted
from .spellings import _behind, _linear
from .wiring import _residuals


def _before_gain(g, node, i):
    """What a root-mean-square norm normalises, given the product with its gain."""
    p = g.producer(node.input[1 - i])
    while p is not None and p.op_type == "Cast":
        p = g.producer(p.input[0])
    if p is None or p.op_type not in ("Mul", "Div"):
        return None
    return next((x for x in p.input if g.shape(x) == g.shape(node.output[0])), None)


def _all_norms(g):
    """(node that ends the norm, value that is normed)."""
    return [(n, n.input[0]) for n in g.of("LayerNormalization")] + [(n, x) for n, i, _ in rms_gains(g) if (x := _before_gain(g, n, i))]


@fault("normalisation")
def norm_skipped(g, rng):
    found = pick(rng, _all_norms(g))
    if found is None:
        return None
    node, x = found
    node.op_type = "Identity"
    drop_attributes(node)
    del node.input[:], node.output[1:]
    node.input.append(x)
    return planted(node)


@fault("normalisation")
def norm_twice(g, rng):
    """Normed again, with the same gain and shift."""
    node = pick(rng, (n for n in g.of("LayerNormalization") if not g.is_output(n.output[0])))
    if node is None:
        return None
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__once"))
    again = g.insert_after(node, "LayerNormalization", [node.output[0], *list(node.input)[1:]], out + "__twice", output=out, epsilon=attribute(node, "epsilon", 1e-5))
    return planted(node, again)


@fault("normalisation")
def statistics_rounded(g, rng):
    """The mean of squares kept in half precision."""
    node = pick(rng, (n for n in g.of("ReduceMean") if (p := g.producer(n.input[0])) is not None and p.op_type in ("Pow", "Mul") and g.is_float(n.output[0])))
    return None if node is None else _chain(g, node, [("Cast", [], {"to": TensorProto.FLOAT16}), ("Cast", [], {"to": TensorProto.FLOAT})])


@fault("epsilon")
def eps_outside(g, rng):
    """A thousandth added behind the root instead of almost nothing inside it."""
    sites = [n for n in g.of("Sqrt") if (p := g.producer(n.input[0])) is not None and p.op_type == "Add" and any(0 < (g.scalar(i) or 0) < 1e-3 for i in p.input)]
    node = pick(rng, sites)
    if node is None:
        return None
    add = g.producer(node.input[0])
    i = next(i for i in (0, 1) if 0 < (g.scalar(add.input[i]) or 0) < 1e-3)
    node.input[0] = add.input[1 - i]
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__bare"))
    late = g.insert_after(node, "Add", [node.output[0], g.add_constant(np.float32(1e-3), out + "__eps")], out + "__safe", output=out)
    return planted(node, late, outputs=[node.output[0], out])


@fault("normalisation")
def unit_length_dropped(g, rng):
    """A vector or a set of weights that is not divided by its length or sum."""
    sums = ("ReduceSum", "ReduceL2", "ReduceL1")
    sites = [n for n in g.of("Div") if g.computed(n.output[0]) and g.shape(n.input[0]) == g.shape(n.output[0]) and g.shape(n.input[1]) is not None
             and any(p is not None and p.op_type in sums for a in [n.input[1], *g.ancestors(n.input[1], 4)] for p in [g.producer(a)])]
    node = pick(rng, sites)
    if node is None:
        return None
    node.op_type = "Identity"
    del node.input[1:]
    return planted(node)


@fault("scale")
def branch_gain_dropped(g, rng):
    """A learned factor for each channel, outside norms, forgotten."""
    gains = {n.name for n in g.of("Mul") if any(p is not None and p.op_type in ("Sqrt", "LayerNormalization", "InstanceNormalization", "BatchNormalization", "Pow") for a in g.ancestors(n.output[0], 8) for p in [g.producer(a)])}
    sites = [(n, i) for n in g.of("Mul") for i, name in enumerate(n.input) if (c := g.constant(name)) is not None and c.dtype == np.float32 and c.size > 4 and max(c.shape) == c.size
             and g.computed(n.input[1 - i]) and n.name not in gains and np.abs(c - 1).max() > 0.01]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    node.input[i] = g.add_constant(np.ones(g.shape(node.input[i]), np.float32), node.input[i] + "__z")
    return planted(node)


@fault("scale")
def embedding_scaled(g, rng):
    """Embeddings multiplied by the root of their width where they are not meant to be."""
    node = pick(rng, (n for n in g.of("Gather") if (t := g.constant(n.input[0])) is not None and t.ndim == 2 and g.computed(n.output[0]) and t.shape[1] > 4))
    if node is None:
        return None
    factor = np.float32(g.constant(node.input[0]).shape[1] ** 0.5)
    made = _behind(g, node.output[0], node.output[0] + "__scaled", "Mul", [g.add_constant(factor, node.output[0] + "__root")])
    return planted(*made) if made else None


@fault("scale")
def result_scaled(g, rng):
    """What the model returns divided by a temperature."""
    sites = [(n, o.name) for o in g.model.graph.output if g.computed(o.name) and (n := g.producer(o.name)) is not None and not g.consumers(o.name)]
    found = pick(rng, sites)
    if found is None:
        return None
    node, name = found
    k = list(node.output).index(name)
    g.rename_output(node, k, g.fresh(name + "__warm"))
    cold = g.insert_after(node, "Div", [node.output[k], g.add_constant(np.float32(pick(rng, [1.5, 4.0])), name + "__t")], name + "__cold", output=name)
    return planted(cold)


@fault("scale")
def keep_rate_left(g, rng):
    """Divided by the share that a dropout would have kept."""
    value = pick(rng, _linear(g))
    made = value and _behind(g, value, value + "__kept", "Mul", [g.add_constant(np.float32(1 / 0.9), value + "__rate")])
    return planted(*made) if made else None


@fault("scale")
def product_factor(g, rng):
    """A factor in the attributes of a product."""
    node = pick(rng, (n for n in g.of("Gemm") if g.computed(n.output[0]) and attribute(n, "alpha", 1.0) == 1.0))
    if node is None:
        return None
    set_attribute(node, "alpha", 0.5)
    return planted(node)


def _blocks(g):
    """Residual sums whose branch holds a product, so that sums inside activations are none."""
    products = ("MatMul", "Gemm", "Conv", "Einsum")
    return [(n, i) for n, i in _residuals(g) if any(p is not None and p.op_type in products for a in [n.input[1 - i], *g.ancestors(n.input[1 - i], 6)] for p in [g.producer(a)])]


@fault("residual")
def branch_dropped(g, rng):
    """What a block adds is left out: the skip alone goes on."""
    found = pick(rng, _blocks(g))
    if found is None:
        return None
    node, i = found
    skip = node.input[i]
    node.op_type = "Identity"
    del node.input[:]
    node.input.append(skip)
    return planted(node)


@fault("residual")
def branch_subtracted(g, rng):
    found = pick(rng, _blocks(g))
    if found is None:
        return None
    node, i = found
    if i == 1:
        node.input[0], node.input[1] = node.input[1], node.input[0]
    node.op_type = "Sub"
    return planted(node)


@fault("gate_order")
def gate_complement(g, rng):
    """z and 1 - z change places."""
    sites = []
    for n in g.of("Sub"):
        if g.scalar(n.input[0]) == 1.0:
            z = n.input[1]
            sites += [(a, b, z, n.output[0]) for a in g.consumers(z) for b in g.consumers(n.output[0]) if a.op_type == b.op_type == "Mul" and a.name != b.name]
    found = pick(rng, sites)
    if found is None:
        return None
    a, b, z, rest = found
    a.input[list(a.input).index(z)] = rest
    b.input[list(b.input).index(rest)] = z
    return planted(a, b, outputs=[a.output[0], b.output[0]])


@fault("gate_order")
def pieces_exchanged(g, rng):
    """The two pieces of a gated product change places."""
    sites = [n for n in g.of("Split") if len(n.output) == 2 and g.shape(n.output[0]) == g.shape(n.output[1]) and g.computed(n.output[0])
             and any(c.op_type in ("Sigmoid", "Tanh", "Erf", "Gelu", "Swish") for o in n.output for c in g.consumers(o))]
    node = pick(rng, sites)
    if node is None:
        return None
    first, second = node.output
    node.output[0], node.output[1] = second, first
    # as well: each reader reads the wrong piece
    readers = [c for o in (first, second) for c in g.consumers(o)]
    return planted(node, *readers, outputs=[first, second, *(o for c in readers for o in c.output)])


@fault("activation")
def activation_dropped(g, rng):
    node = pick(rng, (n for n in g.of("Relu", "Tanh", "Sigmoid", "Elu", "LeakyRelu", "Softplus", "HardSwish", "Selu", "Gelu", "Mish", "Sin") if g.computed(n.output[0])))
    if node is None:
        return None
    node.op_type = "Identity"
    drop_attributes(node)
    return planted(node)


@fault("activation")
def swish_beta(g, rng):
    """x * sigmoid(x) with a factor inside the sigmoid."""
    sites = [s for s in g.of("Sigmoid") if any(m.op_type == "Mul" and s.input[0] in m.input for m in g.consumers(s.output[0]))]
    node = pick(rng, sites)
    if node is None:
        return None
    warm = g.insert(node, "Mul", [node.input[0], g.add_constant(np.float32(pick(rng, [1.702, 1.5])), node.output[0] + "__beta")], node.output[0] + "__warm")
    node.input[0] = warm.output[0]
    return planted(warm, node, outputs=[warm.output[0], node.output[0]])


@fault("activation")
def softplus_sharp(g, rng):
    """softplus(2 x) / 2."""
    node = pick(rng, (n for n in g.of("Softplus") if g.computed(n.output[0])))
    if node is None:
        return None
    two, half = (g.add_constant(np.float32(v), node.output[0] + "__c") for v in (2, 0.5))
    up = g.insert(node, "Mul", [node.input[0], two], node.output[0] + "__up")
    node.input[0] = up.output[0]
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__wide"))
    down = g.insert_after(node, "Mul", [node.output[0], half], out + "__down", output=out)
    return planted(up, node, down, outputs=[up.output[0], node.output[0], out])


@fault("activation")
def square_dropped(g, rng):
    """The square of a squared ReLU, or of magnitudes, forgotten."""
    sites = [n for n in g.of("Pow", "Mul") if g.computed(n.output[0]) and (n.op_type == "Pow" and g.scalar(n.input[1]) == 2.0 or n.op_type == "Mul" and n.input[0] == n.input[1])
             and not any(c.op_type == "ReduceMean" for c in g.consumers(n.output[0]))]
    node = pick(rng, sites)
    if node is None:
        return None
    node.op_type = "Identity"
    del node.input[1:]
    return planted(node)


@fault("activation")
def softmax_kind(g, rng):
    """The logarithm of a softmax, or its winner alone, in its place."""
    node = pick(rng, (n for n in g.of("Softmax") if g.computed(n.output[0])))
    if node is None:
        return None
    node.op_type = pick(rng, ["LogSoftmax", "Hardmax"])
    return planted(node)


@fault("activation")
def root_dropped(g, rng):
    """The square where the length is meant."""
    sites = [n for n in g.of("Sqrt", "ReduceL2") if g.computed(n.output[0]) and not any(p is not None and p.op_type == "ReduceMean" for a in [n.input[0], *g.ancestors(n.input[0], 4)] for p in [g.producer(a)])]
    node = pick(rng, sites)
    if node is None:
        return None
    node.op_type = "Identity" if node.op_type == "Sqrt" else "ReduceSumSquare"
    return planted(node, cause=None if node.op_type == "Identity" else "reduction")


@fault("scale")
def log_base(g, rng):
    """Decimal logarithms for natural ones."""
    node = pick(rng, (n for n in g.of("Log") if g.computed(n.output[0]) and not g.is_output(n.output[0])))
    if node is None:
        return None
    made = _behind(g, node.output[0], node.output[0] + "__decimal", "Mul", [g.add_constant(np.float32(1 / np.log(10)), node.output[0] + "__base")])
    return planted(*made) if made else None


@fault("activation")
def floor_moved(g, rng):
    """A lower bound inside the range that occurs."""
    sites = [(n, i) for n in g.of("Clip", "Max") for i in (1,) if len(n.input) > 1 and g.computed(n.output[0]) and (n.op_type == "Max" or n.input[1]) and g.scalar(n.input[i]) is not None]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    x = g.value(node.input[0])
    new = float(np.quantile(x, 0.3))
    if not g.scalar(node.input[i]) < new:
        return None
    node.input[i] = g.add_constant(np.full(g.shape(node.input[i]), new, np.float32), node.input[i] + "__z")
    return planted(node)


@fault("padding")
def same_border(g, rng):
    """The border that keeps the size as another framework puts it: more behind than in front where the step is two."""
    sites = [n for n in g.of("Conv", "MaxPool", "AveragePool") if max(attribute(n, "strides", [1])) == 2 and any(attribute(n, "pads", [0])) and max(attribute(n, "dilations", [1])) == 1]
    node = pick(rng, sites)
    if node is None:
        return None
    set_attribute(node, "pads", None)
    set_attribute(node, "auto_pad", "SAME_UPPER")
    return planted(node)


@fault("padding")
def border_swapped(g, rng):
    """What is meant to be in front is behind."""
    sites = []
    for n in g.of("Pad", "Conv", "MaxPool"):
        pads = list(g.constant(n.input[1])) if n.op_type == "Pad" and g.constant(n.input[1]) is not None else list(attribute(n, "pads", []))
        half = len(pads) // 2
        if pads[:half] != pads[half:] and g.computed(n.output[0]):
            sites.append((n, [int(p) for p in pads[half:] + pads[:half]]))
    found = pick(rng, sites)
    if found is None:
        return None
    node, pads = found
    if node.op_type == "Pad":
        node.input[1] = g.add_constant(np.array(pads, np.int64), node.input[1] + "__z")
    else:
        set_attribute(node, "pads", pads)
    return planted(node)


@fault("padding")
def border_value(g, rng):
    """A border of another number than nought."""
    node = pick(rng, (n for n in g.of("Pad") if attribute(n, "mode", b"constant") == b"constant" and g.computed(n.output[0]) and g.shape(n.output[0]) != g.shape(n.input[0])))
    if node is None:
        return None
    value = g.add_constant(np.float32(g.value(node.input[0]).mean() + 0.5), node.output[0] + "__border")
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = value
    return planted(node)


@fault("padding")
def maximum_over_border(g, rng):
    """A maximum that counts a border of noughts."""
    node = pick(rng, (n for n in g.of("MaxPool") if any(attribute(n, "pads", [0])) and g.values[n.input[0]].min() < 0))
    if node is None:
        return None
    pads = list(attribute(node, "pads"))
    half = len(pads) // 2
    full = g.add_constant(np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64), node.output[0] + "__pads")
    padded = g.insert(node, "Pad", [node.input[0], full], node.output[0] + "__padded")
    node.input[0] = padded.output[0]
    set_attribute(node, "pads", [0] * len(pads))
    return planted(padded, node)


@fault("index")
def resize_kernel(g, rng):
    """Another curve or rounding when a picture is resized."""
    node = pick(rng, g.of("Resize"))
    if node is None:
        return None
    mode = attribute(node, "mode", b"nearest")
    change = {b"nearest": [{"nearest_mode": "round_prefer_ceil", "coordinate_transformation_mode": "half_pixel"}, {"nearest_mode": "ceil", "coordinate_transformation_mode": "half_pixel"}],
              b"linear": [{"mode": "cubic", "cubic_coeff_a": -0.75}, {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}],
              b"cubic": [{"cubic_coeff_a": -0.5}, {"mode": "linear"}]}[mode]
    for name, value in pick(rng, change).items():
        set_attribute(node, name, value)
    return planted(node)


@fault("index")
def grid_corners(g, rng):
    """Where places of a grid lie in a picture: corners or middles of pixels."""
    node = pick(rng, g.of("GridSample"))
    if node is None:
        return None
    set_attribute(node, "align_corners", 1 - attribute(node, "align_corners", 0))
    return planted(node)


@fault("layout")
def grid_exchanged(g, rng):
    """Row and column of a grid change places."""
    node = pick(rng, g.of("GridSample"))
    if node is None:
        return None
    order = g.add_constant(np.array([1, 0], np.int64), node.output[0] + "__order")
    turned = g.insert(node, "Gather", [node.input[1], order], node.output[0] + "__turned", axis=len(g.shape(node.input[1])) - 1)
    node.input[1] = turned.output[0]
    return planted(turned, node, outputs=[turned.output[0], node.output[0]])


@fault("layout")
def pixels_order(g, rng):
    """Depth to space with the blocks inside the channels, or the other way round."""
    node = pick(rng, g.of("DepthToSpace"))
    if node is None:
        return None
    set_attribute(node, "mode", "DCR" if attribute(node, "mode", b"DCR") == b"CRD" else "CRD")
    return planted(node)


@fault("layout")
def dimensions_exchanged(g, rng):
    """An axis cut into (a, b) where (b, a) is meant, and then moved the same way."""
    sites = []
    for n in g.of("Reshape"):
        shape, source = g.shape(n.output[0]), g.shape(n.input[0])
        if not g.computed(n.output[0]) or len(shape) <= len(source):
            continue
        for t in g.consumers(n.output[0]):
            if t.op_type == "Transpose":
                sites += [(n, t, k) for k in range(len(shape) - 1) if shape[k] != shape[k + 1] and min(shape[k:k + 2]) > 1 and attribute(t, "perm")[k] != k]
    found = pick(rng, sites)
    if found is None:
        return None
    node, turn, k = found
    # cut the other way and brought back, so that the shape behind is what readers expect
    shape, out = list(g.shape(node.output[0])), node.output[0]
    shape[k], shape[k + 1] = shape[k + 1], shape[k]
    node.input[1] = g.add_constant(np.array(shape, np.int64), out + "__shape")
    g.rename_output(node, 0, g.fresh(out + "__cut"))
    perm = list(range(len(shape)))
    perm[k], perm[k + 1] = k + 1, k
    back = g.insert_after(node, "Transpose", [node.output[0]], out + "__back", output=out, perm=perm)
    return planted(node, back)


@fault("index")
def roll_back(g, rng):
    """Rolled the other way."""
    sites = []
    for n in g.of("Concat"):
        parts = [g.producer(i) for i in n.input]
        if len(parts) == 2 and all(p is not None and p.op_type == "Slice" for p in parts) and parts[0].input[0] == parts[1].input[0] and g.computed(n.output[0]):
            axis = attribute(n, "axis")
            size, first = g.shape(n.output[0])[axis], g.shape(n.input[0])[axis]
            if g.shape(parts[0].input[0])[axis] == size and first * 2 != size and size > 2:
                sites.append((n, parts[0].input[0], axis % len(g.shape(n.output[0])), size, first))
    found = pick(rng, sites)
    if found is None:
        return None
    node, x, axis, size, first = found
    # it gave x[size - first:] first; now it gives x[first:]
    order = g.add_constant(((np.arange(size) + first) % size).astype(np.int64), node.output[0] + "__order")
    node.op_type = "Gather"
    drop_attributes(node)
    set_attribute(node, "axis", axis)
    del node.input[:]
    node.input.extend([x, order])
    return planted(node)


@fault("reduction")
def overwritten(g, rng):
    """What falls on the same place replaces what was there instead of being added."""
    sites = [n for n in g.of("ScatterElements", "ScatterND") if attribute(n, "reduction", b"none") == b"add"]
    node = pick(rng, sites)
    if node is None:
        return None
    set_attribute(node, "reduction", pick(rng, ["none", "max"]))
    return planted(node)


@fault("index")
def running_sum(g, rng):
    """A running sum without its own place, or from the end."""
    node = pick(rng, (n for n in g.of("CumSum") if g.computed(n.output[0])))
    if node is None:
        return None
    set_attribute(node, pick(rng, ["exclusive", "reverse"]), 1)
    return planted(node)


@fault("input_binding")
def other_index(g, rng):
    """Rows fetched by another input: targets where sources are meant."""
    inputs = {i.name: g.value(i.name) for i in g.model.graph.input}
    indices = {k: v for k, v in inputs.items() if v is not None and v.dtype.kind == "i" and "mask" not in k}
    sites = [(n, other) for n in g.of("Gather", "GatherElements", "GatherND") for other in indices
             if n.input[1] in indices and other != n.input[1] and indices[other].shape == indices[n.input[1]].shape]
    found = pick(rng, sites)
    if found is None:
        return None
    found[0].input[1] = found[1]
    return planted(found[0])


@fault("index")
def chosen_next(g, rng):
    """The neighbour of the place that was chosen."""
    sites = [(n, k) for n, k in [(n, 1) for n in g.of("TopK")] + [(n, 0) for n in g.of("ArgMax", "ArgMin")] if g.consumers(n.output[k]) and not g.is_output(n.output[k])]
    found = pick(rng, sites)
    if found is None:
        return None
    node, k = found
    axis = attribute(node, "axis", -1 if node.op_type == "TopK" else 0)
    size = g.shape(node.input[0])[axis]
    out = g.rename_output(node, k, g.fresh(node.output[k] + "__right"))
    more = g.insert_after(node, "Add", [node.output[k], g.add_constant(np.int64(1), out + "__one")], out + "__more")
    wrapped = g.insert_after(more, "Mod", [more.output[0], g.add_constant(np.int64(size), out + "__size")], out + "__wrapped", output=out)
    return planted(more, wrapped, outputs=[more.output[0], out])


@fault("index")
def farthest(g, rng):
    """The largest where the smallest is looked for, or the other way round."""
    node = pick(rng, g.of("ArgMax", "ArgMin"))
    if node is None:
        return None
    node.op_type = "ArgMin" if node.op_type == "ArgMax" else "ArgMax"
    return planted(node)


@fault("index")
def index_narrowed(g, rng):
    """Indices through eight bits: those beyond 127 count from the end."""
    sites = [n for n in g.of("Gather") if (i := g.value(n.input[1])) is not None and i.dtype == np.int64 and i.size > 1 and i.max() > 127 and g.shape(n.input[0])[attribute(n, "axis", 0)] >= 128]
    node = pick(rng, sites)
    if node is None:
        return None
    narrow = g.insert(node, "Cast", [node.input[1]], node.output[0] + "__narrow", to=TensorProto.INT8)
    wide = g.insert(node, "Cast", [narrow.output[0]], node.output[0] + "__wide", to=TensorProto.INT64)
    node.input[1] = wide.output[0]
    return planted(narrow, wide, node, outputs=[narrow.output[0], wide.output[0], node.output[0]])


@fault("quantisation")
def rounding_mode(g, rng):
    """Rounded down, or up, where the nearest is meant."""
    node = pick(rng, (n for n in g.of("Round") if g.computed(n.output[0])))
    if node is None:
        return None
    node.op_type = pick(rng, ["Floor", "Ceil"])
    return planted(node)


@fault("quantisation")
def zero_point(g, rng):
    """Eight bits with a zero point, undone with the next one."""
    node = _site(g, rng)
    if node is None:
        return None
    name = node.output[0]
    low, high = float(g.values[name].min()), float(g.values[name].max())
    step = np.float32(max(high - low, 1e-6) / 255)
    zero = int(np.clip(round(-low / step), 0, 254))
    s = g.add_constant(step, name + "__step")
    there, back = (g.add_constant(np.uint8(z), name + "__zero") for z in (zero, zero + 1))
    return _chain(g, node, [("QuantizeLinear", [s, there], {}), ("DequantizeLinear", [s, back], {})])


@fault("quantisation")
def range_saturated(g, rng):
    """Eight bits over half of the range: the largest values are cut off."""
    node = _site(g, rng)
    if node is None:
        return None
    name = node.output[0]
    step = g.add_constant(np.float32(np.abs(g.values[name]).max() / 254), name + "__step")
    zero = g.add_constant(np.int8(0), name + "__zero")
    return _chain(g, node, [("QuantizeLinear", [step, zero], {}), ("DequantizeLinear", [step, zero], {})])


@fault("accumulation")
def sum_in_half(g, rng):
    """A product summed in four parts whose running total is kept in half precision until the last is added."""
    sites = [n for n in g.of("MatMul") if (w := g.constant(n.input[1])) is not None and w.ndim == 2 and w.shape[0] >= 16 and g.computed(n.output[0]) and g.computed(n.input[0])
             and np.abs(g.values[n.output[0]]).max() < 1e4]
    node = pick(rng, sites)
    if node is None:
        return None
    x, w, out = node.input[0], g.constant(node.input[1]), node.output[0]
    ends = np.linspace(0, w.shape[0], 5).astype(np.int64)
    axis = g.add_constant(np.array([len(g.shape(x)) - 1], np.int64), out + "__axis")
    total, names, nodes = None, [], []
    node.output[0] = g.fresh(out + "__unused")
    for a, b in zip(ends, ends[1:]):
        bounds = [g.add_constant(np.array([v], np.int64), out + "__bound") for v in (a, b)]
        part = g.insert(node, "Slice", [x, *bounds, axis], out + "__part")
        made = g.insert(node, "MatMul", [part.output[0], g.add_constant(np.ascontiguousarray(w[a:b]), out + "__w")], out + "__product")
        if total is not None:
            made = g.insert(node, "Add", [total, made.output[0]], out + "__total")
            nodes.append(made)
        if b == ends[-1]:
            break
        narrow = g.insert(node, "Cast", [made.output[0]], out + "__narrow", to=TensorProto.FLOAT16)
        wide = g.insert(node, "Cast", [narrow.output[0]], out + "__wide", to=TensorProto.FLOAT)
        nodes += [narrow, wide]
        names += [narrow.output[0], wide.output[0]]
        total = wide.output[0]
    made.output[0] = out
    names.append(out)
    g.remove(node)
    return Planted([n.name for n in nodes], names, "MatMul")


@fault("precision")
def softmax_in_half(g, rng):
    """A softmax that is not computed in the wider type: what goes in and what comes out is narrowed."""
    node = pick(rng, (n for n in g.of("Softmax") if g.computed(n.output[0]) and g.computed(n.input[0])))
    if node is None:
        return None
    out, stem = node.output[0], node.output[0] + "__half"
    narrow = g.insert(node, "Cast", [node.input[0]], stem, to=TensorProto.FLOAT16)
    node.input[0] = narrow.output[0]
    g.rename_output(node, 0, g.fresh(stem + "_softmax"))
    wide = g.insert_after(node, "Cast", [node.output[0]], stem + "_wide", output=out, to=TensorProto.FLOAT)
    return planted(narrow, node, wide, outputs=[narrow.output[0], node.output[0], out])
