"""Steps of training, recorded whole: a small Llama, eager against compiled, float32 against float64, with a fault in a
backward formula; and that recording changes nothing."""

import contextlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

F = torch.nn.functional
pytestmark = pytest.mark.heavy


class Norm(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotated(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Attention(torch.nn.Module):
    """Four heads of queries share two of keys and values."""

    def __init__(self, width, heads=4, shared=2):
        super().__init__()
        self.heads, self.shared, self.each = heads, shared, width // heads
        self.q, self.o = (torch.nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (torch.nn.Linear(width, shared * self.each, bias=False) for _ in range(2))

    def forward(self, x, cos, sin):
        n, length, width = x.shape
        q, k, v = (f(x).view(n, length, -1, self.each).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.shared, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(n, length, width))


class MLP(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate, self.up = (torch.nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(2 * width, width, bias=False)
        self.act = F.silu

    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


class Layer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.n1, self.attention, self.n2, self.mlp = Norm(width), Attention(width), Norm(width), MLP(width)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.n1(x), cos, sin)
        return x + self.mlp(self.n2(x))


class Llama(torch.nn.Module):
    def __init__(self, vocabulary=50, width=32, layers=2):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, width)
        self.layers = torch.nn.ModuleList([Layer(width) for _ in range(layers)])
        self.norm, self.head = Norm(width), torch.nn.Linear(width, vocabulary, bias=False)
        angles = torch.outer(torch.arange(64).double(), 1e4 ** -(torch.arange(0, 8, 2).double() / 8)).repeat(1, 2)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def forward(self, ids, labels):
        x, length = self.embed(ids), ids.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        logits = self.head(self.norm(x))
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def adamw(parameters, **more):
    return torch.optim.AdamW(parameters, lr=1e-3, **more)


def trained(folder=None, *, model=Llama, dtype=torch.float32, edit=None, wrap=lambda m: m, optimizer=adamw, steps=1,
            level="operators"):  # fmt: skip
    """Parameters, gradients and losses after some steps; recorded where there is a folder."""
    torch.manual_seed(0)
    model = model().to(dtype)
    if edit:
        edit(model)
    ids, labels = torch.randint(0, 50, (2, 2, 12))
    called, optimizer = wrap(model), optimizer(model.parameters())
    seen = []
    with contextlib.ExitStack() as stack:
        recording = folder and stack.enter_context(isotrace.torch.record(called, folder, level=level))
        for _ in range(steps):
            with recording.step() if recording and steps > 1 else contextlib.nullcontext():
                optimizer.zero_grad()
                out = called(ids, labels)
                out["loss"].backward()
                optimizer.step()
                seen += [out["loss"].detach().clone(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    return [t.detach().numpy().tobytes() for t in [*seen, *model.parameters(), *model.buffers()]]


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eager") / "trace"
    trained(folder)
    return folder


def unknown(report):
    return [w.where for w in report.warnings if "does not know" in w.summary]


def test_float32_and_float64_train_alike(tmp_path, eager):
    trained(tmp_path / "b", dtype=torch.float64)
    report = isotrace.diff(eager, tmp_path / "b")
    assert report.verdict == "equivalent", str(report)
    assert not unknown(report)
    outputs = {p.a: p for p in report.pairs if p.__dict__.get("role") == "output"}
    assert {"loss", "logits", "embed.weight.grad", "head.weight.updated"} <= set(outputs)
    assert all(p.b == p.a and p.status in ("inherited", "rounding", "identical") for p in outputs.values())
    # Every operator of one side has its counterpart.
    alone = [p for p in report.pairs if p.status == "unmatched"]
    assert len(alone) < len(report.pairs) / 50, [p.a or p.b for p in alone]


def test_eager_and_compiled_train_alike(tmp_path, eager):
    torch.compiler.reset()
    trained(tmp_path / "b", wrap=lambda m: torch.compile(m, backend="aot_eager"))
    # What was recorded is what the compiler made, not the eager model: it hands sums and views on otherwise.
    count = [sum(r["record"] == "node" for r in lines(folder)) for folder in (eager, tmp_path / "b")]
    assert count[0] != count[1]
    report = isotrace.diff(eager, tmp_path / "b")
    assert report.verdict in ("identical", "equivalent"), str(report)
    assert not unknown(report)


@pytest.mark.usefixtures("inductor")
def test_what_inductor_compiles_is_recorded_by_its_graph(tmp_path, eager):
    """Its kernels store little of what they compute: what lies between is recorded from their graph."""
    made = {"wrap": lambda m: torch.compile(m, backend="inductor"), "optimizer": adamw}
    recorded = trained(tmp_path / "b", **made)
    assert recorded == trained(**made), "compiled anew, it is bit for bit what was recorded"
    inside = [r for r in lines(tmp_path / "b") if "compiled kernel" in r.get("omitted", "")]
    assert len(inside) > 100
    report = isotrace.diff(eager, tmp_path / "b")
    assert report.verdict == "equivalent", str(report)
    assert not unknown(report), unknown(report)
    outputs = {p.a for p in report.pairs if p.__dict__.get("role") == "output" and p.b}
    assert {"loss", "logits", "embed.weight.grad", "head.weight.updated"} <= outputs


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("gradients", [True, False])
def test_what_a_kernel_of_inductor_draws_at_random_is_never_stored(tmp_path, gradients):
    """Its numbers live in registers. A mask that the backward pass needs is stored, and all but its own making is judged;
    without gradients nothing is, and one error says so."""
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 4)).train()
    compiled, x = torch.compile(model), torch.randn(5, 8)
    with isotrace.torch.record(compiled, tmp_path / "a"), torch.set_grad_enabled(gradients):
        y = compiled(x)
        if gradients:
            y.sum().backward()
    assert any("inductor_random" in r.get("op", "") for r in lines(tmp_path / "a"))
    if not gradients:
        with pytest.raises(isotrace.IsotraceError, match="cannot be replayed.*inductor.*evaluation mode"):
            isotrace.diff(tmp_path / "a", tmp_path / "a")
        return
    report = isotrace.diff(tmp_path / "a", tmp_path / "a")
    assert report.verdict == "identical", str(report)
    assert unknown(report) and all("aten.gt.Scalar (1)" in where for where in unknown(report)), unknown(report)


def test_a_module_compiled_in_place_is_recorded(tmp_path, eager):
    torch.compiler.reset()
    trained(tmp_path / "b", edit=lambda m: m.compile(backend="aot_eager"))
    report = isotrace.diff(eager, tmp_path / "b")
    assert report.verdict in ("identical", "equivalent"), str(report)
    assert {"loss", "logits"} <= {p.a for p in report.pairs if p.__dict__.get("role") == "output" and p.b}


class WrongSilu(torch.autograd.Function):
    """The slope of the sigmoid is 10 % too small."""

    factor = 0.9

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.silu(x)

    @classmethod
    def backward(cls, ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * (s * (x * (1 - s) * 0.9 + 1))


class WrongNorm(torch.autograd.Function):
    """The mean of the gradient is not taken off."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.layer_norm(x, x.shape[-1:])

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        centre = x - x.mean(-1, keepdim=True)
        r = torch.rsqrt((centre * centre).mean(-1, keepdim=True) + 1e-5)
        h = centre * r
        return r * (g - h * (g * h).mean(-1, keepdim=True))


def layer_normed(model, function):
    model.norm.forward = lambda x: function(x) * model.norm.weight


def test_a_fault_in_a_backward_formula_is_found(tmp_path, eager):
    trained(tmp_path / "b", edit=lambda m: setattr(m.layers[1].mlp, "act", WrongSilu.apply))
    report = isotrace.diff(eager, tmp_path / "b")
    assert report.verdict == "divergent"
    assert len(report.culprits) == 1, str(report)
    assert report.culprits[0].cause["class"] == "scale", str(report)
    # The faulty product, beside what the formula of silu_backward has in its place.
    assert "0.9" in str(report) or report.culprits[0].b.ops == ["Mul"], str(report)
    blamed = lines(tmp_path / "b")
    (value,) = [r for r in blamed if r["record"] == "value" and r["name"] == report.culprits[0].b.outputs[0].split("#")[0]
                and f"{r['name']}#{r['id']}" == report.culprits[0].b.outputs[0]]  # fmt: skip
    (node,) = [r for r in blamed if r["record"] == "node" and value["id"] in r["outputs"]]
    assert node["attributes"]["other"] == {"float": 0.9}


def test_a_missing_term_of_a_normalisation_is_found(tmp_path):
    trained(tmp_path / "a", edit=lambda m: layer_normed(m, lambda x: F.layer_norm(x, x.shape[-1:])))
    trained(tmp_path / "b", edit=lambda m: layer_normed(m, WrongNorm.apply))
    report = isotrace.diff(tmp_path / "a", tmp_path / "b")
    assert report.verdict == "divergent"
    assert len(report.culprits) == 1, str(report)
    assert any("native_layer_norm_backward" in name for name in report.culprits[0].a.nodes), str(report)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, foreach=False),
    "sgd foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, amsgrad=True, foreach=False),
    "adam foreach": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True, foreach=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, amsgrad=True, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=False),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.1, maximize=True, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.1, maximize=True, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "clipped": lambda p: Clipped(p),
}


class Clipped(torch.optim.AdamW):
    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1, foreach=True)

    def step(self):
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.01, foreach=True)
        super().step()


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 6)
        self.head = torch.nn.Linear(6, 50)

    def forward(self, ids, labels):
        return {"loss": F.cross_entropy(self.head(torch.tanh(self.embed(ids))).flatten(0, 1), labels.flatten())}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_an_optimiser_are_pytorchs(tmp_path, name):
    plain = trained(model=Small, optimizer=OPTIMIZERS[name], steps=3)
    assert trained(tmp_path / "a", model=Small, optimizer=OPTIMIZERS[name], steps=3) == plain
    report = isotrace.diff(tmp_path / "a", tmp_path / "a")
    assert report.verdict in ("identical", "equivalent"), str(report)
    assert not unknown(report)
    names = set(isotrace.Trace(tmp_path / "a"))
    assert {"embed.weight.updated", "head.bias.grad@0", "head.bias.grad@2"} <= names
    if name.startswith("adam"):
        roles = {r["role"]: r for r in lines(tmp_path / "a") if r["record"] == "value"}
        assert roles["optimizer"]["of"] and "head.bias.exp_avg@1" in names


class Awkward(torch.nn.Module):
    """Writes in place, views, strides, tied weights, running statistics, dropout, a module that is called twice, and
    outputs in lists and dictionaries."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 8)
        self.twice = torch.nn.Linear(8, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.drop = torch.nn.Dropout(0.2)
        self.head = torch.nn.Linear(8, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids, labels):
        x = self.drop(self.twice(F.relu(self.twice(self.embed(ids)), inplace=True)))
        x = self.norm(x.flatten(0, 1)).view(x.shape)
        y = x.transpose(1, 2)[:, ::2].clone(memory_format=torch.preserve_format)
        y[..., 1:].mul_(2.0)
        y.t_() if y.dim() == 2 else y.transpose_(1, 2)
        x[..., ::2] += y
        logits = self.head(x)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "rest": [logits, (x.mT, {"y": y})]}


@pytest.mark.parametrize("level", ["modules", "operators"])
@pytest.mark.parametrize("model", [Llama, Awkward])
def test_recording_changes_no_bit_of_training(tmp_path, model, level):
    plain = trained(model=model, steps=2)
    assert trained(tmp_path / "a", model=model, steps=2, level=level) == plain
    calls = [r for r in lines(tmp_path / "a") if r["record"] == "call"]
    if model is Awkward:
        twice = [(r["step"], r["index"]) for r in calls if r["module"] == "twice"]
        assert twice == [(0, 0), (0, 1), (1, 0), (1, 1)]
        root = [r for r in calls if r["module"] == ""][-1]
        names = {r["id"]: r["name"] for r in lines(tmp_path / "a") if r["record"] == "value"}
        if level == "operators":
            assert [names[i] for i in root["outputs"]] == ["loss", "rest.0", "rest.1.0", "rest.1.1.y"]
    trace = isotrace.Trace(tmp_path / "a")
    assert {"embed.weight.grad@0", "embed.weight.grad@1"} <= set(trace)
    # Parameters as they were, and as training left them: hooks see that after each step of the optimiser.
    after = "embed.weight.updated" if level == "operators" else "embed.weight@1"
    before = next(name for name in trace if name in ("embed.weight", "embed.weight@0"))
    assert trace[before].tobytes() != trace[after].tobytes()


def test_awkward_training_is_judged(tmp_path):
    trained(tmp_path / "a", model=Awkward, steps=2)
    report = isotrace.diff(tmp_path / "a", tmp_path / "a")
    assert report.verdict in ("identical", "equivalent"), str(report)
    assert not unknown(report), unknown(report)


def test_strides_are_kept_and_memory_is_told_from_views(tmp_path):
    class Turned(torch.nn.Module):
        def forward(self, x):
            return x.mT, x.mT.contiguous(), x[1:]

    x = torch.arange(12.0).reshape(3, 4)
    with isotrace.torch.record(Turned(), tmp_path / "a"):
        Turned()
    model = Turned()
    with isotrace.torch.record(model, tmp_path / "b"):
        model(x)
    values = {r["name"]: r for r in lines(tmp_path / "b") if r["record"] == "value"}
    turned, dense, rows = values["0"], values["1"], values["2"]
    assert turned["strides"] == [1, 4] and "strides" not in dense
    assert turned["storage"]["id"] == values["x"]["storage"]["id"] == rows["storage"]["id"] != dense["storage"]["id"]
    assert rows["storage"]["offset"] == 4
    trace = isotrace.Trace(tmp_path / "b")
    assert np.array_equal(trace["0"], x.numpy().T) and np.array_equal(trace["2"], x.numpy()[1:])


def test_flags_are_recorded(tmp_path):
    model = Small().train()
    ids = torch.zeros(1, 2, dtype=torch.int64)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = not before
        torch.use_deterministic_algorithms(True)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), isotrace.torch.record(model, tmp_path / "a"):
            model(ids, ids)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
        torch.use_deterministic_algorithms(False)
    with isotrace.torch.record(model.eval(), tmp_path / "b", level="modules", keeps="digest"):
        model(ids, ids)
    (a, *_), (b, *_) = lines(tmp_path / "a"), lines(tmp_path / "b")
    flags = a["flags"], b["flags"]
    assert [f["tf32_matmul"] for f in flags] == [not before, before]
    assert [f["autocast"] for f in flags] == ["bfloat16", "off"]
    assert [f["training"] for f in flags] == [True, False]
    assert [f["gradients"] for f in flags] == [False, True]
    assert [f["deterministic"] for f in flags] == [True, False]
    assert a["versions"]["torch"] == torch.__version__ and a["device"].startswith("cpu")


def lines(folder):
    return [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
