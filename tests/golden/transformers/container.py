"""What all GGUF files of this folder share: how a tensor is typed and a file closed."""

import gguf
import numpy as np


def add_tensor(writer, name, tensor):
    """Adds a torch tensor: float16 when it has at least two dimensions and loses nothing by it, else float32."""
    exact = tensor.detach().numpy()
    half = exact.astype(np.float16)
    if exact.ndim > 1 and np.array_equal(half.astype(np.float64), exact):
        writer.add_tensor(name, half)
        return
    single = exact.astype(np.float32)
    assert np.array_equal(single.astype(np.float64), exact), f"{name} is not representable in float32"
    writer.add_tensor(name, single)


def open_writer(path, arch):
    path.parent.mkdir(parents=True, exist_ok=True)
    return gguf.GGUFWriter(str(path), arch)


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
