// Several threads: cancelling, a session at work elsewhere, a host's own threads.
// usage: threads MODEL

#define _POSIX_C_SOURCE 200809L
#include "common.h"
#include <pthread.h>
#include <time.h>

static void nap(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

struct run {
    discon_session *session;
    discon_status status;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int inside, leave;
};

// Stays inside of the run until it is let go.
static int hold(void *user, const discon_progress *progress) {
    struct run *run = user;
    (void)progress;
    pthread_mutex_lock(&run->mutex);
    run->inside = 1;
    pthread_cond_signal(&run->changed);
    while (!run->leave) pthread_cond_wait(&run->changed, &run->mutex);
    pthread_mutex_unlock(&run->mutex);
    return 0;
}

static void *work(void *user) {
    struct run *run = user;
    run->status = discon_session_run(run->session, hold, run);
    return NULL;
}

static void cancelled_from_elsewhere(discon_model *model, discon_device *device, discon_settings *settings) {
    struct run run = {0};
    discon_canceller *canceller;
    discon_images *images;
    pthread_t thread;
    uint32_t class_ = 1;
    uint64_t seed = 3;
    pthread_mutex_init(&run.mutex, NULL);
    pthread_cond_init(&run.changed, NULL);
    OK(discon_session_new(model, device, NULL, settings, &run.session));
    OK(discon_session_canceller(run.session, &canceller));
    OK(discon_session_begin(run.session, &class_, &seed, 1, NULL));
    CHECK(!pthread_create(&thread, NULL, work, &run));
    pthread_mutex_lock(&run.mutex);
    while (!run.inside) pthread_cond_wait(&run.changed, &run.mutex);
    pthread_mutex_unlock(&run.mutex);
    GIVES(DISCON_STATUS_BUSY, discon_session_step(run.session, 0, NULL));
    GIVES(DISCON_STATUS_BUSY, discon_session_images(run.session, &images));
    GIVES(DISCON_STATUS_BUSY, discon_session_free(run.session));
    OK(discon_cancel(canceller));
    pthread_mutex_lock(&run.mutex);
    run.leave = 1;
    pthread_cond_signal(&run.changed);
    pthread_mutex_unlock(&run.mutex);
    CHECK(!pthread_join(thread, NULL));
    CHECK(run.status == DISCON_STATUS_CANCELLED);
    // At once again.
    OK(discon_session_begin(run.session, &class_, &seed, 1, NULL));
    OK(discon_session_run(run.session, NULL, NULL));
    OK(discon_session_free(run.session));
    OK(discon_canceller_free(canceller));
    pthread_mutex_destroy(&run.mutex);
    pthread_cond_destroy(&run.changed);
}

// A host's threads: take jobs from a list until told to end.
struct host {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    discon_job jobs[64];
    int count, end, drop;
    long asked, done;
    double longest; // seconds that a job took
};

static double now(void) {
    struct timespec time;
    CHECK(!clock_gettime(CLOCK_MONOTONIC, &time));
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void spawn(void *user, discon_job job) {
    struct host *host = user;
    pthread_mutex_lock(&host->mutex);
    host->asked++;
    int taken = !host->drop && host->count < 64;
    if (taken) host->jobs[host->count++] = job;
    pthread_cond_signal(&host->changed);
    pthread_mutex_unlock(&host->mutex);
    if (!taken) job.discard(job.data);
}

static void *serve(void *user) {
    struct host *host = user;
    pthread_mutex_lock(&host->mutex);
    for (;;) {
        while (!host->count && !host->end) pthread_cond_wait(&host->changed, &host->mutex);
        if (!host->count) break;
        discon_job job = host->jobs[--host->count];
        pthread_mutex_unlock(&host->mutex);
        double start = now();
        job.run(job.data);
        double took = now() - start;
        pthread_mutex_lock(&host->mutex);
        if (took > host->longest) host->longest = took;
        host->done++;
    }
    pthread_mutex_unlock(&host->mutex);
    return NULL;
}

static void on_threads_of_the_host(discon_model *model, const discon_request *request, const discon_images *expected) {
    for (int drop = 0; drop < 2; drop++) {
        struct host host = {0};
        pthread_t threads[2];
        discon_cpu_options options;
        discon_device *device;
        discon_images *images;
        host.drop = drop;
        pthread_mutex_init(&host.mutex, NULL);
        pthread_cond_init(&host.changed, NULL);
        for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, serve, &host));
        OK(discon_cpu_options_init(&options, sizeof options));
        options.threads = 3;
        options.isa = getenv("DISCON_TEST_ISA");
        options.spawn = spawn;
        options.user = &host;
        OK(discon_device_cpu(&options, &device));
        for (int turn = 0; turn < 3; turn++) {
            OK(discon_generate(model, device, request, &images));
            for (size_t i = 0; i < request->count; i++) CHECK(same(view(images, i), view(expected, i)));
            OK(discon_images_free(images));
        }
        OK(discon_device_free(device));
        pthread_mutex_lock(&host.mutex);
        host.end = 1;
        pthread_cond_broadcast(&host.changed);
        pthread_mutex_unlock(&host.mutex);
        for (int i = 0; i < 2; i++) CHECK(!pthread_join(threads[i], NULL));
        CHECK(host.asked > 0 && host.count == 0 && (drop || host.done == host.asked));
        // One at least helped, or waited for work: it did not just return.
        CHECK(drop || host.longest > 100e-6);
        pthread_mutex_destroy(&host.mutex);
        pthread_cond_destroy(&host.changed);
    }
}

