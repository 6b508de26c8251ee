/* Convolutions of float32 images, channels last, on the CPU: forward, and the gradient of the kernel.

   dsnn_convolve:         out[b, i, j, :] = sum over r, s, c of x[b, i sy + r - top, j sx + s - left, c] k[r, s, c, :]
   dsnn_convolve_kernel:  out[r, s, c, :] = sum over b, i, j of x[b, i sy + r - top, j sx + s - left, c] g[b, i, j, :]

   The gradient of the images is the first of these, of the output's gradient with zeros between (`spread`) and the
   kernel turned around. No patches are made: each image is copied once into a frame with its border, so that whatever a
   window sees of one row lies side by side; sums of a few places times a few vectors of features stay in registers, and
   the lines of the kernel that all places need next stay in the cache.

   Every sum is made in one order, r, s, c, by one thread, and the gradient of the kernel is summed over fixed shares of
   the batch: results do not depend on the number of threads, nor those of an example on the others beside it. Zeros are
   multiplied as all else, those of the border too.

   They are handlers of XLA's typed foreign function interface. Settings are int32, in the order of
   the names below. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "parallel.h"
#include "vectors.h"

typedef float lanes __attribute__((vector_size(VECTOR * sizeof(float)), aligned(4), may_alias));

/* Sums held in registers: places or rows of the kernel, times vectors of features. */
#if VECTOR == 16
enum { WIDEST = 4, PLACES = 8, PLACES_WIDEST = 6 };
#else
enum { WIDEST = 2, PLACES = 6, PLACES_WIDEST = 6 };
#endif
enum { LINES = 512, SHARES = 16 };
enum { STRIDE_Y, STRIDE_X, TOP, LEFT, SPREAD_Y, SPREAD_X, TURNED, SETTINGS };
#define MOST_BYTES ((size_t)1 << 26) /* of the shares' sums */
#define FRAME_BYTES ((size_t)1 << 19) /* that stay in the second cache */

typedef struct {
  int batch, height, width, channels, rows, columns, features, out_height, out_width;
  int stride_y, stride_x, top, left, spread_y, spread_x;
  int frame_height, frame_width, segment; /* segment: what a window sees of one row */
  int vectors, padded; /* of features */
} shape;

static int least(int a, int b) { return a < b ? a : b; }

static int most(int a, int b) { return a > b ? a : b; }

static int sized(shape *s, const XLA_FFI_Buffer *x, const int32_t *settings) {
  s->batch = (int)x->dims[0], s->height = (int)x->dims[1], s->width = (int)x->dims[2], s->channels = (int)x->dims[3];
  s->stride_y = settings[STRIDE_Y], s->stride_x = settings[STRIDE_X];
  s->top = settings[TOP], s->left = settings[LEFT];
  s->spread_y = settings[SPREAD_Y], s->spread_x = settings[SPREAD_X];
  s->frame_height = (s->out_height - 1) * s->stride_y + s->rows;
  s->frame_width = (s->out_width - 1) * s->stride_x + s->columns;
  s->segment = s->columns * s->channels;
  s->vectors = (s->features + VECTOR - 1) / VECTOR, s->padded = s->vectors * VECTOR;
  return s->stride_y > 0 && s->stride_x > 0 && s->spread_y > 0 && s->spread_x > 0;
}

/* Vectors of features that are done together, of those that are left: as even as can be. */
static int width_of(int left) {
  int times = (left + WIDEST - 1) / WIDEST;
  return (left + times - 1) / times;
}

static int places_of(int width) { return width == WIDEST ? PLACES_WIDEST : PLACES; }

static void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 64 + 63) / 64 * 64); }

