/* Loads oneDNN at run time and plans its matrix products: one primitive for each shape, with the weights in oneDNN's
 * blocked order. Versions 2 and 3 of its C interface are supported.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/onednn.h"

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

#include "base/memory.h"
#include "base/processor.h"
#include "base/status.h"

#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
#define LIBRARY "libdnnl.so." TEXT(DNNL_VERSION_MAJOR)

/* Versions 2 and 3 describe arrays and products differently; the rest is the same. */
#if DNNL_VERSION_MAJOR >= 3
#define VERSION_FUNCTIONS(X) \
  X(dnnl_memory_desc_create_with_tag) \
  X(dnnl_memory_desc_destroy) \
  X(dnnl_matmul_primitive_desc_create)
#else
#define VERSION_FUNCTIONS(X) \
  X(dnnl_memory_desc_init_by_tag) \
  X(dnnl_matmul_desc_init) \
  X(dnnl_primitive_desc_create)
#endif
#define FUNCTIONS(X) \
  VERSION_FUNCTIONS(X) \
  X(dnnl_memory_desc_get_size) \
  X(dnnl_engine_create) \
  X(dnnl_engine_destroy) \
  X(dnnl_stream_create) \
  X(dnnl_stream_destroy) \
  X(dnnl_stream_wait) \
  X(dnnl_post_ops_create) \
  X(dnnl_post_ops_destroy) \
  X(dnnl_post_ops_append_sum) \
  X(dnnl_primitive_attr_create) \
  X(dnnl_primitive_attr_destroy) \
  X(dnnl_primitive_attr_set_post_ops) \
  X(dnnl_primitive_attr_set_scratchpad_mode) \
  X(dnnl_primitive_desc_destroy) \
  X(dnnl_primitive_desc_query_md) \
  X(dnnl_primitive_create) \
  X(dnnl_primitive_destroy) \
  X(dnnl_primitive_execute) \
  X(dnnl_memory_create) \
  X(dnnl_memory_destroy) \
  X(dnnl_memory_set_data_handle)

#define MEMBER(name) __typeof__(name) *name;
struct dli_onednn {
  FUNCTIONS(MEMBER)
  dlora_allocator allocator;
  void *library;
  dnnl_engine_t engine;
  bool bfloat16;
};

enum { X = 0, B = 1, Y = 2, SCRATCH = 3, BIAS = 4, NUM_ARRAYS = 5 };

/* ---- where the versions differ ---- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
typedef const_dnnl_memory_desc_t layout_reference;

static bool layout_create(const struct dli_onednn *o, layout *out, const dnnl_dims_t dims, dnnl_data_type_t type,
                          dnnl_format_tag_t tag) {
  return o->dnnl_memory_desc_create_with_tag(out, 2, dims, type, tag) == dnnl_success;
}

static void layout_destroy(const struct dli_onednn *o, layout *l) {
  if (*l) o->dnnl_memory_desc_destroy(*l);
}

static layout_reference refer(layout *l) {
  return *l;
}

static bool append_sum(const struct dli_onednn *o, dnnl_post_ops_t post_ops) {
  return o->dnnl_post_ops_append_sum(post_ops, 1.0f, 0, dnnl_data_type_undef) == dnnl_success;
}

static bool describe(const struct dli_onednn *o, dnnl_primitive_desc_t *out, layout *l, bool bias,
                     dnnl_primitive_attr_t attributes) {
  return o->dnnl_matmul_primitive_desc_create(out, o->engine, l[X], l[B], bias ? l[BIAS] : NULL, l[Y], attributes) ==
         dnnl_success;
}
#else
typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *layout_reference;

static bool layout_create(const struct dli_onednn *o, layout *out, const dnnl_dims_t dims, dnnl_data_type_t type,
                          dnnl_format_tag_t tag) {
  return o->dnnl_memory_desc_init_by_tag(out, 2, dims, type, tag) == dnnl_success;
}

static void layout_destroy(const struct dli_onednn *o, layout *l) {
  (void)o;
  (void)l;
}

static layout_reference refer(layout *l) {
  return l;
}

static bool append_sum(const struct dli_onednn *o, dnnl_post_ops_t post_ops) {
  return o->dnnl_post_ops_append_sum(post_ops, 1.0f) == dnnl_success;
}

static bool describe(const struct dli_onednn *o, dnnl_primitive_desc_t *out, layout *l, bool bias,
                     dnnl_primitive_attr_t attributes) {
  dnnl_matmul_desc_t product;
  return o->dnnl_matmul_desc_init(&product, &l[X], &l[B], bias ? &l[BIAS] : NULL, &l[Y]) == dnnl_success &&
         o->dnnl_primitive_desc_create(out, &product, attributes, o->engine, NULL) == dnnl_success;
}
#endif

/* ---- kernels ---- */

