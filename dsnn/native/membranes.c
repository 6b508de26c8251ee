/* Leaky integrate-and-fire neurons of images over all time steps, with or without the pooling that reads their spikes.

   dsnn_membranes:       out[t, b, i, j, c] = largest spike of a window of neurons at step t
   dsnn_membranes_last:  membranes after the last step
   dsnn_membranes_back:  gradient of the currents, from that of `out`

   u = beta m + k I,  d = u - theta,  s = d > 0 (or d >= 0),  m = u - theta s (or u (1 - s), or u)

   A window's membranes stay in registers from the first step to the last, so memory sees the currents once, and the
   spikes (or what is left of them by pooling) once. Backward, membranes are computed again from the currents, which
   costs less than to read them. Of equal values in a window each takes an equal share of the gradient, as in JAX.

   They are handlers of XLA's typed foreign function interface. A current is [time, batch, row, column, channel], of one
   step where it is held. Products are rounded before they are added, as other programs do. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "parallel.h"
#include "vectors.h"

/* gradients need not be rounded in between */
#if defined(__clang__)
#define FUSED
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif

typedef float lanes __attribute__((vector_size(VECTOR * sizeof(float)), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(VECTOR * sizeof(float)), aligned(4), may_alias));

enum { STEPS, RESET, AT_THRESHOLD, DETACHED, SURROGATE, ROWS, COLUMNS, SETTINGS };
enum { BETA, THETA, SCALE, FIRST, SECOND, CONSTANTS }; /* the last two are the surrogate's */
enum { SUBTRACT, ZERO, NONE };
enum { ATAN, ARCTAN, FAST_SIGMOID, TRIANGLE, BOXCAR, STRAIGHT_THROUGH };
enum { MEMBERS = 16 }; /* neurons of a window, at most */

typedef struct {
  const float *current, *g;
  float *out;
  float constants[CONSTANTS];
  int steps, reset, at_threshold, detached, surrogate, rows, columns;
  int batch, height, width, channels, out_height, out_width, held;
  int part; /* rows of windows in a part */
} task;

static int least(int a, int b) { return a < b ? a : b; }

static lanes all(float value) { return (lanes){0} + value; }

/* `count` numbers; zero beyond them. */
static lanes load(const float *from, int count) {
  if (count == VECTOR) return *(const lanes *)from;
  lanes out = {0};
  memcpy(&out, from, count * sizeof(float));
  return out;
}

static void store(float *to, lanes from, int count) {
  if (count == VECTOR) *(lanes *)to = from;
  else memcpy(to, &from, count * sizeof(float));
}

static bits fires(lanes over, int at_threshold) { return at_threshold ? over >= 0 : over > 0; }

static lanes where(bits mask, lanes value) { return (lanes)(mask & (bits)value); }

/* Membranes before their reset, of `members` neurons at every step: u[t][m]. */
static inline __attribute__((always_inline)) void integrate(const task *t, lanes current, lanes *membrane, lanes *before,
                                                            bits *spikes) {
  lanes decayed = t->constants[BETA] * *membrane, entering = t->constants[SCALE] * current;
  lanes u = decayed + entering;
  bits s = fires(u - t->constants[THETA], t->at_threshold);
  *before = u, *spikes = s;
  if (t->reset == SUBTRACT) u = u - where(s, all(t->constants[THETA]));
  else if (t->reset == ZERO) u = where(~s, u);
  *membrane = u;
}

/* Derivative of a spike, see dsnn.surrogate. */
FUSED static inline __attribute__((always_inline)) lanes psi(const task *t, lanes d) {
  float a = t->constants[FIRST], b = t->constants[SECOND];
  lanes size = (lanes)((bits)d & 0x7fffffff);
  switch (t->surrogate) {
    case ATAN: {
      lanes z = (float)(M_PI / 2 * a) * d;
      return a / 2 / (1 + z * z);
    }
    case ARCTAN: {
      lanes z = (float)(M_PI * a) * d;
      return 1 / ((float)M_PI * (1 + z * z));
    }
    case FAST_SIGMOID: {
      lanes z = 1 + a * size;
      return b / (z * z);
    }
    case TRIANGLE: {
      lanes z = 1 - size / a;
      return where(z > 0, b * z);
    }
    case BOXCAR: return where(size <= a / 2, all(b));
    default: return all(1);
  }
}

