"""Is all well, and if not: what is wrong and what helps? A pure function of a snapshot, so that every rule is tested.

The node gathers a :class:`Snapshot` once a second; :func:`assess` judges it; `docs/reference/interface.md` lists the
rules from :data:`RULES`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from motion4d_ros.ros.work.queue import Counts
from motion4d_ros.types import NO_GROUND, Health, PoseStatus, Scale


class Level(enum.IntEnum):
    """As in `diagnostic_msgs/DiagnosticStatus`."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Rule:
    """One condition worth telling. `group` is the diagnostic status it shows up in."""

    code: str
    group: str  # input, pipeline or scene
    level: Level
    cause: str
    remedy: str


RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in (
        Rule("worker_dead", "pipeline", Level.ERROR, "the worker keeps dying; it is started again after a pause",
             "read the log for the first exception; deactivate and activate the node to start it at once"),
        Rule("worker_restarted", "pipeline", Level.WARN, "the worker died and was restarted; the scene began anew",
             "read the log for the exception"),
        Rule("no_image", "input", Level.ERROR, "no image has arrived since activation",
             "check the remapping of `image` and that the camera runs: ros2 topic hz <image>"),
        Rule("qos_mismatch", "input", Level.ERROR, "a publisher offers a QoS that this subscription cannot accept",
             "set qos_overrides.<topic>.subscription.reliability (and durability) to what the publisher offers"),
        Rule("wrong_type", "input", Level.WARN, "somebody publishes another type of message on an input's topic",
             "find it with ros2 topic info -v; its messages never arrive here, the others are used"),
        Rule("image_silent", "input", Level.WARN, "images have stopped coming",
             "check the camera driver; the node goes on by itself when they return"),
        Rule("no_camera_info", "input", Level.ERROR, "images come, but no usable camera_info",
             "publish it beside the image topic, or remap `camera_info`; calibrate the camera"),
        Rule("no_partner", "input", Level.WARN, "an input that each image needs is missing, or its stamps differ",
             "check that topic; raise `slop` if stamps differ; choose another source if there is no such topic"),
        Rule("tf_missing", "input", Level.ERROR, "the camera's transform cannot be found",
             "publish it, or set `map_frame`; raise `pose_timeout` if it comes late"),
        Rule("rejected", "input", Level.WARN, "frames are unusable", "mend what the reason names"),
        Rule("clock_jump", "input", Level.WARN, "time went backwards (looped bag, sim time): the scene began anew",
             "nothing to do if a bag was restarted; otherwise synchronise the clocks"),
        Rule("camera_changed", "input", Level.WARN, "image size or intrinsics changed: the scene began anew",
             "nothing to do if that was meant; otherwise keep the camera's mode, zoom and calibration fixed"),
        Rule("misfit", "input", Level.WARN, "depth, masks or detections do not come as the image does",
             "nothing to do if it was scaled or aligned; otherwise do what the particulars name"),
        Rule("prompt_refused", "input", Level.WARN, "a prompt could not be used", "mend what the reason names"),
        Rule("dropped", "pipeline", Level.WARN, "more than 5 % of the frames are dropped: the machine is too slow",
             "lower budget.working_width or budget.load, use budget.mode realtime, or slow the camera down"),
        Rule("sparse", "pipeline", Level.WARN,
             "fitted frames are more than a second apart: the machine is slow for this camera",
             "use the preset cpu_small, lower budget.working_width, or give masks, depth and poses as topics"),
        Rule("exceptions", "pipeline", Level.WARN, "exceptions were survived in the last minute",
             "read the log; report it with the input that caused it"),
        Rule("source_failed", "pipeline", Level.WARN, "a source of masks, depth or detections fails; the rest goes on",
             "do what the particulars name, or choose another source"),
        Rule("out_of_memory", "pipeline", Level.WARN, "memory ran out; the budgets were lowered",
             "lower budget.max_static and budget.max_dynamic for good, or free the GPU"),
        Rule("same_name", "pipeline", Level.WARN,
             "another node has this name: who asks one may be answered by the other",
             "end it, or start one of them in a namespace"),
        Rule("stuck", "pipeline", Level.ERROR, "frames wait, but none has been processed for ten seconds",
             "deactivate and activate the node; lower window.length or budget.working_width"),
        Rule("no_tf2", "pipeline", Level.WARN, "publish_tf is set, but tf2_ros is not installed",
             "apt install ros-jazzy-tf2-ros-py, or set publish_tf to false"),
        Rule("unknown_parameters", "pipeline", Level.WARN, "parameters were given that do not exist",
             "mend their spelling: ros2 param list"),
        Rule("pose_lost", "scene", Level.WARN, "the camera's pose is lost",
             "move slowly over textured, static things; or give poses (pose.source odometry or tf)"),
        Rule("inconsistent", "scene", Level.WARN,
             "live poses err clearly more, or less, than their covariances say",
             "take the window's poses where it matters; objects change their motion faster than it can be learnt"),
        Rule("restarted", "scene", Level.WARN,
             "the camera was lost for good: the scene began anew, and the map has a new origin",
             "give poses (pose.source odometry or tf) if the map must last, or set pose.restart_after to 0"),
        Rule("no_ground", "scene", Level.WARN, NO_GROUND,
             "let more of what stands still into the picture; or give poses (pose.source odometry or tf) and masks"),
        Rule("scale_unknown", "scene", Level.WARN, "the scale of the scene is unknown",
             "move the camera sideways, or give depth (depth.source topic or model)"),
    )
}  # fmt: skip
"""Everything that can be reported, in the order of the table in the documentation."""

