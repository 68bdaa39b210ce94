"""Dense depth from flow between views with known poses, and its fusion over time. Everything in inverse depth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.smoothing import domain_transform
from motion4d_ros.types import Camera, FloatArray

IMAGE_NOISE = 1.0  # grey levels


def inverse_depth_from_flow(
    flow: FloatArray, camera: Camera, T_other_cam: FloatArray, sigma_flow: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Triangulates every pixel of a view from its `flow` (h, w, 2) into another view at `T_other_cam` (4, 4).

    `sigma_flow` (h, w) px. Returns the inverse depth w (h, w), its standard deviation, and by how much the flow leaves
    the epipolar line, px. The least-squares solution of x'(a_z + w t_z) = a_x + w t_x and likewise for y, a = R ray.
    """
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    ray = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones_like(x)], -1)
    a = ray @ T_other_cam[:3, :3].T
    t = T_other_cam[:3, 3]
    u = (x + flow[..., 0] - camera.cx) / camera.fx
    v = (y + flow[..., 1] - camera.cy) / camera.fy
    cu, cv = t[0] - u * t[2], t[1] - v * t[2]
    bu, bv = u * a[..., 2] - a[..., 0], v * a[..., 2] - a[..., 1]
    power = np.maximum(cu**2 + cv**2, 1e-18)
    w = (cu * bu + cv * bv) / power
    depth_there = a[..., 2] + w * t[2]
    across = np.abs(cu * bv - cv * bu) / np.sqrt(power) / np.maximum(np.abs(depth_there), 1e-6) * camera.fx
    sigma = sigma_flow / camera.fx * np.abs(depth_there) / np.sqrt(power)
    return w.astype(np.float32), sigma.astype(np.float32), across.astype(np.float32)


def aperture_noise(gray: NDArray[np.uint8], camera: Camera, T_other_cam: FloatArray) -> NDArray[np.float32]:
    """(h, w) px of noise that flow along the epipolar lines has because the image is flat there.

    Only detail across which the camera's motion moves a pixel tells its depth: the standard deviation is the image's
    noise over the gradient in that direction, root mean square over a patch.
    """
    height, width = gray.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    ray = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones((height, width))], -1)
    a, t = ray @ T_other_cam[:3, :3].T, T_other_cam[:3, 3]
    du, dv = t[0] * a[..., 2] - a[..., 0] * t[2], t[1] * a[..., 2] - a[..., 1] * t[2]
    length = np.maximum(np.hypot(du, dv), 1e-12)
    smooth = cv2.GaussianBlur(gray, (0, 0), 0.8).astype(np.float32)
    slope_x, slope_y = (cv2.Sobel(smooth, cv2.CV_32F, dx, dy, ksize=3, scale=1 / 8) for dx, dy in ((1, 0), (0, 1)))
    along = (slope_x * du + slope_y * dv) / length
    detail = np.sqrt(np.maximum(cv2.blur(along.astype(np.float32) ** 2, (11, 11)), 0))
    return np.asarray(IMAGE_NOISE / np.maximum(detail, 0.05), np.float32)


