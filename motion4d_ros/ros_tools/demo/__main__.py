"""`python -m motion4d_ros.ros_tools.demo`."""

import sys

from motion4d_ros.failures import guarded


def _main() -> int:
    from motion4d_ros.ros_tools.demo.command import main  # needs ROS, and says so in one line where it is missing

    return main()


sys.exit(guarded("demo", _main))
