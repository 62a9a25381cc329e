"""The promises of every provider, kept by ``Batched`` around an adapter whose jobs are its direct calls."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from batch_vendor import Time

from llm_council.errors import CouncilError
from llm_council.middleware import Batched
from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.providers.base import ProviderAdapter, call
from llm_council.providers.batch_jobs import BatchCall, BatchJobs, FoundJob, JobState, JobStatus
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing.conformance import ProviderConformance, Stage
from llm_council.testing.servers import Said

pytestmark = pytest.mark.slow


class DirectJobs(BatchJobs):
    """Jobs whose calls are made directly when their outcomes are read."""

    most = 1000
    most_bytes = 10**9

    def __init__(self, provider: ProviderAdapter) -> None:
        self._provider = provider

    async def prepare(self, request: GenerateRequest) -> BatchCall:
        self._provider.check()
        return BatchCall(group="", size=1)

    async def send(self, calls: Mapping[str, GenerateRequest], reference: str) -> str:
        return reference

    async def find(self, reference: str, *, total: int, since: float) -> tuple[FoundJob, ...]:
        return ()

    async def status(self, job: str) -> JobStatus:
        return JobStatus(state=JobState.ENDED)

    async def outcomes(
        self, job: str, calls: Mapping[str, GenerateRequest]
    ) -> AsyncIterator[tuple[str, GenerateResponse | CouncilError]]:
        for name, request in calls.items():
            try:
                yield name, await call(self._provider, request)
            except CouncilError as error:
                yield name, error

    async def cancel(self, job: str) -> None:
        return None


class DirectlyBatched(OpenAIProvider):
    """OpenAI with such jobs."""

    def batch_jobs(self) -> BatchJobs:
        return DirectJobs(self)


class TestBatched(ProviderConformance):
    """Batched around OpenAI."""

    provider = DirectlyBatched
    speaks = "openai"
    not_kept: ClassVar = {"timeouts": "a call with less than an hour is refused before anything is sent"}

    @contextmanager
    def playing(self, said: Said) -> Iterator[Stage]:
        with super().playing(said) as stage, tempfile.TemporaryDirectory() as folder:
            passing = Time()
            journal = Path(folder) / "jobs.db"
            adapter = Batched(stage.adapter, journal=journal, window=0.0, clock=passing, sleep=passing.sleep)
            yield Stage(adapter, stage.vendor)
