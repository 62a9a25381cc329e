"""Tables for the classifier: which machine code, type, status or text of a vendor is which error.

A row that holds for every vendor stands here; one vendor's own rows stand in its ``errors.py``. A code is preferred to
a text: texts are for refusals to which their vendor gives no code of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from llm_council.errors import (
    AuthenticationFailed,
    CapabilityRefused,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
)

__all__ = [
    "CODES",
    "DAILY_TEXT",
    "LIMIT_AND_REQUESTED",
    "NO_ROWS",
    "SPENT_TEXT",
    "STATUSES",
    "TEXTS",
    "TYPES",
    "USUAL_STATUS",
    "Rows",
    "TextRow",
    "code_rows",
    "normalised",
]


@attrs.frozen
class TextRow:
    """A text that gives an error its class, for a dialect without a code for the case; see ``Rows`` for when it counts.

    Attributes:
        cls: the class of an error whose message matches.
        pattern: the pattern to search for in the message.
        code: the code that must accompany the message; None accepts any. Not used where texts decide.
        capability: the missing capability, for ``CapabilityRefused``.
    """

    cls: type[ProviderError]
    pattern: re.Pattern[str]
    code: str | None = None
    capability: str | None = None


@attrs.frozen(kw_only=True)
class Rows:
    """A vendor's additions to the shared tables; they win over the shared rows.

    Attributes:
        codes: machine codes that decide the class whatever the status is, as ``code_rows`` builds them.
        types: broader codes, which decide if there is no status.
        texts: texts that refine a rejected request.
        texts_decide: texts decide if no code does, for programs that report failures in sentences alone. Against a
            status only texts of a class that is not retryable count; without a status all texts count.
        statuses: the status of a code, for an error inside a reply with status 200, if it differs from the usual
            status of its class.
        classes: the class of an HTTP status, if it differs from the shared one.
    """

    codes: Mapping[str, type[ProviderError]] = attrs.field(factory=dict)
    types: Mapping[str, type[ProviderError]] = attrs.field(factory=dict)
    texts: Sequence[TextRow] = ()
    texts_decide: bool = False
    statuses: Mapping[str, int] = attrs.field(factory=dict)
    classes: Mapping[int, type[ProviderError]] = attrs.field(factory=dict)


NO_ROWS = Rows()


def normalised(word: str) -> str:
    """Return a code in lower case without punctuation, as the tables hold it."""
    return re.sub("[^a-z0-9]", "", word.lower())


def code_rows(rows: Mapping[type[ProviderError], str]) -> dict[str, type[ProviderError]]:
    """Return a table from code to class; codes are separated by spaces, and case and punctuation are ignored."""
    return {normalised(word): cls for cls, words in rows.items() for word in words.split()}


# Machine codes that decide whatever the status is (vendors' API references and recorded replies).
CODES = code_rows(
    {
        OutOfCredit: "insufficient_quota billing_hard_limit_reached billing_not_active billing_error payment_required"
        " credit_balance_exhausted insufficient_credits insufficient_balance exceeded_current_quota_error",
        ContextTooLong: "context_length_exceeded context_window_exceeded exceed_context_size_error prompt_too_long"
        " context_length_error string_above_max_length model_context_window_exceeded input_too_long"
        " tokens_limit_reached",
        # Retired or unroutable: Groq's model_decommissioned (Groq's docs, "Deprecations"), model_terms_required and
        # model_permission_blocked_* ("Model permissions"); GitHub Models' unavailable_model.
        ModelNotFound: "model_not_found model_not_exist model_not_available model_not_supported unknown_model"
        " invalid_model deployment_not_found model_does_not_exist model_not_loaded model_decommissioned"
        " model_deprecated model_retired model_terms_required model_permission_blocked_project"
        " model_permission_blocked_org unavailable_model",
        CapabilityRefused: "tool_calling_unsupported reasoning_unsupported",  # MWS GPT Model Hub, "Error codes"
        # Azure OpenAI ("Content filtering": content_filter, innererror ResponsibleAIPolicyViolation), OpenAI
        # (content_policy_violation, moderation_blocked, and the policies of openai.types.responses.ResponseError),
        # Moonshot (docs, "Errors": type content_filter), DashScope (docs, "Error codes": data_inspection_failed),
        # OpenRouter's metadata.error_type and a body with "flagged_input" (docs, "Errors", "Moderation errors").
        ContentFiltered: "content_filter content_filtered responsible_ai_policy_violation content_policy_violation"
        " data_inspection_failed moderation moderation_blocked bio_policy cyber_policy misalignment_policy_violation"
        " image_content_policy_violation",
        AuthenticationFailed: "invalid_api_key incorrect_api_key authentication_error authentication unauthorized"
        " invalid_authentication account_deactivated no_api_key missing_api_key expired_api_key",
        PermissionRefused: "permission_denied permission_error insufficient_permissions forbidden"
        " unsupported_country_region_territory",
        RateLimited: "rate_limit_exceeded rate_limit_error rate_limited rate_limit_reached too_many_requests"
        " rate_limit_reached_error",
        # Groq answers 400 where the model wrote no valid JSON or call; the next reply may hold one. What it wrote is in
        # "failed_generation" (groq.types.shared.ErrorObject; docs, "Structured Outputs": "occasional validation errors
        # with retry logic").
        MalformedReply: "failed_generation json_validate_failed tool_use_failed output_parse_failed",
        RequestTooLarge: "request_too_large payload_too_large",
        ServerFailed: "overloaded_error provider_overloaded provider_unavailable engine_overloaded model_overloaded"
        " server_is_overloaded engine_overloaded_error slow_down",
    }
)

# Broader codes, which vendors also send beside a more telling status: they count only without a status.
TYPES = code_rows(
    {
        ServerFailed: "server_error server internal_server_error internal_error api_error service_unavailable"
        " service_unavailable_error timeout timeout_error bad_gateway upstream_error",
        RequestRejected: "invalid_request invalid_request_error not_found precondition_failed unprocessable"
        " max_tokens_exceeded token_limit_exceeded string_too_long"
        " unsupported_image_format image_not_found image_download_failed bad_request_error bad_request validation_error"
        " unprocessable_entity_error data_residency_mismatch invalid_image"
        " invalid_image_format invalid_base64_image invalid_image_url image_too_large image_too_small image_parse_error"
        " invalid_image_mode image_file_too_large unsupported_image_media_type"
        " empty_image_file failed_to_download_image image_file_not_found invalid_prompt",
        ContentFiltered: "refusal",
        ModelNotFound: "not_found_error",
        PermissionRefused: "permission",
        OutOfCredit: "quota_exceeded",
    }
)

STATUSES: Mapping[int, type[ProviderError]] = {
    401: AuthenticationFailed,
    402: OutOfCredit,
    403: PermissionRefused,
    408: ServerFailed,
    413: RequestTooLarge,
    429: RateLimited,
}
USUAL_STATUS: Mapping[type[ProviderError], int] = {
    OutOfCredit: 402,
    ContextTooLong: 400,
    ModelNotFound: 404,
    AuthenticationFailed: 401,
    PermissionRefused: 403,
    RateLimited: 429,
    RequestTooLarge: 413,
    RequestRejected: 400,
    ServerFailed: 500,
}

# A withheld prompt to which its vendor gives the code of any rejected request, or none: DeepSeek ("Content Exists
# Risk"), xAI (403, "Content violates usage guidelines", inspect_ai pull 2267), Moonshot ("considered high risk", docs,
# "Errors"), Anthropic ("Output blocked by content filtering policy", claude-code issue 58367), OpenAI (invalid_prompt,
# "your prompt was flagged", codex issue 38849), Azure ("content management policy"), DashScope ("inappropriate
# content"), Zhipu (code 1301, docs, "API code"), OpenRouter ("input was flagged"), LiteLLM
# (ContentPolicyViolationError).
_WITHHELD = (
    r"(?i)content exists risk|content violates (?:our |the )?(?:usage|content|safety)|considered high risk"
    r"|(?:prompt|input|output|content)s? (?:was|were|has been|have been|is|are) (?:flagged|filtered|withheld)"
    r"|flagged as (?:potentially )?violating|content (?:management|filtering|moderation) polic(?:y|ies)"
    r"|rejected (?:by|as a result of) (?:the|our) safety system|inappropriate content|unsafe or sensitive content"
    r"|\u4e0d\u5b89\u5168\u6216\u654f\u611f\u5185\u5bb9|ContentPolicyViolation|failed (?:our |the )?moderation"
)
# A model that is gone, or that this gateway or account cannot route to: OpenRouter (404: "is deprecated", "No endpoints
# found ...", "No allowed providers ...", "All providers have been ignored"), Gemini (404, "is no longer available",
# marker pull 1009), Cohere (404, "was removed on"), Bedrock (400, "on-demand throughput isn't supported"; 404, "end of
# its life"), DeepSeek (400, "Model Not Exist"), Together ("non-serverless model"), NVIDIA (404, "Function '...': Not
# found for account '...'", free-claude-code issue 1021).
_GONE = (
    r"(?i)\bmodels?\b[^\n]{0,300}?\b(?:has been|have been|was|were|is|are) (?:now )?"
    r"(?:deprecated|decommissioned|retired|removed|sunset|discontinued|shut down)\b"
    r"|\bmodels?\b[^\n]{0,300}?(?:no longer (?:available|supported|served|offered|exists?)|end[- ]of[- ](?:its )?life"
    r"|not exist\b|not (?:currently )?available\b)"
    r"|no (?:allowed |available )?(?:endpoints?|providers?) (?:found|are available|available|support|match)"
    r"|all (?:providers|endpoints) have been ignored|on-demand throughput isn.t supported|non-serverless model"
    r"|\bfunction '[^'\n]{1,100}': not found for account"
)
# A capability that the model lacks: Ollama ('"m" does not support tools', server/routes.go), OpenRouter (404, "No
# endpoints found that support tool use", "... image input", "... can handle the requested parameters"), vLLM
# ("--enable-auto-tool-choice", "is not a multimodal model"), llama.cpp (500, "image input is not supported").
_LACKS = {
    "tool_use": r"(?i)(?:does not|doesn.t|that) support [`'\"]?(?:tools?\b|tool use|tool call|function call)"
    r"|--enable-auto-tool-choice|(?:tool use|tool calling|tools|function calling) (?:is|are) not supported",
    "multimodal": r"(?i)(?:does not|doesn.t|that) support (?:image|vision|multi-?modal|audio|file)"
    r"|(?:image|audio|vision) inputs? (?:is|are) not supported|not a multimodal model",
    "reasoning": r"(?i)(?:does not|doesn.t|that) support (?:parameter )?[`'\"]?(?:thinking|reasoning)"
    r"|(?:reasoning[_. ]?effort|thinking(?:[_ ]?(?:level|budget|config))?)[`'\"]?(?: \w+)? is not supported",
    "structured_output": r"(?i)(?:does not|doesn.t|that) support (?:structured outputs?|json (?:schema|mode))",
    "": r"(?i)no endpoints found that can handle the requested parameters"
    r"|does not support (?:chat|completion|generate)\b",
}
TEXTS: Sequence[TextRow] = (
    TextRow(ContentFiltered, re.compile(_WITHHELD)),
    *(TextRow(CapabilityRefused, re.compile(text), capability=word or None) for word, text in _LACKS.items()),
    TextRow(ModelNotFound, re.compile(_GONE)),
    # A wrong key that is answered with 400: xAI ("Incorrect API key provided", docs, "Debugging errors").
    TextRow(AuthenticationFailed, re.compile(r"(?i)\b(?:incorrect|invalid) api[- ]key\b|\bapi[- ]key is invalid\b")),
    # OpenRouter, 403: a key with a limit of its own (docs, "Limits").
    TextRow(OutOfCredit, re.compile(r"(?i)\bkey limit exceeded")),
    # Fireworks, 412: "Account ... is suspended, possibly due to reaching the monthly spending limit or failure to pay
    # past invoices" (pollinations issue 12136).
    TextRow(OutOfCredit, re.compile(r"(?i)\bspending limit\b|\bfailure to pay\b|\bunpaid invoices?\b")),
)
"""Texts that refine a refusal of any vendor, after the vendor's own rows."""

