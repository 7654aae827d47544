/* Every function with NULL, zero, too large and wrong-state arguments: the right status, a sentence, outputs as promised, no
 * crash. */
#include "check.h"

#define BAD ENGINE_ERR_BAD_ARGUMENT

static void nothing_but_null(void)
{
    engine_model *model;
    engine_cache *cache = NULL;
    engine_decoder *decoder;
    engine_model_info info;
    uint32_t token = 0;
    size_t n = 1;
    char text[8];
    float logits[8];

    info.struct_size = sizeof info;
    CHECK_STATUS(BAD, "model", engine_load_model("x", NULL, NULL));
    CHECK_STATUS(BAD, "path is empty", engine_load_model("", NULL, &model));
    model = (engine_model *)text;
    CHECK_STATUS(BAD, "path", engine_load_model(NULL, NULL, &model));
    CHECK(model == NULL);
    CHECK_STATUS(BAD, "model", engine_model_get_info(NULL, &info));
    CHECK_STATUS(BAD, "model", engine_model_tokenize(NULL, "a", 1, true, &token, &n));
    CHECK_STATUS(BAD, "model", engine_model_detokenize(NULL, &token, 1, text, &n));
    CHECK_STATUS(BAD, "model", engine_model_token_text(NULL, 0, text, &n));
    CHECK_STATUS(BAD, "model", engine_model_bos(NULL, &token));
    CHECK(n == 1);
    cache = (engine_cache *)text;
    CHECK_STATUS(BAD, "model", engine_new_cache(NULL, NULL, &cache));
    CHECK(cache == NULL);
    decoder = (engine_decoder *)text;
    CHECK_STATUS(BAD, "model", engine_new_decoder(NULL, &decoder));
    CHECK(decoder == NULL);
    CHECK_STATUS(BAD, "decoder", engine_decoder_push(NULL, 0, text, &n));
    CHECK_STATUS(BAD, "decoder", engine_decoder_finish(NULL, text, &n));
    CHECK_STATUS(BAD, "cache", engine_step(NULL, &token, 1, logits));
    CHECK_STATUS(BAD, "cache", engine_step_all(NULL, &token, 1, logits));
    CHECK_STATUS(BAD, "cache", engine_cache_truncate(NULL, 0));
    CHECK_STATUS(BAD, "cache", engine_cache_fork(NULL, &cache));
    CHECK_STATUS(BAD, "copy", engine_cache_fork(NULL, NULL));

    CHECK(engine_model_vocab_size(NULL) == 0);
    CHECK(engine_model_context_length(NULL) == 0);
    CHECK(!engine_model_is_end(NULL, 0));
    CHECK(engine_cache_len(NULL) == 0);
    CHECK(engine_cache_max_tokens(NULL) == 0);
    engine_cache_cancel(NULL);
    engine_model_free(NULL);
    engine_cache_free(NULL);
    engine_decoder_free(NULL);
    engine_load_options_init(NULL);
    engine_cache_options_init(NULL);
    CHECK(strcmp(engine_status_name(BAD), "ENGINE_ERR_BAD_ARGUMENT") == 0);
    CHECK(strcmp(engine_status_name(-7), "unknown status") == 0);
}

static void wrong_model_calls(const engine_model *model)
{
    engine_model_info info;
    engine_cache *cache = NULL;
    engine_cache_options options;

    CHECK_STATUS(BAD, "info", engine_model_get_info(model, NULL));
    memset(&info, 0, sizeof info);
    CHECK_STATUS(BAD, "struct_size is 0", engine_model_get_info(model, &info));
    info.struct_size = offsetof(engine_model_info, name) - 1; /* less than version 0.1 had */
    CHECK_STATUS(BAD, "struct_size", engine_model_get_info(model, &info));
    CHECK(info.architecture == NULL);

    CHECK_STATUS(BAD, "cache", engine_new_cache(model, NULL, NULL));
    engine_cache_options_init(&options);
    options.max_tokens = engine_model_context_length(model) + 1;
    CHECK_STATUS(BAD, "max_tokens", engine_new_cache(model, &options, &cache));
    options.max_tokens = SIZE_MAX;
    CHECK_STATUS(BAD, "max_tokens", engine_new_cache(model, &options, &cache));
    CHECK(cache == NULL);
}

