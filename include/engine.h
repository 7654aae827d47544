/*
 * engine: decoder-only language models on the CPU, inside your program.
 *
 * Generated from src/capi; changes to this file itself are lost.
 *
 * The whole of it in a few lines (every call returns a status to check):
 *
 *     engine_model *model;  engine_cache *cache;
 *     engine_load_model("path", NULL, &model);
 *     engine_new_cache(model, NULL, &cache);
 *     float *logits = malloc(engine_model_vocab_size(model) * sizeof *logits);
 *     engine_model_tokenize(model, prompt, strlen(prompt), true, tokens, &n_tokens);
 *     engine_step(cache, tokens, n_tokens, logits);          the prompt in one step
 *     while (!engine_model_is_end(model, token = choose(logits)))
 *         engine_step(cache, &token, 1, logits);             then token by token
 *     engine_cache_free(cache);  engine_model_free(model);
 *
 * Handles and ownership
 *     engine_load_model() and engine_new_...() make a handle; the function named ..._free() gives it up, and NULL is fine
 *     there. A cache and a decoder keep their model alive, so the order of freeing does not matter. Whatever
 *     else a function returns by pointer belongs to the library: never pass it to free(). What you pass in is only
 *     looked at during the call; nothing keeps your pointers, the progress callback's included.
 *
 * Threads
 *     A const engine_model * may be used by any number of threads at once. An engine_cache * or engine_decoder * may be used
 *     by one thread at a time, whichever that is; a second one that comes at the same time gets
 *     ENGINE_ERR_BAD_ARGUMENT. engine_cache_cancel(), engine_cache_len() and engine_cache_max_tokens() may be
 *     called from any thread at any time. Nobody may use a handle while, or after, it is freed. A model has its own worker
 *     threads; when several caches of one model step at once, one step has the workers and each other runs on its
 *     caller's thread alone. Results do not depend on any of this. After fork() a child has no worker threads: load
 *     models in the child.
 *
 * Errors
 *     A function that can fail returns engine_status: ENGINE_OK (0) or an ENGINE_ERR_ constant, and
 *     engine_last_error_message() then has a sentence for a person. On failure outputs are not written, except:
 *     a handle to be returned is NULL, a length says what would be needed (ENGINE_ERR_BUFFER_TOO_SMALL), and logits
 *     are undefined. A failed or cancelled step leaves the cache as it was. The library does not abort, exit, raise
 *     signals, or write to standard output or standard error; a defect that it catches in itself is
 *     ENGINE_ERR_INTERNAL, after which a cache that was at work answers ENGINE_ERR_POISONED.
 *
 * Pointers
 *     Arrays are (pointer, length); with length 0 the pointer is not looked at and may be NULL. Every other pointer may
 *     be NULL only where its function says so, and otherwise gives ENGINE_ERR_BAD_ARGUMENT with the parameter's name in
 *     the message; getters return 0 or false for a NULL handle. An output may not overlap an input. What the library
 *     cannot see is up to the caller: that memory is as large as the length says, that a handle has not been freed.
 *
 * Units
 *     Text is UTF-8 and its lengths are bytes, without a final NUL. A token is a uint32_t id, less than
 *     engine_model_vocab_size(). Logits are 32-bit floats, one for each id, unnormalised. Arrays of more than one
 *     dimension are row-major, their shapes written outermost first: float[n_tokens][vocab_size]. Byte order is the machine's.
 *
 * Option structs
 *     The first field, struct_size, is the size that the caller was compiled with: engine_..._options_init() sets it
 *     and zeroes the rest. NULL for a whole struct means defaults, and zero in a field always means its default. Later
 *     versions only append fields. So old programs run with new libraries, and new programs with old ones unless they
 *     set a field that the library does not know, which is ENGINE_ERR_BAD_ARGUMENT.
 *
 * Environment
 *     ENGINE_ISA (scalar, avx2, avx512, amx) stands in for engine_load_options.isa where that is ENGINE_ISA_AUTO. Nothing else
 *     is read, and nothing needs to be set.
 */
#ifndef ENGINE_H
#define ENGINE_H


#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/// ENGINE_VERSION_MAJOR of the header that a program was compiled with; engine_version() is the library it runs with.
#define ENGINE_VERSION_MAJOR 0

