"""Saves models as Hugging Face checkpoints, as transformers writes them, for `llava convert`.

    pip install -r ../transformers/requirements.txt sentencepiece==0.2.1 protobuf==6.33.0
    python make.py

Weights are those of ../transformers, seeded by their names, so what that folder expects of its models these must give too:
its lm.gguf and mmproj.gguf name by name, its tokens and logits. `siglip-qwen2` is a model of its own and brings its
expectations. Tokenizers are small: a SentencePiece one, as tokenizer.json and as tokenizer.model, and byte-level ones.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "transformers"))

import llava  # noqa: E402
import text  # noqa: E402
from lm import PIECES, VOCAB  # noqa: E402
from weights import matrices, randomize  # noqa: E402

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def save(name, model, **options):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.float32).save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def pieces():
    return ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]


def sentencepiece_json(folder):
    """LlamaTokenizerFast's tokenizer.json: BPE with byte fallback. The last token is what transformers puts images at."""
    tokens = pieces()
    tokens += [f"tok{i}" for i in range(len(tokens), VOCAB - 1)]
    merges = [("\u2581", "a"), ("\u2581", "t"), ("h", "e"), ("\u2581t", "he")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    special = [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>", "<image>")]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "tokenizer_class": "LlamaTokenizer", "chat_template": "{{ messages[0]['content'] }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def sentencepiece_model(folder):
    """The same vocabulary as SentencePiece's own file, scores and all; two tokens fewer than the embedding has rows."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    kinds = pb.ModelProto.SentencePiece.Type
    for i, piece in enumerate(pieces()):
        kind = {0: kinds.UNKNOWN, 1: kinds.CONTROL, 2: kinds.CONTROL}.get(i, kinds.BYTE if i < 259 else kinds.NORMAL)
        score = float(len(piece) - 10) if kind == kinds.NORMAL else 0.0
        proto.pieces.add(piece=piece, score=score, type=kind)
    proto.trainer_spec.model_type = pb.TrainerSpec.BPE
    proto.normalizer_spec.add_dummy_prefix = True
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    added = {"<image>": len(pieces())}
    (folder / "added_tokens.json").write_text(json.dumps(added) + "\n")
    settings = {"add_bos_token": True, "bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def byte_level(folder, pattern, special, bos, eos):
    """A byte-level BPE of the 256 bytes and a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("\u0120", "t"), ("h", "e"), ("\u0120t", "he"), ("i", "n"), ("\u0120", "a"), ("1", "2")]
    tokens = [*alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    if bos:
        ids = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=ids)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": bos, "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def llavas():
    kind = transformers.LlavaForConditionalGeneration
    model = randomize(kind(llava.configuration(transformers.LlavaConfig, tied=False, layers=3)), matrices)
    folder = save("llava", model)
    sentencepiece_json(folder)
    transformers.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=56).save_pretrained(folder)

    transposed = [[height, width] for width, height in llava.PINPOINTS]
    options = llava.configuration(transformers.LlavaNextConfig, tied=False, layers=3, image_grid_pinpoints=transposed)
    model = randomize(transformers.LlavaNextForConditionalGeneration(options), matrices)
    folder = save("llava-next", model, max_shard_size="200KB")
    sentencepiece_model(folder)
    processor = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size=56, image_grid_pinpoints=transposed
    )
    processor.save_pretrained(folder)

    vision = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, image_size=56, patch_size=14,
        vision_use_head=False,
    )
    decoder = transformers.Qwen2Config(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, rope_theta=1e6, pad_token_id=0,
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=decoder, image_token_index=VOCAB - 1, vision_feature_layer=-2,
        vision_feature_select_strategy="full", tie_word_embeddings=True,
    )
    model = randomize(kind(config), matrices)
    _, image = llava.picture("wide")
    processor = transformers.SiglipImageProcessor(size={"height": 56, "width": 56})
    values = processor(image, return_tensors="pt").pixel_values.double()
    with torch.no_grad():
        tokens = model.get_image_features(pixel_values=values)[0]
        place = llava.IDS.index(llava.PLACEHOLDER)
        ids = llava.IDS[:place] + [VOCAB - 1] * len(tokens) + llava.IDS[place + 1 :]
        logits = model(input_ids=torch.tensor([ids]), pixel_values=values).logits[0, -1]
    folder = save("siglip-qwen2", model)
    np.save(folder / "wide-tokens.npy", tokens.numpy().astype(np.float32))
    np.save(folder / "wide-logits.npy", logits.numpy().astype(np.float32))
    processor.save_pretrained(folder)
    byte_level(folder, QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>")


def decoders_alone():
    """The models of ../transformers/text.py, caught where that saves them as GGUF."""
    caught = {}

    def catch(name, proves, arch, model, scaling, half=lambda name, shape: False, runs=None):
        caught[name] = randomize(model, half)

    text.case = catch
    list(text.cases())
    for name in ("mistral", "llama3-rope", "phi3", "qwen2", "yarn-rope", "linear-rope"):
        folder = save(name, caught[name])
        if name == "llama3-rope":
            special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
            byte_level(folder, LLAMA3, special, "<|begin_of_text|>", "<|eot_id|>")
        elif name == "qwen2":
            byte_level(folder, QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>")
        else:
            sentencepiece_json(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    llavas()
    decoders_alone()
