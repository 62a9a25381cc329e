"""The vendors' own SDKs, which only the environment ``oracles`` installs: every module here is marked with its name."""

import pytest


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
