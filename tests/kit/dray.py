"""What all tests that start a `dray` share: the command, its environment, a client of it, whether it answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx

DRAY = str(Path(sys.executable).parent / "dray")


def environment() -> dict[str, str]:
    """This process's, without what would lead a `dray` elsewhere than its test says."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("DRAY_", "REDIS_")) and name != "LOG_LEVEL"}


def client(url: str, token: str | None = None, timeout: float = 5) -> httpx.Client:
    """For the caller to close. What is said of a proxy in the environment does not count."""
    return httpx.Client(base_url=url, timeout=timeout, headers={"Authorization": f"Bearer {token}"} if token else {}, trust_env=False)


def answers(asked: httpx.Client, path: str = "/readyz") -> bool:
    """Whether it says that all is well."""
    try:
        return asked.get(path).status_code == 200
    except httpx.TransportError:
        return False
