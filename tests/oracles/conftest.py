"""Tests with the vendors' own SDKs. Only the environment ``oracles`` installs them; every module has its marker."""

import pytest


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