RECENT_S = 60.0
"""How long something that happened once is still reported."""
STUCK_S = 10.0
DROP_SHARE = 0.05


@dataclass
class Snapshot:
    """What the node knows of itself at one moment. Times are ages in seconds; infinity = never."""

    active: bool = True
    since_activation_s: float = 0.0
    silence_s: float = 2.0
    image_topic: str = "image"
    image_publishers: int = 0
    image_age_s: float = float("inf")  # since the last image arrived
    counts: Counts = field(default_factory=Counts)
    counts_before: Counts = field(default_factory=Counts)  # about ten seconds ago
    processed_age_s: float = float("inf")  # since a frame was last finished
    has_camera: bool = False
    camera_problem: str = ""
    missing_inputs: tuple[str, ...] = ()  # topics of inputs from which nothing has come
    silent_inputs: tuple[str, ...] = ()  # topics of inputs that have stopped, though images come
    qos_problem: str = ""
    wrong_types: tuple[str, ...] = ()  # topic and type of publishers whose messages never arrive
    namesakes: int = 0  # other nodes of this name
    tf_problem: str = ""  # last failed lookup, "" once one succeeds
    last_rejection: str = ""
    misfits: tuple[str, ...] = ()  # what is odd about inputs that are used all the same
    misfit_age_s: float = float("inf")
    prompt_problem: str = ""
    prompt_problem_age_s: float = float("inf")
    jump_age_s: float = float("inf")
    camera_changed_age_s: float = float("inf")
    camera_lost_age_s: float = float("inf")  # since a new scene began because of that
    exception_age_s: float = float("inf")
    last_exception: str = ""
    oom_age_s: float = float("inf")
    worker_alive: bool = True
    restarts: int = 0
    lacks_tf2: bool = False
    unknown_parameters: tuple[str, ...] = ()
    health: Health = field(default_factory=Health)
    rate_hz: float = 0.0  # of the camera
    callback_p50_s: float = 0.0  # of the last image callbacks
    callback_p99_s: float = 0.0


@dataclass(frozen=True)
class Finding:
    """A rule that applies, with the particulars."""

    rule: Rule
    detail: str = ""

    @property
    def text(self) -> str:
        """Cause, particulars and remedy on one line."""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.rule.cause}{detail}: {self.rule.remedy}"


def assess(s: Snapshot) -> list[Finding]:
    """Every rule that applies, the worst first. An inactive node has nothing to complain of."""
    if not s.active:
        return []
    found = [*_input_findings(s), *_pipeline_findings(s), *_scene_findings(s)]
    return sorted((Finding(RULES[code], detail) for code, detail in found), key=lambda f: -f.rule.level)


