"""The groups of `runtime_cases.py` that hold lists of tensors: sequences, as exporters write them.

What PyTorch makes of `outs.append(x)` in a scripted loop, of `x.unbind(1)` beside one, and of an `EmbeddingBag`.
"""

import numpy as np
from onnx import parser

LOOP = """<ir_version: 8, opset_import: ["": 17]> lists (float[2,4,3] x) => ({outputs})
<bool go = {{1}}, int64 four = {{4}}, int64 one = {{1}}, int64[1] ones = {{1}}, int64[1] cut = {{1}}, int64 last = {{-1}}> {{
  {before}
  none = SequenceEmpty()
  list, sum = Loop (four, go, none, {carried}) <body = turn (int64 i, bool on, l, float s) => (bool on2, l2, s2) {{
    on2 = Identity(on)
    {row}
    s2 = Add(s, row)
    l2 = SequenceInsert(l, s2)
  }}>
  {after}
}}"""


def lists(c):
    """A running sum that is kept at each turn, and how the list of it is read."""
    x = c.normal(2, 4, 3)
    parts = {
        "before": "zero = ReduceSum <keepdims = 0> (x, ones) start = Sub (zero, zero)",
        "carried": "start",
        "row": "row = Gather <axis = 1> (x, i)",
        "after": "",
    }
    unbound = {
        "before": parts["before"] + " parts = SplitToSequence <axis = 1, keepdims = 0> (x, one) turns = SequenceLength (parts)",
        "row": "row = SequenceAt (parts, i)",
    }
    kept = {
        "before": parts["before"] + " parts = SplitToSequence <axis = 1> (x)",
        "row": "thick = SequenceAt (parts, i) row = Squeeze (thick, ones)",
    }
    joined = lambda axis, new: f"y = ConcatFromSequence <axis = {axis}, new_axis = {new}> (list)"
    for name, own in {
        **{f"list_stacked_{axis}": {"after": joined(axis, 1)} for axis in [0, 1, 2, -1, -2]},
        **{f"list_concatenated_{axis}": {"after": joined(axis, 0)} for axis in [0, 1, -1]},
        "list_element": {"after": "y = SequenceAt (list, last)"},
        "list_length": {"after": "n = SequenceLength (list) f = CastLike (n, x) y = Add (f, sum)"},
        "list_unbound": {**unbound, "after": joined(1, 1)},
        "list_split": {**kept, "after": joined(1, 1)},
        "list_unread": {"after": "y = Identity (sum)"},
    }.items():
        model = parser.parse_model(LOOP.format(**{**parts, **own, "outputs": "float y"}))
        c.model(name.replace("-", "minus_"), model, [("x", x)])


GROUPS = [lists]
