"""Names and their types: parameters and local variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from highmem.lint.syntax.expressions import Expressions
from highmem.lint.syntax.graph import Expr, Instr

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Declarations", "parameter_names"]

_NOT_A_TYPE = frozenset({"const", "__user", "register", "volatile", "__iomem"})
_PARAMETER = re.compile(r"(\w+)\s*(?:\[[^\]]*\]\s*)*$")


def parameter_names(text: str) -> tuple[str, ...]:
    """The names in a declaration's parentheses."""
    reader = Declarations("", 0)
    reader.declare_parameters(text)
    return tuple(reader.parameters)


class Declarations(Expressions):
    """Lowers declarations."""

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(text, offset)
        self.parameters: list[str] = []

    def declare_parameters(self, text: str) -> None:
        """Names and types of the declaration's parameters."""
        depth, piece = 0, ""
        for char in text + ",":
            depth += (char in "([{") - (char in ")]}")
            if char != "," or depth:
                piece += char
                continue
            pointer = re.search(r"\(\s*\*\s*(\w+)\s*\)", piece)
            found = _PARAMETER.search(piece)
            if pointer:
                self.declared(pointer.group(1), "function *", parameter=True)
            elif found and piece.strip() not in ("void", "..."):
                name, lead = found.group(1), piece[: found.start()]
                stars = "*" * (lead.count("*") + piece[found.end(1) :].count("["))
                words = " ".join(
                    w for w in re.findall(r"\w+", lead) if w not in ("const", "__user")
                )
                self.declared(name, f"{words} {stars}".strip(), parameter=True)
            piece = ""

    def declared(self, name: str, kind: str, *, parameter: bool = False) -> None:
        """Note a variable and its type."""
        self.types[name] = kind
        if parameter:
            self.parameters.append(name)

    def on_declaration(self, node: Node) -> None:
        """Variables, with what they start as."""
        kind = node.child_by_field_name("type")
        words = " ".join(self.text_of(kind).split()) if kind is not None else ""
        static = any(
            child.type == "storage_class_specifier" and self.text_of(child) == "static"
            for child in node.children
        )
        for declarator in node.children_by_field_name("declarator"):
            self.declarator(declarator, words, static)
        if node.has_error:
            self.note_errors(node)

    def declarator(self, node: Node, words: str, static: bool) -> None:
        """One name of a declaration."""
        value = node.child_by_field_name("value") if node.type == "init_declarator" else None
        stars, inner = "", node
        while inner.type != "identifier":
            if inner.type == "function_declarator" and not stars.endswith("("):
                stars += "("
            stars += "*" if inner.type == "pointer_declarator" else ""
            stars += "[]" if inner.type == "array_declarator" else ""
            below = inner.child_by_field_name("declarator") or next(
                (c for c in inner.named_children if c.type.endswith(("declarator", "identifier"))),
                None,
            )
            if below is None:
                return
            inner = below
        name = self.text_of(inner)
        if static:
            return
        self.declared(name, f"{words} {stars}".strip())
        place: Expr = ("id", name)
        start, end = self.span(node)
        self.emit(Instr("declare", start, end, place))
        if value is not None and value.type == "initializer_list":
            self.effect(value)
            if stars.endswith("[]") or "*" not in stars:
                self.initialise(place, value)
        elif value is not None:
            self.assign(place, value, node)

    def initialise(self, place: Expr, node: Node) -> None:
        """Members that a designated initialiser gives."""
        for pair in node.named_children:
            designator = pair.child_by_field_name("designator")
            value = pair.child_by_field_name("value")
            if designator is None or value is None or designator.type != "field_designator":
                continue
            name = self.text_of(designator).lstrip(". ")
            self.assign(("fld", place, name), value, pair)
