/* Whole time loops of a layer of neurons, on one CPU core: forward, and backward through time.

   Compiled step by step, the loop of a small layer spends its time on starting operations on a few hundred numbers.
   Here all steps are one call. Arrays are [time, batch, neuron]; spikes of the step before add rows of the recurrent
   kernel, so that work follows the events; backward, each step is one small matrix product.

   adaptive (LIF, ALIF), z = d > 0:       th = theta + strength a,  I = current + z R
     next:  u = beta u + k I - z th,      d = u - th,  a = rho a + (1 - rho) z
     same:  u = beta m + k I,             d = u - th,  m = u - z th,  a = rho a + (1 - rho) z
   resonating (RF, BRF):                  b = p - q,  I = current + z R
     u' = u + dt (b u - w v + I),  v' = v + dt (w u + b v),  d = u' - theta - q,  q = gamma q + z

   The derivative of a spike, psi(d), is given for all steps. They are handlers of XLA's typed foreign function
   interface.

   One file, since forward and backward of a neuron share its recurrence and are read beside each other. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "vectors.h"

/* forward, products are rounded before they are added, as other programs do; gradients need not be */
#if defined(__clang__)
#define FUSED
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif

#define LANES 16 /* rows are padded to a multiple of it, whatever a vector holds */
#define ROWS 4 /* examples whose sums are held in registers together */

typedef float lanes __attribute__((vector_size(VECTOR * sizeof(float)), aligned(4 * VECTOR), may_alias));

/* --- a layer's memory: rows of `wide` floats, a multiple of LANES, zero beyond the neurons ------------------------ */

typedef struct {
  int steps, batch, neurons, wide;
  size_t plane; /* batch * neurons */
} sizes;

static float *rows_of(int rows, int wide) {
  size_t bytes = (size_t)(rows ? rows : 1) * wide * sizeof(float);
  float *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (memory) memset(memory, 0, bytes);
  return memory;
}

static float *padded(const float *from, int rows, int columns, int wide, int transposed) {
  float *to = rows_of(rows, wide);
  for (int i = 0; to && i < rows; ++i)
    for (int j = 0; j < columns; ++j) to[(size_t)i * wide + j] = transposed ? from[(size_t)j * rows + i] : from[(size_t)i * columns + j];
  return to;
}

/* to[b, :] += sum over i of x[b, i] m[i, :], for `count` <= ROWS examples and `width` <= 4 vectors of columns. */
#define PRODUCT(name, width)                                                                               \
  FUSED static void name(                                                                                 \
      float *to, const float *x, const float *m, int inputs, int wide, int count) {                       \
    lanes sum[ROWS][width];                                                                               \
    for (int r = 0; r < ROWS; ++r)                                                                        \
      for (int c = 0; c < width; ++c) sum[r][c] = (lanes){0};                                             \
    for (int i = 0; i < inputs; ++i) {                                                                    \
      const lanes *row = (const lanes *)(m + (size_t)i * wide);                                           \
      for (int r = 0; r < ROWS; ++r) {                                                                    \
        float value = x[(size_t)(r < count ? r : 0) * wide + i];                                          \
        for (int c = 0; c < width; ++c) sum[r][c] += value * row[c];                                      \
      }                                                                                                   \
    }                                                                                                     \
    for (int r = 0; r < count; ++r)                                                                       \
      for (int c = 0; c < width; ++c) ((lanes *)(to + (size_t)r * wide))[c] += sum[r][c];                 \
  }
PRODUCT(product1, 1)
PRODUCT(product2, 2)
PRODUCT(product3, 3)
PRODUCT(product4, 4)

static void add_product(float *to, const float *x, const float *m, const sizes *s) {
  for (int b = 0; b < s->batch; b += ROWS) {
    int count = s->batch - b < ROWS ? s->batch - b : ROWS;
    for (int n = 0; n < s->wide; n += 4 * VECTOR) {
      int width = (s->wide - n) / VECTOR;
      float *out = to + (size_t)b * s->wide + n;
      const float *in = x + (size_t)b * s->wide, *columns = m + n;
      if (width >= 4) product4(out, in, columns, s->neurons, s->wide, count);
      else if (width == 3) product3(out, in, columns, s->neurons, s->wide, count);
      else if (width == 2) product2(out, in, columns, s->neurons, s->wide, count);
      else product1(out, in, columns, s->neurons, s->wide, count);
    }
  }
}

