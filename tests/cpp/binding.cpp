// engine.hpp: ownership, options, steps, text and errors.
#include <engine.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

int failures = 0;

void expect(bool condition, const char *text, int line) {
    if (condition) return;
    failures++;
    std::cerr << "binding.cpp:" << line << ": not true: " << text << '\n';
}
#define CHECK(...) expect((__VA_ARGS__), #__VA_ARGS__, __LINE__)

// `call` throws engine::Error with this status and a sentence that contains `part`.
template <typename Call>
void expect_error(engine_status status, const std::string &part, int line, Call call) {
    try {
        call();
    } catch (const engine::Error &error) {
        const bool right = error.status() == status && std::string(error.what()).find(part) != std::string::npos;
        if (!right) std::cerr << "  " << error.name() << ": " << error.what() << '\n';
        return expect(right, "the error that was expected", line);
    }
    expect(false, "an error", line);
}
#define CHECK_THROWS(status, part, ...) expect_error(status, part, __LINE__, [&] { __VA_ARGS__; })

template <typename Handle>
constexpr bool move_only = std::is_nothrow_move_constructible_v<Handle> && std::is_nothrow_move_assignable_v<Handle> &&
                           !std::is_copy_constructible_v<Handle> && !std::is_copy_assignable_v<Handle>;
static_assert(move_only<engine::Model> && move_only<engine::Cache> && move_only<engine::Decoder>);

using Tokens = std::vector<engine::Token>;

void handles(const std::string &path) {
    engine::Model model(path, engine::LoadOptions().threads(1));
    CHECK(model.vocab_size() == 101 && model.context_length() == 96);
    const engine_model_info info = model.info();
    CHECK(std::string(info.architecture) == "llama" && info.threads == 1 && info.n_layers == 2);
    CHECK(model.metadata("model_type") == "llama" && model.metadata_keys().size() > 5);
    CHECK_THROWS(ENGINE_ERR_NOT_FOUND, "nothing", model.metadata("nothing"));
    const engine_memory_estimate estimate = engine::LoadOptions().estimate(path);
    CHECK(estimate.weights_mapped + estimate.weights_packed == info.weight_bytes);

    engine::Model other = std::move(model);
    CHECK(!model && other && model.vocab_size() == 0);
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "model", engine::Cache no_cache(model));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "model", model.info());
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "cache", engine::Cache().feed(Tokens{1}));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "decoder", engine::Decoder().push(1));

    // A cache keeps its model.
    engine::Cache cache(other, engine::CacheOptions().max_tokens(7).kv_type(ENGINE_KV_F16));
    other = engine::Model();
    CHECK(cache.max_tokens() == 7 && cache.step(engine::Token(3)).size() == 101);
    engine::Cache second;
    CHECK(!second);
    second = std::move(cache);
    CHECK(second.len() == 1 && cache.len() == 0);
}

void profiles(const std::string &path) {
    engine::Cache cache(engine::Model(path, engine::LoadOptions().profile(true)));
    cache.feed(Tokens{1, 2});
    const std::vector<engine_op_profile> ops = cache.profile();
    const auto attention = [](const engine_op_profile &op) { return std::string(op.name) == "attention"; };
    CHECK(ops.size() > 10 && ops[0].calls == 1 && std::count_if(ops.begin(), ops.end(), attention) == 1);
    cache.reset_profile();
    CHECK(cache.profile()[0].calls == 0);
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "profile", engine::Cache(engine::Model(path)).profile());
}

