/* engine_quantize: the file loads, arguments are checked, a failure leaves nothing behind. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <unistd.h>

/* What the callback has seen, and when it is to stop. */
typedef struct {
    int calls, stop_at;
    float last;
} seen;

static bool note(void *user_data, float fraction)
{
    seen *s = user_data;
    CHECK(fraction >= s->last && fraction <= 1);
    s->last = fraction;
    return ++s->calls != s->stop_at;
}

static void types(const char *input, const char *output)
{
    int32_t weights;
    engine_model *model = NULL;
    for (weights = ENGINE_WEIGHTS_Q8_0; weights <= ENGINE_WEIGHTS_Q4_K_M; weights++) {
        engine_model_info info = {0};
        CHECK_OK(engine_quantize(input, output, weights, NULL));
        CHECK_OK(engine_load_model(output, NULL, &model));
        info.struct_size = sizeof info;
        CHECK_OK(engine_model_get_info(model, &info));
        CHECK(info.n_params > 0);
        engine_model_free(model);
    }
}

static void options(const char *input, const char *output)
{
    engine_quantize_options o;
    seen s = {0, 0, 0};
    engine_quantize_options_init(NULL);
    engine_quantize_options_init(&o);
    CHECK(o.struct_size == sizeof o && o.threads == 0 && o.progress == NULL);
    o.threads = 1;
    o.progress = note;
    o.user_data = &s;
    CHECK_OK(engine_quantize(input, output, ENGINE_WEIGHTS_Q8_0, &o));
    CHECK(s.calls > 2 && s.last == 1);
    remove(output);
    s.calls = 0, s.last = 0, s.stop_at = 2;
    CHECK_STATUS(ENGINE_ERR_CANCELLED, input, engine_quantize(input, output, ENGINE_WEIGHTS_Q8_0, &o));
    CHECK(s.calls == 2 && !exists(output));
    o.progress = NULL;
    o.flags = 1;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "flags: 0x1", engine_quantize(input, output, ENGINE_WEIGHTS_Q8_0, &o));
    o.flags = 0;
    o.struct_size = 8;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "struct_size is 8", engine_quantize(input, output, ENGINE_WEIGHTS_Q8_0, &o));
    o.struct_size = sizeof o;
    o.threads = UINT32_MAX;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "threads", engine_quantize(input, output, ENGINE_WEIGHTS_Q8_0, &o));
    CHECK(!exists(output));
}

static void arguments(const char *input, const char *directory, const char *output)
{
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "input", engine_quantize(NULL, output, ENGINE_WEIGHTS_Q8_0, NULL));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "output", engine_quantize(input, NULL, ENGINE_WEIGHTS_Q8_0, NULL));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "weights: 9", engine_quantize(input, output, 9, NULL));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "weights: 1", engine_quantize(input, output, ENGINE_WEIGHTS_F32, NULL));
    CHECK_STATUS(ENGINE_ERR_NOT_FOUND, "/no/such", engine_quantize("/no/such", output, ENGINE_WEIGHTS_Q8_0, NULL));
    CHECK_STATUS(ENGINE_ERR_NOT_FOUND, "/no/such", engine_quantize(input, "/no/such/q.gguf", ENGINE_WEIGHTS_Q8_0, NULL));
    CHECK_STATUS(ENGINE_ERR_UNSUPPORTED, "GGUF", engine_quantize(directory, output, ENGINE_WEIGHTS_Q8_0, NULL));
    CHECK(!exists(output));
}

int main(int argc, char **argv)
{
    char work[] = "/tmp/engine-quantize-XXXXXX", *input, *directory, *output;
    REQUIRE(argc == 2 && mkdtemp(work) != NULL);
    input = join(argv[1], "tests/golden/llama-gguf-f16/model.gguf");
    directory = join(argv[1], "tests/golden/llama-mha/model");
    output = join(work, "q.gguf");
    REQUIRE(exists(input));
    types(input, output);
    options(input, output);
    arguments(input, directory, output);
    /* Nothing else is in the directory: it can be removed. */
    CHECK(rmdir(work) == 0);
    free(input);
    free(directory);
    free(output);
    return finish();
}