/// See ENGINE_VERSION_MAJOR.
#define ENGINE_VERSION_MINOR 1

/// See ENGINE_VERSION_MAJOR.
#define ENGINE_VERSION_PATCH 0

/// engine_load_options.isa: the best instruction set that this CPU has, unless the environment variable ENGINE_ISA names one.
#define ENGINE_ISA_AUTO 0

/// Plain code without vector instructions, the slow reference.
#define ENGINE_ISA_SCALAR 1

/// AVX2, FMA and F16C.
#define ENGINE_ISA_AVX2 2

/// AVX-512 F, BW, VL and DQ, and VNNI where the CPU has it. On AMD's CPUs (Zen 4 and later) prompts pass through dot products of bfloat16 where the
/// weights are that.
#define ENGINE_ISA_AVX512 3

/// AVX-512 with VNNI, and for prompts AMX tiles of bfloat16. The system is asked for leave to use tiles, which holds for the whole
/// process and makes its signal frames longer.
#define ENGINE_ISA_AMX 4

/// NEON. Not in this version: ENGINE_ERR_UNSUPPORTED.
#define ENGINE_ISA_NEON 5

/// engine_load_options.weights: as they lie in the file, used in place.
#define ENGINE_WEIGHTS_KEEP 0

/// Converted to 32-bit floats while loading.
#define ENGINE_WEIGHTS_F32 1

/// Converted to bfloat16 while loading.
#define ENGINE_WEIGHTS_BF16 2

/// Quantised to 8 bits while loading, or by engine_quantize(). Norms, biases, position tables and routers stay as they are; a matrix
/// whose rows are no whole blocks of the type gets a similar one with shorter blocks, or 16-bit floats.
#define ENGINE_WEIGHTS_Q8_0 3

/// Quantised to 4 bits (5 in some of the first layers, 6 in the head: llama.cpp's Q4_K_S).
#define ENGINE_WEIGHTS_Q4_K 4

/// Quantised to 4 bits of the older, coarser kind (6 in the head).
#define ENGINE_WEIGHTS_Q4_0 5

/// Quantised to 5 bits (6 in the head: llama.cpp's Q5_K_S).
#define ENGINE_WEIGHTS_Q5_K 6

/// Quantised to 6 bits.
#define ENGINE_WEIGHTS_Q6_K 7

/// Quantised to 4 bits, and to 6 in the head and half of the attention's values and feed-forward blocks' second matrices: the mixture
/// that most GGUF files have.
#define ENGINE_WEIGHTS_Q4_K_M 8

/// engine_load_options.mapping: the files are mapped. Loading costs no time and no memory of its own, but as with every
/// mapping the process gets SIGBUS if someone truncates a file while the model is in use.
#define ENGINE_MAPPING_MAP 0

/// The files are read into memory, on Linux into large pages where there are any, and closed.
#define ENGINE_MAPPING_COPY 1

/// The files are mapped, and a SIGBUS handler, installed for the process, turns a truncated file into ENGINE_ERR_IO.
#define ENGINE_MAPPING_GUARDED 2

/// engine_load_options.matmul: products with f32 weights are computed in f32.
#define ENGINE_MATMUL_EXACT 0

/// With prompts, on a CPU with AMX, they may be made of products of bfloat16 numbers: each f32 is the sum of three, six products of
/// which are summed, with an error of f32's own size. Numbers below 2^-126 then count as zero, and those within 0.4 % of f32's
/// largest as infinite. On other CPUs the same as ENGINE_MATMUL_EXACT.
#define ENGINE_MATMUL_SPLIT 1

/// engine_load_options.flags: where a GGUF file names a pre-tokenizer that this version does not know, texts are split by the default
/// one, which gives other tokens than the model was trained on for some texts; without it, such a file has no tokenizer.
#define ENGINE_LOAD_DEFAULT_PRE_TOKENIZER 1

/// engine_load_options.flags: each of the model's own threads stays on a physical core of its own, of those that the thread which loads
/// may use; the first of them is left to the threads that call, which are never moved. ENGINE_ERR_BAD_ARGUMENT if there are fewer cores
/// than threads, ENGINE_ERR_UNSUPPORTED on other systems than Linux. Models that are all loaded so share these cores.
#define ENGINE_LOAD_PIN_THREADS 2

