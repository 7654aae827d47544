/* Option structs of other sizes than the library's, and every value of every option. */
#include "check.h"

#include <stddef.h>

/* What a header of a later version might have. */
typedef struct {
    engine_load_options known;
    uint64_t later[3];
} newer_load_options;

typedef struct {
    engine_cache_options known;
    uint64_t later[3];
} newer_cache_options;

typedef struct {
    engine_model_info known;
    uint64_t later[3];
} newer_info;

static engine_status try_load(const char *path, const void *options)
{
    engine_model *model = NULL;
    engine_status status = engine_load_model(path, options, &model);
    CHECK((status == ENGINE_OK) == (model != NULL));
    engine_model_free(model);
    return status;
}

static engine_status try_cache(const engine_model *model, const void *options)
{
    engine_cache *cache = NULL;
    engine_status status = engine_new_cache(model, options, &cache);
    CHECK((status == ENGINE_OK) == (cache != NULL));
    engine_cache_free(cache);
    return status;
}

static void load_sizes(const char *path)
{
    static const uint32_t bad[] = {0, 1, 4, offsetof(engine_load_options, profile) - 1, 4097, UINT32_MAX};
    newer_load_options options;
    size_t i;
    memset(&options, 0, sizeof options);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.known.struct_size = bad[i];
        CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "engine_load_options: struct_size", try_load(path, &options));
    }
    engine_load_options_init(&options.known);
    CHECK(options.known.struct_size == sizeof options.known);
    options.later[2] = 1;
    CHECK_OK(try_load(path, &options));
    options.known.struct_size = sizeof options;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "engine_load_options: byte", try_load(path, &options));
    options.later[2] = 0;
    CHECK_OK(try_load(path, &options));
}

static void cache_sizes(const engine_model *model)
{
    static const uint32_t bad[] = {0, 1, 4, offsetof(engine_cache_options, rewind_tokens) - 1, 4097, UINT32_MAX};
    newer_cache_options options;
    size_t i;
    memset(&options, 0, sizeof options);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.known.struct_size = bad[i];
        CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "engine_cache_options: struct_size", try_cache(model, &options));
    }
    engine_cache_options_init(&options.known);
    CHECK(options.known.struct_size == sizeof options.known);
    options.known.struct_size = sizeof options;
    CHECK_OK(try_cache(model, &options));
    options.later[0] = 1;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "engine_cache_options: byte", try_cache(model, &options));
}

static void info_sizes(const engine_model *model)
{
    newer_info newer;
    engine_model_info info;
    memset(&newer, 0xff, sizeof newer);
    newer.known.struct_size = sizeof newer;
    CHECK_OK(engine_model_get_info(model, &newer.known));
    CHECK(newer.known.struct_size == sizeof newer);
    CHECK(newer.later[0] == 0 && newer.later[2] == 0);

    memset(&newer, 0xff, sizeof newer);
    newer.known.struct_size = sizeof newer.known;
    CHECK_OK(engine_model_get_info(model, &newer.known));
    CHECK(newer.later[0] == UINT64_MAX);

    info.struct_size = sizeof info;
    CHECK_OK(engine_model_get_info(model, &info));
    CHECK(strcmp(info.architecture, "llama") == 0);
    CHECK(info.n_layers == 2 && info.hidden_size == 30 && info.n_heads == 3 && info.n_kv_heads == 3 && info.head_dim == 10);
    CHECK(info.threads == 1 && info.isa[0] != '\0');
    /* embedding and head, two norms and seven matrices a layer, a norm */
    CHECK(info.n_params == 2 * 101 * 30 + 2 * (2 * 30 + 4 * 30 * 30 + 3 * 30 * 44) + 30);
    CHECK(info.weight_bytes == 4 * info.n_params);
}

static void values(const char *path, const engine_model *model)
{
    engine_load_options load;
    engine_cache_options cache;
    int32_t i;

#define WITH(field, value) (engine_load_options_init(&load), load.threads = 1, load.field = (value), try_load(path, &load))
    for (i = ENGINE_WEIGHTS_KEEP; i <= ENGINE_WEIGHTS_Q4_K_M; i++) CHECK_OK(WITH(weights, i));
    for (i = ENGINE_MAPPING_MAP; i <= ENGINE_MAPPING_COPY; i++) CHECK_OK(WITH(mapping, i));
    CHECK_OK(WITH(isa, ENGINE_ISA_SCALAR));
    for (i = ENGINE_MATMUL_EXACT; i <= ENGINE_MATMUL_SPLIT; i++) CHECK_OK(WITH(matmul, i));
    if (WITH(isa, ENGINE_ISA_AMX) != ENGINE_OK) {
        CHECK_STATUS(ENGINE_ERR_UNSUPPORTED, "'amx', which this CPU does not have", WITH(isa, ENGINE_ISA_AMX));
    }
    CHECK_STATUS(ENGINE_ERR_UNSUPPORTED, "ENGINE_ISA_NEON", WITH(isa, ENGINE_ISA_NEON));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "weights: 9", WITH(weights, 9));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "isa: 6", WITH(isa, 6));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "weights: -1", WITH(weights, -1));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "mapping: 77", WITH(mapping, 77));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "flags: 0x4", WITH(flags, 4));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "threads", WITH(threads, UINT32_MAX));
    for (i = 0; i <= (ENGINE_LOAD_DEFAULT_PRE_TOKENIZER | ENGINE_LOAD_PIN_THREADS); i++) CHECK_OK(WITH(flags, (uint32_t)i));
    load.threads = 0;
    CHECK_OK(try_load(path, &load));
    load.threads = 1024;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "each on a core of its own", try_load(path, &load));
#undef WITH

#define WITH(value) (engine_cache_options_init(&cache), cache.kv_type = (value), try_cache(model, &cache))
    for (i = ENGINE_KV_DEFAULT; i <= ENGINE_KV_Q8_0; i++) CHECK_OK(WITH(i));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "kv_type: 5", WITH(5));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "kv_type: -2", WITH(-2));
#undef WITH
}

int main(int argc, char **argv)
{
    engine_model *model;
    char *path;
    REQUIRE(argc == 2);
    path = tiny_model(argv[1]);
    load_sizes(path);
    model = load(path, 1);
    cache_sizes(model);
    info_sizes(model);
    values(path, model);
    engine_model_free(model);
    free(path);
    return finish();
}
