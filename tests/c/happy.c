// All that goes well: every call, and that they agree with each other.
// usage: happy MODEL

#include "common.h"

static void *file(const char *folder, const char *name, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *in = fopen(path, "rb");
    CHECK(in);
    CHECK(!fseek(in, 0, SEEK_END));
    *length = (size_t)ftell(in);
    rewind(in);
    void *bytes = room(*length);
    CHECK(fread(bytes, 1, *length, in) == *length);
    fclose(in);
    return bytes;
}

static void count_release(void *user) { ++*(int *)user; }

static int watch(void *user, const discon_progress *progress) {
    double *last = user;
    CHECK(progress->size == sizeof *progress);
    CHECK(progress->fraction >= *last && progress->fraction <= 1);
    *last = progress->fraction;
    return 0;
}

// The same model from memory, lent and copied.
static void from_memory(const char *folder, const discon_request *request, const discon_images *expected, discon_device *device) {
    const char *names[] = {"discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"};
    discon_file files[5];
    for (int i = 0; i < 5; i++) {
        files[i].name = names[i];
        files[i].bytes = file(folder, names[i], &files[i].length);
    }
    discon_open_options open;
    OK(discon_open_options_init(&open, sizeof open));
    open.precision = DISCON_PRECISION_F32;
    for (int lent = 0; lent < 2; lent++) {
        int released = 0;
        discon_model *model;
        discon_session *session;
        OK(discon_model_from_memory(files, 5, &open, lent ? count_release : NULL, &released, &model));
        // Files that the library copied are the model's own, and within its limit.
        discon_model_info info = info_of(model);
        size_t sum = 0;
        for (int i = 0; i < 5; i++) sum += files[i].length;
        CHECK(info.weights_in_place + info.weights_copied > 0 && info.own_bytes > 0);
        CHECK(lent || (info.weights_in_place == 0 && info.own_bytes > sum));
        discon_open_options within = open;
        discon_model *refused;
        within.memory_limit = info.own_bytes - 1;
        GIVES(DISCON_STATUS_RESOURCES, discon_model_from_memory(files, 5, &within, lent ? count_release : NULL, &released, &refused));
        CHECK(says(lent ? "the limit is" : "beside"));
        within.memory_limit = sum - 1;
        if (!lent) {
            GIVES(DISCON_STATUS_RESOURCES, discon_model_from_memory(files, 5, &within, NULL, NULL, &refused));
            CHECK(says("a copy of the model's files") && says("the limit is"));
        }
        CHECK(refused == NULL && released == lent);
        released = 0;
        within.memory_limit = info.own_bytes;
        OK(discon_model_from_memory(files, 5, &within, lent ? count_release : NULL, &released, &refused));
        OK(discon_model_free(refused));
        CHECK(released == lent);
        released = 0;
        discon_images *images;
        OK(discon_generate(model, device, request, &images));
        for (size_t i = 0; i < request->count; i++) CHECK(same(view(images, i), view(expected, i)));
        OK(discon_images_free(images));
        OK(discon_session_new(model, device, NULL, NULL, &session));
        OK(discon_model_free(model));
        CHECK(released == 0); // the session has it
        OK(discon_session_free(session));
        CHECK(released == lent);
        // A failure releases too, before it returns.
        released = 0;
        GIVES(DISCON_STATUS_MODEL, discon_model_from_memory(files + 1, 4, NULL, lent ? count_release : NULL, &released, &model));
        CHECK(released == lent && model == NULL);
        released = 0;
        GIVES(DISCON_STATUS_NULL, discon_model_from_memory(files, 5, NULL, lent ? count_release : NULL, &released, NULL));
        CHECK(released == lent);
    }
    for (int i = 0; i < 5; i++) free((void *)(uintptr_t)files[i].bytes);
}

