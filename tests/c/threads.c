/* Eight threads with a cache each on one model give the very bits that one thread gives alone, and a model that was freed
 * before its caches lives on in them. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>

enum { THREADS = 8, PROMPT = 21, STEPS = 12 };

/* One thread's sequence: a prompt of its own, then greedy steps. */
typedef struct {
    engine_cache *cache;
    size_t vocab;
    uint32_t seed;
    float *logits; /* [1 + STEPS][vocab] */
    engine_status status;
    char message[256];
} sequence;

static void *run(void *argument)
{
    sequence *s = argument;
    uint32_t prompt[PROMPT], token;
    int i;
    for (i = 0; i < PROMPT; i++) prompt[i] = (s->seed * 31 + (uint32_t)i * 7) % (uint32_t)s->vocab;
    s->status = engine_step(s->cache, prompt, PROMPT, s->logits);
    for (i = 0; i < STEPS && s->status == ENGINE_OK; i++) {
        token = likeliest(s->logits + (size_t)i * s->vocab, s->vocab);
        s->status = engine_step(s->cache, &token, 1, s->logits + (size_t)(i + 1) * s->vocab);
    }
    /* The last error is this thread's own: a mistake here is not seen by the others. */
    CHECK(engine_last_error_message()[0] == '\0');
    engine_cache_truncate(s->cache, (size_t)s->seed + 1000);
    snprintf(s->message, sizeof s->message, "%s", engine_last_error_message());
    return NULL;
}

static void init(sequence *s, const engine_model *model, uint32_t seed)
{
    memset(s, 0, sizeof *s);
    s->cache = new_cache(model);
    s->vocab = engine_model_vocab_size(model);
    s->seed = seed;
    s->logits = floats((1 + STEPS) * s->vocab);
}

static void test(const char *path)
{
    sequence alone[THREADS], together[THREADS];
    pthread_t threads[THREADS];
    engine_model *single = load(path, 1), *model = load(path, 0);
    char number[16];
    uint32_t i;
    for (i = 0; i < THREADS; i++) {
        init(&alone[i], single, i);
        init(&together[i], model, i);
    }
    engine_model_free(model);
    engine_model_free(single);
    for (i = 0; i < THREADS; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, run, &alone[i]) == 0);
        pthread_join(thread, NULL);
    }
    for (i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, run, &together[i]) == 0);
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < THREADS; i++) {
        size_t size = (1 + STEPS) * alone[i].vocab * sizeof(float);
        CHECK(alone[i].status == ENGINE_OK && together[i].status == ENGINE_OK);
        CHECK(memcmp(alone[i].logits, together[i].logits, size) == 0);
        CHECK(engine_cache_len(together[i].cache) == PROMPT + STEPS);
        snprintf(number, sizeof number, "%u", (unsigned)i + 1000);
        CHECK(strstr(together[i].message, number) != NULL);
        engine_cache_free(alone[i].cache);
        engine_cache_free(together[i].cache);
        free(alone[i].logits);
        free(together[i].logits);
    }
}

int main(int argc, char **argv)
{
    char *path;
    REQUIRE(argc == 2);
    path = tiny_model(argv[1]);
    test(path);
    free(path);
    path = text_model(argv[1]);
    test(path);
    free(path);
    return finish();
}
