#!/usr/bin/env python3
"""Makes tests/golden/text: small tokenizers built as those of each family are (normalizer, pre-tokenizer, decoder,
post-processor, added tokens and their flags), and what the Python `tokenizers` package
does with them. Run as `python3 tests/golden/make_text.py` (needs `pip install tokenizers regex`; made with 0.23.3 and
2026.11.15).

Each folder has a tokenizer.json (or vocab.json and merges.txt) and cases.json:
  encode: [text, its ids, the special ids before and after them, decoding of the ids unless it is the text];
  decode: [ids, text without special tokens].
pre-tokenizers.json: texts, and the lengths (in characters) of the words that the pre-tokenisers of GGUF files cut them into."""
import json
import pathlib
import random
import unicodedata

import regex
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "text"

# The Gettysburg Address (1863), and lines for the alphabets that models meet.
CORPUS = """Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and
dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war, testing whether that
nation, or any nation so conceived and so dedicated, can long endure. We are met on a great battle-field of that war. We have
come to dedicate a portion of that field, as a final resting place for those who here gave their lives that that nation might
live. It is altogether fitting and proper that we should do this. But, in a larger sense, we can not dedicate -- we can not
consecrate -- we can not hallow -- this ground. The brave men, living and dead, who struggled here, have consecrated it, far
above our poor power to add or detract. The world will little note, nor long remember what we say here, but it can never
forget what they did here. It's theirs, and they'll say: we've 1863 reasons, 1234567890 of them!
    def f(x):\n        return x + 1  # indented\n\n\n
Größe, façade, naïve; ещё немного русского текста; 日本語の文章です。中文句子。 한국어 문장. 🙂🙂 😀 ½ ² ™
""" * 3

TEXTS = [
    "", " ", "  ", "   ", "\n", "\t", "\n\n\n", " \n \t \n", "a", " a", "a ", "Four score and seven years ago",
    " Four score", "Hello, y'all! How are you 😁 ?", "We've it's THEY'LL 'tis we'VE", "1 12 123 1234 12345 3.14 1,000,000",
    "x = 1;\n    y += 2;\n\n\tz()", "     indented   text     ", "ends with spaces   ", "\r\nwindows\r\n", "nul\0inside\0",
    "\u0001\u0002\u007f\u0080\u009f", "Größe façade naïve", "e\u0301 a\u0300\u0316\u0335 q\u0323\u0307", "нещо на Български",
    "日本語の文章、中文。한국어", "កាន់តែពិសេសអាច", "བོད་ཡིག་ནི་ཡིག་རིགས", "مرحبا بالعالم", "שלום עולם", "🚀 (normal) 😶‍🌫️ 🦙🦙 👩‍👩‍👧‍👦 🇩🇪🇫🇷",
    "\U00010348\U0001d11e\U0002070e\U000e0001\U000f0000\U0010ffff", "\ufeffBOM \ufffd \uffff \ue000", "a\u00a0b\u2003c\u3000d\u200be",
    "▁▁a▁b ▁ c", "Ġa Ċ", "<0x41><0x0A>", "<s>Four</s> score<unk>", "<|endoftext|>", "a<|endoftext|> b <|endoftext|><|endoftext|>",
    "<|im_start|>user\nhi<|im_end|>", "<|im_start", "<tool> x <tool>y", "tool>", "a" * 300, " " * 100, "ab" * 100, "!?" * 50, "\n" * 70,
    "<bos><start_of_turn>user\nhi<end_of_turn>\n", "<|user|>\n  hi <|end|>  \n<|assistant|>", "[INST] x [/INST]", "word<one>word <one> x",
    "<tool_call>  {}\n</tool_call>", ">>TITLE<< a", "a\n\n\nb\t\t\tc", "x" + " " * 7 + "y" + " " * 23 + "z" + " " * 24 + "w" + " " * 25,
    "a" + "\u0301" * 200, "\u1100\u1161\u11a8\uac00\u11a8 \u212b\u2126 \u0344\u0958", "\u0b47\u0b56\u0b3e q\u0307\u0323 \u1e9b\u0323",
    " ".join(chr((plane << 16) + low) for plane in range(17) for low in (0x21, 0x1234, 0xfffd)), "\u2028\u2029\u0085\x0b\x0c\x1c\x1f",
    "日" * 200, "é" * 200, "👍🏽" * 40, "1" * 200, "Ab1 " * 60, "\u200d\u200c\u00ad\u202e", "$100 €200 +1-1=0 ^~|`a`", "٠١٢٣٤٥ ໓໔ ⅓⅔ 四",
    "ﬁ ﬂ ① Ⅷ ǅ ß ẞ İ ı", "½¾²³", "don't 'S 'Re 'LL", "1٢३四", "C++ C# F# .NET a_b__c", "http://example.org/?q=a%20b&c=d#e",
]


