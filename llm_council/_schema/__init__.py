"""JSON Schema facts that every floor above shares: validate, find an answer in a text, project to a dialect.

``compile`` makes a schema into a ``Validator``; its ``read`` finds the answer in what a model said and says what is
wrong with it. ``strictly`` projects a schema to what strict structured output accepts. Nothing here does I/O: a
``$ref`` that points outside its own schema is never fetched.
"""

from llm_council._schema.extract import Extracted, drop_thinking, extract_json
from llm_council._schema.plain import WRAPPER, json_path, plain_schema
from llm_council._schema.project import Projection, strictly
from llm_council._schema.validate import Answer, Validator, compile  # noqa: A004 - as in re.compile

__all__ = [
    "WRAPPER",
    "Answer",
    "Extracted",
    "Projection",
    "Validator",
    "compile",
    "drop_thinking",
    "extract_json",
    "json_path",
    "plain_schema",
    "strictly",
]