/// engine_cache_options.kv_type: ENGINE_KV_F32.
#define ENGINE_KV_DEFAULT 0

/// Keys and values as 32-bit floats.
#define ENGINE_KV_F32 1

/// Keys and values as 16-bit IEEE floats: half the memory.
#define ENGINE_KV_F16 2

/// Keys and values as bfloat16: half the memory.
#define ENGINE_KV_BF16 3

/// Keys and values in 8 bits: little more than a quarter of the memory of 32-bit floats. Each integer is to be multiplied by a scale that 32 elements of a key
/// share, and all of a value. Attention then multiplies integers: queries and weights are rounded to 16 bits.
#define ENGINE_KV_Q8_0 4

/// engine_request.want: no logits.
#define ENGINE_LOGITS_NONE 0

/// engine_request.want: those that follow the last token fed, float[vocab_size].
#define ENGINE_LOGITS_LAST 1

/// engine_request.want: those of every token fed, float[n_tokens][vocab_size].
#define ENGINE_LOGITS_ALL 2

/// One sequence: its tokens' keys and values. One thread at a time may use it, whichever that is; only engine_cache_cancel(),
/// engine_cache_len() and engine_cache_max_tokens() may be called beside.
typedef struct engine_cache engine_cache;

/// Turns tokens into text one by one, in whole characters. One thread at a time may use it.
typedef struct engine_decoder engine_decoder;

/// A loaded model. Nothing changes it: any number of threads may use one at once.
typedef struct engine_model engine_model;

/// What a fallible function returns: ENGINE_OK or one of the ENGINE_ERR_ constants. The values never change; a later version
/// may add some, so treat an unknown one as a failure.
typedef int32_t engine_status;

/// Called now and then while a model loads or is quantised, on the calling thread, with the fraction done, 0 to 1. Returning false
/// cancels the call, which then gives ENGINE_ERR_CANCELLED. It must return: no C++ exception and no longjmp may leave it.
typedef bool (*engine_progress_callback)(void *user_data, float fraction);

/// How to load a model. Make one with engine_load_options_init(), then set what should differ from the default.
typedef struct engine_load_options {
    /// sizeof(engine_load_options); engine_load_options_init() sets it.
    uint32_t struct_size;
    /// Threads that work on a step, the caller's counted in. 0: one for each physical core that this process may use.
    uint32_t threads;
    /// ENGINE_ISA_…; one that this CPU lacks is ENGINE_ERR_UNSUPPORTED.
    int32_t isa;
    /// ENGINE_WEIGHTS_…
    int32_t weights;
    /// ENGINE_MAPPING_…
    int32_t mapping;
    /// 0, or ENGINE_LOAD_… put together with |.
    uint32_t flags;
    /// NULL, or what to call while loading.
    engine_progress_callback progress;
    /// Handed to `progress` as it is.
    void *user_data;
    /// 1: caches note where the time of their steps goes, at the cost of reading the clock once an op; see engine_cache_profile(). 0: not.
    uint32_t profile;
    /// ENGINE_MATMUL_…
    int32_t matmul;
} engine_load_options;

/// Facts about a model, for a person. Set struct_size and call engine_model_get_info().
typedef struct engine_model_info {
    /// sizeof(engine_model_info), set by the caller.
    uint32_t struct_size;
    /// Threads that work on a step, the caller's counted in.
    uint32_t threads;
    /// Number of parameters.
    uint64_t n_params;
    /// Bytes of weights, in memory or mapped.
    uint64_t weight_bytes;
    /// Decoder layers.
    size_t n_layers;
    /// Width of the residual stream.
    size_t hidden_size;
    /// Query heads.
    size_t n_heads;
    /// Key and value heads.
    size_t n_kv_heads;
    /// Elements of one head.
    size_t head_dim;
    /// The family, such as "llama", "gpt2", "olmo2"; lives as long as the model.
    const char *architecture;
    /// The instruction set in use, such as "scalar", "avx2", "avx512"; lives as long as the model.
    const char *isa;
    /// What the files call the model, "" if they do not; lives as long as the model.
    const char *name;
    /// The type that most of the weights have in the files, such as "F32", "BF16", "Q4_K"; lives as long as the model.
    const char *file_type;
} engine_model_info;

