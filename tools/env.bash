# The environment to build and run in; for `source`, from bash. The Makefile uses it for every command.
#
#   source tools/env.bash && python -m motion4d_ros.cli --help
#
# Puts the virtual environment first, then ROS 2 (from ROS_ROOT, else the wheels in the environment), then, once it has
# been built, this package as installed. All DDS traffic stays on this machine, in a domain of this checkout's own.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_venv=${VENV:-$_root/.venv}
_ros=${ROS_ROOT:-/opt/ros/jazzy}

if [[ -f $_ros/setup.bash ]]; then
    source "$_ros/setup.bash"
else
    export AMENT_PREFIX_PATH=$_venv CMAKE_PREFIX_PATH=$_venv ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
    _libraries=$_venv/lib
    for _folder in "$_venv"/lib/python3.*/site-packages/ros_*.libs; do
        [[ -d $_folder ]] && _libraries+=:$_folder
    done
    export LD_LIBRARY_PATH=$_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1  # the library path is set: Python need not start itself a second time
fi
if [[ -f $_root/install/setup.bash ]]; then
    source "$_root/install/setup.bash"
fi
export PATH=$_venv/bin:$PATH VIRTUAL_ENV=$_venv

export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
export ROS_DOMAIN_ID=${MOTION4D_DOMAIN_ID:-$((1 + $(cksum <<< "$_root" | cut -d' ' -f1) % 100))}
export OMP_WAIT_POLICY=PASSIVE  # PyTorch's threads that spin while they wait halve the speed of a busy machine
export RMW_IMPLEMENTATION=${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}
export MPLBACKEND=${MPLBACKEND:-Agg}
unset _root _venv _ros _libraries _folder
