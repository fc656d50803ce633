"""Which tensors and nodes of the final file rightly name a planted fault."""
import numpy as np

from .graph import LAYOUT

SAME = 1e-5  # sorted values this close, relative to the largest, are the same tensor


def _sorted(v):
    return np.sort(np.asarray(v).astype(np.float64), axis=None)


def same_values(a, b):
    """Equal up to order and shape. Entries that are not finite, or so large that they would swallow the others (masks), must agree in number."""
    a, b = np.asarray(a), np.asarray(b)
    if a.size != b.size or a.dtype.kind != b.dtype.kind:
        return False
    a, b = _sorted(a), _sorted(b)
    fa, fb = np.abs(a) < 1e30, np.abs(b) < 1e30
    if not (fa == fb).all():
        return False
    scale = np.abs(a[fa]).max() if fa.any() else 0.0
    return bool(np.abs(a[fa] - b[fb]).max(initial=0.0) <= SAME * max(scale, 1e-30))


def telling(v):
    """Has it enough distinct numbers to be recognised by them?"""
    return v.dtype.kind == "f" and v.size >= 8 and np.unique(v).size >= 5


def layout_chain(model, names):
    """The names, and the values that hold the same numbers because only layout operators lie between, both ways."""
    made = {o: n for n in model.graph.node for o in n.output if o}
    constants = {i.name for i in model.graph.initializer} | {o for n in model.graph.node if n.op_type == "Constant" for o in n.output}
    found, queue = {i.name for i in model.graph.input} & set(names), [n for n in names if n in made]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        node = made[name]
        if _carries(node) and node.input[0] in made and node.input[0] not in constants:
            queue.append(node.input[0])
        queue += [n.output[0] for n in model.graph.node if _carries(n) and n.input[0] == name]
    return found


def _carries(node):
    """Layout operators, and casts to float (in these networks: from float)."""
    return node.op_type in LAYOUT or node.op_type == "Cast" and any(a.name == "to" and a.i == 1 for a in node.attribute)


class Known:
    """Tensors of clean runs, to be asked whether a tensor is one of them."""

    def __init__(self, *runs):
        self.by_size = {}
        for values in runs:
            # A list of tensors is none.
            for v in (v for v in values.values() if not isinstance(v, list)):
                self.by_size.setdefault(v.size, []).append(v)

    def has(self, v):
        return any(same_values(v, w) for w in self.by_size.get(v.size, ()))


def first_different(model, values, known):
    """Outputs of the nodes whose result is new though everything computed that they read is known."""
    computed = {o for n in model.graph.node if n.op_type != "Constant" for o in n.output if o}
    agrees = {name: known.has(values[name]) for name in computed if name in values}
    return {o for n in model.graph.node if n.op_type != "Constant" and all(agrees.get(i, True) for i in n.input) for o in n.output if o and not agrees.get(o, True)}


def _same_node(mutated, final, name):
    """Is the value made by a node of the same name and operator in both? Its numbers may then differ by a rounding step of a narrow type."""
    a, b = (next(((n.name, n.op_type) for n in m.graph.node if name in n.output), None) for m in (mutated, final))
    return a is not None and a == b


def locate(mutated, mutated_values, final, final_values, made, known):
    """Names in the final file of what was planted. Where the optimiser kept a value under its name, that is it; otherwise it is
    looked for by its numbers, and if the optimiser swallowed it, the first results that differ from every clean one are named too."""
    inputs = {i.name for i in final.graph.input}
    names, kept = inputs & set(made.outputs), True
    for name in made.outputs:
        if name in inputs:
            continue
        v = mutated_values.get(name)
        if v is None:  # bfloat16
            names |= {o for n in final.graph.node for o in n.output if o == name}
            continue
        if name in final_values and v.size == final_values[name].size and (same_values(v, final_values[name]) or _same_node(mutated, final, name)):
            names.add(name)
            continue
        kept = False
        if telling(v):
            names |= {n for n, w in final_values.items() if same_values(v, w)}
    if not kept:
        names |= first_different(final, final_values, known)
    return layout_chain(final, names), kept