/* Copies rows first to last of an image's frame; what lies between and around its numbers is zero already. */
static void fill(const shape *s, const float *image, float *frame, int first, int last) {
  size_t row = (size_t)s->frame_width * s->channels, bytes = s->channels * sizeof(float);
  for (int y = 0; y < s->height; ++y) {
    int at = y * s->spread_y + s->top;
    if (at < first || at >= last) continue;
    const float *from = image + (size_t)y * s->width * s->channels;
    float *to = frame + (at - first) * row;
    if (s->spread_x == 1) {
      int begin = most(0, -s->left), end = least(s->width, s->frame_width - s->left);
      if (end > begin) memcpy(to + (size_t)(begin + s->left) * s->channels, from + (size_t)begin * s->channels, (end - begin) * bytes);
      continue;
    }
    for (int x = 0; x < s->width; ++x) {
      int column = x * s->spread_x + s->left;
      if (column >= 0 && column < s->frame_width) memcpy(to + (size_t)column * s->channels, from + (size_t)x * s->channels, bytes);
    }
  }
}

/* --- forward ---------------------------------------------------------------------------------------------------- */

/* sums[p] += sum over what a window sees of one row of x * w, for P places and V vectors of features. */
#define WINDOWS(name, P, V)                                                                          \
  static void name(float *sums, const float *frame, const int *at, const float *w, int count) {      \
    lanes sum[P][V];                                                                                 \
    const float *seen[P];                                                                            \
    for (int p = 0; p < P; ++p) {                                                                    \
      seen[p] = frame + at[p];                                                                       \
      for (int v = 0; v < V; ++v) sum[p][v] = ((const lanes *)sums)[p * V + v];                      \
    }                                                                                                \
    for (int i = 0; i < count; ++i, w += V * VECTOR)                                                 \
      for (int p = 0; p < P; ++p) {                                                                  \
        float value = seen[p][i];                                                                    \
        for (int v = 0; v < V; ++v) sum[p][v] += value * ((const lanes *)w)[v];                      \
      }                                                                                              \
    for (int p = 0; p < P; ++p)                                                                      \
      for (int v = 0; v < V; ++v) ((lanes *)sums)[p * V + v] = sum[p][v];                            \
  }

WINDOWS(windows1, PLACES, 1)
#if VECTOR == 16
WINDOWS(windows2, PLACES, 2)
WINDOWS(windows3, PLACES, 3)
WINDOWS(windows4, PLACES_WIDEST, 4)
#else
WINDOWS(windows2, PLACES_WIDEST, 2)
#endif

static void windows(int width, float *sums, const float *frame, const int *at, const float *w, int count) {
  if (width == 1) windows1(sums, frame, at, w, count);
  else if (width == 2) windows2(sums, frame, at, w, count);
#if VECTOR == 16
  else if (width == 3) windows3(sums, frame, at, w, count);
  else windows4(sums, frame, at, w, count);
#endif
}

typedef struct {
  shape s;
  const float *x, *packed; /* kernel by blocks of features */
  float *out;
  int images, bands; /* of a part; parts of an image */
} convolve_task;

/* Rows first to last of an image's output from its frame, which begins with what they see. Lines of the kernel are
   done a few at a time for all places, so that they stay in the cache. */
static void convolve_rows(const convolve_task *t, const float *frame, float *out, int first, int last, float *sums,
                          int *at) {
  const shape *s = &t->s;
  int places = (last - first) * s->out_width, row = s->frame_width * s->channels;
  for (int q = 0; q < places + PLACES; ++q) { /* the last place stands in for those beyond it */
    int place = least(q, places - 1);
    at[q] = place / s->out_width * s->stride_y * row + place % s->out_width * s->stride_x * s->channels;
  }
  const float *w = t->packed;
  for (int v = 0, width; v < s->vectors; v += width) {
    width = width_of(s->vectors - v);
    int together = places_of(width), wide = width * VECTOR;
    memset(sums, 0, (size_t)(places + PLACES) * wide * sizeof(float));
    for (int r = 0; r < s->rows; ++r)
      for (int i = 0, count; i < s->segment; i += count, w += (size_t)count * wide) {
        count = least(LINES, s->segment - i);
        for (int place = 0; place < places; place += together)
          windows(width, sums + (size_t)place * wide, frame + r * (size_t)row + i, at + place, w, count);
      }
    int count = least(wide, s->features - v * VECTOR);
    for (int place = 0; place < places; ++place)
      memcpy(out + (size_t)place * s->features + v * VECTOR, sums + (size_t)place * wide, count * sizeof(float));
  }
}

