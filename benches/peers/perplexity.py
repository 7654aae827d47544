#!/usr/bin/env python3
"""What each type costs on a real model and a fixed text, here and in llama.cpp on the same files.

    python3 benches/peers/perplexity.py [MODEL.gguf]

The model is stories260k (Llama, 260 thousand parameters) from ../shared unless another f32 GGUF file is named. Its rows of 172
elements are no whole blocks of 32: those matrices stay f16, as llama.cpp's quantisation leaves them. Perplexity is exp of the mean
negative log probability of each token of the text after BOS.
"""
import sys
import tempfile
from pathlib import Path

import numpy as np
from engine import REPOSITORY, Engine, log_softmax, skip

try:
    from llamacpp import LlamaCpp, quantise
except ImportError as missing:
    skip(missing)

TYPES = {"Q8_0": 7, "Q5_1": 9, "Q5_0": 8, "Q4_1": 3, "Q4_0": 2, "IQ4_NL": 25}
TEXT = """Once upon a time, there was a little boy named Tim. Tim had a red ball. He liked to play with his ball in the park. One day,
Tim saw a big dog. The dog wanted to play with the ball too. Tim was scared and he ran to his mom. "Mom, the dog wants my ball!" he
said. His mom smiled and said, "The dog is nice. You can share your ball with the dog." Tim was not sure, but he wanted to try. He
threw the ball and the dog ran to get it. The dog came back and gave the ball to Tim. Tim was happy. He said, "Thank you, dog!" They
played all day and they were good friends. When the sun went down, Tim and his mom went home. Tim hugged his mom and said, "I love
to share." The next day, Lily and her mom went to the store. They saw a lot of food and toys. Lily wanted a doll. Her mom said, "We
can buy the doll if you help me clean the house." Lily was happy and she said yes. At home, she helped her mom wash the cups. Then
they made a cake together. Lily's dad came home and he saw the cake. "It looks very good!" he said. They all sat at the table and ate
the cake. Lily played with her new doll until it was time for bed. She was very happy and she had a good dream."""


def perplexity(model, ids):
    model.reset()
    logs = log_softmax(model.feed(ids[:-1], all_logits=True))
    return float(np.exp(-logs[np.arange(len(ids) - 1), ids[1:]].mean()))


def tokens(path):
    """Of the text, by llama.cpp, with BOS."""
    import llama_cpp

    model = LlamaCpp(path)
    vocab = llama_cpp.llama_model_get_vocab(model.model)
    text = TEXT.replace("\n", " ").encode()
    ids = (llama_cpp.llama_token * 4096)()
    n = llama_cpp.llama_tokenize(vocab, text, len(text), ids, 4096, True, False)
    model.close()
    return np.array(ids[:n])


def main():
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "../shared/models/stories260k/stories260k-f32.gguf"
    if not source.exists():
        skip(f"there is no {source}")
    ids = tokens(source)
    print(f"{len(ids)} tokens; perplexity of engine / llama.cpp, and how much more than engine's f32")
    base = None
    with tempfile.TemporaryDirectory() as folder:
        for name, file_type in {"f32": None, **TYPES}.items():
            path = source
            if file_type is not None:
                path = Path(folder) / f"{name}.gguf"
                quantise(source, path, file_type)
            ours, theirs = Engine(path), LlamaCpp(path, context=len(ids) + 8)
            found = perplexity(ours, ids), perplexity(theirs, ids)
            base = base or found[0]
            print(f"{name:7} {found[0]:8.4f} / {found[1]:8.4f}   {100 * (found[0] / base - 1):+6.2f} % / {100 * (found[1] / base - 1):+6.2f} %")
            if name == "Q8_0" and abs(found[0] / base - 1) > 0.005:
                sys.exit("Q8_0 is further than 0.5 % from f32")


if __name__ == "__main__":
    main()
