/* What must always hold, METHOD.md 11: invariants 2, 3, 4, 6 and 8 through the learner.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { PER_CLASS = 20 };
static const int64_t tasks[3][2] = {{10, 11}, {20, 21}, {30, 31}};

static dlora_model *model;

static void learn(dlora_learner *learner, size_t task) {
  test_learn(learner, tasks[task], 2, PER_CLASS, (uint32_t)task + 1, NULL);
}

/* Pictures of all six classes, unseen. */
static struct test_pictures unseen(void) {
  return test_pictures(&tasks[0][0], 6, 4, 99);
}

struct answers {
  size_t count, classes;
  dlora_prediction *predictions;
  float *log_probs; /* [count, classes] */
};

static struct answers ask(const dlora_learner *learner, const dlora_images *images) {
  struct answers a = {.count = images->count, .classes = dlora_learner_num_classes(learner)};
  a.predictions = calloc(a.count, sizeof *a.predictions);
  a.log_probs = calloc(a.count * a.classes, sizeof *a.log_probs);
  assert_non_null(a.predictions);
  assert_non_null(a.log_probs);
  assert_status(DLORA_OK, dlora_learner_predict(learner, images, a.predictions, a.log_probs));
  return a;
}

static void forget(struct answers *a) {
  free(a->predictions);
  free(a->log_probs);
}

static int same_answers(const struct answers *a, const struct answers *b) {
  return a->count == b->count && a->classes == b->classes &&
         memcmp(a->predictions, b->predictions, a->count * sizeof *a->predictions) == 0 &&
         memcmp(a->log_probs, b->log_probs, a->count * a->classes * sizeof *a->log_probs) == 0;
}

/* ---- 2: what lies inside the memory sees no change ---- */

/* M x of every site for these rows [rows, VIT_DIM] */
static void apply_merged(const dlora_learner *learner, size_t site, const float *x, size_t rows, float *y) {
  memset(y, 0, rows * VIT_DIM * sizeof *y);
  assert_status(DLORA_OK,
                dlora_bank_forward(dlora_learner_get_bank(learner), site, x, rows, DLORA_TERM_MERGED, NULL, 1, y));
}

static void check_protection(int32_t train_orthogonal_a) {
  enum { ROWS = 40, SITES = 4 };
  dlora_learner_options options = test_quick_options();
  options.energy_threshold = 0.8f; /* leaves room for three tasks in so narrow a model */
  options.learning_rate = 1e-2f;
  options.residual_merge_fraction =
      0.0f; /* the orthogonal branch alone protects; what is shared acts inside the memory */
  options.merge_decay = 0.0f;
  options.train_orthogonal_a = train_orthogonal_a;
  dlora_learner *learner = test_learner(model, &options);
  uint32_t random = 3;
  learn(learner, 0);
  for (size_t task = 1; task < 3; task++) {
    float inside[SITES][ROWS * VIT_DIM], outside[ROWS * VIT_DIM], before[SITES][ROWS * VIT_DIM],
        before_outside[SITES][ROWS * VIT_DIM], after[ROWS * VIT_DIM];
    for (size_t i = 0; i < ROWS * VIT_DIM; i++) outside[i] = test_normal(&random);
    assert_int_equal(dlora_bank_num_sites(dlora_learner_get_bank(learner)), SITES);
    for (size_t s = 0; s < SITES; s++) {
      dlora_site site;
      assert_status(DLORA_OK, dlora_bank_get_site(dlora_learner_get_bank(learner), s, &site));
      const dlora_projector *memory = dlora_learner_get_projector(learner, (size_t)site.block, DLORA_INPUT_ATTENTION);
      const size_t used = dlora_projector_size(memory);
      assert_true(used > 0 && used < VIT_DIM - options.rank_orthogonal);
      /* What P leaves of a row taken away from the row is inside span(Phi). */
      memcpy(inside[s], outside, sizeof outside);
      assert_status(DLORA_OK, dlora_projector_project(memory, inside[s], ROWS));
      for (size_t i = 0; i < ROWS * VIT_DIM; i++) inside[s][i] = outside[i] - inside[s][i];
      apply_merged(learner, s, inside[s], ROWS, before[s]);
      apply_merged(learner, s, outside, ROWS, before_outside[s]);
    }
    learn(learner, task);
    for (size_t s = 0; s < SITES; s++) {
      apply_merged(learner, s, outside, ROWS, after);
      const double moved = test_largest_change(after, before_outside[s], ROWS * VIT_DIM);
      assert_true(moved > 0.02); /* something was learnt */
      apply_merged(learner, s, inside[s], ROWS, after);
      assert_true(test_largest_change(after, before[s], ROWS * VIT_DIM) < 1e-4 * moved + 1e-6);
    }
  }
  dlora_learner_destroy(learner);
}

