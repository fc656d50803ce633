"""isotrace finds the first operation where two implementations of one neural network really part, and says why.

    report = isotrace.diff("a.onnx", "b.onnx")
    print(report.verdict, report.culprits[0].cause.summary)
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union, overload

import numpy as np

from . import _isotrace
from ._array import array as _array
from ._array import border as _border
from ._isotrace import IsotraceError, __version__
from ._report import Record, Report

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

__all__ = [
    "Comparison", "IsotraceError", "Note", "Report", "Stats", "Trace", "__version__", "assert_equivalent", "compare", "diff", "run",
    "stats",
]  # fmt: skip

Model = Union[str, "os.PathLike[str]", bytes, Any]
Inputs = Union[Mapping[str, Any], str, "os.PathLike[str]", None]


def _model(model: Model) -> str | bytes:
    """A path, or the bytes of a model: of a file, or of anything with `SerializeToString` (onnx.ModelProto)."""
    if isinstance(model, Trace):
        return model.path
    if hasattr(model, "SerializeToString"):
        serialised: bytes = model.SerializeToString()
        return serialised
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model)
    if not isinstance(model, (str, os.PathLike)):
        instead = (
            "; record it with isotrace.torch.record, or hold it against another one with isotrace.assert_equivalent"
            if callable(model)
            else ""
        )
        raise TypeError(
            f"{type(model).__name__} is no kind of model; expected a path, an isotrace.Trace, an onnx.ModelProto, bytes of an "
            f"ONNX file, or (for diff) a mapping from names to arrays{instead}"
        )
    return os.fspath(model)


def _holds_arrays(x: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(x, Mapping) and not isinstance(x, Trace)


def _written(arrays: Mapping[str, Any], folder: str, inputs: Inputs = None) -> str:
    """Arrays by name as a trace without a graph: each is an output of what was given `inputs`."""
    header = {"producer": {"name": "isotrace", "version": __version__}, "source": "arrays", "keeps": "data"}
    given = {} if inputs is None else inputs if isinstance(inputs, Mapping) else Trace(inputs)
    sides = {role: {str(name): _border(x) for name, x in side.items()} for role, side in (("input", given), ("output", arrays))}
    writer = _isotrace.Writer(folder, header, 64 << 20)
    ids: dict[str, list[int]] = {}
    for role, borders in sides.items():
        records = ({"name": n, "role": role, "dtype": x["dtype"], "shape": x["shape"]} for n, x in borders.items())
        ids[role] = [writer.value(record, x) for record, x in zip(records, borders.values())]
    border = {"inputs": ids["input"], "outputs": ids["output"]}
    writer.call({"id": writer.reserve_call(), "module": "", "class": "mapping", "index": 0, **border})
    writer.graph({"name": "arrays", **border})
    writer.finish()
    return folder


def _feed(inputs: Inputs, set: Mapping[str, Any] | None, dims: Mapping[str, int] | None, seed: int) -> dict[str, Any]:
    given = None
    if inputs is not None:
        tensors = inputs if isinstance(inputs, Mapping) else Trace(inputs)
        given = {name: _border(tensors[name]) for name in tensors}
    return {
        "given": given,
        "set": [(name, str(value)) for name, value in (set or {}).items()],
        "dims": list((dims or {}).items()),
        "seed": seed,
    }


def diff(
    a: Model,
    b: Model,
    inputs: Inputs = None,
    *,
    set: Mapping[str, Any] | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    allow: Iterable[str] = (),
    backend: str | None = None,
    backend_a: str | None = None,
    backend_b: str | None = None,
    optimisation_a: str | None = None,
    optimisation_b: str | None = None,
) -> Report:
    """Holds `b` against `a` on the same inputs.

    `a` and `b` are paths of ONNX models or of recordings, `isotrace.Trace`s, `onnx.ModelProto`s, bytes of ONNX files, or
    mappings from names to arrays: those hold no graph, and are judged as recordings of modules are. `inputs` is a
    mapping from names to arrays, a file of tensors, or None: then a recording brings its own, and others are made, from
    `seed`, with the sizes of `dims` and the values of `set`. `allow` holds types ("f16", "bf16") that `b` may narrow to.

    `backend` says who runs the models, "embedded" or "onnxruntime"; `backend_a` and `backend_b` say it of one.
    `optimisation_a` and `optimisation_b` are how much ONNX Runtime rewrites: "disable", "basic", "extended" or "all".
    """
    if backend == "onnxruntime" or "onnxruntime" in (backend_a, backend_b):
        _find_runtime()
    backends = ((backend_a or backend, optimisation_a), (backend_b or backend, optimisation_b))
    # Arrays bring the inputs along from which they came.
    feed = _feed(None if _holds_arrays(a) or _holds_arrays(b) else inputs, set, dims, seed)
    with tempfile.TemporaryDirectory(prefix="isotrace-") as folder:
        one, other = (
            _written(x, os.path.join(folder, name, "arrays"), inputs) if _holds_arrays(x) else _model(x)
            for name, x in (("a", a), ("b", b))
        )
        status, text, shown = _isotrace.diff(one, other, feed, list(allow), backends)
    return Report(_without_folders(text), _without_folders(shown), status)


def _without_folders(text: str) -> str:
    """A report on what was written for the time of the comparison calls it by its name alone."""
    folder = re.escape(os.path.join(tempfile.gettempdir(), "isotrace-"))
    return re.sub(rf"{folder}\w+{re.escape(os.sep)}([ab]{re.escape(os.sep)})?", "", text)


def _find_runtime() -> None:
    """The library of the onnxruntime that this interpreter would import, unless the user names another."""
    if "ORT_DYLIB_PATH" in os.environ:
        return
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll"):
            for library in sorted(Path(folder, "capi").glob(pattern)):
                os.environ["ORT_DYLIB_PATH"] = str(library)
                return


def run(
    model: Model,
    inputs: Inputs = None,
    *,
    outputs: Iterable[str] | None = None,
    precision: str = "declared",
    set: Mapping[str, Any] | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Runs a model in the embedded evaluator.

    `outputs` names the values wanted: None for the model's outputs, "all" for every value. `precision` is "declared" or
    "f64".
    """
    if precision not in ("declared", "f32", "f64"):
        raise ValueError(f'precision is {precision!r}, expected "declared" or "f64"')
    wanted = [outputs] if isinstance(outputs, str) else list(outputs or ())
    values = _isotrace.run(_model(model), _feed(inputs, set, dims, seed), wanted, precision == "f64")
    return {name: _array(buffer) for name, buffer in values}


