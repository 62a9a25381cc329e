"""Thoughts in front of an answer are told apart wherever the text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council._wire.think import ThoughtSplitter, split_thoughts

TEXTS = [
    ("plain", "", "plain"),
    ("", "", ""),
    ("  plain", "", "  plain"),
    ("<think>hm</think>yes", "hm", "yes"),
    ("\n<think>\nhm  hm\n</think>\n\nyes ", "\nhm  hm\n", "yes "),
    ("<think></think>yes", "", "yes"),
    ("<think>cut", "cut", ""),
    ("<think>a</thin", "a</thin", ""),
    ("<think>a < b </think>c", "a < b ", "c"),
    ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ("<thi", "", "<thi"),
    (" " * 1001 + "<think>a</think>b", "", " " * 1001 + "<think>a</think>b"),
    ("<thinking>x", "", "<thinking>x"),
    ("say <think>x</think>", "", "say <think>x</think>"),
    ("they ask\n</think>\n\ntwo", "they ask", "two"),
    ("they ask</think>two", "they ask", "two"),
    ("they ask</think>", "they ask", ""),
    ("</think>two", "", "two"),
    ("a</think>b</think>c", "a", "b</think>c"),
    ("it ends with `</think>`, then the answer", "", "it ends with `</think>`, then the answer"),
    ('it ends with "</think>"', "", 'it ends with "</think>"'),
    ("see:\n```\n</think>\n```\n", "", "see:\n```\n</think>\n```\n"),
    ("use `a </think> b` there", "", "use `a </think> b` there"),
    ("a" * (1 << 20) + "b</think>c", "", "a" * (1 << 20) + "b</think>c"),
]


@pytest.mark.parametrize(("text", "thoughts", "answer"), TEXTS)
def test_thoughts_open_at_the_beginning_or_end_with_a_lone_tag(text: str, thoughts: str, answer: str) -> None:
    assert split_thoughts(text) == (thoughts, answer)


pieces = st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think", ">", "a", " ", "\n"]), max_size=12)


@pytest.mark.slow
@examples(400)
@given(pieces, st.lists(st.integers(0, 60), max_size=8))
def test_the_cuts_do_not_matter(words: list[str], cuts: list[int]) -> None:
    text = "".join(words)
    splitter = ThoughtSplitter()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    found: list[tuple[str, str]] = []
    for start, end in pairwise(places):
        pair = splitter.feed(text[start:end])
        found = [pair] if splitter.restarted else [*found, pair]
    pair = splitter.finish()
    found = [pair] if splitter.restarted else [*found, pair]
    assert ("".join(a for a, _ in found), "".join(b for _, b in found)) == split_thoughts(text)
