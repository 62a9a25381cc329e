"""What every call of a run shares."""

import contextvars

from llm_council._runtime import call_context


def test_outside_a_run_there_is_no_deadline_and_no_retry_limit():
    scope = call_context.current()
    assert (scope.run_id, scope.deadline, scope.left()) == (None, None, None)


def test_the_remaining_time_is_read_from_the_clock_of_the_run():
    now = [100.0]
    scope = call_context.RunScope(deadline=107.5, clock=lambda: now[0])
    assert scope.left() == 7.5
    now[0] = 200.0
    assert scope.left() == 0.0


def test_scopes_nest_and_stay_in_their_context():
    outer, inner = call_context.RunScope(run_id="outer"), call_context.RunScope(run_id="inner")
    with call_context.entered(outer):
        with call_context.entered(inner):
            assert call_context.current() is inner
            inside = contextvars.copy_context()
        assert call_context.current() is outer
    assert call_context.current().run_id is None
    assert inside.run(call_context.current) is inner