/// Memory that a model and its caches will take, in bytes. Set struct_size and call engine_estimate_memory().
typedef struct engine_memory_estimate {
    /// sizeof(engine_memory_estimate), set by the caller.
    uint32_t struct_size;
    /// 0.
    uint32_t reserved;
    /// Weights that stay in the mapped files: the system may drop their pages and read them again.
    uint64_t weights_mapped;
    /// Weights in memory of the process: converted ones, norms and biases, and everything with ENGINE_MAPPING_COPY.
    uint64_t weights_packed;
    /// What each cache (ENGINE_KV_F32; half of it for the 16-bit types) grows by for 1000 tokens.
    uint64_t cache_per_1000_tokens;
    /// What each cache needs at most beside that, however long it gets, for layers that see only a window of the last tokens.
    uint64_t cache_windows;
} engine_memory_estimate;

/// How to make a cache. Make one with engine_cache_options_init(), then set what should differ from the default.
typedef struct engine_cache_options {
    /// sizeof(engine_cache_options); engine_cache_options_init() sets it.
    uint32_t struct_size;
    /// ENGINE_KV_…: the element type of the keys and values.
    int32_t kv_type;
    /// Most tokens that the cache may hold, at most engine_model_context_length(). 0: that many. Memory is taken as tokens
    /// come, not for this number.
    size_t max_tokens;
    /// How many tokens engine_cache_truncate() can take back at least, in models with layers that see only a window of the last
    /// tokens: those layers let go of what is further back. 0: 64. For other models it says nothing: they keep everything.
    size_t rewind_tokens;
} engine_cache_options;

/// One sequence's part of engine_step_batch(). Zero the whole struct, then set struct_size and what is wanted.
typedef struct engine_request {
    /// sizeof(engine_request), the same in all requests of a batch.
    uint32_t struct_size;
    /// Written: how this request ended.
    engine_status status;
    /// The sequence. No two requests may have the same.
    struct engine_cache *cache;
    /// What is fed to it: uint32_t[n_tokens].
    const uint32_t *tokens;
    /// See tokens.
    size_t n_tokens;
    /// Where its logits go; ignored with ENGINE_LOGITS_NONE.
    float *logits;
    /// ENGINE_LOGITS_…
    int32_t want;
    /// 0; anything else is refused.
    uint32_t reserved;
} engine_request;

/// What one op of the steps has taken. Set struct_size and call engine_cache_profile().
typedef struct engine_op_profile {
    /// sizeof(engine_op_profile), set by the caller.
    uint32_t struct_size;
    /// 0.
    uint32_t reserved;
    /// Such as "qkv", "attention", "gate_up"; lives for ever.
    const char *name;
    /// How often it ran.
    uint64_t calls;
    /// How long it took, in all calls together.
    uint64_t nanoseconds;
    /// Bytes of weights, keys and values that it had to read or write, in all calls together, each counted once in a call. Activations
    /// are not counted.
    uint64_t bytes;
} engine_op_profile;

/// How to quantise a file. Make one with engine_quantize_options_init(), then set what should differ from the default.
typedef struct engine_quantize_options {
    /// sizeof(engine_quantize_options); engine_quantize_options_init() sets it.
    uint32_t struct_size;
    /// Threads, the caller's counted in. 0: one for each physical core that this process may use.
    uint32_t threads;
    /// 0: this version has no flags.
    uint32_t flags;
    /// 0.
    uint32_t reserved;
    /// NULL, or what to call while writing.
    engine_progress_callback progress;
    /// Handed to `progress` as it is.
    void *user_data;
} engine_quantize_options;

/// Done.
#define ENGINE_OK 0

/// An argument is outside what the function takes: NULL, an unknown option, a token id that the model does not have…
#define ENGINE_ERR_BAD_ARGUMENT 1

/// The caller's buffer is too small; its length argument now holds the size that is needed.
#define ENGINE_ERR_BUFFER_TOO_SMALL 2

