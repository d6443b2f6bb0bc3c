# What is set between here and the options comes from highmem; the rest is the same everywhere.
@SETTINGS@
set -u
umask 077

usage="usage: sh highmem-record.sh [-o OUT] [-t SECONDS] [-b KB] [-q] [-- COMMAND...]
  Records until COMMAND ends, for SECONDS, or until Ctrl-C.  OUT is a new folder, or a file
  NAME.tar or NAME.tar.gz.  -b: size of each CPU's buffer.
  --remove: removes what a recording left that was killed with no chance to do so.
  --probes: prints the probes for this kernel and sets none."

say() { [ -n "$quiet" ] || printf 'highmem record: %s\n' "$*" >&2; }

# One line and the end; the trap on EXIT removes whatever was set.
die() {
    printf 'highmem record: %s\n' "$*" >&2
    exit 2
}

put() { { printf '%s\n' "$1" > "$2"; } 2> /dev/null; }
append() { { printf '%s\n' "$1" >> "$2"; } 2> /dev/null; }
has() { case $symbols in *" $1 "*) return 0 ;; esac; return 1; }
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; [ "${#1}" -le 9 ]; }

options() {
    while [ $# -gt 0 ]; do
        case $1 in
        -o | -t | -b)
            [ $# -gt 1 ] || die "$1 needs a value; -h shows the usage"
            case $1 in
            -o) out=$2 ;;
            -t) seconds=$2; is_number "$2" && [ "$2" -gt 0 ] || die "-t $2: not a number of seconds" ;;
            -b) buffer_kb=$2; chosen=1; is_number "$2" && [ "$2" -gt 0 ] || die "-b $2: not a number of KB" ;;
            esac
            shift ;;
        -q) quiet=1 ;;
        -h | --help) printf '%s\n' "$usage"; exit 0 ;;
        --remove | --probes) action=${1#--} ;;
        --as) shown=$2; shift ;; # what messages call OUT
        --) shift; break ;;
        -*) die "$1: no such option; -h shows the usage" ;;
        *) break ;;
        esac
        shift
    done
    rest=$#
}

# -- the kernel ---------------------------------------------------------------------------

# Sets tracefs; mounts it where nobody did, and remembers that in mounted.
find_tracefs() {
    tracefs=${HIGHMEM_TRACEFS:-}
    [ -z "$tracefs" ] || return 0
    [ "$(id -u)" = 0 ] || die "only root may set probes: run it with sudo, or as root"
    look_for_tracefs
    [ -z "$tracefs" ] || return 0
    for place in "tracefs /sys/kernel/tracing" "debugfs /sys/kernel/debug"; do
        type=${place% *} place=${place#* }
        if [ -d "$place" ] && mount -t "$type" nodev "$place" 2> /dev/null; then
            mounted=$place
            look_for_tracefs
            [ -z "$tracefs" ] || return 0
        fi
    done
    die "no tracefs: this kernel was built without ftrace (CONFIG_FTRACE), or /sys is not mounted"
}

look_for_tracefs() {
    while read -r _ place type _; do
        case $type in
        tracefs) [ -e "$place/trace" ] && tracefs=$place && return ;;
        debugfs) [ -e "$place/tracing/trace" ] && tracefs=$place/tracing ;;
        esac
    done < "$proc/mounts"
}

# Sets arch and symbols: those of the names in the table that this kernel has.
know_kernel() {
    [ -r "$proc/kallsyms" ] || die "no $proc/kallsyms: this kernel was built without CONFIG_KALLSYMS"
    read -r first _ < "$proc/kallsyms"
    machine=$(uname -m)
    case $machine in
    i?86 | x86_64) if [ "${#first}" = 16 ]; then arch=x86_64; else arch=x86; fi ;;
    arm*) arch=arm ;;
    aarch64) arch=x86_64 ;;
    *) die "$machine: @OTHER_ARCH@" ;;
    esac
    case $arch in
    x86_64) first_argument=@X86_64_1@ second_argument=@X86_64_2@ ;;
    x86) first_argument=@X86_1@ second_argument=@X86_2@ ;;
    arm) first_argument=@ARM_1@ second_argument=@ARM_2@ ;;
    esac
    symbols=" $(grep -E " [TtWw] ($names)\$" "$proc/kallsyms" | while read -r _ _ name; do
        printf '%s ' "$name"
    done) "
}