static int convolve_part(const void *task, int part) {
  const convolve_task *t = task;
  const shape *s = &t->s;
  int band = part % t->bands, begin = part / t->bands * t->images, end = least(begin + t->images, s->batch);
  int share = (s->out_height + t->bands - 1) / t->bands;
  int first = least(band * share, s->out_height), last = least(first + share, s->out_height);
  if (first == last) return 0;
  int top = first * s->stride_y, height = (last - first - 1) * s->stride_y + s->rows;
  size_t size = (size_t)height * s->frame_width * s->channels;
  size_t places = (size_t)(last - first) * s->out_width + PLACES;
  float *frame = memory(size * sizeof(float)), *sums = memory(places * WIDEST * VECTOR * sizeof(float));
  int *at = memory(places * sizeof(int)), failed = !frame || !sums || !at;
  if (!failed) memset(frame, 0, size * sizeof(float));
  for (int b = begin; b < end && !failed; ++b) {
    fill(s, t->x + (size_t)b * s->height * s->width * s->channels, frame, top, top + height);
    float *out = t->out + ((size_t)b * s->out_height + first) * s->out_width * s->features;
    convolve_rows(t, frame, out, first, last, sums, at);
  }
  free(frame), free(sums), free(at);
  return failed;
}

/* Kernel [rows, columns, channels, features] as blocks of vectors of features, zero beyond the last. With `turned` it
   is [rows, columns, features, channels] and turned around, as the gradient of the images needs it. */
static float *pack(const shape *s, const float *kernel, int turned) {
  size_t lines = (size_t)s->rows * s->segment, taps = (size_t)s->rows * s->columns;
  float *packed = memory(lines * s->padded * sizeof(float)), *to = packed;
  if (!packed) return NULL;
  for (int v = 0, width; v < s->vectors; v += width) {
    width = width_of(s->vectors - v);
    int wide = width * VECTOR, count = least(wide, s->features - v * VECTOR);
    for (size_t k = 0; k < lines; ++k, to += wide) {
      size_t tap = taps - 1 - k / s->channels, c = k % s->channels, step = turned ? s->channels : 1;
      const float *from = turned ? kernel + (tap * s->features + v * VECTOR) * s->channels + c
                                 : kernel + k * s->features + v * VECTOR;
      for (int f = 0; f < count; ++f) to[f] = from[f * step];
      if (count < wide) memset(to + count, 0, (wide - count) * sizeof(float));
    }
  }
  return packed;
}

/* --- gradient of the kernel ----------------------------------------------------------------------------------------- */

/* sums[p] += sum over places of x * g, for P rows of the kernel and V vectors of features. */
#define SUMS(name, P, V)                                                                                      \
  static void name(float *sums, size_t wide, const float *frame, const int *at, const float *g, const shape *s) { \
    lanes sum[P][V];                                                                                           \
    const float *seen[P];                                                                                      \
    size_t row = (size_t)s->stride_y * s->frame_width * s->channels, step = (size_t)s->stride_x * s->channels; \
    for (int p = 0; p < P; ++p) {                                                                              \
      seen[p] = frame + at[p];                                                                                 \
      for (int v = 0; v < V; ++v) sum[p][v] = ((const lanes *)(sums + p * wide))[v];                           \
    }                                                                                                          \
    for (int i = 0; i < s->out_height; ++i) {                                                                  \
      size_t end = step * s->out_width;                                                                        \
      for (size_t j = 0; j < end; j += step, g += wide)                                                        \
        for (int p = 0; p < P; ++p) {                                                                          \
          float value = seen[p][j];                                                                            \
          for (int v = 0; v < V; ++v) sum[p][v] += value * ((const lanes *)g)[v];                              \
        }                                                                                                      \
      for (int p = 0; p < P; ++p) seen[p] += row;                                                              \
    }                                                                                                          \
    for (int p = 0; p < P; ++p)                                                                                \
      for (int v = 0; v < V; ++v) ((lanes *)(sums + p * wide))[v] = sum[p][v];                                 \
  }

SUMS(lines1, PLACES, 1)
SUMS(last_lines, 1, 1)
#if VECTOR == 16
SUMS(lines2, PLACES, 2)
SUMS(lines3, PLACES, 3)
SUMS(lines4, PLACES_WIDEST, 4)
#else
SUMS(lines2, PLACES_WIDEST, 2)
#endif

