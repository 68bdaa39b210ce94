#!/usr/bin/env bash
# Makes the virtual environment: pinned dependencies, PyTorch, and ROS 2 (which one: ros.bash). Called by the Makefile;
# run again it only adds what is missing. What stands in the way is said in one line.
#
#   tools/setup_venv.sh VENV
#
# PYTHON    interpreter to use      (default: found here)
# TORCH     requirement for PyTorch (default: torch==2.13.0), or `system` for the one that the system's Python has
# ROS_ROOT, ROS_DISTRO: see ros.bash
set -euo pipefail

venv=$1
torch=${TORCH:-torch==2.13.0}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/../requirements
constraints=$requirements/constraints.txt
log=$venv/setup.log
supported=(3.10 3.11 3.12 3.13 3.14)
range="${supported[0]} to ${supported[-1]}"
room_gb=4  # what pip unpacks and the environment itself, with PyTorch's CPU build
room_cuda_gb=10  # the same with the CUDA libraries that PyPI's PyTorch brings
as_root=$( ((EUID == 0)) || echo "sudo ")

stop() { echo "set-up: $*" >&2; exit 2; }

install_line() {  # PACKAGES…: how to get them here
    if command -v apt-get > /dev/null; then
        echo "${as_root}apt-get install -y $*"
    else
        echo "your system's package manager (on Debian they are $*)"
    fi
}

source "$here/ros.bash"
choose_ros "$venv" || exit 2

# --- which Python -----------------------------------------------------------------------------------------------------
version_of() {  # 3.13, with a t behind it where it is free-threaded; nothing if it does not run
    "$1" -c 'import sys, sysconfig
print("%d.%d" % sys.version_info[:2] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))' 2> /dev/null || true
}

# ROS in /opt/ros works with the system's Python only. Otherwise the default one, if it will do, else the newest that does.
choose_python() {
    local candidate version first=
    local candidates=(python3 python3.14 python3.13 python3.12 python3.11 python3.10)
    [[ -z $_ros_root ]] || candidates=(/usr/bin/python3)
    [[ -z $(version_of "$venv/bin/python") ]] || candidates=("$venv/bin/python")  # made before: it stays
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        version=$(version_of "$candidate")
        if [[ -n $version ]] && _among "$version" "${supported[@]}"; then
            PYTHON=$candidate
            return
        fi
        [[ -z $version || -n $first ]] || first="$candidate is Python $version"
    done
    if [[ -n $first ]]; then
        stop "$first, and $range are supported: install one of these (packages python3.X, python3.X-venv and" \
             "python3.X-dev, where your release has them) and say PYTHON=python3.X"
    elif [[ -n ${PYTHON:-} ]]; then
        stop "PYTHON=$PYTHON: no Python that runs; leave it away, or name one of $range"
    fi
    PYTHON=
}

# --- what is missing, all at once, in one line --------------------------------------------------------------------------
package_of() {  # "python3" for the system's default, "python3.X" for another of the system's, nothing for any other
    "$PYTHON" -c 'import os, sys
name = "python%d.%d" % sys.version_info[:2]
default = os.path.realpath(sys.executable) == os.path.realpath("/usr/bin/python3")
print("python3" if default else name if sys.base_prefix == "/usr" else "")'
}