struct started {
    pthread_mutex_t mutex;
    size_t threads, numbers;
};

static void start(void *user, size_t thread) {
    struct started *started = user;
    pthread_mutex_lock(&started->mutex);
    started->threads++;
    started->numbers |= (size_t)1 << thread;
    pthread_mutex_unlock(&started->mutex);
}

static void threads_tell_that_they_start(void) {
    struct started started = {0};
    discon_cpu_options options;
    discon_device *device;
    pthread_mutex_init(&started.mutex, NULL);
    OK(discon_cpu_options_init(&options, sizeof options));
    options.threads = 4;
    options.thread_start = start;
    options.user = &started;
    OK(discon_device_cpu(&options, &device));
    CHECK(started.threads == 3 && started.numbers == 14);
    OK(discon_device_free(device));
    options.spawn = spawn;
    GIVES(DISCON_STATUS_MISUSE, discon_device_cpu(&options, &device));
    pthread_mutex_destroy(&started.mutex);
}

struct error {
    char text[2049];
};

static void *fails(void *user) {
    struct error *error = user;
    discon_model *model;
    CHECK(discon_last_error(error->text, sizeof error->text) == 0 && error->text[0] == 0);
    GIVES(DISCON_STATUS_IO, discon_model_open("/not/here", NULL, &model));
    discon_last_error(error->text, sizeof error->text);
    return NULL;
}

// Each thread has its own last error.
static void errors_are_of_threads(void) {
    struct error error;
    pthread_t thread;
    discon_model *model;
    GIVES(DISCON_STATUS_IO, discon_model_open("/nor/there", NULL, &model));
    CHECK(!pthread_create(&thread, NULL, fails, &error));
    CHECK(!pthread_join(thread, NULL));
    CHECK(strstr(error.text, "/not/here") && says("/nor/there"));
}

// A run that is really at work.
static void *run_to_the_end(void *user) {
    struct run *run = user;
    run->status = discon_session_run(run->session, NULL, NULL);
    return NULL;
}

static void cancelled_at_any_time(discon_model *model, discon_device *device) {
    discon_settings settings;
    struct run run = {0};
    discon_canceller *canceller;
    uint32_t class_ = 1;
    uint64_t seed = 3;
    int cancelled = 0;
    OK(discon_settings_init(&settings, sizeof settings, model));
    settings.steps = 100; // so that there is something to cancel
    OK(discon_session_new(model, device, NULL, &settings, &run.session));
    OK(discon_session_canceller(run.session, &canceller));
    for (int turn = 0; turn < 10; turn++) {
        pthread_t thread;
        OK(discon_session_begin(run.session, &class_, &seed, 1, NULL));
        CHECK(!pthread_create(&thread, NULL, run_to_the_end, &run));
        nap(turn);
        OK(discon_cancel(canceller));
        CHECK(!pthread_join(thread, NULL));
        CHECK(run.status == DISCON_STATUS_OK || run.status == DISCON_STATUS_CANCELLED);
        cancelled += run.status == DISCON_STATUS_CANCELLED;
    }
    CHECK(cancelled > 0);
    OK(discon_canceller_free(canceller));
    OK(discon_session_free(run.session));
}

// From `on_event`: to join or free would be to wait for its own end. Refused, and the run goes on.
static int ask_for_its_end(void *user, const discon_event *event) {
    struct run *run = user;
    int32_t over;
    OK(discon_session_is_over(run->session, &over));
    CHECK(over == 0);
    GIVES(DISCON_STATUS_BUSY, discon_session_join(run->session));
    GIVES(DISCON_STATUS_BUSY, discon_session_free(run->session));
    if (event->kind == DISCON_EVENT_KIND_IMAGES) {
        pthread_mutex_lock(&run->mutex);
        run->inside = 1;
        pthread_cond_signal(&run->changed);
        pthread_mutex_unlock(&run->mutex);
    }
    return 0;
}

