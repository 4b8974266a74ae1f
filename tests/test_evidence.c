/* The untouched backbone in predictions: the blend (6) of METHOD.md 8, its weight by evidence, and where there is none.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { MOST_CLASSES = 6 };
static const int64_t six[MOST_CLASSES] = {-7, 3, 1000000007, 40, 5, 60};
static dlora_model *model;

/* Quick ones, of which training moves features. */
static dlora_learner_options usual_options(void) {
  dlora_learner_options options = test_quick_options();
  options.first_block = 0;
  options.learning_rate = 2e-2f;
  options.epochs = 4;
  return options;
}

static void set_weight(dlora_learner *learner, float weight) {
  dlora_learner_options options = {.struct_size = sizeof options};
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &options));
  options.untouched_weight = weight;
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
}

struct answers {
  size_t count, classes;
  dlora_prediction *predictions; /* [count] */
  float *logs;                   /* [count, classes] */
};

/* At a given task of each image, or at none. Fails unless every row of probabilities sums to 1. */
static struct answers ask_within(const dlora_learner *learner, const dlora_images *images, const int64_t *tasks) {
  struct answers a = {.count = images->count, .classes = dlora_learner_num_classes(learner)};
  a.predictions = calloc(a.count, sizeof *a.predictions);
  a.logs = calloc(a.count * a.classes, sizeof *a.logs);
  assert_true(a.predictions && a.logs);
  if (tasks) {
    assert_status(DLORA_OK, dlora_learner_predict_with_tasks(learner, images, tasks, a.predictions, a.logs));
  } else {
    assert_status(DLORA_OK, dlora_learner_predict(learner, images, a.predictions, a.logs));
  }
  for (size_t i = 0; i < a.count; i++) {
    double sum = 0.0;
    for (size_t c = 0; c < a.classes; c++) sum += exp((double)a.logs[i * a.classes + c]);
    assert_true(fabs(sum - 1.0) < 1e-6);
  }
  return a;
}

static struct answers ask(const dlora_learner *learner, const dlora_images *images) {
  return ask_within(learner, images, NULL);
}

static struct answers ask_at(dlora_learner *learner, const dlora_images *images, float weight) {
  set_weight(learner, weight);
  assert_true(dlora_learner_get_untouched_weight(learner) == (double)weight);
  return ask(learner, images);
}

static void forget(struct answers *a) {
  free(a->predictions);
  free(a->logs);
}

static void assert_same(const struct answers *a, const struct answers *b) {
  assert_true(a->count == b->count && a->classes == b->classes);
  assert_memory_equal(a->predictions, b->predictions, a->count * sizeof *a->predictions);
  assert_memory_equal(a->logs, b->logs, a->count * a->classes * sizeof *a->logs);
}

static size_t largest(const double *values, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; i++) {
    if (values[i] > values[best]) best = i;
  }
  return best;
}

/* values [count] <- the logarithms of probabilities that are proportional to their exponentials. */
static void normalise(double *values, size_t count) {
  const double top = values[largest(values, count)];
  double sum = 0.0;
  for (size_t i = 0; i < count; i++) sum += exp(values[i] - top);
  for (size_t i = 0; i < count; i++) values[i] -= top + log(sum);
}

/* ---- the blend ---- */

/* Two classes a task and each in one task: the posterior of a component is that of its class. */
static void the_blend_is_a_weighted_geometric_mean(void **state) {
  (void)state;
  const dlora_learner_options options = usual_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t tasks = 1; tasks <= 3; tasks++) {
    test_learn(learner, six + 2 * (tasks - 1), 2, 20, (uint32_t)tasks, NULL);
    const size_t classes = 2 * tasks;
    struct test_pictures p = test_pictures(six, MOST_CLASSES, 8, 50); /* some of no class that was learnt */
    struct answers adapted = ask_at(learner, &p.images, 0.0f), untouched = ask_at(learner, &p.images, 1.0f);
    static const float weights[] = {0.3f, 0.5f, 0.9f};
    double differ = 0.0;
    for (size_t k = 0; k < sizeof weights / sizeof *weights; k++) {
      struct answers blend = ask_at(learner, &p.images, weights[k]);
      const double w = (double)weights[k];
      for (size_t i = 0; i < blend.count; i++) {
        const dlora_prediction *found = &blend.predictions[i];
        double expected[MOST_CLASSES], by_task[3] = {0.0};
        for (size_t c = 0; c < classes; c++) {
          const double a = (double)adapted.logs[i * classes + c], u = (double)untouched.logs[i * classes + c];
          expected[c] = (1.0 - w) * a + w * u;
          if (fabs(a - u) > differ) differ = fabs(a - u);
        }
        normalise(expected, classes);
        for (size_t c = 0; c < classes; c++) {
          const double log_p = (double)blend.logs[i * classes + c];
          assert_true(fabs(log_p - expected[c]) < 1e-5 * (1.0 + fabs(expected[c])));
          by_task[c / 2] += exp(expected[c]);
        }
        assert_true(fabs((double)found->class_probability - exp(expected[largest(expected, classes)])) < 1e-5);
        assert_true(fabs((double)found->task_probability - by_task[largest(by_task, tasks)]) < 1e-5);
        const double a = (double)adapted.predictions[i].unknown_score;
        const double u = (double)untouched.predictions[i].unknown_score;
        assert_true(fabs((double)found->unknown_score - ((1.0 - w) * a + w * u)) < 1e-5 * (1.0 + fabs(a) + fabs(u)));
      }
      forget(&blend);
    }
    assert_true(differ > 0.2); /* or all of them would be the same */
    forget(&untouched);
    forget(&adapted);
    test_pictures_free(&p);
  }
  dlora_learner_destroy(learner);
}

