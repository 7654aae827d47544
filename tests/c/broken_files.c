/* Files that are missing, of the wrong kind, cut short or with flipped bits: an error with a sentence, or a model that works;
 * never a signal, never ENGINE_ERR_INTERNAL. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

/* A whole file in memory. */
typedef struct {
    unsigned char *bytes;
    size_t size;
} blob;

static blob read_file(const char *path)
{
    blob file = {NULL, 0};
    FILE *in = fopen(path, "rb");
    REQUIRE(in != NULL);
    REQUIRE(fseek(in, 0, SEEK_END) == 0 && ftell(in) > 0);
    file.size = (size_t)ftell(in);
    file.bytes = malloc(file.size);
    rewind(in);
    REQUIRE(file.bytes != NULL && fread(file.bytes, 1, file.size, in) == file.size);
    fclose(in);
    return file;
}

static void write_file(const char *path, const unsigned char *bytes, size_t size)
{
    FILE *out = fopen(path, "wb");
    REQUIRE(out != NULL && fwrite(bytes, 1, size, out) == size && fclose(out) == 0);
}

/* Loads what is at `path` and, if that works, uses it: two steps, and text if there is a tokenizer. */
static engine_status try_model(const char *path, int32_t mapping)
{
    static const char text[] = "and seven years \xe2\x82\xac";
    engine_model *model = (engine_model *)text;
    engine_load_options options;
    engine_status status;
    engine_load_options_init(&options);
    options.threads = 1;
    options.mapping = mapping;
    status = engine_load_model(path, &options, &model);
    CHECK((status == ENGINE_OK) == (model != NULL));
    CHECK(status == ENGINE_OK || engine_last_error_message()[0] != '\0');
    CHECK(status != ENGINE_ERR_INTERNAL);
    if (model != NULL) {
        engine_cache *cache = NULL;
        float *logits = floats(engine_model_vocab_size(model));
        uint32_t tokens[64] = {0, 1};
        size_t n = 64, length = 64;
        char piece[64];
        CHECK(engine_new_cache(model, NULL, &cache) != ENGINE_ERR_INTERNAL);
        CHECK(cache == NULL || engine_step(cache, tokens, 2, logits) != ENGINE_ERR_INTERNAL);
        CHECK(cache == NULL || engine_step(cache, tokens, 1, logits) != ENGINE_ERR_INTERNAL);
        if (engine_model_tokenize(model, text, sizeof text - 1, true, tokens, &n) == ENGINE_OK)
            CHECK(engine_model_detokenize(model, tokens, n, piece, &length) != ENGINE_ERR_INTERNAL);
        else
            CHECK(strstr(engine_last_error_message(), "internal error") == NULL);
        engine_cache_free(cache);
        engine_model_free(model);
        free(logits);
    }
    return status;
}

/* A fixed sequence: the same tests every time. */
static uint32_t random_state = 1;
static size_t below(size_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (size_t)(random_state >> 8) % n;
}

/* Breaks the good file at `path` in many ways; `target` is what is loaded: the file or its directory. `dense` bytes at the
 * beginning (the header) get most of the flips. */
static void break_file(const char *path, const char *target, size_t dense, int flips)
{
    static const size_t short_sizes[] = {0, 1, 4, 7, 8, 9, 16, 24, 100, 1000};
    const blob good = read_file(path);
    unsigned char *bad = malloc(good.size);
    int i, refused = 0;
    REQUIRE(bad != NULL);
    CHECK_OK(try_model(target, ENGINE_MAPPING_MAP));
    for (i = 0; i < 30; i++) {
        size_t size = i < 10 ? short_sizes[i] : i < 20 ? good.size - (size_t)(i - 9) : below(good.size);
        if (size >= good.size) continue;
        write_file(path, good.bytes, size);
        refused += try_model(target, i % 2 == 0 ? ENGINE_MAPPING_MAP : ENGINE_MAPPING_COPY) != ENGINE_OK;
    }
    /* A tokenizer is not read before it is needed. */
    CHECK(refused > 0 || strstr(path, "tokenizer") != NULL);
    if (dense > good.size) dense = good.size;
    for (i = 0; i < flips; i++) {
        size_t at = i % 4 == 3 ? below(good.size) : below(dense);
        memcpy(bad, good.bytes, good.size);
        bad[at] ^= (unsigned char)(1u << below(8));
        if (i % 8 == 7) bad[below(dense)] = 0xff;
        write_file(path, bad, good.size);
        try_model(target, i % 2 == 0 ? ENGINE_MAPPING_MAP : ENGINE_MAPPING_COPY);
    }
    write_file(path, good.bytes, good.size);
    CHECK_OK(try_model(target, ENGINE_MAPPING_COPY));
    free(good.bytes);
    free(bad);
}

