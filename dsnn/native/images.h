/* Convolutions, their neurons and the pooling after them, of one example at one step: what `decide.c` runs before its
   dense layers.

   A cell is what is summed together: all features of one place, or, where only some places of the pooled map are read,
   the neurons behind a few of these (`own`: each such cell has a kernel of its own, of what its window of places sees).
   Its current is the sum of the rows of its kernel at the events that it sees, and its spikes are bits. So neither a zero
   nor a neuron that nobody reads costs anything. */

#ifndef DSNN_IMAGES_H
#define DSNN_IMAGES_H

enum { BITS = 16, MOST_IMAGES = 8, MOST_WORDS = 64 };
enum { IN_HEIGHT, IN_WIDTH, CHANNELS, CELL_ROWS, CELL_COLUMNS, CELLS, WIDE, OWN, MEMBERS, OUT_HEIGHT, OUT_WIDTH, FEATURES, PLAN };
enum { CELL_ROW, CELL_COLUMN, CELL_FEATURE, CELL_COUNT, CELL };

typedef struct {
  const int32_t *plan, *cell; /* numbers as named above; of each cell where it looks, its first feature and how many */
  const float *kernel, *bias, *constants; /* of each kernel: rows of `wide`, a row, and beta, theta and scale */
  int own, wide, cells, members, width, channels;
  size_t lines;
} image_layer;

/* Events of an image, by row and column: those of a pixel begin at start[row * (width + 1) + column]. */
typedef struct {
  int *at, *start; /* at: column * channels + channel */
  float *value;
} image_events;

/* sum of the rows of a kernel at the events that a cell sees, for V vectors of its columns; in `chains` sums, since each
   addition waits for the one before it. */
#define SEEN(name, V, chains, times)                                                                              \
  FUSED static void name(float *out, const image_layer *l, const float *kernel, const float *bias,                \
                         const image_events *events, int row, int column) {                                       \
    lanes sum[chains][V];                                                                                         \
    for (int k = 0; k < chains; ++k)                                                                              \
      for (int v = 0; v < V; ++v) sum[k][v] = k ? (lanes){0} : ((const lanes *)bias)[v];                          \
    int rows = l->plan[CELL_ROWS], columns = l->plan[CELL_COLUMNS], height = l->plan[IN_HEIGHT], width = l->width;   \
    int left = column > 0 ? column : 0, right = column + columns < width ? column + columns : width;              \
    for (int r = row < 0 ? -row : 0; r < rows && row + r < height; ++r) {                                         \
      const int *start = events->start + (row + r) * (width + 1);                                                 \
      ptrdiff_t shift = (ptrdiff_t)(r * columns - column) * l->channels;                                          \
      int e = start[left], end = start[right];                                                                    \
      for (; e + chains <= end; e += chains)                                                                      \
        for (int k = 0; k < chains; ++k) {                                                                        \
          const lanes *line = (const lanes *)(kernel + (shift + events->at[e + k]) * l->wide);                    \
          for (int v = 0; v < V; ++v) sum[k][v] += times(events->value[e + k]) line[v];                           \
        }                                                                                                         \
      for (; e < end; ++e) {                                                                                      \
        const lanes *line = (const lanes *)(kernel + (shift + events->at[e]) * l->wide);                          \
        for (int v = 0; v < V; ++v) sum[0][v] += times(events->value[e]) line[v];                                 \
      }                                                                                                           \
    }                                                                                                             \
    for (int v = 0; v < V; ++v) {                                                                                 \
      for (int k = 1; k < chains; ++k) sum[0][v] += sum[k][v];                                                    \
      ((lanes *)out)[v] = sum[0][v];                                                                              \
    }                                                                                                             \
  }
#define TIMES(value) (value) *
#define ONCE(value)
SEEN(seen1, 1, 4, TIMES)
SEEN(seen2, 2, 4, TIMES)
SEEN(seen4, 4, 2, TIMES)
SEEN(spikes1, 1, 4, ONCE)
SEEN(spikes2, 2, 4, ONCE)
SEEN(spikes4, 4, 2, ONCE)

