"""Mistakes that can be planted in a Python file: cosmic-ray's operators, and one of our own."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator

# Ways of running the code that no test is meant to see.
_SKIPPED = ("RemoveDecorator", "VariableReplacer", "VariableInserter")


def mistake(source: str, chance: random.Random) -> str | None:
    """``source`` with one mistake, each kind of mistake as likely; None if it has no place for one.

    A mistake in an annotation, a docstring or the text of an error is none and is not planted.
    """
    kinds = list(_kinds(source))
    chance.shuffle(kinds)
    for variants in kinds:
        for mutant in variants(chance):
            if _running(mutant) not in (None, _running(source)):
                return mutant
    return None


def _kinds(source: str) -> Iterator[Callable[[random.Random], Iterator[str]]]:
    from cosmic_ray.plugins import get_operator, operator_names

    groups: dict[str, list[str]] = {}
    for name in operator_names():
        if not name.endswith(_SKIPPED):
            groups.setdefault(name.split("_")[0], []).append(name)
    for names in groups.values():
        yield lambda chance, names=names: _of_operators(
            source, [get_operator(name)() for name in names], chance
        )
    yield lambda chance: _without_keyword(source, chance)


def _of_operators(source: str, operators: list, chance: random.Random) -> Iterator[str]:
    """Every place of every operator, in random order."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    nodes = list(ast_nodes(get_ast(source)))
    places = [
        (operator, at)
        for operator in operators
        for at in range(sum(len(list(operator.mutation_positions(node))) for node in nodes))
    ]
    chance.shuffle(places)
    for operator, at in places[:20]:
        mutant = mutate_code(source, operator, at)
        if mutant is not None:
            yield mutant


def _without_keyword(source: str, chance: random.Random) -> Iterator[str]:
    """A keyword argument that is not passed on."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    keywords = [
        (
            starts[word.lineno - 1] + word.col_offset,
            starts[word.end_lineno - 1] + word.end_col_offset,
        )
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg is not None
    ]
    chance.shuffle(keywords)
    content = source.encode()
    for start, end in keywords:
        after = content[end:].lstrip()
        rest = after[1:] if after.startswith(b",") else after
        yield (content[:start] + rest).decode()


# Arguments by which a call behaves alike: texts for people, and checks of ourselves.
_IMMATERIAL = {"help", "metavar", "stacklevel", "strict", "category", "rich_help_panel"}


class _Running(ast.NodeTransformer):
    """Leaves what a test can see: no annotation, docstring, text of an error or a warning."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("annotation", "returns"):
            if hasattr(node, name):
                setattr(node, name, None)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            del body[0]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "warn":
            node.args = node.args[1:]
        node.keywords = [word for word in node.keywords if word.arg not in _IMMATERIAL]
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        """Without what decides on an ending: ``{'s' if n > 1 else ''}``."""
        if isinstance(node.value, ast.IfExp) and all(
            isinstance(each, ast.Constant) for each in (node.value.body, node.value.orelse)
        ):
            node.value = node.value.body
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Texts and None are told apart, not ordered: ``==``, ``is`` and ``<=`` say the same."""
        last = node.comparators[-1]
        if isinstance(last, ast.Constant) and (last.value is None or isinstance(last.value, str)):
            same = (ast.Eq, ast.Is, ast.LtE, ast.GtE)
            other = (ast.NotEq, ast.IsNot, ast.Lt, ast.Gt)
            node.ops = [
                ast.Eq() if isinstance(op, same) else ast.NotEq() if isinstance(op, other) else op
                for op in node.ops
            ]
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        """Without the marks between parameters: cosmic-ray takes ``*`` for a product."""
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.posonlyargs, node.kwonlyargs = [], []
        node.defaults, node.kw_defaults = [*node.defaults, *node.kw_defaults], []
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Without the options of ``@dataclass``: they forbid, and make nothing."""
        node.decorator_list = [
            each.func if isinstance(each, ast.Call) else each for each in node.decorator_list
        ]
        return self.generic_visit(node)


def _running(source: str) -> str | None:
    """What of ``source`` runs, as text; None where it is no Python."""
    try:
        return ast.dump(_Running().visit(ast.parse(source)))
    except SyntaxError:
        return None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