/* Files of a model, of which the first n_broken are broken in turn. */
typedef struct {
    const char *source;
    const char *names[4];
    size_t n_broken;
    int flips;
} victim;

static void break_model(const char *root, const victim *model, const char *directory)
{
    char *source = join(root, model->source), *copies[4];
    size_t i, n = 0;
    for (; n < 4 && model->names[n] != NULL; n++) {
        char *from = join(source, model->names[n]);
        blob file = read_file(from);
        copies[n] = join(directory, model->names[n]);
        write_file(copies[n], file.bytes, file.size);
        free(file.bytes);
        free(from);
    }
    for (i = 0; i < model->n_broken; i++)
        break_file(copies[i], strstr(copies[i], ".gguf") != NULL ? copies[i] : directory, 4096, model->flips);
    for (i = 0; i < n; i++) {
        remove(copies[i]);
        free(copies[i]);
    }
    free(source);
}

static void wrong_paths(const char *source, const char *empty)
{
    char *file = join(source, "Cargo.toml"), *inside = join(file, "x"), *config = tiny_model(source);
    char *no_model = join(config, "config.json");
    char deep[5000];
    CHECK(try_model("", ENGINE_MAPPING_MAP) != ENGINE_OK);
    CHECK_STATUS(ENGINE_ERR_NOT_FOUND, "/no/such/model", try_model("/no/such/model", ENGINE_MAPPING_MAP));
    CHECK(try_model(empty, ENGINE_MAPPING_MAP) != ENGINE_OK);
    CHECK(try_model("/dev/null", ENGINE_MAPPING_MAP) != ENGINE_OK);
    CHECK(try_model("/dev/null", ENGINE_MAPPING_COPY) != ENGINE_OK);
    CHECK(try_model("/dev/zero", ENGINE_MAPPING_COPY) != ENGINE_OK);
    CHECK(try_model(file, ENGINE_MAPPING_MAP) != ENGINE_OK);
    CHECK(try_model(inside, ENGINE_MAPPING_MAP) != ENGINE_OK);
    CHECK(try_model(no_model, ENGINE_MAPPING_MAP) != ENGINE_OK);
    CHECK(try_model("not\xffutf-8", ENGINE_MAPPING_MAP) != ENGINE_OK);
    memset(deep, 'a', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    CHECK(try_model(deep, ENGINE_MAPPING_MAP) != ENGINE_OK);
    free(file);
    free(inside);
    free(config);
    free(no_model);
}

int main(int argc, char **argv)
{
    static const victim victims[] = {
        {"tests/golden/llama-mha/model", {"config.json", "model.safetensors"}, 2, 300},
        {"tests/golden/gpt2-hub/model", {"config.json", "model.safetensors"}, 1, 100},
        {"tests/golden/llama-f16-tied/model",
         {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"},
         2, 100},
        {"tests/golden/llama-gguf-linear", {"model.gguf"}, 1, 300},
        {"examples/models/fourscore", {"tokenizer.json", "config.json", "model.safetensors"}, 1, 60},
    };
    char work[] = "/tmp/engine-broken-XXXXXX";
    size_t i;
    REQUIRE(argc == 2);
    REQUIRE(mkdtemp(work) != NULL);
    wrong_paths(argv[1], work);
    for (i = 0; i < sizeof victims / sizeof *victims; i++) break_model(argv[1], &victims[i], work);
    CHECK(rmdir(work) == 0);
    return finish();
}
