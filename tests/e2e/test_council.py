"""Three seats of the default model, from a task to an answer that meets its schema."""

import pytest

from llm_council import Council, subagents
from llm_council._schema import compile as compiled
from llm_council.models import Status
from llm_council.providers._local import engine as local_engine
from llm_council.providers.local import LocalProvider

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("subagent", "task"),
    [
        ("advisor", "What is the capital city of France?"),
        ("implementer", "Write a Python function that adds two numbers."),
        ("reviewer", "Review this function: def add(a, b): return a - b"),
    ],
)
def test_three_seats_of_the_default_model_give_a_valid_answer(smollm, subagent, task):
    with Council(providers=["local:3"]) as council:
        result = council.run(task, subagent=subagent)
        assert len(local_engine._engines) == 1
    assert result.status is Status.COMPLETED, (result.error, result.warnings)
    assert compiled(subagents.load(subagent).schema).problems(result.output) == ()
    assert len(result.drafts) >= 2
    assert result.text
    assert not local_engine._engines


def test_seats_that_write_noise_give_a_valid_answer_for_every_role(tiny):
    """A council's answer has the right form at the first try, even if its seats write noise."""
    seat = LocalProvider(context=32_768)  # noise goes on until max_tokens, and the chair is shown five pieces of it
    with Council(providers=[seat, seat, seat]) as council:
        for info in subagents.names():
            result = council.run("Do it.", subagent=info.name, max_tokens=1024)
            assert result.status is Status.COMPLETED, (info.name, result.error, result.warnings)
            assert compiled(subagents.load(info.name).schema).problems(result.output) == ()
            assert "repair" not in {str(timing.phase) for timing in result.phases}
