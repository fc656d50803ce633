"""The Python package, installed: nothing here knows how it is built."""

import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import isotrace

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
A, B, INPUTS = (str(EXAMPLES / name) for name in ("bert_a.onnx", "bert_b.onnx", "inputs.npz"))


def network(*nodes, weights=(), x=(2, 4), dtype=TensorProto.FLOAT):
    """A model of `nodes` from x to y."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("x", dtype, x)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(w, name) for name, w in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_report_has_the_fields_of_the_json():
    report = isotrace.diff(A, B, INPUTS)
    assert not report and report.exit_code == 1
    assert report.schema == "isotrace.report/1" and report.verdict == "divergent"
    cause = report.culprits[0].cause
    assert cause["class"] == "scale" and cause.counterfactual.after < cause.counterfactual.before
    assert report.to_dict()["pairs"][0]["status"] == report.pairs[0].status
    assert str(report).startswith("divergent: ")
    assert report.reason in repr(report)


def test_inputs_are_mappings_files_or_made():
    given = dict(np.load(INPUTS))
    assert isotrace.diff(A, A, given).verdict == "identical"
    made = isotrace.diff(A, B, seed=3)
    assert made.seed == 3 and all(fed.made for fed in made.inputs)


def test_models_in_memory_are_models_too():
    double = network(helper.make_node("Add", ["x", "x"], ["y"]))
    twice = network(helper.make_node("Mul", ["x", "two"], ["y"]), weights=[("two", np.float32(2))])
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert isotrace.diff(double, twice.SerializeToString(), {"x": x})
    np.testing.assert_array_equal(isotrace.run(double, {"x": x})["y"], 2 * x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_go_in_and_out_as_they_are(dtype, shape):
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    model = network(
        helper.make_node("Identity", ["x"], ["y"]), x=shape, dtype=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    )
    y = isotrace.run(model, {"x": x})["y"]
    assert y.dtype == x.dtype and y.shape == x.shape
    np.testing.assert_array_equal(y, x)


def test_strided_and_swapped_arrays_mean_the_same():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for odd in (x.T, x[::2, 1::2], x[::-1], np.broadcast_to(x[:1], (4, 6)), x.astype(">f4")):
        assert isotrace.compare(odd, np.ascontiguousarray(odd).astype(np.float32)).identical


def test_what_is_computed_is_not_copied():
    model = network(helper.make_node("Identity", ["x"], ["y"]), x=(4096,))
    x = np.arange(4096, dtype=np.float32)
    y = isotrace.run(model, {"x": x})["y"]
    # The identity of what came in: the same memory, which nobody may write to through `y`.
    assert np.shares_memory(x, y) and not y.flags.writeable


def test_comparisons_follow_the_tool_they_are_like():
    x = np.array([1.0, np.nan, np.inf], np.float32)
    assert not isotrace.compare(x, x, like="numpy")
    assert isotrace.compare(x[:1], x[:1] + np.float32(1e-6))
    assert not isotrace.compare(x[:1], x[:1] + np.float32(1e-3))
    assert isotrace.compare(x[:1], x[:1] + np.float32(1e-3), atol=1e-2)
    both = isotrace.compare({"a": x[:1]}, {"a": x[:1]})
    assert both["a"].identical
    with pytest.raises(KeyError, match="only one side holds 'b'"):
        isotrace.compare({"a": x}, {"a": x, "b": x})
    with pytest.raises(ValueError, match="nothing to compare"):
        isotrace.compare({}, {})


def test_files_of_tensors_are_mappings(tmp_path):
    np.savez(tmp_path / "t.npz", a=np.eye(3), b=np.arange(4))
    trace = isotrace.Trace(tmp_path / "t.npz")
    assert sorted(trace) == ["a", "b"] and len(trace) == 2
    np.testing.assert_array_equal(trace["a"], np.eye(3))
    with pytest.raises(KeyError):
        trace["c"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: isotrace.diff("nowhere.onnx", A), "nowhere.onnx"),
        (lambda: isotrace.diff(b"no model", A), "."),
        (lambda: isotrace.run(A, {"ids": np.zeros(3)}), '"ids" is no input'),
        (lambda: isotrace.run(A, INPUTS, outputs=["nothing"]), '"nothing" is no value'),
        (lambda: isotrace.diff(A, B, INPUTS, allow=["f8"]), 'expected "f16" or "bf16"'),
        (lambda: isotrace.compare(np.zeros(2), np.zeros(3)), r"\[2\] and \[3\]"),
        (lambda: isotrace.compare(np.zeros(2), np.zeros(2), like="feel"), 'expected "torch"'),
        (lambda: isotrace.Trace("nowhere.npz"), "nowhere.npz"),
    ],
)
def test_errors_say_what_the_program_says(call, message):
    with pytest.raises(isotrace.IsotraceError, match=message):
        call()


def test_arrays_by_name_are_a_side_of_diff():
    rng = np.random.default_rng(0)
    a = {"x": rng.normal(size=(6, 50)).astype(np.float32), "y": np.ones(3)}
    assert isotrace.diff(a, a).verdict == "identical"
    assert isotrace.diff(a, {**a, "x": a["x"] * np.float32(1 + 1e-6)}).verdict == "equivalent"
    report = isotrace.diff(a, {**a, "x": a["x"] * np.float32(1.001)})
    assert report.verdict == "divergent" and "weaker" not in report.reason
    assert isotrace.diff(a, {"x": a["x"]}).verdict == "inconclusive", "an output has no partner"
    empty = isotrace.diff({}, {})
    assert empty.verdict == "invalid" and "digests" not in str(empty), "nothing was compared"
    # What was written for the time of the comparison is called what it is.
    assert report.a.source == report.b.source == "arrays" and "arrays alone were given of both" in report.reason
    assert tempfile.gettempdir() not in str(report) + report.to_json()
    outputs = isotrace.run(A, INPUTS)
    assert isotrace.diff(A, outputs, INPUTS).verdict in ("identical", "equivalent")


def test_a_diff_names_shapes_that_do_not_fit():
    h, y = np.zeros((4, 8), np.float32), np.ones((3, 5), np.float32)
    report = isotrace.diff({"h": h, "y": y}, {"h": h, "y": np.ones((3, 6), np.float32)})
    assert report.verdict == "divergent" and "y has shape [3, 5] in A and [3, 6] in B" in report.reason, str(report)
    report = isotrace.diff({"y": y}, {"y": y.astype(np.int64)})
    assert report.verdict == "divergent" and "y is f32 in A and i64 in B" in report.reason, str(report)


def test_traces_are_sides_of_diff(tmp_path):
    folder = isotrace._written({"x": np.eye(3)}, str(tmp_path / "t"))
    assert isotrace.diff(isotrace.Trace(folder), isotrace.Trace(folder)).verdict == "identical"


@pytest.mark.parametrize("call", [lambda: isotrace.diff(None, A), lambda: isotrace.diff(A, 3), lambda: isotrace.run([A])])
def test_what_is_no_model_is_told_what_is(call):
    with pytest.raises(TypeError, match="no kind of model; expected a path"):
        call()


def test_a_function_that_is_no_model_is_told_how_to_become_one():
    with pytest.raises(TypeError, match="record it with isotrace.torch.record"):
        isotrace.diff(len, A)


def test_reports_are_typed():
    from typing import get_type_hints

    report = isotrace.diff(A, A, INPUTS)
    declared = get_type_hints(isotrace.Report)
    always = {"schema", "verdict", "reason", "a", "b", "pairs", "culprits", "warnings", "exit_code"}
    assert always <= set(declared) and always <= set(report.__dict__)
    assert all(isinstance(getattr(report, name), kind) for name, kind in declared.items() if isinstance(kind, type))


@pytest.fixture
def ctrl_c():
    """What a shell starts in the background ignores Ctrl-C, and so does Python there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_honoured(ctrl_c):
    n = 256
    w = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32) / 16
    nodes = [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(4000)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    model = network(*nodes, weights=[("w", w)], x=(n, n))
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        isotrace.run(model, {"x": np.ones((n, n), np.float32)}, precision="f64")


def chain(length, n):
    """A model that takes its time: `length` products of n x n."""
    w = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32) / np.float32(n**0.5)
    nodes = [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(length)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    return network(*nodes, weights=[("w", w)], x=(n, n)), {"x": np.ones((n, n), np.float32)}


def test_ctrl_c_ends_a_comparison(ctrl_c):
    model, inputs = chain(4000, 256)
    other = helper.make_model(model.graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]) * 1.01, "w"))
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        isotrace.diff(model, other, inputs)


