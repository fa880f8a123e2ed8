"""Problems from router and worker, as OpenAI's clients read them."""

import json

import grpc
import pytest

from diplex.wire.status import Problem
from diplex_rest.openai.errors import ApiError, error_of

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "status", "kind", "word"),
    [
        (CODE.INVALID_ARGUMENT, "UNKNOWN_TIER", 400, "invalid_request_error", "unknown_tier"),
        (CODE.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", 400, "invalid_request_error", "context_length_exceeded"),
        (CODE.FAILED_PRECONDITION, "NOT_PLACEABLE", 400, "invalid_request_error", "not_placeable"),
        (CODE.UNIMPLEMENTED, "", 400, "invalid_request_error", "unsupported"),
        (CODE.UNAUTHENTICATED, "UNKNOWN_KEY", 401, "authentication_error", "invalid_api_key"),
        (CODE.PERMISSION_DENIED, "", 403, "permission_error", "permission_denied"),
        (CODE.NOT_FOUND, "UNKNOWN_MODEL", 404, "invalid_request_error", "model_not_found"),
        (CODE.RESOURCE_EXHAUSTED, "", 429, "rate_limit_error", "rate_limit_exceeded"),
        (CODE.UNAVAILABLE, "NO_WORKER", 503, "server_error", "no_worker"),
        (CODE.ABORTED, "", 503, "server_error", "service_unavailable"),
        (CODE.DEADLINE_EXCEEDED, "", 504, "server_error", "deadline_exceeded"),
        (CODE.INTERNAL, "", 500, "server_error", "internal_error"),
        (CODE.UNKNOWN, "", 500, "server_error", "internal_error"),
    ],
)
def test_each_code_has_its_status_type_and_word(
    code: grpc.StatusCode, reason: str, status: int, kind: str, word: str
):
    error = error_of(Problem(code, "it went wrong", reason))
    assert (error.status, error.type, error.code) == (status, kind, word)
    assert json.loads(error.body()) == {
        "error": {"message": "it went wrong", "type": kind, "param": None, "code": word}
    }


@pytest.mark.parametrize(
    ("status", "retry_after", "header"),
    [
        (429, 0.2, b"1"),
        (429, 3.0, b"3"),
        (503, 3.01, b"4"),
        (503, None, b"1"),
        (400, 3.0, None),
        (504, 3.0, None),
    ],
)
def test_retry_after_is_whole_seconds_rounded_up_and_only_where_waiting_helps(
    status: int, retry_after: float | None, header: bytes | None
):
    headers = dict(ApiError(status, "", retry_after=retry_after).headers())
    assert headers.get(b"retry-after") == header


@pytest.mark.parametrize(
    ("field", "param"), [("model", "model"), ("tier", "service_tier"), ("prompt", "prompt"), ("", None)]
)
def test_the_field_at_fault_goes_by_openais_name(field: str, param: str | None):
    assert error_of(Problem(CODE.INVALID_ARGUMENT, "", field=field)).param == param


@pytest.mark.parametrize("field", ["prompt", "prompt_ids", "messages"])
def test_a_chats_prompt_is_its_messages(field: str):
    problem = Problem(CODE.INVALID_ARGUMENT, "", "REQUEST_TOO_LARGE", field=field)
    assert error_of(problem, prompt="messages").param == "messages"
