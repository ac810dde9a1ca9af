#!/usr/bin/env bash
# Builds the guest image `tiny-linux` from nothing, or finds it in the cache. `build.sh --help` says the rest.
# shellcheck disable=SC2317 # the recipes are called through a variable
set -euo pipefail
export LC_ALL=C
umask 022
unset MAKEFLAGS MFLAGS CROSS_COMPILE KCFLAGS KBUILD_OUTPUT # nothing of the caller's may get into the kernel

usage() {
    cat <<'END'
Builds tiny-linux, the Linux guest that the tests boot, and prints where it is.

usage: build.sh [--cached | --help]

  (no option)  use what is in the cache, build what is missing
  --cached     never install, never build: exit with status 3 if the image is not in the cache
  --help       this text

Standard output is three lines and nothing else; progress goes to standard error:

  vmlinux PATH SHA256      ELF kernel, to be entered at its 64-bit entry point
  bzimage PATH SHA256      the same kernel, self-extracting (lz4)
  initramfs PATH SHA256    uncompressed cpio archive: /init, a static busybox, and reseed

The kernel is Debian's linux-source-6.1 with kernel.config and the *.patch files of this folder; user space is
init and reseed.c of this folder and Debian's busybox-static. Missing Debian packages are installed with apt-get (as root;
otherwise the script prints `missing` and their names instead of the three lines). Root is not needed for anything else.

The cache is $CLONER_CACHE, or $XDG_CACHE_HOME/cloner, or ~/.cache/cloner, and in it:

  tiny-linux/kernel-KEY/      vmlinux bzImage System.map config SHA256SUMS
  tiny-linux/initramfs-KEY/   initramfs.cpio SHA256SUMS

KEY is a hash of all that goes into a part, package versions included; a changed init does not rebuild the
kernel. The same KEY means the same bytes. A part is checked against its SHA256SUMS at every use. It appears under its name only when complete;
a lock lets one build run at a time, and the others wait for its result. Old parts are never deleted: removing
the folder is always safe when no build runs.

Building needs about 2 GB of disk in the cache for the time of the build, 5 to 8 minutes on 2 cores for the
kernel, and a second for the initramfs. A cache hit takes a third of a second.

exit status: 0 done, 1 failed, 2 wrong usage, 3 not in the cache (--cached), 4 this user cannot get what is missing
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CLONER_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set, and neither is CLONER_CACHE}/.cache}/cloner}/tiny-linux

source_package=linux-source-6.1
source_tar=/usr/src/$source_package.tar.xz
packages=(
    "$source_package" busybox-static
    gcc libc6-dev make flex bison bc libelf-dev libssl-dev
    patch cpio lz4 tar xz-utils util-linux
)

say() {
    printf 'tiny-linux [%3d s] %s\n' "$SECONDS" "$*" >&2
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

# ---- what is needed, what is there ----

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
    ((EUID == 0)) || lack "Debian packages that only root can install: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq >&2 || fail "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
        fail "apt-get could not install ${missing[*]}"
}

# A hash over its standard input and the versions of the packages named.
key_of() {
    {
        cat
        dpkg-query -W -f '${Package} ${Version}\n' "$@"
    } | sha256sum | cut -c 1-16
}

