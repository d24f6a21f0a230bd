// All that is refused: nulls for every pointer, sizes, counts, calls at the wrong time. After it everything works.
// usage: misuse MODEL

#include "common.h"

#define IS_NULL(call) GIVES(DISCON_STATUS_NULL, call)

static void nulls(discon_model *m, discon_device *d, discon_session *s, discon_images *i, discon_request *r) {
    discon_model *model;
    discon_session *session;
    discon_canceller *canceller;
    discon_images *images;
    discon_image picture = view(i, 0);
    const char *name;
    uint32_t number = 0;
    uint64_t big;
    size_t size;
    float tokens[4];
    uint8_t byte = 0;

    IS_NULL(discon_allocator_init(NULL, sizeof(discon_allocator)));
    IS_NULL(discon_cpu_options_init(NULL, sizeof(discon_cpu_options)));
    IS_NULL(discon_model_info_init(NULL, sizeof(discon_model_info)));
    IS_NULL(discon_settings_init(NULL, sizeof(discon_settings), m));
    discon_settings settings;
    IS_NULL(discon_settings_init(&settings, sizeof settings, NULL));
    IS_NULL(discon_request_init(NULL, sizeof(discon_request)));
    IS_NULL(discon_start_init(NULL, sizeof(discon_start)));
    IS_NULL(discon_session_options_init(NULL, sizeof(discon_session_options)));
    IS_NULL(discon_progress_init(NULL, sizeof(discon_progress)));
    IS_NULL(discon_memory_init(NULL, sizeof(discon_memory)));
    IS_NULL(discon_image_init(NULL, sizeof(discon_image)));
    IS_NULL(discon_target_init(NULL, sizeof(discon_target)));

    IS_NULL(discon_set_allocator(NULL));
    discon_allocator allocator;
    OK(discon_allocator_init(&allocator, sizeof allocator));
    IS_NULL(discon_set_allocator(&allocator));
    IS_NULL(discon_device_cpu(NULL, NULL));
    IS_NULL(discon_device_cuda(0, NULL));
    IS_NULL(discon_device_threads(NULL, &size));
    IS_NULL(discon_device_threads(d, NULL));

    IS_NULL(discon_model_open(NULL, NULL, &model));
    CHECK(model == NULL && says("folder"));
    IS_NULL(discon_model_open("tiny", NULL, NULL));
    IS_NULL(discon_model_from_memory(NULL, 1, NULL, NULL, NULL, &model));
    discon_file file = {NULL, &byte, 1};
    IS_NULL(discon_model_from_memory(&file, 1, NULL, NULL, NULL, &model));
    file.name = "discon.json";
    file.bytes = NULL;
    IS_NULL(discon_model_from_memory(&file, 1, NULL, NULL, NULL, &model));
    GIVES(DISCON_STATUS_MODEL, discon_model_from_memory(NULL, 0, NULL, NULL, NULL, &model));
    discon_model_info info = info_of(m);
    IS_NULL(discon_model_get_info(NULL, &info));
    IS_NULL(discon_model_get_info(m, NULL));
    IS_NULL(discon_model_class_name(NULL, 0, &name));
    IS_NULL(discon_model_class_name(m, 0, NULL));
    IS_NULL(discon_model_class(NULL, "0", &number));
    IS_NULL(discon_model_class(m, NULL, &number));
    IS_NULL(discon_model_class(m, "0", NULL));
    discon_memory memory;
    OK(discon_memory_init(&memory, sizeof memory));
    IS_NULL(discon_model_memory(NULL, d, NULL, NULL, &memory));
    IS_NULL(discon_model_memory(m, NULL, NULL, NULL, &memory));
    IS_NULL(discon_model_memory(m, d, NULL, NULL, NULL));

    IS_NULL(discon_session_new(NULL, d, NULL, NULL, &session));
    IS_NULL(discon_session_new(m, NULL, NULL, NULL, &session));
    CHECK(session == NULL && says("device"));
    IS_NULL(discon_session_new(m, d, NULL, NULL, NULL));
    uint64_t seed = 1;
    IS_NULL(discon_session_begin(NULL, &number, &seed, 1, NULL));
    IS_NULL(discon_session_begin(s, NULL, &seed, 1, NULL));
    IS_NULL(discon_session_begin(s, &number, NULL, 1, NULL));
    IS_NULL(discon_session_step(NULL, 0, NULL));
    IS_NULL(discon_session_run(NULL, NULL, NULL));
    discon_progress progress;
    OK(discon_progress_init(&progress, sizeof progress));
    IS_NULL(discon_session_progress(NULL, &progress));
    IS_NULL(discon_session_progress(s, NULL));
    IS_NULL(discon_session_bytes(NULL, &big));
    IS_NULL(discon_session_bytes(s, NULL));
    IS_NULL(discon_session_canceller(NULL, &canceller));
    IS_NULL(discon_session_canceller(s, NULL));
    IS_NULL(discon_cancel(NULL));
    IS_NULL(discon_session_images(NULL, &images));
    IS_NULL(discon_session_images(s, NULL));
    IS_NULL(discon_session_previews(NULL, &images));
    IS_NULL(discon_session_previews(s, NULL));
    discon_target target;
    OK(discon_target_init(&target, sizeof target));
    IS_NULL(discon_session_image(NULL, 0, &target));
    IS_NULL(discon_session_image(s, 0, NULL));
    IS_NULL(discon_session_preview(NULL, 0, &target));
    IS_NULL(discon_session_tokens(NULL, 0, tokens, 4));
    IS_NULL(discon_session_tokens(s, 0, NULL, info.places * info.channels));
    IS_NULL(discon_session_codes(NULL, 0, &number, 1));
    IS_NULL(discon_session_codes(s, 0, NULL, info.places));
    double cost;
    int32_t over;
    discon_edit edit;
    IS_NULL(discon_open_options_init(NULL, sizeof(discon_open_options)));
    IS_NULL(discon_edit_init(NULL, sizeof edit));
    OK(discon_edit_init(&edit, sizeof edit));
    IS_NULL(discon_session_preview_cost(NULL, &cost));
    IS_NULL(discon_session_begin_preview(NULL));
    IS_NULL(discon_session_step_preview(NULL, 0, NULL));
    IS_NULL(discon_session_partial_previews(NULL, &images));
    IS_NULL(discon_session_partial_previews(s, NULL));
    IS_NULL(discon_session_preview_now(NULL, &images));
    IS_NULL(discon_session_preview_now(s, NULL));
    IS_NULL(discon_session_run_in_background(NULL, NULL, NULL));
    IS_NULL(discon_session_is_over(NULL, &over));
    IS_NULL(discon_session_is_over(s, NULL));
    IS_NULL(discon_session_join(NULL));
    IS_NULL(discon_session_edit(NULL, d, &edit, r, &session));
    IS_NULL(discon_session_edit(m, NULL, &edit, r, &session));
    IS_NULL(discon_session_edit(m, d, NULL, r, &session));
    IS_NULL(discon_session_edit(m, d, &edit, r, &session)); // without a picture
    IS_NULL(discon_session_edit(m, d, &edit, NULL, &session));
    IS_NULL(discon_session_edit(m, d, &edit, r, NULL));

    IS_NULL(discon_images_count(NULL, &size));
    IS_NULL(discon_images_count(i, NULL));
    IS_NULL(discon_images_get(NULL, 0, &picture));
    IS_NULL(discon_images_get(i, 0, NULL));
    IS_NULL(discon_images_copy(NULL, 0, &target));
    IS_NULL(discon_images_copy(i, 0, NULL));
    target.length = 1 << 20;
    IS_NULL(discon_images_copy(i, 0, &target));

    IS_NULL(discon_generate(NULL, d, r, &images));
    IS_NULL(discon_generate(m, NULL, r, &images));
    IS_NULL(discon_generate(m, d, NULL, &images));
    IS_NULL(discon_generate(m, d, r, NULL));
    discon_request none = *r;
    none.classes = NULL;
    IS_NULL(discon_generate(m, d, &none, &images));
    none = *r;
    none.seeds = NULL;
    IS_NULL(discon_generate(m, d, &none, &images));
    IS_NULL(discon_inpaint(NULL, d, &picture, &byte, 1, r, &images));
    IS_NULL(discon_inpaint(m, NULL, &picture, &byte, 1, r, &images));
    IS_NULL(discon_inpaint(m, d, NULL, &byte, 1, r, &images));
    IS_NULL(discon_inpaint(m, d, &picture, NULL, 1, r, &images));
    IS_NULL(discon_inpaint(m, d, &picture, &byte, 1, NULL, &images));
    IS_NULL(discon_inpaint(m, d, &picture, &byte, 1, r, NULL));
    IS_NULL(discon_outpaint(NULL, d, &picture, 0, 0, r, &images));
    IS_NULL(discon_outpaint(m, NULL, &picture, 0, 0, r, &images));
    IS_NULL(discon_outpaint(m, d, NULL, 0, 0, r, &images));
    IS_NULL(discon_outpaint(m, d, &picture, 0, 0, NULL, &images));
    IS_NULL(discon_outpaint(m, d, &picture, 0, 0, r, NULL));
    IS_NULL(discon_redraw(NULL, d, &picture, 0.5, r, &images));
    IS_NULL(discon_redraw(m, NULL, &picture, 0.5, r, &images));
    IS_NULL(discon_redraw(m, d, NULL, 0.5, r, &images));
    IS_NULL(discon_redraw(m, d, &picture, 0.5, NULL, &images));
    IS_NULL(discon_redraw(m, d, &picture, 0.5, r, NULL));
    IS_NULL(discon_variations(NULL, d, &number, 1, 0.5, r, &images));
    IS_NULL(discon_variations(m, NULL, &number, 1, 0.5, r, &images));
    IS_NULL(discon_variations(m, d, NULL, 1, 0.5, r, &images));
    IS_NULL(discon_variations(m, d, &number, 1, 0.5, NULL, &images));
    IS_NULL(discon_variations(m, d, &number, 1, 0.5, r, NULL));
    IS_NULL(discon_encode(NULL, d, &picture, tokens, 4, NULL, 0));
    IS_NULL(discon_encode(m, NULL, &picture, tokens, 4, NULL, 0));
    IS_NULL(discon_encode(m, d, NULL, tokens, 4, NULL, 0));
    IS_NULL(discon_encode(m, d, &picture, NULL, 4, NULL, 0));
    IS_NULL(discon_encode(m, d, &picture, tokens, 4, NULL, 4));
    IS_NULL(discon_decode(NULL, d, tokens, 4, &images));
    IS_NULL(discon_decode(m, NULL, tokens, 4, &images));
    IS_NULL(discon_decode(m, d, NULL, 4, &images));
    IS_NULL(discon_decode(m, d, tokens, 4, NULL));

    discon_image black = picture;
    black.pixels = NULL;
    IS_NULL(discon_redraw(m, d, &black, 0.5, r, &images));
    CHECK(images == NULL && says("pixels"));

    OK(discon_model_free(NULL));
    OK(discon_device_free(NULL));
    OK(discon_session_free(NULL));
    OK(discon_canceller_free(NULL));
    OK(discon_images_free(NULL));
    CHECK(discon_last_error(NULL, 0) > 0);
    CHECK(discon_last_error(NULL, 100) > 0);
}

