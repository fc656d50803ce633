"""Makes the example: one small BERT, exported twice, the second time with a fault.

`bert_a.onnx` is the network of Hugging Face's transformers through PyTorch's TorchScript exporter. `bert_b.onnx` has
the same weights and goes through the newer exporter, which writes other operators under other names; and its
attention scores are divided by the root of the hidden size where the size of a head is meant, a fault that
ports of transformers have had more than once. The outputs look plausible and are wrong.

    python examples/make.py

needs torch, transformers, onnx and onnxscript; the files it writes are kept in the repository.
"""

import math
import pathlib
import warnings

import numpy as np
import onnx
import torch
from transformers import BertConfig, BertModel

HERE = pathlib.Path(__file__).parent
HIDDEN, HEADS = 32, 2


class Encoder(torch.nn.Module):
    """BERT from token ids and a mask to the hidden states and the pooled vector."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask):
        out = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return out.last_hidden_state, out.pooler_output


def network():
    torch.manual_seed(20)
    config = BertConfig(
        vocab_size=40,
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        intermediate_size=48,
        max_position_embeddings=16,
        attn_implementation="eager",
    )
    bert = BertModel(config).eval()
    # Freshly initialised weights are too small for attention to matter; trained ones are not.
    with torch.no_grad():
        for name, weight in bert.named_parameters():
            if weight.dim() == 2:
                weight.mul_(6)
            elif name.endswith("bias"):
                weight.normal_(std=0.1)
    # The wrapper too: the older exporter puts back the mode of what it was given, and of everything inside.
    return Encoder(bert).eval()


def export(model, inputs, path, dynamo):
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["last_hidden_state", "pooler_output"]}
    if dynamo:
        axes = {"dynamic_shapes": ({0: "batch", 1: "sequence"}, {0: "batch", 1: "sequence"})}
    else:
        both = {0: "batch", 1: "sequence"}
        axes = {"dynamic_axes": {"input_ids": both, "attention_mask": both, "last_hidden_state": both}, "opset_version": 17}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, path, dynamo=dynamo, external_data=False, verbose=False, **axes, **names)
    # Traces of the exporting machine (stack traces, paths) have no place in a repository.
    proto = onnx.load(path)
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def main():
    model = network()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 40, (2, 10), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    export(model, (ids, mask), HERE / "bert_a.onnx", dynamo=False)
    for layer in model.bert.encoder.layer:
        layer.attention.self.scaling = 1 / math.sqrt(HIDDEN)
    export(model, (ids, mask), HERE / "bert_b.onnx", dynamo=True)
    np.savez(HERE / "inputs.npz", input_ids=ids.numpy(), attention_mask=mask.numpy())


if __name__ == "__main__":
    main()
