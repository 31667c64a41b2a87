"""The OpenAPI 3.1 document, made from the table of routes: what is served is what is described."""

import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel

from worker_manager.hub import replies
from worker_manager.hub.endpoint import Endpoint, Need
from worker_manager.hub.problems import MEDIA_TYPE

REF = "#/components/schemas/{model}"
SCALARS: Mapping[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    Any: {},
    dict: {"type": "object"},
    list: {"type": "array"},
}


def document(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = endpoint.path.replace(":path}", "}")
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "worker-manager hub", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.does,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint)],
        "responses": {
            str(endpoint.status): {"description": "as asked", "content": _content(endpoint.reply, schemas)},
            "default": {
                "description": "refused",
                "content": {MEDIA_TYPE: {"schema": schema_of(replies.Problem, schemas)}},
            },
        },
    }
    if endpoint.needs not in (Need.OPEN, Need.IDENTITY):
        operation["security"] = [{"bearer": []}]
        operation["x-needs"] = endpoint.needs.value if isinstance(endpoint.needs, Need) else list(endpoint.needs)
    if endpoint.streams:
        operation["requestBody"] = {"required": False, "content": {"application/octet-stream": {}}}
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": not endpoint.body_may_be_absent,
            "content": {"application/json": {"schema": schema_of(endpoint.body, schemas)}},
        }
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    return f"{endpoint.handler.__module__.rpartition('.')[2]}_{endpoint.handler.__name__}"


def _content(reply: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(reply, str):
        return {reply: {}}
    return {"application/json": {"schema": schema_of(reply, schemas)}}


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)(?::path)?\}", endpoint.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    model = endpoint.query.model_json_schema()
    needed = set(model.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": schema}
        for name, schema in model.get("properties", {}).items()
    ]


def schema_of(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a model, a message or a plain type; what has a name goes into `schemas`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _of_model(kind, schemas)
    if is_typeddict(kind):
        return _of_message(kind, schemas)
    if kind in SCALARS:
        return dict(SCALARS[kind])
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, schemas) for each in inner]}
    if origin is list:
        return {"type": "array", "items": schema_of(inner[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inner[1], schemas)}
    raise TypeError(f"no schema for {kind!r}")


def _of_model(kind: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = kind.model_json_schema(ref_template=REF)
    schemas.update(schema.pop("$defs", {}))
    schemas[kind.__name__] = schema
    return {"$ref": REF.format(model=kind.__name__)}


def _of_message(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    name = f"{kind.__name__}Reply" if kind.__module__ == replies.__name__ else f"{kind.__name__}Message"
    if name not in schemas:
        schemas[name] = {}  # before its fields, which may name it again
        fields = {field: schema_of(hint, schemas) for field, hint in get_type_hints(kind).items()}
        schemas[name] = {"type": "object", "properties": fields}
        if kind.__required_keys__:
            schemas[name]["required"] = sorted(kind.__required_keys__)
    return {"$ref": REF.format(model=name)}
