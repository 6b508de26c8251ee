/* A whole decided network as one call: convolutions and dense layers of integrate-and-fire neurons, each example until
   its own stop.

   Inputs are held, so the first layer's current is summed once, over the pixels that are read and not zero. From then
   on an example costs what it does: at every step rows of weights are added for the neurons that fired, and the rule
   looks at the running mean of the readout. Kernels lie on a grid, so sums of spikes are exact in any order.

   u' = beta u + k I,  s = u' > theta,  u = u' - theta s (or 0, or u');  readout u = beta u + k I, logits its mean
   stop once the log odds of having stopped reach `enough` (dsnn.bayes.halting). */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "handler.h"
#include "parallel.h"
#include "vectors.h"

/* sums of inputs may be contracted; membranes are rounded before they are added, as other programs do */
#if defined(__clang__)
#define FUSED
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif

enum { LANES = 16, SHARE = 16, MOST_LAYERS = 16, SIGNS = 9, WIDTH = 16, FIXED = 5 };
enum { FEATURE, STEPS, COMPARE, RESET, IMAGES, SETTINGS };                    /* settings of the network */
enum { BIAS, SLOPE, DRIFT, GROWTH, ENOUGH, INNER };                   /* the head */
enum { SHIFT = INNER + SIGNS * WIDTH, OUTER = SHIFT + WIDTH, HEAD = OUTER + WIDTH };
enum { NEVER, MARGIN, ENTROPY, LEARNED };
enum { SUBTRACT, ZERO, NONE };

typedef float lanes __attribute__((vector_size(VECTOR * sizeof(float)), aligned(4), may_alias));

#include "images.h"

typedef struct {
  const float *kernel, *bias, *beta, *theta, *scale;
  int out, wide; /* neurons, and columns of the kernel: a multiple of LANES, zero beyond the neurons */
} layer;

typedef struct {
  const float *x, *settings, *head;
  const int32_t *keep, *row; /* the inputs that are read; of each input its row in the kernel, or -1 */
  int batch, inputs, read, layers, widest, classes, images;
  layer of[MOST_LAYERS];
  image_layer image[MOST_IMAGES];
  float *logits;
  int32_t *stop;
} network;

/* sum[:] += value[i] * the row at[i] of a kernel with `n` columns, for `width` vectors of columns: several sums at once,
   for each addition waits for the one before it, and a row is fetched once. */
#define ADD_ROWS(name, width)                                                                                      \
  FUSED static void name(float *sum, const float *kernel, int n, const int *at, const float *value, int count) {  \
    lanes total[width];                                                                                            \
    for (int c = 0; c < width; ++c) total[c] = ((const lanes *)sum)[c];                                            \
    for (int i = 0; i < count; ++i) {                                                                              \
      const lanes *row = (const lanes *)(kernel + (size_t)at[i] * n);                                              \
      for (int c = 0; c < width; ++c) total[c] += value[i] * row[c];                                               \
    }                                                                                                              \
    for (int c = 0; c < width; ++c) ((lanes *)sum)[c] = total[c];                                                  \
  }
ADD_ROWS(add_rows6, 6)
ADD_ROWS(add_rows2, 2)
ADD_ROWS(add_rows1, 1)

/* Adds the rows of a kernel at `at`, each times its value, to a sum. */
FUSED static void add_rows(float *sum, const layer *l, const int *at, const float *value, int count) {
  int n = l->wide, j = 0;
  for (; j + 6 * VECTOR <= n; j += 6 * VECTOR) add_rows6(sum + j, l->kernel + j, n, at, value, count);
  for (; j + 2 * VECTOR <= n; j += 2 * VECTOR) add_rows2(sum + j, l->kernel + j, n, at, value, count);
  for (; j < n; j += VECTOR) add_rows1(sum + j, l->kernel + j, n, at, value, count);
}

/* A layer's bias, the start of its current. */
static void begin(float *sum, const layer *l) {
  memcpy(sum, l->bias, l->out * sizeof(float));
  memset(sum + l->out, 0, (l->wide - l->out) * sizeof(float));
}

#if defined(__AVX512F__)