@pytest.mark.parametrize("call", ["run", "diff", "compare", "stats"])
def test_other_threads_go_on(call):
    model, inputs = chain(200, 256)
    x = np.ones(1 << 25, np.float32)
    calls = {
        "run": lambda: isotrace.run(model, inputs, precision="f64"),
        "diff": lambda: isotrace.diff(model, model, inputs),
        "compare": lambda: isotrace.compare(x, x),
        "stats": lambda: isotrace.stats(x),
    }
    started, ended = threading.Event(), threading.Event()

    def work():
        started.set()
        for _ in range(10):
            calls[call]()
        ended.set()

    # The interpreter hands its lock over every so often, here never; calls that kept it would all end before we get it
    # again.
    switch = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        worker = threading.Thread(target=work)
        worker.start()
        started.wait()
        assert not ended.is_set(), "the call kept the interpreter's lock until it was done"
    finally:
        sys.setswitchinterval(switch)
    worker.join()
    assert ended.is_set()


def test_stats_say_what_an_array_holds(tmp_path):
    x = np.array([[0.0, 1.0, np.nan], [np.inf, 3.0, 0.0]], np.float32)
    found = isotrace.stats(x, intervals=4)
    assert (found.elements, found.nan, found.inf, found.zeros) == (6, 1, 1, 2)
    assert (found.min, found.max, found.mean) == (0.0, 3.0, 1.0)
    assert found.shape == [2, 3] and found.dtype == "f32" and len(found.histogram) == 4
    np.savez(tmp_path / "t.npz", a=x, b=np.eye(3))
    both = isotrace.stats(tmp_path / "t.npz")
    assert set(both) == {"a", "b"} and both["a"].nan == 1 and both["b"].name == "b"
    assert isotrace.stats({"a": x})["a"] == isotrace.stats(tmp_path / "t.npz")["a"]


