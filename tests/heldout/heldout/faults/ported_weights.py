"""What goes wrong when weights are loaded, merged, sharded or quantised for another implementation. Second set."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ..graph import attribute
from .registry import fault, pick, planted
from .weights import _biases, _replace, _weights


def _columns(g):
    """(node, index, weight, axis of the output features) of products with a stored matrix."""
    found = []
    for n, i, w in _weights(g):
        if n.op_type in ("MatMul", "Gemm") and i == 1 and w.ndim == 2:
            found.append((n, i, w, 0 if n.op_type == "Gemm" and attribute(n, "transB", 0) else 1))
    return found


def _shared_out(g, node, count):
    """Is what the product gives cut into that many equal pieces soon after?"""
    reached = [node.output[0]]
    for _ in range(3):
        reached += [c.output[0] for r in reached for c in g.consumers(r) if c.op_type in ("Add", "Reshape", "Transpose") and c.output[0] not in reached]
    for c in (c for r in reached for c in g.consumers(r)):
        if c.op_type == "Split" and len(c.output) == count and len({g.shape(o) for o in c.output}) == 1:
            return True
    return False


def _blocks(g, rng, count, change):
    """The blocks of one packed matrix in another arrangement; `change` maps the array split into blocks on its first axis."""
    found = pick(rng, [s for s in _columns(g) if s[2].shape[s[3]] % (2 * count) == 0 and _shared_out(g, s[0], count)])
    if found is None:
        return None
    node, i, w, axis = found
    rows = np.moveaxis(w, axis, 0)
    new = change(rows.reshape(count, -1, rows.shape[1])).reshape(rows.shape)
    return _replace(g, node, i, np.moveaxis(new, 0, axis))


@fault("weight_layout")
def gate_and_up(g, rng):
    """The two halves of one matrix, gate and value, change places."""
    return _blocks(g, rng, 2, lambda b: b[::-1])


@fault("weight_layout")
def shards_interleaved(g, rng):
    """Packed parts gathered from two devices as they lie there: half of each part, then the other halves."""
    count = 3 if rng.integers(2) else 2
    return _blocks(g, rng, count, lambda b: b.reshape(b.shape[0], 2, -1, b.shape[-1]).swapaxes(0, 1))


@fault("weight_value")
def shard_repeated(g, rng):
    """Both halves of a matrix are the first one, as when each device loads the first shard."""
    found = pick(rng, [s for s in _columns(g) if s[2].shape[s[3]] % 2 == 0])
    if found is None:
        return None
    node, i, w, axis = found
    first = np.split(w, 2, axis)[0]
    return _replace(g, node, i, np.concatenate([first, first], axis))


@fault("weight_layout")
def shards_exchanged(g, rng):
    """The halves of a matrix joined in the wrong order."""
    found = pick(rng, [s for s in _columns(g) if s[2].shape[s[3]] % 2 == 0])
    if found is None:
        return None
    node, i, w, axis = found
    return _replace(g, node, i, np.concatenate(np.split(w, 2, axis)[::-1], axis))


@fault("weight_layout")
def inputs_shuffled(g, rng):
    """The rows of a matrix stand in the order of another head or channel layout: (a, b) against (b, a)."""
    found = pick(rng, [s for s in _columns(g) if s[2].shape[1 - s[3]] % 4 == 0 and s[2].shape[1 - s[3]] > 8])
    if found is None:
        return None
    node, i, w, axis = found
    rows = np.moveaxis(w, 1 - axis, 0)
    new = rows.reshape(4, -1, rows.shape[1]).swapaxes(0, 1).reshape(rows.shape)
    return _replace(g, node, i, np.moveaxis(new, 0, 1 - axis))


@fault("weight_layout")
def flatten_order(g, rng):
    """A layer behind a flattened picture stored for channels last."""
    sites = []
    for n, i, w, axis in _columns(g):
        flat = g.producer(n.input[0])
        shape = g.shape(flat.input[0]) if flat is not None and flat.op_type in ("Flatten", "Reshape") else None
        if shape is not None and len(shape) >= 3 and np.prod(shape[1:]) == w.shape[1 - axis] and shape[1] > 1 and np.prod(shape[2:]) > 1:
            sites.append((n, i, w, axis, shape))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, w, axis, shape = found
    rows = np.moveaxis(w, 1 - axis, 0)
    last = rows.reshape(*shape[1:], rows.shape[1]).transpose(*range(1, len(shape) - 1), 0, len(shape) - 1).reshape(rows.shape)
    return _replace(g, node, i, np.moveaxis(last, 0, 1 - axis))


def _kernels(g):
    return [s for s in _weights(g) if "Conv" in s[0].op_type]


@fault("weight_layout")
def kernel_viewed(g, rng):
    """The memory of a kernel with its channels last, read as if they came first."""
    found = pick(rng, [s for s in _kernels(g) if s[2].shape[1] > 1 and np.prod(s[2].shape[2:]) > 1])
    if found is None:
        return None
    node, i, w = found
    return _replace(g, node, i, np.ascontiguousarray(w.transpose(0, *range(2, w.ndim), 1)).reshape(w.shape))


@fault("weight_layout")
def kernel_channels(g, rng):
    """Input and output channels of a kernel exchanged."""
    found = pick(rng, [s for s in _kernels(g) if s[2].shape[0] == s[2].shape[1] > 1])
    return None if found is None else _replace(g, found[0], found[1], found[2].swapaxes(0, 1))


@fault("weight_layout")
def colours_reversed(g, rng):
    """The first kernel stored for blue, green, red."""
    inputs = {i.name for i in g.model.graph.input}
    found = pick(rng, [s for s in _kernels(g) if s[2].shape[1] == 3 and s[0].op_type == "Conv" and (s[0].input[0] in inputs or inputs & set(g.ancestors(s[0].input[0], 6)))])
    return None if found is None else _replace(g, found[0], found[1], found[2][:, ::-1])


@fault("weight_layout")
def groups_interleaved(g, rng):
    """The output channels of a grouped kernel ordered by place in the group first."""
    found = pick(rng, [s for s in _kernels(g) if 1 < attribute(s[0], "group", 1) < s[2].shape[0]])
    if found is None:
        return None
    node, i, w = found
    return _replace(g, node, i, w.reshape(attribute(node, "group", 1), -1, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape))


@fault("weight_swap")
def weights_exchanged(g, rng):
    """Two weights of the same shape change places."""
    sites = _weights(g)
    pairs = [(s, t) for a, s in enumerate(sites) for t in sites[a + 1:] if s[0].op_type == t[0].op_type and s[2].shape == t[2].shape and s[0].input[s[1]] != t[0].input[t[1]]
             and s[0].name != t[0].name and not np.array_equal(s[2], t[2])]
    found = pick(rng, pairs)
    if found is None:
        return None
    (n, i, w), (m, j, v) = found
    first, second = _replace(g, n, i, v.copy()), _replace(g, m, j, w.copy())
    first.nodes += second.nodes
    first.outputs += second.outputs
    return first


@fault("weight_swap")
def head_from_table(g, rng):
    """The last matrix taken from the embedding, as if they were tied, or the other way round another table in its place."""
    tables = [t for n in g.of("Gather") if (t := g.constant(n.input[0])) is not None and t.ndim == 2 and t.dtype == np.float32]
    sites = [(n, i, t.T if axis == 1 else t) for n, i, w, axis in _columns(g) for t in tables if w.shape[axis] == t.shape[0] and w.shape[1 - axis] == t.shape[1]]
    found = pick(rng, [(n, i, t) for n, i, t in sites if not np.array_equal(g.constant(n.input[i]), t)])
    return None if found is None else _replace(g, found[0], found[1], np.ascontiguousarray(found[2]))


def _stacks(g):
    """(node, index, array) of stored weights of several experts, one behind the other."""
    return [(n, i, w) for n in g.of("MatMul", "Gather", "Einsum") for i, name in enumerate(n.input)
            if (w := g.constant(name)) is not None and w.ndim == 3 and w.dtype == np.float32 and 1 < w.shape[0] < 17 and min(w.shape[1:]) > 4]


@fault("weight_layout")
def experts_permuted(g, rng):
    """Experts, or other stacked matrices, in another order."""
    found = pick(rng, _stacks(g))
    return None if found is None else _replace(g, found[0], found[1], np.roll(found[2], 1, 0))


@fault("weight_value")
def weight_stale(g, rng):
    """The weight of another step of training: every number a little different."""
    found = pick(rng, _weights(g))
    if found is None:
        return None
    node, i, w = found
    return _replace(g, node, i, w + rng.standard_normal(w.shape) * w.std() * 0.02)


@fault("weight_value")
def adapter_merged(g, rng):
    """An adapter of low rank merged into one side only."""
    found = pick(rng, [s for s in _weights(g) if s[2].ndim == 2 and min(s[2].shape) >= 8])
    if found is None:
        return None
    node, i, w = found
    delta = rng.standard_normal((w.shape[0], 2)) @ rng.standard_normal((2, w.shape[1]))
    return _replace(g, node, i, w + delta * w.std() * 0.1)


@fault("weight_value")
def rows_unset(g, rng):
    """The last rows of a table were never loaded."""
    sites = []
    for n in g.of("Gather"):
        t, index = g.constant(n.input[0]), g.value(n.input[1])
        if t is not None and t.ndim == 2 and t.dtype == np.float32 and index is not None and t.shape[0] > 16 and index.max() > t.shape[0] * 0.7:
            sites.append((n, t))
    found = pick(rng, sites)
    if found is None:
        return None
    node, t = found
    t = t.copy()
    t[int(t.shape[0] * 0.7):] = 0
    return _replace(g, node, 0, t)


@fault("weight_value")
def norm_folded_and_kept(g, rng):
    """A batch norm multiplied into the kernel before it and still there."""
    sites = [(c, n) for n in g.of("BatchNormalization") if (c := g.producer(n.input[0])) is not None and c.op_type == "Conv" and g.constant(c.input[1]) is not None and g.constant(n.input[1]) is not None]
    found = pick(rng, sites)
    if found is None:
        return None
    conv, norm = found
    factor = g.constant(norm.input[1]) / np.sqrt(g.constant(norm.input[4]) + attribute(norm, "epsilon", 1e-5))
    w = g.constant(conv.input[1])
    return _replace(g, conv, 1, w * factor.reshape(-1, *[1] * (w.ndim - 1)))


@fault("weight_value")
def window_symmetric(g, rng):
    """A Hann window made symmetric where it is meant to be periodic, inside a long kernel over one channel."""
    found = pick(rng, [s for s in _kernels(g) if s[2].ndim == 3 and s[2].shape[1] == 1 and s[2].shape[2] >= 16])
    if found is None:
        return None
    node, i, w = found
    n = np.arange(w.shape[2])
    periodic, symmetric = (0.5 - 0.5 * np.cos(2 * np.pi * n / m) for m in (len(n), len(n) - 1))
    return _replace(g, node, i, w * np.divide(symmetric, periodic, out=np.ones(len(n)), where=periodic > 1e-6))


@fault("bias")
def bias_order(g, rng):
    """The bias of packed projections in another order than their weights."""
    found = pick(rng, [s for s in _biases(g) if s[2].size % 3 == 0 and s[2].size >= 24])
    return None if found is None else _replace(g, found[0], found[1], np.roll(found[2], found[2].size // 3))


@fault("bias")
def bias_behind(g, rng):
    """The bias added behind the function instead of in front of it."""
    sites = [(n, i, b, r) for n, i, b in _biases(g) if n.op_type == "Add" for r in g.consumers(n.output[0])
             if len(g.consumers(n.output[0])) == 1 and r.op_type in ("Relu", "Tanh", "Sigmoid", "Elu", "LeakyRelu", "Softplus") and not g.is_output(n.output[0])]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, _, act = found
    bias, x = node.input[i], node.input[1 - i]
    node.op_type = "Identity"
    del node.input[:]
    node.input.append(x)
    out = g.rename_output(act, 0, g.fresh(act.output[0] + "__bare"))
    late = g.insert_after(act, "Add", [act.output[0], bias], out + "__biased", output=out)
    return planted(node, act, late, outputs=[node.output[0], act.output[0], out])


@fault("bias")
def forget_bias(g, rng):
    """One more on the forget gate, which one library adds and the other stores."""
    node = pick(rng, (n for n in g.of("LSTM") if len(n.input) > 3 and g.constant(n.input[3]) is not None))
    if node is None:
        return None
    b = g.constant(node.input[3]).copy()
    size = b.shape[1] // 8
    b[:, 2 * size:3 * size] += 1
    node.input[3] = g.add_constant(b, node.input[3] + "__z")
    return planted(node, outputs=[o for o in node.output if o])


@fault("quantisation")
def block_scales(g, rng):
    """Blocks of a quantised weight with the step of the next block."""
    found = pick(rng, [s for s in _weights(g) if s[2].ndim == 2 and s[2].shape[0] % 8 == 0])
    if found is None:
        return None
    node, i, w = found
    blocks = w.reshape(-1, 8, w.shape[1])
    step = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-6) / 7
    return _replace(g, node, i, (np.round(blocks / step) * np.roll(step, 1, 0)).reshape(w.shape))


@fault("precision")
def weight_eight_float(g, rng):
    """A weight stored in eight floating bits."""
    found = pick(rng, _weights(g))
    if found is None:
        return None
    node, i, w = found
    tensor = helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, w.shape, w.reshape(-1).tolist())
    return _replace(g, node, i, numpy_helper.to_array(tensor).astype(np.float32))
