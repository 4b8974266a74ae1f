/* The table of families: timm's names, those of Hugging Face, and the names that transformers 5 gives the same modules
 * in memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/families.h"

#include "duallora/duallora.h"

/* What blocks of timm's vision_transformer.py and eva.py have in common. */
#define TIMM_NAMES \
  .anchor = "patch_embed.proj.weight", .patch_bias = "patch_embed.proj.bias", .class_token = "cls_token", \
  .registers = "reg_token|register_tokens", .norm = "norm", .norm1 = "blocks.%zu.norm1", .norm2 = "blocks.%zu.norm2", \
  .qkv = "blocks.%zu.attn.qkv", .query_bias = "blocks.%zu.attn.q_bias", .value_bias = "blocks.%zu.attn.v_bias", \
  .output = "blocks.%zu.attn.proj", .fc1 = "blocks.%zu.mlp.fc1|blocks.%zu.mlp.w12", .gate = "blocks.%zu.mlp.fc1_g", \
  .up = "blocks.%zu.mlp.fc1_x", .fc2 = "blocks.%zu.mlp.fc2|blocks.%zu.mlp.w3", \
  .pool = {.norm_behind = "fc_norm", \
           .probe = "attn_pool.latent", \
           .query = "attn_pool.q", \
           .kv = "attn_pool.kv", \
           .output = "attn_pool.proj", \
           .norm = "attn_pool.norm", \
           .fc1 = "attn_pool.mlp.fc1", \
           .fc2 = "attn_pool.mlp.fc2"}

/* Hugging Face's ViT, DeiT, DINOv2: outside the blocks. */
#define HUGGING_FACE_NAMES \
  .anchor = "embeddings.patch_embeddings.projection.weight", \
  .patch_bias = "embeddings.patch_embeddings.projection.bias", .class_token = "embeddings.cls_token", \
  .positions = "embeddings.position_embeddings", .norm = "layernorm"

/* CLIP and what was made from it. */
#define CLIP_NAMES \
  .anchor = "embeddings.patch_embedding.weight", .patch_bias = "embeddings.patch_embedding.bias", \
  .positions = "embeddings.position_embedding.weight", .norm = "post_layernorm", \
  .norm1 = "encoder.layers.%zu.layer_norm1", .norm2 = "encoder.layers.%zu.layer_norm2", \
  .query = "encoder.layers.%zu.self_attn.q_proj", .key = "encoder.layers.%zu.self_attn.k_proj", \
  .value = "encoder.layers.%zu.self_attn.v_proj", .output = "encoder.layers.%zu.self_attn.out_proj", \
  .fc1 = "encoder.layers.%zu.mlp.fc1", .fc2 = "encoder.layers.%zu.mlp.fc2"

/* A block's tensor in DINOv3, in a file and in the memory of transformers 5. */
#define DINOV3(name) "layer.%zu." name "|model.layer.%zu." name
#define DINOV2(name) "encoder.layer.%zu." name
#define VIT(name) "encoder.layer.%zu." name
#define AIMV2(name) "encoder.layers.%zu." name
#define VIT5(name) "layers.%zu." name