static void lines(int width, float *sums, size_t wide, const float *frame, const int *at, const float *g, const shape *s) {
  if (width == 1) lines1(sums, wide, frame, at, g, s);
  else if (width == 2) lines2(sums, wide, frame, at, g, s);
#if VECTOR == 16
  else if (width == 3) lines3(sums, wide, frame, at, g, s);
  else lines4(sums, wide, frame, at, g, s);
#endif
}

typedef struct {
  shape s;
  const float *x, *g;
  float *sums, *out; /* sums [share, row, padded] */
  int shares, images;
} kernel_task;

/* Adds what one image gives. */
static void add_image(const kernel_task *t, const float *frame, const float *g, float *sums) {
  const shape *s = &t->s;
  int count = s->rows * s->segment, at[PLACES];
  for (int v = 0, width; v < s->vectors; v += width) {
    width = width_of(s->vectors - v);
    int together = places_of(width);
    for (int k = 0; k < count; k += together) {
      float *to = sums + (size_t)k * s->padded + v * VECTOR;
      for (int p = 0; p < together && k + p < count; ++p)
        at[p] = (k + p) / s->segment * s->frame_width * s->channels + (k + p) % s->segment;
      if (k + together <= count) {
        lines(width, to, s->padded, frame, at, g + v * VECTOR, s);
        continue;
      }
      for (int p = 0; k + p < count; ++p)
        for (int c = 0; c < width; ++c)
          last_lines(to + p * (size_t)s->padded + c * VECTOR, s->padded, frame, at + p, g + (v + c) * VECTOR, s);
    }
  }
}

static int kernel_part(const void *task, int part) {
  const kernel_task *t = task;
  const shape *s = &t->s;
  size_t size = (size_t)s->frame_height * s->frame_width * s->channels, places = (size_t)s->out_height * s->out_width;
  size_t lines = (size_t)s->rows * s->segment;
  int whole = s->features == s->padded;
  float *frame = memory(size * sizeof(float)), *wide = whole ? NULL : memory(places * s->padded * sizeof(float));
  int failed = !frame || (!whole && !wide);
  if (!failed) {
    float *sums = t->sums + part * lines * s->padded;
    memset(frame, 0, size * sizeof(float));
    memset(sums, 0, lines * s->padded * sizeof(float));
    if (wide) memset(wide, 0, places * s->padded * sizeof(float));
    int end = least((part + 1) * t->images, s->batch);
    for (int b = part * t->images; b < end; ++b) {
      const float *g = t->g + b * places * s->features;
      fill(s, t->x + (size_t)b * s->height * s->width * s->channels, frame, 0, s->frame_height);
      for (size_t p = 0; wide && p < places; ++p)
        memcpy(wide + p * s->padded, g + p * s->features, s->features * sizeof(float));
      add_image(t, frame, wide ? wide : g, sums);
    }
  }
  free(frame), free(wide);
  return failed;
}

/* Adds up the shares, in their order; a part is a row of the kernel. */
static int sum_part(const void *task, int part) {
  const kernel_task *t = task;
  const shape *s = &t->s;
  size_t all = (size_t)s->rows * s->segment * s->padded;
  for (int k = part * s->channels; k < (part + 1) * s->channels; ++k) {
    float *restrict out = t->out + (size_t)k * s->features;
    const float *restrict from = t->sums + (size_t)k * s->padded;
    memcpy(out, from, s->features * sizeof(float));
    for (int share = 1; share < t->shares; ++share)
      for (int f = 0; f < s->features; ++f) out[f] += from[share * all + f];
  }
  return 0;
}

/* --- handlers --------------------------------------------------------------------------------------------------- */