has_venv() { "$PYTHON" -c 'import ensurepip, venv' 2> /dev/null; }
has_headers() {
    "$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

check_tools() {
    local missing=() package=python3
    if [[ -z $PYTHON ]]; then
        missing+=("python3 ($range)=python3" "venv=python3-venv" "Python.h=python3-dev")
    else
        package=$(package_of)
        if [[ -z $package ]] && ! { has_venv && has_headers; }; then
            stop "$PYTHON comes without its headers (Python.h) or without venv:" \
                 "choose another by PYTHON=…, such as /usr/bin/python3"
        fi
        has_venv || missing+=("venv=$package-venv")
        has_headers || missing+=("Python.h=$package-dev")
    fi
    command -v cmake > /dev/null || missing+=("cmake=cmake")
    command -v "${CXX:-g++}" > /dev/null || command -v c++ > /dev/null || missing+=("g++=g++")
    command -v make > /dev/null || missing+=("make=make")
    if ((${#missing[@]})); then
        local names
        names=$(printf '%s, ' "${missing[@]%=*}")
        stop "missing: ${names%, }; install with: $(install_line "${missing[@]##*=}")"
    fi
}

# --- the environment ----------------------------------------------------------------------------------------------------
gpu_here() { [[ -e /dev/nvidiactl || -e /dev/nvhost-gpu ]] || command -v nvidia-smi > /dev/null; }

check_old_environment() {  # one that is there already must be what is asked for
    [[ -f $venv/pyvenv.cfg ]] || return 0
    local version wanted
    version=$(version_of "$venv/bin/python")
    wanted=$(version_of "$PYTHON")
    if [[ -z $version ]]; then
        stop "the Python that $venv was made with is gone: make distclean, then try again"
    elif [[ ! -d $venv/lib/python$version ]]; then
        stop "$venv was made for another Python than today's $version: make distclean, then try again"
    elif [[ $version != "$wanted" ]]; then
        stop "$venv was made with Python $version, not $wanted ($PYTHON): add VENV=.venv-$wanted, or make distclean first"
    elif [[ $torch == system ]] && ! grep -q 'include-system-site-packages = true' "$venv/pyvenv.cfg"; then
        stop "TORCH=system: $venv does not see the system's packages: add VENV=.venv-system, or make distclean first"
    fi
}

check_torch() {
    [[ $torch == system ]] || return 0
    PYTHONNOUSERSITE=1 "$PYTHON" -c 'import torch' 2> /dev/null ||
        stop "TORCH=system: $PYTHON has no PyTorch (~/.local does not count); install it with: $(install_line python3-torch)"
}

check_room() {
    [[ ! -e $venv/.stamp ]] || return 0
    local free_gb needed=$room_cuda_gb
    [[ $torch != system && $torch != *+cpu* ]] || needed=$room_gb
    free_gb=$("$PYTHON" -c 'import pathlib, shutil, sys
folder = pathlib.Path(sys.argv[1]).absolute()
print(shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free // 10**9)' "$venv")
    if ((free_gb < room_gb)); then
        stop "no room: $free_gb GB free for $venv, $needed are needed; make room, or say VENV=… on another disk"
    elif ((free_gb < needed)); then
        echo "little room: $free_gb GB free for $venv; PyPI's PyTorch with its CUDA libraries needs $needed"
    fi
}

explain() {  # WHAT TEXT: why pip could not install it, in one line; the text is in the log
    local reason=${2##*ERROR: } name
    reason=${reason%%$'\n'*}
    case $2 in
        *"No space left on device"* | *"Disk quota exceeded"*)
            name=$("$venv/bin/python" -m pip cache dir 2> /dev/null || true)
            reason="no room on the disk; free some for $venv and for pip's cache ($name)" ;;
        *CERTIFICATE_VERIFY_FAILED* | *"certificate verify failed"*)
            reason="the package index's certificate is not trusted; behind a company's proxy, name its CA file: PIP_CERT=…" ;;
        *"name resolution"* | *"Name or service not known"* | *NewConnectionError* | *"Network is unreachable"* | \
            *ConnectTimeout* | *"timed out"* | *ProxyError* | *"Connection refused"* | *"Connection aborted"* | *IncompleteRead*)
            reason="the package index cannot be reached; check the network (HTTPS_PROXY=… for a proxy), then try again" ;;
        *"No matching distribution found for "*)
            name=${2##*No matching distribution found for }
            reason="no ${name%%$'\n'*} for $("$venv/bin/python" -V) on $(uname -m)" ;;
        *[Kk]illed*)
            reason="the system ended it, likely for want of memory" ;;
    esac
    stop "$1 could not be installed: $reason (all of it: $log)"
}

pip_install() {  # WHAT ARGUMENTS…
    local what=$1 text status=0
    shift
    echo "  $what"
    text=$("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        -c "$constraints" "$@" 2>&1) || status=$?
    printf '%s\n' "--- $what" "$text" >> "$log"
    ((status < 128)) || text+=" Killed"
    ((status == 0)) || explain "$what" "$text"
}

make_environment() {
    local options=() text
    [[ -z $_ros_root && $torch != system ]] || options=(--system-site-packages)
    if [[ ! -f $venv/pyvenv.cfg ]]; then
        text=$("$PYTHON" -m venv "${options[@]}" "$venv" 2>&1) || stop "$venv cannot be made: ${text##*$'\n'}"
    fi
    "$venv/bin/python" -m pip --version > /dev/null 2>&1 || "$venv/bin/python" -m ensurepip > /dev/null 2>&1 ||
        stop "$venv is damaged (no pip in it): make distclean, then try again"
    : > "$log" 2> /dev/null || stop "$venv cannot be written: check its owner and the room on the disk"
    if [[ $torch == system ]]; then  # it stays, with the SymPy that it asks for
        grep -v '^sympy==' "$constraints" > "$venv/constraints.txt"
        "$venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' \
            >> "$venv/constraints.txt" || stop "TORCH=system: its version is not known to $venv"
        constraints=$venv/constraints.txt
    fi
    # pip unpacks where the environment is: /tmp is often a small part of the memory.
    export TMPDIR=$venv/tmp.$$
    mkdir -p "$TMPDIR"
    trap 'rm -rf "$TMPDIR"' EXIT
}

install_all() {
    pip_install "pip" pip  # an old one may not know the wheels' platform tags
    if [[ $torch != system ]]; then
        if [[ $torch != *+* ]]; then
            echo "  next comes $torch; PyPI's build brings 3 GB of CUDA libraries" \
                 "$(gpu_here || echo "(no GPU here: README.md names smaller builds)")"
        fi
        pip_install "PyTorch ($torch)" "$torch"
    fi
    pip_install "libraries, tools for tests and building, 2D networks, viewer, Ray" -r "$requirements/runtime.txt" \
        -r "$requirements/dev.txt" -r "$requirements/ros-build.txt" -r "$requirements/networks.txt" \
        -r "$requirements/view.txt" -r "$requirements/batch.txt"
    if [[ -z $_ros_root ]]; then
        pip_install "$_ros_said" -r "$requirements/ros-wheels-$_ros_distro.txt"
        "$venv/bin/python" "$here/repair_ros_wheels.py"
    else
        echo "  $_ros_said"
    fi
    SAM2_BUILD_CUDA=0 pip_install "SAM 2" --no-deps --no-build-isolation sam2
    # Without CUDA its PyTorch reference alone is used: test/render/test_gsplat_reference.py.
    BUILD_NO_CUDA=1 pip_install "gsplat" --no-deps --no-build-isolation gsplat==1.5.3
}

check_ros() {  # imports what was chosen
    local text
    text=$(set +eu; [[ -z $_ros_root ]] || source "$_ros_root/setup.bash"; "$venv/bin/python" -c 'import rclpy' 2>&1) ||
        stop "ROS 2 $_ros_distro does not work with $("$venv/bin/python" -V) ($PYTHON): ${text##*$'\n'}"
}

choose_python
check_tools
check_old_environment
check_torch
check_room
# The wheels' interpreter starts itself a second time unless this says that the library path is set already.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PYTHONNOUSERSITE=1  # what pip has put into ~/.local is not part of this environment
leave_other_ros "$_ros_root"
echo "installing pinned dependencies into $venv ($("$PYTHON" -V)); minutes the first time, log in $log"
make_environment
install_all
check_ros
echo "$_ros_distro $_ros_root" > "$venv/.ros"
