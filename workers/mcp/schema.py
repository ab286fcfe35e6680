"""Checks a call's arguments against the schema that a server gave, which may be hostile: nothing is fetched, no pattern of it runs, and its work is bounded."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from workers.tools.tool import Arguments, BadArguments

JSON_OBJECT = "object"

MOST_REFERENCES: Final = 1_000
"""That are followed in one check: two to each of a hundred others would be more than there is time for."""

MOST_ERROR_CHARACTERS: Final = 500


class BadSchema(Exception):
    """What a server gives as the schema of a tool is none."""


class ArgumentsCheck:
    """Of one tool."""

    def __init__(self, schema: Mapping[str, object]) -> None:
        """Raises BadSchema."""
        self._followed = 0
        follow = jsonschema.Draft202012Validator.VALIDATORS["$ref"]

        def bounded(validator: Any, reference: Any, instance: Any, whole: Any) -> Iterator[Any]:
            self._followed += 1
            if self._followed > MOST_REFERENCES:
                raise RecursionError
            yield from follow(validator, reference, instance, whole) or ()

        bounds = {
            "$ref": bounded,
            "$dynamicRef": _passed_over,
            "pattern": _passed_over,
            "patternProperties": _passed_over,
        }
        kind = extend(jsonschema.Draft202012Validator, bounds)
        try:
            if schema.get("type") != JSON_OBJECT:
                raise BadSchema
            jsonschema.Draft202012Validator.check_schema(schema)
        except (jsonschema.SchemaError, RecursionError, TypeError):
            raise BadSchema from None
        self._validator: Validator = kind(schema, registry=Registry())

    def __call__(self, arguments: Arguments) -> Arguments:
        """Returns the arguments as they are run. Raises BadArguments."""
        self._followed = 0
        try:
            error = next(iter(self._validator.iter_errors(dict(arguments))), None)
        except (RecursionError, Unresolvable, ArithmeticError, TypeError, ValueError):
            raise BadArguments("this tool's schema cannot be checked") from None
        if error is not None:
            where = "/".join(map(str, error.absolute_path))
            raise BadArguments(f"{where or 'the arguments'}: {error.message}"[:MOST_ERROR_CHARACTERS])
        return arguments


def _passed_over(*_: object) -> Iterator[Any]:
    """Leaves a keyword to the server: a pattern may take a year, and this process with it."""
    return iter(())
