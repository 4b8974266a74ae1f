#include "linalg/packed.h"

#include <stdint.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"

static size_t round_up(size_t a, size_t multiple) {
  return (a + multiple - 1) / multiple * multiple;
}

static size_t value_size(int bfloat16) {
  return bfloat16 ? sizeof(uint16_t) : sizeof(float);
}

/* Values of one panel of columns. */
static size_t panel_size(const struct dli_packed *packed) {
  return round_up(packed->inner, packed->bfloat16 ? 2 * DLI_ONEDNN_TILE : DLI_ONEDNN_TILE) * DLI_ONEDNN_PANEL;
}

dlora_status dli_packed_create(struct dli_packed **out, const struct dli_onednn *onednn, size_t inner, size_t outer,
                               const dlora_allocator *allocator) {
  struct dli_packed *packed;
  DLI_TRY(DLI_NEW(allocator, packed, 1));
  *packed = (struct dli_packed){.inner = inner, .outer = outer, .bfloat16 = dli_onednn_bfloat16(onednn)};
  const size_t panels = round_up(outer, DLI_ONEDNN_PANEL) / DLI_ONEDNN_PANEL;
  packed->values = dli_alloc(allocator, panels * panel_size(packed), value_size(packed->bfloat16));
  if (!packed->values) {
    dli_packed_destroy(packed, allocator);
    return DLORA_ERR_NO_MEMORY;
  }
  *out = packed;
  return DLORA_OK;
}

void dli_packed_destroy(struct dli_packed *packed, const dlora_allocator *allocator) {
  if (!packed) return;
  dli_free(allocator, packed->values);
  dli_free(allocator, packed);
}

/* Ties to even; NaN stays NaN. */
static inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const uint32_t nan = bits >> 16 | 0x40u;
  return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : nearest);
}

void dli_packed_fill(struct dli_packed *packed, const float *w, size_t ld, bool transposed) {
  const size_t group = packed->bfloat16 ? 2 : 1, size = panel_size(packed);
  for (size_t n = 0; n < packed->outer; n++) {
    const size_t column = n / DLI_ONEDNN_PANEL * size + n % DLI_ONEDNN_PANEL * group;
    for (size_t k = 0; k < packed->inner; k++) {
      const float value = transposed ? w[n * ld + k] : w[k * ld + n];
      const size_t at = column + k / group * group * DLI_ONEDNN_PANEL + k % group;
      if (packed->bfloat16) {
        ((uint16_t *)packed->values)[at] = to_bfloat16(value);
      } else {
        ((float *)packed->values)[at] = value;
      }
    }
  }
}

/* ---- one thread's products ---- */

/* Forward and backward have about 20 shapes, and twice as many with the smaller batch at the end of an epoch. */
enum { MAX_KERNELS = 64 };
/* Bytes that kernels work in: a few hundred a thread, in most. */
enum { SCRATCH = 1 << 16 };

struct dli_products {
  const struct dli_onednn *onednn;
  dlora_allocator allocator;
  struct dli_onednn_kernel kernels[MAX_KERNELS];
  size_t next; /* is replaced next */
  size_t rows, inner, outer;
  void *input;   /* [rows, inner] */
  float *output; /* [rows, outer] */
  void *scratch;
  size_t scratch_size;
};

dlora_status dli_products_create(struct dli_products **out, const struct dli_onednn *onednn, size_t rows, size_t inner,
                                 size_t outer, const dlora_allocator *allocator) {
  dlora_status status;
  struct dli_products *p;
  DLI_TRY(DLI_NEW(allocator, p, 1));
  p->onednn = onednn;
  p->allocator = *allocator;
  p->rows = rows;
  p->inner = inner;
  p->outer = outer;
  p->input = dli_alloc(allocator, rows * inner, value_size(dli_onednn_bfloat16(onednn)));
  p->scratch = dli_alloc(allocator, SCRATCH, 1);
  p->scratch_size = SCRATCH;
  status = p->input && p->scratch ? DLI_NEW(allocator, p->output, rows * outer) : DLORA_ERR_NO_MEMORY;
  if (status != DLORA_OK) {
    dli_products_destroy(p);
    return status;
  }
  *out = p;
  return DLORA_OK;
}

void dli_products_destroy(struct dli_products *p) {
  if (!p) return;
  const dlora_allocator allocator = p->allocator;
  for (size_t i = 0; i < MAX_KERNELS; i++) dli_onednn_kernel_destroy(&p->kernels[i], p->onednn);
  dli_free(&allocator, p->input);
  dli_free(&allocator, p->output);
  dli_free(&allocator, p->scratch);
  dli_free(&allocator, p);
}

