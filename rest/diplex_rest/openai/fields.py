"""Readers of single request fields: a value of the right type and range, or a 400 that names the field.

A reader is called with the value (never null, which OpenAI reads as absent) and the field's path.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final, TypeAlias

from diplex_rest.openai.errors import ApiError, bad_request

Reader: TypeAlias = Callable[[Any, str], Any]

_NAMES: Final = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "a string"),
    (list, "an array"),
    (dict, "an object"),
)


def wrong_type(value: Any, param: str, expected: str) -> ApiError:
    """A 400 for a value of another type than the field has."""
    found = next((name for types, name in _NAMES if isinstance(value, types)), "null")
    return bad_request(f"{param}: expected {expected}, found {found}", param, code="invalid_type")


def out_of_range(value: Any, param: str, expected: str) -> ApiError:
    """A 400 for a value of the right type that the field cannot have."""
    return bad_request(f"{param}: expected {expected}, found {value!r:.80}", param, code="invalid_value")


def string(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(value, param, "a string")
    return value


def flag(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, param, "true or false")
    return value


def mapping(value: Any, param: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(value, param, "an object")
    return value


def integer(low: int, high: int) -> Reader:
    """A whole number from `low` to `high`; 3.0 is one, true is not."""
    expected = f"a whole number from {low} to {high}"

    def read(value: Any, param: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(value, param, expected)
        if isinstance(value, float) or not low <= value <= high:
            raise out_of_range(value, param, expected)
        return int(value)

    return read


def number(low: float, high: float) -> Reader:
    """A finite number from `low` to `high`."""
    expected = f"a number from {low:g} to {high:g}"

    def read(value: Any, param: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(value, param, expected)
        # An integer too long for a float is out of every range here.
        if not low <= value <= high or not isfinite(value):
            raise out_of_range(value, param, expected)
        return float(value)

    return read


def seed(value: Any, param: str) -> int:
    """OpenAI's seeds are signed, the wire's are not: the same 64 bits."""
    return int(integer(-(2**63), 2**64 - 1)(value, param)) % 2**64


def top_k(value: Any, param: str) -> int:
    """0 and vLLM's -1 both mean: no bound."""
    return max(0, int(integer(-1, 2**32 - 1)(value, param)))


def stop(value: Any, param: str) -> tuple[str, ...]:
    """A string, or an array of them; none may be empty."""
    if isinstance(value, str):
        found: tuple[str, ...] = (string(value, param),)
    elif isinstance(value, list):
        found = tuple(string(item, f"{param}[{place}]") for place, item in enumerate(value))
    else:
        raise wrong_type(value, param, "a string or an array of strings")
    if not all(found):
        raise out_of_range("", param, "strings that are not empty")
    return found


def logit_bias(value: Any, param: str) -> dict[str, float]:
    """Token ids, written as JSON object keys must be, with a bias each."""
    bias = number(-100, 100)
    for token in mapping(value, param):
        if not (token.isascii() and token.isdigit()):
            raise out_of_range(token, param, "token ids as keys")
    return {token: bias(weight, f"{param}.{token}") for token, weight in value.items()}


def response_format(value: Any, param: str) -> Mapping[str, Any] | None:
    """`None` for plain text, which is no constraint; else the object as it came."""
    kind = mapping(value, param).get("type")
    match kind:
        case "text":
            return None
        case "json_object":
            return {"type": kind}
        case "json_schema":
            mapping(value.get("json_schema"), f"{param}.json_schema")
            return dict(value)
    raise out_of_range(kind, f"{param}.type", "text, json_object or json_schema")
