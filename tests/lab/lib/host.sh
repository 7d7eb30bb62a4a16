# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# The two Xen hosts: QEMU processes in the namespace SW, reached by ssh over a
# control link of their own, so that 'exec' works while other links are cut.

HOST_MEMORY_MB=2048
HOST_CPUS=${LAB_CPUS:-1} # each is a thread that wants a core of this machine
HOST_CPU=EPYC,-smap,-smep,-monitor,-rdtscp,-xsave,-xsaveopt,-xsavec,-xgetbv1,-avx,-avx2,-f16c,-fma
XEN_ARGS='console=com1 com1=115200,8n1 dom0_mem=768M,max:768M cpuidle=no spec-ctrl=no'
XEN_ARGS+=' loglvl=all guest_loglvl=all sched=credit2'
READY_LIMIT_S=300

host_mark() { echo "-pidfile $RUN/$1/qemu.pid"; }
host_pid() { pid_of "$RUN/$1/qemu.pid" "$(host_mark "$1")"; }

host_nic() {
    local host=$1 net=$2 last=$3
    echo "-netdev tap,id=$net,ifname=$net$host,script=no,downscript=no,vhost=off"
    echo "-device virtio-net-pci,netdev=$net,romfile=,mac=52:54:00:78:$(host_number "$host"):$last"
}

# One entry of an MBR: first sector and number of sectors.
mbr_entry() {
    local hex
    printf -v hex '%08x%08x' "$2" "$1"
    printf '\0\376\377\377\203\376\377\377'
    # Little endian.
    printf '%b' "$(fold -w 2 <<<"$hex" | tac | awk '{printf "\\x" $1}')"
}

# Storage that both hosts see, as a SAN would give it: /dev/vdb with a raw disk, one for a file system, and a journal for each.
shared_storage() {
    local file=$RUN/shared.img at=2048 size mb
    [ ! -e "$file" ] || return 0
    truncate -s 160M "$file"
    {
        for mb in 1 16 64 64; do
            size=$((mb * 2048))
            mbr_entry $at $size
            at=$((at + size))
        done
        printf '\125\252'
    } | dd of="$file" bs=1 seek=446 conv=notrunc status=none
}

host_start() {
    local host=$1 dir=$RUN/$1
    mkdir -p "$dir" "$SHARE/state"
    shared_storage
    rm -f "$SHARE/state/$host.ready"
    # shellcheck disable=SC2046 # the NIC options hold no blanks inside a word
    TMPDIR=$dir in_sw qemu-system-x86_64 -name "xentwin-$NAME-$host" -nodefaults -no-user-config \
        -accel tcg,thread=multi,tb-size=512 -smp "$HOST_CPUS" -m "$HOST_MEMORY_MB" -cpu "$HOST_CPU" \
        -display none -no-reboot -daemonize -pidfile "$dir/qemu.pid" \
        -chardev "socket,id=console,path=$dir/console.sock,server=on,wait=off,logfile=$dir/console.log,logappend=on" -serial chardev:console \
        -kernel "$IMAGE/xen.elf" -append "$XEN_ARGS" \
        -initrd "$IMAGE/vmlinuz console=hvc0 quiet mitigations=off labhost=$host,$IMAGE/initrd.gz" \
        -drive "file=$IMAGE/base.img,if=virtio,format=raw,snapshot=on,cache=unsafe" \
        -drive "file=$RUN/shared.img,if=none,id=shared,format=raw,cache=unsafe,file.locking=off" \
        -device virtio-blk-pci,drive=shared,share-rw=on,addr=0x1e \
        $(host_nic "$host" pub 01) $(host_nic "$host" repl 02) $(host_nic "$host" mgmt 03) \
        -virtfs "local,path=$SHARE,mount_tag=share,security_model=none,multidevs=remap" \
        </dev/null >>"$dir/qemu.log" 2>&1 8>&- 9>&- ||
        die "QEMU of host $host did not start: $(tail -n1 "$dir/qemu.log")"
}

host_wait_ready() {
    local host=$1 i
    for ((i = 0; i < READY_LIMIT_S * 5; i++)); do
        if [ -e "$SHARE/state/$host.ready" ]; then
            ssh_master "$host" && return 0
        fi
        host_pid "$host" >/dev/null ||
            die "QEMU of host $host ended during boot: see 'lab log $host' and $RUN/$host/qemu.log"
        sleep 0.2
    done
    die "host $host was not ready within $READY_LIMIT_S s: see 'lab log $host'"
}

host_kill() {
    end_process "$RUN/$1/qemu.pid" "$(host_mark "$1")" KILL
    ssh_close "$1"
}

ssh_path() { echo "$RUN/ssh-$1"; }