/* Components of tasks {a, b} and {b, c}: p(a), p(c), and b's from p(task), of which the larger is told. */
static void components_of(const struct answers *a, size_t image, double components[4]) {
  const double first = exp((double)a->logs[image * 3]), last = exp((double)a->logs[image * 3 + 2]);
  const double told = (double)a->predictions[image].task_probability;
  const double task = a->predictions[image].task == 0 ? told : 1.0 - told;
  components[0] = first;
  components[1] = task - first;
  components[2] = 1.0 - task - last;
  components[3] = last;
}

/* The blend is one of components; a class that recurs sums its own up. */
static void a_class_that_recurs_is_blended_by_component(void **state) {
  (void)state;
  const double w = 0.5;
  dlora_learner_options options = usual_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < 2; t++) test_learn(learner, six + t, 2, 20, (uint32_t)t + 1, NULL);
  struct test_pictures p = test_pictures(six, 3, 40, 51);
  struct answers adapted = ask_at(learner, &p.images, 0.0f), untouched = ask_at(learner, &p.images, 1.0f),
                 blend = ask_at(learner, &p.images, (float)w);
  size_t compared = 0;
  double differ = 0.0;
  for (size_t i = 0; i < p.images.count; i++) {
    double of_a[4], of_u[4], expected[4], by_class[3];
    components_of(&adapted, i, of_a);
    components_of(&untouched, i, of_u);
    /* Differences of floats near 1 tell no small component. */
    if (fmin(fmin(of_a[1], of_a[2]), fmin(of_u[1], of_u[2])) < 0.02) continue;
    for (size_t k = 0; k < 4; k++) expected[k] = (1.0 - w) * log(of_a[k]) + w * log(of_u[k]);
    normalise(expected, 4);
    for (size_t c = 0; c < 3; c++) {
      by_class[c] = (1.0 - w) * (double)adapted.logs[i * 3 + c] + w * (double)untouched.logs[i * 3 + c];
    }
    normalise(by_class, 3);
    const double right = exp(expected[1]) + exp(expected[2]);
    assert_true(fabs(exp((double)blend.logs[i * 3]) - exp(expected[0])) < 1e-5);
    assert_true(fabs(exp((double)blend.logs[i * 3 + 1]) - right) < 1e-5);
    differ = fmax(differ, fabs(right - exp(by_class[1])));
    compared++;
  }
  assert_true(compared > 10 && differ > 2e-4);
  forget(&blend);
  forget(&untouched);
  forget(&adapted);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* At a weight of 0 the statistics of the untouched backbone might as well not be there. Mirrored images alone, which
 * enter those of before training only to be compared, change the first head. */
