"""Recordings of modules alone as a side of `diff`: what can be said without a graph, and that no more is said."""

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
import models  # noqa: E402

import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("modules")


def record(work, tag, *, level="modules", keeps="data", dtype=None, **settings):
    path = work / f"{tag}-{level}-{keeps}"
    if not path.exists():
        model = models.make("bert", **settings).to(dtype or torch.float32)
        with torch.no_grad(), isotrace.torch.record(model, path, level=level, keeps=keeps):
            model(**models.inputs("bert"))
    return path


@pytest.fixture(scope="module")
def exported(work):
    path = work / "bert.onnx"
    inputs = models.inputs("bert")
    torch.onnx.export(models.make("bert"), (), str(path), kwargs=inputs, input_names=list(inputs), dynamo=True, verbose=False)
    return path


@pytest.mark.parametrize("backend", ["embedded", "onnxruntime"])
def test_modules_are_held_against_a_graph(work, exported, backend):
    trace = record(work, "right")
    for report in (isotrace.diff(trace, exported, backend_b=backend), isotrace.diff(exported, trace, backend_a=backend)):
        assert report.verdict == "equivalent", str(report)
        assert "modules alone were recorded" in report.reason and "weaker evidence" in report.reason
        outputs = [p for p in report.pairs if getattr(p, "role", None) == "output"]
        assert outputs and all(p.a and p.b and 0 < p.rel_l2 < 1e-5 for p in outputs)
        assert sum(bool(p.a and p.b) for p in report.pairs) > 25


def test_recordings_of_the_same_are_identical_and_of_operators_are_a_graph(work):
    again = record(work, "again")
    assert isotrace.diff(record(work, "right"), again).verdict == "identical"
    assert isotrace.diff(record(work, "right"), record(work, "right", level="operators")).verdict in ("identical", "equivalent")


@pytest.mark.parametrize("other", ["modules", "graph"])
def test_the_first_module_that_parts_is_named(work, exported, other):
    wrong = record(work, "tanh", gelu="tanh")
    report = isotrace.diff(wrong, exported if other == "graph" else record(work, "right"))
    assert report.verdict == "divergent", str(report)
    (culprit,) = report.culprits
    assert culprit.a.nodes == ["layers.0.act"] and "layers.0.act" in report.reason, str(report)


def test_half_precision_is_near_enough(work):
    report = isotrace.diff(record(work, "right"), record(work, "half", dtype=torch.bfloat16))
    assert report.verdict == "equivalent", str(report)


def test_digests_say_whether_bits_are_equal(work, exported):
    right = record(work, "right", keeps="digest")
    assert isotrace.diff(right, record(work, "again", keeps="digest")).verdict == "identical"
    assert isotrace.diff(right, record(work, "right")).verdict == "identical"
    report = isotrace.diff(right, record(work, "tanh", keeps="digest", gelu="tanh"))
    assert report.verdict == "inconclusive" and "digests" in report.reason, str(report)
    assert "layers.0.act" in report.reason
    assert not report.culprits
    with pytest.raises(isotrace.IsotraceError, match="keeps"):
        isotrace.diff(right, exported)


def test_nothing_is_run_where_there_is_no_graph(work):
    with pytest.raises(isotrace.IsotraceError, match="operators"):
        isotrace.run(str(record(work, "right")))


def test_models_in_memory_are_run_by_onnx_runtime(exported):
    model = onnx.load(exported)
    report = isotrace.diff(model, model, inputs={k: v.numpy() for k, v in models.inputs("bert").items()}, backend="onnxruntime")
    assert report.verdict == "identical", str(report)
    report = isotrace.diff(model.SerializeToString(), exported, backend_a="onnxruntime",
                           inputs={k: v.numpy() for k, v in models.inputs("bert").items()})  # fmt: skip
    assert report.verdict == "equivalent", str(report)
