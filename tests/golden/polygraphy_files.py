"""Writes files of Polygraphy that the tests of crates/trace read, with the arrays in them.

    python tests/golden/polygraphy_files.py crates/trace/tests/golden
    python tests/golden/polygraphy_files.py --check FILE.json ARRAYS.npz     does Polygraphy read what isotrace wrote?

needs polygraphy, numpy and torch. The files are committed; run this again to add one.
"""

import io
import json
import pathlib
import sys

import numpy
import torch
from polygraphy.comparator import RunResults
from polygraphy.comparator.struct import IterationResult
from polygraphy.json import save_json


def arrays(seed):
    random = numpy.random.default_rng(seed)
    return {
        "logits": random.normal(size=(2, 3)).astype("f4"),
        "half": random.normal(size=5).astype("f2"),
        "ids": random.integers(-9, 9, (1, 4)),
        "mask": numpy.array([True, False]),
        "scalar": numpy.array(3.5),
        "empty": numpy.zeros((0, 2), "f4"),
    }


def write(out, name, save, expected):
    save(str(out / name))
    numpy.savez(out / f"{name}.expected.npz", **expected)


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    one = RunResults()
    one.add([IterationResult(arrays(0), runtime=0.1, runner_name="onnxrt")], runner_name="onnxrt")
    write(out, "polygraphy.one.json", one.save, arrays(0))

    several, expected = RunResults(), {}
    for runner, name in enumerate(["onnxrt", "trt"]):
        results = [IterationResult(arrays(2 * runner + i), runtime=0.1, runner_name=name) for i in range(2)]
        several.add(results, runner_name=name)
        for i in range(2):
            expected.update({f"{name}/{i}/{key}": value for key, value in arrays(2 * runner + i).items()})
    write(out, "polygraphy.several.json", several.save, expected)

    write(out, "polygraphy.inputs.json", lambda path: save_json([arrays(7)], path), arrays(7))

    tensors = RunResults()
    given = {key: torch.from_numpy(value) for key, value in arrays(8).items()}
    tensors.add([IterationResult(given, runtime=0.1, runner_name="pytorch")], runner_name="pytorch")
    write(out, "polygraphy.torch.json", tensors.save, arrays(8))

    # As versions before 0.30 wrote them: a key for each class, an archive, bytes as characters.
    def saved(array, function):
        file = io.BytesIO()
        function(file, array)
        return {"array": file.getvalue().decode("latin-1"),
                "__polygraphy_encoded_ndarray": "polygraphy_serialized_json_type"}

    old = {"a": saved(arrays(9)["logits"], numpy.save), "b": saved(arrays(9)["ids"], numpy.savez_compressed)}
    iteration = {"outputs": old, "runtime": 0.1, "runner_name": "old",
                 "__polygraphy_encoded_IterationResult": "polygraphy_serialized_json_type"}
    results = {"lst": [["old", [iteration]]], "__polygraphy_encoded_RunResults": "polygraphy_serialized_json_type"}
    write(out, "polygraphy.old.json", lambda path: pathlib.Path(path).write_text(json.dumps(results)),
          {"a": arrays(9)["logits"], "b": arrays(9)["ids"]})
    read = RunResults.load(str(out / "polygraphy.old.json"))[0][1][0]
    assert all((read[key] == value).all() for key, value in {"a": arrays(9)["logits"], "b": arrays(9)["ids"]}.items())


def check(path, expected):
    (_, iterations), = RunResults.load(path).lst
    read, expected = iterations[0], numpy.load(expected)
    assert sorted(read.keys()) == sorted(expected.files), (sorted(read.keys()), expected.files)
    for name in expected.files:
        numpy.testing.assert_array_equal(read[name], expected[name])
        assert read[name].dtype == expected[name].dtype
    print(f"{len(expected.files)} arrays agree")


if sys.argv[1] == "--check":
    check(sys.argv[2], sys.argv[3])
else:
    main(pathlib.Path(sys.argv[1]))
