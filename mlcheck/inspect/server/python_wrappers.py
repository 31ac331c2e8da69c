"""Programs to which a wrapper in Python hands its arguments on, as far as its text shows."""

from __future__ import annotations

import ast
import posixpath
import warnings
from collections.abc import Iterator, Mapping

_RUNS = frozenset({"run", "call", "check_call", "check_output", "Popen"})
_EXECS = frozenset(f"exec{kind}" for kind in ("v", "ve", "vp", "vpe", "l", "le", "lp", "lpe"))
_SPAWNS = frozenset(f"spawn{kind}" for kind in ("v", "ve", "vp", "vpe", "l", "le", "lp", "lpe"))
_TESTS = frozenset({"exists", "isfile", "is_file", "access", "which"})
_ERRORS = frozenset({"FileNotFoundError", "OSError", "IOError", "EnvironmentError", "Exception"})
_DEPTH = 20
"""Most expressions within expressions."""


def called(text: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the programs to which a Python script hands its arguments on.

    Programs that it looks for, or whose absence it handles, are left out.

    Args:
        env: the variables that it is started with.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        return tuple(_Script(tree, env).called())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


class _Script:
    def __init__(self, tree: ast.Module, env: Mapping[str, str]) -> None:
        self._nodes = list(ast.walk(tree))
        self._env = env
        self._set: dict[str, list[ast.expr]] = {}
        for node in self._nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target = node.targets[0]
                if isinstance(target, ast.Name):
                    self._set.setdefault(target.id, []).append(node.value)

    def called(self) -> Iterator[str]:
        hands_on = any(isinstance(n, ast.Attribute) and n.attr == "argv" for n in self._nodes)
        if not hands_on or self._handles_absence():
            return
        calls = [node for node in self._nodes if isinstance(node, ast.Call) and node.args]
        tests = [node for node in calls if _name(node) in _TESTS]
        tested = {self._text(node.args[0]) for node in tests}
        found: dict[str, None] = {}
        for node in calls:
            program = self._program(node)
            if program and program not in tested:
                found[program] = None
        yield from found

    def _handles_absence(self) -> bool:
        handlers = [node for node in self._nodes if isinstance(node, ast.ExceptHandler)]
        return any(
            handler.type is None
            or any(isinstance(n, ast.Name) and n.id in _ERRORS for n in ast.walk(handler.type))
            for handler in handlers
        )

    def _program(self, node: ast.Call) -> str | None:
        name = _name(node)
        if name in _EXECS:
            return self._text(node.args[0])
        if name in _SPAWNS and len(node.args) > 1:
            return self._text(node.args[1])
        if name in _RUNS and isinstance(first := self._first(node.args[0]), ast.expr):
            return self._text(first)
        return None

    def _first(self, node: ast.expr, depth: int = 0) -> ast.expr | None:
        """Return the first of a list of words."""
        if depth > _DEPTH:
            return None
        match node:
            case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_]):
                return None if isinstance(first, ast.Starred) else first
            case ast.BinOp(left=left, op=ast.Add()):
                return self._first(left, depth + 1)
            case ast.Name(id=name) if len(self._set.get(name, ())) == 1:
                return self._first(self._set[name][0], depth + 1)
        return None

    def _text(self, node: ast.expr, depth: int = 0) -> str | None:
        """Return the value of an expression that is a text, or None if it is not known."""
        if depth > _DEPTH:
            return None
        match node:
            case ast.Constant(value=str(value)):
                return value
            case ast.Name(id=name) if len(self._set.get(name, ())) == 1:
                return self._text(self._set[name][0], depth + 1)
            case ast.BinOp(left=left, op=(ast.Add() | ast.Div()) as operator, right=right):
                one, other = self._text(left, depth + 1), self._text(right, depth + 1)
                if one is None or other is None:
                    return None
                return one + other if isinstance(operator, ast.Add) else posixpath.join(one, other)
            case ast.JoinedStr(values=values):
                parts = [
                    self._text(one.value if isinstance(one, ast.FormattedValue) else one, depth + 1)
                    for one in values
                ]
                return None if None in parts else "".join(part or "" for part in parts)
            case ast.BoolOp(op=ast.Or(), values=[first, *rest]):
                found = self._text(first, depth + 1)
                if found == "" or (found is None and _is_variable(first)):
                    return self._text(rest[0], depth + 1)
                return found
            case ast.Call():
                return self._result(node, depth)
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=key)):
                return self._env.get(str(key))
        return None

    def _result(self, node: ast.Call, depth: int) -> str | None:
        name = _name(node)
        texts = [self._text(argument, depth + 1) for argument in node.args]
        known = [text for text in texts if text is not None]
        if name == "join" and known == texts and isinstance(node.func, ast.Attribute):
            return posixpath.join(*known) if known and _is_path(node.func.value) else None
        if name in ("Path", "PurePath", "str", "fspath") and len(texts) == 1:
            return texts[0]
        if _is_variable(node) and known and texts[0] is not None:
            return self._env.get(texts[0], texts[1] if len(texts) > 1 else None)
        return None


def _name(node: ast.Call) -> str:
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "path"


def _is_variable(node: ast.expr) -> bool:
    """Return whether an expression asks for a variable, as `os.environ.get("X")` does."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get")):
            return True
        case ast.Call():
            return _name(node) == "getenv"
    return False
