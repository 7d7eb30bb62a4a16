# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# The dom0 image: hypervisor, kernel, initrd and one root disk for both hosts.
# Built in a temporary folder and renamed, so a broken build leaves no image.

IMAGE_SIZE_MB=2048

image_hash() {
    local kind=debian-bookworm-1
    {
        echo "$kind $IMAGE_SIZE_MB"
        grep -v '^#' "$LAB_DIR/packages"
        cat "$LAB_DIR/lib/image.sh" "$LAB_DIR"/image/*
    } | sha256sum | cut -c1-16
}

image_dir() { echo "$CACHE/image-$(image_hash)"; }

# The machine's own Debian sources as one-line entries, whatever form they were
# written in. Nothing at all lets mmdebstrap use its default.
image_sources() {
    local uri codename component origin arch by rest
    # shellcheck disable=SC2016 # apt expands these, not the shell
    apt-get indextargets \
        --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN) $(ARCHITECTURE) $(CREATED_BY) $(SIGNED_BY)' |
        while read -r uri codename component origin arch by rest; do
            [ "$origin/$arch/$by" = Debian/amd64/Packages ] || continue
            case $codename in bookworm | bookworm-updates | bookworm-security) ;; *) continue ;; esac
            case $rest in
                /*) echo "deb [signed-by=$rest] $uri $codename $component" ;;
                *) echo "deb $uri $codename $component" ;;
            esac
        done
}

# Proxy, certificate and date settings that the machine's apt needs.
image_apt_options() {
    apt-config dump --no-empty Acquire | grep -E '^Acquire::(http|https|ftp|Check-|Retries|proxy)' || true
    echo 'Apt::Install-Recommends "false";'
    echo 'Acquire::Languages "none";'
}

image_bootstrap() {
    local root=$1 work=$2 packages
    packages=$(grep -v '^#' "$LAB_DIR/packages" | paste -sd,)
    image_apt_options >"$work/apt.conf"
    image_sources >"$work/sources.list"
    if [ ! -s "$work/sources.list" ]; then
        apt-get -qq update || die "apt-get update failed: the image needs a reachable Debian mirror"
        image_sources >"$work/sources.list"
    fi
    local -a mirror=()
    [ ! -s "$work/sources.list" ] || mirror=("$work/sources.list")
    # Its shell knows no descriptor above 9, and gets the lowest that are free: those of locks, also of a caller's flock, are not for it.
    INITRD=No mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        --aptopt="$work/apt.conf" \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/gpu/*' \
        --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/media/*' \
        --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/net/wireless/*' \
        --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/infiniband/*' \
        --dpkgopt='path-exclude=/lib/modules/*/kernel/sound/*' \
        bookworm "$root" "${mirror[@]}" >"$work/mmdebstrap.log" 2>&1 3>&- 8>&- 9>&- || {
        tail -n 20 "$work/mmdebstrap.log" >&2
        die "mmdebstrap failed, its last lines are above"
    }
}

# One key pair for root on every host and one host key: the lab is closed, and
# 'ssh hostB' from A must never ask.
image_keys() {
    local work=$1 root=$2 hostkey
    ssh-keygen -q -t ed25519 -N '' -C xentwin-lab -f "$work/id_ed25519"
    ssh-keygen -q -t ed25519 -N '' -C xentwin-lab-host -f "$work/host_ed25519"
    read -r hostkey <"$work/host_ed25519.pub"
    echo "hostA*,hostB*,hostW*,$PUB_NET.*,$REPL_NET.*,$MGMT_NET.* $hostkey" >"$work/known_hosts"
    install -d -m 700 "$root/root/.ssh"
    install -m 600 "$work/id_ed25519" "$work/known_hosts" "$root/root/.ssh/"
    install -m 600 "$work/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
    install -m 600 "$LAB_DIR/image/ssh_config" "$root/root/.ssh/config"
    rm -f "$root"/etc/ssh/ssh_host_*
    install -m 600 "$work/host_ed25519" "$root/etc/ssh/ssh_host_ed25519_key"
    install -m 644 "$LAB_DIR/image/sshd_config" "$root/etc/ssh/sshd_config"
}

image_configure_root() {
    local root=$1 work=$2
    image_keys "$work" "$root"
    install -d "$root/share" "$root/srv/guest" "$root/var/crash" "$root/run/sshd"
    install -m 755 "$LAB_DIR/image/dom0-rc" "$root/etc/lab-rc"
    install -m 644 "$LAB_DIR/image/inittab" "$root/etc/inittab"
    install -m 644 "$LAB_DIR/image/hosts" "$root/etc/hosts"
    install -m 644 "$LAB_DIR/image/xl.conf" "$root/etc/xen/xl.conf"
    install -m 644 "$LAB_DIR/image/bashrc" "$root/root/.bashrc"
    install -m 644 "$LAB_DIR/image/bashrc" "$root/root/.profile"
    ln -sf /bin/busybox "$root/sbin/init"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
}

# The initramfs only finds the root disk and moves there.
image_initrd() {
    local root=$1 work=$2 kernel=$3 dir=$2/initrd module
    install -d "$dir"/{bin,dev,proc,sys,root,lib}
    install -m 755 "$root/bin/busybox" "$dir/bin/busybox"
    install -m 755 "$LAB_DIR/image/initrd-init" "$dir/init"
    for module in virtio_pci virtio_blk virtio_net crc32c_generic ext4; do
        copy_module "$root" "$kernel" "$module" "$dir/lib" "$dir/modules"
    done
    (cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
    rm -rf "$dir"
}

# Copies a module and what it depends on, and notes the order of loading.
copy_module() {
    local root=$1 kernel=$2 module=$3 lib=$4 list=$5 path
    modprobe -d "$root" -S "$kernel" --show-depends "$module" | while read -r word path _; do
        [ "$word" = insmod ] || continue
        grep -qxF "${path##*/}" "$list" 2>/dev/null && continue
        install -m 644 "$path" "$lib/${path##*/}"
        echo "${path##*/}" >>"$list"
    done
}

