/* A smallest C program: a model that is not there is refused, the one in argv[1] makes a step. */
#include <engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, engine_last_error_message());
    return 1;
}

int main(int argc, char **argv) {
    engine_model *model = NULL;
    engine_cache *cache = NULL;
    uint32_t tokens[16];
    size_t n_tokens = sizeof tokens / sizeof *tokens;
    float *logits;
    const char *text = "Four score";

    if (argc != 2) return fprintf(stderr, "usage: %s MODEL\n", argv[0]), 2;
    if (engine_load_model("/no/such/model", NULL, &model) != ENGINE_ERR_NOT_FOUND || model != NULL) return fail("no such model");
    if (strstr(engine_last_error_message(), "/no/such/model") == NULL) return fail("the message does not name the file");

    if (engine_load_model(argv[1], NULL, &model) != ENGINE_OK) return fail("load");
    if (engine_model_tokenize(model, text, strlen(text), false, tokens, &n_tokens) != ENGINE_OK) return fail("tokenize");
    if (engine_new_cache(model, NULL, &cache) != ENGINE_OK) return fail("cache");
    logits = malloc(engine_model_vocab_size(model) * sizeof *logits);
    if (logits == NULL || engine_step(cache, tokens, n_tokens, logits) != ENGINE_OK) return fail("step");
    if (engine_cache_len(cache) != n_tokens) return fail("length");
    printf("engine %s: %lu tokens, first logit %g\n", engine_version(), (unsigned long)n_tokens, (double)logits[0]);
    engine_model_free(model);
    engine_cache_free(cache);
    free(logits);
    return 0;
}
