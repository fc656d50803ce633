"""Order of gates and directions in recurrent layers."""
import numpy as np

from ..graph import attribute, set_attribute
from .registry import fault, pick, planted


def _every_output(node):
    return [o for o in node.output if o]


def _permute_gates(g, node, order):
    """Reorders the gate blocks of the weights, the recurrent weights and both biases."""
    count = len(order)
    for i in (1, 2, 3):
        if i < len(node.input) and node.input[i]:
            w = g.constant(node.input[i])
            blocks = 2 * count if i == 3 else count
            split = w.reshape(w.shape[0], blocks, -1)
            full = order if i != 3 else order + [count + k for k in order]
            node.input[i] = g.add_constant(np.ascontiguousarray(split[:, full]).reshape(w.shape), node.input[i] + "__z")


@fault("gate_order")
def gate_order(g, rng):
    """Gates in the order of another library."""
    node = pick(rng, g.of("LSTM", "GRU"))
    if node is None:
        return None
    _permute_gates(g, node, pick(rng, [[0, 2, 1, 3], [0, 2, 3, 1], [2, 1, 0, 3]]) if node.op_type == "LSTM" else [1, 0, 2])
    return planted(node, outputs=_every_output(node))


@fault("gate_order")
def gate_swap(g, rng):
    """Two gates of a hand-written cell change places: two pieces of one split."""
    sites = []
    for n in g.of("Split"):
        uses = [{c.op_type for c in g.consumers(o)} for o in n.output]
        if len(n.output) == 4 and all(u <= {"Sigmoid", "Tanh"} for u in uses):
            sites += [(n, a, b) for a, b in ((0, 1), (1, 3), (0, 2))]
    found = pick(rng, sites)
    if found is None:
        return None
    node, a, b = found
    first, second = node.output[a], node.output[b]
    node.output[a], node.output[b] = second, first
    return planted(node, outputs=[first, second])


@fault("gate_order")
def reset_after(g, rng):
    """The reset gate applied before the product instead of after it."""
    node = pick(rng, g.of("GRU"))
    if node is None:
        return None
    set_attribute(node, "linear_before_reset", 1 - attribute(node, "linear_before_reset", 0))
    return planted(node, outputs=_every_output(node))


@fault("weight_layout")
def direction_swap(g, rng):
    """Forward and backward weights exchanged."""
    node = pick(rng, (n for n in g.of("LSTM", "GRU") if attribute(n, "direction", b"forward") == b"bidirectional"))
    if node is None:
        return None
    for i in (1, 2, 3):
        node.input[i] = g.add_constant(np.ascontiguousarray(g.constant(node.input[i])[::-1]), node.input[i] + "__z")
    return planted(node, outputs=_every_output(node))