/* current[:] = given[:] + the rows of r at the spikes of z. */
static void drive(float *restrict current, float *restrict sum, const float *restrict given, const float *restrict z,
                  const float *restrict r, const sizes *s) {
  memcpy(current, given, s->neurons * sizeof(float));
  if (!r) return;
  memset(sum, 0, s->wide * sizeof(float));
  int any = 0;
  for (int j = 0; j < s->neurons; ++j)
    if (z[j] != 0) {
      const lanes *row = (const lanes *)(r + (size_t)j * s->wide);
      for (int c = 0; c < s->wide / VECTOR; ++c) ((lanes *)sum)[c] += row[c];
      any = 1;
    }
  if (any)
    for (int n = 0; n < s->wide; ++n) current[n] += sum[n];
}

/* --- handlers' dealings with XLA ---------------------------------------------------------------------------------- */

static const float *argument(const XLA_FFI_CallFrame *frame, int at) {
  return ((const XLA_FFI_Buffer *)frame->args.args[at])->data;
}

static float *result(const XLA_FFI_CallFrame *frame, int at) {
  return ((const XLA_FFI_Buffer *)frame->rets.rets[at])->data;
}

/* The first argument is [time, batch, neuron], all are float32; 0 if the call has another form. */
static int measured(const XLA_FFI_CallFrame *frame, int args, int rets, sizes *s) {
  if (frame->args.size != args || frame->rets.size != rets) return 0;
  for (int i = 0; i < args; ++i)
    if (((const XLA_FFI_Buffer *)frame->args.args[i])->dtype != XLA_FFI_DataType_F32) return 0;
  const XLA_FFI_Buffer *x = frame->args.args[0];
  if (x->rank != 3) return 0;
  s->steps = (int)x->dims[0], s->batch = (int)x->dims[1], s->neurons = (int)x->dims[2];
  s->wide = (s->neurons + LANES - 1) / LANES * LANES;
  s->plane = (size_t)s->batch * s->neurons;
  return 1;
}

/* How a loop is made, from an argument of three numbers. */
typedef struct {
  int recurrent, next, adapts;
} kind;

static kind kind_of(const float *numbers) { return (kind){numbers[0] != 0, numbers[1] != 0, numbers[2] != 0}; }

enum { MEMORIES = 16 };

typedef struct {
  float *at[MEMORIES];
  int count, failed;
} memory;

static float *kept(memory *m, float *fresh) {
  if (!fresh) m->failed = 1;
  return m->at[m->count++] = fresh;
}

static XLA_FFI_Error *released(const XLA_FFI_CallFrame *frame, memory *m) {
  for (int i = 0; i < m->count; ++i) free(m->at[i]);
  return m->failed ? failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "a time loop ran out of memory") : NULL;
}

/* --- adaptive ----------------------------------------------------------------------------------------------------- */

enum { BETA, RHO, THETA, STRENGTH, SCALE, CONSTANTS };

/* current, kind[3], kernel, constants[5, neuron] -> d, u, a */
XLA_FFI_Error *dsnn_loops_adaptive(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  sizes s;
  if (!measured(frame, 4, 3, &s))
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_loops_adaptive takes four float32 arrays");
  const float *given = argument(frame, 0);
  kind k = kind_of(argument(frame, 1));
  float *d = result(frame, 0), *u = result(frame, 1), *a = result(frame, 2);
  memory m = {{0}, 0, 0};
  const float *kernel = k.recurrent ? kept(&m, padded(argument(frame, 2), s.neurons, s.neurons, s.wide, 0)) : NULL;
  const float *c = kept(&m, padded(argument(frame, 3), CONSTANTS, s.neurons, s.wide, 0));
  float *membrane = kept(&m, rows_of(s.batch, s.wide)), *adapted = kept(&m, rows_of(s.batch, s.wide));
  float *spikes = kept(&m, rows_of(s.batch, s.wide)), *line = kept(&m, rows_of(4, s.wide));
  if (m.failed) return released(frame, &m);
  float *current = line, *sum = line + s.wide, *before = line + 2 * s.wide, *over = line + 3 * s.wide;
  const float *beta = c + BETA * s.wide, *rho = c + RHO * s.wide, *theta = c + THETA * s.wide;
  const float *strength = c + STRENGTH * s.wide, *scale = c + SCALE * s.wide;
  for (int t = 0; t < s.steps; ++t)
    for (int b = 0; b < s.batch; ++b) {
      size_t at = t * s.plane + (size_t)b * s.neurons, row = (size_t)b * s.wide;
      float *restrict mm = membrane + row, *restrict aa = adapted + row, *restrict z = spikes + row;
      drive(current, sum, given + at, z, kernel, &s);
      for (int n = 0; n < s.wide; ++n) {
        float th = theta[n] + strength[n] * aa[n];
        float uu = beta[n] * mm[n] + scale[n] * current[n];
        if (k.next) uu = uu - z[n] * th;
        float dd = uu - th, zz = dd > 0;
        before[n] = uu, over[n] = dd, z[n] = zz;
        mm[n] = k.next ? uu : uu - zz * th;
        aa[n] = rho[n] * aa[n] + (1 - rho[n]) * zz;
      }
      memcpy(d + at, over, s.neurons * sizeof(float));
      memcpy(u + at, before, s.neurons * sizeof(float));
      if (k.adapts) memcpy(a + at, aa, s.neurons * sizeof(float));
    }
  if (!k.adapts) *a = 0;
  return released(frame, &m);
}

