#!/usr/bin/env bash
# Makes the virtual environment: pinned dependencies, PyTorch, and ROS 2 Jazzy (from ROS_ROOT if it is there, else wheels).
# Called by the Makefile; run again it only adds what is missing.
#
#   tools/setup_venv.sh VENV
#
# PYTHON    interpreter to use          (default: found here)
# TORCH     requirement for PyTorch     (default: torch==2.13.0)
# ROS_ROOT  where a ROS 2 Jazzy may be  (default: /opt/ros/jazzy)
set -euo pipefail

venv=$1
torch=${TORCH:-torch==2.13.0}
ros_root=${ROS_ROOT:-/opt/ros/jazzy}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/../requirements

suitable() {  # a Python 3.10 to 3.12?
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

# --- which Python -----------------------------------------------------------------------------------------------------
# ROS from apt works with the system's Python only. Otherwise the default one, if it will do, else the newest that does.
if [[ -z ${PYTHON:-} ]]; then
    if [[ -f $ros_root/setup.bash ]]; then
        candidates=(/usr/bin/python3)
    else
        candidates=(python3 python3.12 python3.11 python3.10)
    fi
    for candidate in "${candidates[@]}"; do
        if suitable "$candidate"; then
            PYTHON=$candidate
            break
        fi
    done
fi

# --- what is missing, all at once, in one line --------------------------------------------------------------------------
missing=()
if [[ -z ${PYTHON:-} ]] || ! suitable "$PYTHON"; then
    missing+=("python3 (3.10 to 3.12)=python3")
    PYTHON=
fi
if [[ -z $PYTHON ]] || ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=("venv=python3-venv")
fi
if [[ -z $PYTHON ]] || ! "$PYTHON" -c \
    'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; then
    missing+=("Python.h=python3-dev")
fi
command -v cmake > /dev/null || missing+=("cmake=cmake")
command -v g++ > /dev/null || missing+=("g++=g++")
if ((${#missing[@]})); then
    echo "missing: $(printf '%s, ' "${missing[@]%=*}" | sed 's/, $//');" \
         "install with: sudo apt-get install -y ${missing[*]##*=}" >&2
    exit 2
fi

# --- the environment ----------------------------------------------------------------------------------------------------
options=()
if [[ -f $ros_root/setup.bash ]]; then
    options=(--system-site-packages)
fi
if [[ ! -x $venv/bin/python ]]; then
    "$PYTHON" -m venv "${options[@]}" "$venv"
fi
# One interpreter of the wheels re-executes itself unless this says that the library path is set already.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$requirements/constraints.txt" "$@"; }

echo "installing pinned dependencies into $venv ($("$venv/bin/python" -V))"
pip pip  # an old one may not know the wheels' platform tags
pip "$torch"
files=(-r "$requirements/runtime.txt" -r "$requirements/dev.txt" -r "$requirements/ros-build.txt"
       -r "$requirements/networks.txt")
if [[ -f $ros_root/setup.bash ]]; then
    echo "ROS 2 from $ros_root"
    pip "${files[@]}"
else
    echo "ROS 2 from the PyPI wheels ($ros_root is not there)"
    pip "${files[@]}" -r "$requirements/ros-wheels.txt"
    "$venv/bin/python" "$here/repair_ros_wheels.py"
fi
SAM2_BUILD_CUDA=0 pip --no-deps --no-build-isolation sam2
