"""Error codes are for ever: clients branch on them, so each is listed, and none goes or changes unseen."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from tests.guards.golden import GOLDEN, differences
from tests.guards.tree import SOURCE, python_files, shown, syntax

WORD = re.compile(r"[A-Z][A-Z0-9_]+")
CODE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
REFERENCES = ("ORDER", "INSTRUCTION", "CUSTOMER")
CONTRACT = {
    *(f"{ref}_REF_IS_REQUIRED" for ref in REFERENCES),
    *(f"{ref}_REF_LENGTH_OUT_OF_RANGE" for ref in REFERENCES),
    *(f"{ref}_REF_CONTAINS_INVALID_CHARACTERS" for ref in REFERENCES),
    *(f"{ref}_NOT_FOUND" for ref in REFERENCES),
    "ORDER_ALREADY_EXISTS", "INSTRUCTION_ALREADY_EXISTS", "INSTRUCTION_CANCELLED", "AMOUNT_IS_REQUIRED",
    "AMOUNT_IS_INVALID", "AMOUNT_OUT_OF_RANGE", "CURRENCY_IS_REQUIRED", "CURRENCY_LENGTH_OUT_OF_RANGE",
    "CURRENCY_NOT_SUPPORTED", "COUNTRY_IS_REQUIRED", "COUNTRY_LENGTH_OUT_OF_RANGE", "COUNTRY_NOT_SUPPORTED",
    "DIRECTION_IS_REQUIRED", "DIRECTION_IS_NOT_RECOGNISED", "SCHEME_ID_NOT_RECOGNISED", "SCHEME_ID_NOT_SUPPORTED",
    "SETTLED_BY_DATE_IS_REQUIRED", "SETTLED_BY_DATE_IS_INVALID", "METADATA_KEY_SIZE_OUT_OF_RANGE",
    "METADATA_VALUE_SIZE_OUT_OF_RANGE", "METADATA_COUNT_OUT_OF_RANGE", "TENANT_ID_IS_REQUIRED",
    "ACCOUNT_ID_IS_REQUIRED",
}  # fmt: skip
"""What the wire contract lists (section 1) for the routes that there are."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Codes:
    """The codes that `Failure`s of some modules can have, found without running them.

    A code is a text, or a parameter of the function around, with or without something after it
    (`f"{code}_IS_REQUIRED"`); then the calls of that function say which codes there are. A call with `required=False`
    has no `…_IS_REQUIRED`.
    """

    def __init__(self, trees: Iterable[ast.Module]) -> None:
        self.found: set[str] = set()
        self._calls = [(call, around) for tree in trees for call, around in _calls(tree)]
        self._sinks: dict[str, set[tuple[int, str, str]]] = defaultdict(set)
        self._sinks["Failure"].add((0, "code", ""))
        self._attributes = _attributes(self._calls)
        before = -1
        while before != (before := sum(map(len, self._sinks.values()))):
            for call, around in self._calls:
                for place, name, suffix in list(self._sinks.get(_called(call), ())):
                    argument = _argument(call, place, name)
                    if argument is not None and not (suffix == "_IS_REQUIRED" and _is_optional(call)):
                        self._take(argument, around, suffix)

    def _take(self, value: ast.expr, around: Function | None, suffix: str) -> None:
        if isinstance(value, ast.Constant):
            self._add(value.value, suffix, WORD)
        elif isinstance(value, ast.IfExp):
            self._take(value.body, around, suffix)
            self._take(value.orelse, around, suffix)
        elif isinstance(value, ast.JoinedStr) and isinstance(value.values[0], ast.FormattedValue):
            rest = "".join(part.value for part in value.values[1:] if isinstance(part, ast.Constant))
            self._take(value.values[0].value, around, rest + suffix)
        elif isinstance(value, ast.Attribute) and value.attr.endswith("code"):
            for constant in self._attributes[value.attr]:
                self._add(constant, suffix)
        elif isinstance(value, ast.Name) and around is not None and value.id.endswith("code"):
            place = _parameters(around).get(value.id)
            if place is not None:
                self._sinks[around.name].add((place, value.id, suffix))
            else:
                for node in ast.walk(around):
                    if isinstance(node, ast.Constant):
                        self._add(node.value, suffix)

    def _add(self, value: object, suffix: str, form: re.Pattern[str] = CODE) -> None:
        if isinstance(value, str) and form.fullmatch(value + suffix):
            self.found.add(value + suffix)


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, Function | None]]:
    """Every call with the innermost function around it."""

    def walk(node: ast.AST, around: Function | None) -> Iterator[tuple[ast.Call, Function | None]]:
        if isinstance(node, ast.Call):
            yield node, around
        inside = node if isinstance(node, Function) else around
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(tree, None)


