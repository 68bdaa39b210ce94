"""Images in: right pixels from every legal encoding, a `Rejection` (never anything else) from everything illegal."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motion4d_ros.imagery import backends
from motion4d_ros.imagery.backends import RosbagsBackend, choose_backend
from motion4d_ros.imagery.conversions import (
    depth_from_compressed,
    depth_from_image,
    labels_from_image,
    metres,
    object_ids,
    read_labels,
    rgb_from_compressed,
    rgb_from_image,
    samples,
)
from motion4d_ros.imagery.encodings import find_encoding
from motion4d_ros.imagery.validation import (
    ENCODINGS,
    Rejection,
    check_compressed,
    check_image,
    check_picture,
    encoded_size,
)
from motion4d_ros.imagery.yuv import YUV_LAYOUTS

BACKEND = RosbagsBackend()
W, H = 32, 24
SMOOTH = np.stack(np.meshgrid(np.linspace(20, 230, W), np.linspace(30, 220, H)), -1)
RGB = np.concatenate([SMOOTH, SMOOTH.mean(-1, keepdims=True)], -1).astype(np.uint8)


def message(data: np.ndarray, encoding: str, *, pad: int = 0, big: bool = False) -> Any:
    """An image message of `data` (rows, …), with `pad` bytes after each row."""
    if big:
        data = data.byteswap()
    rows = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8).reshape(len(data), -1)
    step = rows.shape[1] + pad
    # rows of colour are half or twice as long in some layouts, and so is their padding
    share = {"i420": 0.5, "yv12": 0.5, "nv24": 2.0, "nv42": 2.0}.get(encoding, 1.0)
    colour = rows[H:].reshape(-1, round(rows.shape[1] * share))
    padded = [np.pad(rows[:H], ((0, 0), (0, pad)), constant_values=77).tobytes()]
    padded.append(np.pad(colour, ((0, 0), (0, round(pad * share))), constant_values=77).tobytes())
    return SimpleNamespace(
        height=H, width=W, encoding=encoding, is_bigendian=int(big), step=step, data=b"".join(padded)
    )


def encode(encoding: str) -> np.ndarray:
    """`RGB` the way a camera driver would send it."""
    wide = RGB.astype(np.uint16) * 257
    grey = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
    kinds = {
        "rgb8": RGB, "bgr8": RGB[..., ::-1], "8UC3": RGB[..., ::-1], "rgb16": wide, "bgr16": wide[..., ::-1],
        "16UC3": wide[..., ::-1], "mono8": grey, "8UC1": grey, "mono16": grey.astype(np.uint16) * 257,
        "16UC1": grey.astype(np.uint16) * 257,
    }  # fmt: skip
    if encoding in kinds:
        return kinds[encoding]
    if encoding in ("rgba8", "bgra8", "8UC4", "rgba16", "bgra16", "16UC4"):
        base = wide if "16" in encoding else RGB
        base = base if encoding.startswith("rgba") else base[..., ::-1]
        return np.concatenate([base, np.full((H, W, 1), 9, base.dtype)], -1)
    if encoding.startswith("bayer"):
        out = np.zeros((H, W), np.uint8)
        for number, letter in enumerate(encoding.split("_")[1][:4]):
            y, x = divmod(number, 2)
            out[y::2, x::2] = RGB[y::2, x::2, "rgb".index(letter)]
        return out if encoding.endswith("8") else out.astype(np.uint16) * 257
    if encoding in ("nv16", "nv61", "nv24", "nv42"):
        return encode_planes(encoding)
    if encoding in ("i420", "yv12"):
        planar = cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_I420)
        u, v = planar[H : H + H // 4], planar[H + H // 4 :]
        return planar if encoding == "i420" else np.concatenate([planar[:H], v, u])
    if encoding in ("nv12", "nv21"):
        planar = cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_I420)
        u = planar[H : H + H // 4].reshape(-1)
        v = planar[H + H // 4 :].reshape(-1)
        pairs = np.stack([u, v] if encoding == "nv12" else [v, u], -1).reshape(H // 2, W)
        return np.concatenate([planar[:H], pairs])
    yuv = cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_I420)
    y = yuv[:H]
    u, v = (yuv[a:b].reshape(H // 2, W // 2).repeat(2, 0) for a, b in ((H, H + H // 4), (H + H // 4, None)))
    out = np.zeros((H, W, 2), np.uint8)
    luma, chroma = (0, 1) if encoding in ("yuyv", "yuv422_yuy2", "yvyu") else (1, 0)
    out[..., luma] = y
    first, second = (v, u) if encoding in ("yvyu", "vyuy") else (u, v)
    out[:, 0::2, chroma], out[:, 1::2, chroma] = first, second
    return out


def encode_planes(encoding: str) -> np.ndarray:
    """Brightness, then colour in pairs at full height, by the definition of BT.601 in video range."""
    r, g, b = (RGB[..., k].astype(float) for k in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    if encoding in ("nv16", "nv61"):
        u, v = (plane.reshape(H, W // 2, 2).mean(2) for plane in (u, v))
    pairs = np.stack([u, v] if encoding in ("nv16", "nv24") else [v, u], -1).reshape(-1, W)
    return np.rint(np.concatenate([y, pairs])).astype(np.uint8)


@pytest.mark.parametrize("pad", [0, 12])
@pytest.mark.parametrize("encoding", [name for name, item in ENCODINGS.items() if item.colour])
def test_every_colour_encoding_gives_the_picture_back(encoding: str, pad: int) -> None:
    data = encode(encoding)
    got = rgb_from_image(message(data, encoding, pad=pad), BACKEND)
    grey = ENCODINGS[encoding].colour.startswith("mono")
    want = cv2.cvtColor(cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) if grey else RGB
    inner = (slice(2, -2), slice(2, -2))  # borders of a Bayer image are guesses
    error = np.abs(got[inner].astype(int) - want[inner].astype(int))
    colour = ENCODINGS[encoding].colour.split("_")[0]
    tolerance = 14 if colour == "bayer" else 8 if colour in YUV_LAYOUTS else 1  # interpolated or subsampled colour
    assert error.max() <= tolerance
    if data.dtype == np.uint16:
        assert np.array_equal(rgb_from_image(message(data, encoding, pad=pad, big=True), BACKEND), got)


def test_the_chosen_backend_is_healthy() -> None:
    assert backends.backend_is_healthy(choose_backend())


def test_a_backend_that_swaps_colours_is_not_trusted() -> None:
    class Swapped(RosbagsBackend):
        def to_rgb8(self, image: backends.TightImage) -> np.ndarray:
            return super().to_rgb8(image)[..., ::-1]

    assert not backends.backend_is_healthy(Swapped())


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["rgb8", "mono8", "16UC1", "32FC1", "bgra8"]),
    st.integers(0, 5),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_padding_and_byte_order(height: int, width: int, name: str, pad: int, big: bool) -> None:
    encoding = ENCODINGS[name]
    values = np.random.default_rng(0).integers(0, 200, (height, width, encoding.channels)).astype(encoding.dtype)
    image = message(values, name, pad=pad, big=big)
    image.height, image.width = height, width
    got = samples(image, encoding)
    assert np.array_equal(got.reshape(values.shape), values) and got.dtype.isnative
    image.data = image.data[: len(image.data) - pad]  # the last row may come without its padding
    assert np.array_equal(samples(image, encoding), got)


def test_a_last_row_without_padding_is_no_truncation() -> None:
    image = message(RGB, "rgb8", pad=5)
    image.data = image.data[:-5]
    assert np.array_equal(rgb_from_image(image, BACKEND), RGB)
    image.data = image.data[:-1]
    with pytest.raises(Rejection, match="truncated"):
        rgb_from_image(image, BACKEND)


@pytest.mark.parametrize("pad", [0, 6])
@pytest.mark.parametrize("big", [False, True])
def test_depth_in_millimetres_and_metres(pad: int, big: bool) -> None:
    metres = np.linspace(0.5, 4.0, W * H, dtype=np.float32).reshape(H, W)
    metres[0, :3] = (np.nan, np.inf, -1.0)
    got = depth_from_image(message(metres, "32FC1", pad=pad, big=big))
    assert np.array_equal(got[1:], metres[1:]) and not got[0, :3].any()
    millimetres = (np.nan_to_num(metres, posinf=0).clip(0) * 1000).astype(np.uint16)
    got = depth_from_image(message(millimetres, "16UC1", pad=pad, big=big))
    assert got.dtype == np.float32 and np.allclose(got[1:], metres[1:], atol=1e-3)


def test_what_a_depth_camera_does_not_know_is_zero() -> None:
    assert np.allclose(metres(np.array([[1500, 0, 65535]], np.uint16)), [[1.5, 0, 0]])
    odd = np.array([[1.5, np.nan, np.inf, -np.inf, -1.0, 0.0]], np.float32)
    assert np.allclose(metres(odd), [[1.5, 0, 0, 0, 0, 0]])
    assert np.isnan(odd[0, 1])  # the input is left alone
    with pytest.raises(Rejection, match="16UC1"):
        depth_from_image(message(RGB[..., 0], "mono8"))


def test_ids_that_mean_nothing() -> None:
    assert object_ids(np.array([[-1, 4]], np.int16)).tolist() == [[-1, 4]]
    for bad in (-2, 70_000):
        with pytest.raises(Rejection, match="negative or larger"):
            object_ids(np.array([[bad]], np.int32))


def test_compressed_labels() -> None:
    ids = np.zeros((H, W), np.uint16)
    ids[3:9, 4:8] = 300
    got = read_labels(SimpleNamespace(format="16UC1; png compressed ", data=cv2.imencode(".png", ids)[1].tobytes()))
    assert got.dtype == np.int32 and np.array_equal(got, ids)
    with pytest.raises(Rejection, match="one channel"):
        read_labels(SimpleNamespace(format="png", data=cv2.imencode(".png", RGB)[1].tobytes()))


def test_labels_in_one_two_and_four_bytes() -> None:
    ids = np.zeros((H, W), np.uint16)
    ids[3:9, 4:8] = 300
    assert np.array_equal(labels_from_image(message(ids, "16UC1", pad=2, big=True)), ids)
    assert labels_from_image(message((ids > 0).astype(np.uint8), "mono8")).max() == 1
    assert labels_from_image(message(ids.astype(np.int32) - 1, "32SC1")).min() == -1
    for data, encoding in ((ids.astype(np.float32), "32FC1"), (RGB, "rgb8"), (ids.astype(np.int32) - 5, "32SC1")):
        with pytest.raises(Rejection):
            labels_from_image(message(data, encoding))


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_compressed_colour_and_grey(kind: str) -> None:
    for pixels in (RGB[..., ::-1], cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)):
        data = cv2.imencode(kind, pixels)[1].tobytes()
        assert encoded_size(data) == (W, H)
        got = rgb_from_compressed(SimpleNamespace(format=kind[1:], data=data))
        want = pixels[..., ::-1] if pixels.ndim == 3 else np.stack([pixels] * 3, -1)
        assert np.abs(got.astype(int) - want.astype(int)).mean() < (4 if kind == ".jpg" else 0.01)


def test_compressed_colour_of_16_bits_or_with_transparency() -> None:
    wide = cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    alpha = np.concatenate([RGB[..., ::-1], np.full((H, W, 1), 9, np.uint8)], -1)
    for data in (wide, cv2.imencode(".png", alpha)[1].tobytes()):
        got = rgb_from_compressed(SimpleNamespace(format="png", data=data))
        assert np.abs(got.astype(int) - RGB.astype(int)).max() <= 1


def test_compressed_depth() -> None:
    metres = np.linspace(0.5, 4.0, W * H).reshape(H, W)
    png = cv2.imencode(".png", (metres * 1000).astype(np.uint16))[1].tobytes()
    header = struct.pack("<iff", 0, 0.0, 0.0)
    got = depth_from_compressed(SimpleNamespace(format="16UC1; compressedDepth png", data=header + png))
    assert np.allclose(got, metres, atol=2e-3)
    a, b = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
    inverse = (a / metres + b).clip(0, 65535).astype(np.uint16)
    data = struct.pack("<iff", 0, a, b) + cv2.imencode(".png", inverse)[1].tobytes()
    got = depth_from_compressed(SimpleNamespace(format="32FC1; compressedDepth png", data=data))
    assert np.allclose(got, metres, rtol=2e-3)
    got = depth_from_compressed(SimpleNamespace(format="16UC1; png compressed ", data=png))
    assert np.allclose(got, metres, atol=2e-3)
    with pytest.raises(Rejection, match="RVL"):
        depth_from_compressed(SimpleNamespace(format="16UC1; compressedDepth rvl", data=header + png))


def test_a_picture_bomb_is_refused_before_it_is_unpacked() -> None:
    png = bytearray(cv2.imencode(".png", RGB)[1].tobytes())
    png[16:24] = struct.pack(">II", 60000, 60000)
    with pytest.raises(Rejection, match="absurd"):
        rgb_from_compressed(SimpleNamespace(format="png", data=bytes(png)))
    small = bytearray(cv2.imencode(".png", RGB)[1].tobytes())
    small[small.index(b"IDAT") - 4] = 0x7F  # a chunk of two gigabytes
    with pytest.raises(Rejection, match="damaged"):
        rgb_from_compressed(SimpleNamespace(format="png", data=bytes(small)))
    png[16:24] = struct.pack(">II", 7000, 7000)  # possible, but not beside an image of another size
    with pytest.raises(Rejection, match="too large"):
        depth_from_compressed(SimpleNamespace(format="png", data=bytes(png)), most_pixels=4 * W * H)


@settings(max_examples=400, deadline=None)
@given(
    encoding=st.sampled_from([*ENCODINGS, "", "rgb9", "\x00", "RGB8"]),
    height=st.sampled_from([0, 1, 16, 24, 25, 2**31, 2**32 - 1]),
    width=st.sampled_from([0, 1, 17, 32, 2**32 - 1]),
    step=st.one_of(st.integers(0, 200), st.just(2**32 - 1)),
    size=st.integers(0, 6000),
    big=st.sampled_from([0, 1, 7]),
)
def test_malformed_images_are_rejected_and_nothing_else(
    encoding: str, height: int, width: int, step: int, size: int, big: int
) -> None:
    data = np.random.default_rng(size).bytes(size)
    image = SimpleNamespace(encoding=encoding, height=height, width=width, step=step, data=data, is_bigendian=big)
    for read in (lambda m: rgb_from_image(m, BACKEND), depth_from_image, labels_from_image, check_image):
        try:
            got = read(image)
        except Rejection as error:
            assert error.reason and str(error)
        else:
            rows = height * find_encoding(encoding).rows
            assert step * (rows - 1) < len(data) <= step * rows
            if isinstance(got, np.ndarray):
                assert got.shape[:2] == (height, width)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 900), st.lists(st.integers(0, 899), max_size=12), st.sampled_from([".jpg", ".png"]))
def test_damaged_compressed_images_are_rejected_or_read(cut: int, flips: list[int], kind: str) -> None:
    data = bytearray(cv2.imencode(kind, RGB)[1].tobytes())
    for at in flips:
        data[at % len(data)] ^= 0x5A
    damaged = SimpleNamespace(format="png", data=bytes(data[: len(data) - cut % len(data)]))
    for read in (rgb_from_compressed, depth_from_compressed):
        try:
            assert read(damaged).ndim in (2, 3)
        except Rejection as error:
            assert error.reason


NAMES = {
    "BGR8": "bgr8", "RGB8": "rgb8", "rgb": "rgb8", "bayerrg8": "bayer_rggb8", "BayerRG12": "bayer_rggb16",
    "BayerGR8": "bayer_grbg8", "bayer_gbrg12": "bayer_gbrg16", "SRGGB10": "bayer_rggb16", "Mono8": "mono8",
    "Mono12": "mono16", "y16": "mono16", "16uc1": "16UC1", "8uc3": "8UC3", "YUYV": "yuyv", "yuv420": "i420",
    "yuv422_YUY2": "yuv422_yuy2", "NV12": "nv12", "bgra": "bgra8", " rgb8 ": "rgb8",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_drivers_write_mean_the_standard_ones(name: str) -> None:
    data = encode(NAMES[name])
    got = rgb_from_image(message(data, name), BACKEND)
    assert np.array_equal(got, rgb_from_image(message(data, NAMES[name]), BACKEND))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("", "leaves it empty"), ("rgb9", "set the driver to"), ("mono12p", "packed"), ("BayerRG12Packed", "packed"),
        ("SRGGB10_CSI2P", "packed"), ("h264", "H.264.*image_transport republish"), ("hevc", "H.265"),
    ],
)  # fmt: skip
def test_encodings_that_cannot_be_read_are_refused_by_name_with_a_remedy(name: str, remedy: str) -> None:
    with pytest.raises(Rejection, match=f"{name or 'empty'}.*{remedy}|{remedy}"):
        rgb_from_image(message(RGB, name), BACKEND)


def test_data_that_does_not_fit_the_encoding_names_both() -> None:
    with pytest.raises(Rejection, match=r"768 B of data, 32x24 px nv24 .* need 2304"):
        rgb_from_image(message(RGB[..., 0], "nv24"), BACKEND)


@pytest.mark.parametrize("name", ["jpeg", "MJPEG", "png"])
def test_an_image_whose_encoding_is_a_picture_file(name: str) -> None:
    kind = ".png" if name == "png" else ".jpg"
    image = message(RGB, name)
    image.data = cv2.imencode(kind, RGB[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    assert check_picture(image) == (W, H)
    assert np.abs(rgb_from_image(image, BACKEND).astype(int) - RGB).mean() < 2
    image.data = RGB.tobytes()
    with pytest.raises(Rejection, match="no JPEG"):
        check_picture(image)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_mosaic_that_was_compressed_as_it_was(pattern: str, bits: int) -> None:
    mosaic = encode(f"bayer_{pattern}{bits}")
    inner = (slice(2, -2), slice(2, -2))
    data = cv2.imencode(".png", mosaic)[1].tobytes()
    got = rgb_from_compressed(SimpleNamespace(format=f"bayer_{pattern}{bits}; png compressed ", data=data))
    assert np.abs(got[inner].astype(int) - RGB[inner]).max() <= 14
    if bits == 8:
        for stored in (mosaic, cv2.cvtColor(mosaic, cv2.COLOR_GRAY2BGR)):  # some encoders make three channels of it
            jpeg = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 99])[1].tobytes()
            got = rgb_from_compressed(SimpleNamespace(format=f"bayer_{pattern}8; jpeg compressed ", data=jpeg))
            assert np.abs(got[inner].astype(int) - RGB[inner]).mean() < 6
    colours = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()  # somebody made colours of it before compressing
    got = rgb_from_compressed(SimpleNamespace(format=f"bayer_{pattern}8; png compressed bgr8", data=colours))
    assert np.array_equal(got, RGB)


@pytest.mark.parametrize("kind", [".webp", ".bmp", ".tiff"])
def test_rarer_picture_files(kind: str) -> None:
    data = cv2.imencode(kind, RGB[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101] if kind == ".webp" else [])[1].tobytes()
    assert encoded_size(data) == (W, H)
    assert np.array_equal(rgb_from_compressed(SimpleNamespace(format=kind[1:], data=data)), RGB)


def test_a_video_stream_is_refused_by_name() -> None:
    data = b"\0\0\0\1\x67" + bytes(40)
    for kind in ("h264", "jpeg", ""):
        with pytest.raises(Rejection, match=r"H\.264.*republish"):
            rgb_from_compressed(SimpleNamespace(format=kind, data=data))


def test_compressed_depth_without_its_header() -> None:
    millimetres = np.linspace(500, 4000, W * H).reshape(H, W).astype(np.uint16)
    png = cv2.imencode(".png", millimetres)[1].tobytes()
    got = depth_from_compressed(SimpleNamespace(format="16UC1; compressedDepth", data=png))
    assert np.allclose(got, millimetres * 1e-3)


def test_a_compressed_picture_is_no_larger_than_its_pixels() -> None:
    """Whatever follows its end would be kept while it waits for its partners."""
    image = np.zeros((48, 64, 3), np.uint8)
    content = cv2.imencode(".jpg", image)[1].tobytes()
    assert check_compressed(content + b"motion photo") == (64, 48)
    with pytest.raises(Rejection, match="B of compressed data for 64x48 px, at most"):
        check_compressed(content + bytes(5_000_000))
