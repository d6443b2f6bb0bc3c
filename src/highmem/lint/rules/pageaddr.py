"""``page_address()`` and ``sg_virt()`` of pages that may be in high memory."""

from __future__ import annotations

import re

from highmem.findings import Confidence
from highmem.lint.paths.context import Context
from highmem.lint.paths.state import State
from highmem.lint.paths.values import Value, leaves
from highmem.lint.syntax.graph import Expr, Instr

__all__ = ["ADDRESS_CALLS", "HIGH_FLAGS", "HIGH_PAGES", "TESTS_HIGH", "PageAddresses"]

ADDRESS_CALLS = frozenset({"page_address", "sg_virt", "folio_address"})
_CACHE = frozenset(
    {"find_get_page", "find_lock_page", "find_or_create_page", "grab_cache_page",
     "grab_cache_page_write_begin", "grab_cache_page_nowait", "read_mapping_page",
     "read_cache_page", "pagecache_get_page", "find_get_entry", "read_cache_folio",
     "filemap_get_folio", "__filemap_get_folio", "read_mapping_folio", "page_cache_alloc",
     "find_trylock_page", "shmem_read_mapping_page"}
)  # fmt: skip
_USER = frozenset(
    {"get_user_pages", "get_user_pages_fast", "pin_user_pages", "pin_user_pages_fast",
     "get_user_pages_unlocked", "gfn_to_page", "follow_page", "vmalloc_to_page",
     "iov_iter_get_pages", "iov_iter_get_pages2"}
)  # fmt: skip
_ALLOCATORS = {"alloc_page": 0, "alloc_pages": 0, "alloc_pages_node": 1, "__page_cache_alloc": 0}
_OF_BIO = frozenset({"bio_page", "bvec_page", "bv_page", "bio_iter_page", "bio_iovec_page"})
HIGH_PAGES = _CACHE | _USER | _OF_BIO | {"sg_page", "skb_frag_page"}
"""Calls that give pages which may be high, whatever flags they get."""
HIGH_FLAGS = re.compile(r"__GFP_HIGHMEM|GFP_HIGHUSER")
TESTS_HIGH = re.compile(r"PageHighMem|PhysHighMem|test_highmem|is_highmem|CONFIG_HIGHMEM")
"""In a function that asks this, page_address() is no mistake."""
_TAKES_ANY = re.compile(
    r"readpage|writepage|read_folio|write_begin|write_end|_actor$|readahead|flush_\w*page"
    r"|copy_user|clear_user"
)
_HOLDERS = re.compile(r"struct (?:scatterlist|pipe_buffer|bio_vec|skb_frag_t) \*")
_HIGH_ARCHITECTURES = frozenset(
    {"arc", "arm", "c6x", "csky", "frv", "i386", "metag", "microblaze", "mips", "mn10300", "nds32",
     "powerpc", "ppc", "sparc", "tile", "um", "x86", "xtensa"}
)  # fmt: skip
"""Those with CONFIG_HIGHMEM in some release (arch/*/Kconfig of Linux 2.6.12 to 6.1)."""
_ONE_ARCHITECTURE = re.compile(
    r"(?:^|/)(?:arch/(?P<code>\w+)|drivers/(?:s390|parisc|sh))/|_64\.[ch]$"
)
_LISTS = re.compile(r"p?sg|sgl|sg_?list|cur_sg|sg_ptr|scatter\w*")