# Prints a line for kprobe_events and the symbol it is on, for each probe of this kernel.
probes() {
    row=
    for key in $keys; do
        if has "$key"; then row=$key; break; fi
    done
    if [ $arch = x86_64 ]; then
        [ "$row" = "$local_key" ] && [ "$machine" != aarch64 ] || die "@NO_WINDOWS@"
    else
        has kmap_high || die "@NO_HIGHMEM@"
        [ -n "$row" ] || die "@NO_ROW@"
    fi
    table | while read -r key letter symbol fetch; do
        [ "$key" = "$row" ] || [ "$key" = "@ALL_ROWS@" ] || continue
        has "$symbol" || continue
        case $fetch in *@1*) fetch=${fetch%%@1*}$first_argument${fetch#*@1} ;; esac
        case $fetch in *@2*) fetch=${fetch%%@2*}$second_argument${fetch#*@2} ;; esac
        if [ "$letter" = r ]; then kind=r; else kind=p; fi
        printf '%s\n' "$kind:$group/${letter}_$symbol $symbol${fetch:+ $fetch}"
    done
}

# -- setting up and taking down ------------------------------------------------------------

left_over="there are probes of a group $group already: another recording is under way, or one was\
 killed; --remove removes them"

# The buffers of our own: an instance, or where the kernel has none those that all share.
take_buffers() {
    if [ -d "$tracefs/instances" ]; then
        trace=$tracefs/instances/$group
        mkdir "$trace" 2> /dev/null || {
            [ -d "$trace" ] && die "$left_over"
            die "$trace cannot be made: the kernel has no memory for it?"
        }
        made_instance=1
    else
        trace=$tracefs
        read -r tracer < "$trace/current_tracer"
        [ "$tracer" = nop ] && [ -z "$(cat "$trace/set_event")" ] ||
            die "ftrace is in use, and this kernel has no instances of it: end the other use first"
        old_on=$(cat "$trace/tracing_on") old_kb=$(cat "$trace/buffer_size_kb")
        case $old_kb in *expanded:*) old_kb=${old_kb#*expanded: } old_kb=${old_kb%)*} ;; esac
        old_clock=$(sed 's/.*\[\(.*\)\].*/\1/' "$trace/trace_clock")
        old_overwrite=$(grep 'overwrite$' "$trace/trace_options")
        shared=1
    fi
    put 0 "$trace/tracing_on"
    fit_buffers
    while ! put "$buffer_kb" "$trace/buffer_size_kb"; do
        [ -z "$chosen" ] && [ "$buffer_kb" -gt 256 ] || die "$no_room"
        buffer_kb=$((buffer_kb / 2))
    done
    [ -z "$shared" ] || put '' "$trace/trace"
    put nooverwrite "$trace/trace_options" # what is lost is lost late, and counted
    put record-cmd "$trace/trace_options"
    put global "$trace/trace_clock" # the one in which CPUs agree on what was first
    if [ -e "$tracefs/saved_cmdlines_size" ]; then
        read -r old_names < "$tracefs/saved_cmdlines_size"
        if [ "$old_names" -lt 4096 ]; then
            put 4096 "$tracefs/saved_cmdlines_size"
        else
            old_names=
        fi
    fi
}

# A kernel that is asked for all of its memory may give it, and stop working: half of what is
# free of its low memory, where buffers lie, must do.
fit_buffers() {
    count=0
    for place in "$trace"/per_cpu/cpu*; do count=$((count + 1)); done
    free=
    while read -r name value _; do
        case $name in MemFree: | LowFree:) free=$value ;; esac
    done < "$proc/meminfo"
    no_room="the kernel has no room for buffers of $buffer_kb KB for each of $count CPUs; try less with -b"
    is_number "$free" && [ "$buffer_kb" -gt $((free / 2 / count)) ] || return 0
    [ -z "$chosen" ] || die "$no_room"
    buffer_kb=$((free / 2 / count))
    [ $buffer_kb -gt 64 ] || die "$no_room"
}

set_probes() {
    made_probes=1
    while read -r line; do
        symbol=${line#* } symbol=${symbol%% *}
        # Room for 64 calls at a time, so that interrupts are not missed; kernels before 4.12
        # choose by themselves and refuse the number.
        case $line in
        r:*) append "r64:${line#r:}" "$tracefs/kprobe_events" && continue ;;
        esac
        append "$line" "$tracefs/kprobe_events" ||
            die "the kernel refused a probe on $symbol: it forbids kprobes there, or altogether"
    done < "$work/probes"
    put 1 "$trace/events/$group/enable" || die "the kernel did not switch the probes on"
    put 1 "$trace/events/@SWITCH@/enable" ||
        say "no sched_switch in this kernel: leaks and sleeping will not be seen"
}

