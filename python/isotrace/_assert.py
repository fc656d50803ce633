"""`assert_equivalent`: for test suites."""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Tensors of nested mappings and sequences, by path."""
    if isinstance(value, Mapping):
        return {k: v for key in value for k, v in _flat(value[key], f"{name}[{key!r}]").items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{name}[{i}]").items()}
    return {name: value}


def _is_model(x: Any) -> bool:
    return isinstance(x, str) or hasattr(x, "__fspath__") or hasattr(x, "SerializeToString")


def assert_equivalent(
    actual: Any,
    expected: Any,
    inputs: Any = None,
    *,
    like: str = "torch",
    rtol: float | None = None,
    atol: float | None = None,
    **diff: Any,
) -> None:
    """Fails unless `actual` is `expected` but for rounding.

    - Models (paths of ONNX files or recordings, `onnx.ModelProto`s) are judged by isotrace's decision rule, on `inputs`;
      the other arguments of `isotrace.diff` apply.
    - PyTorch modules, and functions of PyTorch tensors, are called with `inputs`: a mapping gives arguments by name, a
      list or tuple in order, anything else is the one argument. Both calls are recorded, without gradients, and the
      recordings are judged by the same rule. A model may stand on the other side.
    - Other functions are called likewise, and what they give is compared like arrays.
    - Arrays, and mappings and sequences of arrays, hold no graph to judge them by: they are compared element by element
      by the rule of `like`.

    A failure names culprit, cause and proof where there is a graph, and the places of the largest differences elsewhere.
    """
    __tracebackhide__ = True
    from . import diff as held_against

    sides = (expected, actual)
    if any(_is_model(x) for x in sides) or any(callable(x) for x in sides):
        odd = [x for x in sides if not _is_model(x) and not callable(x)]
        if odd:
            raise TypeError(f"a {type(odd[0]).__name__} cannot be held against a model or a function")
        called = [x for x in sides if not _is_model(x)]
        if called and inputs is None:
            raise TypeError("a function needs inputs=... to be called with")
        if not called or any(_records(x, inputs) for x in called):
            with contextlib.ExitStack() as stack:
                a, b = (x if _is_model(x) else _recorded(x, sides, inputs, stack) for x in sides)
                # A recording brings the inputs along.
                report = held_against(a, b, None if called else inputs, **diff)
            if not report:
                raise AssertionError(str(report))
            return
        if len(called) < 2:
            raise TypeError("a function that is not PyTorch's has no graph; hold the arrays that it gives against the model's")
        expected, actual = (_call(f, inputs) for f in sides)
    elif inputs is not None or diff:
        named = ", ".join([*(["inputs"] if inputs is not None else []), *diff])
        raise TypeError(f"{named} has no effect on arrays")
    failures = _differences(_flat(actual), _flat(expected), like, rtol, atol)
    if failures:
        raise AssertionError("\n".join(failures))


def _differences(
    actual: dict[str, Any], expected: dict[str, Any], like: str, rtol: float | None, atol: float | None
) -> list[str]:
    from . import compare

    alone = sorted({*actual} ^ {*expected})
    if alone:
        side = "actual" if alone[0] in actual else "expected"
        return [f"only {side} holds {alone[0] or 'a value'}; nothing says what it should equal"]
    failures = []
    for name, x in expected.items():
        found = compare(actual[name], x, like=like, rtol=rtol, atol=atol)
        if not found:
            failures.append(
                f"{name or 'the values'}: {found.beyond} of {found.len} elements differ by more than "
                f"{found.atol:g} + {found.rtol:g} |expected| ({like}); the largest difference {found.max_abs:g} "
                f"({found.max_ulp} ulp) is at {tuple(found.argmax or ())}"
            )
    return failures


# Functions


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, (list, tuple)) else ((inputs,), {})


def _call(function: Callable[..., Any], inputs: Any) -> Any:
    args, kwargs = _arguments(inputs)
    return function(*args, **kwargs)


def _is_torch(x: Any, name: str) -> bool:
    return any(c.__module__.split(".")[0] == "torch" and c.__name__ == name for c in type(x).__mro__)


def _records(function: Any, inputs: Any) -> bool:
    """Whether what a function computes can be recorded."""
    return _is_torch(function, "Module") or any(_is_torch(x, "Tensor") for x in _flat(inputs).values())


def _names(functions: Sequence[Any], count: int) -> list[str]:
    """What arguments given in order are called: the same on both sides, or the two could not be told to belong together."""
    for function in functions:
        with contextlib.suppress(TypeError, ValueError):
            parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
            named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            if len(named) >= count:
                return named[:count]
    return [f"input_{i}" for i in range(count)]


def _recorded(function: Any, sides: Sequence[Any], inputs: Any, stack: contextlib.ExitStack) -> str:
    """The folder of a recording of one call, which lasts as long as `stack`."""
    import torch

    from .torch import record

    args, kwargs = _arguments(inputs)
    # A module whose arguments are named records them by those names; others are called through one that names them.
    module = function
    if args or not isinstance(function, torch.nn.Module):
        names = _names([x for x in sides if callable(x)], len(args)) if args else list(kwargs)
        module = _named(function, names, by_keyword=not args)
    args = tuple(map(_tensor, args))
    kwargs = {name: _tensor(x) for name, x in kwargs.items()}
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="isotrace-"))
    path = os.path.join(folder, getattr(function, "__name__", type(function).__name__))
    with torch.no_grad(), record(module, path):
        module(*args, **kwargs)
    return path


def _tensor(x: Any) -> Any:
    """What NumPy holds, as a tensor that shares its memory."""
    import numpy as np
    import torch

    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


def _named(function: Callable[..., Any], names: Sequence[str], by_keyword: bool) -> Any:
    """A module that calls a function whose arguments bear names."""
    import torch

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.call = function
            self.training = getattr(function, "training", False)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    kind = inspect.Parameter.KEYWORD_ONLY if by_keyword else inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    module = Call()
    module.forward = forward
    return module