static void wrong_steps(const engine_model *model)
{
    const size_t vocab = engine_model_vocab_size(model);
    float *logits = floats(4 * vocab), *again = floats(vocab);
    uint32_t tokens[4] = {1, 2, 3, 4}, bad[3] = {1, 2, 0};
    engine_cache *cache, *copy = NULL;
    engine_cache_options options;

    engine_cache_options_init(&options);
    options.max_tokens = 5;
    CHECK_OK(engine_new_cache(model, &options, &cache));
    CHECK(engine_cache_max_tokens(cache) == 5);
    CHECK_OK(engine_step(cache, tokens, 2, logits));
    CHECK(engine_cache_len(cache) == 2);

    CHECK_STATUS(BAD, "tokens", engine_step(cache, NULL, 1, logits));
    CHECK_STATUS(BAD, "tokens", engine_step_all(cache, NULL, 1, logits));
    CHECK_STATUS(BAD, "logits", engine_step_all(cache, tokens, 1, NULL));
    CHECK_STATUS(BAD, "n_tokens", engine_step(cache, tokens, 0, logits));
    CHECK_STATUS(BAD, "n_tokens", engine_step(cache, NULL, 0, logits));
    CHECK_OK(engine_step(cache, NULL, 0, NULL));
    CHECK_OK(engine_step_all(cache, NULL, 0, NULL));
    bad[2] = (uint32_t)vocab;
    CHECK_STATUS(BAD, "", engine_step(cache, bad, 3, logits));
    CHECK_STATUS(BAD, "", engine_step_all(cache, bad, 3, logits));
    bad[2] = UINT32_MAX;
    CHECK_STATUS(BAD, "", engine_step(cache, bad, 3, NULL));
    CHECK_STATUS(ENGINE_ERR_CONTEXT_FULL, "4", engine_step(cache, tokens, 4, logits));
    CHECK_STATUS(ENGINE_ERR_CONTEXT_FULL, "4", engine_step_all(cache, tokens, 4, logits));
    CHECK_STATUS(ENGINE_ERR_CONTEXT_FULL, "", engine_step(cache, tokens, SIZE_MAX, logits));
    CHECK_STATUS(ENGINE_ERR_CONTEXT_FULL, "", engine_step(cache, tokens, SIZE_MAX / 4, NULL));
    CHECK_STATUS(ENGINE_ERR_CONTEXT_FULL, "", engine_step_all(cache, tokens, SIZE_MAX / 4 + 2, logits));
    CHECK_STATUS(BAD, "multiple", engine_step(cache, (uint32_t *)(void *)((char *)tokens + 1), 1, logits));
    CHECK_STATUS(BAD, "multiple", engine_step(cache, tokens, 1, (float *)(void *)((char *)logits + 2)));
    CHECK_STATUS(BAD, "holds 2", engine_cache_truncate(cache, 3));
    CHECK_STATUS(BAD, "holds 2", engine_cache_truncate(cache, SIZE_MAX));
    CHECK_STATUS(BAD, "copy", engine_cache_fork(cache, NULL));
    CHECK(engine_cache_len(cache) == 2);

    /* None of that has changed anything: the next token's logits are those of a cache that saw only good calls. */
    CHECK_OK(engine_step(cache, tokens + 2, 1, logits));
    CHECK_OK(engine_cache_fork(cache, &copy));
    CHECK_OK(engine_cache_truncate(copy, 0));
    CHECK_OK(engine_step(copy, tokens, 2, NULL));
    CHECK_OK(engine_step(copy, tokens + 2, 1, again));
    CHECK(memcmp(logits, again, vocab * sizeof *logits) == 0);
    CHECK_OK(engine_step(cache, tokens, 2, logits));
    CHECK_STATUS(ENGINE_ERR_CONTEXT_FULL, "5", engine_step(cache, tokens, 1, logits));
    CHECK(engine_cache_len(cache) == 5 && engine_cache_len(copy) == 3);

    engine_cache_free(cache);
    engine_cache_free(copy);
    free(logits);
    free(again);
}

/* A model without a tokenizer says so, whatever is asked. */
static void no_text(const engine_model *model)
{
    engine_decoder *decoder = NULL;
    uint32_t token = 0;
    size_t n = 1;
    char text[8];
    CHECK(engine_model_tokenize(model, "a", 1, true, &token, &n) != ENGINE_OK);
    CHECK(engine_model_detokenize(model, &token, 1, text, &n) != ENGINE_OK);
    CHECK(engine_model_token_text(model, 0, text, &n) != ENGINE_OK);
    CHECK(engine_model_bos(model, &token) != ENGINE_OK);
    CHECK(engine_new_decoder(model, &decoder) != ENGINE_OK);
    CHECK(engine_last_error_message()[0] != '\0');
    CHECK(decoder == NULL && !engine_model_is_end(model, 0));
}

