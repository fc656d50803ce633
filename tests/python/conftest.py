"""What several files of tests need."""

import os
import shutil

import pytest


@pytest.fixture
def inductor():
    """For tests in which torch.compile makes kernels: nothing is left of what was compiled before, and there is what
    compiles them. tests/all says so where there is not."""
    torch = pytest.importorskip("torch")
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        pytest.skip(f"inductor needs a compiler of C++, and there is no {compiler}")
    torch.compiler.reset()
    yield
    torch.compiler.reset()
