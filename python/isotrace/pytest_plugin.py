"""pytest's plugin: failures of `isotrace.assert_equivalent` are shown from the test's own line."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def assert_equivalent() -> Callable[..., None]:
    """`isotrace.assert_equivalent`, as a fixture."""
    import isotrace

    return isotrace.assert_equivalent
