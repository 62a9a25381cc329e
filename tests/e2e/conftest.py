"""The real engine, with weights that the tests write, and with the default ones that the environment has fetched."""

import importlib.util
from pathlib import Path

import pytest

from llm_council.providers._local.weights import ENV, model_path


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.startswith("tests/e2e/"):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session", autouse=True)
def _engine_is_installed():
    assert importlib.util.find_spec("xllamacpp"), "install the extra: pip install 'llm-council-sdk[local]'"


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Write a model of random weights under a name; returns its path."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import tiny_model
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("models")

    def written(name="tiny", seed=0):
        path = folder / f"{name}.gguf"
        return path if path.exists() else tiny_model.write(path, seed)

    return written


@pytest.fixture
def tiny(tiny_models, monkeypatch):
    """Make a model with random weights the default."""
    monkeypatch.setenv(ENV, str(tiny_models()))


@pytest.fixture
def smollm(monkeypatch):
    """Use the shipped default model; its weights must be fetched already."""
    monkeypatch.delenv(ENV, raising=False)
    assert model_path("smollm2-135m-instruct"), "fetch the weights: council models pull"
