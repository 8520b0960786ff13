"""What all models of the resource have in common: frozen, camelCase in JSON, described, with rules."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from database_bootstrap.api.rules import IDENTIFIER_BYTES, VALIDATIONS, Immutable, Rule

Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
"""Strict, as the API server is: "5" and true are no numbers."""
DAY_SECONDS = 86_400

IDENTIFIER = Field(strict=True, min_length=1, max_length=IDENTIFIER_BYTES)
OBJECT_NAME = Field(strict=True, min_length=1, max_length=253)
NAMESPACE_NAME = Field(strict=True, min_length=1, max_length=63)


def _json_name(attribute: str) -> str:
    # `schema` is taken by pydantic itself.
    return "schema" if attribute == "schema_name" else to_camel(attribute)


class Model(BaseModel):
    """An object of the resource; what its rules refuse cannot be constructed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_json_name,
        populate_by_name=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    obeys: ClassVar[tuple[Rule, ...]] = ()
    immutable: ClassVar[tuple[Immutable, ...]] = ()

    @model_validator(mode="after")
    def _obey(self) -> Self:
        for rule in self.obeys:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        told = [rule.told() for rule in cls.obeys] + [rule.told() for rule in cls.immutable]
        if told:
            schema[VALIDATIONS] = told
        return schema


def without_nulls(value: object) -> object:
    """Return the value without the null fields of its objects: an absent field, as the API server sees it."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value
