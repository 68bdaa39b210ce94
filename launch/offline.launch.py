"""Plays a bag through the node, frame by frame without loss, and records what it publishes.

    ros2 launch motion4d_ros offline.launch.py bag:=my_bag image:=/camera/image_raw out:=my_results

The node works in lossless mode with a long queue: choose `rate` so that it can keep up (`ros2 topic echo
/motion4d/status` shows `queued` and `dropped`). For results that do not depend on time at all, use `motion4d analyze`.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("motion4d_ros"))
PASSED_ON = ("image", "camera_info", "depth", "masks", "odometry", "image_transport", "map_frame", "preset", "rviz")
OUTPUTS = (
    "tracked_objects", "tracked_points", "static_points", "camera_pose", "semantic_mask", "semantic_overlay", "markers",
    "status",
)  # fmt: skip


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Node, recorder, and after both are up the player; its end, and some time to finish, end everything."""

    def value(name: str) -> str:
        return context.perform_substitution(LaunchConfiguration(name))

    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "motion4d.launch.py")),
        launch_arguments={
            **{name: value(name) for name in PASSED_ON if value(name)},
            "use_sim_time": "true",
            "params_file": str(SHARE / "config" / "lossless.yaml"),
        }.items(),
    )
    actions: list[LaunchDescriptionEntity] = [node]
    if value("out"):
        topics = [f"/motion4d/{name}" for name in OUTPUTS] + ["/diagnostics"]
        actions.append(ExecuteProcess(cmd=["ros2", "bag", "record", "-o", value("out"), *topics], output="screen"))
    play = ["ros2", "bag", "play", value("bag"), "--clock", "--rate", value("rate"), "--disable-keyboard-controls"]
    player = ExecuteProcess(cmd=play, output="screen")
    done = TimerAction(period=float(value("finish")), actions=[EmitEvent(event=Shutdown(reason="the bag has ended"))])
    actions.append(TimerAction(period=float(value("delay")), actions=[player]))
    actions.append(RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[done])))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Arguments and actions."""
    optional = [
        DeclareLaunchArgument(name, default_value="", description=f"See motion4d.launch.py: {name}")
        for name in PASSED_ON
        if name != "image"
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2 folder"),
            DeclareLaunchArgument("image", description="Topic of the images in the bag"),
            *optional,
            DeclareLaunchArgument("out", default_value="", description="Folder of the recorded outputs; empty = none"),
            DeclareLaunchArgument("rate", default_value="0.2", description="Speed of the player"),
            DeclareLaunchArgument("delay", default_value="8.0", description="Seconds until the player starts"),
            DeclareLaunchArgument("finish", default_value="30.0", description="Seconds to finish after the bag's end"),
            OpaqueFunction(function=start),
        ]
    )
