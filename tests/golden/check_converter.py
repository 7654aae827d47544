#!/usr/bin/env python3
"""Compares the GGUF cases with what llama.cpp's own converter makes of the same models: every key and the bytes of every tensor.

    python3 tests/golden/check_converter.py path/to/llama.cpp [case ...]

Last done with the llama.cpp of llama-cpp-python 0.3.36. No difference was found, but for general.file_type, which the converter
leaves out for GPT-NeoX, and the last bit of rope_freqs in llama-gguf-llama3, which it computes in f32. Tokens are left out.
"""
import json
import logging
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

llama_cpp = Path(sys.argv[1])
sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]

import gguf  # noqa: E402 (its own, not the installed one)
import torch  # noqa: E402
import transformers  # noqa: E402
import conversion  # noqa: E402
from conversion import base  # noqa: E402

import make_golden  # noqa: E402, F401 (registers the cases)
from make import gguf_files  # noqa: E402
from make.cases import CASES  # noqa: E402
from make.files import saved, write_config, write_safetensors  # noqa: E402

FILE_TYPE = {torch.float32: gguf.LlamaFileType.ALL_F32, torch.float16: gguf.LlamaFileType.MOSTLY_F16,
             torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16}


def load_hparams(folder, is_mistral_format=False):
    """The file itself: through transformers 5 some keys are lost that the converter asks for."""
    return json.loads((Path(folder) / "config.json").read_text())


def convert(model, dtype, folder):
    """The Hugging Face directory of `model`, converted."""
    family = model.config.model_type

    def legacy(d):
        if family == "gpt_neox":
            d["rotary_pct"], d["rotary_emb_base"] = d.pop("partial_rotary_factor"), d.pop("rope_theta")
        if family == "gpt2":
            d["n_ctx"] = d["n_positions"]
        if family == "cohere2":
            d["rotary_pct"] = 1.0

    drop = ("num_kv_heads",) if family == "falcon" and not model.config.new_decoder_architecture else ()
    write_config(folder, model, 4 if family in ("gpt_neox", "gpt2", "cohere2") else 5, legacy, drop)
    write_safetensors(folder, saved(model))
    vocabulary = {str(i): i for i in range(model.config.vocab_size)}  # Gemma 3's embedding is cut to it
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    architecture = base.get_model_architecture(load_hparams(folder), base.ModelType.TEXT)
    converter = conversion.get_model_class(architecture)
    converter.set_vocab = lambda self: None
    with torch.inference_mode():
        converter(folder, FILE_TYPE[dtype], folder / "converted.gguf", eager=True).write()
    return folder / "converted.gguf"


def contents(path):
    reader = gguf.GGUFReader(path)
    out = {t.name: (t.tensor_type.name, [int(n) for n in t.shape],
                    np.ascontiguousarray(t.data).tobytes()) for t in reader.tensors}
    for name, field in reader.fields.items():
        section = name.split(".")[0]
        if section not in ("GGUF", "tokenizer", "general") or name in ("general.architecture", "general.file_type"):
            out[name] = field.contents()
    return out


def compare(path, model, dtype=torch.float32, tokens=False):
    write_gguf(path, model, dtype, tokens)
    ours = contents(path)
    with tempfile.TemporaryDirectory() as folder:
        theirs = contents(convert(model, dtype, Path(folder)))
    for name in sorted(ours | theirs):
        if ours.get(name) != theirs.get(name):
            print(f"  {name}: ours {str(ours.get(name))[:60]}, the converter's {str(theirs.get(name))[:60]}")
    print(f"  {len(ours)} keys and tensors compared")


base.ModelBase.load_hparams = staticmethod(load_hparams)
write_gguf, gguf_files.write_gguf = gguf_files.write_gguf, compare
logging.disable(logging.WARNING)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
for name, (function, seed, _) in CASES.items():
    if "gguf" in name and any(fnmatch(name, pattern) for pattern in sys.argv[2:] or ["*"]):
        print(name, flush=True)
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            function(Path(folder))