const struct dli_vit_family dli_vit_families[] = {
    /* DINOv3 of timm. Other rotary networks there have a class token or register tokens, but not both. */
    {.id = DLORA_NAMING_TIMM,
     .has = {"blocks.%zu.gamma_1", "cls_token", "reg_token"},
     .lacks = "pos_embed",
     .layer_norm_eps = 1e-5f,
     .rotary = DLI_ROTARY_DINOV3,
     .image_size = 224,
     .names = {TIMM_NAMES, .scale1 = "blocks.%zu.gamma_1", .scale2 = "blocks.%zu.gamma_2"}},
    /* AIMv2 of timm */
    {.id = DLORA_NAMING_TIMM,
     .has = {"patch_embed.norm.weight", "blocks.%zu.mlp.fc1_g.weight"},
     .lacks = "norm.bias",
     .rms_norm = true,
     .layer_norm_eps = 1e-5f,
     .names = {TIMM_NAMES, .patch_norm = "patch_embed.norm", .positions = "pos_embed"}},
    /* EVA-02 of timm, base and large; tiny and small have other tensors */
    {.id = DLORA_NAMING_TIMM,
     .has = {"blocks.%zu.attn.q_proj.weight", "blocks.%zu.mlp.fc1_g.weight", "blocks.%zu.mlp.norm.weight"},
     .layer_norm_eps = 1e-6f,
     .rotary = DLI_ROTARY_EVA,
     .names = {TIMM_NAMES, .positions = "pos_embed", .query = "blocks.%zu.attn.q_proj", .key = "blocks.%zu.attn.k_proj",
               .value = "blocks.%zu.attn.v_proj", .inner_norm1 = "blocks.%zu.attn.norm",
               .inner_norm2 = "blocks.%zu.mlp.norm"}},
    /* BEiT-3 of timm */
    {.id = DLORA_NAMING_TIMM,
     .has = {"blocks.%zu.attn.qkv.bias", "blocks.%zu.attn.norm.weight", "blocks.%zu.mlp.norm.weight"},
     .layer_norm_eps = 1e-5f,
     .names = {TIMM_NAMES, .positions = "pos_embed", .inner_norm1 = "blocks.%zu.attn.norm",
               .inner_norm2 = "blocks.%zu.mlp.norm"}},
    /* CLIP of timm */
    {.id = DLORA_NAMING_TIMM,
     .has = {"norm_pre.weight"},
     .layer_norm_eps = 1e-5f,
     .names = {TIMM_NAMES, .positions = "pos_embed", .pre_norm = "norm_pre"}},
    {.id = DLORA_NAMING_TIMM,
     .layer_norm_eps = 1e-6f,
     .names = {TIMM_NAMES, .distillation_token = "dist_token", .positions = "pos_embed",
               .scale1 = "blocks.%zu.ls1.gamma", .scale2 = "blocks.%zu.ls2.gamma"}},
    {.id = DLORA_NAMING_HF_DINOV2,
     .has = {DINOV2("norm1.weight")},
     .layer_norm_eps = 1e-6f,
     .names = {HUGGING_FACE_NAMES, .registers = "embeddings.register_tokens", .norm1 = DINOV2("norm1"),
               .norm2 = DINOV2("norm2"), .query = DINOV2("attention.attention.query|") DINOV2("attention.q_proj"),
               .key = DINOV2("attention.attention.key|") DINOV2("attention.k_proj"),
               .value = DINOV2("attention.attention.value|") DINOV2("attention.v_proj"),
               .output = DINOV2("attention.output.dense|") DINOV2("attention.o_proj"),
               .fc1 = DINOV2("mlp.fc1|") DINOV2("mlp.weights_in"), .gate = DINOV2("mlp.gate_proj"),
               .up = DINOV2("mlp.up_proj"),
               .fc2 = DINOV2("mlp.fc2|") DINOV2("mlp.weights_out|") DINOV2("mlp.down_proj"),
               .scale1 = DINOV2("layer_scale1.lambda1"), .scale2 = DINOV2("layer_scale2.lambda1")}},
    {.id = DLORA_NAMING_HF_VIT,
     .has = {VIT5("layernorm_before.weight")},
     .layer_norm_eps = 1e-6f,
     .names = {HUGGING_FACE_NAMES, .distillation_token = "embeddings.distillation_token",
               .norm1 = VIT5("layernorm_before"), .norm2 = VIT5("layernorm_after"), .query = VIT5("attention.q_proj"),
               .key = VIT5("attention.k_proj"), .value = VIT5("attention.v_proj"), .output = VIT5("attention.o_proj"),
               .fc1 = VIT5("mlp.fc1"), .fc2 = VIT5("mlp.fc2")}},
    {.id = DLORA_NAMING_HF_VIT,
     .layer_norm_eps = 1e-6f,
     .names = {HUGGING_FACE_NAMES, .distillation_token = "embeddings.distillation_token",
               .norm1 = VIT("layernorm_before"), .norm2 = VIT("layernorm_after"),
               .query = VIT("attention.attention.query"), .key = VIT("attention.attention.key"),
               .value = VIT("attention.attention.value"), .output = VIT("attention.output.dense"),
               .fc1 = VIT("intermediate.dense"), .fc2 = VIT("output.dense")}},
    {.id = DLORA_NAMING_HF_SIGLIP,
     .lacks = "embeddings.class_embedding",
     .flat_tokens = true,
     .activation = DLORA_ACTIVATION_GELU_TANH,
     .layer_norm_eps = 1e-6f,
     .names = {CLIP_NAMES, .pool = {.probe = "head.probe",
                                    .qkv_weight = "head.attention.in_proj_weight",
                                    .qkv_bias = "head.attention.in_proj_bias",
                                    .output = "head.attention.out_proj",
                                    .norm = "head.layernorm",
                                    .fc1 = "head.mlp.fc1",
                                    .fc2 = "head.mlp.fc2"}}},
    {.id = DLORA_NAMING_HF_CLIP,
     .flat_tokens = true,
     .activation = DLORA_ACTIVATION_QUICK_GELU,
     .layer_norm_eps = 1e-5f,
     .names = {CLIP_NAMES, .class_token = "embeddings.class_embedding", .pre_norm = "pre_layrnorm"}},
    {.id = DLORA_NAMING_HF_DINOV3,
     .layer_norm_eps = 1e-5f,
     .rotary = DLI_ROTARY_DINOV3,
     .image_size = 224,
     .names = {.anchor = "embeddings.patch_embeddings.weight",
               .patch_bias = "embeddings.patch_embeddings.bias",
               .class_token = "embeddings.cls_token",
               .registers = "embeddings.register_tokens",
               .norm = "norm",
               .norm1 = DINOV3("norm1"),
               .norm2 = DINOV3("norm2"),
               .query = DINOV3("attention.q_proj"),
               .key = DINOV3("attention.k_proj"),
               .value = DINOV3("attention.v_proj"),
               .output = DINOV3("attention.o_proj"),
               .scale1 = DINOV3("layer_scale1.lambda1"),
               .fc1 = DINOV3("mlp.up_proj"),
               .gate = DINOV3("mlp.gate_proj"),
               .up = DINOV3("mlp.up_proj"),
               .fc2 = DINOV3("mlp.down_proj"),
               .scale2 = DINOV3("layer_scale2.lambda1")}},
    {.id = DLORA_NAMING_HF_AIMV2,
     .flat_tokens = true,
     .rms_norm = true,
     .layer_norm_eps = 1e-5f,
     .names = {.anchor = "embeddings.patch_embed.weight",
               .patch_bias = "embeddings.patch_embed.bias",
               .patch_norm = "embeddings.rms_norm",
               .positions = "embeddings.position_embedding.weight",
               .norm = "rms_norm",
               .norm1 = AIMV2("rms_norm1"),
               .norm2 = AIMV2("rms_norm2"),
               .query = AIMV2("attention.q_proj"),
               .key = AIMV2("attention.k_proj"),
               .value = AIMV2("attention.v_proj"),
               .output = AIMV2("attention.out_proj"),
               .fc1 = AIMV2("ffn.up_proj"),
               .gate = AIMV2("ffn.gate_proj"),
               .up = AIMV2("ffn.up_proj"),
               .fc2 = AIMV2("ffn.down_proj")}},
};
const size_t dli_vit_num_families = sizeof dli_vit_families / sizeof *dli_vit_families;
