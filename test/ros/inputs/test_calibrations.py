"""Calibrations that change with every image, as those of lenses that adjust themselves, or a stranger's."""

from __future__ import annotations

import numpy as np
from harness import camera_info

from motion4d_ros.ros.inputs.frames import MOST_WITH_MAPS, Calibrations


def test_only_the_newest_hold_maps_of_the_size_of_images() -> None:
    calibrations, image = Calibrations(), np.zeros((48, 64, 3), np.uint8)
    used = []
    for number in range(40):
        message = camera_info(10**9 + number)
        message.d = [0.1 + 1e-3 * number, 0.0, 0.0, 0.0, 0.0]
        calibrations.add(message)
        used.append(calibrations.find(10**9 + number, 64, 48))
        used[-1].rectify(image)
        used[-1].unrectify(image)
    for one in used[::5]:  # as outputs do, of frames that have been fitted meanwhile
        one.unrectify(image)
    holding = [one for one in used if one._to_rectified is not None or one._to_raw is not None]
    assert len(set(map(id, used))) == 40 and len(holding) <= MOST_WITH_MAPS