def _input_findings(s: Snapshot) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    waited = s.since_activation_s > s.silence_s
    publishers = f"{s.image_topic}, {s.image_publishers} publishers"
    if s.qos_problem:
        found.append(("qos_mismatch", s.qos_problem))
    if s.wrong_types:
        found.append(("wrong_type", "; ".join(s.wrong_types)))
    if s.counts.received == 0:
        if waited:
            found.append(("no_image", publishers))
    elif s.image_age_s > s.silence_s:
        found.append(("image_silent", f"for {s.image_age_s:.0f} s on {publishers}"))
    elif not s.has_camera and waited:
        found.append(("no_camera_info", s.camera_problem))
    if s.missing_inputs and s.counts.received and waited:
        found.append(("no_partner", "nothing yet on " + ", ".join(s.missing_inputs)))
    elif s.silent_inputs:
        found.append(("no_partner", "nothing any more on " + ", ".join(s.silent_inputs)))
    elif _grew(s.counts.dropped, s.counts_before.dropped, "no partner"):
        found.append(("no_partner", "stamps do not match"))
    if s.tf_problem:
        found.append(("tf_missing", s.tf_problem))
    if s.counts.rejected_total > s.counts_before.rejected_total:
        found.append(("rejected", f"{s.counts.rejected_total} so far, last: {s.last_rejection}"))
    if s.jump_age_s < RECENT_S:
        found.append(("clock_jump", f"{s.jump_age_s:.0f} s ago"))
    if s.camera_changed_age_s < RECENT_S:
        found.append(("camera_changed", f"{s.camera_changed_age_s:.0f} s ago"))
    if s.misfits and s.misfit_age_s < RECENT_S:
        found.append(("misfit", "; ".join(s.misfits)))
    if s.prompt_problem and s.prompt_problem_age_s < RECENT_S:
        found.append(("prompt_refused", s.prompt_problem))
    return found


def _pipeline_findings(s: Snapshot) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if not s.worker_alive:
        found.append(("worker_dead", s.last_exception))
    elif s.restarts:
        found.append(("worker_restarted", s.last_exception))
    received = s.counts.received - s.counts_before.received
    dropped = s.counts.dropped_total - s.counts_before.dropped_total
    if received >= 10 and dropped > DROP_SHARE * received:
        found.append(("dropped", f"{dropped} of {received}"))
    if s.rate_hz > 0 and s.health.stride > max(1.0, s.rate_hz):
        found.append(("sparse", f"{s.health.stride / s.rate_hz:.1f} s"))
    if s.exception_age_s < RECENT_S and s.worker_alive and not s.restarts:
        found.append(("exceptions", s.last_exception))
    if s.health.trouble:
        found.append(("source_failed", s.health.trouble))
    if s.oom_age_s < RECENT_S:
        found.append(("out_of_memory", ""))
    idle = min(s.processed_age_s, s.since_activation_s)
    if s.counts.queued and s.has_camera and s.worker_alive and idle > STUCK_S and s.image_age_s < STUCK_S:
        found.append(("stuck", f"{s.counts.queued} waiting"))
    if s.namesakes:
        found.append(("same_name", f"{s.namesakes} of them"))
    if s.lacks_tf2:
        found.append(("no_tf2", ""))
    if s.unknown_parameters:
        found.append(("unknown_parameters", ", ".join(s.unknown_parameters)))
    return found


def _scene_findings(s: Snapshot) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if s.health.frames == 0:
        return found
    if s.health.pose_status is PoseStatus.LOST:
        found.append(("pose_lost", ""))
    if s.health.live_inconsistent:
        found.append(("inconsistent", f"squared error is {s.health.live_consistency:.1f} times the stated variance"))
    if s.camera_lost_age_s < RECENT_S:
        found.append(("restarted", f"{s.camera_lost_age_s:.0f} s ago"))
    if s.health.doubt:
        found.append(("no_ground", s.health.doubt.removeprefix(f"{NO_GROUND}: ")))
    if s.health.windows and s.health.scale is Scale.UNKNOWN:
        found.append(("scale_unknown", ""))
    return found


def _grew(now: dict[str, int], before: dict[str, int], reason: str) -> bool:
    return now.get(reason, 0) > before.get(reason, 0)