size_t dli_products_bytes(const struct dli_products *p) {
  const size_t input = p->rows * p->inner * value_size(dli_onednn_bfloat16(p->onednn));
  return sizeof *p + input + p->rows * p->outer * sizeof *p->output + p->scratch_size;
}

static bool same_shape(const struct dli_onednn_shape *a, const struct dli_onednn_shape *b) {
  return a->m == b->m && a->inner == b->inner && a->outer == b->outer && a->bias == b->bias &&
         a->accumulate == b->accumulate && a->threads == b->threads;
}

static const struct dli_onednn_kernel *find_kernel(struct dli_products *p, const struct dli_onednn_shape *shape) {
  for (size_t i = 0; i < MAX_KERNELS; i++) {
    if (same_shape(&p->kernels[i].shape, shape)) return &p->kernels[i];
  }
  struct dli_onednn_kernel *kernel = &p->kernels[p->next];
  dli_onednn_kernel_destroy(kernel, p->onednn);
  /* Inside a parallel loop too, where oneDNN would plan for all processors. */
  const int entered = dli_threads_enter(shape->threads);
  const bool made = dli_onednn_kernel_create(kernel, p->onednn, shape);
  dli_threads_leave(entered);
  if (!made) return NULL;
  if (kernel->scratch_size > p->scratch_size) {
    void *scratch = dli_alloc(&p->allocator, kernel->scratch_size, 1);
    if (!scratch) {
      dli_onednn_kernel_destroy(kernel, p->onednn);
      return NULL;
    }
    dli_free(&p->allocator, p->scratch);
    p->scratch = scratch;
    p->scratch_size = kernel->scratch_size;
  }
  p->next = (p->next + 1) % MAX_KERNELS;
  return kernel;
}

/* Only where there is AVX-512: no model has these products elsewhere. */
#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx512f,avx512bw,avx512vl")))
#endif
static void
convert(const float *restrict x, size_t count, uint16_t *restrict y) {
  for (size_t i = 0; i < count; i++) y[i] = to_bfloat16(x[i]);
}

/* x without gaps, in the type that kernels take. */
static const void *prepare_input(struct dli_products *p, const float *x, size_t m, size_t inner, size_t ldx) {
  if (!dli_onednn_bfloat16(p->onednn)) {
    if (ldx == inner) return x;
    for (size_t i = 0; i < m; i++) memcpy((float *)p->input + i * inner, x + i * ldx, inner * sizeof *x);
    return p->input;
  }
  uint16_t *to = p->input;
  if (ldx == inner) {
    convert(x, m * inner, to);
  } else {
    for (size_t i = 0; i < m; i++) convert(x + i * ldx, inner, to + i * inner);
  }
  return to;
}

bool dli_products_run(struct dli_products *p, const struct dli_packed *packed, size_t first, size_t count,
                      const float *bias, const float *x, size_t m, size_t ldx, bool accumulate, float *y, size_t ldy) {
  const size_t inner = packed->inner, last = first + count;
  if (m == 0 || count == 0) return true;
  if (first % DLI_ONEDNN_PANEL || (last % DLI_ONEDNN_PANEL && last != packed->outer)) return false;
  const bool gaps = ldy != count;
  if (m > p->rows || inner > p->inner || (gaps && count > p->outer)) return false;
  const char *b = packed->values;
  b += first / DLI_ONEDNN_PANEL * panel_size(packed) * value_size(packed->bfloat16);
  float *out = gaps ? p->output : y;
  const int entered = dli_blas_enter();
  const struct dli_onednn_shape shape = {.m = m,
                                         .inner = inner,
                                         .outer = count,
                                         .bias = bias != NULL,
                                         .accumulate = accumulate && !gaps,
                                         .threads = dli_threads_current()};
  const struct dli_onednn_kernel *kernel = find_kernel(p, &shape);
  const bool done =
      kernel && dli_onednn_kernel_run(kernel, p->onednn, prepare_input(p, x, m, inner, ldx), b, bias, out, p->scratch);
  dli_blas_leave(entered);
  if (!done) return false;
  for (size_t i = 0; gaps && i < m; i++) {
    const float *restrict from = out + i * count;
    float *restrict to = y + i * ldy;
    if (accumulate) {
      for (size_t j = 0; j < count; j++) to[j] += from[j];
    } else {
      memcpy(to, from, count * sizeof *to);
    }
  }
  return true;
}
