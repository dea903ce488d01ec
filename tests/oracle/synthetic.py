"""Random llama models, one for each quantization type, and a mixture like Q4_K_M.

Every matrix of a model has the model's type, so a test knows which kernel it exercised. Blocks are made by
llama.cpp's own quantisers. Weights are wide enough (standard deviation 0.08 over 256 inputs) that attention is far
from uniform: a wrong rotation, mask or head grouping changes the logits beyond any tolerance.
"""

import zlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from libllama import quantize

HIDDEN, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, CONTEXT = 256, 3, 4, 2, 512, 512
HEAD = HIDDEN // HEADS
TYPES = [
    *(Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0),
    *(Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL),
]
MIXTURE = "q4_k_m"
NAMES = [t.name.lower() for t in TYPES] + [MIXTURE]


def shapes(n_vocab):
    """Tensor name -> shape [rows, columns], or [n] for a norm"""
    kv = KV_HEADS * HEAD
    block = {
        "attn_norm": (HIDDEN,),
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (kv, HIDDEN),
        "attn_v": (kv, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_norm": (HIDDEN,),
        "ffn_gate": (FEED_FORWARD, HIDDEN),
        "ffn_up": (FEED_FORWARD, HIDDEN),
        "ffn_down": (HIDDEN, FEED_FORWARD),
    }
    out = {"token_embd.weight": (n_vocab, HIDDEN)}
    for i in range(LAYERS):
        out |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    return out | {"output_norm.weight": (HIDDEN,), "output.weight": (n_vocab, HIDDEN)}


def type_of(model, tensor):
    """The type a model gives a matrix; the mixture has Q6_K where Q4_K_M spends its bits, so that matrices that are
    often fused (q, k, v) differ within a layer"""
    if model != MIXTURE:
        return Type[model.upper()]
    wide = tensor == "output.weight" or ("attn_v" in tensor or "ffn_down" in tensor) and "blk.1." not in tensor
    return Type.Q6_K if wide else Type.Q4_K


def values(name, shape):
    """float32 values of a tensor, the same for every model: norms around one, matrices around zero"""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    mean, deviation = (1.0, 0.05) if len(shape) == 1 else (0.0, 0.08)
    return rng.standard_normal(shape, np.float32) * np.float32(deviation) + np.float32(mean)


def write(path, model, vocabulary):
    """Writes the model named `model` (see NAMES) with the tokenizer of the GGUF file `vocabulary`"""
    tokenizer = gguf.GGUFReader(vocabulary).fields
    get = lambda key: tokenizer["tokenizer.ggml." + key].contents()
    if get("model") != "llama":
        raise SystemExit(f"{vocabulary} has a {get('model')} tokenizer; a SentencePiece one (llama) is needed")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random {model}")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(len(get("tokens")))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(get("tokens"))
    writer.add_token_scores(get("scores"))
    writer.add_token_types(get("token_type"))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    for name, shape in shapes(len(get("tokens"))).items():
        data = values(name, shape)
        if len(shape) == 2:
            kind = type_of(model, name)
            writer.add_tensor(name, quantize(data, kind.value), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