// A model within a limit of memory.
static void limited(const char *folder) {
    discon_open_options open;
    discon_model *model;
    OK(discon_open_options_init(&open, sizeof open));
    open.memory_limit = 1000;
    GIVES(DISCON_STATUS_RESOURCES, discon_model_open(folder, &open, &model));
    CHECK(model == NULL && says("bytes"));
    // What it says that it has of its own is what the limit limits.
    open.memory_limit = UINT64_MAX;
    OK(discon_model_open(folder, &open, &model));
    open.memory_limit = info_of(model).own_bytes;
    OK(discon_model_free(model));
    OK(discon_model_open(folder, &open, &model));
    OK(discon_model_free(model));
    open.memory_limit--;
    GIVES(DISCON_STATUS_RESOURCES, discon_model_open(folder, &open, &model));
    open.memory_limit = UINT64_MAX;
    open.precision = DISCON_PRECISION_BF16;
    OK(discon_model_open(folder, &open, &model));
    CHECK(info_of(model).precision == DISCON_PRECISION_BF16);
    OK(discon_model_free(model));
}

static discon_images *run_with(discon_session *session, uint32_t class_, const discon_start *start) {
    uint64_t seed = 5;
    discon_images *images;
    OK(discon_session_begin(session, &class_, &seed, 1, start));
    OK(discon_session_run(session, NULL, NULL));
    OK(discon_session_images(session, &images));
    return images;
}

// A mix of one class is that class; of two, neither.
static void mixed(discon_model *model, discon_device *device, const discon_settings *settings) {
    discon_session_options options;
    discon_session *session;
    discon_start start;
    uint32_t classes[] = {1, 2};
    double weights[] = {0, 3};
    OK(discon_session_options_init(&options, sizeof options));
    options.mix = 2;
    OK(discon_session_new(model, device, &options, settings, &session));
    OK(discon_start_init(&start, sizeof start));
    start.mix_classes = classes;
    start.mix_weights = weights;
    start.mix_count = 2;
    discon_images *first = run_with(session, 1, NULL), *second = run_with(session, 2, NULL), *mix = run_with(session, 1, &start);
    CHECK(same(view(mix, 0), view(second, 0)) && !same(view(mix, 0), view(first, 0)));
    OK(discon_images_free(mix));
    weights[1] = 0; // none: the image's own class
    mix = run_with(session, 1, &start);
    CHECK(same(view(mix, 0), view(first, 0)));
    OK(discon_images_free(mix));
    weights[0] = weights[1] = 0.5;
    mix = run_with(session, 1, &start);
    CHECK(!same(view(mix, 0), view(first, 0)) && !same(view(mix, 0), view(second, 0)));
    OK(discon_images_free(mix));
    uint64_t seed = 1;
    weights[0] = -1;
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(session, classes, &seed, 1, &start));
    OK(discon_images_free(first));
    OK(discon_images_free(second));
    OK(discon_session_free(session));
}

// What is given beside codes holds in a session of given codes as in one that draws the same: an order, a mix, known places.
static void given_with_codes(discon_model *model, discon_device *device, const discon_settings *settings) {
    discon_model_info info = info_of(model);
    uint32_t *codes = room(info.places * sizeof *codes), classes[] = {1, 2};
    float *tokens = calloc(info.places * info.channels, sizeof *tokens);
    uint8_t *known = calloc(info.places, 1);
    double weights[] = {1, 1};
    discon_session *session;
    discon_start start;
    OK(discon_session_new(model, device, NULL, settings, &session));
    discon_images *plain = run_with(session, 1, NULL);
    OK(discon_session_free(session));
    memset(known, 1, info.places / 2);
    for (int what = 0; what < 3; what++) {
        discon_session_options options;
        discon_images *images[2];
        OK(discon_session_options_init(&options, sizeof options));
        OK(discon_start_init(&start, sizeof start));
        if (what == 0) start.order = DISCON_ORDER_RASTER;
        if (what == 1) {
            options.mix = 2;
            start.mix_classes = classes;
            start.mix_weights = weights;
            start.mix_count = 2;
        }
        if (what == 2) {
            options.known_places = info.places / 2;
            start.known = known;
            start.known_count = info.places;
            start.tokens = tokens;
            start.tokens_count = info.places * info.channels;
        }
        for (int given = 0; given < 2; given++) {
            options.given_codes = (uint32_t)given;
            if (given) start.codes = codes, start.codes_count = info.places;
            OK(discon_session_new(model, device, &options, settings, &session));
            images[given] = run_with(session, 1, &start);
            OK(discon_session_codes(session, 0, codes, info.places));
            OK(discon_session_free(session));
        }
        CHECK(same(view(images[0], 0), view(images[1], 0)) && !same(view(images[0], 0), view(plain, 0)));
        OK(discon_images_free(images[0]));
        OK(discon_images_free(images[1]));
    }
    OK(discon_images_free(plain));
    free(codes), free(tokens), free(known);
}

