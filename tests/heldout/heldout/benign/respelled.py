"""The same layers as back ends, quantisers and older exporters write them. Third set."""
import numpy as np
from onnx import helper

from ..graph import attribute, set_attribute
from .lowered import _become, _ints
from .registry import rewrite, some


def _plain(n):
    return attribute(n, "auto_pad", b"NOTSET") == b"NOTSET"


def _kernel(g, n, rank=None):
    w = g.constant(n.input[1])
    return w if w is not None and (rank is None or w.ndim == rank) else None


@rewrite
def dilation_as_gaps(g, rng):
    """A dilated kernel as a wider one with noughts between."""
    sites = some(rng, (n for n in g.of("Conv") if max(attribute(n, "dilations", [1])) > 1 and _kernel(g, n) is not None and _plain(n)), 3)
    for n in sites:
        w, d = g.constant(n.input[1]), attribute(n, "dilations")
        wide = np.zeros((*w.shape[:2], *((k - 1) * s + 1 for k, s in zip(w.shape[2:], d))), np.float32)
        wide[(slice(None), slice(None), *(slice(None, None, s) for s in d))] = w
        n.input[1] = g.add_constant(wide, n.input[1] + "__gaps")
        set_attribute(n, "dilations", [1] * len(d))
        set_attribute(n, "kernel_shape", list(wide.shape[2:]))
    return bool(sites)


@rewrite
def stride_by_choice(g, rng):
    """All places computed and every second one kept."""
    sites = some(rng, (n for n in g.of("Conv") if set(attribute(n, "strides", [1])) == {2} and _plain(n)), 2)
    for n in sites:
        rank, out = len(attribute(n, "strides")), n.output[0]
        set_attribute(n, "strides", [1] * rank)
        g.rename_output(n, 0, g.fresh(out + "__dense"))
        bounds = [_ints(g, v, out + "__bound") for v in ([0] * rank, [2 ** 31] * rank, list(range(2, 2 + rank)), [2] * rank)]
        g.insert_after(n, "Slice", [n.output[0], *bounds], out + "__kept", output=out)
    return bool(sites)


@rewrite
def deconvolution_as_convolution(g, rng):
    """Noughts between the elements, the kernel turned round, a plain convolution."""
    changed = False
    for n in some(rng, (n for n in g.of("ConvTranspose") if _kernel(g, n) is not None and attribute(n, "group", 1) == 1 and _plain(n) and not attribute(n, "output_shape")), 2):
        w = g.constant(n.input[1])
        rank = w.ndim - 2
        if max(attribute(n, "dilations", [1])) > 1:
            continue
        strides, pads, extra = attribute(n, "strides", [1] * rank), attribute(n, "pads", [0] * 2 * rank), attribute(n, "output_padding", [0] * rank)
        if any(k - 1 - p < 0 for k, p in zip([*w.shape[2:]] * 2, pads)):
            continue
        x, shape, stem = n.input[0], list(g.shape(n.input[0])), n.output[0] + "__spread"
        for a, s in enumerate(strides):
            axis = 2 + a
            wide = g.insert(n, "Unsqueeze", [x, _ints(g, axis + 1, stem)], stem).output[0]
            before = [0] * (rank + 3)
            after = list(before)
            after[axis + 1] = s - 1
            wide = g.insert(n, "Pad", [wide, _ints(g, before + after, stem)], stem).output[0]
            full = [*shape[:axis], shape[axis] * s, *shape[axis + 1:]]
            flat = g.insert(n, "Reshape", [wide, _ints(g, full, stem)], stem).output[0]
            full[axis] -= s - 1
            x = g.insert(n, "Slice", [flat, _ints(g, 0, stem), _ints(g, full[axis], stem), _ints(g, axis, stem)], stem).output[0]
            shape = full
        kernel = np.flip(w, tuple(range(2, w.ndim))).swapaxes(0, 1)
        borders = [k - 1 - p for k, p in zip(w.shape[2:], pads[:rank])] + [k - 1 - p + e for k, p, e in zip(w.shape[2:], pads[rank:], extra)]
        bias = list(n.input[2:])
        _become(n, "Conv", [x, g.add_constant(np.ascontiguousarray(kernel), stem + "_w"), *bias], pads=borders, kernel_shape=list(w.shape[2:]))
        changed = True
    return changed