/* The current of a cell, from pixels or from spikes, which are all one. */
static void cell_current(float *out, const image_layer *l, int cell, const image_events *events) {
  const int32_t *at = l->cell + CELL * cell;
  const float *kernel = l->kernel + (l->own ? cell * l->lines * l->wide : 0), *bias = l->bias + (l->own ? cell * l->wide : 0);
  int row = at[CELL_ROW], column = at[CELL_COLUMN], spikes = !events->value, n = 0;
  for (; n + 4 * VECTOR <= l->wide; n += 4 * VECTOR)
    (spikes ? spikes4 : seen4)(out + n, l, kernel + n, bias + n, events, row, column);
  for (; n + 2 * VECTOR <= l->wide; n += 2 * VECTOR)
    (spikes ? spikes2 : seen2)(out + n, l, kernel + n, bias + n, events, row, column);
  for (; n < l->wide; n += VECTOR)
    (spikes ? spikes1 : seen1)(out + n, l, kernel + n, bias + n, events, row, column);
}

/* One step of BITS neurons in each of a window's cells, `wide` apart; returns which of them fired in any. Constants are
   beta, theta and scale. */
static unsigned fire_window(int reset, int at_threshold, const float *constants, int wide, float *membrane,
                            const float *current, int cells) {
  unsigned any = 0;
#if defined(__AVX512F__)
  __m512 beta = _mm512_loadu_ps(constants), theta = _mm512_loadu_ps(constants + wide);
  __m512 scale = _mm512_loadu_ps(constants + 2 * wide);
  for (int k = 0; k < cells; ++k, membrane += wide, current += wide) {
    __m512 decayed = beta * _mm512_loadu_ps(membrane), entering = scale * _mm512_loadu_ps(current);
    __m512 u = decayed + entering;
    __mmask16 fires = at_threshold ? _mm512_cmp_ps_mask(u, theta, _CMP_GE_OQ) : _mm512_cmp_ps_mask(u, theta, _CMP_GT_OQ);
    if (reset == SUBTRACT) u = _mm512_mask_sub_ps(u, fires, u, theta);
    if (reset == ZERO) u = _mm512_maskz_mov_ps((__mmask16)~fires, u);
    _mm512_storeu_ps(membrane, u);
    any |= fires;
  }
#else
  for (int k = 0; k < cells; ++k, membrane += wide, current += wide)
    for (int i = 0; i < BITS; ++i) {
      float theta = constants[wide + i], decayed = constants[i] * membrane[i];
      float entering = constants[2 * wide + i] * current[i];
      float u = decayed + entering;
      int s = at_threshold ? u >= theta : u > theta;
      any |= (unsigned)s << i;
      membrane[i] = s && reset == SUBTRACT ? u - theta : s && reset == ZERO ? 0 : u;
    }
#endif
  return any;
}

/* Appends the numbers of the bits, from `first` on; there is room for BITS more. */
static int append(int *at, int count, int first, unsigned bits) {
#if defined(__AVX512F__)
  const __m512i upwards = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(at + count, _mm512_maskz_compress_epi32((__mmask16)bits, _mm512_add_epi32(_mm512_set1_epi32(first), upwards)));
  return count + __builtin_popcount(bits);
#else
  for (; bits; bits &= bits - 1) at[count++] = first + __builtin_ctz(bits);
  return count;
#endif
}

/* The pixels of an image that are not zero, by row and column. */
static void pixels(const image_layer *l, const float *x, image_events *events) {
  int count = 0;
  for (int row = 0; row < l->plan[IN_HEIGHT]; ++row)
    for (int column = 0; column <= l->width; ++column) {
      events->start[row * (l->width + 1) + column] = count;
      for (int c = 0; column < l->width && c < l->channels; ++c, ++x)
        if (*x != 0) events->at[count] = column * l->channels + c, events->value[count++] = *x;
    }
}