static void a_weight_of_0_is_the_adapted_network_bitwise(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(six, 4, 8, 52);
  for (int32_t routing = DLORA_ROUTING_EARLY; routing <= DLORA_ROUTING_NONE; routing++) {
    if (routing == DLORA_ROUTING_GIVEN) continue;
    struct answers answers[2];
    for (int32_t kept = 0; kept < 2; kept++) {
      dlora_learner_options options = usual_options();
      options.flip = DLORA_FLIP_TRAINING;
      options.routing = routing;
      options.untouched_baseline = kept;
      options.untouched_weight = kept ? 0.0f : 1.0f;
      dlora_learner *learner = test_learner(model, &options);
      for (size_t t = 0; t < 2; t++) test_learn(learner, six + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
      assert_true(dlora_learner_get_untouched_weight(learner) == 0.0);
      answers[kept] = ask(learner, &p.images);
      dlora_learner_destroy(learner);
    }
    assert_same(&answers[0], &answers[1]);
    forget(&answers[0]);
    forget(&answers[1]);
  }
  test_pictures_free(&p);
}

/* Of classes first ... first + num - 1 of the six in turn, each of one colour and hardly any noise: whatever network
 * sees them is very sure. */
static struct test_pictures plain_pictures(size_t first, size_t num, size_t per_class, uint32_t seed) {
  struct test_pictures p = test_pictures(six + first, num, per_class, seed);
  const size_t one = p.images.height * p.images.width * 3;
  for (size_t i = 0; i < p.images.count * one; i++) {
    const float level = 25.0f + 40.0f * (float)(first + i / one % num) + 3.0f * test_uniform(&seed);
    p.pixels[i] = (uint8_t)level;
  }
  return p;
}

/* Whatever task is given, the true one or not, and however much the untouched backbone objects. */
static void a_given_task_holds_at_any_weight(void **state) {
  (void)state;
  const dlora_learner_options options = usual_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < 3; t++) {
    struct test_pictures learnt = plain_pictures(2 * t, 2, 20, (uint32_t)t + 1);
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &learnt.images, learnt.labels, NULL));
    test_pictures_free(&learnt);
  }
  struct test_pictures p = plain_pictures(0, MOST_CLASSES, 6, 53);
  const size_t count = p.images.count;
  struct answers untouched = ask_at(learner, &p.images, 1.0f);
  size_t objections = 0;
  for (size_t i = 0; i < count * MOST_CLASSES; i++) objections += untouched.logs[i] < -150.0f;
  assert_true(objections > 0);
  forget(&untouched);
  int64_t *tasks = calloc(count, sizeof *tasks);
  assert_non_null(tasks);
  static const float weights[] = {0.0f, 0.3f, 0.5f, 1.0f};
  for (size_t k = 0; k < sizeof weights / sizeof *weights; k++) {
    set_weight(learner, weights[k]);
    size_t right = 0;
    for (size_t off = 0; off < 3; off++) { /* 0: the true task */
      for (size_t i = 0; i < count; i++) tasks[i] = (int64_t)((i % MOST_CLASSES / 2 + off) % 3);
      struct answers a = ask_within(learner, &p.images, tasks);
      for (size_t i = 0; i < count; i++) {
        const size_t first = 2 * (size_t)tasks[i];
        const double inside = exp((double)a.logs[i * 6 + first]) + exp((double)a.logs[i * 6 + first + 1]);
        assert_true(inside > 1.0 - 1e-6);
        assert_true(a.predictions[i].class_id == six[first] || a.predictions[i].class_id == six[first + 1]);
        assert_int_equal(a.predictions[i].task, tasks[i]);
        assert_true(a.predictions[i].task_probability == 1.0f);
        if (off == 0) right += a.predictions[i].class_id == p.labels[i];
      }
      forget(&a);
    }
    assert_true(right > count * 6 / 10);
  }
  free(tasks);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* ---- what the evidence says ---- */

struct outcome {
  double weight, blend, adapted, untouched; /* accuracies */
};

static struct outcome outcome_of(dlora_learner *learner) {
  struct test_pictures p = test_pictures(six, MOST_CLASSES, 40, 77);
  const dlora_image_source source = test_source_of(&p);
  dlora_evaluation e = DLORA_EVALUATION_INIT;
  struct outcome o = {.weight = dlora_learner_get_untouched_weight(learner)};
  o.blend = test_accuracy(learner, &p);
  set_weight(learner, 0.0f);
  o.adapted = test_accuracy(learner, &p);
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
  set_weight(learner, 1.0f);
  o.untouched = test_accuracy(learner, &p);
  assert_true(fabs(e.untouched_accuracy - o.untouched) < 1e-12);
  test_pictures_free(&p);
  return o;
}

/* Of the first task only the held-out images tell, which both networks judge after training. */
static void adapters_that_harm_are_left_out(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.first_block = 0;
  options.sites = 63;
  options.learning_rate = 3.0f; /* features break */
  options.epochs = 4;
  options.held_out = 0.25f;
  dlora_learner *learner = test_learner(model, &options);
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  test_learn(learner, six, MOST_CLASSES, 100, 1, &report);
  assert_true(report.evidence_images > 130 && report.evidence_images <= 150);
  assert_true(report.evidence_gain < -0.05);
  assert_true(report.untouched_weight == dlora_learner_get_untouched_weight(learner));
  const struct outcome o = outcome_of(learner);
  assert_true(o.weight >= 0.7 && o.weight == report.untouched_weight);
  assert_true(o.adapted < o.untouched - 0.03); /* harm indeed */
  assert_true(o.blend > o.untouched - 0.02);
  dlora_learner_destroy(learner);
}

