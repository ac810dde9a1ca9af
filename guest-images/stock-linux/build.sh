#!/usr/bin/env bash
# Fetches the kernels of stock Linux guests and builds their initramfs, or finds them in the cache. `build.sh --help` says the rest.
# shellcheck disable=SC2317 # the recipes are called through a variable
set -euo pipefail
export LC_ALL=C
umask 022

usage() {
    cat <<'END'
Fetches Debian's kernels and builds what the tests boot with them, and prints where it is.

usage: build.sh [--cached | --help]

  (no option)  use what is in the cache, fetch and build what is missing
  --cached     never install, fetch or build: exit with status 3 if something is not in the cache
  --help       this text

Standard output is these lines and nothing else; progress goes to standard error:

  generic PATH SHA256      bzImage of the newest linux-image-6.1.*-amd64
  cloud PATH SHA256        bzImage of the newest linux-image-6.1.*-cloud-amd64
  initramfs PATH SHA256    uncompressed cpio archive: init, a static busybox, and the witness of this folder
  nested PATH SHA256       uncompressed cpio archive: the generic kernel's KVM, and a program that runs a guest of its own
  initrd PATH SHA256       the initrd.img that Debian's initramfs-tools makes for the cloud kernel

The cache is $CLONER_CACHE, or $XDG_CACHE_HOME/cloner, or ~/.cache/cloner, and in it:

  stock-linux/kernel-PACKAGE/     vmlinuz and KVM's modules, unpacked from the package, which is not installed
  stock-linux/initramfs-KEY/      initramfs.cpio and nested.cpio; KEY is a hash of all that goes into them
  stock-linux/initrd-PACKAGE/     initrd.img

A kernel that is in the cache is used even if Debian has a newer one: remove its folder to get that. Fetching is 100 MB. The initrd
is made by installing its kernel in a throwaway layer over this machine's files (overlayfs, chroot), as root; nothing is installed
on the machine itself but, if they are missing, gcc, libc6-dev and cpio.

exit status: 0 done, 1 failed, 2 wrong usage, 3 not in the cache (--cached), 4 this user cannot get what is missing
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CLONER_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set, and neither is CLONER_CACHE}/.cache}/cloner}/stock-linux

# Names of packages, of which the newest is taken. Neither real-time, nor unsigned, nor debug kernels.
generic_pattern='linux-image-6\.1\.[0-9]+-[0-9]+-amd64'
cloud_pattern='linux-image-6\.1\.[0-9]+-[0-9]+-cloud-amd64'
packages=(gcc libc6-dev cpio kmod xz-utils)
# Modules of KVM, of both vendors.
modules=(kvm_amd kvm_intel)

