"""References in JSON schemas, all made plain: `#/$defs/NAME` in one document without `$id`, anchors and dynamic scopes.

As JSON Schema 2020-12 has it (core, sections 8 and 9): `$id` and references are resolved by RFC 3986, pointers are
those of RFC 6901, and what a `$dynamicRef` stands for depends on the resources entered on the way to it, so a schema is
copied for each dynamic scope in which it is met. Nothing is fetched. This module knows where schemas stand in others,
and no more of what these mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urljoin

from hexad.errors import BadRequest

Schema = Any
"""A dict or a bool."""
_MAPS = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
_LISTS = {"prefixItems", "allOf", "anyOf", "oneOf"}
_SINGLES = {"additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames"}
_SINGLES |= {"unevaluatedProperties", "unevaluatedItems"}
_DROPPED = {"$schema", "$id", "$anchor", "$dynamicAnchor", "$vocabulary", "$defs", "definitions"}
_Place = tuple[Schema, str]
"""A schema, and the base URI around it."""
_Scope = tuple[str, ...]
"""The resources with dynamic anchors that were entered, the outermost first."""


def refusal(keyword: str, why: str) -> BadRequest:
    return BadRequest(f"the JSON schema's {keyword} {why}", param="structured_outputs")


def with_plain_references(root: Schema, spend: Callable[[], None]) -> tuple[Schema, dict[str, Schema]]:
    """`root`, whose references are `#` or `#/$defs/NAME`, and the schemas of these names. `spend` is called for each
    schema that is read or written. Raises BadRequest for a reference that leads out of `root`, naming it."""
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
        self._spend()
        base, dialect = _base(schema, around), str(schema.get("$schema", ""))
        if dialect and not re.match("https?://json-schema.org/", dialect):
            raise refusal("$schema", f"is {dialect!r}; nothing is fetched, so leave it out for draft 2020-12")
        for key in schema.keys() & {"$id", "$anchor", "$dynamicAnchor"}:
            name = f"{base}#{'' if key == '$id' else schema[key]}"
            if self._places.setdefault(name, (schema, around))[0] is not schema:
                raise refusal(key, f"{schema[key]!r} stands at two schemas; give each its own")
        if "$dynamicAnchor" in schema:
            self._dynamic.setdefault(base, set()).add(schema["$dynamicAnchor"])
        with_subschemas(schema, lambda each: self._collect(each, base))

    def _enter(self, place: _Place, scope: _Scope) -> tuple[str, _Scope]:
        base = _base(*place)
        return base, scope if base in scope or base not in self._dynamic else (*scope, base)

    def copied(self, place: _Place, scope: _Scope) -> Schema:
        schema = place[0]
        self._spend()
        if not isinstance(schema, dict):
            return schema
        base, scope = self._enter(place, scope)
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
            self._names[key] = word if word not in self._names.values() else f"{word}.{len(self._names)}"
            self.pending.append((self._names[key], place, scope))
        return {"$ref": f"#/$defs/{self._names[key]}" if self._names[key] else "#"}

    def _target(self, key: str, ref: str, base: str, scope: _Scope) -> _Place:
        uri, _, fragment = (base + ref if ref.startswith("#") else urljoin(base, ref)).partition("#")
        fragment = unquote(fragment)
        anchor, *pointer = fragment.split("/")
        found, around = self._places.get(f"{uri}#{anchor}", (None, ""))
        for part in pointer:
            part = part.replace("~1", "/").replace("~0", "~")
            around = _base(found, around)
            is_index = isinstance(found, list) and part.isdecimal() and int(part) < len(found)
            found = found[int(part)] if is_index else found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, (dict, bool)):
            raise refusal(key, f"to {ref!r} leads out of the schema; nothing is fetched, so put it under $defs")
        if key == "$dynamicRef" and fragment in self._dynamic.get(uri, ()):
            outermost = next((each for each in scope if fragment in self._dynamic[each]), uri)
            return self._places[f"{outermost}#{fragment}"]
        return found, around


def _base(schema: Schema, around: str) -> str:
    """The URI that the references in `schema` are relative to."""
    own = schema.get("$id") if isinstance(schema, dict) else None
    if isinstance(own, str) and re.search("#.", own):
        raise refusal("$id", f"{own!r} has a fragment; use $anchor")
    return urljoin(around, own).rstrip("#") if isinstance(own, str) else around
