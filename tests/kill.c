/* Kills a small program with SIGKILL at random instants, again and again, while it learns and saves. After every kill
 * the checkpoint on disk must be, byte for byte, the old one or the new one, and the snapshot one that an undisturbed
 * run has taken at the same place; both must load. Started again, the program goes on from its snapshot, and in the end
 * has the undisturbed run's checkpoint.
 *
 *     duallora_kill [--kills N] [--seconds S] [--seed R]     until one of them is reached; default 1000 kills
 *
 * It goes on beyond S seconds on a machine so slow that no kill has hit learning, or none saving.
 *
 * What a killed program was doing is told by a byte in shared memory that it sets before each thing it does.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support_model.h"

/* Enough images that learning takes about as long as writing to disk. */
enum { NUM_TASKS = 3, STEPS = 4, MAX_SNAPSHOTS = 64, NUM_IMAGES = 160, BATCH = 16, PATH_SIZE = 512 };

enum { STARTING, LEARNING, SAVING_SNAPSHOT, SAVING_CHECKPOINT, NUM_ACTIVITIES };
static const char *const activity_names[] = {"starting or ending", "learning", "saving a snapshot",
                                             "saving the checkpoint"};

static void give_up(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(EXIT_FAILURE);
}

static void require(dlora_status status, const char *doing) {
  if (status != DLORA_OK) give_up("%s: %s: %s", doing, dlora_status_name(status), dlora_last_error());
}

/* ---- the program that is killed ---- */

static volatile unsigned char *activity; /* shared with the killer */
static const char *collect_to;           /* the undisturbed run copies its snapshots: prefix of their paths */
static char snapshot[PATH_SIZE];
static size_t num_collected, last_done;

static void copy_file(const char *from, const char *to) {
  size_t size = 0;
  unsigned char *bytes = test_read_file(from, &size);
  test_write_file(to, bytes, size);
  free(bytes);
}

static int32_t read_picture(size_t index, dlora_images *image, void *user) {
  const dlora_images *all = user;
  if (*activity == SAVING_SNAPSHOT && collect_to) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%ssnapshot-%zu", collect_to, num_collected++);
    copy_file(snapshot, path);
  }
  *activity = LEARNING;
  *image = test_part(all, index, 1);
  return 0;
}

/* The library saves after the callback where a multiple of this many steps or images was reached. */
static int32_t note_progress(const dlora_progress *progress, void *user) {
  (void)user;
  const size_t every = progress->phase == DLORA_PHASE_TRAIN ? STEPS : (size_t)STEPS * BATCH;
  if (progress->done < last_done) last_done = 0;
  if (progress->done / every != last_done / every) *activity = SAVING_SNAPSHOT;
  last_done = progress->done;
  return 0;
}

static void learn_rest(const char *prefix, const char *backbone) {
  char checkpoint[PATH_SIZE], copy[PATH_SIZE];
  dlora_model *model = NULL;
  dlora_learner *learner = NULL;
  dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
  dlora_learner_options options = test_quick_options();
  options.batch_size = BATCH;
  options.micro_batch = BATCH;
  model_options.threads = 1;
  snprintf(checkpoint, sizeof checkpoint, "%scheckpoint", prefix);
  snprintf(snapshot, sizeof snapshot, "%ssnapshot", prefix);
  require(dlora_model_load(&model, backbone, &model_options), "backbone");
  if (access(snapshot, F_OK) == 0) {
    require(dlora_learner_load(&learner, model, snapshot, &options), "snapshot");
  } else if (access(checkpoint, F_OK) == 0) {
    require(dlora_learner_load(&learner, model, checkpoint, &options), "checkpoint");
  } else {
    require(dlora_learner_create(&learner, model, &options), "create");
  }
  require(dlora_learner_set_progress(learner, note_progress, NULL), "progress");
  require(dlora_learner_set_snapshot(learner, snapshot, STEPS), "snapshots");
  for (size_t t = dlora_learner_num_tasks(learner); t < NUM_TASKS; t++) {
    const int64_t classes[] = {(int64_t)t, (int64_t)t + 1}; /* one of them comes again */
    struct test_pictures p = test_pictures(classes, 2, NUM_IMAGES / 2, (uint32_t)t + 1);
    dlora_image_source source = test_source_of(&p);
    dlora_open_task open = DLORA_OPEN_TASK_INIT;
    require(dlora_learner_get_open_task(learner, &open), "open task");
    last_done = open.phase == DLORA_PHASE_TRAIN        ? open.num_steps
                : open.phase == DLORA_PHASE_STATISTICS ? open.num_observed_trained
                                                       : open.num_observed;
    source.read = read_picture;
    require(dlora_learner_learn_source(learner, &source, NULL), "learning");
    *activity = SAVING_CHECKPOINT;
    require(dlora_learner_save(learner, checkpoint), "saving");
    *activity = STARTING;
    if (collect_to) {
      snprintf(copy, sizeof copy, "%scheckpoint-%zu", collect_to, t);
      copy_file(checkpoint, copy);
    }
    /* Killed before this, the program ends the task again from its snapshot, with the same result. */
    (void)unlink(snapshot);
    test_pictures_free(&p);
  }
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
}

