#!/usr/bin/env python3
"""Makes tests/golden/text: small tokenizers built as those of each family are (normalizer, pre-tokenizer, decoder,
post-processor, added tokens and their flags), and what the Python `tokenizers` package
does with them. Run as `python3 tests/golden/make_text.py` (needs `pip install tokenizers`; made with 0.23.3).

Each folder has a tokenizer.json (or vocab.json and merges.txt) and cases.json:
  encode: [text, its ids, the special ids before and after them, decoding of the ids unless it is the text];
  decode: [ids, text without special tokens]."""
import json
import pathlib
import random

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


gpt2()
llama3()
byte_level_families()
sentencepiece()
