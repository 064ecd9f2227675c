// The one-dimensional transforms of Winograd's minimal filtering algorithms.
//
// An algorithm F(m, r) computes m outputs of a filter with r taps by one product per point where
// the Toom-Cook polynomials are evaluated, instead of m * r. With window d, filter w, output y:
//
//   y = output(source(input(d)) * filter(w))
//
// where source gives the input point of each product. The two-dimensional
// algorithm nests it: rows, then columns. output_adjoint and filter_adjoint are the transposes:
// the gradient of the filter is filter_adjoint(sum of input(d) * output_adjoint(dy)).
//
// The points decide the error. Those in the literature, 0, +-1, +-2 and infinity, make the entries
// of F(4, 3) grow; the points below have half its root mean square error and a third to a sixth of
// its largest one, as measured, for the same work. All are dyadic fractions, exact in float32.
//
// Papers: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015;
// B. Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
// Neural Networks", 2018.
#pragma once

#include "cpu/vector.h"

namespace vaekernels::cpu {
namespace {

// Points 0, +-1, infinity.
struct F23 {
  static constexpr int kOutputs = 2, kTaps = 3, kWindow = 4, kInputPoints = 4, kProducts = 4;
  static constexpr int kStep = 2;
  static constexpr int kSource[kProducts] = {0, 1, 2, 3};

  VK_INLINE static void input(const Vec* d, Vec* v) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  VK_INLINE static void output(const Vec* m, Vec* y) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] + m[3];
  }
  VK_INLINE static void output_adjoint(const Vec* y, Vec* m) {
    m[0] = y[0];
    m[1] = y[0] + y[1];
    m[2] = y[0] - y[1];
    m[3] = y[1];
  }
  VK_INLINE static void filter(const Vec* w, Vec* u) {
    const Vec even = broadcast(0.5f) * (w[0] + w[2]), odd = broadcast(0.5f) * w[1];
    u[0] = w[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = w[2];
  }
  VK_INLINE static void filter_adjoint(const Vec* u, Vec* w) {
    const Vec even = broadcast(0.5f) * (u[1] + u[2]);
    w[0] = u[0] + even;
    w[1] = broadcast(0.5f) * (u[1] - u[2]);
    w[2] = even + u[3];
  }
};

// Points 0, +-3/4, +-3/2, infinity.
struct F43 {
  static constexpr int kOutputs = 4, kTaps = 3, kWindow = 6, kInputPoints = 6, kProducts = 6;
  static constexpr int kStep = 4;
  static constexpr int kSource[kProducts] = {0, 1, 2, 3, 4, 5};
  static constexpr float a = 0.75f, b = 1.5f, aa = a * a, bb = b * b;
  // 1 / the product of a point's differences to the others.
  static constexpr float g0 = 64.0f / 81.0f, ga = -128.0f / 243.0f, gb = 32.0f / 243.0f;

