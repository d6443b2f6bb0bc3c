# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""What calls do on a path: the API's, those summarised, and those that nobody knows.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from highmem.findings import Confidence
from highmem.lint.api import ApiTable, Close, Iterator, Open
from highmem.lint.paths.evaluate import evaluate, forget_members, place_of
from highmem.lint.paths.state import State, Window
from highmem.lint.paths.summaries import Summary, parts, resolve, resolve_place
from highmem.lint.paths.values import (
    Value,
    leaves,
    mentions_window,
    outermost,
    root,
    window_of,
)
from highmem.lint.rules.access import Accesses
from highmem.lint.rules.atomic import Atomic
from highmem.lint.rules.deprecated import DEPRECATED, needs_atomic
from highmem.lint.rules.exits import Exits
from highmem.lint.rules.pageaddr import ADDRESS_CALLS, PageAddresses
from highmem.lint.syntax.graph import Block, Expr, Instr, names_in

__all__ = ["Calls"]

_PREDICATE = re.compile(
    r"Page[A-Z]\w*|PAGE\w*|I?S_\w+|__?is_\w+|is_\w+|has_\w+|need\w*|test_\w+|\w+_test\w*|\w+_is_\w+|\w+_has_\w+"
    r"|\w+_enabled|\w+_supported|in_\w+|irqs_disabled|\w+_empty|\w*highmem\w*|IS_\w+|\w+_aligned"
    r"|buffer_\w+|\w+_needs?_\w+|\w+_uses_\w+|folio_test_\w+|\w+_valid|op_is_\w+|\w*_dir|rq_data_dir"
)
_LOCKS = {  # table
    "spin_lock": 1, "spin_lock_irq": 1, "spin_lock_irqsave": 1, "spin_lock_bh": 1,
    "spin_lock_nested": 1, "raw_spin_lock": 1, "raw_spin_lock_irqsave": 1, "raw_spin_lock_irq": 1,
    "read_lock": 1, "write_lock": 1, "read_lock_irqsave": 1, "write_lock_irqsave": 1,
    "read_lock_bh": 1, "write_lock_bh": 1, "local_irq_save": 1, "local_irq_disable": 1,
    "preempt_disable": 1, "local_bh_disable": 1, "lock_page_cgroup": 1, "rcu_read_lock_sched": 1,
    "spin_unlock": -1, "spin_unlock_irq": -1, "spin_unlock_irqrestore": -1, "spin_unlock_bh": -1,
    "raw_spin_unlock": -1, "raw_spin_unlock_irqrestore": -1, "raw_spin_unlock_irq": -1,
    "read_unlock": -1, "write_unlock": -1, "read_unlock_irqrestore": -1,
    "write_unlock_irqrestore": -1, "read_unlock_bh": -1, "write_unlock_bh": -1,
    "local_irq_restore": -1, "local_irq_enable": -1, "preempt_enable": -1, "local_bh_enable": -1,
    "rcu_read_unlock_sched": -1, "preempt_enable_no_resched": -1,
}  # fmt: skip
_MAY_FAIL = frozenset(
    {"read_mapping_page", "read_cache_page", "read_cache_page_gfp", "shmem_read_mapping_page",
     "ext2_get_page", "get_page_from_gfn"}
)  # fmt: skip
_SHORT = 400
_NEXT = re.compile(
    r"\{ ?return ?(?:\([^()]*\* ?\) ?)?(?:\( ?)?(?:\([^()]*\) ?)?\w+ ?\+[^;{}]*; ?\}"
)
"""The body of a function that returns what it got and something: ``ext2_next_entry()``."""
_NEAR = 4
"""Up to a member of a struct in what a parameter points to: what a callee may unmap deeper inside
is of no use to callers, and there are hundreds of them."""
_OFFSETS = re.compile(r"off|pos|start|from|base|skip|delta|head|hdr|idx|index|[Oo]ffset")
_IN_PAGE = re.compile(r"~\s*PAGE_MASK|%\s*PAGE_SIZE|PAGE_SIZE\s*-\s*1|offset_in_")
_PUBLISHERS = frozenset(
    {"queue_work", "schedule_work", "queue_delayed_work", "schedule_delayed_work", "kthread_run",
     "kthread_create", "xa_store", "xa_insert", "radix_tree_insert", "list_add", "list_add_tail",
     "hlist_add_head", "rcu_assign_pointer", "wake_up_process", "mod_timer", "add_timer",
     "smp_call_function_single", "smp_call_function", "call_rcu", "kfifo_put", "tasklet_schedule",
     "queue_work_on", "idr_alloc", "idr_replace", "llist_add", "list_add_rcu", "on_each_cpu",
     "list_add_tail_rcu", "kthread_queue_work", "hash_add", "dev_set_drvdata", "irq_work_queue",
     "platform_set_drvdata", "pci_set_drvdata", "rhashtable_insert_fast", "hrtimer_start"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _About:
    """What the name of a function tells about a call of it."""

    predicate: bool
    """Asked alike it answers alike."""
    lock: int
    needs_atomic: bool
    closes: bool
    known: bool
    """Whether the table knows it, other than as a function that sleeps."""


def _about(name: str, table: ApiTable) -> _About:
    calls = (table.opens, table.closes, table.iterators, table.insides, table.accesses)
    return _About(
        predicate=_PREDICATE.fullmatch(name) is not None,
        lock=_LOCKS.get(name, 0),
        needs_atomic=needs_atomic(name),
        closes=name in table.closes,
        known=any(name in one for one in (*calls, ADDRESS_CALLS, table.pure, table.inert)),
    )


class Calls(Exits, Accesses, PageAddresses, Atomic):
    """Runs calls and assignments."""

    def about(self, name: str) -> _About:
        """What a name tells."""
        known = self._abouts.get(name)
        if known is None:
            known = self._abouts[name] = _about(name, self.table)
        return known

    def page_sites(self) -> frozenset[int]:
        """Offsets of calls that return pages."""
        pages = self.table.page_calls
        return frozenset(site for site, name in self.calls.items() if name in pages)

    def unasked(self) -> frozenset[str]:
        """Families whose windows nothing asks for by their page, once they are closed."""
        if not ADDRESS_CALLS.isdisjoint(self.calls.values()):
            return frozenset()
        families = self.table.families.items()
        return frozenset(name for name, family in families if family.by == "address")

    def judged(self, instr: Instr) -> bool:
        """Whether a call can break a rule where no window is."""
        name = instr.detail or self.method(instr.callee)
        return name in ADDRESS_CALLS or name in self.table.insides or self.ends_in_kmap(instr)

    def value(self, expr: Expr, state: State, block: Block) -> Value:
        """The value of what a block ends with."""
        touched: list[Value] = []
        value = evaluate(expr, state.env, state.facts, self.names, touched)
        if state.mapped:
            self.check_access(touched, state, block.start, block.end)
            self._note_uses([value])
        return value

    # Assignments.

    def on_set(self, instr: Instr, state: State) -> None:
        """``place = value``."""
        touched: list[Value] = []
        env: dict[Value, Value] = state.env
        value = evaluate(instr.value, env, state.facts, self.names, touched)
        place = place_of(instr.place, env, state.facts, self.names, touched)
        if state.mapped:
            self.check_access(touched, state, instr.start, instr.end)
            if place[0] == "deref" and mentions_window(place):
                return
            if place[0] == "fld" and mentions_window(root(place)):
                return
            if value[0] != "w" or self.outside(place):
                self._note_uses([value])
            if value[0] == "w" and instr.detail == "+=" and value[2] in ("in", "pages"):
                value = ("w", value[1], self._moved(instr, value))
        forget_members(env, place)
        env[place] = value

    def _moved(self, instr: Instr, value: Value) -> str:
        """A pointer moved by a length may stand at the page's end; by an offset, or by less than a
        length, it does not."""
        amount = instr.value[3] if instr.value[0] == "bin" else instr.value
        if amount[:2] == ("bin", "-"):
            return "in"
        inner = set(self.loops_of(instr.start)) - set(self.loops_of(value[1][0]))
        named = " ".join(names_in(amount))
        if _IN_PAGE.search(self.source.snippet(instr.start, instr.end)):
            return "in"
        return "in" if not inner and (not named or _OFFSETS.search(named)) else "adv"

    # Calls.

    def on_call(self, instr: Instr, state: State, block: Block) -> None:
        """One call."""
        touched: list[Value] = []
        env, facts, names = state.env, state.facts, self.names
        values = [evaluate(one, env, facts, names, touched) for one in instr.arguments]
        name = instr.detail or self.method(instr.callee)
        about = self.about(name)
        if state.mapped:
            if instr.callee:
                self.evaluate(instr.callee, state, touched)
            self.check_access(touched, state, instr.start, instr.end)
            if not about.closes:
                self._note_uses(values)
                self._passed(values, state)
                pointed = [value[1] for value in values if value[0] == "addr"]
                self._note_uses([state.env[place] for place in pointed if place in state.env])
        if state.locks or state.windows:
            self.check_sleep(instr, name, state)
        if about.needs_atomic:
            self.fits_call(name, state)
        if about.lock > 0:
            state.locks = (*state.locks, instr.start)[-8:]
        elif about.lock < 0:
            state.locks = state.locks[:-1]
        result = self._known(name, instr, values, state) if about.known else None
        if result is None:
            summary = self.summary_of(name) if instr.detail else None
            if summary is not None and summary.matters:
                result = self._summarised(summary, instr, values, state)
            else:
                result = self._unknown_call(name, instr, values, state, about)
        if not instr.used and name in DEPRECATED:
            self.fits_nothing(state, instr)
        if instr.used:
            state.env[instr.place] = result

    def _passed(self, values: list[Value], state: State) -> None:
        """Entries of page tables that a callee gets; of others it may be given none."""
        for value in values:
            window = state.window(value)
            if window is not None and self.family(window).quiet:
                self.still_inside(value, state)

    def _note_uses(self, values: list[Value]) -> None:
        for value in values:
            if mentions_window(value):
                self.used_sites.update([one[1][0] for one in leaves(value) if one[0] == "w"])

    def _known(self, name: str, instr: Instr, values: list[Value], state: State) -> Value | None:
        table = self.table
        known = table.opens.get(name)
        if known is not None and len(values) >= max(known.arguments, known.page + 1):
            return self._map(known, instr, values, state)
        if name in table.closes and len(values) > table.closes[name].argument:
            close = table.closes[name]
            expr, value = instr.arguments[close.argument], values[close.argument]
            if table.families[close.family].by == "page":
                self.close_page(state, instr, value, expr, close)
            else:
                self.close_address(state, instr, value, expr, close)
            return ("n", 0)
        if name in table.iterators and len(values) > table.iterators[name].object:
            return self._iterate(table.iterators[name], instr, values, state)
        if name in table.insides:
            self.check_inside(table.insides[name], instr, values, state)
            return ("c", instr.start, 0)
        if name in table.accesses:
            self.check_call(table.accesses[name], instr, values, state)
            if name in ("memcpy", "memset", "memmove") and values:
                return values[0]
            return ("c", instr.start, 0)
        if name in ADDRESS_CALLS:
            self.check_address(name, instr, values, state)
            self._used_by_page(values, state)
        if name in table.pure:
            return ("call", name, tuple(values))
        if name in table.inert:
            return self._plain_result(name, instr, values)
        return None

    def _used_by_page(self, values: list[Value], state: State) -> None:
        """page_address() of a page that kmap() mapped is a way to use it."""
        for window in state.open_windows():
            if values[:1] == [window.what]:
                self.used_sites.add(window.id[0])
                if window.family == "permanent":
                    self.use(window, state)

    def _unchecked(self, known: Open, instr: Instr, page: Value, state: State) -> None:
        """Mapping what read_mapping_page() returned, without a look at it."""
        if page[0] != "c" or self.calls.get(page[1]) not in _MAY_FAIL:
            return
        if "IS_ERR" in self.function.text or "PTR_ERR" in self.function.text:
            return
        what = f"{known.name}() of what {self.calls[page[1]]}() returned, which may be an error"
        span = (instr.start, instr.end)
        self.report("unchecked-page", span, what, Confidence.LIKELY, state)

    def _map(self, known: Open, instr: Instr, values: list[Value], state: State) -> Value:
        what = values[known.page]
        self._unchecked(known, instr, what, state)
        if known.kind != "page":
            # Two pages of one folio, or two entries of one table, are two things.
            many = known.kind in ("folio", "pmd") and len(values) > known.page + 1
            what = ("bin", "of", what, values[known.page + 1]) if many else what
        slot = self.flags.get(instr.start, "") if len(values) > 1 else ""
        slot = next((word for word in slot.split("|") if word.startswith("KM_")), "")
        offset: object = 0
        if known.offset is not None:
            offset = 0 if known.offset < 0 or values[known.offset] == ("n", 0) else "in"
        return self.open(
            state, instr, known.family, what,
            call=known.name, nullable=known.nullable, offset=offset, slot=slot,
        )  # fmt: skip

    def _iterate(self, step: Iterator, instr: Instr, values: list[Value], state: State) -> Value:
        """``sg_miter_next()`` and its kind."""
        what = values[step.object]
        held = [w for w in state.windows.values() if w.what == what and w.family == step.family]
        for window in held:
            if window.status == "open" and step.does != "open":
                self._check_order_of_iterator(state, instr, window, step)
                state.close(window, instr.start)
        if step.does == "close":
            if not held:
                state.closes |= {(what, step.family)}
            return ("n", 0)
        address = self.open(state, instr, step.family, what, call=step.name, nullable=True)
        inner = what[1] if what[0] == "addr" else ("deref", what)
        state.env[("fld", inner, step.field)] = ("w", address[1], "in")
        return address

    def _check_order_of_iterator(
        self, state: State, instr: Instr, window: Window, step: Iterator
    ) -> None:
        if window.id not in state.order or state.order[-1] == window.id:
            return
        top = state.windows[state.order[-1]]
        line = self.source.position(top.id[0])[0]
        what = (
            f"{step.name}() unmaps {self.named(window, state)} while the window of "
            f"{top.call}() in line {line}, mapped after it, is still open"
        )
        sure = Confidence.LIKELY
        self.report("unmap-order", (instr.start, instr.end), what, sure, state, window)

    def _plain_result(self, name: str, instr: Instr, values: list[Value]) -> Value:
        if self.about(name).predicate:
            return ("call", name, tuple(values))
        return ("c", instr.start, 0)

    # Functions of the tree.

    def _summarised(
        self, summary: Summary, instr: Instr, values: list[Value], state: State
    ) -> Value:
        given = dict(zip(summary.parameters, values, strict=False))
        for value in values:
            self.check_pointer(value, instr, state, Confidence.LIKELY)
        for template, family, always in summary.closes:
            self._close_for(summary, instr, template, family, always, given, state)
        for window in state.open_windows() if summary.closes else ():
            if any(self._reaches(value, window, state) for value in values):
                state.change(window, given=window.given or summary.name)
        self._written(instr, values, state)
        result: Value = ("c", instr.start, 0)
        for place, page, family, when in summary.opens:
            if when != "sometimes":
                self._open_for(summary, instr, place, page, family, when, given, state)
        if summary.returns:
            what = result
            if summary.what and not summary.returns_page:
                what = resolve(summary.what, given, _content(state))
            address = self.open(
                state, instr, summary.returns, what, call=summary.name, nullable=summary.nullable
            )
            if not summary.returns_page:
                result = ("w", address[1], "in")
        return result

    def _close_for(
        self, summary: Summary, instr: Instr, template: Value, family: str, always: bool,
        given: dict[str, Value], state: State,
    ) -> None:  # fmt: skip
        value = resolve(template, given, _content(state))
        close = Close(summary.name, family, 0, self.table.families[family].also)
        by_page = self.table.families[family].by != "address"
        held = [
            w
            for w in state.windows.values()
            if (w.what == value if by_page else w.id == window_of(value))
        ]
        if not always:
            held += self._elements(template, value, family, given, state)
        if not held:
            if by_page and always and self._fresh(value):
                self.close_page(state, instr, value, ("any", 0), close)
            elif self.from_parameter(value):
                if always:
                    state.closes |= {(value, family)}
                elif parts(value) <= _NEAR:
                    self.may_close.add((value, family))
            else:
                self._given_up(state, instr, close, value)
        elif not always:
            for window in held:
                if window.status == "open":
                    state.change(window, status="maybe")
        elif by_page:
            self.close_page(state, instr, value, ("any", 0), close)
        else:
            self.close_address(state, instr, value, ("any", 0), close)

    def _elements(
        self, template: Value, value: Value, family: str, given: dict[str, Value], state: State
    ) -> list[Window]:
        """Open windows of pages, or in places, in the array of which the callee unmaps some."""
        same = [window for window in state.open_windows() if window.family == family]
        if self.table.families[family].by != "address":
            return [window for window in same if _array(window.what) == _array(value)]
        place = outermost(template)
        if place[0] != "deref":
            return []
        array = _array(resolve_place(place, given, _content(state)))
        return [
            window
            for window in same
            if any(_array(outermost(place)) == array for place in state.holders(window.id))
        ]

    def _open_for(
        self, summary: Summary, instr: Instr, place: Value, page: Value, family: str, when: str,
        given: dict[str, Value], state: State,
    ) -> None:  # fmt: skip
        content = _content(state)
        what: Value = resolve(page, given, content) if page else ("c", instr.start, 0)
        tested = when != "always"
        address = self.open(state, instr, family, what, call=summary.name, nullable=tested)
        # Where a callee keeps it, and who unmaps it there, is told by the callee alone.
        state.change(state.windows[address[1]], guarded="likely")
        if tested:
            state.change(state.windows[address[1]], by_result=when)
        if place and (place != page or self.table.families[family].by == "address"):
            state.env[resolve_place(place, given, content)] = ("w", address[1], "in")

    # Functions that nobody knows.

    def _unknown_call(
        self, name: str, instr: Instr, values: list[Value], state: State, about: _About
    ) -> Value:
        if state.windows:
            self._given_to(name, instr, values, state)
        self._written(instr, values, state)
        if instr.value and about.predicate:
            return ("call", name, tuple(values))
        if state.mapped and self._keeps_pointer(name):
            derived = [value for value in values if window_of(value) is not None]
            if derived:
                return ("w", derived[0][1], "in")
        return ("c", instr.start, 0)

    def _given_to(self, name: str, instr: Instr, values: list[Value], state: State) -> None:
        """Addresses in windows, and pages that are mapped, that it gets."""
        publishes = name in _PUBLISHERS
        self.check_sizes(instr, values, state)
        for value in values:
            self.check_pointer(value, instr, state, Confidence.LIKELY)
            if publishes:
                self._published(name, instr, value, state)
            for window in list(state.windows.values()):
                if window.status == "closed" and self._in_struct(value, window, state):
                    state.change(window, given=name or "a function pointer")
                if window.status == "open" and self._reaches(value, window, state):
                    self.use(window, state)
                    window = state.windows[window.id]
                    if value == window.what:
                        self.unfit(window, f"{name}() gets the page and may use page_address()")
                    window = state.change(
                        window, given=window.given or name or "a function pointer"
                    )
                    if self._hands_over(window, values):
                        state.change(window, guarded="possible")

    def _keeps_pointer(self, name: str) -> bool:
        """Functions that give back a pointer near the one that they got: some by name, and those
        of the file that do nothing else."""
        known = self._nearby.get(name)
        if known is None:
            known = name in ("PTR_ALIGN", "kasan_reset_tag", "untagged_addr", "page_to_virt_offset")
            own = (one for one in self.source.functions if one.name == name)
            texts = (one.text for one in own if len(one.text) < _SHORT)
            known = known or any(_NEXT.fullmatch(" ".join(text.split())) for text in texts)
            self._nearby[name] = known
        return known

    def _reaches(self, value: Value, window: Window, state: State) -> bool:
        """Whether a callee that gets *value* could unmap the window."""
        if window_of(value) == window.id or value == window.what:
            return True
        if self.table.families[window.family].by == "object":
            return value == window.what
        base = value[1] if value[0] == "addr" else ("deref", value)
        for place in state.holders(window.id):
            if value[0] == "addr" and root(place) == root(value):
                return True
            while place[0] == "fld":
                place = place[1]
                if place == base:
                    return True
        return False

    def _hands_over(self, window: Window, values: list[Value]) -> bool:
        """Whether a callee gets a page and its address, to keep both in a struct of which some
        function of the file unmaps the page."""
        both = window.what in values and any(window_of(one) == window.id for one in values)
        return both and bool(self.facts.closed_pages)

    def _in_struct(self, value: Value, window: Window, state: State) -> bool:
        """Whether a callee that gets *value* could write another address over the window's."""
        if window_of(value) is not None or self.family(window).by != "address":
            return False
        return value != window.what and self._reaches(value, window, state)

    def _published(self, name: str, instr: Instr, value: Value, state: State) -> None:
        """A window that another thread gets to see."""
        base = value[1] if value[0] == "addr" else ("deref", value)
        bases = {base}
        while base[0] == "fld":
            base = base[1]
            bases.add(base)
        for window in state.open_windows():
            direct = window_of(value) == window.id
            stored = any(bases & _around(place) for place in state.holders(window.id))
            if not direct and not stored:
                continue
            stack = self.family(window).stack
            what = f"{self.named(window, state)} is given to another thread by {name}()"
            sure = Confidence.LIKELY if stack else Confidence.POSSIBLE
            span = (instr.start, instr.end)
            self.report("escaping-window", span, what, sure, state, window)
            self.unfit(window, "another thread uses the address")
            state.change(window, handed=True)

    def _written(self, instr: Instr, values: list[Value], state: State) -> None:
        """Variables whose address a call gets have another value afterwards."""
        for position, value in enumerate(values):
            if value[0] != "addr":
                continue
            place = value[1]
            if place[0] == "v" and place[1] in self.names.arrays:
                continue
            held = state.env.get(place)
            if held is not None and any(w.what == held for w in state.open_windows()):
                continue
            if place[0] == "v" and place[1] in self.graph.parameters:
                # foo(..., &page) of a page that came in: such calls mostly leave it.
                continue
            holds = [p for p in state.env if p == place or (p[0] == "fld" and root(p) == place)]
            for old in holds:
                if not mentions_window(state.env[old]):
                    del state.env[old]
            new: Value = ("c", instr.start, 0)
            if position:
                new = ("fld", new, f"argument {position}")
            if place[0] == "v" and place[1] in self.fields:
                for member in self.fields[place[1]]:
                    key: Value = ("fld", place, member)
                    if not mentions_window(state.env.get(key, key)):
                        state.env[key] = ("fld", new, member)
            elif not mentions_window(state.env.get(place, place)):
                state.env[place] = new


def _content(state: State) -> Callable[[Value], Value]:
    return lambda place: state.env.get(place, place)


def _array(page: Value) -> Value:
    """The array that holds the page; the page itself where none does."""
    if page[:1] != ("deref",):
        return page
    pointer: Value = page[1]
    while pointer[0] == "bin":
        pointer = pointer[2]
    return pointer


def _around(place: Value) -> set[Value]:
    """The structs that a member is in."""
    found = set()
    while place[0] == "fld":
        place = place[1]
        found.add(place)
    return found
