"""What an installed wheel must do with nothing else installed: python smoke.py MODEL IMAGE"""

import asyncio
import base64
import hashlib
import sys
from importlib.metadata import files, version

import llava


async def stream(model: llava.Model, image: str) -> str:
    async with model.session(max_tokens=5).astream(llava.DESCRIBE, image) as pieces:
        return "".join([piece async for piece in pieces])


def main() -> None:
    path, image = sys.argv[1:]
    assert llava.__version__ == version("llava"), llava.__version__
    packaged = [str(file.locate()) for file in files("llava") or [] if "libllava.so" in file.name]
    assert packaged == [llava.LIBRARY_PATH], (packaged, llava.LIBRARY_PATH)
    for file in files("llava") or []:
        if file.hash is not None:
            digest = hashlib.sha256(file.read_binary()).digest()
            assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file
    with llava.load(path) as model:
        answer = model.describe(image, max_tokens=5)
        assert answer.finish_reason is llava.FinishReason.LENGTH and len(answer.token_ids) == 5
        assert "".join(model.session(max_tokens=5).stream(llava.DESCRIBE, image)) == answer.text
        assert asyncio.run(stream(model, image)) == answer.text
        embedding = model.encode(image)
        assert len(embedding.tolist()) == embedding.tokens == answer.image_tokens
        assert model.logits([1, embedding]).shape == (1, model.info.vocab_size)
    try:
        llava.load("nowhere")
    except OSError as error:
        assert isinstance(error, llava.IoError), error
    assert not {"numpy", "PIL"} & set(sys.modules)
    print(f"llava {llava.__version__}, {model.info.kernels}: {llava.LIBRARY_PATH}")


main()
