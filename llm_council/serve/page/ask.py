"""Ask: the form, and what it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
from starlette.datastructures import FormData, UploadFile

from llm_council import subagents
from llm_council._seats.seating import Seating
from llm_council.council import Council
from llm_council.models import Attachment, Budget, SeatSpec
from llm_council.serve.chat import RequestRefused, lower_limit
from llm_council.strategies import list_strategies

if TYPE_CHECKING:
    from llm_council.models import Plan

__all__ = ["Form", "council_with", "form_values", "read_form", "run_options", "seats_of_form"]

_MOST_FILES = 100


@attrs.frozen(kw_only=True)
class Form:
    """What is in the fields of the form.

    Attributes:
        task: the task.
        role: a role, or ``role:mode``.
        strategy: the strategy; empty for the configured one.
        seats: names of seats of the council.
        further: further seats, with commas between them.
        context: text for every seat.
        deadline: seconds at most; empty for the configured limit.
        usd: US dollars at most; likewise.
        follows: the run that this one goes on from; empty for none.
        same_seats: True to take the seats of that run.
        files: the files.
    """

    task: str = ""
    role: str = "advisor"
    strategy: str = ""
    seats: tuple[str, ...] = ()
    further: str = ""
    context: str = ""
    deadline: str = ""
    usd: str = ""
    follows: str = ""
    same_seats: bool = False
    files: tuple[Attachment, ...] = ()

    @classmethod
    def of_plan(cls, plan: Plan, council: Council) -> Form:
        """Return the form that would ask the same again. Of its files, there are the names alone, not the bytes."""
        here = {(spec.name, spec.provider) for spec in council._seating.specs}
        others = [seat for seat in plan.seats if (seat.name, seat.provider) not in here]
        return cls(
            task=plan.task,
            role=f"{plan.subagent}:{plan.mode}" if plan.mode else plan.subagent,
            strategy="" if plan.strategy == council.config.strategy else plan.strategy,
            seats=tuple(seat.name for seat in plan.seats if (seat.name, seat.provider) in here),
            further=", ".join(f"{seat.provider}/{seat.model}" if seat.model else seat.provider for seat in others),
            context=plan.context or "",
            files=plan.files,
        )


async def read_form(data: FormData) -> Form:
    """Read a form that was sent.

    Raises:
        RequestRefused: a file cannot be used.
    """
    files = []
    for upload in data.getlist("files"):
        if isinstance(upload, UploadFile) and (upload.filename or upload.size):
            name = (upload.filename or "").replace("\\", "/").rpartition("/")[2]
            files.append(Attachment(await upload.read(), name=name or None))
    texts = {field: value for field, value in data.items() if isinstance(value, str)}
    names = ("role", "strategy", "further", "deadline", "usd", "follows")
    return Form(
        task=_lines(texts.get("task", "")),
        context=_lines(texts.get("context", "")),
        seats=tuple(str(name) for name in data.getlist("seat")),
        same_seats=bool(texts.get("same_seats")),
        files=tuple(files),
        **{name: texts[name].strip() for name in names if name in texts},
    )


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")  # browsers send these line ends, whatever was typed


def form_values(form: Form, council: Council) -> dict[str, Any]:
    """Return the variables of the template ``ask.html``."""
    budget = council.config.budget
    return {
        "form": form,
        "roles": _roles(council),
        "strategies": _strategies(council),
        "default_strategy": council.config.strategy,
        "seats": council._seating.specs,
        "most_seconds": f"{budget.deadline:g}",
        "most_usd": "no limit" if budget.usd is None else f"{budget.usd:g}",
    }


def _strategies(council: Council) -> list[str]:
    built_in = [strategy.name for strategy in list_strategies()]
    return list(dict.fromkeys([*built_in, *council.config.strategies]))


def _roles(council: Council) -> list[tuple[str, str]]:
    """Return each role and each of its modes, with a label."""
    found: list[tuple[str, str]] = []
    for role in subagents.names(council.config.subagent_paths):
        if role.error is not None:
            continue
        if role.modes:
            found += [(f"{role.name}:{mode}", f"{role.name} · {mode}") for mode in role.modes]
        else:
            found.append((role.name, role.name))
    return found


def run_options(form: Form, council: Council) -> tuple[str, dict[str, Any]]:
    """Return the role of a form, and the options of its run.

    Raises:
        RequestRefused: a field is wrong; the message names it.
    """
    if not form.task.strip():
        raise RequestRefused("Task: say what to do")
    role, _, mode = form.role.partition(":")
    # Elsewhere a role may be the path of a file, and a request must not name files of the server.
    if (role, mode) not in {tuple(value.partition(":")[::2]) for value, _ in _roles(council)} and mode:
        raise RequestRefused(f"Role: there is no role {form.role!r:.80}")
    if role not in {value.partition(":")[0] for value, _ in _roles(council)}:
        raise RequestRefused(f"Role: there is no role {form.role!r:.80}")
    if form.strategy and form.strategy not in _strategies(council):
        raise RequestRefused(f"Strategy: there is no strategy {form.strategy!r:.80}")
    if len(form.files) > _MOST_FILES:
        raise RequestRefused(f"Files: at most {_MOST_FILES}")
    deadline, usd = _amount("Seconds at most", form.deadline), _amount("US dollars at most", form.usd)
    options: dict[str, Any] = {
        "mode": mode or None,
        "context": form.context or None,
        "files": form.files,
        "strategy": form.strategy or None,
        "budget": Budget(
            deadline=council.config.budget.deadline if deadline is None else deadline,
            usd=lower_limit(usd, council.config.budget.usd),
        ),
    }
    if role == "advisor":
        options["output_type"] = str  # prose, whose words can be read while they are written
    return role, options


def _amount(label: str, text: str) -> float | None:
    if not text:
        return None
    try:
        amount = float(text.replace(",", "."))
    except ValueError:
        amount = -1.0
    if not 0 < amount < 1e9:
        raise RequestRefused(f"{label}: a number above 0, got {text!r:.40}")
    return amount


def seats_of_form(form: Form, council: Council) -> Sequence[SeatSpec]:
    """Return the seats that a form asks for.

    Raises:
        ConfigurationError: a seat is unknown, or there is none.
    """
    specs = council._seating.specs
    known = {spec.name for spec in specs}
    unknown = [name for name in form.seats if name not in known]
    if unknown:
        raise RequestRefused(f"Seats: the council has no seat {unknown[0]!r:.80}")
    chosen = [spec for spec in specs if spec.name in form.seats]
    further = [text.strip() for text in form.further.split(",") if text.strip()]
    if further:
        chosen += Seating.fill(further, council.config).specs
    if not chosen:
        raise RequestRefused("Seats: choose one or more")
    names = [spec.name for spec in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestRefused(f"Seats: {twice!r:.80} is there twice")
    return chosen


def council_with(council: Council, specs: Sequence[SeatSpec]) -> Council:
    """Return the council with other seats; the same one if it has these."""
    if tuple(specs) == council._seating.specs:
        return council
    twin = council._reseated(specs)
    names = {spec.name for spec in specs}
    if twin._config.chair is not None and twin._config.chair not in names:
        twin._config = attrs.evolve(twin._config, chair=None)
    return twin