class PageAddresses(Context):
    """Where a page comes from decides whether it may be high."""

    def check_address(self, name: str, instr: Instr, values: list[Value], state: State) -> None:
        """One call of page_address() or sg_virt()."""
        if not values or TESTS_HIGH.search(self.function.text):
            return
        if self.named_after.get(instr.start) in self.null_tested:
            return
        if instr.arguments[0] in self.address_tested:
            return
        page = values[0]
        why, sure = self._of_list(page) if name == "sg_virt" else self._of_page(page, instr)
        shown = [w for w in state.windows.values() if w.what == page and w.status != "maybe"]
        if any(w.family == "permanent" and w.status == "open" for w in shown):
            return
        if shown:
            # An atomic or local window does not set page->virtual, nor does one that is gone.
            call, closed = shown[-1].call, shown[-1].status == "closed"
            why = f"which {call}() mapped " + ("before" if closed else "without setting it")
            sure = Confidence.LIKELY
        if why:
            if _is_without_high(self.source.path):
                sure = Confidence.POSSIBLE
            what = f"{name}() of {self.say(page)}, {why}"
            self.report("unmapped-high-page", (instr.start, instr.end), what, sure, state)

    def _of_list(self, entry: Value) -> tuple[str, Confidence]:
        if entry[0] == "addr" and entry[1][0] == "v":
            # A scatterlist of this function holds what this function put there.
            return "", Confidence.POSSIBLE
        place = entry[1] if entry[0] == "addr" else entry
        own = place[0] == "fld" and place[2] in self.facts.own_lists
        return "whose page may be high", Confidence.POSSIBLE if own else Confidence.LIKELY

    def _of_page(self, page: Value, instr: Instr) -> tuple[str, Confidence]:
        kind = page[0]
        if kind == "call" and page[1] == "sg_page":
            return "a page of a scatterlist", Confidence.LIKELY
        if kind == "call" and page[1] in _OF_BIO:
            return "a page of a bio", Confidence.LIKELY
        if kind == "call" and page[1] == "skb_frag_page":
            # What XDP gets is in memory of the driver's own.
            xdp = any(self.calls.get(leaf[1], "").startswith("xdp_") for leaf in leaves(page))
            return "" if xdp else "a fragment of a packet", Confidence.LIKELY
        if kind == "call" and page[1] in _USER:
            return "memory of a user or of vmalloc()", Confidence.LIKELY
        if kind == "c":
            return self._of_call(page[1])
        if kind == "fld":
            return self._of_member(page, instr)
        if kind == "v" and page[1] in self.graph.parameters:
            likely = _TAKES_ANY.search(self.function.name)
            sure = Confidence.LIKELY if likely else Confidence.POSSIBLE
            return "a page that the caller chose", sure
        if kind == "deref" and self.from_parameter(page):
            return "a page that the caller chose", Confidence.POSSIBLE
        return "", Confidence.POSSIBLE

    def _of_call(self, site: int) -> tuple[str, Confidence]:
        name = self.calls.get(site, "")
        if name in _CACHE:
            return "a page of the page cache", Confidence.LIKELY
        if name in _USER:
            return "memory of a user or of vmalloc()", Confidence.LIKELY
        if name in _ALLOCATORS and HIGH_FLAGS.search(self.flags.get(site, "")):
            return f"allocated with {self.flags[site]}", Confidence.CERTAIN
        return "", Confidence.POSSIBLE

    def _of_member(self, page: Value, instr: Instr) -> tuple[str, Confidence]:
        member = page[2]
        if page[1][0] == "c" and member.startswith("argument"):
            return self._of_call(page[1][1])
        if member == "bv_page":
            return "a page of a bio", Confidence.LIKELY
        owner = _owner(instr.arguments[0])
        holds = _HOLDERS.match(self.typing.type_of(owner)) is not None
        if holds or (owner[0] in ("fld", "id") and _LISTS.fullmatch(owner[-1])):
            return "a page of a scatterlist or a buffer", Confidence.LIKELY
        return "a page that somebody else chose", Confidence.POSSIBLE


def _is_without_high(path: str) -> bool:
    """Whether the file is only for machines without high memory, by its place in the kernel."""
    every = _ONE_ARCHITECTURE.finditer(path)
    return any(found["code"] not in _HIGH_ARCHITECTURES for found in every)


def _owner(expr: Expr) -> Expr:
    """The pointer whose member an expression reads."""
    while expr[0] in ("cast",):
        expr = expr[2]
    if expr[0] == "fld":
        base: Expr = expr[1]
        owner: Expr = base[1] if base[0] == "deref" else base
        return owner
    return expr