/* psi, kind[3], kernel, constants, d, u, a, by d, by u, by the last u (after reset), by the last a
   -> by current, by constants */
FUSED XLA_FFI_Error *dsnn_loops_adaptive_back(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  sizes s;
  if (!measured(frame, 11, 2, &s))
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_loops_adaptive_back takes eleven float32 arrays");
  const float *psi = argument(frame, 0), *d = argument(frame, 4), *u = argument(frame, 5), *a = argument(frame, 6);
  const float *by_d = argument(frame, 7), *by_u = argument(frame, 8);
  const XLA_FFI_Buffer *every = frame->args.args[8];
  int read = every->rank == 3; /* membranes have gradients of their own */
  kind k = kind_of(argument(frame, 1));
  float *by_current = result(frame, 0), *by_constants = result(frame, 1);
  memory m = {{0}, 0, 0};
  const float *kernel = k.recurrent ? kept(&m, padded(argument(frame, 2), s.neurons, s.neurons, s.wide, 1)) : NULL;
  const float *c = kept(&m, padded(argument(frame, 3), CONSTANTS, s.neurons, s.wide, 0));
  float *gm = kept(&m, padded(argument(frame, 9), s.batch, s.neurons, s.wide, 0));
  float *ga = kept(&m, padded(argument(frame, 10), s.batch, s.neurons, s.wide, 0));
  float *gz = kept(&m, rows_of(s.batch, s.wide)), *gi = kept(&m, rows_of(s.batch, s.wide));
  float *total = kept(&m, rows_of(CONSTANTS, s.wide)), *line = kept(&m, rows_of(10, s.wide));
  if (m.failed) return released(frame, &m);
  size_t bytes = s.neurons * sizeof(float);
  float *restrict ps = line, *restrict dd = line + s.wide, *restrict uu = line + 2 * s.wide;
  float *restrict gd = line + 3 * s.wide, *restrict du = line + 4 * s.wide, *restrict dp = line + 5 * s.wide;
  float *restrict up = line + 6 * s.wide, *restrict ap = line + 7 * s.wide;
  const float *beta = c + BETA * s.wide, *rho = c + RHO * s.wide, *strength = c + STRENGTH * s.wide, *scale = c + SCALE * s.wide;
  float *restrict tb = total + BETA * s.wide, *restrict tr = total + RHO * s.wide, *restrict tt = total + THETA * s.wide;
  float *restrict ts = total + STRENGTH * s.wide, *restrict tk = total + SCALE * s.wide;
  for (int t = s.steps - 1; t >= 0; --t) {
    for (int b = 0; b < s.batch; ++b) {
      size_t at = t * s.plane + (size_t)b * s.neurons, row = (size_t)b * s.wide;
      memcpy(ps, psi + at, bytes), memcpy(dd, d + at, bytes), memcpy(uu, u + at, bytes), memcpy(gd, by_d + at, bytes);
      if (read) memcpy(du, by_u + at, bytes);
      if (t) {
        memcpy(dp, d + at - s.plane, bytes), memcpy(up, u + at - s.plane, bytes);
        if (k.adapts) memcpy(ap, a + at - s.plane, bytes);
      } else {
        memset(dp, 0, bytes), memset(up, 0, bytes), memset(ap, 0, bytes);
      }
      float *restrict m_ = gm + row, *restrict a_ = ga + row, *restrict z_ = gz + row, *restrict i_ = gi + row;
      for (int n = 0; n < s.wide; ++n) {
        float th = uu[n] - dd[n], z = dd[n] > 0, zp = dp[n] > 0;
        float mp = k.next ? up[n] : up[n] - zp * (up[n] - dp[n]);
        float spike = z_[n] + (1 - rho[n]) * a_[n], membrane = m_[n] + du[n], threshold = 0;
        if (!k.next) spike -= th * m_[n], threshold = -z * m_[n];
        float x = spike * ps[n] + gd[n];
        membrane += x, threshold -= x;
        if (k.next) threshold -= zp * membrane;
        float by_i = scale[n] * membrane;
        float entered = scale[n] != 0 ? (uu[n] - beta[n] * mp + (k.next ? zp * th : 0)) / scale[n] : 0;
        tb[n] += membrane * mp, tk[n] += membrane * entered, tt[n] += threshold;
        ts[n] += threshold * ap[n], tr[n] += a_[n] * (ap[n] - z);
        a_[n] = rho[n] * a_[n] + strength[n] * threshold;
        m_[n] = beta[n] * membrane;
        z_[n] = k.next ? -th * membrane : 0;
        i_[n] = by_i;
      }
      memcpy(by_current + at, i_, bytes);
    }
    if (kernel && t) add_product(gz, gi, kernel, &s);
  }
  for (int i = 0; i < CONSTANTS; ++i) memcpy(by_constants + (size_t)i * s.neurons, total + (size_t)i * s.wide, bytes);
  return released(frame, &m);
}

