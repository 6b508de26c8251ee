/* A whole decided network as one call: dense layers of integrate-and-fire neurons, each example until its own stop.

   Inputs are held, so the first layer's current is summed once, over the pixels that are read and not zero. From then
   on an example costs what it does: at every step rows of weights are added for the neurons that fired, and the rule
   looks at the running mean of the readout. Kernels lie on a grid, so sums of spikes are exact in any order.

   u' = beta u + k I,  s = u' > theta,  u = u' - theta s (or 0, or u');  readout u = beta u + k I, logits its mean
   stop once the log odds of having stopped reach `enough` (dsnn.bayes.halting). */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "parallel.h"

/* sums of inputs may be contracted; membranes are rounded before they are added, as other programs do */
#if defined(__clang__)
#define FUSED
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif

enum { LANES = 16, SHARE = 16, MOST_LAYERS = 16, SIGNS = 9, WIDTH = 16 };
enum { FEATURE, STEPS, COMPARE, RESET, SETTINGS };                    /* settings of the network */
enum { BIAS, SLOPE, DRIFT, GROWTH, ENOUGH, INNER };                   /* the head */
enum { SHIFT = INNER + SIGNS * WIDTH, OUTER = SHIFT + WIDTH, HEAD = OUTER + WIDTH };
enum { NEVER, MARGIN, ENTROPY, LEARNED };
enum { SUBTRACT, ZERO, NONE };

typedef struct {
  const float *kernel, *bias, *beta, *theta, *scale;
  int in, out;
} layer;

typedef struct {
  const float *x, *settings, *head;
  const int32_t *keep;
  int batch, inputs, read, layers, widest, classes;
  layer of[MOST_LAYERS];
  float *logits;
  int32_t *stop;
} network;

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

/* Adds the rows of a kernel at `at`, each times its value, to a sum, which stays in registers. */
FUSED static void add_rows(float *sum, const layer *l, const int *at, const float *value, int count) {
  int n = l->out, j = 0;
  for (; j + 2 * LANES <= n; j += 2 * LANES) {
    lanes a = *(lanes *)(sum + j), b = *(lanes *)(sum + j + LANES);
    for (int i = 0; i < count; ++i) {
      const float *row = l->kernel + (size_t)at[i] * n + j;
      a += value[i] * *(const lanes *)row, b += value[i] * *(const lanes *)(row + LANES);
    }
    *(lanes *)(sum + j) = a, *(lanes *)(sum + j + LANES) = b;
  }
  for (; j + LANES <= n; j += LANES) {
    lanes a = *(lanes *)(sum + j);
    for (int i = 0; i < count; ++i) a += value[i] * *(const lanes *)(l->kernel + (size_t)at[i] * n + j);
    *(lanes *)(sum + j) = a;
  }
  for (; j < n; ++j)
    for (int i = 0; i < count; ++i) sum[j] += value[i] * l->kernel[(size_t)at[i] * n + j];
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
static void decide(const network *net, int example, float *room, float *values, const float *ones, int *fired,
                   int *before) {
  const float *x = net->x + (size_t)example * net->inputs;
  int steps = (int)net->settings[STEPS], last = net->layers - 1, events = 0, step = 0;
  float *held = room, *current = held + net->widest, *total = current + net->widest, *membranes = total + net->widest;
  const layer *first = &net->of[0];
  for (int i = 0; i < net->read; ++i) {
    float value = x[net->keep[i]];
    values[events] = value, fired[events] = i;
    events += value != 0;
  }
  memcpy(held, first->bias, first->out * sizeof(float));
  add_rows(held, first, fired, values, events);
  size_t neurons = 0;
  for (int l = 0; l < net->layers; ++l) neurons += net->of[l].out;
  memset(membranes, 0, neurons * sizeof(float));
  memset(total, 0, net->classes * sizeof(float));
  float *logits = net->logits + (size_t)example * net->classes;
  seen s = {0, 0, -1};
  while (step < steps) {
    ++step;
    float *membrane = membranes;
    int count = 0;
    for (int l = 0; l <= last; ++l) {
      const layer *at = &net->of[l];
      const float *drive = held;
      if (l) {
        memcpy(current, at->bias, at->out * sizeof(float));
        add_rows(current, at, before, ones, count);
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
  float *room = malloc((4 * (size_t)net->widest + neurons + most) * sizeof(float));
  int *fired = malloc(2 * most * sizeof(int) + 2 * sizeof(int));
  if (room && fired) {
    float *ones = room + 3 * (size_t)net->widest + neurons, *values = ones + net->widest;
    for (int j = 0; j < net->widest; ++j) ones[j] = 1;
    int end = (part + 1) * SHARE < net->batch ? (part + 1) * SHARE : net->batch;
    for (int example = part * SHARE; example < end; ++example)
      decide(net, example, room, values, ones, fired, fired + most + 1);
  }
  int failed = !room || !fired;
  free(room), free(fired);
  return failed;
}

/* x [batch, input], keep [read], settings, head, then kernel [in, out], bias and constants [3, out] of every layer
   -> logits [batch, class], steps [batch] */
XLA_FFI_Error *dsnn_decide(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  int layers = ((int)frame->args.size - 4) / 3;
  const XLA_FFI_Buffer **args = (const XLA_FFI_Buffer **)frame->args.args;
  if (frame->args.size != 4 + 3 * layers || layers < 1 || layers > MOST_LAYERS || frame->rets.size != 2 ||
      args[0]->rank != 2 || args[1]->dtype != XLA_FFI_DataType_S32 || args[2]->dims[0] != SETTINGS ||
      args[3]->dims[0] != HEAD)
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_decide takes a network of dense layers");
  network net = {.x = args[0]->data, .keep = args[1]->data, .settings = args[2]->data, .head = args[3]->data,
                 .batch = (int)args[0]->dims[0], .inputs = (int)args[0]->dims[1], .read = (int)args[1]->dims[0],
                 .layers = layers, .logits = ((XLA_FFI_Buffer *)frame->rets.rets[0])->data,
                 .stop = ((XLA_FFI_Buffer *)frame->rets.rets[1])->data};
  for (int l = 0; l < layers; ++l) {
    const XLA_FFI_Buffer *kernel = args[4 + 3 * l];
    int out = (int)kernel->dims[1];
    const float *constants = args[6 + 3 * l]->data;
    net.of[l] = (layer){kernel->data, args[5 + 3 * l]->data, constants, constants + out, constants + 2 * out,
                        (int)kernel->dims[0], out};
    if (out > net.widest) net.widest = out;
    net.classes = out;
  }
  int parts = (net.batch + SHARE - 1) / SHARE;
  int failed = parts > 1 ? in_parallel(frame, threads(frame), parts, decide_share, &net) : decide_share(&net, 0);
  return failed ? failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "dsnn_decide ran out of memory") : NULL;
}
