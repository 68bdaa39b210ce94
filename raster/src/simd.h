// Sixteen floats that are blended together, on whatever vectors the compiler is told to use.
// Everything here has internal linkage: the same source is compiled once per instruction set.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kParts = 16 / kWidth;

typedef float Part __attribute__((vector_size(kWidth * 4)));
typedef int32_t IntPart __attribute__((vector_size(kWidth * 4)));
typedef uint32_t BitPart __attribute__((vector_size(kWidth * 4)));  // adds without overflow, unlike signed ones
typedef float Quad __attribute__((vector_size(16)));

typedef int32_t IntQuad __attribute__((vector_size(16)));

// Four floats picked from eight.
#if defined(__clang__)
#define M4D_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define M4D_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, IntQuad{i, j, k, l})
#endif

#define M4D_INLINE static inline __attribute__((always_inline))
#define M4D_EACH for (int i = 0; i < kParts; ++i)

struct Vec {
    Part v[kParts];
};

M4D_INLINE Vec fill(float value) {
    Vec r;
    M4D_EACH r.v[i] = value - Part{};
    return r;
}
M4D_INLINE Vec load(const float *from) {  // 64-byte aligned
    Vec r;
    M4D_EACH r.v[i] = *reinterpret_cast<const Part *>(from + i * kWidth);
    return r;
}
M4D_INLINE void store(float *to, const Vec &a) { M4D_EACH *reinterpret_cast<Part *>(to + i * kWidth) = a.v[i]; }

M4D_INLINE Vec operator+(const Vec &a, const Vec &b) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] + b.v[i];
    return r;
}
M4D_INLINE Vec operator-(const Vec &a, const Vec &b) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] - b.v[i];
    return r;
}
M4D_INLINE Vec operator*(const Vec &a, const Vec &b) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] * b.v[i];
    return r;
}
M4D_INLINE Vec smaller(const Vec &a, const Vec &b) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return r;
}
M4D_INLINE Vec larger(const Vec &a, const Vec &b) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return r;
}

// Per lane: value where a > b (or a >= b, a < b), else 0.
M4D_INLINE Vec where_greater(const Vec &a, const Vec &b, const Vec &value) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] > b.v[i] ? value.v[i] : Part{};
    return r;
}
M4D_INLINE Vec where_not_less(const Vec &a, const Vec &b, const Vec &value) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] >= b.v[i] ? value.v[i] : Part{};
    return r;
}
M4D_INLINE Vec choose_greater(const Vec &a, const Vec &b, const Vec &yes, const Vec &no) {
    Vec r;
    M4D_EACH r.v[i] = a.v[i] > b.v[i] ? yes.v[i] : no.v[i];
    return r;
}

M4D_INLINE bool any_greater(const Vec &a, const Vec &b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a.v[0], b.v[0], _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
    const __m256 low = _mm256_cmp_ps(a.v[0], b.v[0], _CMP_GT_OQ), high = _mm256_cmp_ps(a.v[1], b.v[1], _CMP_GT_OQ);
    return _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0;
#else
    IntPart either = {};
    M4D_EACH either |= a.v[i] > b.v[i];
    return (either[0] | either[1] | either[2] | either[3]) != 0;
#endif
}

// One bit per lane: a <= b.
M4D_INLINE uint32_t mask_not_greater(const Vec &a, const Vec &b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a.v[0], b.v[0], _CMP_LE_OQ);
#elif defined(__AVX2__)
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.v[0], b.v[0], _CMP_LE_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.v[1], b.v[1], _CMP_LE_OQ));
    return static_cast<uint32_t>(low | high << 8);
#else
    const IntPart bits = {1, 2, 4, 8};
    uint32_t mask = 0;
    M4D_EACH {
        const IntPart set = (a.v[i] <= b.v[i]) & bits;
        mask |= static_cast<uint32_t>(set[0] | set[1] | set[2] | set[3]) << (4 * i);
    }
    return mask;
#endif
}