/* --- resonating --------------------------------------------------------------------------------------------------- */

enum { BOUND, OMEGA, LEVEL, GAMMA, STEP };

/* current, kind[3], kernel, constants[5, neuron] -> d, u, v, q */
XLA_FFI_Error *dsnn_loops_resonating(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  sizes s;
  if (!measured(frame, 4, 4, &s))
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_loops_resonating takes four float32 arrays");
  const float *given = argument(frame, 0);
  kind k = kind_of(argument(frame, 1));
  memory m = {{0}, 0, 0};
  const float *kernel = k.recurrent ? kept(&m, padded(argument(frame, 2), s.neurons, s.neurons, s.wide, 0)) : NULL;
  const float *c = kept(&m, padded(argument(frame, 3), CONSTANTS, s.neurons, s.wide, 0));
  float *real = kept(&m, rows_of(s.batch, s.wide)), *imaginary = kept(&m, rows_of(s.batch, s.wide));
  float *trace = kept(&m, rows_of(s.batch, s.wide)), *spikes = kept(&m, rows_of(s.batch, s.wide));
  float *line = kept(&m, rows_of(3, s.wide));
  if (m.failed) return released(frame, &m);
  float *current = line, *sum = line + s.wide, *over = line + 2 * s.wide;
  const float *p = c + BOUND * s.wide, *w = c + OMEGA * s.wide, *level = c + LEVEL * s.wide;
  const float *gamma = c + GAMMA * s.wide, *dt = c + STEP * s.wide;
  size_t bytes = s.neurons * sizeof(float);
  for (int t = 0; t < s.steps; ++t)
    for (int b = 0; b < s.batch; ++b) {
      size_t at = t * s.plane + (size_t)b * s.neurons, row = (size_t)b * s.wide;
      float *restrict u = real + row, *restrict v = imaginary + row, *restrict q = trace + row, *restrict z = spikes + row;
      drive(current, sum, given + at, z, kernel, &s);
      for (int n = 0; n < s.wide; ++n) {
        float bb = p[n] - q[n], u0 = u[n], v0 = v[n];
        u[n] = u0 + dt[n] * (bb * u0 - w[n] * v0 + current[n]);
        v[n] = v0 + dt[n] * (w[n] * u0 + bb * v0);
        over[n] = u[n] - level[n] - q[n];
        z[n] = over[n] > 0;
        q[n] = gamma[n] * q[n] + z[n];
      }
      memcpy(result(frame, 0) + at, over, bytes), memcpy(result(frame, 1) + at, u, bytes);
      memcpy(result(frame, 2) + at, v, bytes), memcpy(result(frame, 3) + at, q, bytes);
    }
  return released(frame, &m);
}

