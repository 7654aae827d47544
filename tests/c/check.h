/* What the C tests share: checks that count failures, and where the models are. */
#ifndef CHECK_H
#define CHECK_H

#include <engine.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIPPED 77

static int failures;

#define CHECK(condition) ((condition) ? (void)0 : fail_(__FILE__, __LINE__, #condition))

static inline void fail_(const char *file, int line, const char *condition)
{
    failures++;
    fprintf(stderr, "%s:%d: not true: %s (last error: \"%s\")\n", file, line, condition, engine_last_error_message());
}

/* The status is `expected`; a failure has a sentence, which contains `part`. */
#define CHECK_STATUS(expected, part, call) check_status_(__FILE__, __LINE__, #call, expected, part, call)
#define CHECK_OK(call) CHECK_STATUS(ENGINE_OK, "", call)

static inline engine_status check_status_(const char *file, int line, const char *call, engine_status expected,
                                          const char *part, engine_status status)
{
    const char *message = engine_last_error_message();
    int said = status == ENGINE_OK || (message[0] != '\0' && strstr(message, part) != NULL);
    if (status != expected || !said) {
        failures++;
        fprintf(stderr, "%s:%d: %s\n  gave %s, \"%s\"\n  expected %s, \"...%s...\"\n", file, line, call,
                engine_status_name(status), message, engine_status_name(expected), part);
    }
    return status;
}

/* For what the rest of a test cannot do without. */
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fail_(__FILE__, __LINE__, #condition);                                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static inline int finish(void)
{
    if (failures > 0) fprintf(stderr, "%d failed\n", failures);
    return failures > 0;
}

static inline int exists(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file != NULL) fclose(file);
    return file != NULL;
}

/* "directory/name" in memory of its own. */
static inline char *join(const char *directory, const char *name)
{
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);
    REQUIRE(path != NULL);
    snprintf(path, size, "%s/%s", directory, name);
    return path;
}

/* A Llama of a few thousand random weights, without a tokenizer: a context of 96 tokens, a vocabulary of 101. */
static inline char *tiny_model(const char *source)
{
    return join(source, "tests/golden/llama-mha/model");
}

/* A model that has a tokenizer. */
static inline char *text_model(const char *source)
{
    return join(source, "examples/models/fourscore");
}

static inline engine_model *load(const char *path, uint32_t threads)
{
    engine_model *model = NULL;
    engine_load_options options;
    engine_load_options_init(&options);
    options.threads = threads;
    CHECK_OK(engine_load_model(path, &options, &model));
    REQUIRE(model != NULL);
    return model;
}

static inline engine_cache *new_cache(const engine_model *model)
{
    engine_cache *cache = NULL;
    CHECK_OK(engine_new_cache(model, NULL, &cache));
    REQUIRE(cache != NULL);
    return cache;
}

static inline float *floats(size_t n)
{
    float *memory = malloc(n * sizeof *memory);
    REQUIRE(memory != NULL);
    return memory;
}

/* The likeliest token; the first of equal ones. */
static inline uint32_t likeliest(const float *logits, size_t n)
{
    size_t best = 0, i;
    for (i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (uint32_t)best;
}

#endif