# Options for reaching HOST by the control link, one per line for mapfile.
ssh_options() {
    printf '%s\n' -F /dev/null -i "$IMAGE/id_ed25519" -o IdentitiesOnly=yes -o BatchMode=yes \
        -o "UserKnownHostsFile=$IMAGE/known_hosts" -o StrictHostKeyChecking=yes \
        -o KexAlgorithms=curve25519-sha256 -o Ciphers=aes128-gcm@openssh.com -o LogLevel=ERROR \
        -o ConnectTimeout=10 -o ControlPath="$(ssh_path "$1")"
}

# The connection that every exec shares. It must not hold a caller's stdout or
# stderr open, hence the redirections and its own process.
ssh_master() {
    local host=$1 options
    mapfile -t options < <(ssh_options "$host")
    ssh "${options[@]}" -O check host 2>/dev/null && return 0
    rm -f "$(ssh_path "$host")"
    in_sw setsid -w ssh "${options[@]}" -f -N -M -o ControlPersist=no -o ServerAliveInterval=15 \
        -o ServerAliveCountMax=40 "root@$MGMT_NET.$(host_number "$host")" \
        </dev/null >/dev/null 2>>"$RUN/$host/ssh.log" 8>&- 9>&-
}

ssh_close() {
    local options
    mapfile -t options < <(ssh_options "$1")
    [ ! -S "$(ssh_path "$1")" ] || ssh "${options[@]}" -O exit host 2>/dev/null || true
    rm -f "$(ssh_path "$1")"
}

# Runs one shell command line in dom0 of HOST.
on_host() {
    local host=$1 options
    shift
    mapfile -t options < <(ssh_options "$host")
    in_sw ssh "${options[@]}" -o ControlMaster=no "root@$MGMT_NET.$(host_number "$host")" "$@"
}

lab_down() {
    local host
    for host in A B; do
        [ ! -d "$RUN/$host" ] || host_kill "$host"
    done
    [ ! -d "$RUN" ] || witness_stop
    net_down
    lab_keep_logs
    rm -rf --one-file-system "$RUN"
}

lab_keep_logs() {
    local host log
    for host in A B; do
        for log in console qemu; do
            [ -e "$RUN/$host/$log.log" ] || continue
            mkdir -p "$CACHE/log"
            cp "$RUN/$host/$log.log" "$CACHE/log/$NAME-$host-$log.log"
        done
    done
}

lab_start() {
    local host pid
    mkdir -p "$RUN" "$SHARE/state"
    echo "$IMAGE" >"$RUN/image"
    guest_publish
    net_up
    witness_start
    for host in A B; do
        host_start $host
    done
    for host in A B; do
        host_wait_ready $host &
        WAITERS+=($!)
    done
    for pid in "${WAITERS[@]}"; do
        wait "$pid"
    done
    touch "$RUN/up"
}