void quantizing(const std::string &source) {
    const std::string input = source + "/tests/golden/llama-gguf-f16/model.gguf";
    // In a directory that is not there: the call is made, and nothing is written.
    CHECK_THROWS(ENGINE_ERR_NOT_FOUND, "/no/such", engine::quantize(input, "/no/such/q.gguf", ENGINE_WEIGHTS_Q8_0));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "NUL", engine::quantize(input, std::string("a\0b", 3), ENGINE_WEIGHTS_Q8_0));
    const std::string here = "binding-quantized.gguf";
    std::vector<float> fractions;
    const auto note = [&](float fraction) { return fractions.push_back(fraction), true; };
    engine::quantize(input, here, ENGINE_WEIGHTS_Q4_K_M, engine::QuantizeOptions().threads(1).progress(note));
    CHECK(!fractions.empty() && fractions.back() == 1);
    CHECK(engine::Model(here).get() != nullptr);
    bool thrown = false;
    try {
        engine::quantize(input, here, ENGINE_WEIGHTS_Q8_0,
                         engine::QuantizeOptions().progress([](float) -> bool { throw std::logic_error("from the callback"); }));
    } catch (const std::logic_error &) {
        thrown = true;
    }
    CHECK(thrown && engine::Model(here).get() != nullptr);
    CHECK(std::remove(here.c_str()) == 0);
}

void loading(const std::string &path) {
    CHECK_THROWS(ENGINE_ERR_NOT_FOUND, "/no/such/model", engine::Model("/no/such/model"));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "NUL", engine::Model(std::string("a\0b", 3)));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "isa: 99", engine::Model(path, engine::LoadOptions().isa(99)));
    CHECK(engine::Model(path, engine::LoadOptions().weights(ENGINE_WEIGHTS_Q8_0)).get() != nullptr);

    std::vector<float> fractions;
    const auto note = [&](float fraction) { return fractions.push_back(fraction), true; };
    CHECK(engine::Model(path, engine::LoadOptions().mapping(ENGINE_MAPPING_COPY).progress(note)).get() != nullptr);
    CHECK(!fractions.empty() && std::is_sorted(fractions.begin(), fractions.end()));
    CHECK(fractions.front() >= 0 && fractions.back() == 1);
    CHECK_THROWS(ENGINE_ERR_CANCELLED, "", engine::Model(path, engine::LoadOptions().progress([](float) { return false; })));
    bool thrown = false;
    try {
        engine::Model(path, engine::LoadOptions().progress([](float) -> bool { throw std::logic_error("from the callback"); }));
    } catch (const std::logic_error &error) {
        thrown = std::string(error.what()) == "from the callback";
    }
    CHECK(thrown);
}

void steps(const std::string &path) {
    const engine::Model model(path);
    const std::size_t vocab = model.vocab_size();
    engine::Cache cache(model, engine::CacheOptions().max_tokens(8));
    const Tokens prompt{1, 2, 3};

    const std::vector<float> all = cache.step_all(prompt);
    CHECK(all.size() == 3 * vocab && std::all_of(all.begin(), all.end(), [](float x) { return std::isfinite(x); }));
    cache.truncate(0);
    CHECK(cache.len() == 0);
    const std::vector<float> last = cache.step(prompt);
    CHECK(std::equal(last.begin(), last.end(), all.end() - static_cast<std::ptrdiff_t>(vocab)));

    engine::Cache fork = cache.fork();
    std::vector<float> ours(vocab), theirs(vocab + 5);
    cache.step(4, ours);
    const std::array<engine::Token, 1> four{{4}};
    fork.step(four, theirs);
    CHECK(std::equal(ours.begin(), ours.end(), theirs.begin()));
    fork.truncate(3);
    fork.step(four.data(), 1, theirs.data());
    CHECK(std::equal(ours.begin(), ours.end(), theirs.begin()));
    CHECK(cache.len() == 4 && fork.len() == 4);
    CHECK(fork.step(Tokens{5, 6}).size() == vocab);
    cache.feed(Tokens{5, 6});
    CHECK(cache.step(7) == fork.step(7));

    std::vector<float> small(vocab - 1);
    CHECK_THROWS(ENGINE_ERR_BUFFER_TOO_SMALL, "logits", cache.step(1, small));
    CHECK_THROWS(ENGINE_ERR_BUFFER_TOO_SMALL, "logits", cache.step_all(Tokens{1}, small));
    CHECK_THROWS(ENGINE_ERR_CONTEXT_FULL, "7", cache.step(prompt));
    CHECK_THROWS(ENGINE_ERR_CONTEXT_FULL, "7", cache.step_all(prompt));
    CHECK_THROWS(ENGINE_ERR_CONTEXT_FULL, "9", cache.step_all(Tokens(9)));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "n_tokens", cache.step(Tokens()));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "", cache.step(static_cast<engine::Token>(vocab)));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "", cache.truncate(8));
    CHECK(cache.step_all(Tokens()).empty());

    std::thread([&] { cache.cancel(); }).join();
    CHECK_THROWS(ENGINE_ERR_CANCELLED, "", cache.step(1));
    CHECK(cache.len() == 7 && cache.step(1) == fork.step(1));
}