@rewrite
def channels_summed(g, rng):
    """A convolution of joined maps as the sum of one for each."""
    changed = False
    for n in some(rng, (n for n in g.of("Conv") if attribute(n, "group", 1) == 1 and _kernel(g, n) is not None and (p := g.producer(n.input[0])) is not None and p.op_type == "Concat" and attribute(p, "axis") == 1), 2):
        parts, w, stem = list(g.producer(n.input[0]).input), g.constant(n.input[1]), n.output[0] + "__part"
        kept = {a.name: helper.get_attribute_value(a) for a in n.attribute}
        at, total = 0, None
        for k, part in enumerate(parts):
            size = g.shape(part)[1]
            reads = [part, g.add_constant(np.ascontiguousarray(w[:, at:at + size]), stem + "_w"), *(list(n.input[2:]) if k == 0 else [])]
            made = g.insert(n, "Conv", reads, stem, **kept).output[0]
            total = made if total is None else g.insert(n, "Add", [total, made], stem).output[0]
            at += size
        _become(n, "Identity", [total])
        changed = True
    return changed


@rewrite
def depthwise_dense(g, rng):
    """A convolution in groups as one whose kernel is nought outside of them."""
    sites = some(rng, (n for n in g.of("Conv") if attribute(n, "group", 1) > 1 and _kernel(g, n) is not None and _kernel(g, n).shape[0] <= 64), 2)
    for n in sites:
        w, groups = g.constant(n.input[1]), attribute(n, "group")
        rows, each = w.shape[0] // groups, w.shape[1]
        dense = np.zeros((w.shape[0], each * groups, *w.shape[2:]), np.float32)
        for k in range(groups):
            dense[k * rows:(k + 1) * rows, k * each:(k + 1) * each] = w[k * rows:(k + 1) * rows]
        n.input[1] = g.add_constant(dense, n.input[1] + "__dense")
        set_attribute(n, "group", 1)
    return bool(sites)


@rewrite
def softmax_in_pieces(g, rng):
    """The keys in two parts, each with its maximum and sum, put together afterwards."""
    changed = False
    for n in some(rng, (n for n in g.of("Softmax") if g.computed(n.output[0]) and attribute(n, "axis", -1) % len(g.shape(n.input[0])) == len(g.shape(n.input[0])) - 1 and g.shape(n.input[0])[-1] > 3), 2):
        shape, stem, x = g.shape(n.input[0]), n.output[0] + "__piece", n.input[0]
        last, half = len(shape) - 1, shape[-1] // 2
        parts = [g.insert(n, "Slice", [x, _ints(g, a, stem), _ints(g, b, stem), _ints(g, last, stem)], stem).output[0] for a, b in ((0, half), (half, shape[-1]))]
        most = [g.insert_reduce(n, "ReduceMax", p, [-1], stem).output[0] for p in parts]
        both = g.insert(n, "Max", most, stem).output[0]
        made, sums = [], []
        for p, m in zip(parts, most):
            e = g.insert(n, "Exp", [g.insert(n, "Sub", [p, m], stem).output[0]], stem).output[0]
            again = g.insert(n, "Exp", [g.insert(n, "Sub", [m, both], stem).output[0]], stem).output[0]
            sums.append(g.insert(n, "Mul", [g.insert_reduce(n, "ReduceSum", e, [-1], stem).output[0], again], stem).output[0])
            made.append(g.insert(n, "Mul", [e, again], stem).output[0])
        total = g.insert(n, "Add", sums, stem).output[0]
        joined = g.insert(n, "Concat", made, stem, axis=last).output[0]
        _become(n, "Div", [joined, total])
        changed = True
    return changed


@rewrite
def weight_rescaled(g, rng):
    """A weight kept as another power of two, brought back where it is used."""
    sites = some(rng, [n for n in g.of("MatMul", "Conv", "Gemm") if (w := _kernel(g, n)) is not None and w.dtype == np.float32], 3)
    for n in sites:
        stem = n.input[1] + "__times"
        n.input[1] = g.insert(n, "Mul", [g.add_constant(g.constant(n.input[1]) * np.float32(8), stem), g.add_constant(np.float32(0.125), stem)], stem).output[0]
    return bool(sites)


@rewrite
def weight_normed_in_graph(g, rng):
    """Direction and length of each filter apart, as weight normalisation leaves them."""
    sites = some(rng, [n for n in g.of("Conv") if (w := _kernel(g, n)) is not None and w.dtype == np.float32 and w[0].size > 1], 2)
    for n in sites:
        w, stem = g.constant(n.input[1]), n.input[1] + "__normed"
        axes = list(range(1, w.ndim))
        length = np.sqrt((w.astype(np.float64) ** 2).sum(tuple(axes), keepdims=True))
        v = g.add_constant((w * np.float32(1.7)).astype(np.float32), stem)
        norm = g.insert_reduce(n, "ReduceL2", v, axes, stem).output[0]
        unit = g.insert(n, "Div", [v, norm], stem).output[0]
        n.input[1] = g.insert(n, "Mul", [unit, g.add_constant(length.astype(np.float32), stem)], stem).output[0]
    return bool(sites)