# Whatever ends 'up' before both hosts are ready ends the half-made lab too.
up_failed() {
    trap - EXIT INT TERM
    [ ${#WAITERS[@]} = 0 ] || kill "${WAITERS[@]}" 2>/dev/null || true
    say "taking lab '$NAME' down again"
    lab_down
    rm -f "$LOCK"
    exit "$1"
}

cmd_up() {
    local started=$SECONDS
    need_root
    need_tools qemu-system-x86_64 ip ssh sshd flock tcpdump unshare
    take_lock
    if [ -e "$RUN/up" ] && host_pid A >/dev/null && host_pid B >/dev/null; then
        say "lab '$NAME' is already up"
        return 0
    fi
    net_check_owner
    use_image
    WAITERS=()
    trap 'up_failed 130' INT TERM
    trap 'up_failed 1' EXIT
    image_ensure
    guest_ensure
    lab_down
    lab_start
    trap - EXIT INT TERM
    say "lab '$NAME' is up after $((SECONDS - started)) s"
}

cmd_down() {
    local dir
    [ $# = 0 ] || [ "$*" = --all ] ||
        bad_usage "down: '$1' is not an option: say 'lab down' or 'lab down --all'"
    need_root
    if [ $# != 0 ]; then
        for dir in "$CACHE"/run/*/; do
            [ ! -d "$dir" ] || "$LAB_DIR/lab" --lab "$(basename "$dir")" down
        done
        return
    fi
    take_lock
    use_image
    lab_down
    rm -f "$LOCK"
}

# A running lab keeps the image it was started with.
use_image() {
    if [ -s "$RUN/image" ]; then
        read -r IMAGE <"$RUN/image"
    else
        IMAGE=$(image_dir)
    fi
}

cmd_exec() {
    local tty=() limit='' host
    while [[ ${1-} == -* ]]; do
        case $1 in
            -t) tty=(-t) && shift ;;
            --timeout)
                check_value "$@"
                check_seconds --timeout "$2"
                limit=$2
                shift 2
                ;;
            *) bad_usage "exec: '$1' is not an option, see 'lab exec --help'" ;;
        esac
    done
    host=${1-}
    [ "$host" = W ] || check_host "$host"
    shift
    [ $# -gt 0 ] || bad_usage "exec: no command given: say 'lab exec $host CMD...'"
    need_up
    use_image
    # One argument is a command line for the shell over there; several are words.
    local line=$1
    [ $# = 1 ] || printf -v line '%q ' "$@"
    [ "$host" != W ] || witness_exec "$line"
    host_pid "$host" >/dev/null || die "host $host is not running: run 'lab start $host'"
    [ -S "$(ssh_path "$host")" ] || ssh_master "$host" || die "host $host does not answer"
    [ -z "$limit" ] || printf -v line 'timeout -k 2 %d sh -c %q' "$limit" "$line"
    if [ -n "$limit" ]; then
        local options
        mapfile -t options < <(ssh_options "$host")
        exec timeout -k 2 $((limit + 5)) ip netns exec "$SW" ssh "${tty[@]}" "${options[@]}" \
            -o ControlMaster=no "root@$MGMT_NET.$(host_number "$host")" "$line"
    fi
    on_host "$host" "${tty[@]}" "$line"
}

cmd_kill() {
    check_host "${1-}"
    need_root
    need_up
    use_image
    host_kill "$1"
}

cmd_start() {
    check_host "${1-}"
    need_root
    need_up
    use_image
    take_lock
    ! host_pid "$1" >/dev/null || die "host $1 is already running"
    host_start "$1"
    host_wait_ready "$1"
}

cmd_pause() {
    local pid
    check_host "${1-}"
    need_up
    pid=$(host_pid "$1") || die "host $1 is not running"
    kill -STOP "$pid"
}

cmd_resume() {
    local pid
    check_host "${1-}"
    need_up
    pid=$(host_pid "$1") || die "host $1 is not running"
    kill -CONT "$pid"
}

cmd_log() {
    check_host "${1-}"
    local file=$RUN/$1/console.log
    [ -e "$file" ] || file=$CACHE/log/$NAME-$1-console.log
    [ -e "$file" ] || die "host $1 of lab '$NAME' has no console log"
    cat "$file"
}

cmd_status() {
    local host pid state port
    [ -e "$RUN/up" ] || {
        echo "lab $NAME: down"
        return 0
    }
    echo "lab $NAME: up"
    for host in A B; do
        state=stopped
        if pid=$(host_pid $host); then
            state="running, pid $pid"
            ! grep -q '^State:[[:space:]]*T' "/proc/$pid/status" || state="paused, pid $pid"
        fi
        echo "host $host: $state"
    done
    for port in pubA pubB pubC pubW replA replB replW; do
        ip -n "$SW" -o link show "$port" | grep -q ' master ' || echo "cut: $port"
    done
}

# dom0's clocks against this machine's: twenty questions, the quickest answer counts.
CLOCK_PROGRAM='import sys, time
for _ in sys.stdin: print(time.time_ns(), time.monotonic_ns(), flush=True)'

cmd_clock() {
    local i before after trip best=999999999 real=0 mono=0 there_real there_mono clock_in clock_out
    check_host "${1-}"
    need_up
    use_image
    coproc DOM0 { on_host "$1" "python3 -c '$CLOCK_PROGRAM'"; }
    clock_in=${DOM0[0]} clock_out=${DOM0[1]}
    for ((i = 0; i < 20; i++)); do
        before=${EPOCHREALTIME/[.,]/}
        echo >&"$clock_out"
        read -r -t 10 there_real there_mono <&"$clock_in" || die "host $1 does not answer"
        after=${EPOCHREALTIME/[.,]/}
        trip=$((after - before))
        [ "$trip" -lt "$best" ] || continue
        best=$trip
        real=$(((before + after) * 500 - there_real))
        mono=$(((before + after) * 500 - there_mono))
    done
    exec {clock_out}>&-
    echo "realtime $real monotonic $mono uncertainty $((best * 500))"
}

# Installs a staged tree in both dom0s through the shared folder.
cmd_push() {
    local tree=${1-} host pids=() failed=
    need_up
    need_root
    use_image
    rm -rf "$SHARE/stage"
    mkdir -p "$SHARE/stage"
    if [ -n "$tree" ]; then
        [ -d "$tree" ] || bad_usage "push: '$tree' is not a folder: give a staged tree or nothing"
        cp -a "$tree/." "$SHARE/stage/"
    else
        make -s -C "$REPO" install "DESTDIR=$SHARE/stage" prefix=/usr/local >&2 ||
            die "'make install' failed, nothing was pushed"
    fi
    for host in A B; do
        host_pid $host >/dev/null || continue
        on_host $host 'tar -C /share/stage -cf - . | tar -C / -xmf - --no-same-owner --keep-directory-symlink && ldconfig' \
            </dev/null &
        pids+=($!)
    done
    for host in "${pids[@]}"; do
        wait "$host" || failed=1
    done
    [ -z "$failed" ] || die "push failed on a host"
}
