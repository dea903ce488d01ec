"""Writes a decoder of transformers as the GGUF file that llama.cpp's converter would make of it."""

import gguf

from container import add_tensor, close, open_writer

VOCAB = 280  # <unk> <s> </s>, 256 bytes, 9 pieces, 12 fillers
PIECES = ["\u2581", "a", "t", "h", "e", "\u2581a", "\u2581t", "he", "\u2581the"]


def add_vocabulary(writer):
    """A SentencePiece-style vocabulary of `VOCAB` tokens: special tokens, bytes, a few pieces with scores."""
    kind = gguf.TokenType
    tokens = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    # Longer pieces score higher, so that "\u2581the" is reached through "\u2581t" and "he".
    tokens += [(piece, float(len(piece) - 10), kind.NORMAL) for piece in PIECES]
    tokens += [(f"tok{index}", -1000.0, kind.NORMAL) for index in range(len(tokens), VOCAB)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([int(type_) for _, _, type_ in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def interleave(weight, heads):
    """Rows of a q or k projection as llama files have them: i and i + d/2 of a head become 2i and 2i + 1."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.transpose(1, 2).reshape(weight.shape)


LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def add_tensors(writer, arch, decoder, lm_head):
    """All weights of `decoder` (a LlamaModel or its like); `lm_head` is None where the embedding serves as output."""
    config = decoder.config
    add_tensor(writer, "token_embd.weight", decoder.embed_tokens.weight)
    for index, layer in enumerate(decoder.layers):
        for name, parameter in layer.named_parameters():
            part, kind = name.rsplit(".", 1)
            if arch == "llama" and part.endswith(("q_proj", "k_proj")):
                heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
                parameter = interleave(parameter, heads)
            add_tensor(writer, f"blk.{index}.{LAYER[part]}.{kind}", parameter)
    add_tensor(writer, "output_norm.weight", decoder.norm.weight)
    if lm_head is not None:
        add_tensor(writer, "output.weight", lm_head.weight)


def write_lm(path, arch, decoder, lm_head, scaling=lambda writer: None):
    """Writes `path`; `scaling` adds the keys and tensors of the model's RoPE scaling."""
    config = decoder.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = open_writer(path, arch)
    writer.add_name("tiny random model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(head_dim)
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    add_vocabulary(writer)
    scaling(writer)
    add_tensors(writer, arch, decoder, lm_head)
    close(writer)
