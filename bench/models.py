"""Makes the models of the benchmark: an encoder layer of BERT-base, and ResNet-50.

usage: models.py FOLDER

Weights are random with the spread of a trained network's, from a fixed seed. Each model comes as an exporter writes
it (`a.onnx`: nothing fused) and as ONNX Runtime rewrites it (`b.onnx`: basic optimisations, so constants folded and
batch norms inside convolutions, and every operator a standard one, which all peers can run), with `inputs.npz`.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


class Builder:
    """Collects nodes and weights."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def weight(self, name, array):
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def normal(self, name, shape, spread):
        return self.weight(name, (self.random.standard_normal(shape) * spread).astype(np.float32))

    def uniform(self, name, shape, low, high):
        return self.weight(name, self.random.uniform(low, high, shape).astype(np.float32))

    def op(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{name}/{op}", **attributes))
        return name

    def model(self, inputs, outputs):
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(
            self.nodes, "bench", [value(*i) for i in inputs], [value(*o) for o in outputs], self.weights
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def bert_layer(tokens=128, hidden=768, heads=12, inner=3072):
    """One encoder layer of BERT-base: attention, then the feed-forward part with the exact GELU."""
    b = Builder(1)
    size = hidden // heads
    split = b.weight("split", np.array([1, tokens, heads, size]))
    joined = b.weight("joined", np.array([1, tokens, hidden]))

    def dense(x, name, before, after):
        product = b.op("MatMul", [x, b.normal(f"{name}.weight", (before, after), 0.04)], f"{name}.product")
        return b.op("Add", [product, b.normal(f"{name}.bias", (after,), 0.02)], name)

    def norm(x, name):
        gain, shift = b.uniform(f"{name}.gain", (hidden,), 0.7, 1.1), b.normal(f"{name}.shift", (hidden,), 0.05)
        return b.op("LayerNormalization", [x, gain, shift], name, axis=-1, epsilon=1e-12)

    def head(name, order):
        split_heads = b.op("Reshape", [dense("x", name, hidden, hidden), split], f"{name}.split")
        return b.op("Transpose", [split_heads], f"{name}.heads", perm=order)

    query, key, value = head("query", [0, 2, 1, 3]), head("key", [0, 2, 3, 1]), head("value", [0, 2, 1, 3])
    scores = b.op("MatMul", [query, key], "scores.product")
    scores = b.op("Div", [scores, b.weight("root", np.float32(size**0.5))], "scores")
    weights = b.op("Softmax", [b.op("Add", [scores, "mask"], "scores.masked")], "probabilities", axis=-1)
    context = b.op("Transpose", [b.op("MatMul", [weights, value], "context.heads")], "context.tokens", perm=[0, 2, 1, 3])
    attended = dense(b.op("Reshape", [context, joined], "context"), "attention", hidden, hidden)
    x = norm(b.op("Add", [attended, "x"], "attention.residual"), "attention.norm")

    wide = dense(x, "inner", hidden, inner)
    erf = b.op("Erf", [b.op("Div", [wide, b.weight("root2", np.float32(2**0.5))], "gelu.scaled")], "gelu.erf")
    product = b.op("Mul", [wide, b.op("Add", [erf, b.weight("one", np.float32(1))], "gelu.sum")], "gelu.product")
    gelu = b.op("Mul", [product, b.weight("half", np.float32(0.5))], "gelu")
    norm(b.op("Add", [dense(gelu, "outer", inner, hidden), x], "outer.residual"), "y")

    shape = [1, tokens, hidden]
    model = b.model([("x", shape), ("mask", [1, 1, 1, tokens])], [("y", shape)])
    mask = np.zeros((1, 1, 1, tokens), np.float32)
    mask[..., tokens - 9 :] = -10000
    return model, {"x": b.random.standard_normal(shape).astype(np.float32), "mask": mask}


def resnet50(side=224):
    """ResNet-50 with batch norms in inference form."""
    b = Builder(2)

    def conv(x, name, before, after, kernel, stride=1, relu=True):
        weight = b.normal(f"{name}.weight", (after, before, kernel, kernel), (2 / (before * kernel * kernel)) ** 0.5)
        pad = kernel // 2
        x = b.op("Conv", [x, weight], f"{name}.conv", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
        # The last norm of a block has a small gain, as training leaves it; otherwise values grow block by block.
        high = 1.0 if relu else 0.4
        norm = [
            b.uniform(f"{name}.gain", (after,), high / 2, high),
            b.normal(f"{name}.shift", (after,), 0.1),
            b.normal(f"{name}.mean", (after,), 0.1),
            b.uniform(f"{name}.variance", (after,), 0.5, 1.5),
        ]
        x = b.op("BatchNormalization", [x, *norm], f"{name}.norm", epsilon=1e-5)
        return b.op("Relu", [x], name) if relu else x

    x = conv("pixels", "stem", 3, 64, 7, 2)
    x = b.op("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            name = f"stage{stage}.block{block}"
            stride = 2 if stage and not block else 1
            branch = conv(x, f"{name}.reduce", channels, width, 1)
            branch = conv(branch, f"{name}.spatial", width, width, 3, stride)
            branch = conv(branch, f"{name}.expand", width, 4 * width, 1, relu=False)
            skip = x if block else conv(x, f"{name}.skip", channels, 4 * width, 1, stride, relu=False)
            x = b.op("Relu", [b.op("Add", [branch, skip], f"{name}.sum")], name)
            channels = 4 * width
    x = b.op("Flatten", [b.op("GlobalAveragePool", [x], "pool")], "features", axis=1)
    classes = [b.normal("classes.weight", (1000, channels), 0.02), b.normal("classes.bias", (1000,), 0.02)]
    b.op("Gemm", [x, *classes], "logits", transB=1)
    shape = [1, 3, side, side]
    model = b.model([("pixels", shape)], [("logits", [1, 1000])])
    return model, {"pixels": b.random.standard_normal(shape).astype(np.float32)}


def optimise(source, target):
    """What ONNX Runtime makes of a model with its basic optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def make(folder):
    """Writes the models that are not there yet, and returns their folders."""
    made = []
    for name, build in (("bert-base-layer", bert_layer), ("resnet50", resnet50)):
        place = Path(folder) / name
        made.append(place)
        if (place / "b.onnx").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        model, inputs = build()
        onnx.save(model, place / "a.onnx")
        np.savez(place / "inputs.npz", **inputs)
        optimise(place / "a.onnx", place / "b.onnx")
    return made


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for place in make(sys.argv[1]):
        print(place)
