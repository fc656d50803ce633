"""Recordings with calls of operators that isotrace does not know: taken as they were recorded, and no proof of anything.

They differ where they gave other numbers on the same bits. What only runs through them is neither rounding nor a fault.
"""

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]
FACTOR = {"now": 1.5}


@torch.library.custom_op("isotrace_tests::stretch", mutates_args=())
def stretch(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(FACTOR["now"] * x)


class Network(nn.Module):
    def __init__(self, own=True):
        super().__init__()
        self.a, self.b, self.own = nn.Linear(16, 16), nn.Linear(16, 8), own

    def middle(self, x):
        return torch.ops.isotrace_tests.stretch(x) if self.own else torch.sin(FACTOR["now"] * x)

    def forward(self, x):
        return self.b(torch.tanh(self.middle(self.a(x))))


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setitem(FACTOR, "now", 1.5)
    torch.manual_seed(1)
    return Network().eval()


def record(path, model, seed=5):
    torch.manual_seed(seed)
    x = torch.randn(4, 16)
    with torch.no_grad(), isotrace.torch.record(model, path):
        model(x.to(model.b.weight.dtype))
    return path


def not_judged(report):
    return [w for w in report.warnings if "does not know" in w.summary]


def test_a_call_that_gives_other_numbers_on_the_same_bits_is_a_culprit(tmp_path, network):
    a = record(tmp_path / "a", network)
    FACTOR["now"] = 1.6
    report = isotrace.diff(a, record(tmp_path / "b", network))
    assert report.verdict == "divergent", str(report)
    (only,) = report.culprits
    assert (only.a.nodes, only.b.nodes) == (["stretch"], ["stretch"])
    assert only.cause["class"] == "unknown" and "on the same inputs, bit by bit" in only.cause["summary"]


def test_the_same_call_is_equal_and_not_judged(tmp_path, network):
    report = isotrace.diff(record(tmp_path / "a", network), record(tmp_path / "b", network))
    assert report.verdict == "identical", str(report)
    assert len(not_judged(report)) == 2


@pytest.mark.parametrize("layer", ["a", "b"])
def test_a_fault_beside_the_call_is_named(tmp_path, network, layer):
    a = record(tmp_path / "a", network)
    wrong = copy.deepcopy(network)
    getattr(wrong, layer).bias.data[2] += 0.3
    report = isotrace.diff(a, record(tmp_path / "b", wrong))
    assert report.verdict == "divergent", str(report)
    assert [(c.cause["class"], c.b.nodes) for c in report.culprits] == [("bias", [f"{layer}/addmm"])], str(report)


def test_the_call_written_out_is_judged_by_what_it_gave(tmp_path, network):
    plain = Network(own=False).eval()
    plain.load_state_dict(network.state_dict())
    a, b = record(tmp_path / "a", network), record(tmp_path / "b", plain)
    assert isotrace.diff(a, b).verdict in ("identical", "equivalent")
    FACTOR["now"] = 1.6
    other = record(tmp_path / "other", plain)
    for one, two in ((a, other), (other, a)):
        report = isotrace.diff(one, two)
        assert report.verdict == "inconclusive", str(report)
        assert "isotrace_tests.stretch" in report.reason and "does not know" in report.reason
        assert not report.culprits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_the_call_in_half_precision(tmp_path, network, dtype):
    rounded = copy.deepcopy(network).to(dtype)
    report = isotrace.diff(record_rounded(tmp_path / "a", network, dtype), record(tmp_path / "b", rounded))
    assert report.verdict == "equivalent", str(report)
    assert not_judged(report)


def record_rounded(path, model, dtype):
    torch.manual_seed(5)
    x = torch.randn(4, 16).to(dtype).float()
    with torch.no_grad(), isotrace.torch.record(model, path):
        model(x)
    return path


class Spectral(nn.Module):
    """Complex numbers: no element of them is kept, nor of the views that were taken of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(9, 4)

    def forward(self, x):
        f = torch.fft.rfft(torch.tanh(self.a(x)))
        return self.b(torch.log1p(f.abs())) + f.real.mean() + torch.view_as_real(f).mean()


@pytest.mark.parametrize("run", [{}, {"backend_b": "onnxruntime"}], ids=["embedded", "onnxruntime"])
def test_what_was_made_of_numbers_that_nobody_kept_is_no_constant(tmp_path, run):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model, x = Spectral().eval(), torch.randn(2, 16)
    torch.onnx.export(model, (x,), str(tmp_path / "net.onnx"), dynamo=True, verbose=False)
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "a"):
        model(x)
    report = isotrace.diff(tmp_path / "a", tmp_path / "net.onnx", **run)
    assert report.verdict == "equivalent", str(report)
    assert not_judged(report)
    wrong = copy.deepcopy(model)
    wrong.b.bias.data.zero_()
    with torch.no_grad(), isotrace.torch.record(wrong, tmp_path / "wrong"):
        wrong(x)
    report = isotrace.diff(tmp_path / "wrong", tmp_path / "net.onnx", **run)
    assert [c.cause["class"] for c in report.culprits] == ["bias"], str(report)
