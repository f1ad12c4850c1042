from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def command(invoke: Callable[..., Any]) -> Callable[..., str]:
    """``command("predict", model, folder)``: what that command prints; it must succeed."""

    def run(*arguments: object) -> str:
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        printed: str = result.stdout
        return printed

    return run