def _called(call: ast.Call) -> str:
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    if place < len(call.args):
        return call.args[place]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _is_optional(call: ast.Call) -> bool:
    required = _argument(call, len(call.args), "required")
    return isinstance(required, ast.Constant) and required.value is False


def _parameters(function: Function) -> dict[str, int]:
    names = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
    if names[:1] in (["self"], ["cls"]):
        names = names[1:]
    return {name: place for place, name in enumerate(names)}


def _attributes(calls: Iterable[tuple[ast.Call, Function | None]]) -> dict[str, set[object]]:
    """Texts given by keyword, such as `malformed_code="…"`."""
    found: dict[str, set[object]] = defaultdict(set)
    for call, _ in calls:
        for keyword in call.keywords:
            if keyword.arg is not None and isinstance(keyword.value, ast.Constant):
                found[keyword.arg].add(keyword.value.value)
    return found


def codes_of(*sources: str) -> set[str]:
    return Codes(ast.parse(source) for source in sources).found


def all_codes() -> set[str]:
    return Codes(syntax(path) for path in python_files(SOURCE)).found


def test_the_codes_are_those_that_are_listed() -> None:
    assert not (text := differences(GOLDEN / "error_codes.txt", "\n".join(sorted(all_codes())) + "\n")), text


def test_all_of_the_contracts_codes_are_there() -> None:
    assert not CONTRACT - all_codes()


def test_templates_name_only_what_they_bring() -> None:
    """A placeholder without its value would show a brace to people, or fail."""
    wrong = []
    for path in python_files(SOURCE):
        for call, _ in _calls(syntax(path)):
            if _called(call) != "Failure" or len(call.args) < 2:
                continue
            template, given = call.args[1], call.args[2] if len(call.args) > 2 else None
            if not (isinstance(template, ast.Constant) and isinstance(given, ast.Dict | None)):
                continue
            keys = {key.value for key in given.keys if isinstance(key, ast.Constant)} if given else set()
            spread = given is not None and None in given.keys
            missing = set(re.findall(r"\{(\w+)\}", template.value)) - keys
            if missing and not spread and given is not None:
                wrong.append(f"{shown(path)}:{call.lineno}: {', '.join(sorted(missing))}")
    assert not wrong, "\n".join(wrong)


def test_the_guard_finds_codes_wherever_they_are_made() -> None:
    assert codes_of('raise Invalid(Failure("PLAIN_CODE", "text"))') == {"PLAIN_CODE"}
    assert codes_of('Failure("ONE_CODE" if x else "OTHER_CODE", "text")') == {"ONE_CODE", "OTHER_CODE"}
    collector = """
class Collector:
    def add(self, code, template): self.failures.append(Failure(code, template))
    def text(self, source, field, code, *, required=True):
        if required: self.required(field, code)
        self.add(f"{code}_IS_INVALID", "x")
    def required(self, field, code): self.add(f"{code}_IS_REQUIRED", "x")
"""
    assert codes_of(collector, 'found.text(source, "name", "THE_NAME")') == {
        "THE_NAME_IS_INVALID",
        "THE_NAME_IS_REQUIRED",
    }
    assert codes_of(collector, 'found.text(source, "name", code="THE_NAME")') >= {"THE_NAME_IS_REQUIRED"}
    assert codes_of(collector, 'found.text(source, "name", "THE_NAME", required=False)') == {"THE_NAME_IS_INVALID"}
    assert codes_of('def f(kind): return Failure(kind.bad_code, "x")', 'Kind(bad_code="BAD_KIND")') == {"BAD_KIND"}
    assert codes_of('def f():\n  for code in ("A_B", "C_D"):\n    Failure(code, "x")') == {"A_B", "C_D"}