def letters(rng):
    """A random text over all planes, with spaces."""
    ranges = [(32, 126), (32, 126), (0, 31), (0xA0, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x900, 0x97F), (0x2000, 0x206F),
              (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0x1F300, 0x1FAFF), (0x10000, 0x10FFFF)]
    out = []
    for _ in range(rng.randrange(1, 30)):
        out.append(" " if rng.random() < 0.15 else chr(rng.randint(*rng.choice(ranges))))
    return "".join(out)


def save(name, tokenizer, change=None):
    """Writes the tokenizer and its cases; `change` edits the JSON after the cases were made."""
    rng = random.Random(name)
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    encode = []
    for text in TEXTS + [letters(rng) for _ in range(40)]:
        ids, special = tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.encode(text).ids
        around = next((special[:i], special[i + len(ids):]) for i in range(len(special) + 1) if special[i:i + len(ids)] == ids)
        back = tokenizer.decode(ids)
        encode.append([text, ids, *around, None if back == text else back])
    n = tokenizer.get_vocab_size()
    low = [i for i in range(n) if len(tokenizer.id_to_token(i)) in (1, 6)]
    decode = []
    for _ in range(150):
        ids = [rng.choice(low) if rng.random() < 0.6 else rng.randrange(n) for _ in range(rng.randrange(1, 12))]
        decode.append([ids, tokenizer.decode(ids)])
    (folder / "cases.json").write_text(json.dumps({"encode": encode, "decode": decode}, separators=(",", ":")) + "\n")
    if change != "files":
        spec = json.loads(tokenizer.to_str())
        if change:
            change(spec)
        (folder / "tokenizer.json").write_text(json.dumps(spec, separators=(",", ":")) + "\n")
    else:
        tokenizer.model.save(str(folder))


