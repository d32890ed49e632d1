"""A jinja2 environment as transformers configures it for chat templates, with limits that hold.

Templates come with models and, where a server allows it, with requests: code from outside.
The sandbox counts what a template does (loop turns, calls, filters, operators, characters
written) and refuses operations whose result would be too large before they run, so a
render ends in its calling thread without signals or a second process. It does not know chats.

What it cannot stop: an operation of the interpreter that is slow on small operands, such as
comparing two lists that are nested in themselves dozens of times. Sizes are bounded, not
every algorithm.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import wraps
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_SOURCE_CHARS = 128 * 1024
"""Compiling is not interrupted: so many take a second or two."""
MAX_CHARS = 8 * 1024 * 1024
"""Of any string a template makes, and of its output: prompts of more than a million tokens fit."""
MAX_WRITTEN = 4 * MAX_CHARS
"""Of everything it writes, buffers of macros and blocks included."""
MAX_ITEMS = 1_000_000
"""Of any list it makes, and of any count it gives to a function."""
MAX_BITS = 4096
"""Of any integer it makes."""
MAX_SECONDS = 5.0
"""Of this thread's processor time."""

_CLOCK_INTERVAL = 8


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant wrote; rendering passes it through."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return str(caller())


class TemplateDict:
    """`dict` without the type's other attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class TemplateNamespace(Namespace):
    """`namespace()` that stores no names with a leading underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **kwargs)
        for name in values:
            _check_public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot store {name!r}: names with a leading underscore are private")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    if len(format) > 1000:
        raise SecurityError(f"strftime_now got a format of {len(format)} characters; at most 1000 are allowed")
    return datetime.now().strftime(format)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Instrument(NodeTransformer):
    """Makes loops report each turn, and `~` go through the sandbox."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        static = sum(len(data.data) for child in node.body for data in child.find_all(nodes.TemplateData))
        static += sum(len(child.data) for child in node.body if isinstance(child, nodes.TemplateData))
        tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [nodes.Const(static)], [], None, None)
        node.body.insert(0, nodes.ExprStmt(tick).set_lineno(node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return nodes.Call(nodes.EnvironmentAttribute("concatenate"), node.nodes, [], None, None, lineno=node.lineno)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """One render's environment: it holds that render's counts."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, LoopControlExtension],
            optimized=False,
            finalize=self._written,
            cache_size=0,
        )
        self._ticks = 0
        self._chars_written = 0
        self._deadline = time.thread_time() + MAX_SECONDS
        self.filters = _GuardedFilters(self.filters | {"tojson": _tojson}, self.tick)
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["dict"] = TemplateDict()
        self.globals["namespace"] = TemplateNamespace

    def tick(self, static_chars: int = 0) -> None:
        """Called for each turn of a loop, call, filter and operator."""
        self._count_written(static_chars)
        self._ticks += 1
        if self._ticks % _CLOCK_INTERVAL == 0 and time.thread_time() > self._deadline:
            raise SecurityError(f"it took more than {MAX_SECONDS:g} s")

    def _count_written(self, chars: int) -> None:
        self._chars_written += chars
        if self._chars_written > MAX_WRITTEN:
            raise SecurityError(f"it wrote more than {MAX_WRITTEN} characters")

    def _written(self, value: Any) -> Any:
        """jinja2's `finalize`: sees each value before it is written."""
        self._count_written(len(value) if isinstance(value, str) else measure(value))
        return value

    def concatenate(self, *values: Any) -> str:
        """The operator `~`."""
        check_chars(sum(len(value) if isinstance(value, str) else measure(value) for value in values))
        return "".join(map(str, values))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.tick()
        if operator == "+":
            _check_sum(left, right)
        elif operator == "%" and isinstance(left, (str, bytes)):
            check_chars(format_bound(left, right if isinstance(right, tuple) else (right,)))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if __obj != __self.tick:
            __self.tick()
            check_counts((*args, *kwargs.values()))
            args = _check_method(getattr(__obj, "__wrapped__", __obj), args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Instrument().visit(source), *args, **kwargs)

    def run(self, code: CodeType, variables: dict[str, Any]) -> str:
        """The output of a compiled template. Raises whatever the template raises, SecurityError at a limit."""
        template = jinja2.Template.from_code(self, code, self.make_globals(None))
        pieces: list[str] = []
        total = 0
        for piece in template.generate(variables):
            total += len(piece)
            check_chars(total)
            pieces.append(piece)
        return "".join(pieces)


