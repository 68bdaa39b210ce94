# The environment to build and run in; for `source`, from bash. The Makefile uses it for every command.
#
#   source tools/env.bash && python -m motion4d_ros.cli --help
#
# Puts the virtual environment first, then ROS 2 (ros.bash says which), then, once it has been built, this package as
# installed. All DDS traffic stays on this machine, in a domain of this checkout's own.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_venv=$(realpath -ms "${VENV:-$_root/.venv}")

source "$_root/tools/ros.bash"
choose_ros "$_venv" || return 2
leave_other_ros "$_ros_root"
if [[ -n $_ros_root ]]; then
    source "$_ros_root/setup.bash"
    if [[ -e $_ros_root/lib/librmw_fastrtps_cpp.so ]]; then
        export RMW_IMPLEMENTATION=${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}
    fi
else
    export AMENT_PREFIX_PATH=$_venv CMAKE_PREFIX_PATH=$_venv ROS_DISTRO=$_ros_distro ROS_VERSION=2 ROS_PYTHON_VERSION=3
    _libraries=$_venv/lib
    for _folder in "$_venv"/lib/python3.*/site-packages/ros_*.libs; do
        [[ -d $_folder ]] && _libraries+=:$_folder
    done
    export LD_LIBRARY_PATH=$_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1  # the library path is set: Python need not start itself a second time
    export RMW_IMPLEMENTATION=rmw_fastrtps_cpp  # there are wheels of no other
fi
if [[ -f $_root/install/setup.bash ]]; then
    source "$_root/install/setup.bash"
fi
export PATH=$_venv/bin:$PATH VIRTUAL_ENV=$_venv
export PYTHONNOUSERSITE=1  # what pip has put into ~/.local is not part of this environment

export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
export ROS_DOMAIN_ID=${MOTION4D_DOMAIN_ID:-$((1 + $(cksum <<< "$_root" | cut -d' ' -f1) % 100))}
export OMP_WAIT_POLICY=PASSIVE  # PyTorch's threads that spin while they wait halve the speed of a busy machine
export MPLBACKEND=${MPLBACKEND:-Agg}
unset _root _venv _libraries _folder
unset _ros_prefix _ros_known _ros_wheels _ros_root _ros_distro _ros_said
unset -f choose_ros leave_other_ros _among _ros_from_root _ros_from_distro _ros_from_search
