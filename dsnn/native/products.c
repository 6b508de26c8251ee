/* Matrix products with a sparse left side, on the CPU: work follows the events (nonzero entries), not the matrix.

   dsnn_events_drive:   out[m, :] = sum over events (m, k) of x[m, k] * w[k, :]
   dsnn_events_weight:  out[k, :] = sum over events (m, k) of x[m, k] * g[m, :]
   dsnn_events_gather:  out[m, :] = sum over events e of value[m, e] * w[index[m, e], :], an event of value 0 being none
   dsnn_events_count:   number of events

   They are handlers of XLA's typed foreign function interface and the products share out their work over XLA's own
   threads. Columns are done in tiles of 64, whose sums stay in registers while the rows that they add come from the
   second cache. Where each row is added often, a tile's rows are first copied side by side: rows that are a power of two
   apart fall on a few of the cache's lines and drive each other out. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "parallel.h"
#include "vectors.h"

#define TILE 64      /* columns whose sums are held in registers */
#define CHUNK 16     /* inputs that are looked at together */
#define BLOCK 2048   /* rows of g that a tile of 64 columns keeps in the second cache */
#define OFTEN 4      /* times that a row is added on average before copying it pays */

typedef float lanes __attribute__((vector_size(VECTOR * sizeof(float)), aligned(4), may_alias));

typedef struct {
  int32_t at;
  float value;
} event;

/* --- events ----------------------------------------------------------------------------------------------------- */

/* Appends the events of one row to `out`, which has room for all of it, and returns their number. */
static int row_events(const float *row, int columns, event *out) {
  int found = 0, k = 0;
  for (; k + CHUNK <= columns; k += CHUNK) {
    uint32_t bits[CHUNK], any = 0;
    memcpy(bits, row + k, sizeof bits);
    for (int i = 0; i < CHUNK; ++i) any |= bits[i] << 1; /* minus zero is no event */
    if (!any) continue;
    for (int i = 0; i < CHUNK; ++i) {
      out[found] = (event){k + i, row[k + i]};
      found += (bits[i] << 1) != 0;
    }
  }
  for (; k < columns; ++k)
    if (row[k] != 0) out[found++] = (event){k, row[k]};
  return found;
}

/* to[0:width] += sum of value * from[at, 0:width] over the events, rows of `from` being `stride` apart. */
static void add_rows(float *to, const float *from, size_t stride, int width, const event *events, int count) {
  if (width == TILE) {
    lanes sum[TILE / VECTOR];
    for (int c = 0; c < TILE / VECTOR; ++c) sum[c] = ((lanes *)to)[c];
    for (int e = 0; e < count; ++e) {
      const lanes *row = (const lanes *)(from + (size_t)events[e].at * stride);
      for (int c = 0; c < TILE / VECTOR; ++c) sum[c] += events[e].value * row[c];
    }
    for (int c = 0; c < TILE / VECTOR; ++c) ((lanes *)to)[c] = sum[c];
    return;
  }
  for (int e = 0; e < count; ++e) {
    const float *row = from + (size_t)events[e].at * stride;
    float v = events[e].value;
    for (int n = 0; n < width; ++n) to[n] += v * row[n];
  }
}

/* Copies columns of `rows` rows, `stride` apart, to rows of `width`. */
static void pack(float *to, const float *from, size_t stride, int width, int rows) {
  for (int i = 0; i < rows; ++i) memcpy(to + (size_t)i * width, from + (size_t)i * stride, width * sizeof(float));
}

/* Memory for one tile of `rows` rows if `events` fall on them often enough and they are not side by side already. */
static float *tile_memory(size_t events, int rows, int columns) {
  return columns > TILE && events > (size_t)OFTEN * rows ? malloc((size_t)rows * TILE * sizeof(float)) : NULL;
}

static int least(int a, int b) { return a < b ? a : b; }

/* out[m, :] = sum of value * w[at, :] over the events start[m] to start[m + 1], for `count` rows. */
static void add_tiles(float *out, const float *w, int inputs, int columns, const event *events, const size_t *start,
                      int count) {
  float *packed = tile_memory(start[count], inputs, columns);
  memset(out, 0, (size_t)count * columns * sizeof(float));
  for (int n = 0; n < columns; n += TILE) {
    int width = least(TILE, columns - n);
    if (packed) pack(packed, w + n, columns, width, inputs);
    for (int m = 0; m < count; ++m)
      add_rows(out + (size_t)m * columns + n, packed ? packed : w + n, packed ? width : columns, width,
               events + start[m], (int)(start[m + 1] - start[m]));
  }
  free(packed);
}

/* --- out = x w -------------------------------------------------------------------------------------------------- */

typedef struct {
  const float *x, *w;
  float *out;
  int rows, inputs, columns, rows_per_part;
} drive_task;