def splat(
    w: FloatArray, sigma: FloatArray, camera: Camera, T_new_old: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Carries an inverse-depth image (h, w) into a new view at `T_new_old` (4, 4); NaN where nothing lands.

    The nearest surface wins; holes of one pixel are closed.
    """
    height, width = w.shape
    valid = np.isfinite(w) & (w > 1e-6) & np.isfinite(sigma)
    y, x = np.nonzero(valid)
    depth = 1.0 / w[valid].astype(np.float64)
    xyz = camera.unproject(np.stack([x, y], -1).astype(float), depth) @ T_new_old[:3, :3].T + T_new_old[:3, 3]
    uv = camera.project(xyz)
    ok = np.isfinite(uv).all(1)
    column, row = np.round(np.nan_to_num(uv)).astype(int).T
    ok &= (column >= 0) & (row >= 0) & (column < width) & (row < height)
    column, row, new_w = column[ok], row[ok], 1.0 / xyz[ok, 2]
    new_sigma = sigma[valid][ok] * (new_w * depth[ok]) ** 2  # dw'/dw along the ray
    order = np.argsort(new_w)  # far first, near overwrites
    out = np.full((height, width), np.nan, np.float32)
    out_sigma = np.full((height, width), np.nan, np.float32)
    out[row[order], column[order]] = new_w[order]
    out_sigma[row[order], column[order]] = new_sigma[order]
    hole = np.isnan(out)
    if hole.any() and not hole.all():
        for image in (out, out_sigma):
            filled = cv2.medianBlur(np.nan_to_num(image), 3)
            image[hole & (filled > 0)] = filled[hole & (filled > 0)]
    return out, out_sigma


def fuse(
    w: FloatArray, sigma: FloatArray, other: FloatArray, other_sigma: FloatArray, gate: float = 3.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two inverse-depth images (h, w) into one; NaN = unknown.

    Where they agree within `gate` standard deviations: the weighted mean. Where not: the surer one, less sure.
    """
    a, b = np.isfinite(w), np.isfinite(other)
    va, vb = np.nan_to_num(sigma, nan=1e9) ** 2, np.nan_to_num(other_sigma, nan=1e9) ** 2
    wa, wb = np.nan_to_num(w), np.nan_to_num(other)
    total = va + vb
    mean, variance = (wa * vb + wb * va) / total, va * vb / total
    clash = a & b & (np.abs(wa - wb) > gate * np.sqrt(total))
    first = va <= vb
    out = np.where(a & b, np.where(clash, np.where(first, wa, wb), mean), np.where(a, wa, wb))
    spread = np.where(clash, np.minimum(va, vb) + 0.25 * (wa - wb) ** 2, variance)
    out_variance = np.where(a & b, spread, np.where(a, va, vb))
    neither = ~a & ~b
    return (
        np.where(neither, np.nan, out).astype(np.float32),
        np.where(neither, np.nan, np.sqrt(out_variance)).astype(np.float32),
    )


def fill_smoothly(image: FloatArray) -> NDArray[np.float32]:
    """`image` (h, w) with NaN replaced by a blur of what is known around; all of it must not be NaN."""
    known = np.isfinite(image)
    stack = np.dstack([np.where(known, image, 0), known]).astype(np.float32)
    small = cv2.resize(stack, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    total = np.zeros_like(stack)
    for share, reach in ((1.0, 2.0), (1e-3, 8.0), (1e-6, 40.0)):
        total += share * cv2.resize(cv2.GaussianBlur(small, (0, 0), reach), stack.shape[1::-1])
    filled = total[..., 0] / np.maximum(total[..., 1], 1e-12)
    return np.where(known, image, filled).astype(np.float32)


def densify(
    w: FloatArray, sigma: FloatArray, guide: NDArray[np.uint8], reach: float = 6.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fills and smooths an inverse-depth image (h, w) along the edges of `guide` (h, w, 3).

    Precision-weighted domain transforms of growing reach: a pixel is filled from as near as something is known. The
    standard deviation grows with how little supports a pixel and how much its supporters disagree. NaN only if all
    of `w` is.
    """
    known = np.isfinite(w) & np.isfinite(sigma)
    if not known.any():
        return np.full(w.shape, np.nan, np.float32), np.full(w.shape, np.nan, np.float32)
    typical = float(np.median(w[known]))
    floor = 0.01 * max(typical, 1e-9)
    weight = np.where(known, 1.0 / (np.nan_to_num(sigma) ** 2 + floor**2), 0.0) * floor**2
    value = np.nan_to_num(w)
    stack = np.stack([weight, weight * value, weight * value**2, weight * np.nan_to_num(sigma) ** 2], -1)
    total = np.zeros_like(stack)
    share = 1.0
    for scale in (1.0, 5.0, 25.0):
        total += share * domain_transform(stack, guide, reach * scale, 25.0)
        share *= 3e-3
    total += share * np.mean(stack, (0, 1))
    mass = np.maximum(total[..., 0], 1e-20)
    mean = total[..., 1] / mass
    spread = np.maximum(total[..., 2] / mass - mean**2, 0)
    noise = total[..., 3] / mass
    thin = 0.02 / (0.02 + np.clip(mass, 0, 1))  # 0 where well supported, 1 in a hole
    deviation = np.sqrt(noise * 0.5 + spread * (0.25 + thin) + (0.25 * thin * mean) ** 2)
    return mean.astype(np.float32), deviation.astype(np.float32)
