"""Line numbers of the keys and list elements of a TOML file, for messages and reports.

tomllib discards positions; tree-sitter's grammar keeps them.
"""

from __future__ import annotations

import tomllib

import tree_sitter
import tree_sitter_toml

Path = tuple[str | int, ...]
"""Keys and list indices that lead to a value."""

_LANGUAGE = tree_sitter.Language(tree_sitter_toml.language())
_KEYS = ("bare_key", "quoted_key", "dotted_key")


def line_numbers(text: str) -> dict[Path, int]:
    """Map every table, key and list element of a valid TOML document to its line, from 1."""
    lines: dict[Path, int] = {}
    tree = tree_sitter.Parser(_LANGUAGE).parse(text.encode())
    arrays: dict[Path, int] = {}
    for node in tree.root_node.named_children:
        if node.type == "pair":
            _pair(node, (), lines)
        elif node.type in ("table", "table_array_element"):
            header, *rest = [child for child in node.named_children if child.type != "comment"]
            *parents, last = _key(header)
            path: Path = ()
            for key in parents:
                path = (*path, key)
                if path in arrays:  # [[a]] then [a.b]: b belongs to the newest element of a
                    path = (*path, arrays[path])
            path = (*path, last)
            if node.type == "table_array_element":
                arrays[path] = arrays.get(path, -1) + 1
                path = (*path, arrays[path])
            _note(lines, path, node)
            for pair in rest:
                _pair(pair, path, lines)
    return lines


def _note(lines: dict[Path, int], path: Path, node: tree_sitter.Node) -> None:
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], node.start_point[0] + 1)


def _pair(node: tree_sitter.Node, above: Path, lines: dict[Path, int]) -> None:
    key, value = [child for child in node.named_children if child.type != "comment"][:2]
    path: Path = (*above, *_key(key))
    _note(lines, path, node)
    _value(value, path, lines)


def _value(node: tree_sitter.Node, path: Path, lines: dict[Path, int]) -> None:
    if node.type == "inline_table":
        for pair in node.named_children:
            if pair.type == "pair":
                _pair(pair, path, lines)
    elif node.type == "array":
        elements = [child for child in node.named_children if child.type != "comment"]
        for index, element in enumerate(elements):
            _note(lines, (*path, index), element)
            _value(element, (*path, index), lines)


def _key(node: tree_sitter.Node) -> tuple[str, ...]:
    """Return the parts of a key, unquoted by TOML's rules."""
    parts = node.named_children if node.type == "dotted_key" else [node]
    keys: list[str] = []
    for part in parts:
        if part.type == "dotted_key":
            keys.extend(_key(part))
        elif part.type in _KEYS:
            text = (part.text or b"").decode()
            keys.extend(tomllib.loads(f"{text} = 0"))
    return tuple(keys)
