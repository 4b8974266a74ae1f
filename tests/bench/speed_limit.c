/* The machine's limit: the products of a pass and nothing else, by the BLAS or by oneDNN. Images are shared out over
 * threads where there are enough of them, each thread with products of its own, because that is the fastest way: no
 * thread waits for another within a step.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "speed.h"

struct share {
  void *state;
  size_t images;
  int failed;
};

struct limit {
  dlora_model_info info;
  const struct speed_backend *backend;
  size_t part; /* images done together */
  int training;
  double flops;
  struct share *shares;
  size_t num_shares;
  int inside; /* threads of a product where there is one share */
};

/* Calls run for every share, in threads of their own where there are several. */
static int for_all(struct limit *l, void (*run)(struct limit *l, struct share *share)) {
  int failed = 0;
  if (l->num_shares == 1) {
#ifdef _OPENMP
    omp_set_num_threads(l->inside);
#endif
    run(l, &l->shares[0]);
  } else {
#ifdef _OPENMP
#pragma omp parallel for num_threads((int)l->num_shares) schedule(static, 1)
#endif
    for (size_t i = 0; i < l->num_shares; i++) {
#ifdef _OPENMP
      omp_set_num_threads(1); /* of this thread: products are not to be split further */
#endif
      run(l, &l->shares[i]);
    }
  }
  for (size_t i = 0; i < l->num_shares; i++) failed |= l->shares[i].failed;
  return failed;
}

static void run_share(struct limit *l, struct share *share) {
  share->failed = 0;
  for (size_t first = 0; !share->failed && first < share->images; first += l->part) {
    const size_t count = share->images - first < l->part ? share->images - first : l->part;
    share->failed = speed_products(&l->info, count, l->training, l->backend->product, share->state);
  }
}

static int run_limit(void *state) {
  return for_all(state, run_share);
}

/* Where one image is all there is, splitting its products may cost more than it gains. */
static int choose_inside(struct limit *l, size_t threads) {
  double fastest = 0.0;
  int best = 1;
  for (int inside = 1; inside <= (int)threads; inside *= 2) {
    l->inside = inside;
    if (run_limit(l)) return 1; /* makes ready */
    for (int i = 0; i < 5; i++) {
      const double start = speed_seconds();
      if (run_limit(l)) return 1;
      const double seconds = speed_seconds() - start;
      if (fastest > 0.0 && seconds >= fastest) continue;
      fastest = seconds;
      best = inside;
    }
  }
  l->inside = best;
  return 0;
}

static int count_flops(const struct speed_product *p, void *user) {
  *(double *)user += 2.0 * (double)p->count * (double)p->m * (double)p->n * (double)p->k;
  return 0;
}

static void close_limit(void *state) {
  struct limit *l = state;
  for (size_t i = 0; i < l->num_shares; i++) {
    if (l->shares[i].state) l->backend->destroy(l->shares[i].state);
  }
  free(l->shares);
  free(l);
}

int speed_limit_open(const struct speed_setup *setup, const struct speed_request *request,
                     const struct speed_backend *backend, struct speed_case *out) {
  const size_t batch = request->batch, rows = 1000;
  const int training = strcmp(request->kind, "train") == 0;
  if (!training && strcmp(request->kind, "infer") != 0) return speed_fail("a limit has no case '%s'", request->kind);
  struct limit *l = calloc(1, sizeof *l);
  if (!l) return speed_fail("no memory");
  l->info = setup->info;
  l->backend = backend;
  l->training = training;
  l->part = (rows + setup->info.num_tokens - 1) / setup->info.num_tokens;
  l->num_shares = 1;
  l->inside = 1;
#ifdef _OPENMP
  l->num_shares = setup->threads < batch ? setup->threads : batch;
#endif
  l->shares = calloc(l->num_shares, sizeof *l->shares);
  int failed = !l->shares ? speed_fail("no memory") : 0;
  for (size_t i = 0; !failed && i < l->num_shares; i++) {
    struct share *share = &l->shares[i];
    share->images = batch / l->num_shares + (i < batch % l->num_shares);
    share->state = backend->create(setup, share->images < l->part ? share->images : l->part, training);
    failed = !share->state;
  }
  if (!failed) failed = speed_products(&l->info, batch, training, count_flops, &l->flops);
  if (!failed && l->num_shares == 1) failed = choose_inside(l, setup->threads);
  if (failed) {
    if (!l->shares) l->num_shares = 0;
    close_limit(l);
    return 1;
  }
  *out = (struct speed_case){.state = l, .run = run_limit, .close = close_limit, .flops = l->flops};
  return 0;
}
