/* The loop around a task: reads a source, observes, trains for some epochs, observes again. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "src/learner.h"
#include "src/source.h"

struct loop {
  dlora_learner *learner;
  const dlora_image_source *source;
  struct dli_reader *reader;
  size_t *order;   /* [count] images in the order of the passes without training */
  size_t *trained; /* [num_trained] images that train, shuffled every epoch */
  size_t num_trained;
};

/* Non-zero when the callback cancels. */
static dlora_status report(const struct loop *loop, int32_t phase, size_t done, size_t total, double loss,
                           size_t images, double started) {
  const dlora_learner_options *o = &loop->learner->options;
  return dli_report_progress(o, dlora_learner_num_tasks(loop->learner), phase, done, total, loss, images, started);
}

static dlora_status observe_all(const struct loop *loop, int32_t phase) {
  dlora_learner *learner = loop->learner;
  const size_t count = loop->source->count, batch = dli_learner_max_batch(learner, 1, count);
  const double started = dli_seconds();
  for (size_t first = 0; first < count; first += batch) {
    dlora_images images;
    const int64_t *labels;
    const size_t part = count - first < batch ? count - first : batch;
    DLI_TRY(dli_reader_read(loop->reader, loop->order + first, part, &images, &labels));
    DLI_TRY(dlora_learner_observe(learner, &images, labels));
    DLI_TRY(report(loop, phase, first + part, count, (double)NAN, first + part, started));
  }
  return DLORA_OK;
}

static dlora_status train(const struct loop *loop) {
  dlora_learner *learner = loop->learner;
  const dlora_learner_options *o = &learner->options;
  const size_t per_epoch = (loop->num_trained + o->batch_size - 1) / o->batch_size, total = per_epoch * o->epochs;
  const double started = dli_seconds();
  struct dli_random shuffle;
  double mean = 0.0;
  size_t done = 0, images_done = 0;
  dli_random_seed(&shuffle, o->seed, 8 * dlora_learner_num_tasks(learner) + 3);
  for (size_t epoch = 0; epoch < o->epochs; epoch++) {
    dli_random_shuffle(&shuffle, loop->trained, loop->num_trained);
    for (size_t first = 0; first < loop->num_trained; first += o->batch_size) {
      dlora_images images;
      const int64_t *labels;
      const size_t left = loop->num_trained - first, part = left < o->batch_size ? left : o->batch_size;
      float loss;
      DLI_TRY(dli_reader_read(loop->reader, loop->trained + first, part, &images, &labels));
      DLI_TRY(dlora_learner_step(learner, &images, labels, &loss));
      done++;
      images_done += part;
      mean += ((double)loss - mean) / (double)(done < 20 ? done : 20);
      DLI_TRY(report(loop, DLORA_PHASE_TRAIN, done, total, mean, images_done, started));
    }
  }
  return DLORA_OK;
}

/* Every period-th image of a class is held out from training, as dlora_learner_observe holds it out from the
 * statistics. */
static dlora_status choose_images(struct loop *loop) {
  const dlora_learner *learner = loop->learner;
  const dlora_learner_options *o = &learner->options;
  const dlora_allocator *allocator = &learner->allocator;
  const size_t count = loop->source->count;
  dlora_status status = DLORA_OK;
  int64_t *classes = NULL;
  size_t *seen = NULL, num_classes = 0;
  DLI_TRY_DONE(DLI_NEW(allocator, loop->order, count));
  DLI_TRY_DONE(DLI_NEW(allocator, loop->trained, count));
  DLI_TRY_DONE(DLI_NEW(allocator, classes, count));
  DLI_TRY_DONE(DLI_NEW(allocator, seen, count));
  if (o->max_observed_images) { /* so that the observed ones are a sample of all classes */
    struct dli_random random;
    dli_random_seed(&random, o->seed, 8 * dlora_learner_num_tasks(learner) + 4);
    dli_random_permutation(&random, loop->order, count);
  } else {
    for (size_t i = 0; i < count; i++) loop->order[i] = i;
  }
  for (size_t i = 0; i < count; i++) {
    const int64_t label = loop->source->labels[loop->order[i]];
    size_t c = 0;
    while (c < num_classes && classes[c] != label) c++;
    if (c == num_classes) classes[num_classes++] = label;
    if (!dli_is_held_out(o, c, seen[c]++)) loop->trained[loop->num_trained++] = loop->order[i];
  }
done:
  dli_free(allocator, classes);
  dli_free(allocator, seen);
  return status;
}

dlora_status dlora_learner_learn_source(dlora_learner *learner, const dlora_image_source *source,
                                        dlora_task_report *task_report) {
  DLI_REQUIRE(learner);
  struct loop loop = {.learner = learner};
  dlora_image_source known;
  DLI_TRY(dli_source_read(&known, source, __func__));
  const dlora_task_report empty = DLORA_TASK_REPORT_INIT; /* a wrong struct is told now, not after the training */
  if (task_report) {
    DLI_TRY(dli_struct_write("dlora_task_report", task_report, task_report->struct_size, &empty, sizeof empty));
  }
  if (learner->task) {
    return dli_raise(DLORA_ERR_STATE, "dlora_learner_learn_source: a task is open; end or cancel it first");
  }
  const dlora_learner_options *o = &learner->options;
  const size_t largest =
      dli_learner_max_batch(learner, 1, 0) > o->batch_size ? dli_learner_max_batch(learner, 1, 0) : o->batch_size;
  dlora_status status = DLORA_OK;
  loop.source = &known;
  DLI_TRY_DONE(dli_reader_create(&loop.reader, learner->model, &known, largest < known.count ? largest : known.count,
                                 &learner->allocator));
  DLI_TRY_DONE(choose_images(&loop));
  const int trains = (o->rank_orthogonal || o->rank_residual) && o->epochs;
  const size_t steps = (loop.num_trained + o->batch_size - 1) / o->batch_size * o->epochs;
  DLI_TRY_DONE(dlora_learner_begin_task(learner, trains ? steps : 0));
  DLI_TRY_DONE(observe_all(&loop, DLORA_PHASE_OBSERVE));
  if (trains) {
    DLI_TRY_DONE(train(&loop));
    DLI_TRY_DONE(observe_all(&loop, DLORA_PHASE_STATISTICS));
  }
  DLI_TRY_DONE(dlora_learner_end_task(learner, task_report));
done:
  dli_task_release(learner);
  dli_reader_destroy(loop.reader);
  dli_free(&learner->allocator, loop.order);
  dli_free(&learner->allocator, loop.trained);
  return status;
}

/* ---- images in memory as a source ---- */

static int32_t read_from_memory(size_t index, dlora_images *image, void *user) {
  return dli_images_part(user, index, 1, image, "dlora_learner_learn_task") == DLORA_OK ? 0 : 1;
}

dlora_status dlora_learner_learn_task(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                      dlora_task_report *task_report) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(images);
  DLI_REQUIRE(labels);
  dlora_images copy;
  DLI_TRY(dli_images_part(images, 0, images->count, &copy, __func__));
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = read_from_memory;
  source.user = &copy;
  source.count = images->count;
  source.labels = labels;
  return dlora_learner_learn_source(learner, &source, task_report);
}
