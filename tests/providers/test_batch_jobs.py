"""What all vendors' batch jobs share: ids, and adapters that offer none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import InvalidOption
from llm_council.providers.batch_jobs import custom_id, new_reference, split_custom_id
from llm_council.testing import ScriptedProvider


@given(st.from_regex(r"[A-Za-z0-9]{1,31}", fullmatch=True), st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True))
def test_a_custom_id_holds_the_reference_and_our_id(reference, call):
    text = custom_id(reference, call)
    assert split_custom_id(text) == (reference, call)
    assert len(text) <= 64


def test_a_new_reference_is_valid_and_unlike_the_last_one():
    reference = new_reference()
    assert split_custom_id(custom_id(reference, "0")) == (reference, "0")
    assert reference != new_reference()


@pytest.mark.parametrize(("reference", "call"), [("a_b", "0"), ("a" * 32, "0"), ("", "0"), ("a", ""), ("a", "b c")])
def test_an_id_that_some_vendor_refuses_is_refused(reference, call):
    with pytest.raises(InvalidOption, match="letters"):
        custom_id(reference, call)


@pytest.mark.parametrize("text", [None, 3, "", "plain", "_0", "a_"])
def test_an_id_of_another_program_has_no_reference(text):
    assert split_custom_id(text) == ("", "")


def test_an_adapter_offers_no_batch_jobs_unless_it_says_so():
    assert ScriptedProvider("four").batch_jobs() is None
