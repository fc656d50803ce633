"""Weights and biases: values, layouts, swaps, and rounding of what is stored."""
import numpy as np

from ..graph import attribute
from .registry import fault, pick, planted

PRODUCTS = {"MatMul": (0, 1), "Gemm": (0, 1), "Conv": (1,), "ConvTranspose": (1,), "LSTM": (1, 2), "GRU": (1, 2)}


def _weights(g):
    """(node, input index, array) of every stored weight that a product reads."""
    return [(n, i, w) for n in g.nodes if n.op_type in PRODUCTS for i in PRODUCTS[n.op_type]
            if i < len(n.input) and (w := g.constant(n.input[i])) is not None and w.ndim >= 2 and w.dtype == np.float32]


def _replace(g, node, i, new):
    node.input[i] = g.add_constant(np.ascontiguousarray(new).astype(np.float32), node.input[i] + "__z")
    outputs = [o for o in node.output if o]
    return planted(node, outputs=outputs)


def _biases(g):
    """(node, input index, array): added vectors, and the bias inputs of products."""
    found = []
    for n in g.nodes:
        if n.op_type == "Add" and g.computed(n.output[0]):
            for i, name in enumerate(n.input):
                b, x = g.constant(name), g.producer(n.input[1 - i])
                if b is not None and b.dtype == np.float32 and b.ndim == 1 and b.size > 4 and x is not None and x.op_type == "MatMul":
                    found.append((n, i, b))
        elif n.op_type in ("Conv", "ConvTranspose", "Gemm") and len(n.input) > 2 and (b := g.constant(n.input[2])) is not None:
            found.append((n, 2, b))
    return found


@fault("weight_layout")
def transposed_weight(g, rng):
    found = pick(rng, [s for s in _weights(g) if s[2].ndim == 2 and s[2].shape[0] == s[2].shape[1]])
    return None if found is None else _replace(g, found[0], found[1], found[2].T)


@fault("weight_layout")
def viewed_weight(g, rng):
    """The transposed memory read with the untransposed shape: a view that was not made contiguous."""
    found = pick(rng, [s for s in _weights(g) if s[2].ndim == 2 and s[2].shape[0] != s[2].shape[1]])
    return None if found is None else _replace(g, found[0], found[1], np.ascontiguousarray(found[2].T).reshape(found[2].shape))


@fault("weight_layout")
def kernel_layout(g, rng):
    """Height and width of a kernel swapped, or the kernel mirrored (correlation against convolution)."""
    found = pick(rng, [s for s in _weights(g) if "Conv" in s[0].op_type and s[2].shape[-1] > 1])
    if found is None:
        return None
    node, i, w = found
    if w.ndim == 4 and w.shape[-1] == w.shape[-2] and rng.integers(2):
        return _replace(g, node, i, w.swapaxes(-1, -2))
    return _replace(g, node, i, w[..., ::-1] if w.ndim == 3 else w[..., ::-1, ::-1])


def _heads(g, node):
    """Number of heads into which a projection's output is split right after it, or None."""
    name = node.output[0]
    for _ in range(3):
        after = g.consumers(name)
        for n in after:
            shape = g.shape(n.output[0])
            if n.op_type == "Reshape" and shape is not None and len(shape) == 4 and g.shape(name)[-1] == shape[2] * shape[3] and shape[2] > 1:
                return shape[2]
        if len(after) != 1 or after[0].op_type not in ("Add", "Mul"):
            return None
        name = after[0].output[0]
    return None


@fault("weight_layout")
def head_permutation(g, rng):
    """The heads of one projection stand in another order."""
    sites = [(n, i, w, h) for n, i, w in _weights(g) if n.op_type == "MatMul" and i == 1 and w.ndim == 2 and (h := _heads(g, n))]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, w, heads = found
    order = np.roll(np.arange(heads), 1)
    return _replace(g, node, i, w.reshape(w.shape[0], heads, -1)[:, order].reshape(w.shape))


@fault("weight_layout")
def head_interleave(g, rng):
    """Output features stored as (feature, head) where (head, feature) is meant."""
    found = pick(rng, [(n, i, w, h) for n, i, w in _weights(g) if n.op_type == "MatMul" and i == 1 and w.ndim == 2 and (h := _heads(g, n))])
    if found is None:
        return None
    node, i, w, heads = found
    return _replace(g, node, i, w.reshape(w.shape[0], heads, -1).swapaxes(1, 2).reshape(w.shape))


