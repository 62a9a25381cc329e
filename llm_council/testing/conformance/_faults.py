"""Promises about failures: each is raised as the right error, never taken for an answer, and leaves nothing open."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    CouncilError,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
)
from llm_council.models import GenerateResponse
from llm_council.providers.base import ProviderAdapter, call
from llm_council.testing.conformance._base import ASK, TEXT, ConformanceBase, both_ways, call_streamed, captured_logs
from llm_council.testing.conformance._promises import fail, promise
from llm_council.testing.servers import Cut, Edited, Hang, Raw, Refuse, Said

__all__ = ["Faults"]

# Replies without an answer, as servers, gateways and captive portals send them.
_EMPTY: tuple[Said, ...] = (
    Raw(b""),
    Raw(b"{}"),
    Raw(b"null"),
    Raw(b"[]"),
    Raw(b'""'),
    Raw(b"<html>Sign in</html>", media_type="text/html"),
    GenerateResponse(text=""),
)
# Values for a count of tokens that a gateway might send: null, negative, text, beyond 64 bits, another type.
_ODD_COUNTS: tuple[Any, ...] = (None, -1, "12", 1.5, 10**30, True, [], {}, {"all": "many"})
# Each refusal with the error class and the ``retryable`` that it must become.
_REFUSALS: tuple[tuple[Refuse, type[ApiError], bool], ...] = (
    (Refuse(status=400, message="words-of-400"), RequestRejected, False),
    (Refuse(status=401, message="words-of-401"), AuthenticationFailed, False),
    (Refuse(status=429, message="words-of-429", retry_after=7), RateLimited, True),
    (Refuse(status=500, message="words-of-500"), ServerFailed, True),
)


class Faults(ConformanceBase):
    """Failures are raised as the right error, never taken for an answer, and leave nothing open."""

    @promise(
        "an empty reply is an error, never an answer",
        remedy="raise EmptyReply or MalformedReply if a reply has neither text nor tool calls",
    )
    async def test_empty(self) -> None:
        """Reply with nothing, in several ways."""
        async with self.stage(TEXT) as stage:
            for empty in _EMPTY:
                stage.vendor.said = empty
                shown = empty.body.decode() if isinstance(empty, Raw) else "an empty text"
                for ask in (call, call_streamed):
                    try:
                        response = await ask(stage.adapter, ASK)
                    except ProviderError:
                        continue
                    if ask is call or response.text or response.tool_calls:
                        fail(f"the vendor's reply has no answer ({shown}), but the adapter returned {response.text!r}")

    @promise(
        "a reply whose connection ends too early is an error, never an answer",
        remedy="raise ConnectionLost if a reply or a stream ends before its end",
    )
    async def test_cut(self) -> None:
        """Cut a reply and a stream at several places."""
        async with self.stage(TEXT) as stage:
            # At 20 % the text has hardly begun; at 70 % a stream has text, and JSON lacks its end.
            for share in (0.2, 0.7):
                stage.vendor.said = Cut(TEXT, share)
                for response in await _answers(stage.adapter):
                    fail(f"the vendor cut its reply after {share:.0%}, but the adapter returned {response.text!r}")

    @promise(
        "an error in the middle of a stream is an error, never the end of an answer",
        remedy="raise the error that an event of the stream reports",
    )
    async def test_midway(self) -> None:
        """Fail after the first words."""
        async with self.stage(Refuse(status=503, message="words-of-503", after="The first words")) as stage:
            for response in await _answers(stage.adapter):
                fail(f"the vendor sent an error after the first words, but the adapter returned {response.text!r}")

    @promise(
        "an error status raises the matching error, with the vendor's message and Retry-After",
        remedy="call raise_for_status(), or raise the matching class of llm_council.errors",
    )
    async def test_errors(self) -> None:
        """Refuse by status."""
        async with self.stage(TEXT) as stage:
            for refuse, kind, retryable in _REFUSALS:
                stage.vendor.said = refuse
                for ask in (call, call_streamed):
                    try:
                        await ask(stage.adapter, ASK)
                    except ProviderError as error:
                        _check_error(error, refuse, kind, retryable=retryable)
                    else:
                        fail(f"the vendor refused with status {refuse.status}, but the adapter returned an answer")

    @promise(
        "one call sends one request to the vendor: the council retries",
        remedy="make one request in generate, and let its error pass",
    )
    async def test_retries(self) -> None:
        """Count the calls after a failure that may be tried again."""
        async with self.stage(Refuse(status=503, message="busy")) as stage:
            for ask in (call, call_streamed):
                before = len(stage.vendor.calls)
                try:
                    await ask(stage.adapter, ASK)
                except ProviderError:
                    made = len(stage.vendor.calls) - before
                    if made > 1:
                        fail(f"a failed call sent {made} requests to the vendor")

    @promise("unexpected token counts do not fail the call, and are reported as unknown, not as 0")
    async def test_odd_usage(self) -> None:
        """Replace the counts of tokens by values that no one expects."""
        keys = self._usage_keys()
        async with self.stage(TEXT) as stage:
            for odd in ("missing", *_ODD_COUNTS):
                for inside in (False, True):
                    stage.vendor.said = Edited(TEXT, partial(_with_counts, keys=keys, odd=odd, inside=inside))
                    try:
                        responses = await both_ways(stage.adapter)
                    except CouncilError as error:
                        remedy = "read counts with Usage.counted()"
                        fail(f"the token count {odd!r} raised an error, {error.message!r}: {remedy}")
                    for response in responses:
                        if response.text != TEXT:
                            remedy = "read the text apart from the counts"
                            fail(f"the token count {odd!r} changed the answer to {response.text!r}: {remedy}")
                        usage = response.usage
                        if usage is not None and 0 in (usage.input_tokens, usage.output_tokens):
                            fail(f"the token count {odd!r} was reported as 0: report an unknown count as None")

    @promise(
        "unknown fields in a reply do not change the answer",
        remedy="read the fields that you need, and ignore all others",
    )
    async def test_unknown_fields(self) -> None:
        """Add a field to every object of the reply."""
        async with self.stage(Edited(TEXT, _with_unknown_fields)) as stage:
            for response in await both_ways(stage.adapter):
                if response.text != TEXT:
                    fail(f"unknown fields in the reply changed the answer to {response.text!r}")

    @promise(
        "a cancelled call ends at once and closes its connection; the next call works",
        remedy="let the cancellation pass, and read the reply in `async with`",
    )
    async def test_cancellation(self) -> None:
        """Cancel a call to a vendor that hangs."""
        async with self.stage(TEXT) as stage:
            # The first call may import modules and open a connection, which would blur what is tested.
            await call(stage.adapter, ASK)
            stage.vendor.said = Hang()
            wanted = len(stage.vendor.asked) + 1
            with captured_logs("llm_council", logging.WARNING) as warned:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call, stage.adapter, ASK)
                    if not await anyio.to_thread.run_sync(stage.vendor.wait_asked, wanted, self.patience / 2):
                        fail("the call sent no request to the vendor")
                    tasks.cancel_scope.cancel()
            if any("ignores its cancellation" in line for line in warned):
                fail("the adapter went on after its call was cancelled")
            await self.left(stage.vendor, "the call was cancelled")
            stage.vendor.said = TEXT
            if (await call(stage.adapter, ASK)).text != TEXT:
                fail("the call after the cancelled one returned a wrong answer")

    @promise(
        "a call that exceeds its deadline raises TimedOut and closes its connection",
        remedy="let the cancellation pass, and read the reply in `async with`",
    )
    async def test_timeouts(self) -> None:
        """Ask a vendor that hangs, for a short time."""
        async with self.stage(TEXT) as stage:
            await call(stage.adapter, ASK)  # the first call may import modules, which takes time
            stage.vendor.said = Hang()
            before = len(stage.vendor.asked)
            # On a busy machine, 0.15 s may be too short to reach the vendor: then more time is given.
            for seconds in (0.15, 1.5, self.quick):
                try:
                    await call(stage.adapter, ASK, deadline=seconds)
                except TimedOut:
                    if len(stage.vendor.asked) > before:  # else the time was too short to reach the vendor
                        break
                except ProviderError as error:
                    fail(f"after the deadline the call raised {type(error).__name__}, not TimedOut: {error.message}")
                else:
                    fail("the vendor sent no reply, but the adapter returned an answer")
            await self.left(stage.vendor, "the call exceeded its deadline")


async def _answers(adapter: ProviderAdapter) -> list[GenerateResponse]:
    """Call twice, without and with a stream; return the answers of the calls that raise no ``ProviderError``."""
    answers = []
    for ask in (call, call_streamed):
        with suppress(ProviderError):
            answers.append(await ask(adapter, ASK))
    return answers


def _check_error(error: ProviderError, refuse: Refuse, kind: type[ApiError], *, retryable: bool) -> None:
    if not isinstance(error, kind):
        fail(f"status {refuse.status} raised {type(error).__name__} ({error.message}), not {kind.__name__}")
    if error.retryable is not retryable:
        fail(f"the error of status {refuse.status} has retryable={error.retryable}, expected {retryable}")
    if refuse.message not in f"{error.message} {error.body}":
        fail(f"the error of status {refuse.status} does not contain the vendor's message: {error.message}")
    if refuse.retry_after is not None and error.retry_after != refuse.retry_after:
        fail(f"the vendor sent Retry-After: {refuse.retry_after:g}, but retry_after is {error.retry_after!r}")


def _with_counts(value: Any, *, keys: tuple[str, ...], odd: Any, inside: bool) -> Any:
    """Return JSON with its counts of tokens replaced by ``odd``, or removed if that is ``"missing"``.

    Args:
        value: the JSON of a reply or an event.
        keys: the keys under which tokens are counted.
        odd: the new value.
        inside: replace each number inside the counts, not the object as a whole.
    """
    if isinstance(value, list):
        return [_with_counts(item, keys=keys, odd=odd, inside=inside) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {}
    for key, item in value.items():
        if key not in keys:
            changed[key] = _with_counts(item, keys=keys, odd=odd, inside=inside)
        elif inside and isinstance(item, dict):
            changed[key] = _replace_leaves(item, odd)
        elif odd != "missing":
            changed[key] = odd
    return changed


def _replace_leaves(value: Any, odd: Any) -> Any:
    if not isinstance(value, dict):
        return odd
    return {} if odd == "missing" else {key: _replace_leaves(item, odd) for key, item in value.items()}


def _with_unknown_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            **{key: _with_unknown_fields(item) for key, item in value.items()},
            "x_new_in_2030": {"deep": [1, None]},
        }
    return [_with_unknown_fields(item) for item in value] if isinstance(value, list) else value