def compile_template(source: str) -> CodeType:
    """Raises jinja2.TemplateError, or RecursionError, for a source that is no template."""
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateError(f"it has {len(source)} characters; at most {MAX_SOURCE_CHARS} are compiled")
    return LimitedEnvironment().compile(source)


def check_chars(count: int) -> None:
    if count > MAX_CHARS:
        raise SecurityError(f"it makes a text of more than {MAX_CHARS} characters")


def check_counts(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, (int, float)) and abs(value) > MAX_ITEMS:
            raise SecurityError(f"it gives {value!r:.40} to a function; numbers up to {MAX_ITEMS} are allowed")


def _check_items(count: int) -> None:
    if count > MAX_ITEMS:
        raise SecurityError(f"it makes a list of more than {MAX_ITEMS} items")


def _check_bits(count: int) -> None:
    if count > MAX_BITS:
        raise SecurityError(f"it makes an integer of more than {MAX_BITS} bits")


def measure(value: Any) -> int:
    """About the characters of `str(value)`, parts that are shared counted each time. Raises SecurityError early."""
    total = 0
    stack = [value]
    while stack:
        item = stack.pop()
        total += len(item) if isinstance(item, (str, bytes)) else 4
        if isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack.extend(item)
        elif isinstance(item, Namespace):
            stack.append(object.__getattribute__(item, "_Namespace__attrs"))
        check_chars(total + len(stack))
    return total


def format_bound(pattern: str | bytes, values: Iterable[Any]) -> int:
    """No less than the length of `pattern` formatted with `values`, by `%` or `str.format`."""
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    sizes = [measure(value) for value in values]
    counts = [abs(value) for value in values if isinstance(value, int)]
    fields = text.count("%") + text.count("{")
    # A width can come from the pattern itself, or with * and nested braces from a value.
    widths = sum(int(digits[:9]) for digits in re.findall(r"[0-9]+", text))
    if "*" in text or "{" in text:
        check_counts(counts)
        widths += fields * max(counts, default=0)
    return len(text) + widths + fields * max(sizes, default=0)


