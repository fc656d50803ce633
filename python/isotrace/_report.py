"""The report of a comparison: attributes are the fields of the JSON (schema isotrace.report/1)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any


class Record:
    """A JSON object whose fields are attributes."""

    def __init__(self, fields: dict[str, Any]):
        self.__dict__.update({name: record(value) for name, value in fields.items()})

    if TYPE_CHECKING:
        # Which fields there are is the JSON's schema to say.
        def __getattr__(self, name: str) -> Any: ...

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.__dict__ == other.__dict__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


def record(value: Any) -> Any:
    if isinstance(value, dict):
        return Record(value)
    return [record(v) for v in value] if isinstance(value, list) else value


class Report(Record):
    """What `isotrace.diff` found. `bool(report)` is true where nothing but rounding parts the two."""

    schema: str
    verdict: str
    reason: str
    a: Record
    b: Record
    pairs: list[Any]
    culprits: list[Any]
    warnings: list[Any]
    exit_code: int

    def __init__(self, text: str, shown: str, exit_code: int):
        self._json, self._text = text, shown
        self.exit_code = exit_code
        super().__init__(json.loads(text))

    def __bool__(self) -> bool:
        return self.exit_code == 0

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<isotrace.Report {self.verdict}: {self.reason}>"

    def to_json(self) -> str:
        """The report as the program writes it."""
        return self._json

    def to_dict(self) -> dict[str, Any]:
        """The report as plain lists and dictionaries."""
        fields: dict[str, Any] = json.loads(self._json)
        return fields
