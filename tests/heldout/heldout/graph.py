"""A working copy of a model that is easy to look around in and to change."""
import numpy as np
import onnx
from onnx import helper, numpy_helper

# Operators after which the same numbers stand in another order, shape or number of copies; the last two are the optimiser's blocked channels.
LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "ReorderInput", "ReorderOutput"}


class Graph:
    """`values` are the clean model's tensors by name: shapes and magnitudes are read from there."""

    def __init__(self, model, values):
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        del self.model.graph.value_info[:]  # a change may alter shapes that were written down
        self.values = values
        self.constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self.live = self._reached_from_inputs()
        self._taken = {n for node in model.graph.node for n in node.output} | set(self.constants) | {i.name for i in model.graph.input}
        for i, node in enumerate(self.nodes):
            node.name = node.name or f"{node.op_type}_{i}"

    def _reached_from_inputs(self):
        """Values that depend on the inputs; the others are constants in disguise."""
        live = {i.name for i in self.model.graph.input}
        for node in self.model.graph.node:
            if live & set(node.input):
                live.update(node.output)
        return live

    @property
    def nodes(self):
        return self.model.graph.node

    @property
    def opset(self):
        return next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))

    def of(self, *ops):
        return [n for n in self.nodes if n.op_type in ops]

    def producer(self, name):
        return next((n for n in self.nodes if name in n.output), None)

    def consumers(self, name):
        return [n for n in self.nodes if name in n.input]

    def is_output(self, name):
        return any(o.name == name for o in self.model.graph.output)

    def constant(self, name):
        return self.constants.get(name)

    def scalar(self, name):
        """The number a one-element float constant holds, else None."""
        c = self.constant(name)
        return float(c.reshape(-1)[0]) if c is not None and c.size == 1 and c.dtype.kind == "f" else None

    def value(self, name):
        return self.constants[name] if name in self.constants else self.values.get(name)

    def shape(self, name):
        v = self.value(name)
        return None if v is None else v.shape

    def is_float(self, name):
        v = self.value(name)
        return v is not None and v.dtype == np.float32

    def computed(self, name):
        """A float tensor of some size that a node computes from the inputs."""
        v = self.values.get(name)
        return name in self.live and v is not None and v.dtype == np.float32 and v.size >= 8

    def fresh(self, stem):
        name, i = stem, 1
        while name in self._taken:
            i += 1
            name = f"{stem}{i}"
        self._taken.add(name)
        return name

    def add_constant(self, array, stem):
        name = self.fresh(stem)
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        self.constants[name] = array
        return name

    def insert(self, before, op, inputs, stem, output=None, domain="", outputs=1, **attributes):
        """A new node in front of `before`; returns it. `stem` names it and, unless `output` says otherwise, its output."""
        made = [output] if output else [self.fresh(f"{stem}_{op}_out") for _ in range(outputs)]
        node = helper.make_node(op, inputs, made, self.fresh(f"{stem}_{op}"), domain=domain, **attributes)
        self.nodes.insert(self.position(before), node)
        return self.nodes[self.position(before) - 1]

    def insert_reduce(self, before, op, x, axes, stem, keepdims=1):
        """A reduction; up to version 17 (ReduceSum: 12) its axes are an attribute, later an input."""
        if self.opset < 18 and op != "ReduceSum":
            return self.insert(before, op, [x], stem, axes=axes, keepdims=keepdims)
        return self.insert(before, op, [x, self.add_constant(np.array(axes, np.int64), stem + "_axes")], stem, keepdims=keepdims)

    def insert_after(self, after, op, inputs, stem, output=None, **attributes):
        at = self.position(after) + 1
        made = output or self.fresh(f"{stem}_{op}_out")
        self.nodes.insert(at, helper.make_node(op, inputs, [made], self.fresh(f"{stem}_{op}"), **attributes))
        return self.nodes[at]

    def position(self, node):
        return next(i for i, n in enumerate(self.nodes) if n.name == node.name)

    def remove(self, node):
        del self.nodes[self.position(node)]

    def sort(self):
        """Puts the nodes into an order in which everything is made before it is read, changing as little as possible."""
        ready = {i.name for i in self.model.graph.input} | {i.name for i in self.model.graph.initializer} | {""}
        left, order = list(self.nodes), []
        while left:
            n = next(n for n in left if needs(n) <= ready)
            left.remove(n)
            order.append(onnx.NodeProto.FromString(n.SerializeToString()))
            ready.update(n.output)
        del self.nodes[:]
        self.nodes.extend(order)

    def rename_output(self, node, index, new):
        """Frees the name of an output, so that an inserted node can produce it."""
        old = node.output[index]
        node.output[index] = new
        return old

    def redirect(self, old, new, keep=()):
        """Every reader of `old` reads `new`, except the nodes named in `keep`."""
        for node in self.nodes:
            if node.name not in keep:
                for i, name in enumerate(node.input):
                    if name == old:
                        node.input[i] = new

    def ancestors(self, name, limit=60):
        """Names of the values from which `name` is computed, nearest first, at most `limit`."""
        seen, queue = [], [name]
        while queue and len(seen) < limit:
            node = self.producer(queue.pop(0))
            for i in node.input if node else ():
                if i and i not in self.constants and i not in seen:
                    seen.append(i)
                    queue.append(i)
        return seen


def needs(node):
    """Names a node reads, those read inside its branches and bodies included."""
    names = set(node.input)
    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH:
            made = {o for n in a.g.node for o in n.output} | {i.name for i in a.g.input}
            names |= {i for n in a.g.node for i in needs(n)} - made
    return names


def attribute(node, name, default=None):
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def set_attribute(node, name, value):
    for a in list(node.attribute):
        if a.name == name:
            node.attribute.remove(a)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def drop_attributes(node, *names):
    for name in names or [a.name for a in node.attribute]:
        set_attribute(node, name, None)
