/* What is told about a model: memory before it is loaded, metadata after. */
#include "check.h"

static char model_path[4096], gguf_path[4096];

static void estimates(void)
{
    engine_memory_estimate mapped, copied, converted;
    engine_load_options options;
    engine_model_info info;
    engine_model *model = NULL;

    memset(&mapped, 0xff, sizeof mapped);
    mapped.struct_size = copied.struct_size = converted.struct_size = sizeof mapped;
    CHECK_OK(engine_estimate_memory(model_path, NULL, &mapped));
    CHECK(mapped.weights_mapped > 0 && mapped.weights_packed > 0 && mapped.cache_windows == 0 && mapped.reserved == 0);
    engine_load_options_init(&options);
    options.mapping = ENGINE_MAPPING_COPY;
    CHECK_OK(engine_estimate_memory(model_path, &options, &copied));
    CHECK(copied.weights_mapped == 0 && copied.weights_packed == mapped.weights_mapped + mapped.weights_packed);
    options.mapping = ENGINE_MAPPING_MAP;
    options.weights = ENGINE_WEIGHTS_BF16;
    CHECK_OK(engine_estimate_memory(model_path, &options, &converted));
    CHECK(converted.weights_mapped == 0);
    CHECK(converted.weights_packed - mapped.weights_packed == mapped.weights_mapped / 2); /* the file is f32 */

    /* What the loaded model says of itself; a cache's keys and values: 2 layers, 3 kv heads of 10. */
    CHECK_OK(engine_load_model(model_path, NULL, &model));
    info.struct_size = sizeof info;
    CHECK_OK(engine_model_get_info(model, &info));
    CHECK(info.weight_bytes == mapped.weights_mapped + mapped.weights_packed);
    CHECK(mapped.cache_per_1000_tokens == 1000 * 2 * 2 * info.n_kv_heads * info.head_dim * sizeof(float));
    CHECK(strcmp(info.file_type, "F32") == 0 && info.name != NULL);
    /* A caller from before name and file_type. */
    memset(&info, 0, sizeof info);
    info.struct_size = offsetof(engine_model_info, name);
    CHECK_OK(engine_model_get_info(model, &info));
    CHECK(info.n_layers == 2 && info.name == NULL && info.file_type == NULL);
    engine_model_free(model);

    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "path", engine_estimate_memory(NULL, NULL, &mapped));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "estimate", engine_estimate_memory(model_path, NULL, NULL));
    CHECK_STATUS(ENGINE_ERR_NOT_FOUND, "nowhere", engine_estimate_memory("nowhere", NULL, &mapped));
    mapped.struct_size = 8;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "struct_size", engine_estimate_memory(model_path, NULL, &mapped));
}

static void is_metadata(const engine_model *model, const char *key, const char *expected)
{
    char text[256];
    size_t len = 0;
    CHECK_STATUS(*expected ? ENGINE_ERR_BUFFER_TOO_SMALL : ENGINE_OK, "", engine_model_metadata(model, key, NULL, &len));
    CHECK(len == strlen(expected));
    len = sizeof text;
    CHECK_OK(engine_model_metadata(model, key, text, &len));
    if (len != strlen(expected) || memcmp(text, expected, len) != 0) {
        fprintf(stderr, "%s is %.*s, not %s\n", key, (int)len, text, expected);
        failures++;
    }
}

static void metadata(void)
{
    engine_model *model = NULL;
    char text[256], before[256] = "";
    size_t i, len, before_len = 0;

    CHECK_OK(engine_load_model(gguf_path, NULL, &model));
    is_metadata(model, "general.architecture", "llama");
    is_metadata(model, "llama.block_count", "2");
    is_metadata(model, "llama.attention.layer_norm_rms_epsilon", "0.01");
    CHECK(engine_model_metadata_count(model) > 5);
    for (i = 0; i < engine_model_metadata_count(model); i++) {
        len = sizeof text;
        CHECK_OK(engine_model_metadata_key(model, i, text, &len));
        CHECK(i == 0 || memcmp(before, text, len < before_len ? len : before_len) <= 0);
        memcpy(before, text, len);
        before_len = len;
        text[len] = '\0';
        len = 0;
        CHECK(engine_model_metadata(model, text, NULL, &len) != ENGINE_ERR_NOT_FOUND);
    }
    len = sizeof text;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "keys", engine_model_metadata_key(model, i, text, &len));
    CHECK_STATUS(ENGINE_ERR_NOT_FOUND, "no.such.key", engine_model_metadata(model, "no.such.key", text, &len));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "key", engine_model_metadata(model, NULL, text, &len));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "model", engine_model_metadata(NULL, "general.name", text, &len));
    CHECK(engine_model_metadata_count(NULL) == 0);
    engine_model_free(model);

    CHECK_OK(engine_load_model(model_path, NULL, &model));
    is_metadata(model, "model_type", "llama");
    is_metadata(model, "hidden_size", "30");
    is_metadata(model, "architectures", "[\"LlamaForCausalLM\"]");
    engine_model_free(model);
}

int main(int argc, char **argv)
{
    REQUIRE(argc == 2);
    snprintf(model_path, sizeof model_path, "%s/tests/golden/llama-mha/model", argv[1]);
    snprintf(gguf_path, sizeof gguf_path, "%s/tests/golden/llama-gguf-f16/model.gguf", argv[1]);
    estimates();
    metadata();
    return finish();
}