static void adapters_that_help_are_relied_on(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.first_block = 0;
  options.learning_rate = 5e-3f;
  options.sites = 63;
  options.epochs = 8;
  options.held_out = 0.25f;
  options.crop_scale = 1.0f; /* training sees what is measured */
  options.jitter = 0.0f;
  dlora_learner *learner = test_learner(model, &options);
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  test_learn(learner, six, MOST_CLASSES, 100, 1, &report);
  assert_true(report.evidence_images > 130 && report.evidence_images <= 150);
  assert_true(report.evidence_gain > 0.03);
  const struct outcome o = outcome_of(learner);
  assert_true(o.weight <= 0.4 && o.weight == report.untouched_weight);
  assert_true(o.adapted > o.untouched + 0.02 && o.blend > o.untouched + 0.015);
  dlora_learner_destroy(learner);
}

/* Of later tasks all images tell, before training: what the first task merged breaks features of the second one too. */
static void later_tasks_judge_what_earlier_ones_left(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.first_block = 0;
  options.learning_rate = 3.0f;
  options.epochs = 4;
  dlora_learner *learner = test_learner(model, &options);
  dlora_task_report first = DLORA_TASK_REPORT_INIT, second = DLORA_TASK_REPORT_INIT, third = DLORA_TASK_REPORT_INIT;
  test_learn(learner, six, 2, 40, 1, &first);
  assert_int_equal(first.evidence_images, 8);                                  /* a tenth is held out */
  assert_true(first.untouched_weight > 0.35 && first.untouched_weight < 0.65); /* that tells little */
  options.learning_rate = 0.0f; /* and what this one trains changes nothing */
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  test_learn(learner, six + 2, 2, 40, 2, &second);
  assert_int_equal(second.evidence_images, 80 + 8);
  assert_true(second.evidence_gain < -0.05);
  assert_true(second.untouched_weight >= 0.7);
  /* A task without training tells as much: each image once, and the held-out ones have not been judged before. */
  options.epochs = 0;
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  test_learn(learner, six + 4, 2, 40, 3, &third);
  assert_int_equal(third.num_steps, 0);
  assert_int_equal(third.evidence_images, 80);
  assert_true(isfinite(third.evidence_gain) && third.untouched_weight >= 0.7);
  dlora_learner_destroy(learner);
}

/* ---- the order of images does not matter ---- */

/* The pictures in this order. */
static struct test_pictures in_order(const struct test_pictures *p, const size_t *order) {
  struct test_pictures out = test_pictures(six, 1, p->images.count, 1);
  const size_t one = p->images.height * p->images.width * 3;
  for (size_t i = 0; i < p->images.count; i++) {
    memcpy(out.pixels + i * one, p->pixels + order[i] * one, one);
    out.labels[i] = p->labels[order[i]];
  }
  return out;
}

/* A round of observations in portions of so many images. */
static void observe(dlora_learner *learner, const struct test_pictures *p, const size_t *order, size_t portion,
                    bool trained) {
  struct test_pictures q = in_order(p, order);
  for (size_t first = 0; first < q.images.count; first += portion) {
    const size_t left = q.images.count - first;
    const dlora_images part = test_part(&q.images, first, left < portion ? left : portion);
    assert_status(DLORA_OK, trained ? dlora_learner_observe_trained(learner, &part, q.labels + first)
                                    : dlora_learner_observe(learner, &part, q.labels + first));
  }
  test_pictures_free(&q);
}

/* Orders of two classes in turn: as they come, and one class after the other, once both have come. Which images are
 * held out is the same: that depends on the order within the class. */
enum { IN_TURN = 40 };
static void fill_orders(size_t orders[2][IN_TURN]) {
  for (size_t i = 0; i < IN_TURN; i++) {
    orders[0][i] = i;
    orders[1][i] = i < 2 ? i : i <= IN_TURN / 2 ? 2 * (i - 1) : 2 * (i - IN_TURN / 2) + 1;
  }
}