// Pictures of what is drawn so far leave the run as it is; after the end they are the images.
static void previewed(discon_model *model, discon_device *device, const discon_settings *settings) {
    discon_session_options options;
    discon_session *session;
    discon_images *now, *images, *expected;
    discon_progress progress;
    double cost;
    uint32_t class_ = 1;
    uint64_t seed = 5;
    OK(discon_progress_init(&progress, sizeof progress));
    OK(discon_session_new(model, device, NULL, settings, &session));
    expected = run_with(session, class_, NULL);
    GIVES(DISCON_STATUS_REQUEST, discon_session_preview_cost(session, &cost));
    GIVES(DISCON_STATUS_REQUEST, discon_session_preview_now(session, &now));
    OK(discon_session_free(session));
    OK(discon_session_options_init(&options, sizeof options));
    options.partial_previews = 1;
    OK(discon_session_new(model, device, &options, settings, &session));
    GIVES(DISCON_STATUS_MISUSE, discon_session_begin_preview(session));
    OK(discon_session_preview_cost(session, &cost));
    CHECK(cost > 0 && cost < 1);
    OK(discon_session_begin(session, &class_, &seed, 1, NULL));
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin_preview(session)); // nothing is drawn yet
    int made = 0;
    while (!progress.finished) {
        OK(discon_session_step(session, 0, &progress));
        if (made || discon_session_begin_preview(session) != DISCON_STATUS_OK) continue;
        discon_progress preview = progress;
        do OK(discon_session_step_preview(session, 0, &preview));
        while (!preview.finished);
        OK(discon_session_partial_previews(session, &now));
        CHECK(!same(view(now, 0), view(expected, 0)));
        OK(discon_images_free(now));
        made = 1;
    }
    CHECK(made && progress.left_us == 0);
    OK(discon_session_images(session, &images));
    CHECK(same(view(images, 0), view(expected, 0)));
    OK(discon_session_preview_now(session, &now));
    CHECK(same(view(now, 0), view(expected, 0)));
    OK(discon_images_free(now));
    OK(discon_images_free(images));
    OK(discon_images_free(expected));
    OK(discon_session_free(session));
}

// With pictures of both kinds DISCON_STAGE_ENCODE follows stage 1 and its coarse picture, which are there then.
static void previewed_twice(discon_model *model, discon_device *device, const discon_settings *settings) {
    discon_session_options options;
    discon_session *session;
    discon_images *coarse;
    discon_progress progress;
    uint32_t class_ = 1, *codes = room(info_of(model).places * sizeof *codes);
    uint64_t seed = 5;
    int encoding = 0;
    OK(discon_progress_init(&progress, sizeof progress));
    OK(discon_session_options_init(&options, sizeof options));
    options.preview = options.partial_previews = 1;
    OK(discon_session_new(model, device, &options, settings, &session));
    OK(discon_session_begin(session, &class_, &seed, 1, NULL));
    while (!progress.finished) {
        OK(discon_session_step(session, 0, &progress));
        if (progress.stage != DISCON_STAGE_ENCODE) continue;
        OK(discon_session_previews(session, &coarse));
        OK(discon_images_free(coarse));
        OK(discon_session_codes(session, 0, codes, info_of(model).places));
        encoding = 1;
    }
    CHECK(encoding);
    OK(discon_session_free(session));
    free(codes);
}

