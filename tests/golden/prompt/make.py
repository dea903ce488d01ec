"""Writes styles.json: prompts by the original code.

    python make.py LLAVA LLAVA_NEXT > styles.json

The arguments are two files: llava/conversation.py of haotian-liu/LLaVA (c121f04) and of LLaVA-VL/LLaVA-NeXT (df17966).
Both are run as they are, but for the imports of PIL and transformers, which rendering does not use.
"""

import json
import sys
import types

for name in ("PIL", "PIL.Image", "transformers"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["PIL"].Image = None
sys.modules["transformers"].AutoTokenizer = None


class Llama3:
    """apply_chat_template with the template of Meta-Llama-3-8B-Instruct's tokenizer_config.json, without BOS."""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        header = "<|start_header_id|>{}<|end_header_id|>\n\n"
        turns = (header.format(m["role"]) + m["content"].strip() + "<|eot_id|>" for m in messages)
        return "".join(turns) + header.format("assistant")


def load(path):
    module = types.ModuleType("conversation")
    sys.modules["conversation"] = module
    exec(compile(open(path).read(), path, "exec"), module.__dict__)
    return module.conv_templates


ORIGINAL, NEXT = load(sys.argv[1]), load(sys.argv[2])
STYLES = [
    (ORIGINAL, "v0", "vicuna_v0"), (ORIGINAL, "v1", "v1"), (ORIGINAL, "vicuna_v1", "vicuna_v1"),
    (ORIGINAL, "llama_2", "llama_2"), (ORIGINAL, "mistral_instruct", "mistral_instruct"),
    (ORIGINAL, "chatml_direct", "chatml_direct"), (ORIGINAL, "mistral_direct", "mistral_direct"),
    (ORIGINAL, "llava_v0", "llava_v0"), (ORIGINAL, "v0_mmtag", "v0_mmtag"), (ORIGINAL, "llava_v1", "llava_v1"),
    (ORIGINAL, "v1_mmtag", "v1_mmtag"), (ORIGINAL, "llava_llama_2", "llava_llama_2"), (ORIGINAL, "mpt", "mpt"),
    (NEXT, "llava_llama_3", "llava_llama_3"), (NEXT, "qwen_1_5", "qwen_1_5"), (NEXT, "qwen_2", "qwen_2"),
    (NEXT, "qwen_2_5", "qwen_2_5"),
    (NEXT, "gemma_instruct", "gemma_instruct"),
]
# (images, question, answer); no answer: the prompt ends where the model goes on.
CONVERSATIONS = [
    [(1, "What is shown?", None)],
    [(0, "Hi there.", None)],
    [(1, "What is shown?", "A red bus."), (0, "Which colour?", None)],
    [(0, "Hello", "Hi."), (0, "How are you?", "Fine, thanks.")],
]


def main():
    cases = []
    for templates, original, ours in STYLES:
        for turns in CONVERSATIONS:
            conversation = templates[original].copy()
            conversation.tokenizer = Llama3()
            conversation.sep_style = templates[original].sep_style
            if ours == "llava_llama_3" and turns[-1][2] is not None:
                continue  # its code always asks for an answer
            for images, question, answer in turns:
                # The web demo passes a tuple of text, image and image mode, which counts in the first message only;
                # the command line puts the tag in front by itself.
                text = (question, None, None) if images else question
                if images and conversation.messages:
                    text = "<image>\n" + question
                conversation.append_message(conversation.roles[0], text)
                if answer is not None or turns[-1][2] is None:
                    conversation.append_message(conversation.roles[1], answer)
            prompt = conversation.get_prompt()
            cases.append({"style": ours, "turns": turns, "prompt": prompt})
    print("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]")


main()