def _packed(g):
    """Projections whose output holds query, key and value side by side: it is split in three soon after."""
    sites = []
    for n, i, w in _weights(g):
        if w.ndim == 2 and n.op_type in ("Gemm", "MatMul") and not attribute(n, "transB", 0) and w.shape[1] == 3 * w.shape[0]:
            reached = [n.output[0]]
            for _ in range(2):
                reached += [c.output[0] for r in reached for c in g.consumers(r) if c.op_type in ("Add", "Reshape")]
            if any(c.op_type == "Split" and len(c.output) == 3 for r in reached for c in g.consumers(r)):
                sites.append((n, i, w))
    return sites


@fault("weight_layout")
def qkv_order(g, rng):
    """Query, key and value packed in another order."""
    found = pick(rng, _packed(g))
    if found is None:
        return None
    node, i, w = found
    return _replace(g, node, i, w.reshape(w.shape[0], 3, -1)[:, pick(rng, [[1, 0, 2], [2, 1, 0], [0, 2, 1]])].reshape(w.shape))


@fault("weight_layout")
def qkv_interleave(g, rng):
    """(3, heads, features) against (heads, 3, features)."""
    found = pick(rng, _packed(g))
    if found is None:
        return None
    node, i, w = found
    return _replace(g, node, i, w.reshape(w.shape[0], 3, 4, -1).swapaxes(1, 2).reshape(w.shape))


@fault("weight_swap")
def weight_swap(g, rng):
    """Another layer's weight of the same shape."""
    all_weights = _weights(g)
    sites = [(n, i, w, v) for n, i, w in all_weights for m, j, v in all_weights if n.op_type == m.op_type and w.shape == v.shape and n.input[i] != m.input[j] and not np.array_equal(w, v)]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, _, other = found
    return _replace(g, node, i, other.copy())


@fault("weight_value")
def weight_value(g, rng):
    """One row or column scaled or zeroed, or a few elements changed."""
    found = pick(rng, _weights(g))
    if found is None:
        return None
    node, i, w = found
    w = w.copy()
    how = int(rng.integers(4))
    k = int(rng.integers(w.shape[0]))
    if how == 0:
        w[k] *= 1.5
    elif how == 1:
        w[k] = 0
    elif how == 2:
        w[..., int(rng.integers(w.shape[-1]))] *= 0.5
    else:
        flat = w.reshape(-1)
        flat[rng.choice(flat.size, 5, replace=False)] += np.float32(w.std() * 3)
    return _replace(g, node, i, w)


@fault("quantisation")
def weight_int8(g, rng):
    """One weight went through eight bits and back."""
    found = pick(rng, [s for s in _weights(g) if s[2].size >= 64])
    if found is None:
        return None
    node, i, w = found
    step = np.abs(w).max() / 127
    return _replace(g, node, i, np.round(w / step) * step)


@fault("precision")
def weight_half(g, rng):
    """One weight was stored in half precision."""
    found = pick(rng, _weights(g))
    return None if found is None else _replace(g, found[0], found[1], found[2].astype(np.float16).astype(np.float32))


@fault("bias")
def missing_bias(g, rng):
    found = pick(rng, _biases(g))
    return None if found is None else _replace(g, found[0], found[1], np.zeros_like(found[2]))


@fault("bias")
def bias_swap(g, rng):
    """Another layer's bias of the same length."""
    all_biases = _biases(g)
    found = pick(rng, [(n, i, v) for n, i, b in all_biases for m, j, v in all_biases if b.shape == v.shape and n.input[i] != m.input[j] and not np.array_equal(b, v)])
    return None if found is None else _replace(g, found[0], found[1], found[2].copy())


@fault("bias")
def bias_channel(g, rng):
    """The bias of one channel is off."""
    found = pick(rng, _biases(g))
    if found is None:
        return None
    node, i, b = found
    b = b.copy()
    b[int(rng.integers(b.size))] += np.float32(0.4)
    return _replace(g, node, i, b)
