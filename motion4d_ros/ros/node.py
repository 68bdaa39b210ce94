"""`motion4d_node`: the lifecycle node around `pipeline.Motion4D`.

unconfigured --configure--> inactive --activate--> active, and back. Configuring reads the parameters and makes the
engine; activating subscribes and starts the worker; deactivating ends both within two seconds, whatever they are doing.
Callbacks enqueue (`inputs/`), one worker owns the engine (`work/`), the rest is translation.
"""

from __future__ import annotations

import copy
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from motion4d_ros.config import Config
from motion4d_ros.imagery.backends import choose_backend
from motion4d_ros.logs import told
from motion4d_ros.models.automatic import with_best_outliner
from motion4d_ros.ros.diagnostics import Snapshot, assess
from motion4d_ros.ros.engine import Engine, Wanted, make_engine, renewed, revived
from motion4d_ros.ros.inputs.frames import Calibrations, FrameBuilder, FrameContext, ImageGroup
from motion4d_ros.ros.inputs.prompt_topics import Prompting
from motion4d_ros.ros.inputs.subscriptions import Inputs
from motion4d_ros.ros.inputs.synchroniser import installed_classes
from motion4d_ros.ros.inputs.transforms import TransformSource, have_tf2, transforms_for
from motion4d_ros.ros.outputs import messages
from motion4d_ros.ros.outputs.publishers import Outputs
from motion4d_ros.ros.outputs.status import Meters, diagnostic_array, status_message
from motion4d_ros.ros.parameters import Parameters, base_to_camera
from motion4d_ros.ros.save_root import SaveRoot
from motion4d_ros.ros.services import Services
from motion4d_ros.ros.sparse_log import SparseLog, surviving
from motion4d_ros.ros.work.checkpoints import Checkpoints
from motion4d_ros.ros.work.memory import FreedMemory, forget_destroyed
from motion4d_ros.ros.work.queue import Counts, FrameQueue
from motion4d_ros.ros.work.report import WorkerReport
from motion4d_ros.ros.work.watch import Verdict, Watch
from motion4d_ros.ros.work.worker import Worker, WorkerHooks
from motion4d_ros.tunables import put
from motion4d_ros.types import CAMERA_CHANGED, CAMERA_LOST, Estimate, Health, Motion4DError

STOP_S = 2.0
"""Within this time a worker ends, whatever it is doing."""
PARTNER_S = 1.0
"""Depth, masks and odometry come at most so long after their image."""
ROOM = 2**30
"""Bytes of images, depth and masks that wait in the queue at most."""
LOOK_BACK = 10
"""Diagnostics compare the books with those of so many seconds ago."""

EngineFactory = Callable[[Config], Engine]


