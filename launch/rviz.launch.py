"""RViz with every output of the node on display."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

CONFIG = Path(get_package_share_directory("motion4d_ros")) / "config" / "motion4d.rviz"


def generate_launch_description() -> LaunchDescription:
    """RViz alone; it may run on another machine."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("config", default_value=str(CONFIG), description="RViz configuration"),
            DeclareLaunchArgument("fixed_frame", default_value="map", description="map_frame of the node"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock"),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", LaunchConfiguration("config"), "-f", LaunchConfiguration("fixed_frame")],
                parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
                output="log",
            ),
        ]
    )