static int drive_part(const void *task, int part) {
  const drive_task *t = task;
  int first = part * t->rows_per_part, count = least(t->rows_per_part, t->rows - first);
  event *events = malloc((size_t)count * t->inputs * sizeof *events + 1);
  size_t *start = malloc((count + 1) * sizeof *start);
  if (!events || !start) {
    free(events), free(start);
    return 1;
  }
  start[0] = 0;
  for (int m = 0; m < count; ++m)
    start[m + 1] = start[m] + row_events(t->x + (size_t)(first + m) * t->inputs, t->inputs, events + start[m]);
  add_tiles(t->out + (size_t)first * t->columns, t->w, t->inputs, t->columns, events, start, count);
  free(events), free(start);
  return 0;
}

/* --- out = sum of the rows of w that the events name --------------------------------------------------------------- */

typedef struct {
  const int32_t *index;
  const float *value, *w;
  float *out;
  int rows, events, inputs, columns, rows_per_part;
} gather_task;

static int gather_part(const void *task, int part) {
  const gather_task *t = task;
  int first = part * t->rows_per_part, count = least(t->rows_per_part, t->rows - first), outside = 0;
  event *events = malloc((size_t)count * t->events * sizeof *events + 1);
  size_t *start = malloc((count + 1) * sizeof *start);
  if (!events || !start) {
    free(events), free(start);
    return 1;
  }
  start[0] = 0;
  for (int m = 0; m < count; ++m) {
    size_t found = start[m], row = (size_t)(first + m) * t->events;
    for (int e = 0; e < t->events; ++e) {
      if (t->value[row + e] == 0) continue;
      int32_t at = t->index[row + e];
      if (at < 0 || at >= t->inputs) outside = 1;
      else events[found++] = (event){at, t->value[row + e]};
    }
    start[m + 1] = found;
  }
  add_tiles(t->out + (size_t)first * t->columns, t->w, t->inputs, t->columns, events, start, count);
  free(events), free(start);
  return outside;
}

/* --- out = x^T g ------------------------------------------------------------------------------------------------ */

typedef struct {
  const float *x, *g;
  float *out;
  int rows, inputs, columns, blocks, tiles, inputs_per_part;
  event **events; /* of each block of rows, sorted by input */
  int32_t **start; /* [block][input] first event */
} weight_task;

/* Sorts the events of one block of rows by input. */
static int sort_part(const void *task, int b) {
  const weight_task *t = task;
  int first = b * BLOCK, count = least(BLOCK, t->rows - first);
  event *by_row = malloc((size_t)count * t->inputs * sizeof *by_row + 1);
  int32_t *row_start = malloc((count + 1) * sizeof *row_start);
  int32_t *start = calloc(t->inputs + 2, sizeof *start);
  event *sorted = NULL;
  if (by_row && row_start && start) {
    row_start[0] = 0;
    for (int m = 0; m < count; ++m)
      row_start[m + 1] =
          row_start[m] + row_events(t->x + (size_t)(first + m) * t->inputs, t->inputs, by_row + row_start[m]);
    int32_t total = row_start[count];
    sorted = malloc(total * sizeof *sorted + 1);
    if (sorted) {
      for (int32_t e = 0; e < total; ++e) start[by_row[e].at + 2]++;
      for (int k = 1; k <= t->inputs; ++k) start[k + 1] += start[k];
      for (int m = 0; m < count; ++m) /* start[k + 1] walks from the first event of k to the first of k + 1 */
        for (int32_t e = row_start[m]; e < row_start[m + 1]; ++e)
          sorted[start[by_row[e].at + 1]++] = (event){m, by_row[e].value};
    }
  }
  free(by_row), free(row_start);
  t->events[b] = sorted, t->start[b] = start;
  return sorted == NULL;
}

static int weight_part(const void *task, int part) {
  const weight_task *t = task;
  int n = part % t->tiles * TILE, width = least(TILE, t->columns - n);
  int first = part / t->tiles * t->inputs_per_part, last = least(first + t->inputs_per_part, t->inputs);
  for (int k = first; k < last; ++k) memset(t->out + (size_t)k * t->columns + n, 0, width * sizeof(float));
  for (int b = 0; b < t->blocks; ++b) {
    const float *g = t->g + (size_t)b * BLOCK * t->columns + n;
    int rows = least(BLOCK, t->rows - b * BLOCK);
    float *packed = tile_memory(t->start[b][last] - t->start[b][first], rows, t->columns);
    if (packed) pack(packed, g, t->columns, width, rows);
    for (int k = first; k < last; ++k)
      add_rows(t->out + (size_t)k * t->columns + n, packed ? packed : g, packed ? width : t->columns, width,
               t->events[b] + t->start[b][k], t->start[b][k + 1] - t->start[b][k]);
    free(packed);
  }
  return 0;
}

/* --- handlers --------------------------------------------------------------------------------------------------- */