static void inputs_inside_the_memory_see_no_change(void **state) {
  (void)state;
  check_protection(0);
}

static void inputs_inside_the_memory_see_no_change_with_a_trained(void **state) {
  (void)state;
  check_protection(1);
}

/* ---- 3: routing none is the merged network ---- */

static void relevance_none_is_the_merged_network_exactly(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.learning_rate = 1e-2f;
  options.untouched_weight = 0.0f;
  dlora_learner *learner = test_learner(model, &options);
  learn(learner, 0);
  learn(learner, 1);
  struct test_pictures p = test_pictures(&tasks[0][0], 4, 3, 7);
  const size_t values = p.images.count * VIT_DIM;
  float *merged = calloc(3 * values, sizeof *merged), *none = merged + values, *adapted = none + values;
  int64_t nobody[12], second[12];
  assert_non_null(merged);
  for (size_t i = 0; i < 12; i++) {
    nobody[i] = -1;
    second[i] = 1; /* the first task's update is every image's, to the whole */
  }
  /* As many threads as the learner has, so that products have the same rows: a BLAS may round a row by how many it is
   * one of. */
  dlora_session_options as_learner = DLORA_SESSION_OPTIONS_INIT;
  as_learner.threads = options.threads;
  dlora_session *session = NULL;
  assert_status(DLORA_OK, dlora_session_create(&session, model, dlora_learner_get_bank(learner), &as_learner));
  assert_status(DLORA_OK, dlora_session_forward(session, &p.images, DLORA_TERM_MERGED, NULL, merged));
  assert_status(DLORA_OK, dlora_learner_embed(learner, &p.images, NULL, none));
  assert_memory_equal(none, merged, values * sizeof *none);
  assert_status(DLORA_OK, dlora_learner_embed(learner, &p.images, nobody, none));
  assert_memory_equal(none, merged, values * sizeof *none);
  assert_status(DLORA_OK, dlora_learner_embed(learner, &p.images, second, adapted));
  assert_true(test_largest_change(adapted, merged, values) > 1e-3); /* the residual adapters do something */

  /* And so are the decisions of routing none: those of the predictor on the merged network's features. */
  options.routing = DLORA_ROUTING_NONE;
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  float early[12 * 2 * VIT_DIM], z[12 * 3 * VIT_DIM], log_probs[12 * 4];
  assert_status(DLORA_OK, dlora_session_get_early_features(session, early));
  for (size_t i = 0; i < 12; i++) {
    memcpy(z + i * 3 * VIT_DIM, early + i * 2 * VIT_DIM, 2 * VIT_DIM * sizeof *z);
    memcpy(z + i * 3 * VIT_DIM + 2 * VIT_DIM, merged + i * VIT_DIM, VIT_DIM * sizeof *z);
  }
  struct answers answers = ask(learner, &p.images);
  assert_status(DLORA_OK,
                dlora_predictor_posterior(dlora_learner_get_predictor(learner), z, 12, NULL, log_probs, NULL, NULL));
  assert_close(answers.log_probs, log_probs, 12 * 4, 1e-5);
  forget(&answers);
  dlora_session_destroy(session);
  free(merged);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* ---- 4: what earlier tasks left behind stays ---- */

struct copies {
  dlora_adapter residual[4];
  float *bases[2];
  size_t groups[2];
  size_t components;
  uint64_t *counts;
  double *means;
};

static float *copy_of(const float *values, size_t count) {
  float *copy = malloc(count * sizeof *copy);
  assert_non_null(copy);
  memcpy(copy, values, count * sizeof *copy);
  return copy;
}

static struct copies copy_task(const dlora_learner *learner, size_t task) {
  struct copies c = {.components = 0};
  const dlora_bank *bank = dlora_learner_get_bank(learner);
  const dlora_predictor *predictor = dlora_learner_get_predictor(learner);
  const size_t all = dlora_predictor_num_components(predictor), width = dlora_predictor_dim(predictor);
  for (size_t s = 0; s < 4; s++) {
    dlora_adapter *a = &c.residual[s];
    assert_status(DLORA_OK, dlora_bank_get_residual(bank, s, (int64_t)task, a));
    assert_true(a->rank > 0);
    a->a = copy_of(a->a, a->rank * VIT_DIM);
    a->b = copy_of(a->b, a->rank * VIT_DIM);
  }
  for (size_t i = 0; i < 2; i++) {
    const float *bases = NULL;
    const dlora_projector *memory = dlora_learner_get_projector(learner, i + 1, DLORA_INPUT_ATTENTION);
    assert_status(DLORA_OK, dlora_projector_get_bases(memory, (int64_t)task, &bases, &c.groups[i]));
    assert_true(c.groups[i] > 0);
    c.bases[i] = copy_of(bases, c.groups[i] * VIT_DIM);
  }
  c.components = all;
  c.counts = malloc(all * sizeof *c.counts);
  c.means = malloc(all * width * sizeof *c.means);
  assert_non_null(c.counts);
  assert_non_null(c.means);
  assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, c.counts, c.means));
  return c;
}

