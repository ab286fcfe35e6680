"""A tool as one value: whatever is shown of it is in its fingerprint."""

from dataclasses import replace

import pytest

from workers.tools.tool import Tool, canonical

pytestmark = pytest.mark.pure

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


async def nothing(arguments: object) -> str:
    return ""


def tool(**fields: object) -> Tool:
    return replace(Tool(name="weather", description="Says it.", schema=SCHEMA, run=nothing), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "weather2"},
        {"description": "Says it!"},
        {"schema": {**SCHEMA, "required": ["city"]}},
        {"server": "http://127.0.0.1:8000/mcp"},
        {"title": "get-weather"},
    ],
)
def test_a_tool_of_which_anything_that_is_shown_has_changed_is_another(change: dict[str, object]) -> None:
    assert tool(**change).fingerprint != tool().fingerprint


def test_the_order_of_a_schemas_fields_makes_no_other_tool() -> None:
    assert tool(schema=dict(reversed(SCHEMA.items()))).fingerprint == tool().fingerprint


def test_a_number_that_json_does_not_have_is_no_part_of_a_tool() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"default": float("nan")})


def test_it_is_offered_as_endpoints_take_it() -> None:
    assert tool().as_offered() == {
        "type": "function",
        "function": {"name": "weather", "description": "Says it.", "parameters": SCHEMA},
    }