// The first event may come before the call that starts the run has returned: what it asks is answered all the same.
static int ask_at_once(void *user, const discon_event *event) {
    struct run *run = user;
    int32_t over;
    (void)event;
    if (run->inside) return 1; // the last event, of a run that was faster than its cancelling: the session is being joined
    OK(discon_session_is_over(run->session, &over));
    CHECK(over == 0);
    pthread_mutex_lock(&run->mutex);
    run->inside = 1;
    pthread_cond_signal(&run->changed);
    pthread_mutex_unlock(&run->mutex);
    return 1;
}

static void asked_at_once(discon_model *model, discon_device *device, discon_settings *settings) {
    struct run run = {0};
    uint32_t class_ = 1;
    uint64_t seed = 3;
    pthread_mutex_init(&run.mutex, NULL);
    pthread_cond_init(&run.changed, NULL);
    OK(discon_session_new(model, device, NULL, settings, &run.session));
    for (int turn = 0; turn < 200; turn++) {
        run.inside = 0;
        OK(discon_session_begin(run.session, &class_, &seed, 1, NULL));
        OK(discon_session_run_in_background(run.session, ask_at_once, &run));
        pthread_mutex_lock(&run.mutex);
        while (!run.inside) pthread_cond_wait(&run.changed, &run.mutex);
        pthread_mutex_unlock(&run.mutex);
        discon_status status = discon_session_join(run.session);
        CHECK(status == DISCON_STATUS_CANCELLED || status == DISCON_STATUS_OK); // it may be faster
    }
    OK(discon_session_free(run.session));
    pthread_mutex_destroy(&run.mutex);
    pthread_cond_destroy(&run.changed);
}

// Waits until the session is being freed: then its calls of it are refused.
static int wait_for_its_end(void *user, const discon_event *event) {
    struct run *run = user;
    int32_t over;
    (void)event;
    pthread_mutex_lock(&run->mutex);
    run->inside = 1;
    pthread_cond_signal(&run->changed);
    pthread_mutex_unlock(&run->mutex);
    double start = now();
    discon_status status;
    while ((status = discon_session_is_over(run->session, &over)) == DISCON_STATUS_OK) {
        CHECK(over == 0 && now() < start + 60);
        nap(1);
    }
    CHECK(status == DISCON_STATUS_BUSY);
    discon_progress progress;
    OK(discon_progress_init(&progress, sizeof progress));
    GIVES(DISCON_STATUS_BUSY, discon_session_progress(run->session, &progress));
    GIVES(DISCON_STATUS_BUSY, discon_session_join(run->session));
    GIVES(DISCON_STATUS_BUSY, discon_session_free(run->session));
    run->leave = 1;
    return 0;
}

static void ended_from_inside(discon_model *model, discon_device *device, discon_settings *settings) {
    struct run run = {0};
    uint32_t class_ = 1;
    uint64_t seed = 3;
    discon_images *images;
    pthread_mutex_init(&run.mutex, NULL);
    pthread_cond_init(&run.changed, NULL);
    OK(discon_session_new(model, device, NULL, settings, &run.session));
    for (int freed = 0; freed < 2; freed++) {
        run.inside = 0;
        OK(discon_session_begin(run.session, &class_, &seed, 1, NULL));
        OK(discon_session_run_in_background(run.session, freed ? wait_for_its_end : ask_for_its_end, &run));
        pthread_mutex_lock(&run.mutex);
        while (!run.inside) pthread_cond_wait(&run.changed, &run.mutex);
        pthread_mutex_unlock(&run.mutex);
        if (freed) {
            // It may ask at the very moment, and hold the session for it.
            discon_status status;
            while ((status = discon_session_free(run.session)) == DISCON_STATUS_BUSY) nap(1);
            CHECK(status == DISCON_STATUS_OK && run.leave);
        } else {
            OK(discon_session_join(run.session));
            OK(discon_session_images(run.session, &images));
            OK(discon_images_free(images));
        }
    }
    pthread_mutex_destroy(&run.mutex);
    pthread_cond_destroy(&run.changed);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    errors_are_of_threads();
    threads_tell_that_they_start();
    discon_model *model = opened(argv[1]);
    discon_device *device = cpu(2);
    discon_settings settings = quick(model);
    uint32_t classes[] = {1, 2};
    uint64_t seeds[] = {7, 8};
    discon_request request;
    discon_images *images;
    OK(discon_request_init(&request, sizeof request));
    request.count = 2;
    request.classes = classes;
    request.seeds = seeds;
    request.settings = &settings;
    OK(discon_generate(model, device, &request, &images));
    cancelled_from_elsewhere(model, device, &settings);
    cancelled_at_any_time(model, device);
    asked_at_once(model, device, &settings);
    ended_from_inside(model, device, &settings);
    on_threads_of_the_host(model, &request, images);
    OK(discon_images_free(images));
    OK(discon_device_free(device));
    OK(discon_model_free(model));
    return 0;
}
