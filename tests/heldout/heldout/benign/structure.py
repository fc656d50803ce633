"""The same graph written down in another way."""
import numpy as np
import onnx
import onnx.version_converter
from onnx import helper, numpy_helper

from .registry import rewrite, some


@rewrite
def identity(g, rng):
    changed = False
    for n in some(rng, (n for n in g.nodes if g.computed(n.output[0]) and not g.is_output(n.output[0])), 6):
        out = g.rename_output(n, 0, g.fresh(n.output[0] + "__before"))
        g.insert_after(n, "Identity", [n.output[0]], out + "__same", output=out)
        changed = True
    return changed


@rewrite
def rename_shuffle(g, rng):
    """Every inner name replaced, and the nodes in another order that still is one."""
    fixed = {i.name for i in g.model.graph.input} | {o.name for o in g.model.graph.output}
    inner = [n for n in dict.fromkeys([i.name for i in g.model.graph.initializer] + [o for n in g.nodes for o in n.output]) if n and n not in fixed]
    names = dict(zip(inner, (f"t{k}" for k in rng.permutation(len(inner)))))
    for i in g.model.graph.initializer:
        i.name = names.get(i.name, i.name)
    for k, n in enumerate(g.nodes):
        n.name = f"op{int(rng.integers(1 << 30))}_{k}"
        for part in (n.input, n.output):
            for j, v in enumerate(part):
                part[j] = names.get(v, v)
    ready = {i.name for i in g.model.graph.input} | {i.name for i in g.model.graph.initializer} | {""}
    left, order = list(g.nodes), []
    while left:
        free = [n for n in left if set(n.input) <= ready]
        n = free[int(rng.integers(len(free)))]
        left.remove(n)
        order.append(n)
        ready.update(n.output)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in order]
    del g.model.graph.node[:]
    g.model.graph.node.extend(copies)
    weights = list(g.model.graph.initializer)
    copies = [onnx.TensorProto.FromString(weights[k].SerializeToString()) for k in rng.permutation(len(weights))]
    del g.model.graph.initializer[:]
    g.model.graph.initializer.extend(copies)
    return True


@rewrite
def constants_moved(g, rng):
    """Initializers as Constant nodes and Constant nodes as initializers."""
    stored = list(g.model.graph.initializer)
    nodes = [n for n in g.nodes if n.op_type == "Constant" and n.attribute[0].name == "value"]
    tensors = [numpy_helper.from_array(numpy_helper.to_array(n.attribute[0].t), n.output[0]) for n in nodes]
    made = [helper.make_node("Constant", [], [t.name], f"constant_{k}", value=numpy_helper.from_array(numpy_helper.to_array(t))) for k, t in enumerate(stored)]
    for n in nodes:
        g.remove(n)
    del g.model.graph.initializer[:]
    g.model.graph.initializer.extend(tensors)
    rest = [onnx.NodeProto.FromString(n.SerializeToString()) for n in g.nodes]
    del g.model.graph.node[:]
    g.model.graph.node.extend(made + rest)
    return True


@rewrite
def weights_duplicated(g, rng):
    """Each reader has its own copy of what it shares with others."""
    changed, seen = False, set()
    for n in g.nodes:
        for i, name in enumerate(n.input):
            c = g.constant(name)
            if c is None:
                continue
            if name in seen:
                n.input[i] = g.add_constant(c.copy(), name + "__copy")
                changed = True
            seen.add(name)
    return changed


@rewrite
def computed_twice(g, rng):
    """A value with several readers computed once for each."""
    changed = False
    for n in some(rng, (n for n in g.nodes if len(n.output) == 1 and g.computed(n.output[0]) and len(g.consumers(n.output[0])) > 1), 3):
        reader = g.consumers(n.output[0])[-1]
        again = onnx.NodeProto.FromString(n.SerializeToString())
        again.name, again.output[0] = g.fresh(n.name + "__again"), g.fresh(n.output[0] + "__again")
        g.nodes.insert(g.position(n) + 1, again)
        for i, name in enumerate(reader.input):
            if name == n.output[0]:
                reader.input[i] = again.output[0]
        changed = True
    return changed


@rewrite
def constant_if(g, rng):
    """Operators inside the taken branch of an If whose condition is a constant."""
    changed = False
    for n in some(rng, (n for n in g.nodes if len(n.output) == 1 and g.computed(n.output[0]) and g.computed(n.input[0]) and n.op_type in ("Add", "Mul", "MatMul", "LayerNormalization", "Conv", "Relu", "Gemm")), 3):
        out = n.output[0]
        inside = onnx.NodeProto.FromString(n.SerializeToString())
        inside.output[0] = g.fresh(out + "__then")
        other = helper.make_node("Identity", [n.input[0]], [g.fresh(out + "__else")], g.fresh(n.name + "__else"))
        branches = [helper.make_graph([node], f"{n.name}_{word}", [], [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)]) for word, node in (("then", inside), ("else", other))]
        condition = g.add_constant(np.array(True), out + "__condition")
        n.op_type = "If"
        del n.input[:], n.attribute[:]
        n.input.append(condition)
        n.attribute.extend([helper.make_attribute("then_branch", branches[0]), helper.make_attribute("else_branch", branches[1])])
        changed = True
    return changed


@rewrite
def opset_raised(g, rng):
    """The model brought to a newer version of the operator set."""
    try:
        newer = onnx.version_converter.convert_version(g.model, 20)
    except Exception:  # the converter does not know every operator
        return False
    g.model = newer
    return True


def _as_function(g, name, nodes, inputs, output):
    """Moves nodes into a function of the model and calls it where the last of them stood."""
    body = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    names = {v: f"x{k}" for k, v in enumerate(inputs)}
    names.update({o: f"y{k}" for k, o in enumerate(o for n in nodes for o in n.output if o)})
    for n in body:
        for part in (n.input, n.output):
            for j, v in enumerate(part):
                part[j] = names.get(v, v)
    used = [helper.make_opsetid("", g.opset)]
    g.model.functions.append(helper.make_function("heldout", name, [names[v] for v in inputs], [names[output]], body, used))
    g.insert(nodes[-1], name, inputs, output, output=output, domain="heldout")
    for n in nodes:
        g.remove(n)
    if not any(o.domain == "heldout" for o in g.model.opset_import):
        g.model.opset_import.append(helper.make_opsetid("heldout", 1))


@rewrite
def local_functions(g, rng):
    """Products with their bias, and softmaxes, as functions of the model."""
    changed = False
    for k, n in enumerate(some(rng, [n for n in g.of("MatMul", "Softmax", "LayerNormalization", "Conv", "Gemm") if g.computed(n.output[0])], 4)):
        group = [n]
        readers = g.consumers(n.output[0])
        if n.op_type == "MatMul" and len(readers) == 1 and readers[0].op_type == "Add" and not g.is_output(n.output[0]):
            group.append(readers[0])
        made = {o for m in group for o in m.output}
        inputs = list(dict.fromkeys(i for m in group for i in m.input if i and i not in made))
        if len(group) == 2 and g.position(group[0]) > g.position(group[1]):
            continue
        _as_function(g, f"Block{k}", group, inputs, group[-1].output[0])
        changed = True
    return changed