def byte_level(split, vocab_size, normalizer=None):
    """`split`: a pattern, a list of pre-tokenizers that go before the byte-level one, or None."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    if split is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif isinstance(split, list):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer


def gpt2():
    tokenizer = byte_level(None, 500)
    save("gpt2-files", tokenizer, "files")
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool>", lstrip=True, normalized=False), AddedToken("日本")])

    def batch_settings(spec):
        spec["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
        spec["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                           "pad_type_id": 0, "pad_token": "!"}
        spec["model"]["dropout"] = 0.5
    save("gpt2", tokenizer, batch_settings)


def llama3():
    split = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
             r"|\s+(?!\S)|\s+")
    tokenizer = byte_level(split, 520)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", bos)])])
    save("llama3", tokenizer, lambda spec: spec["model"].update(ignore_merges=True))


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def template(tokenizer, bos):
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))])


def byte_level_families():
    split, plain = pre_tokenizers.Split, lambda: pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only = lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    special = lambda token, **flags: AddedToken(token, special=True, **{"normalized": False, **flags})

    # Mistral Nemo's "tekken": merges are passed over for words that are tokens.
    tokenizer = byte_level(TEKKEN, 450)
    tokenizer.add_special_tokens([special(t) for t in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")])
    tokenizer.post_processor = template(tokenizer, "<s>")
    save("tekken", tokenizer, lambda spec: spec["model"].update(ignore_merges=True))

    # OLMo-2 and 3: GPT-4's pattern, whose matches are what is kept.
    tokenizer = byte_level([split(Regex(LLAMA3), "removed", invert=True), bytes_only()], 450)
    tokenizer.add_special_tokens([special(t) for t in ("<|im_start|>", "<|im_end|>", "<|pad|>")])
    tokenizer.add_tokens([AddedToken("|||PHONE_NUMBER|||", normalized=False), AddedToken("<tool_call>", normalized=False)])
    save("olmo2", tokenizer)

    # GPT-NeoX, OLMo, OLMoE: runs of spaces are added tokens that the normalizer sees.
    tokenizer = byte_level(None, 450, normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.add_special_tokens([special("<|padding|>")])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    save("neox", tokenizer)

    # Qwen2 and 3.
    tokenizer = byte_level([split(Regex(QWEN), "isolated"), bytes_only()], 450, normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_special_tokens([special(t) for t in ("<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    save("qwen", tokenizer)

    # SmolLM, Granite, StarCoder: digits one by one.
    tokenizer = byte_level([pre_tokenizers.Digits(individual_digits=True), plain()], 450)
    tokenizer.add_special_tokens([special("<fim_prefix>"), special("<|im_start|>", lstrip=True, rstrip=True), special("<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<one>", single_word=True, normalized=False)])
    save("smollm", tokenizer)

    # Falcon.
    tokenizer = byte_level([pre_tokenizers.Punctuation("contiguous"), plain(), pre_tokenizers.Digits(individual_digits=False),
                            split(Regex("[0-9][0-9][0-9]"), "isolated")], 450)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([special(">>TITLE<<"), special(">>ABSTRACT<<")])
    save("falcon", tokenizer)

    # Cohere.
    tokenizer = byte_level([pre_tokenizers.Digits(individual_digits=True), plain()], 450, normalizers.NFC())
    tokenizer.add_special_tokens([special("<BOS_TOKEN>"), special("<|START_OF_TURN_TOKEN|>")])
    tokenizer.post_processor = template(tokenizer, "<BOS_TOKEN>")
    save("cohere", tokenizer)


def sentencepiece_vocab():
    """Vocabulary and merges as converting a SentencePiece model gives them: every split of every piece is a merge."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=380, show_progress=False))
    trained = json.loads(tokenizer.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    joined = []
    for left, right in trained["merges"]:
        if left + right not in joined:
            joined.append(left + right)
    pieces += joined + sorted(p for p in trained["vocab"] if p not in joined)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece in joined:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        merges += sorted(((a, b) for a, b in splits if a in vocab and b in vocab), key=lambda s: (vocab[s[0]], vocab[s[1]]))
    return vocab, merges


def sentencepiece():
    vocab, merges = sentencepiece_vocab()

    def make(normalizer, pre_tokenizer, decoder):
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        if normalizer:
            tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoder
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
        return tokenizer

    space = decoders.Replace("▁", " ")
    both = [space, decoders.ByteFallback(), decoders.Fuse()]
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    save("llama2", make(prepend, None, decoders.Sequence(both + [decoders.Strip(" ", 1, 0)])))
    save("llama2-new", make(None, pre_tokenizers.Metaspace("▁", "first", False), decoders.Sequence(both + [decoders.Strip(" ", 1, 0)])))
    save("gemma", make(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(both)))
    save_sentencepiece_families(make, prepend, both)
    save("metaspace", make(None, pre_tokenizers.Metaspace(), decoders.Metaspace()))


def save_sentencepiece_families(make, prepend, both):
    special = lambda token, **flags: AddedToken(token, special=True, **{"normalized": False, **flags})
    strip = decoders.Sequence(both + [decoders.Strip(" ", 1, 0)])

    # Mistral and Mixtral (v0.3): Llama 2's with control tokens.
    tokenizer = make(None, pre_tokenizers.Metaspace("▁", "first", False), strip)
    tokenizer.add_special_tokens([special(t) for t in ("[INST]", "[/INST]", "[TOOL_CALLS]")])
    save("mistral", tokenizer)

    # Phi-3: tokens that take the white space after them.
    tokenizer = make(prepend, None, strip)
    tokenizer.add_special_tokens([special("<|endoftext|>")])
    tokenizer.add_special_tokens([special(t, rstrip=True) for t in ("<|user|>", "<|assistant|>", "<|end|>")])
    save("phi3", tokenizer)

    # Gemma 1 to 3: no prefix; runs of spaces, line ends and tags are added tokens.
    tokenizer = make(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(both))
    tokenizer.add_special_tokens([special(t) for t in ("<bos>", "<start_of_turn>", "<end_of_turn>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "\t\t", "<table>", "<unused0>")])
    save("gemma3", tokenizer)


# The pre-tokenisers that GGUF files name, with the patterns that Python's `regex` can run: llama.cpp's, or, where those stand in
# for others that its engine cannot run (case of letters without ASCII, possessive quantifiers, digits from the right), the others.
PRE_TOKENIZERS = [
    (["default"],
     [r"[\p{P}\$\+<=>\^~\|]+",
      r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
      r"\p{N}+",
      r"[0-9][0-9][0-9]"]),
    (["minicpm5"],
     [r"\p{N}{1,3}",
      r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "dbrx", "smaug-bpe",
      "chatglm-bpe", "glm4", "glm5"],
     [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["deepseek-llm"],
     [r"[\r\n]",
      r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386"
      r"\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-"
      r"\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
      r"\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-"
      r"\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-"
      r"\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-"
      r"\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-"
      r"\U000118df\U0001e900-\U0001e943]+",
      r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
      r"\s+$",
      r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
      r"\p{N}+"]),
    (["deepseek-coder"],
     [r"[\r\n]",
      r"\s?\p{L}+",
      r"\s?\p{P}+",
      r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
      r"\p{N}"]),
    (["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
     [r"\p{N}{1,3}",
      r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]),
    (["spark2_5"],
     [r"\p{N}{1,3}",
      r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+""",
      r"\p{N}"]),
    (["youtu"],
     [r"[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00"
      r"-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
      r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["falcon"],
     [r"[\p{P}\$\+<=>\^~\|`]+",
      r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
      r"[0-9][0-9][0-9]"]),
    (["mpt", "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert", "olmo",
      "jais", "exaone4", "trillion", "granite-docling"],
     [r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"]),
    (["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
     [r"\p{N}",
      r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"]),
    (["jais-2"],
     [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|"
      r"\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"]),
    (["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "megrez", "hunyuan", "grok-2", "solar-open"],
     [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["qwen35"],
     [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["poro-chat", "bloom", "gpt3-finnish"],
     [r" ?[^(\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"]),
    (["viking"],
     [r" ?[^(\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+",
      r"\p{N}"]),
    (["tekken"],
     [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{L"
      r"o}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["exaone-moe"],
     [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"]),
    (["chameleon"],
     [r"<sentinel:[0-9]+>",
      r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
      r"([\t\n]|    |  )",
      r"\p{N}",
      r"[\p{P}!-/:-@\[-`{-~]",
      r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"]),
    (["gpt-4o", "llama4", "kanana2", "talkie", "granite-embed-multi-97m", "minimax-m2"],
     [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
      r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["tiny_aya", "cohere2moe"],
     [r"\d{1,3}(?=(?:\d{3})*\b)",
      r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
      r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["gemma4", "granite-embed-multi-311m", "sarvam-moe"],
     [r"[^\n]+|[\n]+"]),
    (["superbpe"],
     [r"\p{N}+",
      r"(?=(\d{3})+(?!\d))"]),
    (["bailingmoe", "bailingmoe2", "llada-moe"],
     [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"]),
    (["seed-coder"],
     [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["kimi-k2"],
     [r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])*(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])+(?i:'s|'t|'re|'ve|'m|'ll|'d"
      r")?|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])+(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}"
      r"{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["ufakzeka"],
     [r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    (["afmoe"],
     [r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
      r"[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f"
      r"\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
      r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]),
    (["laguna"],
     [r"[^\n]+|[\n]+",
      r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
]


def split(patterns, text):
    """The lengths of the pieces into which one pattern after the other cuts."""
    pieces = [text]
    for pattern in patterns:
        cut = []
        for piece in pieces:
            done = 0
            for match in regex.finditer(pattern, piece):
                cut += [piece[done:match.start()], match.group()]
                done = match.end()
            cut.append(piece[done:])
        pieces = [piece for piece in cut if piece]
    assert "".join(pieces) == text
    return [len(piece) for piece in pieces]


def pre_tokenizers_by_name():
    rng = random.Random("pre-tokenizers")
    # What is not assigned in one version of Unicode is in the next.
    assigned = lambda text: "".join(c for c in text if unicodedata.category(c) != "Cn")
    parts = ["IMGIMGABCZ", "<sentinel:12>", "１２３", "1234567", "12345_", "123456a", "½1234", "'ſ", "'S", "ªB", "ǅA", "aA", "éÉ", " \n ", "\u3000", "\t",
             " ", "    ", "\r\n", "\x85", "日本", "かな", "ㄅㄆ", "한글", "！？", "「", "ไทย", "က", "\u0301", "ʰ", "/", "//\n", "$", "+", "...", "_", "٣٤", "Ⅷ", "²"]
    texts = [assigned(text) for text in TEXTS + [letters(rng) for _ in range(20)]]
    texts += ["".join(rng.choice(parts) for _ in range(rng.randrange(2, 12))) for _ in range(60)] + [" " * 1023 + "x", "\t" * 700]
    texts = [text for text in texts if text]
    rules = [{"names": names, "lengths": [split(patterns, text) for text in texts]} for names, patterns in PRE_TOKENIZERS]
    (OUT / "pre-tokenizers.json").write_text(json.dumps({"texts": texts, "rules": rules}, separators=(",", ":")) + "\n")


pre_tokenizers_by_name()
gpt2()
llama3()
byte_level_families()
sentencepiece()
