// Rotation matrices of unit quaternions, and back for gradients. Internal linkage: compiled once per instruction set.
#pragma once

namespace {

inline void rotation(const double q[4], double R[3][3]) {
    const double w = q[0], x = q[1], y = q[2], z = q[3];
    R[0][0] = 1 - 2 * (y * y + z * z), R[0][1] = 2 * (x * y - w * z), R[0][2] = 2 * (x * z + w * y);
    R[1][0] = 2 * (x * y + w * z), R[1][1] = 1 - 2 * (x * x + z * z), R[1][2] = 2 * (y * z - w * x);
    R[2][0] = 2 * (x * z - w * y), R[2][1] = 2 * (y * z + w * x), R[2][2] = 1 - 2 * (x * x + y * y);
}

// `dq` by the unit quaternion `q` from `G` by its matrix.
inline void rotation_backward(const double q[4], const double G[3][3], double dq[4]) {
    const double w = q[0], x = q[1], y = q[2], v = q[3];
    const double xy = G[0][1] + G[1][0], xz = G[0][2] + G[2][0], yz = G[1][2] + G[2][1];  // symmetric part
    const double wx = G[2][1] - G[1][2], wy = G[0][2] - G[2][0], wz = G[1][0] - G[0][1];  // antisymmetric part
    dq[0] = 2 * (x * wx + y * wy + v * wz);
    dq[1] = 2 * (w * wx + y * xy + v * xz - 2 * x * (G[1][1] + G[2][2]));
    dq[2] = 2 * (w * wy + x * xy + v * yz - 2 * y * (G[0][0] + G[2][2]));
    dq[3] = 2 * (w * wz + x * xz + y * yz - 2 * v * (G[0][0] + G[1][1]));
}

// By a quaternion of this `length` from `dq` by the unit quaternion `q` it is brought to.
inline void normalise_backward(const double q[4], double length, const double dq[4], double out[4]) {
    const double along = dq[0] * q[0] + dq[1] * q[1] + dq[2] * q[2] + dq[3] * q[3];
    for (int k = 0; k < 4; ++k) out[k] = (dq[k] - q[k] * along) / length;
}

}  // namespace
