"""Has PaDiff write a dump that the tests of crates/trace read.

    python tests/golden/padiff_dump.py crates/trace/tests/golden/padiff

needs PaDiff from its repository (the package of that name is older and writes none), paddlepaddle and torch. Paths and
call stacks of the machine are taken out of the descriptions; the tensors stay as they were written.
"""

import json
import pathlib
import shutil
import sys

import numpy
import paddle
from padiff import create_model

OUT = pathlib.Path(sys.argv[1]).resolve()


def scrub(value):
    if isinstance(value, dict):
        return {key: "" if key in ("stack", "repr") else scrub(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [scrub(inner) for inner in value]
    return value.replace(str(OUT), "/elsewhere/dump") if isinstance(value, str) else value


shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
paddle.seed(0)
model = create_model(paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.ReLU(), paddle.nn.Linear(3, 1)))
output = model(paddle.ones([2, 2]))
model.backward(output.mean())
model.try_dump(str(OUT))
for path in OUT.glob("*.json"):
    path.write_text(json.dumps(scrub(json.loads(path.read_text())), indent=1) + "\n")
numpy.savez(OUT.with_name("padiff.expected.npz"), output=output.numpy(),
            **{f"parameter{at}": p.numpy() for at, p in enumerate(model.model.parameters())})