// 2^x for -126 < x < 127, relative error 8e-8 before rounding: split into whole and fraction, a fitted
// polynomial of degree 5 for the fraction, the whole part added to the exponent.
M4D_INLINE Vec exp2_fast(const Vec &x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    Vec r;
    M4D_EACH {
        const Part shifted = x.v[i] + magic;
        const Part f = x.v[i] - (shifted - magic);
        Part p = f * 0.0013276471520351975f + 0.00967554133068549f;
        p = p * f + 0.05550713274958686f;
        p = p * f + 0.24022119723933785f;
        p = p * f + 0.6931469670638675f;
        p = p * f + 1.0000000716546564f;
        r.v[i] = reinterpret_cast<Part>(reinterpret_cast<BitPart>(p) + (reinterpret_cast<BitPart>(shifted) << 23));
    }
    return r;
}

M4D_INLINE Quad load_quad(const float *from) {  // any alignment
    Quad r;
    __builtin_memcpy(&r, from, sizeof(r));
    return r;
}
M4D_INLINE void store_quad(float *to, const Quad &a) { __builtin_memcpy(to, &a, sizeof(a)); }

// Rows become columns.
M4D_INLINE void transpose(Quad (&q)[4]) {
    const Quad a = M4D_SHUFFLE(q[0], q[1], 0, 4, 1, 5), b = M4D_SHUFFLE(q[0], q[1], 2, 6, 3, 7);
    const Quad c = M4D_SHUFFLE(q[2], q[3], 0, 4, 1, 5), d = M4D_SHUFFLE(q[2], q[3], 2, 6, 3, 7);
    q[0] = M4D_SHUFFLE(a, c, 0, 1, 4, 5), q[1] = M4D_SHUFFLE(a, c, 2, 3, 6, 7);
    q[2] = M4D_SHUFFLE(b, d, 0, 1, 4, 5), q[3] = M4D_SHUFFLE(b, d, 2, 3, 6, 7);
}

M4D_INLINE Part fold(const Vec &a) {
    Part r = a.v[0];
    for (int i = 1; i < kParts; ++i) r += a.v[i];
    return r;
}

// The four sums over lanes of four vectors.
M4D_INLINE Quad sum4(const Vec &a, const Vec &b, const Vec &c, const Vec &d) {
#if defined(__AVX512F__)
    const __m512 ab = _mm512_unpacklo_ps(a.v[0], b.v[0]) + _mm512_unpackhi_ps(a.v[0], b.v[0]);
    const __m512 cd = _mm512_unpacklo_ps(c.v[0], d.v[0]) + _mm512_unpackhi_ps(c.v[0], d.v[0]);
    const __m512 s = _mm512_shuffle_ps(ab, cd, 0x44) + _mm512_shuffle_ps(ab, cd, 0xEE);
    const __m256 half = _mm512_castps512_ps256(s) + _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(s), 1));
    return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
#elif defined(__AVX2__)
    const __m256 fa = fold(a), fb = fold(b), fc = fold(c), fd = fold(d);
    const __m256 ab = _mm256_unpacklo_ps(fa, fb) + _mm256_unpackhi_ps(fa, fb);
    const __m256 cd = _mm256_unpacklo_ps(fc, fd) + _mm256_unpackhi_ps(fc, fd);
    const __m256 s = _mm256_shuffle_ps(ab, cd, 0x44) + _mm256_shuffle_ps(ab, cd, 0xEE);
    return _mm256_castps256_ps128(s) + _mm256_extractf128_ps(s, 1);
#else
    const Quad fa = fold(a), fb = fold(b), fc = fold(c), fd = fold(d);
    const Quad ab = M4D_SHUFFLE(fa, fb, 0, 4, 1, 5) + M4D_SHUFFLE(fa, fb, 2, 6, 3, 7);
    const Quad cd = M4D_SHUFFLE(fc, fd, 0, 4, 1, 5) + M4D_SHUFFLE(fc, fd, 2, 6, 3, 7);
    return M4D_SHUFFLE(ab, cd, 0, 1, 4, 5) + M4D_SHUFFLE(ab, cd, 2, 3, 6, 7);
#endif
}

}  // namespace