XLA_FFI_Error *dsnn_events_count(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  const XLA_FFI_Buffer *x = frame->args.args[0], *out = frame->rets.rets[0];
  if (frame->args.size != 1 || x->dtype != XLA_FFI_DataType_F32 || out->dtype != XLA_FFI_DataType_S32)
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_events_count takes one float32 array");
  size_t size = 1;
  for (int64_t axis = 0; axis < x->rank; ++axis) size *= x->dims[axis];
  const float *values = x->data;
  int32_t found = 0;
  for (size_t i = 0; i < size; ++i) found += values[i] != 0;
  *(int32_t *)out->data = found;
  return NULL;
}

/* Two float32 matrices in, one out; 0 if the call has another form. */
static int matrices(const XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer **a, const XLA_FFI_Buffer **b,
                    const XLA_FFI_Buffer **out) {
  if (frame->args.size != 2 || frame->rets.size != 1) return 0;
  *a = frame->args.args[0], *b = frame->args.args[1], *out = frame->rets.rets[0];
  return (*a)->dtype == XLA_FFI_DataType_F32 && (*b)->dtype == XLA_FFI_DataType_F32 &&
         (*out)->dtype == XLA_FFI_DataType_F32 && (*a)->rank == 2 && (*b)->rank == 2 && (*out)->rank == 2;
}

XLA_FFI_Error *dsnn_events_drive(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  const XLA_FFI_Buffer *x, *w, *out;
  if (!matrices(frame, &x, &w, &out) || x->dims[1] != w->dims[0])
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_events_drive takes float32 x [m, k] and w [k, n]");
  int workers = threads(frame), rows = (int)x->dims[0];
  int share = (rows + 4 * workers - 1) / (4 * workers);
  share = share < 32 ? 32 : share > 1024 ? 1024 : share;
  drive_task task = {x->data, w->data, out->data, rows, (int)x->dims[1], (int)w->dims[1], share};
  if (in_parallel(frame, workers, (rows + share - 1) / share, drive_part, &task))
    return failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "dsnn_events_drive ran out of memory");
  return NULL;
}

XLA_FFI_Error *dsnn_events_weight(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  const XLA_FFI_Buffer *x, *g, *out;
  if (!matrices(frame, &x, &g, &out) || x->dims[0] != g->dims[0])
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "dsnn_events_weight takes float32 x [m, k], g [m, n]");
  int workers = threads(frame);
  weight_task task = {x->data, g->data, out->data, (int)x->dims[0], (int)x->dims[1], (int)g->dims[1], 0, 0, 0, NULL, NULL};
  task.blocks = (task.rows + BLOCK - 1) / BLOCK, task.tiles = (task.columns + TILE - 1) / TILE;
  int shares = (2 * workers + task.tiles - 1) / (task.tiles ? task.tiles : 1);
  task.inputs_per_part = (task.inputs + shares - 1) / shares;
  task.events = calloc(task.blocks + 1, sizeof *task.events);
  task.start = calloc(task.blocks + 1, sizeof *task.start);
  int failed = !task.events || !task.start || in_parallel(frame, workers, task.blocks, sort_part, &task) ||
               in_parallel(frame, workers, shares * task.tiles, weight_part, &task);
  for (int b = 0; b < task.blocks; ++b) {
    if (task.events) free(task.events[b]);
    if (task.start) free(task.start[b]);
  }
  free(task.events), free(task.start);
  return failed ? failure(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "dsnn_events_weight ran out of memory") : NULL;
}

XLA_FFI_Error *dsnn_events_gather(XLA_FFI_CallFrame *frame) {
  if (is_metadata_query(frame)) return NULL;
  const char *form = "dsnn_events_gather takes int32 index [m, e], float32 value [m, e] and float32 w [k, n]";
  if (frame->args.size != 3 || frame->rets.size != 1)
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, form);
  const XLA_FFI_Buffer *index = frame->args.args[0], *value = frame->args.args[1], *w = frame->args.args[2];
  const XLA_FFI_Buffer *out = frame->rets.rets[0];
  if (index->dtype != XLA_FFI_DataType_S32 || value->dtype != XLA_FFI_DataType_F32 || w->dtype != XLA_FFI_DataType_F32 ||
      out->dtype != XLA_FFI_DataType_F32 || index->rank != 2 || value->rank != 2 || w->rank != 2 || out->rank != 2 ||
      index->dims[0] != value->dims[0] || index->dims[1] != value->dims[1])
    return failure(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, form);
  int workers = threads(frame), rows = (int)index->dims[0];
  int share = (rows + 4 * workers - 1) / (4 * workers);
  share = share < 32 ? 32 : share > 1024 ? 1024 : share;
  gather_task task = {index->data,           value->data,          w->data, out->data, rows, (int)index->dims[1],
                      (int)w->dims[0], (int)w->dims[1], share};
  if (in_parallel(frame, workers, (rows + share - 1) / share, gather_part, &task))
    return failure(frame, XLA_FFI_Error_Code_OUT_OF_RANGE, "dsnn_events_gather met an index that is no row of w, or ran out of memory");
  return NULL;
}