static void evidence_does_not_depend_on_order_or_portions(void **state) {
  (void)state;
  static const struct {
    size_t order[2], portion[2]; /* before training, after it */
  } ways[] = {{{0, 0}, {16, 16}}, {{0, 0}, {16, 5}}, {{1, 1}, {7, 7}}, {{0, 1}, {40, 3}}, {{1, 0}, {1, 16}}};
  const char *path = test_temporary("first-task.safetensors");
  size_t orders[2][IN_TURN];
  fill_orders(orders);
  for (int moves = 0; moves < 2; moves++) {
    dlora_learner_options options = usual_options();
    options.first_block = VIT_DEPTH - 1; /* below it a portion's size may change how sums are rounded */
    dlora_learner *start = test_learner(model, &options);
    test_learn(start, six, 2, 20, 1, NULL);
    assert_status(DLORA_OK, dlora_learner_save(start, path));
    dlora_learner_destroy(start);
    if (!moves) options.learning_rate = 0.0f; /* training would amplify how sums are rounded */
    struct test_pictures p = test_pictures(six + 2, 2, IN_TURN / 2, 2);
    dlora_task_report reports[sizeof ways / sizeof *ways];
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
      dlora_learner *learner = NULL;
      assert_status(DLORA_OK, dlora_learner_load(&learner, model, path, &options));
      assert_status(DLORA_OK, dlora_learner_begin_task(learner, 4));
      observe(learner, &p, orders[ways[w].order[0]], ways[w].portion[0], false);
      assert_status(DLORA_OK, dlora_learner_begin_training(learner));
      for (size_t step = 0; step < 4; step++) {
        const dlora_images part = test_part(&p.images, 10 * step, 10);
        assert_status(DLORA_OK, dlora_learner_step(learner, &part, p.labels + 10 * step, NULL));
      }
      observe(learner, &p, orders[ways[w].order[1]], ways[w].portion[1], true);
      reports[w] = (dlora_task_report)DLORA_TASK_REPORT_INIT;
      assert_status(DLORA_OK, dlora_learner_commit_task(learner, &reports[w]));
      assert_int_equal(reports[w].evidence_images, IN_TURN + 4); /* a tenth is held out, and judged twice */
      if (!moves) {
        assert_true(fabs(reports[w].evidence_gain - reports[0].evidence_gain) < 1e-6);
        assert_true(reports[w].untouched_weight == reports[0].untouched_weight);
      }
      dlora_learner_destroy(learner);
    }
    assert_true(fabs(reports[0].evidence_gain) > 1e-3);
    test_pictures_free(&p);
  }
}

/* ---- files ---- */

static dlora_learner *reloaded(const dlora_learner *learner, const char *path) {
  dlora_learner *loaded = NULL;
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  dlora_learner_options options = {.struct_size = sizeof options};
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &options)); /* the threads too */
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &options));
  return loaded;
}

/* At every place of a task; from there on as if nothing had happened. */
static void the_weight_survives_files_between_tasks_and_within(void **state) {
  (void)state;
  const char *path = test_temporary("weight.safetensors");
  const dlora_learner_options options = usual_options();
  struct test_pictures p = test_pictures(six + 2, 2, 20, 2), unseen = test_pictures(six, 4, 8, 60);
  dlora_learner *straight = test_learner(model, &options);
  test_learn(straight, six, 2, 20, 1, NULL);
  dlora_learner *moving = reloaded(straight, path);
  struct answers answers[2] = {ask(straight, &unseen.images), ask(moving, &unseen.images)};
  assert_true(dlora_learner_get_untouched_weight(straight) == dlora_learner_get_untouched_weight(moving));
  assert_same(&answers[0], &answers[1]);
  for (size_t i = 0; i < 2; i++) {
    dlora_learner *const learner = i ? moving : straight;
    assert_status(DLORA_OK, dlora_learner_begin_task(learner, 2));
  }
  dlora_task_report reports[2] = {DLORA_TASK_REPORT_INIT, DLORA_TASK_REPORT_INIT};
  for (size_t call = 0; call < 8; call++) {
    dlora_learner *const old = moving;
    moving = reloaded(old, path);
    dlora_learner_destroy(old);
    for (size_t i = 0; i < 2; i++) {
      dlora_learner *const learner = i ? moving : straight;
      const bool second = call == 1 || call == 4 || call == 6;
      const size_t first = second ? 23 : 0, count = second ? 17 : 23;
      const dlora_images part = test_part(&p.images, first, count);
      dlora_status status = DLORA_OK;
      if (call < 2) status = dlora_learner_observe(learner, &part, p.labels + first);
      if (call == 2) status = dlora_learner_begin_training(learner);
      if (call == 3 || call == 4) status = dlora_learner_step(learner, &part, p.labels + first, NULL);
      if (call == 5 || call == 6) status = dlora_learner_observe_trained(learner, &part, p.labels + first);
      if (call == 7) status = dlora_learner_commit_task(learner, &reports[i]);
      assert_status(DLORA_OK, status);
    }
  }
  assert_int_equal(reports[0].evidence_images, 40 + 4);
  assert_int_equal(reports[1].evidence_images, reports[0].evidence_images);
  assert_true(reports[1].evidence_gain == reports[0].evidence_gain);
  assert_true(reports[1].untouched_weight == reports[0].untouched_weight && reports[0].untouched_weight > 0.0);
  test_assert_same_learner(straight, moving);
  for (size_t i = 0; i < 2; i++) {
    forget(&answers[i]);
    answers[i] = ask(i ? moving : straight, &unseen.images);
  }
  assert_same(&answers[0], &answers[1]);
  for (size_t i = 0; i < 2; i++) forget(&answers[i]);
  dlora_learner_destroy(moving);
  dlora_learner_destroy(straight);
  test_pictures_free(&unseen);
  test_pictures_free(&p);
}

