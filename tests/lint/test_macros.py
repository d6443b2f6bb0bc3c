from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.lint.syntax.lower import make_parser
from highmem.lint.syntax.macros import prepare

PIECES = [
    "list_for_each_entry(a, &b->list, link) {", "}", "x = min_t(unsigned int, a, b);", "(", ")",
    "asm volatile(\"mcr p15\" : : \"r\" (addr));", "char __user *p = (char __user *)q;",
    "for_each_sg(sg, s, n, i)", "f(s);", "case 1 ... 5:", "container_of(p, struct s, m)", ";",
    "p = kzalloc(sizeof(struct s), GFP_KERNEL);", "\n", " ", "__attribute__((unused))", "{",
    "if (x)", "while (y)", "for (;;)", "return (unsigned long)z;", "y = va_arg(ap, char *);",
    "DB(x, y)\n", 'p("a" __stringify(__LINE__)": ", b);', "D1(if (x) y();)", "D2(int a;)",
    "ASSERTCMP(a, ==, b);", "static DEFINE_MUTEX(m);",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join))
def test_no_byte_moves(text: str) -> None:
    after, loops = prepare(text)
    assert len(after) == len(text)
    assert [at for at, char in enumerate(after) if char == "\n"] == [
        at for at, char in enumerate(text) if char == "\n"
    ]
    for at, loop in loops.items():
        assert text[at:].startswith(loop.name)
        assert after[at:].startswith("while")


@pytest.mark.parametrize(
    "statement",
    [
        "list_for_each_entry(pos, head, member) { f(pos); }",
        "for_each_sg(sgl, sg, nents, i) f(sg);",
        "rq_for_each_segment(bv, rq, iter) { f(bv); }",
        "x = min_t(unsigned long, a, b);",
        "p = container_of(q, struct s, member);",
        "p = alloc_percpu(unsigned int);",
        "y = va_arg(ap, struct page *);",
        'asm volatile("nop" : "=r" (a) : "r" (b) : "memory");',
        "void __iomem *p = (void __iomem *)(q + 4);",
        "switch (x) { case 1 ... 3: f(); break; }",
        "p = ({ int t = f(); t; });",
        "return (struct page *)p;",
        'dump("buf@" __stringify(__LINE__)": ", b);',
        'dump("at" __stringify(__LINE__) , b);',
        "static DEFINE_RATELIMIT_STATE(state, 5 * HZ, 1);",
        "DEBUG(unsigned char size;) f();",
        "D1(if (x)\n    f());",
        "D2(for (;;) { f(); });",
        "ASSERTCMP(a, ==, NULL);",
        "trace(1)\n  x = f();",
        "DB(QUEUE,\n  print(x))\n\n  p->x = 0;",
        "iterate(i, n, base, len, off,\n  copy(base, len),\n  copy(base, len)\n)\n\n return n;",
        "if (x)\n  TRACE(y)\n",
        "n = offsetof(struct meta, compute[ring->idx].area);",
        "n = offsetof(struct meta, plain);",
    ],
)
def test_kernel_c_parses_without_an_error(statement: str) -> None:
    text, _ = prepare("{ " + statement + " }")
    assert not make_parser().parse(text.encode()).root_node.has_error


def test_a_loop_macro_keeps_the_names_that_it_may_write() -> None:
    text = "{ hlist_for_each_entry_safe(obj, n, &table->head[i], node) { f(obj); } }"
    _, loops = prepare(text)
    (loop,) = loops.values()
    assert loop.names == ("obj", "n", "node")


def test_what_is_in_a_macro_that_gets_statements_is_still_read() -> None:
    text, _ = prepare("{ D1(if (x) f();) g(); }")
    assert text == "{   {if (x) f();;}g(); }"


@pytest.mark.parametrize(
    "text",
    [
        "{ if (f(x))\n  g(); }",
        "{ else_if_for_all(x)\n  g(); }",
        "{ x = (char *)\n  y; }",
        "{ x = f(a)\n  + b; }",
        "{ f((int)(x)\n  , b); }",
    ],
)
def test_a_line_that_goes_on_gets_no_end(text: str) -> None:
    assert prepare(text)[0] == text


def test_a_call_that_looks_like_a_loop_stays_a_call() -> None:
    text, loops = prepare("{ bus_for_each_dev(bus, NULL, data, fn); x(); }")
    assert loops == {}
    assert "bus_for_each_dev" in text
