// engine.hpp: engine.h for C++17. Handles that free themselves, std::string and std::vector, exceptions for statuses.
//
//     engine::Model model("path/to/model");
//     engine::Cache cache(model);
//     engine::Decoder decoder(model);
//     std::vector<float> logits = cache.step(model.tokenize("Four score"));     // [model.vocab_size()]
//     std::uint32_t token = choose(logits);
//     std::cout << decoder.push(token);
//     cache.step(token, logits);                                                // no allocation
//
// What engine.h says of ownership, threads and units holds here; these classes add no state of their own. Handles can be moved and not
// copied (Cache::fork makes a second cache); one that was moved from, or made by default, may only be assigned to or
// destroyed, or gets ENGINE_ERR_BAD_ARGUMENT. Every function that can fail throws engine::Error. Requires engine 0.1.
#ifndef ENGINE_HPP
#define ENGINE_HPP

#include <engine.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace engine {

/// A token's id, less than Model::vocab_size().
using Token = std::uint32_t;

/// A call that failed: its status, and the library's sentence as what().
class Error : public std::runtime_error {
public:
    explicit Error(engine_status status)
        : std::runtime_error(engine_last_error_message()), status_(status) {}
    Error(engine_status status, const std::string &message) : std::runtime_error(message), status_(status) {}

    /// ENGINE_ERR_...
    engine_status status() const noexcept { return status_; }
    /// The status as it is written in engine.h, such as "ENGINE_ERR_IO".
    const char *name() const noexcept { return engine_status_name(status_); }

private:
    engine_status status_;
};

/// Throws Error unless `status` is ENGINE_OK.
inline void check(engine_status status) {
    if (status != ENGINE_OK) throw Error(status);
}

/// The version of the library that is running.
inline std::string version() { return engine_version(); }

