"""What every call of a run shares."""

import contextvars

from llm_council import _scope


def test_outside_any_run_nothing_is_bounded():
    scope = _scope.current()
    assert (scope.run_id, scope.deadline, scope.left()) == (None, None, None)


def test_the_time_left_is_read_from_the_runs_own_clock():
    now = [100.0]
    scope = _scope.RunScope(deadline=107.5, clock=lambda: now[0])
    assert scope.left() == 7.5
    now[0] = 200.0
    assert scope.left() == 0.0


def test_scopes_nest_and_stay_in_their_context():
    outer, inner = _scope.RunScope(run_id="outer"), _scope.RunScope(run_id="inner")
    with _scope.entered(outer):
        with _scope.entered(inner):
            assert _scope.current() is inner
            inside = contextvars.copy_context()
        assert _scope.current() is outer
    assert _scope.current().run_id is None
    assert inside.run(_scope.current) is inner