/* In oneDNN's terms:
 *
 *     1   attributes: scratch memory is the caller's; if accumulating, a sum with the old y follows the product
 *     2   a layout for each array: type, size and order of its numbers; b in panels
 *     3   a primitive, the machine code for these, and a stream to run it in
 *     4   a memory object for each array, whose address every run sets anew; oneDNN itself decides the scratch's size
 */
bool dli_onednn_kernel_create(struct dli_onednn_kernel *out, const struct dli_onednn *o,
                              const struct dli_onednn_shape *shape) {
  const dnnl_data_type_t factor = o->bfloat16 ? dnnl_bf16 : dnnl_f32;
  const struct {
    size_t rows, cols;
    dnnl_data_type_t type;
    dnnl_format_tag_t tag;
  } arrays[NUM_ARRAYS] = {
      [X] = {shape->m, shape->inner, factor, dnnl_ab},
      [B] = {shape->inner, shape->outer, factor, o->bfloat16 ? dnnl_BA16a64b2a : dnnl_BA16a64b},
      [Y] = {shape->m, shape->outer, dnnl_f32, dnnl_ab},
      [BIAS] = {1, shape->outer, dnnl_f32, dnnl_ab},
  };
  struct dli_onednn_kernel kernel = {.shape = *shape};
  layout layouts[NUM_ARRAYS];
  memset(layouts, 0, sizeof layouts);
  dnnl_post_ops_t post_ops = NULL;
  dnnl_primitive_attr_t attributes = NULL;
  dnnl_primitive_desc_t description = NULL;
  /* 1 */
  bool made = o->dnnl_primitive_attr_create(&attributes) == dnnl_success &&
              o->dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user) == dnnl_success;
  if (made && shape->accumulate) {
    made = o->dnnl_post_ops_create(&post_ops) == dnnl_success && append_sum(o, post_ops) &&
           o->dnnl_primitive_attr_set_post_ops(attributes, post_ops) == dnnl_success;
  }
  /* 2 */
  for (size_t i = 0; made && i < NUM_ARRAYS; i++) {
    const dnnl_dims_t dims = {(dnnl_dim_t)arrays[i].rows, (dnnl_dim_t)arrays[i].cols};
    if (i != SCRATCH) made = layout_create(o, &layouts[i], dims, arrays[i].type, arrays[i].tag);
  }
  /* 3 */
  made = made && describe(o, &description, layouts, shape->bias, attributes) &&
         o->dnnl_primitive_create((dnnl_primitive_t *)&kernel.primitive, description) == dnnl_success &&
         o->dnnl_stream_create((dnnl_stream_t *)&kernel.stream, o->engine, dnnl_stream_default_flags) == dnnl_success;
  /* 4 */
  for (size_t i = 0; made && i < NUM_ARRAYS; i++) {
    layout_reference l =
        i == SCRATCH ? o->dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0) : refer(&layouts[i]);
    if (i == SCRATCH) kernel.scratch_size = o->dnnl_memory_desc_get_size(l);
    made = o->dnnl_memory_create((dnnl_memory_t *)&kernel.arrays[i], l, o->engine, DNNL_MEMORY_NONE) == dnnl_success;
  }
  if (description) o->dnnl_primitive_desc_destroy(description);
  for (size_t i = 0; i < NUM_ARRAYS; i++) layout_destroy(o, &layouts[i]);
  if (attributes) o->dnnl_primitive_attr_destroy(attributes);
  if (post_ops) o->dnnl_post_ops_destroy(post_ops);
  if (made) {
    *out = kernel;
  } else {
    dli_onednn_kernel_destroy(&kernel, o);
  }
  return made;
}

void dli_onednn_kernel_destroy(struct dli_onednn_kernel *kernel, const struct dli_onednn *o) {
  for (size_t i = 0; i < NUM_ARRAYS; i++) {
    if (kernel->arrays[i]) o->dnnl_memory_destroy(kernel->arrays[i]);
  }
  if (kernel->stream) o->dnnl_stream_destroy(kernel->stream);
  if (kernel->primitive) o->dnnl_primitive_destroy(kernel->primitive);
  *kernel = (struct dli_onednn_kernel){0};
}

