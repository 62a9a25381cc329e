"""Both kinds of ``with``, for whatever closes in both worlds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """Base of what is closed by ``with`` in plain code and by ``async with`` in an event loop."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what was opened in the running event loop."""

    @abstractmethod
    def close(self) -> None:
        """Close what blocking calls opened."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
