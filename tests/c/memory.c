// The host's memory: all of it comes back, turn by turn, and none is had after it was refused.
// usage: memory MODEL

#define _POSIX_C_SOURCE 200809L
#include "common.h"
#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static size_t live, blocks, most, limit = SIZE_MAX;

static void *allocate(void *user, size_t bytes, size_t align) {
    void *memory = NULL;
    CHECK(user == &live && bytes > 0 && align > 0 && (align & (align - 1)) == 0);
    pthread_mutex_lock(&mutex);
    // Small ones are always had: see docs/embedding.md.
    int refused = bytes >= 4096 && live + bytes > limit;
    // Size and alignment behind it, for `release`.
    size_t what[2] = {bytes, align};
    if (!refused && !posix_memalign(&memory, align < sizeof(void *) ? sizeof(void *) : align, bytes + sizeof what)) {
        memcpy((char *)memory + bytes, what, sizeof what);
        live += bytes;
        blocks++;
        if (live > most) most = live;
    }
    pthread_mutex_unlock(&mutex);
    return memory;
}

static void release(void *user, void *memory, size_t bytes, size_t align) {
    size_t what[2];
    CHECK(user == &live && memory);
    memcpy(what, (char *)memory + bytes, sizeof what);
    CHECK(what[0] == bytes && what[1] == align);
    pthread_mutex_lock(&mutex);
    live -= bytes;
    blocks--;
    pthread_mutex_unlock(&mutex);
    free(memory);
}

static void turn(const char *folder, uint64_t seed, discon_status expected) {
    discon_device *device = cpu(2);
    discon_model *model;
    discon_status status = discon_model_open(folder, NULL, &model);
    CHECK(status == DISCON_STATUS_OK || status == expected);
    if (status == DISCON_STATUS_OK) {
        discon_settings settings = quick(model);
        discon_request request;
        discon_images *images;
        uint32_t class_ = 1;
        OK(discon_request_init(&request, sizeof request));
        request.count = 1;
        request.classes = &class_;
        request.seeds = &seed;
        request.settings = &settings;
        GIVES(expected, discon_generate(model, device, &request, &images));
        OK(discon_images_free(images));
        if (expected == DISCON_STATUS_OK) {
            // Once more on a thread of its own, and given up while it works.
            discon_session *session;
            OK(discon_session_new(model, device, NULL, &settings, &session));
            for (int join = 1; join >= 0; join--) {
                OK(discon_session_begin(session, &class_, &seed, 1, NULL));
                OK(discon_session_run_in_background(session, NULL, NULL));
                if (join) OK(discon_session_join(session));
            }
            OK(discon_session_free(session));
        }
        OK(discon_model_free(model));
    }
    OK(discon_device_free(device));
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    discon_allocator allocator;
    OK(discon_allocator_init(&allocator, sizeof allocator));
    allocator.user = &live;
    GIVES(DISCON_STATUS_NULL, discon_set_allocator(&allocator)); // no functions; nothing was taken yet
    allocator.allocate = allocate;
    allocator.release = release;
    OK(discon_set_allocator(&allocator));
    GIVES(DISCON_STATUS_MISUSE, discon_set_allocator(&allocator));
    CHECK(live == 0);

    for (uint64_t seed = 0; seed < 20; seed++) {
        turn(argv[1], seed, DISCON_STATUS_OK);
        if (live || blocks) {
            fprintf(stderr, "after turn %u: %zu bytes in %zu blocks are live\n", (unsigned)seed, live, blocks);
            return 1;
        }
    }
    CHECK(most > 10000);

    // With half of what it takes: an error, all comes back, and the next turn works.
    limit = most / 2;
    turn(argv[1], 1, DISCON_STATUS_RESOURCES);
    CHECK(says("bytes") && live == 0);
    limit = SIZE_MAX;
    turn(argv[1], 1, DISCON_STATUS_OK);
    CHECK(live == 0);
    return 0;
}
