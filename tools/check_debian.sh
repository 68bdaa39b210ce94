#!/usr/bin/env bash
# Checks the commands of docs/how-to/install.md on a Debian made from nothing: debootstrap, the packages named there, a
# clone of this checkout's HEAD, and the commands as a plain user. Needs root, debootstrap, git and about 20 GB of disk.
#
#   sudo tools/check_debian.sh trixie                              # Python 3.13; bookworm has 3.11, sid 3.14
#   sudo tools/check_debian.sh sid --run "make build" --run "make test PYTEST_ARGS=ros/test_contract.py"
#
#   --run COMMAND    instead of `make demo` and `make test`; may be given several times, ends at the first that fails
#   --folder DIR     where the system is made, and removed afterwards (default: a new one in /var/tmp)
#   --keep           leaves the system in --folder; --reuse takes one that was left there, with a new clone in it
#   --cache DIR      keeps what apt and pip download, for the next run
#   --add PACKAGE    installs a further Debian package; may be given several times
#   --pip-conf FILE  pip's configuration inside
#   --bind DIR       a folder that is seen inside, read-only, under the same name; may be given several times
#   --set NAME=VALUE an environment variable of the commands; may be given several times
#   --minutes N      ends everything after so long (default: 120)
#   --log FILE       default: check_debian_RELEASE.log in the current folder
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
packages=(python3 python3-venv python3-dev cmake g++ make git ca-certificates)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
release= folder= cache= pip_conf= log= keep= reuse= minutes=120
commands=() binds=() settings=()

stop() { echo "check_debian: $*" >&2; exit 2; }

