"""JSON schemas (draft 2020-12) in fewer keywords: those that llguidance knows.

`not`, `if`, `oneOf`, `dependent*`, `propertyNames`, `contains` and `unevaluated*` are assertions that others can
express, as long as what they negate can be negated: `if` is "this and then, or not this and else". What cannot be
written so is refused by name; nothing is left out. This module does not know grammars.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from hexad.errors import BadRequest
from hexad.text.json_formats import FORMATS, KNOWN
from hexad.text.json_refs import Schema, parts_of, refusal, values_of, with_plain_references, with_subschemas

MAX_STEPS = 20_000
"""Schemas that one may become: alternatives multiply."""
MAX_SIZE = 2**19
"""Values and characters in them, where one schema stands in many alternatives."""
WITHIN = 8
"""What `contains` counts stands among so many first items, and so does what breaks a negated `items`."""
MAX_ORDERS = 120
"""Arrays that `uniqueItems` may become."""
FRACTIONS = 100
"""A number that is no integer, where `integer` is negated, lies between this and its negative."""
_TYPES = ("null", "boolean", "object", "array", "number", "string")
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
ANNOTATIONS = {"$comment", "title", "description", "default", "deprecated", "examples", "readOnly", "writeOnly"}
_FOREIGN = {"nullable": "a type null", "dependencies": "dependentRequired or dependentSchemas"}
_FOREIGN |= {"additionalItems": "items, behind prefixItems", "$recursiveRef": "$ref"}
_OPPOSITES = {"minimum": "exclusiveMaximum", "maximum": "exclusiveMinimum"}
_OPPOSITES |= {other: key for key, other in _OPPOSITES.items()}
_VALUES = {"const", "enum", *_OPPOSITES}
_NAMING = {"properties", "patternProperties", "required", "dependentRequired", "dependentSchemas"}
_OPEN = ("patternProperties", "additionalProperties", "unevaluatedProperties", "unevaluatedItems")
_WITH_OTHERS = {"then", "else", "minContains", "maxContains"}
_OF_TYPE = {"Length": "string", "Items": "array", "Properties": "object"}
_IN_PLACE = {"allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas", "$ref"}
_REWRITTEN = {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "propertyNames", "contains"}
_REWRITTEN |= {"minContains", "maxContains", "uniqueItems", "unevaluatedProperties", "unevaluatedItems"}


def prepare_schema(schema: dict[str, Any], lenient: bool = False) -> dict[str, Any]:
    """The same schema without the keywords above. Raises BadRequest, naming the one that stands in the way; `lenient`:
    only without what would stop llguidance, which is to leave out what it does not know."""
    try:
        return _Rewriter(schema).document(lenient)
    except (ArithmeticError, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise BadRequest(
            f"the JSON schema has a keyword with a value of the wrong type: {error}", param="structured_outputs"
        ) from None


class _Case(NamedTuple):
    """One way in which a schema can hold, and what it has evaluated then."""

    all_of: tuple[Schema, ...] = ()
    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    every_property: bool = False
    num_items: int = 0
    every_item: bool = False
    items: tuple[Schema, ...] = ()
    """What `contains` evaluates, wherever it stands."""

    def beside(self, other: _Case) -> _Case:
        all_of, items = self.all_of + other.all_of, self.items + other.items
        names, patterns = self.names | other.names, self.patterns | other.patterns
        every_property, every_item = self.every_property or other.every_property, self.every_item or other.every_item
        return _Case(all_of, names, patterns, every_property, max(self.num_items, other.num_items), every_item, items)


def _product(*sides: Iterable[_Case]) -> list[_Case]:
    cases = [_Case()]
    for side in sides:
        cases = [one.beside(other) for one, other in itertools.product(cases, list(side))]
    return cases


class _Rewriter:
    def __init__(self, root: Schema) -> None:
        self._left = MAX_STEPS
        self._main, self._definitions = with_plain_references(root, self._spend)
        self._left, self._root = MAX_STEPS, {"$defs": self._definitions}
        self._named: list[str] = []  # what is written refers to these
        self._names = False  # unlisted ones may stand beside listed ones, and `\\u0061` would not be a listed `a`

    def _spend(self, steps: int = 1) -> None:
        self._left -= steps
        if self._left < 0:
            raise BadRequest(
                f"the JSON schema has more than {MAX_STEPS} parts when its conditions are written out; use fewer",
                param="structured_outputs",
            )

    def document(self, lenient: bool) -> dict[str, Any]:
        if lenient:
            return _without_look_around(self._main | {"$defs": self._definitions})
        main, definitions = self.rewrite(self._main), dict[str, Schema]()
        for name in self._named:  # which grows meanwhile
            if name not in definitions:
                definitions[name] = self.rewrite(self._definitions[name])
        if _size([main, definitions], {}) > MAX_SIZE:
            self._spend(MAX_STEPS)
        out = {"allOf": [main]} if isinstance(main, bool) else main | {"$defs": definitions} if definitions else main
        if self._names and (found := re.search(r"\\u00[01]\w|\x7f", json.dumps(out))):
            raise refusal("additionalProperties", f"is to be false where a value holds {found[0]}")
        return out | ({"x-guidance": {"json_allowed_escapes": 'nrbtf"\\'}} if self._names else {})

    def rewrite(self, schema: Schema) -> Schema:
        self._spend()
        if not isinstance(schema, dict):
            return schema
        if any(schema.get(key, True) not in (True, {}) for key in ("unevaluatedProperties", "unevaluatedItems")):
            return self._without_unevaluated(schema)
        out: dict[str, Any] = {}
        is_open = schema.get("additionalProperties", True) is not False
        self._names |= is_open and not _NAMING.isdisjoint(schema)
        most = len(schema.get("required", ())) + 1
        if schema.get("minProperties", 0) > most and (is_open or "patternProperties" in schema):
            raise refusal("minProperties", f"is above {most}, and a name may come twice; list names as required")
        for key, value in _inclusive(schema).items():
            if key in _FOREIGN:
                raise refusal(key, f"is not of draft 2020-12; use {_FOREIGN[key]}")
            if key in _VALUES and value not in (json.loads(json.dumps(value), parse_int=float), 2**63 - 1):
                raise refusal(key, "holds an integer that would be rounded; give one that a double holds")
            if key in _COUNTS and isinstance(value, float) and value.is_integer():
                value = int(value)
            if key == "$ref" and value != "#":
                self._named.append(value.removeprefix("#/$defs/"))
            if key == "patternProperties" and "additionalProperties" not in schema:  # patterns may not overlap
                value = {pattern: each for pattern, each in value.items() if each not in (True, {})}
            if key == "format" and value not in KNOWN and "string" in schema.get("type", "string"):
                if value == "regex" or "pattern" not in schema:  # which else says what is meant
                    raise refusal(key, f"{value!r} cannot be enforced; say it as a pattern, or leave it out")
            elif key not in _REWRITTEN and not (key == "format" and value in FORMATS):
                out |= with_subschemas({key: value}, self.rewrite)
        also = list(self._assertions(schema))
        for key in _OPPOSITES:
            if begun := _begun(key, out.get(key, 0)):
                end = key.removeprefix("exclusive").lower()
                also.append({"anyOf": [{key: out.pop(key)}, *({end: each} for each in begun)]})
        if "oneOf" in out:
            also.append({"anyOf": self._one_of(out.pop("oneOf"), schema["oneOf"])})
        if also:
            out["allOf"] = [*out.get("allOf", []), *also]
        for key in sorted(out.keys() & {"patternProperties", "additionalProperties"}):
            out[key] = out.pop(key)  # together, or llguidance takes a name that matches for an additional one
        return out

    def _one_of(self, rewritten: list[Schema], branches: list[Schema]) -> list[Schema]:
        if self._are_disjoint(branches):
            return rewritten
        others = [[self.negate(each) for each in _without(branches, i)] for i in range(len(branches))]
        return [{"allOf": [one, *negated]} for one, negated in zip(rewritten, others, strict=True)]

    def _are_disjoint(self, branches: list[Schema]) -> bool:
        """At a glance: of different types, or told apart by a value, or by a name that one demands and one forbids."""
        found = [parts_of(each, self._root) for each in branches]
        pairs = (pair for sides in itertools.combinations(found, 2) for pair in itertools.product(*sides))
        return not any(self._may_overlap(one, other) for one, other in pairs)

    def _may_overlap(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        types = [one.get("type"), other.get("type")]
        if types[0] != types[1] and all(isinstance(kind, str) for kind in types):
            return set(types) == {"number", "integer"}
        if "object" not in types:
            return _share(self._values(one), self._values(other))
        tags = set(one.get("required", ())) & set(other.get("required", ()))
        known, there = (each.get("properties", {}) for each in (one, other))
        return all(_share(self._values(known.get(name)), self._values(there.get(name))) for name in tags)

    def _values(self, schema: Schema) -> dict[Any, Any]:
        """The values that match, and perhaps more, by what is equal; none where they are not a list of scalars."""
        found = dict[Any, Any]()
        for part in parts_of(schema, self._root):
            values = [False, True] if part.get("type") == "boolean" else values_of(part)
            if not values or any(isinstance(value, (dict, list)) for value in values):
                return {}
            found |= {(isinstance(value, bool), value): value for value in values}
        return found

    def _assertions(self, schema: dict[str, Any]) -> Iterable[Schema]:
        """What the rewritten keywords demand, in others."""
        if "not" in schema:
            yield self.negate(schema["not"])
        if "if" in schema and schema.keys() & {"then", "else"}:
            then, otherwise = (self.rewrite(schema.get(key, True)) for key in ("then", "else"))
            held = {"allOf": [self.rewrite(schema["if"]), then]}
            yield {"anyOf": [held, {"allOf": [self.negate(schema["if"]), otherwise]}]}
        for name, needed in schema.get("dependentRequired", {}).items():
            yield {"anyOf": [{"properties": {name: False}}, {"required": needed}]}
        for name, needed in schema.get("dependentSchemas", {}).items():
            yield {"anyOf": [{"properties": {name: False}}, self.rewrite(needed)]}
        if (names := schema.get("propertyNames", True)) not in (True, {}):
            yield _names_like(parts_of(names, self._root)[0] if names and names.keys() == {"$ref"} else names)
        if schema.get("uniqueItems") and schema.get("maxItems", 2) > 1:
            yield {"anyOf": [*_not_of_type(["array"]), *self._unique(schema)]}
        if "contains" in schema:
            least, most = int(schema.get("minContains", 1)), schema.get("maxContains")
            if schema["contains"] in (True, {}):
                yield {"minItems": least, **({} if most is None else {"maxItems": int(most)})}
            elif least > 0 or most is not None:
                yield {"anyOf": [*_not_of_type(["array"]), *self._containing(schema["contains"], least, most)]}
        if len(steps := _steps(schema.get("multipleOf", 1))) > 1:
            yield {"anyOf": [*_not_of_type(["number"]), *({"type": "number", "multipleOf": each} for each in steps)]}
        if schema.get("format") in FORMATS:
            yield {"pattern": FORMATS[schema["format"]]}

    def _unique(self, schema: dict[str, Any]) -> Iterable[Schema]:
        """Arrays of a few listed items in every order, none twice."""
        sides = [self._values(each) for each in schema.get("prefixItems", ())]
        if schema.get("items") is not False:
            more = self._values(schema.get("items"))
            sides += [more] * (len(more) or 1)
        sides = sides[: int(schema.get("maxItems", len(sides)))]
        lengths = range(0 if "prefixItems" in schema else len(sides), len(sides) + 1)
        few = math.prod(map(len, sides)) in range(1, 5**5 + 1)
        found = (each for n in lengths for each in itertools.product(*sides[:n]) if len(set(each)) == n)
        if not few or len(orders := [*itertools.islice(found, MAX_ORDERS + 1)]) > MAX_ORDERS:
            raise refusal("uniqueItems", "needs items that are one of at most 5 listed values; else leave it out")
        lists = ([{"const": side[each]} for side, each in zip(sides, order, strict=False)] for order in orders)
        return [{"type": "array", "prefixItems": each, "items": False} for each in lists]

    def _containing(self, wanted: Schema, least: int, most: float | None) -> Iterable[Schema]:
        """Arrays with `least` to `most` items like `wanted`, by where the first of these stand and where more may."""
        if least > WITHIN:
            raise refusal("minContains", f"is {least}; at most {WITHIN} items can be counted while an array is written")
        like, other = self.rewrite(wanted), True if most is None else self.negate(wanted)
        more = 0 if most is None else int(most) - least
        for places in itertools.combinations(range(WITHIN), least if more >= 0 else WITHIN + 1):
            behind = range(places[-1] + 1 if places else 0, WITHIN)
            for free in itertools.combinations(behind, min(more, len(behind))):
                self._spend()
                length = max(*places, *free, -1, -1) + 1
                items = [like if i in places else i in free or other for i in range(length)]
                yield {"type": "array", "prefixItems": items, "items": other, "minItems": behind.start}

    def negate(self, schema: Schema) -> Schema:
        """Whatever does not match `schema`."""
        self._spend()
        if not isinstance(schema, dict):
            return not schema
        others: list[Schema] = []
        for key, value in schema.items():
            if key not in ANNOTATIONS | _WITH_OTHERS:
                others += self._negations(key, value, schema)
        return {"anyOf": others} if others else False

    def _negations(self, key: str, value: Any, schema: dict[str, Any]) -> list[Schema]:
        """Alternatives that each break one keyword."""
        self._names |= key in _NAMING
        if key in _OPPOSITES:
            return [self.rewrite({"type": "number", _OPPOSITES[key]: value})]
        if key in _COUNTS:
            kind = _OF_TYPE[key[3:]]
            if key.startswith("max"):
                return [self.rewrite({"type": kind, f"min{key[3:]}": int(value) + 1})]
            return [{"type": kind, f"max{key[3:]}": int(value) - 1}] if value > 0 else []
        table: dict[str, Callable[[], list[Schema]]] = {
            "type": lambda: _not_of_type([value] if isinstance(value, str) else value),
            "const": lambda: [self.rewrite(each) for each in _other_than(value)],
            "enum": lambda: [self.rewrite({"allOf": [{"anyOf": _other_than(each)} for each in value]})],
            "required": lambda: [{"type": "object", "properties": {name: False}} for name in value],
            "properties": lambda: [
                {"type": "object", "properties": {name: self.negate(each)}, "required": [name]}
                for name, each in value.items()
            ],
            "not": lambda: [self.rewrite(value)],
            "allOf": lambda: [self.negate(each) for each in value],
            "anyOf": lambda: [{"allOf": [self.negate(each) for each in value]}],
            "oneOf": lambda: [
                {"allOf": [self.negate(each) for each in value]},
                *({"allOf": list(map(self.rewrite, pair))} for pair in itertools.combinations(value, 2)),
            ],
            "if": lambda: [
                {"allOf": [self.rewrite(value), self.negate(schema.get("then", True))]},
                {"allOf": [self.negate(value), self.negate(schema.get("else", True))]},
            ],
            "$ref": lambda: [self.negate(self._target(value))],
            "prefixItems": lambda: [_item_at(i, self.negate(each)) for i, each in enumerate(value)],
            "items": lambda: self._some_item(self.negate(value), len(schema.get("prefixItems", ()))),
            "contains": lambda: self._miscounts(value, int(schema.get("minContains", 1)), schema.get("maxContains")),
        }
        if key in _OPEN and all(each in (True, {}) for each in (value.values() if key in _OPEN[:1] else [value])):
            return []
        if key not in table:
            raise refusal(key, "cannot be negated, as not, if or oneOf ask for; write the alternatives out")
        return table[key]()

    def _some_item(self, broken: Schema, first: int) -> list[Schema]:
        """Arrays with an item like `broken`, behind `first` others."""
        return [_item_at(first + i, broken) for i in range(1 if broken is True else WITHIN)] if broken else []

    def _miscounts(self, wanted: Schema, least: int, most: float | None) -> list[Schema]:
        limits = [{"minContains": 0, "maxContains": least - 1}] if least else []
        limits += [] if most is None else [{"minContains": int(most) + 1}]
        return [self.rewrite({"type": "array", "contains": wanted, **each}) for each in limits]

    def _target(self, ref: str) -> Schema:
        self._spend()
        return self._main if ref == "#" else self._definitions[ref.removeprefix("#/$defs/")]

    def _without_unevaluated(self, schema: dict[str, Any]) -> Schema:
        return {"anyOf": [{"allOf": list(case.all_of)} for case in self._cases(schema)]}

    def _cases(self, schema: Schema) -> list[_Case]:
        """The ways in which `schema` can hold; what it leaves unevaluated is closed in each."""
        self._spend()
        if not isinstance(schema, dict):
            return [_Case()] if schema else []
        own = {key: value for key, value in schema.items() if key not in _IN_PLACE | ANNOTATIONS}
        closing = {key: own.pop(key) for key in ("unevaluatedProperties", "unevaluatedItems") if key in own}
        base = _Case(
            (self.rewrite(own),),
            frozenset(schema.get("properties", ())),
            frozenset(schema.get("patternProperties", ())),
            "additionalProperties" in schema,
            len(schema.get("prefixItems", ())),
            "items" in schema,
            (self.rewrite(schema["contains"]),) if "contains" in schema else (),
        )
        return [self._closed(case, closing) for case in _product([base], *self._in_place(schema))]

    def _in_place(self, schema: dict[str, Any]) -> Iterable[list[_Case]]:
        """For each keyword that applies schemas to the same value: its ways to hold."""
        yield from map(self._cases, schema.get("allOf", ()))
        if "$ref" in schema:
            yield self._cases(self._target(schema["$ref"]))
        if "anyOf" in schema:  # all that match have evaluated something
            branches = [self._cases(each) for each in schema["anyOf"]]
            some = (each for n in range(1, len(branches) + 1) for each in itertools.combinations(branches, n))
            yield [case for each in some for case in _product(*each)]
        if "oneOf" in schema:
            yield [
                case
                for i, one in enumerate(schema["oneOf"])
                for case in _product(self._cases(one), [_Case(tuple(map(self.negate, _without(schema["oneOf"], i))))])
            ]
        if "if" in schema:
            held = _product(self._cases(schema["if"]), self._cases(schema.get("then", True)))
            not_held = [_Case((self.negate(schema["if"]),))]
            yield held + _product(not_held, self._cases(schema.get("else", True)))
        for name, needed in schema.get("dependentSchemas", {}).items():
            present = _product([_Case(({"type": "object", "required": [name]},))], self._cases(needed))
            yield [_Case(({"properties": {name: False}},)), *present]

    def _closed(self, case: _Case, closing: dict[str, Schema]) -> _Case:
        shut: dict[str, Any] = {}
        if "unevaluatedProperties" in closing and not case.every_property:
            shut["properties"] = dict.fromkeys(sorted(case.names), True)
            shut["patternProperties"] = dict.fromkeys(sorted(case.patterns), True)
            shut["additionalProperties"] = self.rewrite(closing["unevaluatedProperties"])
        if "unevaluatedItems" in closing and not case.every_item:
            shut["prefixItems"] = [True] * case.num_items
            shut["items"] = {"anyOf": [*case.items, self.rewrite(closing["unevaluatedItems"])]}
        every = case.every_property or "unevaluatedProperties" in closing
        every_item = case.every_item or "unevaluatedItems" in closing
        more = (shut,) if shut else ()
        return case._replace(all_of=case.all_of + more, every_property=every, every_item=every_item)


def _size(value: Any, known: dict[int, int]) -> int:
    """Of `value` as text, at least. Parts of it are the same object, and are looked at once."""
    if id(value) not in known:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        known[id(value)] = (len(value) if isinstance(value, str) else 1) + sum(_size(each, known) for each in inside)
    return known[id(value)]


def _without(branches: list[Schema], index: int) -> list[Schema]:
    return [*branches[:index], *branches[index + 1 :]]


def _share(some: dict[Any, Any], others: dict[Any, Any]) -> bool:
    return not some or not others or bool(some.keys() & others.keys())


def _inclusive(schema: dict[str, Any]) -> dict[str, Any]:
    """With a bound beside the one that is excluded, some last digits away: llguidance lets this through where the other
    bound is less than 1 away, be it in a schema that this one is merged with, and what is rounded to it everywhere."""
    for end, other, way, inner in (("exclusiveMinimum", "minimum", 1, max), ("exclusiveMaximum", "maximum", -1, min)):
        if isinstance(bound := schema.get(end), bool):
            raise refusal(end, "is of draft 4; write the number that is excluded")
        if bound is not None and way * bound >= 0:
            whole = schema.get("type") == "integer" and bound % 1 == 0
            nearest = bound + way * (1 if whole else max(abs(bound) * 2e-15, 1e-18))
            schema = schema | {other: inner(nearest, schema.get(other, nearest))}
    return schema


def _begun(end: str, bound: float) -> list[float]:
    """The first digits of a bound that is away from 0, for llguidance wants as many: below 1.25 1.20, and not 1.2."""
    text = f"{Decimal(str(bound)):f}"
    far = bound > 0 if end in ("maximum", "exclusiveMaximum") else bound < 0
    return [float(text[:-n]) for n in range(1, len(text.partition(".")[2]))] if far else []


def _steps(step: float) -> list[float]:
    """That, with which multiples of `step` are written shorter, too: llguidance reads those of 0.25 with two digits."""
    value = Fraction(str(step))
    places = range(1, len(str(step).partition(".")[2]))
    return [step, *(float(value * (value * 10**n).denominator) for n in places)]


def _without_look_around(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key != "pattern" or not re.search(r"\(\?<?[=!]", value)}
    return with_subschemas(kept, lambda each: _without_look_around(each) if isinstance(each, dict) else each)


def _item_at(index: int, schema: Schema) -> Schema:
    return {"type": "array", "prefixItems": [True] * index + [schema], "minItems": index + 1}


def _not_of_type(types: list[str]) -> list[Schema]:
    fractions = list[Schema]()
    if "integer" in types and "number" not in types:
        types = [*types, "number"]
        between = [_inclusive({"exclusiveMinimum": i, "exclusiveMaximum": i + 1}) for i in range(-FRACTIONS, FRACTIONS)]
        fractions = [{"type": "number", "anyOf": between}]
    others = [kind for kind in _TYPES if kind not in types]
    return [{"type": others}, *fractions] if others else fractions


def _other_than(value: Any) -> list[Schema]:
    if value is None:
        return _not_of_type(["null"])
    if isinstance(value, bool):
        return [*_not_of_type(["boolean"]), {"const": not value}]
    if isinstance(value, str):
        return [*_not_of_type(["string"]), {"type": "string", "pattern": f"^{_not_word(value)}$"}]
    if isinstance(value, (int, float)):
        sides = ({"type": "number", way: value} for way in ("exclusiveMinimum", "exclusiveMaximum"))
        return [*_not_of_type(["number"]), *sides]
    raise refusal("const", "of an object or array cannot be negated; write the alternatives out")


def _not_word(word: str) -> str:
    """A pattern of all texts but `word`: they end early, differ at some character, or go on."""
    pattern = r"[\s\S]+"
    for char in reversed(word):
        pattern = rf"(|[^{re.escape(char)}][\s\S]*|{re.escape(char)}{pattern})"
    return pattern


def _names_like(schema: Schema) -> Schema:
    if schema is False:
        return {"maxProperties": 0}
    rules = {
        key: value for key, value in schema.items() if key not in ANNOTATIONS and (key, value) != ("type", "string")
    }
    if rules.keys() == {"pattern"}:
        return {"patternProperties": {rules["pattern"]: True}, "additionalProperties": False}
    if rules.keys() <= {"minLength", "maxLength"}:
        least, most = int(rules.get("minLength", 0)), rules.get("maxLength")
        pattern = rf"^[\s\S]{{{least},{'' if most is None else int(most)}}}$"
        return {"patternProperties": {pattern: True}, "additionalProperties": False} if rules else True
    if rules.keys() == {"enum"} or rules.keys() == {"const"}:
        names = [name for name in rules.get("enum", [rules.get("const")]) if isinstance(name, str)]
        return {"properties": dict.fromkeys(names, True), "additionalProperties": False}
    raise refusal("propertyNames", f"with {', '.join(rules)} cannot be enforced; use one of pattern, enum and lengths")
