"""Decoders without pictures: logits at every position of a fixed sequence."""

import math

import gguf
import numpy as np
import torch
import transformers

from container import add_tensor
from lm import VOCAB, write_lm
from manifest import ROOT, save
from weights import matrices, randomize

IDS = [1] + np.random.default_rng(36).integers(3, VOCAB, 35).tolist()
COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)


def llama3_factors(config):
    """Divisors of the RoPE frequencies, [head_dim / 2], as llama.cpp's converter stores them."""
    scaling = config.rope_scaling
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    divisors = []
    for pair in range(config.head_dim // 2):
        wavelength = 2 * math.pi * config.rope_theta ** (2 * pair / config.head_dim)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(scaling["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def llama3(config, writer):
    writer.add_tensor("rope_freqs.weight", llama3_factors(config))


def linear(config, writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(config.rope_scaling["factor"])


def yarn(config, writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(config.rope_scaling["factor"])
    writer.add_rope_scaling_orig_ctx_len(config.rope_scaling["original_max_position_embeddings"])


def longrope(config, writer):
    original = config.original_max_position_embeddings
    factor = config.max_position_embeddings / original
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(factor) / math.log(original)))
    # Zero means none to llama.cpp, which takes an absent key for Phi-3's window.
    writer.add_sliding_window(0)
    for length in ("long", "short"):
        factors = torch.tensor(config.rope_scaling[f"{length}_factor"], dtype=torch.float32).double()
        add_tensor(writer, f"rope_factors_{length}.weight", factors)


def plain(config, writer):
    pass


def logits(model, ids):
    """[len(ids), vocab]"""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def case(name, proves, arch, model, scaling, half=lambda name, shape: False, runs=((len(IDS), {}),)):
    """Writes one decoder; each of `runs` is a length, and what the manifest says besides about the run."""
    randomize(model, half)
    head = None if model.config.tie_word_embeddings else model.lm_head
    write_lm(ROOT / name / "lm.gguf", arch, model.model, head, lambda writer: scaling(model.config, writer))
    return {
        "name": name,
        "kind": "text",
        "proves": proves,
        "lm": f"{name}/lm.gguf",
        "runs": [
            {"ids": IDS[:length], **notes, "logits": save(f"{name}/logits-{length}.npy", logits(model, IDS[:length]))}
            for length, notes in runs
        ],
    }


def cases():
    llama = dict(COMMON, head_dim=16, rms_norm_eps=1e-5)
    scaled = {
        "llama3-rope": (
            "RoPE divisors of Llama 3.1",
            llama3,
            dict(
                rope_theta=500000.0,
                max_position_embeddings=2048,
                rope_scaling=dict(
                    rope_type="llama3",
                    factor=8.0,
                    low_freq_factor=1.0,
                    high_freq_factor=4.0,
                    original_max_position_embeddings=256,
                ),
            ),
        ),
        "linear-rope": (
            "linearly scaled positions",
            linear,
            dict(max_position_embeddings=1024, rope_scaling=dict(rope_type="linear", factor=4.0)),
        ),
        "yarn-rope": (
            "YaRN: blended frequencies, and cosine and sine times 0.1 ln(factor) + 1",
            yarn,
            dict(
                max_position_embeddings=1024,
                rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=256),
            ),
        ),
    }
    for name, (proves, scaling, options) in scaled.items():
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama, **options))
        yield case(name, proves, "llama", model, scaling, matrices)

    heads = dict(num_attention_heads=4, num_key_value_heads=2)
    config = transformers.MistralConfig(
        **{**COMMON, **heads},
        head_dim=16,
        rope_theta=1e6,
        rms_norm_eps=1e-5,
        max_position_embeddings=512,
        sliding_window=None,
    )
    proves = "interleaved RoPE at base 1e6, grouped heads, and heads wider than the model divided by their number"
    yield case("mistral", proves, "llama", transformers.MistralForCausalLM(config), plain)

    config = transformers.Qwen2Config(
        **{**COMMON, **heads}, rope_theta=1e6, rms_norm_eps=1e-6, max_position_embeddings=512
    )
    proves = "biases on q, k and v, half-split RoPE"
    yield case("qwen2", proves, "qwen2", transformers.Qwen2ForCausalLM(config), plain)

    config = transformers.Phi3Config(
        **COMMON,
        rms_norm_eps=1e-5,
        max_position_embeddings=128,
        original_max_position_embeddings=24,
        rope_scaling=dict(
            type="longrope",
            short_factor=[1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0],
            long_factor=[1.0, 1.2, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0],
        ),
    )
    proves = "fused projections, half-split RoPE, LongRoPE: short factors up to the original context, long ones beyond"
    runs = ((24, {"rope_factors": "short"}), (36, {"rope_factors": "long"}))
    yield case("phi3", proves, "phi3", transformers.Phi3ForCausalLM(config), longrope, runs=runs)
