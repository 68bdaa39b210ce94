"""Nothing that hangs from the node grows while frames, prompts, calls and strangers come and go."""

from __future__ import annotations

from collections.abc import Callable

from engine_double import DoubleEngine
from harness import Harness
from held import Held, grown, held
from motion4d_ros.msg import ObjectPrompt
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger

OK = TransitionCallbackReturn.SUCCESS
ROUND = 40  # frames
SETTLED, LONG = 4, 12  # rounds


def a_round(h: Harness, number: int) -> None:
    """Deactivated and activated, then frames, a late and a senseless one, a prompt, a call, a parameter, a listener."""
    inputs = [h.publisher("camera/image_raw"), h.publisher("camera/camera_info", CameraInfo)]
    assert h.node.trigger_deactivate() == OK
    assert h.until(lambda: not any(each.get_subscription_count() for each in inputs))
    assert h.node.trigger_activate() == OK
    assert h.until(lambda: all(each.get_subscription_count() for each in inputs))
    start_ns = 10**10 * (number + 1)
    guest = h.tester.create_subscription(PointCloud2, h.topic("tracked_points"), lambda m: None, 10)
    stamps = h.stream(ROUND, start_ns=start_ns, pace_s=0.002)
    h.send(stamps[0], info=False)  # late
    h.publisher("prompt", ObjectPrompt).publish(ObjectPrompt(object_id=number + 1, name=f"thing {number}"))
    h.publisher("camera/image_raw").publish(Image(width=9, height=9, encoding=f"no{number}"))
    h.node.set_parameters([Parameter("trail", value=5 + number % 2)])
    h.tester.destroy_subscription(guest)
    assert h.call(Trigger, "refine", Trigger.Request()) is not None
    h.settled(ROUND + 2)


def test_nothing_that_hangs_from_the_node_grows(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"masks.source": "none", "depth.source": "none", "budget.queue_size": 100})
    h.connect()
    after: dict[int, list[Held]] = {SETTLED: [], LONG: []}
    for number in range(LONG):
        a_round(h, number)
        for rounds, found in after.items():
            if rounds - 2 <= number < rounds:
                found.append(held(h.node, "node", skip=(DoubleEngine, Harness), short=True))
    more = grown(after[SETTLED], after[LONG])
    assert not more, more