/* Offset of a window's member from its first neuron. */
static size_t member(const task *t, int m) {
  return ((size_t)(m / t->columns) * t->width + m % t->columns) * t->channels;
}

/* --- forward ---------------------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void window(const task *t, const float *current, float *out, int count,
                                                         int members, const size_t *at) {
  size_t in_step = t->held ? 0 : (size_t)t->batch * t->height * t->width * t->channels;
  size_t out_step = (size_t)t->batch * t->out_height * t->out_width * t->channels;
  lanes membrane[MEMBERS], held[MEMBERS], before;
  for (int m = 0; m < members; ++m) membrane[m] = (lanes){0}, held[m] = load(current + at[m], count);
  for (int step = 0; step < t->steps; ++step, out += out_step, current += in_step) {
    bits any = {0}, spikes;
    for (int m = 0; m < members; ++m) {
      integrate(t, t->held ? held[m] : load(current + at[m], count), &membrane[m], &before, &spikes);
      any |= spikes;
    }
    store(out, where(any, all(1)), count);
  }
}

static void windows(const task *t, const float *current, float *out, const size_t *at) {
  int members = t->rows * t->columns;
  for (int c = 0; c < t->channels; c += VECTOR) {
    int count = least(VECTOR, t->channels - c);
    if (members == 4 && count == VECTOR) window(t, current + c, out + c, VECTOR, 4, at);
    else if (members == 1 && count == VECTOR) window(t, current + c, out + c, VECTOR, 1, at);
    else window(t, current + c, out + c, count, members, at);
  }
}

static void places(const task *t, int part, int *first, int *last) {
  *first = part * t->part, *last = least(*first + t->part, t->batch * t->out_height);
}

/* First neuron and window of a row of windows. */
static size_t row_of(const task *t, int row) {
  return ((size_t)(row / t->out_height) * t->height + (size_t)(row % t->out_height) * t->rows) * t->width * t->channels;
}

static void members_of(const task *t, size_t *at) {
  for (int m = 0; m < t->rows * t->columns; ++m) at[m] = member(t, m);
}

static int forward_part(const void *given, int part) {
  const task *t = given;
  size_t at[MEMBERS];
  int first, last;
  members_of(t, at);
  places(t, part, &first, &last);
  for (int row = first; row < last; ++row) {
    const float *current = t->current + row_of(t, row);
    float *out = t->out + (size_t)row * t->out_width * t->channels;
    for (int j = 0; j < t->out_width; ++j, current += t->columns * t->channels, out += t->channels)
      windows(t, current, out, at);
  }
  return 0;
}

/* Membranes after the last step: of single neurons. */
static int last_part(const void *given, int part) {
  const task *t = given;
  int first, last;
  size_t step = t->held ? 0 : (size_t)t->batch * t->height * t->width * t->channels;
  places(t, part, &first, &last);
  for (int row = first; row < last; ++row) {
    size_t at = row_of(t, row), end = at + (size_t)t->width * t->channels;
    for (; at < end; at += VECTOR) {
      int count = end - at < VECTOR ? (int)(end - at) : VECTOR;
      lanes membrane = {0}, before;
      bits spikes;
      for (int i = 0; i < t->steps; ++i) integrate(t, load(t->current + at + i * step, count), &membrane, &before, &spikes);
      store(t->out + at, membrane, count);
    }
  }
  return 0;
}

/* --- backward --------------------------------------------------------------------------------------------------- */

