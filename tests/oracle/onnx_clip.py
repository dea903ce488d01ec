"""What an ONNX file of CLIP's tower computes: the oracle for towers that `llava convert` takes out of one.

  onnx_clip.py --model clip.int8.onnx --out DIR

Writes image.png, a picture of the tower's own size; features.npy, the hidden states [patches, width] after the last block, of
the file's own graph run by onnxruntime with each rounded product put back to one in single precision, of the same weights; and
rounded.npy, those of the file as it is, which rounds activations too.
"""

import argparse
import os

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from PIL import Image

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def picture(size):
    """Ramps with a few hard edges"""
    y, x = np.mgrid[0:size, 0:size]
    pixels = np.stack([x * 255 // size, y * 255 // size, 255 - (x + y) * 255 // (2 * size)], axis=-1).astype(np.uint8)
    pixels[size // 4 : size // 2, size // 3 : size // 2] = (250, 20, 60)
    pixels[size // 2 :: 9, ::4] = (10, 240, 130)
    return pixels


def single_precision(model):
    """The model with x·(q − zero)·scale in place of each rounded product"""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    rounded = {n.output[0]: n for n in model.graph.node if n.op_type == "DynamicQuantizeLinear"}
    nodes = []
    ends = {}  # the output of the product's last step -> (its input in single precision, its matrix)
    for node in model.graph.node:
        if node.op_type != "MatMulInteger":
            continue
        matrix = node.input[1].removesuffix("_quantized")
        name = matrix + "_single"
        levels = constants[node.input[1]].astype(np.float32) - constants[node.input[3]].astype(np.float32)
        value = (levels * constants[matrix + "_scale"]).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
        cast = next(n for n in model.graph.node if n.op_type == "Cast" and n.input[0] == node.output[0])
        last = next(n for n in model.graph.node if n.op_type == "Mul" and cast.output[0] in n.input)
        ends[last.output[0]] = (rounded[node.input[0]].input[0], name)
    for node in model.graph.node:
        if node.op_type == "Mul" and node.output[0] in ends:
            x, matrix = ends[node.output[0]]
            nodes.append(helper.make_node("MatMul", [x, matrix], [node.output[0]]))
        else:
            nodes.append(node)
    nodes = [n for n in nodes if n.op_type not in ("MatMulInteger", "DynamicQuantizeLinear")]
    # What only led to a rounded product has lost its inputs.
    known = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input} | {""}
    kept = []
    for node in nodes:
        if all(i in known for i in node.input):
            kept.append(node)
            known.update(node.output)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def hidden_states(model, values):
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    # The other output is the projected embedding of the whole picture.
    states = next(o.name for o in session.get_outputs() if o.name != "image_embeds")
    return session.run([states], {session.get_inputs()[0].name: values})[0][0, 1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="ONNX file")
    parser.add_argument("--out", required=True, help="folder to write into")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    model = onnx.load(args.model)
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    pixels = picture(size)
    Image.fromarray(pixels).save(os.path.join(args.out, "image.png"))
    values = ((pixels.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
    np.save(os.path.join(args.out, "rounded.npy"), hidden_states(model, values))
    np.save(os.path.join(args.out, "features.npy"), hidden_states(single_precision(model), values))


if __name__ == "__main__":
    main()
