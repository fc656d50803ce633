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


def record(work, tag, *, network="bert", level="modules", keeps="data", dtype=None, sharp=False, **settings):
    path = work / f"{network}-{tag}-{level}-{keeps}"
    if not path.exists():
        model = models.make(network, **settings)
        if sharp:
            models.sharpen(model)
        model.to(dtype or torch.float32)
        # Numbers that every type holds, so that all are given the same.
        exact = {k: t.mul(8).round().div(8) if t.is_floating_point() else t for k, t in models.inputs(network).items()}
        inputs = {k: t.to(dtype) if dtype and t.is_floating_point() else t for k, t in exact.items()}
        with torch.no_grad(), isotrace.torch.record(model, path, level=level, keeps=keeps):
            model(**inputs)
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
        assert "outputs of modules alone were recorded" in report.reason and "weaker evidence" in report.reason
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


@pytest.mark.parametrize("network", ["bert", "llama", "vit", "resnet"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_are_near_enough(work, network, dtype):
    other = record(work, str(dtype), network=network, dtype=dtype)
    for level in ("modules", "operators"):
        report = isotrace.diff(other, record(work, "right", network=network, level=level))
        assert report.verdict == "equivalent", str(report)


@pytest.mark.parametrize("other", ["modules", "operators"])
@pytest.mark.parametrize("fault", models.FAULTS, ids=lambda f: f"{f.network}-{f.name}")
def test_planted_faults_are_found_between_modules(work, fault, other):
    network = fault.network
    wrong = record(work, fault.name, network=network, **fault.settings)
    report = isotrace.diff(wrong, record(work, "right", network=network, level=other))
    assert report.verdict == "divergent", str(report)
    # BERT makes its mask outside of every module.
    if other == "modules" and (network, fault.name) != ("bert", "mask"):
        assert fault.module in report.culprits[0].a.nodes[0], str(report)


def test_one_operator_given_the_same_bits_is_held_to_its_own_rounding(work):
    """As far as rounding brings whole networks, and far beyond what a single normalisation does."""
    wrong = record(work, "epsilon", network="bert", eps=1e-5)
    report = isotrace.diff(wrong, record(work, "right", network="bert"))
    assert "that both sides gave the same bits" in report.reason and len(report.culprits) == 1, str(report)
    culprit = next(p for p in report.pairs if p.status == "culprit")
    assert "its 2 parameters and buffers are the same on both sides" in report.culprits[0].cause.evidence, str(report)
    assert culprit.a.endswith("norm") and 128 * 2.0**-24 < culprit.rel_l2 < 1024 * 2.0**-24, culprit
    # Attention in parts rounds elsewhere; nothing after it is given the same bits.
    report = isotrace.diff(record(work, "parts", network="bert", fused=False), record(work, "right", network="bert"))
    assert report.verdict == "equivalent", str(report)


def test_parameters_that_differ_are_told(work):
    lacks = isotrace.diff(record(work, "bias", network="bert", bias=False), record(work, "right", network="bert"))
    assert "layers.0.up.bias is there in B alone" in lacks.culprits[0].cause.evidence, str(lacks)
    model = models.make("bert")
    with torch.no_grad():
        model.layers[0].down.weight[0] *= 1.5
        with isotrace.torch.record(model, work / "weight", level="modules"):
            model(**models.inputs("bert"))
    other = work / "weight-right"
    with torch.no_grad(), isotrace.torch.record(models.make("bert"), other, level="modules") as recording:
        recording.model(**models.inputs("bert"))
    report = isotrace.diff(other, work / "weight")
    told = report.culprits[0].cause.evidence
    assert report.culprits[0].a.nodes == ["layers.0.down"] and told[0].startswith("layers.0.down.weight differs by"), told


def test_what_may_be_rounding_or_a_fault_is_left_open(work):
    """Rounding of bfloat16 goes far where attention is sharp; so do small faults."""
    right = record(work, "sharp", network="vit", sharp=True)
    half = record(work, "sharp-half", network="vit", sharp=True, dtype=torch.bfloat16)
    report = isotrace.diff(right, half)
    assert report.verdict == "inconclusive" and not report.culprits, str(report)
    assert "record operators" in report.reason
    # How far its own run is from float64 tells more.
    report = isotrace.diff(half, record(work, "sharp", network="vit", sharp=True, level="operators"))
    assert report.verdict == "equivalent", str(report)


def test_digests_say_whether_bits_are_equal(work, exported):
    right = record(work, "right", keeps="digest")
    assert isotrace.diff(right, record(work, "again", keeps="digest")).verdict == "identical"
    assert isotrace.diff(right, record(work, "right")).verdict == "identical"
    report = isotrace.diff(right, record(work, "f64", keeps="digest", dtype=torch.float64))
    assert report.verdict == "inconclusive" and "digests" in report.reason, str(report)
    assert not report.culprits


@pytest.mark.parametrize("name", ["bias", "scale"])
def test_statistics_of_digests_part_values(work, name):
    """Values whose means and deviations are far apart cannot be near to each other."""
    fault = next(f for f in models.FAULTS if (f.network, f.name) == ("bert", name))
    report = isotrace.diff(record(work, "right", keeps="digest"), record(work, name, keeps="digest", **fault.settings))
    assert report.verdict == "divergent", str(report)
    assert fault.module in report.culprits[0].a.nodes[0], str(report)


def test_digests_and_graphs_are_not_held_together(work, exported):
    right = record(work, "right", keeps="digest")
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


class Pair(torch.nn.Module):
    """Inputs of one kind in a list, and outputs of one shape that are not given in the order in which they are computed."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)

    def forward(self, *both):
        x, y = both
        late = self.b(torch.relu(self.a(x) + y))
        early = x.cumsum(1) @ x.mT + y.mean()
        return late @ late.mT, early


@pytest.mark.parametrize("level", ["modules", "operators"])
def test_lists_of_inputs_and_outputs_of_one_shape_are_told_apart(tmp_path, level):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model, inputs = Pair().eval(), (torch.randn(4, 6), torch.randn(4, 6))
    torch.onnx.export(model, inputs, str(tmp_path / "net.onnx"), dynamo=True, verbose=False)
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "right", level=level):
        model(*inputs)
    report = isotrace.diff(tmp_path / "right", tmp_path / "net.onnx")
    assert report.verdict in ("equivalent", "identical"), str(report)
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "wrong", level=level):
        model(*inputs[::-1])
    bound = {p.a: p.b for p in isotrace.diff(tmp_path / "wrong", tmp_path / "net.onnx").pairs if p.a and p.a.startswith("both")}
    assert bound == {"both.0": "both_0", "both.1": "both_1"}