say() {
    printf 'stock-linux [%3d s] %s\n' "$SECONDS" "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

# Ends the script for want of something that this user cannot get.
lack() {
    say "missing: $*"
    printf 'missing %s\n' "$*"
    exit 4
}

missing_packages() {
    local package
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

install_packages() {
    local missing
    command -v dpkg-query >/dev/null || lack "Debian 12 (no dpkg-query here)"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || lack "${missing[*]}"
    say "installing ${missing[*]}"
    update_lists
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
        fail "apt-get could not install ${missing[*]}"
}

# Once per run: a package in an old list may be gone from the mirror.
update_lists() {
    [[ ${updated-} ]] || apt-get update -qq >&2 || fail "apt-get update failed"
    updated=1
}

# The newest folder of the cache whose name is `$1-` and then matches the pattern $2.
newest_cached() {
    [[ ! -d $cache ]] || find "$cache" -maxdepth 1 -type d -regextype posix-extended -regex "$cache/$1-$2" | sort -V | tail -n 1
}

newest_package() {
    apt-cache search --names-only "^$1\$" | awk '{print $1}' | sort -V | tail -n 1
}

# Downloads package $1 and unpacks it in folder $2, without installing it.
unpack() {
    mkdir -p "$2"
    (cd "$2" && apt-get download -qq -o APT::Sandbox::User=root "$1" >&2 && dpkg-deb -x ./*.deb . && rm ./*.deb) ||
        fail "apt-get could not download $1"
}

# ---- the recipes: each fills the folder $1 ----

build_kernel() {
    unpack "$2" "$1/unpacked"
    mv "$1"/unpacked/boot/vmlinuz-* "$1/vmlinuz"
    modules_of "$1/unpacked" "$1/modules"
    rm -r "$1/unpacked"
}

# Puts KVM's modules of the unpacked kernel $1 into folder $2, with a file "order" that names them as they depend on each other.
modules_of() {
    local release file module
    release=$(basename "$1"/lib/modules/*)
    mkdir "$2"
    /sbin/depmod --basedir "$1" "$release"
    for module in "${modules[@]}"; do
        # A kernel for cloud machines may lack some.
        /sbin/modprobe --dirname "$1" --set-version "$release" --show-depends "$module" 2>/dev/null || true
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
        module=$(basename "${file%.xz}")
        xz --decompress --stdout --force "$file" >"$2/$module"
        echo "$module" >>"$2/order"
    done
}

archive() {
    find "$1" -exec touch --no-dereference --date=@0 {} +
    (cd "$1" && find . -mindepth 1 | sort | cpio --quiet --create --format=newc --reproducible --owner=+0:+0)
}

# $2 is the folder of the generic kernel.
build_initramfs() {
    local root=$1/root
    unpack busybox-static "$1/unpacked"
    mkdir -p "$root"/{bin,dev,proc,sys,tmp}
    cp "$1/unpacked/bin/busybox" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    gcc -O2 -s -static -Wall -Wextra -Werror -o "$root/bin/witness" "$here"/witness/*.c "$here/witness/hold.S"
    install -m 755 "$here/init" "$root/init"
    archive "$root" >"$1/initramfs.cpio"
    rm "$root/bin/witness"
    gcc -O2 -s -static -Wall -Wextra -Werror -o "$root/bin/outer" "$here"/nested/{outer.c,guest.S}
    install -m 755 "$here/nested/init" "$root/init"
    cp -r "$2/modules" "$root"
    archive "$root" >"$1/nested.cpio"
    rm -r "$root" "$1/unpacked"
}

# In a mount namespace of its own: what it mounts is gone when it ends, and so is all that was written there.
build_initrd() {
    ((EUID == 0)) || lack "Debian's initrd: a layer is mounted over this machine's files to make it"
    # shellcheck disable=SC2016 # expanded by the shell inside
    unshare --mount --propagation private bash -euc '
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/{upper,work,root}
        mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
        mount --rbind /proc /mnt/root/proc
        mount --rbind /dev /mnt/root/dev
        mount -t tmpfs tmpfs /mnt/root/tmp
        printf "#!/bin/sh\nexit 101\n" >/mnt/root/usr/sbin/policy-rc.d
        chmod 755 /mnt/root/usr/sbin/policy-rc.d
        DEBIAN_FRONTEND=noninteractive chroot /mnt/root apt-get install -y -qq --no-install-recommends \
            busybox initramfs-tools "$1" </dev/null >/mnt/log 2>&1 || { cat /mnt/log; exit 1; }
        cat /mnt/root/boot/initrd.img-*' bash "$2" >"$1/initrd.img" || fail "Debian's initramfs-tools failed"
    [[ -s $1/initrd.img ]] || fail "Debian's initramfs-tools made no initrd"
}

# Fills a folder of its own, and moves it into place as a whole.
make_part() {
    local recipe=$1 target=$2 work
    [[ ! -d $target ]] || return 0
    work=$(mktemp -d "$cache/building.XXXXXX")
    say "making $target"
    update_lists
    "$recipe" "$work" "${@:3}"
    chmod 755 "$work"
    mv --no-target-directory "$work" "$target"
}

# ---- what is where ----

find_parts() {
    generic=$(newest_cached kernel "$generic_pattern")
    initramfs=$cache/initramfs-$({
        declare -f build_initramfs
        gcc --version
        dpkg-query -W -f '${Version}\n' libc6-dev
        cat "$here/init" "$here"/witness/* "$here"/nested/*
        echo "$generic"
    } | sha256sum | cut -c 1-16)
    cloud=$(newest_cached kernel "$cloud_pattern")
    initrd=${cloud:+$cache/initrd-${cloud##*/kernel-}}
}

all_there() {
    [[ -d $initramfs && $generic && $cloud && -d $initrd ]]
}

make_missing() {
    local package
    mkdir -p "$cache"
    # One at a time; the others then find what it made.
    exec 9>"$cache/lock"
    flock 9
    rm -rf "$cache"/building.*
    for pattern in "$generic_pattern" "$cloud_pattern"; do
        [[ ! $(newest_cached kernel "$pattern") ]] || continue
        update_lists
        package=$(newest_package "$pattern")
        [[ $package ]] || fail "Debian has no package like $pattern"
        make_part build_kernel "$cache/kernel-$package" "$package"
    done
    find_parts
    make_part build_initramfs "$initramfs" "$generic"
    make_part build_initrd "$initrd" "${initrd##*/initrd-}"
    exec 9>&-
}

main() {
    (($# <= 1)) || { usage >&2 && exit 2; }
    case ${1-} in
    '') install_packages ;;
    --cached) ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    find_parts
    if ! all_there; then
        [[ ${1-} != --cached ]] || { say "not in the cache: run $here/build.sh" && exit 3; }
        make_missing
    fi
    local line
    for line in "generic $generic/vmlinuz" "cloud $cloud/vmlinuz" "initramfs $initramfs/initramfs.cpio" \
        "nested $initramfs/nested.cpio" "initrd $initrd/initrd.img"; do
        printf '%s %s\n' "$line" "$(sha256sum <"${line#* }" | cut -c 1-64)"
    done
}

main "$@"; exit # in one line, since bash reads on only after main