static void wrong_text(const engine_model *model)
{
    const uint32_t vocab = (uint32_t)engine_model_vocab_size(model);
    uint32_t tokens[64];
    size_t n = 64, length;
    char text[64];
    engine_decoder *decoder = NULL;

    CHECK_STATUS(BAD, "n_tokens", engine_model_tokenize(model, "a", 1, true, tokens, NULL));
    CHECK_STATUS(BAD, "tokens", engine_model_tokenize(model, "a", 1, true, NULL, &n));
    CHECK_STATUS(BAD, "text", engine_model_tokenize(model, NULL, 1, true, tokens, &n));
    CHECK_STATUS(BAD, "text", engine_model_tokenize(model, "a", SIZE_MAX, true, tokens, &n));
    CHECK_STATUS(BAD, "index 2", engine_model_tokenize(model, "ab\xff", 3, true, tokens, &n));
    CHECK_STATUS(BAD, "index 0", engine_model_tokenize(model, "\xc3\xa9", 1, true, tokens, &n));
    CHECK(n == 64);
    CHECK_OK(engine_model_tokenize(model, NULL, 0, false, tokens, &n));
    CHECK(n == 0);
    CHECK_OK(engine_model_tokenize(model, NULL, 0, false, NULL, &n));
    CHECK_STATUS(ENGINE_ERR_BUFFER_TOO_SMALL, "tokens", engine_model_tokenize(model, "and seven", 9, false, NULL, &n));
    CHECK(n > 1 && n <= 64);
    tokens[0] = 12345;
    n -= 1;
    CHECK_STATUS(ENGINE_ERR_BUFFER_TOO_SMALL, "tokens", engine_model_tokenize(model, "and seven", 9, false, tokens, &n));
    CHECK(tokens[0] == 12345);
    CHECK_OK(engine_model_tokenize(model, "and seven", 9, false, tokens, &n));

    length = 64;
    CHECK_STATUS(BAD, "text_len", engine_model_detokenize(model, tokens, n, text, NULL));
    CHECK_STATUS(BAD, "text", engine_model_detokenize(model, tokens, n, NULL, &length));
    CHECK_STATUS(BAD, "tokens", engine_model_detokenize(model, NULL, n, text, &length));
    CHECK_STATUS(BAD, "tokens", engine_model_detokenize(model, tokens, SIZE_MAX, text, &length));
    CHECK_STATUS(BAD, "", engine_model_detokenize(model, &vocab, 1, text, &length));
    CHECK(length == 64);
    length = 3;
    text[0] = '#';
    CHECK_STATUS(ENGINE_ERR_BUFFER_TOO_SMALL, "text", engine_model_detokenize(model, tokens, n, text, &length));
    CHECK(length == 9 && text[0] == '#');
    CHECK_OK(engine_model_detokenize(model, tokens, n, text, &length));
    CHECK(length == 9 && memcmp(text, "and seven", 9) == 0);
    CHECK_OK(engine_model_detokenize(model, NULL, 0, NULL, &(size_t){0}));

    length = 64;
    CHECK_STATUS(BAD, "", engine_model_token_text(model, vocab, text, &length));
    CHECK_STATUS(BAD, "text_len", engine_model_token_text(model, 1, text, NULL));
    CHECK_STATUS(BAD, "text", engine_model_token_text(model, 1, NULL, &length));
    CHECK_STATUS(BAD, "token", engine_model_bos(model, NULL));
    CHECK(!engine_model_is_end(model, vocab) && !engine_model_is_end(model, UINT32_MAX));

    CHECK_STATUS(BAD, "decoder", engine_new_decoder(model, NULL));
    CHECK_OK(engine_new_decoder(model, &decoder));
    CHECK_STATUS(BAD, "", engine_decoder_push(decoder, vocab, text, &length));
    CHECK_STATUS(BAD, "text_len", engine_decoder_push(decoder, tokens[0], text, NULL));
    CHECK_STATUS(BAD, "text", engine_decoder_push(decoder, tokens[0], NULL, &length));
    CHECK_STATUS(BAD, "text_len", engine_decoder_finish(decoder, text, NULL));
    CHECK_STATUS(BAD, "text", engine_decoder_finish(decoder, NULL, &length));
    engine_decoder_free(decoder);
}

int main(int argc, char **argv)
{
    engine_model *model;
    char *path;
    REQUIRE(argc == 2);
    CHECK(engine_last_error_message()[0] == '\0');

    nothing_but_null();
    path = tiny_model(argv[1]);
    model = load(path, 1);
    free(path);
    wrong_model_calls(model);
    wrong_steps(model);
    no_text(model);
    engine_model_free(model);

    path = text_model(argv[1]);
    model = load(path, 1);
    free(path);
    wrong_text(model);
    engine_model_free(model);
    return finish();
}
