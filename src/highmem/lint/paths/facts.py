# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""Conditions: whether one can hold on a path, and what is known once it does.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.lint.paths.values import ERROR, ZERO, text_of

__all__ = ["assume", "carry_over"]

_LOW, _HIGH = -(1 << 70), 1 << 70
_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
_NEGATE = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="}
_MASK = {"<": 1, "==": 2, ">": 4, "<=": 3, ">=": 6, "!=": 5}
_MAX_ERRNO = 4095  # include/linux/err.h


@cython.ccall
def assume(state: Any, value: tuple[Any, ...], truth: cython.bint) -> cython.bint:
    """Change *state* to where the condition *value* is *truth*; False where it cannot be."""
    kind: str = value[0]
    if kind == "n":
        return bool(value[1]) == truth
    if kind in ("e", "s", "addr"):
        return truth
    if kind == "w":
        return _window(state, value, truth)
    if kind == "un" and value[1] == "!":
        return assume(state, value[2], not truth)
    if kind == "bin" and value[1] in _FLIP:
        return _compare(state, value[1] if truth else _NEGATE[value[1]], value[2], value[3])
    if kind == "bin" and value[1] in ("&&", "||"):
        return _both(state, value, truth)
    if kind == "call" and value[1] in ("IS_ERR", "IS_ERR_OR_NULL") and value[2]:
        return _error(state, value, truth)
    return _compare(state, "!=" if truth else "==", value, ZERO)


@cython.ccall
def carry_over(
    state: Any, old: tuple[Any, ...], new: tuple[Any, ...], counts_up: cython.bint
) -> None:
    """Let *state* know of *new*, the value of a place in the next turn of a loop, whether it is 0,
    where it knows that of *old*; and of what only counts up from a number, that it is not less."""
    fact = state.facts.get(old)
    if old == ZERO or (fact is not None and fact[0] == fact[1] == 0):
        state.facts[new] = (0, 0, False)
    elif counts_up and old[0] == "n" and old[1] > 0:
        state.facts[new] = (old[1], _HIGH, False)
    elif counts_up and old[0] == "bin" and old[2][:3] == new[:3]:  # one more than the turn before
        before = state.facts.get(old[2])
        if before is not None and before[0] > 0:
            state.facts[new] = (before[0], _HIGH, False)
    elif fact is not None and (fact[2] or fact[0] > 0 or fact[1] < 0):
        state.facts[new] = (_LOW, _HIGH, True)


@cython.cfunc
def _both(state: Any, value: tuple[Any, ...], truth: cython.bint) -> cython.bint:
    if (value[1] == "&&") == truth:
        return assume(state, value[2], truth) and assume(state, value[3], truth)
    return _compare(state, "!=" if truth else "==", value, ZERO)


@cython.cfunc
def _window(state: Any, value: tuple[Any, ...], present: cython.bint) -> cython.bint:
    """Tests of an address that a map call returned."""
    window = state.windows.get(value[1])
    if window is None:
        return not present
    if not present:
        if not window.nullable:
            return False
        state.forget(window.id)
        for place in state.holders(window.id):
            state.env[place] = ZERO
        return True
    if window.nullable:
        state.change(window, nullable=False)
    return True


@cython.cfunc
def _error(state: Any, value: tuple[Any, ...], truth: cython.bint) -> cython.bint:
    inner: tuple[Any, ...] = value[2][0]
    if inner[0] == "e":
        return truth
    if inner[0] == "n":
        return truth == (value[1] == "IS_ERR_OR_NULL" and inner[1] == 0)
    if inner[0] == "w":
        window = state.windows.get(inner[1])
        if truth and window is not None and window.nullable:
            state.forget(window.id)
            for place in state.holders(window.id):
                state.env[place] = ERROR
            return True
        return assume(state, inner, not truth)
    for window in list(state.windows.values()):
        # A page that a function returned mapped, or an error.
        if truth and window.what == inner and window.nullable:
            state.forget(window.id)
        elif not truth and window.what == inner and window.nullable:
            state.change(window, nullable=False)
        elif truth and window.what == inner:
            return False
    if truth and inner[0] == "c":
        _tell_by_result(state, inner, False, True, False)
    if not _compare(state, "!=" if truth else "==", ("call", "IS_ERR", (inner,)), ZERO):
        return False
    return not truth or value[1] != "IS_ERR" or _compare(state, "!=", inner, ZERO)