remove_probes() {
    put 0 "$tracefs/events/$group/enable"
    left=
    while read -r line; do
        case $line in
        *:"$group"/*)
            event=${line#*:"$group"/}
            append "-:$group/${event%% *}" "$tracefs/kprobe_events" || left=$left${event%% *}' ' ;;
        esac
    done << END
$(cat "$tracefs/kprobe_events" 2> /dev/null)
END
    [ -z "$left" ] || say "these probes could not be removed, somebody else uses them: $left"
    [ -z "$left" ]
}

remove_instance() {
    put 0 "$tracefs/instances/$group/tracing_on"
    put 0 "$tracefs/instances/$group/events/enable"
    for _ in 1 2 3 4 5 6 7 8 9 10; do # a reader that was just ended may hold it for a moment
        rmdir "$tracefs/instances/$group" 2> /dev/null && return
        [ -d "$tracefs/instances/$group" ] || return
        sleep $step
    done
    say "$tracefs/instances/$group could not be removed, somebody else uses it"
    return 1
}

give_back_buffers() {
    put 0 "$trace/tracing_on"
    put 0 "$trace/events/@SWITCH@/enable"
    put '' "$trace/trace"
    put "$old_kb" "$trace/buffer_size_kb"
    put "$old_clock" "$trace/trace_clock"
    put "$old_overwrite" "$trace/trace_options"
    put "$old_on" "$trace/tracing_on"
}

# Whatever happened: what was set is removed, what was begun is ended.
clean_up() {
    status=$?
    trap '' INT TERM HUP
    trap - EXIT
    for pid in $timer $drainer $reader; do end_tree "$pid"; done
    [ -z "$command" ] || end_command
    if [ -n "$tracefs" ]; then
        [ -z "$shared" ] || give_back_buffers
        [ -z "$made_instance" ] || remove_instance
        [ -z "$made_probes" ] || remove_probes
        [ -z "$old_names" ] || put "$old_names" "$tracefs/saved_cmdlines_size"
    fi
    [ -z "$mounted" ] || umount "$mounted" 2> /dev/null
    [ -z "$work" ] || rm -rf "$work" "$work.tar"
    exit $status
}

# The processes that $1 began, one line each.
children() {
    for stat in /proc/[0-9]*/stat; do
        { read -r line < "$stat"; } 2> /dev/null || continue
        set -- "$1" ${line##*) }
        if [ "$3" = "$1" ]; then
            stat=${stat%/stat}
            printf '%s\n' "${stat##*/}"
        fi
    done
}

# Adds $1 and all that it began to processes; stopped first, so that none begins another.
collect() {
    kill -s STOP "$1" 2> /dev/null || return
    processes="$processes $1"
    for one in $(children "$1"); do collect "$one"; done
}

# Send the signal $1 to what was collected.
send() {
    for one in $processes; do kill -s "$1" "$one" 2> /dev/null; done
}

# A command that runs in the background does not get Ctrl-C by itself.
end_command() {
    processes=
    collect "$command"
    send TERM
    send CONT
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 "$command" 2> /dev/null || break
        sleep $step
    done
    collect "$command" # a shell that is just being started may lose a signal
    send KILL
    wait "$command" 2> /dev/null # some shells tell of it otherwise
    command=
}

# End $1 and all that it began, none of which minds.
end_tree() {
    processes=
    collect "$1"
    send TERM
    send CONT
}

# -- recording -----------------------------------------------------------------------------

# Sets entries: how many events wait in the buffer of cpu $1.
count_entries() {
    entries=0
    [ -r "$trace/per_cpu/cpu$1/stats" ] || return
    while read -r name value _; do
        if [ "$name" = entries: ]; then entries=$value; break; fi
    done < "$trace/per_cpu/cpu$1/stats"
}

# Reads what waits on cpu $1, $entries events.  A read of an empty buffer would wait for ever, so
# no more pages are read than so many events fill at least, at 16 bytes for the shortest.
read_pages() {
    pages=$((entries * 16 / data_size))
    [ $pages -gt 0 ] || pages=1
    dd bs=$page_size count=$pages < "$trace/per_cpu/cpu$1/trace_pipe_raw" \
        >> "$work/per_cpu/cpu$1/trace_pipe_raw" 2> /dev/null &
    reader=$!
    answer=129
    while [ $answer -gt 128 ] && kill -0 $reader 2> /dev/null; do # a signal ends wait, not dd
        wait $reader
        answer=$?
    done
    wait $reader 2> /dev/null || answer=$?
    reader=
    [ $answer -le 128 ] || answer=0
    return $answer
}

# Empties the buffers in time, so that a recording may be longer than they are.  It may be ended
# while there is no file reading: that is made before it looks for the file stop.
drain() {
    while sleep 1; do
        kill -0 $$ 2> /dev/null || return # the recording was killed
        [ ! -e "$work/stop" ] || return
        for cpu in $cpus; do
            count_entries "$cpu"
            [ $((entries / 1024 * 32)) -gt $((buffer_kb / 4)) ] || continue
            : > "$work/reading"
            [ ! -e "$work/stop" ] || return
            read_pages "$cpu" || { : > "$work/failed"; kill -s TERM $$; return; }
            rm -f "$work/reading"
        done
    done
}

prepare() {
    place=$trace/events/header_page
    [ -e "$place" ] || place=$tracefs/events/header_page
    sizes=$(sed -n 's/.*char data;.*offset:\([0-9]*\);.*size:\([0-9]*\);.*/\1 \2/p' "$place")
    data_size=${sizes#* }
    is_number "$data_size" || die "$place is not understood"
    page_size=$((${sizes% *} + data_size))
    cpus=
    for place in "$trace"/per_cpu/cpu*; do
        cpus="$cpus ${place##*/cpu}"
    done
    {
        for cpu in $cpus; do
            mkdir -p "$work/per_cpu/cpu$cpu" && : > "$work/per_cpu/cpu$cpu/trace_pipe_raw" || return
        done
        mkdir -p "$work/events" || return
        save "$tracefs/events/header_event" events/header_event
        place=$trace/events/header_page
        [ -e "$place" ] || place=$tracefs/events/header_page
        save "$place" events/header_page
        for place in "$tracefs/events/$group"/*/format "$tracefs/events/@SWITCH@/format"; do
            name=${place#"$tracefs/"}
            mkdir -p "$work/${name%/format}" && save "$place" "$name" || return
        done
        know_modules
        grep -i ' [tw] ' "$proc/kallsyms" > "$work/kallsyms"
        uname -a > "$work/version"
    } 2> /dev/null
}

# Copies a file of the kernel, if there is such.  Not cp: their sizes say 0.
save() { [ ! -r "$1" ] || cat "$1" > "$work/$2"; }

# Sets modules: the name of each and where it is.
know_modules() {
    modules=' '
    [ -r "$proc/modules" ] || return 0
    while read -r name _ _ _ _ address _; do
        modules="$modules$name@$address "
    done < "$proc/modules"
}

# Adds the functions of modules that were loaded meanwhile.
save_new_modules() {
    before=$modules
    know_modules
    for one in $modules; do
        case $before in *" $one "*) continue ;; esac
        grep -i " [tw] .*\[${one%@*}\]\$" "$proc/kallsyms" >> "$work/kallsyms"
        [ $? -le 1 ] || return
    done
}

# What a signal does while it records: it ends the command, so that the wait for it ends.
end_early() {
    put 0 "$trace/tracing_on"
    [ -z "$command" ] || end_command
}

# Runs the command, or waits.
run() {
    exec 3<&0
    if [ $# -gt 0 ]; then
        "$@" <&3 3<&- &
        command=$!
        if [ -n "$seconds" ]; then
            (sleep "$seconds"; kill -s USR1 $$) 3<&- > /dev/null 2>&1 &
            timer=$!
        fi
    elif [ -n "$seconds" ]; then
        sleep "$seconds" 3<&- > /dev/null 2>&1 &
        command=$!
    else
        (while kill -0 $$; do sleep 5; done) 3<&- > /dev/null 2>&1 &
        command=$!
    fi
    exec 3<&-
    waiting=$command
    [ -z "$interrupted" ] || end_command # it came before there was a command to end
    wait $waiting 2> /dev/null
    result=$?
    while kill -0 $waiting 2> /dev/null; do
        wait $waiting 2> /dev/null
        result=$?
    done
    command=
    put 0 "$trace/tracing_on"
    [ -z "$interrupted$timed_out" ] || result=
    [ -z "$timer" ] || end_tree "$timer"
    timer=
}

finish() {
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    : > "$work/stop"
    [ -e "$work/reading" ] || end_tree "$drainer"
    while kill -0 "$drainer" 2> /dev/null; do wait "$drainer" 2> /dev/null; done
    drainer=
    rm -f "$work/stop" "$work/reading"
    lost=0
    total=0
    [ ! -e "$work/failed" ] || die "$failed"
    for cpu in $cpus; do
        count_entries "$cpu"
        while [ "$entries" -gt 0 ]; do
            read_pages "$cpu" || die "$failed"
            count_entries "$cpu"
        done
        save "$trace/per_cpu/cpu$cpu/stats" "per_cpu/cpu$cpu/stats" || die "$failed"
        while read -r name value number _; do
            case $name in
            overrun:) lost=$((lost + value)) ;;
            dropped) lost=$((lost + number)) ;;
            read) total=$((total + number)) ;;
            esac
        done < "$work/per_cpu/cpu$cpu/stats"
    done
    save_rest || die "$failed"
}

save_rest() {
    save "$tracefs/saved_cmdlines" saved_cmdlines &&
        save "$trace/trace_clock" trace_clock &&
        save "$tracefs/kprobe_profile" kprobe_profile &&
        save "$proc/meminfo" meminfo &&
        save "$proc/iomem" iomem &&
        save_new_modules &&
        { [ -z "$result" ] || printf '%s\n' "$result" > "$work/status"; } &&
        { dmesg > "$work/dmesg" 2> /dev/null || rm -f "$work/dmesg"; }
    missed=0
    if [ -e "$work/kprobe_profile" ]; then
        while read -r name _ value _; do
            case " $events " in *" $name "*) missed=$((missed + value)) ;; esac
        done < "$work/kprobe_profile"
    fi
    return 0
}

# Gives the result its name.
deliver() {
    case $out in
    *.tar) tar -cf "$work.tar" -C "$work" . || die "$failed" ;;
    *.tar.gz | *.tgz)
        tar -cf - -C "$work" . | gzip > "$work.tar" && tar -tzf "$work.tar" > /dev/null ||
            die "$failed" ;;
    *)
        mv "$work" "$out" || die "$shown: cannot be written"
        work=
        return ;;
    esac 2> /dev/null
    mv "$work.tar" "$out" || die "$shown: cannot be written"
}

main() {
    proc=${HIGHMEM_PROC:-/proc}
    quiet='' action=record tracefs='' mounted='' work='' command='' timer='' drainer=''
    reader='' shown='' made_instance='' made_probes='' shared='' old_names='' interrupted='' timed_out=''
    options "$@"
    shift $(($# - rest))
    if sleep 0.1 2> /dev/null; then step=0.1; else step=1; fi
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    if [ $action != remove ]; then
        know_kernel
        lines=$(probes) || exit 2 # it said why
    fi
    if [ $action = probes ]; then printf '%s\n' "$lines"; exit 0; fi
    find_tracefs
    [ -w "$tracefs/kprobe_events" ] ||
        die "no kprobe_events in $tracefs: this kernel was built without CONFIG_KPROBE_EVENTS"
    if [ $action = remove ]; then
        [ ! -d "$tracefs/instances/$group" ] || remove_instance || exit 2
        remove_probes || exit 2
        exit 0
    fi
    record "$@"
}

record() {
    [ $# = 0 ] || command -v "$1" > /dev/null 2>&1 || die "$1: no such command"
    [ ! -e "$out" ] || die "$out: is there already; name another with -o"
    grep -q ":$group/" "$tracefs/kprobe_events" 2> /dev/null && die "$left_over"
    [ -n "$shown" ] || shown=$out
    failed="$shown: cannot be written: is the disk full?"
    work=$out.partial.$$
    { mkdir "$work" && printf '%s\n' "$lines" > "$work/probes"; } 2> /dev/null || {
        work=
        die "$shown: cannot be written there"
    }
    events=
    while read -r line; do
        line=${line#*/}
        events="$events ${line%% *}"
    done < "$work/probes"
    take_buffers
    set_probes
    prepare || die "$failed"
    (exec < /dev/null > /dev/null 2>&1; drain) &
    drainer=$!
    trap 'interrupted=1; end_early' INT TERM HUP
    trap 'timed_out=1; end_early' USR1
    put 1 "$trace/tracing_on"
    run "$@"
    finish
    deliver
    say "$total events in $shown"
    [ $missed = 0 ] || say "$missed calls were not seen: they came while a probe was at work"
    [ $lost = 0 ] || say "$lost events were lost: use larger buffers (-b)"
    case $result in '' | 0) ;; *) [ $# = 0 ] || say "the command ended with status $result" ;; esac
    if [ $lost != 0 ] || [ $missed != 0 ]; then exit 3; fi
    # Without an end of its own, a signal is the end that was meant.
    if [ -n "$interrupted" ]; then
        if [ $# -gt 0 ] || [ -n "$seconds" ]; then exit 3; fi
    fi
    exit 0
}

main "$@"