class Comparison(Record):
    """How far two arrays are apart. `bool(comparison)` is whether they are close.

    Fields of the same name mean what they mean in the JSON of `isotrace compare` (docs/tensors.md).
    """

    close: bool
    identical: bool
    beyond: int
    different: int
    len: int
    rtol: float
    atol: float
    max_abs: float
    mean_abs: float
    max_rel: float
    rel_l2: float
    cosine: float
    max_ulp: Optional[int]
    argmax: Optional[list[int]]
    nan: list[int]
    inf: list[int]

    def __bool__(self) -> bool:
        return self.close


@overload
def compare(
    x: Mapping[str, Any], y: Mapping[str, Any], *, like: str = "torch", rtol: float | None = None, atol: float | None = None
) -> dict[str, Comparison]: ...
@overload
def compare(
    x: str | os.PathLike[str], y: str | os.PathLike[str], *, like: str = "torch", rtol: float | None = None, atol: float | None = None
) -> dict[str, Comparison]: ...
@overload
def compare(x: Any, y: Any, *, like: str = "torch", rtol: float | None = None, atol: float | None = None) -> Comparison: ...
def compare(
    x: Any, y: Any, *, like: str = "torch", rtol: float | None = None, atol: float | None = None
) -> Comparison | dict[str, Comparison]:
    """Every metric of two arrays in one pass, and whether they are close as torch, numpy or polygraphy have it.

    Two mappings (or files of tensors) are compared name by name; a name that only one side has is a KeyError.
    """
    sides = [Trace(s) if isinstance(s, (str, os.PathLike)) else s for s in (x, y)]
    if all(isinstance(s, Mapping) for s in sides):
        x, y = sides
        alone = sorted({*x} ^ {*y})
        if alone:
            raise KeyError(f"only one side holds {', '.join(map(repr, alone))}")
        if not x:
            raise ValueError("there is nothing to compare: both sides are empty")
        return {name: compare(x[name], y[name], like=like, rtol=rtol, atol=atol) for name in x}
    return Comparison(_isotrace.compare(_border(sides[0]), _border(sides[1]), like, rtol, atol))


