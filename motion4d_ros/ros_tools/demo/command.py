"""The demo from start to end: recording -> player -> DDS -> node -> DDS -> recorder -> score, pictures, page."""

from __future__ import annotations

import argparse
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_srvs.srv import Trigger

from motion4d_ros.children import environment, module_command
from motion4d_ros.msg import PipelineStatus
from motion4d_ros.offline.resources import preset
from motion4d_ros.ros.outputs.publishers import TOPICS
from motion4d_ros.ros_tools.demo import show
from motion4d_ros.ros_tools.demo.folder import ResultFolder
from motion4d_ros.ros_tools.demo.patience import Patience
from motion4d_ros.ros_tools.demo.recording import Recording, made_up, own, read_pictures
from motion4d_ros.ros_tools.demo.results import NODE, Said, read_results
from motion4d_ros.ros_tools.demo.score import ROW_NAMES, Scores, score_stages, score_table
from motion4d_ros.ros_tools.demo.terminal import Terminal
from motion4d_ros.ros_tools.recorder import Recorder
from motion4d_ros.types import Motion4DError

RECORDED = ("tracked_objects", "tracked_points", "static_points", "semantic_mask", "camera_pose", "markers", "status")
NODE_COMMAND = module_command("motion4d_ros.ros.main")
START_S, STALL_S, REFINE_S, REST_S = 60.0, 300.0, 900.0, 30.0
"""How long the node is waited for while it has nothing to do (see `Patience`)."""
SLOW_RATE = 0.2
"""Without a GPU the recording is played this slowly: fitting takes longer than the camera's period."""


def main(arguments: Sequence[str] | None = None, node_command: Sequence[str] = NODE_COMMAND) -> int:
    """Command line; 0 if everything was processed and drawn."""
    options = parse(arguments)
    terminal = Terminal()
    try:
        demonstrate(options, node_command, terminal)
    except Motion4DError as error:
        terminal.complain(str(error))
        return 2
    except OSError as error:
        terminal.complain(f"{error.filename or options.out}: {error.strerror or error}")
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        terminal.complain("interrupted; a former result stays as it was")
        return 130
    return 0


def demonstrate(options: argparse.Namespace, node_command: Sequence[str], terminal: Terminal) -> None:
    """Checks what is given, plays it through the node, and replaces the former result when all is complete."""
    recording = None
    named = {name: getattr(options, name) for name in ("depth", "masks", "odometry") if getattr(options, name)}
    if options.bag is None and (named or options.image):
        raise Motion4DError("topics are given, but no recording that holds them: make demo BAG=folder IMAGE=…")
    if options.bag is not None:
        recording = own(options.bag, options.image, named)
    if options.preset:
        preset(options.preset)
    folder = ResultFolder(options.out)
    if recording is None:
        with terminal.busy(f"making up a scene: {options.scene}, {options.frames} frames …"):
            recording = made_up(folder.staging, options.scene, options.frames, options.seed)
    live = options.rate >= 1.0
    arguments = node_arguments(recording, live=live, settings=options.set, preset_name=options.preset)
    said, seconds = run(recording, folder.staging / "output", [*node_command, *arguments], options, terminal)
    report(recording, said, seconds, options, folder.staging, terminal)
    for path in folder.publish(None if recording.scene is not None else recording.bag):
        terminal.show(f"moved aside, since no demo wrote it: {path}")
    for name in ("overlay.png", "demo.mp4", "output", "node.log", "report.html"):
        if (folder.out / name).exists():
            terminal.show(f"  {folder.out / name}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.ros_tools.demo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where to; a former demo there is replaced")
    parser.add_argument(
        "--bag",
        type=lambda text: Path(text).expanduser() if text else None,
        help="your own rosbag2 instead of the made-up scene",
    )
    parser.add_argument("--image", default="", help="topic of the images in it")
    parser.add_argument("--depth", default="", help="topic of registered depth in it")
    parser.add_argument("--masks", default="", help="topic of label images in it")
    parser.add_argument("--odometry", default="", help="topic of the camera's odometry in it")
    parser.add_argument("--scene", default="tabletop_like", help="which made-up scene")
    parser.add_argument("--frames", type=int, default=40, help="its length, at 10 Hz")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="speed of the player; 0 = 1 on a GPU, else slower")
    parser.add_argument(
        "--preset", default="", help="config/<preset>.yaml; without a GPU, cpu_small where it is played at full speed"
    )
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="NAME=VALUE", help="a parameter of the node"
    )
    options = parser.parse_args(arguments)
    from motion4d_ros.render.device import choose_device

    gpu = choose_device("auto").type == "cuda"
    if options.rate <= 0:
        options.rate = 1.0 if gpu else SLOW_RATE
    if not options.preset and options.rate >= 1.0 and not gpu:
        options.preset = "cpu_small"
    return options


