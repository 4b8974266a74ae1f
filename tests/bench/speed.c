/* The speed bench's own programs: random weights, and workers that run this library and the machine's limit. speed.sh
 * drives them; docs/notebook/speed.md says what is measured.
 *
 *     speed weights PATH DIM DEPTH HEADS MLP_DIM PATCH_SIZE IMAGE_SIZE LAYER_SCALE
 *     speed worker library|sgemm|onednn WEIGHTS PRODUCTS IMAGE_SIZE THREADS LEARNT
 *
 * Commands of a worker, one a line, each answered by one line, "error ..." where it fails:
 *
 *     prepare CASE                  makes the case ready and runs it once
 *     run CASE COUNT                "seconds S" of COUNT runs
 *     close                         gives back what all cases hold
 *     profile CASE COUNT            "profile KIND S ...": where the seconds of COUNT runs went (library)
 *     flops CASE                    "flops N" of the case's products (sgemm and onednn)
 *     check IN OUT                  features and gradients of the arrays in file IN to file OUT (library)
 *     task TASKS IMAGES BATCH STEPS seconds of the parts of one more task behind TASKS others (library)
 *     memory                        "bytes N": the process' largest resident size so far
 *     version
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "speed.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char sentence[512];

int speed_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(sentence, sizeof sentence, format, arguments);
  va_end(arguments);
  return 1;
}

const char *speed_sentence(void) {
  return sentence;
}

double speed_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

float speed_uniform(uint32_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* ---- cases: opened once, kept until `close` ---- */

struct entry {
  char name[64];
  struct speed_case opened;
};

struct worker {
  struct speed_setup setup;
  struct entry entries[64];
  size_t count;
};

static int parse_case(const char *name, struct speed_request *out) {
  *out = (struct speed_request){.gate = "none"};
  const int four = sscanf(name, "%15[a-z]:%zu:%15[a-z]:%zu", out->kind, &out->tasks, out->gate, &out->batch) == 4;
  if (!four) {
    snprintf(out->gate, sizeof out->gate, "none");
    out->tasks = 0;
    if (sscanf(name, "%15[a-z]:%zu", out->kind, &out->batch) != 2) return speed_fail("'%s' is no case", name);
  }
  if (!out->batch || out->batch > 4096) return speed_fail("'%s' is no case: its batch is not 1 to 4096", name);
  return 0;
}

static struct speed_case *find_case(struct worker *w, const char *name) {
  for (size_t i = 0; i < w->count; i++) {
    if (strcmp(w->entries[i].name, name) == 0) return &w->entries[i].opened;
  }
  if (w->count == sizeof w->entries / sizeof *w->entries) {
    speed_fail("too many cases");
    return NULL;
  }
  struct entry *entry = &w->entries[w->count];
  struct speed_request request;
  if (parse_case(name, &request)) return NULL;
  *entry = (struct entry){.name = ""};
  snprintf(entry->name, sizeof entry->name, "%s", name);
  int (*const open)(const struct speed_setup *, const struct speed_request *, struct speed_case *) =
      strcmp(w->setup.program, "library") == 0 ? speed_library_open
      : strcmp(w->setup.program, "sgemm") == 0 ? speed_sgemm_open
                                               : speed_onednn_open;
  if (open(&w->setup, &request, &entry->opened)) return NULL;
  w->count++;
  return &entry->opened;
}

static void close_cases(struct worker *w) {
  while (w->count) {
    const struct speed_case *last = &w->entries[--w->count].opened;
    last->close(last->state);
  }
}

static int run_case(struct worker *w, const char *name, size_t count, double *seconds) {
  struct speed_case *found = find_case(w, name);
  if (!found) return 1;
  const double start = speed_seconds();
  for (size_t i = 0; i < count; i++) {
    if (found->run(found->state)) return 1;
  }
  *seconds = speed_seconds() - start;
  return 0;
}

/* ---- commands ---- */

static int print_profile(struct worker *w, const char *name, size_t count) {
  static const char *const names[] = {"preprocessing", "products", "adapters", "attention", "norms",
                                      "activation",    "copies",   "loss",     "optimizer"};
  dlora_profile before = DLORA_PROFILE_INIT, after = DLORA_PROFILE_INIT;
  const double *const from[] = {&before.preprocessing, &before.products, &before.adapters,
                                &before.attention,     &before.norms,    &before.activation,
                                &before.copies,        &before.loss,     &before.optimizer};
  const double *const to[] = {&after.preprocessing, &after.products, &after.adapters, &after.attention, &after.norms,
                              &after.activation,    &after.copies,   &after.loss,     &after.optimizer};
  struct speed_case *found = find_case(w, name);
  double seconds;
  if (!found) return 1;
  if (!found->profile) return speed_fail("'%s' has no profile", name);
  if (found->profile(found->state, &before) || run_case(w, name, count, &seconds) ||
      found->profile(found->state, &after)) {
    return 1;
  }
  printf("profile");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) printf(" %s %.9f", names[i], *to[i] - *from[i]);
  printf("\n");
  return 0;
}

