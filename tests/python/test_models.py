"""Whole networks in PyTorch against their own ONNX exports, run by isotrace's evaluator and by ONNX Runtime.

Nothing is told about what belongs to what: pairs are found by what values hold.
"""

import json
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
import models  # noqa: E402

import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]

NETWORKS = list(models.CLASSES)
RUNS = {
    "embedded": {},
    "plain": {"backend_b": "onnxruntime", "optimisation_b": "disable"},
    "onnxruntime": {"backend_b": "onnxruntime"},
}
# What ONNX Runtime does not compute by itself once it has fused: the product before a tanh, and a sum before a
# normalisation of one of its rows.
FUSED = {"bert": ["pooler/addmm"], "vit": ["layers.1/add#145"]}


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def export(work, name, way):
    path = work / f"{name}-{way}.onnx"
    if not path.exists():
        inputs = models.inputs(name)
        more = {"dynamo": True, "external_data": False} if way == "dynamo" else {"dynamo": False, "opset_version": 17}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(models.make(name), (), str(path), kwargs=inputs, input_names=list(inputs), verbose=False, **more)
    return path


def record(work, name, tag="right", *, dtype=None, rounded=None, level="operators", **settings):
    path = work / f"{name}-{tag}-{level}"
    if not path.exists():
        model, inputs = models.make(name, **settings), models.inputs(name)
        for to in filter(None, (rounded, dtype)):
            inputs = {k: v.to(to).to(dtype or v.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        model = model.to(dtype or torch.float32)
        with torch.no_grad(), isotrace.torch.record(model, path, level=level):
            model(**inputs)
    return path


def unpaired(trace, report):
    """Outputs of modules, constant ones aside, that no value of the other side was paired with."""
    lines = [json.loads(line) for line in (trace / "trace.jsonl").read_text().splitlines()]
    names, taken = {}, set()
    for r in lines:
        if r["record"] == "value":
            # As traces are read: of values with one name all but the first are told apart by their numbers.
            names[r["id"]] = f"{r['name']}#{r['id']}" if r["name"] in taken else r["name"]
            taken.add(r["name"])
    listed = {p.a for p in report.pairs if p.a}
    paired = {p.a for p in report.pairs if p.a and p.b}
    given = {names[v] for r in lines if r["record"] == "call" for v in r["outputs"]}
    assert given & paired, "no output of a module is paired"
    return sorted((given & listed) - paired)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("way", ["dynamo", "script"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_its_export(work, name, way, run):
    trace = record(work, name)
    report = isotrace.diff(trace, export(work, name, way), **RUNS[run])
    assert report.verdict == "equivalent", str(report)
    assert not [w for w in report.warnings if "does not know" in w.summary], report.warnings
    left = unpaired(trace, report)
    if name == "resnet":
        # Exports fold batch norms into the convolutions before them, and nothing computes what those alone give.
        assert all("/convolution" in v or run == "onnxruntime" and "/native_batch_norm" in v for v in left), left
    else:
        assert left == (FUSED.get(name, []) if run == "onnxruntime" else [])


@pytest.mark.parametrize("fault", models.FAULTS, ids=lambda f: f"{f.network}-{f.name}")
@pytest.mark.parametrize("run", ["embedded", "onnxruntime"])
def test_a_planted_fault_is_named(work, fault, run):
    trace = record(work, fault.network, fault.name, **fault.settings)
    report = isotrace.diff(trace, export(work, fault.network, "dynamo"), **RUNS[run])
    assert report.verdict == "divergent", str(report)
    first = report.culprits[0]
    assert first.cause["class"] in fault.causes, str(report)
    proof = first.cause.counterfactual
    assert proof.after < proof.before / 100, str(report)
    # B alone may have what A lacks.
    assert not first.a.nodes or any(fault.module in node for node in first.a.nodes), first.a.nodes


HALVES = [(name, dtype) for name in NETWORKS for dtype in (torch.float16, torch.bfloat16)]


@pytest.mark.parametrize(("name", "dtype"), HALVES, ids=lambda x: str(x).removeprefix("torch."))
def test_half_precision_is_the_network_at_its_precision(work, name, dtype):
    short = {torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    whole = record(work, name, f"right-for-{short}", rounded=dtype)
    report = isotrace.diff(whole, record(work, name, short, dtype=dtype))
    assert report.verdict == "equivalent", str(report)
    # Weights rounded to a half are no other weights.
    assert not [w for w in report.warnings if w["class"] == "latent"], report.warnings
    assert f"in f32 (A) and {short} (B)" in report.reason
    # They do differ, and by what a half rounds to rather than a float.
    final = [p for p in report.pairs if getattr(p, "role", None) == "output"]
    assert final and all(p.dtype.b == short and p.rel_l2 > 2e-5 for p in final), [p.rel_l2 for p in final]
    assert all(p.budget.share <= 1 for p in report.pairs if p.budget)
    # Every operator was run in the half on A's values: what it may round there is in its budget.
    assert all(p.budget.allowed > 0 for p in final), [p.budget for p in final]