/// Elements in a row that belong to someone else: from (pointer, size) or from anything with data() and size(), such as
/// std::vector, std::array, std::string or, in C++20, std::span.
template <typename T>
class Span {
public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <typename Container,
              typename = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container &>().data()), T *> &&
                                          std::is_convertible_v<decltype(std::declval<Container &>().size()), std::size_t>>>
    constexpr Span(Container &&container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

namespace detail {

struct Free {
    void operator()(engine_model *model) const noexcept { engine_model_free(model); }
    void operator()(engine_cache *cache) const noexcept { engine_cache_free(cache); }
    void operator()(engine_decoder *decoder) const noexcept { engine_decoder_free(decoder); }
};

/// Runs `call(data, &size)` on a buffer of `guess` elements and, if that is too small, once more on one of the size it asks for.
template <typename Buffer, typename Call>
Buffer fill(std::size_t guess, Call call) {
    Buffer buffer(guess, typename Buffer::value_type());
    std::size_t size = guess;
    engine_status status = call(buffer.data(), &size);
    if (status == ENGINE_ERR_BUFFER_TOO_SMALL) {
        buffer.resize(size);
        status = call(buffer.data(), &size);
    }
    check(status);
    buffer.resize(size);
    return buffer;
}

/// A std::function as a C callback, which must not throw: an exception waits here until the library has returned.
struct Progress {
    const std::function<bool(float)> &call;
    std::exception_ptr thrown;

    template <typename Options>
    void put_into(Options &options) noexcept {
        if (!call) return;
        options.user_data = this;
        options.progress = [](void *user_data, float fraction) -> bool {
            Progress &progress = *static_cast<Progress *>(user_data);
            try {
                return progress.call(fraction);
            } catch (...) {
                progress.thrown = std::current_exception();
                return false;
            }
        };
    }
    void rethrow() const {
        if (thrown) std::rethrow_exception(thrown);
    }
};

/// The path for C, which ends at a NUL.
inline const char *c_path(const std::string &path) {
    if (path.find('\0') != std::string::npos) throw Error(ENGINE_ERR_BAD_ARGUMENT, "path has a NUL byte inside");
    return path.c_str();
}

} // namespace detail

/// How to load a model: engine_load_options with a name for each field. Every setter returns the options themselves, so that
/// they can be written in a row: engine::LoadOptions().threads(4).mapping(ENGINE_MAPPING_COPY).
class LoadOptions {
public:
    LoadOptions() noexcept { engine_load_options_init(&options_); }

    /// Threads that work on a step, the caller's counted in. 0: one for each physical core that this process may use.
    LoadOptions &threads(std::uint32_t threads) noexcept { return options_.threads = threads, *this; }
    /// ENGINE_ISA_...
    LoadOptions &isa(std::int32_t isa) noexcept { return options_.isa = isa, *this; }
    /// ENGINE_WEIGHTS_...
    LoadOptions &weights(std::int32_t weights) noexcept { return options_.weights = weights, *this; }
    /// ENGINE_MAPPING_...
    LoadOptions &mapping(std::int32_t mapping) noexcept { return options_.mapping = mapping, *this; }
    /// ENGINE_LOAD_... put together with |.
    LoadOptions &flags(std::uint32_t flags) noexcept { return options_.flags = flags, *this; }
    /// Whether caches note where the time of their steps goes: Cache::profile().
    LoadOptions &profile(bool profile) noexcept { return options_.profile = profile, *this; }
    /// ENGINE_MATMUL_...
    LoadOptions &matmul(std::int32_t matmul) noexcept { return options_.matmul = matmul, *this; }
    /// Called while the model loads with the fraction done, 0 to 1; false cancels the load. An exception that it throws cancels
    /// the load too and comes out of Model's constructor.
    LoadOptions &progress(std::function<bool(float)> progress) { return progress_ = std::move(progress), *this; }

    /// What loading `path` with these options would take, told from the files' headers.
    engine_memory_estimate estimate(const std::string &path) const {
        engine_memory_estimate estimate;
        estimate.struct_size = sizeof estimate;
        check(engine_estimate_memory(path.c_str(), &options_, &estimate));
        return estimate;
    }

private:
    friend class Model;
    engine_load_options options_;
    std::function<bool(float)> progress_;
};

/// How to make a cache: engine_cache_options with a name for each field.
class CacheOptions {
public:
    CacheOptions() noexcept { engine_cache_options_init(&options_); }

    /// Most tokens that the cache may hold. 0: the model's context length.
    CacheOptions &max_tokens(std::size_t max_tokens) noexcept { return options_.max_tokens = max_tokens, *this; }
    /// ENGINE_KV_...
    CacheOptions &kv_type(std::int32_t kv_type) noexcept { return options_.kv_type = kv_type, *this; }
    /// How many tokens truncate() can take back at least where layers see only a window. 0: 64.
    CacheOptions &rewind_tokens(std::size_t tokens) noexcept { return options_.rewind_tokens = tokens, *this; }

private:
    friend class Cache;
    engine_cache_options options_;
};

/// How to quantise a file: engine_quantize_options with a name for each field.
class QuantizeOptions {
public:
    QuantizeOptions() noexcept { engine_quantize_options_init(&options_); }

    /// Threads, the caller's counted in. 0: one for each physical core that this process may use.
    QuantizeOptions &threads(std::uint32_t threads) noexcept { return options_.threads = threads, *this; }
    /// Called while the file is written with the fraction done, 0 to 1; false cancels. An exception cancels too, and comes out of
    /// quantize().
    QuantizeOptions &progress(std::function<bool(float)> progress) { return progress_ = std::move(progress), *this; }

private:
    friend void quantize(const std::string &, const std::string &, std::int32_t, const QuantizeOptions &);
    engine_quantize_options options_;
    std::function<bool(float)> progress_;
};

/// Writes the GGUF model at `input` to `output` with its matrices quantised to `weights`, ENGINE_WEIGHTS_Q8_0 and after.
inline void quantize(const std::string &input, const std::string &output, std::int32_t weights,
                     const QuantizeOptions &options = QuantizeOptions()) {
    detail::Progress progress{options.progress_, nullptr};
    engine_quantize_options raw = options.options_;
    progress.put_into(raw);
    const engine_status status = engine_quantize(detail::c_path(input), detail::c_path(output), weights, &raw);
    progress.rethrow();
    check(status);
}

/// A loaded model; any number of threads may use it at once.
class Model {
public:
    Model() noexcept = default;
    /// Loads a Hugging Face directory, a directory of .npy files or a GGUF file.
    explicit Model(const std::string &path, const LoadOptions &options = LoadOptions()) {
        detail::Progress progress{options.progress_, nullptr};
        engine_load_options raw = options.options_;
        progress.put_into(raw);
        engine_model *model = nullptr;
        const engine_status status = engine_load_model(detail::c_path(path), &raw, &model);
        handle_.reset(model);
        progress.rethrow();
        check(status);
    }

    /// Rows of the output head: the number of one position's logits.
    std::size_t vocab_size() const noexcept { return engine_model_vocab_size(get()); }
    /// Most tokens that one sequence may have.
    std::size_t context_length() const noexcept { return engine_model_context_length(get()); }
    /// Facts for a person; the strings in it live as long as the model.
    engine_model_info info() const {
        engine_model_info info;
        info.struct_size = sizeof info;
        check(engine_model_get_info(get(), &info));
        return info;
    }

    /// The value of a key of the GGUF metadata or of config.json as text; Error (ENGINE_ERR_NOT_FOUND) if there is none.
    std::string metadata(const std::string &key) const {
        return detail::fill<std::string>(
            128, [&](char *text, std::size_t *n) { return engine_model_metadata(get(), key.c_str(), text, n); });
    }
    /// The keys that metadata() knows, in alphabetic order.
    std::vector<std::string> metadata_keys() const {
        std::vector<std::string> keys(engine_model_metadata_count(get()));
        for (std::size_t i = 0; i < keys.size(); i++) {
            keys[i] = detail::fill<std::string>(
                64, [&](char *text, std::size_t *n) { return engine_model_metadata_key(get(), i, text, n); });
        }
        return keys;
    }

    /// Token ids of a text, with the special tokens that the model puts around one.
    std::vector<Token> tokenize(std::string_view text, bool add_special = true) const {
        return detail::fill<std::vector<Token>>(text.size() + 8, [&](Token *tokens, std::size_t *n) {
            return engine_model_tokenize(get(), text.data(), text.size(), add_special, tokens, n);
        });
    }
    /// Text of token ids, special tokens left out.
    std::string detokenize(Span<const Token> tokens) const {
        return detail::fill<std::string>(8 * tokens.size(), [&](char *text, std::size_t *n) {
            return engine_model_detokenize(get(), tokens.data(), tokens.size(), text, n);
        });
    }
    /// The text that one token stands for inside a text.
    std::string token_text(Token token) const {
        return detail::fill<std::string>(32, [&](char *text, std::size_t *n) {
            return engine_model_token_text(get(), token, text, n);
        });
    }
    /// Whether generation should stop at `token`.
    bool is_end(Token token) const noexcept { return engine_model_is_end(get(), token); }
    /// The token that begins a text; throws ENGINE_ERR_NOT_FOUND if the model has none.
    Token bos() const {
        Token token = 0;
        check(engine_model_bos(get(), &token));
        return token;
    }

    /// The C handle, still owned by this object.
    const engine_model *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

private:
    std::unique_ptr<engine_model, detail::Free> handle_;
};

/// One sequence. One thread at a time may use it; cancel() may be called from any. It keeps its model alive.
class Cache {
public:
    Cache() noexcept = default;
    explicit Cache(const Model &model, const CacheOptions &options = CacheOptions()) : vocab_size_(model.vocab_size()) {
        engine_cache *cache = nullptr;
        check(engine_new_cache(model.get(), &options.options_, &cache));
        handle_.reset(cache);
    }

    /// Feeds tokens; the last one's logits, [vocab_size].
    std::vector<float> step(Span<const Token> tokens) {
        std::vector<float> logits(vocab_size_);
        step(tokens, logits);
        return logits;
    }
    /// The same into memory of the caller's: `logits` has at least vocab_size elements.
    void step(Span<const Token> tokens, Span<float> logits) {
        expect_room(logits.size(), vocab_size_);
        step(tokens.data(), tokens.size(), logits.data());
    }
    /// Feeds one token.
    std::vector<float> step(Token token) { return step(Span<const Token>(&token, 1)); }
    void step(Token token, Span<float> logits) { step(Span<const Token>(&token, 1), logits); }
    /// As engine_step(): `logits` is null or has vocab_size elements.
    void step(const Token *tokens, std::size_t n_tokens, float *logits) {
        check(engine_step(get(), tokens, n_tokens, logits));
    }
    /// Feeds tokens without asking for logits.
    void feed(Span<const Token> tokens) { step(tokens.data(), tokens.size(), nullptr); }

    /// Feeds tokens; the logits of every position fed, [tokens.size()][vocab_size].
    std::vector<float> step_all(Span<const Token> tokens) {
        // More tokens than fit get the library's error, not an allocation for their logits.
        std::vector<float> logits(tokens.size() <= max_tokens() ? tokens.size() * vocab_size_ : 1);
        check(engine_step_all(get(), tokens.data(), tokens.size(), logits.data()));
        return logits;
    }
    /// The same into memory of the caller's: `logits` has at least tokens.size() * vocab_size elements.
    void step_all(Span<const Token> tokens, Span<float> logits) {
        if (tokens.size() <= max_tokens()) expect_room(logits.size(), tokens.size() * vocab_size_);
        check(engine_step_all(get(), tokens.data(), tokens.size(), logits.data()));
    }

    /// Tokens held.
    std::size_t len() const noexcept { return engine_cache_len(get()); }
    /// Most tokens it may hold.
    std::size_t max_tokens() const noexcept { return engine_cache_max_tokens(get()); }
    /// Keeps the first `len` tokens.
    void truncate(std::size_t len) { check(engine_cache_truncate(get(), len)); }
    /// A second cache with the same tokens; memory is shared until one of them writes.
    Cache fork() const {
        engine_cache *copy = nullptr;
        check(engine_cache_fork(get(), &copy));
        Cache cache;
        cache.handle_.reset(copy);
        cache.vocab_size_ = vocab_size_;
        return cache;
    }
    /// Where the time of the steps went, if the model was loaded with LoadOptions::profile(): first all passes, then op by op. The
    /// names live for ever.
    std::vector<engine_op_profile> profile() const {
        std::vector<engine_op_profile> ops;
        engine_op_profile op{};
        op.struct_size = sizeof op;
        engine_status status = ENGINE_OK;
        while ((status = engine_cache_profile(get(), ops.size(), &op)) == ENGINE_OK) ops.push_back(op);
        if (status != ENGINE_ERR_NOT_FOUND) check(status);
        return ops;
    }
    /// Begins anew what profile() tells.
    void reset_profile() { check(engine_cache_reset_profile(get())); }
    /// From any thread: the step that is running, or the next one, ends with ENGINE_ERR_CANCELLED.
    void cancel() const noexcept { engine_cache_cancel(get()); }

    /// The C handle, still owned by this object.
    engine_cache *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

private:
    friend class Batch;
    static void expect_room(std::size_t size, std::size_t needed) {
        if (size >= needed) return;
        throw Error(ENGINE_ERR_BUFFER_TOO_SMALL, "logits: " + std::to_string(needed) + " elements are needed, there is room for " +
                                                     std::to_string(size));
    }

    std::unique_ptr<engine_cache, detail::Free> handle_;
    std::size_t vocab_size_ = 0;
};

/// Steps of many caches at once, which share the passes over the weights: add() each, then run(). The caches, tokens and logits are
/// looked at in run(), so they must live until then.
class Batch {
public:
    /// Feeds tokens to a cache without asking for logits.
    void add(Cache &cache, Span<const Token> tokens) { push(cache, tokens, nullptr, ENGINE_LOGITS_NONE); }
    /// The same with the last token's logits: `logits` has at least vocab_size elements.
    void add(Cache &cache, Span<const Token> tokens, Span<float> logits) {
        cache.expect_room(logits.size(), cache.vocab_size_);
        push(cache, tokens, logits.data(), ENGINE_LOGITS_LAST);
    }
    /// The same with the logits of every token: `logits` has at least tokens.size() * vocab_size elements.
    void add_all(Cache &cache, Span<const Token> tokens, Span<float> logits) {
        if (tokens.size() <= cache.max_tokens()) cache.expect_room(logits.size(), tokens.size() * cache.vocab_size_);
        push(cache, tokens, logits.data(), ENGINE_LOGITS_ALL);
    }

    /// Runs the steps. Throws the first failure, after all of them have run: status() tells each one's.
    void run() { check(engine_step_batch(requests_.data(), requests_.size())); }
    /// How the step added as number `i` ended.
    engine_status status(std::size_t i) const { return requests_.at(i).status; }
    std::size_t size() const noexcept { return requests_.size(); }
    void clear() noexcept { requests_.clear(); }

private:
    void push(Cache &cache, Span<const Token> tokens, float *logits, std::int32_t want) {
        engine_request request{};
        request.struct_size = sizeof request;
        request.cache = cache.get();
        request.tokens = tokens.data();
        request.n_tokens = tokens.size();
        request.logits = logits;
        request.want = want;
        requests_.push_back(request);
    }

    std::vector<engine_request> requests_;
};

/// Turns tokens into text one by one, in whole characters. One thread at a time may use it. It keeps its model alive.
class Decoder {
public:
    Decoder() noexcept = default;
    explicit Decoder(const Model &model) {
        engine_decoder *decoder = nullptr;
        check(engine_new_decoder(model.get(), &decoder));
        handle_.reset(decoder);
    }

    /// The text that one more token completes; may be empty.
    std::string push(Token token) {
        return detail::fill<std::string>(32, [&](char *text, std::size_t *n) {
            return engine_decoder_push(get(), token, text, n);
        });
    }
    /// Ends the text: what is still held back. The decoder is as new afterwards.
    std::string finish() {
        return detail::fill<std::string>(32, [&](char *text, std::size_t *n) { return engine_decoder_finish(get(), text, n); });
    }

    /// The C handle, still owned by this object.
    engine_decoder *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

private:
    std::unique_ptr<engine_decoder, detail::Free> handle_;
};

} // namespace engine

#endif // ENGINE_HPP