  VK_INLINE static void input(const Vec* d, Vec* v) {
    const Vec even_a = fma(-bb, d[2], d[4]), odd_a = fma(-bb, d[1], d[3]);
    const Vec even_b = fma(-aa, d[2], d[4]), odd_b = fma(-aa, d[1], d[3]);
    v[0] = fma(aa * bb, d[0], fma(-aa - bb, d[2], d[4]));
    v[1] = fma(a, odd_a, even_a);
    v[2] = fma(-a, odd_a, even_a);
    v[3] = fma(b, odd_b, even_b);
    v[4] = fma(-b, odd_b, even_b);
    v[5] = fma(aa * bb, d[1], fma(-aa - bb, d[3], d[5]));
  }
  VK_INLINE static void output(const Vec* m, Vec* y) {
    const Vec even_a = m[1] + m[2], odd_a = m[1] - m[2];
    const Vec even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = fma(b, odd_b, broadcast(a) * odd_a);
    y[2] = fma(bb, even_b, broadcast(aa) * even_a);
    y[3] = fma(b * bb, odd_b, fma(a * aa, odd_a, m[5]));
  }
  VK_INLINE static void output_adjoint(const Vec* y, Vec* m) {
    const Vec even_a = fma(aa, y[2], y[0]), odd_a = fma(aa, y[3], y[1]);
    const Vec even_b = fma(bb, y[2], y[0]), odd_b = fma(bb, y[3], y[1]);
    m[0] = y[0];
    m[1] = fma(a, odd_a, even_a);
    m[2] = fma(-a, odd_a, even_a);
    m[3] = fma(b, odd_b, even_b);
    m[4] = fma(-b, odd_b, even_b);
    m[5] = y[3];
  }
  VK_INLINE static void filter(const Vec* w, Vec* u) {
    const Vec even_a = broadcast(ga) * fma(aa, w[2], w[0]);
    const Vec even_b = broadcast(gb) * fma(bb, w[2], w[0]);
    u[0] = broadcast(g0) * w[0];
    u[1] = fma(ga * a, w[1], even_a);
    u[2] = fma(-ga * a, w[1], even_a);
    u[3] = fma(gb * b, w[1], even_b);
    u[4] = fma(-gb * b, w[1], even_b);
    u[5] = w[2];
  }
  VK_INLINE static void filter_adjoint(const Vec* u, Vec* w) {
    const Vec even_a = u[1] + u[2], odd_a = u[1] - u[2];
    const Vec even_b = u[3] + u[4], odd_b = u[3] - u[4];
    w[0] = fma(g0, u[0], fma(ga, even_a, broadcast(gb) * even_b));
    w[1] = fma(ga * a, odd_a, broadcast(gb * b) * odd_b);
    w[2] = fma(ga * aa, even_a, fma(gb * bb, even_b, u[5]));
  }
};

// Points 0, 1, infinity.
struct F22 {
  static constexpr int kOutputs = 2, kTaps = 2, kWindow = 3, kInputPoints = 3, kProducts = 3;
  static constexpr int kStep = 2;
  static constexpr int kSource[kProducts] = {0, 1, 2};

  VK_INLINE static void input(const Vec* d, Vec* v) {
    v[0] = d[0] - d[1];
    v[1] = d[1];
    v[2] = d[2] - d[1];
  }
  VK_INLINE static void output(const Vec* m, Vec* y) {
    y[0] = m[0] + m[1];
    y[1] = m[1] + m[2];
  }
  VK_INLINE static void output_adjoint(const Vec* y, Vec* m) {
    m[0] = y[0];
    m[1] = y[0] + y[1];
    m[2] = y[1];
  }
  VK_INLINE static void filter(const Vec* w, Vec* u) {
    u[0] = w[0];
    u[1] = w[0] + w[1];
    u[2] = w[1];
  }
  VK_INLINE static void filter_adjoint(const Vec* u, Vec* w) {
    w[0] = u[0] + u[1];
    w[1] = u[1] + u[2];
  }
};

// Points 0, 1/2, -1, 2, infinity.
struct F42 {
  static constexpr int kOutputs = 4, kTaps = 2, kWindow = 5, kInputPoints = 5, kProducts = 5;
  static constexpr int kStep = 4;
  static constexpr int kSource[kProducts] = {0, 1, 2, 3, 4};
  static constexpr float ghalf = -8.0f / 9.0f, gone = -2.0f / 9.0f, gtwo = 1.0f / 9.0f;

  VK_INLINE static void input(const Vec* d, Vec* v) {
    v[0] = fma(-1.5f, d[1] + d[2], d[0] + d[3]);
    v[1] = fma(-2.0f, d[1], d[3] - d[2]);
    v[2] = fma(-2.5f, d[2], d[1] + d[3]);
    v[3] = fma(0.5f, d[2] - d[1], d[3]);
    v[4] = fma(-1.5f, d[2] + d[3], d[1] + d[4]);
  }
  VK_INLINE static void output(const Vec* m, Vec* y) {
    y[0] = (m[0] + m[1]) + (m[2] + m[3]);
    y[1] = fma(0.5f, m[1], fma(2.0f, m[3], -m[2]));
    y[2] = fma(0.25f, m[1], fma(4.0f, m[3], m[2]));
    y[3] = fma(0.125f, m[1], fma(8.0f, m[3], m[4] - m[2]));
  }
  VK_INLINE static void output_adjoint(const Vec* y, Vec* m) {
    m[0] = y[0];
    m[1] = fma(0.5f, y[1], fma(0.25f, y[2], fma(0.125f, y[3], y[0])));
    m[2] = (y[0] - y[1]) + (y[2] - y[3]);
    m[3] = fma(2.0f, y[1], fma(4.0f, y[2], fma(8.0f, y[3], y[0])));
    m[4] = y[3];
  }
  VK_INLINE static void filter(const Vec* w, Vec* u) {
    u[0] = w[0];
    u[1] = broadcast(ghalf) * fma(0.5f, w[1], w[0]);
    u[2] = broadcast(gone) * (w[0] - w[1]);
    u[3] = broadcast(gtwo) * fma(2.0f, w[1], w[0]);
    u[4] = w[1];
  }
  VK_INLINE static void filter_adjoint(const Vec* u, Vec* w) {
    const Vec half = broadcast(ghalf) * u[1], one = broadcast(gone) * u[2];
    const Vec two = broadcast(gtwo) * u[3];
    w[0] = (u[0] + half) + (one + two);
    w[1] = fma(0.5f, half, fma(2.0f, two, u[4] - one));
  }
};

// F(2, 3) of a signal in which every sample is repeated, as nearest-2x upsampling leaves it: the
// product at the point -1 is zero for any signal, and the window is that of the signal before.
struct UpsampleF23 : F22 {
  static constexpr int kTaps = 3;
  static constexpr int kStep = 1;