def test_stats_and_comparisons_are_typed():
    from typing import get_type_hints

    x = np.array([1e300, -1e300, np.nan])
    for found in (isotrace.stats(x), isotrace.compare(x, x)):
        assert set(get_type_hints(type(found))) == set(vars(found))
    assert isotrace.stats(x).std == np.inf and np.isnan(isotrace.stats(x).first[2])
    assert isotrace.stats(np.array([2**60 + 1])).first == [2**60 + 1]
    assert isotrace.stats(np.array([1 + 2j, np.inf], np.complex64)).first == [1 + 2j, complex(np.inf)]


def test_onnx_runtime_is_a_backend():
    pytest.importorskip("onnxruntime")
    report = isotrace.diff(A, A, INPUTS, backend_b="onnxruntime")
    assert report.verdict == "equivalent" and report.b.run.backend == "onnxruntime"
    plain = isotrace.diff(A, B, INPUTS, backend="onnxruntime", optimisation_a="disable", optimisation_b="disable")
    assert plain.verdict == "divergent" and plain.a.run.optimisation == "disable"
    with pytest.raises(isotrace.IsotraceError, match='expected one of "embedded", "onnxruntime"'):
        isotrace.diff(A, B, backend="tensorrt")


def test_the_program_comes_along():
    program = Path(sys.executable).with_name("isotrace")
    done = subprocess.run([program, "diff", A, B, "--inputs", INPUTS], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.startswith("divergent: ")
    module = subprocess.run([sys.executable, "-m", "isotrace", "--version"], capture_output=True, text=True)
    assert isotrace.__version__ in module.stdout


def test_assert_equivalent_says_why_not():
    isotrace.assert_equivalent(A, A, inputs=INPUTS)
    with pytest.raises(AssertionError, match="factor of 0.707107"):
        isotrace.assert_equivalent(B, A, inputs=INPUTS)
    x = np.ones((2, 3), np.float32)
    isotrace.assert_equivalent({"a": [x, x]}, {"a": [x, x]})
    with pytest.raises(AssertionError, match=r"\['a'\]\[1\]: 1 of 6 elements"):
        y = x.copy()
        y[1, 2] = 1.5
        isotrace.assert_equivalent({"a": [x, y]}, {"a": [x, x]})
    with pytest.raises(AssertionError, match="only actual holds"):
        isotrace.assert_equivalent([x, x], [x])


def test_the_fixture_is_the_function(assert_equivalent):
    assert assert_equivalent is isotrace.assert_equivalent