/* Memory of one example at a time; zeros where membranes begin. */
typedef struct {
  float *membrane, *held, *current;
  int *corner;
  size_t neurons;
  image_events seen[2]; /* what a layer reads and what it sends, in turn; the first also has the values of pixels */
} image_room;

static size_t most_events(const image_layer *layers, int count) {
  size_t most = 0;
  for (int i = 0; i < count; ++i) {
    const int32_t *p = layers[i].plan;
    size_t in = (size_t)p[IN_HEIGHT] * p[IN_WIDTH] * p[CHANNELS];
    size_t out = (size_t)p[OUT_HEIGHT] * p[OUT_WIDTH] * p[FEATURES];
    most = in > most ? in : most, most = out > most ? out : most;
  }
  return most + BITS;
}

static void leave_images(image_room *room) {
  free(room->membrane), free(room->seen[0].at), free(room->seen[0].value), free(room->corner);
}

/* The cell that begins to look at each place, see `spread_pixels`; NULL when memory ran out. */
static int *corners(const image_layer *l) {
  int rows = l->plan[CELL_ROWS], columns = l->plan[CELL_COLUMNS], height = l->plan[IN_HEIGHT] + rows, line = l->width + columns;
  int *corner = malloc((size_t)height * line * sizeof(int));
  for (int i = 0; corner && i < height * line; ++i) corner[i] = -1;
  for (int cell = 0; corner && cell < l->cells; ++cell) {
    const int32_t *at = l->cell + CELL * cell;
    int row = at[CELL_ROW] + rows - 1, column = at[CELL_COLUMN] + columns - 1;
    if (row >= 0 && row < height && column >= 0 && column < line) corner[row * line + column] = cell;
  }
  return corner;
}

/* 0, or 1 when memory ran out. */
static int enter_images(image_room *room, const image_layer *layers, int count) {
  size_t events = most_events(layers, count), pixels = 1, wide = 0;
  room->neurons = 0;
  for (int i = 0; i < count; ++i) {
    const int32_t *p = layers[i].plan;
    size_t lines = (size_t)p[IN_HEIGHT] * (p[IN_WIDTH] + 1);
    room->neurons += (size_t)layers[i].cells * layers[i].wide;
    pixels = lines > pixels ? lines : pixels;
    size_t window = (size_t)p[WIDE] * p[MEMBERS];
    wide = window > wide ? window : wide;
  }
  size_t held = (size_t)layers[0].cells * layers[0].wide;
  room->membrane = malloc((room->neurons + held + wide) * sizeof(float));
  int *numbers = malloc(2 * (events + pixels) * sizeof(int));
  float *value = malloc(events * sizeof(float));
  room->held = room->membrane + room->neurons, room->current = room->held + held;
  room->seen[0] = (image_events){numbers, numbers + 2 * events, value};
  room->seen[1] = (image_events){numbers + events, numbers + 2 * events + pixels, NULL};
  room->corner = corners(&layers[0]);
  return !room->membrane || !numbers || !value || !room->corner;
}

/* One step of a layer: neurons fire, and windows of them that hold a spike are the events of the next.

   `held`: currents of all cells, or NULL where they come from `events`. `flat`: whether what follows is dense, which
   reads numbers of the whole map. Returns the number of events. */
