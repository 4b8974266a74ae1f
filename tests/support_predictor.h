/* Helpers of the predictor's tests: Gaussian classes, what a predictor answers, and its formulas in plain loops.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_SUPPORT_PREDICTOR_H
#define DUALLORA_TESTS_SUPPORT_PREDICTOR_H

#include "support.h"

enum { DIM = 12, CLASSES = 5 };

struct data {
  float *x;   /* [n, dim] */
  int64_t *y; /* [n] */
  size_t n;
  size_t dim;
};

struct data new_data(size_t n, size_t dim);
void free_data(struct data data);
/* n rows of classes first ... first + classes - 1 in random order. spread: distance of means in noise deviations; the
 * noise has a mixed covariance and the same far-off centre for all. */
struct data make_data(size_t n, size_t dim, int64_t first, size_t classes, float spread, uint32_t seed);
dlora_predictor *new_predictor(size_t dim, const dlora_predictor_options *options);
void observe(dlora_predictor *predictor, struct data data);
void learn(dlora_predictor *predictor, struct data data);
/* Learns tasks of CLASSES classes each from one call to the next. */
dlora_predictor *learnt(size_t tasks, const dlora_predictor_options *options);

/* What a predictor answers to one set of features. */
struct answer {
  size_t n, num, classes, tasks;
  float *components; /* log-probabilities */
  float *class_logs;
  float *task_probs;
  float *unknown;
  dlora_prediction *predictions;
};

struct answer ask(const dlora_predictor *predictor, const float *x, size_t n);
void free_answer(struct answer a);
void assert_same_answer(struct answer a, struct answer b);
/* Bitwise the same predictor, as far as answers tell. */
void assert_same(const dlora_predictor *a, const dlora_predictor *b);
/* Statistics of two predictors agree to 1e-6 relative to their largest value. */
void assert_same_statistics(const dlora_predictor *a, const dlora_predictor *b);
double accuracy(const dlora_predictor *predictor, struct data data);
/* Mean of -log p(true class). */
double surprise(const dlora_predictor *predictor, struct data data);
/* Solves a [n, n] x = b by Gaussian elimination with pivoting; both are destroyed, x is in b. */
void eliminate(double *a, double *b, size_t n);
/* What shrinkage adds to the diagonal of a covariance [n, n]: of each column the geometric mean of its own variance and
 * all columns' mean. METHOD.md 7 */
void plain_raise(const double *covariance, size_t n, double shrinkage, double *raised);
/* A second view [n, dim] of data, not far from the first. */
float *second_view(struct data data, uint32_t seed);

#endif