static void free_copies(struct copies *c) {
  for (size_t s = 0; s < 4; s++) {
    free((void *)(uintptr_t)c->residual[s].a);
    free((void *)(uintptr_t)c->residual[s].b);
  }
  for (size_t i = 0; i < 2; i++) free(c->bases[i]);
  free(c->counts);
  free(c->means);
}

/* Adapters, bases and counts are the same bit by bit; returns whether the means are too. */
static int compare_copies(const struct copies *was, const struct copies *is, size_t width) {
  for (size_t s = 0; s < 4; s++) {
    const size_t size = was->residual[s].rank * VIT_DIM * sizeof(float);
    assert_int_equal(is->residual[s].rank, was->residual[s].rank);
    assert_memory_equal(is->residual[s].a, was->residual[s].a, size);
    assert_memory_equal(is->residual[s].b, was->residual[s].b, size);
  }
  for (size_t i = 0; i < 2; i++) {
    assert_int_equal(is->groups[i], was->groups[i]);
    assert_memory_equal(is->bases[i], was->bases[i], was->groups[i] * VIT_DIM * sizeof(float));
  }
  assert_memory_equal(is->counts, was->counts, was->components * sizeof *was->counts);
  return memcmp(is->means, was->means, was->components * width * sizeof *was->means) == 0;
}

static void learning_a_task_leaves_earlier_tasks_alone(void **state) {
  (void)state;
  for (int32_t compensate = 0; compensate < 2; compensate++) {
    dlora_learner_options options = test_quick_options();
    options.energy_threshold = 0.8f;
    options.learning_rate = 1e-2f;
    options.drift_compensation = compensate;
    options.residual_merge_fraction = 0.5f; /* so that the first task keeps a residual adapter */
    dlora_learner *learner = test_learner(model, &options);
    learn(learner, 0);
    struct copies first = copy_task(learner, 0);
    for (size_t task = 1; task < 3; task++) {
      learn(learner, task);
      struct copies now = copy_task(learner, 0);
      assert_int_equal(now.components, 2 * (task + 1));
      const int same_means = compare_copies(&first, &now, 3 * VIT_DIM);
      assert_int_equal(same_means, !compensate);
      if (compensate) { /* only the final feature's columns move: the others cannot drift */
        for (size_t i = 0; i < 2; i++) {
          const double *was = first.means + i * 3 * VIT_DIM, *is = now.means + i * 3 * VIT_DIM;
          assert_memory_equal(is, was, 2 * VIT_DIM * sizeof *was);
        }
      }
      free_copies(&now);
    }
    free_copies(&first);
    dlora_learner_destroy(learner);
  }
}

/* ---- 6: repeatable, storable, independent of the batch ---- */