# Xen boots a PVH guest from the bare ELF, which is the xz blob in the bzImage.
extract_vmlinux() {
    local bzimage=$1 out=$2 offset offsets
    mapfile -t offsets < <(LC_ALL=C grep -abo -P '\xfd7zXZ\x00' "$bzimage" | cut -d: -f1)
    for offset in "${offsets[@]}"; do
        tail -c "+$((offset + 1))" "$bzimage" | xz -dc --single-stream >"$out" 2>/dev/null || true
        [ "$(head -c4 "$out" | tail -c3)" = ELF ] && return 0
    done
    die "no xz-packed kernel inside $bzimage"
}

# What guests need later comes out of the same packages.
image_guest_parts() {
    local root=$1 work=$2 kernel=$3 module
    install -d "$work/guest-modules"
    for module in xen-netfront xen-blkfront e1000 8139cp af_packet; do
        copy_module "$root" "$kernel" "$module" "$work/guest-modules" "$work/guest-modules/order"
    done
    # Only for a guest with disks.
    for module in ata_piix sd_mod crc32c_generic ext4; do
        copy_module "$root" "$kernel" "$module" "$work/guest-modules" "$work/guest-modules/order-disk"
    done
    install -m 755 "$root/bin/busybox" "$work/busybox"
}

# Removes broken builds and the images that neither $1 nor a lab needs. The caller
# holds the image lock.
image_prune() {
    local dir
    for dir in "$CACHE"/image-*; do
        [ -d "$dir" ] || continue
        [ "$dir" != "$1" ] || continue
        grep -qsxF -- "$dir" "$CACHE"/run/*/image || rm -rf --one-file-system "$dir"
    done
}

image_build() {
    local final=$1 work root kernel started=$SECONDS
    need_tools mmdebstrap mke2fs cpio xz ssh-keygen modprobe
    need_root
    mkdir -p "$CACHE"
    image_prune "$final"
    work=$(mktemp -d "$CACHE/image-building.XXXXXX")
    IMAGE_WORK=$work
    trap 'rm -rf --one-file-system "$IMAGE_WORK"' EXIT
    trap 'exit 130' INT TERM
    root=$work/root
    say "image 1/4: Debian packages (about two minutes)"
    image_bootstrap "$root" "$work"
    say "image 2/4: hypervisor, kernel, initrd"
    kernel=$(cd "$root/lib/modules" && echo *)
    install -m 644 "$root/boot/vmlinuz-$kernel" "$work/vmlinuz"
    gzip -dc "$root"/boot/xen-4.17-amd64.gz >"$work/xen.elf"
    extract_vmlinux "$work/vmlinuz" "$work/vmlinux"
    image_initrd "$root" "$work" "$kernel"
    say "image 3/4: keys, configuration, parts for guests"
    image_guest_parts "$root" "$work" "$kernel"
    image_configure_root "$root" "$work"
    say "image 4/4: root disk"
    rm -rf "${root:?}/boot"
    install -m 644 "$work/vmlinuz" "$work/vmlinux" "$root/srv/guest/"
    truncate -s "${IMAGE_SIZE_MB}M" "$work/base.img"
    mke2fs -q -F -t ext4 -O ^has_journal -d "$root" "$work/base.img" ||
        die "mke2fs could not fill the root disk"
    rm -rf --one-file-system "$root"
    chmod 755 "$work"
    mv -T "$work" "$final"
    trap - EXIT
    say "image ready in $((SECONDS - started)) s: $final"
}

# Builds the image unless it is there. Two callers at once build it once.
image_ensure() {
    IMAGE=$(image_dir)
    [ -e "$IMAGE/base.img" ] && return 0
    mkdir -p "$CACHE"
    exec 8>"$CACHE/image.lock"
    flock 8
    # A subshell, because the build has traps of its own.
    [ -e "$IMAGE/base.img" ] || (image_build "$IMAGE")
    exec 8>&-
}

cmd_image() {
    image_ensure
    echo "$IMAGE"
}