// Structs of a size that no version has, or with what no version knows.
static void sizes(discon_model *m, discon_device *d, discon_request *r) {
    struct {
        discon_settings known;
        double unknown;
    } later;
    discon_images *images;
    discon_settings settings = quick(m);
    discon_request request = *r;
    request.settings = &settings;
    size_t bad[] = {0, 1, sizeof(size_t) - 1, 1 << 20, SIZE_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        settings.size = bad[i];
        GIVES(DISCON_STATUS_SIZE, discon_generate(m, d, &request, &images));
        GIVES(DISCON_STATUS_SIZE, discon_settings_init(&settings, bad[i], m));
    }
    OK(discon_settings_init((discon_settings *)&later, sizeof later, m));
    CHECK(later.known.size == sizeof later && later.unknown == 0 && later.known.rounds > 0);
    later.known.rounds = 2, later.known.steps = 3;
    request.settings = &later.known;
    OK(discon_generate(m, d, &request, &images));
    OK(discon_images_free(images));
    later.unknown = 1;
    GIVES(DISCON_STATUS_SIZE, discon_generate(m, d, &request, &images));
    CHECK(says("settings"));
    later.unknown = 0, later.known.reserved = 1;
    GIVES(DISCON_STATUS_SIZE, discon_generate(m, d, &request, &images));
    CHECK(says("settings") && says("`reserved`") && !says("size"));
    // A program of an earlier version, whose settings ended with the guidance of stage 1: the rest is the model's.
    settings = quick(m);
    settings.size = offsetof(discon_settings, discrete_temperature);
    settings.rounds = 0; // not looked at
    request.settings = &settings;
    OK(discon_generate(m, d, &request, &images));
    OK(discon_images_free(images));
    settings.size = sizeof settings;
    GIVES(DISCON_STATUS_REQUEST, discon_generate(m, d, &request, &images));
    CHECK(says("rounds"));
}