/* The rows of the inputs that are read and not zero, and their values; returns how many. */
static int nonzero(const network *net, const float *x, float *value, int *at) {
  int count = 0;
  for (int i = 0; i < net->inputs; i += LANES) {
    __mmask16 there = net->inputs - i < LANES ? (1u << (net->inputs - i)) - 1 : 0xffff;
    __m512 given = _mm512_maskz_loadu_ps(there, x + i);
    there = _mm512_mask_cmp_ps_mask(there, given, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    __m512i rows = _mm512_maskz_loadu_epi32(there, net->row + i);
    there = _mm512_mask_cmpge_epi32_mask(there, rows, _mm512_setzero_si512());
    _mm512_storeu_ps(value + count, _mm512_maskz_compress_ps(there, given));
    _mm512_storeu_si512(at + count, _mm512_maskz_compress_epi32(there, rows));
    count += __builtin_popcount(there);
  }
  return count;
}

/* One step of a layer of neurons; returns how many fired, and which. */
static int fire(const network *net, const layer *l, float *membrane, const float *current, int *fired) {
  int reset = (int)net->settings[RESET], at_threshold = net->settings[COMPARE] != 0, count = 0;
  const __m512i upwards = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int j = 0; j < l->out; j += LANES) {
    __mmask16 there = l->out - j < LANES ? (1u << (l->out - j)) - 1 : 0xffff;
    __m512 theta = _mm512_maskz_loadu_ps(there, l->theta + j);
    __m512 decayed = _mm512_maskz_loadu_ps(there, l->beta + j) * _mm512_maskz_loadu_ps(there, membrane + j);
    __m512 entering = _mm512_maskz_loadu_ps(there, l->scale + j) * _mm512_maskz_loadu_ps(there, current + j);
    __m512 u = decayed + entering;
    __mmask16 fires = at_threshold ? _mm512_mask_cmp_ps_mask(there, u, theta, _CMP_GE_OQ)
                                   : _mm512_mask_cmp_ps_mask(there, u, theta, _CMP_GT_OQ);
    if (reset == SUBTRACT) u = _mm512_mask_sub_ps(u, fires, u, theta);
    if (reset == ZERO) u = _mm512_maskz_mov_ps((__mmask16)~fires, u);
    _mm512_mask_storeu_ps(membrane + j, there, u);
    __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32(j), upwards);
    _mm512_storeu_si512(fired + count, _mm512_maskz_compress_epi32(fires, numbers));
    count += __builtin_popcount(fires);
  }
  return count;
}

#else

/* The rows of the inputs that are read and not zero, and their values; returns how many. */
static int nonzero(const network *net, const float *x, float *value, int *at) {
  int count = 0;
  for (int i = 0; i < net->read; ++i) {
    at[count] = i, value[count] = x[net->keep[i]];
    count += value[count] != 0;
  }
  return count;
}

/* One step of a layer of neurons; returns how many fired, and which. */
static int fire(const network *net, const layer *l, float *restrict membrane, const float *restrict current,
                int *fired) {
  int reset = (int)net->settings[RESET], at_threshold = net->settings[COMPARE] != 0, count = 0;
  for (int j = 0; j < l->out; ++j) {
    float decayed = l->beta[j] * membrane[j], entering = l->scale[j] * current[j];
    membrane[j] = decayed + entering;
  }
  for (int j = 0; j < l->out; ++j) {
    fired[count] = j;
    count += at_threshold ? membrane[j] >= l->theta[j] : membrane[j] > l->theta[j];
  }
  for (int i = 0; i < count; ++i) {
    int j = fired[i];
    membrane[j] = reset == SUBTRACT ? membrane[j] - l->theta[j] : reset == ZERO ? 0 : membrane[j];
  }
  return count;
}

#endif

static float softplus(float x) { return x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x)); }

typedef struct {
  float survived, probability;
  int winner;
} seen;

