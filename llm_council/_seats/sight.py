"""Which seats can see or hear the attached files, and whether these are small enough for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_council.errors import InvalidOption
from llm_council.models import Attachment, SeatSpec
from llm_council.models.attachments import shown_name
from llm_council.providers.base import ProviderAdapter

__all__ = ["check_sizes", "find_blind"]


def find_blind(
    specs: Sequence[SeatSpec], adapters: Mapping[str, ProviderAdapter], files: Sequence[Attachment]
) -> dict[str, str]:
    """Return why seats cannot take the files, by the seat's name; seats that can are left out."""
    blind = {}
    for spec in specs:
        for file in files:
            fault = adapters[spec.name]._file_fault(file, spec.model)
            if fault is not None:
                blind[spec.name] = f"{fault} ({shown_name(file.name)})"
                break
    return blind


def check_sizes(
    specs: Sequence[SeatSpec], adapters: Mapping[str, ProviderAdapter], files: Sequence[Attachment]
) -> None:
    """Check that the files are within the documented limits of the vendors of these seats.

    Raises:
        InvalidOption: one is not; the message names the file, its size, the limit and the seat.
    """
    for spec in specs:
        fault = adapters[spec.name]._size_fault(files, spec.model)
        if fault is not None:
            raise InvalidOption(f"files: {spec.name}: {fault}; give a smaller file, or leave out this seat")