static void the_same_seed_gives_bitwise_the_same_training(void **state) {
  (void)state;
  struct test_pictures p = unseen();
  for (size_t threads = 1; threads <= 2; threads++) {
    dlora_learner *learners[3];
    struct answers answers[3];
    for (uint64_t i = 0; i < 3; i++) {
      dlora_learner_options options = test_quick_options();
      options.threads = (int32_t)threads;
      options.seed = i < 2 ? 5 : 6;
      options.residual_basis = DLORA_RESIDUAL_RANDOM;
      options.crop_padding = 2;
      options.max_observed_images = 30;
      learners[i] = test_learner(model, &options);
      for (size_t task = 0; task < 3; task++) learn(learners[i], task);
      answers[i] = ask(learners[i], &p.images);
    }
    test_assert_same_learner(learners[0], learners[1]);
    assert_true(same_answers(&answers[0], &answers[1]));
    assert_false(same_answers(&answers[0], &answers[2]));
    const float *a = NULL, *b = NULL;
    assert_status(DLORA_OK, dlora_bank_get_merged(dlora_learner_get_bank(learners[0]), 0, &a));
    assert_status(DLORA_OK, dlora_bank_get_merged(dlora_learner_get_bank(learners[2]), 0, &b));
    assert_memory_not_equal(a, b, VIT_DIM * VIT_DIM * sizeof *a);
    for (size_t i = 0; i < 3; i++) {
      forget(&answers[i]);
      dlora_learner_destroy(learners[i]);
    }
  }
  test_pictures_free(&p);
}

static void predictions_survive_the_checkpoint_bitwise(void **state) {
  (void)state;
  struct test_pictures p = unseen();
  const char *path = test_temporary("invariant.safetensors");
  for (int32_t routing = DLORA_ROUTING_EARLY; routing <= DLORA_ROUTING_NONE; routing++) {
    if (routing == DLORA_ROUTING_GIVEN) continue;
    dlora_learner_options options = test_quick_options();
    options.routing = routing;
    options.epochs = 1;
    dlora_learner *learner = test_learner(model, &options), *loaded = NULL;
    for (size_t task = 0; task < 3; task++) learn(learner, task);
    struct answers before = ask(learner, &p.images);
    assert_status(DLORA_OK, dlora_learner_save(learner, path));
    dlora_learner_destroy(learner);
    dlora_learner_options same_threads = options;
    assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &same_threads));
    struct answers after = ask(loaded, &p.images);
    assert_true(same_answers(&before, &after));
    forget(&before);
    forget(&after);
    dlora_learner_destroy(loaded);
  }
  test_pictures_free(&p);
}

static void predictions_do_not_depend_on_the_rest_of_the_batch(void **state) {
  (void)state;
  struct test_pictures p = unseen();
  for (int32_t routing = DLORA_ROUTING_EARLY; routing <= DLORA_ROUTING_NONE; routing++) {
    if (routing == DLORA_ROUTING_GIVEN) continue;
    dlora_learner_options options = test_quick_options();
    options.routing = routing;
    options.epochs = 1;
    options.micro_batch = 5;
    dlora_learner *learner = test_learner(model, &options);
    for (size_t task = 0; task < 3; task++) learn(learner, task);
    struct answers all = ask(learner, &p.images);
    for (size_t i = 0; i < p.images.count; i++) {
      const dlora_images image = test_part(&p.images, i, 1);
      struct answers one = ask(learner, &image);
      assert_int_equal(one.predictions->class_id, all.predictions[i].class_id);
      assert_int_equal(one.predictions->task, all.predictions[i].task);
      for (size_t c = 0; c < all.classes; c++) {
        assert_true(fabsf(expf(one.log_probs[c]) - expf(all.log_probs[i * all.classes + c])) <= 1e-5f);
      }
      forget(&one);
    }
    forget(&all);
    dlora_learner_destroy(learner);
  }
  test_pictures_free(&p);
}

/* ---- 8: after any number of tasks, routing none costs what the frozen network costs ---- */