/* Whether the rule stops at this step, 1, 2, ...; see dsnn.bayes.halting. */
static int stops(const network *net, const float *logits, int step, seen *s) {
  const float *h = net->head;
  int feature = (int)net->settings[FEATURE], classes = net->classes, first = 0;
  if (feature == NEVER) return 0;
  float second = -INFINITY;
  for (int c = 1; c < classes; ++c)
    if (logits[c] > logits[first]) first = c;
  for (int c = 0; c < classes; ++c)
    if (c != first && logits[c] > second) second = logits[c];
  float certainty = logits[first] - second, hazard = h[BIAS] + h[DRIFT] * step;
  if (feature == MARGIN) {
    hazard += h[SLOPE] * certainty;
  } else {
    float sum = 0, entropy = 0, largest[3] = {0, 0, 0};
    for (int c = 0; c < classes; ++c) sum += expf(logits[c] - logits[first]);
    float log_sum = logf(sum);
    for (int c = 0; c < classes; ++c) {
      float log_p = logits[c] - logits[first] - log_sum, p = expf(log_p);
      entropy -= p * log_p;
      for (int place = 0; place < 3; ++place)
        if (p > largest[place]) {
          for (int k = 2; k > place; --k) largest[k] = largest[k - 1];
          largest[place] = p;
          break;
        }
    }
    float sure = -logf(entropy > 1e-9f ? entropy : 1e-9f);
    if (feature == ENTROPY) {
      hazard += h[SLOPE] * sure;
    } else {
      float signs[SIGNS] = {largest[0], largest[1], largest[2], (certainty < 20 ? certainty : 20) / 5, sure / 5,
                            largest[0] - s->probability, first != s->winner, logf((float)step) / 2, 1.0f / step};
      hazard += h[SLOPE] * certainty * powf((float)step, h[GROWTH]);
      for (int k = 0; k < WIDTH; ++k) {
        float inside = h[SHIFT + k];
        for (int i = 0; i < SIGNS; ++i) inside += signs[i] * h[INNER + i * WIDTH + k];
        if (h[OUTER + k] != 0) hazard += tanhf(inside) * h[OUTER + k];
      }
      s->probability = largest[0], s->winner = first;
    }
  }
  s->survived -= softplus(hazard);
  return logf(-expm1f(s->survived)) - s->survived >= h[ENOUGH];
}

/* Runs one example; `room` holds a membrane per neuron, a current, the held current and the sum of outputs. */
static void decide(const network *net, int example, float *room, image_room *images, float *values, const float *ones,
                   int *fired, int *before) {
  const float *x = net->x + (size_t)example * net->inputs;
  int steps = (int)net->settings[STEPS], last = net->layers - 1, step = 0;
  float *held = room, *current = held + net->widest, *total = current + net->widest, *membranes = total + net->widest;
  const layer *first = &net->of[0];
  int reset = (int)net->settings[RESET], at_threshold = net->settings[COMPARE] != 0;
  if (net->images) {
    begin_images(images, net->image, x);
  } else {
    int events = nonzero(net, x, values, fired);
    begin(held, first);
    add_rows(held, first, fired, values, events);
  }
  size_t neurons = 0;
  for (int l = 0; l < net->layers; ++l) neurons += net->of[l].out;
  memset(membranes, 0, neurons * sizeof(float));
  memset(total, 0, net->classes * sizeof(float));
  float *logits = net->logits + (size_t)example * net->classes;
  seen s = {0, 0, -1};
  while (step < steps) {
    ++step;
    float *membrane = membranes;
    int count = 0, *sent = before;
    if (net->images) count = images_step(images, net->image, net->images, reset, at_threshold, &sent);
    for (int l = 0; l <= last; ++l) {
      const layer *at = &net->of[l];
      const float *drive = held;
      if (l || net->images) {
        begin(current, at);
        add_rows(current, at, l ? before : sent, ones, count);
        drive = current;
      }
      if (l == last) {
        for (int j = 0; j < at->out; ++j) {
          float decayed = at->beta[j] * membrane[j], entering = at->scale[j] * drive[j];
          membrane[j] = decayed + entering;
          total[j] += membrane[j];
          logits[j] = total[j] / step;
        }
      } else {
        count = fire(net, at, membrane, drive, fired);
        int *swap = before;
        before = fired, fired = swap;
      }
      membrane += at->out;
    }
    if (step < steps && stops(net, logits, step, &s)) break;
  }
  net->stop[example] = step;
}

