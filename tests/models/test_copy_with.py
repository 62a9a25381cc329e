"""The fast copy is the slow one."""

from functools import cached_property

import attrs
import pytest
import strategies
from hypothesis import given
from strategies import examples

from llm_council.errors import UnknownOption
from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.models._attrs import copy_with


@examples(20)
@given(strategies.requests())
def test_copy_with_equals_evolve_for_requests(request_):
    copied = copy_with(request_, model="other", stream=True)
    assert copied == attrs.evolve(request_, model="other", stream=True)
    assert type(copied) is GenerateRequest
    assert copy_with(request_) == request_


@examples(20)
@given(strategies.responses())
def test_copy_with_equals_evolve_for_responses(response):
    assert copy_with(response, model="m") == attrs.evolve(response, model="m")


def test_copy_with_keeps_the_class_of_a_subclass():
    class Mine(GenerateResponse):
        pass

    assert type(copy_with(Mine(text="x"), model="m")) is Mine


def test_copy_with_refuses_an_unknown_field():
    with pytest.raises(UnknownOption, match="'modle'"):
        copy_with(GenerateResponse(text="x"), modle="m")


def test_copy_with_copies_no_cached_value():
    class Counted(GenerateResponse):
        @cached_property
        def size(self):
            return len(self.text)

    response = Counted(text="x")
    assert response.size == 1
    assert copy_with(response, text="xyz").size == 3


def test_copy_with_copies_classes_with_slots_too():
    class Base:
        pass

    @attrs.frozen
    class Slotted(Base):
        first: int
        second: int = 2

    assert copy_with(Slotted(1), second=3) == Slotted(1, 3)