/// The file, or the thing asked for, does not exist.
#define ENGINE_ERR_NOT_FOUND 3

/// The operating system could not read or map a file.
#define ENGINE_ERR_IO 4

/// A file breaks its own format.
#define ENGINE_ERR_BAD_FILE 5

/// A valid file or request that this version, or this CPU, cannot serve.
#define ENGINE_ERR_UNSUPPORTED 6

/// Memory could not be had.
#define ENGINE_ERR_OUT_OF_MEMORY 7

/// The tokens do not fit into the cache; nothing was changed.
#define ENGINE_ERR_CONTEXT_FULL 8

/// The progress callback or engine_cache_cancel asked to stop; nothing was changed.
#define ENGINE_ERR_CANCELLED 9

/// An earlier ENGINE_ERR_INTERNAL left this object unusable: all that can be done with it is to free it.
#define ENGINE_ERR_POISONED 10

/// A defect of this library, caught: please report the message.
#define ENGINE_ERR_INTERNAL 11

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// The sentence of the calling thread's last failed call, in English, for a person: it names the file, the tensor, the key or
/// the argument, what was expected and what was found. NUL-terminated UTF-8, at most 2047 bytes; "" if no call has failed on
/// this thread; never NULL. A call that succeeds leaves it as it is. Valid until this thread's next call into the library
/// (this function excepted), or until the thread ends.
const char *engine_last_error_message(void);

/// The name of `status` as it is written in this header, such as "ENGINE_ERR_IO"; "unknown status" for any other number.
/// Never NULL; static.
const char *engine_status_name(engine_status status);

/// The version of the library that is running, "major.minor.patch", such as "0.1.0". Never NULL; static.
const char *engine_version(void);

/// Loads a model.
///
/// path: a Hugging Face directory (config.json and safetensors), a directory of .npy files, or a GGUF file, NUL-terminated;
/// which of them it is, is told from what is there. options: NULL means defaults. *model: the new model, to be freed
/// with engine_model_free(); NULL after a failure.
///
/// Errors: ENGINE_ERR_NOT_FOUND, ENGINE_ERR_IO, ENGINE_ERR_BAD_FILE, ENGINE_ERR_UNSUPPORTED (an architecture, a tensor type or
/// a setting that this version does not have, named in the message), ENGINE_ERR_OUT_OF_MEMORY, ENGINE_ERR_CANCELLED.
engine_status engine_load_model(const char *path,
                                const struct engine_load_options *options,
                                struct engine_model **model);

/// Gives the model up; NULL is fine. Its caches and decoders stay usable: the memory goes with the last of them.
void engine_model_free(struct engine_model *model);

/// Rows of the output head: the number of floats of one position's logits, and one more than the largest token id. It can be
/// more than the tokenizer has tokens. 0 for NULL.
size_t engine_model_vocab_size(const struct engine_model *model);

/// Most tokens that one sequence of this model may have. 0 for NULL.
size_t engine_model_context_length(const struct engine_model *model);

/// Writes facts about the model into *info, whose struct_size the caller has set.
engine_status engine_model_get_info(const struct engine_model *model, struct engine_model_info *info);

/// Token ids of a text, by the model's own tokenizer.
///
/// text, text_len: UTF-8 bytes, no NUL needed. add_special: also add the special tokens that the model puts around a text
/// (a beginning-of-text token for most), as its tokenizer says. tokens: uint32_t[*n_tokens]; *n_tokens: the capacity on
/// entry, the number of tokens on return, also with ENGINE_ERR_BUFFER_TOO_SMALL, when tokens is left as it was. So a call with
/// *n_tokens = 0 and tokens = NULL asks for the size; text_len + 8 is enough for most tokenizers.
///
/// Errors: ENGINE_ERR_BUFFER_TOO_SMALL; ENGINE_ERR_BAD_ARGUMENT for text that is not UTF-8; the reason why there is no
/// tokenizer, where the model has none that can encode.
engine_status engine_model_tokenize(const struct engine_model *model,
                                    const char *text,
                                    size_t text_len,
                                    bool add_special,
                                    uint32_t *tokens,
                                    size_t *n_tokens);