struct heard {
    int progress, previews, images, stop;
};

static int hear(void *user, const discon_event *event) {
    struct heard *heard = user;
    CHECK(event->size == sizeof *event);
    if (event->kind == DISCON_EVENT_KIND_PROGRESS) {
        CHECK(event->progress && !event->images && event->progress->fraction <= 1);
        heard->progress++;
    } else {
        CHECK(!event->progress && view(event->images, 0).width > 0);
        *(event->kind == DISCON_EVENT_KIND_PREVIEW ? &heard->previews : &heard->images) += 1;
    }
    return heard->stop;
}

// On a thread of its own.
static void in_background(discon_model *model, discon_device *device, const discon_request *request, const discon_images *expected) {
    discon_session_options options;
    discon_session *session;
    discon_images *images;
    discon_progress progress;
    int32_t over;
    OK(discon_progress_init(&progress, sizeof progress));
    OK(discon_session_options_init(&options, sizeof options));
    options.batch = request->count;
    options.preview = 1;
    OK(discon_session_new(model, device, &options, request->settings, &session));
    GIVES(DISCON_STATUS_MISUSE, discon_session_run_in_background(session, NULL, NULL));
    GIVES(DISCON_STATUS_MISUSE, discon_session_join(session));
    OK(discon_session_is_over(session, &over));
    CHECK(over == 1);
    for (int stop = 0; stop < 2; stop++) {
        struct heard heard = {0, 0, 0, stop};
        OK(discon_session_begin(session, request->classes, request->seeds, request->count, NULL));
        OK(discon_session_run_in_background(session, hear, &heard));
        GIVES(DISCON_STATUS_BUSY, discon_session_step(session, 0, &progress));
        GIVES(DISCON_STATUS_BUSY, discon_session_progress(session, &progress));
        GIVES(DISCON_STATUS_BUSY, discon_session_images(session, &images));
        GIVES(DISCON_STATUS_BUSY, discon_session_begin(session, request->classes, request->seeds, request->count, NULL));
        discon_status status = discon_session_join(session);
        if (stop) {
            CHECK(status == DISCON_STATUS_CANCELLED || heard.images); // it may have been done with its first step
        } else {
            OK(status);
            CHECK(heard.progress > 0 && heard.previews == 1 && heard.images == 1);
            OK(discon_session_images(session, &images));
            for (size_t i = 0; i < request->count; i++) CHECK(same(view(images, i), view(expected, i)));
            OK(discon_images_free(images));
        }
    }
    // Freed while it works, and with nobody who hears.
    OK(discon_session_begin(session, request->classes, request->seeds, request->count, NULL));
    OK(discon_session_run_in_background(session, NULL, NULL));
    OK(discon_session_free(session));
}

// An edit as a session gives what the one call gives.
static void edited(discon_model *model, discon_device *device, const discon_edit *edit, const discon_request *request,
                   discon_images *expected) {
    discon_session *session;
    discon_images *images;
    discon_progress progress;
    OK(discon_progress_init(&progress, sizeof progress));
    OK(discon_session_edit(model, device, edit, request, &session));
    while (!progress.finished) OK(discon_session_step(session, 100, &progress));
    OK(discon_session_images(session, &images));
    for (size_t i = 0; i < request->count; i++) CHECK(same(view(images, i), view(expected, i)));
    OK(discon_images_free(images));
    OK(discon_images_free(expected));
    OK(discon_session_free(session));
}

struct log {
    int lines;
    char last[256];
};

