// The host's memory: all of it comes back, turn by turn, and none is had after it was refused.
// usage: memory MODEL

#define _POSIX_C_SOURCE 200809L
#include "common.h"
#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static size_t live, blocks, most, limit = SIZE_MAX, least = 4096, large, nth;
static int asking; // a model is there, and requests are made of it

static void *allocate(void *user, size_t bytes, size_t align) {
    void *memory = NULL;
    CHECK(user == &live && bytes > 0 && align > 0 && (align & (align - 1)) == 0);
    pthread_mutex_lock(&mutex);
    // Small ones are always had: see docs/embedding.md.
    int refused = bytes >= least && (live + bytes > limit || (asking && ++large == nth));
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

// Calls that were refused in this turn.
static int refused;

static int had(discon_status status) {
    if (status == DISCON_STATUS_OK) return 1;
    if (status != DISCON_STATUS_RESOURCES || !says("bytes")) fail(__FILE__, __LINE__, discon_status_name(status));
    refused++;
    return 0;
}

static int hear(void *user, const discon_event *event) {
    if (event->kind == DISCON_EVENT_KIND_IMAGES) ++*(int *)user;
    return 0;
}

enum { IMAGES = 4 };

static void edits(discon_model *model, discon_device *device, const discon_request *request, discon_image picture) {
    discon_images *images;
    discon_session *session;
    discon_edit edit;
    size_t pixels = picture.width * picture.height, places = info_of(model).places;
    uint8_t *mask = room(pixels);
    uint32_t *codes = calloc(places, sizeof *codes);
    if (had(discon_inpaint(model, device, &picture, mask, pixels, request, &images))) OK(discon_images_free(images));
    OK(discon_edit_init(&edit, sizeof edit));
    edit.kind = DISCON_EDIT_KIND_INPAINT;
    edit.image = &picture;
    edit.mask = mask;
    edit.mask_count = pixels;
    if (had(discon_session_edit(model, device, &edit, request, &session))) OK(discon_session_free(session));
    if (had(discon_variations(model, device, codes, places, 0.5, request, &images))) OK(discon_images_free(images));
    free(mask), free(codes);
}

// Much larger than a picture, a mask or the codes of the model: refused by their size, before they are copied.
static void too_large(discon_model *model, discon_device *device, const discon_request *request, discon_image picture) {
    discon_images *images;
    discon_image large = picture;
    large.width = large.height = 512;
    large.stride = 0;
    large.pixels = calloc(512 * 512, 3);
    GIVES(DISCON_STATUS_REQUEST, discon_redraw(model, device, &large, 0.5, request, &images));
    CHECK(says("image"));
    GIVES(DISCON_STATUS_REQUEST, discon_inpaint(model, device, &picture, large.pixels, 512 * 512, request, &images));
    CHECK(says("mask"));
    GIVES(DISCON_STATUS_REQUEST, discon_variations(model, device, (const uint32_t *)large.pixels, 512 * 512 / 4, 0.5, request, &images));
    CHECK(says("codes"));
    free((void *)(uintptr_t)large.pixels);
}

static void turn(const char *folder, uint64_t seed) {
    discon_device *device = cpu(2);
    discon_model *model;
    refused = 0;
    if (had(discon_model_open(folder, NULL, &model))) {
        asking = 1;
        discon_model_info info = info_of(model);
        discon_settings settings = quick(model);
        discon_request request;
        discon_images *images;
        uint32_t classes[IMAGES];
        uint64_t seeds[IMAGES];
        for (size_t i = 0; i < IMAGES; i++) classes[i] = 1, seeds[i] = seed + i;
        OK(discon_request_init(&request, sizeof request));
        request.count = IMAGES;
        request.classes = classes;
        request.seeds = seeds;
        request.settings = &settings;
        if (had(discon_generate(model, device, &request, &images))) {
            edits(model, device, &request, view(images, 0));
            too_large(model, device, &request, view(images, 0));
        }
        OK(discon_images_free(images));

        // In the background, with all that can be given, and given up while it works.
        discon_session_options options;
        discon_session *session;
        discon_start start;
        OK(discon_session_options_init(&options, sizeof options));
        options.batch = IMAGES;
        options.known_places = 1;
        options.mix = 2;
        OK(discon_start_init(&start, sizeof start));
        size_t all = IMAGES * info.places;
        uint32_t *codes = calloc(all, sizeof *codes), mixes[2 * IMAGES] = {0};
        uint8_t *known = calloc(all, 1);
        float *tokens = calloc(all * info.channels, sizeof *tokens);
        double weights[2 * IMAGES];
        for (size_t i = 0; i < IMAGES; i++) known[i * info.places] = 1, weights[2 * i] = 1, weights[2 * i + 1] = 2;
        start.codes = codes, start.codes_count = all;
        start.known = known, start.known_count = all;
        start.tokens = tokens, start.tokens_count = all * info.channels;
        start.mix_classes = mixes, start.mix_weights = weights, start.mix_count = 2 * IMAGES;
        if (had(discon_session_new(model, device, &options, &settings, &session))) {
            for (int join = 1; join >= 0; join--) {
                int images_heard = 0;
                if (!had(discon_session_begin(session, classes, seeds, IMAGES, &start))) continue;
                if (!had(discon_session_run_in_background(session, join ? hear : NULL, &images_heard)) || !join) continue;
                if (had(discon_session_join(session))) CHECK(images_heard == 1);
            }
            OK(discon_session_free(session));
        }
        free(codes), free(known), free(tokens);
        asking = 0;
        OK(discon_model_free(model));
    }
    OK(discon_device_free(device));
    if (live || blocks) {
        fprintf(stderr, "after turn %u: %zu bytes in %zu blocks are live\n", (unsigned)seed, live, blocks);
        exit(1);
    }
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

    // Under a tool that makes everything some fifty times as slow, of each kind a few.
    int brief = getenv("DISCON_TEST_BRIEF") != NULL;
    for (uint64_t seed = 0; seed < (brief ? 1 : 20); seed++) {
        turn(argv[1], seed);
        CHECK(refused == 0);
    }
    CHECK(most > 10000);

    // With less than what it takes: an error, all comes back, and the next turn works.
    size_t all = most;
    for (least = 4096; least <= 65536; least *= brief ? 16 : 4) {
        for (size_t eighth = 1; eighth <= 4; eighth += brief ? 4 : 1) {
            limit = all / 8 * eighth;
            turn(argv[1], 1);
            CHECK(refused > 0);
        }
    }
    limit = SIZE_MAX;

    // Each block but small ones that a request asks for refused in its turn: that call fails, and what comes after works.
    least = 8192;
    for (nth = 1, large = 0; turn(argv[1], 1), large >= nth; nth += brief ? 40 : 1, large = 0) CHECK(refused == 1);
    CHECK(refused == 0 && nth > 40);
    return 0;
}