/// Text of token ids, by the model's own tokenizer; special tokens are left out.
///
/// tokens: uint32_t[n_tokens]. text: char[*text_len], written without a final NUL; *text_len: the capacity in bytes on entry,
/// the length on return, also with ENGINE_ERR_BUFFER_TOO_SMALL, when text is left as it was. The text is UTF-8; bytes that are
/// no character become U+FFFD. For text that arrives token by token see engine_new_decoder().
///
/// Errors: ENGINE_ERR_BUFFER_TOO_SMALL; ENGINE_ERR_BAD_ARGUMENT for an id that the model does not have; the reason why there
/// is no tokenizer.
engine_status engine_model_detokenize(const struct engine_model *model,
                                      const uint32_t *tokens,
                                      size_t n_tokens,
                                      char *text,
                                      size_t *text_len);

/// The text that one token stands for inside a text: a leading space is kept, a special token is as it is written, such as
/// "</s>". For lists of candidates; a token may be a part of a character, so put no text together from these.
///
/// text, text_len and errors as for engine_model_detokenize().
engine_status engine_model_token_text(const struct engine_model *model,
                                      uint32_t token,
                                      char *text,
                                      size_t *text_len);

/// Whether generation should stop at `token`: an end-of-text token or its like. False for NULL, for a model without a tokenizer and
/// for an id that the model does not have.
bool engine_model_is_end(const struct engine_model *model,
                         uint32_t token);

/// The token that begins a text: what to feed when there is no prompt. ENGINE_ERR_NOT_FOUND if the model has none.
engine_status engine_model_bos(const struct engine_model *model, uint32_t *token);

/// Tells what engine_load_model() with the same path and options would take, and caches of that model, from the files' headers
/// alone. The activations of a step, a few megabytes a cache, are not counted. *estimate: struct_size is set by the caller.
///
/// Errors: as engine_load_model(), as far as the headers tell.
engine_status engine_estimate_memory(const char *path,
                                     const struct engine_load_options *options,
                                     struct engine_memory_estimate *estimate);

/// The value of one key of a GGUF file's metadata, or of a directory's config.json, as text: a text as it is, a number or a truth
/// value as JSON has it, a list as JSON. key: NUL-terminated, such as "general.name" or "llama.rope.freq_base"; a key inside an object
/// of config.json has the object's name and a dot before it, such as "rope_parameters.rope_theta".
///
/// text, text_len as for engine_model_detokenize().
///
/// Errors: ENGINE_ERR_NOT_FOUND if there is no such key; ENGINE_ERR_BUFFER_TOO_SMALL.
engine_status engine_model_metadata(const struct engine_model *model,
                                    const char *key,
                                    char *text,
                                    size_t *text_len);

/// How many keys engine_model_metadata() knows. 0 for NULL.
size_t engine_model_metadata_count(const struct engine_model *model);

/// The key with the number `index`, from 0, in alphabetic order.
///
/// text, text_len as for engine_model_detokenize().
///
/// Errors: ENGINE_ERR_BAD_ARGUMENT if index is not less than engine_model_metadata_count(); ENGINE_ERR_BUFFER_TOO_SMALL.
engine_status engine_model_metadata_key(const struct engine_model *model,
                                        size_t index,
                                        char *text,
                                        size_t *text_len);

/// A new, empty sequence of `model`. options: NULL means defaults. *cache: the new cache, to be freed with
/// engine_cache_free(); NULL after a failure. It keeps the model alive.
///
/// Errors: ENGINE_ERR_BAD_ARGUMENT for more max_tokens than the model's context length; ENGINE_ERR_OUT_OF_MEMORY.
engine_status engine_new_cache(const struct engine_model *model,
                               const struct engine_cache_options *options,
                               struct engine_cache **cache);

/// Frees the cache; NULL is fine.
void engine_cache_free(struct engine_cache *cache);

/// Tokens held. 0 for NULL.
size_t engine_cache_len(const struct engine_cache *cache);

/// Most tokens that the cache may hold. 0 for NULL.
size_t engine_cache_max_tokens(const struct engine_cache *cache);

