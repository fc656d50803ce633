"""What torch.compile's inductor makes of a model, recorded.

Its kernels compute several operators at once and never store what lies between, so a recorder of operators sees a few
products and nothing else. But each compiled function has a graph of ATen operators from which its kernels were made. A
call of such a function is recorded as the calls of that graph: what it reads and gives with elements, what lies between
without, since it never existed.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Optional
from unittest import mock

import torch

from ._memory import short
from ._operators import setting
from ._values import Values


class Name(NamedTuple):
    """A value of a compiled graph."""

    name: str


class Step(NamedTuple):
    """A node of a compiled graph, free of what the compiler goes on to do to it."""

    kind: str
    name: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # Type and shape of each output.
    gives: list[tuple[torch.dtype, list[int]] | None]


def _given(val: Any) -> list[tuple[torch.dtype, list[int]] | None]:
    return [(v.dtype, [int(n) for n in v.shape]) if isinstance(v, torch.Tensor) else None
            for v in (val if isinstance(val, (list, tuple)) else [val])]  # fmt: skip


def plan(gm: torch.fx.GraphModule) -> list[Step] | None:
    """The graph as steps; None where sizes are symbols or something is no operator of ATen."""
    steps = []
    for node in gm.graph.nodes:
        args = torch.fx.node.map_arg(node.args, lambda n: Name(n.name))
        kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: Name(n.name))
        val, target = node.meta.get("val"), node.target
        if node.op == "get_attr":
            target = functools.reduce(getattr, target.split("."), gm)
        known = node.op in ("placeholder", "get_attr", "output") or target is operator.getitem
        if not known and not isinstance(target, torch._ops.OpOverload):
            return None
        values = val if isinstance(val, (list, tuple)) else [val]
        if any(isinstance(v, torch.SymInt) or isinstance(v, torch.Tensor)
               and any(isinstance(n, torch.SymInt) for n in v.shape) for v in values):  # fmt: skip
            return None
        steps.append(Step(node.op, node.name, target, args, kwargs, _given(val)))
    return steps


class _Replay:
    """The steps of one call, with the numbers that its values have in the trace."""

    def __init__(self, values: Values, real: dict[str, torch.Tensor]):
        self.values, self.real = values, real
        self.numbers: dict[str, Any] = {}
        self.tensors: dict[str, torch.Tensor] = {}

    def placeholder(self, name: str, given: Any) -> None:
        if isinstance(given, torch.Tensor):
            self.numbers[name], self.tensors[name] = self.values.value(given), given

    def step(self, step: Step) -> None:
        if step.kind == "get_attr":
            self.placeholder(step.name, step.target)
        elif step.target is operator.getitem:
            source, at = step.args
            self.numbers[step.name] = self.numbers[source.name][at]
            if step.name in self.real:
                # An output of several has its elements under a name of its own.
                number = self.values.write(self.real[step.name], step.name, "intermediate")
                self.values.node("", "Identity", [self.numbers[step.name]], [number], {})
                self.numbers[step.name] = number
        elif step.kind == "call_function":
            self.call(step)

    def call(self, step: Step) -> None:
        values, schema = self.values, step.target._schema
        inputs: list[Optional[int]] = []
        attributes: dict[str, Any] = {}
        written: list[str] = []
        for at, argument in enumerate(schema.arguments):
            given = step.args[at] if at < len(step.args) else step.kwargs.get(argument.name, argument.default_value)
            if isinstance(given, Name):
                inputs.append(self.numbers[given.name])
                if argument.alias_info is not None and argument.alias_info.is_write:
                    written.append(given.name)
            elif "Tensor" in str(argument.type) and isinstance(given, (list, tuple)):
                inputs += [self.numbers[g.name] if g is not None else None for g in given]
            elif "Tensor" in str(argument.type) and given is None:
                inputs.append(None)
            elif at == 0 and str(argument.type) == "Tensor" and isinstance(given, (bool, int, float)):
                # A number in the place of the first tensor: the second would move into its place.
                dtype = step.gives[0][0] if step.gives and step.gives[0] else None
                inputs.append(values.write(torch.tensor(given, dtype=dtype), "constant", "constant"))
            elif (found := setting(given)) is not None:
                attributes[argument.name] = found
        outputs: list[Optional[int]] = []
        for i, gives in enumerate(step.gives):
            target = self.real.get(step.name) if len(step.gives) == 1 else None
            if target is None and len(written) == 1 and i == 0:
                target = self.tensors.get(written[0])
            if target is not None:
                outputs.append(values.write(target, step.name, "intermediate"))
            elif gives is None:
                outputs.append(None)
            else:
                record: dict[str, Any] = {"name": step.name, "role": "intermediate", "dtype": short(gives[0]), "shape": gives[1],
                                          "omitted": "inside a compiled kernel: it was never stored"}  # fmt: skip
                if values.step is not None:
                    record["step"] = values.step
                outputs.append(values.writer.described(record))
        name = schema.name.split("::")
        values.node(name[0], step.target.__name__, inputs, outputs, attributes)
        for source in written:
            self.numbers[source] = outputs[0]
            if source in self.tensors and outputs[0] is not None:
                values.memory(self.tensors[source]).version += 1
                values.written(self.tensors[source], outputs[0])
        self.numbers[step.name] = outputs if len(outputs) > 1 else outputs[0]


def _recorded(steps: list[Step], call: Callable[[Any], Any], active: Callable[[], Optional[Values]]) -> Callable[[Any], Any]:
    @functools.wraps(call)
    def around(inputs: Any) -> Any:
        values = active()
        if values is None or values.busy:
            return call(inputs)
        values.busy = True
        try:
            places = [step.name for step in steps if step.kind == "placeholder"]
            real: dict[str, torch.Tensor] = {}
            replay = _Replay(values, real)
            with torch.no_grad():
                # Kernels may write over what they are given.
                for name, given in zip(places, list(inputs)):
                    replay.placeholder(name, given)
            out = call(inputs)
            given_back = steps[-1].args[0]
            for name, t in zip(given_back, out):
                if isinstance(name, Name) and isinstance(t, torch.Tensor) and name.name not in places:
                    real.setdefault(name.name, t)
            with torch.no_grad():
                for step in steps:
                    replay.step(step)
            return out
        finally:
            values.busy = False

    return around


@contextmanager
def watched(active: Callable[[], Optional[Values]]) -> Iterator[None]:
    """What is compiled inside is recorded when it is called, now or in a later recording."""
    from torch._functorch import config
    from torch._inductor import compile_fx as module

    inner, outer = module.compile_fx_inner, module.compile_fx

    def compile_inner(gm: Any, example_inputs: Any, **settings: Any) -> Any:
        steps = plan(gm)
        compiled: Any = inner(gm, example_inputs, **settings)
        if steps is not None and getattr(compiled, "current_callable", None) is not None:
            compiled.current_callable = _recorded(steps, compiled.current_callable, active)
        return compiled

    @functools.wraps(outer)
    def compile_outer(*args: Any, **settings: Any) -> Any:
        if len(args) < 3:
            settings.setdefault("inner_compile", compile_inner)
        return outer(*args, **settings)

    with ExitStack() as stack:
        # A compiled function from a cache comes without its graph.
        stack.enter_context(config.patch(enable_autograd_cache=False))
        stack.enter_context(mock.patch.object(module, "compile_fx", compile_outer))
        yield
