"""One job of one peer, as a program of its own, so that it can be timed as people start it.

usage: peer.py compare A B INPUTS       onnx-array-api: both models run, aligned, and printed side by side
       peer.py reference A INPUTS       onnx ReferenceEvaluator, outputs only
       peer.py ort A INPUTS [RUNS]      ONNX Runtime, every value marked as an output, no optimisation

`ort` prints the seconds of its fastest run in process, after one to warm up: loading and start-up left out.
"""

import sys
import time


def compare(a, b, inputs):
    import numpy as np
    import onnx
    from onnx_array_api.reference import compare_onnx_execution

    a, b, given = onnx.load(a), onnx.load(b), dict(np.load(inputs))
    left, right, rows, distance = compare_onnx_execution(a, b, inputs=(given, given))
    print(distance.to_str(left, right, rows))


def reference(a, inputs):
    import numpy as np
    import onnx
    from onnx.reference import ReferenceEvaluator

    outputs = ReferenceEvaluator(onnx.load(a)).run(None, dict(np.load(inputs)))
    print([o.shape for o in outputs])


def ort(a, inputs, runs=1):
    import numpy as np
    import onnx
    import onnxruntime

    model = onnx.load(a)
    known = {o.name for o in model.graph.output}
    values = [o for n in model.graph.node for o in n.output if o and o not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given, seconds = dict(np.load(inputs)), []
    for _ in range(int(runs) + 1 if int(runs) > 1 else 1):
        start = time.perf_counter()
        session.run(None, given)
        seconds.append(time.perf_counter() - start)
    print(min(seconds[1:] or seconds))


if __name__ == "__main__":
    jobs = {"compare": compare, "reference": reference, "ort": ort}
    if len(sys.argv) < 4 or sys.argv[1] not in jobs:
        sys.exit(__doc__)
    jobs[sys.argv[1]](*sys.argv[2:])
