/* Where the time of steps went. */
#include "check.h"

int main(int argc, char **argv)
{
    const uint32_t tokens[] = {1, 2, 3};
    engine_load_options options;
    engine_op_profile op, all;
    engine_model *model = NULL;
    engine_cache *cache = NULL;
    char path[4096];
    uint64_t nanoseconds = 0, bytes = 0;
    size_t i;
    int seen_attention = 0;

    REQUIRE(argc == 2);
    snprintf(path, sizeof path, "%s/tests/golden/llama-mha/model", argv[1]);
    memset(&op, 0, sizeof op);
    op.struct_size = sizeof op;
    all = op;

    /* Without the option there is nothing to tell; a caller from before the option cannot have set it. */
    engine_load_options_init(&options);
    options.profile = 1;
    options.struct_size = offsetof(engine_load_options, profile);
    CHECK_OK(engine_load_model(path, &options, &model));
    CHECK_OK(engine_new_cache(model, NULL, &cache));
    CHECK_OK(engine_step(cache, tokens, 3, NULL));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "profile", engine_cache_profile(cache, 0, &op));
    engine_cache_free(cache);
    engine_model_free(model);

    engine_load_options_init(&options);
    options.profile = 2;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "profile: 2", engine_load_model(path, &options, &model));
    options.profile = 1;
    options.matmul = 2;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "matmul: 2", engine_load_model(path, &options, &model));
    options.matmul = ENGINE_MATMUL_SPLIT;
    CHECK_OK(engine_load_model(path, &options, &model));
    CHECK_OK(engine_new_cache(model, NULL, &cache));
    engine_model_free(model);
    CHECK_OK(engine_step(cache, tokens, 3, NULL));
    CHECK_OK(engine_step(cache, tokens, 1, NULL));

    CHECK_OK(engine_cache_profile(cache, 0, &all));
    CHECK(strcmp(all.name, "pass") == 0 && all.calls == 2 && all.nanoseconds > 0 && all.bytes > 0);
    for (i = 1; engine_cache_profile(cache, i, &op) == ENGINE_OK; i++) {
        CHECK(op.struct_size == sizeof op && op.reserved == 0 && strlen(op.name) > 0);
        nanoseconds += op.nanoseconds;
        bytes += op.bytes;
        if (strcmp(op.name, "attention") == 0) {
            seen_attention = 1;
            CHECK(op.calls == 4); /* 2 layers, 2 passes */
        }
    }
    CHECK(seen_attention && nanoseconds == all.nanoseconds && bytes == all.bytes);
    CHECK_STATUS(ENGINE_ERR_NOT_FOUND, "index", engine_cache_profile(cache, i, &op));
    CHECK_STATUS(ENGINE_ERR_NOT_FOUND, "index", engine_cache_profile(cache, SIZE_MAX, &op));

    CHECK_OK(engine_cache_reset_profile(cache));
    CHECK_OK(engine_cache_profile(cache, 0, &all));
    CHECK(all.calls == 0 && all.nanoseconds == 0);

    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "cache", engine_cache_profile(NULL, 0, &op));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "cache", engine_cache_reset_profile(NULL));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "op", engine_cache_profile(cache, 0, NULL));
    op.struct_size = 8;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "struct_size", engine_cache_profile(cache, 0, &op));
    engine_cache_free(cache);
    return finish();
}
