"""From tree-sitter's tree to expressions and instructions: what is inside a statement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from highmem.lint.syntax.graph import Block, Expr, Instr, children

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Expressions"]

_NULLS = {"NULL": 0, "false": 0, "FALSE": 0, "true": 1, "TRUE": 1}
_WRAPPERS = frozenset(
    {"likely", "unlikely", "READ_ONCE", "ACCESS_ONCE", "!!", "__force", "xchg1", "WARN_ON",
     "WARN_ON_ONCE"}
)  # fmt: skip
_TYPE = re.compile(
    r"(?:__)?[us](?:8|16|32|64)|__[lb]e(?:16|32|64)|[a-z]\w*_t|u?(?:long|int|char|short)|caddr_t|T"
)
_PURE = frozenset({"IS_ERR", "IS_ERR_OR_NULL", "PTR_ERR", "ERR_PTR", "ERR_CAST"})


class Expressions:
    """Lowers expressions into the current block."""

    def __init__(self, text: str, offset: int) -> None:
        self.source = text
        self.offset = offset
        self.blocks: list[Block] = []
        self.at = 0
        self.types: dict[str, str] = {}
        self.addressed: set[str] = set()
        self.problems: list[tuple[int, str]] = []
        self.temporaries = 0

    # Given by the class that lowers statements.

    def new_block(self) -> int:
        """A new block."""
        raise NotImplementedError

    def goto(self, target: int) -> None:
        """End the current block."""
        raise NotImplementedError

    def block_value(self, node: Node) -> Expr:
        """A statement expression."""
        raise NotImplementedError

    def stop(self, name: str) -> None:
        """After a call that may not return."""
        raise NotImplementedError

    # Small helpers.

    def text_of(self, node: Node) -> str:
        """The source of a node."""
        return self.source[node.start_byte : node.end_byte]

    def span(self, node: Node) -> tuple[int, int]:
        """Offsets in the file."""
        return self.offset + node.start_byte, self.offset + node.end_byte

    def problem(self, at: int, cause: str) -> None:
        """Note what could not be read."""
        self.problems.append((self.offset + at, cause))

    def note_errors(self, node: Node) -> None:
        """Note the first part in there that the grammar does not know."""
        while not (node.type == "ERROR" or node.is_missing):
            below = next((child for child in node.children if child.has_error), None)
            if below is None:
                break
            node = below
        self.problem(node.start_byte, "cannot be parsed")

    def emit(self, instr: Instr) -> None:
        """Add to the current block."""
        self.blocks[self.at].instrs.append(instr)

    def fresh(self) -> Expr:
        """A value of which nothing is known."""
        self.temporaries += 1
        return ("any", self.temporaries)

    def temporary(self) -> Expr:
        """A place of our own."""
        self.temporaries += 1
        return ("tmp", self.temporaries)

    def keep(self, value: Expr, node: Node) -> Expr:
        """*value* as it is now, whatever is assigned later."""
        if value[0] in ("num", "tmp", "any"):
            return value
        place = self.temporary()
        start, end = self.span(node)
        self.emit(Instr("set", start, end, place, value, "="))
        return place

    # Conditions.

    def branch(self, node: Node, yes: int, no: int) -> None:
        """Go to *yes* or *no*; the current block ends."""
        kind = node.type
        if kind == "parenthesized_expression" and len(node.named_children) == 1:
            inner = node.named_children[0]
            if inner.type != "compound_statement":
                self.branch(inner, yes, no)
                return
        operator = self._operator(node)
        if kind == "unary_expression" and operator == "!":
            self.branch(self._field(node, "argument"), no, yes)
            return
        if kind == "binary_expression" and operator in ("&&", "||"):
            middle = self.new_block()
            left = (middle, no) if operator == "&&" else (yes, middle)
            self.branch(self._field(node, "left"), *left)
            self.at = middle
            self.branch(self._field(node, "right"), yes, no)
            return
        inside = self._wrapped(node)
        if inside is not None:
            self.branch(inside, yes, no)
            return
        if kind == "comma_expression":
            self.effect(self._field(node, "left"))
            self.branch(self._field(node, "right"), yes, no)
            return
        value = self.lower(node, condition=True)
        block = self.blocks[self.at]
        if block.op == "end":
            block.op, block.value, block.targets = "if", value, (yes, no)
            block.start, block.end = self.span(node)

    def _operator(self, node: Node) -> str:
        operator = node.child_by_field_name("operator")
        return self.text_of(operator) if operator is not None else ""

    def _field(self, node: Node, name: str) -> Node:
        found = node.child_by_field_name(name)
        return found if found is not None else node.children[0]

    def _wrapped(self, node: Node) -> Node | None:
        """The argument of likely() and its kind."""
        if node.type != "call_expression":
            return None
        function = node.child_by_field_name("function")
        arguments = node.child_by_field_name("arguments")
        if function is None or arguments is None or self.text_of(function) not in _WRAPPERS:
            return None
        return arguments.named_children[0] if len(arguments.named_children) == 1 else None

    # Values.

    def effect(self, node: Node) -> None:
        """An expression whose value nobody wants."""
        kind = node.type
        if kind == "comma_expression":
            for child in node.named_children:
                self.effect(child)
        elif kind == "parenthesized_expression" and len(node.named_children) == 1:
            self.effect(node.named_children[0])
        elif kind == "compound_statement":
            self.block_value(node)
        elif kind == "cast_expression" and self.text_of(self._field(node, "type")) == "void":
            self.effect(self._field(node, "value"))
        elif kind == "call_expression":
            self._call(node, used=False)
        elif kind == "conditional_expression" or (
            kind == "binary_expression" and self._operator(node) in ("&&", "||")
        ):
            self.choice(node)
        elif kind in ("assignment_expression", "update_expression"):
            self.lower(node)
        else:
            value = self.lower(node)
            if any(one[0] in ("deref", "fld", "call") for one in (value, *children(value))):
                start, end = self.span(node)
                self.emit(Instr("use", start, end, value=value))

    def choice(self, node: Node) -> Expr:
        """A value; where it is ``c ? a : b``, by two branches."""
        inner, kind = node, node.type
        while kind == "parenthesized_expression" and len(inner.named_children) == 1:
            inner = inner.named_children[0]
            kind = inner.type
        if kind == "compound_statement":
            return self.block_value(inner)
        if kind == "conditional_expression":
            consequence = inner.child_by_field_name("consequence")
            place = self.temporary()
            condition = self._field(inner, "condition")
            yes, no, after = self.new_block(), self.new_block(), self.new_block()
            if consequence is None:
                kept = self.keep(self.lower(condition), condition)
                block = self.blocks[self.at]
                block.op, block.value, block.targets = "if", kept, (yes, no)
                self._arm(yes, place, kept, inner, after)
            else:
                self.branch(condition, yes, no)
                self._arm(yes, place, consequence, inner, after)
            self._arm(no, place, self._field(inner, "alternative"), inner, after)
            self.at = after
            return place
        if kind == "binary_expression" and self._operator(inner) in ("&&", "||"):
            if not self._has_effects(inner):
                return self.lower(inner, condition=True)
            place = self.temporary()
            yes, no, after = self.new_block(), self.new_block(), self.new_block()
            self.branch(inner, yes, no)
            self._arm(yes, place, ("num", 1), inner, after)
            self._arm(no, place, ("num", 0), inner, after)
            self.at = after
            return place
        return self.lower(inner)

    def _arm(self, block: int, place: Expr, value: Node | Expr, node: Node, after: int) -> None:
        self.at = block
        start, end = self.span(node)
        got = value if isinstance(value, tuple) else self.choice(value)
        self.emit(Instr("set", start, end, place, got, "="))
        self.goto(after)

    def _has_effects(self, node: Node) -> bool:
        stack = [node]
        while stack:
            one = stack.pop()
            if one.type in ("assignment_expression", "update_expression", "call_expression"):
                return True
            if one.type == "compound_statement":
                return True
            stack.extend(one.named_children)
        return False

    def lower(self, node: Node, *, condition: bool = False) -> Expr:
        """The value of an expression; its effects go into the current block."""
        kind = node.type
        if kind == "identifier":  # most are
            name = self.text_of(node)
            return ("num", _NULLS[name]) if name in _NULLS else ("id", name)
        if kind == "call_expression":
            return self._call(node, condition=condition)
        if kind == "binary_expression":
            return self._binary(node, condition)
        method = getattr(self, "_on_" + kind, None)
        if method is not None:
            value = method(node)
            assert isinstance(value, tuple)
            return value
        for child in node.named_children:
            self.lower(child)
        return self.fresh()

    def _on_number_literal(self, node: Node) -> Expr:
        text = self.text_of(node).rstrip("uUlL").replace("'", "")
        try:
            octal = len(text) > 1 and text[0] == "0" and text.isdigit()
            return ("num", int(text, 8 if octal else 0))
        except ValueError:
            return self.fresh()

    def _on_null(self, _node: Node) -> Expr:
        return ("num", 0)

    def _on_true(self, _node: Node) -> Expr:
        return ("num", 1)

    _on_false = _on_null

    def _on_char_literal(self, _node: Node) -> Expr:
        return self.fresh()

    def _on_string_literal(self, _node: Node) -> Expr:
        return ("str",)

    def _on_concatenated_string(self, _node: Node) -> Expr:
        return ("str",)

    def _on_sizeof_expression(self, node: Node) -> Expr:
        return ("sizeof", " ".join(self.text_of(node)[6:].split()))

    def _on_parenthesized_expression(self, node: Node) -> Expr:
        inner = node.named_children
        if len(inner) == 1:
            if inner[0].type == "compound_statement":
                return self.block_value(inner[0])
            return self.lower(inner[0])
        self.note_errors(node)
        return self.fresh()

    def _on_comma_expression(self, node: Node) -> Expr:
        self.effect(self._field(node, "left"))
        return self.lower(self._field(node, "right"))

    def _on_cast_expression(self, node: Node) -> Expr:
        kind = " ".join(self.text_of(self._field(node, "type")).split())
        return ("cast", kind, self.lower(self._field(node, "value")))

    def _on_field_expression(self, node: Node) -> Expr:
        base = self.lower(self._field(node, "argument"))
        name = self.text_of(self._field(node, "field"))
        arrow = self._operator(node) == "->"
        return ("fld", dereferenced(base) if arrow else base, name)

    def _on_subscript_expression(self, node: Node) -> Expr:
        base = self.lower(self._field(node, "argument"))
        index = node.child_by_field_name("index")
        position = self.lower(index) if index is not None else self.fresh()
        return dereferenced(base if position == ("num", 0) else ("bin", "+", base, position))

    def _on_pointer_expression(self, node: Node) -> Expr:
        inner = self.lower(self._field(node, "argument"))
        if self._operator(node) == "*":
            return dereferenced(inner)
        root = inner
        while root[0] == "fld":
            root = root[1]
        if root[0] == "id":
            self.addressed.add(root[1])
        return inner[1] if inner[0] == "deref" else ("addr", inner)

    def _on_unary_expression(self, node: Node) -> Expr:
        operator = self._operator(node)
        inner = self.lower(self._field(node, "argument"), condition=operator == "!")
        if operator == "-" and inner[0] == "num":
            return ("num", -inner[1])
        return inner if operator == "+" else ("un", operator, inner)

    def _on_update_expression(self, node: Node) -> Expr:
        operator = self._operator(node)[:1]
        place = self.lower(self._field(node, "argument"))
        start, end = self.span(node)
        prefix = node.children[0].type in ("++", "--")
        before = place if prefix else self.keep(place, node)
        changed: Expr = ("bin", operator, place, ("num", 1))
        self.emit(Instr("set", start, end, place, changed, operator + operator))
        return place if prefix else before

    def _on_assignment_expression(self, node: Node) -> Expr:
        operator = self._operator(node)
        place = self.lower(self._field(node, "left"))
        right = self._field(node, "right")
        if operator == "=":
            self.assign(place, right, node)
            return place
        value = self.choice(right)
        start, end = self.span(node)
        changed: Expr = ("bin", operator[:-1], place, value)
        self.emit(Instr("set", start, end, place, changed, operator))
        return place

    def assign(self, place: Expr, right: Node, node: Node) -> None:
        """``place = right``."""
        value = self.choice(right)
        while place[0] == "cast":
            place = place[2]
        start, end = self.span(node)
        self.emit(Instr("set", start, end, place, value, "="))

    def _binary(self, node: Node, condition: bool) -> Expr:
        operator = self._operator(node)
        kind = self._typedef(self._field(node, "left"))
        if kind and operator in ("*", "&", "-"):
            # (u64)*p, which reads like a product.
            inner = self.lower(self._field(node, "right"))
            if operator == "*":
                return ("cast", kind, dereferenced(inner))
            if operator == "&":
                return ("cast", kind, inner[1] if inner[0] == "deref" else ("addr", inner))
            return ("cast", kind, ("un", "-", inner))
        if operator in ("&&", "||") and self._has_effects(node):
            return self.choice(node)
        left = self.lower(self._field(node, "left"), condition=condition)
        right = self.lower(self._field(node, "right"), condition=condition)
        return ("bin", operator, left, right)

    def _typedef(self, node: Node) -> str:
        """The name, where a parenthesis holds but what must be a type."""
        if node.type != "parenthesized_expression" or len(node.named_children) != 1:
            return ""
        name = self.text_of(node.named_children[0])
        return name if _TYPE.fullmatch(name) and name not in self.types else ""

    def _on_conditional_expression(self, node: Node) -> Expr:
        consequence = node.child_by_field_name("consequence")
        if consequence is None or self._has_effects(node):
            return self.choice(node)
        return (
            "cond",
            self.lower(self._field(node, "condition"), condition=True),
            self.lower(consequence),
            self.lower(self._field(node, "alternative")),
        )

    # Calls.

    def _call(self, node: Node, *, used: bool = True, condition: bool = False) -> Expr:
        function = self._field(node, "function")
        kind = self._typedef(function)
        given = node.child_by_field_name("arguments")
        if kind and given is not None and len(given.named_children) == 1:
            return ("cast", kind, self.lower(given.named_children[0]))
        while function.type == "parenthesized_expression" and len(function.named_children) == 1:
            function = function.named_children[0]
        arguments = node.child_by_field_name("arguments")
        nodes = [] if arguments is None else arguments.named_children
        name, callee = "", ()
        if function.type == "identifier":
            name = self.text_of(function)
        else:
            callee = self.lower(function)
        values = tuple(self.choice(child) for child in nodes if child.type != "comment")
        if name in _WRAPPERS and len(values) == 1:
            return values[0]
        if name in _PURE:
            return ("call", name, values)
        start, end = self.span(node)
        place = self.temporary()
        instr = Instr("call", start, end, place, detail=name, arguments=values, callee=callee)
        instr.used = used
        if condition:
            instr.value = ("call", name or "?", values)
        self.emit(instr)
        self.stop(name)
        return place


def dereferenced(expr: Expr) -> Expr:
    """``*expr``."""
    return expr[1] if expr[0] == "addr" else ("deref", expr)
