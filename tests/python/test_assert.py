"""`assert_equivalent` of what can be called: judged by the decision rule, and telling what is wrong."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
import models  # noqa: E402

import isotrace  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]


def attention(q, k, v, scale=8**-0.5):
    return torch.softmax(q @ k.transpose(-1, -2) * scale, -1) @ v


def fused(query, key, value):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


@pytest.fixture
def qkv():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 6, 8, generator=g) for _ in range(3)]


def test_functions_in_order_and_by_name(qkv):
    # Arguments given in order belong together, whatever each function calls them.
    isotrace.assert_equivalent(fused, attention, inputs=qkv)
    isotrace.assert_equivalent(fused, attention, inputs=tuple(x.numpy() for x in qkv[:2]) + (qkv[2],))
    isotrace.assert_equivalent(attention, attention, inputs=dict(zip("qkv", qkv)))


def test_a_failure_names_culprit_cause_and_proof(qkv):
    wrong = lambda q, k, v: attention(q, k, v, scale=8**-1)  # noqa: E731
    for expected in (attention, fused):
        with pytest.raises(AssertionError) as failure:
            isotrace.assert_equivalent(wrong, expected, inputs=qkv)
        text = str(failure.value)
        assert text.startswith("divergent: ") and "culprit 1: scale" in text, text
        assert ("1.25e-1" in text or "0.125" in text) and "proof" in text, text


def test_modules_are_held_against_modules_and_exports(tmp_path):
    bert, inputs = models.make("bert"), models.inputs("bert")
    isotrace.assert_equivalent(bert, models.make("bert", fused=False), inputs=inputs)
    isotrace.assert_equivalent(bert, models.make("bert", fused=False), inputs=list(inputs.values()))
    path = tmp_path / "bert.onnx"
    torch.onnx.export(bert, (), str(path), kwargs=inputs, input_names=list(inputs), dynamo=True, verbose=False)
    isotrace.assert_equivalent(bert, path, inputs=inputs)
    isotrace.assert_equivalent(path, bert, inputs=inputs, backend_a="embedded")
    with pytest.raises(AssertionError, match="culprit 1: epsilon"):
        isotrace.assert_equivalent(models.make("bert", eps=1e-5), path, inputs=inputs)


def test_a_model_is_left_as_it_was(qkv):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5).eval()).train()
    model[1].eval()
    before = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    weights = [p.detach().clone() for p in model.parameters()]
    isotrace.assert_equivalent(model, model, inputs=qkv[:1])
    assert [(m.training, len(m._forward_hooks)) for m in model.modules()] == before
    assert all(torch.equal(p, w) and p.grad is None for p, w in zip(model.parameters(), weights))


def test_functions_without_a_graph_are_compared_by_what_they_give():
    x = np.linspace(-1, 1, 12, dtype=np.float32)
    isotrace.assert_equivalent(np.tanh, lambda x: np.tanh(x.astype(np.float64)).astype(np.float32), inputs=x)
    with pytest.raises(AssertionError, match="12 of 12 elements differ"):
        isotrace.assert_equivalent(np.cos, np.sin, inputs=[x])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: isotrace.assert_equivalent(fused, attention), "needs inputs"),
        (lambda x: isotrace.assert_equivalent(fused, x, inputs=x), "cannot be held against"),
        (lambda x: isotrace.assert_equivalent(np.sin, "model.onnx", inputs=x.numpy()), "no graph"),
        (lambda x: isotrace.assert_equivalent(x, x, inputs=x), "no effect"),
    ],
)
def test_what_cannot_be_judged_is_refused(qkv, call, message):
    with pytest.raises(TypeError, match=message):
        call(qkv[0])