static volatile unsigned char *map_activity(const char *path) {
  const int descriptor = open(path, O_RDWR | O_CREAT, 0600);
  if (descriptor < 0 || ftruncate(descriptor, 1) != 0) give_up("%s: %s", path, strerror(errno));
  void *mapped = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (mapped == MAP_FAILED) give_up("%s: %s", path, strerror(errno));
  close(descriptor);
  return mapped;
}

/* ---- the killer ---- */

struct file {
  unsigned char *bytes;
  size_t size;
};

static struct file read_file(const char *path) {
  struct file file = {NULL, 0};
  if (access(path, F_OK) == 0) file.bytes = test_read_file(path, &file.size);
  return file;
}

static size_t find_file(const struct file *file, const struct file *list, size_t count) {
  size_t i = 0;
  while (i < count && (list[i].size != file->size || memcmp(list[i].bytes, file->bytes, file->size) != 0)) i++;
  return i;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

struct hunt {
  char folder[PATH_SIZE], backbone[PATH_SIZE], prefix[PATH_SIZE], reference[PATH_SIZE];
  char checkpoint[PATH_SIZE], kept[PATH_SIZE];
  dlora_model *model;
  struct file checkpoints[NUM_TASKS], snapshots[MAX_SNAPSHOTS]; /* of the undisturbed run */
  size_t num_snapshots;
  size_t last_checkpoint, last_snapshot; /* 1 + index of what the present run has reached */
  size_t kills, hits[NUM_ACTIVITIES], resumed, finished, leftovers;
};

static pid_t start(const struct hunt *hunt, const char *mode, const char *prefix) {
  const pid_t child = fork();
  if (child < 0) give_up("fork: %s", strerror(errno));
  if (child == 0) {
    execl("/proc/self/exe", "duallora_kill", mode, prefix, hunt->backbone, (char *)NULL);
    _exit(127);
  }
  return child;
}

/* Exits unless the child has ended well; returns whether it was killed. */
static int was_killed(pid_t child) {
  int outcome = 0;
  if (waitpid(child, &outcome, 0) != child) give_up("waitpid: %s", strerror(errno));
  if (WIFSIGNALED(outcome) && WTERMSIG(outcome) == SIGKILL) return 1;
  if (!WIFEXITED(outcome) || WEXITSTATUS(outcome) != 0) give_up("the program has failed: status %d", outcome);
  return 0;
}

static void collect_reference(struct hunt *hunt) {
  char path[PATH_SIZE + 32];
  if (was_killed(start(hunt, "undisturbed", hunt->reference))) give_up("the undisturbed run was killed");
  for (size_t t = 0; t < NUM_TASKS; t++) {
    snprintf(path, sizeof path, "%scheckpoint-%zu", hunt->reference, t);
    hunt->checkpoints[t] = read_file(path);
    if (!hunt->checkpoints[t].bytes) give_up("%s is missing", path);
  }
  for (; hunt->num_snapshots < MAX_SNAPSHOTS; hunt->num_snapshots++) {
    snprintf(path, sizeof path, "%ssnapshot-%zu", hunt->reference, hunt->num_snapshots);
    hunt->snapshots[hunt->num_snapshots] = read_file(path);
    if (!hunt->snapshots[hunt->num_snapshots].bytes) break;
  }
  if (hunt->num_snapshots < 3 * NUM_TASKS) give_up("the undisturbed run has taken %zu snapshots", hunt->num_snapshots);
}

/* The file must be one of the list, at `last` or beyond it, and load. Returns 1 + its index, 0 if there is none. */
static size_t check_file(const struct hunt *hunt, const char *path, const struct file *list, size_t count,
                         size_t last) {
  struct file file = read_file(path);
  if (!file.bytes) return 0;
  const size_t found = find_file(&file, list, count);
  if (found == count) give_up("after kill %zu, %s is none of the undisturbed run", hunt->kills, path);
  if (found + 1 < last) give_up("after kill %zu, %s has gone back from %zu to %zu", hunt->kills, path, last, found + 1);
  dlora_learner *learner = NULL;
  require(dlora_learner_load(&learner, hunt->model, path, NULL), path);
  dlora_learner_destroy(learner);
  free(file.bytes);
  return found + 1;
}

/* Also counts and removes what the killed process was writing. */
static void check_files(struct hunt *hunt) {
  const size_t reached = check_file(hunt, hunt->checkpoint, hunt->checkpoints, NUM_TASKS, hunt->last_checkpoint);
  if (reached < hunt->last_checkpoint) give_up("after kill %zu the checkpoint is gone", hunt->kills);
  hunt->last_checkpoint = reached;
  const size_t kept = check_file(hunt, hunt->kept, hunt->snapshots, hunt->num_snapshots, hunt->last_snapshot);
  if (kept) hunt->last_snapshot = kept;
  hunt->resumed += kept != 0;
  DIR *folder = opendir(hunt->folder);
  if (!folder) give_up("%s: %s", hunt->folder, strerror(errno));
  for (const struct dirent *entry; (entry = readdir(folder));) {
    char path[2 * PATH_SIZE];
    if (strncmp(entry->d_name, ".duallora-", 10) != 0) continue;
    snprintf(path, sizeof path, "%s/%s", hunt->folder, entry->d_name);
    if (unlink(path) == 0) hunt->leftovers++;
  }
  closedir(folder);
}

static void begin_anew(struct hunt *hunt) {
  const struct file end = read_file(hunt->checkpoint);
  if (!end.bytes || find_file(&end, hunt->checkpoints + NUM_TASKS - 1, 1) != 0) {
    give_up("after %zu kills the last checkpoint is not that of the undisturbed run", hunt->kills);
  }
  if (access(hunt->kept, F_OK) == 0) give_up("a run that is done has left its snapshot");
  free(end.bytes);
  (void)unlink(hunt->checkpoint);
  hunt->last_checkpoint = hunt->last_snapshot = 0;
  hunt->finished++;
}

static void pause_for(double seconds) {
  const struct timespec pause = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
  nanosleep(&pause, NULL);
}

static void wait_for_learning(pid_t child) {
  siginfo_t ended = {.si_pid = 0};
  while (*activity == STARTING && waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         !ended.si_pid) {
    pause_for(1e-3);
  }
}

static int has_hit_both(const struct hunt *hunt) {
  return hunt->hits[LEARNING] && hunt->hits[SAVING_SNAPSHOT] + hunt->hits[SAVING_CHECKPOINT];
}

static void hunt_down(struct hunt *hunt, size_t max_kills, double seconds, uint32_t seed) {
  const double before = now();
  collect_reference(hunt);
  const double started = now(), whole = started - before; /* of a run without kills */
  while (hunt->kills < max_kills && (now() - started < seconds || !has_hit_both(hunt))) {
    *activity = STARTING;
    const pid_t child = start(hunt, "victim", hunt->prefix);
    /* Most of them once it is learning: a small program spends much of its time with starting. */
    if (hunt->kills % 4) wait_for_learning(child);
    pause_for(0.2 * whole * (1.0 + (double)test_uniform(&seed)));
    kill(child, SIGKILL); /* no other process has its id before waitpid */
    if (!was_killed(child)) {
      begin_anew(hunt);
      continue;
    }
    hunt->kills++;
    hunt->hits[*activity % NUM_ACTIVITIES]++;
    check_files(hunt);
  }
  if (was_killed(start(hunt, "victim", hunt->prefix))) give_up("somebody else has killed the program");
  begin_anew(hunt);
  printf("%zu kills in %.0f s:", hunt->kills, now() - started);
  for (size_t i = 0; i < NUM_ACTIVITIES; i++) printf("%s %zu %s", i ? "," : "", hunt->hits[i], activity_names[i]);
  printf("\n%zu left a snapshot, %zu a temporary file; %zu runs of %d tasks came to their end\n", hunt->resumed,
         hunt->leftovers, hunt->finished, NUM_TASKS);
  printf("every checkpoint and snapshot loaded and was one of the undisturbed run's, byte for byte\n");
  if (!has_hit_both(hunt)) give_up("too few kills to hit both learning and saving");
}

int main(int argc, char **argv) {
  if (argc == 4 && (strcmp(argv[1], "victim") == 0 || strcmp(argv[1], "undisturbed") == 0)) {
    char path[PATH_SIZE];
    if (argv[1][0] == 'u') collect_to = argv[2];
    snprintf(path, sizeof path, "%sactivity", argv[2]);
    activity = map_activity(path);
    learn_rest(argv[2], argv[3]);
    return EXIT_SUCCESS;
  }
  size_t kills = 1000;
  double seconds = 1e9;
  unsigned long seed = 1;
  int kills_given = 0;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) give_up("usage: %s [--kills N] [--seconds S] [--seed R]", argv[0]);
    if (strcmp(argv[i], "--kills") == 0) {
      kills = strtoul(argv[i + 1], NULL, 10);
      kills_given = 1;
    } else if (strcmp(argv[i], "--seconds") == 0) {
      seconds = strtod(argv[i + 1], NULL);
      if (!kills_given) kills = SIZE_MAX;
    } else if (strcmp(argv[i], "--seed") == 0) {
      seed = strtoul(argv[i + 1], NULL, 10);
    } else {
      give_up("usage: %s [--kills N] [--seconds S] [--seed R]", argv[0]);
    }
  }
  struct hunt *hunt = calloc(1, sizeof *hunt);
  if (!hunt) give_up("no memory");
  snprintf(hunt->backbone, sizeof hunt->backbone, "%s", test_write_vit("backbone", 1));
  snprintf(hunt->prefix, sizeof hunt->prefix, "%s", test_temporary("victim-"));
  snprintf(hunt->reference, sizeof hunt->reference, "%s", test_temporary("undisturbed-"));
  snprintf(hunt->checkpoint, sizeof hunt->checkpoint, "%s", test_temporary("victim-checkpoint"));
  snprintf(hunt->kept, sizeof hunt->kept, "%s", test_temporary("victim-snapshot"));
  snprintf(hunt->folder, sizeof hunt->folder, "%s", hunt->prefix);
  *strrchr(hunt->folder, '/') = '\0';
  activity = map_activity(test_temporary("victim-activity"));
  require(dlora_model_load(&hunt->model, hunt->backbone, NULL), "backbone");
  hunt_down(hunt, kills, seconds, (uint32_t)seed);
  for (size_t i = 0; i < NUM_TASKS; i++) free(hunt->checkpoints[i].bytes);
  for (size_t i = 0; i < hunt->num_snapshots; i++) free(hunt->snapshots[i].bytes);
  dlora_model_destroy(hunt->model);
  free(hunt);
  return EXIT_SUCCESS;
}
