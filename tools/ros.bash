# Which ROS 2 is used; for `source`, from bash. Shared by env.bash and setup_venv.sh.
#
#   ROS_ROOT    folder with a setup.bash (such as /opt/ros/jazzy), or `wheels` for those on PyPI although /opt/ros has one
#   ROS_DISTRO  jazzy, kilted, lyrical or rolling
#
# With neither: what the virtual environment was made for, else the newest LTS in /opt/ros, else what else is there, else wheels.
_ros_prefix=${MOTION4D_ROS_PREFIX:-/opt/ros}  # the tests use another
_ros_known=(lyrical jazzy kilted rolling)  # by preference: the newest LTS first
_ros_wheels=(jazzy kilted)  # on PyPI, pinned in requirements/ros-wheels-*.txt

_among() {  # WORD WORDS…: is it one of them?
    local word=$1 other
    shift
    for other in "$@"; do [[ $word == "$other" ]] && return 0; done
    return 1
}

choose_ros() {  # VENV: sets _ros_root (empty: wheels), _ros_distro and _ros_said (a line); or says why not, and returns 2
    local venv=$1 recorded_distro= recorded_root=
    if [[ -f $venv/.ros ]]; then
        read -r recorded_distro recorded_root < "$venv/.ros" || true
    fi
    _ros_root= _ros_distro= _ros_said=
    if [[ -n ${ROS_ROOT:-} ]]; then
        _ros_from_root || return 2
    elif [[ -n $recorded_distro && ${ROS_DISTRO:-$recorded_distro} == "$recorded_distro" ]]; then
        _ros_distro=$recorded_distro _ros_root=$recorded_root
        if [[ -n $_ros_root && ! -f $_ros_root/setup.bash ]]; then
            echo "$venv was made for the ROS 2 in $_ros_root, which is gone: make distclean, then try again" >&2
            return 2
        fi
    elif [[ -n ${ROS_DISTRO:-} ]]; then
        _ros_from_distro || return 2
    else
        _ros_from_search
    fi
    if [[ -n $recorded_distro && "$recorded_distro $recorded_root" != "$_ros_distro $_ros_root" ]]; then
        echo "$venv was made for ROS 2 $recorded_distro (${recorded_root:-wheels}), not $_ros_distro (${_ros_root:-wheels}):" \
             "add VENV=.venv-$_ros_distro, or make distclean first" >&2
        return 2
    fi
    _ros_said=${_ros_said:-"ROS 2 $_ros_distro from ${_ros_root:-the PyPI wheels}"}
}

_ros_from_root() {
    if [[ $ROS_ROOT == wheels ]]; then
        _ros_distro=${ROS_DISTRO:-jazzy}
        _among "$_ros_distro" "${_ros_wheels[@]}" && return
        echo "ROS_ROOT=wheels: PyPI has wheels of ${_ros_wheels[*]}, not of $_ros_distro: choose one by ROS_DISTRO=…" >&2
        return 2
    fi
    if [[ ! -f $ROS_ROOT/setup.bash ]]; then
        echo "ROS_ROOT=$ROS_ROOT: no ROS 2 there (no setup.bash); leave it away, or ROS_ROOT=wheels for those on PyPI" >&2
        return 2
    fi
    _ros_root=${ROS_ROOT%/}
    _ros_distro=$(set +eu; unset ROS_DISTRO; source "$_ros_root/setup.bash" > /dev/null 2>&1; echo "${ROS_DISTRO:-}")
    _ros_distro=${_ros_distro:-${_ros_root##*/}}
}

_ros_from_distro() {
    _ros_distro=$ROS_DISTRO
    if ! _among "$_ros_distro" "${_ros_known[@]}"; then
        echo "ROS_DISTRO=$_ros_distro: not one of ${_ros_known[*]};" \
             "choose one of these, or ROS_ROOT=$_ros_prefix/$_ros_distro to try it all the same" >&2
        return 2
    fi
    if [[ -f $_ros_prefix/$_ros_distro/setup.bash ]]; then
        _ros_root=$_ros_prefix/$_ros_distro
    elif ! _among "$_ros_distro" "${_ros_wheels[@]}"; then
        echo "ROS_DISTRO=$_ros_distro: $_ros_prefix/$_ros_distro is not there, and PyPI has wheels of ${_ros_wheels[*]} only:" \
             "install ROS 2 $_ros_distro, or choose one of these" >&2
        return 2
    fi
}

_ros_from_search() {
    local distro others=
    for distro in "${_ros_known[@]}"; do
        [[ -f $_ros_prefix/$distro/setup.bash ]] || continue
        if [[ -z $_ros_root ]]; then
            _ros_distro=$distro _ros_root=$_ros_prefix/$distro
        else
            others+=" $distro"
        fi
    done
    if [[ -n $_ros_root ]]; then
        _ros_said="ROS 2 $_ros_distro from $_ros_root${others:+ (also there:$others; ROS_DISTRO=… chooses)}"
    else
        _ros_distro=${_ros_wheels[0]}
        _ros_said="ROS 2 $_ros_distro from the PyPI wheels ($_ros_prefix has none; ROS_DISTRO=${_ros_wheels[1]} works, too)"
    fi
}

leave_other_ros() {  # ROOT: takes what lies below another $_ros_prefix/… than ROOT out of the search paths
    local name entry kept entries
    for name in AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PATH PKG_CONFIG_PATH PYTHONPATH; do
        [[ -n ${!name:-} ]] || continue
        kept=
        IFS=: read -ra entries <<< "${!name}"
        for entry in "${entries[@]}"; do
            if [[ $entry/ == "$_ros_prefix"/* && $entry/ != "${1:-none}"/* ]]; then
                continue
            fi
            kept+=${kept:+:}$entry
        done
        export "$name=$kept"
    done
    unset ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION
}