@rewrite
def grid_by_arithmetic(g, rng):
    """To a grid and back as a quotient, rounded, bounded, multiplied."""
    changed = False
    for q in some(rng, (q for q in g.of("QuantizeLinear") if g.scalar(q.input[1]) is not None and len(q.input) > 2 and len(g.consumers(q.output[0])) == 1 and g.consumers(q.output[0])[0].op_type == "DequantizeLinear"
                        and q.input[0] in g.live), 3):
        d, step, zero = g.consumers(q.output[0])[0], np.float32(g.scalar(q.input[1])), g.constant(q.input[2])
        if g.scalar(d.input[1]) != float(step) or int(zero.reshape(-1)[0]) != int(g.constant(d.input[2]).reshape(-1)[0]):
            continue
        stem, at = d.output[0] + "__grid", np.float32(zero.reshape(-1)[0])
        low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
        c = lambda v: g.add_constant(np.float32(v), stem)
        x = g.insert(q, "Round", [g.insert(q, "Div", [q.input[0], c(step)], stem).output[0]], stem).output[0]
        x = g.insert(q, "Clip", [g.insert(q, "Add", [x, c(at)], stem).output[0], c(low), c(high)], stem).output[0]
        x = g.insert(q, "Sub", [x, c(at)], stem).output[0]
        g.remove(q)
        _become(d, "Mul", [x, c(step)])
        changed = True
    return changed


@rewrite
def leaky_by_parts(g, rng):
    """A leaky ReLU as relu(x) - a relu(-x)."""
    changed = False
    for n in some(rng, (n for n in g.of("LeakyRelu") if g.computed(n.output[0]))):
        stem, slope = n.output[0] + "__part", np.float32(attribute(n, "alpha", 0.01))
        up = g.insert(n, "Relu", [n.input[0]], stem).output[0]
        down = g.insert(n, "Relu", [g.insert(n, "Neg", [n.input[0]], stem).output[0]], stem).output[0]
        _become(n, "Sub", [up, g.insert(n, "Mul", [down, g.add_constant(slope, stem)], stem).output[0]])
        changed = True
    return changed


