"""A network of the scikit-learn kind written without any exporter, in two styles: Gemm, and MatMul followed by Add."""
import numpy as np
import onnx
from onnx import helper, numpy_helper


def mlp(rng):
    """Returns ({style: model}, inputs): scaler, three layers, class probabilities, label and score."""
    sizes = [12, 40, 40, 24, 6]
    layers = [((rng.standard_normal((m, n)) * 1.4 / m ** 0.5).astype("float32"), (rng.standard_normal(n) * 0.3).astype("float32")) for m, n in zip(sizes, sizes[1:])]
    mean, scale = rng.standard_normal(12).astype("float32"), (np.abs(rng.standard_normal(12)) + 0.5).astype("float32")
    models = {style: _build(style, layers, mean, scale) for style in ("gemm", "matmul")}
    return models, {"x": (rng.standard_normal((24, 12)) * scale * 1.1 + mean).astype("float32")}


def _build(style, layers, mean, scale):
    nodes, weights = [], {"offset": mean, "scale": scale}
    nodes += [helper.make_node("Sub", ["x", "offset"], ["centred"], "centre"), helper.make_node("Div", ["centred", "scale"], ["standard"], "standardise")]
    value = "standard"
    for i, (w, b) in enumerate(layers):
        last = i == len(layers) - 1
        out = f"layer{i}"
        weights[f"b{i}"] = b
        if style == "gemm":
            weights[f"w{i}"] = np.ascontiguousarray(w.T)
            nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [out], f"gemm{i}", transB=1))
        else:
            weights[f"w{i}"] = w
            nodes += [helper.make_node("MatMul", [value, f"w{i}"], [f"product{i}"], f"matmul{i}"), helper.make_node("Add", [f"product{i}", f"b{i}"], [out], f"add{i}")]
        value = out
        if not last:
            act = ("Tanh", "Relu", "Selu")[i]
            nodes.append(helper.make_node(act, [value], [f"hidden{i}"], f"activate{i}"))
            if i == 1:  # a skip over the square layer
                nodes.append(helper.make_node("Add", [f"hidden{i}", f"hidden{i - 1}"], [f"joined{i}"], f"join{i}"))
            value = f"joined{i}" if i == 1 else f"hidden{i}"
    weights["classes"] = np.array([3, 5, 7, 11, 13, 17], dtype=np.int64)
    nodes += [helper.make_node("Softmax", [value], ["probabilities"], "softmax", axis=-1),
              helper.make_node("ArgMax", [value], ["best"], "argmax", axis=-1, keepdims=0),
              helper.make_node("Gather", ["classes", "best"], ["label"], "label_of", axis=0),
              helper.make_node("ReduceLogSumExp", [value], ["score"], "log_sum", axes=[1], keepdims=0)]
    graph = helper.make_graph(nodes, f"mlp_{style}", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 12])],
                              [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["n", 6]), helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["n"]),
                               helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["n"])],
                              [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


BUILDERS = {"mlp": mlp}
