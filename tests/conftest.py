"""What several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of photos, weights and reference vectors beside the checkout; the test is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the shared photos and reference vectors are not on this machine")
    return SHARED
