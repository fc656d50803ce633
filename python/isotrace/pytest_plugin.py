"""pytest's plugin: failures of `isotrace.assert_equivalent` are shown from the test's own line."""

import pytest


@pytest.fixture
def assert_equivalent():
    """`isotrace.assert_equivalent`, as a fixture."""
    import isotrace

    return isotrace.assert_equivalent
