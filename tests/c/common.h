// What the tests share: a check that ends the test with the line and the library's words.

#ifndef COMMON_H
#define COMMON_H

#include <discon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void fail(const char *file, int line, const char *what) {
    char text[2049];
    discon_last_error(text, sizeof text);
    fprintf(stderr, "%s:%d: %s\n    the last error: %s\n", file, line, what, text);
    exit(1);
}

static inline void is(const char *file, int line, const char *call, discon_status found, discon_status expected) {
    if (found == expected) return;
    fprintf(stderr, "expected `%s`, found `%s`\n", discon_status_name(expected), discon_status_name(found));
    fail(file, line, call);
}

#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition))
#define GIVES(status, call) is(__FILE__, __LINE__, #call, call, status)
#define OK(call) GIVES(DISCON_STATUS_OK, call)

// Whether the last error has that word.
static inline int says(const char *word) {
    char text[2049];
    discon_last_error(text, sizeof text);
    return strstr(text, word) != NULL;
}

// A device by the environment: DISCON_TEST_ISA is the instruction set, for tools that do not know the best one.
static inline discon_device *cpu(size_t threads) {
    discon_cpu_options options;
    discon_device *device;
    OK(discon_cpu_options_init(&options, sizeof options));
    options.threads = threads;
    options.isa = getenv("DISCON_TEST_ISA");
    OK(discon_device_cpu(&options, &device));
    return device;
}

static inline discon_model *opened(const char *folder) {
    discon_model *model;
    OK(discon_model_open(folder, NULL, &model));
    return model;
}

static inline discon_model_info info_of(const discon_model *model) {
    discon_model_info info;
    OK(discon_model_info_init(&info, sizeof info));
    OK(discon_model_get_info(model, &info));
    return info;
}

// Few rounds and steps.
static inline discon_settings quick(const discon_model *model) {
    discon_settings settings;
    OK(discon_settings_init(&settings, sizeof settings, model));
    settings.rounds = 2;
    settings.steps = 3;
    return settings;
}

static inline discon_image view(const discon_images *images, size_t index) {
    discon_image image;
    OK(discon_image_init(&image, sizeof image));
    OK(discon_images_get(images, index, &image));
    return image;
}

static inline int same(discon_image a, discon_image b) {
    return a.width == b.width && a.height == b.height && !memcmp(a.pixels, b.pixels, a.width * a.height * 3);
}

static inline void *room(size_t bytes) {
    void *memory = malloc(bytes);
    CHECK(memory);
    memset(memory, 0xA5, bytes);
    return memory;
}

#endif
