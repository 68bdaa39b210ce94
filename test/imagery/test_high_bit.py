"""Pictures of more than 8 bits: what is seen stays seen, and nothing flickers."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from motion4d_ros.imagery.backends import RosbagsBackend
from motion4d_ros.imagery.conversions import high_bit_samples, is_grey_picture, read_rgb
from motion4d_ros.imagery.high_bit import Levels

GREY = np.tile(np.linspace(10, 240, 64), (48, 1))


def mono16(values: np.ndarray, encoding: str = "mono16") -> SimpleNamespace:
    data = np.rint(values).astype(np.uint16)
    return SimpleNamespace(height=48, width=64, encoding=encoding, is_bigendian=0, step=128, data=data.tobytes())


def shown(values: np.ndarray, levels: Levels) -> np.ndarray:
    return levels.to_8_bits(np.rint(values).astype(np.uint16), grey=True)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_converter_of_few_bits_fills_the_picture(bits: int) -> None:
    got = shown(GREY * (2**bits - 1) / 255, Levels())
    assert np.abs(got - GREY).max() <= 1


def test_a_thermal_camera_is_seen() -> None:
    got = shown(7200 + 2 * GREY, Levels()).astype(float)
    assert got.min() < 30 and got.max() > 225
    assert np.abs(np.corrcoef(got.ravel(), GREY.ravel())[0, 1]) > 0.999


def test_the_same_value_is_the_same_grey_in_every_picture() -> None:
    levels = Levels()
    first = shown(7200 + 2 * GREY, levels)
    for low, high in ((60, 70), (100, 200), (10, 240)):  # other things in view, within what was seen
        picture = 7200 + 2 * np.clip(GREY, low, high)
        inside = (low <= GREY) & (high >= GREY)
        assert np.array_equal(shown(picture, levels)[inside], first[inside])
    assert levels.span is not None and "are shown as black to white" in levels.text


def test_the_range_widens_and_never_narrows() -> None:
    levels = Levels()
    shown(7200 + 2 * GREY, levels)
    low, _ = levels.span
    shown(7500 + 2 * GREY, levels)
    assert levels.span[0] == low and levels.span[1] > 7500 + 2 * 240
    wide = levels.span
    shown(7300 + 0.1 * GREY, levels)
    assert levels.span == wide


def test_a_primed_range_never_moves() -> None:
    levels = Levels()
    pictures = [np.rint(7000 + 100 * k + 2 * GREY).astype(np.uint16) for k in range(5)]
    levels.prime(pictures, grey=True)
    span = levels.span
    for picture in pictures:
        levels.to_8_bits(picture, grey=True)
    assert levels.span == span


def test_a_covered_lens_chooses_nothing() -> None:
    levels = Levels()
    assert shown(np.full((48, 64), 7200), levels).shape == (48, 64)
    assert levels.span is None
    assert np.ptp(shown(7200 + 2 * GREY, levels)) > 190


def test_a_defective_pixel_chooses_nothing() -> None:
    values = 7200 + 2 * GREY
    values[7, 9] = 16000
    assert np.ptp(shown(values, Levels())) > 190


def test_colours_keep_their_balance() -> None:
    colours = np.stack([GREY, 0.5 * GREY, 0.25 * GREY], -1)
    got = Levels().to_8_bits(np.rint(colours * 3).astype(np.uint16), grey=False).astype(float)
    for channel, share in ((1, 0.5), (2, 0.25)):
        assert np.allclose(got[..., channel], share * got[..., 0], atol=1.5)


def test_messages_share_the_levels_of_their_topic() -> None:
    levels, backend = Levels(), RosbagsBackend()
    message = mono16(7200 + 2 * GREY)
    png = cv2.imencode(".png", high_bit_samples(message))[1].tobytes()
    compressed = SimpleNamespace(format="mono16; png compressed ", data=png)
    assert is_grey_picture(message) and is_grey_picture(compressed)
    got = read_rgb(message, backend, levels)
    assert np.array_equal(read_rgb(compressed, backend, levels), got)
    assert np.array_equal(got[..., 0], shown(7200 + 2 * GREY, levels)) and np.array_equal(got[..., 0], got[..., 2])
    assert high_bit_samples(SimpleNamespace(format="png", data=cv2.imencode(".png", GREY)[1].tobytes())) is None
