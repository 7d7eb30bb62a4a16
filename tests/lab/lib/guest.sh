# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# The test guests: Debian's kernel with a small initramfs of ours. The kernel is
# in the dom0 image; the initramfs travels by the shared folder, so that a change
# of the guest's program needs no new image. Both lie in /srv/guest on both hosts.

GUEST_MEM_MB=128
GUEST_LIMIT_S=240

guest_hash() {
    { echo "$IMAGE" && cat "$LAB_DIR"/guest/* "$LAB_DIR"/guest-disk/* "$LAB_DIR"/kvclient*.[ch] "$LAB_DIR/lib/guest.sh"; } |
        sha256sum | cut -c1-16
}

guest_dir() { echo "$CACHE/guest-$(guest_hash)"; }

guest_build() {
    local final=$1 work root
    need_tools gcc cpio gzip
    find "$CACHE" -maxdepth 1 -name 'guest-*' -mmin +1440 -exec rm -rf {} +
    work=$(mktemp -d "$CACHE/guest-building.XXXXXX")
    root=$work/root
    install -d "$root"/{bin,sbin,dev,proc,sys,etc,lib}
    install -m 755 "$IMAGE/busybox" "$root/bin/busybox"
    "$IMAGE/busybox" --list | while read -r name; do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    ln -s bin/busybox "$root/init"
    printf '#!/bin/sh\nexec /bin/busybox poweroff -f\n' >"$root/sbin/poweroff"
    printf '#!/bin/sh\nexec /bin/busybox reboot -f\n' >"$root/sbin/reboot"
    chmod 755 "$root/sbin/poweroff" "$root/sbin/reboot"
    install -m 644 "$IMAGE"/guest-modules/* "$root/lib/"
    install -m 755 "$LAB_DIR/guest/init" "$root/etc/rc"
    install -m 644 "$LAB_DIR/guest/inittab" "$root/etc/inittab"
    if ! gcc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -s -o "$root/bin/xtguest" "$LAB_DIR"/guest/*.c ||
        ! gcc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -s -o "$root/bin/xtdisk" \
            "$LAB_DIR"/guest-disk/*.c -lsqlite3 -lm 2>"$work/xtdisk.log" ||
        ! gcc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -o "$work/kvclient" "$LAB_DIR"/kvclient*.c; then
        rm -rf "$work"
        die "the test guest's programs do not compile, see above"
    fi
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
    rm -rf "$root"
    chmod 755 "$work"
    mv -T "$work" "$final" 2>/dev/null || rm -rf "$work"
}

guest_ensure() {
    GUEST=$(guest_dir)
    [ -e "$GUEST/initrd.gz" ] || guest_build "$GUEST"
}

guest_publish() {
    mkdir -p "$SHARE/guest"
    cmp -s "$GUEST/initrd.gz" "$SHARE/guest/initrd.gz" || cp "$GUEST/initrd.gz" "$SHARE/guest/"
}

# A guest's address follows from its name: the default names have fixed ones,
# any other name gets one from its checksum.
guest_number() {
    case $1 in
        pvh) echo 101 ;;
        hvm) echo 102 ;;
        hvm-nopv) echo 103 ;;
        pv) echo 104 ;;
        *) echo $((110 + $(printf %s "$1" | cksum | cut -d' ' -f1) % 130)) ;;
    esac
}

guest_ip() { echo "$PUB_NET.$(guest_number "$1")"; }

check_guest_name() {
    [[ $1 =~ ^[a-z][a-z0-9-]{0,30}$ ]] ||
        bad_usage "guest: name '$1' is not usable: give 1 to 31 characters of a-z, 0-9 and -"
}

check_guest_type() {
    case ${1-} in
        pvh | hvm | hvm-nopv | pv) ;;
        *) bad_usage "guest: '${1-}' is not a guest type: say pvh, hvm, hvm-nopv or pv" ;;
    esac
}

# The xl configuration of a guest of the type $1, by what guest_options has read.
guest_config() {
    local type=$1 number mac model='' words
    number=$(guest_number "$name")
    mac=$(printf '00:16:3e:7e:00:%02x' "$number")
    words="quiet xt.number=$number"
    cat <<-EOF
	name = "$name"
	memory = $mem
	maxmem = $mem
	vcpus = $vcpus
	maxvcpus = ${maxvcpus:-$vcpus}
	on_crash = "destroy"
	ramdisk = "/srv/guest/initrd.gz"
	EOF
    case $type in
        pvh)
            printf 'type = "pvh"\nkernel = "/srv/guest/vmlinux"\n'
            words="console=hvc0 $words"
            ;;
        pv)
            printf 'type = "pv"\nkernel = "/srv/guest/vmlinuz"\n'
            words="console=hvc0 $words"
            ;;
        hvm*)
            printf 'type = "hvm"\nkernel = "/srv/guest/vmlinuz"\nserial = "pty"\n'
            guest_display
            words="console=ttyS0 $words"
            model=,model=e1000
            [ "$type" = hvm ] || words="xen_nopv $words"
            ;;
    esac
    printf 'cmdline = "%s"\n' "$words"
    printf 'vif = [ "mac=%s,bridge=xenbr0%s" ]\n' "$mac" "$model${kbps:+,rate=${kbps}Kb/s}"
}

guest_display() {
    if [ -n "$vga" ]; then
        printf 'vga = "stdvga"\nvideoram = 16\nvnc = 1\nvnclisten = "127.0.0.1"\nsdl = 0\n'
    else
        printf 'vga = "none"\nvnc = 0\nsdl = 0\n'
    fi
}

check_vcpus() {
    [[ $2 =~ ^[1-8]$ ]] || bad_usage "guest: $1 '$2' is not usable: give 1 to 8"
}

# Reads the options into name, mem, kbps, vcpus, maxvcpus, vga and limit of the caller.
guest_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --name)
                check_value "$@"
                check_guest_name "$2"
                name=$2
                ;;
            --mem)
                check_value "$@"
                [[ $2 =~ ^[0-9]{2,4}$ && $2 -ge 64 && $2 -le 1024 ]] ||
                    bad_usage "guest: --mem '$2' is not usable: give 64 to 1024 (MiB)"
                mem=$2
                ;;
            --kbps)
                check_value "$@"
                is_number "$2" || bad_usage "guest: --kbps '$2' is not a number of kbit/s"
                kbps=$2
                ;;
            --timeout)
                check_value "$@"
                check_seconds --timeout "$2"
                limit=$2
                ;;
            --vcpus)
                check_value "$@"
                check_vcpus "$1" "$2"
                vcpus=$2
                ;;
            --maxvcpus)
                check_value "$@"
                check_vcpus "$1" "$2"
                maxvcpus=$2
                ;;
            --vga)
                vga=1
                shift
                continue
                ;;
            *) bad_usage "guest: '$1' is not an option, see 'lab guest --help'" ;;
        esac
        shift 2
    done
}

# The configuration goes to both hosts: the backup must find the same files.
guest_place() {
    local type=$1 host
    guest_publish
    guest_config "$type" >"$SHARE/guest/$name.cfg"
    for host in A B; do
        host_pid $host >/dev/null || continue
        on_host $host "cp /share/guest/initrd.gz /srv/guest/ && cp /share/guest/$name.cfg /etc/xen/" \
            </dev/null || die "host $host did not take the guest's files"
    done
}

guest_start() {
    local host=${1-} type=${2-} name mem=$GUEST_MEM_MB kbps='' limit=$GUEST_LIMIT_S vcpus=1 maxvcpus='' vga=''
    check_host "$host"
    check_guest_type "$type"
    name=$type
    guest_options "${@:3}"
    guest_ensure
    guest_place "$type"
    on_host "$host" "xl create -q /etc/xen/$name.cfg" </dev/null ||
        die "xl create of '$name' failed on host $host"
    guest_await "$name" "$limit"
    guest_ip "$name"
}

# Waits until the guest's server answers the client on the public LAN.
guest_await() {
    local name=$1 limit=$2 ip deadline
    ip=$(guest_ip "$name")
    deadline=$((SECONDS + limit))
    until ip netns exec "$CLIENT" "$GUEST/kvclient" cmd "$ip" ID --timeout 2 >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || die "guest '$name' ($ip) did not answer within $limit s"
        sleep 0.2
    done
}

guest_stop() {
    local host=${1-} name=${2-}
    check_host "$host"
    [ -n "$name" ] || bad_usage "guest stop: no name given: say 'lab guest stop $host NAME'"
    check_guest_name "$name"
    on_host "$host" "xl destroy $name" </dev/null || die "xl destroy of '$name' failed on host $host"
}

guest_console() {
    local host=${1-} name=${2-} kind=pv
    check_host "$host"
    [ -n "$name" ] || bad_usage "guest console: no name given: say 'lab guest console $host NAME'"
    check_guest_name "$name"
    ! grep -qs 'type = "hvm"' "$SHARE/guest/$name.cfg" || kind=serial
    on_host "$host" -t "xl console -t $kind $name"
}

cmd_guest() {
    local action=${1-} name='' mem=$GUEST_MEM_MB kbps='' limit=$GUEST_LIMIT_S vcpus=1 maxvcpus='' vga=''
    shift || bad_usage "guest: no action given: say start, stop, wait, ip, config or console"
    if [ "$action" = config ]; then
        check_guest_type "${1-}"
        name=$1
        guest_options "${@:2}"
        guest_config "$1"
        return
    fi
    case $action in
        start | stop | wait | ip | console) ;;
        *) bad_usage "guest: '$action' is not an action: say start, stop, wait, ip, config or console" ;;
    esac
    if [ "$action" = ip ]; then
        [ -n "${1-}" ] || bad_usage "guest ip: no name given: say 'lab guest ip NAME'"
        check_guest_name "$1"
        guest_ip "$1"
        return
    fi
    need_up
    need_root
    use_image
    if [ "$action" = wait ]; then
        [ -n "${1-}" ] || bad_usage "guest wait: no name given: say 'lab guest wait NAME'"
        check_guest_name "$1"
        guest_options "${@:2}"
        guest_ensure
        guest_await "$1" "$limit"
        return
    fi
    "guest_$action" "$@"
}

# The client program of the test guest, run on the public LAN.
cmd_kv() {
    need_up
    need_root
    use_image
    guest_ensure
    exec ip netns exec "$CLIENT" "$GUEST/kvclient" "$@"
}
