"""All permanent windows in use: who sleeps, who wakes them (linux-facts 5.3, I21)."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from highmem.kernel.bug import KernelDeadlock
from highmem.kernel.context import TaskState
from highmem.kernel.kernel import Kernel
from highmem.kernel.pages import Page
from highmem.kernel.permanent import WaitQueue
from support.kernel_machine import boot, high_pages, low_page

Body = Generator[WaitQueue | None, None, None]
every_table = pytest.mark.parametrize("pae", [False, True])


def full(pae: bool) -> tuple[Kernel, list[Page]]:
    """A kernel all of whose 1024 (512) windows are held."""
    kernel = boot("S4", pae)
    pages = high_pages(kernel, kernel.layout.LAST_PKMAP)
    for page in pages:
        kernel.kmap(page)
    assert min(kernel.permanent.pkmap_count) == 2
    return kernel, pages


@every_table
def test_nobody_to_wait_for(pae: bool) -> None:
    kernel, _ = full(pae)
    page = high_pages(kernel, 1)[0]
    before = kernel.permanent.last_pkmap_nr
    with pytest.raises(KernelDeadlock, match=f"all {512 if pae else 1024} permanent windows"):
        kernel.kmap(page)
    # The search went round once (LAST_PKMAP tries, and as many again after the wrap).
    assert kernel.permanent.last_pkmap_nr in (before, kernel.layout.LAST_PKMAP - 1)
    assert kernel.permanent.pkmap_map_wait.tasks == []
    assert kernel.current.state is TaskState.RUNNING
    assert kernel.page_address(page) is None


@every_table
def test_more_tasks_than_windows(pae: bool) -> None:
    """Each task holds one window for three turns; there are 40 tasks more than windows."""
    kernel = boot("S4", pae)
    last = kernel.layout.LAST_PKMAP
    pages = high_pages(kernel, last + 40)
    finished: list[int] = []
    most_waiting = 0

    def body(page: Page) -> object:
        def run(kernel: Kernel) -> Body:
            nonlocal most_waiting
            address = yield from kernel.kmap_sleeping(page)
            for _ in range(3):
                most_waiting = max(most_waiting, len(kernel.permanent.pkmap_map_wait.tasks))
                assert kernel.read32(address) == page.pfn
                assert kernel.page_address(page) == address
                yield None
            kernel.kunmap(page)
            finished.append(page.pfn)

        return run

    kernel.run_tasks({f"task{n}": body(page) for n, page in enumerate(pages)})  # type: ignore[misc]
    assert sorted(finished) == sorted(page.pfn for page in pages)
    assert most_waiting == 40
    assert max(kernel.permanent.pkmap_count) == 1
    assert kernel.permanent.pkmap_map_wait.tasks == []
    assert kernel.current is kernel.context.this.idle
    assert len(kernel.log) == 0


@every_table
def test_wake_only_when_a_count_falls_to_one(pae: bool) -> None:
    kernel, pages = full(pae)
    kernel.kmap(pages[3])  # two users
    extra = high_pages(kernel, 1)[0]
    trail: list[str] = []

    def sleeper(kernel: Kernel) -> Body:
        address = yield from kernel.kmap_sleeping(extra)
        trail.append(f"mapped {kernel.layout.pkmap_nr(address)}")

    def releaser(kernel: Kernel) -> Body:
        waiting = kernel.permanent.pkmap_map_wait.tasks
        assert [task.comm for task in waiting] == ["sleeper"]
        assert waiting[0].state is TaskState.UNINTERRUPTIBLE
        kernel.kunmap(pages[3])
        trail.append(f"waiting {len(waiting)}")
        yield None
        kernel.kunmap(pages[3])
        trail.append(f"waiting {len(waiting)}")

    kernel.run_tasks({"sleeper": sleeper, "releaser": releaser})
    # Page 3 has window 4; the wake-up empties the queue.
    assert trail == ["waiting 1", "waiting 0", "mapped 4"]
    assert kernel.page_address(pages[3]) is None
    assert kernel.page_address(extra) == kernel.layout.PKMAP_BASE + 0x4000


@every_table
def test_somebody_else_mapped_the_page_meanwhile(pae: bool) -> None:
    kernel, pages = full(pae)
    wanted = high_pages(kernel, 1)[0]
    addresses: list[int] = []

    def user(kernel: Kernel) -> Body:
        addresses.append((yield from kernel.kmap_sleeping(wanted)))

    def releaser(kernel: Kernel) -> Body:
        kernel.kunmap(pages[10])
        yield None

    kernel.run_tasks({"first": user, "second": user, "third": user, "releaser": releaser})
    # One window was enough for the three: 5.3, "return it".
    assert len(set(addresses)) == 1
    assert kernel.permanent.pkmap_count[11] == 1 + 3
    assert addresses[0] == kernel.layout.PKMAP_BASE + 0xB000


@every_table
def test_woken_too_late_sleeps_again(pae: bool) -> None:
    kernel, pages = full(pae)
    a, b = high_pages(kernel, 2)
    order: list[str] = []

    def user(page: Page, name: str) -> object:
        def run(kernel: Kernel) -> Body:
            yield from kernel.kmap_sleeping(page)
            order.append(name)
            yield None
            kernel.kunmap(page)

        return run

    def releaser(kernel: Kernel) -> Body:
        kernel.kunmap(pages[0])
        yield None

    bodies = {"a": user(a, "a"), "b": user(b, "b"), "releaser": releaser}
    kernel.run_tasks(bodies)  # type: ignore[arg-type]
    assert order == ["a", "b"]
    assert kernel.permanent.pkmap_count.count(2) == len(pages) - 1


@every_table
def test_tasks_that_wait_for_each_other(pae: bool) -> None:
    """The classic deadlock: each holds windows and wants one more."""
    kernel = boot("S4", pae)
    half = kernel.layout.LAST_PKMAP // 2
    pages = high_pages(kernel, 2 * half + 2)

    def greedy(own: list[Page]) -> object:
        def run(kernel: Kernel) -> Body:
            for page in own:
                yield from kernel.kmap_sleeping(page)
                yield None
            for page in own:
                kernel.kunmap(page)

        return run

    bodies = {"one": greedy(pages[: half + 1]), "two": greedy(pages[half + 1 :])}
    with pytest.raises(KernelDeadlock) as caught:
        kernel.run_tasks(bodies)  # type: ignore[arg-type]
    waiting = caught.value.splat.state["waiting"]
    assert isinstance(waiting, str)
    assert [name.split("/")[0] for name in waiting.split(", ")] == ["one", "two"]
    assert kernel.permanent.pkmap_count.count(2) == 2 * half


def test_a_low_page_never_waits() -> None:
    kernel, _ = full(False)
    page = low_page(kernel)
    got: list[int] = []

    def user(kernel: Kernel) -> Body:
        got.append((yield from kernel.kmap_sleeping(page)))
        yield None

    kernel.run_tasks({"user": user})
    assert got == [0xC0000000 + (page.pfn << 12)]