static int image_step(const image_layer *l, int reset, int at_threshold, const float *held, const image_events *events,
                      float *membrane, float *current, image_events *sent, int flat) {
  int count = 0;
  int features = l->plan[FEATURES], out_width = l->plan[OUT_WIDTH];
  if (l->own) { /* neurons of a window lie side by side, and so do features */
    for (int cell = 0; cell < l->cells; ++cell, membrane += l->wide) {
      const int32_t *at = l->cell + CELL * cell;
      if (held) current = (float *)held + (size_t)cell * l->wide;
      else cell_current(current, l, cell, events);
      unsigned fires =
          fire_window(reset, at_threshold, l->constants + (size_t)cell * 3 * l->wide, l->wide, membrane, current, 1);
      unsigned whole = (1u << l->members) - 1;
      for (int k = 0; fires && k < at[CELL_COUNT]; ++k, fires >>= l->members)
        if (fires & whole) sent->at[count++] = at[CELL_FEATURE] + k;
    }
    return count;
  }
  size_t window = (size_t)l->members * l->wide;
  for (int pixel = 0, cell = 0; pixel < l->plan[OUT_HEIGHT] * out_width; ++pixel, cell += l->members, membrane += window) {
    if (held) current = (float *)held + (size_t)cell * l->wide;
    for (int m = 0; !held && m < l->members; ++m) cell_current(current + m * l->wide, l, cell + m, events);
    int column = pixel % out_width, *start = sent->start + pixel / out_width * (out_width + 1) + column;
    if (!flat) *start = count;
    int first = (flat ? pixel : column) * features;
    for (int n = 0; n < l->wide; n += BITS)
      count = append(sent->at, count, first + n,
                     fire_window(reset, at_threshold, l->constants + n, l->wide, membrane + n, current + n, l->members));
    if (!flat && column == out_width - 1) start[1] = count;
  }
  return count;
}

/* Currents of all cells from the pixels, pixel by pixel: an image is seen once, and its windows are short. `corner` is
   the cell that begins to look at each row and column, from -(rows - 1) and -(columns - 1) on, or -1. */
FUSED static void spread_pixels(float *current, const image_layer *l, const int *corner, const image_events *events) {
  int rows = l->plan[CELL_ROWS], columns = l->plan[CELL_COLUMNS], line = l->width + columns;
  for (int cell = 0; cell < l->cells; ++cell)
    memcpy(current + (size_t)cell * l->wide, l->bias, l->wide * sizeof(float));
  for (int y = 0; y < l->plan[IN_HEIGHT]; ++y)
    for (int e = events->start[y * (l->width + 1)]; e < events->start[y * (l->width + 1) + l->width]; ++e) {
      int x = events->at[e] / l->channels, c = events->at[e] % l->channels;
      float value = events->value[e];
      const float *kernel = l->kernel + (size_t)c * l->wide;
      for (int r = 0; r < rows; ++r) {
        const int *cells = corner + (y - r + rows - 1) * line + x + columns - 1;
        for (int s = 0; s < columns; ++s, kernel += (size_t)l->channels * l->wide) {
          if (cells[-s] < 0) continue;
          float *to = current + (size_t)cells[-s] * l->wide;
          for (int n = 0; n < l->wide; n += VECTOR) *(lanes *)(to + n) += value * *(const lanes *)(kernel + n);
        }
      }
    }
}

/* What the first layer of an example gets, which is held. */
static void begin_images(image_room *room, const image_layer *layers, const float *x) {
  memset(room->membrane, 0, room->neurons * sizeof(float));
  pixels(&layers[0], x, &room->seen[0]);
  if (!layers[0].own) spread_pixels(room->held, &layers[0], room->corner, &room->seen[0]);
  for (int cell = 0; layers[0].own && cell < layers[0].cells; ++cell)
    cell_current(room->held + (size_t)cell * layers[0].wide, &layers[0], cell, &room->seen[0]);
}

/* One step of all layers; returns the number of events for what follows, and puts their numbers at `sent`. */
static int images_step(image_room *room, const image_layer *layers, int count, int reset, int at_threshold, int **sent) {
  float *membrane = room->membrane;
  int found = 0, from = 0;
  for (int i = 0; i < count; ++i) {
    image_events seen = room->seen[from];
    seen.value = NULL;
    found = image_step(&layers[i], reset, at_threshold, i ? NULL : room->held, &seen, membrane, room->current,
                       &room->seen[1 - from], i == count - 1);
    membrane += (size_t)layers[i].cells * layers[i].wide, from = 1 - from;
  }
  *sent = room->seen[from].at;
  return found;
}

#endif
