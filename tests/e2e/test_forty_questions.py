"""Forty short questions to three seats of the default model: nothing of our prompts stands in an answer."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_council import Council
from llm_council.models import Status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

QUESTIONS = """\
What is the capital of France?
How many days are in a week?
What colour is the sky on a clear day?
Who wrote Romeo and Juliet?
What is 7 times 8?
Name three fruits.
What is the largest planet?
How do I boil an egg?
What is photosynthesis?
Should I use tabs or spaces?
Is water wet?
Write a haiku about rain.
What is the speed of light?
Translate "good morning" into Spanish.
What does HTTP stand for?
Why is the sea salty?
Summarise: The meeting moved to Friday.
Which is heavier, a kilogram of feathers or of iron?
What is a good name for a cat?
How many legs does a spider have?
Hello
Who are you?
What is the square root of 81?
When did the Second World War end?
Explain recursion in one sentence.
What is a variable?
Give me a reason to learn Python.
What is the opposite of hot?
Where do penguins live?
How far is the Moon?
What should I cook tonight?
What is the boiling point of water?
Is 17 a prime number?
What is a black hole?
Who painted the Mona Lisa?
Tell me a joke.
What language is spoken in Brazil?
How do vaccines work?
What is the currency of Japan?
Which is better, a long or a short text?
""".splitlines()

MARKS = re.compile(
    r"\[\[\[|\]\]\]|[0-9a-f]{16}"  # fences
    r"|\b(?-i:(?:Draft|Review) (?:[A-Z]|\d))\b|RANKING|I have read it"  # labels, and our own turns
    r"|^\s*(?:system|user|assistant)\s*:"  # speakers
    r"|\b(?:advisor|local-[123])\b",  # our role, and the names of our seats
    re.IGNORECASE | re.MULTILINE,
)


def test_no_fence_label_or_role_of_ours_is_in_an_answer(smollm):
    assert len(QUESTIONS) == 40
    found = {}
    # Short texts, three questions at once: the test takes some minutes as it is.
    with Council(["local:3"]) as council, ThreadPoolExecutor(3) as threads:
        results = threads.map(lambda question: council.run_sync(question, max_tokens=32), QUESTIONS)
        for question, result in zip(QUESTIONS, results, strict=True):
            print(question, "->", result.output, flush=True)
            assert result.status is Status.COMPLETED, (question, result.error, result.warnings)
            assert any("demonstration model" in warning for warning in result.warnings)
            texts = [*result.output.values(), result.text, *result.drafts.values(), *result.critiques.values()]
            found |= {text: mark[0] for text in texts if (mark := MARKS.search(text))}
    assert found == {}
