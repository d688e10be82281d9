from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testbed.ledger import Ledger, serving


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with serving(tmp_path) as running:
        yield running