static size_t header_size(const unsigned char *bytes) {
  size_t header = 0;
  for (size_t i = 0; i < 8; i++) header |= (size_t)bytes[i] << (8 * i);
  return header;
}

/* Tensors whose names begin so are no longer found under them. Returns how many. */
static size_t hide(unsigned char *bytes, const char *prefix) {
  char quoted[80];
  const size_t length = (size_t)snprintf(quoted, sizeof quoted, "\"%s", prefix), header = header_size(bytes);
  size_t hidden = 0;
  for (size_t at = 8; at + length <= 8 + header; at++) {
    if (memcmp(bytes + at, quoted, length) != 0) continue;
    bytes[at + 1] = '~';
    hidden++;
  }
  return hidden;
}

/* Replaces the first `from` after a tensor's name. */
static void redescribe(unsigned char *bytes, const char *tensor, const char *from, const char *to) {
  char quoted[80];
  const size_t length = (size_t)snprintf(quoted, sizeof quoted, "\"%s\":{", tensor);
  size_t at = 8;
  while (memcmp(bytes + at, quoted, length) != 0) at++;
  while (bytes[at] != '}' && memcmp(bytes + at, from, strlen(from)) != 0) at++;
  assert_true(bytes[at] != '}');
  memcpy(bytes + at, to, strlen(to));
}

/* The file with these bytes: what it loads as, or NULL and a sentence with this name. */
static dlora_learner *load_bytes(const unsigned char *bytes, size_t size, const char *refused) {
  const char *path = test_temporary("edited.safetensors");
  dlora_learner *loaded = NULL;
  test_write_file(path, bytes, size);
  assert_status(refused ? DLORA_ERR_FORMAT : DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
  if (refused) assert_error_names(refused);
  if (refused) assert_null(loaded);
  return loaded;
}

static unsigned char *copy_of(const unsigned char *bytes, size_t size) {
  unsigned char *copy = malloc(size);
  assert_non_null(copy);
  memcpy(copy, bytes, size);
  return copy;
}

/* Of finished tasks, and of an open one. */
static void impossible_evidence_is_refused_by_name(void **state) {
  (void)state;
  dlora_learner *learner = NULL;
  const dlora_learner_options options = usual_options();
  learner = test_learner(model, &options);
  struct test_pictures p = test_pictures(six + 2, 2, 20, 2);
  for (size_t t = 0; t < 2; t++) test_learn(learner, six + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 1));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(learner));
  size_t size = 0, length = 0;
  unsigned char *sound = test_saved(learner, &size);
  static const char *const prefixes[] = {"evidence", "training.evidence"};
  static const double impossible[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, 1.7e308, -1e30};
  for (size_t i = 0; i < 2; i++) {
    char sums[64], images[64];
    snprintf(sums, sizeof sums, "%s.log_likelihood", prefixes[i]);
    snprintf(images, sizeof images, "%s.num_images", prefixes[i]);
    for (size_t k = 0; k < sizeof impossible / sizeof *impossible; k++) {
      for (size_t at = 0; at < 11; at += 5) {
        unsigned char *bytes = copy_of(sound, size);
        memcpy(test_tensor(bytes, sums, &length) + at * sizeof(double), &impossible[k], sizeof(double));
        assert_int_equal(length, 11 * sizeof(double));
        (void)load_bytes(bytes, size, sums);
        free(bytes);
      }
    }
    static const uint64_t counts[] = {UINT64_MAX, ((uint64_t)1 << 53) + 1};
    for (size_t k = 0; k < 2; k++) {
      unsigned char *bytes = copy_of(sound, size);
      memcpy(test_tensor(bytes, images, &length), &counts[k], sizeof *counts);
      (void)load_bytes(bytes, size, images);
      free(bytes);
    }
    const uint64_t none = 0; /* from which no sums come */
    unsigned char *bytes = copy_of(sound, size);
    memcpy(test_tensor(bytes, images, &length), &none, sizeof none);
    (void)load_bytes(bytes, size, sums);
    free(bytes);
    static const char *const shapes[][3] = {{"log_likelihood", "[11]", "[12]"},
                                            {"log_likelihood", "\"F64\"", "\"I64\""},
                                            {"num_images", "[1]", "[2]"},
                                            {"num_images", "\"U64\"", "\"F64\""}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
      char name[64];
      bytes = copy_of(sound, size);
      snprintf(name, sizeof name, "%s.%s", prefixes[i], shapes[k][0]);
      redescribe(bytes, name, shapes[k][1], shapes[k][2]);
      (void)load_bytes(bytes, size, name);
      free(bytes);
    }
    for (size_t k = 0; k < 2; k++) { /* one of them alone */
      bytes = copy_of(sound, size);
      assert_int_equal(hide(bytes, k ? images : sums), 1);
      (void)load_bytes(bytes, size, k ? images : sums);
      free(bytes);
    }
  }
  free(sound);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* Neither network is preferred without evidence; without statistics of the untouched backbone there is one network. */
