/* From text to text: tokens, one step for the prompt, greedy steps, text through the streaming decoder. A fork and a cache that was
 * cut back continue as the first did. */
#include "check.h"

enum { MADE = 40 };

static const char prompt[] = "Four score and seven years ago";

/* Greedy continuation of what `cache` holds, given the logits after it. */
static void continue_greedily(const engine_model *model, engine_cache *cache, float *logits, uint32_t *made)
{
    int i;
    for (i = 0; i < MADE; i++) {
        made[i] = likeliest(logits, engine_model_vocab_size(model));
        CHECK_OK(engine_step(cache, &made[i], 1, logits));
    }
}

/* The same text comes out of the decoder, through buffers that are too small at first, and out of detokenize. */
static void same_text(const engine_model *model, const uint32_t *tokens, size_t n, const char *beginning)
{
    char whole[4096], streamed[4096];
    size_t whole_len = sizeof whole, at = 0, i;
    engine_decoder *decoder;
    CHECK_OK(engine_model_detokenize(model, tokens, n, whole, &whole_len));
    CHECK(whole_len >= strlen(beginning) && memcmp(whole, beginning, strlen(beginning)) == 0);
    CHECK_OK(engine_new_decoder(model, &decoder));
    for (i = 0; i <= n; i++) {
        size_t needed = 0, length = sizeof streamed - at;
        /* First without room: nothing is lost by that. */
        engine_status asked = i < n ? engine_decoder_push(decoder, tokens[i], NULL, &needed)
                                    : engine_decoder_finish(decoder, NULL, &needed);
        if (asked != ENGINE_ERR_BUFFER_TOO_SMALL) {
            CHECK(asked == ENGINE_OK && needed == 0);
            continue;
        }
        CHECK_OK(i < n ? engine_decoder_push(decoder, tokens[i], streamed + at, &length)
                       : engine_decoder_finish(decoder, streamed + at, &length));
        CHECK(length == needed && length > 0);
        at += length;
    }
    CHECK(at == whole_len && memcmp(whole, streamed, at) == 0);
    engine_decoder_free(decoder);
}

int main(int argc, char **argv)
{
    engine_model *model;
    engine_cache *cache, *fork;
    float *first, *logits;
    uint32_t tokens[256], made[MADE], again[MADE], bos;
    size_t n = 256, vocab, size, i;
    char text[64], *path;

    REQUIRE(argc == 2);
    path = text_model(argv[1]);
    model = load(path, 0);
    free(path);
    vocab = engine_model_vocab_size(model);
    size = vocab * sizeof *first;
    first = floats(vocab);
    logits = floats(vocab);

    CHECK_OK(engine_model_tokenize(model, prompt, strlen(prompt), true, tokens, &n));
    REQUIRE(n > 3 && n + MADE <= 256 && n + MADE <= engine_model_context_length(model));
    if (engine_model_bos(model, &bos) == ENGINE_OK) CHECK(bos < vocab);
    for (i = 0; i < n; i++) {
        size_t length = sizeof text;
        CHECK(tokens[i] < vocab);
        CHECK_OK(engine_model_token_text(model, tokens[i], text, &length));
        CHECK(length > 0);
    }

    cache = new_cache(model);
    CHECK_OK(engine_step(cache, tokens, n, first));
    CHECK(engine_cache_len(cache) == n);
    CHECK_OK(engine_cache_fork(cache, &fork));
    memcpy(logits, first, size);
    continue_greedily(model, cache, logits, made);
    CHECK(engine_cache_len(cache) == n + MADE && engine_cache_len(fork) == n);

    /* The fork goes the same way, and so does the cache when it is cut back. */
    memcpy(logits, first, size);
    continue_greedily(model, fork, logits, again);
    CHECK(memcmp(made, again, sizeof made) == 0);
    CHECK_OK(engine_cache_truncate(cache, n));
    memcpy(logits, first, size);
    continue_greedily(model, cache, logits, again);
    CHECK(memcmp(made, again, sizeof made) == 0);

    memcpy(tokens + n, made, sizeof made);
    same_text(model, tokens, n + MADE, prompt);

    engine_cache_free(fork);
    engine_model_free(model);
    engine_cache_free(cache);
    free(first);
    free(logits);
    return finish();
}
