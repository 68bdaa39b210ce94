"""Motion4D beside a camera, up and running by itself.

    ros2 launch motion4d_ros motion4d.launch.py image:=/camera/image_raw

The camera_info is looked for beside the image. Naming a topic for depth, masks or odometry selects it as the source.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("motion4d_ros"))
PRESETS = sorted(path.stem for path in (SHARE / "config").glob("*.yaml") if path.stem != "motion4d")
SOURCES = {
    "depth": ("depth.source", "topic"),
    "masks": ("masks.source", "topic"),
    "odometry": ("pose.source", "odometry"),
    "detections": ("masks.discovery", "detections"),
}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node, with what the arguments say."""

    def value(name: str) -> str:
        return context.perform_substitution(LaunchConfiguration(name))

    parameters: list[object] = [str(SHARE / "config" / "motion4d.yaml")]
    if value("preset") != "auto":
        parameters.append(str(SHARE / "config" / f"{value('preset')}.yaml"))
    if value("params_file"):
        parameters.append(value("params_file"))
    truth = {"true": True, "false": False}
    own: dict[str, object] = {
        name: truth[value(name).lower()] for name in ("autostart", "use_sim_time", "publish_tf") if value(name)
    }
    remappings = [("image", value("image"))]
    if value("camera_info"):
        remappings.append(("camera_info", value("camera_info")))
    for name, (parameter, source) in SOURCES.items():
        if value(name):
            remappings.append((name, value(name)))
            own[parameter] = source
    own["preset"] = "auto" if value("preset") == "auto" else "none"
    for name in ("image_transport", "map_frame", "save_root"):
        if value(name):
            own[name] = value(name)
    if value("checkpoint"):
        own["run.checkpoint"] = float(value("checkpoint"))
    return [
        LifecycleNode(
            package="motion4d_ros",
            executable="motion4d_node",
            name="motion4d",
            namespace=value("namespace"),
            parameters=[*parameters, own],
            remappings=remappings,
            arguments=["--ros-args", "--log-level", value("log_level")],
            output="screen",
            emulate_tty=True,
            respawn=value("respawn").lower() == "true",
            respawn_delay=1.0,
            on_exit=Shutdown() if value("required").lower() == "true" else None,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, node and, on request, RViz."""
    arguments = [
        DeclareLaunchArgument("image", description="Topic of the camera's images, e.g. /camera/image_raw"),
        DeclareLaunchArgument("camera_info", default_value="", description="Default: camera_info beside the image"),
        DeclareLaunchArgument("depth", default_value="", description="Registered depth; selects depth.source topic"),
        DeclareLaunchArgument("masks", default_value="", description="Label images; selects masks.source topic"),
        DeclareLaunchArgument("odometry", default_value="", description="Odometry topic; selects pose.source odometry"),
        DeclareLaunchArgument(
            "detections", default_value="", description="Detection2DArray; selects masks.discovery detections"
        ),
        DeclareLaunchArgument("image_transport", default_value="", description="compressed: use <image>/compressed"),
        DeclareLaunchArgument("map_frame", default_value="", description="Frame of the outputs"),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
        DeclareLaunchArgument(
            "preset",
            default_value="auto",
            choices=["auto", "motion4d", *PRESETS],
            description="Settings on top of the defaults, config/<preset>.yaml; auto: a network if the cache has one",
        ),
        DeclareLaunchArgument("params_file", default_value="", description="Your own settings, on top of everything"),
        DeclareLaunchArgument("autostart", default_value="true", description="Configure and activate by itself"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock (bags)"),
        DeclareLaunchArgument("publish_tf", default_value="", description="true: a frame per object"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error"),
        DeclareLaunchArgument("save_root", default_value="", description="Folder below which ~/save_scene may write"),
        DeclareLaunchArgument(
            "checkpoint", default_value="", description="Keep the scene every so many seconds; needs save_root"
        ),
        DeclareLaunchArgument("respawn", default_value="false", description="true: start the node again when it ends"),
        DeclareLaunchArgument("required", default_value="false", description="true: all ends when the node does"),
        DeclareLaunchArgument("rviz", default_value="false", description="true: start RViz, too"),
    ]
    rviz = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "rviz.launch.py")),
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=start), rviz])
