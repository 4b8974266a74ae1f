/* What names tell about a Vision Transformer that shapes do not: of timm's architectures, grouped by what they have in
 * common, and of transformers' model types. Written by tests/backbones/make_known_models.py.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/settings.h"

/* clang-format off */
#define GELU DLORA_ACTIVATION_GELU
#define GELU_TANH DLORA_ACTIVATION_GELU_TANH
#define QUICK_GELU DLORA_ACTIVATION_QUICK_GELU
#define GATED DLORA_AUTO
#define CLASS DLORA_POOL_CLASS
#define MEAN_PATCHES DLORA_POOL_MEAN_PATCHES
#define MEAN_TOKENS DLORA_POOL_MEAN_TOKENS
#define DISTILLED DLORA_POOL_DISTILLED
#define ATTENTION DLORA_POOL_ATTENTION
#define SQUASH DLORA_RESIZE_SQUASH
#define CROP DLORA_RESIZE_CROP
#define BICUBIC DLORA_INTERPOLATION_BICUBIC
#define BILINEAR DLORA_INTERPOLATION_BILINEAR
/* mean and standard deviation */
#define IMAGENET {0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}
#define OPENAI {0.48145466f, 0.4578275f, 0.40821073f}, {0.26862954f, 0.26130258f, 0.27577711f}
#define HALF {0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}
#define NONE {0.0f, 0.0f, 0.0f}, {1.0f, 1.0f, 1.0f}

const char *const dli_known_versions = "of timm 1.0.31 and transformers 5.24.0";