  VK_INLINE static void filter(const Vec* w, Vec* u) {
    u[0] = w[0];
    u[1] = w[0] + w[1] + w[2];
    u[2] = w[2];
  }
  VK_INLINE static void filter_adjoint(const Vec* u, Vec* w) {
    w[0] = u[0] + u[1];
    w[1] = u[1];
    w[2] = u[1] + u[2];
  }
};

// The same of F(4, 3) with the points 0, 1, +-5/8, infinity beside -1. The points +-b both see
// multiples of one difference, so four input points feed five products.
struct UpsampleF43 {
  static constexpr int kOutputs = 4, kTaps = 3, kWindow = 4, kInputPoints = 4, kProducts = 5;
  static constexpr int kStep = 2;
  static constexpr int kSource[kProducts] = {0, 1, 2, 2, 3};
  static constexpr float b = 0.625f, bb = b * b;
  static constexpr float g0 = 1 / bb, g1 = 1 / (1 - bb);
  static constexpr float gplus = 1 / (2 * bb * (b - 1)), gminus = -1 / (2 * bb * (b + 1));

  VK_INLINE static void input(const Vec* d, Vec* v) {
    v[0] = fma(bb, d[0], fma(-1 - bb, d[1], d[2]));
    v[1] = fma(-bb, d[1], d[2]);
    v[2] = d[2] - d[1];
    v[3] = fma(bb, d[1], fma(-1 - bb, d[2], d[3]));
  }
  VK_INLINE static void output(const Vec* m, Vec* y) {
    const Vec even = m[2] + m[3], odd = m[2] - m[3];
    y[0] = (m[0] + m[1]) + even;
    y[1] = fma(b, odd, m[1]);
    y[2] = fma(bb, even, m[1]);
    y[3] = fma(b * bb, odd, m[1] + m[4]);
  }
  VK_INLINE static void output_adjoint(const Vec* y, Vec* m) {
    const Vec even = fma(bb, y[2], y[0]), odd = fma(bb, y[3], y[1]);
    m[0] = y[0];
    m[1] = (y[0] + y[1]) + (y[2] + y[3]);
    m[2] = fma(b, odd, even);
    m[3] = fma(-b, odd, even);
    m[4] = y[3];
  }
  VK_INLINE static void filter(const Vec* w, Vec* u) {
    const Vec even = fma(bb, w[2], w[0]);
    u[0] = broadcast(g0) * w[0];
    u[1] = broadcast(g1) * (w[0] + w[1] + w[2]);
    u[2] = broadcast(gplus) * fma(b, w[1], even);
    u[3] = broadcast(gminus) * fma(-b, w[1], even);
    u[4] = w[2];
  }
  VK_INLINE static void filter_adjoint(const Vec* u, Vec* w) {
    const Vec plus = broadcast(gplus) * u[2], minus = broadcast(gminus) * u[3];
    const Vec one = broadcast(g1) * u[1], even = plus + minus;
    w[0] = fma(g0, u[0], one + even);
    w[1] = fma(b, plus - minus, one);
    w[2] = fma(bb, even, one + u[4]);
  }
};

}  // namespace
}  // namespace vaekernels::cpu