class Motion4DNode(LifecycleNode):
    """The node. `engine_factory` is there for tests. Raises `Motion4DError` when its parameters are refused."""

    def __init__(self, name: str = "motion4d", *, engine_factory: EngineFactory = make_engine, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._engine_factory = engine_factory
        self.config = Config()
        self.engine: Engine | None = None
        self.outputs: Outputs | None = None
        self.inputs: Inputs | None = None
        self.worker: Worker | None = None
        self.queue: FrameQueue[ImageGroup] = FrameQueue(1)
        self._calibrations, self._depth_calibrations = Calibrations(), Calibrations()
        self._transforms: TransformSource | None = None
        self.builder: FrameBuilder | None = None
        self._meters = Meters()
        self._before = Health()
        self.watch, self._freed = Watch(self.get_logger().error), FreedMemory()
        self.hopeless = False  # whether only a new process helps
        self._broken: Engine | None = None  # was interrupted in mid-work: only its ids count
        self._jumped_at = float("-inf")
        self._activated_at = 0.0
        self._books: deque[Counts] = deque(maxlen=LOOK_BACK)
        self._log = SparseLog(self.get_logger().warning)
        self._prompting: Prompting | None = None
        self.parameters = Parameters(self, lambda: self.engine is not None)
        for text in self.parameters.unknown:
            self.get_logger().warning(f"unknown parameter {text}: ignored")
        self.add_post_set_parameters_callback(self._on_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        fixed = self.parameters.read()
        root = SaveRoot(fixed.ros.save_root, fixed.ros.save_room)
        self._offered = Services(self, lambda: self.worker, root)
        name = self.get_fully_qualified_name()
        self._checkpoints = Checkpoints(fixed.run.checkpoint, root, name, self._log)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # /clock may stand still, jump, or be a stranger's
        self.create_timer(1.0, surviving(self._every_second, self._log), clock=self._steady)
        self._status_timer: Any = None

    # --- lifecycle --------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the parameters, makes the engine and the publishers."""
        return self._transition(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and starts the worker."""
        result = super().on_activate(state)
        return self._transition(self._activate) if result == TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes and stops the worker, within `STOP_S`."""
        self._transition(self._deactivate)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets engine and publishers go."""
        return self._transition(self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Everything down, from any state."""
        return self._transition(self.take_down)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed: back to unconfigured."""
        return self._transition(self.take_down)

    def _transition(self, action: Callable[[], None]) -> TransitionCallbackReturn:
        """`rclpy` swallows exceptions of transitions; here they are said."""
        try:
            action()
        except Motion4DError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(f"transition failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        config = self.parameters.read()
        extrinsic = base_to_camera(config)
        self.config = config
        self._transforms = transforms_for(self, config, extrinsic)
        try:
            with told(self._tell):  # kernels may be compiled now, for minutes
                if config.ros.preset == "auto":
                    say = self.get_logger().info
                    self.config, self.engine = with_best_outliner(config, self._engine_factory, say, "preset: none")
                else:
                    self.engine = self._engine_factory(config)
                self._checkpoints.resume(self.engine)
            ros = config.ros
            self.outputs = Outputs(self, publish_tf=ros.publish_tf, trail=ros.trail, rerun=ros.rerun)
        except Exception:
            self._cleanup()
            raise
        backend = choose_backend()
        self.builder = FrameBuilder(
            config,
            self._calibrations,
            backend,
            lookup=self._transforms.lookup if self._transforms else None,
            base_to_camera=extrinsic,
            depth_calibrations=self._depth_calibrations,
            give_up=lambda: self.worker is None or self.worker.stopping,
            note=self._log,
        )
        self.get_logger().info(
            f"configured: images by {backend.name}, synchroniser {installed_classes()[0]}, "
            f"TF {'tf2_ros' if have_tf2() else 'not installed'}"
        )

    def _activate(self) -> None:
        assert self.builder is not None
        if self.engine is None:  # the last worker had to be interrupted
            self.engine = renewed(self._broken, lambda: self._engine_factory(self.config))
            self._broken = None
        elif self.engine.status().frames:
            self.engine.reset("activated again")  # what moved meanwhile was not seen
        self._before = copy.deepcopy(self.engine.status())
        self._meters = Meters()
        self._books.clear()
        calibrations = (self._calibrations, self._depth_calibrations)
        for calibration in calibrations:
            calibration.clear()
        self.builder.start()
        self.watch.begin()
        self._jumped_at = float("-inf")
        self._activated_at = time.monotonic()
        self.queue = FrameQueue(self.config.budget.queue_size, ROOM, lambda group: group.bytes)
        self._start_worker()
        self.inputs = Inputs(self, self.config, self.queue, calibrations, self._meters, self._log, self._active)
        self._prompting = Prompting(self, lambda: self.worker, lambda: self.map_frame, self._log)
        period = self.config.ros.status_period
        self._status_timer = self.create_timer(period, surviving(self._publish_status, self._log), clock=self._steady)
        topics = ", ".join(f"{name} {topic}" for name, topic in self.inputs.topics.items())
        self.get_logger().info(f"active: {topics}; mode {self.config.budget.mode}")

    def _start_worker(self, report: WorkerReport | None = None) -> None:
        assert self.engine is not None and self.builder is not None
        calibrations, builder = self._calibrations, self.builder
        worker = Worker(
            self.engine, self.config, self.queue, builder.build, self._deliver, self._log,
            hooks=WorkerHooks(lambda: calibrations.ready, self._after_reset, self._wanted), report=report,
        )  # fmt: skip
        worker.start()
        self.worker = worker  # only now: a worker that does not run yet looks dead to the watch

    def _deactivate(self) -> None:
        if self._status_timer is not None:
            self.destroy_timer(self._status_timer)
            self._status_timer = None
        if self.inputs is not None:
            self.inputs.close()
        if self._prompting is not None:
            self._prompting.close()
            self._prompting = None
        if self.worker is not None and not self.worker.stop(STOP_S):
            self._broken, self.engine = self.worker.engine, None  # interrupted in mid-window: not to be trusted
            self.worker.leave()
            if self.worker.alive:
                self.get_logger().error(f"the worker did not end within {STOP_S:g} s: left behind")
        self.queue.abandon("deactivated")
        self.queue.clear("deactivated")
        if self.outputs is not None and self.worker is not None:
            self._publish_status()
        self.worker = None
        self.inputs = None
        forget_destroyed(self)

    def _cleanup(self) -> None:
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None
        if self.outputs is not None:
            self.outputs.destroy()
            self.outputs = None
        self.engine = None
        self.builder = None

    def take_down(self) -> None:
        """Ends worker, engine, subscriptions and publishers, in whatever state the node is."""
        self._deactivate()
        self._cleanup()
        if not self.hopeless:
            self._checkpoints.end()

    def autostart(self) -> bool:
        """Configures and activates; whether it worked."""
        done = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        return done and self.trigger_activate() == TransitionCallbackReturn.SUCCESS

    # --- estimates out (worker's thread) ----------------------------------------------------------------------------

    def _deliver(self, estimate: Estimate, context: FrameContext | None) -> None:
        if self.outputs is None or self.worker is None or self.builder is None or self.worker.stopping:
            return
        self.outputs.publish_estimate(estimate, context, self.map_frame, self.worker.engine)
        age_s = (self.get_clock().now().nanoseconds - estimate.stamp_ns) * 1e-9
        since_arrival_s = time.monotonic() - context.arrival_s if context else float("inf")
        self._meters.published(estimate.stage, age_s, since_arrival_s)

    def _wanted(self) -> Wanted:
        return Wanted() if self.outputs is None else self.outputs.wanted()

    def _after_reset(self, jumped: bool) -> None:
        if jumped:
            self._jumped_at = time.monotonic()
            if self._transforms is not None:
                self._transforms.clear()
        self._checkpoints.scene_over()
        if self.outputs is not None:
            self.outputs.clear()

    def _active(self) -> tuple[FrameBuilder, Worker] | None:
        return None if self.builder is None or self.worker is None else (self.builder, self.worker)

    @property
    def map_frame(self) -> str:
        """Frame in which the outputs are expressed."""
        return self.builder.map_frame if self.builder is not None else (self.config.ros.map_frame or "map")

    # --- books ------------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """The engine's counters, as of the worker's last step."""
        return self.worker.health if self.worker is not None else Health()

    def _publish_status(self) -> None:
        if self.outputs is None:
            return
        health = self.health()
        head = messages.header(self.get_clock().now().nanoseconds, self.map_frame)
        uptime = time.monotonic() - self._activated_at
        books = status_message(head, self.queue.counts(), self._meters, health, self._before, uptime)
        self.outputs.publish_status(books)
        worker, outputs, windows = self.worker, self.outputs, health.windows
        if worker is not None and worker.newest is not None and outputs.static_is_due(windows):
            newest = worker.newest
            worker.submit(lambda engine: outputs.publish_static(engine, newest, self.map_frame, windows))

    def _every_second(self) -> None:
        self._watch_worker()
        self._checkpoints.look(self.worker)
        self._freed.look()
        snapshot = self.snapshot()
        if self.inputs is not None and snapshot.image_age_s > max(snapshot.silence_s, PARTNER_S):
            self.inputs.give_up_waiting()
        head = messages.header(self.get_clock().now().nanoseconds, "")
        state, findings = self._state_machine.current_state[1], assess(snapshot)
        self._diagnostics.publish(diagnostic_array(head, self.get_name(), state, snapshot, findings))
        if self.outputs is not None:
            self.outputs.show_findings(findings)
        self._books.append(snapshot.counts)

    def snapshot(self) -> Snapshot:
        """What the node knows of itself now."""
        worker, inputs, now = self.worker, self.inputs, time.monotonic()
        counts = self.queue.counts()
        snapshot = Snapshot(
            active=worker is not None and inputs is not None,
            since_activation_s=now - self._activated_at,
            silence_s=float(self.get_parameter("silence").value),
            counts=counts,
            counts_before=self._books[0] if self._books else Counts(),
            image_age_s=now - self._meters.newest_arrival_s,
            has_camera=self._calibrations.ready,
            jump_age_s=now - self._jumped_at,
            restarts=self.watch.restarts,
            rate_hz=self._meters.rate_hz,
            lacks_tf2=self.outputs is not None and self.outputs.lacks_tf2,
            unknown_parameters=tuple(self.parameters.unknown),
            health=self.health(),
        )
        own = (self.get_name(), self.get_namespace())
        snapshot.namesakes = max(0, self.get_node_names_and_namespaces().count(own) - 1)
        if worker is not None and inputs is not None:
            report = worker.report
            snapshot.image_topic, snapshot.image_publishers = inputs.topics["image"], inputs.publishers
            snapshot.camera_problem, snapshot.missing_inputs = inputs.camera_problem, inputs.missing()
            snapshot.silent_inputs = inputs.silent(snapshot.silence_s)
            if snapshot.image_age_s > snapshot.silence_s or snapshot.missing_inputs:  # in trouble only
                snapshot.wrong_types = inputs.wrong_types()
            snapshot.qos_problem, snapshot.tf_problem = inputs.qos_problem, report.tf_problem
            snapshot.last_rejection = report.last_rejection or inputs.last_rejection
            snapshot.processed_age_s, snapshot.oom_age_s = now - report.processed_at, now - report.oom_at
            snapshot.camera_changed_age_s = now - report.reset_at.get(CAMERA_CHANGED, float("-inf"))
            snapshot.camera_lost_age_s = now - report.reset_at.get(CAMERA_LOST, float("-inf"))
            snapshot.exception_age_s, snapshot.last_exception = now - report.exception_at, report.last_exception
            snapshot.worker_alive = worker.alive
            if self.builder is not None:
                snapshot.misfits = tuple(filter(None, self.builder.misfits.values()))
                snapshot.misfit_age_s = now - self.builder.misfit_at
            times = list(inputs.callback_seconds) or [0.0]
            snapshot.callback_p50_s, snapshot.callback_p99_s = np.percentile(times, [50, 99]).tolist()
        if self._prompting is not None:
            snapshot.prompt_problem = self._prompting.problem
            snapshot.prompt_problem_age_s = now - self._prompting.problem_at
        return snapshot

    def _watch_worker(self) -> None:
        """Replaces a worker that died, and one that hangs."""
        worker = self.worker
        if worker is None:
            return
        verdict = self.watch.look(worker, self.config.ros.watchdog)
        if not worker.alive:
            self.queue.abandon("worker died")
        if verdict is Verdict.FINE:
            return
        if verdict is Verdict.HOPELESS:
            self.get_logger().fatal("too many workers hang: only a new process helps (respawn:=true starts one)")
            self.hopeless = True
        try:
            replace = revived if verdict is Verdict.REPLACE else renewed
            with told(self._tell):
                self.engine = replace(worker.engine, lambda: self._engine_factory(self.config))
            self._after_reset(jumped=False)
        except Exception as error:
            self.get_logger().error(f"no new engine: {error}")
            return
        self._start_worker(worker.report)

    def _on_parameters(self, parameters: Sequence[Any]) -> None:
        """Live parameters take effect at once; others were refused while configured."""
        fresh = self.parameters.live(parameters)
        if not fresh:
            return
        for path, value in fresh.items():
            put(self.config, path, value)
            if self.engine is not None:  # the engine has a copy of its own; setting one number is atomic
                put(self.engine.config, path, value)
        if self.outputs is not None:
            self.outputs.set_publish_tf(self.config.ros.publish_tf)
            self.outputs.set_trail(self.config.ros.trail)

    def _tell(self, level: int, text: str) -> None:
        """A line of a module of ours, in the node's log."""
        if level >= logging.WARNING:
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)