/* psi, kind[3], kernel, constants, d, u, v, q, by d, by u, by the last u, v and q -> by current, by constants */
FUSED XLA_FFI_Error *dsnn_loops_resonating_back(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  sizes s;
  if (!measured(frame, 13, 2, &s))
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_loops_resonating_back takes 13 float32 arrays");
  const float *psi = argument(frame, 0), *d = argument(frame, 4), *u = argument(frame, 5), *v = argument(frame, 6);
  const float *q = argument(frame, 7), *by_d = argument(frame, 8), *by_u = argument(frame, 9);
  int read = ((const XLA_FFI_Buffer *)frame->args.args[9])->rank == 3;
  kind k = kind_of(argument(frame, 1));
  float *by_current = result(frame, 0), *by_constants = result(frame, 1);
  memory m = {{0}, 0, 0};
  const float *kernel = k.recurrent ? kept(&m, padded(argument(frame, 2), s.neurons, s.neurons, s.wide, 1)) : NULL;
  const float *c = kept(&m, padded(argument(frame, 3), CONSTANTS, s.neurons, s.wide, 0));
  float *gu = kept(&m, padded(argument(frame, 10), s.batch, s.neurons, s.wide, 0));
  float *gv = kept(&m, padded(argument(frame, 11), s.batch, s.neurons, s.wide, 0));
  float *gq = kept(&m, padded(argument(frame, 12), s.batch, s.neurons, s.wide, 0));
  float *gz = kept(&m, rows_of(s.batch, s.wide)), *gi = kept(&m, rows_of(s.batch, s.wide));
  float *total = kept(&m, rows_of(CONSTANTS, s.wide)), *line = kept(&m, rows_of(7, s.wide));
  if (m.failed) return released(frame, &m);
  size_t bytes = s.neurons * sizeof(float);
  float *restrict ps = line, *restrict gd = line + s.wide, *restrict du = line + 2 * s.wide;
  float *restrict up = line + 3 * s.wide, *restrict vp = line + 4 * s.wide, *restrict qp = line + 5 * s.wide;
  const float *p = c + BOUND * s.wide, *w = c + OMEGA * s.wide, *gamma = c + GAMMA * s.wide, *dt = c + STEP * s.wide;
  float *restrict tp = total + BOUND * s.wide, *restrict tw = total + OMEGA * s.wide;
  float *restrict tl = total + LEVEL * s.wide, *restrict tg = total + GAMMA * s.wide;
  (void)d;
  for (int t = s.steps - 1; t >= 0; --t) {
    for (int b = 0; b < s.batch; ++b) {
      size_t at = t * s.plane + (size_t)b * s.neurons, row = (size_t)b * s.wide;
      memcpy(ps, psi + at, bytes), memcpy(gd, by_d + at, bytes);
      if (read) memcpy(du, by_u + at, bytes);
      if (t)
        memcpy(up, u + at - s.plane, bytes), memcpy(vp, v + at - s.plane, bytes), memcpy(qp, q + at - s.plane, bytes);
      else
        memset(up, 0, bytes), memset(vp, 0, bytes), memset(qp, 0, bytes);
      float *restrict u_ = gu + row, *restrict v_ = gv + row, *restrict q_ = gq + row;
      float *restrict z_ = gz + row, *restrict i_ = gi + row;
      for (int n = 0; n < s.wide; ++n) {
        float x = (z_[n] + q_[n]) * ps[n] + gd[n];
        float real = u_[n] + du[n] + x, imaginary = v_[n];
        float bb = p[n] - qp[n], by_b = dt[n] * (real * up[n] + imaginary * vp[n]);
        tp[n] += by_b, tw[n] += dt[n] * (imaginary * up[n] - real * vp[n]), tl[n] -= x, tg[n] += q_[n] * qp[n];
        i_[n] = dt[n] * real;
        u_[n] = real * (1 + dt[n] * bb) + imaginary * dt[n] * w[n];
        v_[n] = imaginary * (1 + dt[n] * bb) - real * dt[n] * w[n];
        q_[n] = gamma[n] * q_[n] - x - by_b;
        z_[n] = 0;
      }
      memcpy(by_current + at, i_, bytes);
    }
    if (kernel && t) add_product(gz, gi, kernel, &s);
  }
  for (int i = 0; i < CONSTANTS; ++i) memcpy(by_constants + (size_t)i * s.neurons, total + (size_t)i * s.wide, bytes);
  return released(frame, &m);
}
