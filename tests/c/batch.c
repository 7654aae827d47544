/* Steps of many caches at once: the bits that each gives alone; a request that fails says so and leaves the others alone. */
#include "check.h"

enum { CACHES = 5, VOCAB = 101 };

static engine_model *model;
static const uint32_t tokens[] = {3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43, 38, 32, 79, 50, 28, 84, 19};

static engine_cache *a_cache(void)
{
    engine_cache *cache = NULL;
    REQUIRE(engine_new_cache(model, NULL, &cache) == ENGINE_OK);
    return cache;
}

static engine_request ask(engine_cache *cache, size_t n_tokens, float *logits, int32_t want)
{
    engine_request request;
    memset(&request, 0, sizeof request);
    request.struct_size = sizeof request;
    request.status = -1;
    request.cache = cache;
    request.tokens = tokens;
    request.n_tokens = n_tokens;
    request.logits = logits;
    request.want = want;
    return request;
}

/* 1, 5, 9, 13 and 17 tokens: the last one on the other path. */
static void same_bits(void)
{
    static float together[CACHES][20 * VOCAB], alone[20 * VOCAB];
    engine_request requests[CACHES];
    int i;
    for (i = 0; i < CACHES; i++) {
        requests[i] = ask(a_cache(), 1 + 4 * (size_t)i, together[i], i % 2 ? ENGINE_LOGITS_ALL : ENGINE_LOGITS_LAST);
    }
    CHECK_OK(engine_step_batch(requests, CACHES));
    for (i = 0; i < CACHES; i++) {
        engine_cache *cache = a_cache();
        size_t n = requests[i].n_tokens, rows = i % 2 ? n : 1;
        CHECK(requests[i].status == ENGINE_OK && engine_cache_len(requests[i].cache) == n);
        CHECK_OK(engine_step_all(cache, tokens, n, alone));
        CHECK(memcmp(together[i], alone + (n - rows) * VOCAB, rows * VOCAB * sizeof(float)) == 0);
        engine_cache_free(cache);
        engine_cache_free(requests[i].cache);
    }
}

static void failures_of_one(void)
{
    static float logits[VOCAB], alone[VOCAB];
    static const uint32_t wrong[] = {VOCAB};
    engine_request requests[9];
    engine_cache *reference = a_cache();
    int i;

    for (i = 0; i < 9; i++) requests[i] = ask(i == 2 ? NULL : a_cache(), 3, NULL, ENGINE_LOGITS_NONE);
    requests[0] = ask(requests[0].cache, 3, logits, ENGINE_LOGITS_LAST);
    requests[1].tokens = wrong;
    requests[1].n_tokens = 1;
    engine_cache_free(requests[3].cache);
    requests[3].cache = requests[0].cache; /* twice */
    requests[4].want = 7;
    requests[5].n_tokens = 1000;
    requests[6].want = ENGINE_LOGITS_LAST; /* with logits NULL */
    requests[7].n_tokens = 0;
    requests[8].reserved = 1;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "requests[1]: tokens[0] is 101", engine_step_batch(requests, 9));
    CHECK(requests[0].status == ENGINE_OK && engine_cache_len(requests[0].cache) == 3);
    for (i = 1; i < 7; i++) CHECK(requests[i].status == (i == 5 ? ENGINE_ERR_CONTEXT_FULL : ENGINE_ERR_BAD_ARGUMENT));
    CHECK(requests[7].status == ENGINE_OK);
    CHECK(requests[8].status == ENGINE_ERR_BAD_ARGUMENT && engine_cache_len(requests[8].cache) == 0);
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "requests[0]: reserved: 1 is not a value", engine_step_batch(&requests[8], 1));
    CHECK_OK(engine_step(reference, tokens, 3, alone));
    CHECK(memcmp(logits, alone, sizeof alone) == 0);

    /* The others' caches are as they were; a cancelled one goes on afterwards. */
    requests[1] = ask(requests[1].cache, 3, NULL, ENGINE_LOGITS_NONE);
    requests[4] = ask(requests[4].cache, 3, logits, ENGINE_LOGITS_LAST);
    engine_cache_cancel(requests[1].cache);
    requests[2] = requests[4];
    CHECK_STATUS(ENGINE_ERR_CANCELLED, "requests[0]", engine_step_batch(&requests[1], 2));
    CHECK(requests[1].status == ENGINE_ERR_CANCELLED && requests[2].status == ENGINE_OK);
    CHECK(engine_cache_len(requests[1].cache) == 0 && memcmp(logits, alone, sizeof alone) == 0);
    CHECK_OK(engine_step(requests[1].cache, tokens, 3, logits));
    CHECK(memcmp(logits, alone, sizeof alone) == 0);

    requests[3].cache = NULL;
    requests[2].cache = NULL;
    for (i = 0; i < 9; i++) engine_cache_free(requests[i].cache);
    engine_cache_free(reference);
}

/* A caller of a later version, whose requests are longer. */
static void longer_requests(void)
{
    struct {
        engine_request known;
        char later[16];
    } requests[2];
    engine_request a_request = ask(NULL, 0, NULL, ENGINE_LOGITS_NONE);
    memset(requests, 0, sizeof requests);
    requests[0].known = ask(a_cache(), 2, NULL, ENGINE_LOGITS_NONE);
    requests[1].known = ask(a_cache(), 3, NULL, ENGINE_LOGITS_NONE);
    requests[0].known.struct_size = requests[1].known.struct_size = sizeof requests[0];
    CHECK_OK(engine_step_batch(&requests[0].known, 2));
    CHECK(engine_cache_len(requests[0].known.cache) == 2 && engine_cache_len(requests[1].known.cache) == 3);
    requests[1].later[5] = 1;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "requests[1]: engine_request: byte ", engine_step_batch(&requests[0].known, 2));
    CHECK(engine_cache_len(requests[0].known.cache) == 4 && engine_cache_len(requests[1].known.cache) == 3);
    requests[1].known.struct_size = sizeof(engine_request);
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "requests[1]: struct_size", engine_step_batch(&requests[0].known, 2));
    CHECK(engine_cache_len(requests[0].known.cache) == 6);
    requests[0].known.struct_size = sizeof(engine_request) + 1;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "multiples of 8", engine_step_batch(&requests[0].known, 2));
    requests[0].known.struct_size = 8;
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "struct_size is 8", engine_step_batch(&requests[0].known, 2));
    engine_cache_free(requests[0].known.cache);
    engine_cache_free(requests[1].known.cache);
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "n: ", engine_step_batch(&a_request, (size_t)-1));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "n: ", engine_step_batch(&a_request, (size_t)-1 / sizeof a_request));
    CHECK_OK(engine_step_batch(NULL, 0));
    CHECK_STATUS(ENGINE_ERR_BAD_ARGUMENT, "requests", engine_step_batch(NULL, 1));
}

int main(int argc, char **argv)
{
    char path[4096];
    REQUIRE(argc == 2);
    snprintf(path, sizeof path, "%s/tests/golden/llama-mha/model", argv[1]);
    REQUIRE(engine_load_model(path, NULL, &model) == ENGINE_OK && engine_model_vocab_size(model) == VOCAB);
    same_bits();
    failures_of_one();
    longer_requests();
    engine_model_free(model);
    return finish();
}
