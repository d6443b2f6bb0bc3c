"""From tree-sitter's tree of one function's body to its control-flow graph: statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highmem.lint.syntax.declarations import Declarations
from highmem.lint.syntax.graph import Block, Expr, Graph, Instr, Loop, add_goto_loops, written
from highmem.lint.syntax.macros import LoopMacro, prepare

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

    from highmem.lint.syntax.source import Function

__all__ = ["lower", "make_parser", "parses"]

_STOPS = frozenset({"BUG", "panic", "unreachable", "__builtin_unreachable", "do_exit", "abort"})


def make_parser() -> Parser:
    """A parser for C; InputError tells what to install where the extra is missing."""
    from highmem.errors import UsageError

    try:
        import tree_sitter
        import tree_sitter_c
    except ImportError:
        raise UsageError("lint needs tree-sitter: install highmem[lint]") from None
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_c.language()))


def parses(function: Function, parser: Parser) -> bool:
    """Whether the grammar knows all of a function, so that lowering it would note nothing."""
    text, _ = prepare(function.text)
    return not parser.parse(text.encode("latin-1")).root_node.has_error


def lower(function: Function, parser: Parser) -> Graph:
    """The graph of a function; its offsets are those of the file."""
    text, loops = prepare(function.text)
    root = parser.parse(text.encode("latin-1")).root_node
    lowering = _Statements(text, function.body, loops)
    lowering.declare_parameters(function.parameters)
    lowering.start()
    try:
        for child in root.named_children:
            lowering.statement(child)
    except RecursionError:
        lowering.problem(0, "nested too deeply")
    return lowering.finish()


class _Statements(Declarations):
    """Builds blocks; ``Expressions`` does what is inside a statement."""

    def __init__(self, text: str, offset: int, macros: dict[int, LoopMacro]) -> None:
        super().__init__(text, offset)
        self.macros = macros
        self.loops: list[Loop] = []
        self.inside: tuple[int, ...] = ()
        self.labels: dict[str, int] = {}
        self.breaks: list[int] = []
        self.continues: list[int] = []
        self.cases: list[list[tuple[Expr | None, int]]] = []

    # The skeleton.

    def start(self) -> None:
        """Begin with the entry block."""
        self.blocks.append(Block())
        self.at = 0

    def finish(self) -> Graph:
        """The graph, once everything is lowered."""
        graph = Graph(
            self.blocks,
            self.loops,
            self.types,
            tuple(self.parameters),
            frozenset(self.types),
            frozenset(self.addressed),
            self.problems,
        )
        add_goto_loops(graph, self.labels.values())
        for loop in self.loops:
            written(graph, loop)
        return graph

    def new_block(self) -> int:
        """A block inside the loops that we are in."""
        self.blocks.append(Block(loops=self.inside))
        return len(self.blocks) - 1

    def goto(self, target: int) -> None:
        """End the current block there, if it has no end yet."""
        block = self.blocks[self.at]
        if block.op == "end":
            block.op, block.targets = "goto", (target,)

    def dead(self) -> None:
        """What follows is reached by labels only."""
        self.at = self.new_block()

    # Statements.

    def statement(self, node: Node) -> None:
        """Lower one statement or declaration."""
        method = getattr(self, "on_" + node.type, None)
        if method is not None:
            method(node)
        elif node.type == "ERROR" or node.is_missing:
            self.on_error(node)
        elif node.type.endswith("_expression") or node.type in ("identifier", "number_literal"):
            self.effect(node)
        else:
            for child in node.named_children:
                self.statement(child)

    def on_error(self, node: Node) -> None:
        """Read what can be read in a part that the grammar does not know."""
        self.problem(node.start_byte, "cannot be parsed")
        for child in node.named_children:
            self.statement(child)

    def on_comment(self, node: Node) -> None:
        """Comments are blanked; nothing is left of them."""

    def on_compound_statement(self, node: Node) -> None:
        """A block of C is no scope of its own here: names are the function's."""
        for child in node.named_children:
            self.statement(child)

    def on_expression_statement(self, node: Node) -> None:
        """An expression for its effects."""
        if self.flow_macro(node):
            return
        for child in node.named_children:
            self.effect(child)
        if node.has_error:
            self.note_errors(node)

    def flow_macro(self, node: Node) -> bool:
        """``GOTO(label, value)`` and ``RETURN(value)``, as several trees call them."""
        call = node.named_children[0] if node.named_children else None
        function = call.child_by_field_name("function") if call is not None else None
        if call is None or function is None or self.text_of(function) not in ("GOTO", "RETURN"):
            return False
        arguments = call.child_by_field_name("arguments")
        given = arguments.named_children if arguments is not None else []
        start, end = self.span(node)
        if self.text_of(function) == "GOTO" and given:
            for child in given[1:]:
                self.effect(child)
            self.goto(self.label(self.text_of(given[0])))
        else:
            value = self.choice(given[0]) if given else None
            block = self.blocks[self.at]
            if block.op == "end":
                block.op, block.value, block.start, block.end = "return", value, start, end
        self.dead()
        return True

    def on_if_statement(self, node: Node) -> None:
        """Both ways, the condition's && and || as branches."""
        condition = node.child_by_field_name("condition")
        consequence = node.child_by_field_name("consequence")
        alternative = node.child_by_field_name("alternative")
        yes, no = self.new_block(), self.new_block()
        after = self.new_block() if alternative is not None else no
        if condition is not None:
            self.branch(condition, yes, no)
        self.at = yes
        if consequence is not None:
            self.statement(consequence)
        self.goto(after)
        if alternative is not None:
            self.at = no
            for child in alternative.named_children:
                self.statement(child)
            self.goto(after)
        self.at = after

    def on_while_statement(self, node: Node) -> None:
        """Also what :mod:`highmem.lint.syntax.macros` made a loop of."""
        condition = node.child_by_field_name("condition")
        body = node.child_by_field_name("body")
        macro = self.macros.get(node.start_byte)
        head, after = self.open_loop(node)
        inner = self.new_block()
        if macro is not None:
            self.each(macro, node)
            block = self.blocks[self.at]
            block.op, block.value, block.targets = "if", self.fresh(), (inner, after)
            block.start, block.end = self.span(node)
        elif condition is not None:
            self.branch(condition, inner, after)
        self.at = inner
        self.breaks.append(after)
        self.continues.append(head)
        if body is not None:
            self.statement(body)
        self.goto(head)
        self.close_loop(after)

    def each(self, macro: LoopMacro, node: Node) -> None:
        """The arguments of a loop macro get new values."""
        start = self.span(node)[0]
        places: tuple[Expr, ...] = tuple(("id", name) for name in macro.names)
        end = start + len(macro.name)
        self.emit(Instr("each", start, end, detail=macro.name, arguments=places))

    def on_do_statement(self, node: Node) -> None:
        """``do {} while (0)`` is no loop."""
        condition = node.child_by_field_name("condition")
        body = node.child_by_field_name("body")
        once = condition is not None and self.text_of(condition).strip("() ") in ("0", "false")
        if once:
            after = self.new_block()
            self.breaks.append(after)
            self.continues.append(after)
            if body is not None:
                self.statement(body)
            self.goto(after)
            self.at = after
            self.breaks.pop()
            self.continues.pop()
            return
        head, after = self.open_loop(node)
        test = self.new_block()
        self.breaks.append(after)
        self.continues.append(test)
        if body is not None:
            self.statement(body)
        self.goto(test)
        self.at = test
        if condition is not None:
            self.branch(condition, head, after)
        self.close_loop(after)

    def on_for_statement(self, node: Node) -> None:
        """Start, test, body, step."""
        initializer = node.child_by_field_name("initializer")
        condition = node.child_by_field_name("condition")
        update = node.child_by_field_name("update")
        body = node.child_by_field_name("body")
        if initializer is not None:
            self.statement(initializer)
        head, after = self.open_loop(node)
        inner, step = self.new_block(), self.new_block()
        if condition is not None:
            self.branch(condition, inner, after)
        else:
            self.goto(inner)
        self.at = inner
        self.breaks.append(after)
        self.continues.append(step)
        if body is not None:
            self.statement(body)
        self.goto(step)
        self.at = step
        if update is not None:
            self.effect(update)
        self.goto(head)
        self.close_loop(after)

    def open_loop(self, node: Node) -> tuple[int, int]:
        """Head and the block after a loop; we are at the head then."""
        after = self.new_block()
        number = len(self.loops)
        self.inside = (*self.inside, number)
        head = self.new_block()
        self.loops.append(Loop(number, head, self.span(node)[0]))
        self.goto(head)
        self.at = head
        return head, after

    def close_loop(self, after: int) -> None:
        """Leave the innermost loop."""
        self.inside = self.inside[:-1]
        self.breaks.pop()
        self.continues.pop()
        self.at = after

    def on_switch_statement(self, node: Node) -> None:
        """A chain of comparisons; the body flows from label to label."""
        condition = node.child_by_field_name("condition")
        body = node.child_by_field_name("body")
        value = self.lower(condition) if condition is not None else self.fresh()
        value = self.keep(value, node)
        chain, after = self.at, self.new_block()
        self.cases.append([])
        self.breaks.append(after)
        self.at = self.new_block()
        if body is not None:
            self.statement(body)
        self.goto(after)
        self.breaks.pop()
        cases = self.cases.pop()
        default = next((block for label, block in cases if label is None), after)
        self.at = chain
        for label, block in cases:
            if label is not None:
                rest = self.new_block()
                here = self.blocks[self.at]
                here.op, here.value, here.targets = "if", ("bin", "==", value, label), (block, rest)
                if condition is not None:
                    here.start, here.end = self.span(condition)
                self.at = rest
        self.goto(default)
        self.at = after

    def on_case_statement(self, node: Node) -> None:
        """A label of the switch around it; what is before falls through."""
        label = node.child_by_field_name("value")
        block = self.new_block()
        self.goto(block)
        self.at = block
        if self.cases:
            value = self.lower(label) if label is not None else None
            self.cases[-1].append((value, block))
        for child in node.named_children:
            if label is None or child.start_byte != label.start_byte:
                self.statement(child)

    def on_labeled_statement(self, node: Node) -> None:
        """A goto's target."""
        label = node.child_by_field_name("label")
        block = self.label(self.text_of(label)) if label is not None else self.new_block()
        self.goto(block)
        self.at = block
        self.blocks[block].loops = self.inside
        for child in node.named_children:
            if label is None or child.start_byte != label.start_byte:
                self.statement(child)

    def label(self, name: str) -> int:
        """The block of a label, seen or not yet."""
        if name not in self.labels:
            self.labels[name] = self.new_block()
        return self.labels[name]

    def on_goto_statement(self, node: Node) -> None:
        """Jump."""
        label = node.child_by_field_name("label")
        if label is None:
            self.problem(node.start_byte, "a computed goto")
        else:
            start, end = self.span(node)
            self.emit(Instr("jump", start, end, detail=f"goto {self.text_of(label)}"))
            self.goto(self.label(self.text_of(label)))
        self.dead()

    def on_break_statement(self, _node: Node) -> None:
        """Out of the innermost loop or switch."""
        if self.breaks:
            self.goto(self.breaks[-1])
        self.dead()

    def on_continue_statement(self, _node: Node) -> None:
        """To the next turn."""
        if self.continues:
            self.goto(self.continues[-1])
        self.dead()

    def on_return_statement(self, node: Node) -> None:
        """Leave the function."""
        values = node.named_children
        value = self.choice(values[0]) if values else None
        block = self.blocks[self.at]
        if block.op == "end":
            block.op, block.value = "return", value
            block.start, block.end = self.span(node)
        if node.has_error:
            self.note_errors(node)
        self.dead()

    def block_value(self, node: Node) -> Expr:
        """A statement expression: the value of its last statement."""
        statements = [child for child in node.named_children if child.type != "comment"]
        for child in statements[:-1]:
            self.statement(child)
        if not statements:
            return self.fresh()
        last = statements[-1]
        if last.type == "expression_statement" and last.named_children:
            return self.choice(last.named_children[0])
        self.statement(last)
        return self.fresh()

    def stop(self, name: str) -> None:
        """A call that does not return."""
        if name in _STOPS:
            block = self.blocks[self.at]
            if block.op == "end":
                block.op = "halt"
            self.at = self.new_block()
