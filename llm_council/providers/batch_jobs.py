"""Batch jobs: many calls that a vendor answers within a day, at a share of the price.

An adapter whose vendor offers them returns a ``BatchJobs`` from ``batch_jobs()``. It knows the wire alone: it gathers
nothing, waits for nothing, stores nothing and retries nothing.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum

import attrs

from llm_council.errors import CouncilError, InvalidOption
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest

__all__ = [
    "BatchCall",
    "BatchJobs",
    "FoundJob",
    "JobState",
    "JobStatus",
    "custom_id",
    "new_reference",
    "split_custom_id",
]

# Anthropic's rule for ``custom_id`` is the strictest, ``^[a-zA-Z0-9_-]{1,64}$`` (API reference, "Create a Message
# Batch"). The reference and the id of the call have to fit into it together.
_REFERENCE = re.compile(r"[A-Za-z0-9]{1,31}")
_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class JobState(StrEnum):
    """What has become of a job."""

    RUNNING = "running"
    """The vendor works on it, or is about to cancel it."""
    ENDED = "ended"
    """Each call has an answer or an error."""
    FAILED = "failed"
    """The vendor refused the job as a whole, such as for a line that it cannot read. Nothing was answered."""
    EXPIRED = "expired"
    """The vendor's time for the job ran out; some calls may have answers."""
    CANCELLED = "cancelled"
    """It was cancelled; some calls may have answers."""


@attrs.frozen(kw_only=True)
class JobStatus:
    """The state of a job.

    Attributes:
        state: the state; every state but ``RUNNING`` is final.
        total: calls in the job; None if the vendor does not say.
        done: calls that have an answer.
        failed: calls that have an error.
        error: why the job failed, in the vendor's words.
    """

    state: JobState
    total: int | None = None
    done: int | None = None
    failed: int | None = None
    error: str | None = None


@attrs.frozen(kw_only=True)
class FoundJob:
    """A job that was found by listing.

    Attributes:
        job: the vendor's id of the job.
        is_certain: True if the job carries the reference. False if only its time and its number of calls fit, because
            the vendor (Anthropic) shows nothing else before the job has ended. Look for the reference again then.
    """

    job: str
    is_certain: bool


@attrs.frozen(kw_only=True)
class BatchCall:
    """What a call will be in a job.

    Attributes:
        group: only calls with the same group may share a job. A vendor may take one model, or one endpoint, per job.
        size: bytes that the call adds to a job, for ``most_bytes``.
    """

    group: str
    size: int


class BatchJobs(ABC):
    """The batch jobs of one adapter's account. Every method makes its requests within a time limit of its own.

    Requests are those of the caller, not fitted ones: each method fits them to the model as a direct call would. An id
    of a call has 1 to 32 letters, digits, ``-`` and ``_``. A reference has 1 to 31 letters and digits, and is unique
    to a job; see ``new_reference``.

    Attributes:
        price: the share of the direct price that the vendor takes.
        most: the most calls in one job.
        most_bytes: the most bytes in one job, see ``BatchCall.size``.
        seconds: the time after which the vendor gives up a job.
    """

    price: float = 0.5
    most: int
    most_bytes: int
    seconds: float = 24 * 3600.0

    @abstractmethod
    async def prepare(self, request: GenerateRequest) -> BatchCall:
        """Check without I/O that a request can be a call of a job, and say of which.

        Raises:
            ConfigurationError: it cannot, such as for a missing key; the message names the remedy.
            CapabilityMissing: the model cannot do what the request needs.
        """

    @abstractmethod
    async def send(self, calls: Mapping[str, GenerateRequest], reference: str) -> str:
        """Send a job, and return the vendor's id of it.

        After an ``ApiError`` with a status below 500, and after a ``ConnectFailed`` or a ``ConfigurationError``, there
        is no job. After any other error, and after a cancellation, there may be one, which ``find`` finds.

        Args:
            calls: the requests by our ids of the calls. All have the same ``BatchCall.group``.
            reference: our name for the job.

        Raises:
            InvalidOption: there are no calls, too many or too large ones, or calls of several groups; or an id or the
                reference is invalid. Nothing was sent.
            ProviderError: the vendor refused the job, or may not have received it.
        """

    @abstractmethod
    async def find(self, reference: str, *, total: int, since: float) -> tuple[FoundJob, ...]:
        """Return the jobs that carry a reference, or may carry it, by listing the account's jobs. The oldest is first.

        Several carry it if a job was sent again. A vendor may list a job some seconds after it was sent.

        Args:
            reference: our name for the job.
            total: the number of its calls.
            since: Unix seconds shortly before the job was sent. Older jobs are not looked at, with some tolerance for
                differing clocks.

        Raises:
            ProviderError: the jobs could not be listed.
        """

    @abstractmethod
    async def status(self, job: str) -> JobStatus:
        """Return the state of a job.

        Raises:
            ProviderError: the vendor did not say. ``RequestRejected`` with status 404: it does not know the job.
        """

    @abstractmethod
    def outcomes(
        self, job: str, calls: Mapping[str, GenerateRequest]
    ) -> AsyncIterator[tuple[str, GenerateResponse | CouncilError]]:
        """Yield one outcome for each call of a job that is no longer running, in any order, as they are read.

        An answer's ``cost`` has its ``share`` set, and no ``usd`` unless the vendor reports it. A call that the vendor
        gave up, or whose outcome it does not have, yields a ``BatchIncomplete``, which is retryable. Calls of the job
        that are not in ``calls`` are left out.

        Args:
            job: the vendor's id of the job.
            calls: the requests of the job, or some of them, by the ids with which it was sent.

        Raises:
            InvalidOption: the job is running.
            ProviderError: the outcomes could not be read to their end. Those that came before stay valid.
        """

    @abstractmethod
    async def cancel(self, job: str) -> None:
        """Ask the vendor to cancel a job; a job that is no longer running is left as it is.

        The job is ``RUNNING`` until the vendor has cancelled it, which can take minutes. Answers up to then are paid.

        Raises:
            ProviderError: the vendor did not take the request.
        """


def new_reference() -> str:
    """Return a random reference for a job."""
    return uuid.uuid4().hex[:24]


def custom_id(reference: str, call: str) -> str:
    """Return the id of a call as the vendor gets it, which holds the reference of its job.

    Raises:
        InvalidOption: the reference or the id has other characters than allowed, or too many.
    """
    if not _REFERENCE.fullmatch(reference):
        raise InvalidOption(f"reference: 1 to 31 letters and digits, got {reference!r:.80}")
    if not _CALL_ID.fullmatch(call):
        raise InvalidOption(f"the id of a call: 1 to 32 letters, digits, '-' and '_', got {call!r:.80}")
    return f"{reference}_{call}"


def split_custom_id(text: object) -> tuple[str, str]:
    """Return the reference and our id in a vendor's id of a call; both are empty for an id of another program."""
    reference, _, call = text.partition("_") if isinstance(text, str) else ("", "", "")
    return (reference, call) if reference and call else ("", "")