/// Keeps the first `len` tokens, as if the rest had never been fed; 0 empties the cache.
///
/// Errors: ENGINE_ERR_BAD_ARGUMENT if len is more than engine_cache_len(), or so much less that layers which see only a window of
/// the last tokens no longer hold what is needed (engine_cache_options.rewind_tokens): the message names the least.
engine_status engine_cache_truncate(struct engine_cache *cache,
                                    size_t len);

/// A second cache with the same tokens, which goes its own way from here. The memory of what they have in common is shared until
/// one of the two writes to it. *copy: the new cache, to be freed with engine_cache_free(); NULL after a failure.
engine_status engine_cache_fork(const struct engine_cache *cache,
                                struct engine_cache **copy);

/// Feeds tokens and computes what could come next.
///
/// tokens: uint32_t[n_tokens], each less than engine_model_vocab_size(). logits: NULL, or float[vocab_size] for the logits that follow the last
/// token fed (unnormalised: softmax gives probabilities). The two may not overlap. On an error the cache is as it was, and
/// logits has no meaning. With n_tokens = 0 nothing happens; to ask for logits then is an error.
///
/// Errors: ENGINE_ERR_CONTEXT_FULL if the cache has no room for n_tokens more; ENGINE_ERR_BAD_ARGUMENT for a token id that
/// the model does not have; ENGINE_ERR_CANCELLED; ENGINE_ERR_OUT_OF_MEMORY; ENGINE_ERR_IO if a guarded file was truncated;
/// ENGINE_ERR_POISONED.
engine_status engine_step(struct engine_cache *cache,
                          const uint32_t *tokens,
                          size_t n_tokens,
                          float *logits);

/// As engine_step(), with the logits of every position fed: float[n_tokens][vocab_size], row i those that follow tokens[i].
/// logits may be NULL only if n_tokens is 0, when nothing happens.
engine_status engine_step_all(struct engine_cache *cache,
                              const uint32_t *tokens,
                              size_t n_tokens,
                              float *logits);

/// Asks the step that is running on this cache to stop, or the next one if none is: it ends with ENGINE_ERR_CANCELLED and
/// changes nothing. It may be called from any thread while another one uses the cache (not while it frees it). NULL is fine.
void engine_cache_cancel(const struct engine_cache *cache);

/// Feeds tokens to many caches of one model at once: single tokens of some, pieces of prompts of others. Each does what engine_step()
/// or engine_step_all() would do, with the same bits in the logits, but they share the passes over the weights, up to 512 tokens in
/// one, which are most of what a step of few tokens costs. (Where prompts go through OpenBLAS, which is those of f32 weights with
/// AVX-512 on Intel's CPUs, the requests of more than 16 tokens pass one after the other.)
///
/// requests: engine_request[n]. A request that fails has its status, and its cache is as it was; the others go on. So does one whose
/// cache is cancelled meanwhile. Returns ENGINE_OK if all went well, else the status of the first that failed, with its sentence, which
/// begins with its place ("requests[2]: ...").
///
/// With n = 0 nothing happens.
///
/// Errors: those of engine_step(); ENGINE_ERR_BAD_ARGUMENT for a cache that is in the batch twice or of another model than the first,
/// for `want` or `reserved` of no meaning, and for a longer struct whose further bytes are not 0. Where `requests` cannot be read as an
/// array of n requests (NULL, its struct_size, n beyond all memory), that is ENGINE_ERR_BAD_ARGUMENT and no status is written.
engine_status engine_step_batch(struct engine_request *requests,
                                size_t n);

/// Where the time went, in all steps since the cache was made or engine_cache_reset_profile() was called, of a model that was loaded
/// with engine_load_options.profile = 1. *op: struct_size is set by the caller.
///
/// Entry 0 is "pass": the passes through the model (a step of more than 512 tokens takes several) and what they took altogether. The
/// entries from 1 are the ops, in the order in which a layer runs them; those that a model does not have never run. Their times and
/// bytes add up to entry 0's. An index behind the last gives ENGINE_ERR_NOT_FOUND, so that
///
/// ```c
/// engine_op_profile op = {sizeof op};
/// for (size_t i = 0; engine_cache_profile(cache, i, &op) == ENGINE_OK; i++)
///     printf("%-16s %8.3f ms\n", op.name, op.nanoseconds / 1e6);
/// ```
///
/// lists them. Steps that shared a pass in engine_step_batch() are counted in the first of those requests' cache.
///
/// Errors: ENGINE_ERR_NOT_FOUND; ENGINE_ERR_BAD_ARGUMENT if the model was loaded without; ENGINE_ERR_POISONED.
engine_status engine_cache_profile(const struct engine_cache *cache,
                                   size_t index,
                                   struct engine_op_profile *op);

