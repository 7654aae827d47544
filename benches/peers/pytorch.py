"""PyTorch's model of the same shape, with weights of its own, and the same few calls as engine.py."""
import torch
import transformers
from transformers import DynamicCache, GPT2Config, LlamaConfig, Olmo2Config

TYPES = {"0": torch.float32, "32": torch.bfloat16}  # general.file_type


class PyTorch:
    name = "PyTorch"

    def __init__(self, metadata, threads=2):
        """metadata: tells a GGUF file's keys. Raises KeyError for a type or an architecture that there is not here."""
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        dtype = TYPES[metadata("general.file_type")]
        architecture = metadata("general.architecture")

        def number(key):
            return int(metadata(f"{architecture}.{key}"))

        vocab, hidden, layers = number("vocab_size"), number("embedding_length"), number("block_count")
        if architecture == "gpt2":
            config = GPT2Config(vocab_size=vocab, n_positions=number("context_length"), n_embd=hidden, n_layer=layers,
                                n_head=number("attention.head_count"))
        else:
            config = {"llama": LlamaConfig, "olmo2": Olmo2Config}[architecture](
                vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers, intermediate_size=number("feed_forward_length"),
                num_attention_heads=number("attention.head_count"), num_key_value_heads=number("attention.head_count_kv"),
                max_position_embeddings=number("context_length"), tie_word_embeddings=False)
        self.vocab = vocab
        self.model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        self.reset()

    def reset(self, length=0):
        if length == 0:
            self.past = DynamicCache()
        else:
            self.past.crop(length)

    @torch.inference_mode()
    def feed(self, tokens):
        return self.run(torch.tensor([list(map(int, tokens))]))

    def run(self, ids):
        return self.model(input_ids=ids, past_key_values=self.past, use_cache=True, logits_to_keep=1).logits

    @torch.inference_mode()
    def begin(self, prompt, n):
        """Begins n sequences with a prompt."""
        self.reset()
        self.run(torch.tensor([list(map(int, prompt))] * n))

    def stepper(self, n):
        """A function that feeds a token to each of n sequences."""
        @torch.inference_mode()
        def step(tokens):
            return self.run(torch.tensor([[int(token)] for token in tokens]))

        return step

    def close(self):
        self.model = self.past = None
