// One float vector of the machine's native width, and the few operations the kernels need on it.
//
// Built on the vector extensions that GCC and Clang share, so the same source serves AVX-512 (16 lanes), AVX2 (8)
// and everything else (4: SSE2, NEON). Intrinsics only where the compilers do not find the instruction themselves.
// Widths above the native one spill (4-6 times slower), hence no fixed 16.
//
// This header is compiled once per instruction set, inside `namespace ISA`: no symbol of one set can be linked
// into another. For the same reason the hot files use no std:: templates, and what they share with others is INLINED.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Vf __attribute__((vector_size(4 * W)));
typedef int32_t Vi __attribute__((vector_size(4 * W)));

#if defined(__AVX512F__)
using Mask = __mmask16;
inline Mask ge(Vf a, Vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Mask lt(Vf a, Vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask both(Mask a, Mask b) { return a & b; }
inline bool any(Mask m) { return m != 0; }
inline bool lane(Mask m, int i) { return (m >> i) & 1; }
inline Vf select(Mask m, Vf a, Vf b) { return _mm512_mask_blend_ps(m, b, a); }
inline Vi select(Mask m, Vi a, Vi b) { return (Vi)_mm512_mask_blend_epi32(m, (__m512i)b, (__m512i)a); }
inline Vf keep(Mask m, Vf a) { return _mm512_maskz_mov_ps(m, a); }
#else
using Mask = Vi;
inline Mask ge(Vf a, Vf b) { return a >= b; }
inline Mask lt(Vf a, Vf b) { return a < b; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline bool any(Mask m) {
#if defined(__AVX2__)
    return _mm256_movemask_ps((__m256)m) != 0;
#else
    return (m[0] | m[1] | m[2] | m[3]) != 0;
#endif
}
inline bool lane(Mask m, int i) { return m[i] != 0; }
inline Vi select(Mask m, Vi a, Vi b) { return (m & a) | (~m & b); }
inline Vf select(Mask m, Vf a, Vf b) { return (Vf)((m & (Vi)a) | (~m & (Vi)b)); }
inline Vf keep(Mask m, Vf a) { return (Vf)(m & (Vi)a); }
#endif

inline Vi integers(Vf a) { return __builtin_convertvector(a, Vi); }
inline Vf splat(float x) { return x - Vf{}; }
inline Vf load(const float* p) {
    Vf v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, Vf v) { std::memcpy(p, &v, sizeof v); }
/// The second operand where either is NaN, as in SSE.
#if defined(__AVX512F__)
inline Vf min(Vf a, Vf b) { return _mm512_min_ps(a, b); }
inline Vf max(Vf a, Vf b) { return _mm512_max_ps(a, b); }
inline Vf floor(Vf a) { return _mm512_floor_ps(a); }
#elif defined(__AVX2__)
inline Vf min(Vf a, Vf b) { return _mm256_min_ps(a, b); }
inline Vf max(Vf a, Vf b) { return _mm256_max_ps(a, b); }
inline Vf floor(Vf a) { return _mm256_floor_ps(a); }
#else
inline Vf min(Vf a, Vf b) { return select(lt(a, b), a, b); }
inline Vf max(Vf a, Vf b) { return select(lt(b, a), a, b); }
inline Vf floor(Vf a) {
    for (int i = 0; i < W; ++i) a[i] = __builtin_floorf(a[i]);
    return a;
}
#endif
inline Vf ceil(Vf a) { return -floor(-a); }
inline float min(float a, float b) { return a < b ? a : b; }
inline float max(float a, float b) { return a < b ? b : a; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a < b ? b : a; }

/// 0, 1, … W-1
inline Vf iota() {
    Vf v;
    for (int i = 0; i < W; ++i) v[i] = float(i);
    return v;
}

inline Vf sqrt(Vf a) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(a);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(a);
#else
    for (int i = 0; i < W; ++i) a[i] = __builtin_sqrtf(a[i]);
    return a;
#endif
}

/// 1/a to about 22 bits: the hardware's estimate and one Newton step, a quarter of a division's cost.
inline Vf reciprocal(Vf a) {
#if defined(__AVX512F__)
    Vf r = _mm512_rcp14_ps(a);
    return r * (2.0f - a * r);
#elif defined(__AVX2__)
    Vf r = _mm256_rcp_ps(a);
    return r * (2.0f - a * r);
#else
    return 1.0f / a;
#endif
}

/// 2^x for -126 < x < 128, relative error below 3e-7; outside, any value but no trap (callers mask it away).
inline Vf exp2(Vf x) {
    // Minimax polynomials of degree 5, relative error 7.5e-8.
#if defined(__AVX512F__)
    const Vf f = _mm512_reduce_ps(x, 0x01);  // x - floor(x)
    Vf p = splat(1.8775767e-3f);
    p = p * f + 8.9893406e-3f;
    p = p * f + 5.5826318e-2f;
    p = p * f + 2.4015361e-1f;
    p = p * f + 6.9315308e-1f;
    p = p * f + 9.9999994e-1f;
    return _mm512_scalef_ps(p, x);  // p 2^floor(x)
#else
    // Rounding by adding 1.5·2^23 leaves the integer in the low mantissa bits, ready to be shifted into the exponent.
    const Vf magic = splat(12582912.0f);
    const Vf t = x + magic;
    const Vf f = x - (t - magic);
    Vf p = splat(1.3276472e-3f);
    p = p * f + 9.6755419e-3f;
    p = p * f + 5.5507131e-2f;
    p = p * f + 2.4022120e-1f;
    p = p * f + 6.9314694e-1f;
    p = p * f + 1.0000001f;
    return (Vf)((Vi)p + ((Vi)t << 23));
#endif
}

/// log2 of a positive normal number, relative error of the result about 1e-7: with m in [√½, √2) and s = (m-1)/(m+1),
/// log2 m = 2/ln 2 · (s + s³/3 + s⁵/5 + …).
inline Vf log2(Vf a) {
    const Vi bits = (Vi)a, exponent = ((bits - 0x3f3504f3) >> 23);
    const Vf m = (Vf)(bits - (exponent << 23));
    const Vf s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
    const Vf series = 2.88539008f + s2 * (0.96179669f + s2 * (0.57707802f + s2 * (0.41219859f + s2 * 0.32059890f)));
    return __builtin_convertvector(exponent, Vf) + s * series;
}

inline float sum(Vf v) {
    float s[W];
    store(s, v);
    for (int n = W / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) s[i] += s[i + n];
    return s[0];
}

#if defined(__AVX2__)
/// Transpose the 8x8 matrix whose rows are r.
inline void transpose(__m256 r[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {
            r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
            r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; ++i) r[i] = t[i];
}
#endif

/// out[k] = element k of each of the W rows of 8 floats.
inline void load8(const float* const rows[W], Vf out[8]) {
#if defined(__AVX2__)
    __m256 half[W / 8][8];
    for (int h = 0; h < W / 8; ++h) {
        for (int i = 0; i < 8; ++i) half[h][i] = _mm256_loadu_ps(rows[8 * h + i]);
        transpose(half[h]);
    }
    for (int k = 0; k < 8; ++k)
#if defined(__AVX512F__)
        out[k] = _mm512_insertf32x8(_mm512_castps256_ps512(half[0][k]), half[1][k], 1);
#else
        out[k] = half[0][k];
#endif
#else
    for (int k = 0; k < 8; ++k)
        for (int i = 0; i < W; ++i) out[k][i] = rows[i][k];
#endif
}

/// The reverse: W rows of 8 floats, `stride` apart, from 8 vectors.
inline void store8(const Vf in[8], float* rows, int stride) {
#if defined(__AVX2__)
    for (int h = 0; h < W / 8; ++h) {
        __m256 half[8];
        for (int k = 0; k < 8; ++k)
#if defined(__AVX512F__)
            half[k] = h ? _mm512_extractf32x8_ps(in[k], 1) : _mm512_castps512_ps256(in[k]);
#else
            half[k] = in[k];
#endif
        transpose(half);
        for (int i = 0; i < 8; ++i) _mm256_storeu_ps(rows + (8 * h + i) * stride, half[i]);
    }
#else
    for (int i = 0; i < W; ++i)
        for (int k = 0; k < 8; ++k) rows[i * stride + k] = in[k][i];
#endif
}

/// out[0..3] = the lane sums of a, b, c, d.
inline void sum4(Vf a, Vf b, Vf c, Vf d, float* out) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
    auto half = [](Vf v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); };
    __m256 x = half(a), y = half(b), z = half(c), w = half(d);
#else
    __m256 x = a, y = b, z = c, w = d;
#endif
    __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(x, y), _mm256_hadd_ps(z, w));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)));
#else
    out[0] = sum(a), out[1] = sum(b), out[2] = sum(c), out[3] = sum(d);
#endif
}

}  // namespace ISA
