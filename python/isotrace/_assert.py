"""`assert_equivalent`: for test suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Tensors of nested mappings and sequences, by path."""
    if isinstance(value, Mapping):
        return {k: v for key in value for k, v in _flat(value[key], f"{name}[{key!r}]").items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{name}[{i}]").items()}
    return {name: value}


def assert_equivalent(
    actual: Any, expected: Any, *, like: str = "torch", rtol: float | None = None, atol: float | None = None, **diff: Any
) -> None:
    """Fails unless `actual` is `expected` but for rounding.

    Two models (paths, `onnx.ModelProto`s) are judged by isotrace's decision rule; `inputs=` and the other arguments of
    `isotrace.diff` apply, and the failure names culprit, cause and proof. Arrays, and mappings and sequences of arrays,
    hold no graph to judge them by: they are compared element by element by the rule of `like`.
    """
    __tracebackhide__ = True
    from . import compare
    from . import diff as held_against

    if any(isinstance(x, str) or hasattr(x, "__fspath__") or hasattr(x, "SerializeToString") for x in (actual, expected)):
        report = held_against(expected, actual, **diff)
        if not report:
            raise AssertionError(str(report))
        return
    actual, expected = _flat(actual), _flat(expected)
    alone = sorted({*actual} ^ {*expected})
    if alone:
        side = "actual" if alone[0] in actual else "expected"
        raise AssertionError(f"only {side} holds {alone[0] or 'a value'}; nothing says what it should equal")
    failures = []
    for name, x in expected.items():
        found = compare(actual[name], x, like=like, rtol=rtol, atol=atol)
        if not found:
            failures.append(
                f"{name or 'the values'}: {found.beyond} of {found.len} elements differ by more than "
                f"{found.atol:g} + {found.rtol:g} |expected| ({like}); the largest difference {found.max_abs:g} "
                f"({found.max_ulp} ulp) is at {tuple(found.argmax or ())}"
            )
    if failures:
        raise AssertionError("\n".join(failures))
