"""The OpenAPI document of the API."""

from __future__ import annotations

from typing import Any

import hmgr_jax
from hmgr_jax.serve.safety import Limits


def document(limits: Limits) -> dict[str, Any]:
    """OpenAPI 3.1, with the bounds of this server."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "hmgr_jax search", "version": hmgr_jax.__version__},
        "paths": {
            "/api/search": {"post": _search(limits)},
            "/api/items/{id}": {"get": _get("An item", "id*")},
            "/api/items/{id}/thumbnail": {"get": _get("A small copy of its picture", "id*", JPEG)},
            "/api/items/{id}/picture": {
                "get": _get("A large copy of its picture, or its frames", "id*", JPEG)
            },
            "/api/explain": {"get": _get("Where the words of a sentence look", "query id")},
            "/api/overview": {"get": _get("Clusters and a map of the index", "")},
            "/api/health": {"get": _get("What is served and can be asked", "")},
            "/metrics": {"get": _get("Counters for Prometheus", "", "text/plain")},
        },
        "components": {"schemas": _schemas(limits)},
    }


JPEG = "image/jpeg"


def _get(summary: str, names: str, kind: str = "application/json") -> dict[str, Any]:
    parameters = [
        {
            "name": name.rstrip("*"),
            "in": "path" if name.endswith("*") else "query",
            "required": True,
            "schema": {"type": "string"},
        }
        for name in names.split()
    ]
    return {"summary": summary, "parameters": parameters, "responses": _responses(kind)}


def _responses(kind: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    told = {
        "400": "A value is wrong",
        "401": "The token is missing",
        "404": "There is no such item or picture",
        "413": "The request is too large",
        "503": "Too many requests; Retry-After says when to try again",
    }
    found: dict[str, Any] = {
        "200": {"description": "The answer", "content": {kind: {"schema": schema or {}}}}
    }
    return found | {n: {"description": text, "content": error} for n, text in told.items()}


def _search(limits: Limits) -> dict[str, Any]:
    search = {"$ref": "#/components/schemas/Search"}
    pictures = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"request": search, "picture": pictures}}
    return {
        "summary": "The best items for one query, or for several with weights",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": search},
                "multipart/form-data": {"schema": form},
            },
        },
        "responses": _responses("application/json", {"$ref": "#/components/schemas/Results"}),
    }


def _schemas(limits: Limits) -> dict[str, Any]:
    text = {"type": "string", "maxLength": limits.letters}
    date = {"type": "string", "format": "date"}
    query = {
        "type": "object",
        "properties": {
            "text": text,
            "id": {"type": "string"},
            "upload": {"type": "integer", "description": "number of a picture of the form"},
            "weight": {"type": "number", "default": 1},
        },
    }
    result = {
        "type": "object",
        "properties": {
            "rank": {"type": "integer"},
            "score": {"type": "number"},
            "id": {"type": "string"},
            "caption": {"type": "string"},
            "owner": {"type": "string"},
            "picture": {"type": "string", "description": "path; only on this machine"},
            "missing": {"type": "boolean"},
            "date": {"type": ["string", "null"], "format": "date"},
        },
    }
    return {
        "Search": {
            "type": "object",
            "properties": {
                "query": text,
                "queries": {"type": "array", "maxItems": limits.queries, "items": query},
                "k": {"type": "integer", "minimum": 1, "maximum": limits.k, "default": 20},
                "folder": {"type": "string", "description": "ids begin with this folder"},
                "after": date,
                "before": date,
            },
        },
        "Results": {
            "type": "object",
            "properties": {
                "version": {"type": "string", "description": "of the index, one for all results"},
                "count": {"type": "integer"},
                "results": {"type": "array", "items": result},
                "notes": {"type": "array", "items": {"type": "string"}},
            },
        },
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}},
    }
