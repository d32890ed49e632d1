"""References in JSON schemas, all made plain: `#/$defs/NAME` in one document without `$id`, anchors and dynamic scopes.

By sections 8 and 9 of JSON Schema 2020-12, RFC 3986 (URIs) and RFC 6901 (pointers). What a `$dynamicRef` stands for
depends on the resources entered on the way to it, so a schema is copied for each dynamic scope in which it is met.
Nothing is fetched. This module knows where schemas stand in others, and no more of what these mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from typing import Any
from urllib.parse import unquote, urljoin

from hexad.errors import BadRequest

Schema = Any
"""A dict or a bool."""
_MAPS = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
_CHOICES = ("anyOf", "oneOf", "allOf")
_LISTS = {"prefixItems", *_CHOICES}
_SINGLES = {"additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames"}
_SINGLES |= {"unevaluatedProperties", "unevaluatedItems"}
_DROPPED = {"$schema", "$id", "$anchor", "$dynamicAnchor", "$vocabulary", "$defs", "definitions"}
MAX_PARTS = 500
"""That are looked at in one schema."""
_Place = tuple[Schema, str]
"""A schema, and the base URI around it."""
_Scope = tuple[str, ...]
"""The resources with dynamic anchors that were entered, the outermost first."""


def refusal(keyword: str, why: str) -> BadRequest:
    return BadRequest(f"the JSON schema's {keyword} {why}", param="structured_outputs")


def with_plain_references(root: Schema, spend: Callable[[], None]) -> tuple[Schema, dict[str, Schema]]:
    """`root`, whose references are `#` or `#/$defs/NAME`, and the schemas of these names. `spend` is called for each
    schema that is written. Raises BadRequest for a reference that leads out of `root`, naming it."""
    references = _References(root, spend)
    main, definitions = references.copied((root, ""), ()), dict[str, Schema]()
    while references.pending:
        name, place, scope = references.pending.pop()
        definitions[name] = references.copied(place, scope)
    return main, definitions


def with_subschemas(schema: dict[str, Any], change: Callable[[Schema], Schema]) -> dict[str, Any]:
    """A copy in which each schema that stands directly in a keyword is changed."""
    out = dict(schema)
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            out[key] = {name: change(each) for name, each in value.items()}
        elif key in _LISTS and isinstance(value, list):
            out[key] = [change(each) for each in value]
        elif key in _SINGLES:
            out[key] = change(value)
    return out


def parts_of(schema: Schema, root: dict[str, Any]) -> list[dict[str, Any]]:
    """`schema`, which stands in `root`, with each of its alternatives: what it matches, one of these does. References
    are followed, each of them once; what has too many parts may be anything."""
    found, seen = list[dict[str, Any]](), set[str]()
    waiting: list[tuple[Schema, dict[str, Any]]] = [(schema, {})]
    for _ in range(MAX_PARTS):
        if not waiting:
            return found
        each, around = waiting.pop()
        each = each if isinstance(each, dict) else {}
        whole = {key: value for key, value in each.items() if key not in ("$ref", *_CHOICES)} | around
        inside = [part for key in _CHOICES if isinstance(each.get(key), list) for part in each[key]]
        if (ref := str(each.get("$ref", ""))).startswith("#") and ref not in seen:
            seen.add(ref)
            inside.append(reduce(_step, ref.split("/")[1:], root))
        waiting += [(part, whole) for part in reversed(inside)]
        found += [] if inside else [whole]
    return [{}]


def values_of(part: dict[str, Any]) -> list[Any]:
    """Those that it lists."""
    values = part.get("enum", [part["const"]] if "const" in part else [None] if part.get("type") == "null" else [])
    return values if isinstance(values, list) else []


def _step(found: Any, part: str) -> Any:
    part = part.replace("~1", "/").replace("~0", "~")
    is_index = isinstance(found, list) and part.isdecimal() and int(part) < len(found)
    return found[int(part)] if is_index else found.get(part) if isinstance(found, dict) else None


class _References:
    def __init__(self, root: Schema, spend: Callable[[], None]) -> None:
        self._spend = spend
        self._places: dict[str, _Place] = {"#": (root, "")}
        self._dynamic: dict[str, set[str]] = {}
        """The dynamic anchors of a resource."""
        self.pending: list[tuple[str, _Place, _Scope]] = []
        self._collect(root, "")
        self._names = {(id(root), *self._enter((root, ""), ())): ""}

    def _collect(self, schema: Schema, around: str) -> None:
        """Write down what references can name."""
        if not isinstance(schema, dict):
            return
        base, dialect = _base(schema, around), str(schema.get("$schema", ""))
        if dialect and not re.match("https?://json-schema.org/", dialect):
            raise refusal("$schema", f"is {dialect!r}; nothing is fetched, so leave it out for draft 2020-12")
        for key in schema.keys() & {"$id", "$anchor", "$dynamicAnchor"}:
            name = f"{base}#{'' if key == '$id' else schema[key]}"
            if self._places.setdefault(name, (schema, around))[0] is not schema:
                raise refusal(key, f"{schema[key]!r} stands at two schemas; give each its own")
        if "$dynamicAnchor" in schema:
            self._dynamic.setdefault(base, set()).add(schema["$dynamicAnchor"])
        with_subschemas(_modern(schema), lambda each: self._collect(each, base))

    def _enter(self, place: _Place, scope: _Scope) -> tuple[str, _Scope]:
        base = _base(*place)
        return base, scope if base in scope or base not in self._dynamic else (*scope, base)

    def copied(self, place: _Place, scope: _Scope) -> Schema:
        schema = place[0]
        self._spend()
        if not isinstance(schema, dict):
            return schema
        base, scope = self._enter(place, scope)
        schema = _modern(schema)
        if {"$ref", "$dynamicRef"} <= schema.keys():
            both = [*schema.get("allOf", ()), {"$dynamicRef": schema["$dynamicRef"]}]
            schema = {key: value for key, value in schema.items() if key != "$dynamicRef"} | {"allOf": both}
        out = dict[str, Any]()
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef"):
                found = self._named(self._target(key, value, base, scope), scope, value)
                if found is False:
                    return False
                out |= {} if found is True else found
            elif key not in _DROPPED:
                out |= with_subschemas({key: value}, lambda each: self.copied((each, base), scope))
        return out

    def _named(self, place: _Place, scope: _Scope, ref: str) -> Schema:
        if not isinstance(place[0], dict):
            return place[0]
        key = (id(place[0]), *self._enter(place, scope))
        if key not in self._names:
            word = re.sub(r"\W+", "_", re.split(r"[/#]", ref)[-1], flags=re.ASCII)
            self._names[key] = f"{word}.{len(self._names)}"
            self.pending.append((self._names[key], place, scope))
        return {"$ref": f"#/$defs/{self._names[key]}" if self._names[key] else "#"}

    def _target(self, key: str, ref: str, base: str, scope: _Scope) -> _Place:
        uri, _, fragment = (base + ref if ref.startswith("#") else urljoin(base, ref)).partition("#")
        fragment = unquote(fragment)
        anchor, *pointer = fragment.split("/")
        found, around = self._places.get(f"{uri}#{anchor}", (None, ""))
        for part in pointer:
            around, found = _base(found, around), _step(found, part)
        if not isinstance(found, (dict, bool)):
            raise refusal(key, f"to {ref!r} leads out of the schema; nothing is fetched, so put it under $defs")
        if key == "$dynamicRef" and fragment in self._dynamic.get(uri, ()):
            outermost = next((each for each in scope if fragment in self._dynamic[each]), uri)
            return self._places[f"{outermost}#{fragment}"]
        return found, around


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """With a tuple of earlier drafts as 2020-12 writes it."""
    if not isinstance(schema.get("items"), list):
        return schema
    rest = {key: value for key, value in schema.items() if key != "additionalItems"}
    return rest | {"prefixItems": schema["items"], "items": schema.get("additionalItems", True)}


def _base(schema: Schema, around: str) -> str:
    """The URI that the references in `schema` are relative to."""
    own = schema.get("$id") if isinstance(schema, dict) else None
    if isinstance(own, str) and re.search("#.", own):
        raise refusal("$id", f"{own!r} has a fragment; use $anchor")
    return urljoin(around, own).rstrip("#") if isinstance(own, str) else around