static int print_memory(void) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[256];
  unsigned long kilobytes = 0;
  if (!file) return speed_fail("/proc/self/status: %s", strerror(errno));
  while (fgets(line, sizeof line, file)) {
    if (sscanf(line, "VmHWM: %lu kB", &kilobytes) == 1) break;
  }
  fclose(file);
  if (!kilobytes) return speed_fail("/proc/self/status has no VmHWM");
  printf("bytes %lu\n", 1024 * kilobytes);
  return 0;
}

static int answer(struct worker *w, const char *line) {
  char name[64], in[1024], out[1024];
  size_t tasks, count, batch, steps;
  double seconds = 0.0;
  if (sscanf(line, "prepare %63s", name) == 1) {
    if (run_case(w, name, 1, &seconds)) return 1;
    printf("ok\n");
  } else if (sscanf(line, "run %63s %zu", name, &count) == 2) {
    if (run_case(w, name, count, &seconds)) return 1;
    printf("seconds %.9f\n", seconds);
  } else if (sscanf(line, "profile %63s %zu", name, &count) == 2) {
    return print_profile(w, name, count);
  } else if (strncmp(line, "close", 5) == 0) {
    close_cases(w);
    printf("ok\n");
  } else if (sscanf(line, "flops %63s", name) == 1) {
    const struct speed_case *found = find_case(w, name);
    if (!found) return 1;
    printf("flops %.0f\n", found->flops);
  } else if (sscanf(line, "check %1023s %1023s", in, out) == 2) {
    if (speed_check(&w->setup, in, out)) return 1;
    printf("ok\n");
  } else if (sscanf(line, "task %zu %zu %zu %zu", &tasks, &count, &batch, &steps) == 4) {
    return speed_time_task(&w->setup, tasks, count, batch, steps);
  } else if (strncmp(line, "memory", 6) == 0) {
    return print_memory();
  } else if (strncmp(line, "version", 7) == 0) {
    printf("%s\n", strcmp(w->setup.program, "onednn") == 0 ? speed_onednn_version() : dlora_build_info());
  } else {
    return speed_fail("'%.*s' is no command", (int)strcspn(line, "\n"), line);
  }
  return 0;
}

static int choose_products(const char *name, int32_t *out) {
  static const char *const names[] = {"float32", "packed", "bfloat16"};
  static const int32_t values[] = {DLORA_PRODUCTS_BLAS, DLORA_PRODUCTS_PACKED, DLORA_PRODUCTS_BFLOAT16};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(name, names[i]) == 0) {
      *out = values[i];
      return 0;
    }
  }
  return speed_fail("products are float32, packed or bfloat16, not %s", name);
}

static int load(struct speed_setup *setup) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = setup->image_size;
  options.threads = (int32_t)setup->threads;
  if (strcmp(setup->program, "library") == 0 && choose_products(setup->products, &options.products)) return 1;
  SPEED_TRY(dlora_model_load(&setup->model, setup->weights, &options));
  setup->info.struct_size = sizeof setup->info;
  SPEED_TRY(dlora_model_get_info(setup->model, &setup->info));
  return strcmp(setup->program, "onednn") == 0 ? speed_onednn_check(setup) : 0;
}

static int work(struct worker *w) {
  char line[4096];
  int failed = load(&w->setup);
  if (failed) {
    printf("error %s\n", sentence);
  } else {
    printf("ready\n");
  }
  fflush(stdout);
  while (!failed && fgets(line, sizeof line, stdin)) {
    if (strncmp(line, "quit", 4) == 0) break;
    if (answer(w, line)) printf("error %s\n", sentence);
    fflush(stdout);
  }
  close_cases(w);
  dlora_model_destroy(w->setup.model);
  return failed;
}

static int is_program(const char *name) {
  return strcmp(name, "library") == 0 || strcmp(name, "sgemm") == 0 || strcmp(name, "onednn") == 0;
}

int main(int argc, char **argv) {
  if (argc == 10 && strcmp(argv[1], "weights") == 0) {
    size_t n[7];
    for (size_t i = 0; i < 7; i++) n[i] = (size_t)strtoul(argv[3 + i], NULL, 10);
    const struct speed_geometry geometry = {n[0], n[1], n[2], n[3], n[4], n[5], n[6] != 0};
    if (!speed_write_weights(argv[2], &geometry)) return 0;
    fprintf(stderr, "speed: %s\n", sentence);
    return 1;
  }
  if (argc == 8 && strcmp(argv[1], "worker") == 0 && is_program(argv[2]) && strtoul(argv[6], NULL, 10) > 0) {
    static struct worker worker;
    worker.setup = (struct speed_setup){.program = argv[2],
                                        .weights = argv[3],
                                        .products = argv[4],
                                        .image_size = (size_t)strtoul(argv[5], NULL, 10),
                                        .threads = (size_t)strtoul(argv[6], NULL, 10),
                                        .learnt = argv[7]};
    return work(&worker);
  }
  fprintf(stderr,
          "usage: speed weights PATH DIM DEPTH HEADS MLP_DIM PATCH_SIZE IMAGE_SIZE LAYER_SCALE\n"
          "       speed worker library|sgemm|onednn WEIGHTS PRODUCTS IMAGE_SIZE THREADS LEARNT\n");
  return 2;
}
