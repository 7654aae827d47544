// generate MODEL PROMPT [N_TOKENS [THREADS]]: continues a text, printing it as it comes. In C: generate.c, in Rust:
// generate.rs.
#include <engine.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

namespace {

const char *usage =
    "usage: generate MODEL PROMPT [N_TOKENS [THREADS]]\n"
    "  MODEL     a Hugging Face directory, a directory of .npy files or a .gguf file\n"
    "  N_TOKENS  how many tokens to add at most (100)\n"
    "  THREADS   threads to compute with (the processor's cores)\n";

// A whole number from 1 on; 0 if `text` is anything else.
std::uint32_t count(const std::string &text) {
    if (text.empty() || text.size() > 9 || !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) return 0;
    return static_cast<std::uint32_t>(std::stoul(text));
}

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void generate(const char *path, const char *prompt_text, std::uint32_t wanted, std::uint32_t threads) {
    const engine::Model model(path, engine::LoadOptions().threads(threads));
    const std::vector<std::uint32_t> prompt = model.tokenize(prompt_text);
    engine::Cache cache(model);
    engine::Decoder decoder(model);

    for (const std::uint32_t token : prompt) std::cout << decoder.push(token) << std::flush;
    const double start = seconds();
    std::vector<float> logits = cache.step(prompt);
    const double prefilled = seconds();
    std::uint32_t made = 0;
    while (made < wanted) {
        // The likeliest token: the first of the largest logits.
        const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
        const auto token = static_cast<std::uint32_t>(best);
        if (model.is_end(token)) break;
        std::cout << decoder.push(token) << std::flush;
        if (++made < wanted) cache.step(token, logits);
    }
    const double finished = seconds();
    std::cout << decoder.finish() << std::endl;

    const engine_model_info info = model.info();
    std::fprintf(stderr, "model: %s, %.2f M parameters, %.2f MB, %zu layers, %zu wide; %u threads, %s\n", info.architecture,
                 static_cast<double>(info.n_params) * 1e-6, static_cast<double>(info.weight_bytes) * 1e-6, info.n_layers,
                 info.hidden_size, info.threads, info.isa);
    std::fprintf(stderr, "prefill: %zu tokens, %.1f tokens/s\n", prompt.size(), static_cast<double>(prompt.size()) / (prefilled - start));
    // The first token comes from the prompt's step.
    if (made > 1) std::fprintf(stderr, "decode: %u tokens, %.1f tokens/s\n", made, (made - 1) / (finished - prefilled));
}

} // namespace

int main(int argc, char **argv) {
    const std::uint32_t wanted = argc > 3 ? count(argv[3]) : 100;
    const std::uint32_t threads = argc > 4 ? count(argv[4]) : 0;
    if (argc < 3 || argc > 5 || wanted == 0 || (argc > 4 && threads == 0)) {
        std::cerr << usage;
        return 2;
    }
    try {
        generate(argv[1], argv[2], wanted, threads);
        return 0;
    } catch (const std::exception &error) {
        std::cout << std::flush;
        std::cerr << "generate: " << error.what() << '\n';
        return 1;
    }
}