// Requests that do not fit.
static void counts(discon_model *m, discon_device *d, discon_session *s, discon_images *i, discon_request *r) {
    discon_images *images;
    discon_session *session;
    discon_model *model;
    discon_device *device;
    uint32_t classes[] = {0, 1}, number;
    uint64_t seeds[] = {1, 2};
    const char *name;
    discon_model_info info = info_of(m);
    discon_image picture = view(i, 0);

    GIVES(DISCON_STATUS_IO, discon_model_open("/there/is/no/model", NULL, &model));
    CHECK(says("/there/is/no/model"));
    discon_open_options open;
    OK(discon_open_options_init(&open, sizeof open));
    open.precision = 99;
    GIVES(DISCON_STATUS_REQUEST, discon_model_open("tiny", &open, &model));
    GIVES(DISCON_STATUS_REQUEST, discon_model_class_name(m, (uint32_t)info.classes, &name));
    GIVES(DISCON_STATUS_REQUEST, discon_model_class(m, "nobody", &number));
    GIVES(DISCON_STATUS_REQUEST, discon_model_class(m, "\xff", &number));
    discon_cpu_options cpu;
    OK(discon_cpu_options_init(&cpu, sizeof cpu));
    cpu.isa = "z80";
    GIVES(DISCON_STATUS_UNSUPPORTED, discon_device_cpu(&cpu, &device));
    CHECK(says("z80") && device == NULL);
    cpu.isa = NULL;
    cpu.threads = SIZE_MAX;
    GIVES(DISCON_STATUS_REQUEST, discon_device_cpu(&cpu, &device));

    discon_session_options options;
    OK(discon_session_options_init(&options, sizeof options));
    options.preview = 2;
    GIVES(DISCON_STATUS_REQUEST, discon_session_new(m, d, &options, NULL, &session));
    OK(discon_session_options_init(&options, sizeof options));
    options.batch = 0;
    GIVES(DISCON_STATUS_REQUEST, discon_session_new(m, d, &options, NULL, &session));
    options.batch = SIZE_MAX;
    discon_status status = discon_session_new(m, d, &options, NULL, &session);
    CHECK(status == DISCON_STATUS_REQUEST || status == DISCON_STATUS_RESOURCES);

    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, 2, NULL));
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, NULL, NULL, 0, NULL));
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, SIZE_MAX, NULL));
    classes[0] = (uint32_t)info.classes + 1;
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, 1, NULL));
    classes[0] = 0;
    discon_start start;
    OK(discon_start_init(&start, sizeof start));
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, 0, &start));
    CHECK(says("count") && !says("mixes"));
    start.order = 99;
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, 1, &start));
    OK(discon_start_init(&start, sizeof start));
    start.codes = classes;
    start.codes_count = 2;
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, 1, &start));
    CHECK(says("codes"));
    OK(discon_start_init(&start, sizeof start));
    start.mix_classes = classes;
    start.mix_count = 1;
    GIVES(DISCON_STATUS_NULL, discon_session_begin(s, classes, seeds, 1, &start));
    double weight = 1;
    start.mix_weights = &weight;
    start.mix_classes = &(uint32_t){99};
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, 1, &start));
    discon_edit edit;
    OK(discon_edit_init(&edit, sizeof edit));
    edit.kind = 4;
    GIVES(DISCON_STATUS_REQUEST, discon_session_edit(m, d, &edit, r, &session));
    GIVES(DISCON_STATUS_MISUSE, discon_session_join(s));
    float number_[2] = {0, 0};
    OK(discon_start_init(&start, sizeof start));
    start.tokens = number_;
    start.tokens_count = 2;
    GIVES(DISCON_STATUS_REQUEST, discon_session_begin(s, classes, seeds, 1, &start));

    uint8_t byte = 1;
    float *tokens = calloc(info.places * info.channels + 1, sizeof *tokens);
    GIVES(DISCON_STATUS_REQUEST, discon_inpaint(m, d, &picture, &byte, 1, r, &images));
    CHECK(says("mask"));
    GIVES(DISCON_STATUS_REQUEST, discon_outpaint(m, d, &picture, 1, 0, r, &images));
    GIVES(DISCON_STATUS_REQUEST, discon_outpaint(m, d, &picture, SIZE_MAX, 0, r, &images));
    GIVES(DISCON_STATUS_REQUEST, discon_redraw(m, d, &picture, -1, r, &images));
    GIVES(DISCON_STATUS_REQUEST, discon_variations(m, d, classes, 2, 0.5, r, &images));
    CHECK(says("codes"));
    GIVES(DISCON_STATUS_REQUEST, discon_decode(m, d, tokens, info.places * info.channels + 1, &images));
    GIVES(DISCON_STATUS_REQUEST, discon_encode(m, d, &picture, tokens, info.places * info.channels + 1, NULL, 0));
    GIVES(DISCON_STATUS_REQUEST, discon_encode(m, d, &picture, tokens, info.places * info.channels, classes, 2));
    picture.stride = 1;
    GIVES(DISCON_STATUS_REQUEST, discon_redraw(m, d, &picture, 0.5, r, &images));
    picture.stride = SIZE_MAX;
    GIVES(DISCON_STATUS_REQUEST, discon_redraw(m, d, &picture, 0.5, r, &images));
    picture = view(i, 0);
    picture.width = SIZE_MAX / 2;
    GIVES(DISCON_STATUS_REQUEST, discon_redraw(m, d, &picture, 0.5, r, &images));
    picture = view(i, 0);
    picture.format = 7;
    GIVES(DISCON_STATUS_REQUEST, discon_redraw(m, d, &picture, 0.5, r, &images));
    free(tokens);

    uint8_t pixels[12];
    discon_target target;
    OK(discon_target_init(&target, sizeof target));
    target.pixels = pixels;
    target.length = sizeof pixels;
    GIVES(DISCON_STATUS_REQUEST, discon_images_copy(i, 0, &target));
    CHECK(says("target"));
    GIVES(DISCON_STATUS_REQUEST, discon_images_copy(i, 1, &target));
    picture = view(i, 0);
    GIVES(DISCON_STATUS_REQUEST, discon_images_get(i, 1, &picture));
}