@rewrite
def relu_by_choice(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Relu") if g.computed(n.output[0]))):
        zero = g.add_constant(np.float32(0), n.output[0] + "__zero")
        holds = g.insert(n, "Greater", [n.input[0], zero], n.output[0] + "__holds").output[0]
        _become(n, "Where", [holds, n.input[0], zero])
        changed = True
    return changed


@rewrite
def bounds_by_extremes(g, rng):
    """Clipping as a minimum of a maximum."""
    changed = False
    for n in some(rng, (n for n in g.of("Clip") if g.computed(n.output[0]) and len(n.input) > 1)):
        x, bounds = n.input[0], [*n.input[1:], ""][:2]
        if any(b and g.constant(b) is None for b in bounds):
            continue
        steps = [(op, b) for op, b in zip(("Max", "Min"), bounds) if b]
        for op, b in steps[:-1]:
            x = g.insert(n, op, [x, b], n.output[0] + "__bound").output[0]
        _become(n, steps[-1][0], [x, steps[-1][1]])
        changed = True
    return changed


@rewrite
def exponential_by_power(g, rng):
    """exp(x) as a power of its base."""
    changed = False
    for n in some(rng, (n for n in g.of("Exp") if g.computed(n.output[0]) and np.abs(g.value(n.input[0])).max() < 20), 2):
        _become(n, "Pow", [g.add_constant(np.float32(np.e), n.output[0] + "__e"), n.input[0]])
        changed = True
    return changed


@rewrite
def sine_as_cosine(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Sin") if g.computed(n.output[0]) and np.abs(g.value(n.input[0])).max() < 10), 2):
        less = g.insert(n, "Sub", [n.input[0], g.add_constant(np.float32(np.pi / 2), n.output[0] + "__right")], n.output[0] + "__less").output[0]
        _become(n, "Cos", [less])
        changed = True
    return changed


@rewrite
def border_by_rows(g, rng):
    """A mirrored or repeated border by fetching rows."""
    changed = False
    for n in some(rng, (n for n in g.of("Pad") if attribute(n, "mode", b"constant") in (b"reflect", b"edge") and g.constant(n.input[1]) is not None and len(n.input) < 4), 2):
        pads, shape, x = [int(p) for p in g.constant(n.input[1])], g.shape(n.input[0]), n.input[0]
        half, mode = len(pads) // 2, attribute(n, "mode").decode()
        axes = [a for a in range(half) if pads[a] or pads[a + half]]
        if not axes:
            continue
        for a in axes:
            rows = np.pad(np.arange(shape[a]), (pads[a], pads[a + half]), mode=mode)
            if a == axes[-1]:
                _become(n, "Gather", [x, _ints(g, rows, n.output[0] + "__rows")], axis=a)
            else:
                x = g.insert(n, "Gather", [x, _ints(g, rows, n.output[0] + "__rows")], n.output[0] + "__rows", axis=a).output[0]
        changed = True
    return changed


@rewrite
def log_softmax_by_sum(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("LogSoftmax") if attribute(n, "axis", -1) % len(g.shape(n.input[0])) == len(g.shape(n.input[0])) - 1)):
        total = g.insert_reduce(n, "ReduceLogSumExp", n.input[0], [-1], n.output[0] + "__sum").output[0]
        _become(n, "Sub", [n.input[0], total])
        changed = True
    return changed


@rewrite
def sum_distributed(g, rng):
    """(a + b) W as a W + b W."""
    changed = False
    for n in some(rng, (n for n in g.of("MatMul") if _kernel(g, n, 2) is not None and (p := g.producer(n.input[0])) is not None and p.op_type == "Add" and all(g.computed(i) and g.shape(i) == g.shape(p.output[0]) for i in p.input)), 2):
        p, stem = g.producer(n.input[0]), n.output[0] + "__term"
        terms = [g.insert(n, "MatMul", [i, n.input[1]], stem).output[0] for i in p.input]
        _become(n, "Add", terms)
        changed = True
    return changed


@rewrite
def maximum_by_slices(g, rng):
    """A maximum over windows as the largest of shifted pictures."""
    changed = False
    for n in some(rng, (n for n in g.of("MaxPool") if len(n.output) == 1 and _plain(n) and not attribute(n, "ceil_mode", 0) and max(attribute(n, "dilations", [1])) == 1 and np.prod(attribute(n, "kernel_shape")) <= 9), 2):
        kernel, stem = attribute(n, "kernel_shape"), n.output[0] + "__place"
        rank = len(kernel)
        strides, pads = attribute(n, "strides", [1] * rank), attribute(n, "pads", [0] * 2 * rank)
        full = _ints(g, [0, 0, *pads[:rank], 0, 0, *pads[rank:]], stem)
        x = g.insert(n, "Pad", [n.input[0], full, g.add_constant(np.float32(-3e38), stem)], stem).output[0]
        out = g.shape(n.output[0])[2:]
        parts = []
        for place in np.ndindex(*kernel):
            ends = [p + (o - 1) * s + 1 for p, o, s in zip(place, out, strides)]
            bounds = [_ints(g, v, stem) for v in (list(place), ends, list(range(2, 2 + rank)), strides)]
            parts.append(g.insert(n, "Slice", [x, *bounds], stem).output[0])
        _become(n, "Max", parts)
        changed = True
    return changed


@rewrite
def sum_in_halves(g, rng):
    """A sum over the last axis as the sum of two."""
    changed = False
    for n in some(rng, (n for n in g.of("ReduceSum") if g.computed(n.input[0]) and attribute(n, "keepdims", 1) and len(n.input) > 1 and (a := g.constant(n.input[1])) is not None and a.size == 1
                        and int(a.reshape(-1)[0]) % len(g.shape(n.input[0])) == len(g.shape(n.input[0])) - 1 and g.shape(n.input[0])[-1] > 3), 2):
        size, stem, axis = g.shape(n.input[0])[-1], n.output[0] + "__half", len(g.shape(n.input[0])) - 1
        parts = [g.insert(n, "Slice", [n.input[0], _ints(g, a, stem), _ints(g, b, stem), _ints(g, axis, stem)], stem).output[0] for a, b in ((0, size // 2), (size // 2, size))]
        sums = [g.insert_reduce(n, "ReduceSum", p, [-1], stem).output[0] for p in parts]
        _become(n, "Add", sums)
        changed = True
    return changed


@rewrite
def scores_turned(g, rng):
    """Weights times values as (values' times weights')'."""
    changed = False
    for n in some(rng, (n for n in g.of("MatMul") if all(g.computed(i) and len(g.shape(i)) == 4 for i in n.input)), 2):
        stem = n.output[0] + "__turned"
        turned = [g.insert(n, "Transpose", [i], stem, perm=[0, 1, 3, 2]).output[0] for i in n.input]
        made = g.insert(n, "MatMul", turned[::-1], stem).output[0]
        _become(n, "Transpose", [made], perm=[0, 1, 3, 2])
        changed = True
    return changed


@rewrite
def norm_in_double(g, rng):
    """The statistics of a norm in the wider type, as reference code has it."""
    changed = False
    for n in some(rng, (n for n in g.of("ReduceMean") if g.computed(n.input[0])), 2):
        x = g.insert(n, "Cast", [n.input[0]], n.output[0] + "__wide", to=11).output[0]
        out = g.rename_output(n, 0, g.fresh(n.output[0] + "__double"))
        n.input[0] = x
        g.insert_after(n, "Cast", [n.output[0]], out + "__back", output=out, to=1)
        changed = True
    return changed
