"""Writes a vision tower and a projector as an mmproj GGUF file."""

import gguf

from container import add_tensor, close, open_writer

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]  # SigLIP's mean and deviation

EMBEDDINGS = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    "pre_layrnorm.weight": "v.pre_ln.weight",
    "pre_layrnorm.bias": "v.pre_ln.bias",
}
BLOCK = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
# The first converter named the two layers of the MLP the wrong way round; nearly all published files are like that.
SWAPPED = {**BLOCK, "mlp.fc1": "ffn_down", "mlp.fc2": "ffn_up"}


def write_mmproj(
    path,
    tower,
    projector,
    *,
    legacy=False,
    projector_type="mlp",
    blocks=None,
    post_norm=False,
    keys=lambda writer: None,
):
    """Writes `tower` (a CLIPVisionModel or SiglipVisionModel) and `projector` ({GGUF name: tensor}) to `path`.

    `legacy` selects the names and keys of the first converter, `projector_type` None leaves the key out,
    `blocks` is how many of the tower's blocks are stored (all but the last by default), and `keys` adds further keys.
    """
    config = tower.config
    clip = config.model_type == "clip_vision_model"
    blocks = config.num_hidden_layers - 1 if blocks is None else blocks
    writer = open_writer(path, "clip")
    writer.add_name("tiny random model")
    writer.add_bool("clip.has_vision_encoder", True)
    if legacy:
        writer.add_bool("clip.has_text_encoder", False)
        writer.add_bool("clip.has_llava_projector", True)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    else:
        writer.add_type("mmproj")
    if projector_type is not None:
        writer.add_string("clip.projector_type", projector_type)
    writer.add_bool("clip.use_gelu", not clip)
    writer.add_uint32("clip.vision.image_size", config.image_size)
    writer.add_uint32("clip.vision.patch_size", config.patch_size)
    writer.add_uint32("clip.vision.embedding_length", config.hidden_size)
    writer.add_uint32("clip.vision.feed_forward_length", config.intermediate_size)
    writer.add_uint32("clip.vision.block_count", blocks)
    writer.add_uint32("clip.vision.attention.head_count", config.num_attention_heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", config.layer_norm_eps)
    # CLIP's own embedding width, which no part of LLaVA uses.
    writer.add_uint32("clip.vision.projection_dim", 768 if clip else 0)
    writer.add_array("clip.vision.image_mean", CLIP_MEAN if clip else HALF)
    writer.add_array("clip.vision.image_std", CLIP_STD if clip else HALF)
    keys(writer)

    for name, tensor in projector.items():
        add_tensor(writer, name, tensor)
    parameters = dict(tower.vision_model.named_parameters())
    for name, stored in EMBEDDINGS.items():
        if name in parameters:
            add_tensor(writer, stored, parameters[name])
    for index, layer in enumerate(tower.vision_model.encoder.layers[:blocks]):
        for name, parameter in layer.named_parameters():
            part, kind = name.rsplit(".", 1)
            names = SWAPPED if legacy else BLOCK
            add_tensor(writer, f"v.blk.{index}.{names[part]}.{kind}", parameter)
    if post_norm:
        add_tensor(writer, "v.post_ln.weight", tower.vision_model.post_layernorm.weight)
        add_tensor(writer, "v.post_ln.bias", tower.vision_model.post_layernorm.bias)
    close(writer)


def numbered(sequence):
    """Tensors of an `nn.Sequential` projector under the names `mm.<index>.<weight|bias>`."""
    return {f"mm.{name}": parameter for name, parameter in sequence.named_parameters()}
