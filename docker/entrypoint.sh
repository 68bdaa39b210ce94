#!/usr/bin/env bash
# Runs a command with ROS 2 and this package on the paths.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash"
source /opt/motion4d/setup.bash
exec "$@"