/* Two float32 images or kernels and int32 settings in, one of four axes out; 0 if the call has another form. */
static int given(const XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer **x, const XLA_FFI_Buffer **other,
                 const int32_t **settings, const XLA_FFI_Buffer **out) {
  if (frame->args.size != 3 || frame->rets.size != 1) return 0;
  const XLA_FFI_Buffer *numbers = frame->args.args[2];
  *x = frame->args.args[0], *other = frame->args.args[1], *out = frame->rets.rets[0], *settings = numbers->data;
  return (*x)->dtype == XLA_FFI_DataType_F32 && (*other)->dtype == XLA_FFI_DataType_F32 &&
         (*out)->dtype == XLA_FFI_DataType_F32 && numbers->dtype == XLA_FFI_DataType_S32 && (*x)->rank == 4 &&
         (*other)->rank == 4 && (*out)->rank == 4 && numbers->rank == 1 && numbers->dims[0] == SETTINGS;
}

static int empty(const XLA_FFI_Buffer *buffer) {
  return !buffer->dims[0] || !buffer->dims[1] || !buffer->dims[2] || !buffer->dims[3];
}

XLA_FFI_Error *dsnn_convolve(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  const XLA_FFI_Buffer *x, *kernel, *out;
  const int32_t *settings;
  convolve_task t;
  int fits = given(frame, &x, &kernel, &settings, &out);
  int turned = fits && settings[TURNED];
  if (!fits || x->dims[3] != kernel->dims[turned ? 3 : 2] || out->dims[3] != kernel->dims[turned ? 2 : 3])
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_convolve takes float32 images and a kernel");
  if (empty(out)) return NULL;
  t.s.rows = (int)kernel->dims[0], t.s.columns = (int)kernel->dims[1], t.s.features = (int)out->dims[3];
  t.s.out_height = (int)out->dims[1], t.s.out_width = (int)out->dims[2];
  if (!sized(&t.s, x, settings))
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_convolve takes positive strides");
  int workers = threads(frame);
  t.x = x->data, t.out = out->data;
  t.images = most(1, least(16, t.s.batch / (4 * workers)));
  size_t bytes = (size_t)t.s.frame_height * t.s.frame_width * t.s.channels * sizeof(float);
  int bands = workers == 1 || t.s.batch >= 2 * workers ? 1 : 2 * workers;
  t.bands = least(t.s.out_height, most(bands, (int)(bytes / FRAME_BYTES)));
  float *packed = pack(&t.s, kernel->data, turned);
  t.packed = packed;
  int failed = !packed || in_parallel(frame, workers, (t.s.batch + t.images - 1) / t.images * t.bands, convolve_part, &t);
  free(packed);
  return failed ? failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "dsnn_convolve ran out of memory") : NULL;
}

XLA_FFI_Error *dsnn_convolve_kernel(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  const XLA_FFI_Buffer *x, *g, *out;
  const int32_t *settings;
  kernel_task t;
  if (!given(frame, &x, &g, &settings, &out) || x->dims[0] != g->dims[0] || x->dims[3] != out->dims[2] ||
      g->dims[3] != out->dims[3])
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_convolve_kernel takes float32 images and a gradient");
  if (empty(out)) return NULL;
  t.s.rows = (int)out->dims[0], t.s.columns = (int)out->dims[1], t.s.features = (int)out->dims[3];
  t.s.out_height = (int)g->dims[1], t.s.out_width = (int)g->dims[2];
  if (!sized(&t.s, x, settings))
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_convolve_kernel takes positive strides");
  size_t bytes = (size_t)t.s.rows * t.s.segment * t.s.padded * sizeof(float);
  t.x = x->data, t.g = g->data, t.out = out->data;
  if (!t.s.batch || !t.s.out_height || !t.s.out_width) {
    memset(t.out, 0, (size_t)t.s.rows * t.s.segment * t.s.features * sizeof(float));
    return NULL;
  }
  int shares = most(1, least(least(SHARES, t.s.batch), (int)(MOST_BYTES / bytes)));
  t.images = (t.s.batch + shares - 1) / shares, t.shares = (t.s.batch + t.images - 1) / t.images;
  t.sums = memory(bytes * t.shares);
  int workers = threads(frame);
  int failed = !t.sums || in_parallel(frame, workers, t.shares, kernel_part, &t) ||
               in_parallel(frame, workers, t.s.rows * t.s.columns, sum_part, &t);
  free(t.sums);
  return failed ? failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "dsnn_convolve_kernel ran out of memory") : NULL;
}
