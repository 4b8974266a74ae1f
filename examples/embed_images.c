/* The Vision Transformer alone: pictures to feature vectors, to compare, cluster or search.
 *
 *     embed_images examples/backbones/vit_192x6_patch4_32.safetensors
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "duallora/duallora.h"

enum { SIDE = 48, PICTURE = SIDE * SIDE, PICTURES = 6 };

/* Gray pictures of any size will do: three of fine stripes, three of coarse ones. pixels [48, 48] */
static void take_picture(uint8_t *pixels, int width) {
  int phase = rand() % (2 * width);
  for (int i = 0; i < PICTURE; i++)
    pixels[i] = (uint8_t)((i % SIDE + phase) % (2 * width) < width ? 220 - rand() % 30 : 30 + rand() % 30);
}

static double cosine(const float *a, const float *b, size_t dim) {
  double ab = 0.0, aa = 0.0, bb = 0.0;
  for (size_t i = 0; i < dim; i++) {
    ab += (double)a[i] * (double)b[i];
    aa += (double)a[i] * (double)a[i];
    bb += (double)b[i] * (double)b[i];
  }
  return ab / sqrt(aa * bb);
}

int main(int argc, char **argv) {
  static uint8_t pixels[PICTURES][PICTURE];
  int code = EXIT_FAILURE;
  float *features = NULL; /* [PICTURES, embed_dim] */
  dlora_model *model = NULL;
  dlora_model_info info = {.struct_size = sizeof info};
  if (argc != 2) {
    fprintf(stderr, "usage: %s BACKBONE.safetensors\n", argv[0]);
    return EXIT_FAILURE;
  }
  if (dlora_model_load(&model, argv[1], NULL) || dlora_model_get_info(model, &info)) goto failed;
  printf("%zu blocks of width %zu, pictures become %zu x %zu pixels\n", info.depth, info.embed_dim, info.image_size,
         info.image_size);
  features = malloc(PICTURES * info.embed_dim * sizeof *features);
  if (features == NULL) {
    fprintf(stderr, "no memory for the features\n");
    goto done;
  }
  for (int i = 0; i < PICTURES; i++) take_picture(pixels[i], i < PICTURES / 2 ? 3 : 12);
  dlora_images images = {pixels[0], NULL, PICTURES, SIDE, SIDE, 1};
  if (dlora_model_embed(model, &images, features)) goto failed;
  printf("cosine of the features (0-2: fine stripes, 3-5: coarse stripes)\n");
  for (size_t i = 0; i < PICTURES; i++)
    for (size_t j = 0; j < PICTURES; j++)
      printf("%6.3f%s", cosine(features + i * info.embed_dim, features + j * info.embed_dim, info.embed_dim),
             j + 1 < PICTURES ? " " : "\n");
  code = EXIT_SUCCESS;
  goto done;
failed:
  fprintf(stderr, "%s\n", dlora_last_error());
done:
  free(features);
  dlora_model_destroy(model);
  return code;
}
