/* Stopping: a step from another thread, a load from its callback. Nothing has changed afterwards. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>
#include <sched.h>

/* A step on a thread of its own. */
typedef struct {
    engine_cache *cache;
    const uint32_t *tokens;
    size_t n;
    float *logits;
    engine_status status;
} step;

static void *run(void *argument)
{
    step *s = argument;
    s->status = engine_step(s->cache, s->tokens, s->n, s->logits);
    return NULL;
}

/* Cancels many steps at varying moments: each step is either done or has left no trace, and the cache goes on with the bits of one that
 * never was cancelled. */
static void cancel_steps(const char *path, int rounds)
{
    enum { PROMPT = 64 };
    engine_model *model = load(path, 0);
    const size_t vocab = engine_model_vocab_size(model);
    uint32_t tokens[PROMPT];
    float *expected = floats(vocab), *logits = floats(vocab);
    engine_cache *cache = new_cache(model);
    step s;
    int round, i, cancelled = 0;
    for (i = 0; i < PROMPT; i++) tokens[i] = (uint32_t)(i * 13) % (uint32_t)vocab;
    /* The same cut as below, because where a prompt is cut may decide which bits it gives. */
    CHECK_OK(engine_step(cache, tokens, 3, NULL));
    CHECK_OK(engine_step(cache, tokens + 3, PROMPT - 3, expected));

    /* Asked before the step: it does not begin. */
    CHECK_OK(engine_cache_truncate(cache, 3));
    engine_cache_cancel(cache);
    CHECK_STATUS(ENGINE_ERR_CANCELLED, "", engine_step(cache, tokens + 3, PROMPT - 3, logits));
    CHECK(engine_cache_len(cache) == 3);
    engine_cache_cancel(cache);
    CHECK_STATUS(ENGINE_ERR_CANCELLED, "", engine_step_all(cache, tokens + 3, 1, logits));
    CHECK(engine_cache_len(cache) == 3);

    s.cache = cache;
    s.tokens = tokens + 3;
    s.n = PROMPT - 3;
    s.logits = logits;
    for (round = 0; round < rounds; round++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, run, &s) == 0);
        for (i = 0; i < round; i++) sched_yield();
        engine_cache_cancel(cache);
        pthread_join(thread, NULL);
        CHECK(s.status == ENGINE_OK || s.status == ENGINE_ERR_CANCELLED);
        CHECK(engine_cache_len(cache) == (s.status == ENGINE_OK ? (size_t)PROMPT : 3));
        if (s.status == ENGINE_OK) {
            CHECK(memcmp(logits, expected, vocab * sizeof *logits) == 0);
            CHECK_OK(engine_cache_truncate(cache, 3));
            /* The request may have come too late for that step, and then was meant for this one. */
            if (engine_step(cache, tokens + 3, 1, NULL) == ENGINE_OK) CHECK_OK(engine_cache_truncate(cache, 3));
        } else {
            cancelled++;
        }
    }
    CHECK(cancelled > 0);
    CHECK_OK(engine_step(cache, tokens + 3, PROMPT - 3, logits));
    CHECK(memcmp(logits, expected, vocab * sizeof *logits) == 0);
    engine_cache_free(cache);
    engine_model_free(model);
    free(expected);
    free(logits);
}

/* A fork is not cancelled with the cache it came from. */
static void forks_are_apart(const char *path)
{
    engine_model *model = load(path, 1);
    engine_cache *cache = new_cache(model), *copy = NULL;
    uint32_t token = 1;
    CHECK_OK(engine_step(cache, &token, 1, NULL));
    CHECK_OK(engine_cache_fork(cache, &copy));
    engine_cache_cancel(cache);
    CHECK_OK(engine_step(copy, &token, 1, NULL));
    CHECK_STATUS(ENGINE_ERR_CANCELLED, "", engine_step(cache, &token, 1, NULL));
    CHECK_OK(engine_step(cache, &token, 1, NULL));
    engine_cache_free(cache);
    engine_cache_free(copy);
    engine_model_free(model);
}

/* What the progress callback saw, and when it is to stop. */
typedef struct {
    pthread_t thread;
    int calls, stop_at, ordered;
    float last;
} watcher;

static bool watch(void *user_data, float fraction)
{
    watcher *w = user_data;
    w->ordered &= pthread_equal(w->thread, pthread_self()) && fraction >= w->last && fraction <= 1;
    w->last = fraction;
    return ++w->calls != w->stop_at;
}

static engine_status watched_load(const char *path, watcher *w, int stop_at)
{
    engine_model *model = NULL;
    engine_load_options options;
    engine_status status;
    memset(w, 0, sizeof *w);
    w->thread = pthread_self();
    w->ordered = 1;
    w->stop_at = stop_at;
    engine_load_options_init(&options);
    options.weights = ENGINE_WEIGHTS_F32;
    options.progress = watch;
    options.user_data = w;
    status = engine_load_model(path, &options, &model);
    CHECK((status == ENGINE_OK) == (model != NULL));
    engine_model_free(model);
    return status;
}

static void cancel_loads(const char *path)
{
    watcher w;
    int calls, i;
    CHECK_OK(watched_load(path, &w, 0));
    CHECK(w.calls > 0 && w.ordered && w.last == 1);
    calls = w.calls;
    for (i = 1; i < calls; i++) {
        CHECK_STATUS(ENGINE_ERR_CANCELLED, "", watched_load(path, &w, i));
        CHECK(w.calls == i && w.ordered);
    }
}

int main(int argc, char **argv)
{
    char *tiny, *larger;
    REQUIRE(argc == 2);
    tiny = tiny_model(argv[1]);
    larger = text_model(argv[1]);
    forks_are_apart(tiny);
    cancel_loads(tiny);
    cancel_steps(tiny, 60);
    cancel_steps(larger, 12); /* few: under valgrind each takes seconds */
    free(tiny);
    free(larger);
    return finish();
}