/* `before` has room for the membranes of all members at all steps. */
FUSED static inline __attribute__((always_inline)) void window_back(const task *t, const float *current, const float *g,
                                                                    float *out, int count, int members,
                                                                    const size_t *at, lanes *before) {
  size_t step = (size_t)t->batch * t->height * t->width * t->channels, in_step = t->held ? 0 : step;
  size_t g_step = (size_t)t->batch * t->out_height * t->out_width * t->channels;
  float theta = t->constants[THETA], beta = t->constants[BETA], scale = t->constants[SCALE];
  lanes by_membrane[MEMBERS], total[MEMBERS];
  for (int m = 0; m < members; ++m) {
    lanes membrane = {0}, held = load(current + at[m], count);
    bits spikes;
    for (int i = 0; i < t->steps; ++i)
      integrate(t, t->held ? held : load(current + at[m] + i * in_step, count), &membrane, before + i * members + m, &spikes);
    by_membrane[m] = total[m] = (lanes){0};
  }
  for (int i = t->steps - 1; i >= 0; --i) {
    lanes given = load(g + i * g_step, count), fired = {0};
    bits spikes[MEMBERS], any = {0};
    for (int m = 0; m < members; ++m) {
      spikes[m] = fires(before[i * members + m] - theta, t->at_threshold);
      any |= spikes[m], fired += where(spikes[m], all(1));
    }
    if (members > 1) given /= where(any, fired) + where(~any, all((float)members));
    for (int m = 0; m < members; ++m) {
      lanes u = before[i * members + m], by_u = by_membrane[m];
      lanes by_spike = members > 1 ? where(~(spikes[m] ^ any), given) : given;
      if (t->reset == SUBTRACT && !t->detached) by_spike -= theta * by_membrane[m];
      if (t->reset == ZERO) {
        if (!t->detached) by_spike -= u * by_membrane[m];
        by_u = where(~spikes[m], by_u);
      }
      by_u += psi(t, u - theta) * by_spike;
      by_membrane[m] = beta * by_u;
      if (t->held) total[m] += scale * by_u;
      else store(out + at[m] + i * step, scale * by_u, count);
    }
  }
  for (int m = 0; t->held && m < members; ++m) store(out + at[m], total[m], count);
}

FUSED static void windows_back(const task *t, const float *current, const float *g, float *out, const size_t *at,
                               lanes *before) {
  int members = t->rows * t->columns;
  for (int c = 0; c < t->channels; c += VECTOR) {
    int count = least(VECTOR, t->channels - c);
    if (members == 4 && count == VECTOR) window_back(t, current + c, g + c, out + c, VECTOR, 4, at, before);
    else if (members == 1 && count == VECTOR) window_back(t, current + c, g + c, out + c, VECTOR, 1, at, before);
    else window_back(t, current + c, g + c, out + c, count, members, at, before);
  }
}

/* Neurons that no window holds have no gradient. */
static void outside(const task *t, int row) {
  int steps = t->held ? 1 : t->steps, last = row % t->out_height == t->out_height - 1;
  size_t step = (size_t)t->batch * t->height * t->width * t->channels, line = (size_t)t->width * t->channels;
  size_t inside = (size_t)t->out_width * t->columns * t->channels;
  for (int i = 0; i < steps; ++i) {
    float *out = t->out + i * step + row_of(t, row);
    for (int r = 0; inside < line && r < t->rows; ++r)
      memset(out + r * line + inside, 0, (line - inside) * sizeof(float));
    int below = t->height - t->out_height * t->rows;
    if (last && below) memset(out + t->rows * line, 0, below * line * sizeof(float));
  }
}

