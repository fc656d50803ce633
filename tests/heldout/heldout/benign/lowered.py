"""One operator as several others, or several as one, as exporters and back ends do it. Second set."""
import math

import numpy as np
import onnx
from onnx import helper

from ..graph import attribute, drop_attributes, set_attribute
from .registry import rewrite, some


def _become(n, op, inputs, **attributes):
    """The node does something else and keeps its name and first output."""
    n.op_type = op
    drop_attributes(n)
    del n.input[:], n.output[1:]
    n.input.extend(inputs)
    for name, value in attributes.items():
        set_attribute(n, name, value)


def _ints(g, values, stem):
    return g.add_constant(np.atleast_1d(np.array(values, np.int64)), stem)


@rewrite
def products_as_einsum(g, rng):
    sites = some(rng, (n for n in g.of("MatMul") if g.computed(n.output[0]) and all(len(g.shape(i) or ()) >= 2 for i in n.input)), 4)
    for n in sites:
        a, b = (len(g.shape(i)) for i in n.input)
        # broadcasting batch axes stay behind dots
        left, right = ("..." if r > 2 else "" for r in (a, b))
        _become(n, "Einsum", list(n.input), equation=f"{left}ij,{right}jk->{'...' if max(a, b) > 2 else ''}ik")
    return bool(sites)


