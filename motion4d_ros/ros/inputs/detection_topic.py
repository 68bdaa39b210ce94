"""The topic on which detectors speak to the node. No image waits for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from motion4d_ros.imagery.validation import Rejection, check_header
from motion4d_ros.ros.engine import Engine
from motion4d_ros.ros.inputs.detections import message_type
from motion4d_ros.ros.inputs.frames import FrameBuilder
from motion4d_ros.ros.work.worker import Worker

Active = Callable[[], tuple[FrameBuilder, Worker] | None]
"""What builds the frames of the active node and who owns its engine; None while it is not active."""

MOST_BOXES = 10_000
"""Of one message; of an image the best hundred are used."""


class Detecting:
    """Subscribes to `detections` where `vision_msgs` is there; hands what comes late to the engine."""

    def __init__(self, topic: str, active: Active, subscribe: Callable[..., Any], note: Callable[[str], None]) -> None:
        """`subscribe(type, topic, callback)` makes a subscription, `note` writes a line on what was refused."""
        self.topic = topic
        self._active, self._note = active, note
        self._submitted = False
        kind = message_type()
        if kind is not None:
            subscribe(kind, self.topic, self.on_message)

    def on_message(self, message: Any) -> None:
        """Keeps the message for its image, and has the worker look whether that has come already."""
        try:
            stamp_ns = check_header(message.header, "detections")
            if len(message.detections) > MOST_BOXES:
                raise Rejection("detections", f"detections: {len(message.detections)} boxes, at most {MOST_BOXES}")
        except Rejection as error:
            self._note(f"detections rejected: {error}")
            return
        active = self._active()
        if active is None:
            return
        builder, worker = active
        builder.detections.put(stamp_ns, message)
        if not self._submitted:  # one job for all that has come until it runs: a flood of messages is no flood of jobs
            self._submitted = True
            worker.submit(self._late).add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        self._submitted = False  # also where the worker died before it came to it

    def _late(self, engine: Engine) -> None:
        """In the worker: hands over what belongs to images that have been taken in already."""
        self._submitted = False
        active = self._active()
        if active is None:
            return
        builder, worker = active
        newest = worker.newest
        context = None if newest is None else worker.contexts.get(newest.index)
        if newest is None or context is None:
            return
        waiting = builder.detections
        for stamp_ns, message in waiting.take_until(newest.stamp_ns):
            if not engine.detect(stamp_ns, waiting.read(message, context.rectifier)):
                waiting.left_out["of stamps that no fitted image has"] += 1
        builder.say_misfit("detections", waiting.oddity)
