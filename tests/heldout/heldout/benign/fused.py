"""What the optimiser for transformers, a tool of its own beside the runtime, makes of a model. Second set."""
import logging

import onnx

from .registry import rewrite


def _heads(g):
    """(heads, width) by the first product of queries and keys, or (0, 0), by which the tool finds out itself."""
    for n in g.of("Softmax"):
        shape = g.shape(n.input[0])
        product = next((p for a in [n.input[0], *g.ancestors(n.input[0], 12)] for p in [g.producer(a)] if p is not None and p.op_type == "MatMul"), None)
        if shape is not None and len(shape) == 4 and product is not None and len(g.shape(product.input[0]) or ()) == 4:
            return shape[1], shape[1] * g.shape(product.input[0])[-1]
    return 0, 0


def _fused(g, kind):
    from onnxruntime.transformers.optimizer import optimize_model
    heads, width = _heads(g)
    copy = onnx.ModelProto.FromString(g.model.SerializeToString())  # the tool changes what it is given
    logging.disable(logging.WARNING)
    try:
        made = optimize_model(copy, model_type=kind, num_heads=heads, hidden_size=width, opt_level=0, use_gpu=False)
    except Exception:  # the tool is made for certain models and says so in many ways
        return False
    finally:
        logging.disable(logging.NOTSET)
    ours = {n.op_type for n in g.nodes}
    if not any(n.op_type not in ours and n.domain == "com.microsoft" for n in made.model.graph.node):
        return False
    g.model = made.model
    return True


@rewrite
def fused_as_bert(g, rng):
    return _fused(g, "bert")


@rewrite
def fused_as_decoder(g, rng):
    return _fused(g, "gpt2")


@rewrite
def fused_as_vision(g, rng):
    return _fused(g, "vit")