DAILY_TEXT = re.compile(
    r"(?i)\bper[- ]?(?:day|week|month)\b|/ ?(?:day|month)\b|\bdaily\b|\bweekly\b|\bmonthly\b|\b[RT]PD\b|by ?day\b"
    r"|\b86,?400 ?s\b|\bsession usage limit\b"
)
"""Words of a rate limit that is refilled by the day or later: Groq and OpenAI ("requests per day (RPD)"), Cerebras
("Tokens per day limit exceeded"), OpenRouter ("free-models-per-day"), GitHub Models ("50 per 86400s ... ByDay"), Cohere
("1000 API calls / month"), Ollama's cloud ("reached your weekly usage limit", or "session", which lasts five hours:
hermes-agent pull 68832). The code is that of a limit by the minute."""

SPENT_TEXT = re.compile(
    r"(?i)\binsufficient (?:account )?(?:balance|credits?|funds)\b"
    r"|\bcredits? (?:is|are|has been|have been) (?:depleted|exhausted|used up)\b"
)
"""Words of a rate limit that waiting does not lift: Zhipu (429, code 1113, "Insufficient balance or no resource
package"), Gemini (429, "Your prepayment credits are depleted")."""

LIMIT_AND_REQUESTED = re.compile(r"(?i)\blimit:? (\d{1,12}),(?: used:? \d{1,12},)? requested:? (\d{1,12})")
"""The numbers of a limit by the minute: OpenAI, Azure and Groq ("Limit 30000, Requested 50000"). A request for more
than the limit never fits, however long it waits."""
