/* generate MODEL PROMPT [N_TOKENS [THREADS]]: continues a text, printing it as it comes. In C++: generate.cpp, in Rust:
 * generate.rs. */
#include <engine.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Says what failed and why; for the end of a program that gives up. */
static int fail(const char *what) {
    fflush(stdout);
    fprintf(stderr, "generate: %s: %s\n", what, engine_last_error_message());
    return EXIT_FAILURE;
}

/* A whole number from 1 to what fits; 0 if `text` is anything else. */
static size_t count(const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    return *text != '\0' && *end == '\0' && value > 0 ? (size_t)value : 0;
}

/* The likeliest token: the first of the largest logits. */
static uint32_t argmax(const float *logits, size_t n) {
    size_t best = 0, i;
    for (i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (uint32_t)best;
}

/* Prints the text that `token` completes; nothing while that ends inside a character. */
static engine_status print_token(engine_decoder *decoder, uint32_t token) {
    char text[1024];
    size_t length = sizeof text;
    engine_status status = engine_decoder_push(decoder, token, text, &length);
    if (status == ENGINE_OK) {
        fwrite(text, 1, length, stdout);
        fflush(stdout);
    }
    return status;
}

/* The tokens of `text`, to be freed; NULL if there are none. */
static uint32_t *tokenize(const engine_model *model, const char *text, size_t *n) {
    uint32_t *tokens;
    *n = 0;
    if (engine_model_tokenize(model, text, strlen(text), true, NULL, n) == ENGINE_ERR_BUFFER_TOO_SMALL &&
        (tokens = malloc(*n * sizeof *tokens)) != NULL) {
        if (engine_model_tokenize(model, text, strlen(text), true, tokens, n) == ENGINE_OK) return tokens;
        free(tokens);
    }
    return NULL;
}

int main(int argc, char **argv) {
    engine_load_options options;
    engine_model_info info;
    engine_model *model;
    engine_cache *cache;
    engine_decoder *decoder;
    uint32_t *prompt, token;
    float *logits;
    char text[1024];
    size_t n_prompt, length, i, made = 0, wanted = argc > 3 ? count(argv[3]) : 100;
    double start, prefilled, finished;

    engine_load_options_init(&options);
    if (argc > 4) options.threads = (uint32_t)count(argv[4]);
    if (argc < 3 || argc > 5 || wanted == 0 || (argc > 4 && options.threads == 0)) {
        fprintf(stderr, "usage: generate MODEL PROMPT [N_TOKENS [THREADS]]\n"
                        "  MODEL     a Hugging Face directory, a directory of .npy files or a .gguf file\n"
                        "  N_TOKENS  how many tokens to add at most (100)\n"
                        "  THREADS   threads to compute with (the processor's cores)\n");
        return 2;
    }
    if (engine_load_model(argv[1], &options, &model) != ENGINE_OK) return fail("cannot load the model");
    if ((prompt = tokenize(model, argv[2], &n_prompt)) == NULL) return fail("cannot tokenize the prompt");
    if (engine_new_cache(model, NULL, &cache) != ENGINE_OK) return fail("cannot make a cache");
    if (engine_new_decoder(model, &decoder) != ENGINE_OK) return fail("cannot make a decoder");
    logits = malloc(engine_model_vocab_size(model) * sizeof *logits);
    if (logits == NULL) return fputs("generate: out of memory\n", stderr), EXIT_FAILURE;

    for (i = 0; i < n_prompt; i++)
        if (print_token(decoder, prompt[i]) != ENGINE_OK) return fail("cannot decode");
    start = seconds();
    if (engine_step(cache, prompt, n_prompt, logits) != ENGINE_OK) return fail("cannot read the prompt");
    prefilled = seconds();
    while (made < wanted) {
        token = argmax(logits, engine_model_vocab_size(model));
        if (engine_model_is_end(model, token)) break;
        if (print_token(decoder, token) != ENGINE_OK) return fail("cannot decode");
        if (++made == wanted) break;
        if (engine_step(cache, &token, 1, logits) != ENGINE_OK) return fail("cannot go on");
    }
    finished = seconds();
    length = sizeof text;
    if (engine_decoder_finish(decoder, text, &length) != ENGINE_OK) return fail("cannot decode");
    fwrite(text, 1, length, stdout);
    putchar('\n');
    fflush(stdout);

    info.struct_size = sizeof info;
    if (engine_model_get_info(model, &info) != ENGINE_OK) return fail("cannot describe the model");
    fprintf(stderr, "model: %s, %.2f M parameters, %.2f MB, %u layers, %u wide; %u threads, %s\n", info.architecture,
            (double)info.n_params * 1e-6, (double)info.weight_bytes * 1e-6, (unsigned)info.n_layers, (unsigned)info.hidden_size,
            (unsigned)info.threads, info.isa);
    fprintf(stderr, "prefill: %lu tokens, %.1f tokens/s\n", (unsigned long)n_prompt, (double)n_prompt / (prefilled - start));
    /* The first token comes from the prompt's step. */
    if (made > 1)
        fprintf(stderr, "decode: %lu tokens, %.1f tokens/s\n", (unsigned long)made, (double)(made - 1) / (finished - prefilled));

    free(logits);
    free(prompt);
    engine_decoder_free(decoder);
    engine_cache_free(cache);
    engine_model_free(model);
    return EXIT_SUCCESS;
}