def _check_sum(left: Any, right: Any) -> None:
    if isinstance(left, (str, bytes)) and isinstance(right, (str, bytes)):
        check_chars(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        _check_items(len(left) + len(right))


def _check_product(left: Any, right: Any) -> None:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, (str, bytes)) and isinstance(count, int):
            check_chars(len(sequence) * count)
        elif isinstance(sequence, (list, tuple)) and isinstance(count, int):
            _check_items(len(sequence) * count)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_method(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Bounds the result of a string's method; returns the arguments, an iterable one made a list."""
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if not isinstance(owner, (str, bytes)):
        return args
    if name == "replace" and len(args) >= 2:
        check_chars(_replaced(owner, args[0], args[1]))
    elif name == "join" and args:
        args = ([*args[0]], *args[1:])
        check_chars(_joined(args[0], owner))
    elif name == "expandtabs":
        tab = next(iter((*args, *kwargs.values())), 8)
        tabs = owner.count("\t") if isinstance(owner, str) else owner.count(b"\t")
        check_chars(len(owner) + tabs * int(tab))
    elif name == "translate":
        check_chars(len(owner) * (1 + measure(args)))
    elif name in ("format", "format_map"):
        check_chars(format_bound(owner, (*args, *kwargs.values())))
    return args


def _replaced(text: Any, old: Any, new: Any, count: Any = None) -> int:
    if type(text) is not str or not isinstance(old, str) or not isinstance(new, str):
        return measure(text) * (1 + measure(new))
    return len(text) + text.count(old) * len(new)


def _joined(items: list[Any], separator: Any) -> int:
    return measure(items) + len(items) * measure(separator)


Guard = Callable[..., int]
"""Of a filter's arguments, at most how many characters it makes, or work in proportion."""


class _GuardedFilters(dict[str, Callable[..., Any]]):
    """jinja2's filters, each of them checked before it runs."""

    def __init__(self, filters: dict[str, Callable[..., Any]], tick: Callable[[], None]) -> None:
        super().__init__(filters)
        self._tick = tick

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - it would call itself

    def __getitem__(self, name: str) -> Callable[..., Any]:
        function = super().__getitem__(name)
        guard: Guard = _FILTER_GUARDS.get(name, _each_item)
        leading = 0 if getattr(function, "jinja_pass_arg", None) is None else 1

        @wraps(function)  # keeps jinja2's marks on the function
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            passed, value, rest = args[:leading], args[leading], args[leading + 1 :]
            if isinstance(value, Iterator):
                value = list(value)
            check_counts((*rest, *kwargs.values()))
            check_chars(guard(value, *rest, **kwargs))
            return function(*passed, value, *rest, **kwargs)

        return guarded


def _nothing(*args: Any, **kwargs: Any) -> int:
    return 0


def _each_item(value: Any, *args: Any, **kwargs: Any) -> int:
    """A turn of Python's interpreter for each item takes as long as writing dozens of characters."""
    counts = [len(value) if hasattr(value, "__len__") else 0]
    counts += [abs(count) for count in (*args, *kwargs.values()) if isinstance(count, int)]
    return 32 * max(counts)


def _same(value: Any, *args: Any, **kwargs: Any) -> int:
    return measure(value) + measure(args) + measure(kwargs)


def _slow_text(value: Any, *args: Any, **kwargs: Any) -> int:
    return 64 * _same(value, *args, **kwargs)


def _lines_times(value: Any, *args: Any, **kwargs: Any) -> int:
    size = measure(value)
    extra = max((abs(x) if isinstance(x, int) else measure(x) for x in (*args, *kwargs.values())), default=4)
    return size + (1 + (value.count("\n") if isinstance(value, str) else size)) * extra


def _pieces_times(value: Any, *args: Any, **kwargs: Any) -> int:
    return measure(value) * (1 + measure(kwargs.get("wrapstring", args[2] if len(args) > 2 else None)))


def _json_bound(value: Any, *args: Any, **kwargs: Any) -> int:
    options = [option for option in (*args, *kwargs.values()) if option is not None]
    return measure(value) * (1 + max((x if isinstance(x, int) else measure(x) for x in options), default=0))


def _join_bound(value: Any, d: Any = "", attribute: Any = None) -> int:
    return _joined(value if isinstance(value, list) else list(value), d)


def _numbers_only(value: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, (int, float)):
        raise SecurityError("the filter sum adds numbers only")
    return _each_item(value)


_FILTER_GUARDS: dict[str, Guard] = {
    "center": _lines_times,
    "indent": _lines_times,
    "wordwrap": _pieces_times,
    "tojson": _json_bound,
    "join": _join_bound,
    "replace": _replaced,
    "format": lambda value, *args, **kwargs: format_bound(str(value), (*args, *kwargs.values())),
    "sum": _numbers_only,
    "pprint": _slow_text,
    "urlize": _slow_text,
    **dict.fromkeys(
        (
            "capitalize", "e", "escape", "forceescape", "lower", "string", "striptags", "title", "trim", "truncate",
            "upper", "urlencode", "wordcount", "xmlattr",
        ),
        _same,
    ),
    **dict.fromkeys(("count", "d", "default", "first", "int", "float", "last", "length", "list", "safe"), _nothing),
}  # fmt: skip
