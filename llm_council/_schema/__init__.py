"""JSON Schema: validate an answer, find it in a model's text, project a schema to a vendor's strict mode.

``compile`` returns a ``Validator``, whose ``read`` finds the answer in a model's text and lists its problems.
``project_strict`` converts a schema to the subset that a vendor enforces (``SUBSETS``), and gives the function that
restores its answers. Nothing here does I/O: a ``$ref`` to another document is not fetched.
"""

from llm_council._schema.extract import Extracted, drop_thinking, extract_json
from llm_council._schema.project import Projection, project_strict
from llm_council._schema.sections import heading_names, heading_of, read_sections
from llm_council._schema.subsets import SUBSETS, Subset
from llm_council._schema.validate import (
    WRAPPER,
    Answer,
    Validator,
    compile,  # noqa: A004
    compile_plain,
    json_path,
    plain_schema,
)

__all__ = [
    "SUBSETS",
    "WRAPPER",
    "Answer",
    "Extracted",
    "Projection",
    "Subset",
    "Validator",
    "compile",
    "compile_plain",
    "drop_thinking",
    "extract_json",
    "heading_names",
    "heading_of",
    "json_path",
    "plain_schema",
    "project_strict",
    "read_sections",
]
