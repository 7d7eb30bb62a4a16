# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# The witness host W: not a machine, only an sshd in a namespace of its own on the
# public LAN and the replication link. It sees this machine's files read-only; its
# home, /var/lib, /srv and /tmp are scratch folders of the lab.

WITNESS_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

witness_mark() { echo "SetEnv=LAB_WITNESS=$NAME"; }
witness_pid() { pid_of "$RUN/W/sshd.pid" "$(witness_mark)"; }

witness_files() {
    local dir=$1
    install -d -m 700 "$dir/root" "$dir/root/.ssh"
    install -d "$dir/lib" "$dir/srv" "$dir/etc"
    install -d -m 1777 "$dir/tmp"
    install -m 600 "$IMAGE/host_ed25519" "$IMAGE/id_ed25519.pub" "$dir/etc/"
    install -m 600 "$IMAGE/id_ed25519" "$IMAGE/known_hosts" "$dir/root/.ssh/"
    install -m 600 "$LAB_DIR/image/ssh_config" "$dir/root/.ssh/config"
    install -m 644 "$LAB_DIR/image/hosts" "$dir/etc/hosts"
    sed -e 's|^HostKey .*|HostKey /mnt/etc/host_ed25519|' -e '/^SetEnv/d' \
        "$LAB_DIR/image/sshd_config" >"$dir/etc/sshd_config"
    cat >>"$dir/etc/sshd_config" <<-EOF
	AuthorizedKeysFile /mnt/etc/id_ed25519.pub
	StrictModes no
	PidFile none
	ListenAddress $PUB_NET.13
	ListenAddress $REPL_NET.13
	EOF
    printf 'root:x:0:0:root:/root:/bin/sh\nsshd:x:65530:65534::/run/sshd:/bin/false\n' >"$dir/etc/passwd"
    printf 'root:*:20000:0:99999:7:::\nsshd:*:20000:0:99999:7:::\n' >"$dir/etc/shadow"
}

# Runs inside the new mount namespace; $1 is the witness's folder.
# shellcheck disable=SC2016 # expanded by the inner shell
WITNESS_SCRIPT='
set -e
mount --bind "$1" /mnt
for file in passwd shadow hosts; do mount --bind "/mnt/etc/$file" "/etc/$file"; done
mount -o remount,bind,ro /
mount --bind /mnt/lib /var/lib
for dir in root srv tmp; do mount --bind "/mnt/$dir" "/$dir"; done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
echo $$ >/mnt/sshd.pid
cd /
exec /usr/sbin/sshd -D -e -f /mnt/etc/sshd_config \
    -o "$2 PATH=$3"
'

witness_start() {
    local dir=$RUN/W i
    witness_files "$dir"
    ip netns exec "$WITNESS" setsid unshare --mount --propagation private \
        sh -c "$WITNESS_SCRIPT" witness "$dir" "$(witness_mark)" "$WITNESS_PATH" \
        </dev/null >"$dir/sshd.log" 2>&1 8>&- 9>&- &
    for ((i = 0; i < 50; i++)); do
        ! grep -qs 'Server listening' "$dir/sshd.log" || return 0
        sleep 0.1
    done
    die "the witness's sshd did not start: $(tail -n1 "$dir/sshd.log")"
}

witness_stop() {
    end_process "$RUN/W/sshd.pid" "$(witness_mark)" TERM
}

witness_exec() {
    local pid
    pid=$(witness_pid) || die "the witness is not running"
    exec nsenter -t "$pid" -m -n -- env -i HOME=/root "PATH=$WITNESS_PATH" sh -c "cd; $1"
}