@rewrite
def split_as_gathers(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Split") if g.is_float(n.input[0])), 3):
        axis, start = attribute(n, "axis", 0), 0
        for o in n.output:
            size = g.shape(o)[axis]
            g.insert(n, "Gather", [n.input[0], _ints(g, range(start, start + size), o + "__rows")], o + "__rows", output=o, axis=axis)
            start += size
        for k, o in enumerate(n.output):
            n.output[k] = g.fresh(o + "__old")
        g.remove(n)
        changed = True
    return changed


def _cut(g, n):
    """(axis, start, end) of a slice of one axis in steps of one, or None."""
    if len(n.input) < 4 or any(g.constant(i) is None or g.constant(i).size != 1 for i in n.input[1:] if i) or len(n.input) > 4 and int(g.constant(n.input[4]).reshape(-1)[0]) != 1:
        return None
    start, end, axis = (int(g.constant(i).reshape(-1)[0]) for i in n.input[1:4])
    shape = g.shape(n.input[0])
    if shape is None:
        return None
    start, end, _ = slice(start, end).indices(shape[axis])
    return axis % len(shape), start, end


@rewrite
def slice_as_gather(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Slice") if g.computed(n.output[0]) and _cut(g, n))):
        axis, start, end = _cut(g, n)
        _become(n, "Gather", [n.input[0], _ints(g, range(start, end), n.output[0] + "__rows")], axis=axis)
        changed = True
    return changed


@rewrite
def slices_as_split(g, rng):
    """Slices that together cover an axis as one split."""
    changed = False
    for x in {n.input[0] for n in g.of("Slice") if g.computed(n.output[0])}:
        cuts = sorted(((*_cut(g, n), n) for n in g.consumers(x) if n.op_type == "Slice" and _cut(g, n)), key=lambda c: c[:3])
        ends = [c[2] for c in cuts]
        if len(cuts) < 2 or len({c[0] for c in cuts}) > 1 or [c[1] for c in cuts] != [0, *ends[:-1]] or ends[-1] != g.shape(x)[cuts[0][0]]:
            continue
        names = [c[3].output[0] for c in cuts]
        first = min((c[3] for c in cuts), key=g.position)
        node = g.insert(first, "Split", [x, _ints(g, np.diff([0, *ends]), names[0] + "__sizes")], names[0] + "__split", outputs=len(names), axis=cuts[0][0])
        for c in cuts:
            g.remove(c[3])
        for k, name in enumerate(names):
            node.output[k] = name
        changed = True
    return changed


@rewrite
def place_as_slice(g, rng):
    """One place taken by a slice and a squeeze."""
    changed = False
    for n in some(rng, (n for n in g.of("Gather") if (c := g.constant(n.input[1])) is not None and c.ndim == 0 and g.computed(n.output[0]) and g.constant(n.input[0]) is None)):
        axis, place, stem = attribute(n, "axis", 0), int(g.constant(n.input[1])), n.output[0] + "__place"
        place %= g.shape(n.input[0])[axis]
        bounds = [_ints(g, v, stem) for v in (place, place + 1, axis)]
        cut = g.insert(n, "Slice", [n.input[0], *bounds], stem)
        _become(n, "Squeeze", [cut.output[0], bounds[2]])
        changed = True
    return changed


@rewrite
def rows_as_gathernd(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Gather") if attribute(n, "axis", 0) == 0 and g.is_float(n.input[0]) and g.computed(n.output[0]) and (i := g.value(n.input[1])) is not None and i.ndim >= 1 and i.min() >= 0)):
        at = _ints(g, -1, n.output[0] + "__last")
        wide = g.insert(n, "Unsqueeze", [n.input[1], at], n.output[0] + "__wide")
        _become(n, "GatherND", [n.input[0], wide.output[0]])
        changed = True
    return changed


def _last_axis(g, n):
    axes = attribute(n, "axes") or (list(g.constant(n.input[1])) if len(n.input) > 1 and g.constant(n.input[1]) is not None else None)
    return axes is not None and len(axes) == 1 and axes[0] % len(g.shape(n.input[0])) == len(g.shape(n.input[0])) - 1


@rewrite
def mean_as_product(g, rng):
    """The mean over the last axis as a product with a column of 1 / n."""
    changed = False
    for n in some(rng, (n for n in g.of("ReduceMean") if g.is_float(n.input[0]) and len(g.shape(n.input[0])) > 1 and _last_axis(g, n) and attribute(n, "keepdims", 1))):
        size = g.shape(n.input[0])[-1]
        _become(n, "MatMul", [n.input[0], g.add_constant(np.full((size, 1), 1 / size, np.float32), n.output[0] + "__share")])
        changed = True
    return changed


@rewrite
def mean_as_sum(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("ReduceMean") if g.is_float(n.input[0]) and _last_axis(g, n))):
        size, stem, keep = g.shape(n.input[0])[-1], n.output[0] + "__sum", attribute(n, "keepdims", 1)
        total = g.insert_reduce(n, "ReduceSum", n.input[0], [-1], stem, keepdims=keep)
        _become(n, "Div", [total.output[0], g.add_constant(np.float32(size), stem + "_count")])
        changed = True
    return changed


@rewrite
def convolution_as_shifts(g, rng):
    """A convolution as the sum, over the places of its kernel, of products with shifted pictures."""
    changed = False
    sites = [n for n in g.of("Conv") if (w := g.constant(n.input[1])) is not None and w.ndim == 4 and 1 < np.prod(w.shape[2:]) <= 9 and attribute(n, "group", 1) == 1 and attribute(n, "auto_pad", b"NOTSET") == b"NOTSET"]
    for n in some(rng, sites, 2):
        w, stem, (sh, sw), (dh, dw) = g.constant(n.input[1]), n.output[0] + "__shift", attribute(n, "strides", [1, 1]), attribute(n, "dilations", [1, 1])
        pads = attribute(n, "pads", [0] * 4)
        x = g.insert(n, "Pad", [n.input[0], _ints(g, [0, 0, *pads[:2], 0, 0, *pads[2:]], stem)], stem).output[0]
        rows, columns = g.shape(n.output[0])[2:]
        total = None
        for i in range(w.shape[2]):
            for j in range(w.shape[3]):
                bounds = [_ints(g, v, stem) for v in ([i * dh, j * dw], [i * dh + (rows - 1) * sh + 1, j * dw + (columns - 1) * sw + 1], [2, 3], [sh, sw])]
                part = g.insert(n, "Slice", [x, *bounds], stem).output[0]
                part = g.insert(n, "Conv", [part, g.add_constant(np.ascontiguousarray(w[:, :, i:i + 1, j:j + 1]), stem + "_w")], stem).output[0]
                total = part if total is None else g.insert(n, "Add", [total, part], stem).output[0]
        bias = n.input[2] if len(n.input) > 2 else None
        if bias:
            _become(n, "Add", [total, g.add_constant(g.constant(bias).reshape(1, -1, 1, 1), stem + "_b")])
        else:
            _become(n, "Identity", [total])
        changed = True
    return changed


@rewrite
def groups_apart(g, rng):
    """A grouped convolution as one for each group."""
    changed = False
    for n in some(rng, (n for n in g.of("Conv") if 1 < attribute(n, "group", 1) <= 8 and g.constant(n.input[1]) is not None and (len(n.input) < 3 or g.constant(n.input[2]) is not None)), 2):
        count, stem = attribute(n, "group"), n.output[0] + "__group"
        kept = {a.name: helper.get_attribute_value(a) for a in n.attribute if a.name != "group"}
        size = g.shape(n.input[0])[1] // count
        pieces = g.insert(n, "Split", [n.input[0], _ints(g, [size] * count, stem)], stem, outputs=count, axis=1)
        weights = np.split(g.constant(n.input[1]), count)
        biases = np.split(g.constant(n.input[2]), count) if len(n.input) > 2 else [None] * count
        made = [g.insert(n, "Conv", [piece, g.add_constant(w, stem + "_w"), *([g.add_constant(b, stem + "_b")] if b is not None else [])], stem, **kept).output[0]
                for piece, w, b in zip(pieces.output, weights, biases)]
        _become(n, "Concat", made, axis=1)
        changed = True
    return changed


@rewrite
def product_as_convolution(g, rng):
    """A layer over (batch, place, feature) as a convolution of width one."""
    changed = False
    for n in some(rng, (n for n in g.of("MatMul") if (w := g.constant(n.input[1])) is not None and w.ndim == 2 and g.computed(n.output[0]) and len(g.shape(n.input[0]) or ()) == 3), 3):
        stem = n.output[0] + "__conv"
        turned = g.insert(n, "Transpose", [n.input[0]], stem, perm=[0, 2, 1])
        made = g.insert(n, "Conv", [turned.output[0], g.add_constant(g.constant(n.input[1]).T[:, :, None], stem + "_w")], stem)
        _become(n, "Transpose", [made.output[0]], perm=[0, 2, 1])
        changed = True
    return changed


@rewrite
def norm_in_one_pass(g, rng):
    """Variance as the mean of squares less the square of the mean."""
    changed = False
    sites = [n for n in g.of("LayerNormalization") if attribute(n, "axis", -1) in (-1, len(g.shape(n.input[0])) - 1) and (x := g.value(n.input[0])) is not None
             and (np.abs(x.mean(-1)) < 3 * x.std(-1) + 1e-9).all() and x.std(-1).min() > 1e-2]
    for n in some(rng, sites, 3):
        x, stem = n.input[0], n.output[0] + "__pass"
        mean = g.insert_reduce(n, "ReduceMean", x, [-1], stem)
        square = g.insert(n, "Mul", [x, x], stem)
        power = g.insert_reduce(n, "ReduceMean", square.output[0], [-1], stem)
        less = g.insert(n, "Mul", [mean.output[0], mean.output[0]], stem)
        var = g.insert(n, "Sub", [power.output[0], less.output[0]], stem)
        safe = g.insert(n, "Add", [var.output[0], g.add_constant(np.float32(attribute(n, "epsilon", 1e-5)), stem + "_eps")], stem)
        root = g.insert(n, "Sqrt", [safe.output[0]], stem)
        gain = g.insert(n, "Div", [n.input[1], root.output[0]], stem)
        first = g.insert(n, "Mul", [x, gain.output[0]], stem)
        second = g.insert(n, "Mul", [mean.output[0], gain.output[0]], stem)
        if len(n.input) > 2 and n.input[2]:
            shift = g.insert(n, "Sub", [n.input[2], second.output[0]], stem)
            _become(n, "Add", [first.output[0], shift.output[0]])
        else:
            _become(n, "Sub", [first.output[0], second.output[0]])
        changed = True
    return changed


@rewrite
def norm_as_instances(g, rng):
    """A layer norm as an instance norm of one channel for each place, then gain and shift."""
    changed = False
    for n in some(rng, (n for n in g.of("LayerNormalization") if attribute(n, "axis", -1) in (-1, len(g.shape(n.input[0])) - 1) and g.computed(n.output[0])), 3):
        shape, stem = g.shape(n.input[0]), n.output[0] + "__instance"
        rows = int(np.prod(shape[:-1]))
        flat = g.insert(n, "Reshape", [n.input[0], _ints(g, [1, rows, shape[-1]], stem)], stem)
        one, nought = (g.add_constant(np.full(rows, v, np.float32), stem + "_c") for v in (1, 0))
        normed = g.insert(n, "InstanceNormalization", [flat.output[0], one, nought], stem, epsilon=attribute(n, "epsilon", 1e-5))
        back = g.insert(n, "Reshape", [normed.output[0], _ints(g, shape, stem)], stem)
        scaled = g.insert(n, "Mul", [back.output[0], n.input[1]], stem)
        _become(n, "Add" if len(n.input) > 2 and n.input[2] else "Identity", [scaled.output[0], *list(n.input)[2:3]])
        changed = True
    return changed


@rewrite
def softmax_by_logarithm(g, rng):
    """exp(x - log(sum(exp(x))))."""
    sites = some(rng, (n for n in g.of("Softmax") if g.computed(n.output[0])), 3)
    for n in sites:
        stem = n.output[0] + "__log"
        total = g.insert_reduce(n, "ReduceLogSumExp", n.input[0], [attribute(n, "axis", -1)], stem)
        less = g.insert(n, "Sub", [n.input[0], total.output[0]], stem)
        _become(n, "Exp", [less.output[0]])
    return bool(sites)


@rewrite
def softmax_without_maximum(g, rng):
    """exp(x) / sum(exp(x)), where x is small enough for it."""
    sites = some(rng, (n for n in g.of("Softmax") if g.computed(n.output[0]) and (x := g.value(n.input[0])) is not None and x.max() < 20 and x.max(axis=attribute(n, "axis", -1)).min() > -20), 3)
    for n in sites:
        stem, axis = n.output[0] + "__bare", attribute(n, "axis", -1)
        power = g.insert(n, "Exp", [n.input[0]], stem)
        total = g.insert_reduce(n, "ReduceSum", power.output[0], [axis], stem)
        share = g.insert(n, "Reciprocal", [total.output[0]], stem)
        _become(n, "Mul", [power.output[0], share.output[0]])
    return bool(sites)


@rewrite
def tanh_as_sigmoid(g, rng):
    """2 sigmoid(2 x) - 1."""
    sites = some(rng, (n for n in g.of("Tanh") if g.computed(n.output[0])))
    for n in sites:
        two, one = (g.add_constant(np.float32(v), n.output[0] + "__c") for v in (2, 1))
        up = g.insert(n, "Mul", [n.input[0], two], n.output[0] + "__up")
        gate = g.insert(n, "Sigmoid", [up.output[0]], n.output[0] + "__gate")
        wide = g.insert(n, "Mul", [gate.output[0], two], n.output[0] + "__wide")
        _become(n, "Sub", [wide.output[0], one])
    return bool(sites)


@rewrite
def softplus_expanded(g, rng):
    """max(x, 0) + log(1 + exp(-|x|)); and ELU by a choice."""
    sites = some(rng, (n for n in g.of("Softplus", "Elu") if g.computed(n.output[0])))
    for n in sites:
        x, stem = n.input[0], n.output[0] + "__ex"
        nought, one = (g.add_constant(np.float32(v), stem + "_c") for v in (0, 1))
        if n.op_type == "Softplus":
            size = g.insert(n, "Abs", [x], stem)
            minus = g.insert(n, "Neg", [size.output[0]], stem)
            power = g.insert(n, "Exp", [minus.output[0]], stem)
            more = g.insert(n, "Add", [power.output[0], one], stem)
            log = g.insert(n, "Log", [more.output[0]], stem)
            high = g.insert(n, "Relu", [x], stem)
            _become(n, "Add", [high.output[0], log.output[0]])
        else:
            alpha = g.add_constant(np.float32(attribute(n, "alpha", 1.0)), stem + "_a")
            power = g.insert(n, "Exp", [x], stem)
            less = g.insert(n, "Sub", [power.output[0], one], stem)
            low = g.insert(n, "Mul", [less.output[0], alpha], stem)
            above = g.insert(n, "Greater", [x, nought], stem)
            _become(n, "Where", [above.output[0], x, low.output[0]])
    return bool(sites)


@rewrite
def average_as_convolution(g, rng):
    """An average over windows as a convolution of each channel by equal weights."""
    changed = False
    for n in g.of("AveragePool"):
        shape = g.shape(n.input[0])
        kernel = attribute(n, "kernel_shape")
        if len(shape) != 4 or attribute(n, "ceil_mode", 0) or any(attribute(n, "pads", [0])) and not attribute(n, "count_include_pad", 0) or attribute(n, "auto_pad", b"NOTSET") != b"NOTSET":
            continue
        w = g.add_constant(np.full((shape[1], 1, *kernel), 1 / np.prod(kernel), np.float32), n.output[0] + "__w")
        _become(n, "Conv", [n.input[0], w], kernel_shape=kernel, strides=attribute(n, "strides", [1, 1]), pads=attribute(n, "pads", [0] * 4), group=shape[1])
        changed = True
    return changed


@rewrite
def nearest_as_copies(g, rng):
    """A picture made larger by whole factors: each pixel copied."""
    changed = False
    for n in g.of("Resize"):
        a, b = g.shape(n.input[0]), g.shape(n.output[0])
        nearest = attribute(n, "mode", b"nearest") == b"nearest" and attribute(n, "nearest_mode", b"round_prefer_floor") == b"floor" and attribute(n, "coordinate_transformation_mode", b"half_pixel") == b"asymmetric"
        if not nearest or len(a) != 4 or b[2] % a[2] or b[3] % a[3]:
            continue
        stem = n.output[0] + "__copies"
        wide = g.insert(n, "Reshape", [n.input[0], _ints(g, [a[0], a[1], a[2], 1, a[3], 1], stem)], stem)
        many = g.insert(n, "Expand", [wide.output[0], _ints(g, [a[0], a[1], a[2], b[2] // a[2], a[3], b[3] // a[3]], stem)], stem)
        _become(n, "Reshape", [many.output[0], _ints(g, b, stem)])
        changed = True
    return changed


@rewrite
def border_as_concat(g, rng):
    """A border of noughts joined on."""
    changed = False
    for n in g.of("Pad"):
        pads = g.constant(n.input[1])
        nought = len(n.input) < 3 or not n.input[2] or g.scalar(n.input[2]) == 0.0
        if attribute(n, "mode", b"constant") != b"constant" or pads is None or not nought or pads.min() < 0 or not g.computed(n.output[0]) or len(n.input) > 3:
            continue
        value, shape, stem = n.input[0], list(g.shape(n.input[0])), n.output[0] + "__border"
        for axis in range(len(shape)):
            ends = [int(pads[axis]), int(pads[axis + len(shape)])]
            if not any(ends):
                continue
            parts = [g.add_constant(np.zeros([*shape[:axis], e, *shape[axis + 1:]], np.float32), stem) if e else None for e in ends]
            value = g.insert(n, "Concat", [p for p in (parts[0], value, parts[1]) if p], stem, axis=axis).output[0]
            shape[axis] += sum(ends)
        _become(n, "Identity", [value])
        changed = True
    return changed


@rewrite
def pixels_expanded(g, rng):
    """Depth to space as a reshape, a transpose and a reshape; the picture stays."""
    changed = False
    for n in g.of("DepthToSpace"):
        b, c, h, w = g.shape(n.input[0])
        k, stem = attribute(n, "blocksize"), n.output[0] + "__pixels"
        first = attribute(n, "mode", b"DCR") == b"CRD"
        cut = g.insert(n, "Reshape", [n.input[0], _ints(g, [b, c // k // k, k, k, h, w] if first else [b, k, k, c // k // k, h, w], stem)], stem)
        turned = g.insert(n, "Transpose", [cut.output[0]], stem, perm=[0, 1, 4, 2, 5, 3] if first else [0, 3, 4, 1, 5, 2])
        _become(n, "Reshape", [turned.output[0], _ints(g, [b, c // k // k, h * k, w * k], stem)])
        changed = True
    return changed


@rewrite
def running_sum_as_product(g, rng):
    """A running sum over one axis as a product with a triangle of ones."""
    changed = False
    for n in g.of("CumSum"):
        x, axis = g.shape(n.input[0]), g.constant(n.input[1])
        if axis is None or not g.computed(n.output[0]) or attribute(n, "exclusive", 0) or attribute(n, "reverse", 0):
            continue
        axis, stem = int(axis.reshape(-1)[0]) % len(x), n.output[0] + "__run"
        perm = [a for a in range(len(x)) if a != axis] + [axis]
        turned = g.insert(n, "Transpose", [n.input[0]], stem, perm=perm)
        made = g.insert(n, "MatMul", [turned.output[0], g.add_constant(np.triu(np.ones((x[axis], x[axis]), np.float32)), stem + "_ones")], stem)
        _become(n, "Transpose", [made.output[0]], perm=[int(p) for p in np.argsort(perm)])
        changed = True
    return changed


@rewrite
def best_as_top(g, rng):
    """The place of the largest as the first of the top one."""
    changed = False
    for n in g.of("ArgMax", "ArgMin"):
        if attribute(n, "select_last_index", 0):
            continue
        axis, stem, largest = attribute(n, "axis", 0), n.output[0] + "__top", int(n.op_type == "ArgMax")
        top = g.insert(n, "TopK", [n.input[0], _ints(g, 1, stem)], stem, outputs=2, axis=axis, largest=largest)
        if attribute(n, "keepdims", 1):
            _become(n, "Identity", [top.output[1]])
        else:
            _become(n, "Squeeze", [top.output[1], _ints(g, axis, stem)])
        changed = True
    return changed


@rewrite
def opset_newest(g, rng):
    """The model brought to a version of the operator set several steps on."""
    try:
        newer = onnx.version_converter.convert_version(g.model, 22)
    except Exception:  # the converter does not know every operator
        return False
    g.model = newer
    return True


@rewrite
def gelu_as_one(g, rng):
    """The exact GELU in the optimiser's own operator."""
    changed = False
    for erf in g.of("Erf"):
        inner = g.producer(erf.input[0])
        plus = next(iter(g.consumers(erf.output[0])), None)
        if inner is None or plus is None or plus.op_type != "Add" or inner.op_type not in ("Div", "Mul"):
            continue
        x = next((i for i in inner.input if g.scalar(i) is None), None)
        factor = next((g.scalar(i) for i in inner.input if g.scalar(i) is not None), 0)
        if abs(factor - (math.sqrt(2) if inner.op_type == "Div" else math.sqrt(0.5))) > 1e-5 or len(g.consumers(plus.output[0])) != 1:
            continue
        product = g.consumers(plus.output[0])[0]
        last = next(iter(g.consumers(product.output[0])), None)
        if product.op_type == "Mul" and set(product.input) == {x, plus.output[0]} and last is not None and last.op_type == "Mul" and 0.5 in map(g.scalar, last.input) and len(g.consumers(product.output[0])) == 1:
            _become(last, "Gelu", [x])
            last.domain = "com.microsoft"
            changed = True
    if changed and not any(o.domain == "com.microsoft" for o in g.model.opset_import):
        g.model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return changed
