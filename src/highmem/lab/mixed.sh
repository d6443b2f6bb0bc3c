# The mixed workload of `highmem lab check`, for busybox's sh: three jobs side by side, then
# memory pressure.  HIGHMEM_ROUNDS says how often (default 1).
rounds=${HIGHMEM_ROUNDS:-1}
mkdir -p /mixed && cd /mixed || exit 1
mount -t tmpfs -o size=95% tmpfs /mixed || exit 1
cd /mixed || exit 1

# File copies: pages of files go through windows on their way in and out, two at a time.
copies() {
    mkdir copies
    i=0
    while [ $i -lt $((4 * rounds)) ]; do
        dd if=/dev/urandom of=copies/a bs=64k count=24 2>/dev/null
        cp copies/a copies/b && cmp copies/a copies/b || return 1
        gzip -c copies/b | gunzip | md5sum >copies/sum
        cp -r /bin/busybox copies/c
        i=$((i + 1))
    done
    rm -r copies
}

# Symbolic links, long and short, made, followed and removed: the permanent windows of old.
links() {
    mkdir links
    long=$(printf '%0500d' 7)
    i=0
    while [ $i -lt $((60 * rounds)) ]; do
        ln -s "$long" "links/$i" && ln -s "$i" "links/short$i" || return 1
        [ "$(readlink "links/$i")" = "$long" ] || return 1
        i=$((i + 1))
    done
    ls -lR links | cat | wc -l >/dev/null
    rm -r links
}

# Pipes, fork and exec: arguments and environment of a new program go through windows too.
processes() {
    big=$(printf '%02000d' 9)
    i=0
    while [ $i -lt $((40 * rounds)) ]; do
        env BIG="$big" sh -c 'echo "$BIG$0" | cat | wc -c' "$big$i" >/dev/null || return 1
        (yes | head -n 3000 | md5sum) >/dev/null
        i=$((i + 1))
    done
}

# Memory pressure without swap: fill what is free but 64 MiB, and give it back.
pressure() {
    free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
    dd if=/dev/zero of=fill bs=1M count=$((free / 1024 - 64)) 2>/dev/null
    rm fill
}

copies & first=$!
links & second=$!
processes & third=$!
status=0
for job in $first $second $third; do
    wait $job || status=1
done
pressure
cd / && umount /mixed
exit $status