@cython.cfunc
def _compare(state: Any, op: str, left: tuple[Any, ...], right: tuple[Any, ...]) -> cython.bint:
    if left[0] in ("n", "e") and right[0] not in ("n", "e"):
        left, right, op = right, left, _FLIP[op]
    if left == right and left[0] != "e":
        return bool(_MASK[op] & 2)
    if left[0] == "w" or right[0] == "w":
        return _address(state, op, left, right)
    if left[0] in ("addr", "s") and right == ZERO:
        return op == "!=" or op in (">", ">=")
    if right[0] == "n":
        return _bound(state, op, left, right[1])
    if right[0] == "e":
        return _with_error(state, op, left)
    if text_of(left) > text_of(right):
        left, right, op = right, left, _FLIP[op]
    pair: tuple[Any, ...] = ("p", left, right)
    old = state.facts.get(pair, (7, 0, False))[0]
    new = old & _MASK[op]
    if new and new != 7:
        state.facts[pair] = (new, 0, False)
    return bool(new)


@cython.cfunc
def _address(state: Any, op: str, left: tuple[Any, ...], right: tuple[Any, ...]) -> cython.bint:
    if right[0] == "w":
        left, right, op = right, left, _FLIP[op]
    if right[0] == "w":
        same = left[1] == right[1]
        # Two windows that are open are never the same address.
        return op != "==" or same
    if right == ZERO and op in ("==", "!=", ">", "<="):
        return _window(state, left, op in ("!=", ">"))
    if right[0] == "e":
        return op != "==" or bool((w := state.windows.get(left[1])) and w.nullable)
    return True


@cython.cfunc
def _bound(state: Any, op: str, left: tuple[Any, ...], limit: int) -> cython.bint:
    low, high, nonzero = state.facts.get(left, (_LOW, _HIGH, False))
    if left[0] == "e":
        low, high, nonzero = -_MAX_ERRNO, -1, True
    elif left[0] == "n":
        low = high = left[1]
    elif left[0] == "bin" and left[1] in ("+", "-") and left[3][0] == "n" and op in ("==", "!="):
        shift = left[3][1] if left[1] == "+" else -left[3][1]
        return _bound(state, op, left[2], limit - shift)
    if op == "==":
        if not low <= limit <= high or (nonzero and limit == 0):
            return False
        low = high = limit
    elif op == "!=":
        if low == high == limit:
            return False
        low += low == limit
        high -= high == limit
        nonzero = nonzero or limit == 0
    elif op in ("<", "<="):
        high = min(high, limit - (op == "<"))
    else:
        low = max(low, limit + (op == ">"))
    if low > high or (low == high == 0 and nonzero):
        return False
    if left[0] not in ("e", "n"):
        state.facts[left] = (low, high, nonzero)
        failed = nonzero or low > 0 or high < 0
        _tell_by_result(state, left, failed, low == high == 0, high < 0)
        if failed:
            return _pages_of_null(state, left, False)
        if low == high == 0:
            return _pages_of_null(state, left, True)
    return True


@cython.cfunc
def _tell_by_result(
    state: Any,
    left: tuple[Any, ...],
    failed: cython.bint,
    worked: cython.bint,
    negative: cython.bint,
) -> None:
    """Tests of what a function returned that maps on success only: not zero, or zero; a negative
    number is an error whatever is returned else."""
    window = state.windows.get((left[1], 0)) if left[0] == "c" else None
    if window is None or not window.by_result or not window.nullable:
        return
    if window.by_result == "there":
        failed, worked = worked or negative, failed and not negative
    if failed:
        state.forget(window.id)
    elif worked:
        state.change(window, nullable=False)


@cython.cfunc
def _pages_of_null(state: Any, page: tuple[Any, ...], null: cython.bint) -> cython.bint:
    """Tests of a page that is mapped, or that a function returned mapped."""
    for window in list(state.windows.values()):
        if window.what != page or window.status == "closed":
            continue
        if null and window.nullable:
            state.forget(window.id)
        elif null and window.call != "iterator":
            return False
        elif window.nullable and not null:
            state.change(window, nullable=False)
    return True


@cython.cfunc
def _with_error(state: Any, op: str, left: tuple[Any, ...]) -> cython.bint:
    if left[0] == "e":
        return True
    if op == "==":
        return _bound(state, "<", left, 0)
    return left[0] != "n" or op == "!=" or _bound(state, op, left, -1)
