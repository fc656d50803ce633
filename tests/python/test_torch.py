"""The recorder of PyTorch: what it keeps, and that it changes nothing. Real models with random weights, small."""

import contextlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402
from isotrace._arguments import tensors  # noqa: E402

pytestmark = pytest.mark.heavy


class Block(torch.nn.Module):
    """A little of everything: products, normalisation, attention, views, writes in place, tied weights."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(30, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.qkv = torch.nn.Linear(16, 48)
        self.out = torch.nn.Linear(16, 16)
        self.head = torch.nn.Linear(16, 30, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("shift", torch.linspace(0, 1, 16))

    def forward(self, ids, scale=None):
        x = self.embed(ids) + self.shift
        q, k, v = self.qkv(self.norm(x)).view(*ids.shape, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(x.shape))
        y[:, 0] *= 0.5
        z = torch.nn.functional.gelu(x + y)
        z[..., :4].add_(1.0)
        return {"logits": self.head(z), "hidden": [z, x.mT]}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Block().eval()


@pytest.fixture
def ids():
    return torch.arange(10).reshape(2, 5) * 3 % 30


def lines(folder):
    return [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]


def bits(value):
    return [t.detach().numpy().tobytes() for _, t in tensors(value)]


@pytest.mark.parametrize("level", ["modules", "operators"])
def test_a_recorded_run_is_the_same_run(tmp_path, model, ids, level):
    with torch.no_grad():
        plain = bits(model(ids))
        with isotrace.torch.record(model, tmp_path / "trace", level=level):
            assert bits(model(ids)) == plain
        assert bits(model(ids)) == plain
    trace = isotrace.Trace(tmp_path / "trace")
    assert not any(note.kind == "reader" and ("missing" in note.text or "finish" in note.text) for note in trace.notes)
    assert [(note.kind, note.where) for note in trace.notes if note.kind != "reader"] == [("tied", ("embed.weight", "head.weight"))]
    assert np.array_equal(trace["ids"], ids.numpy())
    # Hooks alone see one tensor that two modules give, under the name of the first.
    assert trace["logits" if level == "operators" else "head"].tobytes() == plain[0]
    calls = [r["module"] for r in lines(tmp_path / "trace") if r["record"] == "call"]
    assert calls == ["embed", "norm", "qkv", "out", "head", ""]


def test_flags_and_ties_are_kept(tmp_path, model, ids):
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "trace"):
        model(ids)
    header, *records = lines(tmp_path / "trace")
    assert header["flags"]["training"] is False and header["flags"]["autocast"] == "off"
    assert header["versions"]["torch"] == torch.__version__
    tied = [r for r in records if r["record"] == "note" and r["class"] == "tied"]
    assert tied[0]["where"] == ["embed.weight", "head.weight"]
    parameters = [r["name"] for r in records if r["record"] == "value" and r["role"] == "parameter"]
    assert len(parameters) == len(set(parameters)) == 7, "a tied weight is one value"


def test_a_training_step_is_the_same_step(tmp_path, ids):
    def train(folder=None):
        torch.manual_seed(0)
        model = Block()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        with contextlib.ExitStack() as stack:
            recording = folder and stack.enter_context(isotrace.torch.record(model, folder))
            for _ in range(2):
                with recording.step() if recording else contextlib.nullcontext():
                    optimizer.zero_grad()
                    logits = model(ids)["logits"]
                    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
                    optimizer.step()
        return bits(list(model.parameters()))

    assert train(tmp_path / "trace") == train()
    trace = isotrace.Trace(tmp_path / "trace")
    assert {"out.weight.grad@0", "out.weight.grad@1", "logits@0", "logits@1", "norm.grad@0"} <= set(trace)
    assert np.abs(trace["out.weight.grad@0"]).max() > 0


def test_a_recording_agrees_with_itself(tmp_path, model, ids):
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "trace"):
        model(ids)
    report = isotrace.diff(tmp_path / "trace", tmp_path / "trace")
    assert report.verdict in ("identical", "equivalent"), str(report)
    assert report.a.kind == "trace"
    assert not [w for w in report.warnings if "does not know" in w.summary], report.warnings


def test_a_planted_fault_is_found(tmp_path, model, ids):
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "a"):
        model(ids)
    model.norm.eps = 1e-2
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "b"):
        model(ids)
    report = isotrace.diff(tmp_path / "a", tmp_path / "b")
    assert report.verdict == "divergent"
    assert report.culprits[0].cause["class"] == "epsilon", str(report)
    assert report.culprits[0].b.ops == ["LayerNormalization"]


def test_inputs_that_share_memory_are_kept_each(tmp_path, ids):
    class Sum(torch.nn.Module):
        def forward(self, x, y, z):
            return x * y + z

    both = torch.randn(2, 4, 3)
    z = both[1].T.reshape(4, 3)
    model = Sum()
    with torch.no_grad(), isotrace.torch.record(model, tmp_path / "trace"):
        expected = model(both[0], both[1], z)
    trace = isotrace.Trace(tmp_path / "trace")
    for name, t in (("x", both[0]), ("y", both[1]), ("z", z), ("output", expected)):
        assert np.array_equal(trace[name], t.numpy()), name
    assert isotrace.diff(tmp_path / "trace", tmp_path / "trace").verdict == "identical"


def test_two_recordings_at_once_do_not_see_each_other(tmp_path):
    """What one recorder does to keep a strided tensor is no part of what the other records."""

    class Strided(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)

        def forward(self, x):
            y = self.linear(x)
            y[:, 0].mul_(2)
            return y.t()

    model, x = Strided(), torch.randn(2, 3)
    with isotrace.torch.record(model, tmp_path / "outer"), isotrace.torch.record(model, tmp_path / "inner"):
        model(x)
    with isotrace.torch.record(model, tmp_path / "alone"):
        model(x)
    for name in ("outer", "inner"):
        report = isotrace.diff(tmp_path / name, tmp_path / "alone")
        assert report.verdict == "identical" and report.a.nodes == report.b.nodes, str(report)


def test_what_is_no_module_is_refused(tmp_path):
    with pytest.raises(TypeError, match="expected a torch.nn.Module"):
        isotrace.torch.record(torch.relu, tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("level", ["modules", "operators"])
def test_what_a_recorder_noted_is_told(tmp_path, model, ids, level):
    whole, early, never = (tmp_path / name for name in ("whole", "early", "never"))
    with torch.no_grad():
        with isotrace.torch.record(model, whole, level=level):
            model(ids)
        with pytest.raises(KeyboardInterrupt), isotrace.torch.record(model, early, level=level):
            model(ids)
            raise KeyboardInterrupt
    with isotrace.torch.record(model, never, level=level):
        pass

    def noted(folder):
        return {note.kind: note.text for note in isotrace.Trace(folder).notes}

    assert "interrupted" not in noted(whole) and "uncalled" not in noted(whole)
    assert noted(early)["interrupted"] == "an error ended the recording early: KeyboardInterrupt"
    assert "was not called" in noted(never)["uncalled"]
    with pytest.raises(IndexError), isotrace.torch.record(model, tmp_path / "failed", level=level):
        model(ids + 100)
    assert "IndexError" in noted(tmp_path / "failed")["interrupted"] and "uncalled" not in noted(tmp_path / "failed")
    # What there is agrees, and the report says that it is not all.
    report = isotrace.diff(whole, early)
    assert report.verdict == "identical", str(report)
    told = [w.summary for w in report.warnings if w["class"] == "recording"]
    assert len(told) == 1 and str(early) in told[0] and "KeyboardInterrupt" in told[0], report.warnings
    with pytest.raises(isotrace.IsotraceError, match="was not called"):
        isotrace.diff(whole, never)


@pytest.mark.parametrize("keeps", ["data", "digest"])
def test_modules_come_with_their_parameters(tmp_path, model, ids, keeps):
    names = {}
    for parameters in (True, False):
        folder = tmp_path / str(parameters)
        with torch.no_grad(), isotrace.torch.record(model, folder, level="modules", keeps=keeps, parameters=parameters):
            model(ids)
        names[parameters] = [(r["name"], r["role"]) for r in lines(folder) if r["record"] == "value"]
    # What is tied has one name.
    held = [(name, "parameter") for name, _ in model.named_parameters()] + [("shift", "buffer")]
    assert sorted(names[True]) == sorted(names[False] + held)
    if keeps == "data":
        trace = isotrace.Trace(tmp_path / "True")
        assert all(np.array_equal(trace[name], t.detach().numpy()) for name, t in model.named_parameters())
        return
    # What is remembered of parameters is not what they were before.
    with torch.no_grad():
        model.out.weight[0, 0] += 1
        with isotrace.torch.record(model, tmp_path / "changed", level="modules", keeps=keeps):
            model(ids)
    before, after = (
        {r["name"]: r["digest"]["hash"] for r in lines(tmp_path / name) if r.get("role") in ("parameter", "buffer")}
        for name in ("True", "changed")
    )
    assert {name for name in before if before[name] != after[name]} == {"out.weight"}


def test_digests_do_not_depend_on_who_computes_them(tmp_path):
    # Large enough to be shared: by the threads of PyTorch's kernels where digests alone are kept, else by our own.
    model, x = torch.nn.Sequential(torch.nn.Linear(64, 900), torch.nn.GELU(approximate="none")), torch.randn(700, 64)
    digests, before = {}, torch.get_num_threads()
    for keeps, threads in (("both", before), ("digest", 1), ("digest", 3)):
        folder = tmp_path / f"{keeps} {threads}"
        torch.set_num_threads(threads)
        try:
            with torch.no_grad(), isotrace.torch.record(model, folder, level="modules", keeps=keeps):
                # By one thread always: another split of a product's sum would give other bits.
                torch.set_num_threads(1)
                hidden = model[0](x)
                torch.set_num_threads(threads)
                model[1](hidden)
        finally:
            torch.set_num_threads(before)
        digests[folder.name] = [r["digest"] for r in lines(folder) if r["record"] == "value"]
    one, two, three = digests.values()
    assert len(one) == 5 and one == two == three


def test_a_model_without_shapes_is_refused_before_anything_is_written(tmp_path):
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(3))
    with pytest.raises(ValueError, match="0.weight has no shape before the model's first call"):
        isotrace.torch.record(lazy, tmp_path / "trace")
    lazy(torch.ones(2, 4))
    with isotrace.torch.record(lazy, tmp_path / "trace"):
        lazy(torch.ones(2, 4))
    assert isotrace.Trace(tmp_path / "trace")["0.weight"].shape == (3, 4)
