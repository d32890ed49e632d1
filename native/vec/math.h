// Functions of vectors, written once over the lanes of any instruction set.
#pragma once

namespace hexad {
namespace {

// exp(x), the polynomial of Cephes' expf (Moshier, public domain): at most 2 ulp on
// [-87.33, 88.37]. Below it 0 (so exp(-inf) is 0), above it exp(88.37); NaN stays NaN.
HEXAD_INLINE V vexp(V x) {
    const V lowest = set1(-87.3365447504f);
    V clamped = vmin(set1(88.3762626647949f), vmax(lowest, x));
    V n = vround(mul(clamped, set1(1.44269504088896341f)));
    V r = fma(n, set1(-0.693359375f), clamped);
    r = fma(n, set1(2.12194440e-4f), r);
    V y = set1(1.9875691500e-4f);
    y = fma(y, r, set1(1.3981999507e-3f));
    y = fma(y, r, set1(8.3334519073e-3f));
    y = fma(y, r, set1(4.1665795894e-2f));
    y = fma(y, r, set1(1.6666665459e-1f));
    y = fma(y, r, set1(5.0000001201e-1f));
    y = add(fma(y, mul(r, r), r), set1(1.0f));
    return zero_below(scale2(y, n), x, lowest);
}

// 2^x for x <= 0, the polynomial of Cephes' exp2f: at most 1 ulp. Below -126 it is 0; NaN stays NaN.
HEXAD_INLINE V vexp2(V x) {
    const V lowest = set1(-126.0f);
    V clamped = vmax(lowest, x);
    V n = vround(clamped);
    V r = sub(clamped, n);
    V y = set1(1.535336188319500e-4f);
    y = fma(y, r, set1(1.339887440266574e-3f));
    y = fma(y, r, set1(9.618437357674640e-3f));
    y = fma(y, r, set1(5.550332471162809e-2f));
    y = fma(y, r, set1(2.402264791363012e-1f));
    y = fma(y, r, set1(6.931472028550421e-1f));
    y = fma(y, r, set1(1.0f));
    return zero_below(scale2(y, n), x, lowest);
}

// x / (1 + exp(-x))
HEXAD_INLINE V vsilu(V x) { return div(x, add(set1(1.0f), vexp(sub(vzero(), x)))); }

}  // namespace
}  // namespace hexad