const struct dli_known_architecture dli_known_architectures[] = {
  {104, 1e-05f, OPENAI, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_gigantic_patch14_clip_224 "},
  {104, 1e-05f, OPENAI, 1.0f, GELU, CLASS, SQUASH, BICUBIC,
    "vit_gigantic_patch14_clip_378 "},
  {104, 1e-05f, OPENAI, 1.0f, QUICK_GELU, CLASS, CROP, BICUBIC,
    "vit_gigantic_patch14_clip_quickgelu_224 "},
  {104, 1e-06f, HALF, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "vit_gigantic_patch14_224 "},
  {128, 1e-05f, IMAGENET, 1.0f, GATED, MEAN_PATCHES, CROP, BICUBIC,
    "vit_7b_patch16_dinov3 "},
  {128, 1e-05f, OPENAI, 1.0f, GATED, MEAN_PATCHES, CROP, BICUBIC,
    "aimv2_1b_patch14_224 aimv2_1b_patch14_336 aimv2_1b_patch14_448 aimv2_3b_patch14_224 aimv2_3b_patch14_336 "
    "aimv2_3b_patch14_448 aimv2_huge_patch14_224 aimv2_huge_patch14_336 aimv2_huge_patch14_448 "
    "aimv2_large_patch14_224 aimv2_large_patch14_336 aimv2_large_patch14_448 "},
  {32, 1e-06f, HALF, 0.95f, GELU, ATTENTION, CROP, BICUBIC,
    "test_vit3 "},
  {32, 1e-06f, HALF, 0.95f, GELU, CLASS, CROP, BICUBIC,
    "test_vit "},
  {32, 1e-06f, HALF, 0.95f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "test_vit2 "},
  {48, 1e-06f, HALF, 0.9f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "vit_base_patch16_gap_224 "},
  {64, 1e-05f, HALF, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_large_patch14_clip_224 "},
  {64, 1e-05f, HALF, 1.0f, GELU, CLASS, SQUASH, BICUBIC,
    "vit_large_patch14_clip_336 "},
  {64, 1e-05f, IMAGENET, 1.0f, GATED, CLASS, SQUASH, BILINEAR,
    "vit_giant_patch16_lingbot "},
  {64, 1e-05f, IMAGENET, 1.0f, GATED, MEAN_PATCHES, CROP, BICUBIC,
    "vit_huge_plus_patch16_dinov3 vit_huge_plus_patch16_dinov3_qkvb vit_small_plus_patch16_dinov3 "
    "vit_small_plus_patch16_dinov3_qkvb "},
  {64, 1e-05f, IMAGENET, 1.0f, GELU, CLASS, SQUASH, BILINEAR,
    "vit_base_patch16_lingbot vit_large_patch16_lingbot vit_small_patch16_lingbot "},
  {64, 1e-05f, IMAGENET, 1.0f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "beit3_base_patch16_224 beit3_large_patch16_224 vit_base_patch16_dinov3 vit_base_patch16_dinov3_qkvb "
    "vit_large_patch16_dinov3 vit_large_patch16_dinov3_qkvb vit_small_patch16_dinov3 "
    "vit_small_patch16_dinov3_qkvb vit_tiny_patch16_dinov3_qkvb "},
  {64, 1e-05f, OPENAI, 0.95f, GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch16_clip_224 "},
  {64, 1e-05f, OPENAI, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch32_clip_224 vit_betwixt_patch32_clip_224 vit_medium_patch16_clip_224 "
    "vit_medium_patch32_clip_224 vit_xsmall_patch16_clip_224 "},
  {64, 1e-05f, OPENAI, 0.9f, QUICK_GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch32_clip_quickgelu_224 "},
  {64, 1e-05f, OPENAI, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch16_plus_clip_240 vit_base_patch32_clip_256 vit_base_patch32_clip_384 vit_base_patch32_clip_448 "},
  {64, 1e-05f, OPENAI, 1.0f, GELU, CLASS, SQUASH, BICUBIC,
    "vit_base_patch16_clip_384 "},
  {64, 1e-05f, OPENAI, 1.0f, QUICK_GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch16_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_224 "
    "vit_large_patch14_clip_quickgelu_336 "},
  {64, 1e-06f, HALF, 0.95f, GELU, CLASS, CROP, BICUBIC,
    "flexivit_base flexivit_large flexivit_small vit_base_patch16_plus_240 vit_base_patch32_plus_256 "},
  {64, 1e-06f, HALF, 0.95f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "vit_betwixt_patch16_gap_256 vit_betwixt_patch16_reg1_gap_256 vit_betwixt_patch16_reg4_gap_256 "
    "vit_dlittle_patch16_reg1_gap_256 vit_dwee_patch16_reg1_gap_256 vit_little_patch16_reg1_gap_256 "
    "vit_little_patch16_reg4_gap_256 vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 "
    "vit_medium_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_256 "
    "vit_so150m_patch16_reg4_gap_256 vit_wee_patch16_reg1_gap_256 "},
  {64, 1e-06f, HALF, 0.95f, GELU, MEAN_PATCHES, SQUASH, BICUBIC,
    "vit_medium_patch16_gap_384 "},
  {64, 1e-06f, HALF, 0.9f, GELU, ATTENTION, CROP, BICUBIC,
    "vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384 "
    "vit_base_patch16_siglip_512 vit_large_patch16_siglip_256 vit_large_patch16_siglip_384 "
    "vit_so150m_patch16_reg4_map_256 "},
  {64, 1e-06f, HALF, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch16_224 vit_base_patch32_224 vit_base_patch8_224 vit_large_patch14_224 vit_large_patch16_224 "
    "vit_large_patch32_224 vit_small_patch16_224 vit_small_patch16_36x1_224 vit_small_patch32_224 "
    "vit_tiny_patch16_224 "},
  {64, 1e-06f, HALF, 0.9f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "beit_base_patch16_224 beit_large_patch16_224 vit_base_patch16_reg4_gap_256 vit_base_patch16_siglip_gap_224 "
    "vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384 vit_base_patch16_siglip_gap_512 "
    "vit_large_patch16_siglip_gap_256 vit_large_patch16_siglip_gap_384 "},
  {64, 1e-06f, HALF, 0.9f, GELU_TANH, ATTENTION, CROP, BICUBIC,
    "vit_base_patch32_siglip_256 vit_large_patch16_siglip_512 "},
  {64, 1e-06f, HALF, 0.9f, GELU_TANH, MEAN_PATCHES, CROP, BICUBIC,
    "vit_base_patch32_siglip_gap_256 vit_large_patch16_siglip_gap_512 "},
  {64, 1e-06f, HALF, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch16_384 vit_base_patch32_384 vit_large_patch16_384 vit_large_patch32_384 vit_small_patch16_384 "
    "vit_small_patch32_384 vit_tiny_patch16_384 "},
  {64, 1e-06f, HALF, 1.0f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "beit_base_patch16_384 beit_large_patch16_384 beit_large_patch16_512 vit_betwixt_patch16_reg4_gap_384 "
    "vit_mediumd_patch16_reg4_gap_384 vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384 "
    "vit_so150m_patch16_reg4_gap_384 "},
  {64, 1e-06f, HALF, 1.0f, GELU, MEAN_PATCHES, SQUASH, BICUBIC,
    "vit_so150m2_patch16_reg1_gap_448 "},
  {64, 1e-06f, IMAGENET, 0.95f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "beitv2_large_patch16_224 "},
  {64, 1e-06f, IMAGENET, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "deit3_base_patch16_224 deit3_large_patch16_224 deit3_medium_patch16_224 deit3_small_patch16_224 "
    "deit_base_patch16_224 deit_small_patch16_224 deit_tiny_patch16_224 vit_small_patch8_224 "},
  {64, 1e-06f, IMAGENET, 0.9f, GELU, DISTILLED, CROP, BICUBIC,
    "deit_base_distilled_patch16_224 deit_small_distilled_patch16_224 deit_tiny_distilled_patch16_224 "},
  {64, 1e-06f, IMAGENET, 0.9f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "beitv2_base_patch16_224 "},
  {64, 1e-06f, IMAGENET, 1.0f, GATED, CLASS, CROP, BICUBIC,
    "vit_giant_patch14_dinov2 vit_giant_patch14_reg4_dinov2 "},
  {64, 1e-06f, IMAGENET, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "deit3_base_patch16_384 deit3_large_patch16_384 deit3_small_patch16_384 deit_base_patch16_384 "
    "vit_base_patch14_dinov2 vit_base_patch14_reg4_dinov2 vit_intern300m_patch14_448 vit_large_patch14_dinov2 "
    "vit_large_patch14_reg4_dinov2 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 "},
  {64, 1e-06f, IMAGENET, 1.0f, GELU, DISTILLED, CROP, BICUBIC,
    "deit_base_distilled_patch16_384 "},
  {64, 1e-06f, NONE, 0.875f, GELU, CLASS, CROP, BILINEAR,
    "vit_base_patch16_224_miil "},
  {64, 1e-06f, NONE, 1.0f, GATED, CLASS, CROP, BICUBIC,
    "vit_giant_patch14_reg1_tipsv2 "},
  {64, 1e-06f, NONE, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2 "},
  {64, 1e-06f, OPENAI, 0.9f, GATED, CLASS, CROP, BICUBIC,
    "eva02_base_patch16_clip_224 eva02_large_patch14_clip_224 "},
  {64, 1e-06f, OPENAI, 0.9f, GATED, MEAN_PATCHES, CROP, BICUBIC,
    "eva02_base_patch14_224 eva02_large_patch14_224 eva02_small_patch14_224 eva02_tiny_patch14_224 "},
  {64, 1e-06f, OPENAI, 1.0f, GATED, CLASS, CROP, BICUBIC,
    "eva02_large_patch14_clip_336 "},
  {64, 1e-06f, OPENAI, 1.0f, GATED, MEAN_PATCHES, CROP, BICUBIC,
    "eva02_small_patch14_336 eva02_tiny_patch14_336 "},
  {64, 1e-06f, OPENAI, 1.0f, GATED, MEAN_PATCHES, SQUASH, BICUBIC,
    "eva02_base_patch14_448 eva02_large_patch14_448 "},
  {64, 1e-06f, OPENAI, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_base_patch16_radio_v3 vit_giant_patch16_radio_v3 vit_large_patch16_radio_v3 "},
  {64, 1e-06f, OPENAI, 1.0f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "eva_large_patch14_196 "},
  {64, 1e-06f, OPENAI, 1.0f, GELU, MEAN_PATCHES, SQUASH, BICUBIC,
    "eva_large_patch14_336 "},
  {72, 1e-06f, HALF, 0.9f, GELU, ATTENTION, CROP, BICUBIC,
    "vit_so400m_patch14_siglip_224 vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384 "},
  {72, 1e-06f, HALF, 0.9f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378 "},
  {72, 1e-06f, HALF, 0.9f, GELU_TANH, ATTENTION, CROP, BICUBIC,
    "vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512 "},
  {72, 1e-06f, HALF, 0.9f, GELU_TANH, MEAN_PATCHES, CROP, BICUBIC,
    "vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512 "},
  {72, 1e-06f, HALF, 1.0f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "vit_so400m_patch14_siglip_gap_384 vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896 "},
  {72, 1e-06f, NONE, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_so400m_patch14_reg1_tipsv2 "},
  {72, 1e-06f, OPENAI, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_so400m_patch16_radio_v4 "},
  {80, 1e-05f, OPENAI, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_huge_patch14_clip_224 vit_huge_patch14_clip_378 "},
  {80, 1e-05f, OPENAI, 1.0f, GELU, CLASS, SQUASH, BICUBIC,
    "vit_huge_patch14_clip_336 "},
  {80, 1e-05f, OPENAI, 1.0f, QUICK_GELU, CLASS, CROP, BICUBIC,
    "vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378 "},
  {80, 1e-06f, HALF, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "vit_huge_patch14_224 "},
  {80, 1e-06f, IMAGENET, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "deit3_huge_patch14_224 "},
  {80, 1e-06f, IMAGENET, 0.9f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "vit_huge_patch14_gap_224 "},
  {80, 1e-06f, IMAGENET, 1.0f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "vit_huge_patch16_gap_448 "},
  {80, 1e-06f, OPENAI, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_huge_patch16_radio_v3 vit_huge_patch16_radio_v4 "},
  {88, 1e-05f, IMAGENET, 1.0f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "beit3_giant_patch14_224 beit3_giant_patch14_336 "},
  {88, 1e-05f, OPENAI, 1.0f, GELU, CLASS, CROP, BICUBIC,
    "vit_giant_patch14_clip_224 "},
  {88, 1e-06f, HALF, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "vit_giant_patch14_224 "},
  {88, 1e-06f, IMAGENET, 0.9f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "vit_giant_patch16_gap_224 "},
  {88, 1e-06f, IMAGENET, 1.0f, GELU, MEAN_PATCHES, SQUASH, BICUBIC,
    "eva_giant_patch14_560 "},
  {88, 1e-06f, OPENAI, 0.9f, GELU, CLASS, CROP, BICUBIC,
    "eva_giant_patch14_clip_224 "},
  {88, 1e-06f, OPENAI, 0.9f, GELU, MEAN_PATCHES, CROP, BICUBIC,
    "eva_giant_patch14_224 "},
  {88, 1e-06f, OPENAI, 1.0f, GELU, MEAN_PATCHES, SQUASH, BICUBIC,
    "eva_giant_patch14_336 "},
  {96, 1e-06f, HALF, 0.9f, GELU_TANH, ATTENTION, CROP, BICUBIC,
    "vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384 "},
  {96, 1e-06f, HALF, 0.9f, GELU_TANH, MEAN_PATCHES, CROP, BICUBIC,
    "vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384 "},
};
const size_t dli_num_known_architectures = sizeof dli_known_architectures / sizeof *dli_known_architectures;

const struct dli_known_type dli_known_types[] = {
  {"vit", 12, 768, 12, 16, 1e-12f, GELU, CLASS, HALF},
  {"vit_mae", 12, 768, 12, 16, 1e-12f, GELU, CLASS, IMAGENET},
  {"vit_msn", 12, 768, 12, 16, 1e-06f, GELU, CLASS, IMAGENET},
  {"deit", 12, 768, 12, 16, 1e-12f, GELU, CLASS, IMAGENET},
  {"dinov2", 12, 768, 12, 14, 1e-06f, GELU, CLASS, IMAGENET},
  {"dinov2_with_registers", 12, 768, 12, 16, 1e-06f, GELU, CLASS, IMAGENET},
  {"dinov3_vit", 6, 384, 12, 16, 1e-05f, GELU, CLASS, IMAGENET},
  {"clip", 12, 768, 12, 32, 1e-05f, QUICK_GELU, CLASS, OPENAI},
  {"clip_vision_model", 12, 768, 12, 32, 1e-05f, QUICK_GELU, CLASS, OPENAI},
  {"siglip", 12, 768, 12, 16, 1e-06f, GELU_TANH, ATTENTION, HALF},
  {"siglip_vision_model", 12, 768, 12, 16, 1e-06f, GELU_TANH, ATTENTION, HALF},
  {"ijepa", 12, 768, 12, 16, 1e-12f, GELU, MEAN_TOKENS, IMAGENET},
  {"aimv2", 8, 1024, 24, 14, 1e-05f, GATED, MEAN_PATCHES, OPENAI},
  {"aimv2_vision_model", 8, 1024, 24, 14, 1e-05f, GATED, MEAN_PATCHES, OPENAI},
  {"beit", 12, 768, 12, 16, 1e-12f, GELU, MEAN_PATCHES, HALF},
};
const size_t dli_num_known_types = sizeof dli_known_types / sizeof *dli_known_types;
