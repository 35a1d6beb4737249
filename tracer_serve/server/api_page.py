"""``GET /docs``: the OpenAPI document as a page of its own, without scripts and without files from other hosts."""

from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tracer_serve.report.render import page
from tracer_serve.server.openapi import openapi
from tracer_serve.server.routes.report_pages import page_headers


def api_page(_: Request) -> Response:
    """Answer with the page."""
    document = openapi()
    operations = list(operations_of(document))
    html, policy = page("docs.html", (), {}, styles=("report",), info=document["info"], operations=operations)
    return HTMLResponse(html, headers=page_headers(policy))


def operations_of(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each operation of an OpenAPI document: method, path, summary, fields and answers."""
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            answers = operation["responses"].items()
            yield {
                "method": method.upper(),
                "path": path,
                "summary": operation["summary"],
                "fields": [*_parameters(operation), *_fields(_resolved(body, schemas), schemas)],
                "answers": [(status, answer["description"], _kinds(answer)) for status, answer in answers],
            }


def _parameters(operation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in operation.get("parameters", ()):
        required = one.get("required", False)
        yield {"name": one["name"], "kind": f"{one['schema']['type']}, {one['in']}", "required": required, "said": ""}


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, inner in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        yield {"name": name, "kind": _kind(inner, schemas), "required": required, "said": inner.get("description", "")}


def _kind(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Return the type of a field in words, such as ``string or array of string``."""
    inner = _resolved(schema, schemas)
    if branches := inner.get("anyOf"):
        return " or ".join(dict.fromkeys(_kind(branch, schemas) for branch in branches))
    kind = str(inner.get("type", "any"))
    return f"array of {_kind(inner['items'], schemas)}" if kind == "array" and inner.get("items") else kind


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _kinds(answer: Mapping[str, Any]) -> str:
    return ", ".join(answer.get("content", {}))