parse() {
    while (($#)); do
        case $1 in
            --keep) keep=yes ;;
            --reuse) reuse=yes ;;
            --run | --folder | --cache | --add | --pip-conf | --bind | --set | --minutes | --log)
                (($# > 1)) || stop "$1 needs a value"
                case $1 in
                    --run) commands+=("$2") ;;
                    --folder) folder=$2 ;;
                    --cache) cache=$(realpath -m "$2") ;;
                    --add) packages+=("$2") ;;
                    --pip-conf) pip_conf=$(realpath "$2") ;;
                    --bind) binds+=("$(realpath "$2")") ;;
                    --set) settings+=("$2") ;;
                    --minutes) minutes=$2 ;;
                    --log) log=$2 ;;
                esac
                shift ;;
            -*) stop "no such option: $1 (the head of $0 lists them)" ;;
            *) [[ -z $release ]] || stop "one release at a time: $release or $1?"; release=$1 ;;
        esac
        shift
    done
    [[ -n $release ]] || stop "which release? such as bookworm, trixie or sid"
    ((${#commands[@]})) || commands=("make demo" "make test")
    log=$(realpath -m "${log:-check_debian_$release.log}")
}

check_host() {
    ((EUID == 0)) || stop "needs root (chroot): sudo $0 $release"
    local program
    for program in debootstrap git unshare chroot timeout; do
        command -v "$program" > /dev/null || stop "$program is missing: apt-get install -y debootstrap git util-linux coreutils"
    done
    if [[ -z $folder ]]; then
        [[ -z $keep$reuse ]] || stop "--keep and --reuse need --folder DIR"
        folder=$(mktemp -d "/var/tmp/check_debian_$release.XXXXXX")
    fi
    folder=$(realpath -m "$folder")
    mkdir -p "$folder"
    if [[ -n $reuse ]]; then
        [[ -e $folder/.check_debian ]] || stop "$folder: no system that --keep left"
    elif [[ -n $(ls -A "$folder") ]]; then
        stop "$folder is not empty: choose another --folder, or --reuse what is in it"
    fi
    local free_gb=$(($(df -Pk "$folder" | awk 'NR == 2 {print $4}') / 1000000))
    ((free_gb >= 20)) || stop "$free_gb GB free for $folder, 20 are needed"
    [[ -z $(git -C "$here" status --porcelain) ]] || echo "note: uncommitted changes are not in the clone"
}

make_system() {  # the files of a fresh system, in $folder
    local all
    all=$(IFS=,; echo "${packages[*]}")
    if [[ -z $reuse ]]; then
        echo "debootstrap $release: $all"
        [[ -z $cache ]] || mkdir -p "$cache/debs"
        debootstrap --variant=minbase --include="$all" ${cache:+--cache-dir="$cache/debs"} "$release" "$folder" "$mirror" \
            || stop "debootstrap failed"
        touch "$folder/.check_debian"
        chroot "$folder" useradd --create-home --uid 1000 --shell /bin/bash tester
    fi
    chmod 755 "$folder"  # or the user inside cannot enter /
    # The network as the host has it: names, certificates, pip's index.
    cp /etc/resolv.conf "$folder/etc/resolv.conf"
    cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
    [[ -z $pip_conf ]] || cp "$pip_conf" "$folder/etc/pip.conf"
    rm -rf "$folder/home/tester/motion4d_ros"
    git clone --quiet --no-local "$here" "$folder/home/tester/motion4d_ros"
    chroot "$folder" chown -R tester:tester /home/tester
}

run_inside() {  # in a mount and process namespace of its own: nothing stays mounted or running
    mount --make-rprivate /
    mount -t proc proc "$folder/proc"
    mount --rbind /dev "$folder/dev"
    local bind
    for bind in "${binds[@]}"; do
        mkdir -p "$folder$bind"
        mount --bind "$bind" "$folder$bind"
        mount -o remount,bind,ro "$folder$bind" 2> /dev/null || echo "note: $bind is not write-protected inside"
    done
    if [[ -n $cache ]]; then
        mkdir -p "$cache/pip" "$folder/home/tester/.cache/pip"
        chown 1000:1000 "$cache/pip" "$folder/home/tester/.cache" "$folder/home/tester/.cache/pip"
        mount --bind "$cache/pip" "$folder/home/tester/.cache/pip"
    fi
    inside bash -c 'echo "Debian $(cat /etc/debian_version), $(python3 -V), $(nproc) cores, commit $(git log -1 --format=%h)"'
    local command started status=0
    for command in "${commands[@]}"; do
        echo "=== $command"
        started=$SECONDS
        inside bash -c "$command" || status=$?
        echo "=== $release: $command: $( ((status)) && echo "FAILED ($status)" || echo ok), $((SECONDS - started)) s"
        ((status == 0)) || return "$status"
    done
}

inside() {  # COMMAND…, as a user with nothing in the environment
    chroot --userspec=1000:1000 "$folder" /usr/bin/env -i HOME=/home/tester USER=tester LANG=C.UTF-8 TERM=dumb \
        PATH=/usr/local/bin:/usr/bin:/bin "${settings[@]}" /bin/bash -c 'cd ~/motion4d_ros && exec "$@"' - "$@" < /dev/null
}

clean_up() {
    local status=$?
    ((status == 0)) || { tail -1 "$log"; echo "check_debian: status $status, all of it in $log"; } >&3
    [[ -z $keep ]] || return 0
    [[ -e $folder/.check_debian || -d $folder/debootstrap ]] || return 0
    rm -rf --one-file-system "$folder"
}

exec 3>&1  # where the person looks
parse "$@"
if [[ -n ${CHECK_DEBIAN_FOLDER:-} ]]; then  # the inner call, see below
    folder=$CHECK_DEBIAN_FOLDER
    run_inside
    exit
fi
check_host
trap clean_up EXIT
mkdir -p "$(dirname "$log")"
echo "log: $log"
status=0
exec > "$log" 2>&1
make_system
CHECK_DEBIAN_FOLDER=$folder timeout --kill-after=30 "${minutes}m" \
    unshare --mount --pid --fork --kill-child bash "${BASH_SOURCE[0]}" "$@" || status=$?
((status != 124)) || echo "=== $release: ended after $minutes minutes"
exec >&3 2>&1
grep -aE "^(=== $release|Debian )" "$log" || true
exit "$status"
