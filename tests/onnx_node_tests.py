#!/usr/bin/env python3
"""Writes ONNX's backend node tests as files, for `cargo test -p isotrace-run --test conformance`.

usage: onnx_node_tests.py OUT

Each case becomes OUT/<name>/{model.onnx,tolerance.txt,test_data_set_N/{input,output}_K.pb}; tolerance.txt holds
the relative and the absolute tolerance. Needs the package onnx; version 1.23.2 gives 1,884 cases up to opset 28
(its wheel no longer holds the files themselves).
"""

import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")  # the cases divide by zero and overflow on purpose

import onnx.backend.test.case.node as node
from onnx import TensorProto, numpy_helper


def encode(value, info):
    """The message that holds a value of the type that the model declares."""
    kind = info.type
    if kind.HasField("sequence_type"):
        return numpy_helper.from_list(value, info.name)
    if kind.HasField("optional_type"):
        return numpy_helper.from_optional(value, info.name)
    if kind.HasField("map_type"):
        return numpy_helper.from_dict(value, info.name)
    return value if isinstance(value, TensorProto) else numpy_helper.from_array(value, info.name)


def write(case, folder):
    """Writes one case into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    (folder / "tolerance.txt").write_text(f"{case.rtol} {case.atol}\n")
    graph = case.model.graph
    for i, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{i}"
        data.mkdir(exist_ok=True)
        for name, values, infos in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            for k, value in enumerate(values):
                (data / f"{name}_{k}.pb").write_bytes(encode(value, infos[k]).SerializeToString())


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    cases = node.collect_testcases(None)
    for case in cases:
        write(case, Path(sys.argv[1]) / case.name)
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
