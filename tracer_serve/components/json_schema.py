"""JSON Schema of a task's YAML, with the parameters of every installed component."""

from functools import reduce
from operator import getitem
from typing import Any

from tracer_serve.components.registry import Registry, acceptors, embedders, redactors, surrogates, teachers
from tracer_serve.config.task import Spec
from tracer_serve.errors import PluginError

_SEAMS: dict[tuple[str, ...], Registry[Any]] = {
    ("properties", "embedder"): embedders,
    ("properties", "surrogates"): surrogates,
    ("properties", "acceptors"): acceptors,
    ("properties", "teacher"): teachers,
    ("$defs", "TracesSpec", "properties", "redact"): redactors,
}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12); editors complete and check with it."""
    schema = Spec.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "tracer-serve task"
    for (*path, field), registry in _SEAMS.items():
        parent: dict[str, Any] = reduce(getitem, path, schema)
        place = parent[field]
        choice = {"anyOf": [*_blocks(registry), {"type": "string"}], "description": place.get("description", "")}
        if registry is surrogates:
            for block in choice["anyOf"][:-1]:
                block["properties"]["embedder"] = {"$ref": "#/properties/embedder"}
        if place.get("type") == "array":
            place["items"] = choice
        else:
            parent[field] = choice
    keys = schema["$defs"]["ServerSpec"]["properties"]["api_keys"]
    keys["items"] = {"anyOf": [{"type": "string", "format": "password"}, keys["items"]]}
    for name in ("Component", "SurrogateComponent"):
        schema["$defs"].pop(name)
    return schema


def _blocks(registry: Registry[Any]) -> list[dict[str, Any]]:
    """Return the schema of each component's block; components with missing packages are skipped."""
    blocks = []
    for name in registry.names():
        try:
            block = registry.schema(name).model_json_schema()
        except PluginError:
            continue
        block["properties"] = {"type": {"const": name}, **block.get("properties", {})}
        block["required"] = ["type", *block.get("required", [])]
        block["description"] = (registry.get(name).__doc__ or name).strip().splitlines()[0]
        blocks.append(block)
    return blocks
