"""The recordings of real kernels: every address predicted, and the rules that they break.

Expected: the recordings' own text (line numbers, addresses) and what the kernel said beside
them (``*.dmesg.txt``).
"""

from __future__ import annotations

import re

import pytest

from highmem.kernel.profile import load_profile
from highmem.replay import replay
from highmem.replay.verdict import Verdict
from highmem.trace import read_trace
from support.recordings import SAMPLES, dmesg, judge, real_findings, sample


def returns(name: str) -> int:
    return sum(b" r_" in line for line in sample(name))


@pytest.fixture(scope="module", params=["engine", "reference"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def verdict_of(name: str, how: str) -> Verdict:
    if how == "reference":
        return judge(sample(name))
    return replay(read_trace(SAMPLES / f"{name}.trace.zst"))


CLEAN = {
    # profile, map functions entered (grep -c over the text), returns that can be judged late
    "linux-5.10-686": "debian-5.10-686",
    "linux-6.1-686": "debian-6.1-686",
}


@pytest.mark.parametrize("name", CLEAN)
def test_every_address_of_a_clean_workload_is_predicted(name: str, how: str) -> None:
    verdict = verdict_of(name, how)
    account = verdict.account
    assert verdict.profile.name == CLEAN[name]
    assert verdict.wrong == 0
    assert verdict.right + verdict.unjudged == returns(name)
    calls = sum(b" m_" in line for line in sample(name))
    assert verdict.unjudged < 0.0002 * calls
    assert verdict.findings == []
    assert verdict.exit_code == 0
    assert account.lines == account.events + account.passed_over + account.rejected
    assert account.lines == len(sample(name))
    # linux-facts 12: the depth never exceeds two in these recordings.
    assert set(verdict.depths) == {1, 2}


MISUSE = "misuse/linux-6.1-686."


def test_the_module_that_misuses_nothing_is_clean(how: str) -> None:
    verdict = verdict_of(MISUSE + "clean", how)
    assert verdict.findings == [] and verdict.wrong == 0 and verdict.exit_code == 0
    assert "WARNING" not in dmesg(MISUSE + "clean")


def test_unmapping_the_outer_window_first_is_what_the_kernel_warned_of(how: str) -> None:
    verdict = verdict_of(MISUSE + "unmap-order", how)
    (found,) = verdict.findings
    assert (found.rule.name, found.where.line) == ("unmap-order", 2425)
    assert b"u_kunmap_local_indexed" in sample(MISUSE + "unmap-order")[2424]
    assert found.kernel_does.startswith("WARNING in kunmap_local_indexed()")
    said = dmesg(MISUSE + "unmap-order")
    assert "WARNING" in said and "kunmap_local_indexed" in said
    # "a=" and "b=" of the kernel's log are the pages of the outer and the inner window.
    outer, inner = re.findall(r"[ab]=([0-9a-f]{8})", said)
    assert found.what.index(outer) < found.what.index(inner)
    assert verdict.wrong == 0 and verdict.exit_code == 1


def test_a_leaked_window_is_named_although_the_kernel_said_nothing(how: str) -> None:
    verdict = verdict_of(MISUSE + "leak-local", how)
    (found,) = verdict.findings
    said = dmesg(MISUSE + "leak-local")
    page = re.search(r"a=([0-9a-f]{8})", said)
    assert page is not None and page[1] == "f6abeb80"
    assert found.rule.name == "leaked-window"
    assert page[1] in found.what
    assert any("kmap_local_page" in text and "[kmapbug]" in text for text in found.evidence)
    assert found.kernel_does.startswith("nothing that must show")
    assert "WARNING" not in said and "BUG:" not in said
    assert verdict.wrong == 0 and verdict.exit_code == 1


def test_sleeping_in_an_atomic_section_is_what_the_kernel_reported(how: str) -> None:
    verdict = verdict_of(MISUSE + "sleep-while-atomic", how)
    (found,) = verdict.findings
    said = dmesg(MISUSE + "sleep-while-atomic")
    assert found.rule.name == "sleep-in-atomic"
    assert "scheduling while atomic" in found.kernel_does
    assert "BUG: scheduling while atomic: insmod/93" in said
    assert found.where.task == "insmod-93"
    page = re.search(r"a=([0-9a-f]{8})", said)
    assert page is not None and page[1] in found.what
    assert verdict.wrong == 0 and verdict.exit_code == 1


def test_a_given_profile_says_so_and_finds_the_same() -> None:
    name = MISUSE + "unmap-order"
    verdict = judge(sample(name), load_profile("debian-6.1-686"))
    assert verdict.profile_how == "given"
    assert [f.where.line for f in real_findings(verdict)] == [2425]


def test_the_profile_of_another_kernel_is_found_wrong() -> None:
    # Sixteen windows a CPU, judged as if there were twenty: CPU 1's come from elsewhere.
    verdict = judge(sample(MISUSE + "clean"), load_profile("debian-6.1-686-pae"))
    assert verdict.right == 0 or verdict.wrong > 0 or verdict.unjudged > verdict.right