class Stats(Record):
    """What an array holds: the fields of the JSON of `isotrace stats` (docs/tensors.md), every number a number."""

    name: str
    dtype: str
    shape: list[int]
    elements: int
    min: Optional[float]
    max: Optional[float]
    mean: Optional[float]
    std: Optional[float]
    nan: int
    inf: int
    zeros: int
    denormals: int
    at_min: int
    at_max: int
    fits: Optional[str]
    first: list[Any]
    histogram: list[float]
    warnings: list[str]


@overload
def stats(x: Mapping[str, Any] | str | os.PathLike[str], *, intervals: int = 48) -> dict[str, Stats]: ...
@overload
def stats(x: Any, *, intervals: int = 48) -> Stats: ...
def stats(x: Any, *, intervals: int = 48) -> Stats | dict[str, Stats]:
    """Counts, extremes, moments, a histogram of `intervals`, and what is suspicious about an array.

    A mapping, or the path of a file of tensors, gives a dictionary.
    """
    if isinstance(x, (str, os.PathLike)):
        x = Trace(x)
    if isinstance(x, Mapping):
        return {name: _stats(name, x[name], intervals) for name in x}
    return _stats("", x, intervals)


def _stats(name: str, x: Any, intervals: int) -> Stats:
    held = json.loads(_isotrace.stats(name, _border(x), intervals))
    for field in ("min", "max", "mean", "std"):
        held[field] = _number(held[field])
    if held["dtype"] != "string":
        held["first"] = [complex(*map(_number, e)) if isinstance(e, list) else _number(e) for e in held["first"]]
    return Stats(held)


def _number(x: Any) -> Any:
    """A number of the JSON, which has texts for those that it cannot write."""
    return _SPECIAL[x] if isinstance(x, str) else x


# One object each, so that what holds a NaN equals what holds the same.
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Note:
    """Something to know about a file or a recording.

    `kind` is "reader" for what is said of a file. What recorders note is "interrupted" (an error ended the recording),
    "uncalled" (the model was not called in it) or "tied" (one parameter has the names of `where`).
    """

    kind: str
    text: str
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


class Trace(Mapping[str, np.ndarray]):
    """Tensors on disk by name: a trace, or any file that isotrace reads. Each is read when it is asked for."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self._file = _isotrace.File(self.path)
        self._names = self._file.names()

    @property
    def kind(self) -> str:
        """What kind of file it is."""
        return self._file.kind

    @property
    def notes(self) -> list[Note]:
        """What a user should know: what is missing, what was left out, what a recorder noted."""
        return [Note(kind, text, tuple(where)) for kind, text, where in self._file.notes()]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return _array(self._file.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<isotrace.Trace {self.path!r}: {len(self)} tensors ({self.kind})>"


from ._assert import assert_equivalent  # noqa: E402


def __getattr__(name: str) -> Any:
    """Recorders are loaded when they are asked for: their frameworks need not be there."""
    if name == "torch":
        import importlib

        return importlib.import_module("isotrace.torch")
    raise AttributeError(f"module 'isotrace' has no attribute {name!r}")