bool dli_onednn_kernel_run(const struct dli_onednn_kernel *kernel, const struct dli_onednn *o, const void *x,
                           const void *b, const float *bias, float *y, void *scratch) {
  static const int names[NUM_ARRAYS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD,
                                        DNNL_ARG_BIAS};
  /* oneDNN takes pointers to what it only reads without const, too. */
  union {
    const void *read;
    void *data;
  } data[NUM_ARRAYS] = {[X] = {x}, [B] = {b}, [Y] = {y}, [SCRATCH] = {scratch}, [BIAS] = {bias}};
  dnnl_exec_arg_t arguments[NUM_ARRAYS];
  for (int i = 0; i < NUM_ARRAYS; i++) {
    arguments[i] = (dnnl_exec_arg_t){names[i], kernel->arrays[i]};
    if (o->dnnl_memory_set_data_handle(kernel->arrays[i], data[i].data) != dnnl_success) return false;
  }
  const int count = kernel->shape.bias ? NUM_ARRAYS : NUM_ARRAYS - 1;
  return o->dnnl_primitive_execute(kernel->primitive, kernel->stream, count, arguments) == dnnl_success &&
         o->dnnl_stream_wait(kernel->stream) == dnnl_success;
}

/* ---- loading ---- */

/* Functions are looked up by name, because this library is not linked against oneDNN. Each address is copied as bytes:
 * C does not convert an object pointer to a function pointer. */
static dlora_status find_functions(struct dli_onednn *o) {
  /* Not unloaded again: a library with threads of its own cannot be taken from under them. */
  o->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!o->library) {
    return dli_raise(DLORA_ERR_UNSUPPORTED, "oneDNN is needed for these products and cannot be loaded: %s", dlerror());
  }
  const struct {
    const char *name;
    void *member;
  } functions[] = {
#define FUNCTION(name) {#name, &o->name},
      FUNCTIONS(FUNCTION)};
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    void *function = dlsym(o->library, functions[i].name);
    if (!function) return dli_raise(DLORA_ERR_UNSUPPORTED, LIBRARY " has no function %s", functions[i].name);
    memcpy(functions[i].member, &function, sizeof function);
  }
  return DLORA_OK;
}

const char *dli_onednn_offer(void) {
  const enum dli_instructions instructions = dli_processor_instructions();
  if (instructions < DLI_INSTRUCTIONS_AVX512) return "none";
  return instructions < DLI_INSTRUCTIONS_AVX512_BF16 ? "float32" : "float32 and bfloat16";
}

dlora_status dli_onednn_open(struct dli_onednn **out, bool bfloat16, const dlora_allocator *allocator) {
  const enum dli_instructions needed = bfloat16 ? DLI_INSTRUCTIONS_AVX512_BF16 : DLI_INSTRUCTIONS_AVX512;
  if (dli_processor_instructions() < needed) {
    return dli_raise(DLORA_ERR_UNSUPPORTED, "this processor has no %s, which these products need",
                     bfloat16 ? "bfloat16 instructions (AVX512_BF16)" : "AVX-512");
  }
  dlora_status status;
  struct dli_onednn *o;
  DLI_TRY(DLI_NEW(allocator, o, 1));
  o->allocator = *allocator;
  o->bfloat16 = bfloat16;
  DLI_TRY_DONE(find_functions(o));
  if (o->dnnl_engine_create(&o->engine, dnnl_cpu, 0) != dnnl_success) {
    status = dli_raise(DLORA_ERR_UNSUPPORTED, "oneDNN has no engine for this processor");
    goto done;
  }
  struct dli_onednn_kernel probe;
  const struct dli_onednn_shape shape = {.m = 37, .inner = 100, .outer = 100, .bias = true, .threads = 1};
  if (!dli_onednn_kernel_create(&probe, o, &shape)) {
    status = dli_raise(DLORA_ERR_UNSUPPORTED, "oneDNN has no kernel for %s on this processor",
                       bfloat16 ? "bfloat16" : "float32");
    goto done;
  }
  dli_onednn_kernel_destroy(&probe, o);
  *out = o;
done:
  if (status != DLORA_OK) dli_onednn_close(o);
  return status;
}

void dli_onednn_close(struct dli_onednn *o) {
  if (!o) return;
  if (o->engine) o->dnnl_engine_destroy(o->engine);
  if (o->library) dlclose(o->library);
  const dlora_allocator allocator = o->allocator;
  dli_free(&allocator, o);
}

bool dli_onednn_bfloat16(const struct dli_onednn *o) {
  return o->bfloat16;
}
