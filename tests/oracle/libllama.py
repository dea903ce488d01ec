"""llama.cpp's C API by ctypes, from the shared library inside the PyPI wheel `xllamacpp`.

The parameter structs travel by value and change between releases, so the wheel's version is pinned and the
defaults are checked against the layout below before anything else is called.
"""

import ctypes as c
import importlib.metadata
import importlib.util
import os

import numpy as np

VERSION = "2026.10.11549"
F32, F16 = 0, 1  # enum ggml_type
FLASH_AUTO, FLASH_OFF = -1, 0  # enum llama_flash_attn_type


class ModelParams(c.Structure):
    """struct llama_model_params"""

    _fields_ = [
        ("devices", c.c_void_p),
        ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32),
        ("split_mode", c.c_int32),
        ("load_mode", c.c_int32),
        ("lazy_mode", c.c_int32),
        ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p),
        ("progress_callback", c.c_void_p),
        ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool),
        ("check_tensors", c.c_bool),
        ("use_extra_bufts", c.c_bool),
        ("rest", c.c_uint8 * 61),
    ]


class ContextParams(c.Structure):
    """struct llama_context_params; what follows the cache types is left as llama.cpp fills it"""

    _fields_ = [
        *((name, c.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
        *((name, c.c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
        *((name, c.c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type")),
        *((name, c.c_int32) for name in ("pooling_type", "attention_type", "flash_attn_type")),
        *((name, c.c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor")),
        *((name, c.c_float) for name in ("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        ("cb_eval", c.c_void_p),
        ("cb_eval_user_data", c.c_void_p),
        ("type_k", c.c_int32),
        ("type_v", c.c_int32),
        ("rest", c.c_uint8 * 144),
    ]


class Batch(c.Structure):
    """struct llama_batch: the arrays have one element a token; a null pointer means the default"""

    _fields_ = [
        ("n_tokens", c.c_int32),
        *((name, c.c_void_p) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")),
    ]


def _load():
    found = importlib.metadata.version("xllamacpp")
    if found != VERSION:
        raise SystemExit(f"xllamacpp {VERSION} is needed (its struct layouts are), found {found}")
    # OpenMP's threads spin at every barrier unless told not to: five times slower on a machine with other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    folder = importlib.util.find_spec("xllamacpp").submodule_search_locations[0]
    lib = c.CDLL(os.path.join(folder, "xllamacpp.abi3.so"))
    ptr, i32, size = c.c_void_p, c.c_int32, c.c_size_t
    for name, result, arguments in [
        ("llama_log_set", None, [ptr, ptr]),
        ("llama_backend_init", None, []),
        ("llama_model_default_params", ModelParams, []),
        ("llama_context_default_params", ContextParams, []),
        ("llama_model_load_from_file", ptr, [c.c_char_p, ModelParams]),
        ("llama_model_free", None, [ptr]),
        ("llama_model_get_vocab", ptr, [ptr]),
        ("llama_vocab_n_tokens", i32, [ptr]),
        ("llama_vocab_is_eog", c.c_bool, [ptr, i32]),
        ("llama_tokenize", i32, [ptr, c.c_char_p, i32, ptr, i32, c.c_bool, c.c_bool]),
        ("llama_detokenize", i32, [ptr, ptr, i32, c.c_char_p, i32, c.c_bool, c.c_bool]),
        ("llama_init_from_model", ptr, [ptr, ContextParams]),
        ("llama_free", None, [ptr]),
        ("llama_n_ctx", c.c_uint32, [ptr]),
        ("llama_n_threads", i32, [ptr]),
        ("llama_decode", i32, [ptr, Batch]),
        ("llama_get_logits_ith", c.POINTER(c.c_float), [ptr, i32]),
        ("ggml_quantize_chunk", size, [i32, ptr, ptr, c.c_int64, c.c_int64, c.c_int64, ptr]),
        ("ggml_row_size", size, [i32, c.c_int64]),
    ]:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    model, context = lib.llama_model_default_params(), lib.llama_context_default_params()
    seen = (
        *(model.n_gpu_layers, model.split_mode, model.load_mode, model.vocab_only, model.use_extra_bufts),
        *(context.n_ctx, context.n_batch, context.n_threads, context.flash_attn_type, context.type_k, context.type_v),
    )
    if seen != (-1, 1, -1, False, True, 512, 2048, 4, FLASH_AUTO, F16, F16):
        raise SystemExit(f"llama.cpp's parameter structs are not laid out as expected: defaults read as {seen}")
    lib.llama_log_set(_SILENT, None)
    lib.llama_backend_init()
    return lib


_SILENT = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda level, text, user: None)
LIB = _load()


def quantize(values, ggml_type):
    """float32 [rows, n] -> uint8 [rows, bytes of a row], by llama.cpp's own quantiser without an importance matrix"""
    values = np.ascontiguousarray(values, np.float32)
    rows, n = values.shape
    out = np.empty((rows, LIB.ggml_row_size(ggml_type, n)), np.uint8)
    written = LIB.ggml_quantize_chunk(ggml_type, values.ctypes.data, out.ctypes.data, 0, rows, n, None)
    if written != out.nbytes:
        raise SystemExit(f"ggml_quantize_chunk wrote {written} bytes of type {ggml_type}, not {out.nbytes}")
    return out


class Model:
    """A GGUF text model. `repack=False` keeps llama.cpp from re-ordering the weights for its wide kernels."""

    def __init__(self, path, repack=True):
        params = LIB.llama_model_default_params()
        params.use_extra_bufts = repack
        self.handle = LIB.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise SystemExit(f"llama.cpp could not load {path}")
        self.vocab = LIB.llama_model_get_vocab(self.handle)
        self.n_vocab = LIB.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text):
        """Token ids of a prompt, with BOS where the model wants it and special tokens recognised"""
        data = text.encode()
        ids = np.empty(len(data) + 8, np.int32)
        n = LIB.llama_tokenize(self.vocab, data, len(data), ids.ctypes.data, len(ids), True, True)
        return ids[:n].tolist()

    def detokenize(self, ids):
        """Text of token ids, special tokens left out; an unfinished character becomes U+FFFD"""
        ids = np.asarray(ids, np.int32)
        text = c.create_string_buffer(64 * len(ids) + 64)
        n = LIB.llama_detokenize(self.vocab, ids.ctypes.data, len(ids), text, len(text), False, False)
        return text.raw[: max(n, 0)].decode(errors="replace")

    def is_end(self, token):
        """Whether a token ends generation"""
        return LIB.llama_vocab_is_eog(self.vocab, token)

    def close(self):
        LIB.llama_model_free(self.handle)


class Context:
    """A KV cache and its position. Two threads and llama.cpp's defaults, unless `kv` asks for another cache:
    "f16" is the default (flash attention, which also accumulates the values in f16), "f32" is a f32 cache with
    plain attention, llama.cpp's most exact."""

    def __init__(self, model, n_ctx, kv="f16", threads=2):
        params = LIB.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_threads = params.n_threads_batch = threads
        if kv == "f32":
            params.type_k = params.type_v = F32
            params.flash_attn_type = FLASH_OFF
        self.model = model
        self.handle = LIB.llama_init_from_model(model.handle, params)
        if not self.handle or LIB.llama_n_ctx(self.handle) < n_ctx or LIB.llama_n_threads(self.handle) != threads:
            raise SystemExit("llama.cpp could not make the context that was asked for")

    def decode(self, ids, every=False):
        """Appends token ids and returns float32 logits: [len(ids), vocabulary], or [1, vocabulary] of the last one"""
        ids = np.asarray(ids, np.int32)
        wanted = np.zeros(len(ids), np.int8)
        wanted[0 if every else -1 :] = 1
        batch = Batch(n_tokens=len(ids), token=ids.ctypes.data, logits=wanted.ctypes.data)
        status = LIB.llama_decode(self.handle, batch)
        if status != 0:
            raise SystemExit(f"llama_decode failed with status {status} on {len(ids)} tokens")
        shape = (self.model.n_vocab,)
        rows = [np.ctypeslib.as_array(LIB.llama_get_logits_ith(self.handle, i), shape) for i in np.flatnonzero(wanted)]
        return np.stack(rows)

    def close(self):
        LIB.llama_free(self.handle)