static int backward_part(const void *given, int part) {
  const task *t = given;
  size_t at[MEMBERS], bytes = (size_t)t->steps * t->rows * t->columns * sizeof(lanes);
  lanes *before = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!before) return 1;
  int first, last;
  members_of(t, at);
  places(t, part, &first, &last);
  for (int row = first; row < last; ++row) {
    size_t neuron = row_of(t, row), window = (size_t)row * t->out_width * t->channels;
    outside(t, row);
    for (int j = 0; j < t->out_width; ++j, neuron += t->columns * t->channels, window += t->channels)
      windows_back(t, t->current + neuron, t->g + window, t->out + neuron, at, before);
  }
  free(before);
  return 0;
}

/* --- handlers --------------------------------------------------------------------------------------------------- */

static size_t size_of(const XLA_FFI_Buffer *buffer) {
  size_t size = 1;
  for (int64_t axis = 0; axis < buffer->rank; ++axis) size *= buffer->dims[axis];
  return size;
}

/* current [time or 1, batch, row, column, channel], settings, constants and, backward, the gradient of the spikes; 0 if
   the call has another form. */
static int read_task(const XLA_FFI_CallFrame *frame, int args, task *t) {
  if (frame->args.size != args || frame->rets.size != 1) return 0;
  const XLA_FFI_Buffer **given = (const XLA_FFI_Buffer **)frame->args.args;
  const XLA_FFI_Buffer *current = given[0], *settings = given[1], *constants = given[2], *out = frame->rets.rets[0];
  if (current->rank != 5 || current->dtype != XLA_FFI_DataType_F32 || settings->dtype != XLA_FFI_DataType_S32 ||
      size_of(settings) != SETTINGS || constants->dtype != XLA_FFI_DataType_F32 || size_of(constants) != CONSTANTS ||
      out->dtype != XLA_FFI_DataType_F32)
    return 0;
  const int32_t *number = settings->data;
  *t = (task){.current = current->data, .out = out->data, .steps = number[STEPS], .reset = number[RESET],
              .at_threshold = number[AT_THRESHOLD], .detached = number[DETACHED], .surrogate = number[SURROGATE],
              .rows = number[ROWS], .columns = number[COLUMNS], .batch = (int)current->dims[1],
              .height = (int)current->dims[2], .width = (int)current->dims[3], .channels = (int)current->dims[4]};
  memcpy(t->constants, constants->data, sizeof t->constants);
  t->held = current->dims[0] != t->steps;
  if (t->rows < 1 || t->columns < 1 || t->rows * t->columns > MEMBERS || (t->held && current->dims[0] != 1)) return 0;
  t->out_height = t->height / t->rows, t->out_width = t->width / t->columns;
  t->part = 1 + 4096 / (1 + t->width * t->channels);
  return 1;
}

static XLA_FFI_Error *run(const XLA_FFI_CallFrame *frame, const task *t, int (*work)(const void *, int)) {
  int rows = t->batch * t->out_height, parts = (rows + t->part - 1) / t->part;
  if (parts && in_parallel(frame, threads(frame), parts, work, t))
    return failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "neurons of images ran out of memory");
  return NULL;
}

static XLA_FFI_Error *unlike(const XLA_FFI_CallFrame *frame) {
  return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "neurons of images take float32 currents of five axes");
}

XLA_FFI_Error *dsnn_membranes(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  task t;
  if (!read_task(frame, 3, &t)) return unlike(frame);
  size_t windows = (size_t)t.steps * t.batch * t.out_height * t.out_width * t.channels;
  return size_of(frame->rets.rets[0]) == windows ? run(frame, &t, forward_part) : unlike(frame);
}

XLA_FFI_Error *dsnn_membranes_last(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  task t;
  if (!read_task(frame, 3, &t) || t.rows * t.columns != 1) return unlike(frame);
  return run(frame, &t, last_part);
}

XLA_FFI_Error *dsnn_membranes_back(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  task t;
  if (!read_task(frame, 4, &t) || size_of(frame->rets.rets[0]) != size_of(frame->args.args[0])) return unlike(frame);
  t.g = ((const XLA_FFI_Buffer *)frame->args.args[3])->data;
  return run(frame, &t, backward_part);
}