# Recipes are hashed as bash prints them, and kernel.config by its options: comments cost no rebuild.
kernel_key() {
    {
        declare -f build_kernel apply_config
        gcc --version
        grep CONFIG_ "$here/kernel.config"
        cat "$here"/*.patch
    } | key_of "$source_package" lz4
}

initramfs_key() {
    {
        declare -f build_initramfs
        gcc --version
        cat "$here/init" "$here/reseed.c"
    } | key_of busybox-static libc6-dev
}

# Whether a part is in the cache, unharmed.
is_cached() {
    [[ -f $1/SHA256SUMS ]] && (cd "$1" && sha256sum --check --strict --status SHA256SUMS)
}

# ---- the two recipes: build the part in the folder $1 ----

build_initramfs() {
    local root=$1/root
    mkdir -p "$root"/{bin,dev,etc,proc,run,tmp}
    mkfifo "$root/run/ticker" "$root/run/reseed" "$root/run/reseeded"
    gcc -Os -s -static -Wall -Wextra -Werror -o "$root/bin/reseed" "$here/reseed.c"
    cp /bin/busybox "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$here/init" "$root/init"
    chmod 755 "$root/init" "$root/bin/busybox"
    printf '%s\n' 'proc /proc proc defaults 0 0' 'devtmpfs /dev devtmpfs defaults 0 0' \
        'tmpfs /tmp tmpfs defaults 0 0' >"$root/etc/fstab"
    # /dev/console, which must exist before /init runs, is in the small archive that is part of every kernel.
    find "$root" -exec touch --no-dereference --date=@0 {} +
    (cd "$root" && find . -mindepth 1 | sort | cpio --quiet --create --format=newc --reproducible --owner=+0:+0) \
        >"$1/initramfs.cpio"
    rm -r "$root"
}

# Makes .config from $1, and checks that every line of $1 is still true in it: Kconfig drops an option silently
# when something it depends on is missing.
apply_config() {
    local line lost=()
    cp "$1" .config
    make olddefconfig
    while read -r line; do
        case $line in
        CONFIG_*) grep -qxF -- "$line" .config || lost+=("$line") ;;
        '# CONFIG_'*' is not set')
            line=${line#\# }
            line=${line%% *}
            ! grep -q "^$line=" .config || lost+=("no $line")
            ;;
        esac
    done <"$1"
    if ((${#lost[@]})); then
        printf 'kernel.config asks for what this kernel does not do: %s\n' "${lost[@]}"
        return 1
    fi
}

build_kernel() {
    local out=$1 tree=$1/source patch
    export KBUILD_BUILD_TIMESTAMP='2026-01-01 00:00:00 UTC' KBUILD_BUILD_USER=cloner KBUILD_BUILD_HOST=tiny-linux \
        KBUILD_BUILD_VERSION=1 ARCH=x86_64
    mkdir "$tree"
    tar --extract --xz --file="$source_tar" --strip-components=1 --directory="$tree"
    cd "$tree"
    for patch in "$here"/*.patch; do
        patch --strip=1 --fuzz=0 --input="$patch"
    done
    apply_config "$here/kernel.config"
    nice make -j"$(nproc)" vmlinux bzImage
    mv vmlinux System.map arch/x86/boot/bzImage "$out"
    mv .config "$out/config"
    cd "$out"
    rm -r "$tree"
}

# ---- cache ----

# Runs a recipe in a folder of its own, and moves the folder into place as a whole. A recipe runs in the
# background, so that this shell can say how it goes; its output is shown only if it fails.
make_part() {
    local recipe=$1 target=$2 work log pid
    work=$(mktemp -d "$cache/building.XXXXXX")
    log=$work.log
    say "building $target"
    set -m # gives the job a process group, so that all of it can be stopped
    (
        set -e
        "$recipe" "$work"
        cd "$work"
        sha256sum -- * >SHA256SUMS
    ) >"$log" 2>&1 &
    pid=$!
    set +m
    # shellcheck disable=SC2064 # the values of now are meant
    trap "kill -- -$pid 2>/dev/null; wait; rm -rf ${work@Q} ${log@Q}; exit 1" INT TERM HUP
    while kill -0 "$pid" 2>/dev/null; do
        for _ in {1..30}; do
            sleep 1
            kill -0 "$pid" 2>/dev/null || break 2
        done
        say "still building: $(grep -c '^  CC' "$log" || true) files compiled, now$(tail -n 1 "$log" | tr -s ' ')"
    done
    if ! wait "$pid"; then
        tail -n 40 "$log" >&2
        rm -rf "$work"
        fail "building $target failed; the whole log is $log"
    fi
    trap - INT TERM HUP
    chmod 755 "$work"
    rm -rf "$target" # what is_cached refused
    mv --no-target-directory "$work" "$target"
    rm -f "$log"
    say "built $target"
}

# Only what is built under the lock is in `building.*`, so whoever holds it may clear what a killed build left.
build_missing() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    if ! flock --nonblock 9; then
        say "another build is running, waiting for it"
        flock 9
    fi
    rm -rf "$cache"/building.*
    is_cached "$initramfs" || make_part build_initramfs "$initramfs"
    is_cached "$kernel" || make_part build_kernel "$kernel"
    exec 9>&-
}

print_line() {
    printf '%s %s %s\n' "$1" "$2/$3" "$(awk -v name="$3" '$2 == name { print $1 }' "$2/SHA256SUMS")"
}

# All in functions, so that bash has read this file to its end before the minutes in which someone may change it.
main() {
    local only_cached='' missing
    (($# <= 1)) || { usage >&2 && exit 2; }
    case ${1-} in
    '') ;;
    --cached) only_cached=1 ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac

    if [[ $only_cached ]]; then
        mapfile -t missing < <(missing_packages)
        if ((${#missing[@]})); then
            say "not in the cache: not even these packages are installed: ${missing[*]}"
            exit 3
        fi
    else
        install_packages
    fi
    kernel=$cache/kernel-$(kernel_key)
    initramfs=$cache/initramfs-$(initramfs_key)

    if ! { is_cached "$kernel" && is_cached "$initramfs"; }; then
        if [[ $only_cached ]]; then
            say "not in the cache: run $here/build.sh"
            exit 3
        fi
        build_missing
    fi
    say "kernel    $kernel"
    say "initramfs $initramfs"
    print_line vmlinux "$kernel" vmlinux
    print_line bzimage "$kernel" bzImage
    print_line initramfs "$initramfs" initramfs.cpio
}

main "$@"; exit # in one line, since bash reads on only after main