static void files_without_evidence_load(void **state) {
  (void)state;
  const dlora_learner_options options = usual_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < 2; t++) test_learn(learner, six + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
  struct test_pictures p = test_pictures(six, 4, 8, 61);
  size_t size = 0;
  unsigned char *bytes = test_saved(learner, &size);
  assert_true(hide(bytes, "untouched.") > 10);
  (void)load_bytes(bytes, size, "untouched"); /* there is evidence about it */
  assert_int_equal(hide(bytes, "evidence."), 2);
  dlora_learner *loaded = load_bytes(bytes, size, NULL);
  assert_true(dlora_learner_get_untouched_weight(loaded) == 0.0);
  struct answers without = ask(loaded, &p.images), adapted = ask_at(learner, &p.images, 0.0f);
  for (size_t i = 0; i < p.images.count * 4; i++) assert_true(fabsf(without.logs[i] - adapted.logs[i]) < 1e-3f);
  dlora_learner_destroy(loaded);
  free(bytes);

  set_weight(learner, (float)DLORA_AUTO);
  bytes = test_saved(learner, &size);
  assert_int_equal(hide(bytes, "evidence."), 2);
  loaded = load_bytes(bytes, size, NULL);
  assert_true(dlora_learner_get_untouched_weight(loaded) == 0.5);
  dlora_learner_destroy(loaded);
  free(bytes);
  forget(&adapted);
  forget(&without);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* ---- where there are no two networks ---- */

static void instant_learners_run_one_network(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(six, 4, 8, 62);
  for (int no_epochs = 0; no_epochs < 2; no_epochs++) {
    struct answers answers[3];
    for (int way = 0; way < 3; way++) { /* no statistics, by evidence, half and half */
      dlora_learner_options options = test_quick_options();
      options.untouched_baseline = way > 0;
      options.untouched_weight = way < 2 ? DLORA_AUTO : 0.5f;
      if (no_epochs) options.epochs = 0;
      if (!no_epochs) options.rank_orthogonal = options.rank_residual = 0;
      dlora_learner *learner = test_learner(model, &options);
      for (size_t t = 0; t < 2; t++) {
        dlora_task_report report = DLORA_TASK_REPORT_INIT;
        test_learn(learner, six + 2 * t, 2, 20, (uint32_t)t + 1, &report);
        assert_int_equal(report.evidence_images, 0);
        assert_true(isnan(report.evidence_gain));
        assert_true(report.untouched_weight == 0.0);
        assert_true(dlora_learner_get_untouched_weight(learner) == 0.0);
      }
      answers[way] = ask(learner, &p.images);
      const dlora_image_source source = test_source_of(&p);
      dlora_evaluation e = DLORA_EVALUATION_INIT;
      assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
      if (way) assert_true(e.untouched_accuracy == e.accuracy);
      if (!way) assert_true(isnan(e.untouched_accuracy));

      /* The first task that trains makes two of them; the earlier tasks are in both. */
      options = test_quick_options();
      options.untouched_baseline = way > 0;
      assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
      test_learn(learner, six + 4, 2, 20, 3, NULL);
      const double weight = dlora_learner_get_untouched_weight(learner);
      assert_true(way ? weight > 0.0 : weight == 0.0);
      set_weight(learner, 1.0f);
      struct answers untouched = ask(learner, &p.images);
      size_t right = 0;
      for (size_t i = 0; i < p.images.count; i++) right += untouched.predictions[i].class_id == p.labels[i];
      assert_true(right > p.images.count * 6 / 10);
      forget(&untouched);
      dlora_learner_destroy(learner);
    }
    assert_same(&answers[0], &answers[1]);
    assert_same(&answers[0], &answers[2]);
    for (size_t way = 0; way < 3; way++) forget(&answers[way]);
  }
  test_pictures_free(&p);
  assert_true(dlora_learner_get_untouched_weight(NULL) == 0.0);
}

static double untouched_accuracy(dlora_learner *learner, const struct test_pictures *p) {
  const dlora_image_source source = test_source_of(p);
  dlora_evaluation e = DLORA_EVALUATION_INIT;
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
  return e.untouched_accuracy;
}

/* The statistics begin before training does, or never: images of earlier classes cannot be had again. */
static void the_baseline_begins_before_training_or_never(void **state) {
  (void)state;
  const char *path = test_temporary("switched.safetensors");
  struct test_pictures p = test_pictures(six, 4, 8, 63);
  dlora_learner_options options = usual_options();
  options.untouched_baseline = 0;
  dlora_learner *learner = test_learner(model, &options);
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  test_learn(learner, six, 2, 20, 1, &report);
  options.untouched_baseline = 1;
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  test_learn(learner, six + 2, 2, 20, 2, &report);
  assert_int_equal(report.evidence_images, 0);
  assert_true(isnan(report.evidence_gain) && report.untouched_weight == 0.0);
  assert_true(dlora_learner_get_untouched_weight(learner) == 0.0);
  assert_true(isnan(untouched_accuracy(learner, &p)));
  struct answers by_evidence = ask(learner, &p.images);
  set_weight(learner, 1.0f);
  assert_true(dlora_learner_get_untouched_weight(learner) == 0.0);
  struct answers alone = ask(learner, &p.images);
  assert_same(&by_evidence, &alone);
  forget(&alone);
  /* Its file says that the statistics are to be kept, has none, and is sound. */
  dlora_learner *loaded = reloaded(learner, path);
  alone = ask(loaded, &p.images);
  assert_same(&by_evidence, &alone);
  forget(&alone);
  forget(&by_evidence);
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(learner);
  test_pictures_free(&p);
}

static void a_baseline_once_begun_is_kept_up(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(six, 4, 8, 64);
  struct answers answers[2];
  double weights[2];
  for (int32_t off = 0; off < 2; off++) {
    dlora_learner_options options = usual_options();
    options.flip = DLORA_FLIP_TRAINING;
    dlora_learner *learner = test_learner(model, &options);
    dlora_task_report report = DLORA_TASK_REPORT_INIT;
    test_learn(learner, six, 2, 20, 1, NULL);
    if (off) options.untouched_baseline = 0;
    assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
    test_learn(learner, six + 2, 2, 20, 2, &report);
    assert_int_equal(report.evidence_images, 40 + 4);
    assert_true(isfinite(untouched_accuracy(learner, &p)));
    weights[off] = dlora_learner_get_untouched_weight(learner);
    answers[off] = ask(learner, &p.images);
    dlora_learner_destroy(learner);
  }
  assert_true(weights[0] == weights[1] && weights[0] > 0.0);
  assert_same(&answers[0], &answers[1]);
  for (size_t i = 0; i < 2; i++) forget(&answers[i]);
  test_pictures_free(&p);
}

/* A first task that is discarded takes its statistics along. */
static void a_discarded_task_leaves_no_evidence(void **state) {
  (void)state;
  const dlora_learner_options options = usual_options();
  dlora_learner *learner = test_learner(model, &options), *straight = test_learner(model, &options);
  struct test_pictures p = test_pictures(six, 4, 10, 65);
  for (size_t t = 0; t < 2; t++) {
    assert_status(DLORA_OK, dlora_learner_begin_task(learner, 1));
    assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
    assert_status(DLORA_OK, dlora_learner_begin_training(learner));
    assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, NULL));
    assert_true(dlora_learner_get_untouched_weight(learner) == dlora_learner_get_untouched_weight(straight));
    assert_status(DLORA_OK, dlora_learner_discard_task(learner));
    test_assert_same_learner(learner, straight);
    test_learn(learner, six + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
    test_learn(straight, six + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
    test_assert_same_learner(learner, straight);
  }
  test_pictures_free(&p);
  dlora_learner_destroy(straight);
  dlora_learner_destroy(learner);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_blend_is_a_weighted_geometric_mean),
      cmocka_unit_test(a_class_that_recurs_is_blended_by_component),
      cmocka_unit_test(a_weight_of_0_is_the_adapted_network_bitwise),
      cmocka_unit_test(a_given_task_holds_at_any_weight),
      cmocka_unit_test(adapters_that_harm_are_left_out),
      cmocka_unit_test(adapters_that_help_are_relied_on),
      cmocka_unit_test(later_tasks_judge_what_earlier_ones_left),
      cmocka_unit_test(evidence_does_not_depend_on_order_or_portions),
      cmocka_unit_test(the_weight_survives_files_between_tasks_and_within),
      cmocka_unit_test(impossible_evidence_is_refused_by_name),
      cmocka_unit_test(files_without_evidence_load),
      cmocka_unit_test(instant_learners_run_one_network),
      cmocka_unit_test(the_baseline_begins_before_training_or_never),
      cmocka_unit_test(a_baseline_once_begun_is_kept_up),
      cmocka_unit_test(a_discarded_task_leaves_no_evidence),
  };
  return test_run_with_vit(tests, &model);
}
