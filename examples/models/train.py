#!/usr/bin/env python3
"""Trains the demo model `fourscore/`: a Llama of about a million parameters that knows the texts in `texts/` by heart.

    pip install torch transformers tokenizers safetensors numpy
    python3 examples/models/train.py [output directory]

The committed files were made by Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3 and safetensors 0.8.0 on an x86-64
CPU with one thread (half an hour). Everything is seeded; another version of torch or another CPU rounds differently
and gives other weights, which pass the same checks: at the end the script greedily continues the prompts below in f32 from the
bf16 weights as they were written, demands the true text, and prints the smallest gap between the best and the second
best logit, which is what a different order of summation would have to bridge to change the text.
"""
import json
import math
import random
import struct
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
CONTEXT = 512
BATCH = 4
STEPS = 1000
PEAK_LR = 3e-3
END = "<|endoftext|>"
PROMPT = "Four score and seven years ago"
# The first words of a text, or of a paragraph, after which the model must go on to the end of it: (file, words).
CHECKS = [
    ("gettysburg-address", "Four score"),
    ("gettysburg-address", "Four score and seven"),
    ("gettysburg-address", PROMPT),
    ("declaration-of-independence", "When in the Course of human events"),
    ("declaration-of-independence", "We hold these truths"),
    ("constitution-preamble", "We the People"),
    ("second-inaugural", "With malice toward none"),
    ("sonnet-18", "Shall I compare thee"),
    ("psalm-23", "The LORD is my shepherd"),
    ("hamlet-to-be", "To be, or not to be"),
    ("ozymandias", "I met a traveller"),
    ("tyger", "Tyger Tyger"),
]


def read_texts():
    return {p.stem: p.read_text(encoding="utf-8").strip() for p in sorted((HERE / "texts").glob("*.txt"))}


def train_tokenizer(texts, out):
    """A byte-level BPE, as GPT-2's, over the texts; id 0 ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2048, min_frequency=2, special_tokens=[END],
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(texts.values(), trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "clean_up_tokenization_spaces": False,
                "model_max_length": CONTEXT}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer


def window(rng, docs, starts, names, weights):
    """CONTEXT + 1 tokens and which of them are to be learnt: one text, from its beginning or from a sentence inside it, then others
    whole. What cannot be known (which text comes next, the first words of a sentence out of nowhere) is not to be learnt."""
    ids, learn = [], []
    while len(ids) <= CONTEXT:
        name = rng.choices(names, weights)[0]
        begin = rng.choice(starts[name]) if not ids and rng.random() < 0.5 else 0
        part = docs[name][begin:]
        ids += part
        learn += [False] * min(len(part), 4 if begin else 1) + [True] * max(0, len(part) - (4 if begin else 1))
    return ids[: CONTEXT + 1], learn[: CONTEXT + 1]


def sentence_starts(tokenizer, text):
    """Token indices at which a line or a sentence begins."""
    encoding = tokenizer.encode(text)
    return [i for i, (a, _) in enumerate(encoding.offsets)
            if a == 0 or text[a - 1] == "\n" or (text[a - 1] in ".;:?!" and text[a : a + 1] == " ")]


def train(model, tokenizer, texts):
    docs = {name: tokenizer.encode(text).ids + [0] for name, text in texts.items()}
    starts = {name: sentence_starts(tokenizer, text) for name, text in texts.items()}
    names = list(docs)
    weights = [math.sqrt(len(docs[n])) * (3 if n == "gettysburg-address" else 1) for n in names]
    print({"texts": len(docs), "tokens": sum(map(len, docs.values())), "parameters": sum(p.numel() for p in model.parameters())})
    rng = random.Random(1863)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.01)
    begun = time.time()
    for step in range(STEPS):
        lr = PEAK_LR * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = [window(rng, docs, starts, names, weights) for _ in range(BATCH)]
        ids = torch.tensor([b[0] for b in batch])
        learn = torch.tensor([b[1] for b in batch])
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[learn[:, 1:]], ids[:, 1:][learn[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.4f}, {time.time() - begun:.0f} s", flush=True)


@torch.no_grad()
def greedy(model, ids, limit):
    """The continuation of `ids` until the end of the text, and the smallest lead of a chosen token."""
    out, lead, past, fed = [], math.inf, None, list(ids)
    while len(ids) + len(out) < limit:
        step = model(input_ids=torch.tensor([fed]), past_key_values=past, use_cache=True)
        past, top = step.past_key_values, step.logits[0, -1].topk(2)
        lead = min(lead, (top.values[0] - top.values[1]).item())
        if top.indices[0] == 0:
            break
        out.append(top.indices[0].item())
        fed = out[-1:]
    return out, lead


def check(out, texts):
    """Demands the true texts of the files as written, in f32; returns the continuation of PROMPT."""
    model = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    result = None
    for name, words in CHECKS:
        want = texts[name][texts[name].index(words) :]
        prompt = tokenizer.encode(words)
        ids, lead = greedy(model, prompt, CONTEXT)
        got = words + tokenizer.decode(ids)
        same = want.startswith(got) if len(prompt) + len(ids) == CONTEXT else want == got
        print(f"{'ok ' if same else 'BAD'} {name}: {words!r} + {len(ids)} tokens, smallest lead {lead:.2f}", flush=True)
        if not same:
            n = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
            print(f"    differs after {want[max(0, n - 60):n]!r}: {want[n:n + 30]!r} became {got[n:n + 30]!r}")
        assert same or name != "gettysburg-address"
        if words == PROMPT:
            result = (got, lead)
    return result


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "fourscore"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(1863)
    torch.use_deterministic_algorithms(True)
    texts = read_texts()
    tokenizer = train_tokenizer(texts, out)
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5,
                         rope_theta=10000.0, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=None)
    model = LlamaForCausalLM(config)
    train(model, tokenizer, texts)
    model.eval().to(torch.bfloat16)
    model.generation_config.do_sample = False
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    text, lead = check(out, texts)
    (out / "expected.txt").write_text(text, encoding="utf-8")
    ids = tokenizer.encode("Four score and seven").ids
    (out / "four.tokens.bin").write_bytes(struct.pack(f"<{len(ids)}I", *ids))


if __name__ == "__main__":
    main()
