// Exponential and logarithm as loops over them vectorise. Internal linkage: compiled once per instruction set.
#pragma once

#include <cstdint>

namespace {

inline float as_float(int32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

inline int32_t as_bits(float value) {
    int32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}

// e^x, relative error 2e-7; as e^-87 below -87 and as e^88 above 88: split into whole powers of two and a rest
// within half of ln 2, for which the series of degree 7 is exact to 5e-9.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    const float shifted = x * 1.44269504f + magic, whole = shifted - magic;
    const float high = 0.693145752f, low = 1.42860677e-6f;  // of ln 2: whole * high has no rounding
    const float f = (x - whole * high) - whole * low;
    float p = 1.0f / 5040.0f;
    p = p * f + 1.0f / 720.0f;
    p = p * f + 1.0f / 120.0f;
    p = p * f + 1.0f / 24.0f;
    p = p * f + 1.0f / 6.0f;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    return as_float(as_bits(p) + static_cast<int32_t>(static_cast<uint32_t>(as_bits(shifted)) << 23));
}

// ln x for positive normal numbers, absolute error 1e-7 of its size or of 1: 2 artanh((m - 1) / (m + 1)) of the
// mantissa m within the square root of two of one.
inline float logarithm(float x) {
    const int32_t bits = as_bits(x), exponent = (bits - 0x3f3504f3) >> 23;  // of x / sqrt(1/2)
    const float m = as_float(bits - static_cast<int32_t>(static_cast<uint32_t>(exponent) << 23));
    const float s = (m - 1.0f) / (m + 1.0f), ss = s * s;
    float p = 2.0f / 9.0f;
    p = p * ss + 2.0f / 7.0f;
    p = p * ss + 2.0f / 5.0f;
    p = p * ss + 2.0f / 3.0f;
    p = p * ss + 2.0f;
    return p * s + static_cast<float>(exponent) * 0.693147181f;
}

inline float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace
