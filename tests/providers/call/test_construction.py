"""How adapters of other authors are constructed: their arguments are checked, and are part of their cache identity."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import pytest

from llm_council.errors import UnknownOption
from llm_council.middleware import Logged
from llm_council.models import GenerateRequest, GenerateResponse, ProviderCapabilities
from llm_council.providers.base import ProviderAdapter, Secret
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.openai import OpenAIProvider


class Plain(ProviderAdapter):
    name = "plain"
    capabilities = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse(text="yes")


class Own(Plain):
    def __init__(self, base_url: str = "https://a.example", api_key: Any = None, *, tenant: Any = None) -> None:
        self.base_url = base_url


class House(OpenAICompatibleProvider):
    name = "house"
    BASE_URL = "https://llm.example.com/v1"

    def __init__(self, *, tenant: str, **options: Any) -> None:
        super().__init__(**options)
        self.tenant = tenant


class Tenant(Enum):
    NORTH = 1
    SOUTH = 2


@attrs.frozen
class Place:
    city: str


def function() -> None:
    """Have a name."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        (1, "1"),
        (True, 1.5),
        (["a", "b"], ["b", "a"]),
        ({"a": 1}, {"a": 2}),
        ({"a"}, {"b"}),
        (b"a", b"b"),
        (Path("a"), Path("b")),
        (Tenant.NORTH, Tenant.SOUTH),
        (Place("Ulm"), Place("Bonn")),
        (Secret("key-one-123456"), Secret("key-two-123456")),
        (Own, Plain),
        (function, print),
        (Own("https://x.example"), Own("https://y.example")),
    ],
)
def test_two_arguments_have_two_identities_and_equal_ones_have_one(one: Any, other: Any) -> None:
    assert Own(tenant=one).cache_identity() != Own(tenant=other).cache_identity()
    assert Own(tenant=one).cache_identity() == Own(tenant=one).cache_identity()


def test_defaults_and_positions_do_not_matter() -> None:
    made = [Own(), Own("https://a.example"), Own(base_url="https://a.example", tenant=None)]
    assert len({adapter.cache_identity() for adapter in made}) == 1


@pytest.mark.parametrize("value", [object(), lambda: None], ids=["object", "lambda"])
def test_what_cannot_be_compared_is_never_shared(value: Any) -> None:
    one = Own(tenant=value)
    assert one.cache_identity() == one.cache_identity()
    assert one.cache_identity() != Own(tenant=value).cache_identity()


def test_a_limit_that_processes_share_does_not_depend_on_an_object_of_one_process() -> None:
    one, two = (Own(tenant=object()) for _ in range(2))
    assert one._limit_identity() == two._limit_identity() == Logged(two)._limit_identity()
    assert House(tenant="a", api_key="key-12345678")._limit_identity().startswith(f"{__name__}.House:house:")


def test_an_argument_that_holds_itself_is_no_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert Own(tenant=circle).cache_identity()


def test_no_secret_is_in_an_identity() -> None:
    assert "key-one-123456" not in Own(api_key="key-one-123456").cache_identity()


def test_a_class_without_arguments_has_its_name_alone() -> None:
    assert Plain().cache_identity() == f"{__name__}.Plain:plain"


def test_arguments_of_a_subclass_of_a_built_in_class_count_too() -> None:
    identities = {House(tenant=tenant, api_key="key-12345678").cache_identity() for tenant in ("a", "b")}
    assert len(identities) == 2


def test_a_built_in_class_names_what_decides_its_answers() -> None:
    one, two = (OpenAIProvider(api_key="key-12345678", transport=transport) for transport in (None, None))
    assert one.cache_identity() == two.cache_identity()


def test_a_copy_keeps_its_identity() -> None:
    made = Own("https://b.example")
    assert pickle.loads(pickle.dumps(made)).cache_identity() == made.cache_identity()


def test_an_identity_is_the_same_in_every_process() -> None:
    code = (
        "from llm_council.testing.fakes import ScriptedProvider\n"
        "class Own(ScriptedProvider):\n"
        "    def __init__(self, tenants): pass\n"
        "print(Own({'a', 'b', 'c'}).cache_identity())\n"
    )
    seeds = ({**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2"))
    said = [subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True) for env in seeds]
    assert said[0].stdout == said[1].stdout != b""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Own(basurl="x"),
            r"Own takes no 'basurl'; did you mean 'base_url'\?; it takes base_url, api_key, tenant",
        ),
        (lambda: Plain(key="x"), "Plain takes no 'key'; it takes no options"),
        (lambda: Plain("x"), "Plain takes no arguments"),
        (lambda: House(tenant="a", modle="x"), "House takes no 'modle'.*it takes tenant, .*base_url"),
        (lambda: OpenAIProvider(modle="x"), "OpenAIProvider takes no 'modle'.*it takes .*default_model"),
    ],
)
def test_an_unknown_argument_fails_at_construction_with_the_accepted_names(make: Any, words: str) -> None:
    with pytest.raises(UnknownOption, match=words) as caught:
        make()
    assert isinstance(caught.value, TypeError)


def test_data_classes_are_providers_too() -> None:
    @attrs.define(eq=False)
    class Defined(Plain):
        base_url: str = "https://a.example"

    @dataclasses.dataclass(eq=False)
    class Data(Plain):
        base_url: str = "https://a.example"

    for cls in (Defined, Data):
        assert cls().cache_identity() == cls(base_url="https://a.example").cache_identity()
        assert cls().cache_identity() != cls(base_url="https://b.example").cache_identity()
        with pytest.raises(UnknownOption, match="it takes base_url"):
            cls(url="x")  # type: ignore[call-arg]


def test_a_constructor_without_a_signature_is_left_alone() -> None:
    class Odd(Plain):
        __init__ = type("Hidden", (), {"__signature__": 3, "__call__": lambda *_, **__: None})()

    assert Odd(anything=1).cache_identity()


def test_a_class_that_accepts_any_option_gets_them() -> None:
    class Open(Plain):
        def __init__(self, **options: Any) -> None:
            self.options = options

    assert Open(anything=1).options == {"anything": 1}
    assert Open(anything=1).cache_identity() != Open(anything=2).cache_identity()
