from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from highmem.lint.paths.state import State, Window
from highmem.lint.paths.values import Value

CALLS: list[Value] = [("c", site, age) for site in (1, 2) for age in (0, 1)]
PLAIN = st.sampled_from([("v", "i"), ("n", 0), ("w", (9, 0), 0), *CALLS])
VALUES = st.recursive(
    PLAIN,
    lambda part: st.one_of(
        st.tuples(st.just("deref"), part), st.tuples(st.just("bin"), st.just("+"), part, part)
    ),
    max_leaves=4,
)
ONE: Value = ("c", 1, 0)
OTHER: Value = ("c", 2, 0)


@given(st.dictionaries(VALUES, VALUES, max_size=6), st.dictionaries(VALUES, PLAIN, max_size=3))
def test_several_symbols_at_once_are_replaced_as_one_after_the_other(
    env: dict[Value, Value], facts: dict[Value, Value]
) -> None:
    def state() -> State:
        window = Window((9, 0), "local", ("deref", ONE))
        ranges = {key: (0, at, False) for at, key in enumerate(facts)}
        return State(dict(env), {window.id: window}, (), ranges)

    earlier: dict[Value, Value] = {ONE: ("c", 1, 1), OTHER: ("c", 2, 1)}
    together, apart = state(), state()
    together.replace_symbols(earlier)
    for old, new in earlier.items():
        apart.replace_symbol(old, new)
    assert list(together.env.items()) == list(apart.env.items())
    assert list(together.facts.items()) == list(apart.facts.items())
    assert together.windows == apart.windows


def test_what_is_changed_on_a_copy_stays_there() -> None:
    window = Window((9, 0), "local", ("v", "page"))
    state = State({("v", "a"): ("n", 1)}, {window.id: window}, (window.id,), {})
    copy = state.copy()
    copy.env[("v", "b")] = ("n", 2)
    copy.change(window, status="closed", closed_at=7)
    assert state.env == {("v", "a"): ("n", 1)}
    assert (state.windows, state.order) == ({window.id: window}, (window.id,))
    assert copy.windows[window.id] == window.but(status="closed", closed_at=7)
    assert copy.order == ()