void text(const std::string &path) {
    const engine::Model model(path);
    const std::string prompt = "Four score and seven years ago";
    const Tokens tokens = model.tokenize(prompt, false);
    CHECK(tokens.size() > 1 && model.detokenize(tokens) == prompt);
    CHECK(model.tokenize("", false).empty() && model.detokenize(Tokens()).empty());
    std::string longer;
    for (int i = 0; i < 100; i++) longer += prompt + ' ';
    CHECK(model.detokenize(model.tokenize(longer, false)) == longer);

    engine::Decoder decoder(model);
    for (int times = 0; times < 2; times++) {
        std::string streamed;
        for (const engine::Token token : tokens) streamed += decoder.push(token);
        streamed += decoder.finish();
        CHECK(streamed == prompt);
    }
    CHECK(!model.token_text(tokens.back()).empty());
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "UTF-8", model.tokenize("\xff"));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "", model.token_text(static_cast<engine::Token>(model.vocab_size())));
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "", decoder.push(static_cast<engine::Token>(model.vocab_size())));
    CHECK(!model.is_end(tokens.front()));
}

} // namespace

void batches(const std::string &path) {
    engine::Model model(path);
    engine::Cache a(model), b(model), c(model);
    const Tokens tokens{3, 14, 15};
    std::vector<float> last(101), all(3 * 101);
    engine::Batch batch;
    batch.add(a, tokens, last);
    batch.add_all(b, tokens, all);
    batch.add(c, tokens);
    batch.run();
    CHECK(batch.size() == 3 && batch.status(2) == ENGINE_OK && c.len() == 3);
    CHECK(std::vector<float>(all.end() - 101, all.end()) == last && engine::Cache(model).step(tokens) == last);
    const Tokens wrong{101};
    batch.clear();
    batch.add(a, tokens);
    batch.add(b, wrong);
    CHECK_THROWS(ENGINE_ERR_BAD_ARGUMENT, "requests[1]", batch.run());
    CHECK(batch.status(0) == ENGINE_OK && a.len() == 6 && b.len() == 3);
    CHECK_THROWS(ENGINE_ERR_BUFFER_TOO_SMALL, "logits", batch.add(a, tokens, engine::Span<float>(last.data(), 100)));
}

int main(int argc, char **argv) {
    if (argc != 2) return std::fputs("usage: binding SOURCE_DIR\n", stderr), 2;
    const std::string source = argv[1], tiny = source + "/tests/golden/llama-mha/model";
    try {
        CHECK(engine::version() == std::to_string(ENGINE_VERSION_MAJOR) + '.' + std::to_string(ENGINE_VERSION_MINOR) + '.' +
                                       std::to_string(ENGINE_VERSION_PATCH));
        handles(tiny);
        profiles(tiny);
        batches(tiny);
        quantizing(source);
        loading(tiny);
        steps(tiny);
        text(source + "/examples/models/fourscore");
    } catch (const std::exception &error) {
        std::cerr << "unexpected: " << error.what() << '\n';
        return 1;
    }
    if (failures != 0) std::cerr << failures << " failed\n";
    return failures != 0;
}
