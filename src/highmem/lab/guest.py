"""What runs inside the machine: the first program of its file system, in busybox's ``sh``.

It talks to the host over the channel ``control``, a line at a time:

==================  ============================================================================
guest to host       ``hello`` (it has started), ``start`` (the job begins), ``image`` (take an
                    image now; waits for ``go-on``), ``image last`` (the same, if there was none
                    yet), ``status N`` (the job has ended, ``hung`` for N where it could not be,
                    ``lost`` where what watched it has gone), ``saved`` (all of it is on the
                    disk), ``error TEXT``
host to guest       ``go-on`` (the image is taken), ``end`` (end the job, it has had its time)
==================  ============================================================================

What the job prints goes over ``stdout`` and ``stderr``.  What the machine has to give back is one
tar archive, written to its first disk.  Before there is a channel, and from the kernel itself,
the serial console says the same behind a word that :data:`CONSOLE_WORD` gives.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

__all__ = [
    "CHANNELS",
    "CONSOLE_WORD",
    "FILES",
    "INIT",
    "MODULES",
    "MODULE_SYMBOLS",
    "PREPARED",
    "command_job",
    "module_job",
    "workload_job",
]

CHANNELS = ("control", "stdout", "stderr")
"""In the order of their numbers."""

CONSOLE_WORD = "highmem-lab:"
"""Before what is meant for the host on the console: ``highmem-lab: image`` asks for an image."""

MODULES = ("virtio_pci", "virtio_blk", "virtio_console")
"""The drivers without which nothing comes back."""

MODULE_SYMBOLS = "module_kallsyms"
"""The file with the lines of kallsyms that are the module's, in what is brought back."""

PREPARED = (
    *("bin", "dev", "lab/out", "proc", "root", "run", "sbin", "sys", "tmp"),
    *("usr/bin", "usr/sbin", "var/tmp"),
)
"""The directories that are made on the host."""

_MAKE_IMAGE = """\
#!/bin/sh
# Asks the host for an image of this machine's memory, and waits until it is taken.
echo "image $1" >/lab/ask
read -r answer </lab/answer
"""

_SUPERVISE = """\
#!/bin/sh
# Runs the job in a session of its own until it ends or the host says that it is over.
(
    setsid sh -c 'echo $$ >/lab/pid; exec sh /lab/job' </dev/null >/dev/vport0p2 2>/dev/vport0p3
    echo $? >/lab/status.new
    mv /lab/status.new /lab/status
    echo ended >/lab/over
) &
read -r why </lab/over
[ -e /lab/status ] || echo hung >/lab/status
exit 0
"""

INIT = """\
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev || { mount -t tmpfs tmpfs /dev; mdev -s; }
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
ln -s /proc/self/fd /dev/fd
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
echo 0 >/proc/sys/kernel/kptr_restrict

# The host reads this where there is no channel yet.
fail() {
    echo "highmem-lab: error $*" >/dev/console
    [ -z "$channel" ] || echo "error $*" >&3
    sleep 1
    poweroff -f
    sleep 60
}

while read -r module; do
    insmod "/lab/modules/$module" 2>/lab/said || fail "insmod $module: $(cat /lab/said)"
done </lab/modules.order
tries=0
while ! [ -c /dev/vport0p3 -a -b /dev/vda ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "no virtio channel or disk shows up: the kernel lacks" \\
        "virtio_pci, virtio_blk or virtio_console, built in or as modules"
    sleep 0.1
done
exec 3<>/dev/vport0p1 || fail "the channel to the host cannot be opened"
channel=yes
echo hello >&3

mkfifo /lab/ask /lab/answer /lab/over
( exec 4<>/lab/ask; while read -r line <&4; do echo "$line" >&3; done ) &
(
    while read -r word <&3; do
        case $word in
        go-on) echo ok >/lab/answer ;;
        end)
            kill -KILL -"$(cat /lab/pid)" 2>/dev/null
            sleep 3
            # What is killed and still does not end waits in the kernel for ever.
            echo hung >/lab/over &
            ;;
        esac
    done
) &

echo 8 >/proc/sys/kernel/printk
echo 1 >/proc/sys/kernel/sysrq
echo start >&3
. /lab/run
[ -e /lab/take-image ] && lab-image last
echo "status $(cat /lab/status 2>/dev/null || echo lost)" >&3

cd /lab/out || fail "/lab/out is gone"
dmesg >dmesg
for name in meminfo iomem cpuinfo vmstat buddyinfo kallsyms modules cmdline version; do
    cat /proc/$name >$name
done
: >zz-end
tar -c -f /dev/vda $(ls -A) 2>/lab/said ||
    fail "what is brought back does not fit: $(tail -n1 /lab/said)"
sync
echo saved >&3
sleep 1
poweroff -f
sleep 60
"""

FILES: Mapping[str, str] = {"bin/lab-image": _MAKE_IMAGE, "lab/supervise": _SUPERVISE}
"""Other scripts: their names and texts."""


def command_job(command: Sequence[str]) -> str:
    """A script that becomes *command*: a program and its arguments."""
    return f"exec {shlex.join(command)}\n"


def workload_job() -> str:
    """A script that becomes the user's own, which is at ``/lab/workload``."""
    return "exec sh /lab/workload\n"


def module_job(file: str, arguments: Sequence[str], *, then: bool) -> str:
    """A script that loads the module ``/lab/FILE`` with *arguments* and takes it away again.

    *then* runs the user's script in between.  The status is insmod's, or the script's.
    """
    words = shlex.join([f"/lab/{file}", *arguments])
    loaded = shlex.quote(file.removesuffix(".ko").replace("-", "_"))
    middle = "sh /lab/workload; status=$?\n" if then else "status=0\nsleep 1\n"
    # While it is there: so that the recording's callers can be named after it is gone.
    names = f"grep -F '['{loaded}']' /proc/kallsyms >/lab/out/{MODULE_SYMBOLS}\n"
    return f"insmod {words} || exit $?\n{names}{middle}rmmod {loaded}\nexit $status\n"
