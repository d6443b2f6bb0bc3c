# SPDX-License-Identifier: MIT
#
# What `record` runs inside the machine: one misuse, with probes on; the recording goes to
# standard output as ftrace's text while it is made, so that it outlives the machine.
# `record` sets $what, $cpu and $arguments before this.

# The misuse has its CPU for itself; which is the other one of two is a mask here.
[ "$cpu" = 0 ] && elsewhere=2 || elsewhere=1
[ "$pinned" ] || { export pinned=1; exec taskset $elsewhere sh "$0"; }

cd /sys/kernel/tracing || exit
mkdir instances/misuse
grep -e kmap -e kunmap /proc/kallsyms > /run/symbols
probe() { ! grep -q " [Tt] $2\$" /run/symbols || echo "$1" >> kprobe_events; }
for function in kmap_atomic_high_prot kmap_atomic_prot_pfn __kmap_local_page_prot kmap_high; do
    probe "p:m_$function $function page=%ax prot=%dx" $function
    probe "r:r_$function $function vaddr=\$retval" $function
done
probe 'p:m___kmap_local_pfn_prot __kmap_local_pfn_prot pfn=%ax prot=%dx' __kmap_local_pfn_prot
probe 'r:r___kmap_local_pfn_prot __kmap_local_pfn_prot vaddr=$retval' __kmap_local_pfn_prot
for function in kunmap_atomic_high kunmap_local_indexed; do
    probe "p:u_$function $function vaddr=%ax" $function
done
probe 'p:u_kunmap_high kunmap_high page=%ax' kunmap_high
probe 'p:f_kmap_flush_unused kmap_flush_unused' kmap_flush_unused

# An instance: an oops turns tracing off, but only in the buffers that all share.
cd instances/misuse
echo 0 > tracing_on
echo 8192 > buffer_size_kb
# An access through a window that is not there: the kernel's own tracepoint sees it.
echo 'address >= 0xf0000000 || address < 4096' > events/exceptions/page_fault_kernel/filter
echo 1 > events/exceptions/page_fault_kernel/enable
mkfifo /run/never
cat trace_pipe &
reader=$!
# Not what the reading itself does, which wakes up for every few events.
echo "common_pid != $reader" > events/kprobes/filter
echo "prev_pid != $reader && (next_pid != $reader || prev_pid != 0)" \
    > events/sched/sched_switch/filter
echo 1 > events/sched/sched_switch/enable
echo 1 > events/kprobes/enable
echo 1 > tracing_on

cat /proc/version | md5sum > /run/x
# shellcheck disable=SC2086  # several words, or none
insmod /misuse/misuse.ko what="$what" cpu="$cpu" $arguments

case $what in
    address | mismatch-atomic-kmap | unmapped*)
        # kmap_lock is never given back, so nothing more can be started: exec uses kmap().
        read -r -t 5 nothing <> /run/never
        echo 0 > tracing_on
        read -r -t 2 nothing <> /run/never
        echo b > /proc/sysrq-trigger
        ;;
    *)
        sleep 0.3
        cat /proc/version | md5sum > /run/x
        # Once on each CPU, so that later windows show what became of the index.
        taskset 1 cat /proc/stat > /run/x
        taskset 2 cat /proc/stat > /run/x
        echo 0 > tracing_on
        sleep 1
        ;;
esac
kill $reader
exit 0
