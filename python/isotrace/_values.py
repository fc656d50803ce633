"""The values of a recording: which tensor, as it is now, is which value of the trace.

A tensor is a place in a storage. Values are told apart by place, and by the writes that the storage has seen: with
every operator in view each write is seen by itself; at the level of modules PyTorch's own count of writes has to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch
from torch.utils._python_dispatch import _disable_current_modes

from . import _isotrace
from ._arguments import class_name
from ._environment import location
from ._memory import STORED, Memory, Place, count, dense, elements, place, reach, short, window, writes


class Values:
    """What a recording writes of tensors and of the calls between them."""

    def __init__(self, writer: _isotrace.Writer, *, operators: bool):
        self.writer, self.operators = writer, operators
        # Storages by the address of what PyTorch keeps of them.
        self.memories: dict[int, Memory] = {}
        # Names and roles of parameters and buffers by where they lie.
        self.names: dict[tuple[int, Place], tuple[str, str]] = {}
        self.step: Optional[int] = None
        # Calls of modules under way: path, number, and the values given.
        self.stack: list[tuple[str, int, list[int]]] = []
        # Whether what runs now is the recorder's own.
        self.busy = False
        # Whether digests are left until `settle`.
        self.later = False
        self._storages = 0
        # Values whose elements were left out, since they follow from others.
        self._views: set[int] = set()

    def quietly(self, hook: Callable[..., object]) -> Callable[..., None]:
        """What a hook does by itself is no part of what the model computes."""

        def quiet(*args: Any) -> None:
            # What a compiler traces is no run; the calls of what it makes of it are seen, and so is the whole.
            if torch.compiler.is_compiling():
                return
            before, self.busy = self.busy, True
            try:
                if torch.is_grad_enabled():
                    with torch.no_grad():
                        hook(*args)
                else:
                    hook(*args)
            finally:
                self.busy = before

        return quiet

    def memory(self, t: torch.Tensor) -> Memory:
        """What is known of the storage in which a tensor lies."""
        storage = t.untyped_storage()
        memory = self.memories.get(storage._cdata)
        if memory is None or memory.alive.expired():
            self._storages += 1
            memory = self.memories[storage._cdata] = Memory(self._storages, storage)
        return memory

    def key(self, t: torch.Tensor) -> Place:
        """Where a tensor lies; without its operators, PyTorch's own count of writes tells values apart."""
        where = place(t)
        return where if self.operators else (*where, writes(t))

    def _describe(self, t: torch.Tensor, name: str, role: str, memory: Optional[Memory], more: dict[str, Any]) -> dict[str, Any]:
        record = {"name": name, "role": role, "dtype": short(t.dtype), "shape": list(t.shape), **more}
        if memory is not None:
            record["storage"] = {"id": memory.number, "version": memory.version, "offset": t.storage_offset()}
            if not t.is_contiguous():
                record["strides"] = list(t.stride())
        if self.step is not None:
            record["step"] = self.step
        if self.stack:
            record["module"], record["call"] = self.stack[-1][:2]
        if t.device.type != "cpu":
            record["device"] = str(t.device)
        return record

    def write(self, t: torch.Tensor, name: str, role: str, *, view: bool = False, **more: Any) -> int:
        """A new value for a tensor as it is now. Elements of a view follow from those that it looks at."""
        plain = t.layout is torch.strided and t.device.type != "meta" and type(t) in (torch.Tensor, torch.nn.Parameter)
        memory = self.memory(t) if plain else None
        record = self._describe(t, name, role, memory, more)
        if plain and not view and record["dtype"] in STORED:
            number = self.writer.value(record, elements(t, record), self.later)
        else:
            record["omitted"] = "a view: its elements are those of what it looks at" if view else f"a tensor of {class_name(t)}"
            number = self.writer.described(record)
            self._views.add(number)
        if memory is not None:
            key = self.key(t)
            memory.views[key] = number
            if memory.base is None:
                memory.base = (number, key)
        return number

    def value(self, t: torch.Tensor, name: Optional[str] = None, role: Optional[str] = None, **more: Any) -> int:
        """The value that a tensor is now; a new one where nobody computed it before our eyes."""
        if t.layout is not torch.strided:
            return self.write(t, name or "constant", role or "constant")
        memory, key = self.memory(t), self.key(t)
        known = memory.views.get(key)
        # What the model is given has elements of its own: nothing recorded computes it.
        given = role == "input"
        if known is not None and not (given and known in self._views):
            return known
        own = self.names.get((t.untyped_storage()._cdata, place(t)))
        if self.operators and memory.base is not None and own is None and not given:
            return self._look(t, memory.base)
        # What training made of a parameter is called so.
        if own is not None and memory.version == 0 and not (name and role == "parameter"):
            name, role = own
        elif name is None:
            name, role = (own[0] if own else "constant"), role or "constant"
        return self.write(t, name, role or "intermediate", **more)

    def _look(self, t: torch.Tensor, base: tuple[int, Place]) -> int:
        """A view that no operator made: taken before the recording, or stale since a write through another view."""
        first, last = reach(base[1])
        mine = reach(place(t))
        if base[1][3] != t.dtype or mine[0] < first or mine[1] > last:
            return self.write(t, "constant", "constant")
        number = self.write(t, "view", "intermediate", view=True)
        self.node("isotrace", "view", [base[0]], [number], window(t, base[1]))
        return number

    def written(self, t: torch.Tensor, number: int) -> None:
        """Makes `number` what a tensor has become by a write, and lets its neighbours in memory see it."""
        memory, key = self.memory(t), self.key(t)
        base = memory.base
        memory.views = {key: number}
        if base is None or base[1] == key or (base[1][3] == t.dtype and dense(base[1]) and dense(key)
                                              and base[1][0] == key[0] and count(base[1]) == t.numel()):  # fmt: skip
            memory.base = (number, key)
            return
        offset, shape, strides, dtype, *_ = base[1]
        if dtype != t.dtype:
            memory.base = None
            return
        with _disable_current_modes():
            around = torch.as_strided(t.detach(), shape, strides, offset)
        after = self.write(around, "written", "intermediate")
        self.node("isotrace", "write", [base[0], number], [after], window(t, base[1]))
        memory.base = (after, base[1])

    def node(self, domain: str, op: str, inputs: list[Optional[int]], outputs: list[Optional[int]], attributes: dict[str, Any]) -> None:
        """A call of an operator, where the recording now is."""
        record: dict[str, Any] = {"name": "", "op": op, "domain": domain, "inputs": inputs, "outputs": outputs}
        if attributes:
            record["attributes"] = attributes
        if self.step is not None:
            record["step"] = self.step
        if self.stack:
            record["scope"], record["call"] = [path for path, *_ in self.stack if path], self.stack[-1][1]
        where = location()
        if where:
            record["location"] = where
        self.writer.node(record)

    def named(self, t: torch.Tensor, name: str, role: str, **more: Any) -> int:
        """The same numbers under a name of their own: an output, a gradient."""
        if not self.operators:
            return self.value(t, name, role, **more)
        source = self.value(t)
        memory = self.memory(t)
        views, base = dict(memory.views), memory.base
        number = self.write(t, name, role, **more)
        memory.views, memory.base = views, base
        self.node("", "Identity", [source], [number], {})
        return number