/* W + M in place of W in the model's own file: what a frozen ViT of these weights computes and costs. */
static dlora_model *frozen_equivalent(const dlora_bank *bank) {
  const char *path = test_write_vit("merged.safetensors", 1);
  size_t size = 0, length = 0;
  unsigned char *bytes = test_read_file(path, &size);
  for (size_t s = 0; s < dlora_bank_num_sites(bank); s++) {
    dlora_site site;
    const float *merged = NULL;
    char name[64];
    float weight[VIT_DIM * VIT_DIM];
    assert_status(DLORA_OK, dlora_bank_get_site(bank, s, &site));
    assert_status(DLORA_OK, dlora_bank_get_merged(bank, s, &merged));
    assert_non_null(merged);
    snprintf(name, sizeof name, "blocks.%d.attn.qkv.weight", (int)site.block);
    unsigned char *part = test_tensor(bytes, name, &length);
    assert_int_equal(length, 3 * sizeof weight);
    part += (site.projection == DLORA_SITE_KEY ? 1 : 2) * sizeof weight;
    memcpy(weight, part, sizeof weight);
    for (size_t i = 0; i < VIT_DIM * VIT_DIM; i++) weight[i] += merged[i];
    memcpy(part, weight, sizeof weight);
  }
  test_write_file(path, bytes, size);
  free(bytes);
  dlora_model *equivalent = NULL;
  assert_status(DLORA_OK, dlora_model_load(&equivalent, path, NULL));
  return equivalent;
}

/* The adapted network is a frozen one of the same shape, and no more memory is taken after three tasks than after one.
 */
static void without_residual_adapters_tasks_cost_nothing(void **state) {
  (void)state;
  struct test_memory memory;
  test_memory_start(&memory);
  dlora_learner_options options = test_quick_options();
  options.allocator = &memory.allocator;
  options.routing = DLORA_ROUTING_NONE;
  options.untouched_weight = 0.0f; /* the adapted network alone runs */
  options.learning_rate = 1e-2f;
  options.residual_merge_fraction = 0.5f; /* so that the first task keeps a residual adapter too */
  dlora_learner *learner = test_learner(model, &options);
  struct test_pictures p = unseen();
  dlora_prediction predictions[24];
  float features[24 * VIT_DIM], frozen[24 * VIT_DIM];
  size_t embed_calls = 0, predict_calls = 0;
  dlora_session *bare = NULL;
  assert_status(DLORA_OK, dlora_session_create(&bare, model, NULL, NULL));
  for (size_t task = 0; task < 3; task++) {
    learn(learner, task);
    size_t before = memory.total;
    assert_status(DLORA_OK, dlora_learner_embed(learner, &p.images, NULL, features));
    if (task) assert_int_equal(memory.total - before, embed_calls);
    embed_calls = memory.total - before;
    before = memory.total;
    assert_status(DLORA_OK, dlora_learner_predict(learner, &p.images, predictions, NULL));
    if (task) assert_int_equal(memory.total - before, predict_calls);
    predict_calls = memory.total - before;

    dlora_model *equivalent = frozen_equivalent(dlora_learner_get_bank(learner));
    assert_status(DLORA_OK, dlora_model_embed(equivalent, &p.images, frozen));
    assert_close(features, frozen, (size_t)24 * VIT_DIM, 1e-5);
    dlora_session *session = NULL;
    float merged[16 * VIT_DIM];
    const dlora_images some = test_part(&p.images, 0, 16);
    dlora_model_destroy(equivalent);
    assert_status(DLORA_OK, dlora_session_create(&session, model, dlora_learner_get_bank(learner), NULL));
    assert_int_equal(dlora_session_workspace_size(session), dlora_session_workspace_size(bare));
    assert_status(DLORA_OK, dlora_session_forward(session, &some, DLORA_TERM_MERGED, NULL, merged));
    assert_close(merged, frozen, (size_t)16 * VIT_DIM, 1e-5);
    dlora_session_destroy(session);
  }
  assert_status(DLORA_OK, dlora_model_embed(model, &p.images, frozen));
  assert_true(test_largest_change(features, frozen, (size_t)24 * VIT_DIM) > 1e-2); /* and yet it has learnt */
  dlora_session_destroy(bare);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
  assert_int_equal(memory.live, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(inputs_inside_the_memory_see_no_change),
      cmocka_unit_test(inputs_inside_the_memory_see_no_change_with_a_trained),
      cmocka_unit_test(relevance_none_is_the_merged_network_exactly),
      cmocka_unit_test(learning_a_task_leaves_earlier_tasks_alone),
      cmocka_unit_test(the_same_seed_gives_bitwise_the_same_training),
      cmocka_unit_test(predictions_survive_the_checkpoint_bitwise),
      cmocka_unit_test(predictions_do_not_depend_on_the_rest_of_the_batch),
      cmocka_unit_test(without_residual_adapters_tasks_cost_nothing),
  };
  return test_run_with_vit(tests, &model);
}
