"""llama.cpp's tokenizer, driven through ctypes. Needs `pip install xllamacpp==2026.10.11549 gguf==0.19.0`."""

import ctypes
import os

import gguf
import xllamacpp

_lib = ctypes.CDLL(os.path.join(os.path.dirname(xllamacpp.__file__), "xllamacpp.abi3.so"))
_silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, user: None)
_lib.llama_log_set(_silent, None)


class _ModelParams(ctypes.Structure):
    # Opaque but for one byte: `vocab_only` is at 72 in the pinned release.
    _fields_ = [("bytes", ctypes.c_uint8 * 160)]


_lib.llama_model_default_params.restype = _ModelParams
_lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _ModelParams]
_lib.llama_model_load_from_file.restype = ctypes.c_void_p
_lib.llama_model_free.argtypes = [ctypes.c_void_p]
_lib.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
_lib.llama_model_get_vocab.restype = ctypes.c_void_p
_lib.llama_vocab_n_tokens.argtypes = [ctypes.c_void_p]
_lib.llama_vocab_is_eog.argtypes = [ctypes.c_void_p, ctypes.c_int32]
_lib.llama_vocab_is_eog.restype = ctypes.c_bool
for _name in ("bos", "eos"):
    getattr(_lib, f"llama_vocab_{_name}").argtypes = [ctypes.c_void_p]
_lib.llama_vocab_get_add_bos.argtypes = [ctypes.c_void_p]
_lib.llama_vocab_get_add_bos.restype = ctypes.c_bool
_lib.llama_tokenize.argtypes = [
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32), ctypes.c_int32,
    ctypes.c_bool, ctypes.c_bool,
]
_lib.llama_token_to_piece.argtypes = [
    ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_bool,
]
_lib.llama_backend_init()


class Vocab:
    """The vocabulary of a GGUF file, as llama.cpp reads it."""

    def __init__(self, path):
        params = _lib.llama_model_default_params()
        params.bytes[72] = 1
        self._model = _lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ValueError(f"llama.cpp refuses {path}")
        self._vocab = _lib.llama_model_get_vocab(self._model)

    def close(self):
        _lib.llama_model_free(self._model)

    def __len__(self):
        return _lib.llama_vocab_n_tokens(self._vocab)

    def tokenize(self, text, parse_special):
        data = text.encode()
        out = (ctypes.c_int32 * (len(data) + 8))()
        n = _lib.llama_tokenize(self._vocab, data, len(data), out, len(out), False, parse_special)
        assert n >= 0
        return list(out[:n])

    def piece(self, token):
        """The token's bytes; empty for control tokens."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = _lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def facts(self):
        return {
            "bos": _lib.llama_vocab_bos(self._vocab),
            "eos": _lib.llama_vocab_eos(self._vocab),
            "add_bos": _lib.llama_vocab_get_add_bos(self._vocab),
            "stop": [t for t in range(len(self)) if _lib.llama_vocab_is_eog(self._vocab, t)],
        }


def copy_vocab(source, target, **changes):
    """Writes the metadata of `source`, without tensors; `pre=None` drops `tokenizer.ggml.pre`."""
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, arch)
    changes = {f"tokenizer.ggml.{k}": v for k, v in changes.items()}
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name.startswith("split."):
            continue
        value = changes.pop(name, field.contents())
        if value is None:
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub_type=sub)
    for name, value in changes.items():
        kind = gguf.GGUFValueType.BOOL if isinstance(value, bool) else gguf.GGUFValueType.STRING
        writer.add_key_value(name, value, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
