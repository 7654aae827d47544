"""Hugging Face directories, in the forms that transformers 4 and 5 write, and directories of .npy."""
import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from .models import PLAIN, parameters, random_model


def write_config(folder, model, form, legacy=lambda d: None, drop=(), dtype="float32"):
    """config.json as transformers 5 writes it, or as transformers 4 did: rope_theta and rope_scaling apart, torch_dtype, and what
    `legacy` makes of the rest."""
    d = model.config.to_diff_dict()
    d = {k: v for k, v in d.items() if k not in ("_name_or_path", "dtype", "torch_dtype", *drop)}
    d["architectures"] = [type(model).__name__]
    if form == 5:
        d |= {"dtype": dtype, "transformers_version": transformers.__version__}
    else:
        rope = d.pop("rope_parameters", None)
        if rope and "rope_type" in rope:
            rope = dict(rope)
            d["rope_theta"] = rope.pop("rope_theta")
            if "partial_rotary_factor" in rope:
                d["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
            kind = rope.pop("rope_type", "default")
            # "type" is what transformers called it before 4.43.
            d["rope_scaling"] = None if kind == "default" else {("type" if kind == "linear" else "rope_type"): kind, **rope}
        elif rope:
            d["rope_parameters"] = rope  # a dict per layer type: each family had its own way, which `legacy` knows
        legacy(d)
        d |= {"torch_dtype": dtype, "transformers_version": "4.46.0"}
    (folder / "config.json").write_text(json.dumps(d, indent=1, sort_keys=True) + "\n")


def write_safetensors(folder, tensors, dtype=torch.float32, shards=1):
    """model.safetensors, or shards with an index: neighbours go to different shards, so that no layer is whole in one file."""
    tensors = {k: v.to(dtype).clone() if v.is_floating_point() else v for k, v in tensors.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    files = {f"model-{i + 1:05}-of-{shards:05}.safetensors": list(tensors)[i::shards] for i in range(shards)}
    for file, names in files.items():
        save_file({n: tensors[n] for n in names}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())},
             "weight_map": {n: file for file, names in files.items() for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def saved(model):
    """Name to tensor as save_pretrained writes them, which are not always the model's own names: experts lie apart on disk."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(Path(folder) / "model.safetensors")
    order = {name: i for i, name in enumerate(model.state_dict())}  # layer by layer, not sorted: shards then cut through layers
    return dict(sorted(tensors.items(), key=lambda item: order.get(item[0], -1)))


def hf(folder, config, form, dtype=torch.float32, shards=1, rename=lambda t: t, drop=(), legacy=lambda d: None, **random):
    """A Hugging Face directory; the oracle is then what transformers makes of that directory."""
    model = random_model(config, dtype, **random)
    path = folder / "model"
    path.mkdir()
    write_config(path, model, form, legacy, drop, str(dtype).removeprefix("torch."))
    write_safetensors(path, rename(saved(model)), dtype, shards)
    read, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True, **PLAIN)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    for k, v in model.state_dict().items():
        assert torch.equal(v, read.state_dict()[k]), f"{k} was not read back from {path}"
    ours, theirs = meaning(model.config), meaning(read.config)
    differs = {k: (v, theirs.get(k)) for k, v in ours.items() if theirs.get(k) != v}
    assert not differs, f"{path}/config.json is not read as it was meant: {differs}"
    return read.eval()


def meaning(config):
    """The settings, without what no forward reads."""
    d = config.to_dict()
    for key in ("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"):
        d.pop(key, None)
    (d.get("rope_parameters") or {}).pop("type", None)  # kept beside rope_type when the file says "type"
    return d


def edit_config(folder, change):
    path = folder / "model" / "config.json"
    d = json.loads(path.read_text())
    change(d)
    path.write_text(json.dumps(d, indent=1, sort_keys=True) + "\n")


# ---- directories of .npy ----


def write_npy(folder, model):
    path = folder / "model"
    path.mkdir()
    for name, tensor in parameters(model).items():
        np.save(path / f"{name}.npy", tensor.numpy())
    tokens = ["<s>", "a\\b", "new\nline", "tab\there", "\rback", "ĠFour", "Ġscore", "é"]
    tokens += [f"Ġw{i}" for i in range(len(tokens), model.config.vocab_size - 3)]  # fewer than there are logits, as DirkTensor's
    escape = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
    (path / "vocab.txt").write_text("".join(f"{i}\t{t.translate(escape)}\n" for i, t in enumerate(tokens)), encoding="utf-8")
    return path