def _setting(text: str) -> str:
    if not text.partition("=")[0] or "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r}: NAME=VALUE is needed")
    return text


def node_arguments(recording: Recording, *, live: bool, settings: Sequence[str], preset_name: str = "") -> list[str]:
    """What the node is started with. Raises `Motion4DError` for an unknown preset."""
    parameters = {
        "autostart": "true",
        "budget.mode": "realtime" if live else "lossless",
        **({} if live else {"budget.queue_size": "1000"}),
        **({"depth.source": "topic"} if "depth" in recording.sources else {}),
        **({"masks.source": "topic"} if "masks" in recording.sources else {}),
        **({"pose.source": "odometry"} if "odometry" in recording.sources else {}),
    }
    for topic in (recording.image, recording.info, *recording.sources.values()):
        # Best effort loses large messages on a busy machine; and without a GPU the player waits for nobody.
        parameters[f"qos_overrides.{topic}.subscription.reliability"] = "reliable"
        if not live:
            parameters[f"qos_overrides.{topic}.subscription.depth"] = "1000"
    parameters.update(dict(setting.split("=", 1) for setting in settings))
    remappings = {"image": recording.image, **recording.sources}
    arguments = ["--ros-args"]
    if preset_name:
        arguments += ["--params-file", str(preset(preset_name))]
    for name, topic in remappings.items():
        arguments += ["-r", f"{name}:={topic}"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    return arguments


def run(
    recording: Recording, output: Path, command: Sequence[str], options: argparse.Namespace, terminal: Terminal
) -> tuple[Said, float]:
    """Plays the recording through the node in a process of its own; what it said, and how long it took, s."""
    rclpy.init(args=[])
    listener = rclpy.create_node("motion4d_demo")
    executor = SingleThreadedExecutor()
    executor.add_node(listener)
    newest: list[Any] = []
    listener.create_subscription(PipelineStatus, f"{NODE}/status", lambda message: newest.append(message), 10)
    log = (output.parent / "node.log").open("w", encoding="utf-8")
    node = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
    player: subprocess.Popen[bytes] | None = None
    try:
        with Recorder(listener, output, {f"{NODE}/{name}": TOPICS[name] for name in RECORDED}) as recorder:
            _spin_until(executor, lambda: bool(newest), node, START_S, "the node did not come up", log.name)
            play = module_command("motion4d_ros.ros_tools.player", str(recording.bag), "--rate", str(options.rate))
            player = subprocess.Popen([*play, "--wait-for", recording.image], env=environment())
            began = time.monotonic()
            _follow(executor, newest, node, player, recording, terminal, log.name)
            refined = listener.create_client(Trigger, f"{NODE}/refine").call_async(Trigger.Request())
            with terminal.busy("the last window, and a last refinement …"):
                _spin_until(executor, refined.done, node, REFINE_S, "no answer from the node", log.name)
            seconds = time.monotonic() - began
            quiet = _Quiet(recorder)
            _spin_until(executor, quiet, node, REST_S, "the node does not come to rest", log.name)
    finally:
        for process in (player, node):
            if process is not None:
                _end(process)
        log.close()
        listener.destroy_node()
        rclpy.try_shutdown()
    return read_results(output), seconds


def report(
    recording: Recording, said: Said, seconds: float, options: argparse.Namespace, folder: Path, terminal: Terminal
) -> None:
    """Scores, draws, and says what happened."""
    with terminal.busy("drawing …"):
        pictures, camera = read_pictures(recording)
        show.write_picture(folder / "overlay.png", pictures, said, camera)
        video: Path | None = folder / "demo.mp4"
        if not show.write_video(folder / "demo.mp4", pictures, said, camera, min(30.0, recording.rate_hz)):
            video = None
    scores = score_stages(recording.scene, said) if recording.scene is not None else {}
    if scores:
        terminal.show(score_table(scores))
    sentences = account(recording, said, seconds, options)
    for sentence in sentences:
        terminal.show(sentence)
    source = "a made-up scene" if recording.scene is not None else recording.bag.name
    show.write_page(
        folder / "report.html", f"motion4d_node on {source}", sentences, score_rows(scores), video,
        folder / "overlay.png",
    )  # fmt: skip


def account(recording: Recording, said: Said, seconds: float, options: argparse.Namespace) -> list[str]:
    """What happened, honestly."""
    status = said.status
    ids = sorted({item.id for items in said.objects["final"].values() for item in items})
    played = f"{recording.frames} images of a {recording.rate_hz:.0f} Hz camera, played {options.rate:g} times as fast"
    if options.preset:
        played += f" (preset {options.preset})"
    if options.rate < 1.0:
        played += ": this machine fits more slowly than that (no GPU), so the node ran in lossless mode"
    spent = dict(zip(status.stage_names, status.stage_seconds, strict=True))
    taken_in_s = spent.pop("intake", 0.0) / max(1, status.processed)
    spent.pop("global", None)
    window_s = sum(spent.values()) / max(1, status.windows)
    books = (
        f"{status.received} received = {status.processed} processed + {status.dropped} dropped + "
        f"{status.rejected} rejected + {status.queued} queued"
    )
    delays = (
        f"live estimates came {status.latency_live:.2f} s after their image (median), fitted ones "
        f"{status.latency_window:.1f} s after it"
    )
    if options.rate < 1.0:
        delays += ", which says little of a recording that is played slowly"
    if status.live_only:
        books += f" ({status.live_only} of them told about live, but not fitted)"
    return [
        f"{played}; {seconds:.0f} s in all.",
        f"{books}; windows fitted: {status.windows}, refinements: {status.refinements}, on {status.device}.",
        f"Objects {', '.join(map(str, ids)) or 'none'}; {status.gaussians_static} static and "
        f"{status.gaussians_dynamic} moving Gaussians; scale {status.scale}.",
        f"A frame was taken in within {taken_in_s:.2f} s, a window fitted in {window_s:.1f} s (means); {delays}.",
        *inputs_missing(recording, options.set),
        "Until the first window was fitted, live masks are those of the 2D source, and no object is reported.",
    ]


INSTEAD = {
    "depth": ("depth", "depth.source", "depth was triangulated from the images"),
    "masks": ("masks", "masks.source", "objects were looked for by their motion"),
    "odometry": ("camera poses", "pose.source", "the camera's motion was found from the images"),
}


def inputs_missing(recording: Recording, settings: Sequence[str]) -> list[str]:
    """What the node had to find out by itself, and which topics of the bag could have told it."""
    chosen = {setting.split("=", 1)[0] for setting in settings}
    absent = [INSTEAD[name] for name in INSTEAD if name not in recording.sources and INSTEAD[name][1] not in chosen]
    if not absent:
        return []
    what, instead = ", ".join(item[0] for item in absent), "; ".join(item[2] for item in absent)
    sentences = [f"Not given: {what}. So {instead}; docs/explanation/monocular.md says how good that is."]
    if recording.others:
        sentences.append(
            f"Also in the bag: {', '.join(recording.others)}; if they fit: make demo … DEPTH=… MASKS=… ODOMETRY=…"
        )
    return sentences


def score_rows(scores: dict[str, Scores]) -> list[list[str]]:
    """The scores as rows of text, the first one the head."""
    if not scores:
        return []
    rows = [["", "frames told", "masks J&F", "identity flips", "3D track error", "within 10 cm"]]
    for stage, row in scores.items():
        name = ROW_NAMES[stage]
        tracks = ["", ""] if row.epe_m != row.epe_m else [f"{100 * row.epe_m:.1f} cm", f"{100 * row.d10:.0f} %"]
        rows.append([name, f"{100 * row.told:.0f} %", f"{row.JF:.3f}", str(row.flips), *tracks])
    return rows


class _Quiet:
    """Whether nothing has been recorded for a second."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._total, self._since = -1, time.monotonic()

    def __call__(self) -> bool:
        total = sum(count for topic, count in self._recorder.counts.items() if not topic.endswith("status"))
        if total != self._total:
            self._total, self._since = total, time.monotonic()
        return time.monotonic() - self._since > 1.0


def _follow(
    executor: Any, newest: list[Any], node: Any, player: Any, recording: Recording, terminal: Terminal, log: str
) -> None:
    """Shows the progress until the player has ended and no frame waits."""
    with terminal.progress(recording.frames) as progress:
        ended, patience, books = time.monotonic(), Patience(node.pid), None
        while True:
            executor.spin_once(timeout_sec=0.1)
            del newest[:-1]
            status = newest[0]
            if books != (status.received, status.processed, status.dropped, status.rejected, status.windows):
                books = (status.received, status.processed, status.dropped, status.rejected, status.windows)
                patience.restart()
            if patience.idle_s() > STALL_S:
                raise Motion4DError(f"the node has made no progress for {STALL_S:.0f} s: see {log}")
            progress(status.received, status.processed)
            if node.poll() is not None:
                raise Motion4DError(f"the node ended with status {node.returncode}: see {log}")
            if player.poll() is None:
                ended = time.monotonic()
            elif player.returncode != 0:
                raise Motion4DError("the player failed")
            elif time.monotonic() - ended > 3.0 and status.queued == 0:
                return


def _spin_until(executor: Any, done: Any, node: Any, timeout_s: float, problem: str, log: str) -> None:
    patience = Patience(node.pid)
    while not done():
        executor.spin_once(timeout_sec=0.1)
        if node.poll() is not None:
            raise Motion4DError(f"the node ended with status {node.returncode}: see {log}")
        if patience.idle_s() > timeout_s:
            raise Motion4DError(f"{problem} within {timeout_s:.0f} s: see {log}")


def _end(process: Any) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
