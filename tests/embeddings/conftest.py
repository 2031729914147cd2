"""Embeddings that several tests score."""

from __future__ import annotations

from typing import Any

import pytest

from tests.embeddings.kept import N, vectors


@pytest.fixture
def found() -> list[dict[str, Any]]:
    """Two models with embeddings of different length."""
    return [vectors(N, 24, 0), vectors(N, 40, 1)]
