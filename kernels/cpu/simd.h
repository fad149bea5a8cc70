// One float vector of the machine's native width, and the few operations the kernels need on it.
//
// Built on the vector extensions that GCC and Clang share, so the same source serves AVX-512 (16 lanes), AVX2 (8)
// and everything else (4: SSE2, NEON). Intrinsics only where the compilers do not find the instruction themselves.
// Widths above the native one spill (4-6 times slower), hence no fixed 16.
//
// This header is compiled once per instruction set, inside `namespace ISA`: no symbol of one set can be linked
// into another. For the same reason the hot files use no std:: templates.
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

inline Vf splat(float x) { return x - Vf{}; }
inline Vf load(const float* p) {
    Vf v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, Vf v) { std::memcpy(p, &v, sizeof v); }
inline Vf min(Vf a, Vf b) { return select(lt(a, b), a, b); }
inline Vf max(Vf a, Vf b) { return select(lt(a, b), b, a); }
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
/// Rounding by adding 1.5·2^23 leaves the integer in the low mantissa bits, ready to be shifted into the exponent.
inline Vf exp2(Vf x) {
    const Vf magic = splat(12582912.0f);
    Vf t = x + magic;
    Vf f = x - (t - magic);
    // Minimax polynomial of 2^f on [-0.5, 0.5].
    Vf p = splat(1.3398874e-3f);
    p = p * f + 9.6184373e-3f;
    p = p * f + 5.5503323e-2f;
    p = p * f + 2.4022650e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (Vf)((Vi)p + ((Vi)t << 23));
}

inline float sum(Vf v) {
    float s[W];
    store(s, v);
    for (int n = W / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) s[i] += s[i + n];
    return s[0];
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