static int reenter(void *user, const discon_progress *progress) {
    discon_session *session = user;
    discon_images *images;
    uint32_t class_ = 0;
    uint64_t seed = 1;
    (void)progress;
    GIVES(DISCON_STATUS_BUSY, discon_session_step(session, 0, NULL));
    GIVES(DISCON_STATUS_BUSY, discon_session_run(session, NULL, NULL));
    GIVES(DISCON_STATUS_BUSY, discon_session_images(session, &images));
    GIVES(DISCON_STATUS_BUSY, discon_session_begin(session, &class_, &seed, 1, NULL));
    GIVES(DISCON_STATUS_BUSY, discon_session_free(session));
    return 0;
}

static int stop(void *user, const discon_progress *progress) {
    (void)user;
    return progress->fraction > 0.1;
}

// Calls at the wrong time.
static void times(discon_model *m, discon_device *d) {
    discon_settings settings = quick(m);
    discon_session *s;
    discon_images *images;
    discon_canceller *canceller;
    uint32_t class_ = 1, *codes = calloc(info_of(m).places, sizeof *codes);
    uint64_t seed = 2;
    float token;
    discon_target target;
    OK(discon_target_init(&target, sizeof target));
    OK(discon_session_new(m, d, NULL, &settings, &s));
    for (int turn = 0; turn < 2; turn++) {
        // Before begin, and after a failure.
        GIVES(DISCON_STATUS_MISUSE, discon_session_step(s, 0, NULL));
        GIVES(DISCON_STATUS_MISUSE, discon_session_run(s, NULL, NULL));
        GIVES(DISCON_STATUS_MISUSE, discon_session_images(s, &images));
        CHECK(images == NULL);
        GIVES(DISCON_STATUS_MISUSE, discon_session_previews(s, &images));
        GIVES(DISCON_STATUS_MISUSE, discon_session_image(s, 0, &target));
        GIVES(DISCON_STATUS_MISUSE, discon_session_tokens(s, 0, &token, 1));
        GIVES(DISCON_STATUS_MISUSE, discon_session_codes(s, 0, &class_, 1));
        // Before the end.
        OK(discon_session_begin(s, &class_, &seed, 1, NULL));
        GIVES(DISCON_STATUS_MISUSE, discon_session_images(s, &images));
        GIVES(DISCON_STATUS_MISUSE, discon_session_tokens(s, 0, &token, 1));
        GIVES(DISCON_STATUS_MISUSE, discon_session_codes(s, 0, &class_, 1));
        GIVES(DISCON_STATUS_REQUEST, discon_session_previews(s, &images)); // it makes none
        // From inside.
        OK(discon_session_run(s, reenter, s));
        OK(discon_session_codes(s, 0, codes, info_of(m).places));
        GIVES(DISCON_STATUS_REQUEST, discon_session_codes(s, 1, codes, info_of(m).places));
        GIVES(DISCON_STATUS_REQUEST, discon_session_codes(s, 0, codes, info_of(m).places - 1));
        GIVES(DISCON_STATUS_REQUEST, discon_session_tokens(s, 0, &token, 1));
        // A finished one may be run again: there is nothing to do.
        OK(discon_session_run(s, NULL, NULL));
        OK(discon_session_begin(s, &class_, &seed, 1, NULL));
        GIVES(DISCON_STATUS_CANCELLED, discon_session_run(s, stop, NULL));
    }
    OK(discon_session_canceller(s, &canceller));
    OK(discon_session_begin(s, &class_, &seed, 1, NULL));
    OK(discon_cancel(canceller));
    GIVES(DISCON_STATUS_CANCELLED, discon_session_step(s, 0, NULL));
    OK(discon_session_begin(s, &class_, &seed, 1, NULL));
    OK(discon_session_run(s, NULL, NULL));
    OK(discon_session_free(s));
    OK(discon_cancel(canceller)); // nobody there any more
    OK(discon_canceller_free(canceller));
    free(codes);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    discon_model *model = opened(argv[1]);
    discon_device *device = cpu(2);
    discon_settings settings = quick(model);
    discon_session *session;
    discon_images *images, *after;
    discon_request request;
    uint32_t class_ = 1;
    uint64_t seed = 7;
    OK(discon_request_init(&request, sizeof request));
    request.count = 1;
    request.classes = &class_;
    request.seeds = &seed;
    request.settings = &settings;
    OK(discon_generate(model, device, &request, &images));
    OK(discon_session_new(model, device, NULL, &settings, &session));
    OK(discon_session_begin(session, &class_, &seed, 1, NULL));
    OK(discon_session_run(session, NULL, NULL));

    nulls(model, device, session, images, &request);
    sizes(model, device, &request);
    counts(model, device, session, images, &request);
    times(model, device);
    discon_allocator allocator;
    OK(discon_allocator_init(&allocator, sizeof allocator));
    GIVES(DISCON_STATUS_NULL, discon_set_allocator(&allocator));

    // Refused calls have left all as it was.
    OK(discon_session_images(session, &after));
    CHECK(same(view(after, 0), view(images, 0)));
    OK(discon_images_free(after));
    OK(discon_generate(model, device, &request, &after));
    CHECK(same(view(after, 0), view(images, 0)));
    OK(discon_images_free(after));
    OK(discon_images_free(images));
    OK(discon_session_free(session));
    OK(discon_device_free(device));
    OK(discon_model_free(model));
    return 0;
}
