"""Models that ONNX Runtime writes itself, run by it again."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
import isotrace  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "weights apart"])
def test_names_that_the_optimiser_wants_for_itself_are_given_up(tmp_path, apart):
    """Of a product of three dimensions and a sum the optimiser makes a Gemm between two Reshapes, whose shapes it calls
    by names that a model which it wrote before has already."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((32, 16), dtype=np.float32), "b": rng.standard_normal(16, dtype=np.float32)}

    def model(path, shape, apart):
        nodes = [("Reshape", ["given", shape], "x"), ("MatMul", ["x", "w"], "m"), ("Add", ["m", "b"], "s"), ("Relu", ["s"], "y")]
        constants = {**weights, shape: np.array([2, 3, 32])}
        graph = helper.make_graph(
            [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes],
            "product",
            [helper.make_tensor_value_info("given", TensorProto.FLOAT, [192])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 16])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        path.parent.mkdir()
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(made, path, save_as_external_data=apart, location="weights.data", size_threshold=1024)
        return path

    plain = model(tmp_path / "plain" / "model.onnx", "shape", apart)
    taken = model(tmp_path / "taken" / "model.onnx", "gemm_input_shape", apart)
    assert (taken.parent / "weights.data").exists() == apart
    onnxruntime.InferenceSession(str(plain), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="replace the existing tensor"):
        onnxruntime.InferenceSession(str(taken), providers=["CPUExecutionProvider"])
    report = isotrace.diff(plain, taken, backend_b="onnxruntime", optimisation_b="all")
    assert report.verdict in ("equivalent", "identical"), str(report)