static int decide_share(const void *task, int part) {
  const network *net = task;
  size_t neurons = 0, most = net->read > net->widest ? net->read : net->widest;
  for (int l = 0; l < net->layers; ++l) neurons += net->of[l].out;
  most += LANES; /* whole vectors are written */
  size_t sent = net->images ? most_events(net->image, net->images) : 0;
  sent = sent > (size_t)net->widest ? sent : (size_t)net->widest;
  float *room = malloc((3 * (size_t)net->widest + sent + neurons + most) * sizeof(float));
  int *fired = malloc(2 * most * sizeof(int));
  image_room images = {0};
  int failed = !room || !fired || (net->images && enter_images(&images, net->image, net->images));
  if (!failed) {
    float *ones = room + 3 * (size_t)net->widest + neurons, *values = ones + sent;
    for (size_t j = 0; j < sent; ++j) ones[j] = 1;
    int end = (part + 1) * SHARE < net->batch ? (part + 1) * SHARE : net->batch;
    for (int example = part * SHARE; example < end; ++example)
      decide(net, example, room, &images, values, ones, fired, fired + most);
  }
  leave_images(&images);
  free(room), free(fired);
  return failed;
}

/* A layer of images from its arrays; 0 where they do not fit. */
static int image_of(image_layer *l, const XLA_FFI_Buffer **arrays) {
  const int32_t *plan = arrays[0]->data;
  if (arrays[0]->dtype != XLA_FFI_DataType_S32 || arrays[0]->dims[0] != PLAN + (int64_t)CELL * plan[CELLS]) return 0;
  *l = (image_layer){plan, plan + PLAN, arrays[1]->data, arrays[2]->data, arrays[3]->data, plan[OWN], plan[WIDE],
                     plan[CELLS], plan[MEMBERS], plan[IN_WIDTH], plan[CHANNELS], 0};
  l->lines = (size_t)plan[CELL_ROWS] * plan[CELL_COLUMNS] * plan[CHANNELS];
  return l->wide % BITS == 0 && l->wide <= BITS * (l->own ? 1 : MOST_WORDS) && l->members <= BITS;
}

/* x [batch, input], keep [read], row [input], settings, head, then plan, kernel, bias and constants of every layer of
   images, then kernel [in, wide], bias [out], constants [3, out] of every dense layer
   -> logits [batch, class], steps [batch] */
XLA_FFI_Error *dsnn_decide(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  const XLA_FFI_Buffer **args = (const XLA_FFI_Buffer **)frame->args.args;
  int images = frame->args.size > FIXED && args[3]->dims[0] == SETTINGS ? (int)((const float *)args[3]->data)[IMAGES] : 0;
  int fixed = FIXED + 4 * images, layers = ((int)frame->args.size - fixed) / 3;
  if (images < 0 || images > MOST_IMAGES || frame->args.size != fixed + 3 * layers || layers < 1 || layers > MOST_LAYERS || frame->rets.size != 2 ||
      args[0]->rank != 2 || args[1]->dtype != XLA_FFI_DataType_S32 || args[2]->dtype != XLA_FFI_DataType_S32 ||
      args[2]->dims[0] != args[0]->dims[1] || args[3]->dims[0] != SETTINGS || args[4]->dims[0] != HEAD)
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_decide takes a network of images and dense layers");
  network net = {.x = args[0]->data, .keep = args[1]->data, .row = args[2]->data, .settings = args[3]->data,
                 .head = args[4]->data,
                 .batch = (int)args[0]->dims[0], .inputs = (int)args[0]->dims[1], .read = (int)args[1]->dims[0],
                 .layers = layers, .images = images, .logits = ((XLA_FFI_Buffer *)frame->rets.rets[0])->data,
                 .stop = ((XLA_FFI_Buffer *)frame->rets.rets[1])->data};
  for (int i = 0; i < images; ++i)
    if (!image_of(&net.image[i], args + FIXED + 4 * i))
      return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_decide takes images by their plan");
  for (int l = 0; l < layers; ++l) {
    const XLA_FFI_Buffer *kernel = args[fixed + 3 * l];
    int out = (int)args[fixed + 1 + 3 * l]->dims[0], wide = (int)kernel->dims[1];
    if (wide % LANES || out > wide)
      return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_decide takes kernels of whole vectors");
    const float *constants = args[fixed + 2 + 3 * l]->data;
    net.of[l] = (layer){kernel->data, args[fixed + 1 + 3 * l]->data, constants, constants + out, constants + 2 * out, out, wide};
    if (wide > net.widest) net.widest = wide;
    net.classes = out;
  }
  int parts = (net.batch + SHARE - 1) / SHARE;
  int failed = parts > 1 ? in_parallel(frame, threads(frame), parts, decide_share, &net) : decide_share(&net, 0);
  return failed ? failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "dsnn_decide ran out of memory") : NULL;
}