/// Begins anew what engine_cache_profile() tells.
engine_status engine_cache_reset_profile(struct engine_cache *cache);

/// A decoder for a text that begins here. *decoder: the new decoder, to be freed with engine_decoder_free(); NULL after a
/// failure. It keeps the model alive.
///
/// Errors: the reason why there is no tokenizer, where the model has none.
engine_status engine_new_decoder(const struct engine_model *model,
                                 struct engine_decoder **decoder);

/// Frees the decoder; NULL is fine.
void engine_decoder_free(struct engine_decoder *decoder);

/// The text that one more token completes: whole UTF-8 characters, perhaps none (*text_len = 0). All pieces put together are what
/// engine_model_detokenize() gives.
///
/// text: char[*text_len], written without a final NUL; *text_len: the capacity in bytes on entry, the length on return, also
/// with ENGINE_ERR_BUFFER_TOO_SMALL, when nothing has changed: make the same call again with a larger buffer.
///
/// Errors: ENGINE_ERR_BUFFER_TOO_SMALL; ENGINE_ERR_BAD_ARGUMENT for an id that the model does not have; ENGINE_ERR_POISONED.
engine_status engine_decoder_push(struct engine_decoder *decoder,
                                  uint32_t token,
                                  char *text,
                                  size_t *text_len);

/// Ends the text: what is still held back, with U+FFFD for bytes that never became a character. The decoder is as new
/// afterwards. text, text_len and errors as for engine_decoder_push().
engine_status engine_decoder_finish(struct engine_decoder *decoder, char *text, size_t *text_len);

/// Writes a GGUF model with its matrices quantised; metadata and tokenizer stay byte for byte, but for general.file_type and
/// general.quantization_version. Norms, biases, position tables and routers stay as they are, and so does a matrix that has its
/// type already. The types and so the sizes are those that llama.cpp gives the tensors, and llama.cpp loads the file.
///
/// input: a GGUF file (or the first of its parts, which become one file) of floats or of any quantised types that are read:
/// quantising again loses a little each time. output: appears whole or not at all, in place of a file of that name, which may be the
/// input. Both NUL-terminated. weights: ENGINE_WEIGHTS_Q8_0 and the quantised ones after it. options: NULL means defaults.
///
/// A Hugging Face directory is ENGINE_ERR_UNSUPPORTED here: engine_load_options.weights quantises those while loading.
///
/// Errors: as engine_load_model() for the input; ENGINE_ERR_BAD_FILE for an element that is not a finite number or is beyond 65504,
/// naming the tensor; ENGINE_ERR_IO, also for a full disk; ENGINE_ERR_CANCELLED. Nothing is left of the output then.
engine_status engine_quantize(const char *input,
                              const char *output,
                              int32_t weights,
                              const struct engine_quantize_options *options);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus


/* The three functions below are part of the caller, not of the library: the size they set is that of the struct the caller
   was compiled with. From other languages: zero the struct and set struct_size. */

/// Sets *options to the defaults. NULL is fine.
static inline void engine_load_options_init(engine_load_options *options)
{
    if (options != NULL) {
        memset(options, 0, sizeof *options);
        options->struct_size = (uint32_t)sizeof *options;
    }
}

/// Sets *options to the defaults. NULL is fine.
static inline void engine_cache_options_init(engine_cache_options *options)
{
    if (options != NULL) {
        memset(options, 0, sizeof *options);
        options->struct_size = (uint32_t)sizeof *options;
    }
}

/// Sets *options to the defaults. NULL is fine.
static inline void engine_quantize_options_init(engine_quantize_options *options)
{
    if (options != NULL) {
        memset(options, 0, sizeof *options);
        options->struct_size = (uint32_t)sizeof *options;
    }
}

#endif /* ENGINE_H */
