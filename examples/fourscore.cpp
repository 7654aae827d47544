// fourscore MODEL_DIR [TOKENS.bin]: DirkTensor's harness over this library. Feeds the tokens of a file (or of standard
// input: little-endian uint32, nothing else), then the model's own likeliest ones, 20 steps in all, and prints the five
// likeliest next tokens after each. The times go to standard error.
#include <engine.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int steps = 20;
constexpr std::size_t top = 5;

// Milliseconds since it was made.
class Timer {
public:
    double ms() const { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count(); }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void report(const char *what, double ms) {
    std::fprintf(stderr, "%s: %.0f ms\n", what, ms);
}

std::vector<std::uint32_t> read_tokens(std::istream &in, const std::string &name) {
    const std::vector<char> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    if (in.bad()) throw std::runtime_error(name + ": cannot be read");
    if (bytes.size() % 4 != 0) throw std::runtime_error(name + ": " + std::to_string(bytes.size()) + " bytes are no list of 32-bit tokens");
    if (bytes.empty()) throw std::runtime_error(name + ": no tokens");
    std::vector<std::uint32_t> tokens(bytes.size() / 4);
    for (std::size_t i = 0; i < bytes.size(); i++)
        tokens[i / 4] |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * (i % 4));
    return tokens;
}

// The ids of the five largest logits, largest first. Of equal ones the smaller id goes first: only a strictly larger logit takes
// a place.
std::vector<std::uint32_t> largest(const std::vector<float> &logits) {
    std::vector<std::uint32_t> best;
    for (std::size_t id = 0; id < logits.size(); id++) {
        std::size_t place = best.size();
        while (place > 0 && logits[id] > logits[best[place - 1]]) place--;
        if (place == top) continue;
        if (best.size() == top) best.pop_back();
        best.insert(best.begin() + static_cast<std::ptrdiff_t>(place), static_cast<std::uint32_t>(id));
    }
    return best;
}

void run(const char *directory, const char *token_file) {
    const Timer tokens_timer;
    std::vector<std::uint32_t> tokens;
    if (token_file != nullptr) {
        std::ifstream file(token_file, std::ios::binary);
        if (!file) throw std::runtime_error(std::string(token_file) + ": cannot be opened");
        tokens = read_tokens(file, token_file);
    } else {
        tokens = read_tokens(std::cin, "standard input");
    }
    report("Time to read tokens", tokens_timer.ms());

    const Timer model_timer;
    const engine::Model model(directory);
    engine::Cache cache(model);
    report("Time to load model", model_timer.ms());

    const Timer detokenizer_timer;
    model.token_text(tokens.front()); // the tokenizer is read at its first use
    report("Time to load detokenizer", detokenizer_timer.ms());

    const Timer inference_timer;
    std::vector<float> logits(model.vocab_size());
    std::uint32_t token = 0;
    for (int i = 0; i < steps; i++) {
        if (static_cast<std::size_t>(i) < tokens.size()) token = tokens[static_cast<std::size_t>(i)];
        cache.step(token, logits);
        std::cout << i << ": token " << token << " (\"" << model.token_text(token) << "\") Top 5 next tokens: ";
        const auto best = largest(logits);
        for (const std::uint32_t next : best) std::cout << next << " (\"" << model.token_text(next) << "\") ";
        std::cout << std::endl;
        token = best.front();
    }
    const double inference = inference_timer.ms();
    report("Time for inference (20 iterations)", inference);
    std::fprintf(stderr, "Time per iteration: %g ms\n", inference / steps);
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3) {
        std::cerr << "usage: fourscore MODEL_DIR [TOKENS.bin]\n";
        return 2;
    }
    try {
        run(argv[1], argc == 3 ? argv[2] : nullptr);
        return 0;
    } catch (const std::exception &error) {
        std::cerr << "fourscore: " << error.what() << '\n';
        return 1;
    }
}