static void hear_log(void *user, uint32_t level, const char *text) {
    struct log *log = user;
    CHECK(level >= DISCON_LOG_LEVEL_ERROR && level <= DISCON_LOG_LEVEL_INFO && strlen(text) > 0);
    log->lines++;
    snprintf(log->last, sizeof log->last, "%s", text);
}

static void logged(const char *folder) {
    struct log log = {0, ""};
    discon_model *model;
    OK(discon_set_log(DISCON_LOG_LEVEL_INFO, hear_log, &log));
    OK(discon_model_open(folder, NULL, &model));
    OK(discon_model_free(model));
    CHECK(log.lines == 1 && strstr(log.last, "opened"));
    GIVES(DISCON_STATUS_IO, discon_model_open("/not/here", NULL, &model));
    CHECK(log.lines == 2 && strstr(log.last, "/not/here"));
    GIVES(DISCON_STATUS_REQUEST, discon_set_log(6, hear_log, &log));
    OK(discon_set_log(DISCON_LOG_LEVEL_INFO, NULL, NULL)); // nobody
    GIVES(DISCON_STATUS_IO, discon_model_open("/not/here", NULL, &model));
    OK(discon_set_log(DISCON_LOG_LEVEL_OFF, hear_log, &log)); // nothing
    GIVES(DISCON_STATUS_IO, discon_model_open("/not/here", NULL, &model));
    CHECK(log.lines == 2);
    OK(discon_set_log(DISCON_LOG_LEVEL_OFF, NULL, NULL));
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    CHECK(discon_version() == DISCON_VERSION);
    logged(argv[1]);
    discon_model *model = opened(argv[1]);
    discon_device *device = cpu(2);
    size_t threads;
    OK(discon_device_threads(device, &threads));
    CHECK(threads == 2);

    discon_model_info info = info_of(model);
    CHECK(info.size == sizeof info && info.classes > 2 && info.previews == 1 && info.precision == DISCON_PRECISION_F32);
    size_t side = info.image_size, bytes = side * side * 3;
    for (uint32_t i = 0; i < info.classes; i++) {
        const char *name;
        uint32_t back;
        OK(discon_model_class_name(model, i, &name));
        OK(discon_model_class(model, name, &back));
        CHECK(back == i);
    }

    // One call.
    discon_settings settings = quick(model);
    uint32_t classes[] = {1, 2, DISCON_NO_CLASS};
    uint64_t seeds[] = {7, 8, UINT64_MAX};
    discon_request request;
    OK(discon_request_init(&request, sizeof request));
    request.count = 3;
    request.classes = classes;
    request.seeds = seeds;
    request.settings = &settings;
    discon_images *images;
    OK(discon_generate(model, device, &request, &images));
    size_t count;
    OK(discon_images_count(images, &count));
    CHECK(count == 3);

    // A session: run, then in steps of nothing, without new memory; previews on the way.
    discon_session_options options;
    OK(discon_session_options_init(&options, sizeof options));
    options.batch = 3;
    options.preview = 1;
    discon_session *session;
    OK(discon_session_new(model, device, &options, &settings, &session));
    uint64_t own;
    OK(discon_session_bytes(session, &own));
    CHECK(own > 0);
    double last = 0;
    OK(discon_session_begin(session, classes, seeds, 3, NULL));
    OK(discon_session_run(session, watch, &last));
    CHECK(last == 1);
    discon_images *again, *coarse;
    OK(discon_session_images(session, &again));
    for (size_t i = 0; i < 3; i++) CHECK(same(view(images, i), view(again, i)));
    OK(discon_images_free(again));

    discon_progress progress;
    OK(discon_progress_init(&progress, sizeof progress));
    OK(discon_session_begin(session, classes, seeds, 3, NULL));
    int steps = 0, early = 0;
    for (; !progress.finished; steps++) {
        OK(discon_session_step(session, 0, &progress));
        if (!progress.finished && progress.stage == DISCON_STAGE_CONDITION && !early++) {
            OK(discon_session_previews(session, &coarse));
            CHECK(view(coarse, 0).width == side);
            OK(discon_images_free(coarse));
        }
    }
    CHECK(steps > 3 && early && progress.fraction == 1);
    OK(discon_session_progress(session, &progress));
    CHECK(progress.finished == 1);

    // Into the caller's memory: RGB, and RGBA in lines that are longer.
    uint8_t *rgb = room(bytes);
    discon_target target;
    OK(discon_target_init(&target, sizeof target));
    target.pixels = rgb;
    target.length = bytes;
    OK(discon_session_image(session, 1, &target));
    CHECK(!memcmp(rgb, view(images, 1).pixels, bytes));
    size_t stride = side * 4 + 12;
    uint8_t *rgba = room(stride * side);
    target.pixels = rgba;
    target.length = stride * (side - 1) + side * 4; // the last line's gap is not there
    target.stride = stride;
    target.format = DISCON_FORMAT_RGBA;
    OK(discon_images_copy(images, 1, &target));
    for (size_t y = 0; y < side; y++) {
        for (size_t x = 0; x < side; x++) {
            const uint8_t *pixel = rgba + y * stride + x * 4;
            CHECK(!memcmp(pixel, rgb + (y * side + x) * 3, 3) && pixel[3] == 255);
        }
        for (size_t i = side * 4; i < stride; i++) CHECK(rgba[y * stride + i] == 0xA5);
    }
    OK(discon_session_preview(session, 0, &target));
    OK(discon_session_previews(session, &coarse));
    OK(discon_target_init(&target, sizeof target));
    target.pixels = rgb;
    target.length = bytes;
    OK(discon_session_preview(session, 2, &target));
    CHECK(!memcmp(rgb, view(coarse, 2).pixels, bytes) && !same(view(coarse, 2), view(coarse, 0)));
    GIVES(DISCON_STATUS_REQUEST, discon_session_preview(session, 3, &target));
    OK(discon_images_free(coarse));

    // Tokens and codes; the same codes give the same pictures.
    size_t tokens_count = info.places * info.channels;
    float *tokens = room(tokens_count * sizeof *tokens);
    uint32_t *codes = room(3 * info.places * sizeof *codes);
    for (size_t i = 0; i < 3; i++) OK(discon_session_codes(session, i, codes + i * info.places, info.places));
    OK(discon_session_tokens(session, 1, tokens, tokens_count));
    OK(discon_decode(model, device, tokens, tokens_count, &again));
    CHECK(same(view(again, 0), view(images, 1)));
    OK(discon_images_free(again));
    OK(discon_session_free(session));

    discon_start start;
    OK(discon_start_init(&start, sizeof start));
    start.codes = codes;
    start.codes_count = 3 * info.places;
    options.given_codes = 1;
    OK(discon_session_new(model, device, &options, &settings, &session));
    OK(discon_session_begin(session, classes, seeds, 3, &start));
    OK(discon_session_run(session, NULL, NULL));
    OK(discon_session_images(session, &again));
    for (size_t i = 0; i < 3; i++) CHECK(same(view(images, i), view(again, i)));
    OK(discon_images_free(again));
    OK(discon_session_free(session));

    // Known places keep their tokens.
    OK(discon_session_options_init(&options, sizeof options));
    options.known_places = info.places / 2;
    OK(discon_session_new(model, device, &options, &settings, &session));
    uint8_t *known = calloc(info.places, 1);
    memset(known, 1, info.places / 2);
    OK(discon_start_init(&start, sizeof start));
    start.order = DISCON_ORDER_FROM_KNOWN;
    start.known = known;
    start.known_count = info.places;
    start.tokens = tokens;
    start.tokens_count = tokens_count;
    OK(discon_session_begin(session, classes, seeds, 1, &start));
    OK(discon_session_run(session, NULL, NULL));
    float *drawn = room(tokens_count * sizeof *drawn);
    OK(discon_session_tokens(session, 0, drawn, tokens_count));
    size_t kept = info.places / 2 * info.channels;
    CHECK(!memcmp(drawn, tokens, kept * sizeof *drawn));
    CHECK(memcmp(drawn + kept, tokens + kept, (tokens_count - kept) * sizeof *drawn));
    OK(discon_session_free(session));

    // What a session takes is known before, and can be limited.
    discon_memory memory;
    OK(discon_memory_init(&memory, sizeof memory));
    OK(discon_model_memory(model, device, &options, &settings, &memory));
    CHECK(memory.host > 0 && memory.device == 0);
    CHECK(memory.host == memory.arena + memory.workers + memory.shared + memory.previews + memory.weights + memory.plan);
    options.memory_limit = memory.host - 1;
    GIVES(DISCON_STATUS_RESOURCES, discon_session_new(model, device, &options, &settings, &session));
    options.memory_limit = memory.host;
    OK(discon_session_new(model, device, &options, &settings, &session));
    OK(discon_session_free(session));
    limited(argv[1]);
    mixed(model, device, &settings);
    given_with_codes(model, device, &settings);
    previewed(model, device, &settings);
    previewed_twice(model, device, &settings);
    in_background(model, device, &request, images);

    // Pictures of pictures.
    discon_image picture = view(images, 0);
    uint32_t *found = room(info.places * sizeof *found);
    OK(discon_encode(model, device, &picture, drawn, tokens_count, found, info.places));
    for (size_t i = 0; i < info.places; i++) CHECK(found[i] < info.codes);
    OK(discon_encode(model, device, &picture, drawn, tokens_count, NULL, 0));

    uint8_t *mask = calloc(side * side, 1);
    memset(mask, 1, side * side / 2);
    OK(discon_inpaint(model, device, &picture, mask, side * side, &request, &again));
    CHECK(!memcmp(view(again, 2).pixels + bytes / 2, picture.pixels + bytes / 2, bytes / 2));
    CHECK(memcmp(view(again, 2).pixels, picture.pixels, bytes / 2));
    discon_edit edit;
    OK(discon_edit_init(&edit, sizeof edit));
    edit.kind = DISCON_EDIT_KIND_INPAINT;
    edit.image = &picture;
    edit.mask = mask;
    edit.mask_count = side * side;
    edited(model, device, &edit, &request, again);

    discon_image part = picture; // the right half of it
    part.width = side / 2;
    part.pixels += side / 2 * 3;
    OK(discon_outpaint(model, device, &part, side / 2, 0, &request, &again));
    for (size_t y = 0; y < side; y++) {
        size_t line = y * side * 3, half = side / 2 * 3;
        CHECK(!memcmp(view(again, 0).pixels + line + half, picture.pixels + line + half, half));
    }
    OK(discon_edit_init(&edit, sizeof edit));
    edit.kind = DISCON_EDIT_KIND_OUTPAINT;
    edit.image = &part;
    edit.left = side / 2;
    edited(model, device, &edit, &request, again);
    OK(discon_redraw(model, device, &picture, 0.5, &request, &again));
    OK(discon_edit_init(&edit, sizeof edit));
    edit.kind = DISCON_EDIT_KIND_REDRAW;
    edit.image = &picture;
    edit.share = 0.5;
    edited(model, device, &edit, &request, again);
    OK(discon_variations(model, device, codes, info.places, 1.0, &request, &again));
    CHECK(same(view(again, 0), view(images, 0))); // class, seed and codes of it
    OK(discon_edit_init(&edit, sizeof edit));
    edit.kind = DISCON_EDIT_KIND_VARIATIONS;
    edit.share = 1;
    edit.codes = codes;
    edit.codes_count = info.places;
    edited(model, device, &edit, &request, again);

    from_memory(argv[1], &request, images, device);

    free(rgb), free(rgba), free(tokens), free(codes), free(known), free(drawn), free(found), free(mask);
    OK(discon_images_free(images));
    OK(discon_device_free(device));
    OK(discon_model_free(model));
    return 0;
}
