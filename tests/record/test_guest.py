from __future__ import annotations

import re
from pathlib import Path

import pytest

from highmem import lab
from highmem.record import shell_script
from highmem.record.bring import convert
from highmem.replay import replay
from highmem.trace import read_trace
from support.lab_real import real_kernel

pytestmark = pytest.mark.slow

# Runs in the guest, under busybox.  Each case says what the script's status was, and how many
# probes, instances, unfinished recordings and processes it left.
_CASES = """\
T=/sys/kernel/tracing
left() {
    grep -q $T /proc/mounts || mount -t tracefs x $T
    echo "$1: $2 $(grep -c . < $T/kprobe_events) $(ls $T/instances | grep -c .)" \\
        "$(ls -d *.partial* 2> /dev/null | grep -c .) $(ps | grep -c '[s]leep 1[0-9][0-9]')"
}
on() {
    until grep -q 1 $T/instances/highmem/events/highmem/enable 2> /dev/null &&
        grep -q 1 $T/instances/highmem/tracing_on; do sleep 0.2; done
    sleep 1
}
# No interrupt: this shell may have been started with interrupts ignored.
signal() {
    sh /record.sh -o rec sleep 101 &
    on
    kill -$1 $!
    wait $!
    left $1 $?
    rm -rf rec
}
cd /tmp
sh /record.sh -o rec.tar.gz -- sh /mixed.sh
left end $?
signal TERM
signal HUP
signal KILL
sh /record.sh -o rec -t 1
echo "again: $?"
sh /record.sh --remove
killall sleep
rm -rf rec*.partial*
left removed $?
sh /record.sh -o rec -b 9999999 -t 1
left large $?
mkdir small
mount -t tmpfs -o size=1m small small
sh /record.sh -o small/rec -- sh /mixed.sh
left full $?
sh /refused.sh -o rec -t 1
left refused $?
echo DATA
cat rec.tar.gz
"""
_MIXED = """\
for job in 1 2 3; do
    (for i in 1 2 3; do
        dd if=/dev/urandom of=f$job bs=64k count=9 2> /dev/null
        cp f$job g$job; gzip -c < g$job | md5sum > /dev/null
        ln -sf g$job l$job; cat l$job > /dev/null
    done) &
done
wait
"""


@pytest.mark.parametrize("name", lab.NAMES)
def test_a_real_kernel_is_recorded_and_nothing_is_left_on_it(name: str, tmp_path: Path) -> None:
    kernel, busybox = real_kernel(name)
    tree = tmp_path / "tree"
    tree.mkdir()
    script = shell_script()
    # No kernel lets a probe be set on its own handler of the instruction that probes are made of.
    refused = script.replace("kmap_high", "exc_int3").replace("has exc_int3", "has kmap_high")
    for inside, text in {
        "record.sh": script,
        "refused.sh": refused.replace("names='", "names='kmap_high|"),
        "cases.sh": _CASES,
        "mixed.sh": _MIXED,
    }.items():
        (tree / inside).write_text(text)
    out, error = bytearray(), bytearray()
    job = lab.Job(
        kernel,
        busybox,
        tree=tree,
        command=("sh", "/cases.sh"),
        ram=1200 << 20,
        timeout=280.0,
        accel="tcg",
    )
    result = lab.do(job, lab.Listener(stdout=out.extend, stderr=error.extend))
    assert result.ended is lab.Ended.DONE, result.why
    said, _, data = bytes(out).partition(b"DATA\n")
    cases = dict(re.findall(r"(\w+): (.*)", said.decode()))
    nothing = "0 0 0 0"
    assert cases == {
        "end": f"0 {nothing}",
        "TERM": f"3 {nothing}",
        "HUP": f"3 {nothing}",
        "KILL": cases["KILL"],
        "again": "2",
        "removed": f"0 {nothing}",
        "large": f"2 {nothing}",
        "full": f"2 {nothing}",
        "refused": f"2 {nothing}",
    }, error.decode()
    # What empties the buffers ends by itself, within a second or so.
    assert re.fullmatch(r"137 [1-9][0-9]? 1 1 [12]", cases["KILL"])
    assert b"refused a probe on exc_int3: it forbids kprobes there" in error

    (tmp_path / "rec.tar.gz").write_bytes(data)
    convert(tmp_path / "rec.tar.gz", tmp_path / "rec.dat")
    verdict = replay(read_trace(tmp_path / "rec.dat"))
    assert verdict.exit_code == 0
    assert not verdict.findings
    assert verdict.map_calls > 1000
