"""What the engine counts and has found out about itself, from where that is known."""

from __future__ import annotations

from motion4d_ros.fit.frontend.intake import Intake
from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.window.realtime_scheduler import RealtimeScheduler
from motion4d_ros.objects.tracker import ObjectTracker
from motion4d_ros.priors.guarded import trouble_now, troubles
from motion4d_ros.types import Health


def update_health(
    health: Health, mapper: Mapper, intake: Intake, tracker: ObjectTracker, scheduler: RealtimeScheduler
) -> None:
    """Brings up to date what the parts of the engine know better than its counters."""
    scene = mapper.scene
    moving = int(scene.dynamic.sum())
    health.gaussians_dynamic, health.gaussians_static = moving, scene.count - moving
    health.bases = scene.bases.count
    health.objects = len(scene.objects())
    health.stride = scheduler.stride
    health.scale, health.pose_status = intake.scale, intake.pose_status
    health.doubt = intake.watch.doubt
    health.warnings.update(intake.watch.told)
    health.live_consistency, health.live_inconsistent = tracker.consistency.told, tracker.consistency.outside_band
    sources = intake.depths, intake.masks, intake.detector
    health.warnings.update(troubles(*sources))
    health.trouble = "; ".join(trouble_now(*sources))
    health.stage_seconds = dict(mapper.seconds) | {"intake": intake.seconds}
    health.raster_seconds = mapper.trainer.raster_seconds
