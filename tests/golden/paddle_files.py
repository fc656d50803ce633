"""Writes the checkpoints of PaddlePaddle that the tests of crates/trace read, with what Paddle itself reads from them.

    python tests/golden/paddle_files.py crates/trace/tests/golden

needs paddlepaddle, ml_dtypes and safetensors. The files are committed; run this again to add one.
"""

import pathlib
import pickle
import sys

import ml_dtypes
import numpy
import paddle
import safetensors.numpy

OUT = pathlib.Path(sys.argv[1])
TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]


def array(tensor):
    """What Paddle holds, as NumPy and safetensors can: bfloat16 has a type of its own."""
    if isinstance(tensor, numpy.ndarray):
        return tensor
    if tensor.dtype == paddle.bfloat16:
        return tensor.numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def write(name, value, expected, **how):
    paddle.save(value, str(OUT / name), **how)
    safetensors.numpy.save_file(
        {key: numpy.ascontiguousarray(array(tensor)) for key, tensor in expected.items()},
        OUT / f"{name}.expected.safetensors",
    )


def loaded(name):
    return {k: v for k, v in paddle.load(str(OUT / name)).items() if hasattr(v, "numpy")}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    paddle.seed(0)
    network = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))
    optimizer = paddle.optimizer.Adam(parameters=network.parameters())
    network(paddle.ones([4, 2])).sum().backward()
    optimizer.step()
    write("network.pdparams", network.state_dict(), network.state_dict())
    state = {key: value for key, value in optimizer.state_dict().items() if hasattr(value, "numpy")}
    write("network.pdopt", optimizer.state_dict(), state)
    types = {name: (paddle.arange(6).reshape([2, 3]) % 4).astype(name) for name in TYPES}
    write("types.pdparams", types, types)
    for protocol in (2, 3):
        write(f"protocol{protocol}.pdparams", types, types, protocol=protocol)
    write("alone.pdtensor", paddle.ones([3]), {"alone": paddle.ones([3])})
    nested = {"a": [paddle.zeros([1]), {"b": paddle.ones([2], "bfloat16")}]}
    write("nested.pdparams", nested, {"a.0": nested["a"][0], "a.1.b": nested["a"][1]["b"]})
    # Arrays of more than a gigabyte are cut into pieces; here, of more than a few bytes.
    large = {"w": numpy.arange(30, dtype="float32").reshape(5, 6), "b": numpy.ones(3, "float32")}
    pieces, how = {}, {}
    for key, value in large.items():
        if value.size > 8:
            flat = value.flatten()
            names = [f"{key}@@.{at}" for at in range(4)]
            pieces.update({name: flat[at * 8 : at * 8 + 8] for at, name in enumerate(names)})
            how[key] = {"OriginShape": value.shape, "slices": names}
        else:
            pieces[key] = value
    pieces["UnpackBigParamInfor@@"] = how
    with open(OUT / "pieces.pdparams", "wb") as file:
        pickle.dump(pieces, file, protocol=2)
    joined = paddle.load(str(OUT / "pieces.pdparams"), return_numpy=True)
    safetensors.numpy.save_file({k: joined[k] for k in large}, OUT / "pieces.pdparams.expected.safetensors")
    arrays = {"fortran": numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)), "big": numpy.arange(3, dtype=">i4")}
    for protocol in range(6):
        with open(OUT / f"arrays{protocol}.pkl", "wb") as file:
            pickle.dump({**arrays, "number": numpy.float32(1.5)}, file, protocol=protocol)
    expected = {"fortran": numpy.arange(6.0).reshape(2, 3), "big": numpy.arange(3, dtype="i4"),
                "number": numpy.array(1.5, "f4")}
    safetensors.numpy.save_file(expected, OUT / "arrays.pkl.expected.safetensors")


main()
